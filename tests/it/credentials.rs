//! Where credentials come from, which repository gets which, and what happens when they change.

use std::fs;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use futures_util::future::join_all;
use serde_json::json;
use tempfile::TempDir;
use toml::{Table, Value};

use crate::support::{
    Auth, FakeRegistry, Fault, Image, TestMirror, Upstream,
    binary::Daemon,
    helper::Helpers,
    mirror::{blob_url, manifest_path},
    sha256,
    wait::until,
};

/// One `[[upstream.credentials]]`.
fn credentials_of(prefix: &str, username: &str, password: &str) -> Value {
    let keys = [("prefix", prefix), ("username", username), ("password", password)];
    Table::from_iter(keys.map(|(key, value)| (key.to_owned(), value.into()))).into()
}

/// A registry that wants `auth`, with an image in each of these repositories.
async fn registry_with(auth: Auth, repositories: &[&str]) -> (FakeRegistry, Image) {
    let registry = FakeRegistry::builder().auth(auth).start().await;
    let image = Image::random(1);
    for repository in repositories {
        registry.put_image(repository, "latest", &image);
    }
    (registry, image)
}

/// Each repository is asked for with its own account and no other's token.
#[tokio::test(flavor = "multi_thread")]
async fn the_longest_prefix_of_the_name_decides() {
    let accounts = &[
        ("team/app", "app", "one"),
        ("team/other", "team", "two"),
        ("teamster/app", "all", "three"),
    ];
    let repositories = accounts.map(|(repository, ..)| repository);
    let (registry, image) = registry_with(Auth::PasswordTokenOf(accounts), &repositories).await;
    let entries =
        vec![credentials_of("team", "team", "two"), credentials_of("team/app", "app", "one")];
    let upstream =
        Upstream::docker_io(&registry).credentials("all", "three").set("credentials", entries);
    let mirror = TestMirror::builder().upstream(upstream).start().await;
    for repository in repositories {
        mirror.pull(repository, "latest", &image).await;
    }
    assert_eq!(registry.count("GET", "/token"), 3);
}

/// Where only some repositories have credentials, a registry that was believed anonymously cannot
/// have those of others sent to a stranger.
#[tokio::test(flavor = "multi_thread")]
async fn a_realm_that_an_anonymous_pull_led_to_is_not_trusted_with_a_password() {
    let thief = FakeRegistry::start().await;
    let realm = format!("{}/token", thief.url());
    let (registry, image) = registry_with(Auth::ForeignRealm(realm), &["open/x", "team/x"]).await;
    let upstream = Upstream::docker_io(&registry)
        .set("credentials", vec![credentials_of("team", "anna", "secret")]);
    let mirror = TestMirror::builder().upstream(upstream).start().await;
    for repository in ["open/x", "team/x"] {
        let answer = mirror.get(&blob_url(repository, &sha256(&image.config))).await;
        assert_ne!(answer.status, 200);
    }
    assert!(!thief.requests().is_empty());
    assert!(thief.requests().iter().all(|request| request.header("authorization").is_none()));
    assert!(thief.requests().iter().all(|request| !request.query.contains("anna")));
}

/// Whoever rotates a password writes its file, and no more.
#[tokio::test(flavor = "multi_thread")]
async fn a_password_is_read_again_when_it_is_refused_or_its_file_has_changed() {
    let (registry, image) = registry_with(Auth::Basic("anna", "one"), &["library/x"]).await;
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("password");
    fs::write(&file, "one\n").unwrap();
    let upstream = Upstream::docker_io(&registry)
        .set("username", "anna")
        .set("password_file", file.to_str().unwrap());
    let mirror = TestMirror::builder().upstream(upstream).start().await;
    mirror.pull_blob("library/x", &sha256(&image.config)).await;

    registry.set_auth(Auth::Basic("anna", "second"));
    fs::write(&file, "second\n").unwrap();
    mirror.pull_blob("library/x", &sha256(&image.layers[0])).await;

    // A file that is gone is no reason to be nobody.
    fs::remove_file(&file).unwrap();
    mirror.pull_blob("library/x", &sha256(&image.layers[1])).await;

    // Nor does a change wait for a refusal.
    registry.set_auth(Auth::Open);
    fs::write(&file, "third\n").unwrap();
    let mut number = 0;
    until("the new password", async || {
        number += 1;
        mirror.get(&manifest_path("library/x", &format!("unknown-{number}"))).await;
        let asked = registry.requests();
        asked.last().unwrap().header("authorization") == Some("Basic YW5uYTp0aGlyZA==")
    })
    .await;
}

/// An entry of Docker's `auths`.
fn auth(username: &str, password: &str) -> serde_json::Value {
    json!({ "auth": BASE64_STANDARD.encode(format!("{username}:{password}")) })
}

/// Docker's file, Podman's and the one in a Kubernetes secret are one.
#[tokio::test(flavor = "multi_thread")]
async fn docker_config_has_credentials_by_host_and_namespace() {
    let accounts = &[("team/app", "app", "one"), ("team/other", "team", "two"), ("x", "all", "3")];
    let repositories = accounts.map(|(repository, ..)| repository);
    let (registry, image) = registry_with(Auth::PasswordTokenOf(accounts), &repositories).await;
    let host = registry.address();
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("config.json");
    let auths = json!({
        format!("http://{host}/v2/"): auth("all", "3"),
        format!("{host}/team"): auth("team", "two"),
        format!("{host}/team/app"): auth("app", "one"),
        "quay.io": auth("nobody", "wrong"),
    });
    fs::write(&file, json!({ "auths": auths }).to_string()).unwrap();
    let upstream =
        Upstream::named("corp.test", &registry).set("docker_config", file.to_str().unwrap());
    let mirror = TestMirror::builder().upstream(upstream).start().await;
    for repository in repositories {
        mirror.pull(&format!("corp.test/{repository}"), "latest", &image).await;
    }
}

/// The file's other kinds of secret; a change of it is seen, and what is no such file changes nothing.
#[tokio::test(flavor = "multi_thread")]
async fn docker_config_holds_tokens_too_and_is_read_again() {
    let (registry, image) = registry_with(Auth::IdentityToken("identity"), &["a/b"]).await;
    let host = registry.address().to_string();
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("auth.json");
    let write = |entry: serde_json::Value| {
        fs::write(&file, json!({ "auths": { &host: entry } }).to_string()).unwrap();
    };
    write(json!({ "auth": "YW5uYTo=", "identitytoken": "identity" }));
    let upstream =
        Upstream::named("corp.test", &registry).set("docker_config", file.to_str().unwrap());
    let daemon = Daemon::start(TestMirror::builder().upstream(upstream)).await;
    let client = daemon.client();
    let pull = async |blob: &bytes::Bytes| {
        let path = blob_url("corp.test/a/b", &sha256(blob));
        client.get(&path).await.expect(blob).await;
    };
    pull(&image.config).await;
    assert_eq!(registry.count("POST", "/token"), 1);

    registry.set_auth(Auth::RegistryToken("registry"));
    write(json!({ "registrytoken": "registry" }));
    pull(&image.layers[0]).await;

    fs::write(&file, "{ \"auths\": registry").unwrap();
    pull(&image.layers[1]).await;
    let mut number = 0;
    until("the warning", async || {
        number += 1;
        client.get(&manifest_path("corp.test/a/b", &format!("unknown-{number}"))).await;
        daemon.log().contains("going on with what it held before")
    })
    .await;
    assert!(!daemon.log().contains("registry\""), "{}", daemon.log());
}

/// However many pull, a helper runs once, is told the server, and again when its answer is refused.
#[tokio::test(flavor = "multi_thread")]
async fn a_helper_runs_once_and_again_when_it_is_refused() {
    let (registry, image) = registry_with(Auth::Basic("AWS", "one"), &["a/b"]).await;
    let helpers = Helpers::new();
    helpers.put_user("test", "AWS", "one");
    let upstream = Upstream::named("corp.test", &registry).set("credential_helper", "test");
    let daemon = helpers.daemon(TestMirror::builder().upstream(upstream)).await;
    let client = daemon.client();
    let pulls = image.blobs().take(2).map(async |blob| {
        client.get(&blob_url("corp.test/a/b", &sha256(blob))).await.expect(blob).await;
    });
    join_all(pulls).await;
    assert_eq!(helpers.runs("test"), [format!("get {}", registry.address())]);

    // The token has expired, and was replaced.
    registry.set_auth(Auth::Basic("AWS", "two"));
    helpers.put_user("test", "AWS", "two");
    client.get(&manifest_path("corp.test/a/b", "latest")).await.expect(&image.manifest).await;
    assert_eq!(helpers.runs("test").len(), 2);

    // What is refused for good does not run it over and over.
    registry.set_auth(Auth::Basic("AWS", "three"));
    for number in 0..3 {
        let path = manifest_path("corp.test/a/b", &format!("unknown-{number}"));
        assert_eq!(client.get(&path).await.status, 404);
    }
    assert_eq!(helpers.runs("test").len(), 2);
    assert!(!daemon.log().contains("two"), "{}", daemon.log());
}

/// That a token server refuses somebody a right, or is asked for too much, is no reason to doubt what
/// a helper has just said.
#[tokio::test(flavor = "multi_thread")]
async fn a_helper_does_not_run_again_when_only_a_right_is_missing() {
    let auth = Auth::PasswordToken("anna", "one");
    for status in [400, 403] {
        let (registry, _) = registry_with(auth.clone(), &["a/b"]).await;
        let explained = Fault::status(status).body(r#"{"message":"no"}"#);
        registry.on("GET", "/token", explained.header("content-type", "application/json"));
        let helpers = Helpers::new();
        helpers.put_user("test", "anna", "one");
        let upstream = Upstream::named("corp.test", &registry).set("credential_helper", "test");
        let daemon = helpers.daemon(TestMirror::builder().upstream(upstream)).await;
        let path = manifest_path("corp.test/a/b", "latest");
        assert_eq!(daemon.client().get(&path).await.status, 404);
        assert_eq!(helpers.runs("test").len(), 1, "{status}");
    }
}

/// However many images a wrong password is used for, it is tried seldom; a better one in its file is
/// tried at once.
#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_does_not_lock_the_account() {
    let (registry, image) = registry_with(Auth::PasswordToken("anna", "one"), &["a/b"]).await;
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("password");
    fs::write(&file, "wrong\n").unwrap();
    let upstream = Upstream::docker_io(&registry)
        .set("username", "anna")
        .set("password_file", file.to_str().unwrap());
    let mirror = TestMirror::builder().upstream(upstream).start().await;
    for number in 0..5 {
        let path = manifest_path(&format!("a/b{number}"), "latest");
        assert_eq!(mirror.get(&path).await.status, 404);
    }
    assert_eq!(registry.count("GET", "/token"), 1);

    fs::write(&file, "one\n").unwrap();
    mirror.pull("a/b", "latest", &image).await;
}

/// What a helper said is asked again after `helper_ttl`.
#[tokio::test(flavor = "multi_thread")]
async fn a_helper_runs_again_when_its_answer_is_old() {
    let (registry, _) = registry_with(Auth::IdentityToken("identity"), &["a/b"]).await;
    let helpers = Helpers::new();
    helpers.put_user("test", "<token>", "identity");
    let upstream = Upstream::named("corp.test", &registry)
        .set("credential_helper", "test")
        .set("helper_ttl", "1ms");
    let daemon = helpers.daemon(TestMirror::builder().upstream(upstream)).await;
    let mut number = 0;
    until("three runs", async || {
        number += 1;
        let path = manifest_path("corp.test/a/b", &format!("unknown-{number}"));
        assert_eq!(daemon.client().get(&path).await.status, 404);
        helpers.runs("test").len() >= 3
    })
    .await;
    // The same answer is the same identity, whose token is still good.
    assert_eq!(registry.count("POST", "/token"), 1);
}

/// A helper that fails says nothing against what it said before, and the registry decides on that.
#[tokio::test(flavor = "multi_thread")]
async fn a_helper_that_fails_later_leaves_what_it_said() {
    let (registry, image) = registry_with(Auth::Basic("anna", "one"), &["a/b"]).await;
    let helpers = Helpers::new();
    helpers.put_user("test", "anna", "one");
    let upstream = Upstream::named("corp.test", &registry)
        .set("credential_helper", "test")
        .set("helper_ttl", "1ms");
    let daemon = helpers.daemon(TestMirror::builder().upstream(upstream)).await;
    let get = async |blob: &bytes::Bytes| {
        daemon.client().get(&blob_url("corp.test/a/b", &sha256(blob))).await
    };
    get(&image.config).await.expect(&image.config).await;
    helpers.put("test", "exit 3");
    get(&image.layers[0]).await.expect(&image.layers[0]).await;
    let warning = "going on with what it said before";
    until(warning, async || daemon.log().contains(warning)).await;

    // What is refused is not kept.
    registry.set_auth(Auth::Basic("anna", "two"));
    assert_eq!(get(&image.layers[1]).await.status, 404);
    let asked = registry.requests();
    assert_eq!(asked.last().unwrap().header("authorization"), None);
}

/// A helper that names nobody is no obstacle to a pull that needs nobody, and is told of once.
#[tokio::test(flavor = "multi_thread")]
async fn a_helper_that_fails_is_nobody_and_one_warning() {
    let ways = [
        ("echo 'credentials not found in native keychain'; exit 1", "no credentials"),
        ("echo s3cret; exit 3", "exit status: 3"),
        ("echo s3cret", "makes no sense"),
        ("echo '{\"Username\":\"s3cret\"}'", "makes no sense"),
        ("kill -9 $$", "signal: 9"),
        ("exec yes", "signal: 13"),
        ("exec sleep 1000", "no answer in 10 s"),
        ("sleep 1000 & wait", "no answer in 10 s"),
    ];
    join_all(ways.map(|(what, complaint)| assert_nobody(what, complaint))).await;
}

async fn assert_nobody(what: &str, complaint: &str) {
    let (registry, image) = registry_with(Auth::AnonymousToken, &["a/b"]).await;
    let helpers = Helpers::new();
    helpers.put("test", what);
    let upstream = Upstream::named("corp.test", &registry).set("credential_helper", "test");
    let daemon = helpers.daemon(TestMirror::builder().upstream(upstream)).await;
    for blob in image.blobs() {
        let path = blob_url("corp.test/a/b", &sha256(blob));
        daemon.client().get(&path).await.expect(blob).await;
    }
    let log = daemon.log();
    assert_eq!(log.matches("docker-credential-test").count(), 1, "{what}: {log}");
    assert!(log.contains(complaint) && !log.contains("s3cret"), "{what}: {log}");
}

/// Nothing that a helper has started outlives the daemon.
#[tokio::test(flavor = "multi_thread")]
async fn a_helper_ends_with_the_daemon() {
    let registry = FakeRegistry::start().await;
    let helpers = Helpers::new();
    let note = helpers.path().join("process");
    let what = format!("sleep 1000 &\necho $! > '{}'\nwait", note.display());
    helpers.put("test", &what);
    let upstream = Upstream::named("corp.test", &registry).set("credential_helper", "test");
    let mut daemon = helpers.daemon(TestMirror::builder().upstream(upstream)).await;
    let client = daemon.client();
    let number = async || fs::read_to_string(&note).is_ok_and(|number| number.ends_with('\n'));
    tokio::select! {
        _ = client.get("/v2/corp.test/a/b/manifests/latest") => panic!("the helper ended"),
        () = until("the helper", number) => {}
    }
    daemon.signal("TERM");
    daemon.signal("TERM");
    daemon.ended().await;
    let number = fs::read_to_string(&note).unwrap();
    // Whoever inherited it need not have asked how it ended.
    let status = format!("/proc/{}/status", number.trim());
    until("its end", async || {
        fs::read_to_string(&status).map_or(true, |status| status.contains("State:\tZ"))
    })
    .await;
}

/// A helper that is not there is one, too; that of one host is not asked for another.
#[tokio::test(flavor = "multi_thread")]
async fn docker_config_names_helpers() {
    let (registry, image) = registry_with(Auth::Basic("anna", "one"), &["a/b"]).await;
    let (open, _) = registry_with(Auth::Open, &["a/b"]).await;
    let helpers = Helpers::new();
    helpers.put_user("test", "anna", "one");
    let file = helpers.path().join("config.json");
    let host = registry.address().to_string();
    let config = json!({ "credHelpers": { host: "test" }, "credsStore": "missing" });
    fs::write(&file, config.to_string()).unwrap();
    let file = file.to_str().unwrap();
    let own = Upstream::named("corp.test", &registry).set("docker_config", file);
    let other = Upstream::named("open.test", &open).set("docker_config", file);
    let daemon = helpers.daemon(TestMirror::builder().upstream(own).upstream(other)).await;
    for registry in ["corp.test", "open.test"] {
        let path = blob_url(&format!("{registry}/a/b"), &sha256(&image.config));
        daemon.client().get(&path).await.expect(&image.config).await;
    }
    assert_eq!(helpers.runs("test").len(), 1);
    assert_eq!(daemon.log().matches("docker-credential-missing").count(), 1);
}
