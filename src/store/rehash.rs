//! A blob that is read and hashed again, some at a time, without getting in anyone's way.
//!
//! The page cache is left as it was: what of the file was in it stays, what was not leaves again. The
//! kernel reads nothing ahead here, since what it had read ahead would look like what was there.

use std::{
    fs::File,
    io::{self, IoSliceMut},
    num::NonZeroU64,
    os::unix::fs::FileExt as _,
};

use rustix::{
    fs::{Advice, fadvise},
    io::{Errno, ReadWriteFlags, preadv2},
};

use super::{Shared, damage::Damage};
use crate::oci::{Digest, Hasher};

/// How much is read at once, in bytes: enough for a disk to be read at its speed.
const PIECE: usize = 1024 * 1024;

/// What a blob turned out to be.
pub type Examined = Result<(), Damage>;

/// A blob on its way through the hash.
#[derive(Debug)]
pub struct Rehash {
    file: File,
    digest: Digest,
    size: u64,
    hashed: u64,
    hasher: Hasher,
    buffer: Vec<u8>,
}

impl Rehash {
    /// Begins with what is in the place of a blob. `None`: nothing that this user may read. Blocking.
    pub fn begin(store: &Shared, digest: &Digest) -> io::Result<Option<Rehash>> {
        let Some((file, metadata)) = store.open_readable(digest)? else {
            return Ok(None);
        };
        // If the kernel does not follow, that costs pages which others could use, and no more.
        let _ = fadvise(&file, 0, None, Advice::Random);
        let (size, hasher) = (metadata.len(), digest.hasher());
        let digest = digest.clone();
        Ok(Some(Rehash { file, digest, size, hashed: 0, hasher, buffer: Vec::new() }))
    }

    /// The blob.
    pub fn digest(&self) -> &Digest {
        &self.digest
    }

    /// The file that is hashed.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Bytes that are not hashed yet.
    pub fn left(&self) -> u64 {
        self.size.saturating_sub(self.hashed)
    }

    /// Hashes the next piece, and says what the blob is when that was the last. Blocking.
    pub fn step(&mut self) -> Option<Examined> {
        match self.take_piece() {
            Err(error) if error.kind() == io::ErrorKind::IsADirectory => Some(Err(Damage::NoFile)),
            Err(error) => Some(Err(Damage::Unreadable(error))),
            Ok(0) if self.left() > 0 => {
                Some(Err(Damage::Size { expected: self.size, found: self.hashed }))
            }
            Ok(_) if self.left() > 0 => None,
            Ok(_) => Some(self.verdict()),
        }
    }

    fn verdict(&self) -> Examined {
        let actual = self.hasher.clone().finish();
        if actual == self.digest { Ok(()) } else { Err(Damage::Content(actual)) }
    }

    fn take_piece(&mut self) -> io::Result<usize> {
        let length = usize::try_from(self.left()).unwrap_or(PIECE).min(PIECE);
        self.buffer.resize(length, 0);
        let read = read_gently(&self.file, &mut self.buffer, self.hashed)?;
        self.hasher.update(self.buffer.get(..read).unwrap_or_default());
        self.hashed = self.hashed.saturating_add(read as u64);
        Ok(read)
    }
}

/// Reads what fits, from memory if it is there; what is not, is let go of again.
fn read_gently(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut room = [IoSliceMut::new(buffer)];
    match preadv2(file, &mut room, offset, ReadWriteFlags::NOWAIT) {
        Ok(read) if read > 0 || buffer.is_empty() => return Ok(read),
        // Not in memory; or this file system cannot tell.
        Ok(_) | Err(Errno::AGAIN | Errno::INTR) => {}
        Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => return read(file, buffer, offset),
        Err(error) => return Err(error.into()),
    }
    let read = read(file, buffer, offset)?;
    // A hint, like the one at the beginning.
    let _ = fadvise(file, offset, NonZeroU64::new(read as u64), Advice::DontNeed);
    Ok(read)
}

fn read(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    loop {
        match file.read_at(buffer, offset) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            read => return read,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    /// Whether the first byte of a file is in memory. `None`: the file system cannot tell.
    fn is_in_memory(file: &File) -> Option<bool> {
        let mut byte = [0];
        match preadv2(file, &mut [IoSliceMut::new(&mut byte)], 0, ReadWriteFlags::NOWAIT) {
            Ok(read) => Some(read == 1),
            Err(Errno::AGAIN) => Some(false),
            Err(_) => None,
        }
    }

    fn rehash(file: File, content: &[u8]) -> Rehash {
        let digest = Digest::of(crate::oci::Algorithm::Sha256, content);
        let (size, hasher) = (content.len() as u64, digest.hasher());
        Rehash { file, digest, size, hashed: 0, hasher, buffer: Vec::new() }
    }

    fn run(rehash: &mut Rehash) -> Examined {
        loop {
            if let Some(examined) = rehash.step() {
                return examined;
            }
        }
    }

    /// A file with this content that is on disk, and in memory no longer.
    fn forgotten(content: &[u8]) -> File {
        // Beside the sources, for a temporary directory may be memory itself.
        let mut file = tempfile::tempfile_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        file.write_all(content).unwrap();
        file.sync_all().unwrap();
        fadvise(&file, 0, None, Advice::DontNeed).unwrap();
        file
    }

    #[test]
    fn the_page_cache_is_left_as_it_was() {
        let content = vec![7; 3 * PIECE + 5];
        // To ask is to load: each file can be asked about once.
        if is_in_memory(&forgotten(&content)) != Some(false) {
            return;
        }
        let file = forgotten(&content);
        run(&mut rehash(file.try_clone().unwrap(), &content)).unwrap();
        assert_eq!(is_in_memory(&file), Some(false), "what nobody uses leaves");

        let file = forgotten(&content);
        file.read_exact_at(&mut vec![0; content.len()], 0).unwrap();
        run(&mut rehash(file.try_clone().unwrap(), &content)).unwrap();
        assert_eq!(is_in_memory(&file), Some(true), "what others use stays");
    }

    #[test]
    fn a_blob_is_what_it_is_to_the_last_bit() {
        for length in [0, 1, PIECE - 1, PIECE, PIECE + 1] {
            let content = vec![3; length];
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(&content).unwrap();
            run(&mut rehash(file.try_clone().unwrap(), &content)).unwrap();
            if length > 0 {
                file.write_all_at(&[2], length as u64 - 1).unwrap();
                let examined = run(&mut rehash(file.try_clone().unwrap(), &content));
                assert!(matches!(examined, Err(Damage::Content(_))), "{length}: {examined:?}");
                file.set_len(length as u64 - 1).unwrap();
                let examined = run(&mut rehash(file, &content));
                assert!(matches!(examined, Err(Damage::Size { .. })), "{length}: {examined:?}");
            }
        }
    }
}
