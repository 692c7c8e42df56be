//! Files that were found on disk without anyone's word for what is in them: after a crash those that
//! the index had not heard of yet, after its loss all of them.

use super::{Table, slots::Id};
use crate::{oci::Digest, store::running::Moment};

impl Table {
    /// A file of this name was found, and counts as used `now`.
    pub fn adopt(&mut self, digest: &Digest, size: u64, now: Moment) {
        self.put_blob(digest, size, now);
        self.adopted.extend(self.slots.find(digest));
    }

    /// Whether the file of a digest was found, and not hashed since.
    pub fn is_adopted(&self, digest: &Digest) -> bool {
        !self.adopted.is_empty()
            && self.slots.find(digest).is_some_and(|id| self.adopted.contains(&id))
    }

    /// The file of a digest was hashed and is right.
    pub fn mark_verified(&mut self, digest: &Digest) {
        if !self.adopted.is_empty()
            && let Some(id) = self.slots.find(digest)
        {
            self.adopted.remove(&id);
        }
    }

    /// Some file that was found, and not hashed since.
    pub fn some_adopted(&self) -> Option<&Digest> {
        let id: &Id = self.adopted.first()?;
        self.slots.get(*id).map(|slot| &slot.digest)
    }
}
