//! The tools against each other, and against servers that misbehave.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use clap::Parser as _;
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::{
    contents::Contents,
    data, nodes,
    options::{Command, Options},
    relay,
    report::Report,
    run,
    tally::Fault,
    upstream::Registry,
    workload::Method,
};

/// What a command line means.
fn command(line: &str) -> Command {
    Options::try_parse_from(format!("load {line}").split_whitespace()).unwrap().command
}

/// What `get` finds with this line.
fn get(line: &str) -> Report {
    let Command::Get(ask) = command(&format!("get {line}")) else { panic!("not a get") };
    run::measure(Method::Get, &ask).unwrap()
}

/// Serves connections, each in a thread of its own.
fn serve(answer: impl Fn(TcpStream) + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (address, answer) = (listener.local_addr().unwrap(), Arc::new(answer));
    thread::spawn(move || {
        for stream in listener.incoming() {
            let answer = answer.clone();
            thread::spawn(move || answer(stream.unwrap()));
        }
    });
    address
}

/// Reads the head of a request. Whether there was one.
fn read_head(stream: &mut impl std::io::Read) -> bool {
    let mut lines = BufReader::with_capacity(1, stream).lines();
    lines.by_ref().map_while(Result::ok).find(String::is_empty).is_some()
}

/// Content in a directory, and an upstream that serves it.
fn registry(root: &Path, rate_mb: u32) -> (Contents, SocketAddr) {
    let line =
        format!("data --root {} --blob-mib 3 --layers 2 --layer-mib 1 --images 3", root.display());
    let Command::Data(options) = command(&line) else { panic!("not data") };
    data::make(&options).unwrap();
    let line = format!("upstream --root {} --rate-mb {rate_mb}", root.display());
    let Command::Upstream(options) = command(&line) else { panic!("not an upstream") };
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let registry = Arc::new(Registry::open(&options).unwrap());
    thread::spawn(move || registry.serve(&listener));
    (Contents::read(root).unwrap(), address)
}

#[test]
fn an_answer_counts_only_when_it_is_whole() {
    const CHUNKED: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nabcd\r\n";
    let long =
        format!("HTTP/1.1 200 OK\r\nContent-Length: 8000000\r\n\r\n{}", "x".repeat(8_000_000));
    let cut = long[..long.len() - 1].to_owned();
    for (answer, bytes, fault) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nabcd".to_owned(), 4, None),
        ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabcd".to_owned(), 4, Some(Fault::Cut)),
        ("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabcd".to_owned(), 3, Some(Fault::Protocol)),
        ("HTTP/1.1 200 OK\r\nContent-Le".to_owned(), 0, Some(Fault::Cut)),
        ("HTTP/1.1 200 OK\r\n\r\nabcd".to_owned(), 0, Some(Fault::Protocol)),
        (
            "HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\nno".to_owned(),
            2,
            Some(Fault::Status),
        ),
        (format!("{CHUNKED}0\r\n\r\n"), 4, None),
        (format!("{CHUNKED}0\r\nTrailer: x\r\n\r\n"), 4, None),
        (CHUNKED.to_owned(), 4, Some(Fault::Cut)),
        (format!("{CHUNKED}0\r\n"), 4, Some(Fault::Cut)),
        (long, 8_000_000, None),
        (cut, 7_999_999, Some(Fault::Cut)),
    ] {
        let told = answer[..answer.len().min(100)].to_owned();
        let server = serve(move |mut stream| {
            if read_head(&mut stream) {
                stream.write_all(answer.as_bytes()).unwrap();
            }
        });
        let report = get(&format!("http://{server}/ --requests 1"));
        assert_eq!(report.bytes, bytes, "{told}");
        assert_eq!(report.faults.keys().next().copied(), fault, "{told}");
        assert_eq!(report.requests, u64::from(fault.is_none()), "{told}");
    }
}

#[test]
fn a_body_of_another_size_or_digest_is_an_error() {
    let server = serve(|mut stream| {
        while read_head(&mut stream) {
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc").unwrap();
        }
    });
    const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    const NOT_ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ae";
    for (line, fault) in [
        ("x --expect-bytes 3".to_owned(), None),
        ("x --expect-bytes 4".to_owned(), Some(Fault::Size)),
        (format!("sha256:{ABC} --sha256"), None),
        (format!("sha256:{NOT_ABC} --sha256"), Some(Fault::Digest)),
        ("x --sha256".to_owned(), Some(Fault::Digest)),
    ] {
        let report = get(&format!("http://{server}/{line} --requests 3"));
        let expected = fault.map(|fault| (fault, 3));
        assert_eq!(report.faults.into_iter().next(), expected, "{line}");
        assert_eq!(report.bytes, 9, "{line}");
    }
}

#[test]
fn an_answer_that_stops_is_an_error() {
    let server = serve(|mut stream| {
        if read_head(&mut stream) {
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\na").unwrap();
            let _ = stream.read(&mut [0]);
        }
    });
    let report = get(&format!("http://{server}/ --requests 1 --stall 0.2"));
    assert_eq!(report.faults.keys().next(), Some(&Fault::Stall));
}

#[test]
fn a_herd_asks_once_on_each_connection_and_a_server_may_close() {
    let server = serve(|mut stream| {
        if read_head(&mut stream) {
            stream
                .write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 1\r\n\r\na")
                .unwrap();
        }
    });
    let report = get(&format!("http://{server}/ --connections 7 --threads 2 --each 3"));
    assert_eq!((report.requests, report.errors, report.reconnects), (21, 0, 21));
}

#[test]
fn an_upstream_serves_what_was_made_and_counts_it() {
    let root = tempfile::tempdir().unwrap();
    let (contents, server) = registry(root.path(), 0);
    let image = &contents.blobs[0];
    let layer = &image.layers[0];
    let base = format!("http://{server}/v2/{}", image.name);
    let urls = format!("{base}/blobs/{} {base}/manifests/1", layer.digest);
    let report = get(&format!("{urls} --sha256 --requests 4 --connections 2"));
    assert_eq!((report.requests, report.errors), (4, 0));
    assert_eq!(report.bytes, 2 * (layer.size + image.manifest.size));
    assert!((350..450).contains(&image.manifest.size), "{}", image.manifest.size);

    let range =
        get(&format!("{base}/blobs/{} --header Range:bytes=1-10 --requests 1", layer.digest));
    assert_eq!((range.bytes, range.statuses.get(&206)), (10, Some(&1)));

    let mut stream = TcpStream::connect(server).unwrap();
    stream.write_all(b"GET /_counts HTTP/1.1\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    let counts: serde_json::Value = serde_json::from_str(body).unwrap();
    let of_blob = &counts["paths"][format!("GET /v2/{}/blobs/{}", image.name, layer.digest)];
    assert_eq!(of_blob["requests"], 3);
    assert_eq!(of_blob["body_bytes"], 2 * layer.size + 10);
}

#[test]
fn an_upstream_keeps_to_its_rate() {
    let root = tempfile::tempdir().unwrap();
    let (contents, server) = registry(root.path(), 30);
    let image = &contents.blobs[0];
    let url = format!("http://{server}/v2/{}/blobs/{}", image.name, image.layers[0].digest);
    let report = get(&format!("{url} --connections 4 --each 1"));
    assert_eq!(report.errors, 0);
    assert!(report.mb_per_second < 32.0, "{}", report.mb_per_second);
}

#[test]
fn nodes_pull_every_image() {
    let root = tempfile::tempdir().unwrap();
    let (_, server) = registry(root.path(), 0);
    let line = format!("nodes http://{server} --root {} --nodes 4 --sha256", root.path().display());
    let Command::Nodes(options) = command(&line) else { panic!("not nodes") };
    let report = nodes::measure(&options).unwrap();
    assert_eq!((report.requests, report.errors), (4 * 3 * 6, 0));
    let hits = report.manifest_hits.unwrap();
    assert!((1..=9).contains(&hits), "{hits} of 12 may be hits at most");
}

#[test]
fn a_relay_is_long_and_narrow() {
    const BYTES: usize = 3_000_000;
    let server = serve(|mut stream| {
        stream.read_exact(&mut [0]).unwrap();
        stream.write_all(&vec![7; BYTES]).unwrap();
    });
    let line = format!("relay --to {server} --delay-ms 20 --rate-mb 30");
    let Command::Relay(options) = command(&line) else { panic!("not a relay") };
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || relay::serve(&listener, &options));

    let began = Instant::now();
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(&[1]).unwrap();
    let mut bytes = vec![0; BYTES];
    stream.read_exact(&mut bytes[..1]).unwrap();
    // A round trip to connect and one to ask.
    assert!(began.elapsed() >= Duration::from_millis(80), "{:?}", began.elapsed());
    stream.read_exact(&mut bytes[1..]).unwrap();
    // A tenth of a second at this rate, less what may be made good.
    assert!(began.elapsed() >= Duration::from_millis(80 + 95), "{:?}", began.elapsed());
    assert!(bytes.iter().all(|byte| *byte == 7));
    assert_eq!(stream.read(&mut [0]).unwrap(), 0, "the end is carried too");
}

#[test]
fn records_are_opened_in_their_place() {
    let certified = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(certified.signing_key.serialize_der()));
    let mut config = ServerConfig::builder_with_provider(Arc::new(
        rustls::crypto::aws_lc_rs::default_provider(),
    ))
    .with_protocol_versions(&[&rustls::version::TLS13])
    .unwrap()
    .with_no_client_auth()
    .with_single_cert(vec![certified.cert.der().clone()], key)
    .unwrap();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let config = Arc::new(config);
    let server = serve(move |stream| {
        let connection = ServerConnection::new(config.clone()).unwrap();
        let mut stream = StreamOwned::new(connection, stream);
        while read_head(&mut stream) {
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 3000000\r\n\r\n").unwrap();
            stream.write_all(&vec![b'a'; 3_000_000]).unwrap();
        }
    });
    let directory = tempfile::tempdir().unwrap();
    let ca = directory.path().join("ca.pem");
    std::fs::write(&ca, certified.cert.pem()).unwrap();
    let sum = format!("{:x}", <sha2::Sha256 as sha2::Digest>::digest(vec![b'a'; 3_000_000]));
    let report = get(&format!(
        "https://localhost:{}/sha256:{sum} --ca {} --each 3 --connections 2 --sha256",
        server.port(),
        ca.display()
    ));
    assert_eq!((report.requests, report.bytes, report.errors), (6, 18_000_000, 0));
}

#[test]
fn http2_carries_one_answer_after_the_other() {
    const BYTES: usize = 3_000_000;
    let server = serve(|stream| {
        stream.set_nonblocking(true).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap();
        runtime.block_on(async move {
            let stream = tokio::net::TcpStream::from_std(stream).unwrap();
            let mut connection = h2::server::handshake(stream).await.unwrap();
            while let Some(Ok((request, mut respond))) = connection.accept().await {
                let status = if request.uri().path() == "/absent" { 404 } else { 200 };
                let head = http::Response::builder().status(status).body(()).unwrap();
                let mut body = respond.send_response(head, false).unwrap();
                body.send_data(vec![b'a'; BYTES].into(), true).unwrap();
            }
        });
    });
    let sum = format!("{:x}", <sha2::Sha256 as sha2::Digest>::digest(vec![b'a'; BYTES]));
    let report = get(&format!(
        "http://{server}/sha256:{sum} --http2 --sha256 --each 4 --connections 2 -H X-Long:{}",
        "x".repeat(300)
    ));
    assert_eq!((report.requests, report.bytes, report.errors), (8, 8 * BYTES as u64, 0));
    let report = get(&format!("http://{server}/absent --http2 --requests 1"));
    assert_eq!(report.statuses.get(&404), Some(&1));
}
