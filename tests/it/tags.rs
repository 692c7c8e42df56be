//! How long a tag is believed, and what finding out costs upstream.

use std::time::Duration;

use futures_util::future::join_all;

use crate::support::{
    FakeRegistry, Fault, Image, Mode, TestMirror, Upstream, mirror::manifest_path, wait::until,
};

const MANIFESTS: &str = "/v2/library/x/manifests/*";
const TAG: &str = "/v2/library/x/manifests/latest";

/// More than the `tag_ttl` of a [`TestMirror`].
const PAST_TTL: Duration = Duration::from_secs(61);

/// A registry with an image, and a mirror that has pulled it.
async fn pulled() -> (FakeRegistry, TestMirror, Image) {
    let registry = FakeRegistry::start().await;
    let image = Image::random(1);
    registry.put_image("library/x", "latest", &image);
    let mirror = TestMirror::of(&registry).await;
    mirror.pull("library/x", "latest", &image).await;
    (registry, mirror, image)
}

/// A tag that moved upstream is seen after its TTL, not before.
#[tokio::test(flavor = "multi_thread")]
async fn a_moved_tag_is_seen_after_its_ttl() {
    let (registry, mirror, old) = pulled().await;
    let new = Image::random(2);
    registry.put_image("library/x", "latest", &new);

    mirror.advance(Duration::from_secs(58));
    assert_eq!(mirror.manifest("library/x", "latest").await, old.manifest);
    mirror.advance(Duration::from_secs(3));
    assert_eq!(mirror.manifest("library/x", "latest").await, new.manifest);
}

/// While a tag is young, upstream is not asked; when it is old, one HEAD makes it young again.
#[tokio::test(flavor = "multi_thread")]
async fn an_unchanged_tag_costs_one_head() {
    let (registry, mirror, image) = pulled().await;
    let asked = registry.requests().len();
    mirror.manifest("library/x", "latest").await;
    assert_eq!(registry.requests().len(), asked, "young");

    mirror.advance(PAST_TTL);
    for _ in 0..3 {
        assert_eq!(mirror.manifest("library/x", "latest").await, image.manifest);
    }
    let new = &registry.requests()[asked..];
    assert_eq!(new.len(), 1, "{new:#?}");
    assert_eq!((new[0].method.as_str(), new[0].path.as_str()), ("HEAD", TAG));
    let revalidated = r#"larder_lookups_total{kind="manifest",result="revalidated"}"#;
    assert!(mirror.metric(revalidated).await >= 1.0);
}

/// A hundred nodes that find a tag old at the same time cost one HEAD.
#[tokio::test(flavor = "multi_thread")]
async fn all_who_wait_share_one_check() {
    let (registry, mirror, image) = pulled().await;
    registry.on("HEAD", TAG, Fault::delay(Duration::from_millis(500)));
    let heads = registry.count("HEAD", TAG);
    mirror.advance(PAST_TTL);
    let manifests = join_all((0..100).map(async |_| mirror.manifest("library/x", "latest").await));
    assert!(manifests.await.iter().all(|manifest| *manifest == image.manifest));
    assert_eq!(registry.count("HEAD", TAG), heads + 1);
}

/// Update checkers only ask HEAD, and Docker Hub does not count HEADs as pulls; nor do we make
/// them into pulls.
#[tokio::test(flavor = "multi_thread")]
async fn a_checker_that_only_asks_head_causes_no_manifest_get() {
    let registry = FakeRegistry::start().await;
    let (old, new) = (Image::random(3), Image::random(4));
    registry.put_image("library/x", "latest", &old);
    let mirror = TestMirror::of(&registry).await;

    for image in [&old, &old, &new, &new] {
        registry.put_image("library/x", "latest", image);
        let response = mirror.head(TAG).await;
        let digest = image.digest().to_string();
        assert_eq!(response.header("docker-content-digest"), Some(digest.as_str()));
        let length = image.manifest.len().to_string();
        assert_eq!(response.header("content-length"), Some(length.as_str()));
        mirror.advance(PAST_TTL);
    }
    assert_eq!(registry.count("GET", MANIFESTS), 0);
    assert!(registry.count("HEAD", TAG) >= 4);

    mirror.pull("library/x", "latest", &new).await;
    assert_eq!(registry.count("GET", MANIFESTS), 1);
}

/// A checker on an image that is cached costs no GET either, and does not make the cached image
/// worse than it was: it stays the answer while upstream is away.
#[tokio::test(flavor = "multi_thread")]
async fn the_old_manifest_stays_the_stale_answer_until_the_new_one_is_stored() {
    let (registry, mirror, old) = pulled().await;
    let new = Image::random(5);
    registry.put_image("library/x", "latest", &new);
    let gets = registry.count("GET", MANIFESTS);
    mirror.advance(PAST_TTL);
    let response = mirror.head(TAG).await;
    let digest = new.digest().to_string();
    assert_eq!(response.header("docker-content-digest"), Some(digest.as_str()));
    assert_eq!(registry.count("GET", MANIFESTS), gets);

    registry.set_mode(Mode::Down).await;
    mirror.advance(PAST_TTL);
    let response = mirror.get(TAG).await;
    assert_eq!(response.status, 200);
    assert!(response.header("warning").is_some());
    assert_eq!(response.bytes().await, old.manifest);
}

/// A check that takes longer than `check_timeout` goes on while the client has its answer.
#[tokio::test(flavor = "multi_thread")]
async fn a_slow_check_ends_in_the_background() {
    let registry = FakeRegistry::start().await;
    let image = Image::random(6);
    registry.put_image("library/x", "latest", &image);
    let mirror = TestMirror::builder()
        .upstream(Upstream::docker_io(&registry))
        .set("cache.check_timeout", "100ms")
        .start()
        .await;
    mirror.pull("library/x", "latest", &image).await;
    let heads = registry.count("HEAD", TAG);

    registry.on("HEAD", TAG, Fault::delay(Duration::from_secs(5)));
    mirror.advance(PAST_TTL);
    let response = mirror.get(TAG).await;
    assert!(response.elapsed() < Duration::from_secs(4));
    assert_eq!(response.bytes().await, image.manifest);

    until("the tag to be fresh", async || mirror.get(TAG).await.header("warning").is_none()).await;
    assert_eq!(registry.count("HEAD", TAG), heads + 1);
}

/// Upstreams whose HEAD is of no use are asked by one GET.
#[tokio::test(flavor = "multi_thread")]
async fn a_useless_head_is_replaced_by_one_get() {
    for fault in useless_heads() {
        let (registry, mirror, image) = pulled().await;
        let gets = registry.count("GET", MANIFESTS);
        registry.on("HEAD", MANIFESTS, fault.clone());
        mirror.advance(PAST_TTL);

        let response = mirror.get(TAG).await;
        assert_eq!(response.header("warning"), None, "{fault:?}");
        assert_eq!(response.bytes().await, image.manifest);
        assert_eq!(registry.count("GET", MANIFESTS), gets + 1, "{fault:?}");
        mirror.get(TAG).await;
        assert_eq!(registry.count("GET", MANIFESTS), gets + 1, "fresh again");
    }
}

/// The same for a tag that was never asked before, by GET or HEAD.
#[tokio::test(flavor = "multi_thread")]
async fn a_useless_head_of_an_unknown_tag_is_replaced_by_one_get() {
    for fault in useless_heads() {
        for method in ["GET", "HEAD"] {
            let registry = FakeRegistry::start().await;
            let image = Image::random(7);
            registry.put_image("library/x", "latest", &image);
            registry.on("HEAD", MANIFESTS, fault.clone());
            let mirror = TestMirror::of(&registry).await;

            let response = mirror.request(method, TAG, &[]).await;
            assert_eq!(response.status, 200, "{method} {fault:?}");
            let digest = image.digest().to_string();
            assert_eq!(response.header("docker-content-digest"), Some(digest.as_str()));
            assert_eq!(registry.count("GET", MANIFESTS), 1, "{method} {fault:?}");
        }
    }
}

fn useless_heads() -> Vec<Fault> {
    let mut heads = [400, 405, 501].map(Fault::status).to_vec();
    heads.extend(["docker-content-digest", "content-type", "content-length"].map(Fault::without));
    heads
}

/// Of a tag that is gone upstream, the image can still be pulled by digest.
#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_tag_goes_and_its_digests_stay() {
    let (registry, mirror, image) = pulled().await;
    registry.delete_tag("library/x", "latest");
    mirror.advance(PAST_TTL);
    let response = mirror.get(TAG).await;
    assert_eq!(response.status, 404);
    assert_eq!(response.error().await.0, "MANIFEST_UNKNOWN");

    let digest = image.digest().to_string();
    assert_eq!(mirror.manifest("library/x", &digest).await, image.manifest);
    registry.set_mode(Mode::Down).await;
    mirror.advance(PAST_TTL);
    assert_eq!(mirror.get(TAG).await.status / 100, 5, "dropped, not merely hidden");
}

/// Who wants to keep what upstream deletes can.
#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_tag_is_served_where_the_operator_says_so() {
    let registry = FakeRegistry::start().await;
    let image = Image::random(8);
    registry.put_image("library/x", "latest", &image);
    let mirror = TestMirror::builder()
        .upstream(Upstream::docker_io(&registry))
        .set("cache.on_deleted", "serve")
        .start()
        .await;
    mirror.pull("library/x", "latest", &image).await;

    registry.delete_tag("library/x", "latest");
    mirror.advance(PAST_TTL);
    assert_eq!(mirror.manifest("library/x", "latest").await, image.manifest);
}

/// "Not found" is remembered for `negative_ttl`, in the one repository it was said of.
#[tokio::test(flavor = "multi_thread")]
async fn not_found_is_remembered_briefly_and_per_repository() {
    let registry = FakeRegistry::start().await;
    let mirror = TestMirror::builder()
        .upstream(Upstream::docker_io(&registry))
        .set("cache.negative_ttl", "30s")
        .start()
        .await;
    assert_eq!(mirror.get(TAG).await.status, 404);
    let asked = registry.requests().len();
    let image = Image::random(9);
    registry.put_image("library/x", "latest", &image);
    registry.put_image("library/y", "latest", &image);

    mirror.advance(Duration::from_secs(28));
    assert_eq!(mirror.get(TAG).await.status, 404);
    assert_eq!(registry.requests().len(), asked, "remembered");
    let negative = r#"larder_lookups_total{kind="manifest",result="negative"}"#;
    assert_eq!(mirror.metric(negative).await, 1.0);

    mirror.pull("library/y", "latest", &image).await;
    mirror.advance(Duration::from_secs(3));
    mirror.pull("library/x", "latest", &image).await;
}

/// A tag older than `max_stale` is not served when upstream cannot be asked.
#[tokio::test(flavor = "multi_thread")]
async fn a_tag_is_stale_for_max_stale_at_most() {
    let registry = FakeRegistry::start().await;
    let image = Image::random(10);
    registry.put_image("library/x", "latest", &image);
    let mirror = TestMirror::builder()
        .upstream(Upstream::docker_io(&registry))
        .set("cache.max_stale", "1h")
        .start()
        .await;
    mirror.pull("library/x", "latest", &image).await;
    registry.set_mode(Mode::Down).await;

    mirror.advance(Duration::from_secs(30 * 60));
    assert_eq!(mirror.manifest("library/x", "latest").await, image.manifest);
    mirror.advance(Duration::from_secs(31 * 60));
    assert_eq!(mirror.get(TAG).await.status / 100, 5);
}

/// Who cannot be served a tag because it is too old waits for upstream like one that has none.
#[tokio::test(flavor = "multi_thread")]
async fn a_tag_that_is_too_old_is_worth_waiting_for() {
    let registry = FakeRegistry::start().await;
    let image = Image::random(11);
    registry.put_image("library/x", "latest", &image);
    let mirror = TestMirror::builder()
        .upstream(Upstream::docker_io(&registry))
        .set("cache.max_stale", "1h")
        .set("cache.check_timeout", "1ms")
        .start()
        .await;
    mirror.pull("library/x", "latest", &image).await;
    registry.on("HEAD", TAG, Fault::delay(Duration::from_millis(300)));

    mirror.advance(Duration::from_secs(2 * 3600));
    let response = mirror.get(TAG).await;
    assert_eq!((response.status, response.header("warning")), (200, None));
}

/// A manifest that many want for the first time is fetched once, however their look-ups and the
/// fetch interleave: each GET counts as a pull on Docker Hub.
#[tokio::test(flavor = "multi_thread")]
async fn a_cold_manifest_is_fetched_once() {
    let registry = FakeRegistry::start().await;
    let mirror = TestMirror::of(&registry).await;
    for round in 0..50 {
        let image = Image::random(100 + round);
        registry.put_image("library/x", "latest", &image);
        let path = manifest_path("library/x", &image.digest().to_string());
        join_all((0..40).map(async |client| {
            tokio::time::sleep(Duration::from_micros(client * 100)).await;
            mirror.get(&path).await.expect(&image.manifest).await;
        }))
        .await;
        assert_eq!(registry.count("GET", &path), 1, "round {round}");
    }
}

/// The first tag of a repository costs one GET: nothing is here that a HEAD could show to be the same.
/// Another tag of the same manifest costs one HEAD.
#[tokio::test(flavor = "multi_thread")]
async fn the_first_tag_of_a_repository_is_asked_for_by_one_get() {
    let registry = FakeRegistry::start().await;
    let mirror = TestMirror::of(&registry).await;
    for round in 0..20 {
        let (repository, image) = (format!("library/{round}"), Image::random(300 + round));
        registry.put_image(&repository, "1.2", &image);
        let path = manifest_path(&repository, "1.2");
        join_all((0..20).map(async |client| {
            tokio::time::sleep(Duration::from_micros(client * 100)).await;
            mirror.get(&path).await.expect(&image.manifest).await;
        }))
        .await;
        let manifests = manifest_path(&repository, "*");
        let asked = || (registry.count("HEAD", &manifests), registry.count("GET", &manifests));
        assert_eq!(asked(), (0, 1), "round {round}");
        assert_eq!(registry.count("GET", &path), 1, "round {round}");

        registry.put_tag(&repository, "1", &image.digest());
        assert_eq!(mirror.manifest(&repository, "1").await, image.manifest);
        assert_eq!(asked(), (1, 1), "round {round}");
    }
}

/// A new tag of a repository that is known is asked for once: by a HEAD, and a GET of what that tells.
#[tokio::test(flavor = "multi_thread")]
async fn a_cold_tag_is_asked_for_once() {
    let (registry, mirror, _) = pulled().await;
    for round in 0..50 {
        let image = Image::random(200 + round);
        let tag = format!("v{round}");
        registry.put_image("library/x", &tag, &image);
        let path = manifest_path("library/x", &tag);
        join_all((0..40).map(async |client| {
            tokio::time::sleep(Duration::from_micros(client * 100)).await;
            mirror.get(&path).await.expect(&image.manifest).await;
        }))
        .await;
        assert_eq!(registry.count("HEAD", &path), 1, "round {round}");
        let by_digest = manifest_path("library/x", &image.digest().to_string());
        assert_eq!(registry.count("GET", &by_digest), 1, "round {round}");
    }
}

/// The same where HEAD is of no use and only a GET can tell that the tag is gone.
#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_tag_goes_where_head_is_of_no_use() {
    let (registry, mirror, _) = pulled().await;
    registry.on("HEAD", TAG, Fault::status(405));
    registry.delete_tag("library/x", "latest");
    mirror.advance(PAST_TTL);
    assert_eq!(mirror.get(TAG).await.status, 404);

    registry.set_mode(Mode::Down).await;
    mirror.advance(PAST_TTL);
    assert_eq!(mirror.get(TAG).await.status / 100, 5, "dropped, not merely hidden");
}

/// A tag that a HEAD announced is known as soon as its manifest is here, whoever brought it.
#[tokio::test(flavor = "multi_thread")]
async fn an_announced_tag_is_known_when_another_repository_brings_its_manifest() {
    let (registry, mirror, _) = pulled().await;
    let image = Image::random(11);
    registry.put_image("library/x", "new", &image);
    registry.put_image("library/y", "latest", &image);
    let in_y = "/v2/library/y/manifests/latest";
    mirror.head(in_y).await;
    mirror.pull("library/x", "new", &image).await;
    mirror.manifest("library/y", "latest").await;

    registry.set_mode(Mode::Down).await;
    mirror.advance(PAST_TTL);
    let stale = mirror.get(in_y).await;
    assert_eq!(stale.status, 200);
    assert_eq!(stale.bytes().await, image.manifest);
}

/// A tag that moved and moved back stays where it is, even if someone pulls by digest what it
/// meant in between.
#[tokio::test(flavor = "multi_thread")]
async fn an_announcement_ends_when_the_tag_moves_back() {
    let (registry, mirror, old) = pulled().await;
    let new = Image::random(12);
    registry.put_image("library/x", "latest", &new);
    mirror.advance(PAST_TTL);
    mirror.head(TAG).await;
    registry.put_image("library/x", "latest", &old);
    mirror.advance(PAST_TTL);
    mirror.head(TAG).await;

    mirror.manifest("library/x", &new.digest().to_string()).await;
    registry.set_mode(Mode::Down).await;
    mirror.advance(PAST_TTL);
    assert_eq!(mirror.manifest("library/x", "latest").await, old.manifest);
}

/// A tag whose new manifest has not reached every replica of upstream is not a deleted tag.
#[tokio::test(flavor = "multi_thread")]
async fn a_tag_whose_manifest_is_missing_is_stale() {
    let (registry, mirror, old) = pulled().await;
    let new = Image::random(13);
    registry.put_image("library/x", "latest", &new);
    let path = manifest_path("library/x", &new.digest().to_string());
    registry.on("GET", &path, Fault::status(404));
    mirror.advance(PAST_TTL);
    let response = mirror.get(TAG).await;
    assert_eq!(response.status, 200);
    assert!(response.header("warning").is_some());
    assert_eq!(response.bytes().await, old.manifest);
}
