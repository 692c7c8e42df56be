//! Lists of tags: whole, in pages as the client wants them, and in bad times what is cached.

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::support::{
    Auth, Client, FakeRegistry, Fault, Image, Mode, Response, TestMirror, Upstream, sha256,
    wait::until,
};

const LIST: &str = "/v2/library/x/tags/list";

/// More than the `tag_ttl` of a [`TestMirror`].
const PAST_TTL: Duration = Duration::from_secs(61);

/// A registry with these tags of `library/x`.
async fn with_tags(tags: &[&str]) -> FakeRegistry {
    let registry = FakeRegistry::start().await;
    put_tags(&registry, tags);
    registry
}

fn put_tags(registry: &FakeRegistry, tags: &[&str]) {
    for tag in tags {
        registry.put_tag("library/x", tag, &sha256(tag.as_bytes()));
    }
}

/// A registry with the tags `cached` and `other`, and a mirror that pulled the former.
async fn pulled() -> (FakeRegistry, TestMirror, Image) {
    let registry = with_tags(&["other"]).await;
    let image = Image::random(1);
    registry.put_image("library/x", "cached", &image);
    let mirror = TestMirror::of(&registry).await;
    mirror.pull("library/x", "cached", &image).await;
    (registry, mirror, image)
}

/// The name and the tags in an answer.
async fn read(response: Response) -> (String, Vec<String>) {
    assert_eq!(response.status, 200, "{response:?}");
    assert_eq!(response.header("content-type"), Some("application/json"));
    let list: Value = serde_json::from_slice(&response.bytes().await).unwrap();
    let tags = list["tags"].as_array().unwrap().iter();
    let tags = tags.map(|tag| tag.as_str().unwrap().to_owned()).collect();
    (list["name"].as_str().unwrap().to_owned(), tags)
}

async fn tags(client: &Client, path: &str) -> Vec<String> {
    read(client.get(path).await).await.1
}

/// The tags on a page, and where the next one is.
async fn page(client: &Client, path: &str) -> (Vec<String>, Option<String>) {
    let response = client.get(path).await;
    let link = response.header("link").map(|link| {
        let target = link.strip_prefix('<').and_then(|link| link.strip_suffix(r#">; rel="next""#));
        target.unwrap().to_owned()
    });
    (read(response).await.1, link)
}

/// Asserts that these are the cached tags, marked as such.
async fn assert_stale(response: Response, tags: &[&str]) {
    let warning = response.header("warning").unwrap_or_default();
    assert!(warning.starts_with("299 - \""), "{response:?}");
    assert_eq!(read(response).await.1, tags);
}

/// Upstream's pages become one list, which is remembered like a tag.
#[tokio::test(flavor = "multi_thread")]
async fn all_of_upstreams_pages_are_listed() {
    let registry = with_tags(&["b", "a", "1.10", "1.9", "B"]).await;
    registry.limit_pages(2);
    let mirror = TestMirror::of(&registry).await;

    let sorted = ["1.10", "1.9", "B", "a", "b"];
    for _ in 0..2 {
        assert_eq!(tags(&mirror, LIST).await, sorted);
        assert_eq!(registry.count("GET", LIST), 3);
    }
    let queries: Vec<_> = registry.requests().iter().map(|asked| asked.query.clone()).collect();
    assert_eq!(queries, ["n=1000", "last=1.9&n=2", "last=a&n=2"]);

    put_tags(&registry, &["new"]);
    mirror.advance(Duration::from_secs(58));
    assert_eq!(tags(&mirror, LIST).await, sorted);
    mirror.advance(Duration::from_secs(3));
    assert!(tags(&mirror, LIST).await.contains(&"new".to_owned()));
    let lookups = |result| format!(r#"larder_lookups_total{{kind="tags",result="{result}"}}"#);
    assert_eq!(mirror.metric(&lookups("hit")).await, 2.0);
    assert_eq!(mirror.metric(&lookups("miss")).await, 2.0);
    let asked = r#"larder_upstream_requests_total{operation="tags_list",code="200"}"#;
    assert_eq!(mirror.metric(asked).await, 6.0);
    assert_eq!(mirror.metric(r#"larder_requests_total{endpoint="tags"}"#).await, 4.0);
}

/// A client gets the pages it asks for, by whatever name it asks, for one list of upstream.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_pages_as_it_likes() {
    let registry = FakeRegistry::start().await;
    for tag in ["1", "2", "3", "4", "5"] {
        registry.put_tag("org/tags", tag, &sha256(tag.as_bytes()));
    }
    let mirror = TestMirror::builder()
        .upstream(Upstream::named("quay.io", &registry).set("tag_ttl", "0s"))
        .start()
        .await;

    for (list, query) in [
        ("/v2/quay.io/org/tags/tags/list", ""),
        ("/v2/quay.io/org%2Ftags/tags/list", ""),
        ("/quay.io/v2/org/tags/tags/list", ""),
        ("/v2/org/tags/tags/list", "ns=quay.io&"),
    ] {
        let mut listed = Vec::new();
        let mut next = Some(format!("{list}?{query}n=2"));
        while let Some(path) = next {
            assert!(path.starts_with(&format!("{list}?{query}n=2")), "{path}");
            let tags;
            (tags, next) = page(&mirror, &path).await;
            assert_eq!(tags.len(), if next.is_some() { 2 } else { 1 });
            listed.extend(tags);
        }
        assert_eq!(listed, ["1", "2", "3", "4", "5"], "{list}");
    }
    let asked = registry.requests();
    assert_eq!(asked.len(), 1, "also where tags are checked each time");
    assert_eq!(asked[0].query, "n=1000");
}

/// The name in the answer is the one that the client used.
#[tokio::test(flavor = "multi_thread")]
async fn the_list_has_the_name_that_was_asked_for() {
    let registry = with_tags(&["1"]).await;
    let mirror = TestMirror::of(&registry).await;
    for name in ["x", "library/x", "docker.io/x", "docker.io/library/x"] {
        let response = mirror.get(&format!("/v2/{name}/tags/list")).await;
        assert_eq!(read(response).await, (name.to_owned(), vec!["1".to_owned()]));
    }
    let response = mirror.get("/v2/library/x/tags/list?ns=docker.io").await;
    assert_eq!(response.header("oci-namespace"), Some("docker.io"));
    assert_eq!(read(response).await.0, "library/x");
    assert_eq!(registry.count("GET", LIST), 1);
}

/// The ends of paging: nothing, more than there is, past the end, and no number at all.
#[tokio::test(flavor = "multi_thread")]
async fn pages_end_as_the_specification_says() {
    let registry = with_tags(&["1", "2"]).await;
    let mirror = TestMirror::of(&registry).await;
    for (query, expected) in [
        ("n=0", &[][..]),
        ("n=2", &["1", "2"]),
        ("n=3", &["1", "2"]),
        ("last=1", &["2"]),
        ("last=2&n=1", &[]),
    ] {
        let (tags, next) = page(&mirror, &format!("{LIST}?{query}")).await;
        assert_eq!((tags, next), (expected.iter().map(ToString::to_string).collect(), None));
    }
    let response = mirror.get(&format!("{LIST}?n=ten")).await;
    assert_eq!(response.status, 400);
    assert_eq!(response.error().await.0, "PAGINATION_NUMBER_INVALID");

    let head = mirror.head(&format!("{LIST}?n=1")).await;
    assert_eq!(head.status, 200);
    assert!(head.header("link").is_some());
    assert_eq!(head.bytes().await, "");
}

/// What some registries put into their lists is no tag, and a list may be empty.
#[tokio::test(flavor = "multi_thread")]
async fn only_tags_are_listed() {
    let registry = with_tags(&[]).await;
    let digest = sha256(b"x").to_string();
    for (tags, expected) in [
        (json!(["b", digest, null, "a", "no tag", "", "b"]), &["a", "b"][..]),
        (json!([]), &[]),
        (Value::Null, &[]),
    ] {
        let body = json!({ "name": "library/x", "tags": tags, "manifest": {} });
        registry.on("GET", LIST, Fault::status(200).body(body.to_string()));
        let mirror = TestMirror::of(&registry).await;
        assert_eq!(self::tags(&mirror, LIST).await, expected);
    }
}

/// A hundred clients that ask at the same time cost one list.
#[tokio::test(flavor = "multi_thread")]
async fn all_who_wait_share_one_list() {
    let registry = with_tags(&["1"]).await;
    registry.on("GET", LIST, Fault::delay(Duration::from_millis(500)));
    let mirror = TestMirror::of(&registry).await;
    let lists = join_all((0..100).map(async |_| tags(&mirror, LIST).await)).await;
    assert!(lists.iter().all(|tags| tags == &["1"]));
    assert_eq!(registry.count("GET", LIST), 1);
}

/// Each page is asked for with a token that is good.
#[tokio::test(flavor = "multi_thread")]
async fn every_page_is_authorized() {
    let registry = FakeRegistry::builder().auth(Auth::PasswordToken("user", "secret"));
    let registry = registry.start().await;
    put_tags(&registry, &["1", "2", "3"]);
    registry.limit_pages(1);
    let upstream = Upstream::docker_io(&registry).credentials("user", "secret");
    let mirror = TestMirror::builder().upstream(upstream).start().await;

    assert_eq!(tags(&mirror, LIST).await, ["1", "2", "3"]);
    registry.expire_tokens();
    mirror.advance(PAST_TTL);
    assert_eq!(tags(&mirror, LIST).await, ["1", "2", "3"]);
}

/// While upstream gives no list, the tags that are cached are listed at once, and said to be those.
#[tokio::test(flavor = "multi_thread")]
async fn without_upstream_the_cached_tags_are_listed() {
    for (mode, fault) in [
        (Mode::Down, Fault::default()),
        (Mode::Up, Fault::status(503)),
        (Mode::Up, Fault::status(429).header("retry-after", "7")),
        (Mode::Up, Fault::status(403)),
        (Mode::Up, Fault::silent()),
        (Mode::Up, Fault::status(200).body("<html>")),
    ] {
        let (registry, mirror, _) = pulled().await;
        registry.on("GET", LIST, fault.clone());
        registry.set_mode(mode).await;
        for _ in 0..2 {
            let response = mirror.get(LIST).await;
            assert!(response.elapsed() < Duration::from_secs(3), "{fault:?}");
            assert_stale(response, &["cached"]).await;
        }
        let (tags, next) = page(&mirror, &format!("{LIST}?n=1&last=cached")).await;
        assert_eq!((tags, next), (Vec::new(), None));
        let stale = r#"larder_lookups_total{kind="tags",result="stale"}"#;
        assert_eq!(mirror.metric(stale).await, 3.0);
    }
}

/// A cached tag outlives its mirror, not its manifest.
#[tokio::test(flavor = "multi_thread")]
async fn cached_tags_are_those_whose_image_is_there() {
    let (registry, mirror, image) = pulled().await;
    let other = Image::random(2);
    registry.put_image("library/x", "other", &other);
    mirror.pull("library/x", "other", &other).await;
    registry.set_mode(Mode::Down).await;

    let stopped = mirror.stop().await;
    let mirror = stopped.start().await;
    assert_stale(mirror.get(LIST).await, &["cached", "other"]).await;

    std::fs::remove_file(mirror.blob_path(&image.digest())).unwrap();
    let digest = image.digest().to_string();
    mirror.get(&format!("/v2/library/x/manifests/{digest}")).await;
    assert_stale(mirror.get(LIST).await, &["other"]).await;
}

/// Tags that are too old to be served are not listed either.
#[tokio::test(flavor = "multi_thread")]
async fn cached_tags_are_listed_for_max_stale_at_most() {
    let registry = FakeRegistry::start().await;
    let image = Image::random(3);
    registry.put_image("library/x", "cached", &image);
    let mirror = TestMirror::builder()
        .upstream(Upstream::docker_io(&registry))
        .set("cache.max_stale", "1h")
        .start()
        .await;
    mirror.pull("library/x", "cached", &image).await;
    registry.set_mode(Mode::Down).await;

    mirror.advance(Duration::from_secs(30 * 60));
    assert_stale(mirror.get(LIST).await, &["cached"]).await;
    mirror.advance(Duration::from_secs(31 * 60));
    assert_eq!(mirror.get(LIST).await.status, 502);
}

/// Who has cached tags to list waits for `check_timeout` only; the list arrives later.
#[tokio::test(flavor = "multi_thread")]
async fn a_slow_list_ends_in_the_background() {
    let registry = with_tags(&["other"]).await;
    let image = Image::random(4);
    registry.put_image("library/x", "cached", &image);
    let mirror = TestMirror::builder()
        .upstream(Upstream::docker_io(&registry))
        .set("cache.check_timeout", "100ms")
        .start()
        .await;
    mirror.pull("library/x", "cached", &image).await;

    registry.on("GET", LIST, Fault::delay(Duration::from_secs(5)));
    let response = mirror.get(LIST).await;
    assert!(response.elapsed() < Duration::from_secs(4));
    assert_stale(response, &["cached"]).await;
    until("the list", async || tags(&mirror, LIST).await == ["cached", "other"]).await;
    assert_eq!(registry.count("GET", LIST), 1);
}

/// Without a list and without cached tags, clients hear why.
#[tokio::test(flavor = "multi_thread")]
async fn without_cached_tags_clients_hear_why() {
    let registry = with_tags(&["1"]).await;
    for (fault, status, code) in [
        (Fault::status(503), 502, "UNAVAILABLE"),
        (Fault::hang_up(), 502, "UNAVAILABLE"),
        (Fault::status(200).body("<html>"), 502, "UNAVAILABLE"),
        (Fault::default().header("content-encoding", "gzip"), 502, "UNAVAILABLE"),
        (Fault::status(404), 404, "NAME_UNKNOWN"),
        (Fault::status(403), 404, "NAME_UNKNOWN"),
        (Fault::status(429), 429, "TOOMANYREQUESTS"),
    ] {
        registry.on("GET", LIST, fault);
        let mirror = TestMirror::of(&registry).await;
        let response = mirror.get(LIST).await;
        assert_eq!(response.status, status);
        assert_eq!(response.header("link"), None);
        assert_eq!(response.error().await.0, code);
    }
}

/// A repository that upstream does not have is remembered as such, briefly; nor does the mirror
/// then list what it has cached.
#[tokio::test(flavor = "multi_thread")]
async fn a_repository_that_is_gone_is_not_listed() {
    let (registry, mirror, _) = pulled().await;
    registry.on("GET", LIST, Fault::status(404));
    for _ in 0..2 {
        assert_eq!(mirror.get(LIST).await.status, 404);
        assert_eq!(registry.count("GET", LIST), 1);
    }
    let negative = r#"larder_lookups_total{kind="tags",result="negative"}"#;
    assert_eq!(mirror.metric(negative).await, 1.0);

    registry.behave();
    mirror.advance(Duration::from_secs(11));
    assert_eq!(tags(&mirror, LIST).await, ["cached", "other"]);
}

/// A page that fails is no end of the list: half of it would pass for the whole.
#[tokio::test(flavor = "multi_thread")]
async fn half_a_list_is_none() {
    let registry = with_tags(&["1", "2", "3"]).await;
    registry.limit_pages(2);
    registry.on("GET", LIST, Fault::status(500));
    registry.once("GET", LIST, Fault::default());
    let mirror = TestMirror::of(&registry).await;
    assert_eq!(mirror.get(LIST).await.status, 502);
    registry.behave();
    assert_eq!(tags(&mirror, LIST).await, ["1", "2", "3"]);
}
