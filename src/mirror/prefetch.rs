//! Prefetch: while a client reads one layer of an image, those after it are fetched already.
//!
//! - It follows from what a client did: it got the manifest, and now gets a layer from its start. Who
//!   only looks at manifests starts nothing.
//! - It takes only what is idle: a layer is begun while fewer downloads of any kind are running than
//!   `download.max_concurrent`. Until then it is no more than a name in a queue, so a client that
//!   asks for it starts it at once; one that asks later joins it.
//! - It leaves an image alone when one of its layers does not come to be stored, until the manifest
//!   is served again. What upstream said of that layer is remembered for nobody.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use foldhash::fast::RandomState;
use moka::{policy::EvictionPolicy, sync::Cache};
use tokio::sync::Notify;

use super::{
    Mirror,
    blob::File,
    lock,
    manifest::{Content, Found},
    missing::Absent,
};
use crate::{
    config,
    oci::{Digest, Repository},
};

/// Layers of served images kept in memory, in bytes.
const MEMORY: u64 = 16 * 1024 * 1024;

/// What an image costs in memory beside its layers, in bytes.
const IMAGE_OVERHEAD: usize = 256;

/// The most images remembered of one repository: a build with many tags serves several at once.
const IMAGES_PER_REPOSITORY: usize = 16;

/// The most images that wait for idle slots.
const MAX_WAITING: usize = 100;

/// How long after a client last asked for a layer of an image the next one may still be begun, in
/// running time. A pull that goes on asks again, one that was given up does not.
const PULL_MEMORY: Duration = Duration::from_secs(60);

/// The most prefetched blobs remembered that no client has asked for.
const MAX_UNASKED: u64 = 10_000;

/// What was served, what waits, and what came ahead of its client.
pub(super) struct Prefetch {
    is_on: bool,
    /// With so many downloads of any kind running, nothing is begun.
    slots: usize,
    /// The images of each repository, last served first.
    served: Cache<Repository, Arc<[Arc<Image>]>, RandomState>,
    /// Images take turns.
    waiting: Mutex<VecDeque<Waiting>>,
    /// An image waits, or a slot has become idle.
    changed: Notify,
    unasked: Cache<Digest, ()>,
}

/// An image whose manifest was served.
struct Image {
    repository: Repository,
    manifest: Digest,
    /// Those that a registry must have, base first.
    layers: Box<[Digest]>,
    is_given_up: AtomicBool,
}

/// An image whose layers from `next` on wait for idle slots.
struct Waiting {
    image: Arc<Image>,
    next: usize,
    /// When a client last asked for one of its layers, in running time.
    asked_at: Duration,
}

impl Mirror {
    /// Begins what waits to be prefetched whenever a slot is idle. Ends when it is dropped; what has
    /// begun goes on.
    pub async fn prefetch(self: Arc<Self>) {
        loop {
            self.prefetch.changed.notified().await;
            while let Some((image, layer)) = self.next_prefetch() {
                // Memory may not know yet of a file that is on disk.
                if let Ok(None) = self.store.blob_size(&layer).await {
                    self.begin_prefetch(image, layer);
                }
            }
        }
    }

    /// A client gets this layer from its start: those after it, in the manifest last served in the
    /// repository that lists it, are fetched as soon as slots are idle.
    pub fn prefetch_after(&self, repository: &Repository, layer: &Digest) {
        let Some((image, next)) = self.prefetch.served_before(repository, layer) else {
            return;
        };
        let mut rest = image.layers.iter().skip(next);
        if !image.is_given_up.load(Relaxed) && rest.any(|layer| self.lacks(&image, layer)) {
            self.prefetch.enqueue(Waiting { image, next, asked_at: self.clock.running() });
        }
    }

    /// A client got this manifest.
    pub(super) fn note_served(&self, repository: &Repository, found: &Found) {
        if let Some(content) = &found.content
            && self.prefetch.is_on
            && !content.manifest.children.layers().is_empty()
        {
            self.prefetch.remember(repository, content);
        }
    }

    /// The layer whose turn it is, if a slot is idle.
    fn next_prefetch(&self) -> Option<(Arc<Image>, Digest)> {
        if !self.has_idle_slot() {
            return None;
        }
        let mut waiting = lock(&self.prefetch.waiting);
        while let Some(mut turn) = waiting.pop_front() {
            if let Some(layer) = self.next_layer(&mut turn) {
                let image = turn.image.clone();
                waiting.push_back(turn);
                return Some((image, layer));
            }
        }
        None
    }

    /// Whether so few downloads are running that one may begin which nobody waits for.
    pub(super) fn has_idle_slot(&self) -> bool {
        self.downloads().len() < self.prefetch.slots
    }

    /// The next layer of an image that is worth fetching. `None`: no more of this image.
    fn next_layer(&self, turn: &mut Waiting) -> Option<Digest> {
        let image = turn.image.clone();
        if !self.is_wanted(turn) || !self.is_available(&image.repository) {
            return None;
        }
        let is_next =
            |layer: &Digest| self.lacks(&image, layer) && self.running_download(layer).is_none();
        let rest = image.layers.get(turn.next..)?;
        let place = rest.iter().position(is_next)?;
        turn.next += place + 1;
        rest.get(place).cloned()
    }

    fn is_wanted(&self, turn: &Waiting) -> bool {
        let silence = self.clock.running().saturating_sub(turn.asked_at);
        silence < PULL_MEMORY && !turn.image.is_given_up.load(Relaxed)
    }

    /// Whether upstream can be asked for what no client waits for.
    pub(super) fn is_available(&self, repository: &Repository) -> bool {
        self.mirrored(repository).is_ok_and(|mirrored| {
            let upstream = &mirrored.upstream;
            let is_asked = !mirrored.is_offline() && !mirrored.is_out() && !upstream.wants_pause();
            is_asked && upstream.has_spare_connections()
        })
    }

    /// Whether a layer is not here, and may be upstream.
    fn lacks(&self, image: &Image, layer: &Digest) -> bool {
        !self.store.has(layer) && !self.is_absent(&Absent::blob(&image.repository, layer))
    }

    fn begin_prefetch(self: &Arc<Self>, image: Arc<Image>, layer: Digest) {
        self.prefetch.unasked.insert(layer.clone(), ());
        let Ok(Some(mut listed)) = self.list_download(&image.repository, &layer, File::Absent)
        else {
            return self.prefetch.unasked.invalidate(&layer);
        };
        let mirror = self.clone();
        self.tasks.spawn(async move {
            listed.run().await;
            if !mirror.store.has(&layer) {
                let Image { repository, manifest, .. } = &*image;
                tracing::debug!(%repository, %manifest, %layer, "prefetch fails, and stops here");
                image.is_given_up.store(true, Relaxed);
                mirror.prefetch.unasked.invalidate(&layer);
            }
            // Only now: the slot's next user shall know how this ended.
            drop(listed);
        });
    }
}

impl Prefetch {
    pub(super) fn new(limits: &config::Download) -> Prefetch {
        let weigh = |_: &Repository, images: &Arc<[Arc<Image>]>| {
            let bytes = images.iter().map(|image| image.weight()).sum::<usize>();
            u32::try_from(bytes).unwrap_or(u32::MAX)
        };
        // What is new counts, however often it was asked for.
        let served = Cache::builder().max_capacity(MEMORY).weigher(weigh);
        let served = served.eviction_policy(EvictionPolicy::lru());
        let unasked = Cache::builder().max_capacity(MAX_UNASKED);
        Prefetch {
            is_on: limits.prefetch,
            slots: limits.max_concurrent,
            served: served.build_with_hasher(RandomState::default()),
            waiting: Mutex::default(),
            changed: Notify::new(),
            unasked: unasked.eviction_policy(EvictionPolicy::lru()).build(),
        }
    }

    /// Whether this blob was begun ahead of any client, and this is the first to ask for it: then it
    /// counts as fetched for this one.
    pub(super) fn take_unasked(&self, digest: &Digest) -> bool {
        self.unasked.contains_key(digest) && self.unasked.remove(digest).is_some()
    }

    /// A download has ended.
    pub(super) fn slot_is_idle(&self) {
        self.changed.notify_one();
    }

    /// Puts an image before all others of its repository.
    fn remember(&self, repository: &Repository, content: &Content) {
        let is_this = |image: &&Arc<Image>| image.manifest == content.digest;
        let is_usable = |image: &&Arc<Image>| is_this(image) && !image.is_given_up.load(Relaxed);
        let last = self.served.get(repository);
        if last.is_some_and(|images| images.first().as_ref().is_some_and(is_usable)) {
            return;
        }
        self.served.entry_by_ref(repository).and_upsert_with(|entry| {
            let images = entry.map(|entry| entry.into_value());
            let images = images.iter().flat_map(|images| images.iter());
            let known = images.clone().find(is_usable).cloned();
            let image = known.unwrap_or_else(|| Arc::new(Image::of(repository, content)));
            let others = images.filter(|image| !is_this(image)).cloned();
            std::iter::once(image).chain(others).take(IMAGES_PER_REPOSITORY).collect()
        });
    }

    /// The image last served that lists `layer`, and the place after that layer.
    fn served_before(
        &self,
        repository: &Repository,
        layer: &Digest,
    ) -> Option<(Arc<Image>, usize)> {
        let images = self.served.get(repository)?;
        images.iter().find_map(|image| {
            let place = image.layers.iter().position(|listed| listed == layer)?;
            Some((image.clone(), place + 1))
        })
    }

    fn enqueue(&self, asked: Waiting) {
        let mut waiting = lock(&self.waiting);
        let is_asked = |waiting: &&mut Waiting| Arc::ptr_eq(&waiting.image, &asked.image);
        if let Some(known) = waiting.iter_mut().find(is_asked) {
            known.next = known.next.min(asked.next);
            known.asked_at = asked.asked_at;
        } else if waiting.len() < MAX_WAITING {
            waiting.push_back(asked);
        }
        self.changed.notify_one();
    }
}

impl Image {
    fn of(repository: &Repository, content: &Content) -> Image {
        let layers = content.manifest.children.layers();
        let layers = layers.iter().filter(|layer| layer.urls.is_empty());
        Image {
            repository: repository.clone(),
            manifest: content.digest.clone(),
            layers: layers.map(|layer| layer.digest.clone()).collect(),
            is_given_up: AtomicBool::new(false),
        }
    }

    fn weight(&self) -> usize {
        IMAGE_OVERHEAD + size_of_val(&*self.layers)
    }
}
