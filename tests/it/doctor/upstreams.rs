//! Upstreams, healthy and each with another fault.

use std::time::{Duration, SystemTime};

use tempfile::TempDir;

use super::{Report, SECRET, doctor};
use crate::support::{
    Auth, FakeRegistry, Fault, Image, Mode, TestMirror, Upstream, address,
    mirror::{Builder, CONFIG},
    registry::{Profile, Scope, Wants},
    tls::TestCa,
};

const DAY: Duration = Duration::from_secs(24 * 3600);

/// What Docker Hub says of the pulls that are left.
fn quota(left: u32) -> Fault {
    Fault::default()
        .header("ratelimit-limit", "100;w=21600")
        .header("ratelimit-remaining", format!("{left};w=21600"))
}

/// A registry with the image that is tried at docker.io.
async fn docker_hub(auth: Auth) -> FakeRegistry {
    let registry = FakeRegistry::builder().tls(&TestCa::new()).auth(auth).start().await;
    registry.put_image("library/busybox", "latest", &Image::random(1));
    registry
}

fn mirror_of(registry: &FakeRegistry) -> Builder {
    TestMirror::builder().upstream(Upstream::docker_io(registry))
}

/// Every step of a pull up to the manifest, with a token, by the endpoint's own authority.
#[tokio::test(flavor = "multi_thread")]
async fn a_healthy_upstream_passes_every_step() {
    let registry = docker_hub(Auth::PasswordToken("robot", SECRET)).await;
    registry.on("HEAD", "/v2/library/busybox/manifests/latest", quota(76));
    let date = httpdate::fmt_http_date(SystemTime::now());
    registry.on("GET", "/v2/", Fault::default().header("date", date));
    let mirror =
        TestMirror::builder().upstream(Upstream::docker_io(&registry).credentials("robot", SECRET));
    let report = Report::of(mirror, &[]);

    assert_eq!(report.code, Some(0), "{:#}", report.document);
    assert_eq!(report.document["failed"], 0);
    let lines = report.about("docker.io");
    let image = Image::random(1).digest();
    let authority = registry.address();
    for (line, (check, part)) in lines.iter().zip([
        ("resolve: ok: ", registry.address().ip().to_string()),
        ("connect: ok: ", authority.to_string()),
        ("tls: ok: ", format!("TLS 1.3, certificate of {} by ", registry.address().ip())),
        ("/v2/: ok: ", format!("tokens come from {authority}")),
        ("clock: ok: ", " s ahead of upstream's".to_owned()),
        ("credentials: ok: ", "robot: password in the configuration".to_owned()),
        ("token: ok: ", format!("from {authority}")),
        ("manifest: ok: ", format!("library/busybox latest is {image}")),
        ("quota: ok: ", "76 of 100 pulls in 6 h are left".to_owned()),
    ]) {
        assert!(line.starts_with(check) && line.contains(&part), "{part:?} in {lines:#?}");
    }
    assert_eq!(lines.len(), 9, "{lines:#?}");
    // Nothing that costs quota was asked.
    assert_eq!(registry.count("GET", "/v2/library/*"), 0);
}

/// One line for each check, in columns, and a last one that sums up.
#[tokio::test(flavor = "multi_thread")]
async fn the_table_is_for_people() {
    let registry = FakeRegistry::start().await;
    let mirror = TestMirror::builder()
        .upstream(Upstream::docker_io(&registry))
        .upstream(Upstream::named("registry.corp", &registry));
    let data_dir = mirror.data_dir();
    let ended = doctor(mirror, &["docker.io"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");

    let lines: Vec<Vec<&str>> =
        ended.output.lines().map(|line| line.split_whitespace().collect()).collect();
    let address = registry.address().to_string();
    let expected: [&[&str]; 5] = [
        &["ok", "docker.io", "connect"],
        &["ok", "docker.io", "/v2/"],
        &["warn", "docker.io", "manifest"],
        &["ok", data_dir.to_str().unwrap(), "writable"],
        &["skip", "daemon", "running"],
    ];
    for expected in expected {
        assert!(lines.iter().any(|line| line.starts_with(expected)), "{expected:?} in {ended:?}");
    }
    assert!(lines.iter().any(|line| line.last() == Some(&address.as_str())), "{ended:?}");
    let places: Vec<_> = ["docker.io  ", "daemon  "]
        .iter()
        .map(|subject| ended.output.lines().find_map(|line| line.find(subject)).unwrap())
        .collect();
    assert_eq!(places, [6, 6], "{ended:?}");
    let sum = ended.output.lines().last().unwrap();
    assert!(sum.contains("failed: 0, warnings: 1"), "{ended:?}");
    assert!(!ended.output.contains("registry.corp"), "{ended:?}");
}

/// The check that finds a fault with its outcome, and a part of what is said.
struct Finds<'a>(&'a str, &'a str);

/// Sets the fault, and examines.
async fn finds(fault: impl AsyncFnOnce(&FakeRegistry), Finds(line, part): Finds<'_>) {
    let registry = docker_hub(Auth::AnonymousToken).await;
    fault(&registry).await;
    let report = Report::of(mirror_of(&registry), &["--image", "docker.io/library/busybox:latest"]);
    let found = report.line("docker.io", line);
    assert!(found.contains(part), "{part:?} in {found}");
    let is_failure = line.ends_with("fail");
    assert_eq!(report.code, Some(i32::from(is_failure)), "{:#}", report.document);
    // What needs a step that failed is not tried.
    let mut lines = report.about("docker.io");
    lines.retain(|line| !line.starts_with("clock: "));
    assert!(!is_failure || lines.last() == Some(&found), "{:#}", report.document);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_fault_is_found_by_its_step() {
    let manifest = "/v2/library/busybox/manifests/latest";
    let page = |status| Fault::status(status).header("content-type", "text/html").body("<html>");
    finds(async |registry| registry.set_mode(Mode::Down).await, Finds("connect: fail", "refused"))
        .await;
    finds(async |registry| registry.on("GET", "/v2/", page(503)), Finds("/v2/: fail", "503")).await;
    finds(
        async |registry| registry.on("GET", "/v2/", page(200)),
        Finds("/v2/: warn", "a page for people"),
    )
    .await;
    finds(async |registry| registry.on("GET", "/token", page(503)), Finds("token: fail", "503"))
        .await;
    finds(
        async |registry| registry.on("HEAD", manifest, Fault::status(405)),
        Finds("manifest: warn", "counts as a pull"),
    )
    .await;
    finds(
        async |registry| {
            registry.on("HEAD", manifest, Fault::status(429).header("retry-after", "77"));
        },
        Finds("manifest: fail", "asked again in 77 s"),
    )
    .await;
    finds(
        async |registry| registry.on("HEAD", manifest, Fault::without("docker-content-digest")),
        Finds("manifest: warn", "no digest"),
    )
    .await;
    finds(
        async |registry| registry.delete_tag("library/busybox", "latest"),
        Finds("manifest: fail", "404"),
    )
    .await;
    finds(
        async |registry| registry.deny("library/busybox", 403),
        Finds("manifest: fail", "what is private needs credentials"),
    )
    .await;
    finds(
        async |registry| registry.on("HEAD", manifest, quota(0)),
        Finds("quota: warn", "0 of 100 pulls in 6 h are left"),
    )
    .await;
}

/// A clock that is wrong is told from the one that upstream has.
#[tokio::test(flavor = "multi_thread")]
async fn clocks_that_differ_are_told() {
    let hour = Duration::from_secs(3600);
    for (date, direction) in
        [(SystemTime::now() - hour, "ahead of"), (SystemTime::now() + hour, "behind")]
    {
        let date = httpdate::fmt_http_date(date);
        let fault = async |registry: &FakeRegistry| {
            registry.on("GET", "/v2/", Fault::default().header("date", date));
        };
        finds(fault, Finds("clock: warn", &format!("s {direction} upstream's"))).await;
    }
}

/// No step is waited for longer than a pull would, nor all together for more than 20 seconds.
#[tokio::test(flavor = "multi_thread")]
async fn silence_has_an_end() {
    let hole = docker_hub(Auth::Open).await;
    hole.set_mode(Mode::BlackHole).await;
    let silent = FakeRegistry::start().await;
    silent.on("GET", "/v2/", Fault::silent());
    let slow = FakeRegistry::builder().auth(Auth::AnonymousToken).start().await;
    for (method, path) in [("GET", "/v2/"), ("HEAD", "/v2/*"), ("GET", "/token")] {
        slow.on(method, path, Fault::delay(Duration::from_secs(8)));
    }
    let mirror = mirror_of(&hole)
        .upstream(Upstream::named("silent.test", &silent))
        .upstream(Upstream::named("ghcr.io", &slow))
        .set("download.connect_timeout", "2s");
    let report = Report::of(mirror, &[]);
    assert_eq!(report.code, Some(1));
    for (registry, check, part) in [
        ("docker.io", "tls: fail: ", "no connection within 2s"),
        ("silent.test", "/v2/: fail: ", "no answer within 10s"),
        ("ghcr.io", "token: fail: ", "still waiting, 20 s after the first step"),
    ] {
        let last = report.last(registry);
        assert!(last.starts_with(check) && last.contains(part), "{last}");
    }
}

/// A certificate that nobody vouches for, that is over, or soon will be.
#[tokio::test(flavor = "multi_thread")]
async fn certificates_are_told_before_they_end() {
    let now = SystemTime::now();
    for (ends, with_ca, line, part) in [
        (now + 100 * DAY, false, "tls: fail: ", "name that one's PEM file as ca"),
        (now - DAY, true, "tls: fail: ", "it has to be renewed there"),
        (now + 5 * DAY, true, "tls: warn: ", "4 days left; renew it"),
    ] {
        let registry = FakeRegistry::builder().tls(&TestCa::ending(ends)).start().await;
        let upstream = Upstream::docker_io(&registry);
        let upstream = if with_ca { upstream } else { upstream.without_ca() };
        let report = Report::of(TestMirror::builder().upstream(upstream), &[]);
        let found = report.line("docker.io", line);
        assert!(found.contains(part), "{part:?} in {found}");
    }
}

/// Pulls work by a certificate that nobody verifies, even by one that is over.
#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_is_not_verified_is_a_warning() {
    for ends in [SystemTime::now() + 100 * DAY, SystemTime::now() - DAY] {
        let registry = FakeRegistry::builder().tls(&TestCa::ending(ends)).start().await;
        let upstream = Upstream::docker_io(&registry).set("insecure_skip_verify", true);
        let report = Report::of(TestMirror::builder().upstream(upstream.without_ca()), &[]);
        let found = report.line("docker.io", "tls: warn: ");
        assert!(found.contains("not verified (insecure_skip_verify)"), "{found}");
        assert_eq!(report.code, Some(0), "{:#}", report.document);
    }
}

/// In TLS 1.3 the server says so only after the handshake.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_certificate_that_is_missing_is_told() {
    let (ca, address) = (TestCa::new(), address::unique());
    let acceptor = ca.closed_acceptor_for(&address.ip().to_string());
    let registry = FakeRegistry::builder().address(address).tls_with(acceptor, &ca).start().await;
    let report = Report::of(mirror_of(&registry), &[]);
    assert_eq!(report.code, Some(1), "{:#}", report.document);
    let found = report.last("docker.io");
    assert!(found.contains("fail: ") && found.contains("client_cert and client_key"), "{found}");
}

/// Without an image that is known to be there, `/v2/` and a login are what can be tried.
#[tokio::test(flavor = "multi_thread")]
async fn without_an_image_the_login_is_tried() {
    let scoped = Profile {
        realm: "/token",
        service: None,
        scope: Scope::Needed,
        wants: Wants::Login { user: "robot", password: SECRET, post: 404 },
        lifetime: None,
    };
    for (auth, password, token) in [
        (Auth::Open, None, "token: skip: not asked for"),
        (Auth::AnonymousToken, None, "token: ok: from "),
        (Auth::Basic("robot", SECRET), None, "token: warn: a password is asked for"),
        (Auth::Basic("robot", SECRET), Some(SECRET), "token: ok: none; "),
        (Auth::Basic("robot", SECRET), Some("another"), "token: fail: "),
        (Auth::PasswordToken("robot", SECRET), Some(SECRET), "token: ok: from "),
        (Auth::PasswordToken("robot", SECRET), Some("another"), "token: fail: "),
        (Auth::PasswordToken("robot", SECRET), None, "token: skip: denied to the anonymous"),
        (Auth::Like(scoped), None, "token: skip: denied to the anonymous"),
    ] {
        let registry = FakeRegistry::builder().auth(auth.clone()).start().await;
        let mut upstream = Upstream::named("registry.corp", &registry);
        if let Some(password) = password {
            upstream = upstream.credentials("robot", password);
        }
        let report = Report::of(TestMirror::builder().upstream(upstream), &[]);
        report.line("registry.corp", token);
        let manifest = report.line("registry.corp", "manifest: skip: ");
        assert!(manifest.contains("--image registry/name:tag"), "{manifest}");
        assert_eq!(report.code, Some(i32::from(token.contains("fail"))), "{auth:?} {password:?}");
    }
}

/// What a registry has is tried by an image of it; a password that is wrong shows there.
#[tokio::test(flavor = "multi_thread")]
async fn an_image_shows_whether_credentials_are_good() {
    for (auth, check) in [
        (Auth::PasswordToken("robot", SECRET), "token: fail: "),
        (Auth::Basic("robot", SECRET), "manifest: fail: "),
    ] {
        let registry = docker_hub(auth).await;
        for (password, code) in [(SECRET, 0), ("another", 1)] {
            let upstream = Upstream::docker_io(&registry).credentials("robot", password);
            let report = Report::of(TestMirror::builder().upstream(upstream), &[]);
            assert_eq!(report.code, Some(code), "{:#}", report.document);
            if code == 1 {
                let found = report.line("docker.io", check);
                assert!(found.contains("are the credentials still good"), "{found}");
            }
        }
    }
}

/// Each endpoint is examined, also those that a healthy one hides.
#[tokio::test(flavor = "multi_thread")]
async fn every_endpoint_is_examined() {
    let (healthy, down) = (FakeRegistry::start().await, FakeRegistry::start().await);
    down.set_mode(Mode::Down).await;
    let endpoints = vec![healthy.url(), down.url()];
    let upstream = Upstream::docker_io(&healthy).set("endpoints", endpoints);
    let report = Report::of(TestMirror::builder().upstream(upstream), &[]);
    assert_eq!(report.code, Some(1));
    report.line(&format!("docker.io at {}/", healthy.url()), "/v2/: ok: open");
    report.line(&format!("docker.io at {}/", down.url()), "connect: fail: ");
}

/// A name that no resolver knows.
#[tokio::test(flavor = "multi_thread")]
async fn a_name_without_an_address_is_told() {
    let registry = FakeRegistry::start().await;
    let nowhere = vec!["http://registry.invalid:5000"];
    let upstream = Upstream::docker_io(&registry).set("endpoints", nowhere);
    let report = Report::of(TestMirror::builder().upstream(upstream), &[]);
    assert_eq!(report.code, Some(1));
    let found = report.last("docker.io");
    assert!(found.starts_with("resolve: fail: cannot resolve registry.invalid: "), "{found}");
    assert!(found.contains("does DNS work here?"), "{found}");
}

/// What the daemon would not dial is not dialled.
#[tokio::test(flavor = "multi_thread")]
async fn our_own_address_is_no_upstream() {
    let own = address::unique().to_string();
    let registry = FakeRegistry::start().await;
    let upstream = Upstream::docker_io(&registry).set("endpoints", vec![format!("http://{own}")]);
    let mirror = TestMirror::builder().upstream(upstream).set("listen", vec![own]);
    let report = Report::of(mirror, &[]);
    let found = report.last("docker.io");
    assert!(found.starts_with("resolve: fail: ") && found.contains("Larder's own address"));
}

/// Machines find the same keys in every check.
#[tokio::test(flavor = "multi_thread")]
async fn the_document_is_for_machines() {
    let registry = FakeRegistry::start().await;
    let report = Report::of(mirror_of(&registry), &[]);
    assert_eq!((&report.document["failed"], &report.document["warnings"]), (&0.into(), &1.into()));
    for entry in report.document["checks"].as_array().unwrap() {
        let keys: Vec<&String> = entry.as_object().unwrap().keys().collect();
        assert_eq!(keys, ["check", "detail", "outcome", "seconds", "section", "subject"]);
        assert!(entry["seconds"].as_f64().is_some_and(|seconds| seconds >= 0.0), "{entry}");
        let section = entry["section"].as_str().unwrap();
        assert!(
            ["configuration", "upstream", "disk", "listener", "daemon"].contains(&section),
            "{entry}"
        );
        let outcome = entry["outcome"].as_str().unwrap();
        assert!(["ok", "skip", "warn", "fail"].contains(&outcome), "{entry}");
    }
}

/// What keeps Larder from starting, or is asked wrongly, is 2, and nothing is examined.
#[tokio::test(flavor = "multi_thread")]
async fn usage_and_configuration_are_another_exit_code() {
    let registry = FakeRegistry::start().await;
    for (arguments, part) in [
        (
            &["nowhere.test"][..],
            "nowhere.test: no such upstream is configured; there are docker.io",
        ),
        (&["--image", "busybox"], "write registry/name:tag"),
        (&["--image", "nowhere.test/a:1"], "--image nowhere.test: no such upstream"),
        (&["--image", "docker.io/A"], "write registry/name:tag"),
    ] {
        let ended = doctor(mirror_of(&registry), arguments);
        assert_eq!(ended.code, Some(2), "{ended:?}");
        assert!(ended.output.contains(part), "{part:?} in {ended:?}");
    }
    let ended = doctor(TestMirror::builder(), &["docker.io"]);
    assert!(ended.output.contains("docker.io: no upstream is configured"), "{ended:?}");
    let ended = doctor(mirror_of(&registry).set("nonsense", 1), &[]);
    assert!(ended.code == Some(2) && ended.output.contains(CONFIG), "{ended:?}");
    let directory = TempDir::new().unwrap();
    let no_ca = directory.path().join("ca.pem");
    std::fs::write(&no_ca, "none").unwrap();
    let upstream = Upstream::docker_io(&registry).set("ca", no_ca.to_str().unwrap());
    let ended = doctor(TestMirror::builder().upstream(upstream), &[]);
    assert!(ended.code == Some(2) && ended.output.contains("ca.pem"), "{ended:?}");
    assert_eq!(registry.requests().len(), 0);
}
