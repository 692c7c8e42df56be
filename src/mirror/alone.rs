//! A client whose file fails it in mid-body, and who goes on from upstream alone.
//!
//! What it has is not sent again, and what it gets is verified with it: the hash goes on from where the
//! writer of the file had to leave it. Where nobody has the hash of the bytes before, all of the blob
//! is fetched once more, hashed, and what the client has of it dropped.

use std::ops::Range;

use bytes::Bytes;
use futures_util::FutureExt as _;

use super::{
    body::BlobStream, checked::Checked, download::Stranded, passing::unchecked, remote::Remote,
};
use crate::store::Hashed;

/// A rest that begins no farther behind what is hashed is fetched with what is between, in bytes.
const NEAR: u64 = 4 * 1024 * 1024;

/// What a client still wants of a blob, and what is known of what comes before.
pub(super) struct Alone {
    pub(super) remote: Remote,
    /// Of the whole blob, in bytes.
    pub(super) size: Option<u64>,
    /// What the client still wants. Where the size is not known, its end is of no account.
    pub(super) wanted: Range<u64>,
}

impl Alone {
    /// Goes on behind a download that the disk stopped. `held` are the bytes from where the client is to
    /// where the download came.
    pub(super) fn after(self, stranded: &Stranded, held: Bytes) -> BlobStream {
        self.count(stranded.reason);
        match stranded.hashed.clone() {
            Some(hashed) if self.is_near(&hashed, &held) => self.hashed(hashed, held),
            Some(_) | None => self.anywhere(),
        }
    }

    /// Goes on where a file could not be read.
    pub(super) fn instead(self) -> BlobStream {
        self.count("disk");
        self.anywhere()
    }

    fn count(&self, reason: &str) {
        self.remote.metrics.passthrough.with_label_values(&[reason]).inc();
    }

    fn is_near(&self, hashed: &Hashed, held: &Bytes) -> bool {
        let from = hashed.length.saturating_sub(held.len() as u64);
        let gap = self.wanted.start.checked_sub(from);
        gap.is_some_and(|gap| gap <= NEAR)
    }

    fn hashed(self, hashed: Hashed, held: Bytes) -> BlobStream {
        Checked::rest(self.remote, self.size, hashed, held, self.wanted).into_stream()
    }

    /// A part that ends before the blob does cannot be verified anyway.
    fn anywhere(self) -> BlobStream {
        let Alone { remote, size, wanted } = self;
        let opened = async move {
            if let Some(size) = size.filter(|size| wanted.end < *size)
                && let Ok(part) = remote.part(&wanted, size).await
            {
                return unchecked(part, remote);
            }
            Checked::anew(remote, size, wanted).into_stream()
        };
        Box::pin(opened.flatten_stream())
    }
}
