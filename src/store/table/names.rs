//! Tags and lists of referrers, and in which repositories upstream showed which digest.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    num::NonZeroU32,
    time::SystemTime,
};

use super::{
    PointerRow, ProofRow, Table,
    pointed::Pointed,
    ruled::Ruled,
    slots::{Id, Kind, Slot},
};
use crate::{
    oci::{Digest, ImageName, Reference, Registry, Repository, Tag},
    store::{TaggedManifest, running::Moment},
};

/// The number of a repository, from one; the same as long as the table lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RepositoryId(NonZeroU32);

/// What upstream showed in a repository.
#[derive(Debug)]
pub(super) struct RepositorySlot {
    pub repository: Repository,
    pub pointers: BTreeMap<Pointer, PointerSlot>,
    /// The same by what they mean.
    pointed: Pointed,
    /// Manifests that clients ask for by digest or did ask for by tag.
    pub manifests: BTreeSet<Id>,
    /// Lists of referrers that upstream showed as nothing else. Nobody may have them by digest.
    pub lists: BTreeSet<Id>,
    /// What the rules say of it, if any is about it. Knows every tag among the pointers.
    pub ruled: Option<Box<Ruled>>,
}

#[derive(Debug)]
pub(super) struct PointerSlot {
    pub(super) manifest: Id,
    pub(super) checked_at: SystemTime,
}

/// What a repository has an answer for that upstream may change.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Pointer {
    /// Which manifest a tag means.
    Tag(Tag),
    /// Which list of referrers a manifest has. In a box: a hundred thousand tags take a third of the room
    /// by it, and there are few lists.
    Referrers(Box<Digest>),
}

/// How upstream showed a digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proof {
    /// As a blob.
    Blob,
    /// As a manifest: `index.json` names it.
    Manifest,
    /// As a list of referrers, which is an answer and no content of the repository.
    List,
}

impl Table {
    /// What a tag means, or which list of referrers a manifest has.
    pub fn meaning(&self, repository: &Repository, pointer: &Pointer) -> Option<TaggedManifest> {
        let slot = self.repository(repository)?.pointers.get(pointer)?;
        Some(TaggedManifest {
            digest: self.slots.get(slot.manifest)?.digest.clone(),
            checked_at: slot.checked_at,
        })
    }

    /// The tags of a repository whose manifests are here, in order, each with when upstream last
    /// confirmed it.
    pub fn tags_of(&self, repository: &Repository) -> Vec<(Tag, SystemTime)> {
        let pointers = self.repository(repository).into_iter().flat_map(|slot| &slot.pointers);
        let is_here = |id| self.slots.get(id).is_some_and(|slot| slot.present);
        let here = pointers.filter(|(_, slot)| is_here(slot.manifest));
        let tags = here.filter_map(|(pointer, slot)| Some((pointer.tag()?.clone(), slot)));
        tags.map(|(tag, slot)| (tag, slot.checked_at)).collect()
    }

    /// Whether anything of a repository is known.
    pub fn knows(&self, repository: &Repository) -> bool {
        self.repository(repository).is_some()
    }

    /// Upstream said that a pointer means this digest, and thereby showed the digest.
    pub fn point(
        &mut self,
        repository: &Repository,
        pointer: &Pointer,
        row: &PointerRow,
        now: Moment,
    ) {
        let proof = match pointer {
            Pointer::Tag(_) => Proof::Manifest,
            Pointer::Referrers(_) => Proof::List,
        };
        self.prove(repository, &row.digest, proof, now);
        let id = self.make_repository(repository);
        let manifest = self.slots.find_or_make(&row.digest, now);
        let checked_at = row.checked_at;
        if let Some(slot) = self.repository_mut(id) {
            slot.set(pointer, PointerSlot { manifest, checked_at });
        }
        if let Pointer::Tag(tag) = pointer {
            self.follow_tag(repository, tag, manifest);
        }
        self.mark_pointer(id, pointer);
    }

    /// As [`Table::point`], unless a later check is known already.
    pub fn restore_pointer(
        &mut self,
        repository: &Repository,
        pointer: &Pointer,
        row: &PointerRow,
        now: Moment,
    ) {
        let known = self.meaning(repository, pointer);
        if known.is_none_or(|known| known.checked_at < row.checked_at) {
            self.point(repository, pointer, row, now);
        }
    }

    /// Forgets what a pointer meant.
    pub fn drop_pointer(&mut self, repository: &Repository, pointer: &Pointer) {
        let Some(id) = self.repository_ids.get(repository).copied() else {
            return;
        };
        let dropped = self.repository_mut(id).is_some_and(|slot| slot.unset(pointer));
        if dropped {
            self.mark_pointer(id, pointer);
        }
    }

    /// Whether upstream showed the digest in the repository, as a blob or a manifest.
    pub fn is_proved(&self, repository: &Repository, digest: &Digest) -> bool {
        let Some((slot, digest)) = self.repository(repository).zip(self.slots.find(digest)) else {
            return false;
        };
        self.is_of(repository, digest) && !slot.lists.contains(&digest)
    }

    /// Upstream showed the digest in the repository.
    pub fn prove(&mut self, repository: &Repository, digest: &Digest, proof: Proof, now: Moment) {
        let repository = self.make_repository(repository);
        let id = self.slots.find_or_make(digest, now);
        let Some(slot) = self.slots.get_mut(id) else {
            return;
        };
        let mut is_new = slot.edges.add_repository(repository);
        let Some(slot) = self.repository_mut(repository) else {
            return;
        };
        match proof {
            Proof::List if is_new => is_new = slot.lists.insert(id),
            Proof::List => {}
            Proof::Blob => is_new |= slot.lists.remove(&id),
            Proof::Manifest => {
                slot.lists.remove(&id);
                let is_shown = !slot.manifests.insert(id);
                is_new |= !is_shown;
                self.changes.layout |= !is_shown;
            }
        }
        if is_new {
            self.changes.proofs.push((repository, id));
        }
    }

    /// As [`Table::prove`], when it is known that upstream showed it as nothing more than this.
    pub fn restore_proof(&mut self, row: &ProofRow, now: Moment) {
        self.prove(&row.repository, &row.digest, row.proof, now);
        let id = self.slots.find(&row.digest);
        let place = self.repository_ids.get(&row.repository).copied();
        let slot = place.and_then(|place| self.repository_mut(place));
        if let Some((id, slot)) = id.zip(slot)
            && row.proof != Proof::Manifest
        {
            slot.manifests.remove(&id);
            if row.proof == Proof::List {
                slot.lists.insert(id);
            }
        }
    }

    /// The repositories in which upstream showed the digest, each with how.
    pub fn shown_in(&self, digest: &Digest) -> Vec<(Repository, Proof)> {
        let Some(id) = self.slots.find(digest) else {
            return Vec::new();
        };
        let repositories = self.slots.get(id).map_or(&[][..], |slot| slot.edges.repositories());
        repositories.iter().filter_map(|repository| self.proof_row(*repository, id)).collect()
    }

    /// Whether an image manifest that upstream showed in the repository lists the digest.
    pub fn is_listed(&self, repository: &Repository, digest: &Digest) -> bool {
        let id = self.repository_ids.get(repository);
        let slot = self.slots.of(digest);
        id.zip(slot).is_some_and(|(id, slot)| {
            let mut parents = slot.edges.parents().iter().filter_map(|id| self.slots.get(*id));
            let shown = |parent: &Slot| parent.edges.repositories().binary_search(id).is_ok();
            parents.any(|parent| parent.is(Kind::Image) && shown(parent))
        })
    }

    /// Those of the `count` repositories from number `from` that have something to show: a tag, or
    /// a manifest that was asked for by digest, whose file is here. `None`: there are no more.
    pub fn shown(&self, from: usize, count: usize) -> Option<Vec<Repository>> {
        (from < self.repositories.len()).then(|| {
            let slots = self.repositories.iter().skip(from).take(count);
            let shown = slots.filter(|slot| self.shows_something(slot));
            shown.map(|slot| slot.repository.clone()).collect()
        })
    }

    /// Whether a repository is among [`Table::shown`].
    pub(super) fn is_shown(&self, repository: &Repository) -> bool {
        self.repository(repository).is_some_and(|slot| self.shows_something(slot))
    }

    /// The row of a pointer; `None` when it means nothing.
    pub(super) fn pointer_row(
        &self,
        id: RepositoryId,
        pointer: &Pointer,
    ) -> Option<(Repository, Option<PointerRow>)> {
        let repository = self.repositories.get(id.index())?.repository.clone();
        let row = self
            .meaning(&repository, pointer)
            .map(|meaning| PointerRow { digest: meaning.digest, checked_at: meaning.checked_at });
        Some((repository, row))
    }

    /// The proof that a repository has of a digest.
    pub(super) fn proof_row(&self, id: RepositoryId, digest: Id) -> Option<(Repository, Proof)> {
        let repository = self.repositories.get(id.index())?;
        let slot = self.slots.get(digest)?;
        slot.edges.repositories().binary_search(&id).ok()?;
        let proof = match digest {
            digest if repository.manifests.contains(&digest) => Proof::Manifest,
            digest if repository.lists.contains(&digest) => Proof::List,
            _ => Proof::Blob,
        };
        Some((repository.repository.clone(), proof))
    }

    /// The tags that mean a digest, or else the repositories that show it.
    pub fn names_of(&self, digest: &Digest) -> Vec<String> {
        let Some((id, slot)) = self.slots.find(digest).zip(self.slots.of(digest)) else {
            return Vec::new();
        };
        let shown = slot.edges.repositories().iter().filter_map(|id| self.repository_at(*id));
        let names = shown.flat_map(|slot| {
            let tags = slot.pointers_to(id).filter_map(Pointer::tag);
            let tags: Vec<String> = tags.map(|tag| format!("{}:{tag}", slot.repository)).collect();
            if tags.is_empty() { vec![slot.repository.to_string()] } else { tags }
        });
        names.collect()
    }

    /// The registries of these repositories.
    pub(super) fn registries(&self, repositories: &HashSet<RepositoryId>) -> HashSet<Registry> {
        let slots = repositories.iter().filter_map(|id| self.repository_at(*id));
        slots.map(|slot| slot.repository.registry().clone()).collect()
    }

    pub(super) fn repository_at(&self, id: RepositoryId) -> Option<&RepositorySlot> {
        self.repositories.get(id.index())
    }

    /// Forgets what points to a manifest, where the digest may be seen, and what was said there to
    /// refer to it.
    pub(super) fn forget_names(&mut self, id: Id) {
        let Some(slot) = self.slots.get_mut(id) else {
            return;
        };
        let digest = slot.digest.clone();
        for repository in slot.edges.take_repositories() {
            self.drop_names(repository, id, &digest);
        }
    }

    /// Forgets what points to a digest in a repository that shows it no longer, and what was said
    /// there to refer to it.
    pub(super) fn drop_names(&mut self, repository: RepositoryId, id: Id, digest: &Digest) {
        let Some(slot) = self.repository_mut(repository) else {
            return;
        };
        let shown = slot.manifests.remove(&id);
        slot.lists.remove(&id);
        let mut gone: Vec<Pointer> = slot.pointers_to(id).cloned().collect();
        gone.push(Pointer::Referrers(digest.clone().into()));
        gone.retain(|pointer| slot.unset(pointer));
        self.changes.layout |= shown;
        for pointer in &gone {
            self.mark_pointer(repository, pointer);
        }
    }

    fn shows_something(&self, repository: &RepositorySlot) -> bool {
        let is_here = |id: &Id| self.slots.get(*id).is_some_and(|slot| slot.present);
        // What a tag means is among the manifests.
        repository.manifests.iter().any(is_here)
    }

    pub(super) fn repository(&self, repository: &Repository) -> Option<&RepositorySlot> {
        self.repository_at(*self.repository_ids.get(repository)?)
    }

    fn repository_mut(&mut self, id: RepositoryId) -> Option<&mut RepositorySlot> {
        self.repositories.get_mut(id.index())
    }

    fn make_repository(&mut self, repository: &Repository) -> RepositoryId {
        if let Some(id) = self.repository_ids.get(repository) {
            return *id;
        }
        let id = RepositoryId::at(self.repositories.len());
        let ruled = Ruled::of(&self.rules, repository);
        let slot =
            RepositorySlot { ruled, ..RepositorySlot::of(repository.clone(), BTreeMap::new()) };
        self.repositories.push(slot);
        self.repository_ids.insert(repository.clone(), id);
        id
    }

    fn mark_pointer(&mut self, repository: RepositoryId, pointer: &Pointer) {
        self.changes.pointers.insert((repository, pointer.clone()));
        self.changes.layout = true;
    }

    fn is_of(&self, repository: &Repository, digest: Id) -> bool {
        let id = self.repository_ids.get(repository);
        let slot = self.slots.get(digest);
        id.zip(slot).is_some_and(|(id, slot)| slot.edges.repositories().binary_search(id).is_ok())
    }
}

impl RepositorySlot {
    /// Of which nothing is known but these pointers, and no rules are about it yet.
    pub(super) fn of(
        repository: Repository,
        pointers: BTreeMap<Pointer, PointerSlot>,
    ) -> RepositorySlot {
        RepositorySlot {
            repository,
            pointed: pointers.iter().map(|(pointer, slot)| (slot.manifest, pointer)).collect(),
            pointers,
            manifests: BTreeSet::new(),
            lists: BTreeSet::new(),
            ruled: None,
        }
    }

    /// Takes over all the names of another, none of which this has. No rules are about either yet.
    pub(super) fn append(&mut self, other: &mut RepositorySlot) {
        self.pointers.append(&mut other.pointers);
        self.pointed.append(&mut other.pointed);
        self.manifests.append(&mut other.manifests);
        self.lists.append(&mut other.lists);
    }

    pub(super) fn set(&mut self, pointer: &Pointer, meaning: PointerSlot) {
        let manifest = meaning.manifest;
        let before = self.pointers.insert(pointer.clone(), meaning).map(|slot| slot.manifest);
        if before == Some(manifest) {
            return;
        }
        if let Some(before) = before {
            self.part(pointer, before);
        }
        self.pointed.add(manifest, pointer);
        if let Some((ruled, tag)) = self.ruled.as_mut().zip(pointer.tag()) {
            ruled.add(tag, manifest);
        }
    }

    /// Tells whether it meant something.
    pub(super) fn unset(&mut self, pointer: &Pointer) -> bool {
        let Some(meant) = self.pointers.remove(pointer) else {
            return false;
        };
        self.part(pointer, meant.manifest);
        true
    }

    /// A pointer means a manifest no longer.
    fn part(&mut self, pointer: &Pointer, manifest: Id) {
        self.pointed.remove(manifest, pointer);
        if let Some((ruled, tag)) = self.ruled.as_mut().zip(pointer.tag()) {
            ruled.remove(tag, manifest);
        }
    }

    /// The name of what was asked for by digest here.
    pub fn by_digest(&self, digest: &Digest) -> ImageName {
        let reference = Reference::Digest(digest.clone());
        ImageName { repository: self.repository.clone(), reference }
    }

    /// The pointers that mean a digest.
    pub fn pointers_to(&self, id: Id) -> impl Iterator<Item = &Pointer> {
        self.pointed.to(id)
    }

    /// Whether a tag means a digest.
    pub fn has_tag(&self, id: Id) -> bool {
        self.pointers_to(id).any(|pointer| pointer.tag().is_some())
    }

    /// What a pointer means.
    pub fn meaning_of(&self, pointer: &Pointer) -> Option<Id> {
        self.pointers.get(pointer).map(|slot| slot.manifest)
    }
}

impl Pointer {
    pub(super) fn tag(&self) -> Option<&Tag> {
        match self {
            Pointer::Tag(tag) => Some(tag),
            Pointer::Referrers(_) => None,
        }
    }
}

impl RepositoryId {
    /// The number of the repository at a place. Each has a name of its own in memory: there are
    /// never four thousand million.
    pub(super) fn at(index: usize) -> RepositoryId {
        let number = u32::try_from(index).unwrap_or(u32::MAX);
        RepositoryId(NonZeroU32::MIN.saturating_add(number))
    }

    /// Where the repository is.
    pub(super) fn index(self) -> usize {
        self.0.get() as usize - 1
    }
}
