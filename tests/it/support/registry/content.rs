//! What a registry holds, and its answers while all is well.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use bytes::Bytes;
use larder::oci::{Digest, OCI_INDEX};
use serde_json::{Value, json};

use super::{
    Shared, State,
    http::{Answer, Request},
};

/// Where redirected blobs are found on the other server.
const REDIRECTED: &str = "/redirected/";

/// Everything a registry holds.
#[derive(Default)]
pub(super) struct Content {
    repositories: HashMap<String, Repository>,
    /// Blobs that another registry redirects here for, by digest.
    redirected: HashMap<String, Bytes>,
    redirect_to: Option<Arc<Shared>>,
    /// The most entries on a page of a list, however many are asked for.
    page_limit: Option<usize>,
}

#[derive(Default)]
struct Repository {
    blobs: HashMap<String, Bytes>,
    manifests: HashMap<String, (String, Bytes)>,
    tags: BTreeMap<String, String>,
    /// Descriptors by their subject.
    referrers: HashMap<String, Vec<Value>>,
    denied: Option<u16>,
}

impl Content {
    pub(super) fn put_blob(&mut self, repository: &str, digest: &Digest, blob: &Bytes) {
        let blobs = &mut self.repository(repository).blobs;
        blobs.insert(digest.to_string(), blob.clone());
    }

    pub(super) fn put_manifest(
        &mut self,
        repository: &str,
        media_type: &str,
        digest: &Digest,
        manifest: &Bytes,
    ) {
        let manifests = &mut self.repository(repository).manifests;
        manifests.insert(digest.to_string(), (media_type.to_owned(), manifest.clone()));
    }

    pub(super) fn put_tag(&mut self, repository: &str, tag: &str, digest: &Digest) {
        let tags = &mut self.repository(repository).tags;
        tags.insert(tag.to_owned(), digest.to_string());
    }

    pub(super) fn delete_tag(&mut self, repository: &str, tag: &str) {
        self.repository(repository).tags.remove(tag);
    }

    pub(super) fn deny(&mut self, repository: &str, status: u16) {
        self.repository(repository).denied = Some(status);
    }

    pub(super) fn redirect_blobs_to(&mut self, other: Arc<Shared>) {
        self.redirect_to = Some(other);
    }

    pub(super) fn put_referrer(&mut self, repository: &str, subject: &Digest, descriptor: Value) {
        let referrers = &mut self.repository(repository).referrers;
        referrers.entry(subject.to_string()).or_default().push(descriptor);
    }

    pub(super) fn limit_pages(&mut self, entries: usize) {
        self.page_limit = Some(entries);
    }

    fn repository(&mut self, name: &str) -> &mut Repository {
        self.repositories.entry(name.to_owned()).or_default()
    }
}

impl Shared {
    /// The answer to `request` while all is well.
    pub(super) fn answer(&self, state: &mut State, request: &Request) -> Answer {
        if Shared::is_realm(state, &request.path) {
            return self.token(state, request);
        }
        if let Some(digest) = request.path.strip_prefix(REDIRECTED) {
            let blob = state.content.redirected.get(digest);
            return blob.map_or_else(not_found, |blob| blob_answer(request, digest, blob));
        }
        let Some(path) = request.path.strip_prefix("/v2/") else {
            return not_found();
        };
        let Some((repository, kind, reference)) = split(path) else {
            return self.challenge(state, request, None).unwrap_or_else(|| Answer::new(200, "{}"));
        };
        if let Some(refusal) = self.challenge(state, request, Some(repository)) {
            return refusal;
        }
        let answer = self.content(state, request, repository, kind, reference);
        match (&mut state.quota, kind) {
            (Some(quota), "manifests") => quota.limited(request, answer),
            _ => answer,
        }
    }

    fn content(
        &self,
        state: &State,
        request: &Request,
        repository: &str,
        kind: &str,
        reference: &str,
    ) -> Answer {
        let content = &state.content;
        let Some(repository) = content.repositories.get(repository) else {
            return not_found();
        };
        match (repository.denied, kind) {
            (Some(status), _) => self.denial(state, status),
            (None, "manifests") => manifest(repository, reference),
            (None, "tags") => tags(content, repository, request),
            (None, "referrers") => referrers(content, repository, request, reference),
            (None, _) => blob(content, repository, request, reference),
        }
    }

    fn denial(&self, state: &State, status: u16) -> Answer {
        let answer = error(status, "DENIED");
        match status {
            401 => answer.with("www-authenticate", self.bearer_challenge(state, None)),
            _ => answer,
        }
    }
}

fn manifest(repository: &Repository, reference: &str) -> Answer {
    let digest = repository.tags.get(reference).map_or(reference, |digest| digest);
    let Some((media_type, bytes)) = repository.manifests.get(digest) else {
        return error(404, "MANIFEST_UNKNOWN");
    };
    Answer::new(200, bytes.clone())
        .with("content-type", media_type)
        .with("docker-content-digest", digest)
}

/// A page of the tags; the link to the next is relative.
fn tags(content: &Content, repository: &Repository, request: &Request) -> Answer {
    let asked = |name: &str| request.query_values(name).next();
    let wanted = asked("n").map_or(usize::MAX, |n| n.parse().unwrap());
    let limit = wanted.min(content.page_limit.unwrap_or(usize::MAX));
    let last = asked("last").unwrap_or_default();
    let mut left = repository.tags.keys().filter(|tag| **tag > last).peekable();
    let tags: Vec<&String> = left.by_ref().take(limit).collect();
    let body = json!({ "name": "as the registry calls it", "tags": tags });
    let answer = Answer::new(200, body.to_string()).with("content-type", "application/json");
    match (tags.last(), left.peek()) {
        (Some(last), Some(_)) => {
            let path = &request.path;
            answer.with("link", format!("<{path}?last={last}&n={limit}>; rel=\"next\""))
        }
        _ => answer,
    }
}

/// A page of what refers to a subject, which is nothing where nothing is known.
fn referrers(
    content: &Content,
    repository: &Repository,
    request: &Request,
    subject: &str,
) -> Answer {
    let all = repository.referrers.get(subject).map_or([].as_slice(), Vec::as_slice);
    let start = request.query_values("from").next().map_or(0, |from| from.parse().unwrap());
    let end = content.page_limit.map_or(all.len(), |limit| all.len().min(start + limit));
    let body = json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": all[start..end] });
    let answer = Answer::new(200, body.to_string()).with("content-type", OCI_INDEX);
    if end == all.len() {
        return answer;
    }
    answer.with("link", format!("<{}?from={end}>; rel=\"next\"", request.path))
}

fn blob(content: &Content, repository: &Repository, request: &Request, digest: &str) -> Answer {
    let Some(blob) = repository.blobs.get(digest) else {
        return error(404, "BLOB_UNKNOWN");
    };
    let Some(other) = &content.redirect_to else {
        return blob_answer(request, digest, blob);
    };
    let others = &mut other.lock().content.redirected;
    others.insert(digest.to_owned(), blob.clone());
    let location = format!("{}{REDIRECTED}{digest}", other.url);
    Answer::new(307, "").with("location", location)
}

fn blob_answer(request: &Request, digest: &str, blob: &Bytes) -> Answer {
    let answer = match range(request) {
        Some((start, end)) if start < blob.len() => {
            let end = end.map_or(blob.len(), |end| (end + 1).min(blob.len()));
            let range = format!("bytes {start}-{}/{}", end - 1, blob.len());
            Answer::new(206, blob.slice(start..end)).with("content-range", range)
        }
        Some(_) => return Answer::new(416, ""),
        None => Answer::new(200, blob.clone()),
    };
    answer
        .with("content-type", "application/octet-stream")
        .with("docker-content-digest", digest)
        .with("accept-ranges", "bytes")
}

/// First and last byte of `bytes=a-` or `bytes=a-b`.
fn range(request: &Request) -> Option<(usize, Option<usize>)> {
    let (start, end) = request.header("range")?.strip_prefix("bytes=")?.split_once('-')?;
    Some((start.parse().ok()?, end.parse().ok()))
}

/// Repository, kind and reference of the path behind `/v2/`.
pub(super) fn split(path: &str) -> Option<(&str, &str, &str)> {
    let (rest, reference) = path.rsplit_once('/')?;
    let (repository, kind) = rest.rsplit_once('/')?;
    let is_known =
        matches!((kind, reference), ("manifests" | "blobs" | "referrers", _) | ("tags", "list"));
    is_known.then_some((repository, kind, reference))
}

fn not_found() -> Answer {
    error(404, "NAME_UNKNOWN")
}

pub(super) fn error(status: u16, code: &str) -> Answer {
    let body = json!({ "errors": [{ "code": code, "message": "the fake registry says so" }] });
    Answer::new(status, body.to_string()).with("content-type", "application/json")
}
