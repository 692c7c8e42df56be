//! Several parts of a blob in one body: `multipart/byteranges` (RFC 9110, section 14.6).

use std::{
    hash::{BuildHasher as _, RandomState},
    io,
    ops::Range,
};

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _, future, stream};

use super::blob::content_range;
use crate::mirror::{Blob, BlobStream};

/// Ends each part's bytes, which need not end with a line.
const LINE_END: &str = "\r\n";

/// The parts of one answer.
pub(super) struct Multipart {
    /// Between the parts. Random, so that no content can hold it on purpose; hexadecimal digits,
    /// since some clients do not take a quoted one.
    boundary: String,
    parts: Vec<Range<u64>>,
    /// Of the blob, in bytes.
    size: u64,
}

impl Multipart {
    /// `parts` of a blob of `size` bytes.
    pub(super) fn new(parts: &[Range<u64>], size: u64) -> Multipart {
        let random = || RandomState::new().hash_one(size);
        let boundary = format!("{:016x}{:016x}", random(), random());
        Multipart { boundary, parts: parts.to_vec(), size }
    }

    /// The answer's `Content-Type`.
    pub(super) fn content_type(&self) -> String {
        format!("multipart/byteranges; boundary={}", self.boundary)
    }

    /// The answer's length, in bytes. `None` when it is no `u64`.
    pub(super) fn length(&self) -> Option<u64> {
        let tail = self.tail().len() as u64;
        self.parts.iter().try_fold(tail, |sum, part| {
            let frame = self.head(part).len() + LINE_END.len();
            let bytes = part.end.checked_sub(part.start)?;
            sum.checked_add(frame as u64)?.checked_add(bytes)
        })
    }

    /// The answer's body. Each part is begun when the one before it has ended, and would not know that the
    /// file was cut while the kernel sent it: so none is sent by the kernel.
    pub(super) fn into_stream(self, blob: Blob) -> BlobStream {
        let mut blob = blob.through(None);
        let tail = text(self.tail());
        let parts = self.parts.clone();
        let framed = move |part: Range<u64>| {
            text(self.head(&part)).chain(blob.part(part)).chain(text(LINE_END))
        };
        Box::pin(stream::iter(parts).flat_map(framed).chain(tail))
    }

    fn head(&self, part: &Range<u64>) -> String {
        let (boundary, range) = (&self.boundary, content_range(part, self.size));
        format!(
            "--{boundary}\r\nContent-Type: application/octet-stream\r\n\
             Content-Range: {range}\r\n\r\n"
        )
    }

    fn tail(&self) -> String {
        format!("--{}--\r\n", self.boundary)
    }
}

fn text(text: impl Into<Bytes>) -> impl Stream<Item = io::Result<Bytes>> {
    stream::once(future::ok(text.into()))
}
