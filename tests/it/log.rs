//! What the daemon says of itself.

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::Value;
use tokio::net::UnixDatagram;

use crate::support::{
    FakeRegistry, Fault, Image, TestMirror, Upstream,
    binary::Daemon,
    mirror::{blob_url, manifest_path, metric},
    sha256,
    wait::{until, within_limit},
};

const LAN_HINT: &str =
    "only this machine can pull; for the LAN: larder serve --listen 0.0.0.0:5000";

/// On start it says where it listens, what it keeps where, what it mirrors, and who can pull.
#[tokio::test(flavor = "multi_thread")]
async fn a_start_is_announced() {
    let registry = FakeRegistry::start().await;
    let mirror = TestMirror::builder().upstream(Upstream::docker_io(&registry));
    let daemon = Daemon::start(mirror).await;
    until("the announcement", async || daemon.log().contains(LAN_HINT)).await;
    let log = daemon.log();
    for part in [
        &format!("listens on http://{}", daemon.client().address()),
        &format!("http://{}", daemon.admin().address()),
        &format!("data in {}: holds at most 80 % of ", daemon.data_dir().display()),
        "keeps 1.0 MiB free of ",
        "forgets what nobody pulled for 90d",
        "mirrors docker.io",
    ] {
        assert!(log.contains(part), "{part} in {log}");
    }
}

/// No file is needed: Docker Hub is mirrored, others by name, and the data is kept where the
/// desktop keeps data.
#[tokio::test(flavor = "multi_thread")]
async fn a_start_without_a_file_mirrors_docker_hub_and_others() {
    let never = ("LARDER_CACHE_EXPIRE_AFTER", "never");
    let daemon = Daemon::start_without_file(&[never]).await;
    until("the announcement", async || daemon.log().contains(LAN_HINT)).await;
    let log = daemon.log();
    let data_dir = daemon.directory().join("larder");
    for part in [
        &format!("data in {}: holds at most 80 % of ", data_dir.display()),
        "forgets nothing by age",
        "mirrors docker.io, and by name: ghcr.io, quay.io, registry.k8s.io, ",
    ] {
        assert!(log.contains(part), "{part} in {log}");
    }
    assert!(data_dir.join("oci-layout").exists());
}

/// A pulled image is one line, which tells who pulled it and how much of it was here already.
#[tokio::test(flavor = "multi_thread")]
async fn a_pulled_image_is_one_line() {
    let registry = FakeRegistry::start().await;
    let image = Image::random(1);
    registry.put_image("library/x", "latest", &image);
    let mirror = TestMirror::builder().upstream(Upstream::docker_io(&registry));
    let daemon = Daemon::start(mirror).await;
    let lines = || {
        let log = daemon.log();
        log.lines().filter(|line| line.contains("library/x")).map(str::to_owned).collect::<Vec<_>>()
    };
    for number in 1..=2 {
        pull(&daemon, &image).await;
        until("the line", async || lines().len() >= number).await;
    }

    let bytes: usize = image.blobs().map(|blob| blob.len()).sum();
    let layers = ["layers_cached=0 layers_fetched=2", "layers_cached=2 layers_fetched=0"];
    assert_eq!(lines().len(), 2);
    for (line, layers) in lines().iter().zip(layers) {
        let who = "client=\"127.0.0.1\" image=\"docker.io/library/x:latest\"";
        for part in [" INFO pulled ", who, layers, &format!("bytes={bytes} "), " seconds="] {
            assert!(line.contains(part), "{part} in {line}");
        }
    }
}

/// Docker asks for no manifest that it has from before. Its layers are counted all the same.
#[tokio::test(flavor = "multi_thread")]
async fn layers_without_their_manifest_are_counted() {
    let registry = FakeRegistry::start().await;
    let image = Image::random(6);
    registry.put_image("library/x", "latest", &image);
    let mirror = TestMirror::builder().upstream(Upstream::docker_io(&registry));
    let daemon = Daemon::start(mirror).await;
    pull(&daemon, &image).await;
    until("the line", async || daemon.log().contains("layers_fetched=2")).await;

    let client = daemon.client();
    assert_eq!(client.head(&manifest_path("library/x", "latest")).await.status, 200);
    for blob in image.blobs() {
        client.get(&blob_url("library/x", &sha256(blob))).await.expect(blob).await;
    }
    let line = "image=\"docker.io/library/x:latest\" layers_cached=2 layers_fetched=0";
    until("the second line", async || daemon.log().contains(line)).await;
}

/// At debug level each request is a line.
#[tokio::test(flavor = "multi_thread")]
async fn each_request_is_a_line_for_who_wants_it() {
    let registry = FakeRegistry::start().await;
    let mirror =
        TestMirror::builder().upstream(Upstream::docker_io(&registry)).set("log.level", "debug");
    let image = Image::random(3);
    registry.put_image("library/x", "latest", &image);
    let daemon = Daemon::start(mirror).await;
    pull(&daemon, &image).await;
    let path = blob_url("library/x", &sha256(&image.config));
    daemon.client().get(&path).await.expect(&image.config).await;
    for (path, bytes, source) in [
        (manifest_path("library/x", "latest"), image.manifest.len(), "upstream"),
        (path.clone(), image.config.len(), "download"),
        (path, image.config.len(), "cache"),
    ] {
        let request = format!("method=GET path=\"{path}\" status=200 bytes={bytes} seconds=");
        let source = format!("source=\"{source}\"");
        let is_told = |line: &str| line.contains(&request) && line.contains(&source);
        until(&request, async || daemon.log().lines().any(is_told)).await;
    }
}

/// For machines each line is an object.
#[tokio::test(flavor = "multi_thread")]
async fn a_log_in_json_is_one_object_a_line() {
    let registry = FakeRegistry::start().await;
    let image = Image::random(4);
    registry.put_image("library/x", "latest", &image);
    let mirror = TestMirror::builder()
        .upstream(Upstream::docker_io(&registry))
        .set("log.level", "debug")
        .set("log.format", "json");
    let mut daemon = Daemon::start(mirror).await;
    pull(&daemon, &image).await;
    daemon.signal("TERM");
    daemon.ended().await;

    let log = daemon.log();
    let lines: Vec<Value> =
        log.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
    let named = |message: &str| lines.iter().find(|line| line["message"] == message).unwrap();
    assert_eq!(named("pulled")["image"], "docker.io/library/x:latest");
    assert_eq!(named("pulled")["layers_fetched"], 2);
    assert_eq!(named("pulled")["level"], "INFO");
    assert_eq!(named("request")["method"], "GET");
}

/// A refusal that every pull meets again is told once.
#[tokio::test(flavor = "multi_thread")]
async fn a_denial_is_told_once() {
    let registry = FakeRegistry::start().await;
    registry.deny("library/x", 403);
    let mirror = TestMirror::builder()
        .upstream(Upstream::docker_io(&registry))
        .set("cache.negative_ttl", "1ms");
    let mut daemon = Daemon::start(mirror).await;
    let path = manifest_path("library/x", "latest");
    until("upstream to be asked often", async || {
        assert_eq!(daemon.client().get(&path).await.status, 404);
        registry.count("GET", &path) >= 5
    })
    .await;
    daemon.signal("TERM");
    daemon.ended().await;
    let log = daemon.log();
    assert_eq!(log.lines().filter(|line| line.contains(" WARN upstream denies")).count(), 1);
}

/// systemd is told when pulls can begin, and when they end.
#[tokio::test(flavor = "multi_thread")]
async fn the_service_manager_is_told() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    let registry = FakeRegistry::start().await;
    let mirror = TestMirror::builder().upstream(Upstream::docker_io(&registry));
    let variables = [("NOTIFY_SOCKET", path.to_str().unwrap())];
    let mut daemon = Daemon::start_with(mirror, &variables).await;
    let mut buffer = [0; 100];
    let length = within_limit("READY", socket.recv(&mut buffer)).await.unwrap();
    assert_eq!(&buffer[..length], b"READY=1\n");
    daemon.signal("TERM");
    let length = within_limit("STOPPING", socket.recv(&mut buffer)).await.unwrap();
    assert_eq!(&buffer[..length], b"STOPPING=1\n");
    daemon.ended().await;
}

async fn pull(daemon: &Daemon, image: &Image) {
    let client = daemon.client();
    let path = manifest_path("library/x", "latest");
    client.get(&path).await.expect(&image.manifest).await;
    for blob in image.blobs() {
        let path = blob_url("library/x", &sha256(blob));
        client.get(&path).await.expect(blob).await;
    }
    until("the downloads' end", async || {
        metric(&daemon.admin(), "larder_downloads_in_flight").await == 0.0
    })
    .await;
}

/// A layer counts when its end was sent: looking into it, or past it, is not pulling it.
#[tokio::test(flavor = "multi_thread")]
async fn parts_of_layers_are_no_pull() {
    let registry = FakeRegistry::start().await;
    let image = Image::random(3);
    registry.put_image("library/x", "latest", &image);
    let mirror = TestMirror::builder().upstream(Upstream::docker_io(&registry));
    let mut daemon = Daemon::start(mirror).await;
    let client = daemon.client();
    client.get(&manifest_path("library/x", "latest")).await.expect(&image.manifest).await;
    for range in ["bytes=0-1", "bytes=99999999-", "bytes=-10"] {
        assert!(!daemon.log().contains("library/x"), "{}", daemon.log());
        for blob in image.blobs() {
            let path = blob_url("library/x", &sha256(blob));
            client.request("GET", &path, &[("range", range)]).await.body().await;
        }
    }
    daemon.signal("TERM");
    daemon.ended().await;
    let log = daemon.log();
    assert_eq!(log.lines().filter(|line| line.contains("library/x")).count(), 1, "{log}");
}

/// A host that pulls all day long leaves nothing running for each of its pulls.
#[tokio::test(flavor = "multi_thread")]
async fn a_finished_pull_leaves_no_task() {
    let registry = FakeRegistry::start().await;
    let image = Image::random(4);
    registry.put_image("library/x", "latest", &image);
    let mirror = TestMirror::of(&registry).await;
    mirror.pull("library/x", "latest", &image).await;
    let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let before = tasks();
    for _ in 0..100 {
        mirror.pull("library/x", "latest", &image).await;
    }
    let ended = until("the tasks to end", async || tasks() < before + 10);
    tokio::time::timeout(Duration::from_secs(3), ended).await.unwrap();
}

/// An upstream that takes its time is no reason to give up on the line.
#[tokio::test(flavor = "multi_thread")]
async fn a_slow_pull_is_one_line_too() {
    let registry = FakeRegistry::start().await;
    let image = Image::random(5);
    registry.put_image("library/x", "latest", &image);
    registry.on("GET", "/v2/library/x/blobs/*", Fault::delay(Duration::from_secs(7)));
    let mirror = TestMirror::builder().upstream(Upstream::docker_io(&registry));
    let daemon = Daemon::start(mirror).await;
    let client = daemon.client();
    client.get(&manifest_path("library/x", "latest")).await.expect(&image.manifest).await;
    join_all(image.blobs().map(async |blob| {
        client.get(&blob_url("library/x", &sha256(blob))).await.expect(blob).await;
    }))
    .await;
    until("the line", async || daemon.log().contains("library/x:latest")).await;
}
