//! A body that passes the store, hashed on its way to one client.

use std::{io, ops::Range};

use bytes::Bytes;
use futures_util::stream;

use super::{
    body::{BlobStream, flushed},
    download::Failure,
    relay::Relay,
    remote::Remote,
    resume::Supply,
};
use crate::{oci::Hasher, store::Hashed, upstream::Rest};

/// A body that ends where the blob ends, of which the client gets `range`; the rest is hashed and
/// dropped. The last byte waits for the digest.
pub(super) struct Checked {
    body: Relay,
    remote: Remote,
    /// Of all before `offset`, and of what is held. Taken at the end, to compare the digest.
    hasher: Option<Hasher>,
    /// What was received last, with its last byte, which waits for what comes next.
    held: Bytes,
    range: Range<u64>,
    /// How far the client's range has been served or passed over.
    offset: u64,
}

impl Checked {
    /// All of a blob, from this body.
    pub(super) fn whole(body: Relay, remote: Remote, range: Range<u64>) -> Checked {
        let hasher = Some(remote.digest.hasher());
        Checked { body, remote, hasher, held: Bytes::new(), range, offset: 0 }
    }

    /// All of a blob of `size` bytes, to be asked for.
    pub(super) fn anew(remote: Remote, size: Option<u64>, range: Range<u64>) -> Checked {
        let supply = Supply::rest(Rest { start: 0, size }, remote.clone());
        let body = Relay::supplied(supply, remote.patience);
        Checked::whole(body, remote, range)
    }

    /// What comes after the bytes that are hashed, to be asked for. `held` are the last of these, which
    /// the client does not have yet.
    pub(super) fn rest(
        remote: Remote,
        size: Option<u64>,
        hashed: Hashed,
        held: Bytes,
        range: Range<u64>,
    ) -> Checked {
        let rest = Rest { start: hashed.length, size };
        let body = Relay::supplied(Supply::rest(rest, remote.clone()), remote.patience);
        let offset = hashed.length.saturating_sub(held.len() as u64);
        Checked { body, remote, hasher: Some(hashed.hasher), held, range, offset }
    }

    pub(super) fn into_stream(self) -> BlobStream {
        Box::pin(stream::try_unfold(self, |mut checked| async move {
            let piece = flushed(checked.next().await).await?;
            Ok(piece.map(|piece| (piece, checked)))
        }))
    }

    async fn next(&mut self) -> io::Result<Option<Bytes>> {
        while self.hasher.is_some() && self.offset < self.range.end {
            let chunk = self.body.chunk().await;
            let chunk = chunk.map_err(|error| failed(&self.remote, &Failure::Upstream(error)))?;
            let Some(chunk) = chunk else {
                return self.finish();
            };
            let released = self.exchange(chunk);
            let wanted = self.cut_to_range(released);
            if !wanted.is_empty() {
                return Ok(Some(wanted));
            }
        }
        Ok(None)
    }

    /// Takes a chunk in and gives out what may go: all that was held and the chunk, less the
    /// last byte.
    fn exchange(&mut self, chunk: Bytes) -> Bytes {
        if let Some(hasher) = &mut self.hasher {
            hasher.update(&chunk);
        }
        if chunk.is_empty() {
            return Bytes::new();
        }
        let mut released = Vec::with_capacity(self.held.len() + chunk.len());
        released.extend_from_slice(&self.held);
        released.extend_from_slice(&chunk);
        let mut released = Bytes::from(released);
        self.held = released.split_off(released.len() - 1);
        released
    }

    /// The last byte, if the content is right.
    fn finish(&mut self) -> io::Result<Option<Bytes>> {
        let Some(hasher) = self.hasher.take() else {
            return Ok(None);
        };
        verify(&self.remote, hasher)?;
        let last = std::mem::take(&mut self.held);
        let wanted = self.cut_to_range(last);
        Ok(Some(wanted).filter(|wanted| !wanted.is_empty()))
    }

    fn cut_to_range(&mut self, mut piece: Bytes) -> Bytes {
        let start = self.offset;
        let end = start.saturating_add(piece.len() as u64);
        self.offset = end;
        let keep_from = self.range.start.clamp(start, end) - start;
        let keep_to = self.range.end.clamp(start, end) - start;
        // Both lie within the piece, whose length is a usize.
        piece.truncate(keep_to as usize);
        piece.split_off((keep_from as usize).min(piece.len()))
    }
}

/// Compares the digest; a wrong one is reported.
pub(super) fn verify(remote: &Remote, hasher: Hasher) -> io::Result<()> {
    let actual = hasher.finish();
    if actual != remote.digest {
        return Err(failed(remote, &Failure::Digest { actual, sender: None }));
    }
    Ok(())
}

fn failed(remote: &Remote, failure: &Failure) -> io::Error {
    failure.report(&remote.metrics, &remote.repository, &remote.digest);
    broken()
}

/// Why such a body is cut.
pub(super) fn broken() -> io::Error {
    io::Error::other("upstream broke off the blob or sent wrong bytes")
}
