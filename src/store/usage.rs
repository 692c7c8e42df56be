//! What the data directory holds, in bytes: all its files add up to it.

use std::{
    collections::{BTreeMap, HashSet},
    fs, io,
    path::Path,
    sync::Arc,
};

use super::{
    Disk, Shared, Store, blocking,
    budget::Limits,
    listing,
    picture::{Extent, Extents, Group, Picture},
    table::{Id, Totals},
};
use crate::oci::{Name, Registry, Repository};

/// What the data directory holds. The totals are of all files, whatever the grouping.
#[derive(Clone, Debug)]
pub struct Usage {
    /// All whole blobs, manifests included.
    pub blobs: Totals,
    /// Who needs them, by name.
    pub users: Vec<User>,
    /// Blobs that more than one user needs.
    pub shared: Totals,
    /// Blobs that no user needs: they are of no image that has a name here.
    pub unused: Totals,
    /// Files in `downloads/`: in progress, or left to be gone on with.
    pub downloads: u64,
    /// Those of them that are left.
    pub left_downloads: u64,
    /// Damaged blobs that are kept for inspection.
    pub quarantine: u64,
    /// The index.
    pub index: u64,
    /// Damaged indexes that are kept for inspection.
    pub damaged_indexes: u64,
    /// `index.json`, `oci-layout`, `lock` and what is not Larder's.
    pub other: u64,
    /// The file system.
    pub disk: Disk,
    /// What the data directory may hold, and what is to stay free.
    pub limits: Limits,
}

/// What blobs are counted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grouping {
    /// By registry.
    Registry,
    /// By repository.
    Repository,
}

/// A registry, or a repository, and what it needs.
#[derive(Clone, Debug)]
pub struct User {
    /// The registry.
    pub registry: Registry,
    /// The repository there; `None`: all of them.
    pub name: Option<Name>,
    /// How many images it has here.
    pub images: u64,
    /// Bytes of the blobs that it needs.
    pub bytes: u64,
    /// Those of them that no other user needs.
    pub unique_bytes: u64,
}

/// What a user is, and what it has.
type Users = BTreeMap<(Registry, Option<Name>), Holding>;

#[derive(Default)]
struct Holding {
    images: u64,
    roots: Vec<Id>,
}

impl Store {
    /// Looks at everything that is kept, blobs from memory and the other files on disk.
    ///
    /// # Errors
    /// What the disk says.
    pub async fn usage(&self, by: Grouping) -> io::Result<Usage> {
        let store = Arc::clone(&self.0);
        blocking(move || store.usage(by)).await?
    }

    /// What both limits come to now.
    ///
    /// # Errors
    /// What the disk says.
    pub async fn limits(&self) -> io::Result<Limits> {
        let store = Arc::clone(&self.0);
        blocking(move || store.room.limits()).await?
    }
}

impl Usage {
    /// Bytes in all files of the data directory.
    pub fn total(&self) -> u64 {
        let parts = [self.downloads, self.quarantine, self.index, self.damaged_indexes, self.other];
        parts.iter().fold(self.blobs.bytes, |sum, part| sum.saturating_add(*part))
    }

    /// Bytes that no pull would miss.
    pub fn reclaimable(&self) -> u64 {
        let parts = [self.left_downloads, self.quarantine, self.damaged_indexes];
        parts.iter().fold(self.unused.bytes, |sum, part| sum.saturating_add(*part))
    }
}

impl Shared {
    /// Blocking.
    pub(super) fn usage(&self, by: Grouping) -> io::Result<Usage> {
        let picture = self.picture();
        let users = users(&picture, by);
        let group = |holding: &Holding| Group { roots: holding.roots.clone(), alike: 1 };
        let extents = picture.extents(&users.values().map(group).collect::<Vec<_>>());
        let mut usage = Usage {
            blobs: totals(&picture, &extents, |_| true),
            shared: totals(&picture, &extents, |users| users > 1),
            unused: totals(&picture, &extents, |users| users == 0),
            users: with_extents(users, &extents),
            downloads: size_of(&self.directory.downloads())?,
            left_downloads: self.left_downloads()?,
            quarantine: size_of(&self.directory.quarantine())?,
            index: self.index_files()?,
            damaged_indexes: 0,
            other: 0,
            limits: self.room.limits()?,
            disk: Disk::of(self.directory.path())?,
        };
        for (_, path) in self.directory.damaged_indexes()? {
            usage.damaged_indexes = usage.damaged_indexes.saturating_add(size_of(&path)?);
        }
        usage.other = self.other_files()?;
        Ok(usage)
    }

    fn left_downloads(&self) -> io::Result<u64> {
        let mut sum = 0u64;
        for (digest, _) in self.downloads.left() {
            let files = [self.directory.download(&digest), self.directory.note(&digest)];
            for file in &files {
                sum = sum.saturating_add(size_of(file)?);
            }
        }
        Ok(sum)
    }

    /// With one that is being made, or replaced.
    fn index_files(&self) -> io::Result<u64> {
        let mut sum = 0u64;
        for path in self.directory.indexes() {
            sum = sum.saturating_add(size_of(&path)?);
        }
        Ok(sum)
    }

    /// Everything at the top of the directory that is counted nowhere else.
    fn other_files(&self) -> io::Result<u64> {
        let directory = &self.directory;
        let mut counted: HashSet<_> =
            [directory.all_blobs(), directory.downloads(), directory.quarantine()].into();
        counted.extend(directory.indexes());
        counted.extend(directory.damaged_indexes()?.into_iter().map(|(_, path)| path));
        let mut sum = 0u64;
        for entry in fs::read_dir(directory.path())? {
            let path = entry?.path();
            if !counted.contains(&path) {
                sum = sum.saturating_add(size_of(&path)?);
            }
        }
        Ok(sum)
    }
}

/// Who needs what: every image, and every list of referrers, though that is no image.
fn users(picture: &Picture, by: Grouping) -> Users {
    let key = |repository: &Repository| {
        let name = match by {
            Grouping::Registry => None,
            Grouping::Repository => Some(repository.name().clone()),
        };
        (repository.registry().clone(), name)
    };
    let mut users = Users::new();
    for named in &picture.names {
        users.entry(key(&named.repository)).or_default().roots.push(named.id);
    }
    for named in listing::listed(picture) {
        let holding = users.entry(key(&named.repository)).or_default();
        holding.images = holding.images.saturating_add(1);
    }
    users
}

fn with_extents(users: Users, extents: &Extents) -> Vec<User> {
    let users = users.into_iter().zip(&extents.groups);
    let user = |(((registry, name), holding), extent): (((_, _), Holding), &Extent)| {
        let images = holding.images;
        User { registry, name, images, bytes: extent.bytes, unique_bytes: extent.unique_bytes }
    };
    users.map(user).collect()
}

/// The files that so many users need.
fn totals(picture: &Picture, extents: &Extents, is_meant: impl Fn(u32) -> bool) -> Totals {
    let mut totals = Totals::default();
    for (size, _) in picture.files(extents).filter(|(_, users)| is_meant(*users)) {
        totals.blobs = totals.blobs.saturating_add(1);
        totals.bytes = totals.bytes.saturating_add(size);
    }
    totals
}

/// Bytes in a file, or in all files below a directory. What is gone, or goes meanwhile, has none.
fn size_of(path: &Path) -> io::Result<u64> {
    let found = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        found => found?,
    };
    if !found.is_dir() {
        return Ok(found.len());
    }
    let mut sum = 0u64;
    for entry in fs::read_dir(path)? {
        sum = sum.saturating_add(size_of(&entry?.path())?);
    }
    Ok(sum)
}
