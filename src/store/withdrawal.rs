//! Taking names out of `index.json` before the files go that they name.

use std::sync::Arc;

use super::Shared;
use crate::oci::Digest;

/// Digests stepped through under one lock of the table.
const STEP: usize = 4096;

/// While it lives, `index.json` names none of its manifests. What is still here when it is dropped is
/// named again.
#[derive(Debug)]
pub struct Withdrawal {
    store: Arc<Shared>,
    digests: Vec<Digest>,
}

impl Withdrawal {
    /// Withdraws those of `digests` that are manifests, and writes `index.json` if it may name one.
    ///
    /// Where that cannot be written, it names for a while what is gone: a full disk must be swept
    /// nevertheless, and a reader of an image layout must expect blobs to be missing (image-spec,
    /// image-layout.md, "Blobs"). Blocking.
    pub fn of(store: Arc<Shared>, digests: Vec<Digest>) -> Withdrawal {
        let mut is_named = false;
        for some in digests.chunks(STEP) {
            is_named |= store.memory.with(|table| table.withdraw(some));
        }
        if is_named && let Err(error) = store.layout.write() {
            tracing::warn!(%error, "index.json names what is about to be removed");
        }
        Withdrawal { store, digests }
    }
}

impl Drop for Withdrawal {
    fn drop(&mut self) {
        for some in self.digests.chunks(STEP) {
            self.store.memory.with(|table| table.readmit(some));
        }
    }
}
