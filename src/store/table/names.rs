//! Tags, and in which repositories upstream showed which digest.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::SystemTime,
};

use super::{
    Table, TagRow, insert_sorted,
    slots::{Id, Kind, Slot},
};
use crate::{
    oci::{Digest, Registry, Repository, Tag},
    store::{TaggedManifest, running::Moment},
};

/// The number of a repository; the same as long as the table lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RepositoryId(u32);

/// What upstream showed in a repository.
#[derive(Debug)]
pub(super) struct RepositorySlot {
    repository: Repository,
    tags: BTreeMap<Tag, TagSlot>,
    /// Manifests that clients ask for by digest or did ask for by tag.
    manifests: BTreeSet<Id>,
}

#[derive(Debug)]
struct TagSlot {
    manifest: Id,
    checked_at: SystemTime,
}

/// How upstream showed a digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proof {
    /// As a blob.
    Blob,
    /// As a manifest: `index.json` names it.
    Manifest,
}

/// One descriptor of `index.json`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayoutEntry {
    /// The tag, and when upstream last confirmed it. `None`: asked for by digest.
    pub tag: Option<(Tag, SystemTime)>,
    pub repository: Repository,
    pub digest: Digest,
    pub size: u64,
    pub media_type: Arc<str>,
}

impl Table {
    /// What a tag means.
    pub fn tag(&self, repository: &Repository, tag: &Tag) -> Option<TaggedManifest> {
        let tag = self.repository(repository)?.tags.get(tag)?;
        Some(TaggedManifest {
            digest: self.slots.get(tag.manifest)?.digest.clone(),
            checked_at: tag.checked_at,
        })
    }

    /// The tags of a repository whose manifests are here, in order, each with when upstream last
    /// confirmed it.
    pub fn tags_of(&self, repository: &Repository) -> Vec<(Tag, SystemTime)> {
        let tags = self.repository(repository).into_iter().flat_map(|slot| &slot.tags);
        let is_here = |tag: &TagSlot| self.slots.get(tag.manifest).is_some_and(|slot| slot.present);
        let here = tags.filter(|(_, tag)| is_here(tag));
        here.map(|(name, tag)| (name.clone(), tag.checked_at)).collect()
    }

    /// Upstream said that a tag means this digest, and thereby showed the digest.
    pub fn set_tag(&mut self, repository: &Repository, tag: &Tag, row: &TagRow, now: Moment) {
        self.prove(repository, &row.digest, Proof::Manifest, now);
        let id = self.make_repository(repository);
        let manifest = self.slots.find_or_make(&row.digest, now);
        let checked_at = row.checked_at;
        if let Some(slot) = self.repository_mut(id) {
            let meaning = TagSlot { manifest, checked_at };
            slot.tags.insert(tag.clone(), meaning);
        }
        self.mark_tag(id, tag);
    }

    /// As [`Table::set_tag`], unless a later check of the tag is known already.
    pub fn restore_tag(&mut self, repository: &Repository, tag: &Tag, row: &TagRow, now: Moment) {
        let known = self.tag(repository, tag);
        if known.is_none_or(|known| known.checked_at < row.checked_at) {
            self.set_tag(repository, tag, row, now);
        }
    }

    /// Forgets a tag.
    pub fn drop_tag(&mut self, repository: &Repository, tag: &Tag) {
        let Some(id) = self.repository_ids.get(repository).copied() else {
            return;
        };
        let dropped = self.repository_mut(id).and_then(|slot| slot.tags.remove(tag));
        if dropped.is_some() {
            self.mark_tag(id, tag);
        }
    }

    /// Whether upstream showed the digest in the repository.
    pub fn is_proved(&self, repository: &Repository, digest: &Digest) -> bool {
        let id = self.repository_ids.get(repository);
        let slot = self.slots.of(digest);
        id.zip(slot).is_some_and(|(id, slot)| slot.repositories.binary_search(id).is_ok())
    }

    /// Upstream showed the digest in the repository.
    pub fn prove(&mut self, repository: &Repository, digest: &Digest, proof: Proof, now: Moment) {
        let repository = self.make_repository(repository);
        let id = self.slots.find_or_make(digest, now);
        let Some(slot) = self.slots.get_mut(id) else {
            return;
        };
        let mut is_new = insert_sorted(&mut slot.repositories, repository);
        if proof == Proof::Manifest
            && let Some(slot) = self.repository_mut(repository)
            && slot.manifests.insert(id)
        {
            is_new = true;
            self.changes.layout = true;
        }
        if is_new {
            self.changes.proofs.push((repository, id));
        }
    }

    /// Whether an image manifest that upstream showed in the repository lists the digest.
    pub fn is_listed(&self, repository: &Repository, digest: &Digest) -> bool {
        let id = self.repository_ids.get(repository);
        let slot = self.slots.of(digest);
        id.zip(slot).is_some_and(|(id, slot)| {
            let mut parents = slot.parents.iter().filter_map(|id| self.slots.get(*id));
            let shown = |parent: &Slot| parent.repositories.binary_search(id).is_ok();
            parents.any(|parent| parent.is(Kind::Image) && shown(parent))
        })
    }

    /// What `index.json` says of the repository with this number. `None`: there are no more.
    pub fn layout_entries(&self, repository: usize) -> Option<Vec<LayoutEntry>> {
        let repository = self.repositories.get(repository)?;
        let tagged: BTreeSet<Id> = repository.tags.values().map(|tag| tag.manifest).collect();
        let tags = repository.tags.iter().map(|(name, tag)| {
            let tagged = Some((name.clone(), tag.checked_at));
            self.layout_entry(repository, tag.manifest, tagged)
        });
        let untagged = repository.manifests.difference(&tagged);
        let untagged = untagged.map(|id| self.layout_entry(repository, *id, None));
        Some(tags.chain(untagged).flatten().collect())
    }

    /// Those of the `count` repositories from number `from` that have something to show: a tag, or
    /// a manifest that was asked for by digest, whose file is here. `None`: there are no more.
    pub fn shown(&self, from: usize, count: usize) -> Option<Vec<Repository>> {
        let is_here = |id: &Id| self.slots.get(*id).is_some_and(|slot| slot.present);
        // What a tag means is among the manifests.
        let is_shown = |slot: &&RepositorySlot| slot.manifests.iter().any(is_here);
        (from < self.repositories.len()).then(|| {
            let slots = self.repositories.iter().skip(from).take(count);
            slots.filter(is_shown).map(|slot| slot.repository.clone()).collect()
        })
    }

    /// The row of a tag; `None` when there is no such tag.
    pub(super) fn tag_row(
        &self,
        id: RepositoryId,
        tag: &Tag,
    ) -> Option<(Repository, Option<TagRow>)> {
        let repository = self.repositories.get(id.index())?.repository.clone();
        let row = self
            .tag(&repository, tag)
            .map(|tagged| TagRow { digest: tagged.digest, checked_at: tagged.checked_at });
        Some((repository, row))
    }

    /// The proof that a repository has of a digest.
    pub(super) fn proof_row(&self, id: RepositoryId, digest: Id) -> Option<(Repository, Proof)> {
        let repository = self.repositories.get(id.index())?;
        let slot = self.slots.get(digest)?;
        slot.repositories.binary_search(&id).ok()?;
        let proof =
            if repository.manifests.contains(&digest) { Proof::Manifest } else { Proof::Blob };
        Some((repository.repository.clone(), proof))
    }

    /// Every tag.
    pub(super) fn tags(&self) -> impl Iterator<Item = (RepositoryId, Tag)> {
        let repositories = (0u32..).map(RepositoryId).zip(&self.repositories);
        repositories.flat_map(|(id, slot)| slot.tags.keys().map(move |tag| (id, tag.clone())))
    }

    /// Whether one of these repositories is of one of the registries.
    pub(super) fn any_of(&self, repositories: &[RepositoryId], registries: &[Registry]) -> bool {
        repositories
            .iter()
            .filter_map(|id| self.repositories.get(id.index()))
            .any(|slot| registries.contains(slot.repository.registry()))
    }

    /// Forgets the tags of a manifest, and where the digest may be seen.
    pub(super) fn forget_names(&mut self, id: Id) {
        let repositories =
            self.slots.get_mut(id).map(|slot| std::mem::take(&mut slot.repositories));
        for repository in repositories.into_iter().flatten() {
            let Some(slot) = self.repository_mut(repository) else {
                continue;
            };
            let shown = slot.manifests.remove(&id);
            let tags = slot.tags.iter().filter(|(_, tag)| tag.manifest == id);
            let tags: Vec<Tag> = tags.map(|(tag, _)| tag.clone()).collect();
            for tag in &tags {
                slot.tags.remove(tag);
            }
            self.changes.layout |= shown;
            for tag in &tags {
                self.mark_tag(repository, tag);
            }
        }
    }

    fn layout_entry(
        &self,
        repository: &RepositorySlot,
        manifest: Id,
        tag: Option<(Tag, SystemTime)>,
    ) -> Option<LayoutEntry> {
        let slot = self.slots.get(manifest).filter(|slot| slot.present)?;
        Some(LayoutEntry {
            tag,
            repository: repository.repository.clone(),
            digest: slot.digest.clone(),
            size: slot.size,
            media_type: Arc::clone(&slot.manifest.as_ref()?.media_type),
        })
    }

    fn repository(&self, repository: &Repository) -> Option<&RepositorySlot> {
        let id = self.repository_ids.get(repository)?;
        self.repositories.get(id.index())
    }

    fn repository_mut(&mut self, id: RepositoryId) -> Option<&mut RepositorySlot> {
        self.repositories.get_mut(id.index())
    }

    fn make_repository(&mut self, repository: &Repository) -> RepositoryId {
        if let Some(id) = self.repository_ids.get(repository) {
            return *id;
        }
        // Each has a name of its own in memory: there are never four thousand million.
        let id = RepositoryId(u32::try_from(self.repositories.len()).unwrap_or(u32::MAX));
        self.repositories.push(RepositorySlot {
            repository: repository.clone(),
            tags: BTreeMap::new(),
            manifests: BTreeSet::new(),
        });
        self.repository_ids.insert(repository.clone(), id);
        id
    }

    fn mark_tag(&mut self, repository: RepositoryId, tag: &Tag) {
        self.changes.tags.insert((repository, tag.clone()));
        self.changes.layout = true;
    }
}

impl RepositoryId {
    fn index(self) -> usize {
        self.0 as usize
    }
}
