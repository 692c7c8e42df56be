//! Hashes one blob after another, and sets aside what is damaged.

use std::{fs, io};

use crate::{
    oci::Digest,
    store::{
        Shared,
        damage::Damage,
        rehash::{Examined, Rehash},
    },
};

/// How many blobs in a row may be unreadable before it is the disk that fails, and not they.
const MAX_UNREADABLE: u32 = 3;

/// Hashes blobs piece by piece.
#[derive(Debug, Default)]
pub struct Examiner {
    running: Option<Rehash>,
    unreadable: u32,
}

/// What was done at once.
#[derive(Debug, Default)]
pub struct Step {
    /// Bytes that were read.
    pub bytes: u64,
    /// The blob that this was the last step of.
    pub ended: Option<Ended>,
}

/// A blob that was examined.
#[derive(Debug)]
pub struct Ended {
    pub digest: Digest,
    /// What is wrong with it. It is here no longer, then.
    pub damage: Option<Damage>,
}

impl Examiner {
    /// Takes the next step: on with the blob at hand, or to the `next`. `None`: there is none.
    /// Blocking.
    ///
    /// # Errors
    /// When the disk fails, so that it cannot be told what is damaged.
    pub fn step(
        &mut self,
        store: &Shared,
        next: impl FnOnce() -> Option<Digest>,
    ) -> io::Result<Option<Step>> {
        let Some(rehash) = &mut self.running else {
            return next().map(|digest| self.begin(store, digest)).transpose();
        };
        let before = rehash.left();
        let examined = rehash.step();
        let bytes = before.saturating_sub(rehash.left());
        let ended = match examined {
            Some(examined) => self.conclude(store, examined)?,
            None => None,
        };
        Ok(Some(Step { bytes, ended }))
    }

    fn begin(&mut self, store: &Shared, digest: Digest) -> io::Result<Step> {
        self.running = Rehash::begin(store, &digest)?;
        if self.running.is_some() {
            return Ok(Step::default());
        }
        let is_lost = store.lose_if_gone(&digest)?;
        let damage = (is_lost && is_denied(store, &digest))
            .then(|| Damage::Unreadable(io::ErrorKind::PermissionDenied.into()));
        Ok(Step { bytes: 0, ended: Some(Ended { digest, damage }) })
    }

    fn conclude(&mut self, store: &Shared, examined: Examined) -> io::Result<Option<Ended>> {
        let Some(rehash) = self.running.take() else {
            return Ok(None);
        };
        let digest = rehash.digest().clone();
        let Err(damage) = examined else {
            self.unreadable = 0;
            store.memory.with(|table| table.mark_verified(&digest));
            return Ok(Some(Ended { digest, damage: None }));
        };
        if let Damage::Unreadable(error) = damage {
            self.unreadable = self.unreadable.saturating_add(1);
            if self.unreadable > MAX_UNREADABLE {
                return Err(error);
            }
            return self.set_aside(store, &rehash, Damage::Unreadable(error)).map(Some);
        }
        self.set_aside(store, &rehash, damage).map(Some)
    }

    fn set_aside(&self, store: &Shared, rehash: &Rehash, damage: Damage) -> io::Result<Ended> {
        let digest = rehash.digest().clone();
        // One that left or was replaced meanwhile is not what was hashed.
        let was_there = store.quarantine(&digest, rehash.file(), &damage)?;
        Ok(Ended { digest, damage: was_there.then_some(damage) })
    }
}

/// Whether there is a file that this user may not read.
fn is_denied(store: &Shared, digest: &Digest) -> bool {
    fs::symlink_metadata(store.directory.blob(digest)).is_ok()
}
