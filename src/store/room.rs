//! Room on the file system: what is free, what must stay free, and reserving the difference.

use std::{
    fs::File,
    io,
    sync::{Arc, Mutex, PoisonError},
};

use rustix::{
    fs::{FallocateFlags, StatVfs, fallocate, fstatvfs, statvfs},
    io::Errno,
};

use super::{CannotTake, directory::Directory, memory::gauge};
use crate::{config, metrics::Metrics};

/// Reserves room for files, so that `min_free` stays free.
#[derive(Debug)]
pub struct Room {
    cache: config::Cache,
    metrics: Arc<Metrics>,
    /// Held from looking how much is free to having taken some of it.
    looking: Mutex<()>,
}

impl Room {
    /// Keeps `cache.min_free` free.
    pub fn new(cache: config::Cache, metrics: Arc<Metrics>) -> Room {
        Room { cache, metrics, looking: Mutex::default() }
    }

    /// Reserves `length` bytes of `file` from `offset`, without changing its size. Blocking.
    pub fn reserve(&self, file: &File, offset: u64, length: u64) -> Result<(), CannotTake> {
        let _looking = self.looking.lock().unwrap_or_else(PoisonError::into_inner);
        let disk = fstatvfs(file).map_err(|error| self.failed(error.into()))?;
        let free = self.show(&disk);
        let total = disk.f_blocks.saturating_mul(disk.f_frsize);
        let min_free = self.cache.min_free_bytes(total);
        if free.saturating_sub(length) < min_free {
            return Err(CannotTake::NoRoom(format!(
                "{length} bytes are asked for, {free} are free and min_free is {min_free}"
            )));
        }
        match allocate(file, offset, length) {
            // The file system cannot reserve: the look above must do.
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(()),
            allocated => allocated.map_err(|error| self.failed(error.into())),
        }
    }

    /// Looks how much is free, for the metrics. Blocking.
    pub fn look(&self, directory: &Directory) -> io::Result<()> {
        self.show(&statvfs(directory.path())?);
        Ok(())
    }

    /// What an error of the disk means for the one that wanted to write.
    pub fn failed(&self, error: io::Error) -> CannotTake {
        self.note(&error);
        if is_full(&error) {
            return CannotTake::NoRoom(error.to_string());
        }
        CannotTake::Failing(error)
    }

    /// Something could not be written. A full disk can be, later; and that two wanted to write
    /// one file says nothing of the disk.
    pub fn note(&self, error: &io::Error) {
        if !is_full(error) && error.kind() != io::ErrorKind::AlreadyExists {
            self.metrics.store_writable.set(0);
        }
    }

    /// Something was written.
    pub fn succeeded(&self) {
        self.metrics.store_writable.set(1);
    }

    fn show(&self, disk: &StatVfs) -> u64 {
        let free = disk.f_bavail.saturating_mul(disk.f_frsize);
        self.metrics.store_free_bytes.set(gauge(free));
        free
    }
}

/// Whether the disk, or a quota on it, is full.
pub fn is_full(error: &io::Error) -> bool {
    use io::ErrorKind::{QuotaExceeded, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded)
}

fn allocate(file: &File, offset: u64, length: u64) -> Result<(), Errno> {
    if length == 0 {
        return Ok(());
    }
    loop {
        match fallocate(file, FallocateFlags::KEEP_SIZE, offset, length) {
            Err(Errno::INTR) => {}
            allocated => return allocated,
        }
    }
}
