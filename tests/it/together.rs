//! Troubles that come together: what one part of Larder does about its own leaves the others' promises
//! as they are.

use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use larder::oci::Digest;
use serde_json::Value;

use crate::support::{
    Auth, FakeRegistry, Fault, Gate, Image, Mode, TestMirror, Upstream,
    mirror::{Builder, blob_url, manifest_path},
    random_bytes, sha256,
    wait::until,
};

const SIZE: usize = 200_000;
const HALF: usize = SIZE / 2;
/// More than the `tag_ttl` of a [`TestMirror`].
const PAST_TTL: Duration = Duration::from_secs(61);
const MANIFESTS: &str = "/v2/*/manifests/*";

/// A mirror of docker.io at two endpoints.
fn mirror_of(first: &FakeRegistry, second: &FakeRegistry) -> Builder {
    let endpoints = vec![first.url(), second.url()];
    TestMirror::builder().upstream(Upstream::docker_io(first).set("endpoints", endpoints))
}

async fn registry_with(blobs: &[&Bytes]) -> FakeRegistry {
    let registry = FakeRegistry::start().await;
    for blob in blobs {
        registry.put_blob("library/x", blob);
    }
    registry
}

fn manifests_asked(registry: &FakeRegistry) -> usize {
    registry.count("GET", MANIFESTS) + registry.count("HEAD", MANIFESTS)
}

/// What the admin listener shows of the first upstream.
async fn shown(mirror: &TestMirror) -> Value {
    let page = mirror.admin().get("/api/v1/upstreams").await.bytes().await;
    let mut page: Value = serde_json::from_slice(&page).unwrap();
    page["upstreams"][0].take()
}

/// An endpoint that dies in the middle of a body, and stays dead, is noticed by nobody: not by who was
/// reading, not by who comes later, not by who wants the end first. Each byte is fetched once.
#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_dies_in_mid_body_is_not_missed() {
    join_all([Mode::Down, Mode::Dropping, Mode::BlackHole].map(async |mode| {
        let blob = random_bytes(1, SIZE);
        let (first, second) = (registry_with(&[&blob]).await, registry_with(&[&blob]).await);
        let digest = sha256(&blob);
        let path = blob_url("library/x", &digest);
        first.on("GET", &path, Fault::hold_after(HALF, &Gate::shut()));
        let mirror = mirror_of(&first, &second).set("download.idle_timeout", "500ms");
        let mirror = mirror.start().await;

        let mut reading = mirror.get(&path).await;
        reading.expect_next(&blob[..HALF]).await;
        first.set_mode(mode).await;
        let late = mirror.get(&path).await;
        let end = mirror.request("GET", &path, &[("range", "bytes=-10")]).await;
        assert!(reading.bytes().await == blob.slice(HALF..), "{mode:?}");
        late.expect(&blob).await;
        assert_eq!(end.bytes().await, blob.slice(SIZE - 10..), "{mode:?}");

        mirror.wait_for_blob(&digest).await;
        assert_eq!(second.ranges(&path), [format!("bytes={HALF}-")], "{mode:?}");
        assert_eq!(second.count("GET", &path), 1, "{mode:?}");
        assert_eq!(mirror.metric("larder_upstream_bytes_total").await, SIZE as f64, "{mode:?}");
        assert_eq!(mirror.metric("larder_download_failures_total").await, 0.0, "{mode:?}");
    }))
    .await;
}

/// A body that breaks off goes on at the second endpoint though the first, which sent its beginning, is
/// left alone by then; and what goes on there is no sign of life of the first.
#[tokio::test(flavor = "multi_thread")]
async fn a_body_goes_on_while_the_breaker_of_its_sender_is_open() {
    let blobs: Vec<Bytes> = (0..12).map(|seed| random_bytes(seed, SIZE)).collect();
    let blobs: Vec<&Bytes> = blobs.iter().collect();
    let (first, second) = (registry_with(&blobs).await, registry_with(&blobs).await);
    let path = blob_url("library/x", &sha256(blobs[0]));
    let gate = Gate::shut();
    first.once("GET", &path, Fault::hold_after(HALF, &gate).and_cut_after(HALF));
    let mirror = mirror_of(&first, &second).start().await;
    let mut reading = mirror.get(&path).await;
    reading.expect_next(&blobs[0][..HALF]).await;
    for method in ["GET", "HEAD"] {
        first.on(method, "*", Fault::status(500));
    }
    let is_closed = async || shown(&mirror).await["endpoints"][0]["breaker"] == "closed";
    for blob in &blobs[1..] {
        mirror.pull_blob("library/x", &sha256(blob)).await;
    }
    assert!(!is_closed().await);
    gate.open();
    assert!(reading.bytes().await == blobs[0].slice(HALF..));
    assert_eq!(second.ranges(&path), [format!("bytes={HALF}-")]);
    assert!(!is_closed().await);
}

/// An endpoint that limits us is left alone for as long as it said, and nobody notices who is served by
/// the next one: nothing is stale. Its blobs are still asked for there.
#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_limits_us_is_not_asked_while_another_serves() {
    let (first, second) = (FakeRegistry::start().await, FakeRegistry::start().await);
    let images = [1, 2, 3].map(Image::random);
    let mirror = mirror_of(&first, &second).start().await;
    let limited = Fault::status(429).header("retry-after", "3600");
    for method in ["GET", "HEAD"] {
        first.on(method, MANIFESTS, limited.clone());
    }
    let tag = manifest_path("library/x", "latest");
    for image in &images {
        for registry in [&first, &second] {
            registry.put_image("library/x", "latest", image);
        }
        let response = mirror.get(&tag).await;
        assert_eq!(response.header("warning"), None);
        response.expect(&image.manifest).await;
        mirror.pull("library/x", "latest", image).await;
        mirror.advance(PAST_TTL);
    }
    assert_eq!(manifests_asked(&first), 1);
    assert_eq!(first.count("GET", "/v2/*/blobs/*"), 3 * images.len());
    assert_eq!(second.count("GET", "/v2/*/blobs/*"), 0);
    let shown = shown(&mirror).await;
    assert!(shown["paused_seconds"].as_u64().is_some_and(|left| left > 200), "{shown}");
    assert_eq!(shown["endpoints"][0]["breaker"], "closed");
}

/// A client that asks for the digest first and for the manifest by it, as Docker and containerd do, gets a
/// digest that it can be served: that of the cached image while the reserve is kept, and what was promised
/// when the reserve was reached in between.
#[tokio::test(flavor = "multi_thread")]
async fn a_reserve_breaks_no_promise_of_a_head() {
    for ns in ["", "?ns=docker.io"] {
        let registry = FakeRegistry::start().await;
        let upstream = Upstream::docker_io(&registry).set("quota_reserve", 20);
        let mirror = TestMirror::builder().upstream(upstream).start().await;
        let [old, new, newest] = [1, 2, 3].map(Image::random);
        registry.put_image("library/x", "latest", &old);
        mirror.pull("library/x", "latest", &old).await;
        let path = |reference: &str| manifest_path("library/x", reference) + ns;
        let told = async || {
            let head = mirror.head(&path("latest")).await;
            let digest: Digest = head.header("docker-content-digest").unwrap().parse().unwrap();
            (digest, head.header("warning").is_some())
        };
        let pulls = || registry.count("GET", MANIFESTS);

        registry.limit_pulls(22, 21_600);
        registry.put_image("library/x", "latest", &new);
        mirror.advance(PAST_TTL);
        assert_eq!(told().await, (new.digest(), false));
        // Others spend what was to spare.
        registry.limit_pulls(20, 21_600);
        registry.put_image("library/y", "latest", &old);
        mirror.head(&manifest_path("library/y", "latest")).await;
        let before = pulls();
        mirror.get(&path(&new.digest().to_string())).await.expect(&new.manifest).await;
        assert_eq!(pulls(), before + 1);

        registry.put_image("library/x", "latest", &newest);
        mirror.advance(PAST_TTL);
        assert_eq!(told().await, (new.digest(), true));
        mirror.get(&path(&new.digest().to_string())).await.expect(&new.manifest).await;
        assert_eq!(pulls(), before + 1);
    }
}

/// What `share_private` has is served stale like all else, by the next process too; what it has no longer
/// is not, though upstream cannot be asked.
#[tokio::test(flavor = "multi_thread")]
async fn an_outage_and_a_restart_share_no_more_than_is_shared() {
    let registry = FakeRegistry::start().await;
    let image = Image::random(1);
    registry.put_image("team/app", "latest", &image);
    registry.set_auth(Auth::PasswordTokenFor(&["team/app"], "anna", "secret"));
    let upstream = || Upstream::docker_io(&registry).credentials("anna", "secret");
    let shared = || upstream().set("share_private", vec!["team/*"]);
    let mirror = TestMirror::builder().upstream(shared()).start().await;
    mirror.pull("team/app", "latest", &image).await;
    let stopped = mirror.stop().await;
    registry.set_mode(Mode::Down).await;

    let mirror = stopped.upstream(shared()).wall_jumped(PAST_TTL).start().await;
    let tag = manifest_path("team/app", "latest");
    for method in ["HEAD", "GET"] {
        let answer = mirror.request(method, &tag, &[]).await;
        assert_eq!(answer.status, 200, "{method}");
        assert!(answer.header("warning").is_some(), "{method}");
    }
    for blob in image.blobs() {
        mirror.pull_blob("team/app", &sha256(blob)).await;
    }

    let unshared = mirror.stop().await.upstream(upstream().set("share_private", vec!["other/*"]));
    let mirror = unshared.wall_jumped(PAST_TTL).start().await;
    let digest = manifest_path("team/app", &image.digest().to_string());
    let config = blob_url("team/app", &sha256(&image.config));
    for (path, status) in [(&tag, 502), (&digest, 502), (&config, 429)] {
        assert_eq!(mirror.get(path).await.status, status, "{path}");
    }
    registry.set_mode(Mode::Up).await;
    until("upstream's word", async || mirror.get(&config).await.status == 404).await;
}
