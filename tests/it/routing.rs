//! The ways in: by `ns`, by path, by host, and to the default; what each refuses.

use serde_json::Value;

use crate::support::{
    FakeRegistry, Fault, Image, TestMirror, Upstream,
    mirror::{blob_url, manifest_path},
    sha256,
};

/// A host of a mirror, a path before and behind `/v2/`, and a query.
type Way = (&'static str, &'static str, &'static str, &'static str);

/// Every way to `org/app` of quay.io.
const WAYS: [Way; 12] = [
    ("larder.lan", "", "", "?ns=quay.io"),
    ("larder.lan", "", "", "?ns=QUAY.io"),
    ("larder.lan", "", "quay.io/", "?x=1&ns=quay.io"),
    ("larder.lan", "/quay.corp", "", "?ns=quay.io"),
    ("larder.lan", "", "quay.io/", ""),
    ("larder.lan", "", "quay.corp/", ""),
    ("larder.lan", "/quay.io", "", ""),
    ("larder.lan", "/quay.corp", "", ""),
    ("larder.lan", "/Quay.corp", "", ""),
    ("quay.mirror.corp:5000", "", "", ""),
    ("QUAY.mirror.corp.", "", "", ""),
    ("ghcr.mirror.corp", "", "quay.io/", ""),
];

/// quay.io with `registry` behind it; docker.io and ghcr.io are never to be asked.
async fn quay_among_others(registry: &FakeRegistry, others: &FakeRegistry) -> TestMirror {
    TestMirror::builder()
        .upstream(Upstream::docker_io(others))
        .upstream(
            Upstream::named("quay.io", registry)
                .set("aliases", vec!["quay.corp"])
                .set("server_names", vec!["quay.mirror.corp"]),
        )
        .upstream(Upstream::named("ghcr.io", others).set("server_names", vec!["ghcr.mirror.corp"]))
        .start()
        .await
}

/// Whichever way a client comes, it gets the same bytes, and upstream is asked once.
#[tokio::test(flavor = "multi_thread")]
async fn all_ways_in_share_one_cache() {
    let (registry, others) = (FakeRegistry::start().await, FakeRegistry::start().await);
    let image = Image::random(1);
    registry.put_image("org/app", "v1", &image);
    let mirror = quay_among_others(&registry, &others).await;

    for (host, before, behind, query) in WAYS {
        let ask = async |path: String| {
            let path = format!("{before}{path}{query}");
            let response = mirror.request("GET", &path, &[("host", host)]).await;
            assert_eq!(response.status, 200, "{host} {path}");
            let echoed = (!query.is_empty()).then_some("quay.io");
            assert_eq!(response.header("oci-namespace"), echoed, "{host} {path}");
            response
        };
        let name = format!("{behind}org/app");
        let by_tag = ask(manifest_path(&name, "v1")).await.bytes().await;
        assert_eq!(by_tag, image.manifest);
        let by_digest = ask(manifest_path(&name, &image.digest().to_string())).await;
        assert_eq!(by_digest.bytes().await, image.manifest);
        for blob in image.blobs() {
            ask(blob_url(&name, &sha256(blob))).await.expect(blob).await;
        }
        let tags: Value =
            serde_json::from_slice(&ask(format!("/v2/{name}/tags/list")).await.bytes().await)
                .unwrap();
        assert_eq!(tags["name"], name);
        assert_eq!(ask("/v2/".to_owned()).await.bytes().await, "{}");
    }
    assert_eq!(registry.count("GET", "/v2/org/app/manifests/*"), 1);
    assert_eq!(registry.count("GET", "/v2/org/app/blobs/*"), image.blobs().count());
    assert_eq!(registry.count("GET", "/v2/org/app/tags/list"), 1);
    assert_eq!(others.requests().len(), 0);
}

/// Components of a name may be called like the endpoints.
#[tokio::test(flavor = "multi_thread")]
async fn names_may_have_the_words_of_the_api() {
    let registry = FakeRegistry::start().await;
    let mirror = TestMirror::of(&registry).await;
    for (seed, name) in (0..).zip([
        "blobs/manifests",
        "manifests/tags/list",
        "tags/list",
        "referrers/blobs/uploads",
        "v2/manifests/v2",
        "a/referrers",
    ]) {
        let image = Image::random(seed);
        registry.put_image(name, "list", &image);
        mirror.pull(name, "list", &image).await;
        let list = mirror.get(&format!("/v2/{name}/tags/list")).await;
        let list: Value = serde_json::from_slice(&list.bytes().await).unwrap();
        assert_eq!(list["tags"][0], "list", "{name}");
    }
}

/// What a mirror does not do is refused in the form of the specification, and goes nowhere.
#[tokio::test(flavor = "multi_thread")]
async fn what_only_a_registry_does_is_unsupported() {
    let registry = FakeRegistry::start().await;
    registry.put_image("library/x", "latest", &Image::random(2));
    let mirror = TestMirror::of(&registry).await;
    let manifest = manifest_path("library/x", "latest");
    let blob = blob_url("library/x", &sha256(b"x"));
    for (method, path, status) in [
        ("PUT", manifest.as_str(), 405),
        ("DELETE", &manifest, 405),
        ("DELETE", &blob, 405),
        ("POST", "/v2/library/x/blobs/uploads/", 405),
        ("POST", "/v2/library/x/blobs/uploads/?mount=a&from=b", 405),
        ("PATCH", "/v2/library/x/blobs/uploads/1", 405),
        ("GET", "/v2/library/x/blobs/uploads/1/2", 405),
        ("GET", "/v2/library/x", 405),
        ("GET", "/v2/_oci/ext/discover", 405),
        ("OPTIONS", "/v2/", 405),
        ("GET", "/v1/_ping", 404),
        ("GET", "/favicon.ico", 404),
    ] {
        let response = mirror.request(method, path, &[("content-length", "0")]).await;
        assert_eq!(response.status, status, "{method} {path}");
        let allow = (status == 405).then_some("GET, HEAD");
        assert_eq!(response.header("allow"), allow, "{method} {path}");
        assert_eq!(response.error().await.0, "UNSUPPORTED", "{method} {path}");
    }
    assert_eq!(registry.requests().len(), 0);
}

/// What the admin listener shows of the upstreams.
async fn upstreams(mirror: &TestMirror) -> Value {
    let response = mirror.admin().get("/api/v1/upstreams").await;
    assert_eq!(response.status, 200);
    assert_eq!(response.header("content-type"), Some("application/json"));
    serde_json::from_slice(&response.bytes().await).unwrap()
}

/// Registries that clients asked for in vain are shown to the operator, newest first, and no more
/// of them than fit.
#[tokio::test(flavor = "multi_thread")]
async fn the_last_refused_registries_are_shown() {
    let registry = FakeRegistry::start().await;
    let mirror = TestMirror::of(&registry).await;
    assert_eq!(upstreams(&mirror).await["refused_namespaces"], Value::Array(Vec::new()));

    let refuse = async |path: &str| {
        let response = mirror.get(path).await;
        assert_eq!(response.status, 404, "{path}");
        assert_eq!(response.error().await.0, "NAME_UNKNOWN");
    };
    for number in 0..40 {
        refuse(&format!("/v2/a/manifests/1?ns=evil{number}.example")).await;
    }
    refuse(&format!("/v2/?ns={}", "x".repeat(5000))).await;
    refuse("/v2/a/manifests/1?ns=evil39.example").await;
    refuse("/ghcr.example/v2/a/manifests/1").await;

    let shown = upstreams(&mirror).await;
    let refused = shown["refused_namespaces"].as_array().unwrap();
    assert_eq!(refused.len(), 32);
    let (name, count) = (|at: usize| &refused[at]["name"], |at: usize| &refused[at]["count"]);
    assert_eq!((name(0), count(0)), (&"ghcr.example".into(), &1.into()));
    assert_eq!((name(1), count(1)), (&"evil39.example".into(), &2.into()));
    assert_eq!(name(2).as_str().unwrap(), "x".repeat(128));
    assert_eq!(name(3), "evil38.example");
    assert!(refused[0]["last"].as_str().unwrap().ends_with('Z'), "{shown}");
    assert_eq!(mirror.metric("larder_refused_namespaces_total").await, 43.0);
    assert_eq!(registry.requests().len(), 0);
}

/// The operator sees where each registry is reached, and how it is, but no secret.
#[tokio::test(flavor = "multi_thread")]
async fn the_upstreams_are_shown() {
    let (registry, other) = (FakeRegistry::start().await, FakeRegistry::start().await);
    registry.put_image("org/app", "v1", &Image::random(3));
    let quay = Upstream::named("quay.io", &registry)
        .set("aliases", vec!["quay.corp"])
        .set("server_names", vec!["quay.mirror.corp"])
        .credentials("robot", "s3cret");
    let mirror =
        TestMirror::builder().upstream(Upstream::docker_io(&other)).upstream(quay).start().await;
    let before = upstreams(&mirror).await;
    assert_eq!(before["upstreams"][1]["answered_seconds_ago"], Value::Null);
    mirror.manifest("quay.io/org/app", "v1").await;
    other.on("HEAD", "*", Fault::status(429).header("retry-after", "60"));
    mirror.get("/v2/x/manifests/1").await;

    let shown = upstreams(&mirror).await;
    let [hub, quay] = [0, 1].map(|at| &shown["upstreams"][at]);
    assert_eq!((&hub["registry"], &hub["default"]), (&"docker.io".into(), &true.into()));
    assert!(hub["paused_seconds"].as_u64().unwrap() > 50, "{hub}");
    let expected = serde_json::json!({
        "registry": "quay.io",
        "aliases": ["quay.corp"],
        "server_names": ["quay.mirror.corp"],
        "default": false,
        "endpoints": [{ "url": format!("{}/", registry.url()) }],
        "tag_ttl_seconds": 60,
        "answered_seconds_ago": quay["answered_seconds_ago"].as_u64().unwrap(),
        "paused_seconds": null,
    });
    assert_eq!(*quay, expected);
    assert!(!shown.to_string().contains("s3cret") && !shown.to_string().contains("robot"));
}
