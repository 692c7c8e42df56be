//! Files that grow under `downloads/`: at most one for each digest, removed unless published.

use std::{
    collections::HashMap,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
};

use tokio::runtime::Handle;

use super::directory::Directory;
use crate::oci::Digest;

/// Who writes which digest; clones share it.
#[derive(Clone, Debug, Default)]
pub struct Downloads(Arc<Claims>);

#[derive(Debug, Default)]
struct Claims {
    claims: Mutex<HashMap<Digest, Claim>>,
    released: Condvar,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Claim {
    Writing,
    /// The writer is gone, its file about to be.
    Removing,
}

/// A growing file that is the only one of its digest. Dropping it removes the file, on a
/// blocking thread where there is one.
#[derive(Debug)]
pub struct Partial {
    file: Arc<File>,
    path: PathBuf,
    leftover: Option<Leftover>,
}

/// Removes the file, unless it was published, and then lets others write the digest.
#[derive(Debug)]
struct Leftover {
    downloads: Downloads,
    digest: Digest,
    path: PathBuf,
    published: bool,
}

impl Downloads {
    /// Creates the file of a digest. Waits for the removal of an earlier one. Blocking.
    ///
    /// # Errors
    /// [`io::ErrorKind::AlreadyExists`] when another writer has the digest, or what the disk says.
    pub fn claim(&self, digest: &Digest, directory: &Directory) -> io::Result<Partial> {
        self.take(digest)?;
        let path = directory.download(digest);
        let leftover = Leftover {
            downloads: self.clone(),
            digest: digest.clone(),
            path: path.clone(),
            published: false,
        };
        Ok(Partial { file: Arc::new(create(&path)?), path, leftover: Some(leftover) })
    }

    fn take(&self, digest: &Digest) -> io::Result<()> {
        let mut claims = self.lock();
        loop {
            match claims.get(digest) {
                None => break,
                Some(Claim::Writing) => return Err(io::ErrorKind::AlreadyExists.into()),
                Some(Claim::Removing) => {
                    let released = self.0.released.wait(claims);
                    claims = released.unwrap_or_else(PoisonError::into_inner);
                }
            }
        }
        claims.insert(digest.clone(), Claim::Writing);
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Digest, Claim>> {
        self.0.claims.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Partial {
    /// The file.
    pub fn file(&self) -> &Arc<File> {
        &self.file
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The file has moved to its place: nothing is left to be removed. Blocking.
    pub fn published(mut self) {
        if let Some(mut leftover) = self.leftover.take() {
            leftover.published = true;
        }
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        let Some(leftover) = self.leftover.take() else {
            return;
        };
        let claim = Claim::Removing;
        leftover.downloads.lock().insert(leftover.digest.clone(), claim);
        // The last handle on a large file frees its blocks when it goes.
        let file = Arc::clone(&self.file);
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn_blocking(move || drop((leftover, file)));
        }
    }
}

impl Drop for Leftover {
    fn drop(&mut self) {
        if !self.published
            && let Err(error) = fs::remove_file(&self.path)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(path = %self.path.display(), %error, "cannot remove a partial download");
        }
        self.downloads.lock().remove(&self.digest);
        self.downloads.0.released.notify_all();
    }
}

/// A leftover of the name is nobody's: the claim is ours.
fn create(path: &Path) -> io::Result<File> {
    let mut options = File::options();
    options.read(true).write(true).create_new(true);
    match options.open(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            fs::remove_file(path)?;
            options.open(path)
        }
        created => created,
    }
}
