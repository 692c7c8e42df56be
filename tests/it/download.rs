//! One download for all who ask, whatever upstream and the clients do to it.

use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::join_all;
use larder::oci::Digest;

use crate::support::{
    FakeRegistry, Fault, Gate, Image, Random, Response, TestMirror, Upstream,
    client::Body,
    mirror::{blob_url, manifest_path},
    random_bytes, sha256,
    wait::until,
};

const MIB: usize = 1024 * 1024;

/// A registry with one blob of `size` bytes, a mirror of it, and the blob's path in both.
struct Setting {
    registry: FakeRegistry,
    mirror: TestMirror,
    blob: Bytes,
    digest: Digest,
    path: String,
}

impl Setting {
    async fn with_blob(size: usize) -> Setting {
        let registry = FakeRegistry::start().await;
        let blob = random_bytes(size as u64, size);
        let digest = registry.put_blob("library/x", &blob);
        let mirror = TestMirror::builder()
            .upstream(Upstream::docker_io(&registry))
            .set("download.idle_timeout", "500ms")
            .set("download.retries", 0)
            .start()
            .await;
        Setting { path: blob_url("library/x", &digest), registry, mirror, blob, digest }
    }

    fn upstream_gets(&self) -> usize {
        self.registry.count("GET", &self.path)
    }

    /// Nothing of the blob is left on disk, and the next pull asks upstream again.
    async fn left_nothing_behind(&self) {
        let downloads = self.mirror.data_dir().join("downloads");
        until("an empty downloads/", async || downloads.read_dir().unwrap().count() == 0).await;
        self.failed().await;
    }

    /// The download has failed, and the next pull asks upstream again.
    async fn failed(&self) {
        assert!(!self.mirror.has_blob(&self.digest));
        let counted = async || self.mirror.metric("larder_download_failures_total").await >= 1.0;
        until("a counted failure", counted).await;

        self.registry.behave();
        let asked = self.upstream_gets();
        let response = self.mirror.get(&self.path).await;
        assert_eq!(response.bytes().await, self.blob);
        assert_eq!(self.upstream_gets(), asked + 1);
    }
}

/// A hundred nodes that start at once cost upstream one GET, and none waits for the end.
#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_clients_share_one_download() {
    let setting = Setting::with_blob(8 * MIB).await;
    let gate = Gate::shut();
    setting.registry.on("GET", &setting.path, Fault::hold_after(MIB, &gate));

    let readers = join_all((0..100).map(async |_| {
        let mut response = setting.mirror.get(&setting.path).await;
        response.expect_next(&setting.blob[..1]).await;
        response
    }))
    .await;
    gate.open();
    join_all(readers.into_iter().map(|reader| reader.expect(&setting.blob[1..]))).await;

    assert_eq!(setting.upstream_gets(), 1);
    let joined = r#"larder_lookups_total{kind="blob",result="join"}"#;
    assert_eq!(setting.mirror.metric(joined).await, 99.0);
}

/// The first client's impatience costs the others nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_download_outlives_the_client_that_started_it() {
    let setting = Setting::with_blob(MIB).await;
    let gate = Gate::shut();
    setting.registry.on("GET", &setting.path, Fault::hold_after(MIB / 2, &gate));

    let asking = setting.mirror.ask(&setting.path).await;
    setting.registry.wait_for("GET", &setting.path, 1).await;
    drop(asking);
    gate.open();
    setting.mirror.wait_for_blob(&setting.digest).await;

    let asked = setting.registry.requests().len();
    setting.mirror.get(&setting.path).await.expect(&setting.blob).await;
    assert_eq!(setting.registry.requests().len(), asked, "the next pull asks for nothing");
    assert_eq!(setting.upstream_gets(), 1);
}

/// A client on a bad line slows nobody.
#[tokio::test(flavor = "multi_thread")]
async fn a_slow_reader_does_not_slow_the_others() {
    let setting = Setting::with_blob(16 * MIB).await;
    let mut slow = setting.mirror.get(&setting.path).await;
    let crawling = async {
        loop {
            slow.read_some(1024).await.unwrap();
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    };
    let others = join_all((0..10).map(async |_| {
        let response = setting.mirror.get(&setting.path).await;
        response.expect(&setting.blob).await;
    }));
    tokio::select! {
        () = crawling => {}
        _ = others => {}
    }
    assert_eq!(setting.upstream_gets(), 1);
}

/// What has come is passed on at once, however long the rest takes.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_reads_what_has_come_so_far() {
    let setting = Setting::with_blob(MIB).await;
    let gate = Gate::shut();
    setting.registry.on("GET", &setting.path, Fault::hold_after(MIB / 2, &gate));

    let mut response = setting.mirror.get(&setting.path).await;
    let mut read = 0;
    while read < MIB / 2 {
        read += response.read_some(MIB / 2 - read).await.unwrap().len();
    }
    gate.open();
    response.expect(&setting.blob[MIB / 2..]).await;
}

/// Bytes that are not what was asked for reach nobody as a whole, and are not kept.
#[tokio::test(flavor = "multi_thread")]
async fn wrong_bytes_reach_nobody_as_a_complete_body() {
    let setting = Setting::with_blob(MIB).await;
    for fault in [
        Fault::flip_byte(0).and_feed(Duration::from_millis(200)),
        Fault::flip_byte(MIB - 1),
        Fault::flip_byte(MIB / 2).and_chunked(),
    ] {
        setting.registry.on("GET", &setting.path, fault);
        setting.registry.on("HEAD", &setting.path, Fault::without("content-length"));
        let asking = (0..20).map(async |_| {
            let response = setting.mirror.get(&setting.path).await;
            (response.status, response.body().await)
        });
        for (status, body) in join_all(asking).await {
            // The download may have failed before the headers.
            assert!(status == 429 || is_short_of(&body, MIB), "{status}: {body:?}");
        }
    }
    setting.left_nothing_behind().await;
}

/// The last byte waits for the verdict: clients that have all but that byte, and are waiting for
/// it when it comes and is wrong, do not get it. Tried often, for the time between is short.
#[tokio::test(flavor = "multi_thread")]
async fn the_last_byte_waits_for_the_digest() {
    const SIZE: usize = 40_000;
    let setting = Setting::with_blob(SIZE).await;
    for _ in 0..100 {
        let gate = Gate::shut();
        let fault = Fault::flip_byte(SIZE - 1).and_hold_after(SIZE - 1, &gate);
        setting.registry.once("GET", &setting.path, fault);
        let waiting = join_all((0..10).map(async |_| {
            let mut response = setting.mirror.get(&setting.path).await;
            let mut read = 0;
            while read < SIZE - 1 {
                read += response.read_some(SIZE).await.unwrap().len();
            }
            response
        }));
        let waiting = waiting.await;
        gate.open();
        for body in join_all(waiting.into_iter().map(Response::body)).await {
            assert_eq!(body, Body::Cut(Bytes::new()));
        }
    }
    setting.left_nothing_behind().await;
}

fn is_short_of(body: &Body, size: usize) -> bool {
    matches!(body, Body::Cut(bytes) if bytes.len() < size)
}

/// A body that ends early is never passed off as whole.
#[tokio::test(flavor = "multi_thread")]
async fn a_body_cut_by_upstream_is_cut_for_the_client() {
    for fault in [Fault::cut_after(0), Fault::cut_after(MIB / 2), Fault::cut_after(MIB - 1)] {
        let setting = Setting::with_blob(MIB).await;
        setting.registry.on("GET", &setting.path, fault);
        let response = setting.mirror.get(&setting.path).await;
        if response.status == 200 {
            let body = response.body().await;
            assert!(is_short_of(&body, MIB), "{body:?}");
        } else {
            assert_eq!(response.status, 429);
        }
        setting.failed().await;
    }
}

/// An upstream that falls silent is given up after `idle_timeout`.
#[tokio::test(flavor = "multi_thread")]
async fn a_stalled_upstream_is_noticed_by_its_silence() {
    let setting = Setting::with_blob(MIB).await;
    let never = Gate::shut();
    setting.registry.on("GET", &setting.path, Fault::hold_after(MIB / 2, &never));

    let response = setting.mirror.get(&setting.path).await;
    let started = Instant::now();
    let body = response.body().await;
    assert!(is_short_of(&body, MIB), "{body:?}");
    assert!(started.elapsed() < Duration::from_secs(5));
    let counted = r#"larder_download_failures_total{reason="stalled"}"#;
    until("the count", async || setting.mirror.metric(counted).await == 1.0).await;
    setting.failed().await;
}

/// A slow upstream that keeps sending is not given up, however long it takes.
#[tokio::test(flavor = "multi_thread")]
async fn a_slow_upstream_is_waited_for() {
    let setting = Setting::with_blob(MIB).await;
    setting.registry.on("GET", &setting.path, Fault::feed(Duration::from_secs(2)));
    let response = setting.mirror.get(&setting.path).await;
    response.expect(&setting.blob).await;
}

/// Upstream need not say how long a blob is.
#[tokio::test(flavor = "multi_thread")]
async fn a_blob_without_a_length_is_served_and_kept() {
    for fault in [Fault::chunked(), Fault::until_close()] {
        let setting = Setting::with_blob(MIB).await;
        setting.registry.on("GET", &setting.path, fault);
        setting.registry.on("HEAD", &setting.path, Fault::without("content-length"));

        let cold = setting.mirror.get(&setting.path).await;
        assert_eq!(cold.status, 200);
        cold.expect(&setting.blob).await;
        setting.mirror.wait_for_blob(&setting.digest).await;

        let warm = setting.mirror.get(&setting.path).await;
        assert_eq!(warm.header("content-length"), Some(MIB.to_string().as_str()));
        warm.expect(&setting.blob).await;
        assert_eq!(setting.upstream_gets(), 1);
    }
}

/// A connection that ends early is the normal end of a body without a length; the digest tells.
#[tokio::test(flavor = "multi_thread")]
async fn a_short_body_without_a_length_is_cut_for_the_client() {
    let setting = Setting::with_blob(MIB).await;
    let short = Fault::until_close().body(setting.blob.slice(..MIB / 2));
    setting.registry.on("GET", &setting.path, short);
    setting.registry.on("HEAD", &setting.path, Fault::without("content-length"));
    let body = setting.mirror.get(&setting.path).await.body().await;
    assert!(is_short_of(&body, MIB), "{body:?}");
    setting.left_nothing_behind().await;
}

/// The empty blob is a blob.
#[tokio::test(flavor = "multi_thread")]
async fn an_empty_blob_is_served_and_kept() {
    let setting = Setting::with_blob(0).await;
    for _ in 0..2 {
        let response = setting.mirror.get(&setting.path).await;
        assert_eq!(response.status, 200);
        assert_eq!(response.header("content-length"), Some("0"));
        assert_eq!(response.body().await, Body::Complete(Bytes::new()));
        setting.mirror.wait_for_blob(&setting.digest).await;
    }
    assert_eq!(setting.upstream_gets(), 1);
}

/// An empty body has no last byte to hold back, so its headers wait for the digest.
#[tokio::test(flavor = "multi_thread")]
async fn an_empty_body_for_another_digest_is_no_blob() {
    let setting = Setting::with_blob(0).await;
    let false_digest = sha256(b"not empty");
    setting.registry.put_blob_as("library/x", &false_digest, &Bytes::new());
    let path = blob_url("library/x", &false_digest);
    let response = setting.mirror.try_request("GET", &path, &[]).await;
    assert!(response.is_none_or(|response| response.status != 200));
    assert!(!setting.mirror.has_blob(&false_digest));
}

/// A disk without room turns the cache into a proxy, not into an error: each client costs
/// upstream a GET of its own, and gets right bytes or no end.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_passes_blobs_through() {
    let registry = FakeRegistry::start().await;
    let image = Image::with_layers(12, vec![random_bytes(12, MIB)]);
    registry.put_image("library/x", "latest", &image);
    let mirror = TestMirror::builder()
        .upstream(Upstream::docker_io(&registry))
        .set("cache.min_free", "100%")
        .start()
        .await;
    assert_eq!(mirror.manifest("library/x", "latest").await, image.manifest);

    let blob = &image.layers[0];
    let path = blob_url("library/x", &sha256(blob));
    join_all((0..5).map(async |_| mirror.get(&path).await.expect(blob).await)).await;
    assert!(!mirror.has_blob(&sha256(blob)));
    assert_eq!(registry.count("GET", &path), 5);
    // The manifest is one, too.
    assert_eq!(mirror.metric(r#"larder_passthrough_total{reason="no_room"}"#).await, 6.0);
    let part = mirror.request("GET", &path, &[("range", "bytes=100-199")]).await;
    assert_eq!((part.status, part.bytes().await), (206, blob.slice(100..200)));

    registry.on("GET", &path, Fault::flip_byte(MIB / 2));
    let body = mirror.get(&path).await.body().await;
    assert!(is_short_of(&body, MIB), "verified all the same: {body:?}");
    let counted = r#"larder_download_failures_total{reason="digest"}"#;
    assert_eq!(mirror.metric(counted).await, 1.0, "and counted");
}

/// A break of upstream is no more to see in what passes the store than in what goes into it.
#[tokio::test(flavor = "multi_thread")]
async fn a_blob_that_passes_the_store_is_resumed_where_upstream_breaks() {
    let registry = FakeRegistry::start().await;
    let blob = random_bytes(13, MIB);
    let path = blob_url("library/x", &registry.put_blob("library/x", &blob));
    let mirror = TestMirror::builder()
        .upstream(Upstream::docker_io(&registry))
        .set("cache.min_free", "100%")
        .set("download.retries", 2)
        .start()
        .await;
    for fault in [Fault::cut_after(MIB / 2), Fault::cut_after(MIB / 2).and_chunked()] {
        registry.once("GET", &path, fault);
        mirror.get(&path).await.expect(&blob).await;
    }
    let resumed = registry.ranges(&path);
    assert_eq!(resumed, ["bytes=524288-"; 2]);

    registry.on("GET", &path, Fault::cut_after(MIB / 2).and_chunked());
    registry.on_range(&path, Fault::hang_up());
    let body = mirror.get(&path).await.body().await;
    assert!(is_short_of(&body, MIB), "given up, and never ended normally: {body:?}");
}

/// Nothing tells a client that an empty body is wrong, so on this way too its headers wait.
#[tokio::test(flavor = "multi_thread")]
async fn an_empty_body_for_another_digest_is_not_passed_through() {
    let registry = FakeRegistry::start().await;
    let false_digest = sha256(b"not empty");
    registry.put_blob_as("library/x", &false_digest, &Bytes::new());
    let empty = registry.put_blob("library/x", &Bytes::new());
    let mirror = TestMirror::builder()
        .upstream(Upstream::docker_io(&registry))
        .set("cache.min_free", "100%")
        .start()
        .await;

    assert_eq!(mirror.get(&blob_url("library/x", &false_digest)).await.status, 429);
    mirror.get(&blob_url("library/x", &empty)).await.expect(b"").await;
}

/// A client that hangs up before its answer was not answered.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_hangs_up_early_is_not_counted_as_served() {
    let setting = Setting::with_blob(MIB).await;
    setting.registry.on("GET", &setting.path, Fault::silent());
    let asking = setting.mirror.ask(&setting.path).await;
    setting.registry.wait_for("GET", &setting.path, 1).await;
    drop(asking);

    let counted = r#"larder_requests_total{endpoint="blob"}"#;
    until("the count", async || setting.mirror.metric(counted).await == 1.0).await;
    let served = r#"larder_requests_total{endpoint="blob",code="200"}"#;
    assert_eq!(setting.mirror.metric(served).await, 0.0);
}

/// Clients that hang up, whenever they do, leave nothing running.
#[tokio::test(flavor = "multi_thread")]
async fn clients_that_hang_up_leave_nothing_behind() {
    let setting = Setting::with_blob(MIB).await;
    setting.registry.on("GET", &setting.path, Fault::feed(Duration::from_millis(500)));
    let mut random = Random::new(13);
    let moments: Vec<u64> = (0..50).map(|_| random.below(700)).collect();
    join_all(moments.iter().map(async |moment| {
        let asking = setting.mirror.ask(&setting.path).await;
        tokio::time::sleep(Duration::from_millis(*moment)).await;
        drop(asking);
    }))
    .await;

    setting.mirror.wait_for_blob(&setting.digest).await;
    for gauge in ["larder_downloads_in_flight", "larder_download_followers"] {
        until(gauge, async || setting.mirror.metric(gauge).await == 0.0).await;
    }
    assert_eq!(setting.upstream_gets(), 1);
}

/// However look-ups, the download and its publication interleave.
#[tokio::test(flavor = "multi_thread")]
async fn a_small_blob_is_fetched_once() {
    let registry = FakeRegistry::start().await;
    let mirror = TestMirror::of(&registry).await;
    for round in 0..50 {
        let blob = random_bytes(1_000 + round, 10_000);
        let digest = registry.put_blob("library/x", &blob);
        registry.put_blob("library/y", &blob);
        let paths = ["library/x", "library/y"].map(|repository| blob_url(repository, &digest));
        join_all((0..40).map(async |client| {
            tokio::time::sleep(Duration::from_micros(client * 100)).await;
            mirror.get(&paths[client as usize % 2]).await.expect(&blob).await;
        }))
        .await;
        let fetched = paths.iter().map(|path| registry.count("GET", path)).sum::<usize>();
        assert_eq!(fetched, 1, "round {round}");
    }
}

/// Who only looks shares the look: a fleet that checks what it has is one HEAD upstream.
#[tokio::test(flavor = "multi_thread")]
async fn a_herd_that_only_looks_is_one_head() {
    let registry = FakeRegistry::start().await;
    let image = Image::random(9);
    registry.put_image("library/x", "latest", &image);
    registry.on("HEAD", "/v2/library/x/*", Fault::delay(Duration::from_millis(300)));
    let mirror = TestMirror::of(&registry).await;
    let digest = image.digest().to_string();
    for path in [
        blob_url("library/x", &sha256(&image.config)),
        manifest_path("library/x", &digest),
        manifest_path("library/x", "latest"),
    ] {
        let answers = join_all((0..20).map(async |_| mirror.head(&path).await)).await;
        assert!(answers.iter().all(|answer| answer.status == 200), "{path}");
        assert_eq!(registry.count("HEAD", &path), 1, "{path}");
        assert_eq!(registry.count("GET", &path), 0, "{path}");
    }
}
