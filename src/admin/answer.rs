//! Answers that are no refusals: a text, a JSON document, or lines that come one by one.

use std::convert::Infallible;

use bytes::Bytes;
use futures_util::StreamExt as _;
use http::{HeaderValue, Response, header::CONTENT_TYPE};
use http_body::Frame;
use http_body_util::{BodyExt as _, Full, StreamBody, combinators::UnsyncBoxBody};
use serde_json::Value;
use tokio::sync::mpsc;

/// The body of an answer.
pub type Body = UnsyncBoxBody<Bytes, Infallible>;

/// A text for people.
pub(super) fn text(body: impl Into<Bytes>) -> Response<Body> {
    of_kind("text/plain; charset=utf-8", body)
}

/// One JSON document.
pub(super) fn document(document: &Value) -> Response<Body> {
    of_kind("application/json", document.to_string())
}

/// JSON documents, one a line, as they come; they end when the sender is dropped. When the client hangs up,
/// the sender is closed.
pub(super) fn lines(lines: mpsc::Receiver<Bytes>) -> Response<Body> {
    let lines = futures_util::stream::unfold(lines, async |mut lines| {
        let line = lines.recv().await?;
        Some((line, lines))
    });
    let frames = lines.map(|line| Ok(Frame::data(line)));
    with_type("application/x-ndjson", StreamBody::new(frames).boxed_unsync())
}

/// A whole body of some type.
pub(super) fn of_kind(content_type: &'static str, body: impl Into<Bytes>) -> Response<Body> {
    with_type(content_type, Full::new(body.into()).boxed_unsync())
}

fn with_type(content_type: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}
