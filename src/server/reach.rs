//! Paths of Unix sockets: the kernel takes no more than 107 bytes, and a data directory may have more.

use std::{
    io,
    os::{
        fd::{AsRawFd as _, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::{Path, PathBuf},
};

use rustix::fs::{Mode, OFlags, open};

/// The longest path that the kernel takes (unix(7): 108 bytes with the one that ends it).
const LONGEST: usize = 107;

/// A path to a socket that the kernel takes.
#[derive(Debug)]
pub(super) struct Reach {
    path: PathBuf,
    /// What the path leads through.
    _directory: Option<OwnedFd>,
}

impl Reach {
    /// `path` itself, or a shorter one by way of its directory, which must exist.
    pub(super) fn to(path: &Path) -> io::Result<Reach> {
        if path.as_os_str().as_bytes().len() <= LONGEST {
            return Ok(Reach { path: path.to_owned(), _directory: None });
        }
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = open(parent, flags, Mode::empty())?;
        let number = directory.as_raw_fd().to_string();
        let path = Path::new("/proc/self/fd").join(number).join(name);
        Ok(Reach { path, _directory: Some(directory) })
    }

    /// Leads there as long as this lives.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}
