//! Manifests by digest: memory, store, upstream; and whether the image behind one can be had.

use std::{collections::HashSet, sync::Arc};

use bytes::Bytes;
use foldhash::fast::RandomState;
use moka::sync::Cache;
use tokio::time::Instant;

use super::{ALIVE, Error, Mirror, PROBE_TIMEOUT, Source, flight::Flights, missing::Absent, pause};
use crate::{
    oci::{
        self, Algorithm, Children, Descriptor, Digest, MAX_NESTING, Manifest, Reference,
        RefusedManifest, Repository,
    },
    upstream::{self, FetchedManifest, ManifestHead, Sample, Spending},
};

/// Manifests kept in memory, in bytes.
const MEMORY: u64 = 16 * 1024 * 1024;

/// A manifest at hand.
#[derive(Debug)]
pub struct Content {
    /// Its name.
    pub digest: Digest,
    /// What is in it.
    pub manifest: Manifest,
    /// Upstream's bytes, verbatim.
    pub bytes: Bytes,
    keeping: Keeping,
}

/// Where a manifest in memory is kept besides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Keeping {
    /// In the store; when it leaves there, it is gone.
    Stored,
    /// Nowhere: the store could not take it.
    MemoryOnly,
}

/// The answer to a question for a manifest.
#[derive(Clone, Debug)]
pub struct Found {
    /// The manifest's name.
    pub digest: Digest,
    /// Its media type.
    pub media_type: String,
    /// Its size in bytes.
    pub size: u64,
    /// The manifest itself; always there unless only a HEAD was asked for.
    pub content: Option<Arc<Content>>,
    /// Why it may be out of date, if it may.
    pub stale: Option<String>,
    /// Where it came from.
    pub source: Source,
}

pub(super) type Memory = Cache<Digest, Arc<Content>, RandomState>;
pub(super) type ManifestFlights = Flights<(Repository, Reference, Spending), Arc<Content>>;
pub(super) type HeadFlights = Flights<(Repository, Digest), Option<Found>>;

/// The manifests used most, bounded in bytes.
pub(super) fn memory() -> Memory {
    // The parsed form takes about twice the room of the bytes.
    let weigh = |_: &Digest, content: &Arc<Content>| {
        u32::try_from(content.bytes.len()).unwrap_or(u32::MAX).saturating_mul(3)
    };
    Cache::builder().max_capacity(MEMORY).weigher(weigh).build_with_hasher(RandomState::default())
}

impl Content {
    /// Content that has just come, and is not stored.
    pub(super) fn new(digest: Digest, manifest: Manifest, bytes: Bytes) -> Content {
        Content { digest, manifest, bytes, keeping: Keeping::MemoryOnly }
    }
}

impl Found {
    pub(super) fn new(content: Arc<Content>, source: Source) -> Found {
        Found {
            digest: content.digest.clone(),
            media_type: content.manifest.media_type.clone(),
            size: content.bytes.len() as u64,
            content: Some(content),
            stale: None,
            source,
        }
    }

    /// What upstream's HEAD told. `None` when it left something out, or has a type that is no
    /// manifest's: then the manifest itself has to tell.
    pub(super) fn announced(head: ManifestHead) -> Option<Found> {
        Some(Found {
            digest: head.digest?,
            media_type: head.media_type.filter(|media_type| oci::is_manifest_type(media_type))?,
            size: head.size?,
            content: None,
            stale: None,
            source: Source::Upstream,
        })
    }
}

impl Mirror {
    /// A manifest with its bytes.
    pub async fn manifest(
        self: &Arc<Self>,
        repository: &Repository,
        reference: &Reference,
    ) -> Result<Found, Error> {
        self.permit_manifest(repository, reference)?;
        let deadline = self.deadline();
        let ask = || self.manifest_until(repository, reference, deadline);
        let sample = Sample::Manifest(reference.clone());
        let found = || pause::wait_out(deadline, ask);
        let found = self.if_shared(repository, sample, deadline, found).await?;
        self.store.touch(&found.digest);
        self.note_served(repository, &found);
        Ok(found)
    }

    /// What a manifest is, at the cost of at most one upstream HEAD where upstream supports it.
    pub async fn manifest_head(
        self: &Arc<Self>,
        repository: &Repository,
        reference: &Reference,
    ) -> Result<Found, Error> {
        self.permit_manifest(repository, reference)?;
        let deadline = self.deadline();
        let ask = || self.head_until(repository, reference, deadline);
        let sample = Sample::Manifest(reference.clone());
        let found = || pause::wait_out(deadline, ask);
        let found = self.if_shared(repository, sample, deadline, found).await?;
        self.store.touch(&found.digest);
        Ok(found)
    }

    /// A manifest that is here, whoever may see it.
    pub(super) async fn content(&self, digest: &Digest) -> Option<Arc<Content>> {
        if let Some(content) = self.manifests.get(digest) {
            match content.keeping {
                Keeping::MemoryOnly => return Some(Box::pin(self.hold_again(content)).await),
                Keeping::Stored if self.store.has(digest) => return Some(content),
                Keeping::Stored => self.manifests.invalidate(digest),
            }
        }
        // One that cannot be read is had from upstream.
        let (manifest, bytes) = Box::pin(self.store.manifest(digest)).await.ok().flatten()?;
        let content =
            Arc::new(Content { digest: digest.clone(), manifest, bytes, keeping: Keeping::Stored });
        self.manifests.insert(digest.clone(), content.clone());
        Some(content)
    }

    /// Fetches a manifest into the store; one upstream GET for all who ask at the same time.
    pub(super) async fn fetch(
        self: &Arc<Self>,
        repository: &Repository,
        reference: &Reference,
        spending: Spending,
        deadline: Instant,
    ) -> Result<Arc<Content>, Error> {
        let key = (repository.clone(), reference.clone(), spending);
        let fetch = || self.clone().fetch_and_keep(repository.clone(), reference.clone(), spending);
        self.fetches.join(key, deadline, fetch).await
    }

    /// An image that is not wholly here is promised only when upstream is alive: podman never
    /// turns to another registry once it has a manifest.
    pub(super) async fn ensure_obtainable(
        &self,
        repository: &Repository,
        content: &Arc<Content>,
    ) -> Result<(), Error> {
        if self.is_obtainable(repository, content).await? {
            return Ok(());
        }
        let upstream = self.upstream(repository)?;
        upstream.ensure_online()?;
        if Box::pin(upstream.probe(PROBE_TIMEOUT)).await {
            return Ok(());
        }
        let message = "upstream does not answer, and this image is not wholly cached";
        Err(Error::Unreachable(message.to_owned()))
    }

    /// Whether the image is whole, or upstream was alive just now.
    pub(super) async fn is_obtainable(
        &self,
        repository: &Repository,
        content: &Arc<Content>,
    ) -> Result<bool, Error> {
        Ok(self.upstream(repository)?.answered_within(ALIVE) || self.is_whole(content).await)
    }

    async fn manifest_until(
        self: &Arc<Self>,
        repository: &Repository,
        reference: &Reference,
        deadline: Instant,
    ) -> Result<Found, Error> {
        match reference {
            Reference::Tag(tag) => self.manifest_by_tag(repository, tag, deadline).await,
            Reference::Digest(digest) => {
                self.manifest_by_digest(repository, digest, deadline).await
            }
        }
    }

    async fn head_until(
        self: &Arc<Self>,
        repository: &Repository,
        reference: &Reference,
        deadline: Instant,
    ) -> Result<Found, Error> {
        match reference {
            Reference::Tag(tag) => self.head_by_tag(repository, tag, deadline).await,
            Reference::Digest(digest) => self.head_by_digest(repository, digest, deadline).await,
        }
    }

    async fn manifest_by_digest(
        self: &Arc<Self>,
        repository: &Repository,
        digest: &Digest,
        deadline: Instant,
    ) -> Result<Found, Error> {
        if let Some(found) = self.hit_by_digest(repository, digest, deadline).await? {
            return Ok(found);
        }
        let reference = Reference::Digest(digest.clone());
        self.refuse_absent(&Absent::manifest(repository, &reference))?;
        let fetch = self.fetch(repository, &reference, Spending::All, deadline);
        let content = Box::pin(fetch).await?;
        self.count(repository, "manifest", "miss");
        Ok(Found::new(content, Source::Upstream))
    }

    async fn head_by_digest(
        self: &Arc<Self>,
        repository: &Repository,
        digest: &Digest,
        deadline: Instant,
    ) -> Result<Found, Error> {
        match self.hit_by_digest(repository, digest, deadline).await? {
            Some(found) => Ok(found),
            None => Box::pin(self.head_from_upstream(repository, digest, deadline)).await,
        }
    }

    async fn head_from_upstream(
        self: &Arc<Self>,
        repository: &Repository,
        digest: &Digest,
        deadline: Instant,
    ) -> Result<Found, Error> {
        let reference = Reference::Digest(digest.clone());
        self.refuse_absent(&Absent::manifest(repository, &reference))?;
        self.count(repository, "manifest", "miss");
        let key = (repository.clone(), digest.clone());
        let head = || self.clone().ask_for_head(repository.clone(), reference.clone());
        match self.heads.join(key, deadline, head).await? {
            Some(found) => Ok(found),
            None => {
                let content = self.fetch(repository, &reference, Spending::All, deadline).await?;
                Ok(Found::new(content, Source::Upstream))
            }
        }
    }

    async fn ask_for_head(
        self: Arc<Self>,
        repository: Repository,
        reference: Reference,
    ) -> Result<Option<Found>, Error> {
        self.announced(&repository, &reference, self.deadline()).await
    }

    /// What upstream's HEAD tells. `None`: it is of no use.
    pub(super) async fn announced(
        &self,
        repository: &Repository,
        reference: &Reference,
        deadline: Instant,
    ) -> Result<Option<Found>, Error> {
        let mirrored = self.mirrored(repository)?;
        let head = mirrored.upstream.head_manifest(repository.name(), reference, deadline).await;
        let announced = match (head, reference) {
            (Ok(head), Reference::Tag(_)) => Ok(Found::announced(head)),
            // A store behind the registry, such as S3, does not repeat what was asked for.
            (Ok(head), Reference::Digest(asked)) => {
                Ok(Found::announced(ManifestHead { digest: Some(asked.clone()), ..head }))
            }
            (Err(upstream::Error::HeadRefused(_)), _) => Ok(None),
            (Err(error), _) => {
                Err(self.remember_absent(Absent::manifest(repository, reference), error))
            }
        };
        mirrored.note(&announced);
        announced
    }

    async fn hit_by_digest(
        self: &Arc<Self>,
        repository: &Repository,
        digest: &Digest,
        deadline: Instant,
    ) -> Result<Option<Found>, Error> {
        let Some(content) = self.content(digest).await else {
            return Ok(None);
        };
        self.ensure_manifest_proved(repository, digest, Spending::All, deadline).await?;
        self.ensure_obtainable(repository, &content).await?;
        self.count(repository, "manifest", "hit");
        Ok(Some(Found::new(content, Source::Cache)))
    }

    async fn fetch_and_keep(
        self: Arc<Self>,
        repository: Repository,
        reference: Reference,
        spending: Spending,
    ) -> Result<Arc<Content>, Error> {
        if let Some(content) = self.just_fetched(&repository, &reference).await {
            return Ok(content);
        }
        let mirrored = self.mirrored(&repository)?;
        let (upstream, name) = (&mirrored.upstream, repository.name());
        let fetched = upstream.get_manifest(name, &reference, spending, self.deadline()).await;
        let absent = || Absent::manifest(&repository, &reference);
        let fetched = fetched.map_err(|error| self.remember_absent(absent(), error));
        mirrored.note(&fetched);
        let content = self.verify(&repository, &reference, fetched?)?;
        let content = self.keep(&repository, content).await;
        if let Reference::Tag(tag) = &reference {
            let now = self.clock.wall();
            self.store.set_tag(&repository, tag, &content.digest, now);
        }
        Ok(content)
    }

    /// What another flight brought after the caller had looked for it, and before this flight
    /// began.
    async fn just_fetched(
        &self,
        repository: &Repository,
        reference: &Reference,
    ) -> Option<Arc<Content>> {
        match reference {
            Reference::Digest(digest) if self.store.is_proved(repository, digest) => {
                self.content(digest).await
            }
            Reference::Digest(_) | Reference::Tag(_) => None,
        }
    }

    fn verify(
        &self,
        repository: &Repository,
        reference: &Reference,
        fetched: FetchedManifest,
    ) -> Result<Content, Error> {
        let bytes = fetched.bytes;
        let digest = match reference {
            Reference::Tag(_) => Digest::of(Algorithm::Sha256, &bytes),
            Reference::Digest(asked) => {
                let actual = Digest::of(asked.algorithm(), &bytes);
                if actual != *asked {
                    let registry = repository.registry().as_str();
                    self.metrics.download_failures.with_label_values(&[registry, "digest"]).inc();
                    tracing::warn!(%repository, %asked, %actual, "upstream sent a wrong manifest");
                    return Err(Error::Unusable(format!("upstream sent wrong bytes for {asked}")));
                }
                actual
            }
        };
        let manifest = Manifest::parse(&bytes, fetched.media_type.as_deref())?;
        let is_index = matches!(manifest.children, Children::Index(_));
        if is_index && self.store.nesting_above(&digest) >= MAX_NESTING {
            return Err(RefusedManifest::TooDeep.into());
        }
        Ok(Content::new(digest, manifest, bytes))
    }

    /// Stores a manifest that upstream has just shown in this repository.
    async fn keep(self: &Arc<Self>, repository: &Repository, content: Content) -> Arc<Content> {
        let content = self.hold(repository, content).await;
        self.store.prove_manifest(repository, &content.digest);
        self.settle_announced(repository, &content.digest);
        self.prove_children(repository, &content);
        content
    }

    /// Puts content into the store. What the store cannot take is served from memory as long as
    /// it stays there.
    pub(super) async fn hold(&self, repository: &Repository, mut content: Content) -> Arc<Content> {
        let digest = content.digest.clone();
        match self.store.put_manifest(&digest, &content.manifest, &content.bytes).await {
            Ok(()) => content.keeping = Keeping::Stored,
            Err(error) => {
                tracing::debug!(%repository, %digest, %error, "cannot keep a manifest");
                self.metrics.passthrough.with_label_values(&[error.label()]).inc();
            }
        }
        let content = Arc::new(content);
        self.manifests.insert(digest, content.clone());
        content
    }

    /// Puts content into the store that it could not take before.
    async fn hold_again(&self, content: Arc<Content>) -> Arc<Content> {
        let Content { digest, manifest, bytes, .. } = &*content;
        if self.store.put_manifest(digest, manifest, bytes).await.is_err() {
            return content;
        }
        let held = Content::new(digest.clone(), manifest.clone(), bytes.clone());
        let held = Arc::new(Content { keeping: Keeping::Stored, ..held });
        self.manifests.insert(digest.clone(), held.clone());
        held
    }

    /// Whether an image can be pulled from here alone: its config and all layers that a registry
    /// must have are on disk; of an index, one image is whole. An index that lists no image, such
    /// as that of what is attached to one, is read for itself.
    async fn is_whole(&self, content: &Arc<Content>) -> bool {
        if let Children::Index(listed) = &content.manifest.children
            && listed.iter().all(Descriptor::is_attached)
        {
            return true;
        }
        let mut pending = vec![content.clone()];
        // Indexes that list the same thing often, level by level, would keep this busy for years.
        let mut seen = HashSet::new();
        while let Some(content) = pending.pop() {
            match &content.manifest.children {
                Children::Image { config, layers } => {
                    let layers = layers.iter().filter(|layer| layer.urls.is_empty());
                    let config = Some(config).filter(|config| !config.is_empty_object());
                    let needed = layers.chain(config);
                    if self.has_all(needed.map(|blob| &blob.digest)).await {
                        return true;
                    }
                }
                Children::Index(images) => {
                    for image in images.iter().filter(|image| !image.is_attached()) {
                        if seen.insert(image.digest.clone()) {
                            pending.extend(self.content(&image.digest).await);
                        }
                    }
                }
            }
        }
        false
    }

    async fn has_all(&self, digests: impl Iterator<Item = &Digest>) -> bool {
        for digest in digests {
            if self.stored_size(digest).await.is_none() {
                return false;
            }
        }
        true
    }
}
