//! A client that reads a blob from the store.

use std::{io, ops::Range};

use bytes::Bytes;
use futures_util::{TryStreamExt as _, stream};

use super::{
    alone::Alone,
    body::{AheadBytes, BlobStream, flushed, read_piece},
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
    pub(super) fn part(&self, range: Range<u64>, from_upstream: AheadBytes) -> BlobStream {
        let (reader, remote) = (self.reader.clone(), self.remote.clone());
        let reading = Reading { reader, remote, rest: range, alone: None, from_upstream };
        Box::pin(stream::try_unfold(reading, |mut reading| async move {
            let piece = flushed(reading.next().await).await?;
            Ok(piece.map(|piece| (piece, reading)))
        }))
    }
}

/// One client's way through the file.
struct Reading {
    reader: BlobReader,
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
            None => match read_piece(&self.reader, &mut self.rest).await {
                Err(_) => self.alone.insert(self.instead()),
                read => return read,
            },
        };
        let piece = alone.try_next().await?;
        self.from_upstream.add(piece.as_ref().map_or(0, |piece| piece.len() as u64));
        Ok(piece)
    }

    fn instead(&self) -> BlobStream {
        let (size, wanted) = (Some(self.reader.size()), self.rest.clone());
        Alone { remote: self.remote.clone(), size, wanted }.instead()
    }
}
