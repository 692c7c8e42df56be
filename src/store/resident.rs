//! Reading what is in the page cache already, on the thread that asks: such a read takes less than handing it
//! to a blocking thread. What is not there is for that thread, since everyone else on this one would wait
//! for the disk.

use std::{
    io::{self, IoSliceMut},
    ops::Range,
    sync::Arc,
};

use bytes::Bytes;
use rustix::io::{ReadWriteFlags, preadv2};

use super::blob::BlobReader;
use crate::sendfile::{PIECE, Piece};

/// Shorter pieces are copied: to send them as pieces of a file would take more calls.
const LEAST_PIECE: u64 = 32 * 1024;

/// How far apart are the bytes that are looked for in the page cache, in bytes. The kernel reads files
/// by as much; should it have dropped a page in between, that is one short wait.
const STRIDE: usize = 128 * 1024;

impl BlobReader {
    /// The beginning of `range`, to be sent by the kernel. `None`: it is not in the page cache, or not worth it,
    /// and so it has to be read, which may also tell why it is not there.
    pub fn piece(&self, range: &Range<u64>) -> Option<Piece> {
        let wanted = range.end.saturating_sub(range.start);
        if wanted < LEAST_PIECE {
            return None;
        }
        let wanted = usize::try_from(wanted).unwrap_or(PIECE).min(PIECE);
        let length = self.resident(range.start, wanted);
        let reader = self.clone();
        let lost = move |error: &io::Error| reader.gave_less(error);
        let file = Arc::clone(self.file());
        (length as u64 >= LEAST_PIECE).then(|| Piece::new(file, range.start, length, lost))
    }

    /// Up to `length` bytes at `offset`, if they are in the page cache.
    pub fn read_resident(&self, offset: u64, length: usize) -> Option<Bytes> {
        let mut buffer = self.buffers.take(length);
        let filled = buffer.fill(|room| match self.read_at_once(room, offset) {
            Ok(read) if read > 0 => Ok(read),
            Ok(_) | Err(_) => Err(()),
        });
        filled.ok().map(|()| Bytes::from_owner(buffer))
    }

    /// How many of so many bytes at `offset` are in the page cache, as far as samples tell. The last is one,
    /// so that none of them is behind the file's end.
    fn resident(&self, offset: u64, length: usize) -> usize {
        let last = length.saturating_sub(1);
        let mut before = 0;
        for place in (0..last).step_by(STRIDE).chain([last]) {
            let at = offset.saturating_add(place as u64);
            if !matches!(self.read_at_once(&mut [0], at), Ok(1)) {
                return before;
            }
            before = place;
        }
        length
    }

    /// # Errors
    /// That it is not there, or that this file system cannot tell, and whatever a read may fail with.
    fn read_at_once(&self, room: &mut [u8], offset: u64) -> rustix::io::Result<usize> {
        preadv2(self.file(), &mut [IoSliceMut::new(room)], offset, ReadWriteFlags::NOWAIT)
    }
}
