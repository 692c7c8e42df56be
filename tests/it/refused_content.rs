//! What Larder does not take from upstream, and what it says of it.

use std::time::Duration;

use bytes::Bytes;
use larder::oci::{DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST};
use serde_json::json;

use crate::support::{
    FakeRegistry, Fault, Image, Index, TestMirror,
    mirror::{blob_url, manifest_path},
    random_bytes, sha256,
};

/// More than the `tag_ttl` of a [`TestMirror`].
const PAST_TTL: Duration = Duration::from_secs(61);

const LARGEST_MANIFEST: usize = 4 * 1024 * 1024;

/// A manifest that clients would read differently from each other, or that no client can read, is
/// refused with the reason, and not kept.
#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_is_refused_with_the_reason() {
    let registry = FakeRegistry::start().await;
    let mirror = TestMirror::of(&registry).await;
    let old = "application/vnd.docker.distribution.manifest.v1";
    let one = entry("a");
    let upper = one.replace("sha256:", "sha256:A");
    let nested = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let too_large = " ".repeat(LARGEST_MANIFEST + 1);
    let table = [
        (&*format!("{old}+json"), r#"{"schemaVersion":1}"#.to_owned(), "schema 1"),
        (&*format!("{old}+prettyjws"), r#"{"schemaVersion":1}"#.to_owned(), "schema 1"),
        (DOCKER_MANIFEST, r#"{"schemaVersion":1,"fsLayers":[]}"#.to_owned(), "schema 1"),
        (OCI_INDEX, v2(r#""manifests":[],"layers":[]"#), "ambiguous"),
        (OCI_INDEX, v2(&format!(r#""manifests":[{one}],"config":{one}"#)), "ambiguous"),
        (OCI_INDEX, v2(r#""manifests":[],"manifests":[]"#), "duplicate field"),
        (OCI_MANIFEST, v2(&format!(r#""mediaType":"{OCI_INDEX}","manifests":[]"#)), OCI_INDEX),
        (OCI_INDEX, v2(&format!(r#""manifests":[{}]"#, entries(10_001))), "more than 10000"),
        (OCI_MANIFEST, v2(&format!(r#""config":{one},"layers":[{upper}]"#)), "invalid digest"),
        (OCI_MANIFEST, v2(""), "neither 'manifests' nor 'config'"),
        (OCI_MANIFEST, v2(r#""layers":[]"#), "neither 'manifests' nor 'config'"),
        (OCI_MANIFEST, "<html>".to_owned(), "no valid manifest"),
        (OCI_MANIFEST, String::new(), "no valid manifest"),
        (OCI_MANIFEST, "[".repeat(100_000), "no valid manifest"),
        (
            OCI_INDEX,
            v2(&format!(r#""manifests":[{{"annotations":{nested}}}]"#)),
            "no valid manifest",
        ),
        (OCI_MANIFEST, too_large, "longer than 4194304 bytes"),
    ];
    for (number, (content_type, manifest, reason)) in table.into_iter().enumerate() {
        let (tag, manifest) = (number.to_string(), Bytes::from(manifest));
        let digest = registry.put_manifest("library/x", content_type, &manifest);
        registry.put_tag("library/x", &tag, &digest);
        for reference in [&tag, &digest.to_string()] {
            let response = mirror.get(&manifest_path("library/x", reference)).await;
            assert_eq!(response.status, 502, "{reason}");
            let (_, message) = response.error().await;
            assert!(message.contains(reason), "{message}");
        }
        assert!(!mirror.has_blob(&digest), "{reason}");
    }
}

/// Ten thousand entries are not too many.
#[tokio::test(flavor = "multi_thread")]
async fn the_longest_index_is_served() {
    let registry = FakeRegistry::start().await;
    let index = v2(&format!(r#""manifests":[{}]"#, entries(10_000))).into();
    let digest = registry.put_manifest("library/x", OCI_INDEX, &index);
    let mirror = TestMirror::of(&registry).await;
    assert_eq!(mirror.manifest("library/x", &digest.to_string()).await, index);
}

/// A HEAD promises nothing that a GET then refuses.
#[tokio::test(flavor = "multi_thread")]
async fn a_head_of_a_refused_type_is_refused_too() {
    let registry = FakeRegistry::start().await;
    let old = "application/vnd.docker.distribution.manifest.v1+prettyjws";
    let manifest = r#"{"schemaVersion":1}"#.into();
    let digest = registry.put_manifest("library/x", old, &manifest);
    registry.put_tag("library/x", "latest", &digest);
    let mirror = TestMirror::of(&registry).await;
    for reference in ["latest", &digest.to_string()] {
        assert_eq!(mirror.head(&manifest_path("library/x", reference)).await.status, 502);
    }
}

/// Indexes within indexes end somewhere.
#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_that_lies_too_deep_is_refused() {
    let registry = FakeRegistry::start().await;
    let mut index = Index::of(vec![Image::random(14)]).manifest;
    let mut levels = vec![registry.put_manifest("library/x", OCI_INDEX, &index)];
    for _ in 0..4 {
        let (digest, size) = (sha256(&index), index.len());
        let child = json!({ "mediaType": OCI_INDEX, "digest": digest.to_string(), "size": size });
        let outer = json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [child] });
        index = outer.to_string().into();
        levels.push(registry.put_manifest("library/x", OCI_INDEX, &index));
    }
    let mirror = TestMirror::of(&registry).await;
    for (depth, digest) in levels.iter().rev().enumerate() {
        let response = mirror.get(&manifest_path("library/x", &digest.to_string())).await;
        if depth < 4 {
            assert_eq!(response.status, 200, "{depth} indexes above");
        } else {
            assert_eq!(response.status, 502, "{depth} indexes above");
            let (code, message) = response.error().await;
            assert_eq!(code, "MANIFEST_INVALID");
            assert!(message.contains("nested more than 4 indexes deep"), "{message}");
        }
    }
}

/// The digest is that of the plain bytes, so that encoded ones are neither passed on nor unpacked
/// nor kept; the client hears why. What is not encoded but says so in words is taken.
#[tokio::test(flavor = "multi_thread")]
async fn encoded_content_is_refused() {
    let registry = FakeRegistry::start().await;
    let image = Image::random(1);
    registry.put_image("library/x", "latest", &image);
    let layer = sha256(&image.layers[0]);
    let paths = [
        (manifest_path("library/x", "latest"), 502),
        (manifest_path("library/x", &image.digest().to_string()), 502),
        (blob_url("library/x", &layer), 429),
    ];
    for (encoding, body) in [
        ("gzip", Some(random_bytes(2, 500))),
        ("x-gzip", Some(random_bytes(3, 500))),
        ("identity, br", Some(random_bytes(4, 500))),
        // A proxy unpacked the body and left the header.
        ("gzip", None),
    ] {
        let mirror = TestMirror::of(&registry).await;
        let encoded = Fault::default().header("content-encoding", encoding);
        for method in ["GET", "HEAD"] {
            let encoded = body.iter().fold(encoded.clone(), |fault, body| fault.body(body.clone()));
            registry.on(method, "/v2/library/*", encoded);
        }
        for (path, status) in &paths {
            assert_eq!(mirror.head(path).await.status, *status, "{encoding} {path}");
            let response = mirror.get(path).await;
            assert_eq!(response.status, *status, "{encoding} {path}");
            let (_, message) = response.error().await;
            assert!(message.contains("Content-Encoding"), "{message}");
        }
        assert!(!mirror.has_blob(&image.digest()) && !mirror.has_blob(&layer), "{encoding}");

        registry.behave();
        mirror.pull("library/x", "latest", &image).await;
    }
    for method in ["GET", "HEAD"] {
        let plain = Fault::default().header("content-encoding", "Identity");
        registry.on(method, "/v2/library/*", plain);
    }
    let mirror = TestMirror::of(&registry).await;
    mirror.pull("library/x", "latest", &image).await;
    for (path, _) in &paths {
        assert_eq!(mirror.get(path).await.header("content-encoding"), None, "{path}");
    }
}

/// What is cached outlives an upstream that begins to send what is refused.
#[tokio::test(flavor = "multi_thread")]
async fn a_cached_image_outlives_an_upstream_gone_bad() {
    let bad: [Fault; 3] = [
        Fault::default().header("content-encoding", "gzip"),
        Fault::status(200).body("<html>").header("content-type", "text/html"),
        Fault::status(200).body(r#"{"schemaVersion":1}"#).header("content-type", OCI_MANIFEST),
    ];
    for fault in bad {
        let registry = FakeRegistry::start().await;
        let image = Image::random(5);
        registry.put_image("library/x", "latest", &image);
        let mirror = TestMirror::of(&registry).await;
        mirror.pull("library/x", "latest", &image).await;
        for method in ["GET", "HEAD"] {
            registry.on(method, "/v2/library/*", fault.clone());
        }
        mirror.advance(PAST_TTL);
        let response = mirror.get(&manifest_path("library/x", "latest")).await;
        let warning = response.header("warning").unwrap_or_default();
        assert!(warning.starts_with("299 - \""), "{response:?}");
        mirror.pull("library/x", "latest", &image).await;
    }
}

/// A manifest of version 2 with these fields.
fn v2(fields: &str) -> String {
    let comma = if fields.is_empty() { "" } else { "," };
    format!(r#"{{"schemaVersion":2{comma}{fields}}}"#)
}

fn entry(content: &str) -> String {
    let digest = sha256(content.as_bytes());
    format!(r#"{{"mediaType":"{OCI_MANIFEST}","digest":"{digest}","size":1}}"#)
}

/// So many entries, each of its own.
fn entries(count: usize) -> String {
    let entries: Vec<String> = (0..count).map(|number| entry(&number.to_string())).collect();
    entries.join(",")
}
