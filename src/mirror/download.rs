//! A download: one upstream body on its way into one file, and everyone who reads behind it.

use std::{
    sync::{Arc, Mutex, OnceLock, PoisonError},
    vec,
};

use bytes::Bytes;
use tokio::{
    sync::{Semaphore, watch},
    time::Instant,
};

use super::{remote::Remote, resume::Supply};
use crate::{
    metrics::Metrics,
    oci::{Digest, Repository},
    store::{BlobReader, BlobWriter, CannotTake, Hashed, Store, WrongDigest},
    upstream::{self, BlobBody, Place, Rest, Upstream},
};

/// How many ranges of one blob are passed ahead of its file at once, over all clients.
const SLOTS: usize = 4;

/// A blob of at most so many bytes is left to no next download: to fetch it again is no more work than to note
/// what it belongs to.
const NEVER_LEFT: u64 = 64 * 1024;

/// A blob being fetched. It outlives its clients.
#[derive(Debug)]
pub(super) struct Download {
    /// The repository whose pull started it, and whose proof upstream's answer is.
    pub(super) repository: Repository,
    pub(super) digest: Digest,
    /// Where it began anew after wrong bytes: those before it are not asked first again.
    first: Option<Place>,
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
    /// Upstream failed in mid-body, or the digest did; what was read is worthless.
    Broken,
    /// The disk failed in mid-body. What can be read is right as far as anybody knows; who reads it goes
    /// on alone.
    Stranded(Arc<Stranded>),
}

/// Where the disk stopped a download.
#[derive(Debug)]
pub(super) struct Stranded {
    /// So many bytes can be read.
    pub(super) written: u64,
    /// The hash of these, where it is at hand.
    pub(super) hashed: Option<Hashed>,
    /// As a label of a metric.
    pub(super) reason: &'static str,
}

/// What a download needs from the mirror.
pub(super) struct Means {
    pub(super) store: Store,
    pub(super) remote: Remote,
    /// How many requests one blob may take at once.
    pub(super) streams: usize,
}

/// Why a body is not the blob.
pub(super) enum Failure {
    /// It stalled or broke off.
    Upstream(upstream::Error),
    /// It cannot be written.
    Disk(CannotTake),
    /// Its digest is another one.
    Digest {
        actual: Digest,
        /// Who sent all its bytes; `None` if that were several, or nobody knows.
        sender: Option<Place>,
    },
}

/// A download whose bytes are on their way.
struct Begun {
    writer: BlobWriter,
    supply: Supply,
}

impl Download {
    pub(super) fn new(repository: Repository, digest: Digest) -> Download {
        Download {
            repository,
            digest,
            first: None,
            opened: OnceLock::new(),
            untaken: Mutex::default(),
            progress: watch::Sender::new(Progress::Opening),
            slots: Arc::new(Semaphore::new(SLOTS)),
        }
    }

    /// The same download, begun anew at this endpoint.
    pub(super) fn anew(&self, first: Place) -> Download {
        Download {
            first: Some(first),
            ..Download::new(self.repository.clone(), self.digest.clone())
        }
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
            | Progress::Broken
            | Progress::Stranded(_) => true,
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
        let begun = match means.store.resume_blob(&self.digest).await {
            Some(left) => self.go_on(means, left, deadline).await,
            None => self.begin(means, deadline).await,
        };
        let Begun { writer, supply } = begun?;
        let _ = self.opened.set(Opened { size: writer.size(), reader: writer.reader() });
        self.advance(Progress::Filling(writer.written()));
        let failure = self.fill(means, supply, writer).await.err()?;
        failure.report(&means.remote.metrics, &self.repository, &self.digest);
        let other = match failure {
            Failure::Digest { sender, .. } => {
                means.distrust_parts(sender);
                self.other_begin(&means.remote.upstream, sender)
            }
            Failure::Upstream(_) => None,
            // Its clients know, and go on alone.
            Failure::Disk(_) => return None,
        };
        if other.is_none() {
            self.break_off();
        }
        other
    }

    /// Asks upstream. `None`: the clients know already that there is nothing to read.
    async fn begin(&self, means: &Means, deadline: Instant) -> Option<Begun> {
        let name = self.repository.name();
        let first = self.first.unwrap_or_default();
        let upstream = &means.remote.upstream;
        let body = upstream.get_blob_from(first, name, &self.digest, deadline).await;
        let body = body.map_err(|error| self.advance(Progress::Refused(error))).ok()?;
        means.store.prove_blob(&self.repository, &self.digest);
        let writer = match means.store.create_blob(&self.digest, body.size()).await {
            Ok(writer) => writer,
            Err(reason) => {
                self.give_away(body, &reason);
                return None;
            }
        };
        if writer.size().is_none_or(|size| size > NEVER_LEFT) {
            writer.leave_to_next(&self.repository).await;
        }
        let supply = Supply::of(body, means.remote.clone());
        Some(Begun { writer, supply })
    }

    /// Takes what an earlier download left, which needs no answer of upstream where upstream has
    /// shown the blob before. `None`: as for [`Download::begin`].
    async fn go_on(&self, means: &Means, left: BlobWriter, deadline: Instant) -> Option<Begun> {
        if !means.store.is_proved(&self.repository, &self.digest) {
            let name = self.repository.name();
            let upstream = &means.remote.upstream;
            let proof = upstream.prove_blob(name, &self.digest, deadline).await;
            proof.map_err(|error| self.advance(Progress::Refused(error))).ok()?;
            means.store.prove_blob(&self.repository, &self.digest);
        }
        let rest = Rest { start: left.written(), size: left.size() };
        tracing::info!(digest = %self.digest, from = rest.start, "going on with a partial download");
        let supply = Supply::rest(rest, means.remote.clone());
        Some(Begun { writer: left, supply })
    }

    /// Where to begin anew after wrong bytes: behind the endpoint that sent them all. Where several did,
    /// or an earlier download, it may be anyone's fault: then all are asked once more, in order.
    fn other_begin(&self, upstream: &Upstream, sender: Option<Place>) -> Option<Place> {
        match sender.max(self.first) {
            Some(tried) => upstream.place_after(tried),
            None => Some(Place::default()),
        }
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
        tracing::debug!(digest = %self.digest, %reason, "the store cannot take a blob");
        *self.untaken.lock().unwrap_or_else(PoisonError::into_inner) = Some(body);
        self.advance(Progress::Untaken(reason.label()));
    }

    async fn fill(
        &self,
        means: &Means,
        mut supply: Supply,
        mut writer: BlobWriter,
    ) -> Result<(), Failure> {
        self.fill_in_parts(means, &mut supply, &mut writer).await?;
        while let Some(batch) = supply.next().await.map_err(|error| given_up(error, &writer))? {
            let feed = Feed::new(batch, supply, &writer, self.progress.clone());
            let appended = writer.append(feed).await;
            supply = appended.map_err(|error| self.strand(&writer, error))?.supply;
        }
        let hashed = writer.hash_all().await;
        hashed.map_err(|error| self.strand(&writer, error))?;
        let size = writer.written();
        let verified = writer.verify();
        let verified = verified.map_err(|WrongDigest { actual }| Failure::Digest {
            actual,
            sender: supply.sender(),
        })?;
        // Clients do not wait for the syncs.
        self.advance(Progress::Verified(size));
        if let Err(error) = verified.publish().await {
            let failures = &means.remote.metrics.download_failures;
            failures.with_label_values(&[self.repository.registry().as_str(), "disk"]).inc();
            tracing::debug!(digest = %self.digest, %error, "cannot keep a blob that was fetched");
        }
        Ok(())
    }

    /// Lets everyone who reads it go on alone, each from where it is.
    pub(super) fn strand(&self, writer: &BlobWriter, error: CannotTake) -> Failure {
        let (written, hashed) = (writer.written(), writer.hashed());
        let stranded = Stranded { written, hashed, reason: error.label() };
        self.advance(Progress::Stranded(Arc::new(stranded)));
        // Who waits for one would wait for nothing.
        self.slots.close();
        Failure::Disk(error)
    }

    pub(super) fn advance(&self, progress: Progress) {
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
                tracing::debug!(%repository, %digest, %error, "the disk failed under a download")
            }
            Failure::Digest { actual, .. } => {
                tracing::warn!(%repository, %digest, %actual, "upstream sent wrong bytes")
            }
        }
    }

    fn reason(&self) -> &'static str {
        match self {
            Failure::Upstream(upstream::Error::Timeout(_)) => "stalled",
            Failure::Upstream(_) => "upstream",
            Failure::Disk(_) => "disk",
            Failure::Digest { .. } => "digest",
        }
    }
}

/// What a download appends to its file, without waiting for more. Clients read what it has gone past.
struct Feed {
    first: vec::IntoIter<Bytes>,
    supply: Supply,
    /// So much was given.
    given: u64,
    progress: watch::Sender<Progress>,
}

impl Feed {
    /// Begins with `first`, behind what is written.
    fn new(
        first: Vec<Bytes>,
        supply: Supply,
        writer: &BlobWriter,
        progress: watch::Sender<Progress>,
    ) -> Feed {
        Feed { first: first.into_iter(), supply, given: writer.written(), progress }
    }

    /// Wakes all clients, and so not for nothing: it is asked more often than it gives.
    fn tell(&self) {
        self.progress.send_if_modified(|progress| {
            let is_known = matches!(progress, Progress::Filling(written) if *written == self.given);
            *progress = Progress::Filling(self.given);
            !is_known
        });
    }
}

impl Iterator for Feed {
    type Item = Bytes;

    /// What was given before has been written by now.
    fn next(&mut self) -> Option<Bytes> {
        self.tell();
        let next = self.first.next().or_else(|| self.supply.at_hand())?;
        self.given = self.given.saturating_add(next.len() as u64);
        Some(next)
    }
}

/// Upstream gives no more for now: the next download goes on. What upstream contradicts, or no longer
/// has, nobody goes on with.
fn given_up(error: upstream::Error, writer: &BlobWriter) -> Failure {
    use upstream::Error::{
        Denied, HeadRefused, HeldBack, Invalid, Limited, NotFound, Offline, RefusedElsewhere,
        Timeout, Unavailable, Unreachable,
    };
    match error {
        Unreachable(_) | Unavailable { .. } | HeldBack(_) | Timeout(_) | Limited { .. } => {}
        RefusedElsewhere(_) | Offline(_) => {}
        NotFound(_) | Denied(_) | HeadRefused(_) | Invalid(_) => writer.discard(),
    }
    Failure::Upstream(error)
}

/// Counts a running download for as long as it lives.
struct InFlight<'a>(&'a Metrics);

impl InFlight<'_> {
    fn enter(means: &Means) -> InFlight<'_> {
        let metrics = &means.remote.metrics;
        metrics.downloads_in_flight.inc();
        InFlight(metrics)
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.downloads_in_flight.dec();
    }
}
