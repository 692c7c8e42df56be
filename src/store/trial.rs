//! Tries whether the store can be written, while it cannot or is suspected not to be, and puts right
//! what a time without it left behind. A disk that is too full is given room at once.

use std::{
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::Path,
    sync::{Arc, Weak},
    thread,
    time::{Duration, Instant},
};

use rustix::{
    fs::{FallocateFlags, StatVfsMountFlags, fallocate, statvfs},
    io::Errno,
};

use super::{
    Shared,
    directory::ALGORITHMS,
    examination::{existing_part, write_probe},
    health::is_own_limit,
    memory::STEP,
    rebuild,
    room::is_full,
    table::Table,
};

/// Between two looks at the disk, and between two trials.
const INTERVAL: Duration = Duration::from_secs(1);

/// Room that there must be for the store to be of use, in bytes: for the index to grow by a piece.
const ROOM: u64 = 1024 * 1024;

/// How long nothing is evicted for a full disk after that was of no use.
const REST: Duration = Duration::from_secs(60);

/// How long nothing is evicted for a full disk after that was of use. Some file systems say only then that
/// what was removed is free.
const SETTLING: Duration = Duration::from_secs(10);

/// The one that looks after the disk. Owned by a thread of its own, which must not keep the store
/// alive.
#[derive(Debug)]
pub struct DiskKeeper {
    store: Weak<Shared>,
    looked: Instant,
    /// Nothing is to be gained before by an eviction, as far as is known.
    rests_until: Instant,
    /// The directory was not where it had been, or not all there: the table may know of files that are
    /// gone, and not of some that are there.
    astray: bool,
}

impl DiskKeeper {
    /// Looks after the disk of `store`.
    pub fn new(store: Weak<Shared>) -> DiskKeeper {
        let now = Instant::now();
        DiskKeeper { store, looked: now, rests_until: now, astray: false }
    }

    /// Looks whether all is as it was, and tries the disk when it is not; makes room where it is too full.
    /// Blocking.
    pub fn keep_up(&mut self) {
        let Some(store) = self.store.upgrade() else {
            return;
        };
        if self.looked.elapsed() < INTERVAL {
            return;
        }
        self.looked = Instant::now();
        let suspicion = store.health.take_suspicion();
        let is_whole = store.has_directories();
        if suspicion.is_none() && store.health.check().is_ok() && is_whole && store.looks_well() {
            if store.room.is_short(ROOM).unwrap_or(false) {
                self.relieve(&store, ROOM);
            }
            return;
        }
        self.astray |= !is_whole;
        let refused = suspicion.as_ref().map_or(0, |suspicion| suspicion.refused);
        match store.try_disk() {
            Ok(()) => {
                if refused > 0 {
                    self.relieve(&store, refused);
                }
                if store.health.clear(suspicion) || self.astray || !store.is_layout() {
                    self.recover(&store);
                }
            }
            // It says nothing of the disk.
            Err(error) if is_own_limit(&error) => {}
            Err(error) => {
                store.health.fail(&error);
                if is_full(&error) {
                    self.relieve(&store, ROOM);
                }
            }
        }
    }

    /// Makes room where `refused` bytes could not be written, unless it is too early to tell whether there is
    /// some. Blocking.
    pub fn relieve(&mut self, store: &Arc<Shared>, refused: u64) {
        // As in `Shared::looked_around`.
        if !*store.looked_around.borrow() {
            return;
        }
        if Instant::now() < self.rests_until {
            return;
        }
        let pause = if store.relieve(refused) { SETTLING } else { REST };
        self.rests_until = Instant::now() + pause;
    }

    fn recover(&mut self, store: &Shared) {
        if let Err(error) = store.layout.write_marker() {
            store.health.suspect(&error);
        }
        store.memory.with(Table::mark_layout);
        if std::mem::take(&mut self.astray) {
            let store = Weak::clone(&self.store);
            let rescan = thread::Builder::new().name("store-rebuild".to_owned());
            let rescan = rescan.spawn(move || {
                forget_sights(&store);
                rebuild::run(&store);
            });
            if let Err(error) = rescan {
                tracing::warn!(%error, "cannot compare the index with the blobs");
            }
        }
    }
}

impl Shared {
    /// Whether nothing shows that the store cannot be written. Writes nothing.
    fn looks_well(&self) -> bool {
        let is_writable = statvfs(self.directory.path())
            .is_ok_and(|disk| !disk.f_flag.contains(StatVfsMountFlags::RDONLY));
        is_writable && self.is_layout()
    }

    /// Whether the store is where it was, with all of its directories.
    fn has_directories(&self) -> bool {
        let directories = ALGORITHMS.map(|algorithm| self.directory.blobs(algorithm));
        self.lock.is_in_place()
            && directories.iter().all(|directory| directory.is_dir())
            && self.directory.downloads().is_dir()
    }

    /// Whether other tools take the directory for an image layout.
    fn is_layout(&self) -> bool {
        self.directory.layout_marker().exists() && self.directory.layout_index().exists()
    }

    /// Writes in every directory, and makes those that are missing.
    fn try_disk(&self) -> io::Result<()> {
        self.find_place()?;
        self.directory.create().map_err(|error| said_of(self.directory.path(), &error))?;
        self.lock.retake()?;
        let blobs = ALGORITHMS.map(|algorithm| self.directory.blobs(algorithm));
        let downloads = [self.directory.path().to_owned(), self.directory.downloads()];
        for directory in blobs.into_iter().chain(downloads) {
            let written = write_probe(&directory).and_then(|file| {
                Ok(fallocate(file, FallocateFlags::KEEP_SIZE, 0, ROOM).or_else(unsupported)?)
            });
            written.map_err(|error| said_of(&directory, &error))?;
        }
        Ok(())
    }

    /// Where a disk was unmounted, there is an empty directory on another, which is not ours to fill.
    fn find_place(&self) -> io::Result<()> {
        let path = self.directory.path();
        if self.lock.is_in_place() || self.directory.layout_marker().exists() {
            return Ok(());
        }
        let there = existing_part(path)?;
        if fs::metadata(there)?.dev() == self.lock.device() {
            return Ok(());
        }
        let other = "another file system is there than at the start: is the right one mounted?";
        Err(said_of(path, &io::Error::new(io::ErrorKind::NotFound, other)))
    }
}

fn said_of(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

fn unsupported(error: Errno) -> Result<(), Errno> {
    if matches!(error, Errno::OPNOTSUPP | Errno::NOSYS) { Ok(()) } else { Err(error) }
}

fn forget_sights(store: &Weak<Shared>) {
    let step = |from| store.upgrade()?.memory.look(|table| table.forget_sights(from, STEP));
    for () in (0..).step_by(STEP).map_while(step) {}
}
