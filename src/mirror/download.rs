//! A download: one upstream body on its way into one file, and everyone who reads behind it.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use tokio::{
    sync::{Semaphore, watch},
    time::Instant,
};

use super::{remote::Remote, resume::Supply};
use crate::{
    metrics::Metrics,
    oci::{Digest, Repository},
    store::{BlobReader, BlobWriter, CannotTake, Store},
    upstream::{self, BlobBody, Place, Upstream},
};

/// How many ranges of one blob are passed ahead of its file at once, over all clients.
const SLOTS: usize = 4;

/// A blob being fetched. It outlives its clients.
#[derive(Debug)]
pub(super) struct Download {
    /// The repository whose pull started it, and whose proof upstream's answer is.
    pub(super) repository: Repository,
    pub(super) digest: Digest,
    /// The first endpoint that is asked: those before it have sent wrong bytes.
    first: Place,
    opened: OnceLock<Opened>,
    /// The body that the store could not take, for the first client that comes for it.
    untaken: Mutex<Option<BlobBody>>,
    progress: watch::Sender<Progress>,
    /// For ranges that are passed ahead of the file.
    slots: Arc<Semaphore>,
}

/// What is known once upstream's headers are there.
#[derive(Debug)]
struct Opened {
    /// The size upstream announced, in bytes.
    size: Option<u64>,
    /// The growing file.
    reader: BlobReader,
}

/// A download as one client sees it, whose own repository it may be asked from ahead of the file.
/// It holds no [`Download`], so that a download which ends without a word is noticed.
pub(super) struct Growing {
    /// The size upstream announced, in bytes.
    pub(super) size: Option<u64>,
    /// The growing file.
    pub(super) reader: BlobReader,
    pub(super) progress: watch::Receiver<Progress>,
    /// Closed when the download breaks, and when upstream turns out to give no ranges.
    pub(super) slots: Arc<Semaphore>,
    pub(super) remote: Remote,
}

/// How far a download has come.
#[derive(Clone, Debug)]
pub(super) enum Progress {
    /// Waiting for upstream's headers.
    Opening,
    /// Upstream sent no body. The failure belongs to the repository that asked.
    Refused(upstream::Error),
    /// The store cannot take it, for this reason.
    Untaken(&'static str),
    /// So many bytes can be read.
    Filling(u64),
    /// All bytes are there, and they are the right ones.
    Verified(u64),
    /// Upstream or the disk failed in mid-body, or the digest did; what was read is worthless.
    Broken,
}

/// What a download needs from the mirror.
pub(super) struct Means {
    pub(super) store: Store,
    pub(super) upstream: Upstream,
    pub(super) metrics: Arc<Metrics>,
    /// How often an endpoint is asked in vain to go on.
    pub(super) retries: u32,
}

/// Why a body is not the blob.
pub(super) enum Failure {
    /// It stalled or broke off.
    Upstream(upstream::Error),
    /// It cannot be written.
    Disk(CannotTake),
    /// Its digest is this one.
    Digest(Digest),
}

impl Download {
    pub(super) fn new(repository: Repository, digest: Digest) -> Download {
        Download {
            repository,
            digest,
            first: Place::default(),
            opened: OnceLock::new(),
            untaken: Mutex::default(),
            progress: watch::Sender::new(Progress::Opening),
            slots: Arc::new(Semaphore::new(SLOTS)),
        }
    }

    /// The same download, begun anew at this endpoint.
    pub(super) fn anew(&self, first: Place) -> Download {
        Download { first, ..Download::new(self.repository.clone(), self.digest.clone()) }
    }

    /// A receiver that sees every later step.
    pub(super) fn progress(&self) -> watch::Receiver<Progress> {
        self.progress.subscribe()
    }

    /// The size upstream announced, in bytes, once it has.
    pub(super) fn size(&self) -> Option<u64> {
        self.opened.get()?.size
    }

    /// For a client with this way to upstream. `None` before [`Progress::Filling`].
    pub(super) fn growing(&self, remote: Remote) -> Option<Growing> {
        let opened = self.opened.get()?;
        Some(Growing {
            size: opened.size,
            reader: opened.reader.clone(),
            progress: self.progress(),
            slots: self.slots.clone(),
            remote,
        })
    }

    /// Whether a client can be answered now. A blob of no bytes has no last byte to hold back,
    /// so its headers wait for the digest.
    pub(super) fn is_decided(&self, progress: &Progress) -> bool {
        match progress {
            Progress::Opening => false,
            Progress::Filling(_) => !self.is_empty(),
            Progress::Refused(_)
            | Progress::Untaken(_)
            | Progress::Verified(_)
            | Progress::Broken => true,
        }
    }

    fn is_empty(&self) -> bool {
        self.size() == Some(0)
    }

    /// Fetches, verifies and publishes. `deadline` is for upstream's headers only. After wrong
    /// bytes, tells the endpoint that may have the right ones: then it is up to the caller to
    /// [`Download::break_off`], when a download from there can be found.
    pub(super) async fn run(&self, means: &Means, deadline: Instant) -> Option<Place> {
        let _in_flight = InFlight::enter(means);
        let name = self.repository.name();
        let body = means.upstream.get_blob_from(self.first, name, &self.digest, deadline).await;
        let body = match body {
            Ok(body) => body,
            Err(error) => {
                self.advance(Progress::Refused(error));
                return None;
            }
        };
        means.store.prove_blob(&self.repository, &self.digest);
        let writer = match means.store.create_blob(&self.digest, body.size()).await {
            Ok(writer) => writer,
            Err(reason) => {
                self.give_away(body, &reason);
                return None;
            }
        };
        let place = body.place();
        let _ = self.opened.set(Opened { size: body.size(), reader: writer.reader() });
        self.advance(Progress::Filling(0));
        let failure = self.fill(means, body, writer).await.err()?;
        failure.report(&means.metrics, &self.repository, &self.digest);
        let other = match failure {
            Failure::Digest(_) => means.upstream.place_after(place),
            Failure::Upstream(_) | Failure::Disk(_) => None,
        };
        if other.is_none() {
            self.break_off();
        }
        other
    }

    /// Cuts everyone who reads it.
    pub(super) fn break_off(&self) {
        self.advance(Progress::Broken);
        // Who waits for one would wait for nothing: a new download has slots of its own.
        self.slots.close();
    }

    /// The body that the store could not take; the first caller gets it.
    pub(super) fn take_untaken(&self) -> Option<BlobBody> {
        self.untaken.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn give_away(&self, body: BlobBody, reason: &CannotTake) {
        tracing::warn!(digest = %self.digest, %reason, "the store cannot take a blob");
        *self.untaken.lock().unwrap_or_else(PoisonError::into_inner) = Some(body);
        self.advance(Progress::Untaken(reason.label()));
    }

    async fn fill(
        &self,
        means: &Means,
        body: BlobBody,
        mut writer: BlobWriter,
    ) -> Result<(), Failure> {
        let mut supply = Supply::of(body, means, &self.repository, &self.digest);
        while let Some(batch) = supply.next().await.map_err(Failure::Upstream)? {
            writer.append(batch).await.map_err(Failure::Disk)?;
            self.advance(Progress::Filling(writer.written()));
        }
        let size = writer.written();
        let verified = writer.verify().map_err(|wrong| Failure::Digest(wrong.actual))?;
        // Clients do not wait for the syncs.
        self.advance(Progress::Verified(size));
        if let Err(error) = verified.publish().await {
            means
                .metrics
                .download_failures
                .with_label_values(&[means.upstream.registry().as_str(), "disk"])
                .inc();
            tracing::warn!(digest = %self.digest, %error, "cannot keep a blob that was fetched");
        }
        Ok(())
    }

    fn advance(&self, progress: Progress) {
        self.progress.send_replace(progress);
    }
}

impl Failure {
    /// Counts and logs it.
    pub(super) fn report(&self, metrics: &Metrics, repository: &Repository, digest: &Digest) {
        let registry = repository.registry().as_str();
        metrics.download_failures.with_label_values(&[registry, self.reason()]).inc();
        match self {
            Failure::Upstream(error) => {
                tracing::warn!(%repository, %digest, %error, "upstream broke off a blob")
            }
            Failure::Disk(error) => {
                tracing::warn!(%repository, %digest, %error, "the disk failed under a download")
            }
            Failure::Digest(actual) => {
                tracing::warn!(%repository, %digest, %actual, "upstream sent wrong bytes")
            }
        }
    }

    fn reason(&self) -> &'static str {
        match self {
            Failure::Upstream(upstream::Error::Timeout(_)) => "stalled",
            Failure::Upstream(_) => "upstream",
            Failure::Disk(_) => "disk",
            Failure::Digest(_) => "digest",
        }
    }
}

/// Counts a running download for as long as it lives.
struct InFlight<'a>(&'a Metrics);

impl InFlight<'_> {
    fn enter(means: &Means) -> InFlight<'_> {
        means.metrics.downloads_in_flight.inc();
        InFlight(&means.metrics)
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.downloads_in_flight.dec();
    }
}
