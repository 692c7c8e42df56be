//! How long content stays that nobody uses: as long as the user of it that keeps it longest.
//!
//! Users are tags, manifests and blobs that upstream showed in a repository without a manifest there that
//! lists them, and what such a user lists lives as long as it does. So a manifest that stays keeps
//! its layers, and a manifest expires no later than what it lists.

use std::time::Duration;

use super::{
    Table,
    names::{RepositoryId, RepositorySlot},
    slots::{Id, Slot},
    usage::MAX_LEVELS,
};
use crate::{config::Rule, oci::Registry};

/// By what content stays.
#[derive(Clone, Debug, Default)]
pub struct Keeping {
    /// Running time after which unused content expires that no rule is about. `None`: never.
    pub expire_after: Option<Duration>,
    /// Registries of which nothing expires now.
    pub unreachable: Vec<Registry>,
}

/// How long a digest stays that nobody uses, shortest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Keep {
    /// Until it was unused for so long.
    For(Duration),
    /// Until its room is needed.
    WhileThereIsRoom,
    /// For ever: it is pinned.
    Always,
}

impl Keep {
    /// What a rule says of the content that it is about. `None`: nothing.
    pub(super) fn by(rule: &Rule) -> Option<Keep> {
        if rule.pin { Some(Keep::Always) } else { rule.expire_after.map(Keep::until) }
    }

    /// Whether this ends after so much time without use.
    pub fn ends_after(self, unused: Duration) -> bool {
        matches!(self, Keep::For(limit) if unused >= limit)
    }

    fn until(life: Option<Duration>) -> Keep {
        life.map_or(Keep::WhileThereIsRoom, Keep::For)
    }
}

impl Table {
    /// How long a digest stays that nobody uses. Looks at every user once, which are as many as
    /// there are manifests above it and repositories that show it, whatever tags those have.
    pub(super) fn keep(&self, id: Id, keeping: &Keeping) -> Keep {
        if self.is_held(id) {
            return Keep::Always;
        }
        let default = Keep::until(keeping.expire_after);
        if self.rules.is_empty() && keeping.unreachable.is_empty() {
            return default;
        }
        let mut longest = None;
        let mut level = vec![id];
        for _ in 0..MAX_LEVELS {
            let users = level.iter().filter_map(|id| self.kept_by_repositories(*id, keeping));
            longest = longest.max(users.max());
            if longest == Some(Keep::Always) {
                break;
            }
            level = self.above(&level);
        }
        longest.unwrap_or(default)
    }

    /// Whether a digest is pinned, by command or by a rule, or is below what is.
    pub(super) fn stays(&self, id: Id) -> bool {
        self.keep(id, &Keeping::default()) == Keep::Always
    }

    /// Whether something holds of a digest or of a manifest that it is below.
    pub(super) fn any_upward(&self, id: Id, holds: impl Fn(Id, &Slot) -> bool) -> bool {
        let mut level = vec![id];
        for _ in 0..MAX_LEVELS {
            let mut slots = level.iter().filter_map(|id| Some((*id, self.slots.get(*id)?)));
            if slots.any(|(id, slot)| holds(id, slot)) {
                return true;
            }
            level = self.above(&level);
        }
        false
    }

    /// How long those repositories keep it that use it for itself.
    fn kept_by_repositories(&self, id: Id, keeping: &Keeping) -> Option<Keep> {
        let slot = self.slots.get(id)?;
        let mut above = Above { table: self, slot, repositories: None };
        let mut longest = None;
        for number in slot.edges.repositories() {
            let Some(repository) = self.repository_at(*number) else {
                continue;
            };
            let is_listed = || above.are_shown_in(*number);
            longest = longest.max(kept_by_repository(repository, id, keeping, is_listed));
        }
        longest
    }

    /// The manifests that list any of these.
    fn above(&self, level: &[Id]) -> Vec<Id> {
        let slots = level.iter().filter_map(|id| self.slots.get(*id));
        let mut above: Vec<Id> =
            slots.flat_map(|slot| slot.edges.parents().iter().copied()).collect();
        above.sort_unstable();
        above.dedup();
        above
    }
}

fn kept_by_repository(
    repository: &RepositorySlot,
    id: Id,
    keeping: &Keeping,
    is_listed: impl FnOnce() -> bool,
) -> Option<Keep> {
    let default = Keep::until(keeping.expire_after);
    let is_unreachable = keeping.unreachable.contains(repository.repository.registry());
    let by_outage = is_unreachable.then_some(Keep::WhileThereIsRoom);
    let by_rules = match &repository.ruled {
        // Every user in there keeps it equally long.
        None => Some(default),
        Some(ruled) => {
            ruled.by_tags(id, default).or_else(|| (!is_listed()).then(|| ruled.by_digest(default)))
        }
    };
    by_rules.max(by_outage)
}

/// The manifests that list one digest, with the repositories that show them once somebody asks.
struct Above<'t> {
    table: &'t Table,
    slot: &'t Slot,
    repositories: Option<Vec<RepositoryId>>,
}

impl Above<'_> {
    fn are_shown_in(&mut self, repository: RepositoryId) -> bool {
        let find = || {
            let parents =
                self.slot.edges.parents().iter().filter_map(|id| self.table.slots.get(*id));
            let mut shown: Vec<_> =
                parents.flat_map(|slot| slot.edges.repositories()).copied().collect();
            shown.sort_unstable();
            shown.dedup();
            shown
        };
        self.repositories.get_or_insert_with(find).binary_search(&repository).is_ok()
    }
}
