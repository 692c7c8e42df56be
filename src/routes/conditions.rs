//! What the headers of a request say of content that the client has already, or wants in part.

use http::{HeaderMap, HeaderValue, header};

use crate::{mirror::ByteRanges, oci::Digest};

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

    /// Whether the client already has this content.
    pub fn has(&self, digest: &Digest) -> bool {
        self.if_none_match
            .iter()
            .filter_map(|line| line.to_str().ok())
            .flat_map(|line| line.split(','))
            .map(str::trim)
            .any(|tag| tag == "*" || is_tag_of(tag.strip_prefix("W/").unwrap_or(tag), digest))
    }

    /// Whether the client wants all of this content, be it as the range `bytes=0-`.
    pub fn want_all(&self, digest: &Digest) -> bool {
        self.ranges(digest).is_none_or(ByteRanges::are_all)
    }

    /// The parts wanted of this content. An `If-Range` with a weak tag or a date names no content
    /// for certain, and so not this.
    pub fn ranges(&self, digest: &Digest) -> Option<&ByteRanges> {
        let names_it = |tag: &HeaderValue| tag.to_str().is_ok_and(|tag| is_tag_of(tag, digest));
        let is_the_same = self.if_range.as_ref().is_none_or(names_it);
        self.ranges.as_ref().filter(|_| is_the_same)
    }
}

/// Whether this is the strong entity tag of some content: its digest, in quotes.
fn is_tag_of(tag: &str, digest: &Digest) -> bool {
    let text = tag.strip_prefix('"').and_then(|tag| tag.strip_suffix('"'));
    text.is_some_and(|text| text.parse::<Digest>().is_ok_and(|named| named == *digest))
}
