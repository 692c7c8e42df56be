//! Several endpoints of one upstream, some of them in trouble: who is asked, and what clients notice.

use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::join_all;
use larder::oci::Digest;
use serde_json::Value;

use crate::support::{
    FakeRegistry, Fault, Image, Mode, TestMirror, Upstream, address,
    binary::Daemon,
    mirror::{blob_url, manifest_path},
    random_bytes, sha256,
    tls::TestCa,
    wait::until,
};

/// So many failures in a row open a breaker.
const FAILURES: usize = 5;
/// So often in a row an endpoint is asked that fails at once.
const ROUNDS: usize = 3;
/// No breaker is open for longer.
const LONGEST_OPEN: Duration = Duration::from_secs(10);
/// What a client waits at most where nobody is waited for.
const SOON: Duration = Duration::from_secs(3);
/// What a client waits at most for any answer, with a second for a busy machine.
const DEADLINE: Duration = Duration::from_secs(21);

/// A mirror of docker.io at these endpoints.
async fn mirror_of(endpoints: &[String]) -> TestMirror {
    let registry = FakeRegistry::start().await;
    let upstream = Upstream::docker_io(&registry).set("endpoints", endpoints.to_vec());
    TestMirror::builder().upstream(upstream).start().await
}

/// Blobs that are all different.
fn blobs(number: u64) -> Vec<Bytes> {
    (0..number).map(|seed| random_bytes(seed, 1_000)).collect()
}

/// A registry with these blobs.
async fn registry_with(blobs: &[Bytes]) -> FakeRegistry {
    let registry = FakeRegistry::start().await;
    for blob in blobs {
        registry.put_blob("library/x", blob);
    }
    registry
}

/// What the admin listener shows of an endpoint.
async fn shown(mirror: &TestMirror, endpoint: usize) -> Value {
    let response = mirror.admin().get("/api/v1/upstreams").await;
    let shown: Value = serde_json::from_slice(&response.bytes().await).unwrap();
    shown["upstreams"][0]["endpoints"][endpoint].clone()
}

async fn until_breaker(mirror: &TestMirror, endpoint: usize, state: &str) {
    until(state, async || shown(mirror, endpoint).await["breaker"] == state).await;
}

/// Asks until these endpoints are open for some time to come: each probe that fails doubles it.
async fn until_open_for_long(mirror: &TestMirror, endpoints: &[usize]) {
    let mut numbers = 0..;
    until("breakers to be open for long", async || {
        mirror.get(&blob_url("library/x", &unknown(numbers.next().unwrap()))).await;
        for endpoint in endpoints {
            if shown(mirror, *endpoint).await["open_seconds"].as_u64() <= Some(3) {
                return false;
            }
        }
        true
    })
    .await;
}

async fn is_up(mirror: &TestMirror, registry: &FakeRegistry) -> f64 {
    let host = registry.address();
    mirror.metric(&format!(r#"larder_upstream_endpoint_up{{endpoint="{host}"}}"#)).await
}

/// Something that is not there.
fn unknown(number: usize) -> Digest {
    sha256(number.to_string().as_bytes())
}

/// Whatever is wrong with the first endpoint, clients get what they want from the second.
#[tokio::test(flavor = "multi_thread")]
async fn the_second_endpoint_stands_in_for_the_first() {
    let fault = async |fault: Fault| {
        let first = FakeRegistry::start().await;
        for method in ["GET", "HEAD"] {
            first.on(method, "*", fault.clone());
        }
        (first.url(), Some(first))
    };
    let mode = async |mode: Mode| {
        let first = FakeRegistry::start().await;
        first.set_mode(mode).await;
        (first.url(), Some(first))
    };
    let untrusted = FakeRegistry::builder().tls(&TestCa::new()).start().await;
    let plain = FakeRegistry::start().await;
    let firsts = [
        (format!("http://{}", address::unique()), None),
        ("http://nowhere.invalid".to_owned(), None),
        (untrusted.url(), Some(untrusted)),
        (plain.url().replace("http:", "https:"), None),
        mode(Mode::Down).await,
        mode(Mode::Dropping).await,
        mode(Mode::BlackHole).await,
        fault(Fault::hang_up()).await,
        fault(Fault::silent()).await,
        fault(Fault::status(408)).await,
        fault(Fault::status(429).header("retry-after", "3600")).await,
        fault(Fault::status(500)).await,
        fault(Fault::status(503).header("retry-after", "3600")).await,
        fault(Fault::status(200).body("cut").and_cut_after(1)).await,
    ];
    join_all(firsts.map(async |(url, first)| {
        let second = FakeRegistry::start().await;
        let image = Image::random(1);
        second.put_image("library/x", "latest", &image);
        let mirror = mirror_of(&[url.clone(), second.url()]).await;
        let response = mirror.get(&manifest_path("library/x", &image.digest().to_string())).await;
        assert!(response.elapsed() < DEADLINE, "{url}: {:?}", response.elapsed());
        response.expect(&image.manifest).await;
        assert_eq!(second.requests().len(), 1, "{url}");
        assert_eq!(mirror.metric("larder_upstream_retries_total").await, 0.0, "{url}");
        drop(first);
    }))
    .await;
}

/// A refusal of the host that the registry redirects to is not the registry's: it is asked again for the
/// way, and whoever comes next asks anew.
#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_behind_a_redirect_is_nobodys_word() {
    for status in [400, 401, 403] {
        let (registry, storage) = (FakeRegistry::start().await, FakeRegistry::start().await);
        registry.redirect_blobs_to(&storage);
        let blob = Bytes::from("blob");
        let digest = registry.put_blob("library/x", &blob);
        let path = blob_url("library/x", &digest);
        let mirror = TestMirror::of(&registry).await;
        storage.on("GET", "*", Fault::status(status));
        for _ in 0..3 {
            assert_eq!(mirror.get(&path).await.status, 429, "{status}");
        }
        assert_eq!(is_up(&mirror, &registry).await, 1.0, "{status}");
        storage.behave();
        storage.once("GET", "*", Fault::status(status));
        let asked = registry.count("GET", &path);
        mirror.get(&path).await.expect(&blob).await;
        assert_eq!(registry.count("GET", &path), asked + 2, "{status}");
    }
}

/// An endpoint whose storage refuses what it redirects to is passed over.
#[tokio::test(flavor = "multi_thread")]
async fn the_second_endpoint_stands_in_for_the_storage_of_the_first() {
    let [first, storage, second] =
        [FakeRegistry::start().await, FakeRegistry::start().await, FakeRegistry::start().await];
    first.redirect_blobs_to(&storage);
    storage.on("GET", "*", Fault::status(403));
    let blob = Bytes::from("blob");
    first.put_blob("library/x", &blob);
    let digest = second.put_blob("library/x", &blob);
    let mirror = mirror_of(&[first.url(), second.url()]).await;
    mirror.get(&blob_url("library/x", &digest)).await.expect(&blob).await;
    assert_eq!((first.requests().len(), storage.requests().len()), (1, 1));
}

/// An endpoint that fails time and again is asked no more, until a probe finds it well.
#[tokio::test(flavor = "multi_thread")]
async fn a_dead_endpoint_is_left_alone_until_it_is_back() {
    let blobs = blobs(20);
    let (first, second) = (registry_with(&blobs).await, registry_with(&blobs).await);
    first.on("GET", "*", Fault::status(500).body(r#"{"message":"upside down"}"#));
    let mirror = mirror_of(&[first.url(), second.url()]).await;
    for (failures, blob) in (1..).zip(&blobs[..FAILURES]) {
        assert_eq!(is_up(&mirror, &first).await, 1.0);
        mirror.pull_blob("library/x", &sha256(blob)).await;
        assert_eq!(shown(&mirror, 0).await["failures"], failures);
    }
    assert_eq!((first.requests().len(), second.requests().len()), (FAILURES, FAILURES));
    assert_eq!((is_up(&mirror, &first).await, is_up(&mirror, &second).await), (0.0, 1.0));
    until_open_for_long(&mirror, &[0]).await;
    let asked = first.requests().len();
    for blob in &blobs[FAILURES..10] {
        mirror.pull_blob("library/x", &sha256(blob)).await;
    }
    assert_eq!(first.requests().len(), asked);
    let state = shown(&mirror, 0).await;
    assert_eq!(state["breaker"], "open");
    assert!(state["open_seconds"].as_u64().unwrap() > 0, "{state}");
    assert!(state["last_error"].as_str().unwrap().contains("upside down"), "{state}");
    assert_eq!(shown(&mirror, 1).await["breaker"], "closed");

    first.behave();
    until_breaker(&mirror, 0, "half_open").await;
    assert_eq!(is_up(&mirror, &first).await, 0.0);
    for blob in &blobs[10..] {
        mirror.pull_blob("library/x", &sha256(blob)).await;
    }
    assert_eq!(first.requests().len(), asked + 10);
    assert_eq!(is_up(&mirror, &first).await, 1.0);
    let closed =
        [("breaker", "closed".into()), ("failures", 0.into()), ("last_error", Value::Null)];
    let state = shown(&mirror, 0).await;
    assert!(closed.iter().all(|(key, value)| state[key] == *value), "{state}");
}

/// Of many who ask at once, one finds out whether an endpoint is back, and holds up nobody else.
#[tokio::test(flavor = "multi_thread")]
async fn one_of_fifty_is_the_probe() {
    let blobs = blobs(50 + FAILURES as u64);
    let (first, second) = (registry_with(&blobs).await, registry_with(&blobs).await);
    first.set_mode(Mode::Down).await;
    let mirror = mirror_of(&[first.url(), second.url()]).await;
    for blob in &blobs[..FAILURES] {
        mirror.pull_blob("library/x", &sha256(blob)).await;
    }
    first.on("GET", "*", Fault::silent());
    first.set_mode(Mode::Up).await;
    until_breaker(&mirror, 0, "half_open").await;
    let pulls = blobs[FAILURES..].iter().map(async |blob| {
        let response = mirror.get(&blob_url("library/x", &sha256(blob))).await;
        // No endpoint whose health is in doubt is waited for for as long as one in good health.
        assert!(response.elapsed() < Duration::from_secs(8), "{:?}", response.elapsed());
        response.expect(blob).await;
    });
    join_all(pulls).await;
    assert_eq!(first.requests().len(), 1);
    assert_eq!(second.requests().len(), FAILURES + 50);
}

/// While nobody is there to ask, nobody waits: what is cached is served, what is not is refused, and
/// clients turn to the registry itself. No connection is made for any of them.
#[tokio::test(flavor = "multi_thread")]
async fn with_all_endpoints_open_answers_come_at_once() {
    let (first, second) = (FakeRegistry::start().await, FakeRegistry::start().await);
    let image = Image::random(2);
    for registry in [&first, &second] {
        registry.put_image("library/x", "latest", &image);
    }
    let mirror = mirror_of(&[first.url(), second.url()]).await;
    mirror.pull("library/x", "latest", &image).await;
    for registry in [&first, &second] {
        registry.set_mode(Mode::Dropping).await;
    }
    mirror.advance(Duration::from_secs(61));
    until_open_for_long(&mirror, &[0, 1]).await;
    let connections = || first.connections() + second.connections();
    let (before, begun) = (connections(), Instant::now());
    let stale = mirror.get(&manifest_path("library/x", "latest")).await;
    assert!(stale.header("warning").is_some_and(|warning| warning.contains("times in a row")));
    stale.expect(&image.manifest).await;
    mirror.pull_blob("library/x", &sha256(&image.config)).await;
    let manifest = mirror.get(&manifest_path("library/other", "latest")).await;
    assert_eq!(manifest.status, 502);
    let (_, message) = manifest.error().await;
    assert!(message.contains("times in a row; asked again in "), "{message}");
    let blob = mirror.get(&blob_url("library/x", &sha256(b"unknown"))).await;
    assert_eq!((blob.status, blob.header("retry-after")), (429, Some("1")));
    assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
    assert_eq!(connections(), before);
}

/// What was out of reach is pulled again soon after it is back.
#[tokio::test(flavor = "multi_thread")]
async fn recovery_takes_no_longer_than_a_breaker_is_open() {
    for mode in [Mode::Down, Mode::Dropping] {
        let registry = FakeRegistry::start().await;
        registry.put_image("library/x", "latest", &Image::random(3));
        let mirror = mirror_of(&[registry.url()]).await;
        registry.set_mode(mode).await;
        for number in 0..20 {
            assert_eq!(mirror.get(&blob_url("library/x", &unknown(number))).await.status, 429);
        }
        assert_eq!(shown(&mirror, 0).await["breaker"], "open");
        registry.set_mode(Mode::Up).await;
        let back = Instant::now();
        let tag = manifest_path("library/x", "latest");
        until("a manifest", async || mirror.get(&tag).await.status == 200).await;
        assert!(back.elapsed() < LONGEST_OPEN, "{:?}", back.elapsed());
    }
}

/// What is over in a moment is noticed by no client, and costs as many requests as it takes.
#[tokio::test(flavor = "multi_thread")]
async fn a_hiccup_is_not_noticed() {
    for fault in
        [Fault::status(500), Fault::status(503), Fault::status(200).body("x").and_cut_after(0)]
    {
        let registry = FakeRegistry::start().await;
        let image = Image::random(4);
        registry.put_image("library/x", "latest", &image);
        let mirror = mirror_of(&[registry.url()]).await;
        let path = manifest_path("library/x", &image.digest().to_string());
        registry.once("GET", &path, fault.clone());
        registry.once("GET", &path, fault.clone());
        mirror.get(&path).await.expect(&image.manifest).await;
        assert_eq!(registry.count("GET", &path), ROUNDS, "{fault:?}");
        assert_eq!(mirror.metric("larder_upstream_retries_total").await, 2.0);
    }
}

/// Each in its own way, all endpoints together take no longer than a client may be kept waiting.
#[tokio::test(flavor = "multi_thread")]
async fn dead_endpoints_share_the_time() {
    let silent = ([Mode::BlackHole; 3], 503);
    let mixed = ([Mode::BlackHole, Mode::Down, Mode::Up], 503);
    // Each short pause is waited out, but not for ever.
    let limited = ([Mode::Up; 3], 429);
    join_all([silent, mixed, limited].map(async |(modes, status)| {
        let registries = join_all(modes.map(async |mode| {
            let registry = FakeRegistry::start().await;
            for method in ["GET", "HEAD"] {
                registry.on(method, "*", Fault::status(status).header("retry-after", "1"));
            }
            registry.set_mode(mode).await;
            registry
        }))
        .await;
        let urls: Vec<String> = registries.iter().map(FakeRegistry::url).collect();
        let mirror = mirror_of(&urls).await;
        let paths = [manifest_path("library/x", "latest"), blob_url("library/x", &unknown(0))];
        let answers = join_all(paths.iter().map(|path| mirror.get(path))).await;
        for answer in answers {
            assert!(answer.elapsed() < DEADLINE, "{modes:?}: {:?}", answer.elapsed());
            assert!(matches!(answer.status, 429 | 502 | 504), "{modes:?}: {answer:?}");
        }
    }))
    .await;
}

/// That an endpoint is left alone, and that it is back, is a line each for the operator, however many
/// requests met it meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn a_dead_endpoint_is_two_lines_in_the_log() {
    let registry = FakeRegistry::start().await;
    let image = Image::random(5);
    registry.put_image("library/x", "latest", &image);
    let upstream = Upstream::docker_io(&registry);
    let daemon = Daemon::start(TestMirror::builder().upstream(upstream)).await;
    registry.set_mode(Mode::Down).await;
    for number in 0..20 {
        daemon.client().get(&blob_url("library/x", &unknown(number))).await;
    }
    registry.set_mode(Mode::Up).await;
    let tag = manifest_path("library/x", "latest");
    until("a manifest", async || daemon.client().get(&tag).await.status == 200).await;
    until("the line", async || daemon.log().contains("endpoint is back")).await;
    let (log, host) = (daemon.log(), registry.address().to_string());
    let lines: Vec<&str> =
        log.lines().filter(|line| line.contains("endpoint") && line.contains(&host)).collect();
    let [failed, back] = lines[..] else {
        panic!("two lines: {log}");
    };
    assert!(failed.contains(" WARN ") && failed.contains("it is left alone"), "{failed}");
    assert!(back.contains(" INFO ") && back.contains("endpoint is back"), "{back}");
}
