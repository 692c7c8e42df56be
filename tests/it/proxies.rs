//! Upstreams behind a proxy.

use std::fs;

use serde_json::Value;
use tempfile::TempDir;

use crate::support::{
    Auth, FakeRegistry, Fault, Image, TestMirror, Upstream, address,
    binary::{self, Daemon},
    mirror::{Builder, blob_url, manifest_path},
    proxy::TestProxy,
    random_bytes,
    tls::TestCa,
};

/// A registry by a name that only proxies resolve.
async fn named(name: &'static str, ca: Option<&TestCa>) -> FakeRegistry {
    let builder = FakeRegistry::builder().named(name);
    match ca {
        Some(ca) => builder.tls(ca).start().await,
        None => builder.start().await,
    }
}

/// A mirror of docker.io at `registry`, through the proxy at `url`.
fn mirror_through(url: &str, registry: &FakeRegistry) -> Builder {
    TestMirror::builder().upstream(Upstream::docker_io(registry).set("proxy", url))
}

/// Writes a file, and tells its path.
fn written(directory: &TempDir, name: &str, text: &str) -> String {
    let file = directory.path().join(name);
    fs::write(&file, text).unwrap();
    file.to_str().unwrap().to_owned()
}

/// The upstream's text in a refusal.
async fn message(mirror: &TestMirror, path: &str) -> String {
    let body: Value = serde_json::from_slice(&mirror.get(path).await.bytes().await).unwrap();
    body["errors"][0]["message"].as_str().unwrap().to_owned()
}

/// Registry, token server and storage are asked through tunnels, and see nothing of the proxy's
/// password (the fake registries complain if they do).
#[tokio::test(flavor = "multi_thread")]
async fn https_goes_through_tunnels() {
    let ca = TestCa::new();
    let (registry, storage) =
        (named("registry.test", Some(&ca)).await, named("storage.test", Some(&ca)).await);
    registry.set_auth(Auth::AnonymousToken);
    registry.redirect_blobs_to(&storage);
    let image = Image::random(1);
    registry.put_image("library/x", "latest", &image);
    let proxy = TestProxy::with_login("me:p@ss:%").await;
    proxy.lead_to(&registry);
    proxy.lead_to(&storage);

    let mirror = mirror_through(&proxy.url_for("me:p%40ss%3A%25"), &registry).start().await;
    mirror.pull("library/x", "latest", &image).await;

    let asked = proxy.requests();
    for host in ["registry.test", "storage.test"] {
        let tunnel = format!("CONNECT {host}:");
        assert!(asked.iter().any(|line| line.starts_with(&tunnel)), "{host}: {asked:?}");
    }
    assert!(asked.iter().all(|line| line.starts_with("CONNECT ")), "{asked:?}");
    assert!(registry.count("GET", "/token") > 0);
}

/// In tunnels, too, an endpoint is shown its client certificate and believed unverified, and storage
/// neither: what it is redirected to has to vouch for itself.
#[tokio::test(flavor = "multi_thread")]
async fn tunnels_make_no_difference_to_tls() {
    let (registrys, storages) = (TestCa::new(), TestCa::new());
    let closed = registrys.closed_acceptor_for("registry.test");
    let registry = FakeRegistry::builder().named("registry.test").tls_with(closed, &registrys);
    let registry = registry.start().await;
    let curious = storages.curious_acceptor_for("storage.test");
    let storage = FakeRegistry::builder().named("storage.test").tls_with(curious, &storages);
    let storage = storage.start().await;
    let stranger = named("stranger.test", Some(&TestCa::new())).await;
    registry.redirect_blobs_to(&storage);
    let image = Image::random(6);
    registry.put_image("library/x", "latest", &image);
    let proxy = TestProxy::with_login("me:secret").await;
    for server in [&registry, &storage, &stranger] {
        proxy.lead_to(server);
    }
    let directory = TempDir::new().unwrap();
    let (certificate, key) = registrys.certificate("127.0.0.1".parse().unwrap());
    let files = [("ca", storages.pem()), ("client_cert", certificate), ("client_key", key)];
    let upstream = files
        .into_iter()
        .fold(Upstream::docker_io(&registry).without_ca(), |upstream, (key, pem)| {
            upstream.set(key, written(&directory, key, &pem))
        });
    let upstream =
        upstream.set("proxy", proxy.url_for("me:secret")).set("insecure_skip_verify", true);
    let mirror = TestMirror::builder().upstream(upstream).start().await;

    mirror.pull("library/x", "latest", &image).await;
    assert!(registry.certified_connections() > 0);
    assert!(!storage.requests().is_empty());
    assert_eq!(storage.certified_connections(), 0);
    registry.redirect_blobs_to(&stranger);
    let digest = registry.put_blob("library/x", &random_bytes(7, 1_000));
    assert_eq!(mirror.get(&blob_url("library/x", &digest)).await.status, 429);
    assert!(stranger.connections() > 0 && stranger.requests().is_empty());
    assert!(proxy.requests().iter().all(|line| line.starts_with("CONNECT ")));
}

/// What is not encrypted is asked of the proxy itself, each time with the password.
#[tokio::test(flavor = "multi_thread")]
async fn http_is_asked_of_the_proxy() {
    let (registry, storage) =
        (named("registry.test", None).await, named("storage.test", None).await);
    registry.redirect_blobs_to(&storage);
    let image = Image::random(2);
    registry.put_image("library/x", "latest", &image);
    let proxy = TestProxy::with_login("me:").await;
    proxy.lead_to(&registry);
    proxy.lead_to(&storage);

    let mirror = mirror_through(&proxy.url_for("me"), &registry).start().await;
    mirror.pull("library/x", "latest", &image).await;

    let asked = proxy.requests();
    let manifest = format!("GET {}/v2/library/x/manifests/", registry.url());
    assert!(asked.iter().any(|line| line.starts_with(&manifest)), "{asked:?}");
    let blob = format!("GET {}/redirected/", storage.url());
    assert!(asked.iter().any(|line| line.starts_with(&blob)), "{asked:?}");
}

/// A proxy that is spoken to in TLS itself is believed like any other host.
#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_may_speak_tls() {
    let ca = TestCa::new();
    for tls in [Some(&ca), None] {
        let registry = named("registry.test", tls).await;
        let image = Image::random(3);
        registry.put_image("library/x", "latest", &image);
        let (trusted, stranger) =
            (TestProxy::with_tls(&ca).await, TestProxy::with_tls(&TestCa::new()).await);
        for (proxy, is_trusted) in [(trusted, true), (stranger, false)] {
            proxy.lead_to(&registry);
            let directory = TempDir::new().unwrap();
            let file = written(&directory, "ca.pem", &ca.pem());
            let upstream = Upstream::docker_io(&registry).without_ca();
            // Of the proxy's certificate nobody has said anything.
            let upstream = upstream
                .set("ca", file)
                .set("insecure_skip_verify", true)
                .set("proxy", proxy.url());
            let mirror = TestMirror::builder().upstream(upstream).start().await;
            let answer = mirror.get(&manifest_path("library/x", "latest")).await;
            assert_eq!(answer.status == 200, is_trusted, "{answer:?}");
            assert_eq!(proxy.requests().is_empty(), !is_trusted);
        }
    }
}

/// Without a word of configuration, as for any other program.
#[tokio::test(flavor = "multi_thread")]
async fn the_environment_is_heard() {
    let ca = TestCa::new();
    let (far, clear, near) = (
        named("far.test", Some(&ca)).await,
        named("clear.test", None).await,
        FakeRegistry::start().await,
    );
    let exempt = named("exempt.test", None).await;
    let blob = random_bytes(4, 1_000);
    let digest = near.put_blob("x", &blob);
    for registry in [&far, &clear, &exempt] {
        registry.put_blob("x", &blob);
    }
    let (tunnels, requests) = (TestProxy::start().await, TestProxy::start().await);
    tunnels.lead_to(&far);
    for registry in [&clear, &near, &exempt] {
        requests.lead_to(registry);
    }
    let mirror = [("far.test", &far), ("clear.test", &clear), ("near.test", &near)]
        .into_iter()
        .chain([("exempt.test", &exempt)])
        .fold(TestMirror::builder(), |mirror, (name, registry)| {
            mirror.upstream(Upstream::named(name, registry))
        });
    let (https_proxy, http_proxy) = (tunnels.url(), requests.url());
    let variables = [
        ("HTTPS_PROXY", https_proxy.as_str()),
        ("http_proxy", &http_proxy),
        ("NO_PROXY", ".test:1,exempt.test"),
    ];
    let daemon = Daemon::start_with(mirror, &variables).await;

    for name in ["far.test", "clear.test", "near.test"] {
        let path = blob_url(&format!("{name}/x"), &digest);
        daemon.client().get(&path).await.expect(&blob).await;
    }
    // No proxy may be asked for it, and nobody else knows the name.
    let path = blob_url("exempt.test/x", &digest);
    assert_eq!(daemon.client().get(&path).await.status, 429);

    assert_eq!(tunnels.requests().len(), 1, "{:?}", tunnels.requests());
    // The blob is there by then, and clear.test only has to show it.
    let proof = format!("HEAD {}/v2/x/blobs/{digest}", clear.url());
    assert_eq!(requests.requests(), [proof]);
}

/// Why a proxy is of no use stands in the answer; what it was shown stands nowhere.
#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_that_refuses_is_named_without_its_password() {
    let ca = TestCa::new();
    let (https, http) =
        (named("registry.test", Some(&ca)).await, named("registry.test", None).await);
    let (picky, ignorant) = (TestProxy::with_login("me:right").await, TestProxy::start().await);
    let down = address::unique();
    let table = [
        (
            &https,
            picky.url_for("me:s3cret"),
            "407 Proxy Authentication Required to CONNECT; write a right user:password@",
        ),
        (&http, picky.url_for("me:s3cret"), "407 Proxy Authentication Required"),
        (&https, ignorant.url_for("me:s3cret"), "407 Proxy Authentication Required to CONNECT"),
        (&https, ignorant.url(), "502 Bad Gateway to CONNECT"),
        (&http, ignorant.url(), "502 Bad Gateway"),
        (&https, format!("http://me:s3cret@{down}"), "tcp connect error"),
        (&http, format!("http://me:s3cret@{down}"), "tcp connect error"),
    ];
    for (registry, url, problem) in table {
        let mirror = mirror_through(&url, registry).start().await;
        let answer = mirror.get(&manifest_path("library/x", "latest")).await;
        assert_eq!(answer.status, 502, "{answer:?}");
        let text = String::from_utf8(answer.bytes().await.to_vec()).unwrap();
        assert!(text.contains(problem), "{url}: {text}");
        assert!(!text.contains("s3cret"), "{text}");
    }
    assert!(https.requests().is_empty() && http.requests().is_empty());
}

/// The log at its most talkative, the API and the metrics know no password of a proxy.
#[tokio::test(flavor = "multi_thread")]
async fn a_proxys_password_is_shown_nowhere() {
    let registry = named("registry.test", Some(&TestCa::new())).await;
    let proxy = TestProxy::with_login("me:right").await;
    let mirror = mirror_through(&proxy.url_for("me:s3cret"), &registry).set("log.level", "trace");
    let daemon = Daemon::start(mirror).await;
    assert_eq!(daemon.client().get(&manifest_path("library/x", "latest")).await.status, 502);
    let mut texts = daemon.log();
    for path in ["/api/v1/upstreams", "/metrics"] {
        let bytes = daemon.admin().get(path).await.bytes().await;
        texts += std::str::from_utf8(&bytes).unwrap();
    }
    assert!(texts.contains("registry.test"));
    // The second is me:s3cret as the proxy is shown it.
    for secret in ["s3cret", "bWU6czNjcmV0"] {
        assert!(!texts.contains(secret), "{texts}");
    }
}

/// A proxy resolves names, but no registry chooses addresses of its machine or its network for it.
#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_is_not_sent_inwards() {
    let registry = named("registry.test", None).await;
    let proxy = TestProxy::start().await;
    proxy.lead_to(&registry);
    let mirror = mirror_through(&proxy.url(), &registry).start().await;
    let targets = [
        "http://127.0.0.1/x",
        "http://169.254.169.254/latest",
        "http://10.0.0.1/x",
        "http://[::1]/x",
        "http://[::ffff:a9fe:a9fe]/x",
        "http://localhost/x",
        "http://a.localhost./x",
        "http://2130706433/x",
    ];
    for target in targets {
        registry.on("HEAD", "/v2/library/x/*", Fault::status(307).header("location", target));
        registry.on("GET", "/v2/library/x/*", Fault::status(307).header("location", target));
        let text = message(&mirror, &manifest_path("library/x", "latest")).await;
        assert!(text.contains("is never asked on behalf of registry.test"), "{target}: {text}");
    }
    let asked = proxy.requests();
    assert!(asked.iter().all(|line| line.contains("registry.test")), "{asked:?}");
}

/// Larder as its own proxy would go round in a circle.
#[tokio::test(flavor = "multi_thread")]
async fn larder_is_not_its_own_proxy() {
    let registry = named("registry.test", None).await;
    let own = address::unique();
    let mirror = mirror_through(&format!("http://{own}"), &registry)
        .set("listen", vec![own.to_string()])
        .start()
        .await;
    let text = message(&mirror, &manifest_path("library/x", "latest")).await;
    assert!(text.contains("Larder's own address"), "{text}");
}

/// A variable that another program's users set does not keep Larder from serving; nor does Larder go
/// around the proxy that was meant.
#[tokio::test(flavor = "multi_thread")]
async fn a_variable_that_is_no_proxy_stops_only_what_needs_it() {
    let (far, near) = (named("far.test", None).await, FakeRegistry::start().await);
    let blob = random_bytes(5, 1_000);
    let digest = near.put_blob("x", &blob);
    let mirror = TestMirror::builder()
        .upstream(Upstream::named("far.test", &far))
        .upstream(Upstream::named("near.test", &near));
    let variables = [("ALL_PROXY", "socks5://me:s3cret@127.0.0.1:1080")];
    let daemon = Daemon::start_with(mirror, &variables).await;
    daemon.client().get(&blob_url("near.test/x", &digest)).await.expect(&blob).await;
    let answer = daemon.client().get(&manifest_path("far.test/x", "latest")).await;
    let text = String::from_utf8(answer.bytes().await.to_vec()).unwrap();
    let expected = "ALL_PROXY: names a proxy that does not speak HTTP; write for example http://";
    assert!(text.contains(expected), "{text}");
    assert!(daemon.log().contains(expected) && !daemon.log().contains("s3cret"));

    let checked = binary::run(&["check"], &variables);
    assert_eq!(checked.code, Some(0), "{checked:?}");
    assert!(checked.output.contains(&format!("warning: {expected}")), "{checked:?}");
}
