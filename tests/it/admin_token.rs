//! Who may do what on the admin listener.

use std::fs;

use tempfile::TempDir;

use crate::support::{TestMirror, admin::over_tcp, binary::Daemon, wait::until};

const SWEEP: &str = "POST /api/v1/sweep";
const JSON: &str = "content-type: application/json";

/// Without a token, what changes something is refused over TCP, with where else to ask.
#[tokio::test(flavor = "multi_thread")]
async fn without_a_token_nothing_is_changed_over_tcp() {
    let mirror = TestMirror::builder().start().await;
    let admin = mirror.admin().address();
    for headers in [&[SWEEP, JSON][..], &[SWEEP, JSON, "authorization: Bearer x"]] {
        let answer = over_tcp(admin, headers, "{}").await;
        assert_eq!(answer.status, 403, "{answer:?}");
        assert!(answer.text.contains("admin.sock"), "{answer:?}");
        assert!(answer.text.contains("admin.token_file"), "{answer:?}");
    }
    for path in ["/healthz", "/metrics", "/api/v1/upstreams"] {
        assert_eq!(mirror.admin().get(path).await.status, 200, "{path}");
    }
}

/// The token opens everything, and only it does; a new one counts at once.
#[tokio::test(flavor = "multi_thread")]
async fn the_token_opens_everything() {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("token");
    fs::write(&file, "first t0ken\n").unwrap();
    let mirror =
        TestMirror::builder().set("admin.token_file", file.to_str().unwrap()).start().await;
    let admin = mirror.admin().address();
    let first = "authorization: Bearer first t0ken";
    let long = " ".repeat(70_000) + "{}";
    for (request, body, status) in [
        (&[SWEEP, JSON][..], "{}", 401),
        (&[SWEEP, JSON, "authorization: Bearer"], "{}", 401),
        (&[SWEEP, JSON, "authorization: Bearer wrong"], "{}", 401),
        (&[SWEEP, JSON, "authorization: Basic first t0ken"], "{}", 401),
        (&[SWEEP, JSON, first], "{}", 200),
        (&[SWEEP, JSON, "Authorization: bearer first t0ken"], "{}", 200),
        (&[SWEEP, "content-type: application/json; charset=utf-8", first], "{}", 200),
        (&[SWEEP, "content-type: text/plain", first], "{}", 415),
        (&[SWEEP, first], "{}", 415),
        (&[SWEEP, JSON, first], "", 400),
        (&[SWEEP, JSON, first], "{\"unknown\": 1}", 400),
        (&[SWEEP, JSON, first], &long, 413),
        (&["GET /api/v1/sweep", first], "", 405),
        (&["GET /metrics", "authorization: Bearer wrong"], "", 200),
    ] {
        let answer = over_tcp(admin, request, body).await;
        assert_eq!(answer.status, status, "{request:?}: {answer:?}");
        let challenges = answer.text.to_lowercase().contains("www-authenticate: bearer");
        assert_eq!(challenges, status == 401, "{request:?}: {answer:?}");
    }

    fs::write(&file, "second").unwrap();
    assert_eq!(over_tcp(admin, &[SWEEP, JSON, first], "{}").await.status, 401);
    let second = "authorization: Bearer second";
    assert_eq!(over_tcp(admin, &[SWEEP, JSON, second], "{}").await.status, 200);
    fs::remove_file(&file).unwrap();
    assert_eq!(over_tcp(admin, &[SWEEP, JSON, second], "{}").await.status, 401);
    fs::write(&file, "").unwrap();
    for empty in ["authorization: Bearer ", second] {
        assert_eq!(over_tcp(admin, &[SWEEP, JSON, empty], "{}").await.status, 401);
    }
}

/// Neither the token nor what was taken for it is in any log.
#[tokio::test(flavor = "multi_thread")]
async fn the_token_is_never_logged() {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("token");
    fs::write(&file, "s3cret-t0ken").unwrap();
    let mirror = TestMirror::builder().set("log.level", "trace");
    let daemon = Daemon::start(mirror.set("admin.token_file", file.to_str().unwrap())).await;
    let admin = daemon.admin().address();
    let right = "authorization: Bearer s3cret-t0ken";
    let wrong = "authorization: Bearer wr0ng-t0ken";
    assert_eq!(over_tcp(admin, &[SWEEP, JSON, wrong], "{}").await.status, 401);
    assert_eq!(over_tcp(admin, &[SWEEP, JSON, right], "{}").await.status, 200);
    fs::remove_file(&file).unwrap();
    assert_eq!(over_tcp(admin, &[SWEEP, JSON, right], "{}").await.status, 401);
    until("the warning", async || daemon.log().contains("admin.token_file")).await;
    assert!(!daemon.log().contains("t0ken"), "{}", daemon.log());
}
