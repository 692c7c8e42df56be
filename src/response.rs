//! Results and errors as HTTP: the only place with status codes, and one constructor for each
//! kind of answer.

mod blob;
mod body;
mod multipart;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Response, StatusCode, header};

pub use blob::{blob, blob_error, blob_head};
pub use body::Body;

use crate::{
    mirror::{self, Found, Listing, ReferrersList},
    oci::{Digest, OCI_INDEX, Tag},
    routes::{Conditions, Listed, Page, RouteError, Verb},
};

const API_VERSION: HeaderName = HeaderName::from_static("docker-distribution-api-version");
const CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");
const FILTERS_APPLIED: HeaderName = HeaderName::from_static("oci-filters-applied");
/// The namespace that decided the registry (distribution-spec, § Registry proxying).
pub const NAMESPACE: HeaderName = HeaderName::from_static("oci-namespace");

const REGISTRY_2: HeaderValue = HeaderValue::from_static("registry/2.0");
const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// The most headers of an answer, with those that are added on its way.
const MAX_HEADERS: usize = 8;

/// Seconds a client is asked to wait when upstream cannot be reached. Few, since podman obeys
/// four times before it turns to the next registry.
const RETRY_UNREACHABLE: &str = "1";
/// Seconds a client is asked to wait when upstream limits us.
const RETRY_LIMITED: &str = "3";

/// The longest `Warning` value, in bytes (distribution-spec: 4096 for all of them).
const MAX_WARNING: usize = 1024;

/// `GET /`
pub fn greeting() -> Response<Body> {
    let text =
        concat!("larder ", env!("CARGO_PKG_VERSION"), ": a mirror of container registries\n");
    let mut response = with_body(StatusCode::OK, Bytes::from_static(text.as_bytes()));
    set(&mut response, header::CONTENT_TYPE, "text/plain; charset=utf-8");
    response
}

/// `GET /v2/`: yes, a registry. Never a challenge: Docker would send its Hub password here.
pub fn version() -> Response<Body> {
    let mut response = with_body(StatusCode::OK, Bytes::from_static(b"{}"));
    response.headers_mut().insert(header::CONTENT_TYPE, JSON);
    response.headers_mut().insert(API_VERSION, REGISTRY_2);
    response
}

/// A manifest, or what a HEAD tells of it.
pub fn manifest(found: Found, verb: Verb, conditions: &Conditions) -> Response<Body> {
    let mut response = match (&found.content, verb) {
        _ if conditions.has(&found.digest) => empty(StatusCode::NOT_MODIFIED),
        (Some(content), Verb::Get) => with_body(StatusCode::OK, content.bytes.clone()),
        (_, Verb::Head) | (None, Verb::Get) => empty(StatusCode::OK),
    };
    if response.status() == StatusCode::OK {
        set(&mut response, header::CONTENT_TYPE, &found.media_type);
        response.headers_mut().insert(header::CONTENT_LENGTH, found.size.into());
    }
    name(&mut response, &found.digest);
    response.headers_mut().insert(API_VERSION, REGISTRY_2);
    if let Some(reason) = &found.stale {
        set(&mut response, header::WARNING, &warning(reason));
    }
    response
}

/// A page of the tags of a repository that the client calls `name`.
pub fn tags(name: &str, listing: &Listing, page: &Page) -> Response<Body> {
    let Listed { entries, next } = page.of(&listing.tags);
    let tags: Vec<&str> = entries.iter().map(Tag::as_str).collect();
    let mut response = list(&serde_json::json!({ "name": name, "tags": tags }), next);
    if let Some(reason) = &listing.stale {
        set(&mut response, header::WARNING, &warning(reason));
    }
    response
}

/// What refers to a manifest, all of it or of one `artifact_type`.
pub fn referrers(list: ReferrersList, artifact_type: Option<&str>) -> Response<Body> {
    let mut response = with_body(StatusCode::OK, list.document);
    set(&mut response, header::CONTENT_TYPE, OCI_INDEX);
    response.headers_mut().insert(API_VERSION, REGISTRY_2);
    if artifact_type.is_some() {
        set(&mut response, FILTERS_APPLIED, "artifactType");
    }
    if let Some(reason) = &list.stale {
        set(&mut response, header::WARNING, &warning(reason));
    }
    response
}

/// A page of these repositories.
pub fn catalog(names: &[String], page: &Page) -> Response<Body> {
    let Listed { entries, next } = page.of(names);
    list(&serde_json::json!({ "repositories": entries }), next)
}

fn list(document: &serde_json::Value, next: Option<String>) -> Response<Body> {
    let mut response = with_body(StatusCode::OK, Bytes::from(document.to_string()));
    response.headers_mut().insert(header::CONTENT_TYPE, JSON);
    response.headers_mut().insert(API_VERSION, REGISTRY_2);
    if let Some(next) = next {
        set(&mut response, header::LINK, &format!("<{next}>; rel=\"next\""));
    }
    response
}

/// Why there is no manifest.
pub fn manifest_error(error: &mirror::Error) -> Response<Body> {
    unavailable(error, "MANIFEST_UNKNOWN")
}

/// Why there is no list of tags or repositories.
pub fn list_error(error: &mirror::Error) -> Response<Body> {
    unavailable(error, "NAME_UNKNOWN")
}

/// Why there is no list of referrers. Not with `NAME_UNKNOWN`: clients go on to look for the tag of
/// the fallback schema (distribution-spec, § Unavailable Referrers API) on any other 404.
pub fn referrers_error(error: &mirror::Error) -> Response<Body> {
    unavailable(error, "UNSUPPORTED")
}

/// Why there is none of what is called `unknown` when it does not exist.
fn unavailable(error: &mirror::Error, unknown: &str) -> Response<Body> {
    use mirror::Error;
    let message = error.to_string();
    match error {
        // Where Larder is offline, too: every client turns to the next registry at once, and none comes
        // again for what only the operator can change.
        Error::NotFound(_) | Error::Denied(_) | Error::Offline(_) => {
            failure(StatusCode::NOT_FOUND, unknown, &message)
        }
        Error::Forbidden(_) => forbidden(&message),
        Error::Refused(_) => failure(StatusCode::BAD_GATEWAY, "MANIFEST_INVALID", &message),
        Error::Unreachable(_) | Error::Unusable(_) => {
            failure(StatusCode::BAD_GATEWAY, "UNAVAILABLE", &message)
        }
        Error::Timeout(_) => failure(StatusCode::GATEWAY_TIMEOUT, "UNAVAILABLE", &message),
        Error::Limited { .. } => too_many(error, RETRY_LIMITED),
        Error::Store(_) => failure(StatusCode::INTERNAL_SERVER_ERROR, "UNKNOWN", &message),
    }
}

/// Why a request was not understood.
pub fn route_error(error: &RouteError) -> Response<Body> {
    use crate::oci::InvalidName;
    let (status, code) = match error {
        RouteError::Method(_) | RouteError::Endpoint => {
            (StatusCode::METHOD_NOT_ALLOWED, "UNSUPPORTED")
        }
        RouteError::Length => (StatusCode::URI_TOO_LONG, "UNSUPPORTED"),
        RouteError::Elsewhere => (StatusCode::NOT_FOUND, "UNSUPPORTED"),
        RouteError::Registry(_) | RouteError::NoDefault => (StatusCode::NOT_FOUND, "NAME_UNKNOWN"),
        RouteError::PageSize => (StatusCode::BAD_REQUEST, "PAGINATION_NUMBER_INVALID"),
        RouteError::Name(InvalidName::Registry | InvalidName::Name) => {
            (StatusCode::BAD_REQUEST, "NAME_INVALID")
        }
        RouteError::Name(InvalidName::Tag) => (StatusCode::BAD_REQUEST, "TAG_INVALID"),
        RouteError::Name(InvalidName::Digest(_)) => (StatusCode::BAD_REQUEST, "DIGEST_INVALID"),
    };
    let mut response = failure(status, code, &error.to_string());
    if status == StatusCode::METHOD_NOT_ALLOWED {
        set(&mut response, header::ALLOW, "GET, HEAD");
    }
    response
}

/// The client's network is not in `access.allow`.
pub fn denied() -> Response<Body> {
    forbidden("this network may not use the mirror (access.allow)")
}

fn forbidden(message: &str) -> Response<Body> {
    failure(StatusCode::FORBIDDEN, "DENIED", message)
}

/// A 429, whose message tells the time that is really left.
fn too_many(error: &mirror::Error, retry_after: &str) -> Response<Body> {
    let mut message = error.to_string();
    if let mirror::Error::Limited { retry_after: Some(left), .. } = error {
        message = format!("{message} (upstream asks to wait {} s)", left.as_secs());
    }
    let mut response = failure(StatusCode::TOO_MANY_REQUESTS, "TOOMANYREQUESTS", &message);
    set(&mut response, header::RETRY_AFTER, retry_after);
    response
}

/// The error document of the distribution specification.
fn failure(status: StatusCode, code: &str, message: &str) -> Response<Body> {
    let document = serde_json::json!({ "errors": [{ "code": code, "message": message }] });
    let mut response = with_body(status, Bytes::from(document.to_string()));
    response.headers_mut().insert(header::CONTENT_TYPE, JSON);
    response.headers_mut().insert(API_VERSION, REGISTRY_2);
    response
}

/// `299 - "text"`, the only form that clients read.
fn warning(reason: &str) -> String {
    let printable =
        |character: &char| (' '..='~').contains(character) && !matches!(character, '"' | '\\');
    let reason: String = reason.chars().filter(printable).take(MAX_WARNING).collect();
    format!("299 - \"served from the mirror's cache: {reason}\"")
}

/// Names the content that an answer is about. Its strong entity tag is the digest, in quotes.
fn name(response: &mut Response<Body>, digest: &Digest) {
    let (algorithm, encoded) = (digest.algorithm().as_str(), digest.encoded());
    let etag = ["\"", algorithm, ":", &encoded, "\""].concat();
    set(response, CONTENT_DIGEST, etag.trim_matches('"'));
    set(response, header::ETAG, &etag);
}

fn empty(status: StatusCode) -> Response<Body> {
    with_body(status, Bytes::new())
}

fn with_body(status: StatusCode, bytes: Bytes) -> Response<Body> {
    let mut response = Response::new(Body::Whole(bytes));
    *response.status_mut() = status;
    response.headers_mut().reserve(MAX_HEADERS);
    response
}

/// Sets a header. Media types come from upstream: one that is no header value is left out.
pub(crate) fn set(response: &mut Response<Body>, name: impl header::IntoHeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        response.headers_mut().insert(name, value);
    }
}
