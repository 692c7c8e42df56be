//! The data directory: its paths, and the lock that makes it one process's own.

use std::{
    collections::HashSet,
    fs::{self, File, Metadata},
    io::{self, Read as _, Seek as _, Write as _},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    process,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use rustix::{
    fs::{FlockOperation, flock},
    io::Errno,
};

use super::{OpenError, room::is_full};
use crate::oci::{Algorithm, Digest};

/// The names of everything in a data directory; clones share it.
#[derive(Clone, Debug)]
pub struct Directory(Arc<Path>);

/// The lock on a data directory, held until it is dropped.
///
/// The file has the process id in it from the opening to the clean end, so that one that is
/// found there tells of an end that was not clean.
#[derive(Debug)]
pub struct Lock {
    held: Mutex<Held>,
    path: PathBuf,
    /// Whether the process before this one ended without [`Lock::mark_clean`].
    pub after_crash: bool,
}

/// The file that is locked, and which it is: its device and number.
#[derive(Debug)]
struct Held {
    file: File,
    id: (u64, u64),
}

/// Those whose blobs are kept.
pub const ALGORITHMS: [Algorithm; 2] = [Algorithm::Sha256, Algorithm::Sha512];

impl Directory {
    /// The names below `path`. Touches nothing.
    pub fn at(path: &Path) -> Directory {
        Directory(path.into())
    }

    /// Creates what is missing, and locks it.
    pub fn open(path: &Path) -> Result<(Directory, Lock), OpenError> {
        let path = std::path::absolute(path).map_err(|error| cannot_use(path, &error))?;
        let directory = Directory::at(&path);
        directory.create().map_err(|error| cannot_use(&directory.0, &error))?;
        // Whose it is may not let us read it; then its owner has made the directory, long ago.
        let _ = path.parent().map(sync);
        let lock = directory.lock()?;
        Ok((directory, lock))
    }

    /// Creates what is missing of it, so that a power cut leaves it.
    pub fn create(&self) -> io::Result<()> {
        for algorithm in ALGORITHMS {
            fs::create_dir_all(self.blobs(algorithm))?;
        }
        fs::create_dir_all(self.downloads())?;
        sync(&self.0.join("blobs"))?;
        sync(&self.0)
    }

    /// The directory itself.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Where all blobs are.
    pub fn all_blobs(&self) -> PathBuf {
        self.0.join("blobs")
    }

    /// Where the blobs of an algorithm are.
    pub fn blobs(&self, algorithm: Algorithm) -> PathBuf {
        self.all_blobs().join(algorithm.as_str())
    }

    /// The file of a whole blob.
    pub fn blob(&self, digest: &Digest) -> PathBuf {
        self.blobs(digest.algorithm()).join(digest.encoded())
    }

    /// Where files grow.
    pub fn downloads(&self) -> PathBuf {
        self.0.join("downloads")
    }

    /// The file of a download in progress.
    pub fn download(&self, digest: &Digest) -> PathBuf {
        self.downloads().join(flat_name(digest))
    }

    /// What is noted beside [`Directory::download`].
    pub fn note(&self, digest: &Digest) -> PathBuf {
        self.downloads().join(format!("{}{NOTE}", flat_name(digest)))
    }

    /// Every digest that has a [`Directory::note`].
    pub fn noted(&self) -> io::Result<Vec<Digest>> {
        let mut noted = Vec::new();
        for entry in fs::read_dir(self.downloads())? {
            let name = entry?.file_name();
            let name = name.to_str().and_then(|name| name.strip_suffix(NOTE));
            let digest = name.and_then(|name| name.replacen('-', ":", 1).parse().ok());
            noted.extend(digest);
        }
        Ok(noted)
    }

    /// The file of a manifest that is being written.
    pub fn manifest_download(&self, number: u64) -> PathBuf {
        self.downloads().join(format!("manifest-{number}"))
    }

    /// Where damaged blobs are moved.
    pub fn quarantine(&self) -> PathBuf {
        self.0.join("quarantine")
    }

    /// Where a damaged blob is moved.
    pub fn quarantined(&self, digest: &Digest) -> PathBuf {
        self.quarantine().join(flat_name(digest))
    }

    /// How far the scrub has come.
    pub fn scrub(&self) -> PathBuf {
        self.0.join("scrub.json")
    }

    /// What the index is made of.
    pub fn index(&self) -> PathBuf {
        self.0.join("index")
    }

    /// The next index, while it is being made.
    pub fn next_index(&self) -> PathBuf {
        self.0.join("index.next")
    }

    /// The index before, while the next one takes its place.
    pub fn last_index(&self) -> PathBuf {
        self.0.join("index.last")
    }

    /// The index, and what there is of others while it is being renewed.
    pub fn indexes(&self) -> [PathBuf; 3] {
        [self.index(), self.next_index(), self.last_index()]
    }

    /// Exists while [`Directory::index`] is being opened.
    pub fn index_marker(&self) -> PathBuf {
        self.0.join("index.opening")
    }

    /// Where a damaged index is moved.
    pub fn damaged_index(&self, number: u32) -> PathBuf {
        self.0.join(format!("{DAMAGED_INDEX}{number}"))
    }

    /// Every [`Directory::damaged_index`] that exists, with its number.
    pub fn damaged_indexes(&self) -> io::Result<Vec<(u32, PathBuf)>> {
        let mut damaged = Vec::new();
        for entry in fs::read_dir(&self.0)? {
            let entry = entry?;
            let name = entry.file_name();
            let number = name.to_str().and_then(|name| name.strip_prefix(DAMAGED_INDEX));
            if let Some(number) = number.and_then(|number| number.parse().ok()) {
                damaged.push((number, entry.path()));
            }
        }
        Ok(damaged)
    }

    /// What is named here (image-spec, image-layout.md).
    pub fn layout_index(&self) -> PathBuf {
        self.0.join("index.json")
    }

    /// The marker of an OCI image layout.
    pub fn layout_marker(&self) -> PathBuf {
        self.0.join("oci-layout")
    }

    /// What a process locks that uses the directory.
    pub fn lock_file(&self) -> PathBuf {
        self.0.join("lock")
    }

    /// Removes what an earlier life left under `downloads/`, but for these files.
    pub fn clear_downloads(&self, kept: &HashSet<PathBuf>) -> io::Result<()> {
        for entry in fs::read_dir(self.downloads())? {
            let path = entry?.path();
            if !kept.contains(&path) {
                fs::remove_file(path)?;
            }
        }
        Ok(())
    }

    /// Replaces a file of the directory in one step that a crash cannot halve.
    pub fn replace(
        &self,
        path: &Path,
        write: impl FnOnce(&mut io::BufWriter<File>) -> io::Result<()>,
    ) -> io::Result<()> {
        let fresh = path.with_extension("new");
        let mut writer = io::BufWriter::new(File::create(&fresh)?);
        write(&mut writer)?;
        writer.into_inner()?.sync_all()?;
        fs::rename(fresh, path)?;
        sync(&self.0)
    }

    fn lock(&self) -> Result<Lock, OpenError> {
        let path = self.lock_file();
        let locked = take(&path).map_err(|error| cannot_use(&self.0, &error))?;
        let (file, text) = locked.map_err(|text| in_use(&self.0, &path, text.trim()))?;
        let id = id(&file.metadata().map_err(|error| cannot_use(&self.0, &error))?);
        Ok(Lock { held: Mutex::new(Held { file, id }), path, after_crash: !text.is_empty() })
    }
}

impl Lock {
    /// Everything is written: the next process need not look for what is missing.
    pub fn mark_clean(&self) -> io::Result<()> {
        let held = self.held();
        held.file.set_len(0)?;
        held.file.sync_all()
    }

    /// Whether the directory is still the one that was locked, and where it was. Blocking.
    pub fn is_in_place(&self) -> bool {
        fs::metadata(&self.path).is_ok_and(|found| id(&found) == self.held().id)
    }

    /// The device of the file system that the locked directory is on.
    pub fn device(&self) -> u64 {
        self.held().id.0
    }

    /// Locks the directory that is there now, unless it is the one that is locked. Blocking.
    ///
    /// # Errors
    /// What the disk says, and that another process has it.
    pub fn retake(&self) -> io::Result<()> {
        if self.is_in_place() {
            return Ok(());
        }
        let taken = take(&self.path)?;
        let in_use = |text: String| {
            let process = text.trim();
            io::Error::other(format!("{}: in use by process {process}", self.path.display()))
        };
        let (file, _) = taken.map_err(in_use)?;
        let id = id(&file.metadata()?);
        *self.held() = Held { file, id };
        Ok(())
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Locks a file and writes the process id into it. Returns it with what was in it before; or only
/// that, if another process has it.
fn take(path: &Path) -> io::Result<Result<(File, String), String>> {
    let mut options = File::options();
    options.read(true).write(true).create(true).truncate(false);
    let mut file = options.open(path)?;
    let mut text = String::new();
    // What is not text tells no process id, which is all that is wanted of it.
    let _ = file.read_to_string(&mut text);
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Err(Errno::WOULDBLOCK) => return Ok(Err(text)),
        locked => locked?,
    }
    match write_over(&mut file, &format!("{}\n", process::id())) {
        // A mirror that was restarted on a full disk serves what it has.
        Err(error) if is_full(&error) => {}
        written => written?,
    }
    Ok(Ok((file, text)))
}

fn write_over(file: &mut File, text: &str) -> io::Result<()> {
    file.set_len(0)?;
    file.rewind()?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

/// Which file it is.
fn id(metadata: &Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}

const NOTE: &str = ".json";
const DAMAGED_INDEX: &str = "index.damaged-";

/// Makes the names in a directory survive a power cut.
pub fn sync(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

fn flat_name(digest: &Digest) -> String {
    format!("{}-{}", digest.algorithm().as_str(), digest.encoded())
}

fn cannot_use(path: &Path, error: &io::Error) -> OpenError {
    OpenError::Unusable(format!(
        "cannot use data directory {}: {error}: make it writable for this user, or choose another with --data-dir",
        path.display(),
    ))
}

fn in_use(path: &Path, lock: &Path, process: &str) -> OpenError {
    let (path, lock) = (path.to_owned(), lock.to_owned());
    OpenError::InUse { path, lock, process: process.to_owned() }
}
