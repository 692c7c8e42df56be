//! Upstream that breaks off in the middle of a blob: the download goes on, and no client notices.

use bytes::Bytes;
use futures_util::future::join_all;
use larder::oci::Digest;

use crate::support::{
    Auth, FakeRegistry, Fault, Gate, Mode, TestMirror, Upstream, client::Body, mirror::blob_url,
    random_bytes, sha256, wait::until,
};

const SIZE: usize = 200_000;
const HALF: usize = SIZE / 2;
const RETRIES: usize = 3;

/// A registry with one blob, a mirror of it, and the blob's path in both.
struct Setting {
    registry: FakeRegistry,
    mirror: TestMirror,
    blob: Bytes,
    digest: Digest,
    path: String,
}

impl Setting {
    async fn start() -> Setting {
        let registry = FakeRegistry::start().await;
        let upstream = Upstream::docker_io(&registry);
        Setting::with(registry, upstream).await
    }

    async fn with(registry: FakeRegistry, upstream: Upstream) -> Setting {
        Setting::waiting(registry, upstream, "5m").await
    }

    /// With a second registry that has the blob too, to be asked when the first fails.
    async fn with_two_endpoints() -> (Setting, FakeRegistry) {
        let second = FakeRegistry::start().await;
        put_blob(&second);
        let first = FakeRegistry::start().await;
        let endpoints = vec![first.url(), second.url()];
        let upstream = Upstream::docker_io(&first).set("endpoints", endpoints);
        (Setting::with(first, upstream).await, second)
    }

    /// With this `idle_timeout`.
    async fn waiting(registry: FakeRegistry, upstream: Upstream, time: &str) -> Setting {
        let (blob, digest) = put_blob(&registry);
        let mirror = TestMirror::builder()
            .upstream(upstream)
            .set("download.idle_timeout", time)
            .set("download.retries", RETRIES as i64)
            .start()
            .await;
        Setting { path: blob_url("library/x", &digest), registry, mirror, blob, digest }
    }

    /// The next GETs are answered like this, in this order.
    fn next_answers(&self, faults: impl IntoIterator<Item = Fault, IntoIter: DoubleEndedIterator>) {
        // The newest rule decides.
        for fault in faults.into_iter().rev() {
            self.registry.once("GET", &self.path, fault);
        }
    }

    /// A client gets the whole blob, and it is kept.
    async fn is_served(&self) {
        self.mirror.get(&self.path).await.expect(&self.blob).await;
        self.mirror.wait_for_blob(&self.digest).await;
    }

    /// What upstream was asked for: `None` is the whole.
    fn asked(&self) -> Vec<Option<String>> {
        asked(&self.registry, &self.path)
    }

    async fn resumes(&self) -> f64 {
        self.mirror.metric("larder_download_resumes_total").await
    }

    async fn upstream_bytes(&self) -> f64 {
        self.mirror.metric("larder_upstream_bytes_total").await
    }
}

fn put_blob(registry: &FakeRegistry) -> (Bytes, Digest) {
    let blob = random_bytes(1, SIZE);
    let digest = registry.put_blob("library/x", &blob);
    (blob, digest)
}

fn asked(registry: &FakeRegistry, path: &str) -> Vec<Option<String>> {
    let requests = registry.requests();
    let gets = requests.iter().filter(|request| request.method == "GET" && request.path == path);
    gets.map(|request| request.header("range").map(str::to_owned)).collect()
}

fn from(start: usize) -> Option<String> {
    Some(format!("bytes={start}-"))
}

/// Wherever a body breaks, exactly what is missing is asked for, and the client sees one body.
#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_breaks_goes_on_where_it_broke() {
    for cut in [1, HALF, SIZE - 1] {
        for answer in [Fault::cut_after(cut), Fault::cut_after(cut).and_chunked()] {
            let setting = Setting::start().await;
            setting.next_answers([answer]);
            setting.is_served().await;
            assert_eq!(setting.asked(), [None, from(cut)]);
            assert_eq!(setting.upstream_bytes().await, SIZE as f64);
            assert_eq!(setting.resumes().await, 1.0);
            assert_eq!(setting.mirror.metric("larder_download_failures_total").await, 0.0);
        }
    }
}

/// With nothing here yet, the whole is asked for again.
#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_breaks_at_once_is_asked_for_again() {
    let setting = Setting::start().await;
    setting.next_answers([Fault::cut_after(0)]);
    setting.is_served().await;
    assert_eq!(setting.asked(), [None, None]);
}

/// Upstream may break off as often as it likes, as long as something comes in between.
#[tokio::test(flavor = "multi_thread")]
async fn every_byte_of_progress_counts() {
    let setting = Setting::start().await;
    let cuts = 3 * RETRIES;
    let step = 10_000;
    setting.next_answers(vec![Fault::cut_after(step); cuts]);
    setting.is_served().await;
    let asked: Vec<_> = (1..=cuts).map(|cut| from(cut * step)).collect();
    assert_eq!(setting.asked(), [vec![None], asked].concat());
    assert_eq!(setting.upstream_bytes().await, SIZE as f64);
}

/// An upstream that gives no more bytes is asked a few times, and then clients are cut.
#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_without_progress_is_given_up() {
    // The next pull goes on, unless upstream's last word was that there is nothing.
    for (trouble, then) in [
        (Fault::status(500), from(HALF)),
        (Fault::cut_after(0), from(HALF)),
        (Fault::status(404), None),
    ] {
        let setting = Setting::start().await;
        setting.next_answers([Fault::cut_after(HALF)]);
        setting.registry.on_range(&setting.path, trouble);
        let body = setting.mirror.get(&setting.path).await.body().await;
        assert!(matches!(&body, Body::Cut(body) if setting.blob.starts_with(body)), "{body:?}");
        assert_eq!(setting.asked().len(), 1 + RETRIES);
        let failed = "larder_download_failures_total";
        until(failed, async || setting.mirror.metric(failed).await == 1.0).await;

        setting.registry.behave();
        setting.is_served().await;
        assert_eq!(setting.asked().last(), Some(&then));
    }
}

/// Silence is a break like any other.
#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_stalls_goes_on() {
    let registry = FakeRegistry::start().await;
    let upstream = Upstream::docker_io(&registry);
    let setting = Setting::waiting(registry, upstream, "500ms").await;
    let never = Gate::shut();
    setting.next_answers([Fault::hold_after(HALF, &never)]);
    setting.is_served().await;
    assert_eq!(setting.asked(), [None, from(HALF)]);
}

/// So is a restart of upstream.
#[tokio::test(flavor = "multi_thread")]
async fn a_restart_of_upstream_goes_unnoticed() {
    let setting = Setting::start().await;
    let held = [HALF / 2, HALF].map(|place| (place, Gate::shut()));
    setting.next_answers(held.iter().map(|(place, gate)| Fault::hold_after(*place, gate)));
    let mut response = setting.mirror.get(&setting.path).await;
    let mut read = 0;
    for place in [HALF / 2, HALF / 2 + HALF] {
        response.expect_next(&setting.blob[read..place]).await;
        read = place;
        setting.registry.set_mode(Mode::Down).await;
        setting.registry.set_mode(Mode::Up).await;
    }
    response.expect_next(&setting.blob[read..]).await;
    assert_eq!(response.read_some(1).await, None);
    let (first, second) = (from(HALF / 2), from(HALF / 2 + HALF));
    assert_eq!(setting.asked(), [None, first, second]);
}

/// An upstream that sends everything again is believed, and what is here already is skipped.
#[tokio::test(flavor = "multi_thread")]
async fn the_whole_instead_of_the_rest_is_skipped_through() {
    let blob = random_bytes(1, SIZE);
    for whole in [Fault::status(200), Fault::status(200).and_chunked()] {
        let setting = Setting::start().await;
        setting.next_answers([Fault::cut_after(HALF), whole.body(blob.clone())]);
        setting.is_served().await;
        assert_eq!(setting.asked(), [None, from(HALF)]);
        assert_eq!(setting.upstream_bytes().await, (HALF + SIZE) as f64);
    }
}

/// Nothing but the rest of this blob is taken for it.
#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_answer_to_a_resume_is_not_taken() {
    let range = |range: &str| Fault::default().header("content-range", range);
    let answers = [
        Fault::without("content-range"),
        range("bytes 99999-199999/200000"),
        range("bytes 100001-199999/200000"),
        range("bytes 100000-199998/200000"),
        range("bytes 100000-199999/200001"),
        range("bytes 100000-200000/200001"),
        range("bytes */200000"),
        range("bytes 100000-199999/200000").body("short"),
        Fault::status(200).body("another blob"),
        Fault::status(204),
        Fault::default().header("content-encoding", "gzip"),
        Fault::status(400),
        Fault::status(401),
        Fault::status(403),
        Fault::status(404),
        Fault::status(416),
        Fault::status(429).header("retry-after", "1"),
        Fault::status(500),
        Fault::status(503),
    ];
    join_all(answers.map(async |answer| {
        let setting = Setting::start().await;
        setting.next_answers([Fault::cut_after(HALF), answer.clone()]);
        setting.is_served().await;
        assert_eq!(setting.asked(), [None, from(HALF), from(HALF)], "{answer:?}");
    }))
    .await;
}

/// A signed URL that has expired meanwhile is replaced by asking the registry again.
#[tokio::test(flavor = "multi_thread")]
async fn each_resume_asks_the_registry_for_the_way() {
    for expired in [400, 403] {
        let storage = FakeRegistry::start().await;
        let setting = Setting::start().await;
        setting.registry.redirect_blobs_to(&storage);
        storage.once("GET", "*", Fault::status(expired));
        storage.once("GET", "*", Fault::cut_after(HALF));
        setting.is_served().await;
        assert_eq!(setting.asked(), [None, from(HALF), from(HALF)]);
        assert_eq!(storage.ranges("*"), ["bytes=100000-"; 2]);
    }
}

/// A token that has expired meanwhile is renewed.
#[tokio::test(flavor = "multi_thread")]
async fn a_resume_has_a_token_of_its_own_time() {
    let registry = FakeRegistry::builder().auth(Auth::AnonymousToken).start().await;
    let upstream = Upstream::docker_io(&registry);
    let setting = Setting::with(registry, upstream).await;
    // The first GET is the one that is challenged.
    setting.mirror.get(&blob_url("library/x", &sha256(b"unknown"))).await;
    let gate = Gate::shut();
    setting.next_answers([Fault::hold_after(HALF, &gate).and_cut_after(HALF)]);
    let mut response = setting.mirror.get(&setting.path).await;
    response.expect_next(&setting.blob[..HALF]).await;
    let tokens = setting.registry.count("GET", "/token");
    setting.registry.expire_tokens();
    gate.open();
    assert!(response.bytes().await == setting.blob.slice(HALF..));
    assert_eq!(setting.registry.count("GET", "/token"), tokens + 1);
    assert_eq!(setting.asked(), [None, from(HALF), from(HALF)], "with the old one and the new");
}

/// Those who were there before the break, those who come after it, and those who want a part: all
/// get their bytes, and upstream notices one resume.
#[tokio::test(flavor = "multi_thread")]
async fn nobody_behind_a_download_notices_its_resume() {
    let gate = Gate::shut();
    let setting = Setting::start().await;
    setting.next_answers([Fault::cut_after(HALF)]);
    setting.registry.on_range(&setting.path, Fault::hold_after(0, &gate));
    let before = join_all((0..5).map(|_| setting.mirror.get(&setting.path))).await;
    setting.registry.wait_for("GET", &setting.path, 2).await;
    let gone = setting.mirror.ask(&setting.path).await;
    let mut after = join_all((0..5).map(|_| setting.mirror.get(&setting.path))).await;
    for response in &mut after {
        response.expect_next(&setting.blob[..HALF]).await;
    }
    let range = [("range", "bytes=10-99")];
    let part = setting.mirror.request("GET", &setting.path, &range).await;
    assert_eq!(part.bytes().await, setting.blob.slice(10..100));
    let range = [("range", "bytes=-10")];
    let end = setting.mirror.request("GET", &setting.path, &range).await;

    drop(gone);
    gate.open();
    assert_eq!(end.bytes().await, setting.blob.slice(SIZE - 10..));
    for response in before {
        response.expect(&setting.blob).await;
    }
    for response in after {
        response.expect(&setting.blob[HALF..]).await;
    }
    assert_eq!(setting.asked(), [None, from(HALF)]);
}

/// An endpoint that gives no more is left for the next one.
#[tokio::test(flavor = "multi_thread")]
async fn the_next_endpoint_goes_on() {
    // Asked in vain: once where it refuses, as often as is allowed where its bodies break.
    for (trouble, times) in
        [(Fault::status(500), 1), (Fault::status(404), 1), (Fault::cut_after(0), RETRIES)]
    {
        let (setting, second) = Setting::with_two_endpoints().await;
        setting.next_answers([Fault::cut_after(HALF)]);
        setting.registry.on_range(&setting.path, trouble);
        setting.is_served().await;
        assert_eq!(setting.asked(), [vec![None], vec![from(HALF); times]].concat());
        assert_eq!(asked(&second, &setting.path), [from(HALF)]);
    }
}

/// Wrong bytes are nobody's, but another endpoint may have the right ones: a client that was cut
/// gets them when it asks again, at no further cost.
#[tokio::test(flavor = "multi_thread")]
async fn wrong_bytes_are_fetched_anew_from_the_next_endpoint() {
    let (setting, second) = Setting::with_two_endpoints().await;
    setting.registry.on("GET", &setting.path, Fault::flip_byte(HALF));
    let gate = Gate::shut();
    second.on("GET", &setting.path, Fault::hold_after(HALF, &gate));

    let body = setting.mirror.get(&setting.path).await.body().await;
    assert!(matches!(body, Body::Cut(_)));
    second.wait_for("GET", &setting.path, 1).await;
    let again = setting.mirror.get(&setting.path).await;
    gate.open();
    again.expect(&setting.blob).await;
    setting.mirror.wait_for_blob(&setting.digest).await;
    assert_eq!((setting.asked(), asked(&second, &setting.path)), (vec![None], vec![None]));
    let failed = r#"larder_download_failures_total{reason="digest"}"#;
    assert_eq!(setting.mirror.metric(failed).await, 1.0);
}

/// Wrong bytes that came from two endpoints may be either's: both are asked for the whole, in order, and
/// no more than once.
#[tokio::test(flavor = "multi_thread")]
async fn wrong_bytes_of_two_endpoints_are_fetched_anew_from_the_first() {
    for is_well in [true, false] {
        let (setting, second) = Setting::with_two_endpoints().await;
        // Its whole is right, if it does not break off.
        if is_well {
            setting.next_answers([Fault::cut_after(HALF)]);
        } else {
            setting.registry.on("GET", &setting.path, Fault::cut_after(HALF));
        }
        setting.registry.on_range(&setting.path, Fault::status(404));
        second.on("GET", &setting.path, Fault::flip_byte(10));

        let body = setting.mirror.get(&setting.path).await.body().await;
        assert!(matches!(body, Body::Cut(_)));
        let failed = r#"larder_download_failures_total{reason="digest"}"#;
        if is_well {
            setting.is_served().await;
            assert_eq!(setting.asked(), [None, from(HALF), None]);
            assert_eq!(asked(&second, &setting.path), [from(HALF)]);
        } else {
            until(failed, async || setting.mirror.metric(failed).await == 3.0).await;
            assert_eq!(setting.asked(), [None, from(HALF), None, from(HALF)]);
            assert_eq!(asked(&second, &setting.path), [from(HALF), from(HALF), None]);
            assert!(!setting.mirror.has_blob(&setting.digest));
        }
    }
}

/// Each endpoint has one try; then the download has failed.
#[tokio::test(flavor = "multi_thread")]
async fn wrong_bytes_everywhere_are_given_up() {
    let (setting, second) = Setting::with_two_endpoints().await;
    for registry in [&setting.registry, &second] {
        registry.on("GET", &setting.path, Fault::flip_byte(HALF));
    }
    let body = setting.mirror.get(&setting.path).await.body().await;
    assert!(matches!(body, Body::Cut(_)));
    let failed = r#"larder_download_failures_total{reason="digest"}"#;
    until(failed, async || setting.mirror.metric(failed).await == 2.0).await;
    assert_eq!((setting.asked(), asked(&second, &setting.path)), (vec![None], vec![None]));
    assert!(!setting.mirror.has_blob(&setting.digest));
}
