//! Blobs as they are read, and as they are written: append, verify, publish.

mod appending;
mod parts;

use std::{
    fs::{self, File},
    io,
    os::unix::fs::FileExt as _,
    path::Path,
    sync::{Arc, Weak},
};

use bytes::Bytes;

use super::{
    CannotTake, Shared, blocking,
    buffers::Buffers,
    directory,
    downloads::{Left, Partial},
    hashing::{Hashed, Hashing},
    health::Health,
    note::Note,
    running::Moment,
    table::Table,
};
use crate::oci::{Digest, Repository};

pub use parts::PartWriter;

/// Room that is reserved at a time for a blob of unknown size, in bytes.
const UNKNOWN_SIZE_STEP: u64 = 64 * 1024 * 1024;

/// A verified blob, open for reading; it stays readable when the blob is removed meanwhile.
#[derive(Clone, Debug)]
pub struct BlobReader {
    file: Arc<File>,
    size: u64,
    pub(super) buffers: Buffers,
    health: Health,
    /// Of a file in `blobs/`.
    origin: Option<Origin>,
}

/// Where a file was opened, to be looked at again when it turns out to be shorter than it was.
#[derive(Clone, Debug)]
pub struct Origin {
    store: Weak<Shared>,
    digest: Digest,
}

/// A blob being written: an append-only file under `downloads/`, removed when dropped
/// unpublished, unless it is left to the next writer. After an [`append`](BlobWriter::append) that failed
/// or was dropped in mid-way only its readers are of use.
#[derive(Debug)]
pub struct BlobWriter {
    store: Arc<Shared>,
    partial: Arc<Partial>,
    digest: Digest,
    size: Option<u64>,
    pub(super) hashing: Hashing,
    written: u64,
    reserved: u64,
    broken: bool,
}

/// A blob whose bytes are verified but not yet under `blobs/`.
#[derive(Debug)]
pub struct VerifiedBlob(BlobWriter);

/// The bytes are not those the digest names.
#[derive(Debug, thiserror::Error)]
#[error("the content's digest is {actual}")]
pub struct WrongDigest {
    /// What the bytes hash to.
    pub actual: Digest,
}

impl BlobReader {
    pub(super) fn new(file: Arc<File>, size: u64, store: &Shared) -> BlobReader {
        let (buffers, health) = (store.buffers.clone(), store.health.clone());
        BlobReader { file, size, buffers, health, origin: None }
    }

    /// Of a file in `blobs/`.
    pub(super) fn published(
        file: Arc<File>,
        size: u64,
        digest: &Digest,
        store: &Arc<Shared>,
    ) -> BlobReader {
        let reader = BlobReader::new(file, size, store);
        BlobReader { origin: Some(Origin::new(store, digest)), ..reader }
    }

    /// Bytes in the blob.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Up to `length` bytes at `offset`; empty only at the end. Reads on a blocking thread.
    ///
    /// # Errors
    /// What the disk says, and [`io::ErrorKind::UnexpectedEof`] when the file ends before
    /// [`BlobReader::size`].
    pub async fn read_at(&self, offset: u64, length: usize) -> io::Result<Bytes> {
        let reader = self.clone();
        let mut buffer = self.buffers.take(length);
        let read = move || {
            buffer.fill(|room| reader.read_into(room, offset))?;
            Ok(Bytes::from_owner(buffer))
        };
        let read = blocking(read).await.and_then(|read| read);
        read.inspect_err(|error| self.health.cannot_read(error))
    }

    /// Whether the file ends before `offset` by now. What it says when it cannot be asked is yes.
    pub fn ends_before(&self, offset: u64) -> bool {
        self.file.metadata().map_or(true, |metadata| metadata.len() < offset)
    }

    /// Reads what fits, and says how much that was. Empty-handed only at the end. Blocking.
    pub(super) fn read_into(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let read = loop {
            match self.file.read_at(buffer, offset) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                read => break read?,
            }
        };
        if read == 0 && !buffer.is_empty() && offset < self.size {
            if let Some(origin) = &self.origin {
                origin.look_again();
            }
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(read)
    }

    /// The whole blob, which must be small; shorter when the file is. Blocking.
    pub(super) fn read_all(&self) -> io::Result<Bytes> {
        let size = usize::try_from(self.size).map_err(io::Error::other)?;
        let mut buffer = vec![0; size];
        let mut read = 0;
        while let Some(room) = buffer.get_mut(read..).filter(|room| !room.is_empty()) {
            match self.read_into(room, read as u64) {
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => break,
                more => read += more?,
            }
        }
        buffer.truncate(read);
        Ok(buffer.into())
    }

    /// The kernel was to send a piece of the file, and could not.
    pub(super) fn cannot_be_sent(self, error: &io::Error) {
        self.health.cannot_send(error);
        if let Some(origin) = self.origin {
            tokio::task::spawn_blocking(move || origin.look_again());
        }
    }

    /// The file.
    pub(super) fn file(&self) -> &Arc<File> {
        &self.file
    }
}

impl Origin {
    pub(super) fn new(store: &Arc<Shared>, digest: &Digest) -> Origin {
        Origin { store: Arc::downgrade(store), digest: digest.clone() }
    }

    /// The file was cut under its reader. Whoever opens it next finds that out, and so it is done at
    /// once. Blocking.
    fn look_again(&self) {
        if let Some(store) = self.store.upgrade()
            && let Err(error) = store.open_file(&self.digest)
        {
            tracing::warn!(digest = %self.digest, %error, "cannot look at a damaged blob");
        }
    }
}

impl BlobWriter {
    /// Begins a file, with room for `size` bytes.
    pub(super) async fn create(
        store: Arc<Shared>,
        digest: Digest,
        size: Option<u64>,
    ) -> Result<BlobWriter, CannotTake> {
        let reserved = size.unwrap_or(UNKNOWN_SIZE_STEP);
        let hold = store.take_room(reserved).await?;
        let created = blocking(move || {
            let partial = store.downloads.claim(&digest, hold);
            let partial = partial.map_err(|error| store.room.failed(error))?;
            store.room.allocate(&mut partial.hold(), partial.file(), 0, reserved)?;
            Ok(BlobWriter {
                store,
                partial: Arc::new(partial),
                hashing: Hashing::here_with(Hashed::nothing(digest.hasher())),
                digest,
                size,
                written: 0,
                reserved,
                broken: false,
            })
        });
        created.await.map_err(CannotTake::Failing)?
    }

    /// Goes on with what is left of a digest, if there is room for the rest.
    pub(super) async fn resume(
        store: Arc<Shared>,
        digest: Digest,
    ) -> Result<Option<BlobWriter>, CannotTake> {
        if !store.downloads.has_left(&digest) {
            return Ok(None);
        }
        let (downloads, of) = (store.downloads.clone(), digest.clone());
        let left = blocking(move || downloads.take_over(&of)).await;
        let left = left.and_then(|left| left).map_err(CannotTake::Failing)?;
        let Some(Left { partial, note, written }) = left else {
            return Ok(None);
        };
        let reserved = note.size.unwrap_or(written.saturating_add(UNKNOWN_SIZE_STEP));
        let partial = Arc::new(partial);
        // Where there is no room, what it takes up itself may be enough for another.
        let extended = extend(&store, &partial, written, reserved).await;
        extended.inspect_err(|_| partial.discard())?;
        Ok(Some(BlobWriter {
            hashing: Hashing::begin(&partial, digest.hasher()),
            store,
            partial,
            digest,
            size: note.size,
            written,
            reserved,
            broken: false,
        }))
    }

    /// From now on, what is written stays when the writer goes, for the next one
    /// ([`super::Store::resume_blob`]), unless it is wrong. `repository` is where upstream showed
    /// the blob. Failing costs no more than that.
    pub async fn leave_to_next(&self, repository: &Repository) {
        let begun = self.store.running.now();
        let note = Note { repository: repository.clone(), size: self.size, begun, written: None };
        let partial = Arc::clone(&self.partial);
        let left = blocking(move || partial.leave(note)).await;
        if let Err(error) = left.and_then(|left| left) {
            tracing::debug!(digest = %self.digest, %error, "a download will not be resumed");
        }
    }

    /// What is written is worth nothing and goes with the writer.
    pub fn discard(&self) {
        self.partial.discard();
    }

    /// Bytes in the whole blob, as its first writer was told.
    pub fn size(&self) -> Option<u64> {
        self.size
    }

    /// A reader of the growing file, good for any number of followers. Its `size` is what was
    /// written when it was made; it reads beyond that whatever was appended since.
    pub fn reader(&self) -> BlobReader {
        BlobReader::new(Arc::clone(self.partial.file()), self.written, &self.store)
    }

    /// The hash of what was appended so far, unless it is still on its way through what an earlier
    /// writer left.
    pub fn hashed(&self) -> Option<Hashed> {
        self.hashing.here().filter(|hashed| hashed.length == self.written)
    }

    /// Bytes appended so far.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// The writer is of no use until what begins now is done. Fails if something before was not.
    fn break_until_done(&mut self) -> Result<(), CannotTake> {
        match std::mem::replace(&mut self.broken, true) {
            false => Ok(()),
            true => {
                let error = io::Error::other("an earlier write to this blob did not end well");
                Err(CannotTake::Failing(error))
            }
        }
    }

    /// Reserves room up to `end`, and some more so as not to ask each time.
    async fn reserve(&mut self, end: u64) -> Result<(), CannotTake> {
        if end <= self.reserved {
            return Ok(());
        }
        let end = end.max(self.reserved.saturating_add(UNKNOWN_SIZE_STEP));
        extend(&self.store, &self.partial, self.reserved, end).await?;
        self.reserved = end;
        Ok(())
    }

    /// Waits until all that is written is hashed, which it is unless an earlier writer left some.
    ///
    /// # Errors
    /// When it cannot be read. The writer is broken then.
    pub async fn hash_all(&mut self) -> Result<(), CannotTake> {
        if self.hashing.here().is_some_and(|hashed| hashed.length == self.written) {
            return Ok(());
        }
        let hashed = self.try_hash_all().await;
        let hashed = hashed.inspect_err(|_| self.partial.discard());
        self.hashing = Hashing::here_with(hashed.map_err(CannotTake::Failing)?);
        Ok(())
    }

    async fn try_hash_all(&mut self) -> io::Result<Hashed> {
        let (mut hashed, end) = (self.hashing.wait().await?, self.written);
        let partial = Arc::clone(&self.partial);
        let caught_up = blocking(move || {
            hashed.catch_up(partial.file(), end)?;
            Ok(hashed)
        });
        caught_up.await?
    }

    /// Compares the hash; [`BlobWriter::hash_all`] comes first where an earlier writer left some.
    ///
    /// # Errors
    /// When the bytes are not the blob's, or the writer is broken. The file is removed.
    pub fn verify(self) -> Result<VerifiedBlob, WrongDigest> {
        let hashed = self.hashing.here();
        let hashed = hashed.unwrap_or_else(|| Hashed::nothing(self.digest.hasher()));
        let is_all = hashed.length == self.written && !self.broken;
        let actual = hashed.hasher.finish();
        if actual != self.digest || !is_all {
            self.partial.discard();
            return Err(WrongDigest { actual });
        }
        Ok(VerifiedBlob(self))
    }
}

impl VerifiedBlob {
    /// Syncs the bytes, moves the file to `blobs/` and tells the table. Goes on to the end when
    /// the future is dropped.
    ///
    /// # Errors
    /// What the disk says; the file is removed.
    pub async fn publish(self) -> io::Result<()> {
        let store = Arc::clone(&self.0.store);
        let partial = Arc::clone(&self.0.partial);
        let published = blocking(move || self.publish_now()).await?;
        let published = published.inspect_err(|_| partial.discard());
        published.inspect_err(|error| store.room.note(error))
    }

    fn publish_now(self) -> io::Result<()> {
        let BlobWriter { store, partial, digest, written, reserved, .. } = self.0;
        still_whole(partial.file(), written)?;
        if reserved > written {
            // Gives back what was reserved beyond the end.
            partial.file().set_len(written)?;
        }
        partial.file().sync_data()?;
        let path = partial.path().to_owned();
        store.publish_file(&path, &digest, |table, now| {
            table.put_blob(&digest, written, now);
        })?;
        partial.published();
        Ok(())
    }
}

/// Takes room for a file to grow from one length to another.
async fn extend(
    store: &Arc<Shared>,
    partial: &Arc<Partial>,
    from: u64,
    to: u64,
) -> Result<(), CannotTake> {
    let length = to.saturating_sub(from);
    let mut hold = store.take_room(length).await?;
    let (room_of, partial) = (Arc::clone(store), Arc::clone(partial));
    let extended = blocking(move || {
        room_of.room.allocate(&mut hold, partial.file(), from, length)?;
        partial.hold().merge(hold);
        Ok(())
    });
    extended.await.map_err(CannotTake::Failing)?
}

/// What is hashed is what was written; a file that someone else cut meanwhile is something else.
fn still_whole(file: &File, written: u64) -> io::Result<()> {
    if file.metadata()?.len() == written {
        return Ok(());
    }
    Err(io::Error::other("the file of a download was changed from outside"))
}

impl Shared {
    /// Moves a whole, synced file to its place in `blobs/` and tells the table. Blocking.
    pub fn publish_file(
        &self,
        path: &Path,
        digest: &Digest,
        tell: impl FnOnce(&mut Table, Moment),
    ) -> io::Result<()> {
        let _name = self.names.take(digest);
        fs::rename(path, self.directory.blob(digest))?;
        // One that was there, of the same content.
        self.open_files.let_go(digest);
        directory::sync(&self.directory.blobs(digest.algorithm()))?;
        let now = self.running.now();
        self.memory.with(|table| tell(table, now));
        Ok(())
    }
}
