//! Manifests: files like every blob, whose content is also in the table.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    path::Path,
    sync::{Arc, atomic::Ordering},
};

use bytes::Bytes;

use super::{CannotTake, Shared, blocking, ledger::Hold, room::on_disk};
use crate::oci::{Digest, MAX_MANIFEST_BYTES, Manifest};

impl Shared {
    /// Stores a manifest, or only what it lists when its file is there already.
    pub async fn put_manifest(
        self: &Arc<Self>,
        digest: Digest,
        manifest: Manifest,
        bytes: Bytes,
    ) -> Result<(), CannotTake> {
        let hold = match self.memory.with(|table| table.size(&digest)) {
            Some(_) => None,
            None => Some(self.take_room(bytes.len() as u64).await?),
        };
        let store = Arc::clone(self);
        let put = blocking(move || {
            if store.is_there(&digest, &manifest, &bytes)? {
                return Ok(());
            }
            store.publish_manifest(&digest, &manifest, &bytes, hold)
        });
        put.await.map_err(CannotTake::Failing)?
    }

    /// Whether a manifest is there; what it lists is known then. Blocking.
    fn is_there(
        &self,
        digest: &Digest,
        manifest: &Manifest,
        bytes: &Bytes,
    ) -> Result<bool, CannotTake> {
        let size = bytes.len() as u64;
        let there = self.open_file(digest).map_err(|error| self.room.failed(error))?;
        let is_there = there.is_some_and(|reader| reader.size() == size);
        if is_there {
            let now = self.running.now();
            self.memory.with(|table| table.put_manifest(digest, size, manifest, now));
        }
        Ok(is_there)
    }

    /// Writes a manifest to its place, and tells the table. Without a hold it takes the place of a
    /// file that has just gone. Blocking.
    fn publish_manifest(
        &self,
        digest: &Digest,
        manifest: &Manifest,
        bytes: &Bytes,
        hold: Option<Hold>,
    ) -> Result<(), CannotTake> {
        let size = bytes.len() as u64;
        let mut hold = hold.unwrap_or_else(|| self.room.ledger().hold(on_disk(size)));
        let number = self.manifests_written.fetch_add(1, Ordering::Relaxed);
        let path = self.directory.manifest_download(number);
        let written = self.write_manifest(&path, bytes, &mut hold).and_then(|()| {
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

    fn write_manifest(
        &self,
        path: &Path,
        bytes: &Bytes,
        hold: &mut Hold,
    ) -> Result<(), CannotTake> {
        let create = File::create_new(path);
        let mut file = create.map_err(|error| self.room.failed(error))?;
        self.room.allocate(hold, &file, 0, bytes.len() as u64)?;
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
