//! A blob as upstream has it.

use std::{ops::Range, sync::Arc, time::Duration};

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::ANSWER_DEADLINE;
use crate::{
    metrics::Metrics,
    oci::{Digest, Repository},
    upstream::{self, BlobBody, Upstream},
};

/// A blob in the repository that one client asks for, to be asked for on its behalf.
#[derive(Clone)]
pub(super) struct Remote {
    pub(super) upstream: Upstream,
    pub(super) repository: Repository,
    pub(super) digest: Digest,
    pub(super) metrics: Arc<Metrics>,
    /// How long the client may take nothing of what is passed to it.
    pub(super) patience: Duration,
    /// How often an endpoint is asked in vain to go on.
    pub(super) retries: u32,
    /// From when on nothing is asked for that is not on its way.
    pub(super) stopping: CancellationToken,
}

impl Remote {
    /// A GET of `range`, if the blob has `size` bytes. That upstream does not give it is reported.
    pub(super) async fn part(
        &self,
        range: &Range<u64>,
        size: u64,
    ) -> Result<BlobBody, upstream::Error> {
        let name = self.repository.name();
        let deadline = Instant::now() + ANSWER_DEADLINE;
        let part = self.upstream.get_blob_part(name, &self.digest, range, size, deadline).await;
        part.inspect_err(|error| self.report(error))
    }

    /// Counts and logs that upstream did not give a part. There is another way to its bytes as a
    /// rule, so this is no warning.
    pub(super) fn report(&self, error: &upstream::Error) {
        let registry = self.repository.registry().as_str();
        self.metrics.download_failures.with_label_values(&[registry, "range"]).inc();
        let (repository, digest) = (&self.repository, &self.digest);
        tracing::debug!(%repository, %digest, %error, "upstream did not give a part of a blob");
    }
}
