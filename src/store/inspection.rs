//! What only the files tell of an image: its platforms, how much of each is here, and since when.

use std::{fs, io, sync::Arc, time::SystemTime};

use super::{Image, Shared, Store, blocking, table::Kind};
use crate::oci::{Children, Digest, MAX_MANIFEST_BYTES, MAX_NESTING, Manifest, Platform};

/// What the files tell of an image.
#[derive(Clone, Debug, Default)]
pub struct Inspected {
    /// Those that it is for: one, or those that its index lists. Attestations and other attachments are
    /// left out.
    pub platforms: Vec<PlatformHere>,
    /// Since when its manifest is here, if the file system knows.
    pub added: Option<SystemTime>,
}

/// An image for one platform.
#[derive(Clone, Debug)]
pub struct PlatformHere {
    /// `None`: it is not stated, or cannot be read.
    pub platform: Option<Platform>,
    /// How much of it is here.
    pub state: PlatformState,
}

/// How much is here of an image for one platform.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlatformState {
    /// Its manifest, its config and its layers, but for those that are to be had elsewhere.
    Complete,
    /// Its manifest, and not all of the rest.
    Partial,
    /// Not even its manifest.
    Absent,
}

impl Store {
    /// Looks into the files of some images; what cannot be read is left out.
    ///
    /// # Errors
    /// When the threads for such work are gone: at the very end.
    pub async fn inspect(&self, images: Vec<Image>) -> io::Result<Vec<(Image, Inspected)>> {
        let store = Arc::clone(&self.0);
        blocking(move || {
            let inspected = |image: Image| {
                let inspected = store.inspect(&image.digest);
                (image, inspected)
            };
            images.into_iter().map(inspected).collect()
        })
        .await
    }
}

impl Shared {
    fn inspect(&self, digest: &Digest) -> Inspected {
        let created = fs::metadata(self.directory.blob(digest)).and_then(|file| file.created());
        Inspected { platforms: self.platforms(digest, 0), added: created.ok() }
    }

    /// The platforms of a manifest that stands below `height` indexes.
    fn platforms(&self, digest: &Digest, height: u32) -> Vec<PlatformHere> {
        match self.memory.look(|table| table.listed(digest)) {
            Some((Kind::Image, children)) => {
                let config = children.first().and_then(|(config, _)| self.read_unverified(config));
                let platform = config.and_then(|config| Platform::of_config(&config));
                vec![PlatformHere { platform, state: self.state(digest, &children) }]
            }
            Some((Kind::Index, _)) if height <= MAX_NESTING => self.entries(digest, height),
            Some((Kind::Index | Kind::Unread, _)) | None => Vec::new(),
        }
    }

    /// The platforms of the entries of an index.
    fn entries(&self, digest: &Digest, height: u32) -> Vec<PlatformHere> {
        let Some(bytes) = self.read_unverified(digest) else {
            return Vec::new();
        };
        let Ok(Manifest { children: Children::Index(entries), .. }) = Manifest::parse(&bytes, None)
        else {
            return Vec::new();
        };
        let stated = Platform::of_entries(&bytes).into_iter().chain(std::iter::repeat(None));
        let images = entries.iter().zip(stated).filter(|(entry, _)| !entry.is_attached());
        let platforms = images.flat_map(|(entry, platform)| {
            let listed = self
                .memory
                .look(|table| table.size(&entry.digest).and_then(|_| table.listed(&entry.digest)));
            match listed {
                Some((Kind::Index, _)) => self.platforms(&entry.digest, height + 1),
                Some((Kind::Image | Kind::Unread, children)) => {
                    vec![PlatformHere { platform, state: self.state(&entry.digest, &children) }]
                }
                None => vec![PlatformHere { platform, state: PlatformState::Absent }],
            }
        });
        platforms.collect()
    }

    /// How much is here of an image whose manifest is. The manifest is read only when something is missing.
    fn state(&self, digest: &Digest, children: &[(Digest, bool)]) -> PlatformState {
        let missing: Vec<&Digest> =
            children.iter().filter(|(_, here)| !here).map(|(digest, _)| digest).collect();
        let is_linked = !children.is_empty();
        if is_linked && (missing.is_empty() || self.are_elsewhere(digest, &missing)) {
            return PlatformState::Complete;
        }
        PlatformState::Partial
    }

    /// Whether all of these are layers of the image that need not be in a registry.
    fn are_elsewhere(&self, image: &Digest, missing: &[&Digest]) -> bool {
        let manifest = self.read_unverified(image);
        let manifest = manifest.and_then(|bytes| Manifest::parse(&bytes, None).ok());
        manifest.is_some_and(|manifest| {
            let mut needed = manifest.children.descriptors().filter(|entry| entry.urls.is_empty());
            !needed.any(|entry| missing.contains(&&entry.digest))
        })
    }

    /// A small file, for people to read: nobody trusts it, so that its digest need not be right.
    fn read_unverified(&self, digest: &Digest) -> Option<Vec<u8>> {
        let path = self.directory.blob(digest);
        let is_small = fs::metadata(&path).is_ok_and(|file| file.len() <= MAX_MANIFEST_BYTES);
        is_small.then(|| fs::read(&path).ok()).flatten()
    }
}
