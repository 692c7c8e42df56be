//! A body on its way past the store to one client.
//!
//! Such a body holds a connection to upstream, of which there are few. A client that takes nothing,
//! and does not hang up either, would hold it for ever.

use std::{pin::pin, time::Duration};

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _, TryStreamExt as _, stream};
use tokio::sync::{OwnedSemaphorePermit, mpsc};

use super::resume::Supply;
use crate::upstream::{BlobBody, Error};

/// A body that lets go of upstream when the client takes nothing for too long.
pub(super) struct Relay {
    pieces: mpsc::Receiver<Piece>,
    patience: Duration,
}

/// `None` at the end.
type Piece = Result<Option<Bytes>, Error>;

impl Relay {
    /// One answer of upstream, good or bad. `slot` is free again when there is no more to read.
    pub(super) fn of(
        body: BlobBody,
        slot: Option<OwnedSemaphorePermit>,
        patience: Duration,
    ) -> Relay {
        let pieces = stream::try_unfold((body, slot), |(mut body, slot)| async move {
            let chunk = body.chunk().await?;
            Ok(chunk.map(|chunk| (chunk, (body, slot))))
        });
        Relay::start(pieces, patience)
    }

    /// A blob over as many answers as it takes.
    pub(super) fn supplied(supply: Supply, patience: Duration) -> Relay {
        let batches = stream::try_unfold(supply, |mut supply| async move {
            let batch = supply.next().await?;
            Ok::<_, Error>(batch.map(|batch| (stream::iter(batch.into_iter().map(Ok)), supply)))
        });
        Relay::start(batches.try_flatten(), patience)
    }

    /// Reads one piece ahead of the client, and gives up when it does not take one within
    /// `patience`. The source is dropped when there is no more to read.
    fn start(
        source: impl Stream<Item = Result<Bytes, Error>> + Send + 'static,
        patience: Duration,
    ) -> Relay {
        let (sender, pieces) = mpsc::channel(1);
        tokio::spawn(pass(source, sender, patience));
        Relay { pieces, patience }
    }

    /// The next bytes, or `None` at the end. That the client was too slow is an error, too.
    pub(super) async fn chunk(&mut self) -> Piece {
        let given_up = || {
            let what = "the client took nothing of a body that is passed to it for";
            Err(Error::Timeout(format!("{what} {:?}", self.patience)))
        };
        self.pieces.recv().await.unwrap_or_else(given_up)
    }
}

async fn pass(
    source: impl Stream<Item = Result<Bytes, Error>>,
    pieces: mpsc::Sender<Piece>,
    patience: Duration,
) {
    let mut source = pin!(source);
    loop {
        let piece = tokio::select! {
            piece = source.next() => piece.transpose(),
            () = pieces.closed() => return,
        };
        let is_last = !matches!(piece, Ok(Some(_)));
        if pieces.send_timeout(piece, patience).await.is_err() || is_last {
            return;
        }
    }
}
