//! A body on its way from upstream, watched for silence.

use std::{sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use http_body::Body as _;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;

use super::{Error, client::causes, health::Health};

/// The body of a blob on its way from upstream.
#[derive(Debug)]
pub struct BlobBody {
    incoming: Incoming,
    size: Option<u64>,
    idle_timeout: Duration,
    health: Arc<Health>,
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
            idle_timeout,
            health,
            request,
            failure: None,
        }
    }

    /// What upstream says of the blob's size, in bytes.
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
                Ok(None) => return Ok(None),
                Ok(Some(Err(error))) => {
                    let what = format!("{}: the body broke off: {}", self.request, causes(&error));
                    return Err(Error::Unreachable(what));
                }
                Err(_) => {
                    let stall = self.idle_timeout;
                    let what = format!("{}: the body stalled for {stall:?}", self.request);
                    return Err(Error::Timeout(what));
                }
            };
            // What is no data is a trailer.
            if let Ok(data) = frame.into_data() {
                self.health.note_bytes(data.len());
                return Ok(Some(data));
            }
        }
    }

    fn too_long(&self, limit: u64) -> Error {
        Error::Invalid(format!("{}: the body is longer than {limit} bytes", self.request))
    }
}
