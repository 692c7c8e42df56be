//! Downloads of which an earlier process had all the bytes, and did not live to publish them. Nobody may
//! ever ask for them again: they would lie there until they are too old.

use std::sync::Arc;

use super::{
    Mirror,
    blob::{File, Listed},
};
use crate::oci::{Digest, Repository};

impl Mirror {
    /// Publishes them in the background, one after the other. Upstream is asked only where the bytes
    /// turn out to be wrong.
    pub fn finish_whole_downloads(self: &Arc<Self>) {
        let mirror = Arc::clone(self);
        self.tasks.spawn(async move {
            let whole = mirror.store.whole_downloads().await;
            for (repository, digest) in whole.unwrap_or_default() {
                if mirror.stopping.is_cancelled() {
                    return;
                }
                if let Some(mut listed) = mirror.list_again(&repository, &digest) {
                    listed.run().await;
                }
            }
        });
    }

    /// `None`: it is not wanted any more, or a client was faster.
    fn list_again(self: &Arc<Self>, repository: &Repository, digest: &Digest) -> Option<Listed> {
        self.permit_repository(repository).ok()?;
        self.list_download(repository, digest, File::Absent).ok()?
    }
}
