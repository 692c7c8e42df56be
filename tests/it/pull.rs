//! A pull that goes well: routes, headers and error bodies.

use larder::oci::{DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST};

use crate::support::{
    FakeRegistry, Image, Index, TestMirror, Upstream,
    client::Body,
    mirror::{blob_url, manifest_path},
    random_bytes, sha256, sha512,
};

/// `/v2/` tells clients that this is a registry, and a person's browser sees something too.
#[tokio::test(flavor = "multi_thread")]
async fn the_base_answers_clients_and_people() {
    let registry = FakeRegistry::start().await;
    let mirror = TestMirror::of(&registry).await;

    let base = mirror.get("/v2/").await;
    assert_eq!(base.status, 200);
    assert_eq!(base.header("docker-distribution-api-version"), Some("registry/2.0"));
    assert_eq!(base.header("www-authenticate"), None);

    let page = mirror.get("/").await;
    assert_eq!(page.status, 200);
    let text = page.bytes().await;
    assert_eq!(text.iter().filter(|byte| **byte == b'\n').count(), 1, "{text:?}");
    assert_eq!(registry.requests().len(), 0, "neither needs upstream");
}

/// A manifest comes verbatim, by tag and by digest, cold and warm, with all that clients need.
#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_has_the_headers_that_clients_need() {
    let registry = FakeRegistry::start().await;
    let image = Image::random(1);
    registry.put_image("library/x", "latest", &image);
    let mirror = TestMirror::of(&registry).await;
    let digest = image.digest().to_string();

    for reference in ["latest", "latest", &digest] {
        for method in ["HEAD", "GET"] {
            let path = manifest_path("library/x", reference);
            let response = mirror.request(method, &path, &[]).await;
            assert_eq!(response.status, 200, "{method} {path}");
            assert_eq!(response.header("content-type"), Some(OCI_MANIFEST));
            assert_eq!(response.header("docker-content-digest"), Some(digest.as_str()));
            let length = image.manifest.len().to_string();
            assert_eq!(response.header("content-length"), Some(length.as_str()));
            assert_eq!(response.header("etag"), Some(format!("\"{digest}\"").as_str()));
            assert_eq!(response.header("content-encoding"), None);
            let body = if method == "GET" { image.manifest.clone() } else { "".into() };
            assert_eq!(response.body().await, Body::Complete(body));
        }
    }
}

/// A blob comes whole, cold and warm, with all that clients need.
#[tokio::test(flavor = "multi_thread")]
async fn a_blob_has_the_headers_that_clients_need() {
    let registry = FakeRegistry::start().await;
    let blob = random_bytes(2, 100_000);
    let digest = registry.put_blob("library/x", &blob);
    let mirror = TestMirror::of(&registry).await;

    for method in ["HEAD", "GET", "GET", "HEAD"] {
        let response = mirror.request(method, &blob_url("library/x", &digest), &[]).await;
        assert_eq!(response.status, 200, "{method}");
        assert_eq!(response.header("content-type"), Some("application/octet-stream"));
        assert_eq!(response.header("docker-content-digest"), Some(digest.to_string().as_str()));
        assert_eq!(response.header("content-length"), Some("100000"));
        assert_eq!(response.header("accept-ranges"), Some("bytes"));
        assert_eq!(response.header("etag"), Some(format!("\"{digest}\"").as_str()));
        assert_eq!(response.header("content-encoding"), None);
        let body = if method == "GET" { blob.clone() } else { "".into() };
        assert_eq!(response.body().await, Body::Complete(body));
    }
}

/// The second pull of an image costs upstream nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_second_pull_makes_no_upstream_request() {
    let registry = FakeRegistry::start().await;
    let index = Index::of(vec![Image::random(3), Image::random(4)]);
    registry.put_index("library/x", "latest", &index);
    let mirror = TestMirror::of(&registry).await;
    let image = &index.images[0];

    let mut asked = Vec::new();
    for _ in 0..2 {
        assert_eq!(mirror.manifest("library/x", "latest").await, index.manifest);
        mirror.pull("library/x", &image.digest().to_string(), image).await;
        asked.push(registry.requests().len());
    }
    assert_eq!(asked[0], asked[1]);
    assert!(mirror.metric(r#"larder_lookups_total{kind="blob",result="hit"}"#).await >= 3.0);
}

/// Blobs named by sha512 are verified and served like the others.
#[tokio::test(flavor = "multi_thread")]
async fn a_sha512_blob_is_verified_and_kept() {
    let registry = FakeRegistry::start().await;
    let blob = random_bytes(5, 5_000);
    let digest = sha512(&blob);
    registry.put_blob_as("library/x", &digest, &blob);
    let mirror = TestMirror::of(&registry).await;

    assert_eq!(mirror.pull_blob("library/x", &digest).await, blob);
    mirror.wait_for_blob(&digest).await;

    let false_digest = sha512(b"something else");
    registry.put_blob_as("library/x", &false_digest, &blob);
    let response = mirror.get(&blob_url("library/x", &false_digest)).await;
    // So short a body may have failed before its headers are answered.
    if response.status != 429 {
        assert!(matches!(response.body().await, Body::Cut(_)));
    }
}

/// A one-component name on Docker Hub is an official image.
#[tokio::test(flavor = "multi_thread")]
async fn a_bare_name_means_an_official_image() {
    let registry = FakeRegistry::start().await;
    let image = Image::random(6);
    registry.put_image("library/busybox", "latest", &image);
    let mirror = TestMirror::of(&registry).await;

    mirror.pull("busybox", "latest", &image).await;
    mirror.pull("docker.io/busybox", "latest", &image).await;
    let path = "/v2/library/busybox/manifests/*";
    assert_eq!(registry.count("GET", path), 1, "all names share one cache");
}

/// Another registry than Docker Hub may be the one for bare names, whose names have no
/// `library/`.
#[tokio::test(flavor = "multi_thread")]
async fn the_default_registry_is_for_the_operator_to_say() {
    let registry = FakeRegistry::start().await;
    let image = Image::random(12);
    registry.put_image("app", "v1", &image);
    let corp = Upstream::named("registry.corp:5000", &registry).set("default", true);
    let mirror = TestMirror::builder().upstream(corp).start().await;
    for repository in ["app", "registry.corp:5000/app"] {
        mirror.pull(repository, "v1", &image).await;
    }
    assert_eq!(registry.count("GET", "/v2/app/manifests/*"), 1);
}

/// What a tag means does not depend on what the first client can read.
#[tokio::test(flavor = "multi_thread")]
async fn a_clients_accept_changes_nothing() {
    let registry = FakeRegistry::start().await;
    let index = Index::of(vec![Image::random(13)]);
    registry.put_index("library/x", "latest", &index);
    let mirror = TestMirror::of(&registry).await;
    let path = manifest_path("library/x", "latest");
    for accept in [DOCKER_MANIFEST, OCI_INDEX, "text/html"] {
        let response = mirror.request("GET", &path, &[("accept", accept)]).await;
        assert_eq!(response.header("content-type"), Some(OCI_INDEX), "{accept}");
        assert_eq!(response.bytes().await, index.manifest, "{accept}");
    }
}

/// Registries other than the default are reached by `?ns=`, and by their name or an alias in the
/// path.
#[tokio::test(flavor = "multi_thread")]
async fn another_registry_is_named_by_ns_or_by_path() {
    let (hub, quay) = (FakeRegistry::start().await, FakeRegistry::start().await);
    let image = Image::random(7);
    quay.put_image("org/app", "v1", &image);
    let mirror = TestMirror::builder()
        .upstream(Upstream::docker_io(&hub))
        .upstream(Upstream::named("quay.io", &quay).set("aliases", vec!["quay.corp"]))
        .start()
        .await;

    for path in [
        "/v2/org/app/manifests/v1?ns=quay.io",
        "/v2/quay.io/org/app/manifests/v1",
        "/v2/quay.io/org/app/manifests/v1?ns=quay.io",
        "/quay.io/v2/org/app/manifests/v1",
        "/v2/quay.corp/org/app/manifests/v1",
        "/quay.corp/v2/org/app/manifests/v1",
    ] {
        let response = mirror.get(path).await;
        assert_eq!(response.status, 200, "{path}");
        assert_eq!(response.bytes().await, image.manifest);
    }
    let response = mirror.get("/v2/org/app/manifests/v1?ns=quay.io").await;
    assert_eq!(response.header("oci-namespace"), Some("quay.io"));
    assert_eq!(hub.requests().len(), 0);
    assert_eq!(quay.count("GET", "/v2/org/app/manifests/*"), 1);
}

/// `ns` picks among the configured registries and is never dialled.
#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_registry_is_refused_and_counted() {
    let (hub, other) = (FakeRegistry::start().await, FakeRegistry::start().await);
    other.put_image("library/x", "latest", &Image::random(8));
    let mirror = TestMirror::of(&hub).await;

    let path = format!("/v2/library/x/manifests/latest?ns={}", other.address());
    let response = mirror.get(&path).await;
    assert_eq!(response.status, 404);
    response.error().await;
    assert_eq!(mirror.metric("larder_refused_namespaces_total").await, 1.0);
    assert_eq!(hub.requests().len() + other.requests().len(), 0);
}

/// What cannot be had is said in the form that clients print.
#[tokio::test(flavor = "multi_thread")]
async fn errors_have_the_form_of_the_specification() {
    let registry = FakeRegistry::start().await;
    registry.put_image("library/x", "latest", &Image::random(9));
    let mirror = TestMirror::of(&registry).await;
    let unknown = sha256(b"unknown");

    for (method, path, status, code) in [
        ("GET", manifest_path("library/x", "nope"), 404, "MANIFEST_UNKNOWN"),
        ("GET", manifest_path("library/x", &unknown.to_string()), 404, "MANIFEST_UNKNOWN"),
        ("GET", blob_url("library/x", &unknown), 404, "BLOB_UNKNOWN"),
        ("GET", "/v2/library/x/blobs/sha256:abc".to_owned(), 400, "DIGEST_INVALID"),
        ("GET", manifest_path("library/UPPER", "latest"), 400, "NAME_INVALID"),
        ("PUT", manifest_path("library/x", "latest"), 405, "UNSUPPORTED"),
    ] {
        let response = mirror.request(method, &path, &[("content-length", "0")]).await;
        assert_eq!(response.status, status, "{method} {path}");
        assert_eq!(response.header("docker-distribution-api-version"), Some("registry/2.0"));
        assert_eq!(response.error().await.0, code, "{method} {path}");
    }
}

/// A password that a client sends by habit stays here.
#[tokio::test(flavor = "multi_thread")]
async fn a_clients_authorization_goes_nowhere() {
    let registry = FakeRegistry::start().await;
    let image = Image::random(10);
    registry.put_image("library/x", "latest", &image);
    let mirror = TestMirror::of(&registry).await;

    let password = ("authorization", "Basic YW5uYTpzZWNyZXQ=");
    let path = manifest_path("library/x", "latest");
    let response = mirror.request("GET", &path, &[password]).await;
    assert_eq!(response.bytes().await, image.manifest);
    for request in registry.requests() {
        assert_eq!(request.header("authorization"), None, "{request:?}");
    }
}

/// A manifest whose bytes do not match the digest asked for is not passed on.
#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_with_wrong_bytes_is_refused() {
    let registry = FakeRegistry::start().await;
    let image = Image::random(11);
    registry.put_image("library/x", "latest", &image);
    let mirror = TestMirror::of(&registry).await;

    let path = manifest_path("library/x", &image.digest().to_string());
    registry.once("GET", &path, crate::support::Fault::flip_byte(3));
    assert_ne!(mirror.get(&path).await.status, 200);
    let response = mirror.get(&path).await;
    assert_eq!(response.bytes().await, image.manifest);
}
