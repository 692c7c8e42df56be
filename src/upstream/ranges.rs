//! Blobs in parts: one request for each, and which endpoints are known not to give them.

use std::{
    ops::Range,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use super::{BlobBody, Error, Place, Upstream, endpoint::Ask};
use crate::oci::{Digest, Name};

/// How long an endpoint is remembered that gave no part, or a wrong one. It may have been put right.
const MEMORY: Duration = Duration::from_secs(3600);

/// Whether one endpoint gives parts.
#[derive(Debug, Default)]
pub(super) struct Ranges {
    /// When it last did not.
    missed: Mutex<Option<Instant>>,
}

impl Ranges {
    fn are_given(&self) -> bool {
        let missed = self.missed.lock().unwrap_or_else(PoisonError::into_inner);
        missed.is_none_or(|missed| missed.elapsed() >= MEMORY)
    }

    fn note_missed(&self) {
        *self.missed.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }
}

impl Upstream {
    /// GET of `range`, which lies within the blob and is not empty, of a blob of `size` bytes, from one
    /// endpoint only, as [`Upstream::get_blob_rest`] asks it. The body fails unless it has the range's
    /// length.
    pub async fn get_blob_part_from(
        &self,
        place: Place,
        name: &Name,
        digest: &Digest,
        range: &Range<u64>,
        size: u64,
        limit: Duration,
    ) -> Result<BlobBody, Error> {
        let ask = Ask::blob_get(name, digest).part(range);
        self.ask_only(place, &ask, limit).await?.part_body(range, size)
    }

    /// Whether this endpoint gives parts of blobs, as far as anybody knows.
    pub fn gives_parts(&self, place: Place) -> bool {
        self.ranges(place).is_some_and(Ranges::are_given)
    }

    /// Remembers that this endpoint gave no part when it was asked for one, or a wrong one.
    pub fn distrust_parts(&self, place: Place) {
        self.ranges(place).into_iter().for_each(Ranges::note_missed);
    }

    fn ranges(&self, place: Place) -> Option<&Ranges> {
        self.inner.endpoints.get(place.0).map(|endpoint| endpoint.ranges())
    }
}
