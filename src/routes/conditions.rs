//! What the headers of a request say of content that the client has already, or wants in part.

use http::{HeaderMap, header};

use crate::mirror::ByteRange;

/// What a client already has or wants in part (RFC 9110, sections 13 and 14).
#[derive(Debug, Default)]
pub struct Conditions {
    range: Option<ByteRange>,
    if_range: Option<String>,
    if_none_match: Option<String>,
}

impl Conditions {
    /// Reads the conditional and range headers. What is malformed is ignored, as the RFC asks.
    pub fn of(headers: &HeaderMap) -> Conditions {
        let text =
            |name| headers.get(name).and_then(|value: &header::HeaderValue| value.to_str().ok());
        Conditions {
            range: text(header::RANGE).and_then(ByteRange::parse),
            if_range: text(header::IF_RANGE).map(str::to_owned),
            if_none_match: text(header::IF_NONE_MATCH).map(str::to_owned),
        }
    }

    /// Whether the client already has the content called `etag` (quoted).
    pub fn has(&self, etag: &str) -> bool {
        let Some(listed) = &self.if_none_match else {
            return false;
        };
        listed
            .split(',')
            .map(str::trim)
            .any(|tag| tag == "*" || tag.strip_prefix("W/").unwrap_or(tag) == etag)
    }

    /// The part wanted of the content called `etag`.
    pub fn range(&self, etag: &str) -> Option<ByteRange> {
        let still_the_same = self.if_range.as_ref().is_none_or(|tag| tag == etag);
        self.range.filter(|_| still_the_same)
    }
}
