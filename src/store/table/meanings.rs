//! What a repository means by its names, as bytes and back, for the snapshot of the table.

use super::{
    Pointer,
    names::{PointerSlot, RepositorySlot},
    slots::Id,
    walk::Name,
};
use crate::{
    oci::{Reference, Repository},
    store::encoding::{
        put_number, put_numbers, put_text, put_time, take_numbers, take_text, take_time, take_u32,
    },
};

/// Appends some names of one repository.
pub(super) fn put_names(part: &mut Vec<u8>, names: &[Name<'_>]) {
    let (mut pointers, mut manifests, mut lists) = (Vec::new(), Vec::new(), Vec::new());
    for name in names {
        match name {
            Name::Pointer(pointer, slot) => pointers.push((pointer, slot)),
            Name::Manifest(id) => manifests.push(id.index()),
            Name::List(id) => lists.push(id.index()),
        }
    }
    put_number(part, pointers.len());
    for (pointer, slot) in pointers {
        match pointer {
            Pointer::Tag(tag) => put_text(part, tag.as_str()),
            Pointer::Referrers(subject) => put_text(part, &subject.to_string()),
        }
        put_number(part, slot.manifest.index());
        put_time(part, slot.checked_at);
    }
    put_numbers(part, manifests.into_iter());
    put_numbers(part, lists.into_iter());
}

impl RepositorySlot {
    /// Takes [`put_names`] off the front. No rules are about the repository yet.
    pub(super) fn take_names(repository: Repository, rest: &mut &[u8]) -> Option<RepositorySlot> {
        // Made from all of them at once, a map is full: one that grows in order is half empty.
        let pointers = (0..take_u32(rest)?).map(|_| take_pointer(rest)).collect::<Option<_>>()?;
        let mut slot = RepositorySlot::of(repository, pointers);
        slot.manifests = take_numbers(rest)?.map(Id::at).collect();
        slot.lists = take_numbers(rest)?.map(Id::at).collect();
        Some(slot)
    }

    /// Drops what is said of slots that are not there.
    pub(super) fn retain(&mut self, is_there: impl Fn(Id) -> bool) {
        let gone = self.pointers.iter().filter(|(_, slot)| !is_there(slot.manifest));
        for pointer in gone.map(|(pointer, _)| pointer.clone()).collect::<Vec<_>>() {
            self.unset(&pointer);
        }
        self.manifests.retain(|id| is_there(*id));
        self.lists.retain(|id| is_there(*id));
    }

    /// All that it names.
    pub(super) fn named(&self) -> impl Iterator<Item = Id> {
        let pointed = self.pointers.values().map(|slot| slot.manifest);
        pointed.chain(self.manifests.iter().copied()).chain(self.lists.iter().copied())
    }
}

fn take_pointer(rest: &mut &[u8]) -> Option<(Pointer, PointerSlot)> {
    // A tag has no colon, and a digest has one.
    let pointer = match take_text(rest)?.parse().ok()? {
        Reference::Tag(tag) => Pointer::Tag(tag),
        Reference::Digest(subject) => Pointer::Referrers(subject.into()),
    };
    let manifest = Id::at(take_u32(rest)? as usize);
    Some((pointer, PointerSlot { manifest, checked_at: take_time(rest)? }))
}
