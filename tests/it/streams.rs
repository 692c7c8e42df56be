//! One blob by several requests at once: to a client as good as one request, whatever happens to each.

use bytes::Bytes;
use larder::oci::Digest;

use crate::support::{
    FakeRegistry, Fault, Gate, TestMirror, Upstream,
    binary::Daemon,
    client::Body,
    mirror::{Builder, blob_path, blob_url, metric},
    random_bytes, sha256,
    wait::until,
};

const MIB: usize = 1024 * 1024;

/// Bytes in the blob, and in each of its parts.
const SIZE: usize = 16 * MIB;
const PART: usize = 4 * MIB;

/// What may be read of the first body behind the first part.
const EXCESS: usize = MIB;

/// A registry with one blob, and its path there and at the mirror.
struct Setting {
    registry: FakeRegistry,
    blob: Bytes,
    digest: Digest,
    path: String,
}

impl Setting {
    async fn start() -> Setting {
        Setting::of(SIZE).await
    }

    async fn of(size: usize) -> Setting {
        let registry = FakeRegistry::start().await;
        let blob = random_bytes(31, size);
        let digest = registry.put_blob("library/x", &blob);
        Setting { path: blob_url("library/x", &digest), registry, blob, digest }
    }

    /// To start a mirror with so many streams.
    fn mirror_with(&self, streams: i64) -> Builder {
        let mirror = TestMirror::builder().upstream(Upstream::docker_io(&self.registry));
        mirror.set("download.streams", streams)
    }

    async fn mirror(&self) -> TestMirror {
        self.mirror_with(4).start().await
    }

    async fn is_served(&self, mirror: &TestMirror) {
        mirror.get(&self.path).await.expect(&self.blob).await;
        mirror.wait_for_blob(&self.digest).await;
    }

    /// The ranges that upstream was asked for, in order of their beginnings; without one, nothing.
    fn asked(&self) -> Vec<String> {
        asked(&self.registry, &self.path)
    }

    /// Another blob is fetched by so many requests.
    async fn next_takes(&self, mirror: &TestMirror, requests: usize) {
        let blob = random_bytes(32, SIZE);
        let path = blob_url("library/x", &self.registry.put_blob("library/x", &blob));
        mirror.get(&path).await.expect(&blob).await;
        assert_eq!(self.registry.count("GET", &path), requests);
    }
}

fn asked(registry: &FakeRegistry, path: &str) -> Vec<String> {
    in_order(registry.ranges(path))
}

/// Requests that are under way at once arrive in any order.
fn in_order(mut ranges: Vec<String>) -> Vec<String> {
    ranges.sort_by_key(|range| {
        let start = range.trim_start_matches("bytes=").split('-').next();
        start.and_then(|start| start.parse::<usize>().ok())
    });
    ranges
}

fn range(start: usize, end: usize) -> String {
    format!("bytes={start}-{}", end - 1)
}

/// All parts but the first, which comes with the whole.
fn parts() -> Vec<String> {
    (PART..SIZE).step_by(PART).map(|start| range(start, start + PART)).collect()
}

/// Every byte is asked for once, and all parts at once.
#[tokio::test(flavor = "multi_thread")]
async fn a_large_blob_comes_in_parts() {
    let setting = Setting::start().await;
    let gate = Gate::shut();
    setting.registry.on("GET", &setting.path, Fault::hold_after(1000, &gate));
    let mirror = setting.mirror().await;
    let mut response = mirror.get(&setting.path).await;
    response.expect_next(&setting.blob[..1000]).await;
    setting.registry.wait_for_ranges_under_way(3).await;
    gate.open();
    assert!(response.bytes().await == setting.blob[1000..]);
    mirror.wait_for_blob(&setting.digest).await;

    assert_eq!(setting.asked(), parts());
    assert_eq!(setting.registry.count("GET", &setting.path), 4);
    let bytes = mirror.metric("larder_upstream_bytes_total").await as usize;
    assert!((SIZE..SIZE + EXCESS).contains(&bytes), "{bytes}");
    assert_eq!(mirror.metric("larder_download_resumes_total").await, 0.0);

    mirror.get(&setting.path).await.expect(&setting.blob).await;
    assert_eq!(setting.registry.count("GET", &setting.path), 4);
}

/// Parts are few at a time, and each is asked for when an earlier one is there.
#[tokio::test(flavor = "multi_thread")]
async fn no_more_than_the_streams_are_under_way() {
    let setting = Setting::start().await;
    let gate = Gate::shut();
    setting.registry.on_range(&setting.path, Fault::hold_after(1000, &gate));
    let mirror = setting.mirror_with(2).start().await;
    let mut response = mirror.get(&setting.path).await;
    response.expect_next(&setting.blob[..PART + 1000]).await;
    // With the first part at an end, the third may come beside the second.
    setting.registry.wait_for_ranges_under_way(2).await;
    gate.open();
    assert!(response.bytes().await == setting.blob[PART + 1000..]);
    assert_eq!(setting.asked(), parts());
    assert!(setting.registry.most_ranges_at_once() <= 3, "one may be noticed late");
}

/// What is small, and what the operator or upstream leaves no connections for, comes in one body.
#[tokio::test(flavor = "multi_thread")]
async fn one_stream_is_enough_at_times() {
    let few = |setting: &Setting| {
        let upstream = Upstream::docker_io(&setting.registry).set("max_connections", 4);
        TestMirror::builder().upstream(upstream).set("download.streams", 4)
    };
    let (large, small) = (Setting::start().await, Setting::of(SIZE - 1).await);
    for (setting, mirror) in
        [(&large, large.mirror_with(1)), (&large, few(&large)), (&small, small.mirror_with(4))]
    {
        let mirror = mirror.start().await;
        setting.is_served(&mirror).await;
        assert_eq!(setting.asked(), Vec::<String>::new());
    }
}

/// Each part finds its way by itself, for where a redirect leads may be good for one request only.
#[tokio::test(flavor = "multi_thread")]
async fn each_part_follows_its_own_redirect() {
    let (setting, elsewhere) = (Setting::start().await, FakeRegistry::start().await);
    setting.registry.redirect_blobs_to(&elsewhere);
    setting.is_served(&setting.mirror().await).await;
    assert_eq!(setting.asked(), parts());
    assert_eq!(asked(&elsewhere, "*"), parts());
}

/// What breaks off, fails or stalls is asked for again, and nothing else is.
#[tokio::test(flavor = "multi_thread")]
async fn a_part_that_fails_is_asked_for_again() {
    let never = Gate::shut();
    let table = [
        (1, Fault::cut_after(1000), 1000, "5m"),
        (2, Fault::status(500), 0, "5m"),
        (3, Fault::hang_up(), 0, "5m"),
        (2, Fault::cut_after(PART - 1), PART - 1, "5m"),
        (1, Fault::hold_after(2000, &never), 2000, "3s"),
    ];
    for (part, fault, came, idle_timeout) in table {
        let setting = Setting::start().await;
        let (start, end) = (part * PART, (part + 1) * PART);
        setting.registry.once_from(&setting.path, start, fault);
        let mirror = setting.mirror_with(4).set("download.idle_timeout", idle_timeout);
        let mirror = mirror.start().await;
        setting.is_served(&mirror).await;
        let again = range(start + came, end);
        let mut want = parts();
        want.insert(part, again.clone());
        assert_eq!(setting.asked(), want, "{again}");
        setting.next_takes(&mirror, 4).await;
    }
}

/// An answer that is not the part ends all parts: one stream goes on from the first gap, and upstream is
/// not asked for parts again.
#[tokio::test(flavor = "multi_thread")]
async fn who_gives_no_parts_is_asked_for_the_rest() {
    let whole = |setting: &Setting| Fault::status(200).body(setting.blob.clone());
    let says = |total: usize| {
        move |_: &Setting| Fault::default().header("content-range", format!("bytes 0-9/{total}"))
    };
    let grown = |setting: &Setting| {
        let content_range = format!("bytes {PART}-{}/{}", 2 * PART - 1, setting.blob.len() + 1);
        Fault::default().header("content-range", content_range).header("etag", "\"other\"")
    };
    let faults: [&dyn Fn(&Setting) -> Fault; 4] =
        [&whole, &|_| Fault::status(416), &says(SIZE), &grown];
    for fault in faults {
        let setting = Setting::start().await;
        setting.registry.once_from(&setting.path, PART, fault(&setting));
        let mirror = setting.mirror().await;
        setting.is_served(&mirror).await;
        let asked = setting.asked();
        assert_eq!(setting.registry.count("GET", &setting.path), 1 + asked.len(), "{asked:?}");
        let rest = asked.iter().filter(|range| range.ends_with('-')).count();
        assert!(rest <= 1 && asked.len() <= parts().len() + rest, "{asked:?}");
        setting.next_takes(&mirror, 1).await;
    }
}

/// If the first body is still on its way then, it brings the rest.
#[tokio::test(flavor = "multi_thread")]
async fn the_first_body_goes_on_where_there_are_no_parts() {
    let setting = Setting::start().await;
    let gate = Gate::shut();
    setting.registry.on_whole(&setting.path, Fault::hold_after(1000, &gate));
    setting.registry.on_range(&setting.path, Fault::status(416));
    let daemon = Daemon::start(setting.mirror_with(4)).await;
    let response = daemon.client().get(&setting.path).await;
    until("one stream", async || daemon.log().contains("goes on in one stream")).await;
    gate.open();
    response.expect(&setting.blob).await;
    assert!(setting.asked().iter().all(|range| parts().contains(range)));
    assert_eq!(metric(&daemon.admin(), "larder_upstream_bytes_total").await, SIZE as f64);
}

/// Wrong bytes in any part are wrong bytes: clients are cut, nothing is kept, and the next pull does
/// without parts, which may have been mixed up.
#[tokio::test(flavor = "multi_thread")]
async fn wrong_bytes_in_a_part_are_cut() {
    for part in [1, 3] {
        let setting = Setting::start().await;
        setting.registry.once_from(&setting.path, part * PART, Fault::flip_byte(7));
        let mirror = setting.mirror().await;
        let body = mirror.get(&setting.path).await.body().await;
        assert!(matches!(&body, Body::Cut(bytes) if bytes.len() < SIZE), "part {part}");
        let failed = r#"larder_download_failures_total{reason="digest"}"#;
        until(failed, async || mirror.metric(failed).await == 1.0).await;
        until("the end of it", async || mirror.metric("larder_downloads_in_flight").await == 0.0)
            .await;
        assert!(!mirror.has_blob(&setting.digest));

        let asked = setting.registry.count("GET", &setting.path);
        setting.is_served(&mirror).await;
        assert_eq!(setting.registry.count("GET", &setting.path), asked + 1);
    }
}

/// A client that hangs up ends nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_may_hang_up() {
    let setting = Setting::start().await;
    let gate = Gate::shut();
    setting.registry.on_range(&setting.path, Fault::hold_after(1000, &gate));
    let mirror = setting.mirror().await;
    let mut response = mirror.get(&setting.path).await;
    response.expect_next(&setting.blob[..1000]).await;
    drop(response);
    gate.open();
    mirror.wait_for_blob(&setting.digest).await;
    assert_eq!(setting.asked(), parts());
}

/// What lies behind a gap when the process ends is worth nothing; what has no gap before it is gone on
/// with, in parts again.
#[tokio::test(flavor = "multi_thread")]
async fn the_next_process_goes_on_at_the_gap() {
    const SIZE: usize = 6 * PART;
    for signal in ["TERM", "KILL"] {
        let setting = Setting::of(SIZE).await;
        let mirror = setting.mirror_with(3).set("drain_timeout", "100ms");
        let held = Fault::hold_after(MIB, &Gate::shut());
        setting.registry.once_from(&setting.path, PART, held);
        let mut daemon = Daemon::start(mirror).await;
        let mut response = daemon.client().get(&setting.path).await;
        response.expect_next(&setting.blob[..PART + MIB]).await;
        let came = (SIZE - PART + MIB) as f64;
        let admin = daemon.admin();
        until("all other parts", async || {
            metric(&admin, "larder_upstream_bytes_total").await >= came
        })
        .await;
        daemon.signal(signal);
        daemon.ended().await;
        let daemon = daemon.kill_and_restart().await;
        let earlier = setting.registry.count("GET", &setting.path);
        daemon.client().get(&setting.path).await.expect(&setting.blob).await;
        // A process that is killed has not noted the last of it.
        let from = if signal == "TERM" { PART + MIB } else { PART };
        let later = in_order(setting.registry.ranges(&setting.path).split_off(earlier - 1));
        assert!(later[0].starts_with(&format!("bytes={from}-")), "{signal}: {later:?}");
        assert!(later.len() > 1, "{signal}: {later:?}");
    }
}

/// A stop waits for all parts, also for those that nobody was asked for when it began.
#[tokio::test(flavor = "multi_thread")]
async fn a_stop_waits_for_all_parts() {
    let setting = Setting::start().await;
    let gate = Gate::shut();
    setting.registry.on_range(&setting.path, Fault::hold_after(1000, &gate));
    let mut daemon = Daemon::start(setting.mirror_with(2)).await;
    let mut response = daemon.client().get(&setting.path).await;
    response.expect_next(&setting.blob[..PART + 1000]).await;
    daemon.signal("TERM");
    gate.open();
    assert!(response.bytes().await == setting.blob[PART + 1000..]);
    daemon.ended().await;
    assert_eq!(setting.asked(), parts());
}

/// A file that cannot grow so far stops all parts; each client goes on alone.
#[tokio::test(flavor = "multi_thread")]
async fn where_the_disk_stops_it_clients_go_on() {
    let setting = Setting::start().await;
    let gate = Gate::shut();
    setting.registry.on_whole(&setting.path, Fault::hold_after(MIB, &gate));
    let daemon = Daemon::start(setting.mirror_with(4).set("download.retries", 0)).await;
    daemon.limit_file_size(Some(SIZE - PART));
    let mut response = daemon.client().get(&setting.path).await;
    response.expect_next(&setting.blob[..1000]).await;
    gate.open();
    assert!(response.bytes().await == setting.blob[1000..]);
    let passed = metric(&daemon.admin(), r#"larder_passthrough_total{reason="disk"}"#).await;
    assert_eq!(passed, 1.0);

    daemon.limit_file_size(None);
    setting.registry.behave();
    daemon.client().get(&setting.path).await.expect(&setting.blob).await;
    let file = blob_path(&daemon.data_dir(), &sha256(&setting.blob));
    until("the blob in the store", async || file.exists()).await;
}
