//! Paths of the API, taken apart.

/// Where a path leads.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Place<'a> {
    /// `/`
    Root,
    /// `/v2/rest`, or `/<registry>/v2/rest`
    Api { prefix: Option<&'a str>, rest: &'a str },
}

/// What is behind `/v2/`.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Kind<'a> {
    /// Nothing.
    Version,
    /// `_catalog`, or `<registry>/_catalog`
    Catalog { registry: Option<&'a str> },
    /// A repository's name, and what of it is wanted.
    Of { name: &'a str, content: Content<'a> },
}

/// What of a repository, by what is written behind its name.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Content<'a> {
    /// `manifests/<reference>`
    Manifest(&'a str),
    /// `blobs/<digest>`
    Blob(&'a str),
    /// `tags/list`
    Tags,
    /// `referrers/<digest>`
    Referrers(&'a str),
}

/// Splits a path at `/v2/`, whose trailing slash may be missing. `None`: it is not there.
pub(super) fn split(path: &str) -> Option<Place<'_>> {
    let path = path.strip_prefix('/')?;
    if path.is_empty() {
        return Some(Place::Root);
    }
    if let Some(rest) = strip_version(path) {
        return Some(Place::Api { prefix: None, rest });
    }
    let (registry, rest) = path.split_once('/')?;
    Some(Place::Api { prefix: Some(registry), rest: strip_version(rest)? })
}

/// Splits `name/manifests/reference` and its like from the end: names may have components called
/// `manifests`, `blobs`, `tags` or `referrers`. `None`: no endpoint is like this.
pub(super) fn kind(rest: &str) -> Option<Kind<'_>> {
    if rest.is_empty() {
        return Some(Kind::Version);
    }
    let Some((rest, last)) = rest.rsplit_once('/') else {
        return (rest == "_catalog").then_some(Kind::Catalog { registry: None });
    };
    let Some((name, kind)) = rest.rsplit_once('/') else {
        return (last == "_catalog").then_some(Kind::Catalog { registry: Some(rest) });
    };
    let content = match (kind, last) {
        ("manifests", reference) => Content::Manifest(reference),
        ("blobs", digest) => Content::Blob(digest),
        ("tags", "list") => Content::Tags,
        ("referrers", digest) => Content::Referrers(digest),
        _ => return None,
    };
    Some(Kind::Of { name, content })
}

fn strip_version(path: &str) -> Option<&str> {
    if path == "v2" { Some("") } else { path.strip_prefix("v2/") }
}
