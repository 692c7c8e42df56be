//! What the admin listener tells: how things are, and what was done.

use crate::support::{
    FakeRegistry, Fault, Gate, Image, Mode, TestMirror,
    mirror::{blob_url, manifest_path},
    random_bytes,
    wait::until,
};

/// The admin listener says how things are, without a registry on it.
#[tokio::test(flavor = "multi_thread")]
async fn health_and_metrics_have_a_listener_of_their_own() {
    let registry = FakeRegistry::start().await;
    let mirror = TestMirror::of(&registry).await;
    let admin = mirror.admin();
    for (path, status) in [("/healthz", 200), ("/readyz", 200), ("/metrics", 200), ("/v2/", 404)] {
        assert_eq!(admin.get(path).await.status, status, "{path}");
    }
    assert_eq!(mirror.get("/metrics").await.status, 404);
    assert!(mirror.metric("process_resident_memory_bytes").await > 0.0);
}

/// A cold pull and a warm one are told apart, in requests and in bytes.
#[tokio::test(flavor = "multi_thread")]
async fn pulls_are_counted() {
    let registry = FakeRegistry::start().await;
    let image = Image::random(1);
    registry.put_image("library/x", "latest", &image);
    let mirror = TestMirror::of(&registry).await;
    for _ in 0..2 {
        mirror.pull("library/x", "latest", &image).await;
    }

    let blobs = image.blobs().map(|blob| blob.len()).sum::<usize>() as f64;
    let manifest = image.manifest.len() as f64;
    for (series, expected) in [
        (r#"larder_requests_total{endpoint="manifest",method="GET",code="200"}"#, 2.0),
        (r#"larder_requests_total{endpoint="blob",method="GET",code="200"}"#, 6.0),
        (r#"larder_request_seconds_count{endpoint="blob"}"#, 6.0),
        (r#"larder_lookups_total{registry="docker.io",kind="manifest",result="miss"}"#, 1.0),
        (r#"larder_lookups_total{registry="docker.io",kind="manifest",result="hit"}"#, 1.0),
        (r#"larder_lookups_total{registry="docker.io",kind="blob",result="miss"}"#, 3.0),
        (r#"larder_lookups_total{registry="docker.io",kind="blob",result="hit"}"#, 3.0),
        (r#"larder_served_bytes_total{registry="docker.io",kind="blob",source="download"}"#, blobs),
        (r#"larder_served_bytes_total{registry="docker.io",kind="blob",source="cache"}"#, blobs),
        (r#"larder_served_bytes_total{kind="manifest"}"#, 2.0 * manifest),
        (r#"larder_upstream_requests_total{operation="manifest_head"}"#, 0.0),
        (r#"larder_upstream_requests_total{operation="manifest_get",code="200"}"#, 1.0),
        (r#"larder_upstream_requests_total{operation="blob_get",code="200"}"#, 3.0),
        (r#"larder_upstream_seconds_count{operation="blob_get"}"#, 3.0),
        (r#"larder_upstream_bytes_total{registry="docker.io"}"#, blobs + manifest),
        ("larder_store_blobs", 4.0),
        ("larder_store_bytes", blobs + manifest),
        ("larder_store_writable", 1.0),
        ("larder_downloads_in_flight", 0.0),
        ("larder_download_followers", 0.0),
        ("larder_download_failures_total", 0.0),
        ("larder_passthrough_total", 0.0),
    ] {
        // A request is counted when its answer has ended, a moment after the client has it.
        until(series, async || mirror.metric(series).await == expected).await;
    }
    assert!(mirror.metric("larder_store_free_bytes").await > 0.0);
}

/// A download in progress and those who follow it show while they last.
#[tokio::test(flavor = "multi_thread")]
async fn running_downloads_are_shown() {
    let registry = FakeRegistry::start().await;
    let blob = random_bytes(2, 100_000);
    let path = blob_url("library/x", &registry.put_blob("library/x", &blob));
    let gate = Gate::shut();
    registry.on("GET", &path, Fault::hold_after(50_000, &gate));
    let mirror = TestMirror::of(&registry).await;

    let (one, other) = (mirror.get(&path).await, mirror.get(&path).await);
    assert_eq!(mirror.metric("larder_downloads_in_flight").await, 1.0);
    assert_eq!(mirror.metric("larder_download_followers").await, 2.0);
    drop(other);
    until("one to leave", async || mirror.metric("larder_download_followers").await == 1.0).await;
    gate.open();
    one.expect(&blob).await;
    until("the end", async || mirror.metric("larder_downloads_in_flight").await == 0.0).await;
}

/// Whether upstream answers shows, and a name that a client made up does not.
#[tokio::test(flavor = "multi_thread")]
async fn upstreams_are_shown_and_inventions_are_not() {
    let registry = FakeRegistry::start().await;
    let mirror = TestMirror::of(&registry).await;
    let up = r#"larder_upstream_up{registry="docker.io"}"#;
    for (mode, expected) in [(Mode::Up, 1.0), (Mode::Down, 0.0), (Mode::Up, 1.0)] {
        registry.set_mode(mode).await;
        mirror.get(&manifest_path("library/x", &format!("{mode:?}-{expected}"))).await;
        assert_eq!(mirror.metric(up).await, expected, "{mode:?}");
        mirror.advance(std::time::Duration::from_secs(60));
    }
    mirror.request("BREW", "/v2/coffee.example/pot/manifests/latest?ns=tea.example", &[]).await;
    let page = mirror.admin().get("/metrics").await.bytes().await;
    let page = String::from_utf8(page.to_vec()).unwrap();
    for invention in ["BREW", "coffee", "tea.example", "library/x"] {
        assert!(!page.contains(invention), "{invention} in {page}");
    }
}
