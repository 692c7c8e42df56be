//! Reading what is in the page cache already, on the thread that asks: such a read takes less than handing it
//! to a blocking thread. What is not there is for that thread, since everyone else on this one would wait
//! for the disk.
//!
//! What the kernel is to send need not be copied for that: the blocking thread only brings it into the page cache, a
//! whole [`Piece`] at a time. The next one is left to the kernel, which is told to read far ahead of whoever reads on,
//! and does so while this one is sent.

use std::{
    fs::File,
    io::{self, IoSliceMut},
    ops::Range,
    sync::{Arc, LazyLock},
};

use bytes::Bytes;
use rustix::{
    fs::{Advice, fadvise, sendfile},
    io::{ReadWriteFlags, preadv2},
};

use super::{blob::BlobReader, blocking};
use crate::sendfile::{PIECE, Piece};

/// Shorter pieces are copied: to send them as pieces of a file would take more calls.
const LEAST_PIECE: usize = 32 * 1024;

/// How far apart are the bytes that are looked for in the page cache, in bytes. The kernel reads files
/// by as much; should it have dropped a page in between, that is one short wait.
const STRIDE: usize = 128 * 1024;

/// Takes whatever is sent to it. `None`: this system has it not where it belongs.
static NOWHERE: LazyLock<Option<File>> =
    LazyLock::new(|| File::options().write(true).open("/dev/null").ok());

impl BlobReader {
    /// The beginning of `range`, to be sent by the kernel. `None`: it is not in the page cache, or not worth it,
    /// and so it has to be read, which may also tell why it is not there.
    pub fn piece(&self, range: &Range<u64>) -> Option<Piece> {
        let length = self.resident(range.start, worth_sending(range)?);
        self.piece_of(range.start, length)
    }

    /// The beginning of `range`, to be sent by the kernel once a blocking thread has brought it into the page cache.
    /// `None`: it is not worth it or does not come there, and so it has to be read, which may also tell why.
    pub async fn brought_piece(&self, range: &Range<u64>) -> Option<Piece> {
        let (file, offset, wanted) = (Arc::clone(self.file()), range.start, worth_sending(range)?);
        let brought = blocking(move || bring_in(&file, offset, wanted)).await;
        self.piece_of(offset, brought.ok()?)
    }

    /// So many bytes at `offset`, which are in the page cache, if they are worth it.
    fn piece_of(&self, offset: u64, length: usize) -> Option<Piece> {
        let reader = self.clone();
        let lost = move |error: &io::Error| reader.cannot_be_sent(error);
        let file = Arc::clone(self.file());
        (length >= LEAST_PIECE).then(|| Piece::new(file, offset, length, lost))
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

/// How many bytes of `range` make a piece. `None`: there are too few.
fn worth_sending(range: &Range<u64>) -> Option<usize> {
    let wanted = range.end.saturating_sub(range.start);
    let wanted = usize::try_from(wanted).unwrap_or(PIECE).min(PIECE);
    (wanted >= LEAST_PIECE).then_some(wanted)
}

/// Has up to `length` bytes at `offset` in the page cache, and says how many are there. The kernel sends them nowhere:
/// it waits for the disk as in a read, and copies nothing. Blocking.
fn bring_in(file: &File, offset: u64, length: usize) -> usize {
    let mut offset = offset;
    // Where this fails, the kernel reads ahead by less.
    let _ = fadvise(file, 0, None, Advice::Sequential);
    let nowhere = NOWHERE.as_ref();
    nowhere.and_then(|to| sendfile(to, file, Some(&mut offset), length).ok()).unwrap_or(0)
}
