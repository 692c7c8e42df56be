//! What `index.json` says of the table.

use std::{sync::Arc, time::SystemTime};

use super::{
    Pointer, Table,
    names::RepositorySlot,
    slots::Id,
    walk::{Cursor, Name},
};
use crate::oci::{Digest, Repository};

/// One descriptor of `index.json`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayoutEntry {
    /// What it is the answer for, and when upstream last confirmed it. `None`: asked for by digest.
    pub pointer: Option<(Pointer, SystemTime)>,
    pub repository: Repository,
    pub digest: Digest,
    pub size: u64,
    pub media_type: Arc<str>,
}

impl Table {
    /// What `index.json` says of at most `count` names from `place` on, and where to go on. `None`: there
    /// are no more.
    pub fn layout_entries(
        &self,
        place: &Cursor,
        count: usize,
    ) -> Option<(Vec<LayoutEntry>, Cursor)> {
        let stretch = self.stretch(place, count)?;
        let repository = stretch.repository;
        let entries = stretch.names.iter().filter_map(|name| match name {
            Name::Pointer(pointer, slot) => {
                let meaning = Some(((*pointer).clone(), slot.checked_at));
                self.layout_entry(repository, slot.manifest, meaning)
            }
            Name::Manifest(id) if !repository.has_tag(*id) => {
                self.layout_entry(repository, *id, None)
            }
            Name::Manifest(_) | Name::List(_) => None,
        });
        Some((entries.collect(), stretch.next))
    }

    fn layout_entry(
        &self,
        repository: &RepositorySlot,
        manifest: Id,
        pointer: Option<(Pointer, SystemTime)>,
    ) -> Option<LayoutEntry> {
        let slot = self.slots.get(manifest).filter(|slot| slot.present)?;
        if self.withdrawn.contains_key(&slot.digest) {
            return None;
        }
        Some(LayoutEntry {
            pointer,
            repository: repository.repository.clone(),
            digest: slot.digest.clone(),
            size: slot.size,
            media_type: Arc::clone(&slot.manifest.as_ref()?.media_type),
        })
    }
}
