//! A client behind a growing file, and ahead of it when its range starts far on.

use std::{future, io, ops::Range, sync::Arc};

use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use tokio::sync::watch;

use super::{
    ahead::{self, Ahead},
    alone::Alone,
    body::{AheadBytes, BlobStream, Delivery, flushed},
    download::{Growing, Progress, Stranded},
    pieces::Pieces,
    remote::Remote,
};
use crate::metrics::Metrics;

/// All of a growing file.
pub(super) fn whole(growing: &Growing, delivery: Delivery) -> BlobStream {
    Follower::new(growing, 0, growing.size, delivery).into_stream()
}

/// A part of a growing file.
pub(super) fn part(growing: &Growing, range: Range<u64>, delivery: Delivery) -> BlobStream {
    let follower = Follower::new(growing, range.start, Some(range.end), delivery);
    Follower { ahead: ahead::ahead(growing, range), ..follower }.into_stream()
}

/// One client behind a download.
struct Follower {
    pieces: Pieces,
    remote: Remote,
    progress: watch::Receiver<Progress>,
    /// The download ended without a blob.
    is_lost: bool,
    offset: u64,
    /// Where the client's range ends; `None`: at the blob's end, which is not known yet.
    end: Option<u64>,
    /// The size upstream announced.
    size: Option<u64>,
    /// The client's range from upstream, from `offset` on, until the file has it.
    ahead: Option<Ahead>,
    /// Where the disk stopped the download.
    stranded: Option<Arc<Stranded>>,
    /// What the client still wants, past the file, which was of no more use.
    alone: Option<BlobStream>,
    ahead_bytes: AheadBytes,
    _counted: Counted,
}

impl Follower {
    fn new(growing: &Growing, offset: u64, end: Option<u64>, delivery: Delivery) -> Follower {
        Follower {
            pieces: Pieces::new(growing.reader.clone(), delivery.outlet),
            remote: growing.remote.clone(),
            progress: growing.progress.clone(),
            is_lost: false,
            offset,
            end,
            size: growing.size,
            ahead: None,
            stranded: None,
            alone: None,
            ahead_bytes: delivery.ahead,
            _counted: Counted::enter(&growing.remote.metrics),
        }
    }

    fn into_stream(self) -> BlobStream {
        Box::pin(stream::try_unfold(self, |mut follower| async move {
            let piece = flushed(follower.next().await).await?;
            Ok(piece.map(|piece| (piece, follower)))
        }))
    }

    async fn next(&mut self) -> io::Result<Option<Bytes>> {
        loop {
            if let Some(alone) = &mut self.alone {
                let piece = alone.try_next().await?;
                return Ok(piece.map(|piece| self.pass(piece)));
            }
            let released = self.released();
            if self.end.is_some_and(|end| self.offset >= end) {
                return Ok(None);
            }
            if released > self.offset {
                self.ahead = None;
                match self.read(released).await {
                    // What comes next tells whether the client can be helped.
                    Err(error) if self.pieces.can_be_replaced(&error) => {
                        self.alone = Some(self.rest().instead());
                    }
                    read => return read,
                }
                continue;
            }
            if self.ahead.is_none()
                && let Some(stranded) = self.stranded.take()
            {
                if self.pieces.is_cut_before(self.offset) {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                let held = self.held(&stranded).await;
                self.alone = Some(self.rest().after(&stranded, held));
                continue;
            }
            tokio::select! {
                changed = self.progress.changed(), if !self.is_lost => {
                    self.is_lost = changed.is_err();
                }
                piece = next_of(&mut self.ahead), if self.ahead.is_some() => match piece {
                    Some(piece) => return Ok(Some(self.pass(piece))),
                    None => self.ahead = None,
                },
                else => return Err(io::Error::other("the download broke off")),
            }
        }
    }

    /// Up to where the file may be sent.
    fn released(&mut self) -> u64 {
        let progress = self.progress.borrow_and_update().clone();
        match progress {
            Progress::Filling(written) => self.before_last(written),
            Progress::Stranded(stranded) => {
                self.is_lost = true;
                let written = stranded.written;
                self.stranded = Some(stranded);
                self.before_last(written)
            }
            Progress::Verified(size) => {
                self.end = Some(self.end.map_or(size, |end| end.min(size)));
                size
            }
            Progress::Opening => 0,
            Progress::Refused(_) | Progress::Untaken(_) | Progress::Broken => {
                self.is_lost = true;
                0
            }
        }
    }

    /// What may be sent of so many bytes that are not verified.
    fn before_last(&self, written: u64) -> u64 {
        self.size.unwrap_or(written).saturating_sub(1).min(written)
    }

    async fn read(&mut self, released: u64) -> io::Result<Option<Bytes>> {
        let readable = self.end.map_or(released, |end| end.min(released));
        let mut rest = self.offset..readable;
        let piece = self.pieces.next(&mut rest).await?;
        self.offset = rest.start;
        Ok(piece)
    }

    /// What the client still wants.
    fn rest(&self) -> Alone {
        let wanted = self.offset..self.end.unwrap_or(u64::MAX);
        Alone { remote: self.remote.clone(), size: self.size, wanted }
    }

    /// What the file has behind what may be sent of it.
    async fn held(&mut self, stranded: &Stranded) -> Bytes {
        self.pieces.read(&(self.offset..stranded.written)).await.unwrap_or_default()
    }

    fn pass(&mut self, piece: Bytes) -> Bytes {
        let length = piece.len() as u64;
        self.offset = self.offset.saturating_add(length);
        self.ahead_bytes.add(length);
        piece
    }
}

async fn next_of(ahead: &mut Option<Ahead>) -> Option<Bytes> {
    match ahead {
        Some(ahead) => ahead.next().await,
        None => future::pending().await,
    }
}

/// Counts a follower for as long as it lives.
struct Counted(Arc<Metrics>);

impl Counted {
    fn enter(metrics: &Arc<Metrics>) -> Counted {
        metrics.download_followers.inc();
        Counted(metrics.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.download_followers.dec();
    }
}
