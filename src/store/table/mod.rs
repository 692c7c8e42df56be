//! What is in the store, in memory: the truth while Larder runs. Pure: no I/O, no locks. Who only looks
//! may do so beside others, and raises at most a last use or the mark that a file was seen.
//!
//! The index remembers it from one life to the next and `index.json` shows it to others; both
//! learn from [`Changes`](changes) what they have missed. A digest is known when its file is
//! there, when a manifest lists it, or when upstream showed it in some repository.
//!
//! Invariant: no digest was last used before a manifest that lists it. So a manifest always
//! expires no later than what it lists, and expiry need not look at the links.

mod adopted;
mod changes;
mod edges;
mod held;
mod keeping;
mod layout;
mod links;
mod meanings;
mod media_types;
mod names;
mod pins;
mod pointed;
mod removal;
mod ruled;
mod slots;
mod snapshot;
mod usage;
mod visibility;
mod walk;
mod withdrawn;

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, atomic::Ordering},
};

pub use changes::{Batch, BlobRow, ManifestRow, PointerRow, ProofRow, Untold};
pub use keeping::{Keep, Keeping};
pub use layout::LayoutEntry;
pub use links::{KnownBy, Link, Named};
pub use names::{Pointer, Proof};
pub use pins::PinRow;
pub use removal::{Place, Plan, Seed, Target};
pub use slots::{Id, Kind};
pub use snapshot::{PartAt, Restoration};
pub use visibility::Verdict;
pub use walk::Cursor;

use self::{
    changes::Changes,
    media_types::MediaTypes,
    names::{RepositoryId, RepositorySlot},
    pins::Pins,
    slots::{ManifestSlot, Slots},
    snapshot::Ongoing,
    visibility::Verdicts,
};
use super::running::Moment;
use crate::{
    config::Rules,
    oci::{Children, Digest, MAX_NESTING, Manifest, Repository},
};

/// Everything that is known. See the [module](self).
#[derive(Debug, Default)]
pub struct Table {
    slots: Slots,
    media_types: MediaTypes,
    repositories: Vec<RepositorySlot>,
    repository_ids: foldhash::HashMap<Repository, RepositoryId>,
    rules: Rules,
    verdicts: Verdicts,
    pins: Pins,
    /// Manifests that `index.json` must not name although they are here: how often each was withdrawn.
    withdrawn: HashMap<Digest, u32>,
    totals: Totals,
    /// Files that were found on disk, and not hashed since.
    adopted: BTreeSet<Id>,
    changes: Changes,
    ongoing: Ongoing,
}

/// What the files in `blobs/` add up to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// How many.
    pub blobs: u64,
    /// Their sizes.
    pub bytes: u64,
    /// What the files take up on disk, in blocks of 4 KiB.
    pub blocks: u64,
}

/// The block of almost every file system, in bytes.
pub const BLOCK: u64 = 4096;

impl Table {
    /// What the files add up to.
    pub fn totals(&self) -> Totals {
        self.totals
    }

    /// The size of a file. `None`: it is not there.
    pub fn size(&self, digest: &Digest) -> Option<u64> {
        let slot = self.slots.of(digest)?;
        slot.present.then_some(slot.size)
    }

    /// The type of a manifest, whether or not its file is there.
    pub fn media_type(&self, digest: &Digest) -> Option<Arc<str>> {
        let manifest = self.slots.of(digest)?.manifest.as_ref()?;
        Some(Arc::clone(&manifest.media_type))
    }

    /// How many indexes stand above a digest, in the longest chain of known ones. Counts no
    /// further than one more than is allowed.
    pub fn nesting_above(&self, digest: &Digest) -> u32 {
        let mut level: Vec<Id> = self.slots.find(digest).into_iter().collect();
        let mut height = 0;
        while height <= MAX_NESTING {
            level = self.parents(&level, Kind::Index);
            if level.is_empty() {
                break;
            }
            height += 1;
        }
        height
    }

    /// Whether every image that lists the digest has it as its config, and some image does.
    pub fn is_config(&self, digest: &Digest) -> bool {
        let Some(id) = self.slots.find(digest) else {
            return false;
        };
        let images = self.parents(&[id], Kind::Image);
        let is_config_of = |image: &Id| {
            let manifest = self.slots.get(*image).and_then(|slot| slot.manifest.as_ref());
            manifest.is_some_and(|manifest| manifest.children.first() == Some(&id))
        };
        !images.is_empty() && images.iter().all(is_config_of)
    }

    /// The file of a blob is there, and was used `now`.
    pub fn put_blob(&mut self, digest: &Digest, size: u64, now: Moment) {
        let id = self.slots.find_or_make(digest, now);
        self.use_below(id, now);
        self.set_present(id, size);
    }

    /// The file of a manifest is there, and was used `now`.
    pub fn put_manifest(&mut self, digest: &Digest, size: u64, manifest: &Manifest, now: Moment) {
        self.put_blob(digest, size, now);
        self.link_manifest(digest, manifest);
    }

    /// The file of this digest was read and is this manifest.
    pub fn link_manifest(&mut self, digest: &Digest, manifest: &Manifest) {
        let Some(id) = self.slots.find(digest) else {
            return;
        };
        let known = self.slots.get(id).and_then(|slot| slot.manifest.as_ref());
        let is_known = |known: &ManifestSlot| {
            known.kind != Kind::Unread && *known.media_type == *manifest.media_type
        };
        if known.is_some_and(|known| is_known(known)) {
            return;
        }
        let kind = match manifest.children {
            Children::Image { .. } => Kind::Image,
            Children::Index(_) => Kind::Index,
        };
        let children: Vec<&Digest> = manifest.children.digests().collect();
        self.link(id, &manifest.media_type, kind, &children);
        self.changes.layout = true;
        self.mark_blob(id);
    }

    /// Upstream's or an earlier life's word that a manifest of this size and type is there; what
    /// it lists is not known before its file is read.
    pub fn expect_manifest(&mut self, digest: &Digest, size: u64, media_type: &str, now: Moment) {
        let id = self.slots.find_or_make(digest, now);
        self.link(id, media_type, Kind::Unread, &[]);
        self.set_present(id, size);
        self.await_sight(id);
    }

    /// What the index remembers of a blob.
    pub fn restore(&mut self, digest: &Digest, row: &BlobRow) {
        let id = self.slots.find_or_make(digest, row.last_use);
        if let Some(manifest) = &row.manifest {
            let children: Vec<&Digest> = manifest.children.iter().collect();
            self.link(id, &manifest.media_type, manifest.kind, &children);
        }
        self.set_present(id, row.size);
        self.use_below(id, row.last_use);
        self.await_sight(id);
    }

    /// The file is gone. What is known of it stays, for when it is fetched again.
    pub fn lose(&mut self, digest: &Digest) {
        if let Some(id) = self.slots.find(digest) {
            self.set_absent(id);
            self.release_if_idle(id);
        }
    }

    /// The file is gone, and with it goes all that was known of the digest: its tags, where it
    /// may be seen, and what it lists.
    pub fn forget(&mut self, digest: &Digest) {
        let Some(id) = self.slots.find(digest) else {
            return;
        };
        self.set_absent(id);
        self.forget_names(id);
        self.unlink(id);
        self.changes.forgotten.push(digest.clone());
        self.release_if_idle(id);
    }

    /// Marks that the file of a digest was found on disk, and tells what is known of it.
    pub fn see(&self, digest: &Digest) -> Sight {
        match self.slots.of(digest) {
            Some(slot) if slot.present => {
                slot.seen.store(true, Ordering::Relaxed);
                if slot.is(Kind::Unread) { Sight::Unread } else { Sight::Known }
            }
            Some(_) | None => Sight::New,
        }
    }

    /// Digests among the `count` slots from number `from` whose file was expected but not seen
    /// since the store was opened. `None`: there are no more slots.
    pub fn unseen(&self, from: usize, count: usize) -> Option<Vec<Digest>> {
        let unseen = |slot: &slots::Slot| slot.present && !slot.seen.load(Ordering::Relaxed);
        (from < self.slots.end()).then(|| {
            let slots = self.slots.range(from, count);
            let missing = slots.filter(|(_, slot)| unseen(slot));
            missing.map(|(_, slot)| slot.digest.clone()).collect()
        })
    }

    /// The files of the `count` slots from number `from` may be gone: none counts as seen. `None`: there
    /// are no more slots.
    pub fn forget_sights(&self, from: usize, count: usize) -> Option<()> {
        for (_, slot) in self.slots.range(from, count) {
            slot.seen.store(false, Ordering::Relaxed);
        }
        (from < self.slots.end()).then_some(())
    }

    fn digests(&self, ids: &[Id]) -> Vec<Digest> {
        let slots = ids.iter().filter_map(|id| self.slots.get(*id));
        slots.map(|slot| slot.digest.clone()).collect()
    }

    /// The manifests of one kind that list any of these.
    fn parents(&self, ids: &[Id], kind: Kind) -> Vec<Id> {
        let slots = ids.iter().filter_map(|id| self.slots.get(*id));
        let parents = slots.flat_map(|slot| slot.edges.parents().iter().copied());
        let is_of_kind = |id: &Id| self.slots.get(*id).is_some_and(|slot| slot.is(kind));
        let mut parents: Vec<Id> = parents.filter(is_of_kind).collect();
        parents.sort_unstable();
        parents.dedup();
        parents
    }

    fn set_present(&mut self, id: Id, size: u64) {
        let Some(slot) = self.slots.get_mut(id) else {
            return;
        };
        if slot.present {
            self.totals.leave(slot.size);
        } else {
            slot.remember_use();
        }
        self.totals.enter(size);
        slot.present = true;
        *slot.seen.get_mut() = true;
        slot.size = size;
        self.adopted.remove(&id);
        let shown = slot.manifest.is_some();
        self.mark_blob(id);
        self.changes.layout |= shown;
    }

    /// The file is only said to be there.
    fn await_sight(&mut self, id: Id) {
        if let Some(slot) = self.slots.get_mut(id) {
            *slot.seen.get_mut() = false;
        }
    }

    fn set_absent(&mut self, id: Id) {
        let Some(slot) = self.slots.get_mut(id) else {
            return;
        };
        if !slot.present {
            return;
        }
        slot.present = false;
        self.adopted.remove(&id);
        self.totals.leave(slot.size);
        let shown = slot.manifest.is_some();
        self.changes.lost.push(slot.digest.clone());
        self.changes.layout |= shown;
    }

    /// Makes `id` a manifest. What a manifest lists never changes, so that it is linked once.
    fn link(&mut self, id: Id, media_type: &str, kind: Kind, children: &[&Digest]) {
        let Some(slot) = self.slots.get_mut(id) else {
            return;
        };
        let last_use = slot.last_use.get();
        if let Some(manifest) = &mut slot.manifest
            && (manifest.kind != Kind::Unread || kind == Kind::Unread)
        {
            manifest.media_type = self.media_types.share(media_type);
            return;
        }
        let children: Box<[Id]> =
            children.iter().map(|child| self.slots.find_or_make(child, last_use)).collect();
        for child in &children {
            if let Some(slot) = self.slots.get_mut(*child) {
                slot.edges.add_parent(id);
            }
            self.use_below(*child, last_use);
        }
        if let Some(slot) = self.slots.get_mut(id) {
            let media_type = self.media_types.share(media_type);
            slot.manifest = Some(Box::new(ManifestSlot { media_type, kind, children }));
        }
    }

    /// Ends `id` being a manifest.
    fn unlink(&mut self, id: Id) {
        let manifest = self.slots.get_mut(id).and_then(|slot| slot.manifest.take());
        let children = manifest.map(|manifest| manifest.children);
        for child in children.iter().flat_map(|children| children.iter()) {
            if let Some(slot) = self.slots.get_mut(*child) {
                slot.edges.remove_parent(id);
            }
            self.release_if_idle(*child);
        }
    }

    fn release_if_idle(&mut self, id: Id) {
        if self.slots.get(id).is_some_and(slots::Slot::is_idle) && !self.pins.hold(id) {
            self.slots.release(id);
        }
    }
}

impl Totals {
    fn enter(&mut self, size: u64) {
        self.blobs = self.blobs.saturating_add(1);
        self.bytes = self.bytes.saturating_add(size);
        self.blocks = self.blocks.saturating_add(size.div_ceil(BLOCK));
    }

    fn leave(&mut self, size: u64) {
        self.blobs = self.blobs.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(size);
        self.blocks = self.blocks.saturating_sub(size.div_ceil(BLOCK));
    }
}

/// What is known of a digest whose file was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sight {
    /// Nothing.
    New,
    /// That it is a manifest, but not what it lists.
    Unread,
    /// Everything.
    Known,
}
