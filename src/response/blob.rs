//! Blobs as HTTP: whole, in parts, or not at all.

use std::ops::Range;

use http::{HeaderValue, Response, StatusCode, header};

use super::{
    API_VERSION, Body, CONTENT_DIGEST, REGISTRY_2, RETRY_LIMITED, RETRY_UNREACHABLE, empty,
    failure, forbidden, multipart::Multipart, name, set, too_many,
};
use crate::{
    mirror::{self, Blob, RangeError},
    oci::Digest,
    routes::Conditions,
};

const BYTES: HeaderValue = HeaderValue::from_static("bytes");
const OCTET_STREAM: HeaderValue = HeaderValue::from_static("application/octet-stream");

/// The headers of a blob whose size is known or, rarely, not. All there is to say to a client
/// that has it already.
pub fn blob_head(digest: &Digest, size: Option<u64>, conditions: &Conditions) -> Response<Body> {
    if conditions.has(digest) {
        return not_modified(digest);
    }
    blob_answer(StatusCode::OK, digest, size)
}

/// A blob that the client has not yet, or the parts of it that were asked for.
pub fn blob(digest: &Digest, blob: Blob, conditions: &Conditions) -> Response<Body> {
    // Of nothing there are no parts. Clients that ask for a range whatever they want know a 200.
    let size = blob.size().filter(|size| *size > 0);
    let (Some(size), Some(ranges)) = (size, conditions.ranges(digest)) else {
        return whole(digest, blob);
    };
    match ranges.resolve(size).as_deref() {
        Ok([part]) => single_part(digest, blob, part.clone(), size),
        Ok(parts) => several_parts(digest, blob, parts, size),
        Err(error) => range_error(digest, *error, size),
    }
}

/// Why there is no blob. Never 5xx: Docker retries those for a minute before it goes to the next
/// registry, and a 429 not at all.
pub fn blob_error(error: &mirror::Error) -> Response<Body> {
    use mirror::Error;
    match error {
        Error::NotFound(_) | Error::Denied(_) | Error::Offline(_) | Error::Refused(_) => {
            failure(StatusCode::NOT_FOUND, "BLOB_UNKNOWN", &error.to_string())
        }
        Error::Unreachable(_) | Error::Unusable(_) | Error::Timeout(_) | Error::Store(_) => {
            too_many(error, RETRY_UNREACHABLE)
        }
        Error::Forbidden(_) => forbidden(&error.to_string()),
        Error::Limited { .. } => too_many(error, RETRY_LIMITED),
    }
}

fn not_modified(digest: &Digest) -> Response<Body> {
    let mut response = blob_answer(StatusCode::NOT_MODIFIED, digest, None);
    response.headers_mut().remove(header::CONTENT_TYPE);
    response
}

fn whole(digest: &Digest, blob: Blob) -> Response<Body> {
    let mut response = blob_answer(StatusCode::OK, digest, blob.size());
    *response.body_mut() = Body::Pieces(blob.whole());
    response
}

fn single_part(digest: &Digest, mut blob: Blob, part: Range<u64>, size: u64) -> Response<Body> {
    let length = part.end.checked_sub(part.start);
    let mut response = blob_answer(StatusCode::PARTIAL_CONTENT, digest, length);
    set(&mut response, header::CONTENT_RANGE, &content_range(&part, size));
    *response.body_mut() = Body::Pieces(blob.part(part));
    response
}

fn several_parts(digest: &Digest, blob: Blob, parts: &[Range<u64>], size: u64) -> Response<Body> {
    let multipart = Multipart::new(parts, size);
    let mut response = blob_answer(StatusCode::PARTIAL_CONTENT, digest, multipart.length());
    set(&mut response, header::CONTENT_TYPE, &multipart.content_type());
    *response.body_mut() = Body::Pieces(multipart.into_stream(blob));
    response
}

fn range_error(digest: &Digest, error: RangeError, size: u64) -> Response<Body> {
    let status = match error {
        RangeError::Unsatisfiable => StatusCode::RANGE_NOT_SATISFIABLE,
        RangeError::TooMany | RangeError::Overlapping => StatusCode::BAD_REQUEST,
    };
    let mut response = failure(status, "RANGE_INVALID", &error.to_string());
    if error == RangeError::Unsatisfiable {
        set(&mut response, header::CONTENT_RANGE, &format!("bytes */{size}"));
    }
    set(&mut response, CONTENT_DIGEST, &digest.to_string());
    response
}

/// The value of `Content-Range` for a part of `size` bytes; its total is never `*`, which some
/// clients cannot read.
pub(super) fn content_range(part: &Range<u64>, size: u64) -> String {
    format!("bytes {}-{}/{size}", part.start, part.end.saturating_sub(1))
}

/// An answer about a blob, whose body has `length` bytes.
fn blob_answer(status: StatusCode, digest: &Digest, length: Option<u64>) -> Response<Body> {
    let mut response = empty(status);
    name(&mut response, digest);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, OCTET_STREAM);
    headers.insert(header::ACCEPT_RANGES, BYTES);
    headers.insert(API_VERSION, REGISTRY_2);
    if let Some(length) = length {
        headers.insert(header::CONTENT_LENGTH, length.into());
    }
    response
}
