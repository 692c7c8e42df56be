//! A digest is served only where upstream shows it, and shared wherever it does.

use std::time::Duration;

use bytes::Bytes;
use larder::oci::Digest;

use crate::support::{
    FakeRegistry, Fault, Gate, Image, Index, Mode, TestMirror,
    client::Body,
    mirror::{blob_url, manifest_path},
    random_bytes, sha256,
    wait::until,
};

/// A registry whose repositories `library/a` and `library/b` hold the same base layer.
struct Shared {
    registry: FakeRegistry,
    mirror: TestMirror,
    base: Bytes,
    digest: Digest,
    in_a: String,
    in_b: String,
}

impl Shared {
    async fn start() -> Shared {
        let registry = FakeRegistry::start().await;
        let base = random_bytes(1, 200_000);
        let digest = registry.put_blob("library/a", &base);
        registry.put_blob("library/b", &base);
        Shared {
            mirror: TestMirror::of(&registry).await,
            registry,
            in_a: blob_url("library/a", &digest),
            in_b: blob_url("library/b", &digest),
            base,
            digest,
        }
    }

    /// The base layer is in the store, from `library/a`.
    async fn pulled_from_a(self) -> Shared {
        self.mirror.get(&self.in_a).await.expect(&self.base).await;
        self.mirror.wait_for_blob(&self.digest).await;
        self
    }
}

/// Nodes that have the base layer pull only what is new of B; when upstream is gone, a node that
/// has nothing still gets all of B.
#[tokio::test(flavor = "multi_thread")]
async fn a_base_layer_pulled_elsewhere_is_there_when_upstream_is_not() {
    let shared = Shared::start().await.pulled_from_a().await;
    let image = Image::with_layers(2, vec![shared.base.clone(), random_bytes(3, 50_000)]);
    shared.registry.put_image("library/b", "latest", &image);
    let mirror = &shared.mirror;
    mirror.manifest("library/b", "latest").await;
    for blob in [&image.config, &image.layers[1]] {
        mirror.pull_blob("library/b", &sha256(blob)).await;
        mirror.wait_for_blob(&sha256(blob)).await;
    }

    shared.registry.set_mode(Mode::Down).await;
    mirror.pull("library/b", "latest", &image).await;
    assert_eq!(shared.registry.count("GET", &shared.in_b), 0, "one download was enough");
}

/// A blob that another repository brought is proved by a HEAD and not downloaded again.
#[tokio::test(flavor = "multi_thread")]
async fn a_blob_known_from_elsewhere_is_proved_by_a_head() {
    let shared = Shared::start().await.pulled_from_a().await;
    shared.mirror.get(&shared.in_b).await.expect(&shared.base).await;
    assert_eq!(shared.registry.count("HEAD", &shared.in_b), 1);
    assert_eq!(shared.registry.count("GET", &shared.in_b), 0);

    shared.mirror.get(&shared.in_b).await.expect(&shared.base).await;
    assert_eq!(shared.registry.count("HEAD", &shared.in_b), 1, "the proof is kept");
}

/// Where HEAD is refused, the first byte is proof enough.
#[tokio::test(flavor = "multi_thread")]
async fn a_blob_is_proved_by_its_first_byte_where_head_is_refused() {
    for status in [400, 401, 403, 405, 501] {
        let shared = Shared::start().await.pulled_from_a().await;
        shared.registry.on("HEAD", &shared.in_b, Fault::status(status));
        shared.mirror.get(&shared.in_b).await.expect(&shared.base).await;
        let requests = shared.registry.requests();
        let in_b = |method| {
            let fitting = requests.iter().filter(move |request| request.method == method);
            fitting.filter(|request| request.path == shared.in_b)
        };
        let ranges: Vec<_> = in_b("GET").map(|request| request.header("range")).collect();
        assert_eq!(ranges, [Some("bytes=0-0")], "{status}");
    }
}

/// Knowing a digest opens no door: where upstream denies a blob, so does the mirror, although it
/// has it.
#[tokio::test(flavor = "multi_thread")]
async fn a_blob_is_not_served_where_upstream_denies_it() {
    for status in [401, 403, 404] {
        let shared = Shared::start().await.pulled_from_a().await;
        shared.registry.deny("library/b", status);
        for method in ["GET", "HEAD"] {
            let response = shared.mirror.request(method, &shared.in_b, &[]).await;
            assert_eq!(response.status, 404, "{method} {status}");
        }
        assert_eq!(shared.mirror.get(&shared.in_a).await.status, 200);
    }
}

/// The same for a manifest asked by its digest.
#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_is_not_served_where_upstream_denies_it() {
    let registry = FakeRegistry::start().await;
    let image = Image::random(4);
    registry.put_image("library/a", "latest", &image);
    let mirror = TestMirror::of(&registry).await;
    mirror.pull("library/a", "latest", &image).await;
    registry.deny("library/b", 403);

    let digest = image.digest();
    let path = manifest_path("library/b", &digest.to_string());
    assert_eq!(mirror.get(&path).await.status, 404);
}

/// When upstream cannot be asked, what it never showed stays hidden.
#[tokio::test(flavor = "multi_thread")]
async fn a_blob_is_not_served_unproved_while_upstream_is_away() {
    let shared = Shared::start().await.pulled_from_a().await;
    shared.registry.set_mode(Mode::Down).await;
    assert_eq!(shared.mirror.get(&shared.in_b).await.status, 429);
    shared.mirror.get(&shared.in_a).await.expect(&shared.base).await;
}

/// A running download can be joined from another repository where upstream shows the blob …
#[tokio::test(flavor = "multi_thread")]
async fn a_download_is_joined_with_a_proof() {
    let shared = Shared::start().await;
    let gate = Gate::shut();
    shared.registry.on("GET", &shared.in_a, Fault::hold_after(100_000, &gate));
    let from_a = shared.mirror.get(&shared.in_a).await;
    let from_b = shared.mirror.get(&shared.in_b).await;
    gate.open();
    from_a.expect(&shared.base).await;
    from_b.expect(&shared.base).await;
    assert_eq!(shared.registry.count("GET", &shared.in_b), 0);
}

/// … and not where upstream denies it.
#[tokio::test(flavor = "multi_thread")]
async fn a_download_is_not_joined_without_a_proof() {
    let shared = Shared::start().await;
    shared.registry.deny("library/b", 403);
    let gate = Gate::shut();
    shared.registry.on("GET", &shared.in_a, Fault::hold_after(100_000, &gate));
    let from_a = shared.mirror.get(&shared.in_a).await;

    let refused = shared.mirror.get(&shared.in_b).await;
    assert_eq!(refused.status, 404);
    let Body::Complete(body) = refused.body().await else {
        panic!("an error is a whole answer");
    };
    assert!(body.len() < 1_000);
    gate.open();
    from_a.expect(&shared.base).await;
}

/// Being denied is the one repository's misfortune; it does not end a download for the others.
#[tokio::test(flavor = "multi_thread")]
async fn a_denied_repository_does_not_spoil_the_download_for_others() {
    let shared = Shared::start().await;
    shared.registry.deny("library/b", 403);
    let (from_b, from_a) =
        tokio::join!(shared.mirror.get(&shared.in_b), shared.mirror.get(&shared.in_a));
    assert_eq!(from_b.status, 404);
    from_a.expect(&shared.base).await;
    until("the blob in the store", async || shared.mirror.has_blob(&shared.digest)).await;
}

/// That upstream has no blob of a digest says nothing of the manifest.
#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_is_proved_as_a_manifest() {
    let registry = FakeRegistry::start().await;
    let image = Image::random(7);
    registry.put_image("library/a", "latest", &image);
    registry.put_image("library/b", "latest", &image);
    let mirror = TestMirror::of(&registry).await;
    mirror.pull("library/a", "latest", &image).await;

    let as_blob = blob_url("library/b", &image.digest());
    let as_manifest = manifest_path("library/b", &image.digest().to_string());
    registry.on("HEAD", &as_blob, Fault::delay(Duration::from_millis(500)));
    let (blob, manifest) = tokio::join!(mirror.get(&as_blob), async {
        registry.wait_for("HEAD", &as_blob, 1).await;
        mirror.get(&as_manifest).await
    });
    assert_eq!(blob.status, 404);
    assert_eq!(manifest.status, 200);
}

/// An index that two repositories share is linked to the second one with all that is here of it.
#[tokio::test(flavor = "multi_thread")]
async fn an_index_pulled_elsewhere_is_there_when_upstream_is_not() {
    let registry = FakeRegistry::start().await;
    let index = Index::of(vec![Image::random(5), Image::random(6)]);
    registry.put_index("library/a", "latest", &index);
    registry.put_index("library/b", "latest", &index);
    let mirror = TestMirror::of(&registry).await;
    let image = &index.images[0];
    let digest = image.digest().to_string();
    mirror.manifest("library/a", "latest").await;
    mirror.pull("library/a", &digest, image).await;

    mirror.manifest("library/b", "latest").await;
    for blob in image.blobs() {
        registry.wait_for("HEAD", &blob_url("library/b", &sha256(blob)), 1).await;
    }
    registry.set_mode(Mode::Down).await;
    assert_eq!(mirror.manifest("library/b", "latest").await, index.manifest);
    mirror.pull("library/b", &digest, image).await;
    assert_eq!(registry.count("GET", "/v2/library/b/manifests/*"), 1, "what the tag means");
    assert_eq!(registry.count("GET", "/v2/library/b/*"), 1, "nothing else was fetched twice");
}
