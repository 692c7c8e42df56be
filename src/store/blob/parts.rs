//! Parts of a blob that are written before what comes ahead of them.
//!
//! As a rule the length of a growing file tells how much of it is there. With parts it does not: then
//! the [`Partial`] knows, and the note beside the file, up to where there is no gap. Only so much is
//! hashed, read by clients, and left to the next writer.

use std::{os::unix::fs::FileExt as _, sync::Arc};

use bytes::Bytes;

use super::{BlobWriter, CannotTake, Hashed, Hashing, Partial, Shared, blocking};

/// Writes anywhere behind what a [`BlobWriter`] has, for it to take in. Clones write to the same file.
#[derive(Clone, Debug)]
pub struct PartWriter {
    store: Arc<Shared>,
    /// Keeps the digest from another writer until the bytes are written.
    partial: Arc<Partial>,
}

impl PartWriter {
    /// Writes at `offset`, on a blocking thread, to the end also when the future is dropped.
    ///
    /// # Errors
    /// When there is no room, or the disk fails.
    pub async fn write_at(&self, chunks: Vec<Bytes>, offset: u64) -> Result<(), CannotTake> {
        let writer = self.clone();
        let written = blocking(move || writer.write_now(&chunks, offset)).await;
        written.map_err(CannotTake::Failing)?
    }

    fn write_now(&self, chunks: &[Bytes], mut offset: u64) -> Result<(), CannotTake> {
        for chunk in chunks {
            let written = self.partial.file().write_all_at(chunk, offset);
            written.map_err(|error| self.store.room.failed(error))?;
            offset = offset.saturating_add(chunk.len() as u64);
            self.partial.hold().is_written(chunk.len() as u64);
        }
        Ok(())
    }
}

impl BlobWriter {
    /// Lets parts be written behind what is there. Until [`BlobWriter::drop_parts`], nothing is appended.
    ///
    /// # Errors
    /// When it cannot be noted that the file's length tells nothing any more. Nothing has changed then.
    pub async fn begin_parts(&self) -> Result<PartWriter, CannotTake> {
        let (partial, written) = (Arc::clone(&self.partial), self.written);
        let begun = blocking(move || partial.count_only(written)).await;
        begun.and_then(|begun| begun).map_err(CannotTake::Failing)?;
        Ok(PartWriter { store: Arc::clone(&self.store), partial: Arc::clone(&self.partial) })
    }

    /// Hashes what parts have brought, up to `end`, and lets it count, on a blocking thread.
    ///
    /// # Errors
    /// When it cannot be read. The writer is broken then.
    pub async fn take_in(&mut self, end: u64) -> Result<(), CannotTake> {
        let taken = self.try_take_in(end).await;
        let hashed = taken.inspect_err(|_| self.partial.discard())?;
        self.written = hashed.length;
        self.hashing = Hashing::here_with(hashed);
        self.broken = false;
        Ok(())
    }

    async fn try_take_in(&mut self, end: u64) -> Result<Hashed, CannotTake> {
        self.break_until_done()?;
        let mut hashed = self.hashing.wait().await.map_err(CannotTake::Failing)?;
        let partial = Arc::clone(&self.partial);
        let taken = blocking(move || {
            hashed.catch_up(partial.file(), end)?;
            // What cannot be noted is only less for the next writer.
            let _ = partial.count_only(end);
            Ok(hashed)
        });
        taken.await.and_then(|taken| taken).map_err(CannotTake::Failing)
    }

    /// Throws away what is behind the first gap, so that more can be appended. No part may be written
    /// any more.
    ///
    /// # Errors
    /// When there is no room any more for what comes, or the disk fails. The writer is broken then.
    pub async fn drop_parts(&mut self) -> Result<(), CannotTake> {
        self.break_until_done()?;
        let (store, partial) = (Arc::clone(&self.store), Arc::clone(&self.partial));
        let (written, reserved) = (self.written, self.reserved);
        let dropped = blocking(move || {
            let file = partial.file();
            file.set_len(written).map_err(|error| store.room.failed(error))?;
            // What was set aside has gone with it.
            let room = reserved.saturating_sub(written);
            store.room.allocate(&mut partial.hold(), file, written, room)?;
            partial.count_all().map_err(CannotTake::Failing)
        });
        let dropped = dropped.await.map_err(CannotTake::Failing).and_then(|dropped| dropped);
        dropped.inspect_err(|_| self.partial.discard())?;
        self.broken = false;
        Ok(())
    }
}
