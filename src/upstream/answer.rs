//! One answer of upstream: what its headers say, and what kind of failure it is.

use std::{
    ops::Range,
    time::{Duration, SystemTime},
};

use http::{
    HeaderMap, HeaderName, Method, StatusCode,
    header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, RETRY_AFTER},
};
use serde_json::Value;
use url::{Position, Url};

use super::{BlobBody, Error, Place, Rest, secrets::Secrets};

/// How much of an error answer is read.
const MAX_ERROR_BYTES: u64 = 64 * 1024;
/// How long an error answer may take to say more than its status.
const ERROR_TIME: Duration = Duration::from_secs(2);
/// Characters of upstream's own message that are passed on.
const MAX_MESSAGE: usize = 512;
/// The longest pause upstream is believed to want.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(24 * 3600);

/// Headers that have come, and a body that has not yet. Has no `Debug`: URLs and headers hold
/// secrets.
pub(super) struct Answer {
    pub(super) method: Method,
    pub(super) url: Url,
    pub(super) source: Source,
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    /// Those of the request.
    pub(super) secrets: Secrets,
    pub(super) body: BlobBody,
}

/// Who answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// The host that was asked.
    Asked,
    /// Another one, where that host's redirect led.
    Elsewhere,
}

impl Answer {
    /// The same, whose body tells that this endpoint was asked.
    pub(super) fn of_endpoint(mut self, place: Place) -> Answer {
        self.body.place = place;
        self
    }

    /// A header's value, if there is one and it is text.
    pub(super) fn header(&self, name: HeaderName) -> Option<&str> {
        self.headers.get(name)?.to_str().ok().map(str::trim)
    }

    /// `Content-Type` without parameters.
    pub(super) fn media_type(&self) -> Option<String> {
        let value = self.header(CONTENT_TYPE)?.split(';').next()?.trim();
        (!value.is_empty()).then(|| value.to_owned())
    }

    /// `Content-Length` of the plain content; `None` where it measures an encoded form.
    pub(super) fn content_length(&self) -> Option<u64> {
        self.is_plain().then(|| self.header(CONTENT_LENGTH)?.parse().ok())?
    }

    /// The body of a 200. Anything that would have to be decoded or put together first is
    /// refused: the digest is that of the plain whole.
    pub(super) fn whole_body(self) -> Result<BlobBody, Error> {
        if self.status != StatusCode::OK {
            return Err(Error::Invalid(self.describe(None)));
        }
        self.plain_body()
    }

    /// The body of a 206 that has `range` of a blob of `size` bytes. Anything else is refused, be
    /// it another range or the whole.
    pub(super) fn part_body(self, range: &Range<u64>, size: u64) -> Result<BlobBody, Error> {
        let length = range.end.saturating_sub(range.start);
        let is_asked = self.header(CONTENT_RANGE).is_some_and(|sent| is_range(sent, range, size));
        let fits = self.body.size().is_none_or(|announced| announced == length);
        if self.status != StatusCode::PARTIAL_CONTENT || !is_asked || !fits {
            let what = self.describe(Some("not the range that was asked for"));
            return Err(Error::Invalid(what));
        }
        Ok(self.plain_body()?.exactly(length))
    }

    /// The body of a 206 that goes from `rest.start` to the blob's end, or that of a 200, whose
    /// beginning is skipped. Anything else is refused.
    pub(super) fn rest_body(self, rest: Rest) -> Result<BlobBody, Error> {
        let announced = self.body.size();
        match self.status {
            StatusCode::OK if announced.or(rest.size) == rest.size.or(announced) => {
                let length = rest.size.or(announced);
                Ok(self.plain_body()?.without_first(rest.start, length))
            }
            StatusCode::PARTIAL_CONTENT => {
                let length = self.header(CONTENT_RANGE).and_then(|sent| rest_length(sent, rest));
                match length.filter(|length| announced.is_none_or(|sent| sent == *length)) {
                    Some(length) => Ok(self.plain_body()?.exactly(length)),
                    None => Err(Error::Invalid(self.describe(Some("not the rest of the blob")))),
                }
            }
            _ => Err(Error::Invalid(self.describe(Some("not the rest of the blob")))),
        }
    }

    fn plain_body(self) -> Result<BlobBody, Error> {
        if !self.is_plain() {
            let what = "the answer has a Content-Encoding, though identity was asked for";
            return Err(Error::Invalid(format!("{}: {what}", self.request())));
        }
        Ok(self.body)
    }

    /// The failure that an answer of this status is.
    pub(super) async fn into_error(self) -> Error {
        let (status, is_head) = (self.status.as_u16(), self.method == Method::HEAD);
        let (is_elsewhere, retry_after) = (self.source == Source::Elsewhere, self.retry_after());
        let message = self.message().await;
        match status {
            404 => Error::NotFound(message),
            429 => Error::Limited { message, retry_after },
            400..=499 if is_head && is_elsewhere => Error::HeadRefused(message),
            400 | 405 | 501 if is_head => Error::HeadRefused(message),
            400 | 401 | 403 if is_elsewhere => Error::RefusedElsewhere(message),
            401 | 403 => Error::Denied(message),
            500 | 502..=504 => Error::Unavailable { message, retry_after },
            // A proxy says 407.
            407 | 408 | 505.. => Error::Unreachable(message),
            _ => Error::Invalid(message),
        }
    }

    /// Request, status and upstream's own short message, unless it repeats a secret. Reads the body.
    pub(super) async fn message(self) -> String {
        let (request, status) = (self.request(), self.status);
        let body = tokio::time::timeout(ERROR_TIME, self.body.collect(MAX_ERROR_BYTES)).await;
        let said = match body {
            Ok(Ok(body)) => said_in(&body).filter(|said| !self.secrets.are_in(said)),
            Ok(Err(_)) | Err(_) => None,
        };
        let said = said.as_deref().map(printable);
        describe(&request, status, said.as_deref())
    }

    /// Request and status, with what there is to say of them.
    pub(super) fn describe(&self, said: Option<&str>) -> String {
        describe(&self.request(), self.status, said)
    }

    fn request(&self) -> String {
        request_line(&self.method, &self.url)
    }

    fn is_plain(&self) -> bool {
        self.headers
            .get_all(CONTENT_ENCODING)
            .iter()
            .all(|value| value.is_empty() || value.as_bytes().eq_ignore_ascii_case(b"identity"))
    }

    /// Seconds or a date (RFC 9110 §10.2.3).
    pub(super) fn retry_after(&self) -> Option<Duration> {
        let value = self.header(RETRY_AFTER)?;
        let pause = match value.parse() {
            Ok(seconds) => Duration::from_secs(seconds),
            Err(_) => httpdate::parse_http_date(value)
                .ok()?
                .duration_since(SystemTime::now())
                .unwrap_or_default(),
        };
        Some(pause.min(MAX_RETRY_AFTER))
    }
}

/// Whether a `Content-Range` tells of `range` in a blob of `size` bytes, or of unknown size.
fn is_range(content_range: &str, range: &Range<u64>, size: u64) -> bool {
    let last = range.end.saturating_sub(1);
    let total = content_range.strip_prefix(&format!("bytes {}-{last}/", range.start));
    total.is_some_and(|total| total == "*" || total == size.to_string())
}

/// The bytes that a `Content-Range` tells of, if they are exactly what is still wanted: whether
/// they end with the blob is known from its size, or else from the total.
fn rest_length(content_range: &str, rest: Rest) -> Option<u64> {
    let (range, total) = content_range.strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let (first, last): (u64, u64) = (first.parse().ok()?, last.parse().ok()?);
    let total: Option<u64> = (total != "*").then(|| total.parse()).transpose().ok()?;
    let size = rest.size.or(total)?;
    let is_rest = first == rest.start && last.checked_add(1) == Some(size);
    let agrees = total.is_none_or(|total| total == size);
    size.checked_sub(rest.start).filter(|length| is_rest && agrees && *length > 0)
}

/// Method and URL for people, without the query, which may be signed.
pub(super) fn request_line(method: &Method, url: &Url) -> String {
    let place = &url[Position::BeforeHost..Position::AfterPath];
    format!("{method} {}://{place}", url.scheme())
}

fn describe(request: &str, status: StatusCode, said: Option<&str>) -> String {
    match said {
        Some(said) => format!("{request}: {status}: {said}"),
        None => format!("{request}: {status}"),
    }
}

/// The message in an error body of the registry API (`errors`), of OAuth2 (RFC 6749 §5.2) or of
/// Docker Hub (`details`), as it was sent.
pub(super) fn said_in(body: &[u8]) -> Option<String> {
    let json: Value = serde_json::from_slice(body).ok()?;
    let first = json.pointer("/errors/0").unwrap_or(&json);
    let words = ["code", "error", "message", "error_description", "details"]
        .into_iter()
        .filter_map(|key| first.get(key)?.as_str())
        .filter(|text| !text.is_empty())
        .collect::<Vec<_>>()
        .join(": ");
    (!words.is_empty()).then_some(words)
}

/// At most [`MAX_MESSAGE`] characters, control characters escaped.
pub(super) fn printable(text: &str) -> String {
    text.chars()
        .take(MAX_MESSAGE)
        .flat_map(|c| match c.is_control() {
            true => c.escape_default().collect::<Vec<_>>(),
            false => vec![c],
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn upstream_is_quoted_briefly_and_printably() {
        let table = [
            (
                r#"{"errors":[{"code":"DENIED","message":"no\r\nway"}]}"#,
                Some("DENIED: no\\r\\nway"),
            ),
            (r#"{"details":"incorrect password"}"#, Some("incorrect password")),
            (
                r#"{"error":"invalid_grant","error_description":"gone"}"#,
                Some("invalid_grant: gone"),
            ),
            (r#"{"errors":[]}"#, None),
            (r#"{"errors":[{"code":7}]}"#, None),
            ("<html>", None),
            ("[]", None),
        ];
        for (body, want) in table {
            let said = said_in(body.as_bytes()).as_deref().map(printable);
            assert_eq!(said.as_deref(), want, "{body}");
        }
        assert_eq!(printable(&"x".repeat(5000)).len(), MAX_MESSAGE);
    }

    #[test]
    fn only_the_range_that_was_asked_for_is_it() {
        let table = [
            ("bytes 5-9/20", true),
            ("bytes 5-9/*", true),
            ("bytes 5-9/21", false),
            ("bytes 5-8/20", false),
            ("bytes 4-9/20", false),
            ("bytes 15-9/20", false),
            ("bytes 5-9/", false),
            ("bytes */20", false),
            ("lines 5-9/20", false),
            ("", false),
        ];
        for (content_range, want) in table {
            assert_eq!(is_range(content_range, &(5..10), 20), want, "{content_range}");
        }
    }

    #[test]
    fn the_rest_goes_to_the_end_of_the_blob() {
        let table = [
            ("bytes 5-19/20", Some(20), Some(15)),
            ("bytes 5-19/*", Some(20), Some(15)),
            ("bytes 5-19/20", None, Some(15)),
            ("bytes 5-19/*", None, None),
            ("bytes 5-18/20", Some(20), None),
            ("bytes 5-18/20", None, None),
            ("bytes 5-20/21", Some(20), None),
            ("bytes 5-19/21", Some(20), None),
            ("bytes 4-19/20", Some(20), None),
            ("bytes 6-19/20", Some(20), None),
            ("bytes 5-4/5", None, None),
            ("bytes 5-18446744073709551615/*", None, None),
            ("bytes */20", Some(20), None),
            ("", Some(20), None),
        ];
        for (content_range, size, want) in table {
            let length = rest_length(content_range, Rest { start: 5, size });
            assert_eq!(length, want, "{content_range} of {size:?}");
        }
    }

    #[test]
    fn a_request_is_shown_without_query_and_userinfo() {
        let url = "https://user:secret@cdn.test:8443/a/b?X-Signature=abc#d".parse().unwrap();
        assert_eq!(request_line(&Method::GET, &url), "GET https://cdn.test:8443/a/b");
    }
}
