//! Tokens and passwords reach those they are meant for, and redirects lead nowhere they should
//! not.

use std::{fs, net::SocketAddr, time::Duration};

use bytes::Bytes;
use futures_util::future::join_all;
use larder::oci::Digest;
use toml::{Table, Value};

use crate::support::{
    Auth, FakeRegistry, Fault, Image, Mode, TestMirror, Upstream,
    binary::Daemon,
    mirror::{blob_url, manifest_path},
    random_bytes, sha256,
    tls::TestCa,
};

/// A registry that wants `auth`, with an image in `library/x`.
async fn guarded(auth: Auth) -> (FakeRegistry, Image) {
    let registry = FakeRegistry::builder().auth(auth).start().await;
    let image = Image::random(1);
    registry.put_image("library/x", "latest", &image);
    (registry, image)
}

async fn mirror_with(upstream: Upstream) -> TestMirror {
    TestMirror::builder().upstream(upstream).start().await
}

/// Docker Hub wants a token of everyone.
#[tokio::test(flavor = "multi_thread")]
async fn an_anonymous_token_is_fetched_and_shared() {
    let (registry, image) = guarded(Auth::AnonymousToken).await;
    let mirror = TestMirror::of(&registry).await;
    mirror.pull("library/x", "latest", &image).await;
    assert_eq!(registry.count("GET", "/token"), 1);
    let asked = registry.requests();
    let token = asked.iter().find(|request| request.path == "/token").unwrap();
    assert_eq!(token.query_values("scope").collect::<Vec<_>>(), ["repository:library/x:pull"]);
    assert_eq!(token.header("authorization"), None);
}

/// A hundred clients on a cold mirror cost one token.
#[tokio::test(flavor = "multi_thread")]
async fn one_token_request_serves_all_who_wait() {
    let (registry, _) = guarded(Auth::AnonymousToken).await;
    registry.on("GET", "/token", Fault::delay(Duration::from_millis(300)));
    let blobs: Vec<Bytes> = (0..20).map(|seed| random_bytes(seed, 1_000)).collect();
    let digests: Vec<Digest> =
        blobs.iter().map(|blob| registry.put_blob("library/x", blob)).collect();
    let mirror = TestMirror::of(&registry).await;
    join_all(digests.iter().map(|digest| mirror.pull_blob("library/x", digest))).await;
    assert_eq!(registry.count("GET", "/token"), 1);
}

/// Name and password are shown to the registry's own token server.
#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_given_for_a_password() {
    let (registry, image) = guarded(Auth::PasswordToken("anna", "secret")).await;
    let mirror = mirror_with(Upstream::docker_io(&registry).credentials("anna", "secret")).await;
    mirror.pull("library/x", "latest", &image).await;
}

/// A challenge that brings no token, such as that of a proxy which steps in for a moment, is forgotten
/// with the request it answers.
#[tokio::test(flavor = "multi_thread")]
async fn a_challenge_that_leads_nowhere_is_not_remembered() {
    let stranger = FakeRegistry::start().await;
    let challenge = format!("Bearer realm=\"{}/nowhere\"", stranger.url());
    for (auth, credentials) in [
        (Auth::AnonymousToken, None),
        (Auth::PasswordToken("anna", "secret"), Some(("anna", "secret"))),
    ] {
        let (registry, image) = guarded(auth).await;
        let upstream = Upstream::docker_io(&registry);
        let upstream = match credentials {
            Some((user, password)) => upstream.credentials(user, password),
            None => upstream,
        };
        let mirror = mirror_with(upstream).await;
        let path = manifest_path("library/x", "latest");
        let refusal = Fault::status(401).header("www-authenticate", &challenge);
        registry.once("GET", &path, refusal);
        assert_ne!(mirror.get(&path).await.status, 200);
        // What was not found is believed for ten seconds.
        mirror.advance(Duration::from_secs(11));
        mirror.pull("library/x", "latest", &image).await;
    }
}

/// An identity token is traded for an access token by POST.
#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_given_for_an_identity_token() {
    let (registry, image) = guarded(Auth::IdentityToken("identity")).await;
    let mirror =
        mirror_with(Upstream::docker_io(&registry).credentials("<token>", "identity")).await;
    mirror.pull("library/x", "latest", &image).await;
    assert_eq!(registry.count("POST", "/token"), 1);
}

/// Some registries know no tokens.
#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_wants_basic_gets_it() {
    let (registry, image) = guarded(Auth::Basic("anna", "secret")).await;
    let mirror = mirror_with(Upstream::docker_io(&registry).credentials("anna", "secret")).await;
    mirror.pull("library/x", "latest", &image).await;
}

/// Artifactory and its like keep a registry below a path, which is part of the token's scope.
#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_with_a_path_is_a_prefix_of_names() {
    let auth = Auth::AnonymousToken;
    let registry = FakeRegistry::builder().auth(auth).start().await;
    let image = Image::random(4);
    registry.put_image("docker-remote/library/x", "latest", &image);
    let endpoint = format!("{}/docker-remote", registry.url());
    let upstream = Upstream::docker_io(&registry).set("endpoints", vec![endpoint]);
    let mirror = mirror_with(upstream).await;
    mirror.pull("library/x", "latest", &image).await;
}

/// A token that just expired is renewed, once.
#[tokio::test(flavor = "multi_thread")]
async fn an_expired_token_is_renewed_once() {
    let (registry, image) = guarded(Auth::AnonymousToken).await;
    let mirror = TestMirror::of(&registry).await;
    let first = mirror.pull_blob("library/x", &sha256(&image.layers[0])).await;
    assert_eq!(first, image.layers[0]);
    registry.expire_tokens();
    let second = mirror.pull_blob("library/x", &sha256(&image.layers[1])).await;
    assert_eq!(second, image.layers[1]);
    assert_eq!(registry.count("GET", "/token"), 2);
}

/// A token that is never good enough is not asked for again and again.
#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_does_not_help_is_renewed_no_more_than_once() {
    let (registry, image) = guarded(Auth::AnonymousToken).await;
    registry.deny("library/x", 401);
    let mirror = TestMirror::of(&registry).await;
    let path = blob_url("library/x", &sha256(&image.config));
    assert_eq!(mirror.get(&path).await.status, 404);
    assert!(registry.count("GET", "/token") <= 2);
    assert!(registry.count("GET", &path) <= 3);
}

/// The CDN that a registry redirects to gets no token: S3 answers 400 to two authorizations.
#[tokio::test(flavor = "multi_thread")]
async fn a_redirect_to_another_host_takes_no_authorization_along() {
    let ca = TestCa::new();
    let cdn = FakeRegistry::builder().tls(&ca).start().await;
    let auth = Auth::PasswordToken("anna", "secret");
    let registry = FakeRegistry::builder().tls(&ca).auth(auth).start().await;
    let image = Image::random(2);
    registry.put_image("library/x", "latest", &image);
    registry.redirect_blobs_to(&cdn);
    let mirror = mirror_with(Upstream::docker_io(&registry).credentials("anna", "secret")).await;

    mirror.pull("library/x", "latest", &image).await;
    assert!(cdn.requests().len() >= 3);
    for request in cdn.requests() {
        assert_eq!(request.header("authorization"), None, "{request:?}");
        assert_eq!(request.header("cookie"), None, "{request:?}");
    }
}

/// A registry cannot send the password to a token server of its choice.
#[tokio::test(flavor = "multi_thread")]
async fn credentials_are_not_shown_to_a_foreign_realm() {
    let thief = FakeRegistry::start().await;
    let realm = format!("{}/token", thief.url());
    let (registry, image) = guarded(Auth::ForeignRealm(realm)).await;
    let mirror = mirror_with(Upstream::docker_io(&registry).credentials("anna", "secret")).await;
    let response = mirror.get(&blob_url("library/x", &sha256(&image.config))).await;
    assert_ne!(response.status, 200);
    assert_eq!(response.header("www-authenticate"), None);
    assert_eq!(thief.requests().len(), 0);
}

/// The operator may say that a foreign realm is to be trusted.
#[tokio::test(flavor = "multi_thread")]
async fn credentials_are_shown_to_a_trusted_realm() {
    let friend = FakeRegistry::start().await;
    let realm = format!("{}/token", friend.url());
    let (registry, image) = guarded(Auth::ForeignRealm(realm)).await;
    let upstream = Upstream::docker_io(&registry)
        .credentials("anna", "secret")
        .set("trusted_realms", vec![friend.address().ip().to_string()]);
    let mirror = mirror_with(upstream).await;
    mirror.get(&blob_url("library/x", &sha256(&image.config))).await;
    assert!(friend.count("GET", "/token") >= 1);
    assert!(friend.requests()[0].header("authorization").is_some());
}

/// A blob of `registry` that answers with a redirect to `location`, asked through `mirror`.
async fn assert_not_followed(registry: &FakeRegistry, mirror: &TestMirror, location: &str) {
    let path = blob_url("library/x", &sha256(location.as_bytes()));
    for method in ["GET", "HEAD"] {
        registry.on(method, &path, Fault::status(307).header("location", location));
    }
    let response = mirror.get(&path).await;
    assert!(matches!(response.status, 404 | 429), "{location}: {response:?}");
    assert!(response.elapsed() < Duration::from_secs(3), "{location}: dialled?");
}

/// A registry cannot make the mirror fetch what only the mirror can reach. What one beyond
/// loopback may not reach takes a network to show here; `upstream/guard.rs` tells it by address.
#[tokio::test(flavor = "multi_thread")]
async fn a_redirect_to_a_forbidden_address_is_not_followed() {
    let registry = FakeRegistry::start().await;
    let loopback = SocketAddr::from(([127, 0, 0, 1], 0));
    let everywhere = FakeRegistry::builder().address(loopback).start().await;
    let port = everywhere.address().port();
    let mirror = TestMirror::of(&registry).await;

    for location in [
        "http://169.254.169.254/latest/meta-data/",
        "http://[::ffff:169.254.169.254]/latest/meta-data/",
        "http://[fe80::1]/",
        &format!("http://0.0.0.0:{port}/"),
        &format!("http://[::]:{port}/"),
    ] {
        assert_not_followed(&registry, &mirror, location).await;
    }
    assert_eq!(everywhere.requests().len(), 0);
}

/// Nor can it make the mirror ask itself.
#[tokio::test(flavor = "multi_thread")]
async fn a_redirect_to_the_mirror_itself_is_not_followed() {
    let registry = FakeRegistry::start().await;
    let mirror = TestMirror::of(&registry).await;
    let own = format!("http://{}/v2/", mirror.address());
    let admin = format!("http://{}/metrics", mirror.admin().address());
    for location in [own, admin] {
        assert_not_followed(&registry, &mirror, &location).await;
    }
    assert_eq!(mirror.metric("larder_requests_total").await, 2.0);
}

/// What began under TLS does not go on without.
#[tokio::test(flavor = "multi_thread")]
async fn a_redirect_from_https_to_http_is_not_followed() {
    let plain = FakeRegistry::start().await;
    let registry = FakeRegistry::builder().tls(&TestCa::new()).start().await;
    let mirror = TestMirror::of(&registry).await;
    assert_not_followed(&registry, &mirror, &plain.url()).await;
    assert_eq!(plain.requests().len(), 0);
}

/// A registry whose certificate nobody vouches for is not believed.
#[tokio::test(flavor = "multi_thread")]
async fn an_untrusted_certificate_is_not_accepted() {
    let registry = FakeRegistry::builder().tls(&TestCa::new()).start().await;
    let blob = random_bytes(3, 100);
    let digest = registry.put_blob("library/x", &blob);
    let mirror = mirror_with(Upstream::docker_io(&registry).without_ca()).await;
    assert_eq!(mirror.get(&blob_url("library/x", &digest)).await.status, 429);
    assert_eq!(registry.requests().len(), 0);
}

/// Whom the system trusts is trusted, and whom `ca` names besides.
#[tokio::test(flavor = "multi_thread")]
async fn the_systems_authorities_are_trusted_and_those_of_ca() {
    let (systems, own) = (TestCa::new(), TestCa::new());
    let hub = FakeRegistry::builder().tls(&systems).start().await;
    let quay = FakeRegistry::builder().tls(&own).start().await;
    let blob = random_bytes(5, 1_000);
    let digest = hub.put_blob("library/x", &blob);
    quay.put_blob("org/app", &blob);
    let directory = tempfile::tempdir().unwrap();
    let bundle = directory.path().join("bundle.pem");
    fs::write(&bundle, systems.pem()).unwrap();

    let mirror = TestMirror::builder()
        .upstream(Upstream::docker_io(&hub).without_ca())
        .upstream(Upstream::named("quay.io", &quay));
    let bundle = [("SSL_CERT_FILE", bundle.to_str().unwrap())];
    let daemon = Daemon::start_with(mirror, &bundle).await;
    for repository in ["library/x", "quay.io/org/app"] {
        daemon.client().get(&blob_url(repository, &digest)).await.expect(&blob).await;
    }
}

/// A system without authorities, such as an empty container, gets the bundled ones.
#[tokio::test(flavor = "multi_thread")]
async fn without_authorities_of_the_system_the_bundled_ones_are_trusted() {
    let registry = FakeRegistry::builder().tls(&TestCa::new()).start().await;
    let blob = random_bytes(6, 1_000);
    let digest = registry.put_blob("library/x", &blob);
    let directory = tempfile::tempdir().unwrap();
    let bundle = directory.path().join("bundle.pem");
    fs::write(&bundle, "").unwrap();
    let no_directory = directory.path().join("none");
    let variables = [
        ("SSL_CERT_FILE", bundle.to_str().unwrap()),
        ("SSL_CERT_DIR", no_directory.to_str().unwrap()),
    ];
    let mirror = TestMirror::builder().upstream(Upstream::docker_io(&registry));
    let daemon = Daemon::start_with(mirror, &variables).await;
    daemon.client().get(&blob_url("library/x", &digest)).await.expect(&blob).await;
    assert!(daemon.log().contains("using the bundled ones"), "{}", daemon.log());
}

/// The next endpoint steps in, with authorities and credentials that are its own.
#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_has_authorities_and_credentials_of_its_own() {
    let ca = TestCa::new();
    let backup = FakeRegistry::builder().tls(&ca).auth(Auth::Basic("anna", "secret")).start().await;
    let image = Image::random(7);
    backup.put_image("library/x", "latest", &image);
    let first = FakeRegistry::start().await;
    first.set_mode(Mode::Down).await;
    let directory = tempfile::tempdir().unwrap();
    let mut endpoint = Table::from_iter([("url".to_owned(), backup.url().into())]);
    endpoint.insert("username".to_owned(), "anna".into());
    for (key, content) in [("ca", ca.pem()), ("password_file", "secret\n".to_owned())] {
        let file = directory.path().join(key);
        fs::write(&file, content).unwrap();
        endpoint.insert(key.to_owned(), file.to_str().unwrap().into());
    }

    let endpoints = vec![Value::from(first.url()), endpoint.into()];
    let mirror = mirror_with(Upstream::docker_io(&first).set("endpoints", endpoints)).await;
    mirror.pull("library/x", "latest", &image).await;
}

/// Connections are kept for the next request: a handshake each would cost more than a manifest.
#[tokio::test(flavor = "multi_thread")]
async fn connections_are_used_again() {
    let registry = FakeRegistry::builder().tls(&TestCa::new()).start().await;
    let mirror = TestMirror::of(&registry).await;
    for number in 0..20 {
        let path = manifest_path("library/x", &format!("unknown-{number}"));
        assert_eq!(mirror.get(&path).await.status, 404);
    }
    let (requests, connections) = (registry.requests().len(), registry.connections());
    assert!(requests >= 20 && connections <= 5, "{connections} for {requests} requests");
}
