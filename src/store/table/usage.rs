//! When things were last used, and what nobody used for long.

use std::time::Duration;

use super::{
    Kind, Table,
    keeping::{Keep, Keeping},
    slots::{Id, Slot},
};
use crate::{
    oci::{Digest, MAX_NESTING},
    store::{TOUCH_INTERVAL, running::Moment},
};

/// Levels from the highest manifest down to a layer.
pub(super) const MAX_LEVELS: u32 = MAX_NESTING + 2;

/// A digest, and how long nobody used it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Aged {
    pub digest: Digest,
    pub unused: Duration,
    /// What it lists, when it is a manifest.
    pub kind: Option<Kind>,
    /// How long it is kept unused.
    pub keep: Keep,
}

impl Table {
    /// A digest is used now, and with it everything below.
    pub fn touch(&mut self, digest: &Digest, now: Moment) {
        if let Some(id) = self.slots.find(digest) {
            self.use_all_below(id, now);
        }
    }

    /// How long nobody used a digest. `None`: it is not known.
    pub fn unused(&self, digest: &Digest, now: Moment) -> Option<Duration> {
        Some(now.since(self.slots.of(digest)?.last_use))
    }

    /// Among the `count` slots from number `from`, those that nobody used for `limit`. `None`:
    /// there are no more slots.
    pub fn aged(
        &self,
        from: usize,
        count: usize,
        limit: Duration,
        keeping: &Keeping,
        now: Moment,
    ) -> Option<Vec<Aged>> {
        if from >= self.slots.end() {
            return None;
        }
        let slots = self.slots.range(from, count);
        let aged = slots.filter(|(_, slot)| is_own(slot) && now.since(slot.last_use) >= limit);
        let aged = aged.map(|(id, slot)| Aged {
            digest: slot.digest.clone(),
            unused: now.since(slot.last_use),
            kind: slot.manifest.as_ref().map(|manifest| manifest.kind),
            keep: self.keep(id, keeping),
        });
        Some(aged.collect())
    }

    /// Raises the last use of a digest and of everything it lists. Stops where the last use is
    /// no earlier: by the table's invariant it is so below as well.
    pub(super) fn use_all_below(&mut self, id: Id, now: Moment) {
        let mut level = vec![id];
        for _ in 0..MAX_LEVELS {
            let mut below = Vec::new();
            for id in level {
                if self.raise(id, now)
                    && let Some(slot) = self.slots.get(id)
                    && let Some(manifest) = &slot.manifest
                {
                    below.extend_from_slice(&manifest.children);
                }
            }
            level = below;
        }
    }

    /// Tells whether the last use was earlier.
    fn raise(&mut self, id: Id, now: Moment) -> bool {
        let Some(slot) = self.slots.get_mut(id).filter(|slot| slot.last_use < now) else {
            return false;
        };
        slot.last_use = now;
        if slot.present && now.since(slot.remembered_use) >= TOUCH_INTERVAL {
            self.mark_blob(id);
        }
        true
    }
}

/// Whether a slot is more than an entry in some manifest.
fn is_own(slot: &Slot) -> bool {
    slot.present || slot.manifest.is_some() || !slot.repositories.is_empty()
}
