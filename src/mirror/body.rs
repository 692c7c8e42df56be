//! A blob that can be sent, and where its bytes come from.

use std::{
    io,
    ops::Range,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use futures_util::Stream;

use super::{download::Growing, follower, passing::Untaken, stored::Stored};
use crate::sendfile::Outlet;

/// A body on its way to a client. An error cuts the connection: a client must never see a
/// failed body end normally.
pub type BlobStream = Pin<Box<dyn Stream<Item = io::Result<Bytes>> + Send>>;

/// A blob that can be sent.
pub struct Blob {
    size: Option<u64>,
    origin: Origin,
    delivery: Delivery,
}

/// How a blob that is read from a file gets to its client.
#[derive(Clone, Debug, Default)]
pub(super) struct Delivery {
    /// Takes pieces of files, where the client's connection does.
    pub(super) outlet: Option<Outlet>,
    /// What is passed from upstream instead.
    pub(super) ahead: AheadBytes,
}

/// Where the bytes of an answer come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The store.
    Cache,
    /// The store, behind a download.
    Download,
    /// Upstream, past the store.
    Upstream,
}

/// How many bytes of an answer from a file were passed from upstream, ahead of the file or instead of
/// it, so far; clones share the count.
#[derive(Clone, Debug, Default)]
pub struct AheadBytes(Arc<AtomicU64>);

/// What a blob is read from.
pub(super) enum Origin {
    Stored(Stored),
    /// Stored ahead of the client that reads it first.
    Prefetched(Stored),
    Growing(Growing),
    Untaken(Untaken),
}

impl Blob {
    /// A blob of `size` bytes, if that is known.
    pub(super) fn new(size: Option<u64>, origin: Origin) -> Blob {
        Blob { size, origin, delivery: Delivery::default() }
    }

    /// The same for a client whose connection takes pieces of files, if there is an outlet. Nothing may read
    /// the bodies that are made of it then, nor keep them from this connection.
    pub fn through(mut self, outlet: Option<Outlet>) -> Blob {
        self.delivery.outlet = outlet;
        self
    }

    /// In bytes; `None` when nobody knows before the end.
    pub fn size(&self) -> Option<u64> {
        self.size
    }

    /// Where the bytes come from, but for [`Blob::ahead_bytes`].
    pub fn source(&self) -> Source {
        match self.origin {
            Origin::Stored(_) => Source::Cache,
            Origin::Prefetched(_) | Origin::Growing(_) => Source::Download,
            Origin::Untaken(_) => Source::Upstream,
        }
    }

    /// The count of what is passed from upstream instead.
    pub fn ahead_bytes(&self) -> AheadBytes {
        self.delivery.ahead.clone()
    }

    /// All bytes.
    pub fn whole(self) -> BlobStream {
        match self.origin {
            Origin::Stored(stored) | Origin::Prefetched(stored) => {
                stored.part(0..stored.size(), self.delivery)
            }
            Origin::Growing(growing) => follower::whole(&growing, self.delivery),
            Origin::Untaken(mut untaken) => untaken.part(0..u64::MAX),
        }
    }

    /// The bytes of `range`, which lies within the size and is not empty.
    pub fn part(&mut self, range: Range<u64>) -> BlobStream {
        match &mut self.origin {
            Origin::Stored(stored) | Origin::Prefetched(stored) => {
                stored.part(range, self.delivery.clone())
            }
            Origin::Growing(growing) => follower::part(growing, range, self.delivery.clone()),
            Origin::Untaken(untaken) => untaken.part(range),
        }
    }
}

impl Source {
    /// As a label.
    pub fn as_str(self) -> &'static str {
        match self {
            Source::Cache => "cache",
            Source::Download => "download",
            Source::Upstream => "upstream",
        }
    }
}

impl AheadBytes {
    /// The count now.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    pub(super) fn add(&self, bytes: u64) {
        self.0.fetch_add(bytes, Ordering::Relaxed);
    }
}

/// Before a body fails, lets what was sent of it go out, and the head at the least: hyper drops
/// what it has not flushed, and flushes when it has to wait.
pub(super) async fn flushed<T>(piece: io::Result<T>) -> io::Result<T> {
    if piece.is_err() {
        tokio::task::yield_now().await;
    }
    piece
}
