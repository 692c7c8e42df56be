//! What every registry may expect of Larder, checked on each request.

use larder::oci::{DOCKER_LIST, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST};

use super::{content::split, http::Request};

/// What is wrong with a request, if anything.
pub(super) fn complaint(request: &Request) -> Option<String> {
    let wrong = wrong(request)?;
    Some(format!("{wrong}: {request:#?}"))
}

fn wrong(request: &Request) -> Option<&'static str> {
    if request.query_values("ns").next().is_some() {
        return Some("ns is forwarded, which some registries answer with 400");
    }
    if request.header("proxy-authorization").is_some() {
        return Some("a proxy's password is shown to a registry");
    }
    let kind = request.path.strip_prefix("/v2/").and_then(split).map(|(_, kind, _)| kind);
    let is_content = matches!(kind, Some("manifests" | "blobs"));
    if is_content && request.header("accept-encoding") != Some("identity") {
        return Some("a compressed answer would break the digest");
    }
    if kind == Some("referrers") && request.query_values("artifactType").next().is_some() {
        return Some("a filtered list would be taken for all of it");
    }
    if kind == Some("manifests") {
        let accept = request.header_lines("accept").collect::<Vec<_>>().join(", ");
        let types = [OCI_INDEX, OCI_MANIFEST, DOCKER_LIST, DOCKER_MANIFEST];
        if types.iter().any(|media_type| !accept.contains(media_type)) {
            return Some("without the full Accept list the answer depends on the asker");
        }
    }
    None
}
