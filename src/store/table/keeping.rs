//! How long content stays that nobody uses.

use std::time::Duration;

use super::{Table, slots::Id, usage::MAX_LEVELS};
use crate::oci::Registry;

/// By what content stays.
#[derive(Clone, Debug, Default)]
pub struct Keeping {
    /// Running time after which unused content expires. `None`: never.
    pub expire_after: Option<Duration>,
    /// Registries of which nothing expires now.
    pub unreachable: Vec<Registry>,
}

/// How long a digest stays that nobody uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// Until it was unused for so long.
    For(Duration),
    /// Until its room is needed.
    WhileThereIsRoom,
    /// Whatever room is needed.
    #[cfg_attr(not(test), expect(dead_code, reason = "nothing can be pinned yet"))]
    Always,
}

impl Table {
    /// How long a digest stays that nobody uses.
    pub(super) fn keep(&self, id: Id, keeping: &Keeping) -> Keep {
        match keeping.expire_after {
            Some(limit) if !self.belongs_to(id, &keeping.unreachable) => Keep::For(limit),
            Some(_) | None => Keep::WhileThereIsRoom,
        }
    }

    /// Whether upstream showed the digest, or a manifest that it is below, in one of these
    /// registries.
    fn belongs_to(&self, id: Id, registries: &[Registry]) -> bool {
        let mut level = vec![id];
        for _ in 0..MAX_LEVELS {
            let slots = || level.iter().filter_map(|id| self.slots.get(*id));
            if slots().any(|slot| self.any_of(&slot.repositories, registries)) {
                return true;
            }
            let mut above: Vec<Id> =
                slots().flat_map(|slot| slot.parents.iter().copied()).collect();
            above.sort_unstable();
            above.dedup();
            level = above;
        }
        false
    }
}
