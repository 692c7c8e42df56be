//! One client's way through a file, piece by piece.

use std::{io, ops::Range};

use bytes::Bytes;
use tokio::task::{consume_budget, yield_now};

use crate::{
    sendfile::Outlet,
    store::{BlobReader, PIECE},
};

/// For how long nothing is looked for in the page cache once something was not there, in bytes. Even to
/// send what the kernel has begun to read ahead may have to wait for the disk.
const COLD: u64 = 16 * 1024 * 1024;

/// A file, and what was sent of it.
pub(super) struct Pieces {
    reader: BlobReader,
    outlet: Option<Outlet>,
    /// Some went to the outlet.
    passed: bool,
    /// Up to where it is left to blocking threads.
    cold_until: u64,
}

impl Pieces {
    pub(super) fn new(reader: BlobReader, outlet: Option<Outlet>) -> Pieces {
        Pieces { reader, outlet, passed: false, cold_until: 0 }
    }

    /// The next piece of `rest`, which is shortened by it; to be sent at once. `None` when nothing is left.
    pub(super) async fn next(&mut self, rest: &mut Range<u64>) -> io::Result<Option<Bytes>> {
        if rest.is_empty() {
            return Ok(None);
        }
        // A client that is as fast as the page cache leaves time to the others.
        if self.passed {
            yield_now().await;
        } else {
            consume_budget().await;
        }
        let piece = match self.at_hand(rest) {
            Some(piece) => piece,
            None => self.bring(rest).await?,
        };
        rest.start = rest.start.saturating_add(piece.len() as u64);
        Ok(Some(piece))
    }

    /// Whether the client can have the rest from elsewhere after this error. Not of a file that is shorter than it
    /// was and may have been sent with other bytes (see [`crate::sendfile`]).
    pub(super) fn can_be_replaced(&self, error: &io::Error) -> bool {
        !self.passed || error.kind() != io::ErrorKind::UnexpectedEof
    }

    /// Whether the file, sent up to `offset`, may have been sent with other bytes than it had.
    pub(super) fn is_cut_before(&self, offset: u64) -> bool {
        self.passed && self.reader.ends_before(offset)
    }

    /// What the page cache has.
    fn at_hand(&mut self, rest: &Range<u64>) -> Option<Bytes> {
        if rest.start < self.cold_until {
            return None;
        }
        let piece = self.pass(rest);
        let piece = piece.or_else(|| self.reader.read_resident(rest.start, length(rest)));
        if piece.is_none() {
            self.cold_until = rest.start.saturating_add(COLD);
        }
        piece
    }

    fn pass(&mut self, rest: &Range<u64>) -> Option<Bytes> {
        let piece = self.outlet.as_ref()?.pass(self.reader.piece(rest)?);
        self.passed = true;
        Some(piece)
    }

    /// What the page cache has not: brought there to be sent, or else in memory.
    async fn bring(&mut self, rest: &Range<u64>) -> io::Result<Bytes> {
        if let Some(outlet) = &self.outlet
            && let Some(piece) = self.reader.brought_piece(rest).await
        {
            self.passed = true;
            return Ok(outlet.pass(piece));
        }
        self.read(rest).await
    }

    /// The beginning of `rest`, which is not empty, in memory.
    ///
    /// # Errors
    /// What the disk says, and [`io::ErrorKind::UnexpectedEof`] when the file ends before.
    pub(super) async fn read(&self, rest: &Range<u64>) -> io::Result<Bytes> {
        let piece = self.reader.read_at(rest.start, length(rest)).await?;
        if piece.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(piece)
    }
}

/// Of the next piece that is read into memory.
fn length(rest: &Range<u64>) -> usize {
    rest.end.saturating_sub(rest.start).min(PIECE as u64) as usize
}
