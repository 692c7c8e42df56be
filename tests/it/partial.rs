//! Downloads that ended half-way: what is there is served at once to who asks again, also by the
//! next process, and only the rest is fetched.

use std::fs;

use bytes::Bytes;
use larder::oci::Digest;

use crate::support::{
    FakeRegistry, Fault, Gate, Mode, TestMirror, Upstream,
    binary::Daemon,
    client::Body,
    mirror::{Builder, blob_url, metric},
    random_bytes,
    wait::until,
};

const SIZE: usize = 3_000_000;
const HALF: usize = SIZE / 2;

/// A registry with one blob, whose first GET gives half of it and then waits.
struct Setting {
    registry: FakeRegistry,
    blob: Bytes,
    digest: Digest,
    path: String,
}

impl Setting {
    async fn start() -> Setting {
        let registry = FakeRegistry::start().await;
        let blob = random_bytes(1, SIZE);
        let digest = registry.put_blob("library/x", &blob);
        let path = blob_url("library/x", &digest);
        registry.once("GET", &path, Fault::hold_after(HALF, &Gate::shut()));
        Setting { registry, blob, digest, path }
    }

    fn mirror(&self) -> Builder {
        TestMirror::builder().upstream(Upstream::docker_io(&self.registry))
    }

    /// Half of the blob comes; then the download fails, and the mirror is stopped.
    async fn left_half(&self) -> Builder {
        let mirror = self.mirror().set("download.idle_timeout", "1s");
        let mirror = mirror.set("download.retries", 0).start().await;
        self.is_not_served(&mirror).await;
        let failed = "larder_download_failures_total";
        until(failed, async || mirror.metric(failed).await == 1.0).await;
        mirror.stop().await
    }

    /// A client is cut, or refused where it comes late.
    async fn is_not_served(&self, mirror: &TestMirror) {
        let response = mirror.get(&self.path).await;
        match (response.status, response.body().await) {
            (200, Body::Cut(body)) => assert!(self.blob.len() > body.len()),
            (status, body) => assert_eq!(status, 429, "{body:?}"),
        }
    }

    fn asked(&self) -> Vec<Option<String>> {
        let requests = self.registry.requests();
        let gets = requests.iter().filter(|request| request.method == "GET");
        gets.map(|request| request.header("range").map(str::to_owned)).collect()
    }
}

fn from_half() -> Option<String> {
    Some(format!("bytes={HALF}-"))
}

fn downloads(mirror: &TestMirror) -> usize {
    mirror.data_dir().join("downloads").read_dir().unwrap().count()
}

/// However the process ends, the next one serves what is there while upstream is still away, and
/// fetches the rest only.
#[tokio::test(flavor = "multi_thread")]
async fn the_next_process_goes_on() {
    for signal in ["TERM", "KILL"] {
        let setting = Setting::start().await;
        let mut daemon = Daemon::start(setting.mirror().set("drain_timeout", "100ms")).await;
        let mut response = daemon.client().get(&setting.path).await;
        response.expect_next(&setting.blob[..HALF]).await;
        setting.registry.set_mode(Mode::Down).await;
        daemon.signal(signal);
        daemon.ended().await;
        let daemon = daemon.kill_and_restart().await;

        let mut response = daemon.client().get(&setting.path).await;
        assert_eq!(response.header("content-length"), Some(SIZE.to_string().as_str()));
        response.expect_next(&setting.blob[..HALF]).await;
        setting.registry.set_mode(Mode::Up).await;
        assert!(response.bytes().await == setting.blob.slice(HALF..), "{signal}");
        assert_eq!(setting.asked(), [None, from_half()], "{signal}");
        let upstream = metric(&daemon.admin(), "larder_upstream_bytes_total").await;
        assert_eq!(upstream, (SIZE - HALF) as f64, "{signal}");
        let downloads = daemon.data_dir().join("downloads");
        until("an empty downloads/", async || downloads.read_dir().unwrap().count() == 0).await;
    }
}

/// What was all there when the process ended is published by the next one, though nobody asks for it.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_whole_is_published() {
    let setting = Setting::start().await;
    let stopped = setting.left_half().await;
    let downloads_of = stopped.data_dir().join("downloads");
    let file = downloads_of.join(format!("sha256-{}", setting.digest.encoded()));
    fs::write(&file, &setting.blob).unwrap();

    setting.registry.set_mode(Mode::Down).await;
    let mirror = stopped.start().await;
    mirror.wait_for_blob(&setting.digest).await;
    until("an empty downloads/", async || downloads(&mirror) == 0).await;
    mirror.get(&setting.path).await.expect(&setting.blob).await;
    assert_eq!(setting.asked(), [None]);
}

/// In another boot of the machine, the length of a file says nothing of its bytes.
#[tokio::test(flavor = "multi_thread")]
async fn another_boot_begins_anew() {
    let setting = Setting::start().await;
    let stopped = setting.left_half().await;
    let note = stopped.data_dir().join("downloads");
    let note = note.join(format!("sha256-{}.json", setting.digest.encoded()));
    let text = fs::read_to_string(&note).unwrap();
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    assert!(text.contains(boot.trim()), "{text}");
    fs::write(&note, text.replace(boot.trim(), "another")).unwrap();

    let mirror = stopped.start().await;
    assert_eq!(downloads(&mirror), 0);
    mirror.get(&setting.path).await.expect(&setting.blob).await;
    assert_eq!(setting.asked(), [None, None]);
}

/// What is damaged on disk meanwhile is found out at the end; nobody gets a whole blob of it, and
/// all is fetched again.
#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_beginning_is_fetched_anew() {
    let setting = Setting::start().await;
    let stopped = setting.left_half().await;
    let file = stopped.data_dir().join("downloads");
    let file = file.join(format!("sha256-{}", setting.digest.encoded()));
    let mut bytes = fs::read(&file).unwrap();
    assert!(bytes == setting.blob[..HALF]);
    bytes[HALF / 2] ^= 1;
    fs::write(&file, bytes).unwrap();

    let mirror = stopped.start().await;
    setting.is_not_served(&mirror).await;
    mirror.wait_for_blob(&setting.digest).await;
    mirror.get(&setting.path).await.expect(&setting.blob).await;
    assert_eq!(setting.asked(), [None, from_half(), None]);
    until("an empty downloads/", async || downloads(&mirror) == 0).await;
}

/// A download that lacks nothing but the verdict needs no upstream.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_all_there_is_not_asked_for() {
    let setting = Setting::start().await;
    let stopped = setting.left_half().await;
    let file = stopped.data_dir().join("downloads");
    let file = file.join(format!("sha256-{}", setting.digest.encoded()));
    fs::write(&file, &setting.blob).unwrap();
    setting.registry.set_mode(Mode::Down).await;
    let mirror = stopped.start().await;
    mirror.get(&setting.path).await.expect(&setting.blob).await;
    mirror.wait_for_blob(&setting.digest).await;
    assert_eq!(setting.asked(), [None]);
}

/// What is left of a blob is shown only in a repository in which upstream showed the blob.
#[tokio::test(flavor = "multi_thread")]
async fn a_beginning_is_served_only_where_the_blob_is() {
    let setting = Setting::start().await;
    let mirror = setting.left_half().await.start().await;
    setting.registry.put_blob("library/y", &setting.blob);
    let hidden = blob_url("library/z", &setting.digest);
    assert_eq!(mirror.get(&hidden).await.status, 404);
    assert_eq!(setting.registry.count("GET", &hidden), 0);

    let shown = blob_url("library/y", &setting.digest);
    mirror.get(&shown).await.expect(&setting.blob).await;
    assert_eq!(setting.registry.count("HEAD", &shown), 1);
    assert_eq!(setting.registry.ranges(&shown), [format!("bytes={HALF}-")]);
}

/// Upstream may have another blob of the name by now, or none: then what is left is given up.
#[tokio::test(flavor = "multi_thread")]
async fn what_upstream_contradicts_is_not_kept() {
    for answer in [Fault::status(404), Fault::status(416)] {
        let setting = Setting::start().await;
        let mirror = setting.left_half().await.start().await;
        setting.registry.on_range(&setting.path, answer);
        setting.is_not_served(&mirror).await;
        until("an empty downloads/", async || downloads(&mirror) == 0).await;
        mirror.get(&setting.path).await.expect(&setting.blob).await;
        assert_eq!(setting.asked(), [None, from_half(), None]);
    }
}

/// Nobody may ask for the rest, so that no client is promised what cannot come.
#[tokio::test(flavor = "multi_thread")]
async fn a_beginning_is_nothing_while_offline() {
    let setting = Setting::start().await;
    let mirror = setting.left_half().await.set("cache.offline", true).start().await;
    let asked = setting.asked();
    let answer = mirror.get(&setting.path).await;
    assert_eq!(answer.status, 404);
    assert!(answer.error().await.1.contains("offline"));
    assert_eq!(setting.asked(), asked);
}
