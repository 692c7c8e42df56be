//! The ways in: by `ns`, by path, by host, and to the default; what each refuses.

use larder::oci::OCI_MANIFEST;
use serde_json::Value;

use crate::support::{
    FakeRegistry, Fault, Image, Mode, TestMirror, Upstream,
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

/// Of several ways in at once the strongest decides: `ns`, then the path, then the host, then the
/// default. What contradicts itself leads nowhere.
#[tokio::test(flavor = "multi_thread")]
async fn the_strongest_way_in_decides() {
    let registries =
        [FakeRegistry::start().await, FakeRegistry::start().await, FakeRegistry::start().await];
    let images = [Image::random(4), Image::random(5), Image::random(6)];
    for (registry, image) in registries.iter().zip(&images) {
        registry.put_image("org/app", "v1", image);
        registry.put_image("quay.corp/org/app", "v1", image);
    }
    let [hub, quay, ghcr] = &registries;
    let named = |name: &str, registry: &FakeRegistry| {
        let name = name.to_owned();
        Upstream::named(&format!("{name}.io"), registry)
            .set("aliases", vec![format!("{name}.corp")])
            .set("server_names", vec![format!("{name}.mirror.corp")])
    };
    let mirror = TestMirror::builder()
        .upstream(Upstream::docker_io(hub))
        .upstream(named("quay", quay))
        .upstream(named("ghcr", ghcr))
        .start()
        .await;

    let (hub, quay, ghcr) = (Some(&images[0]), Some(&images[1]), Some(&images[2]));
    for (host, api, namespace, expected) in [
        ("larder.lan", "/v2/org/app", "", hub),
        ("quay.mirror.corp", "/v2/org/app", "", quay),
        ("quay.mirror.corp", "/v2/docker.io/org/app", "", hub),
        ("quay.mirror.corp", "/v2/ghcr.corp/org/app", "", ghcr),
        ("quay.mirror.corp", "/ghcr.io/v2/org/app", "", ghcr),
        ("quay.mirror.corp", "/ghcr.corp/v2/quay.corp/org/app", "", ghcr),
        ("quay.mirror.corp", "/v2/org/app", "docker.io", hub),
        ("quay.mirror.corp", "/v2/quay.corp/org/app", "ghcr.io", ghcr),
        ("quay.mirror.corp", "/v2/ghcr.io/org/app", "ghcr.io", ghcr),
        ("quay.mirror.corp", "/ghcr.corp/v2/ghcr.io/org/app", "ghcr.corp", ghcr),
        ("quay.mirror.corp", "/v2/quay.io/org/app", "ghcr.io", None),
        ("quay.mirror.corp", "/quay.io/v2/org/app", "ghcr.io", None),
        ("quay.mirror.corp", "/quay.io/v2/ghcr.io/org/app", "", None),
        ("quay.mirror.corp", "/v2/org/app", "evil.example", None),
        ("quay.mirror.corp", "/evil.example/v2/org/app", "", None),
    ] {
        let query = if namespace.is_empty() { String::new() } else { format!("?ns={namespace}") };
        let path = format!("{api}/manifests/v1{query}");
        let response = mirror.request("GET", &path, &[("host", host)]).await;
        match expected {
            Some(image) => {
                assert_eq!(response.status, 200, "{host} {path}");
                assert_eq!(response.bytes().await, image.manifest, "{host} {path}");
            }
            None => {
                assert_eq!(response.status, 404, "{host} {path}");
                assert_eq!(response.error().await.0, "NAME_UNKNOWN", "{host} {path}");
            }
        }
    }
}

/// Whatever is asked by `ns`, and however that ends, the answer says which registry it is about.
#[tokio::test(flavor = "multi_thread")]
async fn every_answer_to_ns_names_the_registry() {
    let (registry, others) = (FakeRegistry::start().await, FakeRegistry::start().await);
    let image = Image::random(7);
    registry.put_image("org/app", "v1", &image);
    registry.put_image("org/app", "v2", &Image::random(8));
    let mirror = quay_among_others(&registry, &others).await;
    let blob = blob_url("org/app", &sha256(&image.config));
    let (known, unknown) = (image.digest(), sha256(b"unknown"));
    let etag = format!("\"{known}\"");
    let any = ("accept", "*/*");
    let table = [
        ("GET", "/v2/".to_owned(), any, 200),
        ("HEAD", manifest_path("org/app", "v1"), any, 200),
        ("GET", manifest_path("org/app", "v1"), any, 200),
        ("GET", manifest_path("org/app", "v1"), ("if-none-match", &*etag), 304),
        ("GET", manifest_path("org/app", "absent"), any, 404),
        ("GET", manifest_path("org/app", &unknown.to_string()), any, 404),
        ("GET", manifest_path("org/app", "-"), any, 400),
        ("PUT", manifest_path("org/app", "v1"), any, 405),
        ("HEAD", blob.clone(), any, 200),
        ("GET", blob.clone(), any, 200),
        ("GET", blob.clone(), ("range", "bytes=0-1"), 206),
        ("GET", blob.clone(), ("range", "bytes=0-1,3-4"), 206),
        ("GET", blob.clone(), ("range", "bytes=99999999-"), 416),
        ("GET", blob_url("org/app", &unknown), any, 404),
        ("HEAD", blob_url("org/app", &unknown), any, 404),
        ("GET", "/v2/org/app/blobs/sha256:0".to_owned(), any, 400),
        ("GET", "/v2/org/app/tags/list".to_owned(), any, 200),
        ("GET", "/v2/org/absent/tags/list".to_owned(), any, 404),
        ("GET", format!("/v2/org/app/referrers/{known}"), any, 200),
        ("GET", "/v2/_catalog".to_owned(), any, 200),
        ("POST", "/v2/org/app/blobs/uploads/".to_owned(), any, 405),
        ("GET", "/v2/org/app".to_owned(), any, 405),
        ("GET", "/ghcr.io/v2/org/app/tags/list".to_owned(), any, 404),
    ];
    for (method, path, header, status) in table {
        let response = mirror.request(method, &format!("{path}?ns=QUAY.io"), &[header]).await;
        assert_eq!(response.status, status, "{method} {path}");
        assert_eq!(response.header("oci-namespace"), Some("quay.io"), "{method} {path}");
    }
    registry.set_mode(Mode::Down).await;
    for (path, status) in
        [(manifest_path("org/app", "v2"), 502), (blob_url("org/app", &sha256(b"x")), 429)]
    {
        let response = mirror.get(&format!("{path}?ns=quay.io")).await;
        assert_eq!(response.status, status, "{path}");
        assert_eq!(response.header("oci-namespace"), Some("quay.io"), "{path}");
    }
    for path in ["/v2/quay.io/org/app/manifests/v1", "/v2/a/manifests/1?ns=evil.example"] {
        assert_eq!(mirror.get(path).await.header("oci-namespace"), None, "{path}");
    }
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

        let digest = image.digest();
        let referrer = serde_json::json!({
            "mediaType": OCI_MANIFEST, "digest": sha256(b"sbom").to_string(), "size": 4,
        });
        registry.put_referrer(name, &digest, referrer.clone());
        let list = mirror.get(&format!("/v2/{name}/referrers/{digest}")).await;
        let list: Value = serde_json::from_slice(&list.bytes().await).unwrap();
        assert_eq!(list["manifests"], serde_json::json!([referrer]), "{name}");

        for path in
            [manifest_path(name, &digest.to_string()), blob_url(name, &sha256(&image.config))]
        {
            assert_eq!(mirror.head(&path).await.status, 200, "{path}");
        }
    }
}

/// What a mirror does not do is refused in the form of the specification, and goes nowhere.
#[tokio::test(flavor = "multi_thread")]
async fn what_only_a_registry_does_is_unsupported() {
    let registry = FakeRegistry::start().await;
    registry.put_image("library/x", "latest", &Image::random(2));
    let mirror = TestMirror::of(&registry).await;
    let ask = async |method: &str, path: &str, status: u16| {
        let response = mirror.request(method, path, &[("content-length", "0")]).await;
        assert_eq!(response.status, status, "{method} {path}");
        let allow = (status == 405).then_some("GET, HEAD");
        assert_eq!(response.header("allow"), allow, "{method} {path}");
        assert_eq!(response.error().await.0, "UNSUPPORTED", "{method} {path}");
    };
    let digest = sha256(b"x");
    for path in [
        "/v2/",
        "/v2/_catalog",
        &manifest_path("library/x", "latest"),
        &manifest_path("library/x", &digest.to_string()),
        &blob_url("library/x", &digest),
        "/v2/library/x/tags/list",
        &format!("/v2/library/x/referrers/{digest}"),
        "/v2/library/x/blobs/uploads/",
        &format!("/v2/library/x/blobs/uploads/?mount={digest}&from=library/y"),
        "/v2/library/x/blobs/uploads/1",
        "/quay.io/v2/x/blobs/uploads/?ns=evil.example",
    ] {
        for method in ["PUT", "POST", "PATCH", "DELETE", "OPTIONS"] {
            ask(method, path, 405).await;
        }
    }
    for (path, status) in [
        ("/v2/library/x/blobs/uploads/1/2", 405),
        ("/v2/library/x", 405),
        ("/v2/_oci/ext/discover", 405),
        ("/v1/_ping", 404),
        ("/favicon.ico", 404),
    ] {
        ask("GET", path, status).await;
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
    other.on("GET", "*", Fault::status(429).header("retry-after", "60"));
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
        "offline": false,
        "endpoints": [{
            "url": format!("{}/", registry.url()),
            "insecure_skip_verify": false,
            "breaker": "closed",
            "failures": 0,
            "open_seconds": null,
            "last_error": null,
        }],
        "share_private": ["**"],
        "tag_ttl_seconds": 60,
        "answered_seconds_ago": quay["answered_seconds_ago"].as_u64().unwrap(),
        "paused_seconds": null,
        "ratelimit": null,
    });
    assert_eq!(*quay, expected);
    assert!(!shown.to_string().contains("s3cret") && !shown.to_string().contains("robot"));
}
