//! Buffers for pieces of blobs, used again and again. The allocator takes memory from the heap of
//! the thread that asks and gives it back to where it came from: with many clients at once, each
//! heap would grow to what all of them need together.

use std::{
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// The most bytes of a blob that are read at once. Each client holds about two such pieces.
pub const PIECE: usize = 64 * 1024;

/// How many buffers that nobody uses are kept for the next client.
const KEPT: usize = 128;

/// Where buffers come from and return to; clones share them.
#[derive(Clone, Debug, Default)]
pub struct Buffers(Arc<Mutex<Vec<Vec<u8>>>>);

/// Room for a piece; returns to where it came from when dropped.
#[derive(Debug)]
pub struct Buffer {
    bytes: Vec<u8>,
    filled: usize,
    home: Buffers,
}

impl Buffers {
    /// A buffer for `length` bytes. What is much smaller than a piece has one of its own size.
    pub fn take(&self, length: usize) -> Buffer {
        let is_piece = (PIECE / 16..=PIECE).contains(&length);
        let kept = if is_piece { self.lock().pop() } else { None };
        let size = if is_piece { PIECE } else { length };
        let bytes = kept.unwrap_or_else(|| vec![0; size]);
        Buffer { bytes, filled: length, home: self.clone() }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Vec<u8>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Buffer {
    /// Has `fill` write to the buffer and say how much that was.
    pub fn fill<E>(&mut self, fill: impl FnOnce(&mut [u8]) -> Result<usize, E>) -> Result<(), E> {
        let room = self.bytes.get_mut(..self.filled).unwrap_or_default();
        self.filled = fill(room)?.min(room.len());
        Ok(())
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        self.bytes.get(..self.filled).unwrap_or_default()
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if self.bytes.len() == PIECE {
            let mut kept = self.home.lock();
            if kept.len() < KEPT {
                kept.push(mem::take(&mut self.bytes));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(buffers: &Buffers, length: usize, bytes: &[u8]) -> Buffer {
        let mut buffer = buffers.take(length);
        let fill = |room: &mut [u8]| {
            assert_eq!(room.len(), length);
            room[..bytes.len()].copy_from_slice(bytes);
            Ok::<_, ()>(bytes.len())
        };
        buffer.fill(fill).unwrap();
        buffer
    }

    #[test]
    fn a_buffer_is_used_again_and_shows_nothing_of_before() {
        let buffers = Buffers::default();
        let first = filled(&buffers, PIECE, &[1; PIECE]);
        let place = first.bytes.as_ptr();
        drop(first);
        let second = filled(&buffers, PIECE - 5, &[2, 2, 2]);
        assert_eq!(second.bytes.as_ptr(), place);
        assert_eq!(second.as_ref(), [2, 2, 2]);
    }

    #[test]
    fn what_is_small_takes_no_whole_buffer() {
        let buffers = Buffers::default();
        drop(filled(&buffers, 100, &[1; 100]));
        assert_eq!(filled(&buffers, 100, &[]).bytes.len(), 100);
        assert!(buffers.lock().is_empty());
    }

    #[test]
    fn only_so_many_are_kept() {
        let buffers = Buffers::default();
        let taken: Vec<Buffer> = (0..KEPT + 1).map(|_| buffers.take(PIECE)).collect();
        drop(taken);
        assert_eq!(buffers.lock().len(), KEPT);
    }
}
