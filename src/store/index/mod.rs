//! The index: what the table holds, remembered by sled from one life to the next, on top of a
//! [snapshot] that is taken anew whenever sled holds too much.
//!
//! It is disposable. sled 0.34 panics on damaged files, or opens them with rows missing, and
//! after one full disk it fails until it is opened again. So all of it lives here, behind
//! `catch_unwind`; no error of it reaches a client; and whatever it lost is found again in
//! `blobs/` and `index.json`.

mod keeper;
mod reading;
mod renewal;
mod rows;
mod snapshot;

#[cfg(test)]
mod tests;

use std::{
    fs::{self, File},
    io,
    os::unix::fs::MetadataExt as _,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    thread,
    time::{Duration, Instant},
};

use rustix::{
    fs::{FlockOperation, flock},
    io::Errno,
};

pub use keeper::IndexKeeper;

use super::{
    directory::Directory,
    health::is_own_limit,
    peak::Day,
    room::is_full,
    running::Moment,
    table::{Batch, Table},
};

/// Memory that sled may use for its pages, in bytes.
const CACHE_BYTES: u64 = 16 * 1024 * 1024;

/// How long sled's own lock may outlive the lock of the directory.
const LOCK_PATIENCE: Duration = Duration::from_secs(2);

/// The open index.
pub struct Index {
    /// Which files it is made of: what else is there later is not what is written to.
    files: [Option<(u64, u64)>; 2],
    database: sled::Db,
    blobs: sled::Tree,
    pointers: sled::Tree,
    proofs: sled::Tree,
    /// What was forgotten since the snapshot was taken, whatever became of it afterwards.
    forgotten: sled::Tree,
    visibility: sled::Tree,
    pins: sled::Tree,
    meta: sled::Tree,
    snapshot: u32,
}

/// How far the life had come that wrote an index.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Before {
    pub running: Moment,
    pub day: Day,
}

/// Why the index does not work.
#[derive(Debug, thiserror::Error)]
pub enum Trouble {
    /// The disk does not let it work: it may again once it is opened anew.
    #[error("{0}")]
    Disk(io::Error),
    /// The files are of no use.
    #[error("{0}")]
    Broken(String),
}

impl Index {
    /// Opens the index, creating it when missing. Blocking.
    pub fn open(directory: &Directory) -> Result<Index, Trouble> {
        let (index, ()) = Index::open_and(directory, |_| Ok(()))?;
        Ok(index)
    }

    /// Opens the index and reads all of it. Blocking.
    pub fn load(directory: &Directory) -> Result<(Index, Table, Before), Trouble> {
        renewal::settle(directory)?;
        let read = |index: &Index| index.read(&directory.index());
        let (index, (table, before)) = Index::open_and(directory, read)?;
        Ok((index, table, before))
    }

    /// Remembers a batch, and how far this life has come, and syncs. Blocking.
    pub fn apply(&self, batch: &Batch, now: Before) -> Result<(), Trouble> {
        guarded(|| {
            // Before what has gone since is forgotten.
            self.meta.insert(b"day", rows::day_value(now.day))?;
            self.apply_removals(batch)?;
            for (digest, row) in &batch.blobs {
                self.blobs.insert(rows::digest_key(digest), rows::blob_value(row))?;
            }
            for (repository, pointer, row) in &batch.pointers {
                let value = row.as_ref().map(rows::pointer_value);
                self.set(&self.pointers, rows::pointer_key(repository, pointer), value)?;
            }
            for row in &batch.proofs {
                let key = rows::proof_key(&row.repository, &row.digest);
                self.proofs.insert(key, rows::proof_value(row.proof))?;
            }
            for (repository, row) in &batch.verdicts {
                let value = row.as_ref().map(rows::verdict_value);
                self.set(&self.visibility, rows::verdict_key(repository), value)?;
            }
            for (image, held) in &batch.pins {
                let value = held.as_ref().map(rows::pin_value);
                self.set(&self.pins, rows::pin_key(image), value)?;
            }
            self.meta.insert(b"running", rows::running_value(now.running))?;
            self.database.flush()?;
            Ok(())
        })
    }

    /// Makes sure that what was applied outlasts a power cut: sled's own flush leaves that to
    /// sync_file_range(2), which promises nothing of the kind. Blocking.
    pub fn sync(&self, directory: &Directory) -> Result<(), Trouble> {
        let log = File::open(directory.index().join("db")).and_then(|log| log.sync_data());
        log.map_err(Trouble::from)
    }

    /// Whether its files are still where they were. Blocking.
    pub fn is_in_place(&self, directory: &Directory) -> bool {
        file_ids(&directory.index()) == self.files
    }

    /// The number of the snapshot that it goes with. 0: none.
    pub fn snapshot(&self) -> u32 {
        self.snapshot
    }

    /// Lets go of the files. sled may panic even in this: tells whether it did not.
    pub fn close(self) -> bool {
        let closed = catch_unwind(AssertUnwindSafe(|| drop(self)));
        if closed.is_err() {
            tracing::debug!("the index panicked while it was closed");
        }
        closed.is_ok()
    }

    /// Opens the index that was just made there: nothing in it can do harm. Blocking.
    fn open_made(directory: &Directory) -> Result<Index, Trouble> {
        wait_for_lock(&directory.index());
        guarded(|| Index::open_database(&directory.index()))
    }

    /// While the index is opened and `read` runs, a marker stands beside it: if the process
    /// dies of it, the next one will not try again.
    fn open_and<T>(
        directory: &Directory,
        read: impl FnOnce(&Index) -> sled::Result<T>,
    ) -> Result<(Index, T), Trouble> {
        let marker = directory.index_marker();
        if marker.exists() {
            let message = "an earlier process did not survive opening it";
            return Err(Trouble::Broken(message.to_owned()));
        }
        wait_for_lock(&directory.index());
        fs::write(&marker, b"")?;
        let opened = guarded(|| Index::open_database(&directory.index()));
        let opened = opened.and_then(|index| match guarded(|| read(&index)) {
            Ok(value) => Ok((index, value)),
            Err(trouble) => {
                index.close();
                Err(trouble)
            }
        });
        remove_marker(&marker);
        opened
    }

    fn open_database(path: &Path) -> sled::Result<Index> {
        let database = sled::Config::new()
            .path(path)
            .cache_capacity(CACHE_BYTES)
            .flush_every_ms(None)
            .open()?;
        let meta = database.open_tree("meta")?;
        let snapshot = meta.get(b"snapshot")?;
        Ok(Index {
            files: file_ids(path),
            blobs: database.open_tree("blobs")?,
            pointers: database.open_tree("tags")?,
            proofs: database.open_tree("proofs")?,
            forgotten: database.open_tree("forgotten")?,
            visibility: database.open_tree("visibility")?,
            pins: database.open_tree("pins")?,
            snapshot: snapshot.and_then(|value| rows::read_snapshot_value(&value)).unwrap_or(0),
            meta,
            database,
        })
    }

    fn apply_removals(&self, batch: &Batch) -> sled::Result<()> {
        for digest in &batch.forgotten {
            let key = rows::digest_key(digest);
            for proof in self.proofs.scan_prefix(&key).keys() {
                self.proofs.remove(proof?)?;
            }
            self.blobs.remove(&key)?;
            if self.snapshot > 0 {
                self.forgotten.insert(key, &[])?;
            }
        }
        for digest in &batch.lost {
            self.set(&self.blobs, rows::digest_key(digest), None)?;
        }
        for (repository, digest) in &batch.unproved {
            self.set(&self.proofs, rows::proof_key(repository, digest), None)?;
        }
        Ok(())
    }

    /// Writes a row. One that is no more leaves an empty one where the snapshot may have it.
    fn set(&self, tree: &sled::Tree, key: Vec<u8>, value: Option<Vec<u8>>) -> sled::Result<()> {
        match value {
            Some(value) => tree.insert(key, value)?,
            None if self.snapshot > 0 => tree.insert(key, &[])?,
            None => tree.remove(key)?,
        };
        Ok(())
    }
}

/// Device and number of sled's file and of the snapshot's.
fn file_ids(index: &Path) -> [Option<(u64, u64)>; 2] {
    [index.join("db"), snapshot::path(index)].map(|path| {
        let found = fs::metadata(path).ok()?;
        Some((found.dev(), found.ino()))
    })
}

/// Waits until nobody holds sled's own lock. A process that is killed lets go of its locks one
/// by one, so that ours may be free while sled's is not, and to sled that is an error like any
/// other.
fn wait_for_lock(index: &Path) {
    let Ok(file) = File::open(index.join("db")) else {
        return;
    };
    let deadline = Instant::now() + LOCK_PATIENCE;
    while flock(&file, FlockOperation::NonBlockingLockExclusive).is_err()
        && Instant::now() < deadline
    {
        thread::sleep(Duration::from_millis(10));
    }
}

/// Moves the files of a broken index aside, so that a new one can be made. The one moved aside
/// before is removed, and so is what an unfinished renewal left.
pub fn quarantine(directory: &Directory) -> io::Result<()> {
    renewal::clear(directory)?;
    let earlier = directory.damaged_indexes()?;
    let number = earlier.iter().map(|(number, _)| *number).max();
    let aside = directory.damaged_index(number.map_or(1, |number| number.saturating_add(1)));
    for (_, path) in earlier {
        remove_any(&path)?;
    }
    match fs::rename(directory.index(), aside) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        renamed => renamed?,
    }
    remove_marker(&directory.index_marker());
    Ok(())
}

fn remove_any(path: &Path) -> io::Result<()> {
    if fs::symlink_metadata(path)?.is_dir() {
        fs::remove_dir_all(path)
    } else {
        fs::remove_file(path)
    }
}

fn remove_marker(marker: &Path) {
    if let Err(error) = fs::remove_file(marker)
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(path = %marker.display(), %error, "cannot remove the marker of the index");
    }
}

/// Runs what sled does, and makes of a panic an error.
fn guarded<T>(work: impl FnOnce() -> sled::Result<T>) -> Result<T, Trouble> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(error.into()),
        Err(_) => Err(Trouble::Broken("sled panicked".to_owned())),
    }
}

impl From<sled::Error> for Trouble {
    fn from(error: sled::Error) -> Trouble {
        if let sled::Error::Io(error) = error {
            return error.into();
        }
        Trouble::Broken(error.to_string())
    }
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Trouble {
        if is_of_the_disk(&error) {
            return Trouble::Disk(error);
        }
        Trouble::Broken(error.to_string())
    }
}

/// Whether the files may be well, and only cannot be read or written now.
fn is_of_the_disk(error: &io::Error) -> bool {
    let errnos = [
        Errno::IO,
        Errno::ROFS,
        Errno::ACCESS,
        Errno::PERM,
        Errno::NODEV,
        Errno::NXIO,
        Errno::STALE,
        Errno::FBIG,
    ];
    let is_one = |errno: Errno| errnos.contains(&errno);
    is_full(error) || is_own_limit(error) || Errno::from_io_error(error).is_some_and(is_one)
}

impl std::fmt::Debug for Index {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Index")
    }
}
