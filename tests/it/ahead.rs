//! Ranges far ahead of a download in progress: passed from upstream, few at a time, until the
//! file is there.

use std::sync::LazyLock;

use bytes::Bytes;
use futures_util::future::join_all;
use larder::oci::Digest;

use crate::support::{
    FakeRegistry, Fault, Gate, Response, TestMirror, Upstream, client::Body, mirror::blob_url,
    multipart, random_bytes, sha256, wait::until,
};

const MIB: usize = 1024 * 1024;
const SIZE: usize = 6 * MIB;
/// How far past what the file has a range may start that waits for the file.
const NEAR: usize = 4 * MIB;
/// What of the blob comes before upstream pauses.
const HELD: usize = 1000;

/// The blob, made once: hashing is slow without optimisation.
static BLOB: LazyLock<(Digest, Bytes)> = LazyLock::new(|| {
    let blob = random_bytes(1, SIZE);
    (sha256(&blob), blob)
});

/// A registry whose answer with a whole blob pauses near its start, and a mirror of it.
struct Setting {
    registry: FakeRegistry,
    mirror: TestMirror,
    blob: Bytes,
    digest: Digest,
    path: String,
    /// Lets the whole go on.
    fill: Gate,
}

impl Setting {
    async fn start() -> Setting {
        let fill = Gate::shut();
        Setting::start_with(Fault::hold_after(HELD, &fill), fill).await
    }

    /// With an answer of this kind instead.
    async fn start_with(whole: Fault, fill: Gate) -> Setting {
        let registry = FakeRegistry::start().await;
        let (digest, blob) = BLOB.clone();
        registry.put_blob_as("library/x", &digest, &blob);
        let path = blob_url("library/x", &digest);
        registry.on_whole(&path, whole);
        let mirror = TestMirror::builder()
            .upstream(Upstream::docker_io(&registry))
            .set("download.idle_timeout", "5m")
            .set("download.retries", 0)
            .start()
            .await;
        Setting { registry, mirror, blob, digest, path, fill }
    }

    async fn ask_for(&self, range: &str) -> Response {
        self.mirror.request("GET", &self.path, &[("range", range)]).await
    }

    /// Asks for a part from `start` up to but not including `end`.
    async fn ask_for_part(&self, start: usize, end: usize) -> Response {
        let response = self.ask_for(&format!("bytes={start}-{}", end - 1)).await;
        assert_eq!(response.status, 206);
        response
    }

    async fn check_part(&self, start: usize, end: usize) {
        let response = self.ask_for_part(start, end).await;
        assert!(response.bytes().await == self.blob.slice(start..end), "{start}..{end}");
    }

    /// How many GETs of the whole upstream has seen.
    fn fills(&self) -> usize {
        self.registry.count("GET", &self.path) - self.passed()
    }

    /// How many ranges upstream was asked for.
    fn passed(&self) -> usize {
        self.registry.ranges(&self.path).len()
    }

    /// The download comes to a good end, and the blob is served without upstream from then on.
    async fn ends_well(&self) {
        self.fill.open();
        self.mirror.wait_for_blob(&self.digest).await;
        let asked = self.registry.requests().len();
        self.check_part(SIZE - 500, SIZE).await;
        self.mirror.get(&self.path).await.expect(&self.blob).await;
        assert_eq!(self.registry.requests().len(), asked);
        assert_eq!(self.fills(), 1);
    }

    /// Waits until so many bodies from upstream have failed for this reason.
    async fn failures(&self, reason: &str, number: f64) {
        let failed = format!("larder_download_failures_total{{reason=\"{reason}\"}}");
        until(&failed, async || self.mirror.metric(&failed).await == number).await;
    }
}

/// The end of a large blob is served while its download is still at the beginning, also from
/// where upstream redirects to, and together with what the file has.
#[tokio::test(flavor = "multi_thread")]
async fn a_far_range_does_not_wait_for_the_file() {
    let setting = Setting::start().await;
    setting.check_part(SIZE - 500, SIZE).await;
    setting.check_part(SIZE - MIB, SIZE - 500).await;
    setting.check_part(100, 200).await;
    let parts = multipart::parts(setting.ask_for("bytes=-5,100-199,5000000-5000009").await).await;
    let bytes: Vec<&[u8]> = parts.iter().map(|(_, bytes)| &bytes[..]).collect();
    let blob = &setting.blob;
    assert_eq!(bytes, [&blob[SIZE - 5..], &blob[100..200], &blob[5_000_000..5_000_010]]);

    let elsewhere = FakeRegistry::start().await;
    setting.registry.redirect_blobs_to(&elsewhere);
    setting.check_part(SIZE - 700, SIZE - 600).await;
    assert_eq!(elsewhere.ranges("*"), [format!("bytes={}-{}", SIZE - 700, SIZE - 601)]);

    assert_eq!((setting.fills(), setting.passed()), (1, 5));
    let passed = r#"larder_passthrough_total{reason="range"}"#;
    assert_eq!(setting.mirror.metric(passed).await, 5.0);
    let served = |source| format!("larder_served_bytes_total{{kind=\"blob\",source=\"{source}\"}}");
    let upstream = (MIB + 100 + 5 + 10) as f64;
    until("the count", async || setting.mirror.metric(&served("upstream")).await == upstream).await;
    assert!(setting.mirror.metric(&served("download")).await > 200.0);
    setting.ends_well().await;
}

/// A range that starts no more than 4 MiB past what the file has waits for the file.
#[tokio::test(flavor = "multi_thread")]
async fn a_near_range_waits_for_the_file() {
    let setting = Setting::start().await;
    // Of the file, so much is there for certain.
    setting.check_part(0, HELD).await;
    let near = setting.ask_for_part(NEAR + HELD, NEAR + HELD + 100).await;
    setting.check_part(NEAR + HELD + 1, NEAR + HELD + 2).await;
    assert_eq!(setting.passed(), 1);
    setting.fill.open();
    assert_eq!(near.bytes().await, setting.blob.slice(NEAR + HELD..NEAR + HELD + 100));
    assert_eq!(setting.passed(), 1);
    setting.ends_well().await;
}

/// A range to the end does not fetch the rest of the blob a second time: it goes on from the file
/// as soon as that is there, and upstream is hung up on.
#[tokio::test(flavor = "multi_thread")]
async fn a_passed_range_goes_on_from_the_file() {
    const START: usize = 5_000_000;
    let (fill, end, never) = (Gate::shut(), Gate::shut(), Gate::shut());
    let whole = Fault::hold_after(HELD, &fill).and_hold_after(START + 2000, &end);
    let setting = Setting::start_with(whole, fill).await;
    setting.registry.on_range(&setting.path, Fault::hold_after(1000, &never));
    let mut response = setting.ask_for("bytes=5000000-").await;
    response.expect_next(&setting.blob[START..START + 1000]).await;
    setting.registry.wait_for_ranges_under_way(1).await;
    setting.fill.open();
    response.expect_next(&setting.blob[START + 1000..START + 2000]).await;
    setting.registry.wait_for_ranges_under_way(0).await;
    end.open();
    assert!(response.bytes().await == setting.blob.slice(START + 2000..));
    assert_eq!(setting.passed(), 1);
    setting.ends_well().await;
}

/// However many clients ask for far ranges, upstream sees four at once.
#[tokio::test(flavor = "multi_thread")]
async fn four_ranges_are_passed_at_once() {
    const CLIENTS: usize = 12;
    let setting = Setting::start().await;
    let ranges = Gate::shut();
    setting.registry.on_range(&setting.path, Fault::hold_after(10, &ranges));
    let start = |n: usize| SIZE - 1000 * (n + 1);
    let responses = (0..CLIENTS).map(|n| setting.ask_for_part(start(n), start(n) + 100));
    let responses = join_all(responses).await;
    setting.registry.wait_for_ranges_under_way(4).await;

    // Time for a fifth, if there were one.
    for _ in 0..20 {
        setting.check_part(0, HELD).await;
    }
    assert_eq!(setting.passed(), 4);
    ranges.open();
    join_all(responses.into_iter().map(Response::bytes)).await;
    assert_eq!(setting.registry.most_ranges_at_once(), 4);
    assert_eq!(setting.passed(), CLIENTS);
    setting.ends_well().await;
}

/// A client that hangs up ends its passed range, and its connection, and nothing else; the next
/// has its slot.
#[tokio::test(flavor = "multi_thread")]
async fn a_hang_up_ends_a_passed_range() {
    let setting = Setting::start().await;
    let never = Gate::shut();
    setting.registry.on_range(&setting.path, Fault::hold_after(10, &never));
    let mut passed = Vec::new();
    for number in 1..=4 {
        passed.push(setting.ask_for("bytes=5000000-").await);
        setting.registry.wait_for_ranges_under_way(number).await;
    }
    let next = setting.ask_for("bytes=5000000-").await;
    passed.pop();
    setting.registry.wait_for("GET", &setting.path, 1 + 5).await;
    setting.registry.wait_for_ranges_under_way(4).await;
    drop((passed, next));
    setting.registry.wait_for_ranges_under_way(0).await;
    setting.ends_well().await;
}

/// Who finds no slot waits for the file, which may be there first.
#[tokio::test(flavor = "multi_thread")]
async fn a_range_without_a_slot_comes_from_the_file() {
    let setting = Setting::start().await;
    let never = Gate::shut();
    setting.registry.on_range(&setting.path, Fault::hold_after(10, &never));
    let responses = (0..6).map(|_| setting.ask_for_part(SIZE - MIB, SIZE));
    let responses = join_all(responses).await;
    setting.registry.wait_for_ranges_under_way(4).await;
    setting.fill.open();
    for response in responses {
        assert!(response.bytes().await == setting.blob.slice(SIZE - MIB..));
    }
    assert_eq!(setting.passed(), 4);
    setting.ends_well().await;
}

/// Whatever upstream answers to a range, the client gets the right bytes, if need be from the
/// file; and upstream is not asked again, but for what may be over in a moment.
#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_answer_to_a_range_is_not_passed() {
    const START: usize = 5_000_000;
    let range = |range: &str| Fault::default().header("content-range", range);
    let of_length = |length: usize| Fault::chunked().body(BLOB.1.slice(START..START + length));
    let answers = [
        Fault::status(200).body(BLOB.1.clone()),
        Fault::without("content-range"),
        range("bytes 5000001-5001000/6291456"),
        range("bytes 5000000-5000998/6291456"),
        range("bytes 5000000-5000999/6291457"),
        range("bytes */6291456"),
        range("bytes 5000000-5000999/6291456").body("short"),
        Fault::default().header("content-encoding", "gzip"),
        Fault::default().header("content-type", "multipart/byteranges; boundary=x").body("--x"),
        of_length(999),
        of_length(1001),
        Fault::cut_after(0),
        Fault::cut_after(10),
        Fault::status(404),
        Fault::status(403),
        Fault::status(416),
        Fault::status(429),
    ];
    let asked_once = answers.map(|answer| (answer, 1));
    for (answer, times) in asked_once.into_iter().chain([(Fault::status(500), 3)]) {
        let setting = Setting::start().await;
        setting.registry.on_range(&setting.path, answer.clone());
        let response = setting.ask_for_part(START, START + 1000).await;
        setting.failures("range", 1.0).await;
        setting.fill.open();
        let bytes = response.bytes().await;
        assert!(bytes == setting.blob.slice(START..START + 1000), "{answer:?}");
        assert_eq!((setting.fills(), setting.passed()), (1, times), "{answer:?}");
    }
}

/// An upstream that knows no ranges is not asked for more of them while a download lasts.
#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_knows_no_ranges_is_asked_once() {
    let setting = Setting::start().await;
    setting.registry.on_range(&setting.path, Fault::status(200).body(setting.blob.clone()));
    let first = setting.ask_for_part(SIZE - 10, SIZE).await;
    setting.failures("range", 1.0).await;
    let second = setting.ask_for_part(SIZE - 20, SIZE).await;
    let several = setting.ask_for("bytes=-5,5000000-5000009,5500000-5500009").await;

    // Time for a second, if there were one.
    for _ in 0..20 {
        setting.check_part(0, HELD).await;
    }
    assert_eq!(setting.passed(), 1);
    setting.fill.open();
    assert_eq!(first.bytes().await, setting.blob.slice(SIZE - 10..));
    assert_eq!(second.bytes().await, setting.blob.slice(SIZE - 20..));
    assert_eq!(multipart::parts(several).await.len(), 3);
    setting.ends_well().await;
}

/// A total that upstream does not tell is no contradiction.
#[tokio::test(flavor = "multi_thread")]
async fn a_range_of_an_untold_total_is_passed() {
    let setting = Setting::start().await;
    let answer = Fault::chunked().header("content-range", "bytes 5000000-5000999/*");
    setting.registry.on_range(&setting.path, answer);
    setting.check_part(5_000_000, 5_001_000).await;
    setting.ends_well().await;
}

/// A range that is passed already comes to its end when the download does not; one that waits
/// is cut, so that the client asks again.
#[tokio::test(flavor = "multi_thread")]
async fn a_passed_range_outlives_a_broken_download() {
    let fill = Gate::shut();
    let broken = Fault::hold_after(HELD, &fill).and_cut_after(2 * HELD);
    let setting = Setting::start_with(broken, fill).await;
    let ranges = Gate::shut();
    setting.registry.on_range(&setting.path, Fault::hold_after(10, &ranges));
    let mut passed = Vec::new();
    for number in 1..=4 {
        passed.push(setting.ask_for_part(SIZE - MIB, SIZE).await);
        setting.registry.wait_for_ranges_under_way(number).await;
    }
    let waiting = [setting.ask_for("bytes=-1000").await, setting.ask_for("bytes=5-9999").await];

    setting.fill.open();
    setting.failures("upstream", 1.0).await;
    for response in waiting {
        assert!(matches!(response.body().await, Body::Cut(_)));
    }
    ranges.open();
    for response in passed {
        assert!(response.bytes().await == setting.blob.slice(SIZE - MIB..));
    }
}

/// A range is passed from the repository that the client asks for, which has to have the blob.
#[tokio::test(flavor = "multi_thread")]
async fn a_range_is_passed_within_its_own_repository() {
    let setting = Setting::start().await;
    setting.registry.put_blob_as("library/y", &setting.digest, &setting.blob);
    setting.check_part(SIZE - 500, SIZE).await;

    let shown = blob_url("library/y", &setting.digest);
    let range = [("range", "bytes=-100")];
    let part = setting.mirror.request("GET", &shown, &range).await;
    assert_eq!(part.bytes().await, setting.blob.slice(SIZE - 100..));
    assert_eq!(setting.registry.ranges(&shown), ["bytes=6291356-6291455"]);

    let hidden = blob_url("library/z", &setting.digest);
    assert_eq!(setting.mirror.request("GET", &hidden, &range).await.status, 404);
    assert_eq!(setting.registry.count("GET", &hidden), 0);
    setting.ends_well().await;
}
