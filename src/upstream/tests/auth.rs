//! Tokens and passwords: when they are asked for, how often, and who gets to see them.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::future::join_all;

use super::{
    Error, anonymous, build, digest, endpoint,
    fake::{Fake, Reply, Seen},
    get_blob, get_manifest, name, soon, with_credentials,
};

const TOKEN: &str = r#"{"token":"t1"}"#;

/// A registry that wants the token `t1` from its own `/token`, which `issue` answers.
async fn registry(issue: impl Fn(&Seen) -> Reply + Clone + Send + Sync + 'static) -> Fake {
    Fake::start(move |seen| match seen.header("authorization") {
        _ if seen.line.contains(" /token") => issue(seen),
        Some("Bearer t1") => Reply::new(200).body("content"),
        _ => Reply::challenge("/token"),
    })
    .await
}

#[tokio::test]
async fn twenty_callers_share_one_anonymous_token() {
    let fake = registry(|_| Reply::new(200).json(TOKEN).after(Duration::from_millis(50))).await;
    let upstream = anonymous(&[fake.url()]);

    let calls = (0..20).map(|_| {
        let upstream = upstream.clone();
        tokio::spawn(async move { get_manifest(&upstream).await })
    });
    for outcome in join_all(calls).await {
        assert_eq!(outcome.unwrap().unwrap().bytes, "content");
    }
    assert_eq!(fake.count("GET /token"), 1);
    let line = "GET /token?service=registry.test&scope=repository%3Ateam%2Fapp%3Apull";
    assert_eq!(fake.count(line), 1);
    assert!(fake.seen().iter().all(|seen| {
        let is_token = seen.line.contains("/token");
        !is_token || seen.header("authorization").is_none()
    }));
}

#[tokio::test]
async fn once_the_way_is_known_nothing_is_asked_without_a_token() {
    let fake = registry(|_| Reply::new(200).json(TOKEN)).await;
    let upstream = anonymous(&[fake.url()]);
    get_manifest(&upstream).await.unwrap();

    let other = "team/other".parse().unwrap();
    upstream.get_blob(&other, &digest(), soon()).await.unwrap();

    let unauthorised =
        |seen: &&Seen| seen.line.contains("/v2/") && seen.header("authorization").is_none();
    assert_eq!(fake.seen().iter().filter(unauthorised).count(), 1);
    assert_eq!(fake.count("GET /token"), 2);
}

#[tokio::test]
async fn a_caller_that_hangs_up_does_not_end_the_token_request() {
    let fake = registry(|_| Reply::new(200).json(TOKEN).after(Duration::from_millis(200))).await;
    let upstream = anonymous(&[fake.url()]);
    let hasty = tokio::time::timeout(Duration::from_millis(100), get_manifest(&upstream));
    assert!(hasty.await.is_err());

    get_manifest(&upstream).await.unwrap();
    assert_eq!(fake.count("GET /token"), 1);
}

#[tokio::test]
async fn a_user_asks_for_the_token_with_basic() {
    let fake = registry(|seen| {
        // user:secret
        match seen.header("authorization") {
            Some("Basic dXNlcjpzZWNyZXQ=") => Reply::new(200).json(r#"{"access_token":"t1"}"#),
            _ => Reply::new(401).json(r#"{"details":"who are you?"}"#),
        }
    })
    .await;

    let upstream = with_credentials(&fake.url(), "user", &[]);
    get_manifest(&upstream).await.unwrap();
    assert_eq!(
        fake.count(
            "GET /token?service=registry.test&scope=repository%3Ateam%2Fapp%3Apull&account=user"
        ),
        1
    );

    let stranger = with_credentials(&fake.url(), "other", &[]);
    let error = get_manifest(&stranger).await.unwrap_err();
    assert!(matches!(&error, Error::Denied(text) if text.contains("who are you?")), "{error:?}");
    assert!(!error.to_string().contains("secret"));
}

#[tokio::test]
async fn a_refused_login_is_not_tried_for_each_repository() {
    let fake = registry(|_| Reply::new(401).json(r#"{"details":"wrong password"}"#)).await;
    let upstream = with_credentials(&fake.url(), "user", &[]);
    for name in ["team/app", "team/app", "team/other", "library/x"] {
        let outcome = upstream.get_blob(&name.parse().unwrap(), &digest(), soon()).await;
        assert!(matches!(&outcome, Err(Error::Denied(text)) if text.contains("wrong password")));
    }
    assert_eq!(fake.count("GET /token"), 1);

    // Nobody's account can be locked, and somebody else's is another matter.
    let anonymous = anonymous(&[fake.url()]);
    for _ in 0..2 {
        assert!(matches!(get_blob(&anonymous).await, Err(Error::Denied(_))));
    }
    let other = with_credentials(&fake.url(), "other", &[]);
    assert!(matches!(get_blob(&other).await, Err(Error::Denied(_))));
    assert!(fake.count("GET /token") >= 4);
}

#[tokio::test]
async fn a_refusal_for_one_repository_is_none_for_others() {
    for refused_first in [true, false] {
        let fake = registry(|seen| match seen.line.contains("secret") {
            true => Reply::new(403).json(r#"{"details":"not for you"}"#),
            false => Reply::new(200).json(TOKEN),
        })
        .await;
        let upstream = with_credentials(&fake.url(), "user", &[]);
        let secret = "team/secret".parse().unwrap();
        let ask_for_secret = async || {
            let outcome = upstream.get_blob(&secret, &digest(), soon()).await;
            assert!(matches!(outcome, Err(Error::Denied(_))), "{outcome:?}");
        };
        if refused_first {
            ask_for_secret().await;
        }
        get_blob(&upstream).await.unwrap();
        ask_for_secret().await;
        get_blob(&upstream).await.unwrap();
        assert_eq!(fake.count("GET /token"), 2, "each is asked once");
    }
}

#[tokio::test]
async fn a_login_that_was_good_elsewhere_is_tried_again() {
    let fake = registry(|seen| match seen.line.contains("odd") {
        true => Reply::new(401),
        false => Reply::new(200).json(TOKEN),
    })
    .await;
    let upstream = with_credentials(&fake.url(), "user", &[]);
    get_blob(&upstream).await.unwrap();
    let odd = "odd/app".parse().unwrap();
    assert!(matches!(upstream.get_blob(&odd, &digest(), soon()).await, Err(Error::Denied(_))));
    upstream.get_blob(&"team/other".parse().unwrap(), &digest(), soon()).await.unwrap();
}

#[tokio::test]
async fn an_error_that_repeats_a_secret_is_not_quoted() {
    let echo = |seen: &Seen| {
        let shown = seen.header("authorization").unwrap_or(&seen.body);
        Reply::new(500).json(&format!(r#"{{"message":"do not understand {shown}"}}"#))
    };
    let fake = registry(echo).await;
    for username in ["user", "<token>"] {
        let upstream = with_credentials(&fake.url(), username, &[]);
        let text = get_blob(&upstream).await.unwrap_err().to_string();
        let wrong = ["secret", "dXNlcjpzZWNyZXQ=", "OnNlY3JldA=="];
        assert!(wrong.iter().all(|secret| !text.contains(secret)), "{text}");
        assert!(text.contains("500"), "{text}");
    }
}

#[tokio::test]
async fn an_identity_token_is_posted() {
    let fake = registry(|_| Reply::new(200).json(TOKEN)).await;
    let upstream = with_credentials(&fake.url(), "<token>", &[]);
    get_manifest(&upstream).await.unwrap();

    let post = fake.seen().into_iter().find(|seen| seen.line == "POST /token").unwrap();
    assert_eq!(
        post.body,
        "grant_type=refresh_token&client_id=larder&service=registry.test\
         &scope=repository%3Ateam%2Fapp%3Apull&refresh_token=secret"
    );
    assert_eq!(post.header("content-type"), Some("application/x-www-form-urlencoded"));
    assert_eq!(fake.count("GET /token"), 0);
}

#[tokio::test]
async fn where_post_is_refused_an_identity_token_is_a_password() {
    for status in [302, 400, 401, 404, 405] {
        let fake = registry(move |seen| match seen.header("authorization") {
            _ if seen.line.starts_with("POST") => Reply::new(status),
            // :secret
            Some("Basic OnNlY3JldA==") => Reply::new(200).json(TOKEN),
            _ => Reply::new(401),
        })
        .await;
        let upstream = with_credentials(&fake.url(), "<token>", &[]);
        get_manifest(&upstream).await.unwrap();
        assert_eq!(fake.count("POST /token"), 1, "{status}");
    }
}

#[tokio::test]
async fn a_token_that_dies_early_is_renewed_once() {
    let issued = Arc::new(AtomicUsize::new(0));
    let valid = Arc::new(AtomicUsize::new(1));
    let (counter, bound) = (Arc::clone(&issued), Arc::clone(&valid));
    let fake = Fake::start(move |seen| {
        if seen.line.contains("/token") {
            let count = counter.fetch_add(1, Ordering::SeqCst) + 1;
            return Reply::new(200).json(&format!(r#"{{"token":"t{count}"}}"#));
        }
        let want = format!("Bearer t{}", bound.load(Ordering::SeqCst));
        match seen.header("authorization") {
            Some(token) if token == want => Reply::new(200),
            _ => Reply::challenge("/token"),
        }
    })
    .await;
    let upstream = anonymous(&[fake.url()]);
    get_manifest(&upstream).await.unwrap();

    valid.store(2, Ordering::SeqCst);
    let calls = (0..20).map(|_| get_manifest(&upstream));
    assert!(join_all(calls).await.iter().all(Result::is_ok));
    assert_eq!(issued.load(Ordering::SeqCst), 2, "20 callers renew once");

    valid.store(99, Ordering::SeqCst);
    let error = get_manifest(&upstream).await.unwrap_err();
    assert!(matches!(error, Error::Denied(_)), "{error:?}");
    assert_eq!(issued.load(Ordering::SeqCst), 3, "no second renewal");
}

#[tokio::test]
async fn a_403_for_a_kept_token_is_worth_a_renewal() {
    let fake = Fake::start(|seen| match seen.header("authorization") {
        _ if seen.line.contains("/token") => Reply::new(200).json(r#"{"token":"t2"}"#),
        None => Reply::challenge("/token"),
        Some(_) => Reply::new(403).json(r#"{"errors":[{"code":"DENIED","message":"no"}]}"#),
    })
    .await;
    let upstream = anonymous(&[fake.url()]);
    let denied =
        |error: &Error| matches!(error, Error::Denied(text) if text.contains("DENIED: no"));
    assert!(denied(&get_blob(&upstream).await.unwrap_err()));
    assert_eq!(fake.count("GET /token"), 1, "a new token is not renewed");
    assert!(denied(&get_blob(&upstream).await.unwrap_err()));
    assert_eq!(fake.count("GET /token"), 2, "a kept one is");
}

#[tokio::test]
async fn a_scope_that_the_registry_names_is_asked_for_too_and_remembered() {
    let fake = Fake::start(|seen| {
        let both = "scope=aws&scope=repository%3Ateam%2Fapp%3Apull";
        match seen.header("authorization") {
            _ if seen.line.contains("/token") && seen.line.ends_with(both) => {
                Reply::new(200).json(TOKEN)
            }
            _ if seen.line.contains("/token") => Reply::new(500),
            Some("Bearer t1") => Reply::new(200),
            _ => Reply::new(401)
                .header("WWW-Authenticate", "Basic realm=\"x\"")
                .header("WWW-Authenticate", "Bearer realm=\"/token\",scope=aws"),
        }
    })
    .await;
    let upstream = anonymous(&[fake.url()]);
    get_manifest(&upstream).await.unwrap();
    get_blob(&upstream).await.unwrap();
    assert_eq!(fake.count("GET /v2/"), 3);
    assert_eq!(fake.count("GET /token"), 1);
}

#[tokio::test]
async fn a_challenge_that_only_the_root_gives_is_found_there() {
    let fake = Fake::start(|seen| match seen.header("authorization") {
        _ if seen.line.starts_with("GET /token?service=s&scope=repository%3Ateam") => {
            Reply::new(200).json(TOKEN)
        }
        Some("Bearer t1") => Reply::new(200),
        _ if seen.line == "GET /v2/" => Reply::new(401).header(
            "WWW-Authenticate",
            r#"Bearer realm="/token",service=s,scope="repository:user/image:pull""#,
        ),
        _ => Reply::new(401),
    })
    .await;
    get_manifest(&anonymous(&[fake.url()])).await.unwrap();
}

#[tokio::test]
async fn a_registry_that_wants_basic_gets_the_password_itself() {
    let fake = Fake::start(|seen| match seen.header("authorization") {
        Some("Basic dXNlcjpzZWNyZXQ=") => Reply::new(200),
        _ => Reply::new(401).header("WWW-Authenticate", "Basic realm=\"x\""),
    })
    .await;
    let upstream = with_credentials(&fake.url(), "user", &[]);
    get_manifest(&upstream).await.unwrap();
    get_blob(&upstream).await.unwrap();
    assert_eq!(fake.seen().len(), 3);

    let stranger = with_credentials(&fake.url(), "other", &[]);
    assert!(matches!(get_blob(&stranger).await, Err(Error::Denied(_))));
    assert!(matches!(get_blob(&anonymous(&[fake.url()])).await, Err(Error::Denied(_))));
}

#[tokio::test]
async fn a_foreign_realm_never_sees_credentials() {
    let realm = Fake::start(|_| Reply::new(200).json(TOKEN)).await;
    let url = format!("{}/token", realm.other_url());
    let fake = Fake::start(move |seen| match seen.header("authorization") {
        Some("Bearer t1") => Reply::new(200),
        _ => Reply::challenge(&url),
    })
    .await;

    let careful = with_credentials(&fake.url(), "user", &[]);
    let error = get_manifest(&careful).await.unwrap_err();
    assert!(
        matches!(&error, Error::Invalid(text) if text.contains("add \"localhost\" to trusted_realms")),
        "{error:?}"
    );
    assert_eq!(realm.seen().len(), 0);

    get_manifest(&anonymous(&[fake.url()])).await.unwrap();
    assert_eq!(realm.count("GET /token"), 1);

    let trusting = with_credentials(&fake.url(), "user", &["localhost"]);
    get_manifest(&trusting).await.unwrap();
}

#[tokio::test]
async fn a_realm_that_redirects_to_another_host_takes_no_password_there() {
    let elsewhere = Fake::start(|_| Reply::new(200).json(TOKEN)).await;
    let url = format!("{}/issue", elsewhere.other_url());
    let fake = registry(move |_| Reply::redirect(&url)).await;
    let upstream = with_credentials(&fake.url(), "user", &[]);
    get_manifest(&upstream).await.unwrap();
    let seen = elsewhere.seen();
    assert_eq!(seen.len(), 1);
    assert!(seen[0].header("authorization").is_none());
}

#[tokio::test]
async fn trouble_of_the_token_endpoint_is_an_outage_and_a_refusal_is_one() {
    let long = "x".repeat(2 * 1024 * 1024);
    let nested = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let table = [
        (Reply::new(429), "outage"),
        (Reply::new(500), "momentary"),
        (Reply::new(503).header("Retry-After", "0"), "momentary"),
        (Reply::new(501), "outage"),
        (Reply::new(404), "outage"),
        (Reply::new(403).header("Content-Type", "text/html").body("<html>"), "outage"),
        (Reply::new(200).body("<html>"), "outage"),
        (Reply::new(200).json("{}"), "outage"),
        (Reply::new(200).json(r#"{"token":""}"#), "outage"),
        (Reply::new(200).json(r#"{"token":"t1\r\nHost: evil.test"}"#), "outage"),
        (Reply::new(200).json(r#"{"token":"t1\u0000"}"#), "outage"),
        (Reply::new(200).json(&nested), "outage"),
        (Reply::new(200).json(&format!(r#"{{"token":{nested}}}"#)), "outage"),
        (Reply::new(200).json(r#"{"token":"t1"}"#).length(100), "momentary"),
        (Reply::new(401), "denied"),
        (Reply::new(403).json(r#"{"message":"no"}"#), "denied"),
        (Reply::new(400).json(r#"{"message":"no"}"#), "denied"),
        (Reply::new(200).json(&long), "invalid"),
    ];
    for (index, (reply, want)) in table.into_iter().enumerate() {
        let fake = registry(move |_| reply.clone()).await;
        let got = match get_manifest(&anonymous(&[fake.url()])).await {
            Err(Error::Unreachable(_)) => "outage",
            Err(Error::Unavailable { .. }) => "momentary",
            Err(Error::Denied(_)) => "denied",
            Err(Error::Invalid(_)) => "invalid",
            other => panic!("{index}: {other:?}"),
        };
        assert_eq!(got, want, "row {index}");
        let rounds = if want == "momentary" { 3 } else { 1 };
        assert_eq!(fake.count("GET /token"), rounds, "row {index}");
    }
}

#[tokio::test]
async fn a_prefix_is_part_of_path_and_scope() {
    let fake = registry(|_| Reply::new(200).json(TOKEN)).await;
    let upstream = build(vec![endpoint(&format!("{}/docker-remote", fake.url()), None)], &[]);
    upstream.head_blob(&name(), &digest(), soon()).await.unwrap();
    assert_eq!(fake.count("HEAD /v2/docker-remote/team/app/blobs/sha256:"), 2);
    assert_eq!(
        fake.count(
            "GET /token?service=registry.test&scope=repository%3Adocker-remote%2Fteam%2Fapp%3Apull"
        ),
        1
    );
}
