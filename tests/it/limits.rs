//! What upstream allows: quotas that it states, limits that it enforces, and what is kept of them
//! for images that are not cached.

use std::time::{Duration, SystemTime};

use serde_json::{Value, json};
use toml::Table;

use crate::support::{
    Auth, FakeRegistry, Fault, Image, Index, Response, TestMirror, Upstream,
    mirror::{blob_url, manifest_path},
    sha256,
};

/// More than the `tag_ttl` of a [`TestMirror`].
const PAST_TTL: Duration = Duration::from_secs(61);
/// In seconds, as Docker Hub has it.
const SIX_HOURS: u64 = 21_600;
const MANIFESTS: &str = "/v2/*/manifests/*";

/// What upstream is asked for that it may count.
fn manifests_asked(registry: &FakeRegistry) -> usize {
    registry.count("GET", MANIFESTS) + registry.count("HEAD", MANIFESTS)
}

/// What the admin API tells of the first upstream.
async fn upstream_of(mirror: &TestMirror) -> Value {
    let page = mirror.admin().get("/api/v1/upstreams").await.bytes().await;
    let page: Value = serde_json::from_slice(&page).unwrap();
    page["upstreams"][0].clone()
}

/// The series of the metrics that tell of quotas.
async fn quota_series(mirror: &TestMirror) -> Vec<String> {
    let page = mirror.admin().get("/metrics").await.bytes().await;
    let page = String::from_utf8(page.to_vec()).unwrap();
    let series = page.lines().filter(|line| line.starts_with("larder_upstream_ratelimit_"));
    series.map(str::to_owned).collect()
}

/// docker.io at `registry`, where what is below `team` is pulled with an account.
fn with_team(registry: &FakeRegistry) -> Upstream {
    let keys = [("prefix", "team"), ("username", "anna"), ("password", "secret")];
    let team = Table::from_iter(keys.map(|(key, value)| (key.to_owned(), value.into())));
    Upstream::docker_io(registry).set("credentials", vec![team])
}

/// A registry with an image in each repository, and a mirror with these keys that pulled it a while
/// ago.
async fn cached(
    repositories: &[&str],
    upstream: impl Fn(&FakeRegistry) -> Upstream,
) -> (FakeRegistry, TestMirror) {
    let registry = FakeRegistry::start().await;
    for repository in repositories {
        registry.put_image(repository, "latest", &Image::random(1));
    }
    let mirror = TestMirror::builder().upstream(upstream(&registry)).start().await;
    for repository in repositories {
        mirror.pull(repository, "latest", &Image::random(1)).await;
    }
    mirror.advance(PAST_TTL);
    (registry, mirror)
}

/// Asserts that GET and HEAD of a tag are this image, which is said to be stale or not.
async fn assert_served(mirror: &TestMirror, repository: &str, image: &Image, is_stale: bool) {
    for method in ["GET", "HEAD"] {
        let response = mirror.request(method, &manifest_path(repository, "latest"), &[]).await;
        assert_eq!(response.status, 200, "{method} {repository}: {response:?}");
        let digest = image.digest().to_string();
        assert_eq!(response.header("docker-content-digest"), Some(&*digest), "{method}");
        assert_eq!(response.header("warning").is_some(), is_stale, "{method}: {response:?}");
    }
}

/// The seconds in the message of a 429.
async fn seconds_left(response: Response) -> u64 {
    assert_eq!(response.status, 429);
    assert_eq!(response.header("retry-after"), Some("3"));
    let (code, message) = response.error().await;
    assert_eq!(code, "TOOMANYREQUESTS");
    let words: Vec<&str> = message.split(' ').collect();
    let place = words.iter().position(|word| *word == "wait").expect(&message);
    words[place + 1].parse().unwrap()
}

/// A quota is shown as upstream stated it last, and no longer than its window; what is not known is
/// not shown, not even as zero.
#[tokio::test(flavor = "multi_thread")]
async fn a_stated_quota_is_shown_while_it_holds() {
    let registry = FakeRegistry::start().await;
    let image = Image::random(1);
    registry.put_image("library/x", "latest", &image);
    let mirror = TestMirror::of(&registry).await;
    mirror.manifest("library/x", "latest").await;
    assert_eq!(upstream_of(&mirror).await["ratelimit"], Value::Null);
    assert!(quota_series(&mirror).await.is_empty());

    registry.limit_pulls(100, SIX_HOURS);
    mirror.advance(PAST_TTL);
    registry.put_image("library/x", "latest", &Image::random(2));
    mirror.manifest("library/x", "latest").await;
    let mut shown = upstream_of(&mirror).await["ratelimit"].take();
    assert!(shown["seen_seconds_ago"].take().as_u64().unwrap() < 60);
    let stated = json!({
        "limit": 100,
        "remaining": 99,
        "window_seconds": SIX_HOURS,
        "source": "192.0.2.1",
        "seen_seconds_ago": null,
    });
    assert_eq!(shown, stated);
    let series = [
        "larder_upstream_ratelimit_limit{registry=\"docker.io\"} 100",
        "larder_upstream_ratelimit_remaining{registry=\"docker.io\"} 99",
    ];
    assert_eq!(quota_series(&mirror).await, series);

    registry.limit_pulls(100, 0);
    mirror.advance(PAST_TTL);
    mirror.manifest("library/x", "latest").await;
    assert_eq!(upstream_of(&mirror).await["ratelimit"], Value::Null);
    assert!(quota_series(&mirror).await.is_empty());
}

/// Whoever is limited is left alone, on HEAD as well, and no other account pays for it. Blobs go on.
#[tokio::test(flavor = "multi_thread")]
async fn a_429_pauses_one_account_only() {
    let (registry, mirror) = cached(&["library/x", "team/x"], with_team).await;
    let (old, new) = (Image::random(1), Image::random(2));
    for repository in ["library/x", "team/x"] {
        registry.put_image(repository, "latest", &new);
    }
    let gets = registry.count("GET", "/v2/team/*/manifests/*");
    // As an abuse limit answers.
    let page = Fault::status(429).body("<html>Too Many Requests</html>");
    for method in ["GET", "HEAD"] {
        registry.on(method, "/v2/team/*/manifests/*", page.clone().header("retry-after", "3600"));
    }
    assert_served(&mirror, "team/x", &old, true).await;
    assert_eq!(registry.count("GET", "/v2/team/*/manifests/*"), gets, "no GET after a 429");

    let asked = manifests_asked(&registry);
    for path in [
        manifest_path("team/x", "unknown"),
        manifest_path("team/y", "latest"),
        manifest_path("team/x", &new.digest().to_string()),
    ] {
        let left = seconds_left(mirror.get(&path).await).await;
        assert!((200..=300).contains(&left), "{left}");
    }
    assert_served(&mirror, "team/x", &old, true).await;
    assert_eq!(manifests_asked(&registry), asked, "who is paused is not asked for");
    mirror.pull_blob("team/x", &sha256(&new.config)).await;

    assert_served(&mirror, "library/x", &new, false).await;
    assert_eq!(manifests_asked(&registry), asked + 2);
    let paused = upstream_of(&mirror).await["paused_seconds"].as_u64().unwrap();
    assert!((200..=300).contains(&paused), "{paused}");
}

/// The time that upstream asks for may be a date, and is over when it is over.
#[tokio::test(flavor = "multi_thread")]
async fn a_pause_is_as_long_as_upstream_says() {
    let in_200_s = httpdate::fmt_http_date(SystemTime::now() + Duration::from_secs(200));
    for (retry_after, status, asked) in [(in_200_s.as_str(), 429, 1), ("0", 200, 2)] {
        let registry = FakeRegistry::start().await;
        let image = Image::random(1);
        registry.put_image("library/x", "latest", &image);
        let mirror = TestMirror::of(&registry).await;
        let limited = Fault::status(429).header("retry-after", retry_after);
        registry.once("GET", "/v2/library/x/*", limited);
        let path = manifest_path("library/x", "latest");
        for _ in 0..2 {
            let answer = mirror.get(&path).await;
            assert_eq!(answer.status, status, "{retry_after}");
            if status == 429 {
                let left = seconds_left(answer).await;
                assert!((100..=200).contains(&left), "{left}");
            }
        }
        assert_eq!(registry.count("GET", &path), asked, "{retry_after}");
    }
}

/// A 429 that does not say how long is a moment at first, and longer each time.
#[tokio::test(flavor = "multi_thread")]
async fn an_unstated_pause_begins_short() {
    let registry = FakeRegistry::start().await;
    let image = Image::random(1);
    registry.put_image("library/x", "latest", &image);
    let mirror = TestMirror::of(&registry).await;
    let path = manifest_path("library/x", "latest");
    for _ in 0..2 {
        registry.once("GET", &path, Fault::status(429));
    }
    let response = mirror.get(&path).await;
    let waited = response.elapsed();
    assert!(waited >= Duration::from_secs(3), "{waited:?}");
    response.expect(&image.manifest).await;
    assert_eq!(registry.count("GET", &path), 3);
}

/// A token server that limits us is left alone, too, by who is limited.
#[tokio::test(flavor = "multi_thread")]
async fn a_token_server_is_not_hammered() {
    let accounts = &[("team/x", "anna", "secret"), ("other/x", "bert", "hidden")];
    let registry = FakeRegistry::builder().auth(Auth::PasswordTokenOf(accounts)).start().await;
    let image = Image::random(1);
    let entries: Vec<Table> = accounts
        .iter()
        .map(|(repository, username, password)| {
            registry.put_image(repository, "latest", &image);
            let prefix = repository.trim_end_matches("/x");
            let keys = [("prefix", prefix), ("username", username), ("password", password)];
            Table::from_iter(keys.map(|(key, value)| (key.to_owned(), value.into())))
        })
        .collect();
    let upstream = Upstream::docker_io(&registry).set("credentials", entries);
    let mirror = TestMirror::builder().upstream(upstream).start().await;
    registry.once("GET", "/token", Fault::status(429).header("retry-after", "3600"));
    for _ in 0..3 {
        let manifest = mirror.get(&manifest_path("team/x", "latest")).await;
        assert_eq!(manifest.status, 502);
        let blob = mirror.get(&blob_url("team/x", &sha256(&image.config))).await;
        assert_eq!(blob.status, 429);
        assert!(blob.error().await.1.contains("limits our requests for tokens"));
    }
    assert_eq!(registry.count("GET", "/token"), 1);
    mirror.pull("other/x", "latest", &image).await;
    assert_eq!(registry.count("GET", "/token"), 2);
}

/// What `quota_reserve` keeps is spent on what is not cached only.
#[tokio::test(flavor = "multi_thread")]
async fn the_reserve_is_kept_for_what_is_not_cached() {
    let with_reserve =
        |registry: &FakeRegistry| Upstream::docker_io(registry).set("quota_reserve", 20);
    let (registry, mirror) = cached(&["library/x"], with_reserve).await;
    registry.limit_pulls(21, SIX_HOURS);
    let pulls = || registry.count("GET", MANIFESTS);
    let before = pulls();

    // 21 are left, and then 20.
    let second = Image::random(2);
    registry.put_image("library/x", "latest", &second);
    assert_served(&mirror, "library/x", &second, false).await;
    assert_eq!(pulls(), before + 1);

    mirror.advance(PAST_TTL);
    let heads = registry.count("HEAD", MANIFESTS);
    let third = Image::random(3);
    registry.put_image("library/x", "latest", &third);
    for _ in 0..3 {
        assert_served(&mirror, "library/x", &second, true).await;
    }
    assert_eq!(pulls(), before + 1);
    assert_eq!(registry.count("HEAD", MANIFESTS), heads + 1, "tags are still checked");

    // An index, its child by digest, and what somebody asks for by digest.
    let index = Index::of(vec![Image::random(4)]);
    registry.put_index("library/y", "latest", &index);
    mirror.manifest("library/y", "latest").await;
    mirror.manifest("library/y", &index.images[0].digest().to_string()).await;
    mirror.manifest("library/x", &third.digest().to_string()).await;
    assert_eq!(pulls(), before + 4);
    // So the tag is up to date, at no cost.
    assert_served(&mirror, "library/x", &third, false).await;
    assert_eq!(pulls(), before + 4);
}

/// A quota that upstream has filled up, or whose window is over, keeps nobody from news.
#[tokio::test(flavor = "multi_thread")]
async fn the_reserve_is_kept_only_while_the_quota_is_low() {
    let with_reserve =
        |registry: &FakeRegistry| Upstream::docker_io(registry).set("quota_reserve", 20);
    for (limit, window) in [(100, SIX_HOURS), (5, 0)] {
        let (registry, mirror) = cached(&["library/x"], with_reserve).await;
        registry.limit_pulls(5, SIX_HOURS);
        let new = Image::random(2);
        registry.put_image("library/x", "latest", &new);
        assert_served(&mirror, "library/x", &Image::random(1), true).await;
        registry.limit_pulls(limit, window);
        mirror.advance(PAST_TTL);
        assert_served(&mirror, "library/x", &new, false).await;
    }
}

/// Where HEAD is of no use, a check would spend what is kept.
#[tokio::test(flavor = "multi_thread")]
async fn no_check_spends_the_reserve() {
    let with_reserve =
        |registry: &FakeRegistry| Upstream::docker_io(registry).set("quota_reserve", 20);
    for useless in [Fault::status(405), Fault::without("docker-content-digest")] {
        let (registry, mirror) = cached(&["library/x"], with_reserve).await;
        registry.on("HEAD", MANIFESTS, useless);
        registry.limit_pulls(21, SIX_HOURS);
        // A first check spends one.
        mirror.manifest("library/x", "latest").await;
        let pulls = registry.count("GET", MANIFESTS);
        registry.put_image("library/x", "latest", &Image::random(2));
        mirror.advance(PAST_TTL);
        assert_served(&mirror, "library/x", &Image::random(1), true).await;
        assert_eq!(registry.count("GET", MANIFESTS), pulls);
        assert!(registry.count("HEAD", MANIFESTS) > 1);
    }
}

/// Each account has a quota of its own.
#[tokio::test(flavor = "multi_thread")]
async fn the_reserve_is_one_of_each_account() {
    let with_reserve = |registry: &FakeRegistry| with_team(registry).set("quota_reserve", 20);
    let (registry, mirror) = cached(&["library/x", "team/x"], with_reserve).await;
    let low = Fault::default()
        .header("ratelimit-limit", "200;w=21600")
        .header("ratelimit-remaining", "3;w=21600");
    for method in ["GET", "HEAD"] {
        registry.on(method, "/v2/team/*", low.clone());
    }
    let (old, new) = (Image::random(1), Image::random(2));
    for repository in ["library/x", "team/x"] {
        registry.put_image(repository, "latest", &new);
    }
    assert_served(&mirror, "team/x", &old, true).await;
    assert_served(&mirror, "library/x", &new, false).await;
    let shown = upstream_of(&mirror).await["ratelimit"].take();
    assert_eq!((&shown["limit"], &shown["remaining"]), (&json!(200), &json!(3)));
}

/// What is done ahead, so that later pulls need upstream less, spends nothing that is kept.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_in_the_background_spends_the_reserve() {
    let with_reserve =
        |registry: &FakeRegistry| Upstream::docker_io(registry).set("quota_reserve", 20);
    let (registry, mirror) = cached(&["library/x"], with_reserve).await;
    let index = Index::of(vec![Image::random(1), Image::random(2)]);
    registry.put_image("library/x", "other", &index.images[1]);
    mirror.pull("library/x", "other", &index.images[1]).await;
    registry.put_index("library/y", "latest", &index);
    registry.limit_pulls(20, SIX_HOURS);
    let children = index.images.iter().map(|image| image.digest().to_string());
    let children = children.map(|digest| manifest_path("library/y", &digest));
    let [first, second] = &children.collect::<Vec<_>>()[..] else { panic!("two images") };
    for child in [first, second] {
        registry.on("HEAD", child, Fault::status(405));
    }
    mirror.manifest("library/y", "latest").await;
    // They are proved one after the other.
    registry.wait_for("HEAD", second, 1).await;
    assert_eq!(registry.count("GET", first), 0);
    // A client has a right to it.
    mirror.get(first).await.verified(&index.images[0].digest()).await;
    assert_eq!(registry.count("GET", first), 1);
}
