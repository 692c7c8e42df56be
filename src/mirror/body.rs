//! The three ways a body flows to a client: from a stored blob, behind a growing file, and past
//! the store. The last byte of unverified content is held back in all of them.

use std::{io, ops::Range, pin::Pin, sync::Arc};

use bytes::Bytes;
use futures_util::{Stream, stream};
use tokio::sync::watch;

use super::download::{Failure, Progress};
use crate::{
    metrics::Metrics,
    oci::{Digest, Hasher, Repository},
    store::BlobReader,
    upstream::BlobBody,
};

/// A body on its way to a client. An error cuts the connection: a client must never see a
/// failed body end normally.
pub type BlobStream = Pin<Box<dyn Stream<Item = io::Result<Bytes>> + Send>>;

/// How much is read from a file at once, in bytes. Each client holds about two such pieces.
const PIECE: u64 = 64 * 1024;

/// Reads a verified blob.
pub(super) fn stored(reader: BlobReader, range: Range<u64>) -> BlobStream {
    Box::pin(stream::try_unfold((reader, range), |(reader, mut rest)| async move {
        let piece = flushed(read_piece(&reader, &mut rest).await).await?;
        Ok(piece.map(|piece| (piece, (reader, rest))))
    }))
}

/// Reads a growing file behind its download. `end` is `None` while the size is unknown.
pub(super) fn following(follower: Follower) -> BlobStream {
    Box::pin(stream::try_unfold(follower, |mut follower| async move {
        let piece = flushed(follower.next().await).await?;
        Ok(piece.map(|piece| (piece, follower)))
    }))
}

/// Hands on a body that the store cannot take.
pub(super) fn passing(passing: Passing) -> BlobStream {
    Box::pin(stream::try_unfold(passing, |mut passing| async move {
        let piece = flushed(passing.next().await).await?;
        Ok(piece.map(|piece| (piece, passing)))
    }))
}

/// One client behind a download.
pub(super) struct Follower {
    reader: BlobReader,
    progress: watch::Receiver<Progress>,
    offset: u64,
    /// Where the client's range ends; `None`: at the blob's end, which is not known yet.
    end: Option<u64>,
    /// The size upstream announced.
    size: Option<u64>,
    metrics: Arc<Metrics>,
}

impl Follower {
    pub(super) fn new(
        reader: BlobReader,
        progress: watch::Receiver<Progress>,
        size: Option<u64>,
        range: Option<Range<u64>>,
        metrics: Arc<Metrics>,
    ) -> Follower {
        metrics.download_followers.inc();
        let offset = range.as_ref().map_or(0, |range| range.start);
        let end = range.map(|range| range.end).or(size);
        Follower { reader, progress, offset, end, size, metrics }
    }

    async fn next(&mut self) -> io::Result<Option<Bytes>> {
        let Some(readable) = self.wait_for_bytes().await? else {
            return Ok(None);
        };
        let mut rest = self.offset..readable;
        let piece = read_piece(&self.reader, &mut rest).await?;
        self.offset = rest.start;
        Ok(piece)
    }

    /// Waits until there is something behind `offset`; returns where it ends. `None`: the body
    /// has been sent.
    async fn wait_for_bytes(&mut self) -> io::Result<Option<u64>> {
        loop {
            if self.end.is_some_and(|end| self.offset >= end) {
                return Ok(None);
            }
            let (released, is_final) = self.released()?;
            let readable = self.end.map_or(released, |end| end.min(released));
            if readable > self.offset {
                return Ok(Some(readable));
            }
            if is_final {
                return Ok(None);
            }
            self.progress.changed().await.map_err(|_| broken())?;
        }
    }

    /// Up to where bytes may be sent, and whether that will not change any more.
    fn released(&mut self) -> io::Result<(u64, bool)> {
        match *self.progress.borrow_and_update() {
            Progress::Filling(written) => {
                let before_last = self.size.unwrap_or(written).saturating_sub(1);
                Ok((written.min(before_last), false))
            }
            Progress::Verified(size) => Ok((size, true)),
            Progress::Opening => Ok((0, false)),
            Progress::Refused(_) | Progress::Untaken(_) | Progress::Broken => Err(broken()),
        }
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.metrics.download_followers.dec();
    }
}

/// One client's own upstream body.
pub(super) struct Passing {
    body: BlobBody,
    repository: Repository,
    digest: Digest,
    metrics: Arc<Metrics>,
    /// Taken when the digest is compared.
    hasher: Option<Hasher>,
    /// What was received last, with its last byte, which waits for what comes next.
    held: Bytes,
    /// The range the client asked for; the rest is hashed and dropped.
    range: Range<u64>,
    offset: u64,
}

impl Passing {
    /// The body of this blob. `None`: it is empty and the blob is not, which no held-back byte
    /// would tell the client.
    pub(super) fn new(
        body: BlobBody,
        repository: &Repository,
        digest: &Digest,
        metrics: Arc<Metrics>,
    ) -> Option<Passing> {
        let passing = Passing {
            repository: repository.clone(),
            digest: digest.clone(),
            metrics,
            hasher: Some(digest.hasher()),
            held: Bytes::new(),
            range: 0..u64::MAX,
            offset: 0,
            body,
        };
        let is_empty = passing.size() == Some(0);
        (!is_empty || passing.verify(digest.hasher()).is_ok()).then_some(passing)
    }

    /// In bytes, as upstream announced it.
    pub(super) fn size(&self) -> Option<u64> {
        self.body.size()
    }

    /// Gives the client only a part.
    pub(super) fn within(self, range: Option<Range<u64>>) -> Passing {
        Passing { range: range.unwrap_or(self.range), ..self }
    }

    async fn next(&mut self) -> io::Result<Option<Bytes>> {
        while self.offset < self.range.end {
            let chunk = self.body.chunk().await;
            let Some(chunk) = chunk.map_err(|error| self.failed(&Failure::Upstream(error)))? else {
                return self.finish();
            };
            let released = self.exchange(chunk);
            let wanted = self.cut_to_range(released);
            if !wanted.is_empty() {
                return Ok(Some(wanted));
            }
        }
        Ok(None)
    }

    /// Takes a chunk in and gives out what may go: all that was held and the chunk, less the
    /// last byte.
    fn exchange(&mut self, chunk: Bytes) -> Bytes {
        if let Some(hasher) = &mut self.hasher {
            hasher.update(&chunk);
        }
        if chunk.is_empty() {
            return Bytes::new();
        }
        let mut released = Vec::with_capacity(self.held.len() + chunk.len());
        released.extend_from_slice(&self.held);
        released.extend_from_slice(&chunk);
        let mut released = Bytes::from(released);
        self.held = released.split_off(released.len() - 1);
        released
    }

    /// The last byte, if the content is right.
    fn finish(&mut self) -> io::Result<Option<Bytes>> {
        let Some(hasher) = self.hasher.take() else {
            return Ok(None);
        };
        self.verify(hasher)?;
        let last = std::mem::take(&mut self.held);
        let wanted = self.cut_to_range(last);
        Ok(Some(wanted).filter(|wanted| !wanted.is_empty()))
    }

    fn verify(&self, hasher: Hasher) -> io::Result<()> {
        let actual = hasher.finish();
        if actual != self.digest {
            return Err(self.failed(&Failure::Digest(actual)));
        }
        Ok(())
    }

    fn failed(&self, failure: &Failure) -> io::Error {
        failure.report(&self.metrics, &self.repository, &self.digest);
        io::Error::other("upstream broke off the blob or sent wrong bytes")
    }

    fn cut_to_range(&mut self, mut piece: Bytes) -> Bytes {
        let start = self.offset;
        let end = start.saturating_add(piece.len() as u64);
        self.offset = end;
        let keep_from = self.range.start.clamp(start, end) - start;
        let keep_to = self.range.end.clamp(start, end) - start;
        // Both lie within the piece, whose length is a usize.
        piece.truncate(keep_to as usize);
        piece.split_off((keep_from as usize).min(piece.len()))
    }
}

/// Before a body fails, lets what was sent of it go out, and the head at the least: hyper drops
/// what it has not flushed, and flushes when it has to wait.
async fn flushed<T>(piece: io::Result<T>) -> io::Result<T> {
    if piece.is_err() {
        tokio::task::yield_now().await;
    }
    piece
}

/// Reads the next piece of `rest` and shortens it. `None` when nothing is left.
async fn read_piece(reader: &BlobReader, rest: &mut Range<u64>) -> io::Result<Option<Bytes>> {
    let length = rest.end.saturating_sub(rest.start).min(PIECE);
    if length == 0 {
        return Ok(None);
    }
    let piece = reader.read_at(rest.start, length as usize).await?;
    if piece.is_empty() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    rest.start = rest.start.saturating_add(piece.len() as u64);
    Ok(Some(piece))
}

fn broken() -> io::Error {
    io::Error::other("the download broke off")
}
