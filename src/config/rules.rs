//! `[[cache.rule]]`: what differs for some images.
//!
//! - A rule is about names, `registry/name:tag`. What is asked for by digest belongs to its repository, and so
//!   to the first rule that has all of the repository's tags.
//! - The first rule that matches is the only one: what it leaves out has the default, whatever the
//!   rules below it say.

mod images;

use std::{sync::Arc, time::Duration};

use self::images::Images;
use super::{
    Upstream,
    reader::{Reader, Section},
    value,
    written::{Origin, Written},
};
use crate::oci::{Repository, Tag};

/// All rules, in order. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Rules(Arc<[Arc<Rule>]>);

/// The rules that have images in one repository, in order.
#[derive(Clone, Debug, Default)]
pub struct RepositoryRules(Box<[Arc<Rule>]>);

/// One `[[cache.rule]]`.
#[derive(Clone, Debug)]
pub struct Rule {
    images: Images,
    /// How long a tag is served without asking upstream. `None`: as long as the upstream's key says.
    pub tag_ttl: Option<Duration>,
    /// Running time after which it leaves unused; the inner `None`: never by age. `None`: as long as
    /// `cache.expire_after` says.
    pub expire_after: Option<Option<Duration>>,
    /// Whether it never leaves the cache.
    pub pin: bool,
    /// Whether nobody gets it.
    pub deny: bool,
}

impl Rules {
    /// Reads every `[[cache.rule]]`.
    pub(super) fn read(reader: &mut Reader<'_>, upstreams: &[Upstream]) -> Rules {
        let mut section = reader.section("cache");
        let mut rules: Vec<(Arc<Rule>, Origin<'_>)> = Vec::new();
        for table in section.tables("rule") {
            let rule = section.below("rule", table).and_then(|keys| Rule::read(keys, upstreams));
            rules.extend(rule.map(|rule| (Arc::new(rule), table.origin)));
        }
        for (place, (rule, origin)) in rules.iter().enumerate() {
            let before = rules.iter().take(place);
            if let Some(why) = why_idle(rule, before, upstreams) {
                let images = rule.as_str();
                reader.warn(format!("{origin}: cache.rule.match: \"{images}\" {why}"));
            }
        }
        Rules(rules.into_iter().map(|(rule, _)| rule).collect())
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The rules that have images in a repository.
    pub fn of(&self, repository: &Repository) -> RepositoryRules {
        if self.is_empty() {
            return RepositoryRules::default();
        }
        let name = repository.to_string();
        let rules = self.0.iter().filter(|rule| rule.images.are_in(&name));
        RepositoryRules(rules.cloned().collect())
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Rule> {
        self.0.iter().map(|rule| &**rule)
    }
}

impl RepositoryRules {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The rule of a tag.
    pub fn of_tag(&self, tag: &Tag) -> Option<&Rule> {
        self.first(|rule| rule.images.have_tag(tag))
    }

    /// The rule of what is asked for without a tag.
    pub fn of_digests(&self) -> Option<&Rule> {
        self.first(|rule| rule.images.have_all_tags())
    }

    /// The rule by which nobody gets anything of the repository. `None` also when somebody may get a
    /// single tag: nothing tells whether a digest belongs to that.
    pub fn denial_of_all(&self) -> Option<&Rule> {
        let of_digests = self.of_digests().filter(|rule| rule.deny)?;
        let mut earlier = self.0.iter().take_while(|rule| !rule.images.have_all_tags());
        earlier.all(|rule| rule.deny).then_some(of_digests)
    }

    fn first(&self, is_it: impl Fn(&Rule) -> bool) -> Option<&Rule> {
        self.0.iter().map(|rule| &**rule).find(|rule| is_it(rule))
    }
}

impl Rule {
    /// What it is about, as it is written.
    pub fn as_str(&self) -> &str {
        self.images.as_str()
    }

    fn read(mut keys: Section<'_, '_>, upstreams: &[Upstream]) -> Option<Rule> {
        if !keys.has("match") {
            let message = "is missing; write for example match = \"docker.io/library/*:*\"";
            keys.wrong("match", message);
        }
        let images = keys.take("match", |written: Written<'_>| Images::read(written, upstreams));
        let tag_ttl = keys.take("tag_ttl", value::duration);
        let expire_after = keys.take("expire_after", value::positive_duration_or_never);
        let pin = keys.take("pin", value::boolean).unwrap_or(false);
        let deny = keys.take("deny", value::boolean).unwrap_or(false);
        refuse_contradictions(&mut keys, pin, deny);
        Some(Rule { images: images?, tag_ttl, expire_after, pin, deny })
    }
}

fn refuse_contradictions(keys: &mut Section<'_, '_>, pin: bool, deny: bool) {
    let says_something = ["tag_ttl", "expire_after", "pin", "deny"].iter().any(|key| keys.has(key));
    if keys.has("match") && !says_something {
        let message = "says nothing of these images; add tag_ttl, expire_after, pin or deny (deny = false \
                       makes an exception from the rules below)";
        keys.wrong("match", message);
    }
    if pin && deny {
        keys.wrong("pin", "keeps what nobody gets; write pin or deny, not both");
    }
    if pin && keys.has("expire_after") {
        keys.wrong("expire_after", "has no effect on what is pinned; leave it out");
    }
    if deny && keys.has("tag_ttl") {
        keys.wrong("tag_ttl", "has no effect on what is denied; leave it out");
    }
}

/// Why a rule is never the first that matches.
fn why_idle<'r, 'a: 'r>(
    rule: &Rule,
    mut before: impl Iterator<Item = &'r (Arc<Rule>, Origin<'a>)>,
    upstreams: &[Upstream],
) -> Option<String> {
    if let Some((wider, place)) = before.find(|(wider, _)| wider.images.cover(&rule.images)) {
        let wider = wider.as_str();
        return Some(format!(
            "can never be the first that matches: \"{wider}\" ({place}) has all of it; put it before that"
        ));
    }
    let why = "can match no image of any registry that is mirrored; * stands for one component of a \
               name, ** for any number";
    (!rule.images.are_in_any(upstreams)).then(|| why.to_owned())
}
