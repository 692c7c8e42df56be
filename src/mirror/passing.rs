//! A blob that the store cannot take, on its way past it to one client.

use std::{io, ops::Range};

use bytes::Bytes;
use futures_util::{TryStreamExt as _, stream};

use super::{
    body::{BlobStream, flushed},
    download::Failure,
    relay::Relay,
    remote::Remote,
};
use crate::{oci::Hasher, upstream::BlobBody};

/// A blob that the store cannot take, for one client.
pub(super) struct Untaken {
    remote: Remote,
    size: Option<u64>,
    /// All of it, until some of it is asked for.
    whole: Option<Relay>,
}

impl Untaken {
    /// The blob with this body. `None`: the body is empty and the blob is not, which no held-back
    /// byte would tell the client.
    pub(super) fn new(whole: BlobBody, remote: Remote) -> Option<Untaken> {
        let size = whole.size();
        let is_right = size != Some(0) || verify(&remote, remote.digest.hasher()).is_ok();
        is_right.then(|| {
            let whole = Some(Relay::start(whole, None, remote.patience));
            Untaken { remote, size, whole }
        })
    }

    /// In bytes, as upstream announced it.
    pub(super) fn size(&self) -> Option<u64> {
        self.size
    }

    /// The bytes of `range`. From the beginning, they are read from the whole, whose last byte
    /// waits for the digest. Farther on, they are a request of their own and cannot be verified;
    /// if upstream does not give that to who asks first, all that is before them is read and dropped.
    pub(super) fn part(&mut self, range: Range<u64>) -> BlobStream {
        let (remote, size, whole) = (self.remote.clone(), self.size, self.whole.take());
        let opened = async move {
            let is_first = whole.is_some();
            if let Some(whole) = whole.filter(|_| range.start == 0 || size.is_none()) {
                return Ok(Checked::new(whole, remote, range).into_stream());
            }
            // By now the whole is let go: who waits for a connection must not hold one.
            if let Some(size) = size
                && let Ok(part) = remote.part(&range, size).await
            {
                return Ok(unchecked(part, remote));
            }
            if is_first && let Ok(whole) = remote.whole().await {
                let whole = Relay::start(whole, None, remote.patience);
                return Ok(Checked::new(whole, remote, range).into_stream());
            }
            flushed(Err(broken())).await
        };
        Box::pin(stream::once(opened).try_flatten())
    }
}

/// A part as it comes. It has the right length, or fails.
fn unchecked(part: BlobBody, remote: Remote) -> BlobStream {
    let part = Relay::start(part, None, remote.patience);
    Box::pin(stream::try_unfold((part, remote), |(mut part, remote)| async move {
        let piece = part.chunk().await.map_err(|error| {
            remote.report(&error);
            broken()
        });
        Ok(flushed(piece).await?.map(|piece| (piece, (part, remote))))
    }))
}

/// A whole body, of which the client gets `range`; the rest is hashed and dropped.
struct Checked {
    body: Relay,
    remote: Remote,
    /// Taken when the digest is compared.
    hasher: Option<Hasher>,
    /// What was received last, with its last byte, which waits for what comes next.
    held: Bytes,
    range: Range<u64>,
    offset: u64,
}

impl Checked {
    fn new(body: Relay, remote: Remote, range: Range<u64>) -> Checked {
        let hasher = Some(remote.digest.hasher());
        Checked { body, remote, hasher, held: Bytes::new(), range, offset: 0 }
    }

    fn into_stream(self) -> BlobStream {
        Box::pin(stream::try_unfold(self, |mut checked| async move {
            let piece = flushed(checked.next().await).await?;
            Ok(piece.map(|piece| (piece, checked)))
        }))
    }

    async fn next(&mut self) -> io::Result<Option<Bytes>> {
        while self.offset < self.range.end {
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

fn verify(remote: &Remote, hasher: Hasher) -> io::Result<()> {
    let actual = hasher.finish();
    if actual != remote.digest {
        return Err(failed(remote, &Failure::Digest(actual)));
    }
    Ok(())
}

fn failed(remote: &Remote, failure: &Failure) -> io::Error {
    failure.report(&remote.metrics, &remote.repository, &remote.digest);
    broken()
}

fn broken() -> io::Error {
    io::Error::other("upstream broke off the blob or sent wrong bytes")
}
