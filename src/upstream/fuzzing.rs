//! The parsers of what upstream sends, open to the targets in `fuzz/` and to nobody else.

use std::time::Duration;

use http::HeaderMap;

use super::{answer, challenge::Challenge, link, tags, token};
use crate::oci::Tag;

/// The realm of the challenge that would be answered, if that is Bearer.
pub fn realm(headers: &HeaderMap) -> Option<String> {
    match Challenge::best_of(headers)? {
        Challenge::Bearer { realm, .. } => Some(realm),
        Challenge::Basic => None,
    }
}

/// Where a list goes on.
pub fn next_page(headers: &HeaderMap) -> Option<&str> {
    link::next(headers)
}

/// The token in an answer, and how long it is used.
pub fn token(body: &[u8]) -> Option<(String, Duration)> {
    token::issued(body)
}

/// The tags on a page.
pub fn tags(body: &[u8]) -> Option<Vec<Tag>> {
    tags::named_in(body)
}

/// What an error says.
pub fn error_message(body: &[u8]) -> Option<String> {
    answer::said_in(body).as_deref().map(answer::printable)
}
