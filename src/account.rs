//! What a request came to: counted, timed and logged when its answer has ended, however it ended.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Instant,
};

use bytes::Bytes;
use http::{Method, StatusCode, Uri, header};
use http_body::{Frame, SizeHint};

use crate::{
    access::Peer,
    metrics::Metrics,
    mirror::{AheadBytes, Source},
    oci::Registry,
    pulls::{Outcome, PulledBlob, Puller, Pulls, Sent},
    response::Body,
};

/// A body that tells its [`Account`] what was sent.
pub struct Accounted {
    body: Body,
    account: Account,
}

/// The account of one request, closed when dropped.
pub struct Account {
    metrics: Arc<Metrics>,
    method: Method,
    /// Without the query, which may hold what is nobody's business. A copy: what is parsed of a head keeps all
    /// of it in memory, and a body may take hours.
    path: Box<str>,
    peer: Peer,
    started: Instant,
    /// The endpoint's name, as a label.
    pub endpoint: &'static str,
    /// What was served, if anything.
    pub content: Option<Served>,
    /// The blob of a pull that is asked for.
    pub part: Option<Part>,
    /// `None` until there is an answer: the client may hang up first.
    status: Option<StatusCode>,
    /// What the answer's `Content-Length` promises.
    promised: Option<u64>,
    /// Whether the content's end is in the body.
    has_end: bool,
    sent: Sent,
}

/// Content that is served, for the byte counters.
pub struct Served {
    /// Where it is from.
    pub registry: Registry,
    /// `manifest` or `blob`.
    pub kind: &'static str,
    /// Whether it had to be fetched.
    pub source: Source,
    /// How much of it came from upstream instead.
    pub ahead: AheadBytes,
}

/// A blob that belongs to a pull.
pub struct Part {
    pulls: Pulls,
    puller: Puller,
    blob: PulledBlob,
}

impl Account {
    /// Opens the account of a request that has just come in.
    pub fn open(metrics: Arc<Metrics>, method: Method, uri: &Uri, peer: Peer) -> Account {
        Account {
            metrics,
            method,
            path: uri.path().into(),
            peer,
            started: Instant::now(),
            endpoint: "other",
            content: None,
            part: None,
            status: None,
            promised: None,
            has_end: false,
            sent: Sent { bytes: 0, outcome: Outcome::Partial },
        }
    }

    /// Attaches the account to the answer.
    pub fn attach(mut self, response: http::Response<Body>) -> http::Response<Accounted> {
        self.status = Some(response.status());
        self.has_end = has_end(&response);
        let length = response.headers().get(header::CONTENT_LENGTH);
        self.promised = length.and_then(|length| length.to_str().ok()?.parse().ok());
        response.map(|body| Accounted { body, account: self })
    }

    /// Notes that so many more bytes were sent. A body is dropped without being asked for its
    /// end once the promised length is reached.
    fn add(&mut self, bytes: usize) {
        self.sent.bytes = self.sent.bytes.saturating_add(bytes as u64);
        if self.promised.is_some_and(|promised| self.sent.bytes >= promised) {
            self.end();
        }
    }

    fn end(&mut self) {
        if self.has_end {
            self.sent.outcome = Outcome::Complete;
        }
    }
}

impl Part {
    /// A blob that `puller` asks for.
    pub fn begin(pulls: &Pulls, puller: Puller, blob: PulledBlob) -> Part {
        pulls.blob_begins(&puller);
        Part { pulls: pulls.clone(), puller, blob }
    }

    /// What was sent of it; `content` is `None` when it could not be had.
    fn end(self, content: Option<&Served>, sent: Sent) {
        match content {
            Some(content) => self.pulls.blob_ends(&self.puller, &self.blob, content.source, sent),
            None => self.pulls.blob_fails(&self.puller),
        }
    }
}

impl Served {
    /// Counts `bytes` that were sent.
    fn count(&self, metrics: &Metrics, bytes: u64) {
        let ahead = self.ahead.get().min(bytes);
        for (source, bytes) in [(self.source, bytes - ahead), (Source::Upstream, ahead)] {
            if bytes > 0 {
                let labels = [self.registry.as_str(), self.kind, source.as_str()];
                metrics.served_bytes.with_label_values(&labels).inc_by(bytes);
            }
        }
    }
}

impl http_body::Body for Accounted {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let polled = Pin::new(&mut self.body).poll_frame(context);
        match &polled {
            Poll::Ready(Some(Ok(frame))) => {
                self.account.add(frame.data_ref().map_or(0, Bytes::len))
            }
            Poll::Ready(Some(Err(error))) => {
                tracing::debug!(path = &*self.account.path, %error, "the body is cut");
            }
            Poll::Ready(None) => self.account.end(),
            Poll::Pending => {}
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        let took = self.started.elapsed();
        let code = self.status.as_ref().map_or("none", StatusCode::as_str);
        let labels = [self.endpoint, method_label(&self.method), code];
        self.metrics.requests.with_label_values(&labels).inc();
        self.metrics
            .request_seconds
            .with_label_values(&[self.endpoint])
            .observe(took.as_secs_f64());
        let source = self.content.as_ref().map_or("none", |content| content.source.as_str());
        if let Some(content) = &self.content {
            content.count(&self.metrics, self.sent.bytes);
        }
        tracing::debug!(
            client = %self.peer,
            method = %self.method,
            path = &*self.path,
            status = self.status.map(|status| status.as_u16()),
            bytes = self.sent.bytes,
            seconds = took.as_secs_f64(),
            source,
            "request"
        );
        if let Some(part) = self.part.take() {
            part.end(self.content.as_ref(), self.sent);
        }
    }
}

/// Whether an answer goes to the end of the content: all of it does, and the last part. Several
/// parts at once are picked by a client that does not mean to read on to the end.
fn has_end(response: &http::Response<Body>) -> bool {
    match response.status() {
        StatusCode::OK => true,
        StatusCode::PARTIAL_CONTENT => {
            let range = response.headers().get(header::CONTENT_RANGE);
            range.and_then(|range| ends_at_size(range.to_str().ok()?)).unwrap_or(false)
        }
        _ => false,
    }
}

/// Of `bytes first-last/size`.
fn ends_at_size(content_range: &str) -> Option<bool> {
    let (range, size) = content_range.split_once('/')?;
    let (_, last) = range.split_once('-')?;
    let (last, size): (u64, u64) = (last.parse().ok()?, size.parse().ok()?);
    Some(last.checked_add(1) == Some(size))
}

/// Methods are free text on the wire, labels are not.
fn method_label(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        _ => "other",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_keeps_no_head_in_memory() {
        let head = Bytes::from("/v2/library/busybox/manifests/latest?ns=docker.io".to_owned());
        let uri = Uri::from_maybe_shared(head.clone()).unwrap();
        let account = Account::open(Arc::new(Metrics::new()), Method::GET, &uri, Peer::Unix);
        drop(uri);
        assert!(head.is_unique());
        assert_eq!(&*account.path, "/v2/library/busybox/manifests/latest");
    }
}
