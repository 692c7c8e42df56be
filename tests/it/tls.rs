//! TLS towards clients.

use std::{fs, net::Ipv4Addr};

use tempfile::TempDir;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpStream, UnixStream},
};

use crate::support::{
    FakeRegistry, Image, TestMirror, Upstream,
    binary::{Daemon, run},
    http2::Http2,
    mirror::{CONFIG, blob_url, manifest_path},
    sha256,
    tls::TestCa,
    wait::{until, within_limit},
};

const GET: &str = "GET /v2/ HTTP/1.1\r\nhost: m\r\nconnection: close\r\n\r\n";

/// Sends a request and reads to the connection's end.
async fn exchange(mut stream: impl AsyncRead + AsyncWrite + Unpin, request: &str) -> String {
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    within_limit("an answer", stream.read_to_end(&mut answer)).await.unwrap();
    String::from_utf8(answer).unwrap()
}

/// What client and server agree on: HTTP/2 if the client offers it, else HTTP/1.1, and nothing with
/// a client that offers only what nobody speaks.
#[tokio::test(flavor = "multi_thread")]
async fn the_version_of_http_is_negotiated() {
    let registry = FakeRegistry::start().await;
    let ca = TestCa::new();
    let mirror =
        TestMirror::builder().upstream(Upstream::docker_io(&registry)).tls(&ca).start().await;
    let connect = async |protocols: &[&str]| ca.connect(mirror.address(), protocols).await;
    for (offered, agreed) in [
        (vec!["h2", "http/1.1"], Some("h2")),
        (vec!["http/1.1", "h2"], Some("h2")),
        (vec!["http/1.1"], Some("http/1.1")),
        (vec![], None),
    ] {
        let stream = connect(&offered).await.unwrap();
        let protocol = stream.get_ref().1.alpn_protocol();
        assert_eq!(protocol, agreed.map(str::as_bytes), "{offered:?}");
        if agreed == Some("h2") {
            Http2::over(stream).await.expect("/v2/", b"{}").await;
        } else {
            assert!(exchange(stream, GET).await.starts_with("HTTP/1.1 200 "), "{offered:?}");
        }
    }
    assert!(connect(&["spdy/3"]).await.is_err());
}

/// Every byte of an image comes through.
#[tokio::test(flavor = "multi_thread")]
async fn an_image_is_pulled_over_tls() {
    let registry = FakeRegistry::start().await;
    let image = Image::random(1);
    registry.put_image("library/x", "latest", &image);
    let ca = TestCa::new();
    let mirror =
        TestMirror::builder().upstream(Upstream::docker_io(&registry)).tls(&ca).start().await;
    let client = Http2::over(ca.connect(mirror.address(), &["h2"]).await.unwrap()).await;
    client.expect(&manifest_path("library/x", "latest"), &image.manifest).await;
    for blob in image.blobs() {
        client.expect(&blob_url("library/x", &sha256(blob)), blob).await;
    }
}

/// The address of the metrics and Unix sockets stay in the clear, and the start says which is which.
#[tokio::test(flavor = "multi_thread")]
async fn only_the_tcp_addresses_of_the_registry_speak_tls() {
    let registry = FakeRegistry::start().await;
    let builder = TestMirror::builder().upstream(Upstream::docker_io(&registry));
    let socket = builder.data_dir().with_file_name("registry.sock");
    let listen = format!("unix:{}", socket.display());
    let ca = TestCa::new();
    let mirror =
        builder.set("listen", vec!["127.0.0.1:0".to_owned(), listen]).tls(&ca).start().await;
    assert_eq!(mirror.admin().get("/healthz").await.status, 200);
    let answer = exchange(UnixStream::connect(&socket).await.unwrap(), GET).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");

    let mirror = TestMirror::builder().upstream(Upstream::docker_io(&registry)).tls(&ca);
    let daemon = Daemon::start(mirror).await;
    let expected = format!("listens on https://{};", daemon.client().address());
    until("the line with the addresses", async || daemon.log().contains(&expected)).await;
    assert!(daemon.log().contains("health on http://"), "{}", daemon.log());
}

/// A client that does not know of the TLS is told in the words it speaks.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_in_the_clear_is_told_to_use_https() {
    let registry = FakeRegistry::start().await;
    let ca = TestCa::new();
    let mirror =
        TestMirror::builder().upstream(Upstream::docker_io(&registry)).tls(&ca).start().await;
    let response = mirror.get("/v2/").await;
    assert_eq!(response.status, 400);
    let text = response.bytes().await;
    assert_eq!(text, "this address speaks TLS only; use https://\n");
    // Whatever else it is: no answer, and no harm.
    let mut stream = TcpStream::connect(mirror.address()).await.unwrap();
    stream.write_all(b"\x16\x03\x01\x00\x05hello").await.unwrap();
    let mut rest = Vec::new();
    let _ = within_limit("the end", stream.read_to_end(&mut rest)).await;
    assert!(!rest.starts_with(b"HTTP"), "{rest:?}");
}

/// Clients that connect and say nothing do not keep others from shaking hands.
#[tokio::test(flavor = "multi_thread")]
async fn a_silent_client_holds_up_nobody() {
    let registry = FakeRegistry::start().await;
    let ca = TestCa::new();
    let mirror =
        TestMirror::builder().upstream(Upstream::docker_io(&registry)).tls(&ca).start().await;
    let mut silent = Vec::new();
    for _ in 0..100 {
        silent.push(TcpStream::connect(mirror.address()).await.unwrap());
    }
    let stream = within_limit("a handshake", ca.connect(mirror.address(), &[])).await.unwrap();
    assert!(exchange(stream, GET).await.starts_with("HTTP/1.1 200 "));
    within_limit("a stop that waits for none of them", mirror.stop()).await;
}

/// Who may not ask may not ask over TLS either, in whichever version.
#[tokio::test(flavor = "multi_thread")]
async fn access_is_the_same_over_tls() {
    let registry = FakeRegistry::start().await;
    let ca = TestCa::new();
    let mirror = TestMirror::builder()
        .upstream(Upstream::docker_io(&registry))
        .set("access.allow", vec!["10.0.0.0/8"])
        .tls(&ca)
        .start()
        .await;
    let stream = ca.connect(mirror.address(), &["http/1.1"]).await.unwrap();
    assert!(exchange(stream, GET).await.starts_with("HTTP/1.1 403 "));
    let client = Http2::over(ca.connect(mirror.address(), &["h2"]).await.unwrap()).await;
    assert_eq!(client.get("/v2/").await.status(), 403);
}

/// `check` looks into the files, and so does the start: each mistake is one line with the place,
/// the key, the file and the remedy.
#[test]
fn a_wrong_certificate_or_key_is_named() {
    let directory = TempDir::new().unwrap();
    let ca = TestCa::new();
    let (certificate, key) = ca.certificate(Ipv4Addr::LOCALHOST.into());
    let (_, other_key) = ca.certificate(Ipv4Addr::LOCALHOST.into());
    let (half, _) = certificate.split_at(certificate.len() / 2);
    let no_der = |label| format!("-----BEGIN {label}-----\nAAAA\n-----END {label}-----\n");
    let files = [
        ("cert", certificate.as_str()),
        ("key", &key),
        ("other_key", &other_key),
        ("both", &format!("{certificate}{key}")),
        ("empty", ""),
        ("half", half),
        ("no_cert", &no_der("CERTIFICATE")),
        ("no_key", &no_der("PRIVATE KEY")),
        ("locked_key", &no_der("ENCRYPTED PRIVATE KEY")),
    ];
    for (name, content) in files {
        fs::write(directory.path().join(name), content).unwrap();
    }
    let table = [
        ("cert", "key", "ok"),
        ("both", "both", "ok"),
        ("cert", "other_key", ":4: tls.key: other_key is not the key of cert; "),
        ("empty", "key", ":3: tls.cert: empty holds no certificate that can be read; "),
        ("half", "key", ":3: tls.cert: half holds no certificate that can be read; "),
        ("no_cert", "key", ":3: tls.cert: no_cert holds no certificate that can be read; "),
        ("key", "key", ":3: tls.cert: key holds no certificate that can be read; "),
        ("cert", "cert", ":4: tls.key: cert holds no key that can be read; "),
        ("cert", "no_key", ":4: tls.key: no_key holds no key that can be read; "),
        ("cert", "locked_key", ":4: tls.key: locked_key holds no key that can be read; "),
        ("cert", "absent", ":4: tls.key: cannot read absent: "),
    ];
    for (cert, key, expected) in table {
        let text = format!(
            "data_dir = \"data\"\n[tls]\ncert = \"{cert}\"\nkey = \"{key}\"\n\
             [admin]\nlisten = \"127.0.0.1:0\"\n"
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
    assert!(!directory.path().join("data").exists());
}
