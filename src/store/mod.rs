//! The store: verified blobs on disk, and a table of them in memory that the index remembers.
//!
//! ```text
//! oci-layout, index.json       the directory is an OCI image layout: other tools can read it
//! blobs/<algorithm>/<hex>      whole and verified, immutable; manifests too
//! downloads/<algorithm>-<hex>  a blob being written, or left half-written to be gone on with;
//!                              with .json: where it belongs, and how much of it counts if its length
//!                              does not tell; downloads/manifest-<n>: a manifest
//! quarantine/<algorithm>-<hex> the last few blobs that were found damaged, 1 GiB at most; empty:
//!                              one that was
//! scrub.json                   how far the present scrub has come
//! index/                       what the table holds, derived and disposable: a snapshot of it, and
//!                              sled with what changed since
//! index.next, index.last       an index being made, and the one that it takes the place of
//! index.opening                stands while index/ is being opened; found at a start, it
//!                              tells that index/ killed its reader
//! index.damaged-<n>            the last index/ that was of no use
//! lock                         one process per directory; its id, until it ends cleanly
//! admin.sock                   where that process takes commands, if it is a daemon
//! ```
//!
//! - **The disk is the truth, the table its picture.** A file in `blobs/` is there, whatever any
//!   index says. A look-up that misses looks at the disk, and a file that is gone is a miss.
//! - **A file appears in `blobs/` whole or not at all**: written under `downloads/`, verified,
//!   synced, renamed, and the name synced.
//! - **Nothing waits for the index.** Threads of their own write `index/` and `index.json` after
//!   the fact; whatever they lose in a crash is found again in `blobs/` and `index.json`.
//! - **The limits are kept before, not after**: whatever grows has taken its room beforehand, of which
//!   an account is kept; where there is none, what was unused longest goes.
//! - **An error of the disk is nobody's error.** Who meets it does without the store, and a thread finds out
//!   whether it can be written and puts back what is missing (`trial`).
//! - **`index.json` never names what is not there**: a manifest is written before it is named, and its
//!   name is withdrawn before it goes (`withdrawal`). Only one that is damaged goes at once.
//! - Making, moving and removing a file happens under the lock of its digest, together with the
//!   change of the table.

mod blob;
mod budget;
mod buffers;
mod damage;
mod directory;
mod downloads;
mod encoding;
mod eviction;
mod examination;
mod files;
mod hashing;
mod health;
mod index;
mod inspection;
mod layout;
mod ledger;
mod listing;
mod making_room;
mod manifest;
mod memory;
mod naming;
mod note;
mod open;
mod open_files;
mod overhead;
mod peak;
mod picture;
mod pins;
mod presence;
mod quarantine;
mod rebuild;
mod rehash;
mod removal;
mod resident;
mod room;
mod running;
mod scrub;
mod sweep;
mod swept;
mod table;
mod threads;
mod trial;
mod usage;
mod withdrawal;

#[cfg(test)]
mod tests;

use std::{
    io,
    path::PathBuf,
    sync::{Arc, Mutex, OnceLock, PoisonError, atomic::AtomicU64},
    time::Duration,
};

use bytes::Bytes;
use tokio::sync::{Semaphore, mpsc, watch};

pub use self::blob::{BlobReader, BlobWriter, PartWriter, VerifiedBlob, WrongDigest};
pub use self::budget::Limits;
pub use self::buffers::PIECE;
pub use self::damage::{Damage, Shown};
pub use self::examination::{Disk, DiskKind, existing_part, try_writing};
pub use self::hashing::Hashed;
pub use self::inspection::{Inspected, PlatformHere, PlatformState};
pub use self::listing::{Image, PinnedBy};
pub use self::naming::TaggedManifest;
pub use self::pins::{Extent, Written};
pub use self::presence::{NoStore, admin_socket, owner};
pub use self::removal::{CannotRemove, Removal};
pub use self::scrub::{Examination, Finding, Scope, Scrub};
pub use self::sweep::Sweep;
pub use self::swept::{Count, Going, Plan, Swept};
pub use self::table::{PinRow as Pin, Place, Target, Totals, Verdict};
pub use self::usage::{Grouping, Usage, User};
use self::{
    buffers::Buffers,
    directory::{Directory, Lock},
    downloads::Downloads,
    files::NameLocks,
    health::{Health, is_own_limit},
    layout::Layout,
    memory::Memory,
    open_files::OpenFiles,
    room::{Room, is_full},
    running::RunningTime,
    table::Table,
    threads::Keeper,
};
use crate::{
    clock::Clock,
    metrics::Metrics,
    oci::{Digest, Manifest, Repository},
};

/// How long between two writes of one blob's last use, in running time.
pub const TOUCH_INTERVAL: Duration = Duration::from_secs(3600);

/// A handle on the store; clones share it.
#[derive(Clone, Debug)]
pub struct Store(Arc<Shared>);

/// Why a store cannot be opened, in words for the person who starts Larder.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process uses it.
    #[error(
        "data directory {} is in use by process {process} (lock file {}): stop that process, or choose another directory with --data-dir",
        .path.display(),
        .lock.display()
    )]
    InUse {
        /// The data directory.
        path: PathBuf,
        /// The file that the process has locked.
        lock: PathBuf,
        /// Its id.
        process: String,
    },
    /// It cannot be read or written as it must be.
    #[error("{0}")]
    Unusable(String),
}

/// Why the store cannot take a blob; the caller passes the blob through instead.
#[derive(Debug, thiserror::Error)]
pub enum CannotTake {
    /// It would pass `cache.max_size` or `cache.min_free`, or the disk, or a quota on it, is full.
    #[error("no room: {0}")]
    NoRoom(String),
    /// The disk fails, or another writer has the blob ([`io::ErrorKind::AlreadyExists`]).
    #[error("{0}")]
    Failing(io::Error),
}

impl CannotTake {
    /// What an error of the disk means for the one that wanted to write.
    fn of(error: io::Error) -> CannotTake {
        if is_full(&error) {
            return CannotTake::NoRoom(error.to_string());
        }
        CannotTake::Failing(error)
    }

    /// As a label of a metric.
    pub fn label(&self) -> &'static str {
        match self {
            CannotTake::NoRoom(_) => "no_room",
            CannotTake::Failing(error) if is_own_limit(error) => "descriptors",
            CannotTake::Failing(_) => "disk",
        }
    }
}

#[derive(Debug)]
struct Shared {
    directory: Directory,
    lock: Arc<Lock>,
    memory: Memory,
    layout: Layout,
    names: NameLocks,
    open_files: OpenFiles,
    downloads: Downloads,
    buffers: Buffers,
    manifests_written: AtomicU64,
    room: Room,
    /// With one permit: evictions take turns. Closed with the store.
    evictions: Arc<Semaphore>,
    health: Health,
    running: RunningTime,
    expire_after: Option<Duration>,
    /// No content leaves by age before it was unused for so long. `None`: none ever does.
    shortest_life: Option<Duration>,
    /// `None`: only on demand.
    scrub_interval: Option<Duration>,
    clock: Clock,
    metrics: Arc<Metrics>,
    keepers: Mutex<Vec<Keeper>>,
    /// Whether the table agrees with the disk. Until then, what lists what is not wholly known.
    looked_around: watch::Sender<bool>,
    /// Whom to tell of damage.
    damage_reports: OnceLock<mpsc::Sender<Digest>>,
}

/// Blobs.
impl Store {
    /// Whether a blob or manifest is here, as far as memory knows.
    pub fn has(&self, digest: &Digest) -> bool {
        self.0.memory.look(|table| table.size(digest)).is_some()
    }

    /// Size of a blob, from memory or, when the table does not know it, from the file. `None`:
    /// not here.
    ///
    /// # Errors
    /// What the disk says.
    pub async fn blob_size(&self, digest: &Digest) -> io::Result<Option<u64>> {
        if let Some(size) = self.0.memory.look(|table| table.size(digest)) {
            return Ok(Some(size));
        }
        let (store, digest) = (Arc::clone(&self.0), digest.clone());
        self.read(move || store.adopt(&digest)).await
    }

    /// Opens a blob. `None`: not here. Does not count as use.
    ///
    /// # Errors
    /// What the disk says; a file that is gone or damaged is a miss instead.
    pub async fn open_blob(&self, digest: &Digest) -> io::Result<Option<BlobReader>> {
        if let Some(reader) = self.0.open_at_once(digest) {
            return Ok(Some(reader));
        }
        let (store, digest) = (Arc::clone(&self.0), digest.clone());
        self.read(move || store.open_file(&digest)).await
    }

    /// Begins a blob of `size` bytes (`None`: unknown), reserving its room.
    ///
    /// # Errors
    /// When there is no room, the disk fails, or another writer has the digest.
    pub async fn create_blob(
        &self,
        digest: &Digest,
        size: Option<u64>,
    ) -> Result<BlobWriter, CannotTake> {
        let created = BlobWriter::create(Arc::clone(&self.0), digest.clone(), size);
        self.write(created).await
    }

    /// Goes on with a blob of which an earlier writer, perhaps of an earlier life, left the
    /// beginning ([`BlobWriter::leave_to_next`]). `None`: there is nothing of use. What is there
    /// can be read at once; it is hashed meanwhile.
    pub async fn resume_blob(&self, digest: &Digest) -> Option<BlobWriter> {
        let resumed = BlobWriter::resume(Arc::clone(&self.0), digest.clone()).await;
        let resumed = resumed.inspect_err(|reason| {
            tracing::debug!(%digest, %reason, "cannot go on with a partial download");
        });
        resumed.ok().flatten()
    }

    /// The downloads that an earlier writer left with all their bytes, and where upstream showed them.
    ///
    /// # Errors
    /// When the threads for such work are gone: at the very end.
    pub async fn whole_downloads(&self) -> io::Result<Vec<(Repository, Digest)>> {
        let downloads = self.0.downloads.clone();
        blocking(move || downloads.whole()).await
    }
}

/// Manifests.
impl Store {
    /// Stores the bytes of a manifest, whose digest the caller has verified, and what it lists.
    /// Counts as use.
    ///
    /// # Errors
    /// When there is no room or the disk fails.
    pub async fn put_manifest(
        &self,
        digest: &Digest,
        manifest: &Manifest,
        bytes: &Bytes,
    ) -> Result<(), CannotTake> {
        let put = self.0.put_manifest(digest.clone(), manifest.clone(), bytes.clone());
        self.write(put).await
    }

    /// A stored manifest with its bytes, verified. `None`: not here, or here as a blob that is
    /// no manifest. Does not count as use.
    ///
    /// # Errors
    /// What the disk says; a file that is gone or damaged is a miss instead.
    pub async fn manifest(&self, digest: &Digest) -> io::Result<Option<(Manifest, Bytes)>> {
        let (store, digest) = (Arc::clone(&self.0), digest.clone());
        self.read(move || store.read_manifest(&digest)).await
    }

    /// Whether a blob is the config of an image, and no layer. From memory.
    pub fn is_config(&self, digest: &Digest) -> bool {
        self.0.memory.look(|table| table.is_config(digest))
    }

    /// How many known indexes stand above a digest, in the longest chain; a manifest may be
    /// stored below at most [`crate::oci::MAX_NESTING`].
    pub fn nesting_above(&self, digest: &Digest) -> u32 {
        self.0.memory.look(|table| table.nesting_above(digest))
    }
}

/// The disk.
impl Store {
    /// Why nothing can be written now, if so; found out anew every second.
    pub fn trouble(&self) -> Option<String> {
        self.0.health.trouble()
    }

    async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let read = blocking(work).await.and_then(|read| read);
        read.inspect_err(|error| self.0.health.cannot_read(error))
    }

    /// Does not try while it is known to be in vain.
    async fn write<T>(
        &self,
        work: impl Future<Output = Result<T, CannotTake>>,
    ) -> Result<T, CannotTake> {
        self.0.health.check().map_err(CannotTake::of)?;
        work.await.inspect_err(|reason| self.0.health.cannot_take(reason))
    }
}

/// Use, expiry and the end.
impl Store {
    /// Records that a blob or manifest was used now; use of a manifest is use of everything
    /// below it.
    pub fn touch(&self, digest: &Digest) {
        let now = self.0.running.now();
        let untold = self.0.memory.look(|table| table.touch(digest, now));
        if !untold.is_empty() {
            self.0.memory.with(|table| table.mark_blobs(&untold));
        }
    }

    /// Begins to look for what was not used for longer than it is kept, or passes the limits.
    pub fn begin_sweep(&self) -> Sweep {
        Sweep::begin(Arc::clone(&self.0))
    }

    /// Returns once memory agrees with the files in `blobs/`, as far as they could be looked at.
    pub async fn looked_around(&self) {
        self.0.looked_around().await;
    }

    /// Writes what is only in memory, syncs, and marks a clean stop if all could be written. What is
    /// changed later is not remembered.
    pub async fn close(&self) {
        let store = Arc::clone(&self.0);
        let closed = blocking(move || store.close()).await;
        if let Err(error) = closed.and_then(|closed| closed) {
            tracing::warn!(%error, "the store was not closed cleanly");
        }
    }
}

impl Shared {
    /// As [`Store::looked_around`]. Before that, a layer may be here whose image is not known yet, and is
    /// pinned: nothing may be chosen to go.
    async fn looked_around(&self) {
        // The sender lives as long as this.
        let _ = self.looked_around.subscribe().wait_for(|done| *done).await;
    }

    fn close(&self) -> io::Result<()> {
        let mut keepers = self.keepers.lock().unwrap_or_else(PoisonError::into_inner);
        let running = std::mem::take(&mut *keepers);
        drop(keepers);
        if running.is_empty() {
            return Ok(());
        }
        // One that runs ends soon; what it has not removed is named again.
        self.evictions.close();
        self.memory.with(Table::readmit_all);
        let unwritten = running.into_iter().map(Keeper::finish).filter(|written| !written).count();
        if unwritten > 0 {
            let what = "the next start looks for what could not be written";
            return Err(io::Error::other(what));
        }
        self.lock.mark_clean()
    }
}

/// Runs `work` on a thread that may block. It goes on when the future is dropped.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(io::Error::other)
}
