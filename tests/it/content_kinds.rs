//! Content of every kind: cold, warm, after a restart, and while upstream is away.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use bytes::Bytes;
use larder::oci::{DOCKER_LIST, DOCKER_MANIFEST, Digest, OCI_INDEX, OCI_MANIFEST};
use serde_json::{Value, json};

use crate::support::{
    FakeRegistry, Mode, TestMirror,
    client::Body,
    mirror::{blob_url, manifest_path},
    random_bytes, sha256, sha512,
};

const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
const EMPTY: &str = "application/vnd.oci.empty.v1+json";
const BLOB: &str = "application/octet-stream";

/// More than the `tag_ttl` of a [`TestMirror`].
const PAST_TTL: Duration = Duration::from_secs(61);

/// A name for messages, and what puts such content into a repository.
type Kind = (&'static str, fn(&mut Shelf<'_>));

const KINDS: [Kind; 19] = [
    ("image", image),
    ("docker-image", docker_image),
    ("index", index_with_attestation),
    ("nested-index", nested_index),
    ("sparse-index", sparse_index),
    ("artifact", artifact),
    ("artifact-without-layers", artifact_without_layers),
    ("helm-chart", helm_chart),
    ("signature", signature),
    ("empty-layer", empty_layer),
    ("sha512", named_by_sha512),
    ("foreign-layer", foreign_layer),
    ("config-is-layer", config_is_layer),
    ("largest-manifest", largest_manifest),
    ("odd-json", odd_json),
    ("nulls", nulls),
    ("untyped", untyped),
    ("odd-type", odd_type),
    ("odd-header", odd_header),
];

/// Whatever a registry holds comes verbatim, with its type and its digest, is fetched once, and
/// outlives both a restart and upstream. What a manifest lists but upstream lacks is missing
/// alone.
#[tokio::test(flavor = "multi_thread")]
async fn every_kind_is_served_cold_warm_after_a_restart_and_without_upstream() {
    let registry = FakeRegistry::start().await;
    let shelves = KINDS.map(|(name, fill)| Shelf::filled(&registry, name, fill));

    let mirror = TestMirror::of(&registry).await;
    for state in ["cold", "warm"] {
        for shelf in &shelves {
            shelf.assert_served(&mirror, state).await;
            shelf.assert_absent(&mirror, &[404]).await;
        }
    }
    let mirror = mirror.stop().await.start().await;
    for shelf in &shelves {
        shelf.assert_served(&mirror, "after a restart").await;
    }
    let stopped = mirror.stop().await;
    registry.set_mode(Mode::Down).await;
    let mirror = stopped.wall_jumped(PAST_TTL).start().await;
    for shelf in &shelves {
        shelf.assert_served(&mirror, "without upstream").await;
        shelf.assert_absent(&mirror, &[429, 502, 504]).await;
    }
    assert_fetched_once(&registry, &shelves);
}

fn image(shelf: &mut Shelf<'_>) {
    let manifest = shelf.image_manifest(1);
    shelf.tagged_manifest("latest", OCI_MANIFEST, &manifest);
}

fn docker_image(shelf: &mut Shelf<'_>) {
    let config = shelf.blob("application/vnd.docker.container.image.v1+json", b"{ }");
    let layer = random_bytes(2, 5_000);
    let layer = shelf.blob("application/vnd.docker.image.rootfs.diff.tar.gzip", &layer);
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": DOCKER_MANIFEST,
        "config": config,
        "layers": [layer],
    });
    let manifest = shelf.manifest(DOCKER_MANIFEST, &manifest);
    let list = json!({ "schemaVersion": 2, "mediaType": DOCKER_LIST, "manifests": [manifest] });
    shelf.tagged_manifest("latest", DOCKER_LIST, &list);
}

/// As BuildKit pushes one: the attestation is an image manifest of no platform.
fn index_with_attestation(shelf: &mut Shelf<'_>) {
    let image = shelf.image_manifest(3);
    let image = shelf.manifest(OCI_MANIFEST, &image);
    let config = shelf.blob(CONFIG, br#"{"architecture":"unknown","os":"unknown"}"#);
    let statement = shelf.blob("application/vnd.in-toto+json", b"{\"_type\":\"statement\"}");
    let attestation = image_of(&config, &[statement]);
    let mut attestation = shelf.manifest(OCI_MANIFEST, &attestation);
    attestation["platform"] = json!({ "architecture": "unknown", "os": "unknown" });
    attestation["annotations"] = json!({
        "vnd.docker.reference.type": "attestation-manifest",
        "vnd.docker.reference.digest": image["digest"],
    });
    shelf.tagged_manifest("latest", OCI_INDEX, &index_of(&[image, attestation]));
}

fn nested_index(shelf: &mut Shelf<'_>) {
    let manifest = shelf.image_manifest(4);
    let mut child = shelf.manifest(OCI_MANIFEST, &manifest);
    for _ in 0..3 {
        child = shelf.manifest(OCI_INDEX, &index_of(&[child]));
    }
    shelf.tagged_manifest("latest", OCI_INDEX, &index_of(&[child]));
}

/// Somebody copied one platform and left the index as it was.
fn sparse_index(shelf: &mut Shelf<'_>) {
    let manifest = shelf.image_manifest(5);
    let here = shelf.manifest(OCI_MANIFEST, &manifest);
    let nested = index_of(&[shelf.absent_manifest(), here]);
    let nested = shelf.manifest(OCI_INDEX, &nested);
    let absent = shelf.absent_manifest();
    shelf.tagged_manifest("latest", OCI_INDEX, &index_of(&[absent, nested]));
}

fn artifact(shelf: &mut Shelf<'_>) {
    let config = shelf.blob(EMPTY, b"{}");
    let sbom = shelf.blob("application/spdx+json", b"{\"spdxVersion\":\"SPDX-2.3\"}");
    let mut manifest = image_of(&config, &[sbom]);
    manifest["artifactType"] = json!("application/spdx+json");
    manifest["subject"] = shelf.absent_manifest();
    manifest["annotations"] = json!({ "org.opencontainers.image.created": "2026-01-01T00:00:00Z" });
    shelf.tagged_manifest("sbom", OCI_MANIFEST, &manifest);
}

/// The specification wants `layers`; registries take manifests without.
fn artifact_without_layers(shelf: &mut Shelf<'_>) {
    let config = shelf.blob("image/gif", b"GIF89a");
    let manifest = json!({ "schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config });
    shelf.tagged_manifest("absent", OCI_MANIFEST, &manifest);
    shelf.tagged_manifest("empty", OCI_MANIFEST, &image_of(&config, &[]));
}

/// A `+` in a chart's version is a `_` in its tag.
fn helm_chart(shelf: &mut Shelf<'_>) {
    let config = shelf.blob(
        "application/vnd.cncf.helm.config.v1+json",
        br#"{"name":"app","version":"1.2.0+build.7","apiVersion":"v2"}"#,
    );
    let chart = random_bytes(6, 3_000);
    let layers = [
        shelf.blob("application/vnd.cncf.helm.chart.content.v1.tar+gzip", &chart),
        shelf.blob("application/vnd.cncf.helm.chart.provenance.v1.prov", b"-----BEGIN PGP"),
    ];
    shelf.tagged_manifest("1.2.0_build.7", OCI_MANIFEST, &image_of(&config, &layers));
}

/// As cosign pushes one, beside the image.
fn signature(shelf: &mut Shelf<'_>) {
    let config = shelf.blob(CONFIG, br#"{"rootfs":{"type":"layers"}}"#);
    let payload = b"{\"critical\":{}}";
    let mut layer = shelf.blob("application/vnd.dev.cosign.simplesigning.v1+json", payload);
    layer["annotations"] = json!({ "dev.cosignproject.cosign/signature": "MEUC" });
    let tag = format!("sha256-{}.sig", sha256(b"the image").encoded());
    shelf.tagged_manifest(&tag, OCI_MANIFEST, &image_of(&config, &[layer]));
}

fn empty_layer(shelf: &mut Shelf<'_>) {
    let config = shelf.blob(CONFIG, b"{\"os\":\"linux\"}");
    let empty = shelf.blob(LAYER, b"");
    shelf.tagged_manifest("latest", OCI_MANIFEST, &image_of(&config, &[empty]));
}

/// Down to the manifest's own name.
fn named_by_sha512(shelf: &mut Shelf<'_>) {
    let config = shelf.blob_as(sha512, CONFIG, b"{\"os\":\"plan9\"}");
    let layer = random_bytes(7, 4_000);
    let layer = shelf.blob_as(sha512, LAYER, &layer);
    let manifest = to_bytes(&image_of(&config, &[layer]));
    shelf.typed_manifest(sha512, OCI_MANIFEST, OCI_MANIFEST, &manifest);
}

/// Windows' base layers are had from Microsoft, and from nowhere else.
fn foreign_layer(shelf: &mut Shelf<'_>) {
    let config = shelf.blob(CONFIG, b"{\"os\":\"windows\"}");
    let layer = random_bytes(8, 2_000);
    let mut layers = vec![shelf.blob(LAYER, &layer)];
    for media_type in [
        "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
        "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
    ] {
        let mut foreign = shelf.absent_blob(media_type);
        foreign["urls"] = json!(["https://mcr.microsoft.com/v2/windows/blobs/sha256:0"]);
        layers.insert(0, foreign);
    }
    shelf.tagged_manifest("ltsc2022", OCI_MANIFEST, &image_of(&config, &layers));
}

fn config_is_layer(shelf: &mut Shelf<'_>) {
    let empty = shelf.blob(EMPTY, b"{}");
    let manifest = image_of(&empty, &[empty.clone(), empty.clone()]);
    shelf.tagged_manifest("latest", OCI_MANIFEST, &manifest);
}

/// 4 MiB to the byte.
fn largest_manifest(shelf: &mut Shelf<'_>) {
    let mut manifest = to_bytes(&shelf.image_manifest(9)).to_vec();
    manifest.resize(4 * 1024 * 1024, b'\n');
    let descriptor = shelf.typed_manifest(sha256, OCI_MANIFEST, OCI_MANIFEST, &manifest.into());
    shelf.tag("latest", &descriptor);
}

/// Unknown fields, odd spacing, odd numbers, escapes and the order of keys are part of the digest.
fn odd_json(shelf: &mut Shelf<'_>) {
    let config = shelf.blob(CONFIG, b"{\"os\":\"odd\"}");
    let layer = shelf.blob(LAYER, b"odd");
    let text = format!(
        "\r\n\t {{\"x-unknown\" :[1, 2.50,1e3, null,{{\"\":\"\\u00e9\\/\"}}],  \"layers\":[{layer}\n],\
         \"config\":{config},\"mediaType\":\"application\\/vnd.oci.image.manifest.v1+json\",\
         \"schemaVersion\" : 2 }}\n\n"
    );
    let descriptor = shelf.typed_manifest(sha256, OCI_MANIFEST, OCI_MANIFEST, &text.into());
    shelf.tag("latest", &descriptor);
}

/// Some writers say `null` where they have nothing.
fn nulls(shelf: &mut Shelf<'_>) {
    let mut config = shelf.blob(CONFIG, b"{\"os\":null}");
    for field in ["mediaType", "urls", "annotations", "platform", "data"] {
        config[field] = Value::Null;
    }
    let mut manifest = image_of(&config, &[]);
    for field in ["mediaType", "layers", "manifests", "subject", "annotations", "artifactType"] {
        manifest[field] = Value::Null;
    }
    shelf.tagged_manifest("image", OCI_MANIFEST, &manifest);
}

/// The header alone says what such a body is, so it has to be remembered.
fn untyped(shelf: &mut Shelf<'_>) {
    let mut manifest = shelf.image_manifest(10);
    manifest.as_object_mut().unwrap().remove("mediaType");
    let child = shelf.manifest(DOCKER_MANIFEST, &manifest);
    let list = json!({ "schemaVersion": 2, "manifests": [child] });
    shelf.tagged_manifest("latest", DOCKER_LIST, &list);
}

/// A legal type that nobody has heard of.
fn odd_type(shelf: &mut Shelf<'_>) {
    let odd = "application/X.Example-Manifest.v7+JSON";
    let mut manifest = shelf.image_manifest(11);
    manifest["mediaType"] = json!(odd);
    shelf.tagged_manifest("latest", odd, &manifest);
}

/// Static file servers have a type of their own for everything; others add parameters.
fn odd_header(shelf: &mut Shelf<'_>) {
    for (tag, header) in [
        ("octets", "binary/octet-stream".to_owned()),
        ("charset", format!("{OCI_MANIFEST} ; charset=utf-8")),
    ] {
        let mut manifest = shelf.image_manifest(12);
        manifest["annotations"] = json!({ "tag": tag });
        let manifest = to_bytes(&manifest);
        let descriptor = shelf.typed_manifest(sha256, &header, OCI_MANIFEST, &manifest);
        shelf.tag(tag, &descriptor);
    }
}

/// A repository with content of one kind.
struct Shelf<'a> {
    registry: &'a FakeRegistry,
    repository: String,
    /// What can be pulled, that which is listed before that which lists it.
    items: Vec<Item>,
    /// Paths of what is listed and cannot be had.
    absent: Vec<String>,
}

/// What is found at a path.
#[derive(Clone)]
struct Item {
    path: String,
    media_type: String,
    digest: Digest,
    bytes: Bytes,
}

impl<'a> Shelf<'a> {
    fn filled(registry: &'a FakeRegistry, name: &str, fill: fn(&mut Shelf<'_>)) -> Shelf<'a> {
        let repository = format!("kinds/{name}");
        let mut shelf = Shelf { registry, repository, items: Vec::new(), absent: Vec::new() };
        fill(&mut shelf);
        shelf
    }

    /// Adds a blob and returns its descriptor.
    fn blob(&mut self, media_type: &str, bytes: &[u8]) -> Value {
        self.blob_as(sha256, media_type, bytes)
    }

    fn blob_as(&mut self, name: fn(&[u8]) -> Digest, media_type: &str, bytes: &[u8]) -> Value {
        let bytes = Bytes::copy_from_slice(bytes);
        let digest = name(&bytes);
        self.registry.put_blob_as(&self.repository, &digest, &bytes);
        let path = blob_url(&self.repository, &digest);
        let descriptor = descriptor(media_type, &digest, &bytes);
        self.items.push(Item { path, media_type: BLOB.to_owned(), digest, bytes });
        descriptor
    }

    /// A manifest with a config and a layer, which are added.
    fn image_manifest(&mut self, seed: u64) -> Value {
        let config = self.blob(CONFIG, format!(r#"{{"author":"{seed}"}}"#).as_bytes());
        let layer = random_bytes(seed, 5_000);
        let layer = self.blob(LAYER, &layer);
        image_of(&config, &[layer])
    }

    /// Adds a manifest and returns its descriptor.
    fn manifest(&mut self, media_type: &str, manifest: &Value) -> Value {
        self.typed_manifest(sha256, media_type, media_type, &to_bytes(manifest))
    }

    fn tagged_manifest(&mut self, tag: &str, media_type: &str, manifest: &Value) {
        let descriptor = self.manifest(media_type, manifest);
        self.tag(tag, &descriptor);
    }

    /// Adds a manifest that upstream serves as `header`, and Larder as `media_type`.
    fn typed_manifest(
        &mut self,
        name: fn(&[u8]) -> Digest,
        header: &str,
        media_type: &str,
        bytes: &Bytes,
    ) -> Value {
        let digest = name(bytes);
        self.registry.put_manifest_as(&self.repository, header, &digest, bytes);
        let path = manifest_path(&self.repository, &digest.to_string());
        let descriptor = descriptor(media_type, &digest, bytes);
        let (media_type, bytes) = (media_type.to_owned(), bytes.clone());
        self.items.push(Item { path, media_type, digest, bytes });
        descriptor
    }

    /// Tags the manifest that was added last.
    fn tag(&mut self, tag: &str, manifest: &Value) {
        let item = self.items.last().unwrap().clone();
        assert_eq!(manifest["digest"], item.digest.to_string());
        self.registry.put_tag(&self.repository, tag, &item.digest);
        self.items.push(Item { path: manifest_path(&self.repository, tag), ..item });
    }

    fn absent_manifest(&mut self) -> Value {
        let bytes = random_bytes(self.absent.len() as u64, 100);
        let digest = sha256(&bytes);
        self.absent.push(manifest_path(&self.repository, &digest.to_string()));
        descriptor(OCI_MANIFEST, &digest, &bytes)
    }

    fn absent_blob(&mut self, media_type: &str) -> Value {
        let bytes = random_bytes(self.absent.len() as u64, 100);
        let digest = sha256(&bytes);
        self.absent.push(blob_url(&self.repository, &digest));
        descriptor(media_type, &digest, &bytes)
    }

    /// Pulls everything from the tag down.
    async fn assert_served(&self, mirror: &TestMirror, state: &str) {
        for item in self.items.iter().rev() {
            item.assert_served(mirror, state).await;
        }
        for item in &self.items {
            mirror.wait_for_blob(&item.digest).await;
        }
    }

    async fn assert_absent(&self, mirror: &TestMirror, statuses: &[u16]) {
        for path in &self.absent {
            let response = mirror.get(path).await;
            assert!(statuses.contains(&response.status), "{path}: {response:?}");
            response.error().await;
        }
    }
}

impl Item {
    async fn assert_served(&self, mirror: &TestMirror, state: &str) {
        for method in ["HEAD", "GET"] {
            let response = mirror.request(method, &self.path, &[]).await;
            let what = format!("{state}: {method} {}: {response:?}", self.path);
            assert_eq!(response.status, 200, "{what}");
            assert_eq!(response.header("content-type"), Some(self.media_type.as_str()), "{what}");
            let digest = self.digest.to_string();
            assert_eq!(response.header("docker-content-digest"), Some(digest.as_str()), "{what}");
            let length = self.bytes.len().to_string();
            assert_eq!(response.header("content-length"), Some(length.as_str()), "{what}");
            let body = if method == "GET" { self.bytes.clone() } else { Bytes::new() };
            assert!(response.body().await == Body::Complete(body), "{what}");
        }
    }
}

/// Whatever it is asked by, and wherever.
fn assert_fetched_once(registry: &FakeRegistry, shelves: &[Shelf<'_>]) {
    let mut paths = BTreeMap::<&Digest, BTreeSet<&str>>::new();
    for item in shelves.iter().flat_map(|shelf| &shelf.items) {
        paths.entry(&item.digest).or_default().insert(&item.path);
    }
    for paths in paths.values() {
        let fetched: usize = paths.iter().map(|path| registry.count("GET", path)).sum();
        assert_eq!(fetched, 1, "{paths:?}");
    }
}

fn image_of(config: &Value, layers: &[Value]) -> Value {
    json!({ "schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config, "layers": layers })
}

fn index_of(manifests: &[Value]) -> Value {
    json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": manifests })
}

fn descriptor(media_type: &str, digest: &Digest, bytes: &Bytes) -> Value {
    json!({ "mediaType": media_type, "digest": digest.to_string(), "size": bytes.len() })
}

fn to_bytes(value: &Value) -> Bytes {
    serde_json::to_vec(value).unwrap().into()
}
