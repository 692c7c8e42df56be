//! Referrers: signatures and whatever else names a manifest as its subject.

mod fallback;

use std::{fs, time::Duration};

use bytes::Bytes;
use futures_util::future::join_all;
use larder::oci::{Digest, OCI_INDEX, OCI_MANIFEST};
use serde_json::{Value, json};

use crate::support::{
    FakeRegistry, Fault, Gate, Image, Mode, Response, TestMirror, Upstream, mirror::manifest_path,
    sha256, wait::until,
};

/// More than the `tag_ttl` of a [`TestMirror`].
const PAST_TTL: Duration = Duration::from_secs(61);

const SBOM: &str = "application/vnd.example.sbom+json";
const SIGNATURE: &str = "application/vnd.example.signature";

fn subject() -> Digest {
    sha256(b"subject")
}

fn list() -> String {
    format!("/v2/library/x/referrers/{}", subject())
}

/// A descriptor with more in it than Larder knows.
fn referrer(name: &str, artifact_type: &str) -> Value {
    json!({
        "mediaType": OCI_MANIFEST,
        "digest": sha256(name.as_bytes()),
        "size": 7,
        "artifactType": artifact_type,
        "annotations": { "org.example.name": name },
        "com.example.unknown": [1.50, null],
    })
}

/// A registry with these referrers of [`subject`].
async fn with_referrers(referrers: &[Value]) -> FakeRegistry {
    let registry = FakeRegistry::start().await;
    registry.put_tag("library/x", "latest", &subject());
    for referrer in referrers {
        registry.put_referrer("library/x", &subject(), referrer.clone());
    }
    registry
}

/// The entries of a list in an answer.
async fn read(response: Response) -> Vec<Value> {
    assert_eq!(response.status, 200, "{response:?}");
    assert_eq!(response.header("content-type"), Some(OCI_INDEX));
    let list: Value = serde_json::from_slice(&response.bytes().await).unwrap();
    assert_eq!((&list["schemaVersion"], &list["mediaType"]), (&2.into(), &OCI_INDEX.into()));
    list["manifests"].as_array().unwrap().clone()
}

fn warns(response: &Response) -> bool {
    response.header("warning").is_some_and(|warning| warning.starts_with("299 - \""))
}

/// Upstream's list is passed on to the byte, remembered like a tag, and the same on every way in.
#[tokio::test(flavor = "multi_thread")]
async fn upstreams_list_is_passed_on_to_the_byte() {
    let registry = with_referrers(&[]).await;
    let written = format!(
        r#"{{ "mediaType":"{OCI_INDEX}", "manifests":[ {} ],  "schemaVersion":2, "x": 1e2}}"#,
        referrer("sbom", SBOM)
    );
    let sent = Fault::status(200)
        .header("content-type", format!("{OCI_INDEX}; charset=utf-8"))
        .body(written.clone());
    registry.on("GET", &list(), sent);
    let mirror = TestMirror::of(&registry).await;
    for path in [list(), format!("{}?ns=docker.io", list()), format!("/docker.io{}", list())] {
        let response = mirror.get(&path).await;
        assert_eq!(response.status, 200);
        assert_eq!(response.header("content-type"), Some(OCI_INDEX));
        assert_eq!(response.header("oci-filters-applied"), None);
        assert_eq!(response.bytes().await, written);
    }
    let head = mirror.head(&list()).await;
    assert_eq!(head.header("content-length"), Some(written.len().to_string().as_str()));
    assert_eq!(registry.count("GET", &list()), 1);
    let lookups = |result| format!(r#"larder_lookups_total{{kind="referrers",result="{result}"}}"#);
    assert_eq!(mirror.metric(&lookups("miss")).await, 1.0);
    assert_eq!(mirror.metric(&lookups("hit")).await, 3.0);
    let asked = r#"larder_upstream_requests_total{operation="referrers",code="200"}"#;
    assert_eq!(mirror.metric(asked).await, 1.0);
    assert_eq!(mirror.metric(r#"larder_requests_total{endpoint="referrers"}"#).await, 4.0);

    registry.behave();
    registry.put_referrer("library/x", &subject(), referrer("new", SIGNATURE));
    mirror.advance(PAST_TTL);
    assert_eq!(read(mirror.get(&list()).await).await, [referrer("new", SIGNATURE)]);
    mirror.advance(PAST_TTL);
    read(mirror.get(&list()).await).await;
    assert_eq!(mirror.metric(&lookups("revalidated")).await, 1.0);
    assert_eq!(registry.count("GET", &list()), 3);
}

/// Upstream is asked for everything once; each client gets the type it wants.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_may_want_one_type() {
    let all = [referrer("a", SBOM), referrer("b", SIGNATURE), referrer("c", SBOM)];
    let registry = with_referrers(&all).await;
    let mirror = TestMirror::of(&registry).await;
    for (wanted, expected) in [
        ("application/vnd.example.sbom%2Bjson", vec![&all[0], &all[2]]),
        (SIGNATURE, vec![&all[1]]),
        ("application/none", vec![]),
    ] {
        let response = mirror.get(&format!("{}?artifactType={wanted}", list())).await;
        assert_eq!(response.header("oci-filters-applied"), Some("artifactType"));
        assert_eq!(read(response).await.iter().collect::<Vec<_>>(), expected);
    }
    assert_eq!(read(mirror.get(&list()).await).await, all);
    assert_eq!(registry.count("GET", &list()), 1);
}

/// Upstream's pages become one list.
#[tokio::test(flavor = "multi_thread")]
async fn pages_become_one_list() {
    let all = ["a", "b", "c", "d", "e"].map(|name| referrer(name, SBOM));
    let registry = with_referrers(&all).await;
    registry.limit_pages(2);
    let mirror = TestMirror::of(&registry).await;
    let response = mirror.get(&list()).await;
    assert_eq!(response.header("link"), None);
    assert_eq!(read(response).await, all);
    assert_eq!(registry.count("GET", &list()), 3);

    let endless = Fault::default().header("link", "<?from=0>; rel=\"next\"");
    registry.on("GET", &list(), endless);
    mirror.advance(PAST_TTL);
    let response = mirror.get(&list()).await;
    assert!(warns(&response), "{response:?}");
    assert_eq!(read(response).await, all);
}

/// A registry with the API that knows nothing of the subject lists nothing.
#[tokio::test(flavor = "multi_thread")]
async fn without_referrers_the_list_is_empty() {
    let registry = with_referrers(&[]).await;
    let mirror = TestMirror::of(&registry).await;
    assert_eq!(read(mirror.get(&list()).await).await, Vec::<Value>::new());

    let sloppy = r#"{"schemaVersion":2,"manifests":null}"#;
    registry.on("GET", &list(), Fault::default().body(sloppy));
    mirror.advance(PAST_TTL);
    assert_eq!(read(mirror.get(&list()).await).await, Vec::<Value>::new());
    let response = mirror.get("/v2/x/referrers/sha256:abc").await;
    assert_eq!(response.status, 400);
    assert_eq!(response.error().await.0, "DIGEST_INVALID");
}

/// However a registry says that it lacks the API, clients hear 404, which sends them to the tag,
/// and web pages are never asked for.
#[tokio::test(flavor = "multi_thread")]
async fn a_registry_without_the_api_is_404() {
    let web = FakeRegistry::start().await;
    let page = |status: u16| {
        let html = ("content-type", "text/html");
        Fault::status(status).header(html.0, html.1).body("<html>")
    };
    let redirect = |to: String| Fault::status(303).header("location", to);
    let not_json = Fault::status(200).header("content-type", "application/json").body("{}");
    let no_index = Fault::default().body(r#"{"schemaVersion":2,"config":{}}"#);
    for fault in [
        Fault::status(404),
        Fault::status(400),
        Fault::status(405),
        page(406),
        page(501),
        page(200),
        Fault::status(204),
        not_json,
        no_index,
        redirect(format!("{}/owner/package", web.url())),
        redirect(format!("{}/login?next=/referrers/{}", web.url(), subject())),
        redirect("/".to_owned()),
        redirect("ftp://elsewhere".to_owned()),
        Fault::status(302),
    ] {
        let registry = with_referrers(&[referrer("a", SBOM)]).await;
        registry.on("GET", &list(), fault.clone());
        let mirror = TestMirror::of(&registry).await;
        for _ in 0..2 {
            let response = mirror.get(&list()).await;
            assert_eq!(response.status, 404, "{fault:?}");
            assert_eq!(response.error().await.0, "UNSUPPORTED");
        }
        assert_eq!(registry.requests().len(), 1, "{fault:?}");
        let up = r#"larder_upstream_up{registry="docker.io"}"#;
        assert_eq!(mirror.metric(up).await, 1.0, "{fault:?}");

        registry.behave();
        mirror.advance(Duration::from_secs(11));
        assert_eq!(read(mirror.get(&list()).await).await, [referrer("a", SBOM)]);
    }
    assert_eq!(web.connections(), 0);
}

/// A redirect to the same list elsewhere, as of a registry with regions, is followed.
#[tokio::test(flavor = "multi_thread")]
async fn a_redirect_to_the_same_list_is_followed() {
    let (registry, region) = (with_referrers(&[]).await, FakeRegistry::start().await);
    region.put_referrer("images/library/x", &subject(), referrer("a", SBOM));
    let escaped = subject().to_string().replace(':', "%3A");
    let there = format!("{}/v2/images/library/x/referrers/{escaped}", region.url());
    registry.on("GET", &list(), Fault::status(307).header("location", there));
    let here = format!("/v2/images/library/x/referrers/{}", subject());
    region.on("GET", &here.replace("sha256:", "sha256%3A"), {
        let body = json!({
            "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [referrer("a", SBOM)],
        });
        Fault::status(200).header("content-type", OCI_INDEX).body(body.to_string())
    });
    let mirror = TestMirror::of(&registry).await;
    assert_eq!(read(mirror.get(&list()).await).await, [referrer("a", SBOM)]);
}

/// Asserts that `all` is served in place of an answer of upstream.
async fn assert_stale(mirror: &TestMirror, all: &[Value]) {
    let response = mirror.get(&list()).await;
    assert!(response.elapsed() < Duration::from_secs(3), "{response:?}");
    assert!(warns(&response), "{response:?}");
    assert_eq!(read(response).await, all);
}

/// While upstream gives no list, the last one is served, filtered as ever.
#[tokio::test(flavor = "multi_thread")]
async fn without_upstream_the_last_list_is_served() {
    for (mode, fault) in [
        (Mode::Down, Fault::default()),
        (Mode::Up, Fault::status(503)),
        (Mode::Up, Fault::status(429).header("retry-after", "7")),
        (Mode::Up, Fault::status(403)),
        (Mode::Up, Fault::silent()),
    ] {
        let all = [referrer("a", SBOM), referrer("b", SIGNATURE)];
        let registry = with_referrers(&all).await;
        let mirror = TestMirror::of(&registry).await;
        read(mirror.get(&list()).await).await;
        registry.on("GET", &list(), fault);
        registry.set_mode(mode).await;
        mirror.advance(PAST_TTL);
        assert_stale(&mirror, &all).await;
        let response = mirror.get(&format!("{}?artifactType={SIGNATURE}", list())).await;
        assert!(warns(&response), "{response:?}");
        assert_eq!(response.header("oci-filters-applied"), Some("artifactType"));
        assert_eq!(read(response).await, all[1..]);
        let stale = r#"larder_lookups_total{kind="referrers",result="stale"}"#;
        assert_eq!(mirror.metric(stale).await, 2.0);
    }
}

/// The last list is served by a mirror that was started anew, with or without its index.
#[tokio::test(flavor = "multi_thread")]
async fn the_last_list_outlives_the_mirror() {
    let all = [referrer("a", SBOM)];
    let registry = with_referrers(&all).await;
    let mirror = TestMirror::of(&registry).await;
    read(mirror.get(&list()).await).await;
    registry.set_mode(Mode::Down).await;

    let mirror = mirror.stop().await.start().await;
    assert_eq!(read(mirror.get(&list()).await).await, all, "still fresh");
    mirror.advance(PAST_TTL);
    assert_stale(&mirror, &all).await;

    let stopped = mirror.stop().await;
    fs::remove_dir_all(stopped.data_dir().join("index")).unwrap();
    let mirror = stopped.wall_jumped(PAST_TTL).start().await;
    assert_stale(&mirror, &all).await;
}

/// A list that is too old is not served.
#[tokio::test(flavor = "multi_thread")]
async fn the_last_list_is_served_for_max_stale_at_most() {
    let registry = with_referrers(&[referrer("a", SBOM)]).await;
    let mirror = TestMirror::builder()
        .upstream(Upstream::docker_io(&registry))
        .set("cache.max_stale", "1h")
        .start()
        .await;
    read(mirror.get(&list()).await).await;
    registry.set_mode(Mode::Down).await;
    mirror.advance(Duration::from_secs(30 * 60));
    assert_stale(&mirror, &[referrer("a", SBOM)]).await;
    mirror.advance(Duration::from_secs(31 * 60));
    assert_eq!(mirror.get(&list()).await.status, 502);
}

/// A list is an answer and no image: it cannot be pulled by its digest, is in no catalogue, and
/// has no name in `index.json` that a tool would take for one.
#[tokio::test(flavor = "multi_thread")]
async fn a_list_is_no_image() {
    let registry = with_referrers(&[referrer("a", SBOM)]).await;
    let mirror = TestMirror::of(&registry).await;
    let list_digest = sha256(&mirror.get(&list()).await.bytes().await);
    assert!(mirror.has_blob(&list_digest));

    for kind in ["manifests", "blobs"] {
        let response = mirror.get(&format!("/v2/library/x/{kind}/{list_digest}")).await;
        assert_eq!(response.status, 404, "{kind}");
    }
    assert_eq!(mirror.get("/v2/_catalog").await.bytes().await, r#"{"repositories":[]}"#);
    registry.set_mode(Mode::Down).await;
    let response = mirror.get(&manifest_path("library/x", &list_digest.to_string())).await;
    assert_ne!(response.status, 200);

    let stopped = mirror.stop().await;
    let layout = fs::read(stopped.data_dir().join("index.json")).unwrap();
    let layout: Value = serde_json::from_slice(&layout).unwrap();
    let [entry] = layout["manifests"].as_array().unwrap().as_slice() else {
        panic!("{layout}");
    };
    assert_eq!(entry["digest"], list_digest.to_string());
    assert_eq!(entry["mediaType"], OCI_INDEX);
    let annotations = entry["annotations"].as_object().unwrap();
    let named: Vec<&String> = annotations.keys().collect();
    assert_eq!(named, ["io.larder.checked-at", "io.larder.referrers-of"]);
    let of = format!("docker.io/library/x@{}", subject());
    assert_eq!(annotations["io.larder.referrers-of"], of);
}

/// That nothing refers to a manifest is remembered on disk only of one that is here: anybody could
/// ask about any number of others.
#[tokio::test(flavor = "multi_thread")]
async fn empty_lists_about_what_is_not_here_leave_no_trace() {
    let (registry, image) = (FakeRegistry::start().await, Image::random(1));
    registry.put_image("library/x", "latest", &image);
    let mirror = TestMirror::of(&registry).await;
    mirror.pull("library/x", "latest", &image).await;
    let of = |subject: &Digest| format!("/v2/library/x/referrers/{subject}");
    let others = (0..20).map(|n| of(&sha256(format!("{n}").as_bytes())));
    let others: Vec<String> = others.collect();
    for path in others.iter().chain([&of(&image.digest())]) {
        assert_eq!(read(mirror.get(path).await).await, Vec::<Value>::new());
    }

    registry.set_mode(Mode::Down).await;
    assert!(!warns(&mirror.get(&others[0]).await), "still fresh");
    mirror.advance(PAST_TTL);
    for path in [&others[0], &of(&image.digest())] {
        let response = mirror.get(path).await;
        assert!(warns(&response), "{response:?}");
        assert_eq!(read(response).await, Vec::<Value>::new());
    }

    let stopped = mirror.stop().await;
    let layout = fs::read_to_string(stopped.data_dir().join("index.json")).unwrap();
    assert_eq!(layout.matches("referrers-of").count(), 1, "{layout}");
}

/// Without a list that is cached, clients hear why.
#[tokio::test(flavor = "multi_thread")]
async fn without_a_cached_list_clients_hear_why() {
    let long = vec![referrer("a", SBOM).to_string(); 20_000].join(",");
    let long = format!(r#"{{"schemaVersion":2,"mediaType":"{OCI_INDEX}","manifests":[{long}]}}"#);
    for (fault, status, code) in [
        (Fault::status(503), 502, "UNAVAILABLE"),
        (Fault::hang_up(), 502, "UNAVAILABLE"),
        (Fault::cut_after(20), 502, "UNAVAILABLE"),
        (Fault::default().body(long), 502, "UNAVAILABLE"),
        (Fault::default().header("content-encoding", "gzip"), 502, "UNAVAILABLE"),
        (Fault::status(401), 404, "UNSUPPORTED"),
        (Fault::status(403), 404, "UNSUPPORTED"),
        (Fault::status(429), 429, "TOOMANYREQUESTS"),
    ] {
        let registry = with_referrers(&[referrer("a", SBOM)]).await;
        registry.on("GET", &list(), fault.clone());
        let mirror = TestMirror::of(&registry).await;
        let response = mirror.get(&list()).await;
        assert_eq!(response.status, status, "{fault:?}");
        assert_eq!(response.error().await.0, code);
    }
}

/// All who wait share one request; one who has an old list does not wait longer than
/// `check_timeout`, and the new one arrives later.
#[tokio::test(flavor = "multi_thread")]
async fn all_who_wait_share_one_list() {
    let registry = with_referrers(&[referrer("a", SBOM)]).await;
    let mirror = TestMirror::builder()
        .upstream(Upstream::docker_io(&registry))
        .set("cache.check_timeout", "100ms")
        .start()
        .await;
    let gate = Gate::shut();
    registry.once("GET", &list(), Fault::hold_after(5, &gate));
    let asking = join_all((0..20).map(|_| async { read(mirror.get(&list()).await).await }));
    let opening = async {
        registry.wait_for("GET", &list(), 1).await;
        gate.open();
    };
    let (lists, ()) = tokio::join!(asking, opening);
    assert!(lists.iter().all(|list| *list == [referrer("a", SBOM)]));
    assert_eq!(registry.count("GET", &list()), 1);

    registry.put_referrer("library/x", &subject(), referrer("b", SBOM));
    let gate = Gate::shut();
    registry.once("GET", &list(), Fault::hold_after(5, &gate));
    mirror.advance(PAST_TTL);
    let response = mirror.get(&list()).await;
    assert!(warns(&response), "{response:?}");
    assert_eq!(read(response).await, [referrer("a", SBOM)]);
    gate.open();
    until("the new list", async || read(mirror.get(&list()).await).await.len() == 2).await;
}

/// A list leaves with disuse, like a tag, and use of it is use of nothing else that is not here.
#[tokio::test(flavor = "multi_thread")]
async fn a_list_that_nobody_asks_for_leaves() {
    let registry = with_referrers(&[referrer("a", SBOM)]).await;
    let mirror = TestMirror::builder()
        .upstream(Upstream::docker_io(&registry))
        .set("cache.expire_after", "1h")
        .set("cache.sweep_interval", "20ms")
        .start()
        .await;
    let digest = sha256(&mirror.get(&list()).await.bytes().await);
    mirror.advance(Duration::from_secs(2 * 3600));
    mirror.wait_until_gone(&digest).await;
    registry.set_mode(Mode::Down).await;
    assert_eq!(mirror.get(&list()).await.status, 502);
}
