//! What the disk under a data directory is like, for `larder doctor`. Needs no lock and leaves
//! nothing behind.

use std::{
    fs::File,
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use rustix::fs::{StatFs, statfs, statvfs};

use super::directory::{ALGORITHMS, Directory};

/// What is written to see whether it can be.
const PROBE: [u8; 4096] = [b'?'; 4096];

/// The file system that a directory is on.
#[derive(Clone, Copy, Debug)]
pub struct Disk {
    /// What kind it is.
    pub kind: DiskKind,
    /// Bytes it has.
    pub total: u64,
    /// Bytes that are free for this user.
    pub free: u64,
    /// Files that can still be made; `None` where that has no limit of its own.
    pub free_files: Option<u64>,
}

/// The kind of a file system, as far as it matters to what keeps files on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskKind {
    /// On a disk of this machine, as far as can be told. Its name; `None` if that is not known.
    Local(Option<&'static str>),
    /// Memory: a reboot empties it.
    Memory(&'static str),
    /// The writable layer of a container: it goes with the container.
    Layer(&'static str),
    /// Another machine's, or a program's: locks and syncs may not mean what they say.
    Remote(&'static str),
}

/// What the kernel calls each kind (statfs(2), linux/magic.h).
const KINDS: [(u32, DiskKind); 20] = [
    (0xef53, DiskKind::Local(Some("ext4"))),
    (0x5846_5342, DiskKind::Local(Some("xfs"))),
    (0x9123_683e, DiskKind::Local(Some("btrfs"))),
    (0x2fc1_2fc1, DiskKind::Local(Some("zfs"))),
    (0xf2f5_2010, DiskKind::Local(Some("f2fs"))),
    (0xca45_1a4e, DiskKind::Local(Some("bcachefs"))),
    (0x0102_1994, DiskKind::Memory("tmpfs")),
    (0x8584_58f6, DiskKind::Memory("ramfs")),
    (0x794c_7630, DiskKind::Layer("overlayfs")),
    (0x6161_7566, DiskKind::Layer("aufs")),
    (0x6969, DiskKind::Remote("nfs")),
    (0x517b, DiskKind::Remote("smb")),
    (0xff53_4d42, DiskKind::Remote("cifs")),
    (0xfe53_4d42, DiskKind::Remote("smb2")),
    (0x0102_1997, DiskKind::Remote("9p")),
    (0x00c3_6400, DiskKind::Remote("ceph")),
    (0x6573_5546, DiskKind::Remote("fuse")),
    (0x0bd0_0bd0, DiskKind::Remote("lustre")),
    (0x0116_1970, DiskKind::Remote("gfs2")),
    (0x7461_636f, DiskKind::Remote("ocfs2")),
];

impl Disk {
    /// Asks the file system that `path` is on. Blocking.
    pub fn of(path: &Path) -> io::Result<Disk> {
        let space = statvfs(path)?;
        Ok(Disk {
            kind: kind(&statfs(path)?),
            total: space.f_blocks.saturating_mul(space.f_frsize),
            free: space.f_bavail.saturating_mul(space.f_frsize),
            free_files: (space.f_files > 0).then_some(space.f_favail),
        })
    }
}

/// The directory that files are put into, or where there is none yet, the one that it would be made
/// in. Blocking.
pub fn existing_part(data_dir: &Path) -> io::Result<PathBuf> {
    let path = std::path::absolute(data_dir)?;
    for part in path.ancestors() {
        match part.metadata() {
            Ok(found) if found.is_dir() => return Ok(part.to_owned()),
            Ok(_) => return Err(io::Error::other(format!("{} is no directory", part.display()))),
            // Not found, or below a file: which of them it is, the next part tells.
            Err(error) if is_missing(&error) => {}
            Err(error) => {
                let what = format!("{}: {error}", part.display());
                return Err(io::Error::new(error.kind(), what));
            }
        }
    }
    Err(io::ErrorKind::NotFound.into())
}

/// Writes and syncs a file in every directory of a store that there is, and says in which it cannot.
/// The files have no name, so that nothing is left even if this process is killed. Blocking.
pub fn try_writing(existing: &Path) -> Result<(), (PathBuf, io::Error)> {
    let directory = Directory::at(existing);
    let blobs = ALGORITHMS.into_iter().map(|algorithm| directory.blobs(algorithm));
    let below = blobs.chain([directory.downloads(), directory.index()]);
    for path in [existing.to_owned()].into_iter().chain(below.filter(|path| path.exists())) {
        write_probe(&path).map_err(|error| (path, error)).map(drop)?;
    }
    Ok(())
}

fn is_missing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// Writes and syncs a file without a name. Blocking.
pub fn write_probe(directory: &Path) -> io::Result<File> {
    let mut file = tempfile::tempfile_in(directory)?;
    file.write_all(&PROBE)?;
    file.sync_all()?;
    Ok(file)
}

fn kind(file_system: &StatFs) -> DiskKind {
    // Sign and size of the field differ between machines; the numbers have 32 bits.
    let number = (file_system.f_type as u64) & u64::from(u32::MAX);
    let known = KINDS.iter().find(|(known, _)| u64::from(*known) == number);
    known.map_or(DiskKind::Local(None), |(_, kind)| *kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_probe_leaves_nothing() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join("downloads")).unwrap();
        try_writing(directory.path()).unwrap();
        for path in [directory.path().to_owned(), directory.path().join("downloads")] {
            let left: Vec<_> =
                path.read_dir().unwrap().map(|entry| entry.unwrap().path()).collect();
            assert!(left.iter().all(|path| path.ends_with("downloads")), "{left:?}");
        }
    }

    #[test]
    fn a_directory_is_made_in_the_nearest_that_there_is() {
        let directory = tempfile::tempdir().unwrap();
        let (file, deep) = (directory.path().join("file"), directory.path().join("a/b/c"));
        std::fs::write(&file, "").unwrap();
        assert_eq!(existing_part(directory.path()).unwrap(), directory.path());
        assert_eq!(existing_part(&deep).unwrap(), directory.path());
        let error = existing_part(&file.join("x")).unwrap_err();
        assert!(error.to_string().contains("file"), "{error}");
        let long = directory.path().join("x".repeat(300)).join("data");
        let error = existing_part(&long).unwrap_err();
        assert!(error.to_string().starts_with(long.to_str().unwrap()), "{error}");
    }
}
