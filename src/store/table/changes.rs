//! What the index and `index.json` have not been told yet.
//!
//! Kept as names of what changed; the rows are made when they are asked for, so that many
//! changes of one thing are one row, and nothing grows while a disk is slow.

use std::{collections::HashSet, sync::Arc, time::SystemTime};

use super::{
    Kind, Proof, Table, Verdict,
    names::{Pointer, RepositoryId},
    slots::{Id, Slot},
    walk::{Cursor, Name, Stretch},
};
use crate::{
    oci::{Digest, ImageName, Repository},
    store::running::Moment,
};

/// Names of what changed.
#[derive(Debug, Default)]
pub(super) struct Changes {
    /// Digests of which nothing is known any more.
    pub forgotten: Vec<Digest>,
    /// Digests whose file went away.
    pub lost: Vec<Digest>,
    pub blobs: Vec<Id>,
    pub pointers: HashSet<(RepositoryId, Pointer)>,
    pub proofs: Vec<(RepositoryId, Id)>,
    /// Digests that a repository showed no more when this was noted.
    pub unproved: Vec<(RepositoryId, Digest)>,
    pub verdicts: HashSet<Repository>,
    pub pins: HashSet<ImageName>,
    /// Whether `index.json` is out of date.
    pub layout: bool,
}

/// Changes as rows, to be applied in the order of the fields.
#[derive(Debug, Default)]
pub struct Batch {
    /// Their rows and proofs go.
    pub forgotten: Vec<Digest>,
    /// Their rows go.
    pub lost: Vec<Digest>,
    /// These proofs go.
    pub unproved: Vec<(Repository, Digest)>,
    pub blobs: Vec<(Digest, BlobRow)>,
    /// Those of `blobs` that were used since their row, or their file, was written.
    pub used: Vec<(Digest, Moment)>,
    /// A pointer without a row goes.
    pub pointers: Vec<(Repository, Pointer, Option<PointerRow>)>,
    pub proofs: Vec<ProofRow>,
    /// A repository without a verdict is forgotten.
    pub verdicts: Vec<(Repository, Option<Verdict>)>,
    /// A name that holds nothing is pinned no longer.
    pub pins: Vec<(ImageName, Option<Digest>)>,
}

/// What the index remembers of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlobRow {
    pub size: u64,
    pub last_use: Moment,
    pub manifest: Option<ManifestRow>,
}

/// What the index remembers of a manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManifestRow {
    pub media_type: Arc<str>,
    pub kind: Kind,
    pub children: Vec<Digest>,
}

/// What the index remembers of a tag or a list of referrers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PointerRow {
    pub digest: Digest,
    pub checked_at: SystemTime,
}

/// What the index remembers of upstream's showing a digest in a repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProofRow {
    pub repository: Repository,
    pub digest: Digest,
    pub proof: Proof,
}

/// How far the index was told again what it lost.
#[derive(Clone, Debug)]
pub enum Untold {
    /// From the slot of this number on.
    Slots(usize),
    /// All slots, but names only from here on.
    Names(Cursor),
}

impl Default for Untold {
    fn default() -> Untold {
        Untold::Slots(0)
    }
}

impl Table {
    /// Takes up to about `count` changes. Empty: the index knows everything.
    pub fn take_changes(&mut self, count: usize) -> Batch {
        let mut batch = Batch {
            forgotten: std::mem::take(&mut self.changes.forgotten),
            lost: std::mem::take(&mut self.changes.lost),
            unproved: self.take_unproved(count),
            pointers: self.take_pointers(count),
            proofs: self.take_proofs(count),
            verdicts: self.take_verdicts(count),
            pins: self.take_pins(count),
            ..Batch::default()
        };
        self.take_blobs(count, &mut batch);
        batch
    }

    /// About how many rows the index has to be told.
    pub fn backlog(&self) -> usize {
        let Changes {
            forgotten,
            lost,
            blobs,
            pointers,
            proofs,
            unproved,
            verdicts,
            pins,
            layout: _,
        } = &self.changes;
        let of_blobs = forgotten.len() + lost.len() + blobs.len();
        let of_names = pointers.len() + proofs.len() + unproved.len();
        of_blobs + of_names + verdicts.len() + pins.len()
    }

    /// Whether `index.json` is out of date.
    pub fn layout_has_changed(&self) -> bool {
        self.changes.layout
    }

    /// `index.json` is about to be written.
    pub fn take_layout_change(&mut self) {
        self.changes.layout = false;
    }

    /// `index.json` must be written again.
    pub fn mark_layout(&mut self) {
        self.changes.layout = true;
    }

    /// Everything known now came from the index: it need not be told.
    pub fn mark_remembered(&mut self) {
        self.changes = Changes::default();
        for (_, slot) in self.slots.all_mut() {
            slot.dirty = false;
            slot.remember_use();
        }
    }

    /// The index lost everything: it must be told again of at most `count` slots or names from `place` on.
    /// Returns where to go on.
    pub fn mark_untold(&mut self, place: &Untold, count: usize) -> Option<Untold> {
        match place {
            Untold::Slots(from) => {
                if *from == 0 {
                    // All of them come again.
                    self.changes.proofs.clear();
                }
                self.mark_slots(*from, count);
                let next = self.slots.next(*from, count);
                Some(next.map_or_else(|| Untold::Names(Cursor::default()), Untold::Slots))
            }
            Untold::Names(place) => match self.stretch(place, count) {
                Some(Stretch { id, names, next, .. }) => {
                    let pointers = names.iter().filter_map(Name::pointer).cloned();
                    let pointers: Vec<_> = pointers.map(|pointer| (id, pointer)).collect();
                    self.changes.pointers.extend(pointers);
                    Some(Untold::Names(next))
                }
                None => {
                    self.changes.verdicts.extend(self.verdicts.keys().cloned());
                    self.changes.pins.extend(self.pins.names().cloned());
                    None
                }
            },
        }
    }

    /// The index must be told of every use, however recent, of the `count` slots from number `from`. Returns
    /// where to go on.
    pub fn mark_uses(&mut self, from: usize, count: usize) -> Option<usize> {
        let slots = self.slots.range(from, count);
        let used = slots.filter(|(_, slot)| slot.present && slot.has_unremembered_use());
        let used: Vec<Id> = used.map(|(id, _)| id).collect();
        self.mark_blobs(&used);
        self.slots.next(from, count)
    }

    /// The index must be told of these.
    pub fn mark_blobs(&mut self, ids: &[Id]) {
        for id in ids {
            self.mark_blob(*id);
        }
    }

    pub(super) fn mark_blob(&mut self, id: Id) {
        if let Some(slot) = self.slots.get_mut(id)
            && !std::mem::replace(&mut slot.dirty, true)
        {
            self.changes.blobs.push(id);
        }
    }

    fn mark_slots(&mut self, from: usize, count: usize) {
        let mut present = Vec::new();
        for (id, slot) in self.slots.range(from, count) {
            present.extend(slot.present.then_some(id));
            let shown = slot.edges.repositories().iter();
            self.changes.proofs.extend(shown.map(|repository| (*repository, id)));
        }
        self.mark_blobs(&present);
    }

    fn take_blobs(&mut self, count: usize, batch: &mut Batch) {
        for id in take_some(&mut self.changes.blobs, count) {
            let Some(slot) = self.slots.get_mut(id) else {
                continue;
            };
            slot.dirty = false;
            let is_used = slot.remember_use();
            let Some(slot) = self.slots.get(id).filter(|slot| slot.present) else {
                continue;
            };
            if is_used {
                batch.used.push((slot.digest.clone(), slot.last_use.get()));
            }
            batch.blobs.push((slot.digest.clone(), self.row(slot)));
        }
    }

    fn take_pointers(&mut self, count: usize) -> Vec<(Repository, Pointer, Option<PointerRow>)> {
        let some: Vec<_> = self.changes.pointers.iter().take(count).cloned().collect();
        let mut rows = Vec::new();
        for (repository, pointer) in some {
            let row = self.pointer_row(repository, &pointer);
            self.changes.pointers.remove(&(repository, pointer.clone()));
            rows.extend(row.map(|(repository, row)| (repository, pointer, row)));
        }
        rows
    }

    fn take_proofs(&mut self, count: usize) -> Vec<ProofRow> {
        let some = take_some(&mut self.changes.proofs, count);
        let rows = some.into_iter().filter_map(|(repository, id)| {
            let (repository, proof) = self.proof_row(repository, id)?;
            let digest = self.slots.get(id)?.digest.clone();
            Some(ProofRow { repository, digest, proof })
        });
        rows.collect()
    }

    /// Whichever is taken first, it or a proof that comes later: what was proved again is none.
    fn take_unproved(&mut self, count: usize) -> Vec<(Repository, Digest)> {
        let unproved = take_some(&mut self.changes.unproved, count);
        let name = |(place, digest): (RepositoryId, Digest)| {
            let repository = self.repository_at(place)?.repository.clone();
            let is_shown = |slot: &Slot| slot.edges.repositories().binary_search(&place).is_ok();
            let is_proved_again = self.slots.of(&digest).is_some_and(is_shown);
            (!is_proved_again).then_some((repository, digest))
        };
        unproved.into_iter().filter_map(name).collect()
    }

    fn take_verdicts(&mut self, count: usize) -> Vec<(Repository, Option<Verdict>)> {
        let some: Vec<_> = self.changes.verdicts.iter().take(count).cloned().collect();
        for repository in &some {
            self.changes.verdicts.remove(repository);
        }
        let row = |repository: Repository| (repository.clone(), self.verdict(&repository));
        some.into_iter().map(row).collect()
    }

    fn take_pins(&mut self, count: usize) -> Vec<(ImageName, Option<Digest>)> {
        let some: Vec<_> = self.changes.pins.iter().take(count).cloned().collect();
        for image in &some {
            self.changes.pins.remove(image);
        }
        some.into_iter().map(|image| (image.clone(), self.held_by(&image))).collect()
    }

    fn row(&self, slot: &Slot) -> BlobRow {
        let manifest = slot.manifest.as_ref().map(|manifest| ManifestRow {
            media_type: Arc::clone(&manifest.media_type),
            kind: manifest.kind,
            children: self.digests(&manifest.children),
        });
        BlobRow { size: slot.size, last_use: slot.last_use.get(), manifest }
    }
}

impl Changes {
    /// Adds what else the index has to be told, in no order: rows are made when they are asked for.
    pub fn extend(&mut self, others: Changes) {
        let Changes {
            forgotten,
            lost,
            blobs,
            pointers,
            proofs,
            unproved,
            verdicts,
            pins,
            layout: _,
        } = others;
        self.forgotten.extend(forgotten);
        self.lost.extend(lost);
        self.blobs.extend(blobs);
        self.pointers.extend(pointers);
        self.proofs.extend(proofs);
        self.unproved.extend(unproved);
        self.verdicts.extend(verdicts);
        self.pins.extend(pins);
    }
}

impl Batch {
    /// Whether there is nothing to apply.
    pub fn is_empty(&self) -> bool {
        self.forgotten.is_empty()
            && self.lost.is_empty()
            && self.unproved.is_empty()
            && self.blobs.is_empty()
            && self.pointers.is_empty()
            && self.proofs.is_empty()
            && self.verdicts.is_empty()
            && self.pins.is_empty()
    }
}

/// Removes up to `count` items from the end.
fn take_some<T>(list: &mut Vec<T>, count: usize) -> Vec<T> {
    let rest = list.len().saturating_sub(count);
    list.split_off(rest)
}
