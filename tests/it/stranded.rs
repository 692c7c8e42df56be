//! The disk stops a download in mid-body: each client goes on from upstream alone, and none notices.

use bytes::Bytes;
use futures_util::future::join_all;

use crate::support::{
    FakeRegistry, Fault, Gate, Response, TestMirror, Upstream,
    binary::Daemon,
    client::Body,
    mirror::{blob_path, blob_url, metric},
    random_bytes, sha256,
    wait::until,
};

const MIB: usize = 1024 * 1024;

/// Bytes in the blob.
const SIZE: usize = 8 * MIB;

/// How far its file can grow.
const ROOM: usize = 5 * MIB;

/// Where upstream pauses until all clients are there.
const PAUSE: usize = MIB;

/// A daemon whose files cannot grow beyond [`ROOM`], and a blob that is larger.
struct Setting {
    registry: FakeRegistry,
    daemon: Daemon,
    blob: Bytes,
    path: String,
    gate: Gate,
}

impl Setting {
    /// Upstream's first answer is as `fault` has it, and pauses besides.
    async fn start(fault: Fault) -> Setting {
        let registry = FakeRegistry::start().await;
        let blob = random_bytes(21, SIZE);
        let path = blob_url("library/x", &registry.put_blob("library/x", &blob));
        let gate = Gate::shut();
        registry.once("GET", &path, fault.and_hold_after(PAUSE, &gate));
        let mirror = TestMirror::builder().upstream(Upstream::docker_io(&registry));
        let daemon = Daemon::start(mirror.set("download.retries", 0)).await;
        daemon.limit_file_size(Some(ROOM));
        Setting { registry, daemon, blob, path, gate }
    }

    /// A client whose answer has begun.
    async fn join(&self, range: Option<&str>) -> Response {
        let headers: Vec<_> = range.map(|range| ("range", range)).into_iter().collect();
        self.daemon.client().request("GET", &self.path, &headers).await
    }

    async fn passed(&self) -> f64 {
        metric(&self.daemon.admin(), r#"larder_passthrough_total{reason="disk"}"#).await
    }

    /// With room again, the next pull is kept.
    async fn recovers(&self) {
        self.daemon.limit_file_size(None);
        self.registry.behave();
        let asked = self.registry.count("GET", &self.path);
        self.join(None).await.expect(&self.blob).await;
        let file = blob_path(&self.daemon.data_dir(), &sha256(&self.blob));
        until("the blob in the store", async || file.exists()).await;
        self.join(None).await.expect(&self.blob).await;
        assert_eq!(self.registry.count("GET", &self.path), asked + 1);
    }
}

/// Each costs one request for the rest, which is verified together with what came before.
#[tokio::test(flavor = "multi_thread")]
async fn every_client_goes_on_alone() {
    let setting = Setting::start(Fault::default()).await;
    let mut whole = join_all((0..3).map(|_| setting.join(None))).await;
    for client in &mut whole {
        client.expect_next(&setting.blob[..1]).await;
    }
    let ranges = [(100, SIZE), (2 * MIB, 7 * MIB), (ROOM + MIB, SIZE)];
    let header = |(start, end): &(usize, usize)| format!("bytes={start}-{}", end - 1);
    let parts = join_all(ranges.iter().map(async |range| setting.join(Some(&header(range))).await));
    let parts = parts.await;
    setting.gate.open();

    let rest = join_all(whole.into_iter().map(Response::bytes)).await;
    assert!(rest.iter().all(|rest| *rest == setting.blob[1..]));
    for ((start, end), part) in
        ranges.iter().zip(join_all(parts.into_iter().map(Response::bytes)).await)
    {
        assert!(part == setting.blob[*start..*end], "{start}-{end}");
    }
    assert_eq!(setting.registry.count("GET", &setting.path), 1 + 6);
    assert_eq!(setting.passed().await, 5.0, "the last of them was ahead of the file");
    setting.recovers().await;
}

/// The same where nobody knows how long the blob is.
#[tokio::test(flavor = "multi_thread")]
async fn without_a_length_too() {
    let setting = Setting::start(Fault::chunked()).await;
    let clients = join_all((0..3).map(|_| setting.join(None))).await;
    setting.gate.open();
    join_all(clients.into_iter().map(async |client| client.expect(&setting.blob).await)).await;
    assert_eq!(setting.registry.count("GET", &setting.path), 1 + 3);
    setting.recovers().await;
}

/// An upstream that knows no ranges costs more, and is as good.
#[tokio::test(flavor = "multi_thread")]
async fn without_ranges_too() {
    let setting = Setting::start(Fault::default()).await;
    setting.registry.on_range(&setting.path, Fault::status(200).body(setting.blob.clone()));
    let mut client = setting.join(None).await;
    client.expect_next(&setting.blob[..1]).await;
    setting.gate.open();
    assert!(client.bytes().await == setting.blob[1..]);
}

/// What comes after is verified with what came before: whichever of them is wrong, no body ends
/// normally.
#[tokio::test(flavor = "multi_thread")]
async fn wrong_bytes_are_cut() {
    for (before, after) in
        [(Fault::flip_byte(0), Fault::default()), (Fault::default(), Fault::flip_byte(0))]
    {
        let setting = Setting::start(before).await;
        setting.registry.on_range(&setting.path, after);
        let client = setting.join(None).await;
        setting.gate.open();
        let body = client.body().await;
        assert!(matches!(&body, Body::Cut(bytes) if bytes.len() < SIZE), "{body:?}");
    }
}
