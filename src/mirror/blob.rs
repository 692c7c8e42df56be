//! Blobs: a hit, a download to join or to start, or a body that passes through.

use std::sync::Arc;

use tokio::{sync::watch, time::Instant};

use super::{
    Blob, Error, Mirror,
    body::Origin,
    download::{Download, Means, Progress},
    flight::Flights,
    missing::Absent,
    passing::Untaken,
    pause,
    remote::Remote,
    stored::Stored,
};
use crate::{
    oci::{Digest, Repository},
    upstream::{self, Sample},
};

/// Questions for a blob's size under way.
pub(super) type SizeFlights = Flights<(Repository, Digest), Option<u64>>;

/// What a blob is to the images that list it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Their config.
    Config,
    /// A layer, or unknown.
    Layer,
}

/// Why a blob has to be fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum File {
    /// It is not here.
    Absent,
    /// The disk does not give it. It stays until a new one takes its place.
    Unreadable,
}

impl Mirror {
    /// A blob, from the store or on its way into it.
    pub async fn blob(
        self: &Arc<Self>,
        repository: &Repository,
        digest: &Digest,
    ) -> Result<Blob, Error> {
        self.permit_repository(repository)?;
        let deadline = self.deadline();
        self.ensure_shared(repository, Sample::Blob(digest.clone()), deadline).await?;
        pause::wait_out(deadline, || self.blob_until(repository, digest, deadline)).await
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
        self.permit_repository(repository)?;
        let deadline = self.deadline();
        self.ensure_shared(repository, Sample::Blob(digest.clone()), deadline).await?;
        if let Some(size) = self.stored_size(digest).await {
            self.ensure_proved(repository, digest, deadline).await?;
            self.count(repository, "blob", "hit");
            return Ok(Some(size));
        }
        if let Some(size) = self.size_on_its_way(repository, digest) {
            self.count(repository, "blob", "join");
            return Ok(Some(size));
        }
        Box::pin(self.size_from_upstream(repository, digest, deadline)).await
    }

    async fn size_from_upstream(
        self: &Arc<Self>,
        repository: &Repository,
        digest: &Digest,
        deadline: Instant,
    ) -> Result<Option<u64>, Error> {
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

    /// The size of a blob that is here. What cannot be read is had from upstream.
    pub(super) async fn stored_size(&self, digest: &Digest) -> Option<u64> {
        self.store.blob_size(digest).await.ok().flatten()
    }

    /// The size of a blob that is being downloaded, for a repository that may see it.
    fn size_on_its_way(&self, repository: &Repository, digest: &Digest) -> Option<u64> {
        let size = self.running_download(digest)?.size()?;
        self.store.is_proved(repository, digest).then_some(size)
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
            let opened = self.store.open_blob(digest).await;
            let file = if opened.is_ok() { File::Absent } else { File::Unreadable };
            if let Ok(Some(reader)) = opened {
                self.ensure_proved(repository, digest, deadline).await?;
                self.store.touch(digest);
                let size = reader.size();
                let stored = Stored::new(reader, self.remote(repository, digest)?);
                let (result, origin) = match self.prefetch.take_unasked(digest) {
                    true => ("miss", Origin::Prefetched(stored)),
                    false => ("hit", Origin::Stored(stored)),
                };
                self.count(repository, "blob", result);
                return Ok(Blob::new(Some(size), origin));
            }
            let fetched =
                Box::pin(self.blob_on_its_way(repository, digest, file, deadline)).await?;
            if let Some(blob) = fetched {
                return Ok(blob);
            }
        }
    }

    /// A blob on its way. `None`: it has just come to an end, so look again.
    async fn blob_on_its_way(
        self: &Arc<Self>,
        repository: &Repository,
        digest: &Digest,
        file: File,
        deadline: Instant,
    ) -> Result<Option<Blob>, Error> {
        self.refuse_absent(&Absent::blob(repository, digest))?;
        match self.join_or_start(repository, digest, file, deadline).await? {
            Some(download) => self.await_opening(download, repository, deadline).await,
            None => Ok(None),
        }
    }

    /// The download of this digest. `None`: it has just come to an end, so look again.
    async fn join_or_start(
        self: &Arc<Self>,
        repository: &Repository,
        digest: &Digest,
        file: File,
        deadline: Instant,
    ) -> Result<Option<Arc<Download>>, Error> {
        let Some(running) = self.running_download(digest) else {
            return self.start_download(repository, digest, file);
        };
        if running.repository != *repository {
            self.ensure_proved(repository, digest, deadline).await?;
        }
        let result = if self.prefetch.take_unasked(digest) { "miss" } else { "join" };
        self.count(repository, "blob", result);
        Ok(Some(running))
    }

    pub(super) fn running_download(&self, digest: &Digest) -> Option<Arc<Download>> {
        self.downloads().get(digest).cloned()
    }

    fn start_download(
        self: &Arc<Self>,
        repository: &Repository,
        digest: &Digest,
        file: File,
    ) -> Result<Option<Arc<Download>>, Error> {
        let Some(mut listed) = self.list_download(repository, digest, file)? else {
            return Ok(None);
        };
        self.count(repository, "blob", "miss");
        let download = listed.download.clone();
        self.tasks.spawn(async move { listed.run().await });
        Ok(Some(download))
    }

    /// Puts a new download on the list, to be run. `None`: the blob is there already, or coming.
    pub(super) fn list_download(
        self: &Arc<Self>,
        repository: &Repository,
        digest: &Digest,
        file: File,
    ) -> Result<Option<Listed>, Error> {
        let (store, remote) = (self.store.clone(), self.remote(repository, digest)?);
        let means = Means { store, remote, streams: self.streams };
        let mut downloads = self.downloads();
        // A download leaves the list only after its blob is published, so what is in neither
        // place is in nobody's hands.
        let is_here = file == File::Absent && self.store.has(digest);
        if is_here || downloads.contains_key(digest) {
            return Ok(None);
        }
        means.remote.upstream.ensure_online()?;
        let download = Arc::new(Download::new(repository.clone(), digest.clone()));
        downloads.insert(digest.clone(), download.clone());
        drop(downloads);
        Ok(Some(Listed { mirror: self.clone(), download, means }))
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
            Progress::Filling(_) | Progress::Verified(_) | Progress::Stranded(_) => {
                self.store.touch(&download.digest);
                let remote = self.remote(repository, &download.digest)?;
                let growing = download.growing(remote).ok_or_else(Error::lost)?;
                Ok(Some(Blob::new(growing.size, Origin::Growing(growing))))
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
        let remote = self.remote(repository, &download.digest)?;
        let body = match download.take_untaken() {
            Some(body) => body,
            None => remote.upstream.get_blob(repository.name(), &remote.digest, deadline).await?,
        };
        let untaken = Untaken::new(body, remote).ok_or_else(Error::broken)?;
        Ok(Blob::new(untaken.size(), Origin::Untaken(untaken)))
    }

    fn remote(&self, repository: &Repository, digest: &Digest) -> Result<Remote, Error> {
        Ok(Remote {
            upstream: self.upstream(repository)?.clone(),
            repository: repository.clone(),
            digest: digest.clone(),
            metrics: self.metrics.clone(),
            patience: self.patience,
            retries: self.retries,
            stopping: self.stopping.clone(),
        })
    }
}

/// A download on the list of those that run. It leaves the list when this is dropped, at its end
/// or by a panic.
pub(super) struct Listed {
    mirror: Arc<Mirror>,
    download: Arc<Download>,
    means: Means,
}

impl Listed {
    /// A receiver that sees every later step of the download as it is now.
    pub(super) fn progress(&self) -> watch::Receiver<Progress> {
        self.download.progress()
    }

    /// Runs the download to its end. One that ended in wrong bytes begins anew at another endpoint.
    /// Who has read of them is cut, for they cannot be taken back, and finds the new one when it asks
    /// again. The time for upstream's headers is the download's own: whoever joins it late shall not
    /// have to do with what the first client had left.
    pub(super) async fn run(&mut self) {
        while let Some(place) = self.download.run(&self.means, self.mirror.deadline()).await {
            let anew = Arc::new(self.download.anew(place));
            self.mirror.downloads().insert(anew.digest.clone(), anew.clone());
            std::mem::replace(&mut self.download, anew).break_off();
        }
    }
}

impl Drop for Listed {
    fn drop(&mut self) {
        self.mirror.downloads().remove(&self.download.digest);
        self.mirror.prefetch.slot_is_idle();
    }
}
