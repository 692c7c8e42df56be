//! Manifests: files like every blob, whose content is also in the table.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    path::Path,
    sync::atomic::Ordering,
};

use bytes::Bytes;

use super::{CannotTake, Shared};
use crate::oci::{Digest, MAX_MANIFEST_BYTES, Manifest};

impl Shared {
    /// Stores a manifest, or only what it lists when its file is there already. Blocking.
    pub fn put_manifest(
        &self,
        digest: &Digest,
        manifest: &Manifest,
        bytes: &Bytes,
    ) -> Result<(), CannotTake> {
        let size = bytes.len() as u64;
        let there = self.open_file(digest);
        let there = there.map_err(|error| self.room.failed(error))?;
        if there.is_some_and(|reader| reader.size() == size) {
            let now = self.running.now();
            self.memory.with(|table| table.put_manifest(digest, size, manifest, now));
            return Ok(());
        }
        let number = self.manifests_written.fetch_add(1, Ordering::Relaxed);
        let path = self.directory.manifest_download(number);
        let written = self.write_manifest(&path, bytes).and_then(|()| {
            let published = self.publish_file(&path, digest, |table, now| {
                table.put_manifest(digest, size, manifest, now);
            });
            published.map_err(|error| self.room.failed(error))
        });
        if written.is_err() {
            // It may never have been made, or have been moved: then nothing is left to remove.
            let _ = fs::remove_file(&path);
        }
        written
    }

    /// Reads a manifest. `None`: not here, or no manifest. Its digest is verified, and what it
    /// lists is told to the table. Blocking.
    pub fn read_manifest(&self, digest: &Digest) -> io::Result<Option<(Manifest, Bytes)>> {
        let Some(bytes) = self.read_small(digest)? else {
            return Ok(None);
        };
        let media_type = self.memory.with(|table| table.media_type(digest));
        let Ok(manifest) = Manifest::parse(&bytes, media_type.as_deref()) else {
            return Ok(None);
        };
        if Digest::of(digest.algorithm(), &bytes) != *digest {
            self.quarantine(digest)?;
            return Ok(None);
        }
        self.memory.with(|table| table.link_manifest(digest, &manifest));
        Ok(Some((manifest, bytes)))
    }

    fn write_manifest(&self, path: &Path, bytes: &Bytes) -> Result<(), CannotTake> {
        let create = File::create_new(path);
        let mut file = create.map_err(|error| self.room.failed(error))?;
        self.room.reserve(&file, 0, bytes.len() as u64)?;
        let written = file.write_all(bytes).and_then(|()| file.sync_data());
        written.map_err(|error| self.room.failed(error))
    }

    /// All bytes of a blob that may be a manifest.
    fn read_small(&self, digest: &Digest) -> io::Result<Option<Bytes>> {
        let Some(reader) = self.open_file(digest)? else {
            return Ok(None);
        };
        if reader.size() > MAX_MANIFEST_BYTES {
            return Ok(None);
        }
        let mut first = [0];
        reader.read_into(&mut first, 0)?;
        match first {
            [b'{' | b' ' | b'\n' | b'\r' | b'\t'] => Ok(Some(reader.read_all()?)),
            _ => Ok(None),
        }
    }
}
