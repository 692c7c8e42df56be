//! Who is asked, how often, and who is left alone.

use std::{
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::future::join_all;
use tokio::time::{Instant, sleep, timeout};

use super::{
    Error, anonymous, build, digest, endpoint,
    fake::{Fake, Reply},
    get_blob, get_manifest, name, soon, tag,
};
use crate::{
    config::{CredentialSource, Identity},
    upstream::{BreakerState, Place, Rest, Upstream},
};

/// Answers the first requests so, and all others well.
async fn failing_at_first(failures: usize, reply: Reply) -> Fake {
    let asked = Arc::new(AtomicUsize::new(0));
    Fake::start(move |_| match asked.fetch_add(1, Ordering::SeqCst) < failures {
        true => reply.clone(),
        false => Reply::new(200).body("content"),
    })
    .await
}

/// So many failures open a breaker.
const FAILURES: usize = 5;
const ROUNDS: usize = 3;
/// Of a hundred connections, all but two.
const BLOBS_AT_ONCE: usize = 98;

async fn answering(status: u16) -> Fake {
    Fake::start(move |_| Reply::new(status)).await
}

fn breaker(upstream: &Upstream) -> BreakerState {
    upstream.endpoints()[0].breaker
}

/// Asks for something until nobody is asked any more.
async fn open(upstream: &Upstream, fake: &Fake) {
    while !matches!(breaker(upstream), BreakerState::Open(_)) {
        get_blob(upstream).await.unwrap_err();
    }
    assert_eq!(fake.seen().len(), FAILURES);
}

/// Waits until one may find out.
async fn half_open(upstream: &Upstream) {
    while breaker(upstream) != BreakerState::HalfOpen {
        sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn only_what_may_be_over_in_a_moment_is_asked_again() {
    let table = [
        (500, ROUNDS),
        (502, ROUNDS),
        (503, ROUNDS),
        (504, ROUNDS),
        (408, 1),
        (501, 1),
        (505, 1),
        (429, 1),
        (404, 1),
        (403, 1),
    ];
    for (status, times) in table {
        let fake = answering(status).await;
        get_manifest(&anonymous(&[fake.url()])).await.unwrap_err();
        assert_eq!(fake.seen().len(), times, "GET {status}");
        let fake = answering(status).await;
        let head = anonymous(&[fake.url()]).head_manifest(&name(), &tag(), soon()).await;
        head.unwrap_err();
        assert_eq!(fake.seen().len(), times, "HEAD {status}");
    }
}

#[tokio::test]
async fn what_is_over_in_a_moment_is_no_failure() {
    // A body that breaks off is one, as long as nobody has it yet.
    for reply in [Reply::new(500), Reply::nothing(), Reply::new(200).body("cont").length(7)] {
        let fake = failing_at_first(2, reply).await;
        let upstream = anonymous(&[fake.url()]);
        assert_eq!(get_manifest(&upstream).await.unwrap().bytes, "content");
        assert_eq!(upstream.endpoints()[0].failures, 0);
    }
}

#[tokio::test]
async fn retry_after_is_respected_as_far_as_there_is_time() {
    let fake = failing_at_first(1, Reply::new(503).header("Retry-After", "1")).await;
    let started = Instant::now();
    get_blob(&anonymous(&[fake.url()])).await.unwrap();
    assert!(started.elapsed() >= Duration::from_secs(1));

    for seconds in ["5", "3600"] {
        let fake = failing_at_first(1, Reply::new(503).header("Retry-After", seconds)).await;
        let started = Instant::now();
        let error = get_blob(&anonymous(&[fake.url()])).await.unwrap_err();
        assert!(matches!(error, Error::Unavailable { .. }), "{error:?}");
        assert_eq!(fake.seen().len(), 1);
        assert!(started.elapsed() < Duration::from_secs(4));
    }
}

#[tokio::test]
async fn a_refresh_token_is_sent_once() {
    for reply in [Reply::new(503), Reply::nothing(), Reply::new(200).json("{").length(9)] {
        let fake = Fake::start(move |seen| match seen.line.starts_with("POST /token") {
            true => reply.clone(),
            false => Reply::challenge("/token"),
        })
        .await;
        let identity = Identity::Token("refresh".to_owned());
        let source = CredentialSource::Stated(identity);
        let upstream = build(vec![endpoint(&fake.url(), Some(source))], &[]);
        let error = get_manifest(&upstream).await.unwrap_err();
        assert!(matches!(error, Error::Unreachable(_)), "{error:?}");
        assert_eq!(fake.count("POST /token"), 1);
    }
}

#[tokio::test]
async fn each_endpoint_is_asked_again_as_its_own_trouble_is() {
    let (lasting, momentary) = (answering(408).await, answering(503).await);
    let upstream = anonymous(&[lasting.url(), momentary.url()]);
    let error = get_blob(&upstream).await.unwrap_err();
    assert!(matches!(error, Error::Unavailable { .. }), "{error:?}");
    assert_eq!((lasting.seen().len(), momentary.seen().len()), (1, ROUNDS));
}

#[tokio::test]
async fn a_limit_is_its_endpoints_own() {
    let (limited, failing) = (answering(429).await, answering(503).await);
    let good = Fake::start(|_| Reply::new(200).body("content")).await;
    let upstream = anonymous(&[limited.url(), good.url()]);
    assert_eq!(get_manifest(&upstream).await.unwrap().bytes, "content");
    assert_eq!((limited.seen().len(), good.seen().len()), (1, 1));

    for urls in [[limited.url(), failing.url()], [failing.url(), limited.url()]] {
        let (before, after) = (limited.seen().len(), failing.seen().len());
        let error = get_manifest(&anonymous(&urls)).await.unwrap_err();
        assert!(matches!(error, Error::Limited { .. }), "{error:?}");
        assert_eq!(limited.seen().len() - before, 1);
        assert_eq!(failing.seen().len() - after, ROUNDS);
    }
}

#[tokio::test]
async fn who_fails_time_and_again_is_left_alone() {
    let fake = answering(500).await;
    let upstream = anonymous(&[fake.url()]);
    open(&upstream, &fake).await;
    let error = get_manifest(&upstream).await.unwrap_err();
    assert!(!upstream.probe(Duration::from_secs(2)).await);
    let host = fake.url().trim_start_matches("http://").to_owned();
    let text = format!("registry.test: {host} failed 5 times in a row; asked again in ");
    assert!(error.to_string().starts_with(&text), "{error}");
    assert!(matches!(error, Error::Unreachable(_)));
    assert_eq!(fake.seen().len(), FAILURES);
    let state = &upstream.endpoints()[0];
    assert_eq!(state.failures as usize, FAILURES);
    assert!(state.last_error.as_ref().unwrap().contains("500"), "{state:?}");
}

#[tokio::test]
async fn answers_in_between_keep_it_closed() {
    let asked = Arc::new(AtomicUsize::new(0));
    // Any answer will do.
    let fake = Fake::start(move |_| match asked.fetch_add(1, Ordering::SeqCst) % 4 {
        3 => Reply::new(404),
        _ => Reply::new(500),
    })
    .await;
    let upstream = anonymous(&[fake.url()]);
    for _ in 0..4 {
        get_blob(&upstream).await.unwrap_err();
        get_blob(&upstream).await.unwrap_err();
    }
    assert_eq!(breaker(&upstream), BreakerState::Closed);
    assert_eq!(fake.seen().len(), 4 * (ROUNDS + 1));
}

#[tokio::test]
async fn one_of_many_finds_out() {
    let fake = answering(500).await;
    let upstream = anonymous(&[fake.url()]);
    open(&upstream, &fake).await;
    half_open(&upstream).await;
    let outcomes = join_all((0..50).map(|_| get_blob(&upstream))).await;
    assert!(outcomes.iter().all(Result::is_err));
    assert_eq!(fake.seen().len(), FAILURES + 1);
    assert_ne!(breaker(&upstream), BreakerState::Closed);

    let fake = failing_at_first(FAILURES, Reply::new(500)).await;
    let upstream = anonymous(&[fake.url()]);
    open(&upstream, &fake).await;
    half_open(&upstream).await;
    let outcomes = join_all((0..50).map(|_| get_blob(&upstream))).await;
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 1);
    let error = outcomes.iter().find_map(|outcome| outcome.as_ref().err()).unwrap();
    assert!(error.to_string().ends_with("it is being asked again"), "{error}");
    assert_eq!(breaker(&upstream), BreakerState::Closed);
    assert!(join_all((0..50).map(|_| get_blob(&upstream))).await.iter().all(Result::is_ok));
}

#[tokio::test]
async fn a_probe_whose_client_hangs_up_is_not_the_last() {
    let asked = Arc::new(AtomicUsize::new(0));
    let fake = Fake::start(move |_| match asked.fetch_add(1, Ordering::SeqCst) {
        0..FAILURES => Reply::new(500),
        FAILURES => Reply::new(200).after(Duration::from_secs(60)),
        _ => Reply::new(200),
    })
    .await;
    let upstream = anonymous(&[fake.url()]);
    open(&upstream, &fake).await;
    half_open(&upstream).await;
    timeout(Duration::from_millis(100), get_blob(&upstream)).await.unwrap_err();
    get_blob(&upstream).await.unwrap();
    assert_eq!(breaker(&upstream), BreakerState::Closed);
}

#[tokio::test]
async fn a_sign_of_life_closes_it() {
    let fake = Fake::start(|seen| match seen.line.as_str() {
        "GET /v2/" => Reply::new(401),
        _ => Reply::new(500),
    })
    .await;
    let upstream = anonymous(&[fake.url()]);
    open(&upstream, &fake).await;
    half_open(&upstream).await;
    assert!(upstream.probe(Duration::from_secs(2)).await);
    assert_eq!(breaker(&upstream), BreakerState::Closed);
}

#[tokio::test]
async fn who_has_a_backoff_may_ask_anyway() {
    let fake = failing_at_first(FAILURES + 1, Reply::new(500)).await;
    let upstream = anonymous(&[fake.url()]);
    open(&upstream, &fake).await;
    let rest = Rest { start: 0, size: Some(7) };
    let limit = Duration::from_secs(5);
    let ask =
        async || upstream.get_blob_rest(Place::default(), &name(), &digest(), rest, limit).await;
    ask().await.unwrap_err();
    assert_eq!(fake.seen().len(), FAILURES + 1, "once");
    assert!(matches!(breaker(&upstream), BreakerState::Open(_)));
    ask().await.unwrap();
    assert_eq!(breaker(&upstream), BreakerState::Closed);
}

#[tokio::test]
async fn of_two_limits_the_shorter_is_told() {
    for pauses in [["100", "3"], ["3", "100"]] {
        let limited =
            async |pause| Fake::start(move |_| Reply::new(429).header("Retry-After", pause)).await;
        let [first, second] = [limited(pauses[0]).await, limited(pauses[1]).await];
        let error = get_blob(&anonymous(&[first.url(), second.url()])).await.unwrap_err();
        let Error::Limited { retry_after: Some(pause), .. } = error else { panic!("{error:?}") };
        assert_eq!(pause.as_secs(), 3);
    }
}

#[tokio::test]
async fn who_goes_on_with_a_blob_waits_for_a_connection() {
    let fake = Fake::start(|_| Reply::new(200).body("cont").length(7).then_hangs()).await;
    let upstream = anonymous(&[fake.url()]);
    let mut bodies = Vec::new();
    while fake.seen().len() < BLOBS_AT_ONCE {
        bodies.push(get_blob(&upstream).await.unwrap());
    }
    let (rest, limit) = (Rest { start: 4, size: Some(7) }, Duration::from_secs(2));
    let (name, digest) = (name(), digest());
    let mut asked = pin!(upstream.get_blob_rest(Place::default(), &name, &digest, rest, limit));
    timeout(limit * 3 / 2, &mut asked).await.unwrap_err();
    assert_eq!(fake.seen().len(), BLOBS_AT_ONCE);
    drop(bodies);
    asked.await.unwrap();
}

#[tokio::test]
async fn who_is_in_doubt_holds_up_nobody() {
    let silent = Fake::start(|_| Reply::new(200).after(Duration::from_secs(60))).await;
    let good = Fake::start(|_| Reply::new(200)).await;
    let upstream = anonymous(&[silent.url(), good.url()]);
    let ask = async |time: Duration| {
        upstream.get_blob(&name(), &digest(), Instant::now() + time).await.unwrap();
    };
    // Too short a time says nothing of it.
    ask(Duration::from_millis(200)).await;
    assert_eq!(upstream.endpoints()[0].failures, 0);
    for _ in 0..FAILURES {
        ask(Duration::from_millis(1200)).await;
    }
    ask(Duration::from_secs(20)).await;
    assert_eq!(silent.seen().len(), 1 + FAILURES, "it is not asked");
    half_open(&upstream).await;
    let started = Instant::now();
    ask(Duration::from_secs(20)).await;
    assert!(started.elapsed() < Duration::from_secs(5), "half of the time is not waited for");
    assert_eq!(silent.seen().len(), 1 + FAILURES + 1);
}
