//! The table read out piece by piece, for what looks at all of it: every digest with what it lists, and
//! every name with what it means. Pieces of different steps may differ by what happened in between.

use std::{sync::Arc, time::SystemTime};

use super::{
    Pointer, Table,
    names::RepositorySlot,
    slots::{Id, Kind, Slot},
    walk::{Cursor, Name},
};
use crate::{
    oci::{Digest, Repository, Tag},
    store::running::Moment,
};

/// A digest, and what it lists.
#[derive(Clone, Debug)]
pub struct Link {
    pub id: Id,
    /// Bytes in the file. `None`: it is not there.
    pub size: Option<u64>,
    pub last_use: Moment,
    /// What it lists, when it is a manifest.
    pub kind: Option<Kind>,
    pub children: Box<[Id]>,
}

/// A manifest that is here, in a repository where clients know it.
#[derive(Clone, Debug)]
pub struct Named {
    pub repository: Repository,
    pub known_by: KnownBy,
    pub id: Id,
    pub digest: Digest,
    pub media_type: Arc<str>,
}

/// How clients know a manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KnownBy {
    /// By a tag, which upstream confirmed at that time.
    Tag(Tag, SystemTime),
    /// By its digest, or by a tag that meant it once or still does.
    Digest,
    /// As the list of what refers to something.
    Referrers,
}

impl Table {
    /// The digests among the `count` slots from number `from`. `None`: there are no more.
    pub fn links(&self, from: usize, count: usize) -> Option<Vec<Link>> {
        let link = |(id, slot): (Id, &Slot)| Link {
            id,
            size: slot.present.then_some(slot.size),
            last_use: slot.last_use.get(),
            kind: slot.manifest.as_ref().map(|manifest| manifest.kind),
            children: slot.manifest.as_ref().map_or_else(Box::default, |m| m.children.clone()),
        };
        (from < self.slots.end()).then(|| self.slots.range(from, count).map(link).collect())
    }

    /// At most `count` names from `place` on, and where to go on. `None`: there are no more.
    pub fn named(&self, place: &Cursor, count: usize) -> Option<(Vec<Named>, Cursor)> {
        let stretch = self.stretch(place, count)?;
        let named = stretch.names.iter().filter_map(|name| {
            let (manifest, known_by) = match name {
                Name::Pointer(Pointer::Tag(tag), slot) => {
                    (slot.manifest, KnownBy::Tag(tag.clone(), slot.checked_at))
                }
                Name::Pointer(Pointer::Referrers(_), slot) => (slot.manifest, KnownBy::Referrers),
                Name::Manifest(id) => (*id, KnownBy::Digest),
                Name::List(_) => return None,
            };
            self.name(stretch.repository, manifest, known_by)
        });
        Some((named.collect(), stretch.next))
    }

    fn name(&self, repository: &RepositorySlot, id: Id, known_by: KnownBy) -> Option<Named> {
        let slot = self.slots.get(id).filter(|slot| slot.present)?;
        Some(Named {
            repository: repository.repository.clone(),
            known_by,
            id,
            digest: slot.digest.clone(),
            media_type: Arc::clone(&slot.manifest.as_ref()?.media_type),
        })
    }

    /// What kind of manifest a digest is, what it lists in order, and whether that is here.
    pub fn listed(&self, digest: &Digest) -> Option<(Kind, Vec<(Digest, bool)>)> {
        let manifest = self.slots.of(digest)?.manifest.as_ref()?;
        let children = manifest.children.iter().filter_map(|id| self.slots.get(*id));
        let children = children.map(|slot| (slot.digest.clone(), slot.present));
        Some((manifest.kind, children.collect()))
    }
}
