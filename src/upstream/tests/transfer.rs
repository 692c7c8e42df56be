//! Answers, bodies, deadlines and endpoints.

use std::{
    net::TcpListener,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;

use super::{
    Error, anonymous, build, digest, endpoint,
    fake::{Fake, Reply},
    get_blob, get_manifest, impatient_client, kind, name, soon, tag,
};
use crate::{
    metrics::Metrics,
    upstream::{client::Outgoing, health::Operation},
};

#[tokio::test]
async fn a_manifest_comes_verbatim_and_is_asked_for_in_every_form() {
    let fake = Fake::start(|_| {
        Reply::new(200)
            .header("Content-Type", "application/vnd.oci.image.index.v1+json; charset=utf-8")
            .body("{ }\n")
    })
    .await;
    let manifest = get_manifest(&anonymous(&[fake.url()])).await.unwrap();
    assert_eq!(manifest.bytes, "{ }\n");
    assert_eq!(manifest.media_type.as_deref(), Some("application/vnd.oci.image.index.v1+json"));

    let seen = &fake.seen()[0];
    assert_eq!(seen.line, "GET /v2/team/app/manifests/v1");
    assert_eq!(seen.header("accept-encoding"), Some("identity"));
    assert_eq!(seen.header("host").unwrap(), fake.url().strip_prefix("http://").unwrap());
    assert!(seen.header("user-agent").unwrap().starts_with("larder/"));
    assert!(seen.header("accept").unwrap().ends_with("*/*"));
}

#[tokio::test]
async fn a_head_tells_what_it_can() {
    let text = digest().to_string();
    let fake = Fake::start(move |_| {
        Reply::new(200)
            .header("Docker-Content-Digest", &text)
            .header("Content-Type", "application/json")
            .length(123)
    })
    .await;
    let head = anonymous(&[fake.url()]).head_manifest(&name(), &tag(), soon()).await.unwrap();
    assert_eq!(head.digest, Some(digest()));
    assert_eq!(head.media_type.as_deref(), Some("application/json"));
    assert_eq!(head.size, Some(123));

    let vague = |_: &_| {
        let reply = Reply::new(200).header("Docker-Content-Digest", "sha256:zz");
        reply.header("Content-Encoding", "gzip").length(7)
    };
    let fake = Fake::start(vague).await;
    let upstream = anonymous(&[fake.url()]);
    let head = upstream.head_manifest(&name(), &tag(), soon()).await.unwrap();
    assert!(head.digest.is_none() && head.media_type.is_none() && head.size.is_none());
    assert_eq!(upstream.head_blob(&name(), &digest(), soon()).await.unwrap(), None);
}

#[tokio::test]
async fn each_status_is_its_own_kind_of_failure() {
    let table = [
        (404, "not found", "not found"),
        (401, "denied", "denied"),
        (403, "denied", "denied"),
        (429, "limited", "limited"),
        (400, "invalid", "head refused"),
        (405, "invalid", "head refused"),
        (501, "invalid", "head refused"),
        (408, "unreachable", "unreachable"),
        (500, "unavailable", "unavailable"),
        (502, "unavailable", "unavailable"),
        (503, "unavailable", "unavailable"),
        (504, "unavailable", "unavailable"),
        (505, "unreachable", "unreachable"),
        (418, "invalid", "invalid"),
        (304, "invalid", "invalid"),
        (307, "invalid", "invalid"),
    ];
    for (status, for_get, for_head) in table {
        let fake = Fake::start(move |_| Reply::new(status)).await;
        let upstream = anonymous(&[fake.url()]);
        assert_eq!(kind(&get_manifest(&upstream).await.unwrap_err()), for_get, "{status}");
        let head = upstream.head_manifest(&name(), &tag(), soon()).await;
        assert_eq!(kind(&head.unwrap_err()), for_head, "{status}");
    }
}

#[tokio::test]
async fn a_limit_says_for_how_long() {
    let later = std::time::SystemTime::now() + Duration::from_secs(100);
    let table = [
        ("7".to_owned(), 7..=7),
        (httpdate::fmt_http_date(later), 95..=100),
        ("99999999".to_owned(), 86400..=86400),
        ("Thu, 01 Jan 1970 00:00:00 GMT".to_owned(), 0..=0),
        // As long as the pause that begins.
        ("soon".to_owned(), 0..=1),
    ];
    for (value, want) in table {
        let header = value.clone();
        let body = r#"{"errors":[{"code":"TOOMANYREQUESTS","message":"slow down"}]}"#;
        let fake =
            Fake::start(move |_| Reply::new(429).header("Retry-After", &header).json(body)).await;
        match get_manifest(&anonymous(&[fake.url()])).await {
            Err(Error::Limited { message, retry_after }) => {
                assert!(message.ends_with("TOOMANYREQUESTS: slow down"), "{message}");
                assert!(want.contains(&retry_after.unwrap().as_secs()), "{value}");
            }
            other => panic!("{value}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn encoded_partial_and_oversized_answers_are_refused() {
    let encoded = Fake::start(|_| Reply::new(200).header("Content-Encoding", "gzip")).await;
    let upstream = anonymous(&[encoded.url()]);
    assert_eq!(kind(&get_blob(&upstream).await.unwrap_err()), "invalid");
    assert_eq!(kind(&get_manifest(&upstream).await.unwrap_err()), "invalid");

    let partial =
        Fake::start(|_| Reply::new(206).header("Content-Range", "bytes 0-0/1").body("x")).await;
    let upstream = anonymous(&[partial.url()]);
    assert_eq!(kind(&get_blob(&upstream).await.unwrap_err()), "invalid");

    let plain =
        Fake::start(|_| Reply::new(200).header("Content-Encoding", "Identity").body("x")).await;
    get_blob(&anonymous(&[plain.url()])).await.unwrap();

    let large = Fake::start(|_| Reply::new(200).body(vec![b' '; 4 * 1024 * 1024 + 1])).await;
    let upstream = anonymous(&[large.url()]);
    assert_eq!(kind(&get_manifest(&upstream).await.unwrap_err()), "invalid");
}

#[tokio::test]
async fn a_body_ends_well_or_with_an_error_that_stays() {
    let whole = Fake::start(|_| Reply::new(200).body("content")).await;
    let mut body = get_blob(&anonymous(&[whole.url()])).await.unwrap();
    assert_eq!(body.size(), Some(7));
    assert_eq!(body.chunk().await.unwrap().unwrap(), "content");
    assert!(body.chunk().await.unwrap().is_none());

    let short = Fake::start(|_| Reply::new(200).body("cont").length(7)).await;
    let stalled = Fake::start(|_| Reply::new(200).body("cont").length(7).then_hangs()).await;
    for (fake, failure) in [(short, "unavailable"), (stalled, "timeout")] {
        let mut body = get_blob(&anonymous(&[fake.url()])).await.unwrap();
        assert_eq!(body.size(), Some(7));
        assert_eq!(body.chunk().await.unwrap().unwrap(), "cont");
        let started = Instant::now();
        assert_eq!(kind(&body.chunk().await.unwrap_err()), failure);
        assert!(started.elapsed() < Duration::from_secs(2));
        assert_eq!(kind(&body.chunk().await.unwrap_err()), failure);
    }
}

#[tokio::test]
async fn a_body_without_a_length_has_no_size() {
    let fake = Fake::start(|_| {
        let chunks = "4\r\ncont\r\n3\r\nent\r\n0\r\n\r\n";
        Reply::new(200).header("Transfer-Encoding", "chunked").body(chunks)
    })
    .await;
    let body = get_blob(&anonymous(&[fake.url()])).await.unwrap();
    assert_eq!(body.size(), None);
    assert_eq!(body.collect(100).await.unwrap(), "content");
}

#[tokio::test]
async fn silence_ends_at_the_deadline() {
    let fake = Fake::start(|_| Reply::new(200).after(Duration::from_secs(60))).await;
    let upstream = anonymous(&[fake.url()]);
    let started = Instant::now();
    let deadline = started + Duration::from_millis(300);
    let error = upstream.get_blob(&name(), &digest(), deadline).await.unwrap_err();
    assert_eq!(kind(&error), "timeout");
    assert!(started.elapsed() < Duration::from_secs(2));
    assert!(!upstream.answered_within(Duration::from_secs(60)));
}

#[tokio::test]
async fn silence_after_connecting_ends_the_attempt() {
    let fake = Fake::start(|_| Reply::new(200).after(Duration::from_secs(60))).await;
    let metrics = Arc::new(Metrics::new());
    let client = impatient_client(&fake.url(), Arc::clone(&metrics));
    let outgoing = Outgoing::get(Operation::Probe, fake.url().parse().unwrap());
    let answer = client.send(&outgoing).await;
    assert_eq!(answer.err().as_ref().map(kind), Some("unreachable"));
    assert_eq!(fake.seen().len(), 1, "silence is not asked twice");
    let counted =
        r#"upstream_requests_total{code="error",operation="probe",registry="registry.test"} 1"#;
    assert!(metrics.encode().contains(counted));
}

#[tokio::test]
async fn a_handshake_without_end_is_no_connection() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    let started = Instant::now();
    let error = get_blob(&anonymous(&[url])).await.unwrap_err();
    assert!(error.to_string().contains("no connection within 500ms"), "{error}");
    assert!(started.elapsed() < Duration::from_secs(3));
}

#[tokio::test]
async fn a_connection_that_breaks_is_tried_once_more() {
    let is_first = Arc::new(AtomicBool::new(true));
    let fake = Fake::start(move |_| match is_first.swap(false, Ordering::SeqCst) {
        true => Reply::nothing(),
        false => Reply::new(200),
    })
    .await;
    get_blob(&anonymous(&[fake.url()])).await.unwrap();
    assert_eq!(fake.seen().len(), 2);

    let broken = Fake::start(|_| Reply::nothing()).await;
    let upstream = anonymous(&[broken.url()]);
    assert_eq!(kind(&get_blob(&upstream).await.unwrap_err()), "unavailable");
    assert_eq!(broken.seen().len(), 3 * 2, "at once, in each of three rounds");
}

#[tokio::test]
async fn the_next_endpoint_helps_out() {
    let refused = {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        format!("http://{}", listener.local_addr().unwrap())
    };
    let failing = Fake::start(|_| Reply::new(503)).await;
    let silent = Fake::start(|_| Reply::new(200).after(Duration::from_secs(60))).await;
    let good = Fake::start(|_| Reply::new(200).body("content")).await;
    for first in [refused, failing.url(), silent.url()] {
        let upstream = anonymous(&[first.clone(), good.url()]);
        let deadline = Instant::now() + Duration::from_secs(2);
        let body = upstream.get_blob(&name(), &digest(), deadline).await;
        assert_eq!(body.unwrap().size(), Some(7), "{first}");
    }

    let missing = Fake::start(|_| Reply::new(404)).await;
    let upstream = anonymous(&[missing.url(), good.url()]);
    assert_eq!(kind(&get_blob(&upstream).await.unwrap_err()), "not found");
}

#[tokio::test]
async fn a_probe_is_shared_and_any_answer_is_life() {
    let fake = Fake::start(|_| Reply::new(401).after(Duration::from_millis(100))).await;
    let upstream = anonymous(&[fake.url()]);
    let second = Duration::from_secs(1);
    assert!(!upstream.answered_within(second));
    let (one, two) = tokio::join!(upstream.probe(second), upstream.probe(second));
    assert!(one && two);
    assert_eq!(fake.count("GET /v2/"), 1);
    assert!(upstream.answered_within(second));
    assert!(upstream.probe(second).await);
    assert_eq!(fake.count("GET /v2/"), 2);
    assert!(!upstream.probe(Duration::from_millis(20)).await);

    let failing = Fake::start(|_| Reply::new(502)).await;
    assert!(!anonymous(&[failing.url()]).probe(second).await);
}

#[tokio::test]
async fn tls_is_trusted_by_the_ca_file() {
    let generated = rcgen::generate_simple_self_signed(["localhost".into()]).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let ca = directory.path().join("ca.pem");
    std::fs::write(&ca, generated.cert.pem()).unwrap();
    let key = generated.signing_key.serialize_der().try_into().unwrap();
    let mut config = rustls::ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![generated.cert.der().clone()], key)
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let fake = Fake::start_tls(acceptor, |_| Reply::new(200).body("content")).await;

    let mut endpoint = endpoint(&format!("https://localhost:{}", fake.port()), None);
    let stranger = build(vec![endpoint.clone()], &[]);
    assert_eq!(kind(&get_blob(&stranger).await.unwrap_err()), "unreachable");
    endpoint.ca = Some(ca);
    let trusting = build(vec![endpoint], &[]);
    assert_eq!(get_blob(&trusting).await.unwrap().size(), Some(7));
}
