//! Where credentials come from, which repository gets which, and what happens when they change.

use std::fs;

use tempfile::TempDir;
use toml::{Table, Value};

use crate::support::{
    Auth, FakeRegistry, Image, TestMirror, Upstream,
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
