//! A body on its way from upstream, watched for silence.

use std::{sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use http_body::Body as _;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;

use super::{Error, Place, client::causes, connections::Connection, health::Health};

/// The body of a blob on its way from upstream.
#[derive(Debug)]
pub struct BlobBody {
    incoming: Incoming,
    /// The endpoint that was asked for it.
    pub(super) place: Place,
    size: Option<u64>,
    /// Bytes still to come that nobody wants.
    unwanted: u64,
    /// Bytes still to come, where the answer's head tells so in other words than its length.
    left: Option<u64>,
    idle_timeout: Duration,
    health: Arc<Health>,
    /// Until the end has come.
    connection: Option<Connection>,
    /// The request, for the text of errors.
    request: String,
    /// The first failure, which is final: after it the body has no end that could be mistaken for
    /// a good one.
    failure: Option<Error>,
}

impl BlobBody {
    pub(super) fn new(
        incoming: Incoming,
        request: String,
        idle_timeout: Duration,
        health: Arc<Health>,
    ) -> BlobBody {
        BlobBody {
            size: incoming.size_hint().exact(),
            incoming,
            place: Place::default(),
            unwanted: 0,
            left: None,
            idle_timeout,
            health,
            connection: None,
            request,
            failure: None,
        }
    }

    /// Keeps this connection until the body has ended, or is dropped.
    pub(super) fn hold(&mut self, connection: Connection) {
        self.connection = Some(connection).filter(|_| !self.incoming.is_end_stream());
    }

    /// The same body, which fails unless it has exactly `length` bytes.
    pub(super) fn exactly(self, length: u64) -> BlobBody {
        BlobBody { left: Some(length), ..self }
    }

    /// The same body without its first `unwanted` bytes, which come all the same. It fails unless
    /// upstream sends exactly `length` bytes, if that is known.
    pub(super) fn without_first(self, unwanted: u64, length: Option<u64>) -> BlobBody {
        BlobBody { unwanted, left: length, ..self }
    }

    /// The endpoint that was asked for it.
    pub fn place(&self) -> Place {
        self.place
    }

    /// The length that upstream announced, in bytes: the blob's size, if it is the body of a whole
    /// blob.
    pub fn size(&self) -> Option<u64> {
        self.size
    }

    /// The next bytes, or `None` at the end. A body shorter than its announced length, a stall of
    /// `idle_timeout` and a cut connection are errors.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, Error> {
        if let Some(failure) = &self.failure {
            return Err(failure.clone());
        }
        match self.next_chunk().await {
            Ok(chunk) => Ok(chunk),
            Err(failure) => {
                self.failure = Some(failure.clone());
                Err(failure)
            }
        }
    }

    /// The whole body, which is refused as invalid when it is longer than `limit` bytes.
    pub(super) async fn collect(mut self, limit: u64) -> Result<Bytes, Error> {
        let mut bytes = BytesMut::new();
        if self.size.is_some_and(|size| size > limit) {
            return Err(self.too_long(limit));
        }
        while let Some(chunk) = self.chunk().await? {
            bytes.extend_from_slice(&chunk);
            if u64::try_from(bytes.len()).is_ok_and(|length| length > limit) {
                return Err(self.too_long(limit));
            }
        }
        Ok(bytes.freeze())
    }

    async fn next_chunk(&mut self) -> Result<Option<Bytes>, Error> {
        loop {
            let frame = match tokio::time::timeout(self.idle_timeout, self.incoming.frame()).await {
                Ok(Some(Ok(frame))) => frame,
                Ok(None) if self.left.is_some_and(|left| left > 0) => {
                    return Err(self.broke_off("it is shorter than its range"));
                }
                Ok(None) if self.unwanted > 0 => {
                    return Err(self.broke_off("it is shorter than what is here already"));
                }
                Ok(None) => {
                    self.connection = None;
                    return Ok(None);
                }
                Ok(Some(Err(error))) => return Err(self.broke_off(&causes(&error))),
                Err(_) => {
                    let stall = self.idle_timeout;
                    let what = format!("{}: the body stalled for {stall:?}", self.request);
                    return Err(Error::Timeout(what));
                }
            };
            if self.incoming.is_end_stream() {
                self.connection = None;
            }
            // What is no data is a trailer.
            if let Ok(data) = frame.into_data() {
                self.health.note_bytes(data.len());
                self.count_down(data.len())?;
                if let Some(wanted) = self.cut_to_wanted(data) {
                    return Ok(Some(wanted));
                }
            }
        }
    }

    /// `None`: nothing of it is wanted.
    fn cut_to_wanted(&mut self, mut data: Bytes) -> Option<Bytes> {
        let unwanted = usize::try_from(self.unwanted).unwrap_or(usize::MAX).min(data.len());
        self.unwanted = self.unwanted.saturating_sub(unwanted as u64);
        let wanted = data.split_off(unwanted);
        (unwanted == 0 || !wanted.is_empty()).then_some(wanted)
    }

    fn count_down(&mut self, bytes: usize) -> Result<(), Error> {
        if let Some(left) = self.left {
            let less = left.checked_sub(bytes as u64);
            self.left = Some(less.ok_or_else(|| self.broke_off("it is longer than its range"))?);
        }
        Ok(())
    }

    fn broke_off(&self, why: &str) -> Error {
        Error::momentary(format!("{}: the body broke off: {why}", self.request))
    }

    fn too_long(&self, limit: u64) -> Error {
        Error::Invalid(format!("{}: the body is longer than {limit} bytes", self.request))
    }
}
