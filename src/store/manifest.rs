//! Manifests: files like every blob, whose content is also in the table.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    path::Path,
    sync::{Arc, atomic::Ordering},
};

use bytes::Bytes;

use super::{
    CannotTake, Shared, blob::BlobReader, blocking, damage::Damage, ledger::Hold, room::on_disk,
};
use crate::oci::{Digest, MAX_MANIFEST_BYTES, Manifest};

impl Shared {
    /// Stores a manifest, or only what it lists when its file is there already.
    pub async fn put_manifest(
        self: &Arc<Self>,
        digest: Digest,
        manifest: Manifest,
        bytes: Bytes,
    ) -> Result<(), CannotTake> {
        let hold = match self.memory.look(|table| table.size(&digest)) {
            Some(_) => None,
            None => Some(self.take_room(bytes.len() as u64).await?),
        };
        let store = Arc::clone(self);
        let put = blocking(move || {
            // One that cannot be read is written anew.
            if store.is_there(&digest, &bytes).unwrap_or(false) {
                let (size, now) = (bytes.len() as u64, store.running.now());
                store.memory.with(|table| table.put_manifest(&digest, size, &manifest, now));
                return Ok(());
            }
            store.publish_manifest(&digest, &manifest, &bytes, hold)
        });
        put.await.map_err(CannotTake::Failing)?
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
    pub fn read_manifest(
        self: &Arc<Self>,
        digest: &Digest,
    ) -> io::Result<Option<(Manifest, Bytes)>> {
        let found = self.open_as_found(digest)?;
        let Some(reader) = found.filter(|reader| self.may_be_manifest(digest, reader)) else {
            return Ok(None);
        };
        let bytes = reader.read_all()?;
        let actual = Digest::of(digest.algorithm(), &bytes);
        if !self.is_right(digest, reader.file(), actual)? {
            return Ok(None);
        }
        let media_type = self.memory.look(|table| table.media_type(digest));
        let Ok(manifest) = Manifest::parse(&bytes, media_type.as_deref()) else {
            return Ok(None);
        };
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

    /// Whether these bytes are there. Something else in their place is damage.
    fn is_there(self: &Arc<Self>, digest: &Digest, bytes: &Bytes) -> io::Result<bool> {
        let Some(reader) = self.open_as_found(digest)? else {
            return Ok(false);
        };
        let is_right = reader.size() == bytes.len() as u64 && reader.read_all()? == bytes;
        if !is_right {
            let actual = Digest::of(digest.algorithm(), &reader.read_all()?);
            self.quarantine(digest, reader.file(), &Damage::Content(actual))?;
        }
        Ok(is_right)
    }

    /// Whether a file is known as a manifest, or begins like one.
    fn may_be_manifest(&self, digest: &Digest, reader: &BlobReader) -> bool {
        let is_known = || self.memory.look(|table| table.media_type(digest)).is_some();
        begins_like_json(reader) || reader.size() <= MAX_MANIFEST_BYTES && is_known()
    }
}

/// Whether a blob is no larger than a manifest, and may be one by its first byte. Blocking.
pub fn begins_like_json(reader: &BlobReader) -> bool {
    let mut first = [0];
    reader.size() <= MAX_MANIFEST_BYTES
        && reader.read_into(&mut first, 0).is_ok_and(|read| read == 1)
        && matches!(first, [b'{' | b' ' | b'\n' | b'\r' | b'\t'])
}
