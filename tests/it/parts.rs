//! Parts of blobs, and answers to clients that have some of it already.

use bytes::Bytes;

use crate::support::{
    FakeRegistry, Fault, Gate, Image, Response, TestMirror, Upstream,
    client::Body,
    mirror::{blob_url, manifest_path},
    multipart::{self, Part},
    random_bytes, sha256,
};

const SIZE: usize = 100_000;

/// What a client gets for a `Range` of a blob of [`SIZE`] bytes.
#[derive(Clone, Copy, Debug)]
enum Want {
    /// 206 with these parts, each from its first byte up to but not including its end.
    Parts(&'static [(usize, usize)]),
    /// 200, as if it had not asked.
    Whole,
    /// 416.
    Unsatisfiable,
    /// 400, which tells clients to ask for one range at a time.
    Refused,
}

use Want::{Parts, Refused, Unsatisfiable, Whole};

const RANGES: [(&str, Want); 20] = [
    ("bytes=500-1499", Parts(&[(500, 1500)])),
    ("bytes=0-0", Parts(&[(0, 1)])),
    ("bytes=500-", Parts(&[(500, SIZE)])),
    ("bytes=-500", Parts(&[(SIZE - 500, SIZE)])),
    ("bytes=99000-200000", Parts(&[(99_000, SIZE)])),
    ("bytes=0-", Parts(&[(0, SIZE)])),
    ("bytes=-200000", Parts(&[(0, SIZE)])),
    ("bytes=500-0", Unsatisfiable),
    ("bytes=100000-", Unsatisfiable),
    ("bytes=-0", Unsatisfiable),
    ("bytes=100000-,200000-", Unsatisfiable),
    ("bytes=0-1,5-6", Parts(&[(0, 2), (5, 7)])),
    ("bytes=70000-79999 , 0-69999,-1", Parts(&[(70_000, 80_000), (0, 70_000), (SIZE - 1, SIZE)])),
    ("BYTES=,5-6,200000-", Parts(&[(5, 7)])),
    ("bytes=0-5,5-6", Refused),
    ("bytes=0-,-1", Refused),
    ("bytes=0-1,x", Whole),
    ("bytes=", Whole),
    ("lines=0-1", Whole),
    ("bytes: 0-1", Whole),
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

    async fn check(&self, range: &str, want: Want) {
        let response = self.ask_for(range).await;
        let total = "bytes */100000";
        let content_range = response.header("content-range").map(str::to_owned);
        match want {
            Parts(wanted) => {
                let wanted = wanted.iter().map(|(start, end)| {
                    let content_range = format!("bytes {start}-{}/{SIZE}", end - 1);
                    (content_range, self.blob.slice(start..end))
                });
                let wanted: Vec<Part> = wanted.collect();
                assert!(multipart::parts(response).await == wanted, "{range}");
            }
            Whole => response.expect(&self.blob).await,
            Unsatisfiable => {
                assert_eq!((response.status, content_range.as_deref()), (416, Some(total)));
                assert_eq!(response.error().await.0, "RANGE_INVALID", "{range}");
            }
            Refused => {
                assert_eq!((response.status, content_range), (400, None), "{range}");
                assert_eq!(response.error().await.0, "RANGE_INVALID", "{range}");
            }
        }
    }
}

/// Each range cold, and each again from the store: one GET fills it.
#[tokio::test(flavor = "multi_thread")]
async fn parts_of_a_blob_are_served_cold_and_warm() {
    for (range, want) in RANGES {
        let setting = Setting::start("1MiB").await;
        setting.check(range, want).await;
        setting.mirror.wait_for_blob(&sha256(&setting.blob)).await;
        setting.check(range, want).await;
        assert_eq!(setting.registry.count("GET", &setting.path), 1, "{range}");
    }
}

/// The same of a blob that the store has no room for, also when upstream knows no ranges.
#[tokio::test(flavor = "multi_thread")]
async fn parts_of_a_blob_are_served_without_room() {
    let setting = Setting::start("100%").await;
    for (range, want) in RANGES {
        setting.check(range, want).await;
    }
    let asked = setting.registry.ranges(&setting.path);
    assert_eq!(asked[..3], ["bytes=500-1499", "bytes=500-99999", "bytes=99500-99999"]);
    assert!(!asked.iter().any(|range| range == "bytes=0-99999"), "that is the whole: {asked:?}");

    setting.registry.on_range(&setting.path, Fault::status(200).body(setting.blob.clone()));
    setting.check("bytes=500-1499", Parts(&[(500, 1500)])).await;
    setting.check("bytes=-500", Parts(&[(SIZE - 500, SIZE)])).await;
}

/// At most 1024 parts; each is one that a client waits for.
#[tokio::test(flavor = "multi_thread")]
async fn so_many_parts_and_no_more() {
    let setting = Setting::start("1MiB").await;
    let ranges = |count: usize| {
        let ranges: Vec<String> = (0..count).map(|n| format!("{}-{}", 9 * n, 9 * n + 4)).collect();
        format!("bytes={}", ranges.join(","))
    };
    let parts = multipart::parts(setting.ask_for(&ranges(1024)).await).await;
    assert_eq!(parts.len(), 1024);
    for (n, (_, bytes)) in parts.into_iter().enumerate() {
        assert_eq!(bytes, setting.blob.slice(9 * n..9 * n + 5));
    }
    setting.check(&ranges(1025), Refused).await;
}

/// A HEAD tells of the whole, whatever part it names.
#[tokio::test(flavor = "multi_thread")]
async fn a_head_has_no_parts() {
    let setting = Setting::start("1MiB").await;
    for range in ["bytes=0-1", "bytes=0-1,5-6", "bytes=200000-"] {
        let response = setting.mirror.request("HEAD", &setting.path, &[("range", range)]).await;
        assert_eq!(response.status, 200);
        assert_eq!(response.header("content-length"), Some("100000"));
        assert_eq!(response.header("accept-ranges"), Some("bytes"));
        assert_eq!(response.header("content-range"), None);
    }
    assert_eq!(setting.registry.count("GET", &setting.path), 0);
}

/// A part is served as soon as its bytes are here, and need not wait for the rest.
#[tokio::test(flavor = "multi_thread")]
async fn a_part_does_not_wait_for_the_rest() {
    for min_free in ["1MiB", "100%"] {
        let setting = Setting::start(min_free).await;
        let gate = Gate::shut();
        setting.registry.on("GET", &setting.path, Fault::hold_after(50_000, &gate));
        setting.check("bytes=500-1499", Parts(&[(500, 1500)])).await;
        gate.open();
    }
}

/// A part that ends where the blob ends is held back like the whole when the blob is wrong,
/// wherever it is read from the whole.
#[tokio::test(flavor = "multi_thread")]
async fn the_last_byte_of_a_part_waits_for_the_digest() {
    let ranges = ["bytes=0-", "bytes=99000-", "bytes=-1", "bytes=5-6,-1"];
    for (min_free, ranges) in [("1MiB", &ranges[..]), ("100%", &ranges[..1])] {
        let setting = Setting::start(min_free).await;
        setting.registry.on("GET", &setting.path, Fault::flip_byte(0));
        for range in ranges {
            let response = setting.ask_for(range).await;
            // The download may have failed before the headers.
            if response.status != 429 {
                assert_eq!(response.status, 206, "{range}");
                assert!(matches!(response.body().await, Body::Cut(_)), "{min_free} {range}");
            }
        }
    }
}

/// While nobody knows how long a blob is, no part of it can be named; from the store it can.
#[tokio::test(flavor = "multi_thread")]
async fn a_blob_of_unknown_length_comes_whole() {
    for range in ["bytes=100-199", "bytes=0-", "bytes=-5", "bytes=0-1,5-6", "bytes=200000-"] {
        let setting = Setting::start("1MiB").await;
        setting.registry.on("GET", &setting.path, Fault::chunked());
        setting.check(range, Whole).await;
        setting.mirror.wait_for_blob(&sha256(&setting.blob)).await;
        setting.check("bytes=100-199", Parts(&[(100, 200)])).await;
        assert_eq!(setting.registry.count("GET", &setting.path), 1, "{range}");
    }
}

/// Nothing has no parts. Some clients ask for a range whatever they want, so they get the nothing
/// as a whole, as from other registries.
#[tokio::test(flavor = "multi_thread")]
async fn an_empty_blob_comes_whole() {
    for min_free in ["1MiB", "100%"] {
        let setting = Setting::start(min_free).await;
        let path = blob_url("library/x", &setting.registry.put_blob("library/x", &Bytes::new()));
        for range in ["bytes=0-", "bytes=0-0", "bytes=-1", "bytes=5-", "bytes=0-1,5-6"] {
            let response = setting.mirror.request("GET", &path, &[("range", range)]).await;
            assert_eq!(response.status, 200, "{range}");
            assert_eq!(response.header("content-length"), Some("0"), "{range}");
            assert_eq!(response.header("content-range"), None, "{range}");
            response.expect(&[]).await;
        }
    }
}

/// A part is a part of what the client has already, if it says so; else it is no use to it.
/// A weak tag and a date name nothing for certain.
#[tokio::test(flavor = "multi_thread")]
async fn a_part_of_something_else_is_no_use() {
    let setting = Setting::start("1MiB").await;
    let etag = format!("\"{}\"", sha256(&setting.blob));
    let weak = format!("W/{etag}");
    let date = "Fri, 01 Jan 2038 00:00:00 GMT";
    let tags = [(etag.as_str(), 206), (&weak, 200), ("\"other\"", 200), (date, 200), ("*", 200)];
    for (if_range, status) in tags {
        for range in ["bytes=0-1", "bytes=0-1,5-6"] {
            let headers = [("range", range), ("if-range", if_range)];
            let response = setting.mirror.request("GET", &setting.path, &headers).await;
            assert_eq!(response.status, status, "{if_range} {range}");
        }
    }
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

            let listed = format!("\"other\", W/{etag}");
            let headers = [("if-none-match", listed.as_str()), ("range", "bytes=0-1")];
            assert_eq!(mirror.request(method, &path, &headers).await.status, 304);
        }
    }
}
