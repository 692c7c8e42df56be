//! A client that reads a blob from the store.

use std::{io, ops::Range};

use bytes::Bytes;
use futures_util::{TryStreamExt as _, stream};

use super::{
    alone::Alone,
    body::{AheadBytes, BlobStream, Delivery, flushed},
    pieces::Pieces,
    remote::Remote,
};
use crate::store::BlobReader;

/// A blob of the store, and where else it can be had.
pub(super) struct Stored {
    reader: BlobReader,
    remote: Remote,
}

impl Stored {
    pub(super) fn new(reader: BlobReader, remote: Remote) -> Stored {
        Stored { reader, remote }
    }

    /// In bytes.
    pub(super) fn size(&self) -> u64 {
        self.reader.size()
    }

    /// The bytes of `range`. What the disk does not give comes from upstream, and is counted.
    pub(super) fn part(&self, range: Range<u64>, delivery: Delivery) -> BlobStream {
        let reading = Reading {
            pieces: Pieces::new(self.reader.clone(), delivery.outlet),
            size: self.size(),
            remote: self.remote.clone(),
            rest: range,
            alone: None,
            from_upstream: delivery.ahead,
        };
        Box::pin(stream::try_unfold(reading, |mut reading| async move {
            let piece = flushed(reading.next().await).await?;
            Ok(piece.map(|piece| (piece, reading)))
        }))
    }
}

/// One client's way through the file.
struct Reading {
    pieces: Pieces,
    /// Of the blob, in bytes.
    size: u64,
    remote: Remote,
    rest: Range<u64>,
    /// The rest, since the file could not be read.
    alone: Option<BlobStream>,
    from_upstream: AheadBytes,
}

impl Reading {
    async fn next(&mut self) -> io::Result<Option<Bytes>> {
        let alone = match &mut self.alone {
            Some(alone) => alone,
            None => match self.pieces.next(&mut self.rest).await {
                Err(error) if self.pieces.can_be_replaced(&error) => {
                    self.alone.insert(self.instead())
                }
                read => return read,
            },
        };
        let piece = alone.try_next().await?;
        self.from_upstream.add(piece.as_ref().map_or(0, |piece| piece.len() as u64));
        Ok(piece)
    }

    fn instead(&self) -> BlobStream {
        let (size, wanted) = (Some(self.size), self.rest.clone());
        Alone { remote: self.remote.clone(), size, wanted }.instead()
    }
}
