//! Files of `blobs/` that stay open for whoever reads them next: to open and close one takes about as long as
//! to send a small one.
//!
//! None is kept that is not in its place, so that what is removed is gone: its bytes stay on the disk as long
//! as anybody has it open. Whoever removes or replaces a file does so first, and then lets go of it here.

use std::{
    fs::File,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use rustix::process::{Resource, getrlimit};

use crate::oci::Digest;

/// The most files that are kept. In memory each costs about 100 bytes, and the kernel's own.
const MOST: usize = 8192;

/// This part of the files that the process may have open is kept at most.
const PART: u64 = 4;

/// Files among which one digest is looked for.
const SET: usize = 8;

/// Open files by digest. Each digest has its place in one of many small sets, with a lock of its own.
#[derive(Debug)]
pub struct OpenFiles(Box<[Mutex<Vec<Kept>>]>);

#[derive(Debug)]
struct Kept {
    digest: Digest,
    file: Arc<File>,
}

impl OpenFiles {
    /// None yet, and never more than this process can spare.
    pub fn new() -> OpenFiles {
        let spare = getrlimit(Resource::Nofile).current.map_or(u64::MAX, |limit| limit / PART);
        OpenFiles::at_most(usize::try_from(spare).unwrap_or(MOST).min(MOST))
    }

    fn at_most(count: usize) -> OpenFiles {
        OpenFiles((0..count / SET).map(|_| Mutex::default()).collect())
    }

    /// The file of a digest, if it is kept.
    pub fn get(&self, digest: &Digest) -> Option<Arc<File>> {
        let mut set = self.set(digest)?;
        let place = set.iter().position(|kept| kept.digest == *digest)?;
        // What is not asked for moves to the end, and goes first.
        set.swap(0, place);
        set.first().map(|kept| Arc::clone(&kept.file))
    }

    /// Keeps a file if `is_here` says then that it is in its place.
    pub fn keep(&self, digest: &Digest, file: &Arc<File>, is_here: impl FnOnce() -> bool) {
        let Some(mut set) = self.set(digest) else {
            return;
        };
        if !is_here() {
            return;
        }
        let known = set.iter().position(|kept| kept.digest == *digest);
        let last = Some(SET - 1).filter(|last| *last < set.len());
        if let Some(replaced) = known.or(last) {
            set.swap_remove(replaced);
        }
        set.push(Kept { digest: digest.clone(), file: Arc::clone(file) });
    }

    /// Keeps the file of a digest no longer.
    pub fn let_go(&self, digest: &Digest) {
        if let Some(mut set) = self.set(digest) {
            set.retain(|kept| kept.digest != *digest);
        }
    }

    fn set(&self, digest: &Digest) -> Option<MutexGuard<'_, Vec<Kept>>> {
        let number = digest.as_bytes().first_chunk().copied().map(u16::from_le_bytes)?;
        let number = usize::from(number).checked_rem(self.0.len())?;
        let set = self.0.get(number)?;
        Some(set.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::Algorithm;

    fn digest(number: usize) -> Digest {
        Digest::of(Algorithm::Sha256, &number.to_le_bytes())
    }

    fn file() -> Arc<File> {
        Arc::new(tempfile::tempfile().unwrap())
    }

    #[test]
    fn a_file_is_kept_until_it_is_let_go() {
        let (files, kept) = (OpenFiles::new(), file());
        files.keep(&digest(0), &kept, || false);
        assert!(files.get(&digest(0)).is_none());
        files.keep(&digest(0), &kept, || true);
        assert!(Arc::ptr_eq(&files.get(&digest(0)).unwrap(), &kept));
        assert!(files.get(&digest(1)).is_none());
        let newer = file();
        files.keep(&digest(0), &newer, || true);
        assert!(Arc::ptr_eq(&files.get(&digest(0)).unwrap(), &newer));
        files.let_go(&digest(0));
        assert!(files.get(&digest(0)).is_none());
    }

    #[test]
    fn no_more_are_kept_than_may_be_and_those_stay_that_are_used() {
        for most in [0, SET - 1, 4 * SET] {
            let files = OpenFiles::at_most(most);
            files.keep(&digest(0), &file(), || true);
            for number in 1..1000 {
                files.keep(&digest(number), &file(), || true);
                assert_eq!(files.get(&digest(0)).is_some(), most >= SET);
            }
            let kept = (0..1000).filter(|number| files.get(&digest(*number)).is_some()).count();
            assert_eq!(kept, most / SET * SET);
        }
    }
}
