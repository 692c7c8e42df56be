//! How the daemon stops.

use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::support::{
    FakeRegistry, Fault, Gate, Response, TestMirror, Upstream, binary::Daemon, client::Body,
    mirror::blob_url, random_bytes, wait::until,
};

const SIZE: usize = 1024 * 1024;

/// A daemon with a response running: half of it came, the rest waits at the gate.
struct Serving {
    daemon: Daemon,
    registry: FakeRegistry,
    response: Response,
    blob: Bytes,
    path: String,
    gate: Gate,
}

impl Serving {
    async fn start(drain_timeout: &str) -> Serving {
        let registry = FakeRegistry::start().await;
        let blob = random_bytes(1, SIZE);
        let path = blob_url("library/x", &registry.put_blob("library/x", &blob));
        let gate = Gate::shut();
        registry.on("GET", &path, Fault::hold_after(SIZE / 2, &gate));
        let mirror = TestMirror::builder()
            .upstream(Upstream::docker_io(&registry))
            .set("drain_timeout", drain_timeout);
        let daemon = Daemon::start(mirror).await;
        let response = daemon.client().get(&path).await;
        Serving { daemon, registry, response, blob, path, gate }
    }

    /// Returns when new clients are turned away.
    async fn until_closed(&self) {
        let client = self.daemon.client();
        until("the listener to close", async || {
            client.try_request("GET", "/v2/", &[]).await.is_none()
        })
        .await;
    }
}

/// SIGTERM and SIGINT turn new clients away, let running responses finish, and end with 0.
#[tokio::test(flavor = "multi_thread")]
async fn a_signal_lets_running_responses_finish() {
    for signal in ["TERM", "INT"] {
        let mut serving = Serving::start("30s").await;
        serving.daemon.signal(signal);
        serving.until_closed().await;
        serving.gate.open();
        serving.response.expect(&serving.blob).await;
        assert_eq!(serving.daemon.ended().await.code(), Some(0), "SIG{signal}");
        assert_eq!(serving.registry.count("GET", &serving.path), 1);
    }
}

/// Load balancers are told to go elsewhere while the rest is finished.
#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_drains_is_alive_and_not_ready() {
    let mut serving = Serving::start("30s").await;
    serving.daemon.signal("TERM");
    serving.until_closed().await;
    let admin = serving.daemon.admin();
    for (path, status) in [("/readyz", 503), ("/healthz", 200), ("/metrics", 200)] {
        assert_eq!(admin.get(path).await.status, status, "{path}");
    }
    serving.gate.open();
    assert_eq!(serving.daemon.ended().await.code(), Some(0));
}

/// A second signal is not to be argued with.
#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_ends_at_once() {
    let mut serving = Serving::start("60s").await;
    serving.daemon.signal("TERM");
    serving.until_closed().await;
    let asked = Instant::now();
    serving.daemon.signal("TERM");
    serving.daemon.ended().await;
    assert!(asked.elapsed() < Duration::from_secs(5), "{:?}", asked.elapsed());
}

/// What does not end within `drain_timeout` is cut, and not passed off as whole.
#[tokio::test(flavor = "multi_thread")]
async fn a_response_is_cut_after_drain_timeout() {
    let mut serving = Serving::start("500ms").await;
    serving.daemon.signal("TERM");
    assert_eq!(serving.daemon.ended().await.code(), Some(0));
    assert!(matches!(serving.response.body().await, Body::Cut(_)));
}

/// Idle connections do not hold up the end.
#[tokio::test(flavor = "multi_thread")]
async fn an_idle_connection_does_not_delay_the_end() {
    let registry = FakeRegistry::start().await;
    let mirror = TestMirror::builder().upstream(Upstream::docker_io(&registry));
    let mut daemon = Daemon::start(mirror).await;
    let _kept_alive = daemon.client().get("/v2/").await;
    let _silent = TcpStream::connect(daemon.client().address()).await.unwrap();
    daemon.client().get("/v2/").await;
    let asked = Instant::now();
    daemon.signal("TERM");
    assert_eq!(daemon.ended().await.code(), Some(0));
    assert!(asked.elapsed() < Duration::from_secs(5), "{:?}", asked.elapsed());
}

/// Who has not asked for anything yet is not waited for.
#[tokio::test(flavor = "multi_thread")]
async fn half_a_head_does_not_delay_the_end() {
    let registry = FakeRegistry::start().await;
    let mirror = TestMirror::builder().upstream(Upstream::docker_io(&registry));
    let mut daemon = Daemon::start(mirror.set("drain_timeout", "60s")).await;
    let mut connections = Vec::new();
    for before in ["", "GET /v2/ HTTP/1.1\r\nhost: m\r\n\r\n"] {
        let mut connection = TcpStream::connect(daemon.client().address()).await.unwrap();
        connection.write_all(format!("{before}GET /v2/ HTTP/1.1\r\nho").as_bytes()).await.unwrap();
        connections.push(connection);
    }
    let answered = connections.last_mut().unwrap().read(&mut [0; 1024]).await.unwrap();
    assert_ne!(answered, 0);
    daemon.client().get("/v2/").await;
    let asked = Instant::now();
    daemon.signal("TERM");
    assert_eq!(daemon.ended().await.code(), Some(0));
    assert!(asked.elapsed() < Duration::from_secs(5), "{:?}", asked.elapsed());
}

/// A download that nobody waits for is finished and kept, too.
#[tokio::test(flavor = "multi_thread")]
async fn a_running_download_is_finished() {
    let serving = Serving::start("30s").await;
    let Serving { mut daemon, registry, response, path, gate, blob } = serving;
    drop(response);
    daemon.signal("TERM");
    gate.open();
    assert_eq!(daemon.ended().await.code(), Some(0));
    let daemon = daemon.kill_and_restart().await;
    daemon.client().get(&path).await.expect(&blob).await;
    assert_eq!(registry.count("GET", &path), 1);
}

/// A download that gets nothing from upstream for now is left to the next process.
#[tokio::test(flavor = "multi_thread")]
async fn a_download_that_waits_for_upstream_does_not_delay_the_end() {
    for trouble in [Fault::status(429).header("retry-after", "60"), Fault::silent()] {
        let registry = FakeRegistry::start().await;
        let blob = random_bytes(1, SIZE);
        let path = blob_url("library/x", &registry.put_blob("library/x", &blob));
        registry.on_whole(&path, Fault::cut_after(SIZE / 2));
        registry.on_range(&path, trouble);
        let mirror = TestMirror::builder().upstream(Upstream::docker_io(&registry));
        let mut daemon = Daemon::start(mirror.set("drain_timeout", "60s")).await;
        drop(daemon.client().get(&path).await);
        until("a resume", async || registry.count("GET", &path) == 2).await;
        let asked = Instant::now();
        daemon.signal("TERM");
        assert_eq!(daemon.ended().await.code(), Some(0));
        assert!(asked.elapsed() < Duration::from_secs(5), "{:?}", asked.elapsed());

        registry.behave();
        let daemon = daemon.kill_and_restart().await;
        daemon.client().get(&path).await.expect(&blob).await;
        let (requests, rest) = (registry.requests(), format!("bytes={}-", SIZE / 2));
        assert_eq!(requests.last().unwrap().header("range"), Some(rest.as_str()));
    }
}
