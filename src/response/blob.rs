//! Blobs as HTTP: whole, in part, or not at all.

use futures_util::TryStreamExt as _;
use http::{Response, StatusCode, header};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};

use super::{
    API_VERSION, Body, CONTENT_DIGEST, RETRY_LIMITED, RETRY_UNREACHABLE, empty, etag, failure, set,
    too_many,
};
use crate::{
    mirror::{self, Blob, RangeError},
    oci::Digest,
    routes::Conditions,
};

/// The headers of a blob whose size is known or, rarely, not.
pub fn blob_head(digest: &Digest, size: Option<u64>, conditions: &Conditions) -> Response<Body> {
    let etag = etag(digest);
    if conditions.has(&etag) {
        return not_modified(digest);
    }
    let mut response = empty(StatusCode::OK);
    set_blob_headers(&mut response, digest);
    if let Some(size) = size {
        set(&mut response, header::CONTENT_LENGTH, &size.to_string());
    }
    response
}

/// A blob, or the range of it that was asked for.
pub fn blob(digest: &Digest, blob: Blob, conditions: &Conditions) -> Response<Body> {
    let etag = etag(digest);
    if conditions.has(&etag) {
        return not_modified(digest);
    }
    let size = blob.size();
    let (Some(size), Some(ranges)) = (size, conditions.ranges(&etag)) else {
        return whole(digest, blob);
    };
    let range = match ranges.resolve(size).as_deref() {
        Ok([range]) => range.clone(),
        Ok(_) => return whole(digest, blob),
        Err(RangeError::Unsatisfiable) => return unsatisfiable(digest, size),
        Err(error) => return failure(StatusCode::BAD_REQUEST, "RANGE_INVALID", &error.to_string()),
    };
    let mut response = blob_head(digest, Some(range.end - range.start), &Conditions::default());
    *response.status_mut() = StatusCode::PARTIAL_CONTENT;
    let last = range.end - 1;
    set(&mut response, header::CONTENT_RANGE, &format!("bytes {}-{last}/{size}", range.start));
    *response.body_mut() = stream(blob, Some(range));
    response
}

fn whole(digest: &Digest, blob: Blob) -> Response<Body> {
    let mut response = blob_head(digest, blob.size(), &Conditions::default());
    *response.body_mut() = stream(blob, None);
    response
}

/// Why there is no blob. Never 5xx: Docker retries those for a minute before it goes to the next
/// registry, and a 429 not at all.
pub fn blob_error(error: &mirror::Error) -> Response<Body> {
    use mirror::Error;
    match error {
        Error::NotFound(_) | Error::Denied(_) | Error::Refused(_) => {
            failure(StatusCode::NOT_FOUND, "BLOB_UNKNOWN", &error.to_string())
        }
        Error::Unreachable(_) | Error::Timeout(_) | Error::Store(_) => {
            too_many(error, RETRY_UNREACHABLE)
        }
        Error::Limited { .. } => too_many(error, RETRY_LIMITED),
    }
}

fn not_modified(digest: &Digest) -> Response<Body> {
    let mut response = empty(StatusCode::NOT_MODIFIED);
    set_blob_headers(&mut response, digest);
    response.headers_mut().remove(header::CONTENT_TYPE);
    response
}

fn unsatisfiable(digest: &Digest, size: u64) -> Response<Body> {
    let mut response = failure(
        StatusCode::RANGE_NOT_SATISFIABLE,
        "RANGE_INVALID",
        "no byte of the blob is in the range",
    );
    set(&mut response, header::CONTENT_RANGE, &format!("bytes */{size}"));
    set(&mut response, CONTENT_DIGEST, &digest.to_string());
    response
}

fn set_blob_headers(response: &mut Response<Body>, digest: &Digest) {
    set(response, header::CONTENT_TYPE, "application/octet-stream");
    set(response, header::ACCEPT_RANGES, "bytes");
    set(response, header::ETAG, &etag(digest));
    set(response, CONTENT_DIGEST, &digest.to_string());
    set(response, API_VERSION, "registry/2.0");
}

fn stream(blob: Blob, range: Option<std::ops::Range<u64>>) -> Body {
    StreamBody::new(blob.into_stream(range).map_ok(Frame::data)).boxed_unsync()
}
