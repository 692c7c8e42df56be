//! `max_connections`: how many requests to upstream there are at once, and that none is lost.

use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::join_all;
use larder::oci::Digest;

use crate::support::{
    Auth, FakeRegistry, Fault, Gate, Image, Response, TestMirror, Upstream,
    mirror::{Builder, blob_url, manifest_path},
    random_bytes, sha256,
    wait::until,
};

const IN_USE: &str = r#"larder_upstream_connections{registry="docker.io"}"#;
const BLOBS: &str = "/v2/library/x/blobs/*";

/// A mirror of docker.io with so many connections.
fn with_connections(registry: &FakeRegistry, number: i64) -> Builder {
    let upstream = Upstream::docker_io(registry).set("max_connections", number);
    TestMirror::builder().upstream(upstream)
}

/// Puts different blobs of `size` bytes into `library/x`.
fn put_blobs(registry: &FakeRegistry, number: usize, size: usize) -> Vec<(Digest, Bytes)> {
    let blob = |seed| {
        let blob = random_bytes(seed, size);
        (registry.put_blob("library/x", &blob), blob)
    };
    (0..number as u64).map(|number| blob(1000 + number)).collect()
}

async fn all_are_free(mirror: &TestMirror) {
    until("all connections to be free", async || mirror.metric(IN_USE).await == 0.0).await;
}

/// Forty blobs at once are six and then the others, while manifests and tokens go on.
#[tokio::test(flavor = "multi_thread")]
async fn blobs_leave_connections_for_all_else() {
    let registry = FakeRegistry::builder().auth(Auth::AnonymousToken).start().await;
    let cdn = FakeRegistry::start().await;
    registry.redirect_blobs_to(&cdn);
    let gate = Gate::shut();
    cdn.on("GET", "*", Fault::hold_after(500, &gate));
    let blobs = put_blobs(&registry, 40, 1000);
    let image = Image::random(1);
    registry.put_image("library/y", "latest", &image);
    let mirror = with_connections(&registry, 8).start().await;

    let pulls = blobs.iter().map(|(digest, _)| mirror.pull_blob("library/x", digest));
    let others = async {
        cdn.wait_for("GET", "*", 6).await;
        mirror.manifest("library/y", "latest").await;
        assert_eq!(cdn.count("GET", "*"), 6);
        until("six in use", async || mirror.metric(IN_USE).await == 6.0).await;
        gate.open();
    };
    tokio::join!(join_all(pulls), others);
    all_are_free(&mirror).await;
    assert_eq!(cdn.count("GET", "*"), 40);
    for server in [&registry, &cdn] {
        // One that has just become free may not be kept yet when the next is wanted.
        let most = server.most_connections_at_once();
        assert!(most <= 2 * 8, "{most} connections");
    }
}

/// Nobody who holds a connection waits for another: with the fewest there can be, all is served.
#[tokio::test(flavor = "multi_thread")]
async fn the_fewest_connections_suffice() {
    let registry = FakeRegistry::builder().auth(Auth::AnonymousToken).start().await;
    let repositories: Vec<String> = (0..20).map(|number| format!("library/x{number}")).collect();
    let images: Vec<Image> = (0..20).map(|number| Image::random(10 + number)).collect();
    for (repository, image) in repositories.iter().zip(&images) {
        registry.put_image(repository, "latest", image);
    }
    let mirror = with_connections(&registry, 3).start().await;
    for _ in 0..2 {
        let pulls = repositories.iter().zip(&images);
        let pulls = pulls.map(|(repository, image)| mirror.pull(repository, "latest", image));
        join_all(pulls).await;
        registry.expire_tokens();
        mirror.advance(Duration::from_secs(61));
    }
    all_are_free(&mirror).await;
}

/// Who waits for a connection in vain hears so in time, in the way that clients turn elsewhere best, and
/// upstream is not thought to be down for it.
#[tokio::test(flavor = "multi_thread")]
async fn waiting_for_a_connection_ends_at_the_deadline() {
    let registry = FakeRegistry::start().await;
    let blobs = put_blobs(&registry, 3, 1000);
    let gate = Gate::shut();
    for reference in ["one", "two"] {
        registry.put_image("library/x", reference, &Image::random(7));
        let body = Fault::hold_after(5, &gate);
        registry.on("GET", &manifest_path("library/x", reference), body);
        registry.on("HEAD", &manifest_path("library/x", reference), Fault::status(405));
    }
    registry.on("GET", BLOBS, Fault::hold_after(500, &gate));
    let mirror = with_connections(&registry, 3).start().await;
    let first = mirror.get(&blob_url("library/x", &blobs[0].0)).await;

    let blob = async {
        let response = mirror.get(&blob_url("library/x", &blobs[1].0)).await;
        assert_eq!(response.status, 429);
        assert_on_time(&response);
    };
    let manifest = async {
        // One more is left to blobs and manifests together.
        let (one, two) = (manifest_path("library/x", "one"), manifest_path("library/x", "two"));
        let held = mirror.get(&one);
        let second = async {
            registry.wait_for("GET", &one, 1).await;
            let response = mirror.get(&two).await;
            assert_eq!(response.status, 504);
            assert_on_time(&response);
        };
        tokio::join!(held, second);
    };
    tokio::join!(blob, manifest);
    assert_eq!(registry.count("GET", BLOBS), 1);
    gate.open();
    first.expect(&blobs[0].1).await;
    all_are_free(&mirror).await;
    mirror.pull_blob("library/x", &blobs[1].0).await;
}

fn assert_on_time(response: &Response) {
    let waited = response.elapsed();
    assert!(waited < Duration::from_secs(25), "{waited:?}");
}

/// A download that waits until it may go on does not keep others from going on.
#[tokio::test(flavor = "multi_thread")]
async fn a_broken_download_holds_no_connection() {
    let registry = FakeRegistry::start().await;
    let blobs = put_blobs(&registry, 2, 1000);
    let path = blob_url("library/x", &blobs[0].0);
    registry.on_whole(&path, Fault::cut_after(500));
    registry.on_range(&path, Fault::status(429).header("retry-after", "2"));
    let mirror = with_connections(&registry, 3).start().await;
    let broken = mirror.get(&path).await;
    registry.wait_for("GET", &path, 2).await;
    all_are_free(&mirror).await;
    assert_eq!(mirror.metric("larder_downloads_in_flight").await, 1.0);
    mirror.pull_blob("library/x", &blobs[1].0).await;
    registry.behave();
    broken.expect(&blobs[0].1).await;
}

/// Who waits until upstream may be asked again holds no connection meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn a_pause_holds_no_connection() {
    let registry = FakeRegistry::start().await;
    let image = Image::random(8);
    registry.put_image("library/x", "latest", &image);
    registry.on("HEAD", "/v2/library/y/*", Fault::status(503).header("retry-after", "15"));
    let mirror = with_connections(&registry, 3).start().await;
    let paths = ["one", "two"].map(|tag| manifest_path("library/y", tag));
    let waiting = join_all(paths.iter().map(|path| mirror.head(path)));
    let others = async {
        for path in &paths {
            registry.wait_for("HEAD", path, 1).await;
        }
        all_are_free(&mirror).await;
        mirror.pull("library/x", "latest", &image).await;
    };
    tokio::select! {
        _ = waiting => panic!("they did not wait"),
        () = others => {}
    }
    assert_eq!(registry.count("HEAD", "/v2/library/y/*"), 2);
}

/// Clients that hang up at any moment leave every connection free, also of what passes the store.
#[tokio::test(flavor = "multi_thread")]
async fn hanging_up_frees_connections() {
    for min_free in ["1MiB", "100%"] {
        let registry = FakeRegistry::builder().auth(Auth::AnonymousToken).start().await;
        let blobs = put_blobs(&registry, 40, 100_000);
        registry.on("GET", BLOBS, Fault::feed(Duration::from_millis(50)));
        let mirror = with_connections(&registry, 4).set("cache.min_free", min_free).start().await;
        let hasty = blobs.iter().enumerate().map(|(number, (digest, _))| {
            let path = blob_url("library/x", digest);
            let mirror = &mirror;
            async move {
                let patience = Duration::from_millis(number as u64 * 5);
                let reading = async { mirror.get(&path).await.body().await };
                let _ = tokio::time::timeout(patience, reading).await;
            }
        });
        join_all(hasty).await;
        all_are_free(&mirror).await;
        for (digest, _) in &blobs[..3] {
            mirror.pull_blob("library/x", digest).await;
        }
    }
}

/// A part of what passes the store is asked for when the whole is let go, be there ranges upstream or
/// not.
#[tokio::test(flavor = "multi_thread")]
async fn a_part_needs_one_connection() {
    for knows_ranges in [true, false] {
        let registry = FakeRegistry::start().await;
        let blobs = put_blobs(&registry, 1, 100_000);
        let (digest, blob) = &blobs[0];
        let path = blob_url("library/x", digest);
        if !knows_ranges {
            registry.on_range(&path, Fault::status(200).body(blob.clone()));
        }
        let mirror = with_connections(&registry, 3).set("cache.min_free", "100%").start().await;
        let asked = Instant::now();
        let part = mirror.request("GET", &path, &[("range", "bytes=500-999")]).await;
        assert_eq!(part.status, 206);
        assert_eq!(part.bytes().await, blob.slice(500..1000));
        assert!(asked.elapsed() < Duration::from_secs(15), "{:?}", asked.elapsed());
        all_are_free(&mirror).await;
    }
}

/// A client that takes nothing of what passes the store, and does not hang up, is cut.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_takes_nothing_holds_no_connection() {
    let registry = FakeRegistry::start().await;
    // More than fits into the buffers on the way.
    let blobs = put_blobs(&registry, 1, 64 * 1024 * 1024);
    let (digest, blob) = &blobs[0];
    let mirror = with_connections(&registry, 3)
        .set("cache.min_free", "100%")
        .set("download.idle_timeout", "1s")
        .start()
        .await;
    let idle = mirror.get(&blob_url("library/x", digest)).await;
    assert_eq!(idle.status, 200);
    all_are_free(&mirror).await;
    mirror.get(&blob_url("library/x", digest)).await.expect(blob).await;
    let body = idle.body().await;
    assert!(matches!(&body, crate::support::client::Body::Cut(part) if blob.starts_with(part)));
}

/// What nobody waits for takes no connection that somebody may want.
#[tokio::test(flavor = "multi_thread")]
async fn prefetching_yields() {
    for (connections, expected) in [(3, 0), (64, 1)] {
        let registry = FakeRegistry::start().await;
        let image = Image::random(1);
        registry.put_image("library/x", "latest", &image);
        let [first, second] = [0, 1].map(|layer| sha256(&image.layers[layer]));
        let mirror = with_connections(&registry, connections).start().await;
        mirror.manifest("library/x", "latest").await;
        mirror.pull_blob("library/x", &first).await;
        mirror.wait_for_blob(&first).await;
        if expected > 0 {
            mirror.wait_for_blob(&second).await;
        }
        mirror.pull_blob("library/x", &sha256(&image.config)).await;
        assert_eq!(registry.count("GET", &blob_url("library/x", &second)), expected);
    }
}
