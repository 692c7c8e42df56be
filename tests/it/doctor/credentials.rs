//! Which source of credentials answers, by its name and without its secret.

use std::fs;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde_json::json;
use tempfile::TempDir;
use toml::{Table, Value};

use super::{Report, SECRET};
use crate::support::{
    Auth, FakeRegistry, Image, TestMirror, Upstream, helper::Helpers, mirror::CONFIG,
};

/// What says who Larder is, and what doctor says of it.
struct Case {
    keys: Vec<(&'static str, Value)>,
    want: String,
}

fn case<const N: usize>(keys: [(&'static str, &str); N], want: String) -> Case {
    Case { keys: keys.map(|(key, value)| (key, value.into())).to_vec(), want }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_source_that_answers_is_named() {
    let registry = FakeRegistry::builder().auth(Auth::PasswordToken("robot", SECRET)).start().await;
    registry.put_image("team/app", "1", &Image::random(1));
    let host = registry.address().to_string();
    let helpers = Helpers::new();
    helpers.put_user("corp", "robot", SECRET);
    helpers.put("lost", "echo 'credentials not found in native keychain'; exit 1");
    helpers.put("broken", "exit 3");
    let directory = TempDir::new().unwrap();
    let write = |name: &str, text: String| {
        let path = directory.path().join(name);
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let password_file = write("password", SECRET.to_owned());
    let auth = BASE64_STANDARD.encode(format!("robot:{SECRET}"));
    let written = write("auths.json", json!({ "auths": { &host: { "auth": auth } } }).to_string());
    let helped = write("helpers.json", json!({ "credHelpers": { &host: "corp" } }).to_string());
    let other = write("other.json", json!({ "auths": { "else.test": {} } }).to_string());

    let login = [("username", "robot"), ("password", SECRET)];
    let prefix = Table::from_iter(
        [("prefix", "team")]
            .into_iter()
            .chain(login)
            .map(|(key, value)| (key.to_owned(), value.into())),
    );
    let by_prefix = Case {
        keys: vec![("credentials", vec![Value::from(prefix)].into())],
        want: "ok: robot: password in the configuration of prefix team".to_owned(),
    };
    for Case { keys, want } in [
        case([], "ok: anonymous".to_owned()),
        case(login, "ok: robot: password in the configuration".to_owned()),
        case(
            [("username", "robot"), ("password_file", &password_file)],
            format!("ok: robot: password_file {password_file}"),
        ),
        case([("docker_config", &written)], format!("ok: robot: docker_config {written}")),
        case(
            [("docker_config", &helped)],
            format!("ok: robot: docker_config {helped}, docker-credential-corp"),
        ),
        case(
            [("docker_config", &other)],
            format!("warn: anonymous: docker_config {other} has nothing for {host}"),
        ),
        case([("credential_helper", "corp")], "ok: robot: credential_helper corp".to_owned()),
        case(
            [("credential_helper", "lost")],
            format!("warn: anonymous: credential_helper lost has nothing for {host}"),
        ),
        case(
            [("credential_helper", "broken")],
            format!("fail: anonymous: credential_helper broken fails for {host}: exit status: 3"),
        ),
        by_prefix,
    ] {
        let mut upstream = Upstream::named("registry.corp", &registry);
        for (key, value) in keys {
            upstream = upstream.set(key, value);
        }
        let directory = TestMirror::builder().upstream(upstream).into_file();
        let config = directory.path().join(CONFIG);
        let path = format!("{}:{}", helpers.path().display(), std::env::var("PATH").unwrap());
        let variables = [("PATH", path.as_str())];
        let report = Report::on(&config, &["--image", "registry.corp/team/app:1"], &variables);
        let found = report.line("registry.corp", "credentials: ");
        assert!(found.starts_with(&format!("credentials: {want}")), "{want:?} in {found}");
        let is_robot = want.starts_with("ok: robot");
        assert_eq!(report.code, Some(i32::from(!is_robot)), "{:#}", report.document);
    }
}

/// Credentials that no image was named for are told of.
#[tokio::test(flavor = "multi_thread")]
async fn credentials_that_are_not_tried_are_told() {
    let registry = FakeRegistry::start().await;
    registry.put_image("team/app", "1", &Image::random(1));
    let entry = |prefix: &str| {
        let keys = [("prefix", prefix), ("username", "robot"), ("password", SECRET)];
        Value::from(Table::from_iter(keys.map(|(key, value)| (key.to_owned(), value.into()))))
    };
    let entries = vec![entry("team"), entry("team/app"), entry("other")];
    let upstream = Upstream::named("registry.corp", &registry).set("credentials", entries);
    let mirror = TestMirror::builder().upstream(upstream);
    let report = Report::of(mirror, &["--image", "registry.corp/team/app:1"]);
    let told = |prefix: &str| {
        let line = format!("credentials: skip: those of prefix {prefix} were not tried");
        report.about("registry.corp").iter().any(|found| found.starts_with(&line))
    };
    assert_eq!(["team", "team/app", "other"].map(told), [true, false, true]);
}
