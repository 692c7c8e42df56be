//! Reading what is in the page cache already, on the thread that asks: such a read takes less than handing it
//! to a blocking thread. What is not there is for that thread, since everyone else on this one would wait
//! for the disk.

use std::io::IoSliceMut;

use rustix::io::{ReadWriteFlags, preadv2};

use super::{blob::BlobReader, buffers::Buffer};

impl BlobReader {
    /// Fills `buffer` with what is in the page cache at `offset`. Tells whether there is any.
    pub(super) fn read_resident(&self, buffer: &mut Buffer, offset: u64) -> bool {
        buffer
            .fill(|room| match self.read_at_once(room, offset) {
                Ok(read) if read > 0 => Ok(read),
                Ok(_) | Err(_) => Err(()),
            })
            .is_ok()
    }

    /// # Errors
    /// That it is not there, or that this file system cannot tell, and whatever a read may fail with.
    fn read_at_once(&self, room: &mut [u8], offset: u64) -> rustix::io::Result<usize> {
        preadv2(self.file(), &mut [IoSliceMut::new(room)], offset, ReadWriteFlags::NOWAIT)
    }
}
