//! What the rules say of the content of one repository, so that nothing need look at its tags to know
//! how long a manifest stays.

use std::collections::BTreeMap;

use super::{Table, keeping::Keep, names::RepositorySlot, slots::Id};
use crate::{
    config::{RepositoryRules, Rules},
    oci::{Repository, Tag},
};

/// A repository that rules are about.
#[derive(Debug)]
pub(super) struct Ruled {
    rules: RepositoryRules,
    /// How many tags keep which manifest how long. With `None`, no rule says.
    tags: BTreeMap<(Id, Option<Keep>), u32>,
}

impl Table {
    /// The rules that are in force.
    pub fn rules(&self) -> Rules {
        self.rules.clone()
    }

    /// From now on these rules are in force.
    pub fn apply_rules(&mut self, rules: Rules) {
        self.rules = rules;
        for repository in &mut self.repositories {
            repository.apply_rules(&self.rules);
        }
    }
}

impl RepositorySlot {
    fn apply_rules(&mut self, rules: &Rules) {
        self.ruled = Ruled::of(rules, &self.repository);
        let Some(ruled) = &mut self.ruled else {
            return;
        };
        for (pointer, meaning) in &self.pointers {
            if let Some(tag) = pointer.tag() {
                ruled.add(tag, meaning.manifest);
            }
        }
    }
}

impl Ruled {
    /// `None`: no rule is about the repository.
    pub(super) fn of(rules: &Rules, repository: &Repository) -> Option<Box<Ruled>> {
        let rules = rules.of(repository);
        (!rules.is_empty()).then(|| Box::new(Ruled { rules, tags: BTreeMap::new() }))
    }

    /// A tag means a manifest.
    pub(super) fn add(&mut self, tag: &Tag, manifest: Id) {
        let count = self.tags.entry((manifest, self.keep(tag))).or_default();
        *count = count.saturating_add(1);
    }

    /// A tag means a manifest no longer.
    pub(super) fn remove(&mut self, tag: &Tag, manifest: Id) {
        let key = (manifest, self.keep(tag));
        let Some(count) = self.tags.get_mut(&key) else {
            return;
        };
        *count = count.saturating_sub(1);
        if *count == 0 {
            self.tags.remove(&key);
        }
    }

    /// How long the tags of a manifest keep it, where no rule says `default`. `None`: it has none.
    pub(super) fn by_tags(&self, manifest: Id, default: Keep) -> Option<Keep> {
        let tags = self.tags.range((manifest, None)..=(manifest, Some(Keep::Always)));
        tags.map(|((_, keep), _)| keep.unwrap_or(default)).max()
    }

    /// How long what has no tag is kept.
    pub(super) fn by_digest(&self, default: Keep) -> Keep {
        self.rules.of_digests().and_then(Keep::by).unwrap_or(default)
    }

    fn keep(&self, tag: &Tag) -> Option<Keep> {
        self.rules.of_tag(tag).and_then(Keep::by)
    }
}
