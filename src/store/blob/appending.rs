//! What is appended to a blob: written and hashed by one blocking thread, for as long as there is more at once.

use std::{os::unix::fs::FileExt as _, sync::Arc};

use bytes::Bytes;

use super::{BlobWriter, CannotTake, Hashed, Hashing, Partial, Shared, blocking, still_whole};

/// How much is appended before others have their turn on the blocking threads, in bytes.
const TURN: u64 = 8 * 1024 * 1024;

impl BlobWriter {
    /// Appends and hashes what there is at once, on a blocking thread, and gives back what brings it. That must not
    /// wait; when it is asked for the next bytes, those before can be read.
    ///
    /// # Errors
    /// When there is no room for more, or the disk fails. The writer is broken then.
    pub async fn append<S>(&mut self, source: S) -> Result<S::IntoIter, CannotTake>
    where
        S: IntoIterator<Item = Bytes>,
        S::IntoIter: Send + 'static,
    {
        let appended = self.try_append(source.into_iter()).await;
        appended.inspect_err(|_| self.partial.discard())
    }

    async fn try_append<S>(&mut self, mut source: S) -> Result<S, CannotTake>
    where
        S: Iterator<Item = Bytes> + Send + 'static,
    {
        self.break_until_done()?;
        let mut next = source.next();
        while let Some(chunk) = next {
            self.reserve(self.written.saturating_add(chunk.len() as u64)).await?;
            let mut step = self.step()?;
            let stepped = blocking(move || {
                let appended = step.append(chunk, &mut source);
                (step, source, appended)
            });
            let (step, left, appended) = stepped.await.map_err(CannotTake::Failing)?;
            self.take_over(step);
            source = left;
            next = appended?.or_else(|| source.next());
        }
        self.broken = false;
        Ok(source)
    }

    fn step(&mut self) -> Result<Step, CannotTake> {
        Ok(Step {
            store: Arc::clone(&self.store),
            partial: Arc::clone(&self.partial),
            hashed: self.hashing.at_hand().map_err(CannotTake::Failing)?,
            written: self.written,
            reserved: self.reserved,
            end: self.written.saturating_add(TURN),
        })
    }

    fn take_over(&mut self, step: Step) {
        if let Some(hashed) = step.hashed {
            self.hashing = Hashing::here_with(hashed);
        }
        self.written = step.written;
    }
}

/// What an append needs and changes, moved to a blocking thread and back.
struct Step {
    store: Arc<Shared>,
    /// Keeps the digest from another writer until the bytes are written.
    partial: Arc<Partial>,
    /// `None`: the hash follows the file.
    hashed: Option<Hashed>,
    written: u64,
    reserved: u64,
    /// When so much is written, it is others' turn.
    end: u64,
}

impl Step {
    /// Appends this and what comes next, for a turn. What it gives back has no room yet.
    fn append(
        &mut self,
        chunk: Bytes,
        source: &mut impl Iterator<Item = Bytes>,
    ) -> Result<Option<Bytes>, CannotTake> {
        let mut next = Some(chunk);
        while let Some(chunk) = next {
            if self.written.saturating_add(chunk.len() as u64) > self.reserved {
                return Ok(Some(chunk));
            }
            self.append_one(&chunk)?;
            next = if self.written < self.end { source.next() } else { None };
        }
        Ok(None)
    }

    fn append_one(&mut self, chunk: &Bytes) -> Result<(), CannotTake> {
        let file = self.partial.file();
        still_whole(file, self.written).map_err(CannotTake::Failing)?;
        if let Some(hashed) = &mut self.hashed {
            hashed.catch_up(file, self.written).map_err(CannotTake::Failing)?;
        }
        let written = file.write_all_at(chunk, self.written);
        written.map_err(|error| self.store.room.failed(error))?;
        if let Some(hashed) = &mut self.hashed {
            hashed.update(chunk);
        }
        self.written = self.written.saturating_add(chunk.len() as u64);
        self.partial.hold().is_written(chunk.len() as u64);
        Ok(())
    }
}
