//! Offline, because the operator says so: everything that is here, at any age, and not one question
//! upstream.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::{
    Auth, FakeRegistry, Image, Index, TestMirror, Upstream,
    binary::{Daemon, run},
    mirror::{Builder, CONFIG, blob_url, manifest_path},
    random_bytes, sha256,
    wait::until,
};

const DAY: Duration = Duration::from_secs(24 * 3600);

/// A registry, and what was pulled of it before somebody cut the line: an image and an index of which
/// one image is here.
struct Site {
    registry: FakeRegistry,
    image: Image,
    index: Index,
    requests: usize,
    connections: usize,
}

impl Site {
    /// The site, and a mirror with what was pulled, to be started offline.
    async fn cut() -> (Site, Builder) {
        let registry = FakeRegistry::start().await;
        let image = Image::random(1);
        let index = Index::of(vec![Image::random(2), Image::random(3)]);
        registry.put_image("library/x", "latest", &image);
        registry.put_index("library/y", "latest", &index);
        let upstream = Upstream::docker_io(&registry).set("tag_ttl", "1h");
        let mirror = TestMirror::builder().upstream(upstream).start().await;
        mirror.pull("library/x", "latest", &image).await;
        mirror.manifest("library/y", "latest").await;
        let one = &index.images[0];
        mirror.manifest("library/y", &one.digest().to_string()).await;
        for blob in one.blobs() {
            mirror.pull_blob("library/y", &sha256(blob)).await;
            mirror.wait_for_blob(&sha256(blob)).await;
        }
        let builder = mirror.stop().await;
        let (requests, connections) = (registry.requests().len(), registry.connections());
        (Site { registry, image, index, requests, connections }, builder)
    }

    fn assert_nothing_asked(&self) {
        let asked = (self.registry.requests().len(), self.registry.connections());
        assert_eq!(asked, (self.requests, self.connections));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_cached_is_served_at_any_age_and_nothing_is_asked() {
    let (site, builder) = Site::cut().await;
    let mirror = builder
        .set("cache.offline", true)
        .set("cache.max_stale", "1d")
        // Whoever waited would wait long.
        .set("cache.check_timeout", "1h")
        .set("cache.sweep_interval", "50ms")
        .start()
        .await;
    for (age, warns) in [(Duration::ZERO, false), (400 * DAY, true)] {
        mirror.advance(age);
        let begun = Instant::now();
        for method in ["HEAD", "GET"] {
            let path = manifest_path("library/x", "latest");
            let answer = mirror.request(method, &path, &[]).await;
            assert_eq!(answer.status, 200);
            let warning = answer.header("warning").unwrap_or_default().to_owned();
            assert_eq!(warning.contains("Larder is offline for docker.io"), warns, "{warning:?}");
        }
        assert_eq!(mirror.manifest("library/x", "latest").await, site.image.manifest);
        for blob in site.image.blobs() {
            mirror.pull_blob("library/x", &sha256(blob)).await;
        }
        let one = site.index.images[0].digest().to_string();
        assert_eq!(mirror.manifest("library/y", "latest").await, site.index.manifest);
        assert_eq!(mirror.manifest("library/y", &one).await, site.index.images[0].manifest);
        let tags = mirror.get("/v2/library/x/tags/list").await;
        assert!(tags.header("warning").is_some_and(|text| text.contains("offline")));
        assert!(String::from_utf8_lossy(&tags.bytes().await).contains("latest"));
        assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    }
    site.assert_nothing_asked();
    assert_eq!(mirror.metric("larder_upstream_requests_total").await, 0.0);
}

/// Every client goes to the next registry at once, and none waits.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_cached_is_not_found_and_says_why() {
    let (site, builder) = Site::cut().await;
    let mirror = builder.set("cache.offline", true).start().await;
    let other = site.index.images[1].digest();
    for (path, code) in [
        (manifest_path("library/x", "other"), "MANIFEST_UNKNOWN"),
        (manifest_path("library/y", &other.to_string()), "MANIFEST_UNKNOWN"),
        (manifest_path("library/z", "latest"), "MANIFEST_UNKNOWN"),
        (blob_url("library/y", &sha256(b"other")), "BLOB_UNKNOWN"),
        ("/v2/library/z/tags/list".to_owned(), "NAME_UNKNOWN"),
        (format!("/v2/library/x/referrers/{}", site.image.digest()), "UNSUPPORTED"),
    ] {
        assert_eq!(mirror.head(&path).await.status, 404, "{path}");
        let answer = mirror.get(&path).await;
        assert_eq!((answer.status, answer.header("retry-after")), (404, None), "{path}");
        let (found, message) = answer.error().await;
        assert_eq!(found, code, "{path}");
        assert!(message.contains("Larder is offline for docker.io"), "{message}");
    }
    site.assert_nothing_asked();
}

/// Podman would never turn elsewhere once it had the manifest.
#[tokio::test(flavor = "multi_thread")]
async fn an_image_that_is_not_whole_is_not_promised() {
    let registry = FakeRegistry::start().await;
    let image = Image::random(1);
    registry.put_image("library/x", "latest", &image);
    let mirror = TestMirror::of(&registry).await;
    mirror.manifest("library/x", "latest").await;
    let mirror = mirror.stop().await.set("cache.offline", true).start().await;
    for reference in ["latest", &image.digest().to_string()] {
        let answer = mirror.get(&manifest_path("library/x", reference)).await;
        assert_eq!(answer.status, 404, "{reference}");
        assert!(answer.error().await.1.contains("offline"));
    }
}

/// A layer of one repository is given to another whose image lists it, though nobody proves it.
#[tokio::test(flavor = "multi_thread")]
async fn what_an_image_lists_needs_no_other_proof() {
    let registry = FakeRegistry::start().await;
    let layer = random_bytes(1, 10_000);
    let [one, two] = [1, 2].map(|seed| Image::with_layers(seed, vec![layer.clone()]));
    registry.put_image("library/one", "latest", &one);
    registry.put_image("library/two", "latest", &two);
    let mirror = TestMirror::of(&registry).await;
    mirror.manifest("library/two", "latest").await;
    mirror.pull_blob("library/two", &sha256(&two.config)).await;
    mirror.wait_for_blob(&sha256(&two.config)).await;
    mirror.pull("library/one", "latest", &one).await;
    let mirror = mirror.stop().await.set("cache.offline", true).start().await;
    assert_eq!(mirror.manifest("library/two", "latest").await, two.manifest);
    mirror.pull_blob("library/two", &sha256(&layer)).await;
    let listed_nowhere = mirror.get(&blob_url("library/three", &sha256(&layer))).await;
    assert_eq!(listed_nowhere.status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_upstream_may_be_offline_alone() {
    let (site, builder) = Site::cut().await;
    let quay = FakeRegistry::start().await;
    let image = Image::random(4);
    quay.put_image("a/b", "latest", &image);
    let mirror = builder
        .upstream(Upstream::docker_io(&site.registry).set("offline", true))
        .upstream(Upstream::named("quay.io", &quay))
        .start()
        .await;
    mirror.pull("quay.io/a/b", "latest", &image).await;
    mirror.advance(DAY);
    assert_eq!(mirror.manifest("library/x", "latest").await, site.image.manifest);
    assert_eq!(mirror.get("/v2/library/z/manifests/1").await.status, 404);
    site.assert_nothing_asked();

    let shown = mirror.admin().get("/api/v1/upstreams").await.bytes().await;
    let shown: Value = serde_json::from_slice(&shown).unwrap();
    let offline = |place: usize| shown["upstreams"][place]["offline"].clone();
    assert_eq!([offline(0), offline(1)], [true, false]);
    let metrics = mirror.admin().get("/metrics").await.bytes().await;
    let metrics = String::from_utf8(metrics.to_vec()).unwrap();
    assert!(metrics.contains(r#"larder_upstream_up{registry="quay.io"} 1"#), "{metrics}");
    assert!(!metrics.contains(r#"larder_upstream_up{registry="docker.io"}"#), "{metrics}");
}

/// Who may see it was asked before, or the operator says it: nobody else does.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_never_found_public_is_not_served_unless_shared() {
    const PRIVATE: &[&str] = &["team/app"];
    let auth = Auth::PasswordTokenFor(PRIVATE, "anna", "secret");
    let registry = FakeRegistry::builder().auth(auth).start().await;
    let image = Image::random(1);
    for repository in ["library/x", "library/y", "team/app"] {
        registry.put_image(repository, "latest", &image);
    }
    let upstream = || Upstream::docker_io(&registry).credentials("anna", "secret");
    let shared = |globs: &[&str]| upstream().set("share_private", globs.to_vec());
    let mirror = TestMirror::builder().upstream(shared(&["library/y", "team/*"])).start().await;
    for repository in ["library/x", "library/y", "team/app"] {
        mirror.pull(repository, "latest", &image).await;
    }
    let mut stopped = mirror.stop().await;
    for (globs, want) in [(&[][..], [200, 404, 404]), (&["**"], [200, 200, 200])] {
        let upstream = shared(globs).set("offline", true);
        let mirror = stopped.upstream(upstream).start().await;
        // Long after what upstream said would have been asked again.
        mirror.advance(100 * DAY);
        for (repository, status) in ["library/x", "library/y", "team/app"].iter().zip(want) {
            let answer = mirror.get(&manifest_path(repository, "latest")).await;
            assert_eq!(answer.status, status, "{repository}, {globs:?}");
            if status == 404 {
                let (_, message) = answer.error().await;
                assert!(message.contains("share_private"), "{message}");
            }
        }
        stopped = mirror.stop().await;
    }
}

/// It could not be fetched again.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_an_offline_registry_leaves_by_age() {
    let (site, builder) = Site::cut().await;
    let quay = FakeRegistry::start().await;
    let unused = Image::random(4);
    quay.put_image("a/b", "latest", &unused);
    let mirror = builder
        .upstream(Upstream::docker_io(&site.registry).set("offline", true))
        .upstream(Upstream::named("quay.io", &quay))
        .set("cache.expire_after", "30d")
        .set("cache.sweep_interval", "100ms")
        .start()
        .await;
    mirror.pull("quay.io/a/b", "latest", &unused).await;
    mirror.advance(31 * DAY);
    mirror.wait_until_gone(&unused.digest()).await;
    for blob in site.image.blobs() {
        assert!(mirror.has_blob(&sha256(blob)));
    }
    assert!(mirror.has_blob(&site.image.digest()));
    site.assert_nothing_asked();
}

#[tokio::test(flavor = "multi_thread")]
async fn doctor_leaves_alone_what_is_offline() {
    let (site, builder) = Site::cut().await;
    let directory =
        builder.upstream(Upstream::docker_io(&site.registry).set("offline", true)).into_file();
    let config = directory.path().join(CONFIG);
    let arguments = ["doctor", "--config", config.to_str().unwrap()];
    let ended = run(&arguments, &[]);
    assert!(ended.output.contains("nothing is asked here (offline = true)"), "{ended:?}");
    site.assert_nothing_asked();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_says_that_it_is_offline() {
    let (site, builder) = Site::cut().await;
    let daemon = Daemon::start_with(builder, &[("LARDER_CACHE_OFFLINE", "true")]).await;
    assert_eq!(daemon.client().get(&manifest_path("library/x", "latest")).await.status, 200);
    // It serves before it says so.
    let line = "offline: serves what is cached, and asks nobody";
    until("the line", async || daemon.log().contains(line)).await;
    site.assert_nothing_asked();
}
