//! What is on this machine: the disk, the listeners, and a daemon that runs or does not.

use std::{
    fs,
    path::PathBuf,
    process::Stdio,
    time::{Duration, SystemTime},
};

use serde_json::Value;
use tempfile::TempDir;

use super::{Report, doctor};
use crate::support::{
    FakeRegistry, Fault, Image, Mode, TestMirror, Upstream, address,
    binary::{command, run},
    mirror::{Builder, CONFIG},
    tls::TestCa,
};

/// A mirror that listens on addresses of its own, written down where doctor finds them.
async fn builder(registry: &FakeRegistry) -> Builder {
    TestMirror::builder()
        .upstream(Upstream::docker_io(registry))
        .set("listen", vec![address::unique().to_string()])
        .set("admin.listen", address::unique().to_string())
}

fn config_of(mirror: &TestMirror) -> PathBuf {
    mirror.data_dir().with_file_name(CONFIG)
}

fn disk(data_dir: &str, min_free: &str) -> Report {
    let mirror = TestMirror::builder().set("data_dir", data_dir).set("cache.min_free", min_free);
    Report::of(mirror, &[])
}

#[test]
fn a_data_directory_is_tried_and_left_as_it_is() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().to_str().unwrap();
    fs::create_dir_all(directory.path().join("blobs/sha256")).unwrap();
    let report = disk(path, "1MiB");
    assert_eq!(report.code, Some(0), "{:#}", report.document);
    assert_eq!(report.line(path, "writable"), "writable: ok: yes");
    for check in ["disk: ", "free: ok: ", "files: "] {
        report.line(path, check);
    }
    let left: Vec<_> =
        directory.path().read_dir().unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["blobs"]);
    assert_eq!(directory.path().join("blobs/sha256").read_dir().unwrap().count(), 0);

    let missing = directory.path().join("not/there");
    let report = disk(missing.to_str().unwrap(), "1MiB");
    let found = report.line(missing.to_str().unwrap(), "writable: ok: ");
    assert!(found.ends_with(&format!("can be made in {path}")), "{found}");
    assert!(!missing.parent().unwrap().exists());
}

/// Where no process may write, be it root's; and where a file is in the way.
#[test]
fn a_directory_that_cannot_be_written_fails() {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("file");
    fs::write(&file, "").unwrap();
    let below = file.join("data");
    for (path, part) in [
        ("/proc/larder", "make it writable for the user"),
        (file.to_str().unwrap(), "choose another data_dir"),
        (below.to_str().unwrap(), "choose another data_dir"),
    ] {
        let report = disk(path, "1MiB");
        assert_eq!(report.code, Some(1), "{:#}", report.document);
        let found = report.line(path, "writable: fail: ");
        assert!(found.contains(part), "{part:?} in {found}");
    }
}

#[test]
fn a_disk_that_is_full_or_memory_is_told() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().to_str().unwrap();
    let report = disk(path, "100%");
    let found = report.line(path, "free: fail: ");
    assert!(found.contains("nothing more is kept; make room"), "{found}");
    assert_eq!(report.code, Some(1));

    let mounts = fs::read_to_string("/proc/mounts").unwrap();
    if mounts.lines().any(|line| line.starts_with("tmpfs /dev/shm tmpfs ")) {
        let report = disk("/dev/shm", "0B");
        let found = report.line("/dev/shm", "disk: warn: ");
        assert!(found.contains("tmpfs: memory"), "{found}");
        assert_eq!(report.code, Some(0), "{:#}", report.document);
    }
}

/// A daemon's listeners are reached, and it is asked what it has refused.
#[tokio::test(flavor = "multi_thread")]
async fn a_running_daemon_is_asked_what_it_knows() {
    let registry = FakeRegistry::start().await;
    let directory = TempDir::new().unwrap();
    let socket = format!("unix:{}", directory.path().join("registry.sock").display());
    let tcp = address::unique().to_string();
    let mirror =
        builder(&registry).await.set("listen", vec![tcp.clone(), socket.clone()]).start().await;
    let examine = || Report::on(&config_of(&mirror), &[], &[]);

    let report = examine();
    assert_eq!(report.code, Some(0), "{:#}", report.document);
    for listen in [&tcp, &socket] {
        assert_eq!(report.about(listen), ["reachable: ok: serves pulls"]);
    }
    let admin = mirror.admin().address().to_string();
    assert_eq!(report.about(&admin), ["reachable: ok: ready"]);
    report.line("daemon", "state: ok: running");
    report.line("daemon", "refused: ok: ");

    for name in ["ghcr.example", "quay.example", "ghcr.example"] {
        mirror.get(&format!("/v2/a/manifests/1?ns={name}")).await;
    }
    let fault = Fault::status(429).header("retry-after", "200");
    registry.on("HEAD", "/v2/library/limited/*", fault);
    mirror.head("/v2/library/limited/manifests/1").await;
    let report = examine();
    assert_eq!(report.code, Some(0), "{:#}", report.document);
    report.line("daemon", "refused: warn: ghcr.example is not configured, asked for 2 times");
    report.line("daemon", "refused: warn: quay.example is not configured, asked for 1 times");
    report.line("daemon", "pause: warn: docker.io limits requests");
}

/// What a daemon knows of endpoints that fail and of quotas. What clients met before is told although
/// the endpoint answers doctor.
#[tokio::test(flavor = "multi_thread")]
async fn a_running_daemon_tells_how_upstreams_treat_it() {
    let (registry, counting) = (FakeRegistry::start().await, FakeRegistry::start().await);
    let image = Image::random(1);
    counting.put_image("x", "latest", &image);
    counting.limit_pulls(3, 600);
    let mirror =
        builder(&registry).await.upstream(Upstream::named("quay.io", &counting)).start().await;
    mirror.pull("quay.io/x", "latest", &image).await;
    registry.set_mode(Mode::Down).await;
    for tag in 0.. {
        mirror.head(&format!("/v2/library/x/manifests/{tag}")).await;
        let state = mirror.admin().get("/api/v1/upstreams").await.bytes().await;
        let state: Value = serde_json::from_slice(&state).unwrap();
        if state["upstreams"][0]["endpoints"][0]["breaker"] != "closed" {
            break;
        }
    }
    registry.set_mode(Mode::Up).await;
    let report = Report::on(&config_of(&mirror), &[], &[]);
    assert_eq!(report.code, Some(0), "{:#}", report.document);
    let found = report.line("daemon", "endpoint: warn: docker.io at ");
    for part in [&*registry.url(), "times in a row", "refused", "larder doctor docker.io"] {
        assert!(found.contains(part), "{part:?} in {found}");
    }
    assert_eq!(report.line("daemon", "quota"), "quota: ok: quay.io: 2 of 3 pulls are left");
    counting.limit_pulls(0, 600);
    mirror.head("/v2/quay.io/x/manifests/another").await;
    let report = Report::on(&config_of(&mirror), &[], &[]);
    let found = report.line("daemon", "quota: warn: quay.io: 0 of 0 pulls are left");
    assert!(found.contains("credentials may have more"), "{found}");
}

/// TLS as the daemon was started with it; a file that was changed since needs a restart.
#[tokio::test(flavor = "multi_thread")]
async fn a_listener_speaks_tls_with_the_certificate_that_is_configured() {
    let registry = FakeRegistry::start().await;
    let ca = TestCa::ending(SystemTime::now() + Duration::from_secs(5 * 24 * 3600));
    let mirror = builder(&registry).await.tls(&ca).start().await;
    let listen = mirror.address().to_string();
    let examine = || Report::on(&config_of(&mirror), &[], &[]);

    let report = examine();
    assert_eq!(report.code, Some(0), "{:#}", report.document);
    assert_eq!(report.about(&listen), ["reachable: ok: serves pulls"]);
    let certificate = config_of(&mirror).with_file_name("cert.pem");
    let found = report.line(certificate.to_str().unwrap(), "certificate: warn: ");
    assert!(found.contains("certificate of 127.0.0.1 by ") && found.contains(" 4 days left"));

    let (other, key) = TestCa::new().certificate([127, 0, 0, 1].into());
    fs::write(&certificate, other).unwrap();
    fs::write(certificate.with_file_name("key.pem"), key).unwrap();
    let report = examine();
    assert_eq!(report.code, Some(1), "{:#}", report.document);
    let found = report.line(&listen, "reachable: fail: ");
    assert!(found.contains("the daemon has to be restarted"), "{found}");
}

/// That no daemon runs is no fault, but one that listens elsewhere than is written is.
#[tokio::test(flavor = "multi_thread")]
async fn listeners_that_are_missing_or_another_programs_are_told() {
    let registry = FakeRegistry::start().await;
    let report = Report::of(builder(&registry).await, &[]);
    assert_eq!(report.code, Some(0), "{:#}", report.document);
    let found = report.last("daemon");
    assert!(found.starts_with("running: skip: no: nothing listens on "), "{found}");

    // What answers here is no Larder.
    let (taken, free) = (registry.address().to_string(), address::unique().to_string());
    let mirror = builder(&registry).await.set("listen", vec![taken.clone(), free.clone()]);
    let report = Report::of(mirror, &[]);
    assert_eq!(report.code, Some(1), "{:#}", report.document);
    let found = report.line(&taken, "reachable: fail: ");
    assert!(found.contains("as Larder never answers"), "{found}");
    let found = report.line(&free, "reachable: fail: ");
    assert!(found.contains("nothing listens here"), "{found}");

    let mirror = builder(&registry).await.set("access.allow", vec!["10.0.0.0/8"]).start().await;
    let report = Report::on(&config_of(&mirror), &[], &[]);
    let found = report.line(&mirror.address().to_string(), "reachable: warn: ");
    assert!(found.contains("access.allow"), "{found}");
}

/// What `larder check` warns of is a warning here, too.
#[tokio::test(flavor = "multi_thread")]
async fn warnings_of_the_configuration_are_repeated() {
    let registry = FakeRegistry::start().await;
    let upstream = Upstream::named("registry.corp", &registry).set("credential_helper", "nowhere");
    let directory = builder(&registry).await.upstream(upstream).into_file();
    let config = directory.path().join(CONFIG);
    let variables = [("LARDER_CACHE_EXPIRE_AFER", "1d")];
    let report = Report::on(&config, &[], &variables);
    let found = report.about("configuration").join("\n");
    let checked = run(&["check", "--config", config.to_str().unwrap()], &variables).output;
    let warnings: Vec<&str> =
        checked.lines().filter_map(|line| line.strip_prefix("warning: ")).collect();
    for part in ["LARDER_CACHE_EXPIRE_AFER", "access.allow is not set", "not on the PATH"] {
        assert!(warnings.iter().any(|warning| warning.contains(part)), "{part} in {checked}");
    }
    for warning in warnings {
        assert!(found.contains(&format!("check: warn: {warning}")), "{warning:?} in {found}");
    }
}

/// Whoever does not read the report still learns how it ends.
#[tokio::test(flavor = "multi_thread")]
async fn the_exit_code_needs_no_reader() {
    let registry = FakeRegistry::start().await;
    for (mode, code) in [(Mode::Up, 0), (Mode::Down, 1)] {
        registry.set_mode(mode).await;
        let directory = builder(&registry).await.into_file();
        let mut child = command()
            .args(["doctor", "--config", directory.path().join(CONFIG).to_str().unwrap()])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        drop(child.stdout.take());
        let ended = tokio::task::spawn_blocking(move || child.wait().unwrap()).await.unwrap();
        assert_eq!(ended.code(), Some(code), "{mode:?}");
    }
    let ended = doctor(builder(&registry).await, &["--json"]);
    assert!(ended.output.starts_with('{'), "{ended:?}");
}
