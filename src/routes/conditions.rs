//! What the headers of a request say of content that the client has already, or wants in part.

use http::{HeaderMap, HeaderValue, header};

use crate::mirror::ByteRanges;

/// What a client already has or wants in part (RFC 9110, sections 13 and 14).
#[derive(Debug, Default)]
pub struct Conditions {
    ranges: Option<ByteRanges>,
    if_range: Option<HeaderValue>,
    if_none_match: Vec<HeaderValue>,
}

impl Conditions {
    /// Reads the conditional and range headers. What is malformed is ignored, as the RFC asks.
    pub fn of(headers: &HeaderMap) -> Conditions {
        let range = headers.get(header::RANGE).and_then(|value| value.to_str().ok());
        Conditions {
            ranges: range.and_then(ByteRanges::parse),
            if_range: headers.get(header::IF_RANGE).cloned(),
            if_none_match: headers.get_all(header::IF_NONE_MATCH).iter().cloned().collect(),
        }
    }

    /// Whether the client already has the content called `etag` (quoted).
    pub fn has(&self, etag: &str) -> bool {
        self.if_none_match
            .iter()
            .filter_map(|line| line.to_str().ok())
            .flat_map(|line| line.split(','))
            .map(str::trim)
            .any(|tag| tag == "*" || tag.strip_prefix("W/").unwrap_or(tag) == etag)
    }

    /// Whether the client wants all of the content called `etag`, be it as the range `bytes=0-`.
    pub fn want_all(&self, etag: &str) -> bool {
        self.ranges(etag).is_none_or(ByteRanges::are_all)
    }

    /// The parts wanted of the content called `etag`. An `If-Range` with a weak tag or a date
    /// names no content for certain, and so not this.
    pub fn ranges(&self, etag: &str) -> Option<&ByteRanges> {
        let is_the_same = self.if_range.as_ref().is_none_or(|tag| tag == etag);
        self.ranges.as_ref().filter(|_| is_the_same)
    }
}
