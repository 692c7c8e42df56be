//! Taking names out of `index.json` before the files go that they name.

use std::sync::Arc;

use super::{Shared, memory::STEP};
use crate::oci::Digest;

/// While it lives, `index.json` names none of its manifests. What is still here when the last that has
/// it is dropped is named again.
#[derive(Debug)]
pub struct Withdrawal {
    store: Arc<Shared>,
    named: Vec<Digest>,
}

impl Withdrawal {
    /// Withdraws those of `digests` that are manifests, and writes `index.json` if it may name one.
    ///
    /// Where that cannot be written, it names for a while what is gone: a full disk must be swept
    /// nevertheless, and a reader of an image layout must expect blobs to be missing (image-spec,
    /// image-layout.md, "Blobs"). Blocking.
    pub fn of(store: Arc<Shared>, digests: &[Digest]) -> Withdrawal {
        let mut named = Vec::new();
        let mut digests = digests.chunks(STEP);
        store
            .memory
            .walk((), |table, ()| digests.next().map(|some| named.extend(table.withdraw(some))));
        if !named.is_empty()
            && let Err(error) = store.layout.write()
        {
            tracing::warn!(%error, "index.json names what is about to be removed");
        }
        Withdrawal { store, named }
    }
}

impl Drop for Withdrawal {
    fn drop(&mut self) {
        let mut named = self.named.chunks(STEP);
        self.store.memory.walk((), |table, ()| named.next().map(|some| table.readmit(some)));
    }
}
