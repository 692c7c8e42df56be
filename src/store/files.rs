//! Files of `blobs/`: opening them, and making the table agree with what is found.

use std::{
    fs::{File, Metadata},
    io,
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat2};

use super::{
    Shared,
    blob::BlobReader,
    damage::{Damage, is_at},
    hashing::Hashed,
    table::Table,
};
use crate::oci::Digest;

/// How large a file may be that is hashed while a client waits for its first byte, in bytes.
const VERIFIED_AT_ONCE: u64 = 64 * 1024 * 1024;

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
    /// Opens a blob for which nothing has to be waited: its file is open, or the kernel has at hand where it is
    /// (openat2(2), `RESOLVE_CACHED`), and it is as the table says. `None`: [`Shared::open_file`] finds out.
    pub fn open_at_once(self: &Arc<Self>, digest: &Digest) -> Option<BlobReader> {
        let verified = |table: &Table| table.size(digest).filter(|_| !table.is_adopted(digest));
        let size = self.memory.look(verified)?;
        let is_as_expected = |file: &File| {
            let metadata = file.metadata();
            // One without a name was removed by somebody else.
            metadata.is_ok_and(|found| found.is_file() && found.len() == size && found.nlink() > 0)
        };
        let kept = self.open_files.get(digest);
        let file = match kept.filter(|file| is_as_expected(file)) {
            Some(file) => file,
            None => {
                let file = self.open_by_cached_name(digest).filter(|file| is_as_expected(file))?;
                let path = self.directory.blob(digest);
                self.open_files.keep(digest, &file, || is_at(&file, &path).unwrap_or(false));
                file
            }
        };
        Some(BlobReader::published(file, size, digest, self))
    }

    fn open_by_cached_name(&self, digest: &Digest) -> Option<Arc<File>> {
        let path = self.directory.blob(digest);
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let opened = openat2(CWD, path, flags, Mode::empty(), ResolveFlags::CACHED);
        Some(Arc::new(File::from(opened.ok()?)))
    }

    /// Opens a blob. `None`: not here. What the table has wrong is put right. Blocking.
    ///
    /// What was found on disk, and is nobody's word, is hashed before its first use, unless that
    /// would take long: then a scrub comes to it before all else.
    pub fn open_file(self: &Arc<Self>, digest: &Digest) -> io::Result<Option<BlobReader>> {
        let Some(reader) = self.open_as_found(digest)? else {
            return Ok(None);
        };
        let is_adopted = self.memory.look(|table| table.is_adopted(digest));
        if is_adopted && reader.size() <= VERIFIED_AT_ONCE {
            let mut hashed = Hashed::nothing(digest.hasher());
            hashed.catch_up(reader.file(), reader.size())?;
            if !self.is_right(digest, reader.file(), hashed.hasher.finish())? {
                return Ok(None);
            }
        }
        Ok(Some(reader))
    }

    /// As [`Shared::open_file`], for who hashes what is read. Blocking.
    pub fn open_as_found(self: &Arc<Self>, digest: &Digest) -> io::Result<Option<BlobReader>> {
        let Some((file, metadata)) = self.open_readable(digest)? else {
            self.lose_if_gone(digest)?;
            return Ok(None);
        };
        let found = metadata.len();
        let known = self.memory.look(|table| table.size(digest));
        let damage = match known {
            _ if !metadata.is_file() => Some(Damage::NoFile),
            Some(expected) if expected != found => Some(Damage::Size { expected, found }),
            Some(_) => None,
            None => {
                self.adopt(digest)?;
                None
            }
        };
        if let Some(damage) = damage {
            self.replace_damaged(digest, &file, &damage)?;
            return Ok(None);
        }
        Ok(Some(BlobReader::published(Arc::new(file), found, digest, self)))
    }

    /// Notes what the content of a file hashes to; one that is damaged is replaced. Blocking.
    pub fn is_right(&self, digest: &Digest, file: &File, actual: Digest) -> io::Result<bool> {
        let is_right = actual == *digest;
        if is_right {
            self.memory.with(|table| table.mark_verified(digest));
        } else {
            self.replace_damaged(digest, file, &Damage::Content(actual))?;
        }
        Ok(is_right)
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
                table.adopt(digest, size, now);
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
        self.open_files.let_go(digest);
        Ok(true)
    }

    /// Opens what is in the place of a blob. `None`: nothing, or nothing that this user may read,
    /// which whoever fetches the blob will replace. Blocking.
    pub fn open_readable(&self, digest: &Digest) -> io::Result<Option<(File, Metadata)>> {
        let path = self.directory.blob(digest);
        match open_without_waiting(&path) {
            Ok(file) => {
                let metadata = file.metadata()?;
                Ok(Some((file, metadata)))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                tracing::warn!(path = %path.display(), %error, "a blob is not used");
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// `None`: there is no such file that can be read. A file whose size is not the expected one
    /// counts as there.
    fn size_on_disk(&self, digest: &Digest) -> io::Result<Option<u64>> {
        let found = self.open_readable(digest)?;
        let files = found.filter(|(_, metadata)| metadata.is_file());
        Ok(files.map(|(_, metadata)| metadata.len()))
    }
}

/// Opens what is there to be read. A pipe would wait for somebody to write to it.
pub fn open_without_waiting(path: &Path) -> io::Result<File> {
    let no_waiting = OFlags::NONBLOCK.bits().cast_signed();
    File::options().read(true).custom_flags(no_waiting).open(path)
}
