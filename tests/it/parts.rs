//! Parts of blobs, and answers to clients that have some of it already.

use bytes::Bytes;

use crate::support::{
    FakeRegistry, Fault, Gate, Image, Response, TestMirror, Upstream,
    client::Body,
    mirror::{blob_url, manifest_path},
    random_bytes, sha256,
};

const SIZE: usize = 100_000;

/// What a client sends as `Range`, and what of a blob of [`SIZE`] bytes it gets; `None`: 416.
const RANGES: [(&str, Option<(usize, usize)>); 8] = [
    ("bytes=500-1499", Some((500, 1500))),
    ("bytes=0-0", Some((0, 1))),
    ("bytes=500-", Some((500, SIZE))),
    ("bytes=-500", Some((SIZE - 500, SIZE))),
    ("bytes=99000-200000", Some((99_000, SIZE))),
    ("bytes=0-", Some((0, SIZE))),
    ("bytes=500-0", None),
    ("bytes=100000-", None),
];

/// A registry with one blob, a mirror of it, and the blob's path in both.
struct Setting {
    registry: FakeRegistry,
    mirror: TestMirror,
    blob: Bytes,
    path: String,
}

impl Setting {
    async fn start(min_free: &str) -> Setting {
        let registry = FakeRegistry::start().await;
        let blob = random_bytes(1, SIZE);
        let path = blob_url("library/x", &registry.put_blob("library/x", &blob));
        let mirror = TestMirror::builder()
            .upstream(Upstream::docker_io(&registry))
            .set("cache.min_free", min_free)
            .start()
            .await;
        Setting { registry, mirror, blob, path }
    }

    async fn ask_for(&self, range: &str) -> Response {
        self.mirror.request("GET", &self.path, &[("range", range)]).await
    }

    async fn check(&self, range: &str, part: Option<(usize, usize)>) {
        let response = self.ask_for(range).await;
        let content_range = response.header("content-range").map(str::to_owned);
        let Some((start, end)) = part else {
            assert_eq!(response.status, 416, "{range}");
            assert_eq!(content_range.as_deref(), Some("bytes */100000"), "{range}");
            return;
        };
        assert_eq!(response.status, 206, "{range}");
        let expected = format!("bytes {start}-{}/{SIZE}", end - 1);
        assert_eq!(content_range, Some(expected), "{range}");
        let length = (end - start).to_string();
        assert_eq!(response.header("content-length"), Some(length.as_str()), "{range}");
        assert_eq!(response.bytes().await, self.blob.slice(start..end), "{range}");
    }
}

/// Each range cold, and each again from the store: one GET fills it.
#[tokio::test(flavor = "multi_thread")]
async fn a_part_of_a_blob_is_served_cold_and_warm() {
    for (range, part) in RANGES {
        let setting = Setting::start("1MiB").await;
        setting.check(range, part).await;
        setting.mirror.wait_for_blob(&sha256(&setting.blob)).await;
        setting.check(range, part).await;
        assert_eq!(setting.registry.count("GET", &setting.path), 1, "{range}");
    }
}

/// The same of a blob that the store has no room for.
#[tokio::test(flavor = "multi_thread")]
async fn a_part_of_a_blob_is_served_without_room() {
    let setting = Setting::start("100%").await;
    for (range, part) in RANGES {
        setting.check(range, part).await;
    }
}

/// A part is served as soon as its bytes are here, and need not wait for the rest.
#[tokio::test(flavor = "multi_thread")]
async fn a_part_does_not_wait_for_the_rest() {
    for min_free in ["1MiB", "100%"] {
        let setting = Setting::start(min_free).await;
        let gate = Gate::shut();
        setting.registry.on("GET", &setting.path, Fault::hold_after(50_000, &gate));
        setting.check("bytes=500-1499", Some((500, 1500))).await;
        gate.open();
    }
}

/// A part that ends where the blob ends is held back like the whole when the blob is wrong.
#[tokio::test(flavor = "multi_thread")]
async fn the_last_byte_of_a_part_waits_for_the_digest() {
    for min_free in ["1MiB", "100%"] {
        let setting = Setting::start(min_free).await;
        setting.registry.on("GET", &setting.path, Fault::flip_byte(0));
        for range in ["bytes=99000-", "bytes=-1", "bytes=0-"] {
            let response = setting.ask_for(range).await;
            // The download may have failed before the headers.
            if response.status != 429 {
                assert_eq!(response.status, 206, "{range}");
                assert!(matches!(response.body().await, Body::Cut(_)), "{min_free} {range}");
            }
        }
    }
}

/// While nobody knows how long a blob is, no part of it can be named.
#[tokio::test(flavor = "multi_thread")]
async fn a_blob_of_unknown_length_comes_whole() {
    let setting = Setting::start("1MiB").await;
    setting.registry.on("GET", &setting.path, Fault::chunked());
    let response = setting.ask_for("bytes=100-199").await;
    assert_eq!(response.status, 200);
    response.expect(&setting.blob).await;
}

/// Several ranges at once, other units and a changed entity are answered with the whole.
#[tokio::test(flavor = "multi_thread")]
async fn a_range_that_is_not_understood_is_ignored() {
    let setting = Setting::start("1MiB").await;
    for headers in [
        [("range", "bytes=0-1,5-6"), ("accept", "*/*")],
        [("range", "lines=0-1"), ("accept", "*/*")],
        [("range", "bytes=0-1"), ("if-range", "\"other\"")],
    ] {
        setting.mirror.request("GET", &setting.path, &headers).await.expect(&setting.blob).await;
    }
    let etag = format!("\"{}\"", sha256(&setting.blob));
    let headers = [("range", "bytes=0-1"), ("if-range", etag.as_str())];
    assert_eq!(setting.mirror.request("GET", &setting.path, &headers).await.status, 206);
}

/// Who has it already is told so, in no more than a head.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_has_the_content_is_told_so() {
    let registry = FakeRegistry::start().await;
    let image = Image::random(2);
    registry.put_image("library/x", "latest", &image);
    let mirror = TestMirror::of(&registry).await;
    let config = sha256(&image.config);
    for (path, digest) in [
        (manifest_path("library/x", "latest"), image.digest()),
        (blob_url("library/x", &config), config),
    ] {
        let etag = format!("\"{digest}\"");
        for method in ["GET", "HEAD"] {
            let headers = [("if-none-match", etag.as_str())];
            let response = mirror.request(method, &path, &headers).await;
            assert_eq!(response.status, 304, "{method} {path}");
            assert_eq!(response.header("etag"), Some(etag.as_str()));
            assert_eq!(response.header("docker-content-digest"), Some(&etag[1..etag.len() - 1]));

            let headers = [("if-none-match", "\"other\"")];
            assert_eq!(mirror.request(method, &path, &headers).await.status, 200);
        }
    }
}
