//! Files of `blobs/`: opening them, and making the table agree with what is found.

use std::{
    fs::{self, File},
    io,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

use super::{Shared, blob::BlobReader};
use crate::oci::Digest;

/// Damaged blobs that are kept for inspection.
const QUARANTINED_FILES: usize = 8;

const LOCKS: usize = 64;

/// Locks by digest: whoever makes, moves or removes a file of `blobs/` and tells the table
/// holds the one of its digest, so that both always agree.
#[derive(Debug)]
pub struct NameLocks([Mutex<()>; LOCKS]);

impl NameLocks {
    /// All of them free.
    pub fn new() -> NameLocks {
        NameLocks(std::array::from_fn(|_| Mutex::default()))
    }

    /// Takes the lock of a digest; some others share it. For blocking threads only.
    pub fn take(&self, digest: &Digest) -> Option<MutexGuard<'_, ()>> {
        let byte = digest.as_bytes().first().copied().unwrap_or_default();
        let lock = self.0.get(usize::from(byte) % LOCKS)?;
        Some(lock.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Shared {
    /// Opens a blob. `None`: not here. What the table has wrong is put right. Blocking.
    pub fn open_file(&self, digest: &Digest) -> io::Result<Option<BlobReader>> {
        let file = match File::open(self.directory.blob(digest)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.lose_if_gone(digest)?;
                return Ok(None);
            }
            file => file?,
        };
        let size = file.metadata()?.len();
        match self.memory.with(|table| table.size(digest)) {
            Some(expected) if expected != size => {
                tracing::warn!(%digest, expected, size, "a blob has the wrong size");
                self.quarantine(digest)?;
                return Ok(None);
            }
            Some(_) => {}
            None => {
                self.adopt(digest)?;
            }
        }
        Ok(Some(BlobReader::new(Arc::new(file), size, &self.buffers)))
    }

    /// Tells the table of a file that it does not know. Returns its size; `None`: there is no
    /// such file. Blocking.
    pub fn adopt(&self, digest: &Digest) -> io::Result<Option<u64>> {
        let _name = self.names.take(digest);
        let Some(size) = self.size_on_disk(digest)? else {
            return Ok(None);
        };
        let now = self.running.now();
        self.memory.with(|table| {
            if table.size(digest).is_none() {
                table.put_blob(digest, size, now);
            }
        });
        Ok(Some(size))
    }

    /// Tells the table if a file is not there. Blocking.
    pub fn lose_if_gone(&self, digest: &Digest) -> io::Result<bool> {
        let _name = self.names.take(digest);
        if self.size_on_disk(digest)?.is_some() {
            return Ok(false);
        }
        self.memory.with(|table| table.lose(digest));
        Ok(true)
    }

    /// Moves a damaged blob out of the way, so that it is fetched again. Blocking.
    pub fn quarantine(&self, digest: &Digest) -> io::Result<()> {
        let _name = self.names.take(digest);
        fs::create_dir_all(self.directory.quarantine())?;
        let moved = fs::rename(self.directory.blob(digest), self.directory.quarantined(digest));
        match moved {
            // Another reader was faster.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            moved => moved?,
        }
        self.memory.with(|table| table.lose(digest));
        self.metrics.store_damaged_blobs.inc();
        tracing::warn!(%digest, "a damaged blob is quarantined");
        self.trim_quarantine()
    }

    /// `None`: there is no such file. A file whose size is not the expected one counts as there.
    fn size_on_disk(&self, digest: &Digest) -> io::Result<Option<u64>> {
        match fs::metadata(self.directory.blob(digest)) {
            Ok(metadata) => Ok(Some(metadata.len())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Removes the files that have been in quarantine longest.
    fn trim_quarantine(&self) -> io::Result<()> {
        let mut files: Vec<(SystemTime, PathBuf)> = Vec::new();
        for entry in fs::read_dir(self.directory.quarantine())? {
            let entry = entry?;
            files.push((entry.metadata()?.modified()?, entry.path()));
        }
        files.sort();
        let surplus = files.len().saturating_sub(QUARANTINED_FILES);
        for (_, path) in files.iter().take(surplus) {
            fs::remove_file(path)?;
        }
        Ok(())
    }
}
