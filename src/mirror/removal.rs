//! Removal by hand: what is gone from the store is not served from memory either.

use super::Mirror;
use crate::store::{CannotRemove, Removal, Target};

impl Mirror {
    /// Removes everything that only `target` needs, so that the next pull of it asks upstream.
    ///
    /// # Errors
    /// Why nothing was removed, or what the disk says.
    pub async fn remove(&self, target: &Target) -> Result<Removal, CannotRemove> {
        let removed = self.store.remove(target).await;
        self.forget_answers();
        removed
    }

    /// All of them: they only save time, and things are seldom removed by hand.
    fn forget_answers(&self) {
        self.manifests.invalidate_all();
        self.announcements.invalidate_all();
        self.lists.invalidate_all();
        self.empty_lists.invalidate_all();
        self.missing.forget_all();
    }
}
