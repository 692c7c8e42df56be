//! Tags, and which repository may see which digest.

use std::{collections::HashSet, io, sync::Arc, time::SystemTime};

use super::{
    Store, Verdict, blocking,
    table::{Pointer, PointerRow, Proof},
};
use crate::oci::{Digest, Registry, Repository, Tag, Visibility};

/// Repositories looked at under one lock.
const STEP: usize = 1024;

/// What a tag of a repository means, or which list of referrers a manifest has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaggedManifest {
    /// The manifest, or the list.
    pub digest: Digest,
    /// When upstream last confirmed it.
    pub checked_at: SystemTime,
}

/// From memory, cheap, never blocking.
impl Store {
    /// What the tag means here.
    pub fn tag(&self, repository: &Repository, tag: &Tag) -> Option<TaggedManifest> {
        self.meaning(repository, &Pointer::Tag(tag.clone()))
    }

    /// The tags whose manifests are here, sorted, each with when upstream last confirmed it.
    pub fn tags(&self, repository: &Repository) -> Vec<(Tag, SystemTime)> {
        self.0.memory.look(|table| table.tags_of(repository))
    }

    /// Whether upstream has shown anything of a repository that is remembered.
    pub fn knows(&self, repository: &Repository) -> bool {
        self.0.memory.look(|table| table.knows(repository))
    }

    /// Upstream said at `checked_at` that the tag means `digest`, which also proves the manifest.
    pub fn set_tag(
        &self,
        repository: &Repository,
        tag: &Tag,
        digest: &Digest,
        checked_at: SystemTime,
    ) {
        self.point(repository, &Pointer::Tag(tag.clone()), digest, checked_at);
    }

    /// Forgets a tag; the manifest stays.
    pub fn drop_tag(&self, repository: &Repository, tag: &Tag) {
        let pointer = Pointer::Tag(tag.clone());
        self.0.memory.with(|table| table.drop_pointer(repository, &pointer));
    }

    /// The list of what refers to `subject`, an index.
    pub fn referrers(&self, repository: &Repository, subject: &Digest) -> Option<TaggedManifest> {
        self.meaning(repository, &Pointer::Referrers(subject.clone().into()))
    }

    /// Upstream said at `checked_at` that `list` has what refers to `subject`. The list itself is
    /// not proved by it: it is no content of the repository.
    pub fn set_referrers(
        &self,
        repository: &Repository,
        subject: &Digest,
        list: &Digest,
        checked_at: SystemTime,
    ) {
        self.point(repository, &Pointer::Referrers(subject.clone().into()), list, checked_at);
    }

    /// Whether upstream has shown this digest in this repository.
    pub fn is_proved(&self, repository: &Repository, digest: &Digest) -> bool {
        self.0.memory.look(|table| table.is_proved(repository, digest))
    }

    /// Upstream showed this blob in this repository.
    pub fn prove_blob(&self, repository: &Repository, digest: &Digest) {
        self.prove(repository, digest, Proof::Blob);
    }

    /// Upstream showed this manifest in this repository; `index.json` names it.
    pub fn prove_manifest(&self, repository: &Repository, digest: &Digest) {
        self.prove(repository, digest, Proof::Manifest);
    }

    /// Whether an image manifest that upstream showed in this repository lists `digest` as config
    /// or layer.
    pub fn is_listed(&self, repository: &Repository, digest: &Digest) -> bool {
        self.0.memory.look(|table| table.is_listed(repository, digest))
    }

    /// The repositories of which a manifest is here that upstream showed in them, in no order.
    ///
    /// # Errors
    /// When the threads for such work are gone: at the very end.
    pub async fn repositories(&self) -> io::Result<Vec<Repository>> {
        let store = Arc::clone(&self.0);
        let step = move |from| store.memory.look(|table| table.shown(from, STEP));
        blocking(move || (0..).step_by(STEP).map_while(step).flatten().collect()).await
    }

    /// What upstream last said of who may see a repository, however long ago.
    pub fn verdict(&self, repository: &Repository) -> Option<Verdict> {
        self.0.memory.look(|table| table.verdict(repository))
    }

    /// Upstream said who may see a repository.
    pub fn judge(&self, repository: &Repository, verdict: Verdict) {
        self.0.memory.with(|table| table.judge(repository, verdict));
    }

    /// The registries of which upstream once said that a repository is private.
    pub fn registries_with_private(&self) -> HashSet<Registry> {
        let is_private = |verdict: &Verdict| verdict.visibility == Visibility::Private;
        self.0.memory.look(|table| {
            let private = table.verdicts().filter(|(_, verdict)| is_private(verdict));
            private.map(|(repository, _)| repository.registry().clone()).collect()
        })
    }

    fn meaning(&self, repository: &Repository, pointer: &Pointer) -> Option<TaggedManifest> {
        self.0.memory.look(|table| table.meaning(repository, pointer))
    }

    fn point(
        &self,
        repository: &Repository,
        pointer: &Pointer,
        digest: &Digest,
        checked_at: SystemTime,
    ) {
        let row = PointerRow { digest: digest.clone(), checked_at };
        let now = self.0.running.now();
        self.0.memory.with(|table| table.point(repository, pointer, &row, now));
    }

    fn prove(&self, repository: &Repository, digest: &Digest, proof: Proof) {
        let now = self.0.running.now();
        self.0.memory.with(|table| table.prove(repository, digest, proof, now));
    }
}
