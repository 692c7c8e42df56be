//! A body on its way past the store to one client.
//!
//! Such a body holds a connection to upstream, of which there are few. A client that takes nothing,
//! and does not hang up either, would hold it for ever.

use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, mpsc};

use crate::upstream::{self, BlobBody};

/// A body that lets go of upstream when the client takes nothing for too long.
pub(super) struct Relay {
    pieces: mpsc::Receiver<Piece>,
    patience: Duration,
}

/// As [`BlobBody::chunk`] gives it.
type Piece = Result<Option<Bytes>, upstream::Error>;

impl Relay {
    /// Reads `body` one piece ahead of the client, and gives up when it does not take one within
    /// `patience`. `slot` is free again when there is no more to read.
    pub(super) fn start(
        body: BlobBody,
        slot: Option<OwnedSemaphorePermit>,
        patience: Duration,
    ) -> Relay {
        let (sender, pieces) = mpsc::channel(1);
        tokio::spawn(pass(body, slot, sender, patience));
        Relay { pieces, patience }
    }

    /// As [`BlobBody::chunk`]. That the client was too slow is an error, too.
    pub(super) async fn chunk(&mut self) -> Piece {
        let given_up = || {
            let what = "the client took nothing of a body that is passed to it for";
            Err(upstream::Error::Timeout(format!("{what} {:?}", self.patience)))
        };
        self.pieces.recv().await.unwrap_or_else(given_up)
    }
}

async fn pass(
    mut body: BlobBody,
    _slot: Option<OwnedSemaphorePermit>,
    pieces: mpsc::Sender<Piece>,
    patience: Duration,
) {
    loop {
        let piece = tokio::select! {
            piece = body.chunk() => piece,
            () = pieces.closed() => return,
        };
        let is_last = !matches!(piece, Ok(Some(_)));
        if pieces.send_timeout(piece, patience).await.is_err() || is_last {
            return;
        }
    }
}
