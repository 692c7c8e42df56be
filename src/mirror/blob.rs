//! Blobs: a hit, a download to join or to start, or a body that passes through.

use std::{ops::Range, sync::Arc};

use tokio::time::Instant;

use super::{
    Error, Mirror,
    body::{self, BlobStream, Follower, Passing},
    download::{Download, Means, Opened, Progress},
    flight::Flights,
    missing::Absent,
};
use crate::{
    metrics::Metrics,
    oci::{Digest, Repository},
    store::BlobReader,
    upstream,
};

/// Questions for a blob's size under way.
pub(super) type SizeFlights = Flights<(Repository, Digest), Option<u64>>;

/// A blob that can be sent.
pub struct Blob {
    size: Option<u64>,
    origin: Origin,
    metrics: Arc<Metrics>,
}

/// What a blob is to the images that list it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Their config.
    Config,
    /// A layer, or unknown.
    Layer,
}

/// Where the bytes of an answer come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The store.
    Cache,
    /// The store, behind a download.
    Download,
    /// Upstream, past the store.
    Upstream,
}

impl Source {
    /// As a label.
    pub fn as_str(self) -> &'static str {
        match self {
            Source::Cache => "cache",
            Source::Download => "download",
            Source::Upstream => "upstream",
        }
    }
}

enum Origin {
    Stored(BlobReader),
    Growing { opened: Opened, download: Arc<Download> },
    Passing(Box<Passing>),
}

impl Mirror {
    /// A blob, from the store or on its way into it.
    pub async fn blob(
        self: &Arc<Self>,
        repository: &Repository,
        digest: &Digest,
    ) -> Result<Blob, Error> {
        self.blob_until(repository, digest, self.deadline()).await
    }

    /// What a blob is, as far as the manifests tell that are here.
    pub fn role(&self, digest: &Digest) -> Role {
        if self.store.is_config(digest) { Role::Config } else { Role::Layer }
    }

    /// The size of a blob, at the cost of at most one upstream HEAD where upstream supports it.
    /// Where not, the blob is fetched.
    pub async fn blob_size(
        self: &Arc<Self>,
        repository: &Repository,
        digest: &Digest,
    ) -> Result<Option<u64>, Error> {
        let deadline = self.deadline();
        if let Some(size) = self.store.blob_size(digest).await? {
            self.ensure_proved(repository, digest, deadline).await?;
            self.count(repository, "blob", "hit");
            return Ok(Some(size));
        }
        self.refuse_absent(&Absent::blob(repository, digest))?;
        let key = (repository.clone(), digest.clone());
        let head = || self.clone().ask_for_size(repository.clone(), digest.clone());
        match self.blob_heads.join(key, deadline, head).await? {
            Some(size) => {
                self.count(repository, "blob", "miss");
                Ok(Some(size))
            }
            None => Ok(self.blob_until(repository, digest, deadline).await?.size()),
        }
    }

    /// What upstream's HEAD tells. `None`: it is of no use.
    async fn ask_for_size(
        self: Arc<Self>,
        repository: Repository,
        digest: Digest,
    ) -> Result<Option<u64>, Error> {
        let mirrored = self.mirrored(&repository)?;
        let deadline = self.deadline();
        let size = match mirrored.upstream.head_blob(repository.name(), &digest, deadline).await {
            Ok(size) => Ok(size),
            Err(upstream::Error::HeadRefused(_)) => Ok(None),
            Err(error) => Err(self.remember_absent(Absent::blob(&repository, &digest), error)),
        };
        mirrored.note(&size);
        size
    }

    async fn blob_until(
        self: &Arc<Self>,
        repository: &Repository,
        digest: &Digest,
        deadline: Instant,
    ) -> Result<Blob, Error> {
        loop {
            if let Some(reader) = self.store.open_blob(digest).await? {
                self.ensure_proved(repository, digest, deadline).await?;
                self.store.touch(digest);
                self.count(repository, "blob", "hit");
                return Ok(self.found(Some(reader.size()), Origin::Stored(reader)));
            }
            self.refuse_absent(&Absent::blob(repository, digest))?;
            let Some(download) = self.join_or_start(repository, digest, deadline).await? else {
                continue;
            };
            if let Some(blob) = self.await_opening(download, repository, deadline).await? {
                return Ok(blob);
            }
        }
    }

    /// The download of this digest. `None`: it has just come to an end, so look again.
    async fn join_or_start(
        self: &Arc<Self>,
        repository: &Repository,
        digest: &Digest,
        deadline: Instant,
    ) -> Result<Option<Arc<Download>>, Error> {
        let Some(running) = self.running_download(digest) else {
            return self.start_download(repository, digest, deadline);
        };
        if running.repository != *repository {
            self.ensure_proved(repository, digest, deadline).await?;
        }
        self.count(repository, "blob", "join");
        Ok(Some(running))
    }

    fn running_download(&self, digest: &Digest) -> Option<Arc<Download>> {
        self.downloads().get(digest).cloned()
    }

    fn start_download(
        self: &Arc<Self>,
        repository: &Repository,
        digest: &Digest,
        deadline: Instant,
    ) -> Result<Option<Arc<Download>>, Error> {
        let means = Means {
            store: self.store.clone(),
            upstream: self.upstream(repository)?.clone(),
            metrics: self.metrics.clone(),
        };
        let mut downloads = self.downloads();
        // A download leaves the list only after its blob is published, so what is in neither
        // place is in nobody's hands.
        if downloads.contains_key(digest) || self.store.has(digest) {
            return Ok(None);
        }
        let download = Arc::new(Download::new(repository.clone(), digest.clone()));
        downloads.insert(digest.clone(), download.clone());
        drop(downloads);
        self.count(repository, "blob", "miss");
        let task = download.clone();
        let entry = Entry { mirror: self.clone(), digest: digest.clone() };
        self.tasks.spawn(async move {
            task.run(&means, deadline).await;
            drop(entry);
        });
        Ok(Some(download))
    }

    /// Waits until the download can be read, or cannot be had. `None`: it failed for another
    /// repository, so look again.
    async fn await_opening(
        &self,
        download: Arc<Download>,
        repository: &Repository,
        deadline: Instant,
    ) -> Result<Option<Blob>, Error> {
        let mut progress = download.progress();
        let opening = progress.wait_for(|progress| download.is_decided(progress));
        let seen = match tokio::time::timeout_at(deadline, opening).await {
            Err(_) => return Err(Error::late()),
            Ok(Err(_)) => return Err(Error::lost()),
            Ok(Ok(seen)) => seen.clone(),
        };
        match seen {
            Progress::Opening => Err(Error::lost()),
            Progress::Refused(_) if download.repository != *repository => Ok(None),
            Progress::Refused(error) => {
                Err(self.remember_absent(Absent::blob(repository, &download.digest), error))
            }
            Progress::Broken => Err(Error::broken()),
            Progress::Untaken(reason) => {
                self.metrics.passthrough.with_label_values(&[reason]).inc();
                self.pass_through(&download, repository, deadline).await.map(Some)
            }
            Progress::Filling(_) | Progress::Verified(_) => {
                self.store.touch(&download.digest);
                let opened = download.opened().ok_or_else(Error::lost)?.clone();
                Ok(Some(self.found(opened.size, Origin::Growing { opened, download })))
            }
        }
    }

    /// One upstream body for this client alone, verified like any other. The first client takes
    /// the one that the store refused.
    async fn pass_through(
        &self,
        download: &Download,
        repository: &Repository,
        deadline: Instant,
    ) -> Result<Blob, Error> {
        let digest = download.digest.clone();
        let body = match download.take_untaken() {
            Some(body) => body,
            None => {
                self.upstream(repository)?.get_blob(repository.name(), &digest, deadline).await?
            }
        };
        let passing = Passing::new(body, repository, &digest, self.metrics.clone());
        let passing = passing.ok_or_else(Error::broken)?;
        Ok(self.found(passing.size(), Origin::Passing(Box::new(passing))))
    }

    fn found(&self, size: Option<u64>, origin: Origin) -> Blob {
        Blob { size, origin, metrics: self.metrics.clone() }
    }
}

impl Blob {
    /// In bytes; `None` when nobody knows before the end.
    pub fn size(&self) -> Option<u64> {
        self.size
    }

    /// Where the bytes come from.
    pub fn source(&self) -> Source {
        match self.origin {
            Origin::Stored(_) => Source::Cache,
            Origin::Growing { .. } => Source::Download,
            Origin::Passing(_) => Source::Upstream,
        }
    }

    /// The bytes; `range` lies within the size, and `None` means all of them.
    pub fn into_stream(self, range: Option<Range<u64>>) -> BlobStream {
        match self.origin {
            Origin::Stored(reader) => {
                let whole = 0..reader.size();
                body::stored(reader, range.unwrap_or(whole))
            }
            Origin::Growing { opened, download } => {
                let follower = Follower::new(
                    opened.reader,
                    download.progress(),
                    opened.size,
                    range,
                    self.metrics,
                );
                body::following(follower)
            }
            Origin::Passing(passing) => body::passing(passing.within(range)),
        }
    }
}

impl Download {
    /// Whether a client can be answered now. A blob of no bytes has no last byte to hold back,
    /// so its headers wait for the digest.
    fn is_decided(&self, progress: &Progress) -> bool {
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
        self.opened().is_some_and(|opened| opened.size == Some(0))
    }
}

/// Takes a download off the list when it has come to an end, also by a panic.
struct Entry {
    mirror: Arc<Mirror>,
    digest: Digest,
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.mirror.downloads().remove(&self.digest);
    }
}
