//! TLS towards endpoints: client certificates, and certificates that nobody vouches for. Neither
//! concerns any host but the endpoint's own.

use std::{fs, net::SocketAddr};

use serde_json::Value;
use tempfile::TempDir;
use tokio_rustls::TlsAcceptor;

use crate::support::{
    FakeRegistry, Image, Mode, TestMirror, Upstream, address,
    binary::{Daemon, run},
    mirror::{CONFIG, blob_url, manifest_path},
    random_bytes,
    tls::TestCa,
};

/// How a server at an address speaks TLS.
type Acceptor = fn(&TestCa, SocketAddr) -> TlsAcceptor;

/// A registry that wants certificates of `ca`, or only takes them.
async fn asking(ca: &TestCa, acceptor: fn(&TestCa, &str) -> TlsAcceptor) -> FakeRegistry {
    let address = address::unique();
    let acceptor = acceptor(ca, &address.ip().to_string());
    FakeRegistry::builder().address(address).tls_with(acceptor, ca).start().await
}

/// `upstream` with a client certificate of `ca`, whose files are in `directory`.
fn certified(upstream: Upstream, ca: &TestCa, directory: &TempDir) -> Upstream {
    let (certificate, key) = ca.certificate("127.0.0.1".parse().unwrap());
    let [cert_file, key_file] =
        ["client.pem", "client-key.pem"].map(|name| directory.path().join(name));
    fs::write(&cert_file, certificate).unwrap();
    fs::write(&key_file, key).unwrap();
    upstream
        .set("client_cert", cert_file.to_str().unwrap())
        .set("client_key", key_file.to_str().unwrap())
}

/// A registry that lets nobody in without a certificate lets Larder in with one.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_certificate_opens_the_endpoint() {
    let (ca, directory) = (TestCa::new(), TempDir::new().unwrap());
    let registry = asking(&ca, TestCa::closed_acceptor_for).await;
    let image = Image::random(1);
    registry.put_image("library/x", "latest", &image);

    let mirror = TestMirror::of(&registry).await;
    assert_eq!(mirror.get(&manifest_path("library/x", "latest")).await.status, 502);
    assert_eq!(registry.requests().len(), 0);

    let upstream = certified(Upstream::docker_io(&registry), &ca, &directory);
    let mirror = TestMirror::builder().upstream(upstream).start().await;
    mirror.pull("library/x", "latest", &image).await;
}

/// Neither storage on another host nor another endpoint learns who Larder is.
#[tokio::test(flavor = "multi_thread")]
async fn strangers_see_no_client_certificate() {
    let (ca, directory) = (TestCa::new(), TempDir::new().unwrap());
    let registry = asking(&ca, TestCa::closed_acceptor_for).await;
    let storage = asking(&ca, TestCa::curious_acceptor_for).await;
    let backup = asking(&ca, TestCa::curious_acceptor_for).await;
    registry.redirect_blobs_to(&storage);
    let (image, other) = (Image::random(2), Image::random(3));
    registry.put_image("library/x", "latest", &image);
    backup.put_image("library/other", "latest", &other);

    let upstream = certified(Upstream::docker_io(&registry), &ca, &directory)
        .set("endpoints", vec![registry.url(), backup.url()]);
    let mirror = TestMirror::builder().upstream(upstream).start().await;
    mirror.pull("library/x", "latest", &image).await;
    assert!(registry.certified_connections() > 0);
    assert!(storage.connections() > 0);
    assert_eq!(storage.certified_connections(), 0);

    registry.set_mode(Mode::Down).await;
    mirror.pull("library/other", "latest", &other).await;
    assert_eq!(backup.certified_connections(), 0);
}

/// Every certificate is believed where the operator says so, and nowhere else.
#[tokio::test(flavor = "multi_thread")]
async fn an_unverified_endpoint_is_believed_and_nobody_else() {
    let ca = TestCa::new();
    let acceptors: [(&str, Acceptor); 3] = [
        ("of nobody", |_, address| TestCa::new().acceptor(address.ip())),
        ("of another host", |ca, _| ca.acceptor_for("other.test")),
        ("expired", |ca, address| ca.expired_acceptor_for(&address.ip().to_string())),
    ];
    let image = Image::random(4);
    for (what, acceptor) in acceptors {
        let address = address::unique();
        let builder = FakeRegistry::builder().address(address);
        let registry = builder.tls_with(acceptor(&ca, address), &ca).start().await;
        registry.put_image("library/x", "latest", &image);

        let mirror = TestMirror::of(&registry).await;
        let answer = mirror.get(&manifest_path("library/x", "latest")).await;
        assert_eq!(answer.status, 502, "{what}");
        assert_eq!(registry.requests().len(), 0, "{what}");

        let upstream = Upstream::docker_io(&registry).set("insecure_skip_verify", true);
        let mirror = TestMirror::builder().upstream(upstream).start().await;
        mirror.pull("library/x", "latest", &image).await;

        let storage_address = address::unique();
        let builder = FakeRegistry::builder().address(storage_address);
        let storage = builder.tls_with(acceptor(&ca, storage_address), &ca).start().await;
        registry.redirect_blobs_to(&storage);
        let digest = registry.put_blob("library/x", &random_bytes(5, 1_000));
        assert_eq!(mirror.get(&blob_url("library/x", &digest)).await.status, 429, "{what}");
        assert!(storage.connections() > 0 && storage.requests().is_empty(), "{what}");
    }
}

/// Even there, a redirect out of TLS leads nowhere.
#[tokio::test(flavor = "multi_thread")]
async fn an_unverified_endpoint_does_not_lead_into_the_clear() {
    let registry = FakeRegistry::builder().tls(&TestCa::new()).start().await;
    let plain = FakeRegistry::start().await;
    registry.redirect_blobs_to(&plain);
    let digest = registry.put_blob("library/x", &random_bytes(6, 1_000));
    let upstream = Upstream::docker_io(&registry).without_ca().set("insecure_skip_verify", true);
    let mirror = TestMirror::builder().upstream(upstream).start().await;
    assert_ne!(mirror.get(&blob_url("library/x", &digest)).await.status, 200);
    assert!(registry.count("HEAD", "*") + registry.count("GET", "*") > 0);
    assert_eq!(plain.connections(), 0);
}

/// At each start, in `check` and in the API: nobody leaves it in by oversight.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_verified_is_said_aloud() {
    let registry = FakeRegistry::builder().tls(&TestCa::new()).start().await;
    let upstream = Upstream::docker_io(&registry).set("insecure_skip_verify", true);
    let mut daemon = Daemon::start(TestMirror::builder().upstream(upstream)).await;
    let warning = format!("docker.io: the certificate of {}/ is not verified", registry.url());
    assert_eq!(daemon.log().matches(&warning).count(), 1, "{}", daemon.log());

    let bytes = daemon.admin().get("/api/v1/upstreams").await.bytes().await;
    let shown: Value = serde_json::from_slice(&bytes).unwrap();
    let endpoint = &shown["upstreams"][0]["endpoints"][0];
    assert_eq!(endpoint["insecure_skip_verify"], Value::Bool(true));

    let file = daemon.directory().join(CONFIG);
    let checked = run(&["check", "--config", file.to_str().unwrap()], &[]);
    assert!(checked.output.contains(&format!("warning: {warning}")), "{checked:?}");

    daemon = daemon.kill_and_restart().await;
    assert_eq!(daemon.log().matches(&warning).count(), 2, "{}", daemon.log());
}

/// `check` looks into the files, and so does the start: each mistake is one line with the key, the
/// file and the remedy.
#[test]
fn a_wrong_client_certificate_or_key_is_named() {
    let directory = TempDir::new().unwrap();
    let ca = TestCa::new();
    let (certificate, key) = ca.certificate("127.0.0.1".parse().unwrap());
    let (_, other_key) = ca.certificate("127.0.0.1".parse().unwrap());
    for (name, content) in
        [("cert", certificate.as_str()), ("key", &key), ("other_key", &other_key), ("empty", "")]
    {
        fs::write(directory.path().join(name), content).unwrap();
    }
    let table = [
        ("cert", "key", "ok"),
        ("cert", "other_key", "client_key other_key is not the key of cert; "),
        ("empty", "key", "client_cert empty holds no certificate that can be read; "),
        ("key", "key", "client_cert key holds no certificate that can be read; "),
        ("cert", "cert", "client_key cert holds no key that can be read; "),
    ];
    for (cert, key, expected) in table {
        let text = format!(
            "listen = [\"127.0.0.1:0\"]\ndata_dir = \"data\"\n\
             [admin]\nlisten = \"127.0.0.1:0\"\n[[upstream]]\nregistry = \"a.b\"\n\
             client_cert = \"{cert}\"\nclient_key = \"{key}\"\n"
        );
        let file = directory.path().join(CONFIG);
        fs::write(&file, text).unwrap();
        let is_right = expected == "ok";
        let subcommands: &[&str] = if is_right { &["check"] } else { &["check", "serve"] };
        for subcommand in subcommands {
            let ended = run(&[subcommand, "--config", file.to_str().unwrap()], &[]);
            assert_eq!(ended.code, Some(if is_right { 0 } else { 2 }), "{cert} {key}: {ended:?}");
            let output = ended.output.replace(&format!("{}/", directory.path().display()), "");
            assert!(output.contains(expected), "{cert} {key}: {output}");
            assert_eq!(output.lines().count(), 1, "{cert} {key}: {output}");
        }
    }
}
