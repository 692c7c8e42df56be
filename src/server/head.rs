//! The answer to HEAD over HTTP/2. Over HTTP/1.1 hyper itself leaves its body out.

use http::{HeaderValue, Response, header};
use http_body::Body;

/// Leaves the body out, and says how long it would be (RFC 9110, section 9.3.2).
pub(super) fn without_body<B: Body>(mut response: Response<B>) -> Response<Option<B>> {
    if !response.body().is_end_stream()
        && let Some(length) = response.body().size_hint().exact()
    {
        let length = HeaderValue::from(length);
        response.headers_mut().entry(header::CONTENT_LENGTH).or_insert(length);
    }
    response.map(|_| None)
}
