//! A data directory seen from outside, without touching it: whether it is one, whose it is, and where its
//! daemon listens for commands.

use std::{
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use super::directory::Directory;

/// Why a directory is no data directory that could be looked at, in words for who named it.
#[derive(Debug, thiserror::Error)]
pub enum NoStore {
    /// There is nothing.
    #[error("{}: no such directory; name the data_dir of the daemon, by --config or --data-dir", .0.display())]
    Missing(PathBuf),
    /// It holds something else.
    #[error("{}: no data directory of Larder; name the data_dir of the daemon, by --config or --data-dir", .0.display())]
    Foreign(PathBuf),
    /// It cannot be looked at.
    #[error("{}: {cause}; run this as the user that Larder runs as", .path.display())]
    Hidden {
        /// The directory, or what is in it.
        path: PathBuf,
        /// What the disk says.
        #[source]
        cause: io::Error,
    },
}

/// The user whose daemon keeps content in `data_dir`. Blocking.
///
/// # Errors
/// When nobody does.
pub fn owner(data_dir: &Path) -> Result<u32, NoStore> {
    let directory = Directory::at(data_dir);
    look(data_dir)?.ok_or_else(|| NoStore::Missing(data_dir.to_owned()))?;
    let lock = look(&directory.lock_file())?.filter(fs::Metadata::is_file);
    let blobs = look(&directory.all_blobs())?.filter(fs::Metadata::is_dir);
    match (lock, blobs) {
        (Some(lock), Some(_)) => Ok(lock.uid()),
        (None, _) | (_, None) => Err(NoStore::Foreign(data_dir.to_owned())),
    }
}

/// The socket on which the daemon of a data directory takes commands.
pub fn admin_socket(data_dir: &Path) -> PathBuf {
    data_dir.join("admin.sock")
}

fn look(path: &Path) -> Result<Option<fs::Metadata>, NoStore> {
    match fs::metadata(path) {
        Ok(found) => Ok(Some(found)),
        Err(error) if is_nothing(&error) => Ok(None),
        Err(cause) => Err(NoStore::Hidden { path: path.to_owned(), cause }),
    }
}

fn is_nothing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}
