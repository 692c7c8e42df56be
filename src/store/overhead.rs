//! What the data directory takes up beside blobs and downloads: the index, `index.json`, the
//! quarantine, and the directories themselves.

use std::{
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::Path,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use super::directory::{ALGORITHMS, Directory};

/// How long a measurement is believed.
const BELIEF: Duration = Duration::from_secs(1);

/// How much these may grow until the next measurement, in bytes: sled writes a segment of 512 KiB at
/// a time, and a batch of rows is smaller than that.
const GROWTH: u64 = 2 * 1024 * 1024;

/// Bytes that a snapshot of the table takes for each of its slots, or less: one is written anew
/// beside the one before.
const SNAPSHOT_SLOT: u64 = 128;

/// The unit of `st_blocks` (stat(2)), in bytes.
const SECTOR: u64 = 512;

/// Measures now and then.
#[derive(Debug)]
pub struct Overhead {
    directory: Directory,
    last: Mutex<Option<(Instant, u64)>>,
}

impl Overhead {
    /// Of this directory.
    pub fn new(directory: Directory) -> Overhead {
        Overhead { directory, last: Mutex::default() }
    }

    /// Bytes on disk, and some for what is about to be written of a table with so many slots.
    /// Blocking.
    pub fn bytes(&self, slots: usize) -> u64 {
        let snapshot = SNAPSHOT_SLOT.saturating_mul(slots as u64);
        self.measured().saturating_add(snapshot)
    }

    fn measured(&self) -> u64 {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        match *last {
            Some((at, bytes)) if at.elapsed() < BELIEF => bytes,
            _ => {
                let bytes = self.measure();
                *last = Some((Instant::now(), bytes));
                bytes
            }
        }
    }

    /// What was measured is out of date.
    pub fn forget(&self) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// A file that goes while it is looked at, or that cannot be looked at, counts as nothing.
    fn measure(&self) -> u64 {
        let directory = &self.directory;
        let own = [directory.path().to_owned(), directory.downloads()];
        let own = own.into_iter().chain(ALGORITHMS.map(|algorithm| directory.blobs(algorithm)));
        let own: u64 = own.map(|path| on_disk(&path)).sum();
        // It is written anew beside the old one.
        let fresh = on_disk(&directory.layout_index());
        let counted_elsewhere = [directory.downloads(), directory.path().join("blobs")];
        let below = below(directory.path(), &counted_elsewhere).unwrap_or(0);
        own.saturating_add(fresh).saturating_add(below).saturating_add(GROWTH)
    }
}

/// What the entries of a directory take up, all levels down, but for some.
fn below(directory: &Path, except: &[std::path::PathBuf]) -> io::Result<u64> {
    let mut bytes: u64 = 0;
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if except.contains(&path) {
            continue;
        }
        bytes = bytes.saturating_add(on_disk(&path));
        if fs::symlink_metadata(&path).is_ok_and(|metadata| metadata.is_dir()) {
            bytes = bytes.saturating_add(below(&path, &[]).unwrap_or(0));
        }
    }
    Ok(bytes)
}

fn on_disk(path: &Path) -> u64 {
    fs::symlink_metadata(path).map_or(0, |metadata| metadata.blocks().saturating_mul(SECTOR))
}
