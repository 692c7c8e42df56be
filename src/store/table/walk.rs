//! A walk through all names, some at a time: what happens between two steps may be met or not.

use std::ops::Bound::{Excluded, Unbounded};

use super::{
    Pointer, Table,
    names::{PointerSlot, RepositoryId, RepositorySlot},
    slots::Id,
};

/// Where a walk goes on. By default, at the beginning.
#[derive(Clone, Debug, Default)]
pub struct Cursor {
    repository: usize,
    /// Behind this name of the repository. `None`: at its first.
    after: Option<After>,
}

#[derive(Clone, Debug)]
enum After {
    Pointer(Pointer),
    Manifest(Id),
    List(Id),
}

/// What a repository has a name for. Pointers come first, then manifests, then lists.
#[derive(Clone, Copy, Debug)]
pub(super) enum Name<'t> {
    /// What a pointer means.
    Pointer(&'t Pointer, &'t PointerSlot),
    /// A manifest, whether or not a tag means it.
    Manifest(Id),
    /// A list of referrers, whether or not it is one still.
    List(Id),
}

/// Names of one repository.
#[derive(Debug)]
pub(super) struct Stretch<'t> {
    pub id: RepositoryId,
    pub repository: &'t RepositorySlot,
    pub names: Vec<Name<'t>>,
    pub next: Cursor,
}

impl Table {
    /// At most `count` names from `place` on, all of one repository. `None`: there are no more.
    pub(super) fn stretch(&self, place: &Cursor, count: usize) -> Option<Stretch<'_>> {
        let repository = self.repositories.get(place.repository)?;
        let names: Vec<Name> = repository.names_after(place.after.as_ref()).take(count).collect();
        let next = match names.last().filter(|_| names.len() >= count) {
            Some(last) => Cursor { after: Some(last.into()), ..*place },
            None => place.behind_repository(),
        };
        Some(Stretch { id: RepositoryId::at(place.repository), repository, names, next })
    }
}

impl Cursor {
    /// At the next repository.
    pub(super) fn behind_repository(&self) -> Cursor {
        Cursor { repository: self.repository.saturating_add(1), after: None }
    }
}

impl RepositorySlot {
    fn names_after(&self, after: Option<&After>) -> impl Iterator<Item = Name<'_>> {
        let all = Some(Unbounded);
        let (pointers, manifests, lists) = match after {
            None => (Some(Unbounded), all, all),
            Some(After::Pointer(last)) => (Some(Excluded(last)), all, all),
            Some(After::Manifest(last)) => (None, Some(Excluded(last)), all),
            Some(After::List(last)) => (None, None, Some(Excluded(last))),
        };
        let pointers = pointers.map(|from| self.pointers.range((from, Unbounded)));
        let manifests = manifests.map(|from| self.manifests.range((from, Unbounded)));
        let lists = lists.map(|from| self.lists.range((from, Unbounded)));
        let pointers = pointers.into_iter().flatten().map(|(name, slot)| Name::Pointer(name, slot));
        let manifests = manifests.into_iter().flatten().map(|id| Name::Manifest(*id));
        let lists = lists.into_iter().flatten().map(|id| Name::List(*id));
        pointers.chain(manifests).chain(lists)
    }
}

impl<'t> Name<'t> {
    /// The pointer, if it is one.
    pub fn pointer(&self) -> Option<&'t Pointer> {
        match self {
            Name::Pointer(pointer, _) => Some(pointer),
            Name::Manifest(_) | Name::List(_) => None,
        }
    }
}

impl From<&Name<'_>> for After {
    fn from(name: &Name<'_>) -> After {
        match name {
            Name::Pointer(pointer, _) => After::Pointer((*pointer).clone()),
            Name::Manifest(id) => After::Manifest(*id),
            Name::List(id) => After::List(*id),
        }
    }
}
