//! Pins: names of images whose content stays, however long nobody uses it and however scarce room
//! is.
//!
//! A pin holds the manifest that its name means, and thereby everything below it. That of a tag
//! follows the tag; of a tag that is gone it holds what it meant last. A pin is there until it is
//! taken away, whatever becomes of the files.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::{Table, names::Pointer, slots::Id, usage::MAX_LEVELS};
use crate::{
    oci::{Digest, ImageName, Reference, Repository, Tag},
    store::running::Moment,
};

/// A pin, and what it holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PinRow {
    /// The name that is pinned.
    pub image: ImageName,
    /// The manifest that it means, or meant last.
    pub held: Digest,
}

/// All pins. Few: each was asked for by a person.
#[derive(Debug, Default)]
pub(super) struct Pins {
    held: BTreeMap<ImageName, Id>,
    /// How many pins hold a digest. Its slot is not released as long as one does.
    holds: HashMap<Id, u32>,
}

impl Table {
    /// Pins an image and tells what the pin holds. `None`: its manifest is not here.
    pub fn pin(&mut self, image: &ImageName) -> Option<Digest> {
        let digest = self.image(image)?;
        let id = self.slots.find(&digest)?;
        self.hold(image, id);
        Some(digest)
    }

    /// Takes a pin away. `false`: there was none.
    pub fn unpin(&mut self, image: &ImageName) -> bool {
        let Some(id) = self.pins.remove(image) else {
            return false;
        };
        self.mark_pin(image);
        self.release_if_idle(id);
        true
    }

    /// Every pin.
    pub fn pins(&self) -> impl Iterator<Item = PinRow> {
        let row = |(image, id): (&ImageName, &Id)| {
            Some(PinRow { image: image.clone(), held: self.slots.get(*id)?.digest.clone() })
        };
        self.pins.held.iter().filter_map(row)
    }

    /// What a pin holds. `None`: the name is not pinned.
    pub fn held_by(&self, image: &ImageName) -> Option<Digest> {
        let id = self.pins.held.get(image)?;
        Some(self.slots.get(*id)?.digest.clone())
    }

    /// What an earlier life knew of a pin, unless the name is known to be pinned.
    pub fn restore_pin(&mut self, row: &PinRow, now: Moment) {
        if self.pins.held.contains_key(&row.image) {
            return;
        }
        let known = match &row.image.reference {
            Reference::Tag(tag) => {
                let pointer = Pointer::Tag(tag.clone());
                self.meaning(&row.image.repository, &pointer).map(|known| known.digest)
            }
            Reference::Digest(_) => None,
        };
        let id = self.slots.find_or_make(known.as_ref().unwrap_or(&row.held), now);
        self.hold(&row.image, id);
    }

    /// The manifest that an image's name means. `None`: it is not here.
    pub fn image(&self, image: &ImageName) -> Option<Digest> {
        let digest = match &image.reference {
            Reference::Tag(tag) => {
                self.meaning(&image.repository, &Pointer::Tag(tag.clone()))?.digest
            }
            Reference::Digest(digest) => digest.clone(),
        };
        let slot = self.slots.of(&digest)?;
        let is_here = slot.present && slot.manifest.is_some();
        (is_here && self.is_proved(&image.repository, &digest)).then_some(digest)
    }

    /// A manifest and everything below it, as far as it is known, each with its size if its file
    /// is here. The higher come first.
    pub fn below(&self, digest: &Digest) -> Vec<(Digest, Option<u64>)> {
        let ids = self.ids_below(self.slots.find(digest).into_iter().collect());
        let slots = ids.iter().filter_map(|id| self.slots.get(*id));
        slots.map(|slot| (slot.digest.clone(), slot.present.then_some(slot.size))).collect()
    }

    /// These and all that is below them, each once.
    pub(super) fn ids_below(&self, mut level: Vec<Id>) -> Vec<Id> {
        let (mut all, mut seen) = (Vec::new(), HashSet::new());
        for _ in 0..MAX_LEVELS {
            level.retain(|id| seen.insert(*id));
            let slots = level.iter().filter_map(|id| self.slots.get(*id));
            let manifests = slots.filter_map(|slot| slot.manifest.as_ref());
            let below = manifests.flat_map(|manifest| manifest.children.iter().copied()).collect();
            all.append(&mut level);
            level = below;
        }
        all
    }

    /// Whether a digest stays because of a pin: that of a name which means it, or that of an image
    /// which it is below.
    pub(super) fn is_held(&self, id: Id) -> bool {
        !self.pins.holds.is_empty() && self.any_upward(id, |above, _| self.pins.hold(above))
    }

    /// A tag means this manifest now: its pin follows.
    pub(super) fn follow_tag(&mut self, repository: &Repository, tag: &Tag, manifest: Id) {
        if self.pins.held.is_empty() {
            return;
        }
        let reference = Reference::Tag(tag.clone());
        let image = ImageName { repository: repository.clone(), reference };
        if self.pins.held.contains_key(&image) {
            self.hold(&image, manifest);
        }
    }

    fn hold(&mut self, image: &ImageName, id: Id) {
        let before = self.pins.insert(image, id);
        if before == Some(id) {
            return;
        }
        self.mark_pin(image);
        if let Some(before) = before {
            self.release_if_idle(before);
        }
    }

    fn mark_pin(&mut self, image: &ImageName) {
        self.changes.pins.insert(image.clone());
        self.changes.layout = true;
    }
}

impl Pins {
    /// Whether a pin holds this very digest.
    pub(super) fn hold(&self, id: Id) -> bool {
        self.holds.contains_key(&id)
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &ImageName> {
        self.held.keys()
    }

    /// Returns what the name held before.
    fn insert(&mut self, image: &ImageName, id: Id) -> Option<Id> {
        let before = self.held.insert(image.clone(), id);
        *self.holds.entry(id).or_default() += 1;
        if let Some(before) = before {
            self.let_go(before);
        }
        before
    }

    fn remove(&mut self, image: &ImageName) -> Option<Id> {
        let id = self.held.remove(image)?;
        self.let_go(id);
        Some(id)
    }

    fn let_go(&mut self, id: Id) {
        if let Some(count) = self.holds.get_mut(&id) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.holds.remove(&id);
            }
        }
    }
}
