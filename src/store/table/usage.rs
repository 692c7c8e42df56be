//! When things were last used, and what nobody used for long.

use std::{collections::HashSet, time::Duration};

use super::{
    BLOCK, Kind, Table,
    keeping::Keeping,
    names::RepositoryId,
    slots::{Id, Slot},
};
use crate::{
    oci::{Digest, MAX_NESTING, Registry},
    store::{
        Going, TOUCH_INTERVAL,
        eviction::{Candidate, Selection, Victim},
        running::Moment,
    },
};

/// Levels from the highest manifest down to a layer.
pub(super) const MAX_LEVELS: u32 = MAX_NESTING + 2;

impl Table {
    /// A digest is used now, and with it everything below. Returns what the index has to be told of
    /// ([`Table::mark_blobs`]).
    pub fn touch(&self, digest: &Digest, now: Moment) -> Vec<Id> {
        self.slots.find(digest).map_or_else(Vec::new, |id| self.raise_below(id, now))
    }

    /// As [`Table::touch`], and the index is told.
    pub fn use_now(&mut self, digest: &Digest, now: Moment) {
        if let Some(id) = self.slots.find(digest) {
            self.use_below(id, now);
        }
    }

    /// Shows the `count` slots from number `from` to a selection. Tells whether there are more.
    pub fn consider(
        &self,
        from: usize,
        count: usize,
        keeping: &Keeping,
        now: Moment,
        selection: &mut Selection,
    ) -> bool {
        for (id, slot) in self.slots.range(from, count).filter(|(_, slot)| is_own(slot)) {
            let (last_use, rank) = (slot.last_use.get(), self.rank(slot));
            let disk =
                if slot.present { slot.size.div_ceil(BLOCK).saturating_mul(BLOCK) } else { 0 };
            let candidate = Candidate { last_use, rank, id, disk };
            selection.consider(candidate, now.since(last_use), || self.keep(id, keeping));
        }
        from.saturating_add(count) < self.slots.end()
    }

    /// Those of some victims that are manifests.
    pub fn manifests_of(&self, victims: &[Victim]) -> Vec<Digest> {
        let slots = victims.iter().filter_map(|victim| self.slots.get(victim.id));
        let manifests = slots.filter(|slot| slot.present && slot.manifest.is_some());
        manifests.map(|slot| slot.digest.clone()).collect()
    }

    /// A victim by name, and its size, unless it was used or pinned since it was chosen, or is gone.
    pub fn still_unused(&self, victim: &Victim) -> Option<(Digest, Option<u64>)> {
        let slot = self.slots.get(victim.id)?;
        let is_unused = slot.last_use.get() == victim.last_use && !self.stays(victim.id);
        is_unused.then(|| (slot.digest.clone(), slot.present.then_some(slot.size)))
    }

    /// A victim as people are told of it, unless it was used since it was chosen, or is gone.
    pub fn going(&self, victim: &Victim, now: Moment) -> Option<Going> {
        let (digest, size) = self.still_unused(victim)?;
        Some(Going {
            names: self.names_of(&digest),
            digest,
            bytes: size.unwrap_or(0),
            unused: now.since(victim.last_use),
            reason: victim.reason.label(),
        })
    }

    /// Among the `count` slots from number `from`, the registries of those that nobody used for
    /// `limit`. What lists something is no younger than it, so that this finds the registries of
    /// whatever stands above, too. `None`: there are no more slots.
    pub fn registries_unused(
        &self,
        from: usize,
        count: usize,
        limit: Duration,
        now: Moment,
    ) -> Option<HashSet<Registry>> {
        if from >= self.slots.end() {
            return None;
        }
        let slots = self.slots.range(from, count).map(|(_, slot)| slot);
        let unused = slots.filter(|slot| now.since(slot.last_use.get()) >= limit);
        let repositories: HashSet<RepositoryId> =
            unused.flat_map(|slot| slot.edges.repositories().iter().copied()).collect();
        Some(self.registries(&repositories))
    }

    /// A digest and everything below it is used now.
    pub(super) fn use_below(&mut self, id: Id, now: Moment) {
        let untold = self.raise_below(id, now);
        self.mark_blobs(&untold);
    }

    /// Raises the last use of a digest and of everything it lists. Stops where the last use is
    /// no earlier: by the table's invariant it is so below as well. What is listed is raised first, so that
    /// the invariant holds at every moment for others who look. Returns what the index has to be told of.
    fn raise_below(&self, id: Id, now: Moment) -> Vec<Id> {
        let is_earlier =
            |id: &Id| self.slots.get(*id).is_some_and(|slot| slot.last_use.get() < now);
        let mut earlier: Vec<Id> = Some(id).filter(is_earlier).into_iter().collect();
        let mut level = 0..earlier.len();
        for _ in 1..MAX_LEVELS {
            let ids = earlier.get(level.clone()).unwrap_or_default();
            let slots = ids.iter().filter_map(|id| self.slots.get(*id));
            let manifests = slots.filter_map(|slot| slot.manifest.as_ref());
            let children = manifests.flat_map(|manifest| manifest.children.iter().copied());
            let mut below: Vec<Id> = children.filter(is_earlier).collect();
            // Who lists one thing a thousand times, level by level, costs no more for it.
            below.sort_unstable();
            below.dedup();
            level = earlier.len()..earlier.len() + below.len();
            earlier.append(&mut below);
        }
        earlier.reverse();
        earlier.retain(|id| self.raise(*id, now));
        earlier
    }

    /// The place among what was last used at the same time: what lists others goes before them.
    fn rank(&self, slot: &Slot) -> u8 {
        let level = match slot.manifest.as_ref().map(|manifest| manifest.kind) {
            None => 0,
            Some(Kind::Image) => 1,
            Some(Kind::Index) => self.levels_of_indexes(slot).saturating_add(1),
            // Nobody knows what it lists.
            Some(Kind::Unread) => MAX_LEVELS.saturating_add(1),
        };
        u8::MAX.saturating_sub(u8::try_from(level).unwrap_or(u8::MAX))
    }

    /// In the longest chain from this index down, itself included.
    fn levels_of_indexes(&self, index: &Slot) -> u32 {
        let mut levels = 0;
        let mut level = vec![index];
        while !level.is_empty() && levels < MAX_LEVELS {
            levels += 1;
            let manifests = level.iter().filter_map(|slot| slot.manifest.as_ref());
            let ids = manifests.flat_map(|manifest| manifest.children.iter().copied());
            let mut ids: Vec<Id> = ids.collect();
            ids.sort_unstable();
            ids.dedup();
            let children = ids.into_iter().filter_map(|id| self.slots.get(id));
            level = children.filter(|slot| slot.is(Kind::Index)).collect();
        }
        levels
    }

    /// Tells whether the index has to be told.
    fn raise(&self, id: Id, now: Moment) -> bool {
        let interval = TOUCH_INTERVAL.as_secs();
        self.slots.get(id).is_some_and(|slot| {
            let is_later = slot.last_use.add(now);
            let since = now.seconds().saturating_sub(slot.remembered_use);
            is_later && slot.present && !slot.dirty && u64::from(since) >= interval
        })
    }
}

/// Whether a slot is more than an entry in some manifest.
fn is_own(slot: &Slot) -> bool {
    slot.present || slot.manifest.is_some() || !slot.edges.repositories().is_empty()
}
