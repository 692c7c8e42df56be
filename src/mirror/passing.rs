//! A blob that the store cannot take, on its way past it to one client.

use std::ops::Range;

use futures_util::{TryStreamExt as _, stream};

use super::{
    body::{BlobStream, flushed},
    checked::{Checked, broken, verify},
    relay::Relay,
    remote::Remote,
    resume::Supply,
};
use crate::upstream::BlobBody;

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
            let supply = Supply::of(whole, remote.clone());
            let whole = Some(Relay::supplied(supply, remote.patience));
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
        let is_first = whole.is_some();
        if let Some(whole) = whole.filter(|_| range.start == 0 || size.is_none()) {
            return Checked::whole(whole, remote, range).into_stream();
        }
        // By now the whole is let go: who waits for a connection must not hold one.
        let opened = async move {
            if let Some(size) = size
                && let Ok(part) = remote.part(&range, size).await
            {
                return Ok(unchecked(part, remote));
            }
            if is_first {
                return Ok(Checked::anew(remote, size, range).into_stream());
            }
            flushed(Err(broken())).await
        };
        Box::pin(stream::once(opened).try_flatten())
    }
}

/// A part as it comes. It has the right length, or fails.
pub(super) fn unchecked(part: BlobBody, remote: Remote) -> BlobStream {
    let part = Relay::of(part, None, remote.patience);
    Box::pin(stream::try_unfold((part, remote), |(mut part, remote)| async move {
        let piece = part.chunk().await.map_err(|error| {
            remote.report(&error);
            broken()
        });
        Ok(flushed(piece).await?.map(|piece| (piece, (part, remote))))
    }))
}
