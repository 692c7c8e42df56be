//! Clients that read blobs in parts, as each of them does it: one download, right bytes, and
//! little asked of upstream meanwhile.

use std::ops::Range;

use bytes::Bytes;
use futures_util::{StreamExt as _, future::join_all, stream};
use larder::oci::Digest;

use crate::support::{
    FakeRegistry, Fault, Gate, Image, Random, Response, TestMirror, Upstream,
    mirror::{blob_url, manifest_path},
    multipart, random_bytes, sha256,
};

const MIB: usize = 1024 * 1024;
const SIZE: usize = 12 * MIB;

/// A mirror of a registry that sends the first MiB of a layer, and the rest when a test lets it.
struct Setting {
    registry: FakeRegistry,
    mirror: TestMirror,
    layer: Bytes,
    digest: Digest,
    path: String,
    fill: Gate,
}

impl Setting {
    async fn start() -> Setting {
        let registry = FakeRegistry::start().await;
        let layer = random_bytes(3, SIZE);
        let digest = registry.put_blob("library/x", &layer);
        let path = blob_url("library/x", &digest);
        let fill = Gate::shut();
        registry.on_whole(&path, Fault::hold_after(MIB, &fill));
        let mirror = TestMirror::builder()
            .upstream(Upstream::docker_io(&registry))
            .set("download.idle_timeout", "5m")
            .start()
            .await;
        Setting { registry, mirror, layer, digest, path, fill }
    }

    async fn ask_for(&self, range: &str) -> Response {
        let headers = [("range", range), ("accept-encoding", "identity")];
        let response = self.mirror.request("GET", &self.path, &headers).await;
        assert_eq!(response.status, 206, "{range}");
        response
    }

    /// Reads `length` bytes from `start` on by an open-ended range, and hangs up.
    async fn take(&self, start: usize, length: usize) {
        let mut response = self.ask_for(&format!("bytes={start}-")).await;
        response.expect_next(&self.layer[start..start + length]).await;
    }

    /// Reads `length` bytes from `start` on by a range of just these.
    async fn take_one(&self, start: usize, length: usize) {
        let response = self.ask_for(&format!("bytes={start}-{}", start + length - 1)).await;
        assert!(response.bytes().await == self.layer.slice(start..start + length), "at {start}");
    }

    /// Reads these parts by one request.
    async fn take_parts(&self, starts: &[usize], length: usize) {
        let ranges = starts.iter().map(|start| format!("{start}-{}", start + length - 1));
        let ranges: Vec<String> = ranges.collect();
        let response = self.ask_for(&format!("bytes={}", ranges.join(","))).await;
        let parts = multipart::parts(response).await;
        assert_eq!(parts.len(), starts.len());
        for (start, (content_range, bytes)) in starts.iter().zip(parts) {
            assert_eq!(content_range, format!("bytes {start}-{}/{SIZE}", start + length - 1));
            assert!(bytes == self.layer.slice(*start..start + length), "at {start}");
        }
    }

    /// One download served it all, and what comes later needs no other.
    async fn ends_well(&self) {
        self.fill.open();
        self.mirror.wait_for_blob(&self.digest).await;
        self.mirror.get(&self.path).await.expect(&self.layer).await;
        let ranges = self.registry.ranges(&self.path).len();
        assert_eq!(self.registry.count("GET", &self.path) - ranges, 1);
    }
}

/// containerd with a parallel fetch: `bytes=0-`, and beside it open-ended ranges from each chunk's
/// start, whose connections it closes after the chunk.
#[tokio::test(flavor = "multi_thread")]
async fn containerd_fetches_in_parallel() {
    const CHUNK: usize = MIB / 2;
    let setting = Setting::start().await;
    let first = setting.ask_for("bytes=0-").await;
    let take_from = async |starts: Range<usize>| {
        let chunks = starts.step_by(CHUNK).map(|start| setting.take(start, CHUNK));
        stream::iter(chunks).buffer_unordered(8).count().await
    };
    take_from(6 * MIB..SIZE).await;
    setting.fill.open();
    take_from(CHUNK..6 * MIB).await;
    assert!(first.bytes().await == setting.layer);
    setting.ends_well().await;
}

/// stargz and SOCI: a probe by two bytes, a HEAD for the size, several small ranges at once, and
/// a probe from time to time.
#[tokio::test(flavor = "multi_thread")]
async fn stargz_reads_several_ranges_at_once() {
    let setting = Setting::start().await;
    let probe = async || {
        let response = setting.ask_for("bytes=0-1").await;
        let total = format!("bytes 0-1/{SIZE}");
        assert_eq!(response.header("content-range"), Some(total.as_str()));
        assert_eq!(response.bytes().await, setting.layer.slice(0..2));
    };
    probe().await;
    let head = setting.mirror.head(&setting.path).await;
    assert_eq!(head.header("content-length"), Some(SIZE.to_string().as_str()));

    // The footer, then files from all over the layer.
    setting.take_parts(&[SIZE - 51], 51).await;
    let mut random = Random::new(7);
    let mut starts = || {
        let near = 10_000 * random.index(50);
        let far = 6 * MIB + 10_000 * random.index(500);
        [far, near, far + 5_000, SIZE - 5_000]
    };
    let all: Vec<[usize; 4]> = (0..20).map(|_| starts()).collect();
    join_all(all.iter().map(|starts| setting.take_parts(starts, 4_000))).await;
    assert!(setting.registry.most_ranges_at_once() <= 4);
    probe().await;
    setting.ends_well().await;
}

/// nydus: many small single ranges, from a cold start and in any order.
#[tokio::test(flavor = "multi_thread")]
async fn nydus_reads_small_ranges() {
    let setting = Setting::start().await;
    let mut random = Random::new(8);
    let starts: Vec<usize> = (0..60).map(|_| 6 * MIB + random.index(5 * MIB)).collect();
    join_all(starts.into_iter().map(|start| setting.take_one(start, 8192))).await;
    assert!(setting.registry.most_ranges_at_once() <= 4);
    setting.ends_well().await;
}

/// Whoever only wants to know what is there costs upstream a HEAD each, and no download.
#[tokio::test(flavor = "multi_thread")]
async fn a_head_of_what_is_cold_fetches_nothing() {
    let registry = FakeRegistry::start().await;
    let image = Image::random(4);
    registry.put_image("library/x", "latest", &image);
    let (manifest, layer) = (image.digest(), sha256(&image.layers[0]));
    for (path, digest, length) in [
        (manifest_path("library/x", "latest"), &manifest, image.manifest.len()),
        (manifest_path("library/x", &manifest.to_string()), &manifest, image.manifest.len()),
        (blob_url("library/x", &layer), &layer, image.layers[0].len()),
    ] {
        let mirror = TestMirror::of(&registry).await;
        let asked = registry.requests().len();
        let head = mirror.head(&path).await;
        assert_eq!(head.status, 200, "{path}");
        assert_eq!(head.header("content-length"), Some(length.to_string().as_str()));
        assert_eq!(head.header("docker-content-digest"), Some(digest.to_string().as_str()));
        mirror.stop().await;
        let asked: Vec<(String, String)> = registry.requests()[asked..]
            .iter()
            .map(|request| (request.method.clone(), request.path.clone()))
            .collect();
        assert_eq!(asked, [("HEAD".to_owned(), path)]);
    }
}

/// The size of a blob on its way is known, to whoever was shown it.
#[tokio::test(flavor = "multi_thread")]
async fn a_head_of_what_is_on_its_way_asks_nobody() {
    let setting = Setting::start().await;
    let first = setting.ask_for("bytes=0-").await;
    let asked = setting.registry.requests().len();
    let head = setting.mirror.head(&setting.path).await;
    assert_eq!(head.status, 200);
    assert_eq!(head.header("content-length"), Some(SIZE.to_string().as_str()));
    assert_eq!(setting.registry.requests().len(), asked);
    let join = r#"larder_lookups_total{kind="blob",result="join"}"#;
    assert_eq!(setting.mirror.metric(join).await, 1.0);

    let hidden = blob_url("library/hidden", &setting.digest);
    assert_eq!(setting.mirror.head(&hidden).await.status, 404);
    drop(first);
    setting.ends_well().await;
}

/// Whoever has a blob already hears that it is the same for the price of a HEAD, and only where
/// upstream shows it.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_has_it_already_fetches_nothing() {
    let registry = FakeRegistry::start().await;
    let layer = random_bytes(5, MIB);
    let digest = registry.put_blob("library/x", &layer);
    let mirror = TestMirror::of(&registry).await;
    let etag = format!("\"{digest}\"");
    let (shown, hidden) = (blob_url("library/x", &digest), blob_url("library/hidden", &digest));
    for (path, status) in [(&shown, 304), (&hidden, 404)] {
        for tag in [etag.as_str(), "*"] {
            let response = mirror.request("GET", path, &[("if-none-match", tag)]).await;
            assert_eq!(response.status, status, "{path}");
        }
    }
    assert_eq!(registry.count("GET", "*"), 0);
    assert!(!mirror.has_blob(&digest));
}
