//! Upstream in trouble: each row of "what upstream says" against cached and not cached.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use tokio::{
    net::{TcpListener, TcpSocket, TcpStream},
    time::timeout,
};

use crate::support::{
    Auth, FakeRegistry, Fault, Image, Mode, Response, TestMirror, Upstream, address,
    mirror::{blob_url, manifest_path},
    random_bytes, sha256,
    tls::TestCa,
};

const TAG: &str = "/v2/library/x/manifests/latest";

/// More than the `tag_ttl` of a [`TestMirror`].
const PAST_TTL: Duration = Duration::from_secs(61);

/// What a client waits at most for an answer from the cache.
const SOON: Duration = Duration::from_secs(3);

/// What a client waits at most for any answer, with a second for a busy machine.
const DEADLINE: Duration = Duration::from_secs(21);

/// A registry with an image, and a mirror that pulled it a while ago.
async fn cached(auth: Auth) -> (FakeRegistry, TestMirror, Image) {
    let registry = FakeRegistry::builder().auth(auth).start().await;
    let image = Image::random(1);
    registry.put_image("library/x", "latest", &image);
    let mirror = TestMirror::of(&registry).await;
    mirror.pull("library/x", "latest", &image).await;
    mirror.advance(PAST_TTL);
    (registry, mirror, image)
}

/// The whole image is served at once, its tag marked as stale and counted.
async fn assert_stale(mirror: &TestMirror, image: &Image) {
    let stale = r#"larder_lookups_total{kind="manifest",result="stale"}"#;
    let counted = mirror.metric(stale).await;
    for method in ["GET", "HEAD"] {
        let response = mirror.request(method, TAG, &[]).await;
        assert_eq!(response.status, 200, "{method}");
        assert!(response.elapsed() < SOON, "{method}: {:?}", response.elapsed());
        let warning = response.header("warning").unwrap_or_default();
        assert!(warning.starts_with("299 - \""), "{warning}");
    }
    assert!(mirror.metric(stale).await > counted);

    let digest = image.digest().to_string();
    let by_digest = mirror.get(&manifest_path("library/x", &digest)).await;
    assert!(by_digest.elapsed() < SOON);
    by_digest.verified(&image.digest()).await;
    for blob in image.blobs() {
        let digest = sha256(blob);
        let response = mirror.get(&blob_url("library/x", &digest)).await;
        assert!(response.elapsed() < SOON);
        response.verified(&digest).await;
    }
}

/// What is not cached is said to be unavailable in the way that clients fall back from best.
async fn assert_unavailable(mirror: &TestMirror) {
    let paths = [
        manifest_path("library/unknown", "latest"),
        manifest_path("library/x", "unknown"),
        manifest_path("library/x", &sha256(b"unknown").to_string()),
        blob_url("library/x", &sha256(b"unknown")),
        blob_url("library/unknown", &sha256(b"unknown")),
    ];
    let responses = join_all(paths.iter().map(|path| mirror.get(path))).await;
    for (path, response) in paths.iter().zip(responses) {
        assert!(response.elapsed() < DEADLINE, "{path}: {:?}", response.elapsed());
        if path.contains("/blobs/") {
            assert_eq!(response.status, 429, "{path}");
            assert_eq!(response.header("retry-after"), Some("1"), "{path}");
        } else {
            assert!(matches!(response.status, 502 | 504), "{path}: {response:?}");
        }
        response.error().await;
    }
}

async fn unreachable(mode: Mode) {
    let (registry, mirror, image) = cached(Auth::Open).await;
    registry.set_mode(mode).await;
    assert_stale(&mirror, &image).await;
    assert_unavailable(&mirror).await;
    assert_stale(&mirror, &image).await;
}

/// Upstream refuses connections: what is cached is served, what is not is said to be out of
/// reach.
#[tokio::test(flavor = "multi_thread")]
async fn upstream_refuses_connections() {
    unreachable(Mode::Down).await;
}

/// The same when it takes connections and never answers.
#[tokio::test(flavor = "multi_thread")]
async fn upstream_is_a_black_hole() {
    unreachable(Mode::BlackHole).await;
}

/// The same when it drops every connection.
#[tokio::test(flavor = "multi_thread")]
async fn upstream_drops_connections() {
    unreachable(Mode::Dropping).await;
}

/// The same when it answers 5xx, as JSON or as a web page, or hangs up on every request.
#[tokio::test(flavor = "multi_thread")]
async fn upstream_answers_5xx_or_hangs_up() {
    let page = "<html>oops</html>";
    for trouble in [
        Fault::status(500),
        Fault::status(502).body(page).header("content-type", "text/html"),
        Fault::status(503).header("retry-after", "3600"),
        Fault::hang_up(),
    ] {
        let (registry, mirror, image) = cached(Auth::Open).await;
        for method in ["GET", "HEAD"] {
            registry.on(method, "/v2/*", trouble.clone());
        }
        assert_stale(&mirror, &image).await;
        assert_unavailable(&mirror).await;
    }
}

/// The same when it answers `/v2/` and is silent on everything else.
#[tokio::test(flavor = "multi_thread")]
async fn upstream_is_silent() {
    let (registry, mirror, image) = cached(Auth::Open).await;
    for method in ["GET", "HEAD"] {
        registry.on(method, "/v2/library/*", Fault::silent());
    }
    assert_stale(&mirror, &image).await;
    assert_unavailable(&mirror).await;
}

/// The same when registry and blobs are well and only the token server is not.
#[tokio::test(flavor = "multi_thread")]
async fn the_token_server_is_in_trouble() {
    let html = "<html>blocked</html>";
    let troubles = [
        Fault::status(429),
        Fault::status(503),
        Fault::status(403).body(html).header("content-type", "text/html"),
        Fault::status(200).body(html).header("content-type", "text/html"),
        Fault::hang_up(),
        Fault::silent(),
    ];
    join_all(troubles.map(async |trouble| {
        let (registry, mirror, image) = cached(Auth::AnonymousToken).await;
        registry.expire_tokens();
        registry.on("GET", "/token", trouble);
        assert_stale(&mirror, &image).await;
        assert_unavailable(&mirror).await;
    }))
    .await;
}

/// The same when it redirects in circles or to where nothing may lead.
#[tokio::test(flavor = "multi_thread")]
async fn upstream_redirects_to_a_strange_place() {
    for location in [
        "/v2/library/x/round/and/round",
        "http://169.254.169.254/latest/meta-data/",
        "file:///etc/passwd",
        "unix:/run/docker.sock",
        "http://[::g]/",
    ] {
        let (registry, mirror, image) = cached(Auth::Open).await;
        for method in ["GET", "HEAD"] {
            let redirect = Fault::status(307).header("location", location);
            registry.on(method, "/v2/library/*", redirect);
        }
        assert_stale(&mirror, &image).await;
        assert_unavailable(&mirror).await;
    }
}

/// The same when it redirects out of TLS.
#[tokio::test(flavor = "multi_thread")]
async fn upstream_redirects_to_plain_http() {
    let (registry, plain) =
        (FakeRegistry::builder().tls(&TestCa::new()).start().await, FakeRegistry::start().await);
    let image = Image::random(1);
    for registry in [&registry, &plain] {
        registry.put_image("library/x", "latest", &image);
    }
    let mirror = TestMirror::of(&registry).await;
    mirror.pull("library/x", "latest", &image).await;
    mirror.advance(PAST_TTL);
    for method in ["GET", "HEAD"] {
        let redirect = Fault::status(307).header("location", plain.url() + TAG);
        registry.on(method, "/v2/library/*", redirect);
    }
    assert_stale(&mirror, &image).await;
    assert_unavailable(&mirror).await;
    assert_eq!(plain.connections(), 0);
}

/// The same when its name has no address.
#[tokio::test(flavor = "multi_thread")]
async fn upstream_has_no_address() {
    let (registry, mirror, image) = cached(Auth::Open).await;
    let nowhere = vec!["http://registry.invalid:5000"];
    let upstream = Upstream::docker_io(&registry).set("endpoints", nowhere);
    let mirror = mirror.stop().await.upstream(upstream).wall_jumped(PAST_TTL).start().await;
    assert_stale(&mirror, &image).await;
    assert_unavailable(&mirror).await;
}

/// The same when nobody vouches for its certificate any more.
#[tokio::test(flavor = "multi_thread")]
async fn upstream_has_a_certificate_that_nobody_vouches_for() {
    let registry = FakeRegistry::builder().tls(&TestCa::new()).start().await;
    let image = Image::random(1);
    registry.put_image("library/x", "latest", &image);
    let mirror = TestMirror::of(&registry).await;
    mirror.pull("library/x", "latest", &image).await;
    let upstream = Upstream::docker_io(&registry).without_ca();
    let mirror = mirror.stop().await.upstream(upstream).wall_jumped(PAST_TTL).start().await;
    let asked = registry.requests().len();
    assert_stale(&mirror, &image).await;
    assert_unavailable(&mirror).await;
    assert_eq!(registry.requests().len(), asked, "a stranger is told nothing");
}

/// A daemon that starts while upstream is away serves what it has, at once.
#[tokio::test(flavor = "multi_thread")]
async fn a_start_without_upstream_serves_what_is_cached() {
    for mode in [Mode::Down, Mode::BlackHole, Mode::Dropping] {
        let (registry, mirror, image) = cached(Auth::Open).await;
        let stopped = mirror.stop().await;
        registry.set_mode(mode).await;
        let begun = Instant::now();
        let mirror = stopped.wall_jumped(PAST_TTL).start().await;
        assert!(begun.elapsed() < SOON, "{mode:?}: {:?}", begun.elapsed());
        assert_stale(&mirror, &image).await;
    }
}

/// An address that does not even refuse is given up after `connect_timeout`.
#[tokio::test(flavor = "multi_thread")]
async fn upstream_cannot_be_connected_to() {
    let deaf = Deaf::start().await;
    let registry = FakeRegistry::start().await;
    let upstream = Upstream::docker_io(&registry).set("endpoints", vec![deaf.url()]);
    let mirror = TestMirror::builder()
        .upstream(upstream)
        .set("download.connect_timeout", "300ms")
        .start()
        .await;
    for path in [TAG.to_owned(), blob_url("library/x", &sha256(b"unknown"))] {
        let response = mirror.get(&path).await;
        assert!(matches!(response.status, 429 | 502 | 504), "{response:?}");
        assert!(response.elapsed() < SOON, "{:?}", response.elapsed());
    }
}

/// A listener whose queue is full, so that the kernel drops who wants to connect.
struct Deaf {
    listener: TcpListener,
    _queue: Vec<TcpStream>,
}

impl Deaf {
    async fn start() -> Deaf {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(address::unique()).unwrap();
        let listener = socket.listen(1).unwrap();
        let address = listener.local_addr().unwrap();
        let mut queue = Vec::new();
        let patience = Duration::from_millis(500);
        while let Ok(stream) = timeout(patience, TcpStream::connect(address)).await {
            queue.push(stream.unwrap());
        }
        Deaf { listener, _queue: queue }
    }

    fn url(&self) -> String {
        format!("http://{}", self.listener.local_addr().unwrap())
    }
}

/// Upstream comes back and is asked again.
#[tokio::test(flavor = "multi_thread")]
async fn upstream_comes_back() {
    let (registry, mirror, _) = cached(Auth::Open).await;
    registry.set_mode(Mode::Down).await;
    mirror.get(TAG).await;
    let new = Image::random(2);
    registry.put_image("library/x", "latest", &new);
    registry.set_mode(Mode::Up).await;
    mirror.advance(PAST_TTL);
    crate::support::wait::until("the new image", async || {
        mirror.manifest("library/x", "latest").await == new.manifest
    })
    .await;
}

/// A rate limit never breaks what is cached, upstream is left alone for as long as it asked, and
/// clients are not made to wait that long.
#[tokio::test(flavor = "multi_thread")]
async fn upstream_limits_the_rate() {
    let (registry, mirror, image) = cached(Auth::Open).await;
    let limited = Fault::status(429).header("retry-after", "3600");
    for method in ["GET", "HEAD"] {
        registry.on(method, "/v2/*", limited.clone());
    }
    assert_stale(&mirror, &image).await;

    let manifests = "/v2/*/manifests/*";
    let asked = || registry.count("GET", manifests) + registry.count("HEAD", manifests);
    let before = asked();
    for path in
        [manifest_path("library/unknown", "latest"), blob_url("library/x", &sha256(b"unknown"))]
    {
        assert_limited(mirror.get(&path).await).await;
    }
    assert_stale(&mirror, &image).await;
    assert_eq!(asked(), before, "a paused upstream is left alone");
}

async fn assert_limited(response: Response) {
    assert_eq!(response.status, 429);
    let wait: u32 = response.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=3).contains(&wait), "{wait}");
    assert_eq!(response.error().await.0, "TOOMANYREQUESTS");
}

/// A rate limit met by a request that nothing cached can answer is passed on as one.
#[tokio::test(flavor = "multi_thread")]
async fn a_limit_on_something_unknown_is_said_to_be_one() {
    let registry = FakeRegistry::start().await;
    for method in ["GET", "HEAD"] {
        registry.on(method, "/v2/*", Fault::status(429));
    }
    let paths = [TAG.to_owned(), blob_url("library/x", &sha256(b"unknown"))];
    join_all(paths.map(async |path| {
        let mirror = TestMirror::of(&registry).await;
        assert_limited(mirror.get(&path).await).await;
    }))
    .await;
}

/// A moment that upstream asks for is waited out where nothing cached can be served instead.
#[tokio::test(flavor = "multi_thread")]
async fn a_short_limit_is_waited_out() {
    let (registry, mirror, image) = cached(Auth::Open).await;
    let other = Image::random(2);
    registry.put_image("library/y", "latest", &other);
    let moment = Fault::status(429).header("retry-after", "1");
    for (method, path) in [
        ("HEAD", manifest_path("library/y", "latest")),
        ("GET", manifest_path("library/y", &other.digest().to_string())),
        ("GET", blob_url("library/y", &sha256(&other.layers[0]))),
    ] {
        registry.once(method, &path, moment.clone());
        let response = mirror.request(method, &path, &[]).await;
        assert_eq!(response.status, 200, "{method} {path}");
        assert!(response.elapsed() >= Duration::from_secs(1), "{method} {path}");
        assert_eq!(registry.count(method, &path), 2, "{method} {path}");
    }
    registry.once("HEAD", TAG, moment);
    assert_stale(&mirror, &image).await;
}

/// Upstream's refusal never breaks what is cached, and is never passed on as one of ours: a 401
/// would make Docker send the user's password.
#[tokio::test(flavor = "multi_thread")]
async fn upstream_denies_access() {
    for status in [401, 403] {
        let (registry, mirror, image) = cached(Auth::Open).await;
        registry.deny("library/x", status);
        registry.deny("library/secret", status);
        assert_stale(&mirror, &image).await;

        for path in [
            manifest_path("library/secret", "latest"),
            blob_url("library/secret", &sha256(b"unknown")),
        ] {
            let response = mirror.get(&path).await;
            assert_eq!(response.status, 404, "{status} {path}");
            assert_eq!(response.header("www-authenticate"), None);
            let (_, message) = response.error().await;
            assert!(message.contains("denied"), "{message}");
        }
    }
}

/// An answer of no use is no outage: who provokes one gets nobody else what is stale.
#[tokio::test(flavor = "multi_thread")]
async fn a_useless_answer_is_no_outage() {
    let (registry, mirror, _) = cached(Auth::Open).await;
    let odd = manifest_path("library/odd", "latest");
    for method in ["GET", "HEAD"] {
        registry.on(method, &odd, Fault::status(400));
    }
    assert_eq!(mirror.get(&odd).await.status, 502);
    let new = Image::random(3);
    registry.put_image("library/x", "latest", &new);
    let response = mirror.get(TAG).await;
    assert_eq!(response.header("warning"), None);
    response.expect(&new.manifest).await;
}

/// A blob that upstream does not have is not found, once asked and then remembered.
#[tokio::test(flavor = "multi_thread")]
async fn upstream_does_not_know_a_blob() {
    let registry = FakeRegistry::start().await;
    registry.put_image("library/x", "latest", &Image::random(4));
    let mirror = TestMirror::builder().upstream(Upstream::docker_io(&registry)).start().await;
    let path = blob_url("library/x", &sha256(b"unknown"));
    let response = mirror.get(&path).await;
    assert_eq!(response.status, 404);
    assert_eq!(response.error().await.0, "BLOB_UNKNOWN");
    let asked = registry.requests().len();
    assert_eq!(mirror.get(&path).await.status, 404);
    assert_eq!(registry.requests().len(), asked);
}

/// A blob's HEAD that upstream refuses, or answers without a size, is replaced by one GET, which
/// is not wasted.
#[tokio::test(flavor = "multi_thread")]
async fn a_useless_head_of_a_blob_is_replaced_by_one_get() {
    for fault in [Fault::status(400), Fault::status(405), Fault::without("content-length")] {
        let registry = FakeRegistry::start().await;
        let blob = random_bytes(8, 10_000);
        let digest = registry.put_blob("library/x", &blob);
        let path = blob_url("library/x", &digest);
        registry.on("HEAD", &path, fault.clone());
        let mirror = TestMirror::of(&registry).await;

        let response = mirror.head(&path).await;
        assert_eq!(response.status, 200, "{fault:?}");
        assert_eq!(response.header("content-length"), Some("10000"), "{fault:?}");
        mirror.get(&path).await.expect(&blob).await;
        assert_eq!(registry.count("GET", &path), 1, "{fault:?}");
    }
}
