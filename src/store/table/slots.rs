//! One slot for each digest that is known, found by digest or by a small number.
//!
//! Links between digests are these numbers, and the digest itself is kept once: a million blobs
//! must fit in memory.

use std::{
    hash::BuildHasher as _,
    num::NonZeroU32,
    sync::{Arc, atomic::AtomicBool},
};

use foldhash::fast::RandomState;
use hashbrown::HashTable;

use super::edges::Edges;
use crate::{
    oci::Digest,
    store::running::{LatestMoment, Moment},
};

/// The number of a slot. It may name another digest once the slot was released.
///
/// Counted from one, so that an optional one takes no more room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Id(NonZeroU32);

/// What is known of a digest.
#[derive(Debug)]
pub struct Slot {
    pub digest: Digest,
    /// Bytes in the file; means nothing while there is none.
    pub size: u64,
    /// Last use. Never before that of a manifest that lists this digest.
    pub last_use: LatestMoment,
    /// The last use that the index remembers, or will with the row it has not seen yet, in seconds.
    pub remembered_use: u32,
    /// Whether the file is in `blobs/`.
    pub present: bool,
    /// Whether the file was seen since the store was opened.
    pub seen: AtomicBool,
    /// Whether the index must be told.
    pub dirty: bool,
    /// What the manifest lists, when this is one.
    pub manifest: Option<Box<ManifestSlot>>,
    /// What lists it, and where upstream showed it.
    pub edges: Edges,
}

/// What is known of a manifest.
#[derive(Debug)]
pub struct ManifestSlot {
    pub media_type: Arc<str>,
    pub kind: Kind,
    pub children: Box<[Id]>,
}

/// What a manifest lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A config and layers.
    Image,
    /// Other manifests.
    Index,
    /// Not known before its file is read.
    Unread,
}

/// All slots.
#[derive(Debug, Default)]
pub struct Slots {
    slots: Vec<Option<Slot>>,
    free: Vec<Id>,
    by_digest: HashTable<Id>,
    hasher: RandomState,
    /// While a snapshot is taken: one more than the highest slot in it. No number may come to name
    /// another digest then.
    frozen: Option<usize>,
    /// Those that are free once the snapshot is taken.
    released: Vec<Id>,
}

impl Slots {
    /// The slot of a digest.
    pub fn find(&self, digest: &Digest) -> Option<Id> {
        let hash = self.hasher.hash_one(digest);
        let is_it = |id: &Id| self.get(*id).is_some_and(|slot| slot.digest == *digest);
        self.by_digest.find(hash, is_it).copied()
    }

    /// What is known of a digest.
    pub fn of(&self, digest: &Digest) -> Option<&Slot> {
        self.get(self.find(digest)?)
    }

    /// The content of a slot, unless it was released.
    pub fn get(&self, id: Id) -> Option<&Slot> {
        self.slots.get(id.index())?.as_ref()
    }

    /// The content of a slot, unless it was released.
    pub fn get_mut(&mut self, id: Id) -> Option<&mut Slot> {
        self.slots.get_mut(id.index())?.as_mut()
    }

    /// The slot of a digest, made (used `now`, without a file) when there is none.
    pub fn find_or_make(&mut self, digest: &Digest, now: Moment) -> Id {
        if let Some(id) = self.find(digest) {
            return id;
        }
        let id = self.put(Slot::unknown(digest.clone(), now));
        self.insert_hashed(self.hasher.hash_one(digest), id);
        id
    }

    /// Gives a slot back.
    pub fn release(&mut self, id: Id) {
        let Some(slot) = self.slots.get_mut(id.index()).and_then(Option::take) else {
            return;
        };
        let hash = self.hasher.hash_one(&slot.digest);
        if let Ok(entry) = self.by_digest.find_entry(hash, |other| *other == id) {
            entry.remove();
        }
        match self.frozen {
            Some(_) => self.released.push(id),
            None => self.free.push(id),
        }
    }

    /// Keeps the numbers as they are, until [`Slots::thaw`].
    pub fn freeze(&mut self) {
        self.frozen = Some(self.slots.len());
    }

    /// Lets numbers be used again.
    pub fn thaw(&mut self) {
        self.frozen = None;
        self.free.append(&mut self.released);
    }

    /// One more than the highest slot's number that a snapshot has.
    pub fn frozen_end(&self) -> usize {
        self.frozen.unwrap_or(self.slots.len())
    }

    /// One more than the highest slot's number.
    pub fn end(&self) -> usize {
        self.slots.len()
    }

    /// Where to go on after the `count` slots from number `from`. `None`: there are no more.
    pub fn next(&self, from: usize, count: usize) -> Option<usize> {
        Some(from.saturating_add(count)).filter(|next| *next < self.slots.len())
    }

    /// The slots numbered `from` and up, at most `count` of them.
    pub fn range(&self, from: usize, count: usize) -> impl Iterator<Item = (Id, &Slot)> {
        let numbers = (from..).map(Id::at);
        let slots = self.slots.iter().skip(from).take(count);
        numbers.zip(slots).filter_map(|(id, slot)| Some((id, slot.as_ref()?)))
    }

    /// Every slot.
    pub fn all_mut(&mut self) -> impl Iterator<Item = (Id, &mut Slot)> {
        let numbers = (0..).map(Id::at);
        numbers.zip(self.slots.iter_mut()).filter_map(|(id, slot)| Some((id, slot.as_mut()?)))
    }

    /// Makes room for so many, of those that come by [`Slots::push`].
    pub fn reserve(&mut self, count: usize) {
        let hasher = &self.hasher;
        self.slots.reserve_exact(count);
        // There is nothing yet that would have to be hashed again.
        self.by_digest.reserve(count, |_| hasher.hash_one(()));
    }

    /// Puts the next slot, of a digest that no slot has.
    pub fn push(&mut self, slot: Slot) {
        let id = Id::at(self.slots.len());
        let hash = self.hasher.hash_one(&slot.digest);
        self.slots.push(Some(slot));
        self.insert_hashed(hash, id);
    }

    /// Puts the next slot, free.
    pub fn push_free(&mut self) {
        self.free.push(Id::at(self.slots.len()));
        self.slots.push(None);
    }

    /// Tells all that manifests list which these are. A manifest of which something is missing
    /// has to be read again.
    pub fn link_parents(&mut self) {
        for index in 0..self.slots.len() {
            let parent = Id::at(index);
            let Some(mut manifest) = self.get_mut(parent).and_then(|slot| slot.manifest.take())
            else {
                continue;
            };
            if manifest.children.iter().any(|child| self.get(*child).is_none()) {
                manifest.kind = Kind::Unread;
                manifest.children = Box::default();
            }
            for child in &manifest.children {
                if let Some(slot) = self.get_mut(*child) {
                    slot.edges.add_parent(parent);
                }
            }
            if let Some(slot) = self.get_mut(parent) {
                slot.manifest = Some(manifest);
            }
        }
    }

    fn insert_hashed(&mut self, hash: u64, id: Id) {
        let Slots { slots, by_digest, hasher, .. } = self;
        let hash_of = |id: &Id| {
            let slot = slots.get(id.index()).and_then(Option::as_ref);
            slot.map_or(0, |slot| hasher.hash_one(&slot.digest))
        };
        by_digest.insert_unique(hash, id, hash_of);
    }

    fn put(&mut self, slot: Slot) -> Id {
        if self.frozen.is_none()
            && let Some(id) = self.free.pop()
            && let Some(place) = self.slots.get_mut(id.index())
        {
            *place = Some(slot);
            return id;
        }
        let id = Id::at(self.slots.len());
        self.slots.push(Some(slot));
        id
    }
}

impl Id {
    /// The number of the slot at a place. Four thousand million slots do not fit in any memory
    /// that this runs in.
    pub fn at(index: usize) -> Id {
        let number = u32::try_from(index).unwrap_or(u32::MAX);
        Id(NonZeroU32::MIN.saturating_add(number))
    }

    /// The place of the slot among all.
    pub fn index(self) -> usize {
        self.0.get() as usize - 1
    }
}

impl Slot {
    /// One of which nothing is known but that it was used `now`.
    pub fn unknown(digest: Digest, now: Moment) -> Slot {
        Slot {
            digest,
            size: 0,
            last_use: LatestMoment::of(now),
            remembered_use: 0,
            present: false,
            seen: AtomicBool::new(false),
            dirty: false,
            manifest: None,
            edges: Edges::default(),
        }
    }

    /// Whether nothing needs this slot any more.
    pub fn is_idle(&self) -> bool {
        !self.present
            && self.manifest.is_none()
            && self.edges.parents().is_empty()
            && self.edges.repositories().is_empty()
    }

    /// Whether it was used since what the index remembers, or will.
    pub fn has_unremembered_use(&self) -> bool {
        self.last_use.get().seconds() != self.remembered_use
    }

    /// The index will remember the last use. Tells whether that is news to it.
    pub fn remember_use(&mut self) -> bool {
        let is_news = self.has_unremembered_use();
        self.remembered_use = self.last_use.get().seconds();
        is_news
    }

    /// Whether this is a manifest of the kind.
    pub fn is(&self, kind: Kind) -> bool {
        self.manifest.as_ref().is_some_and(|manifest| manifest.kind == kind)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::Algorithm;

    #[test]
    fn a_slot_is_small() {
        assert!(size_of::<Option<Slot>>() <= 88);
    }

    #[test]
    fn slots_are_found_released_and_used_again() {
        let mut slots = Slots::default();
        let digests: Vec<Digest> =
            (0..1000u32).map(|n| Digest::of(Algorithm::Sha256, &n.to_le_bytes())).collect();
        for digest in &digests {
            let id = slots.find_or_make(digest, Moment::default());
            assert_eq!(slots.find(digest), Some(id));
            assert_eq!(slots.find_or_make(digest, Moment::default()), id);
        }
        for digest in digests.iter().step_by(2) {
            slots.release(slots.find(digest).unwrap());
            assert!(slots.of(digest).is_none());
        }
        assert_eq!(slots.range(0, usize::MAX).count(), 500);
        slots.find_or_make(&digests[0], Moment::default());
        assert_eq!(slots.end(), 1000, "a released slot is used first");
        assert!(digests.iter().skip(1).step_by(2).all(|digest| slots.find(digest).is_some()));
    }
}
