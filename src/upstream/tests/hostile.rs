//! Servers that mean harm: what they send is bounded in size and time, and understood in one way
//! only.

use std::{sync::Arc, time::Duration};

use tokio::{net::TcpListener, time::Instant};

use super::{
    Error, Upstream, anonymous,
    fake::{Fake, Reply},
    get_blob, get_manifest, impatient_client, kind, name, tag, with_credentials,
};
use crate::{
    metrics::Metrics,
    upstream::{Spending, client::Outgoing, health::Operation},
};

const OK: &str = "HTTP/1.1 200 OK\r\n";
const AT_ONCE: Duration = Duration::ZERO;
const SLOWLY: Duration = Duration::from_millis(20);

/// However busy the machine is; none of these answers would ever end.
const BOUND: Duration = Duration::from_secs(15);

/// A body in chunks, which are still to come.
fn chunked(status: u16) -> Reply {
    Reply::raw(format!("HTTP/1.1 {status} Status\r\nTransfer-Encoding: chunked\r\n\r\n"))
}

fn chunk() -> String {
    format!("10000\r\n{}\r\n", "x".repeat(0x10000))
}

/// Until when to wait for what is late, and for all else.
fn deadline(want: &str) -> Instant {
    Instant::now() + if want == "timeout" { Duration::from_secs(1) } else { BOUND }
}

/// What came of asking for a manifest, where `want` is expected.
async fn outcome(upstream: &Upstream, want: &str) -> Result<(), &'static str> {
    let outcome = upstream.get_manifest(&name(), &tag(), Spending::All, deadline(want)).await;
    outcome.map(drop).map_err(|error| kind(&error))
}

#[tokio::test]
async fn heads_are_bounded() {
    let header = |length: usize| format!("X: {}\r\n", "y".repeat(length));
    let heads = [
        Reply::raw(OK).then_repeats("X: y\r\n", SLOWLY),
        Reply::raw(OK).then_repeats("X: y\r\n", AT_ONCE),
        Reply::raw(OK).then_repeats(header(64 * 1024), AT_ONCE),
        Reply::raw(format!("{OK}X: ")).then_repeats("y".repeat(64 * 1024), AT_ONCE),
        Reply::raw("HTTP/1.1 200 ").then_repeats("O".repeat(64 * 1024), AT_ONCE),
        Reply::raw("").then_repeats("HTTP/1.1 100 Continue\r\n\r\n", SLOWLY),
        Reply::raw("").then_repeats("HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n", AT_ONCE),
    ];
    for (number, reply) in heads.into_iter().enumerate() {
        let fake = Fake::start(move |_| reply.clone()).await;
        let client = impatient_client(&fake.url(), Arc::new(Metrics::new()));
        let started = Instant::now();
        let outgoing = Outgoing::get(Operation::Probe, fake.url().parse().unwrap());
        let answer = client.send(&outgoing).await;
        assert!(answer.is_err_and(|error| error.is_outage()), "{number}");
        assert!(started.elapsed() < BOUND, "{number}");
    }
}

#[tokio::test]
async fn bodies_are_bounded() {
    let table = [
        (chunked(200).then_repeats(chunk(), AT_ONCE), "invalid"),
        (chunked(200).then_repeats("1\r\nx\r\n", SLOWLY), "timeout"),
        (chunked(500).then_repeats(chunk(), AT_ONCE), "unavailable"),
        (chunked(404).then_repeats(chunk(), AT_ONCE), "not found"),
        (Reply::new(403).json(&"[".repeat(60_000)), "denied"),
        (Reply::new(200).length(5 * 1024 * 1024), "invalid"),
        (Reply::new(500).length(5 * 1024 * 1024).then_hangs(), "unavailable"),
    ];
    for (number, (reply, want)) in table.into_iter().enumerate() {
        let fake = Fake::start(move |_| reply.clone()).await;
        let started = Instant::now();
        assert_eq!(outcome(&anonymous(&[fake.url()]), want).await, Err(want), "{number}");
        assert!(started.elapsed() < BOUND, "{number}");
    }
}

#[tokio::test]
async fn an_error_that_does_not_end_is_not_waited_for() {
    let reply = chunked(403).then_repeats("1\r\nx\r\n", SLOWLY);
    let fake = Fake::start(move |_| reply.clone()).await;
    let deadline = Instant::now() + BOUND;
    let outcome =
        anonymous(&[fake.url()]).get_manifest(&name(), &tag(), Spending::All, deadline).await;
    assert!(matches!(outcome, Err(Error::Denied(_))), "{outcome:?}");
}

#[tokio::test]
async fn tokens_and_lists_are_bounded() {
    for (reply, want) in [
        (chunked(200).then_repeats(chunk(), AT_ONCE), "invalid"),
        (chunked(200).then_repeats("1\r\nx\r\n", SLOWLY), "timeout"),
        (chunked(401).then_repeats(chunk(), AT_ONCE), "denied"),
        // What would have to be unpacked first.
        (Reply::new(200).header("Content-Encoding", "gzip").body([0x1f, 0x8b]), "unreachable"),
    ] {
        let fake = Fake::start(move |seen| match seen.line.contains("/token") {
            true => reply.clone(),
            false => Reply::challenge("/token"),
        })
        .await;
        assert_eq!(outcome(&anonymous(&[fake.url()]), want).await, Err(want));
    }
    for (reply, want) in [
        (chunked(200).then_repeats(chunk(), AT_ONCE), "invalid"),
        (chunked(200).then_repeats("1\r\nx\r\n", SLOWLY), "timeout"),
        (Reply::new(200).header("Content-Encoding", "gzip").body("{}"), "invalid"),
        (Reply::new(200).json(&format!(r#"{{"tags":{}"#, "[".repeat(100_000))), "invalid"),
    ] {
        let fake = Fake::start(move |_| reply.clone()).await;
        let tags = anonymous(&[fake.url()]).list_tags(&name(), deadline(want)).await;
        assert_eq!(tags.map(drop).map_err(|error| kind(&error)), Err(want));
    }
}

#[tokio::test]
async fn a_head_that_can_be_read_in_two_ways_is_not_read() {
    let moved = "HTTP/1.1 307 Moved\r\nContent-Length: 0\r\nLocation: /v2/";
    for (head, want) in [
        (format!("{OK}Content-Length: 7\r\nContent-Length: 3\r\n\r\ncontent"), "unavailable"),
        (format!("{OK}Content-Length: +7\r\n\r\ncontent"), "unavailable"),
        (format!("{OK}Content-Length: -1\r\n\r\ncontent"), "unavailable"),
        (format!("{OK}Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n"), "unavailable"),
        (format!("{OK}Transfer-Encoding: chunked\r\n\r\nx\r\n"), "unavailable"),
        (format!("{moved}\0\r\n\r\n"), "unavailable"),
        (format!("{moved}\rX: y\r\n\r\n"), "unavailable"),
        ("SSH-2.0-OpenSSH_9.2p1\r\n".to_owned(), "unavailable"),
    ] {
        let shown = head.clone();
        let fake = Fake::start(move |_| Reply::raw(&head)).await;
        assert_eq!(outcome(&anonymous(&[fake.url()]), want).await, Err(want), "{shown:?}");
    }

    // Of length and chunks, chunks count (RFC 9112 §6.3).
    let both = "Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n7\r\ncontent\r\n0\r\n\r\n";
    let fake = Fake::start(move |_| Reply::raw(format!("{OK}{both}"))).await;
    let upstream = anonymous(&[fake.url()]);
    assert_eq!(get_manifest(&upstream).await.unwrap().bytes, "content");
    assert_eq!(get_blob(&upstream).await.unwrap().size(), None);
}

#[tokio::test]
async fn an_answer_that_nobody_asked_for_answers_nothing() {
    let whole = format!("{OK}Content-Length: 7\r\n\r\ncontent");
    let two = format!("{whole}{OK}Content-Length: 4\r\n\r\nevil");
    let fake = Fake::start(move |_| Reply::raw(&two).then_hangs()).await;
    let upstream = anonymous(&[fake.url()]);
    for _ in 0..3 {
        assert_eq!(get_manifest(&upstream).await.unwrap().bytes, "content");
    }
    assert_eq!(fake.seen().len(), 3);
}

#[tokio::test]
async fn a_cookie_is_not_kept() {
    let fake = Fake::start(|_| Reply::new(200).header("Set-Cookie", "a=b; Path=/").body("x")).await;
    let upstream = anonymous(&[fake.url()]);
    get_manifest(&upstream).await.unwrap();
    get_manifest(&upstream).await.unwrap();
    assert!(fake.seen().iter().all(|seen| seen.header("cookie").is_none()));
}

#[tokio::test]
async fn an_identity_token_is_not_posted_where_a_realm_redirects() {
    for status in [301, 302, 303, 307, 308] {
        let elsewhere = Fake::start(|_| Reply::new(200).json(r#"{"token":"t1"}"#)).await;
        let target = format!("{}/token", elsewhere.other_url());
        let fake = Fake::start(move |seen| match seen.line.contains("/token") {
            true => Reply::new(status).header("Location", &target),
            false => Reply::challenge("/token"),
        })
        .await;
        let upstream = with_credentials(&fake.url(), "<token>", &[]);
        assert!(matches!(get_manifest(&upstream).await, Err(Error::Denied(_))));
        assert_eq!(fake.count("POST /token"), 1);
        for seen in elsewhere.seen() {
            assert!(seen.line.starts_with("GET ") && seen.body.is_empty(), "{seen:?}");
            assert!(seen.header("authorization").is_none(), "{seen:?}");
        }
    }
}

/// In whatever form a URL has an address, the address counts.
#[tokio::test]
async fn an_inner_address_is_refused_in_every_form() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    for host in [
        "127.0.0.1",
        "127.1",
        "127.0.0.1.",
        "2130706433",
        "0x7f.1",
        "0x7f000001",
        "017700000001",
        "%31%32%37.0.0.1",
        "\u{ff11}\u{ff12}\u{ff17}.0.0.1",
        "127\u{3002}0\u{3002}0\u{3002}1",
        "localhost",
        "LOCAL%68ost",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "[0:0:0:0:0:ffff:7f00:1]",
        "[64:ff9b::127.0.0.1]",
        "0",
        "0.0.0.0",
        "[::]",
        "169.254.169.254",
        "0xa9fea9fe",
        "[fe80::1]",
    ] {
        // The endpoint is a public one, as far as is known.
        let client = impatient_client("http://registry.test", Arc::new(Metrics::new()));
        let url = format!("http://{host}:{port}/").parse().unwrap();
        let error = client.send(&Outgoing::get(Operation::BlobGet, url)).await.err().unwrap();
        assert!(error.to_string().contains("is never asked"), "{host}: {error}");
        assert_eq!(kind(&error), "invalid", "{host}");
    }
    let nobody = tokio::time::timeout(Duration::from_millis(50), listener.accept()).await;
    assert!(nobody.is_err(), "dialled");
}
