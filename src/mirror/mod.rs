//! The mirror: what is served from the store, what is asked upstream, and when.
//!
//! [`Mirror::manifest`] and [`Mirror::blob`] are the two questions a pull asks; [`Mirror::tags`],
//! [`Mirror::referrers`] and [`Mirror::catalog`] are those of tools. None knows of HTTP: they are
//! given names and answer with content or an [`Error`].

mod ahead;
mod alone;
mod blob;
mod body;
mod catalog;
mod checked;
mod download;
mod error;
mod finish;
mod flight;
mod follower;
mod governed;
mod heal;
mod listing;
mod manifest;
mod missing;
mod passing;
mod pause;
mod pieces;
mod prefetch;
mod proof;
mod range;
mod referrers;
mod relay;
mod remote;
mod removal;
mod resume;
mod sharing;
mod stored;
mod streams;
mod tag;

use std::{
    collections::{HashMap, HashSet},
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub use blob::Role;
pub use body::{AheadBytes, Blob, BlobStream, Source};
pub use error::Error;
pub use heal::{Healing, REPORTS};
pub use listing::Listing;
pub use manifest::{Content, Found};
pub use range::{ByteRanges, RangeError};
pub use referrers::ReferrersList;

use crate::{
    clock::Clock,
    config::{self, Config},
    metrics::Metrics,
    oci::{Digest, Registry, Repository},
    store::{Plan, Store, Swept},
    upstream::Upstream,
};
use blob::SizeFlights;
use download::Download;
use flight::Flights;
use listing::{ListFlights, Lists};
use manifest::{HeadFlights, ManifestFlights};
use missing::Missing;
use prefetch::Prefetch;
use proof::ProofFlights;
use referrers::{EmptyLists, ReferrersFlights};
use sharing::{Shares, Sharing};
use tag::{Announcements, TagFlights};

/// How long a client may wait for the headers of its answer, over queue, token, redirects and
/// endpoints. containerd gives up after 30 s.
const ANSWER_DEADLINE: Duration = Duration::from_secs(20);

/// Upstream counts as alive for so long after any answer of it.
const ALIVE: Duration = Duration::from_secs(10);

/// How long it may take to learn whether upstream is alive.
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);

/// How long after an outage nobody waits for upstream who can be served without it.
const OUTAGE_MEMORY: Duration = Duration::from_secs(10);

/// The mirror of all configured registries.
pub struct Mirror {
    store: Store,
    registries: foldhash::HashMap<Registry, Mirrored>,
    cache: config::Cache,
    clock: Clock,
    metrics: Arc<Metrics>,
    manifests: manifest::Memory,
    missing: Missing,
    announcements: Announcements,
    downloads: Mutex<HashMap<Digest, Arc<Download>>>,
    prefetch: Prefetch,
    /// How often in a row an endpoint is asked in vain to go on with a blob.
    retries: u32,
    /// How many requests one blob may take at once.
    streams: usize,
    /// How long a client may take nothing of a body that is passed to it from upstream.
    patience: Duration,
    fetches: ManifestFlights,
    heads: HeadFlights,
    blob_heads: SizeFlights,
    tag_checks: TagFlights,
    lists: Lists,
    listings: ListFlights,
    empty_lists: EmptyLists,
    referrers: ReferrersFlights,
    proofs: ProofFlights,
    sharing: Sharing,
    /// Downloads under way, which a stop waits for.
    tasks: TaskTracker,
    /// Downloads that break are left as they are.
    stopping: CancellationToken,
}

/// One registry that is mirrored.
pub struct Mirrored {
    upstream: Upstream,
    /// How long a tag is served without asking.
    tag_ttl: Duration,
    shares: Shares,
    /// Whether one of its repositories was private when Larder started: what came from there with
    /// credentials may be here, whether or not there are any now.
    had_private: bool,
    /// When upstream last failed to answer; `None` once it has answered again.
    outage: Mutex<Option<Instant>>,
}

impl Mirrored {
    /// A registry reached through `upstream`.
    pub fn new(upstream: Upstream, config: &config::Upstream) -> Mirrored {
        Mirrored {
            upstream,
            tag_ttl: config.tag_ttl,
            shares: Shares::new(config),
            had_private: false,
            outage: Mutex::default(),
        }
    }

    fn note_outage(&self) {
        *lock(&self.outage) = Some(Instant::now());
    }

    fn note<T>(&self, result: &Result<T, Error>) {
        match result {
            Err(error) if error.is_outage() => self.note_outage(),
            // Upstream may not have been asked.
            Err(Error::Unusable(_) | Error::Limited { .. } | Error::Offline(_)) => {}
            Ok(_) | Err(_) => *lock(&self.outage) = None,
        }
    }

    fn is_offline(&self) -> bool {
        self.upstream.ensure_online().is_err()
    }

    fn is_out(&self) -> bool {
        lock(&self.outage).is_some_and(|since| since.elapsed() < OUTAGE_MEMORY)
    }
}

impl Mirror {
    /// A mirror of `registries` that keeps what it fetches in `store`.
    pub fn new(
        store: Store,
        registries: Vec<Mirrored>,
        config: &Config,
        clock: Clock,
        metrics: Arc<Metrics>,
    ) -> Mirror {
        let with_private = store.registries_with_private();
        let named = |mut mirrored: Mirrored| {
            let registry = mirrored.upstream.registry().clone();
            mirrored.had_private = with_private.contains(&registry);
            (registry, mirrored)
        };
        Mirror {
            store,
            registries: registries.into_iter().map(named).collect(),
            missing: Missing::new(config.cache.negative_ttl, clock.clone()),
            cache: config.cache.clone(),
            clock,
            metrics,
            manifests: manifest::memory(),
            announcements: tag::announcements(),
            downloads: Mutex::default(),
            prefetch: Prefetch::new(&config.download),
            retries: config.download.retries,
            streams: config.download.streams,
            patience: config.download.idle_timeout,
            fetches: Flights::default(),
            heads: Flights::default(),
            blob_heads: Flights::default(),
            tag_checks: Flights::default(),
            lists: listing::lists(),
            listings: Flights::default(),
            empty_lists: referrers::empty_lists(),
            referrers: Flights::default(),
            proofs: Flights::default(),
            sharing: Sharing::new(),
            tasks: TaskTracker::new(),
            stopping: CancellationToken::new(),
        }
    }

    /// Waits until the downloads under way have come to an end. One that breaks, or has broken, is left
    /// to the next life.
    pub async fn drain(&self) {
        self.stopping.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// Lets go of what nobody pulled for as long as it is kept, but of nothing that belongs to a
    /// registry which cannot be reached now, or is not to be asked; and of what passes the limits.
    ///
    /// # Errors
    /// What the disk says.
    pub async fn sweep(&self) -> io::Result<Swept> {
        let sweep = self.store.begin_sweep();
        let unreachable = self.unreachable(sweep.concerned().await).await;
        sweep.run(&unreachable).await
    }

    /// What [`Mirror::sweep`] would let go of.
    ///
    /// # Errors
    /// What the disk says.
    pub async fn plan_sweep(&self) -> io::Result<Plan> {
        let sweep = self.store.begin_sweep();
        let unreachable = self.unreachable(sweep.concerned().await).await;
        sweep.plan(&unreachable).await
    }

    /// Those of these registries that cannot be reached now, and all that are not to be asked.
    async fn unreachable(&self, registries: HashSet<Registry>) -> Vec<Registry> {
        let mut unreachable = Vec::new();
        for (registry, mirrored) in &self.registries {
            if mirrored.is_offline()
                || registries.contains(registry) && !mirrored.upstream.probe(PROBE_TIMEOUT).await
            {
                unreachable.push(registry.clone());
            }
        }
        unreachable
    }

    fn mirrored(&self, repository: &Repository) -> Result<&Mirrored, Error> {
        let registry = repository.registry();
        let not_mirrored = || Error::NotFound(format!("{registry} is not mirrored here"));
        self.registries.get(registry).ok_or_else(not_mirrored)
    }

    fn upstream(&self, repository: &Repository) -> Result<&Upstream, Error> {
        Ok(&self.mirrored(repository)?.upstream)
    }

    fn downloads(&self) -> MutexGuard<'_, HashMap<Digest, Arc<Download>>> {
        lock(&self.downloads)
    }

    fn deadline(&self) -> Instant {
        Instant::now() + ANSWER_DEADLINE
    }

    /// Until when upstream is waited for by a client that can be served without it.
    fn patience(&self, mirrored: &Mirrored) -> Instant {
        let now = Instant::now();
        if mirrored.is_out() { now } else { now + self.cache.check_timeout }
    }

    fn count(&self, repository: &Repository, kind: &str, result: &str) {
        let registry = repository.registry().as_str();
        self.metrics.lookups.with_label_values(&[registry, kind, result]).inc();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
