//! HTTP/1.1 as clients speak it, well and badly.

use std::net::SocketAddr;

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::support::{
    FakeRegistry, Image, TestMirror,
    mirror::{blob_url, manifest_path},
    sha256,
    wait::within_limit,
};

/// One answer of several on a connection.
#[derive(Debug, PartialEq, Eq)]
struct Answer {
    status: u16,
    head: String,
    body: Vec<u8>,
}

impl Answer {
    fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }
}

/// Sends these bytes on one connection and reads until the server closes it.
async fn exchange(server: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(server).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    let mut answers = Vec::new();
    // A reset after the answer is the server's way to refuse the rest.
    let _ = within_limit("the answers", stream.read_to_end(&mut answers)).await;
    answers
}

/// The answers to requests with these methods, in order.
fn split(mut bytes: &[u8], methods: &[&str]) -> Vec<Answer> {
    let mut answers = Vec::new();
    for method in methods {
        let head = String::from_utf8_lossy(bytes);
        let Some((head, _)) = head.split_once("\r\n\r\n") else {
            break;
        };
        bytes = &bytes[head.len() + 4..];
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let mut answer = Answer { status, head: head.to_owned(), body: Vec::new() };
        let length = answer.header("content-length").map_or(0, |length| length.parse().unwrap());
        if *method != "HEAD" {
            let (body, rest) = bytes.split_at(length);
            answer.body = body.to_vec();
            bytes = rest;
        }
        answers.push(answer);
    }
    assert!(bytes.is_empty(), "more than {methods:?}: {}", String::from_utf8_lossy(bytes));
    answers
}

fn status_line(answer: &[u8]) -> String {
    String::from_utf8_lossy(answer).lines().next().unwrap_or_default().to_owned()
}

/// A registry with an image, and a mirror that has all of it.
async fn cached() -> (FakeRegistry, TestMirror, Image) {
    let registry = FakeRegistry::start().await;
    let image = Image::random(1);
    registry.put_image("library/x", "latest", &image);
    let mirror = TestMirror::of(&registry).await;
    mirror.pull("library/x", "latest", &image).await;
    (registry, mirror, image)
}

/// Requests sent without waiting are answered in order. A HEAD that had a body would put all
/// that follows out of step.
#[tokio::test(flavor = "multi_thread")]
async fn pipelined_requests_are_answered_in_order() {
    let (_registry, mirror, image) = cached().await;
    let layer = &image.layers[1];
    let blob = blob_url("library/x", &sha256(layer));
    let manifest = manifest_path("library/x", "latest");
    let requests = [
        ("HEAD", blob.as_str()),
        ("GET", blob.as_str()),
        ("HEAD", manifest.as_str()),
        ("HEAD", "/v2/nowhere/else"),
        ("GET", manifest.as_str()),
        ("GET", "/v2/"),
    ];
    let mut bytes = Vec::new();
    for (number, (method, path)) in requests.iter().enumerate() {
        let is_last = number + 1 == requests.len();
        let connection = if is_last { "close" } else { "keep-alive" };
        let head =
            format!("{method} {path} HTTP/1.1\r\nhost: m\r\nconnection: {connection}\r\n\r\n");
        bytes.extend_from_slice(head.as_bytes());
    }
    let methods = requests.map(|(method, _)| method);
    let answers = split(&exchange(mirror.address(), &bytes).await, &methods);

    let statuses: Vec<u16> = answers.iter().map(|answer| answer.status).collect();
    assert_eq!(statuses, [200, 200, 200, 405, 200, 200]);
    let bodies: Vec<&[u8]> = answers.iter().map(|answer| answer.body.as_slice()).collect();
    assert_eq!(bodies, [b"", &layer[..], b"", b"", &image.manifest[..], b"{}"]);
    for (head, get) in [(0, 1), (2, 4)] {
        let length = answers[get].body.len().to_string();
        assert_eq!(answers[head].header("content-length"), Some(length.as_str()));
    }
}

/// A connection stays for the next request unless the client says otherwise.
#[tokio::test(flavor = "multi_thread")]
async fn a_connection_is_kept_as_the_client_wishes() {
    let (_registry, mirror, _) = cached().await;
    let table = [
        ("HTTP/1.1", "", 2),
        ("HTTP/1.1", "connection: close\r\n", 1),
        ("HTTP/1.0", "", 1),
        ("HTTP/1.0", "connection: keep-alive\r\n", 2),
    ];
    for (version, header, expected) in table {
        let first = format!("GET /v2/ {version}\r\nhost: m\r\n{header}\r\n");
        let last = "GET /v2/ HTTP/1.1\r\nhost: m\r\nconnection: close\r\n\r\n";
        let answers = exchange(mirror.address(), (first + last).as_bytes()).await;
        let answers = String::from_utf8(answers).unwrap();
        assert_eq!(answers.matches(" 200 OK\r\n").count(), expected, "{version} {header}");
    }
}

/// What is no request, or too much of one, has an answer that says so, and ends nothing but its own
/// connection.
#[tokio::test(flavor = "multi_thread")]
async fn odd_requests_are_answered_with_the_right_status() {
    let (_registry, mirror, _) = cached().await;
    let long = |length: usize| "y".repeat(length);
    let get =
        |path: &str, headers: &str| format!("GET {path} HTTP/1.1\r\nhost: m\r\n{headers}\r\n");
    let table = [
        ("no HTTP", "hello\r\n\r\n".to_owned(), "400 Bad Request"),
        ("no version", "GET /v2/\r\n\r\n".to_owned(), "400 Bad Request"),
        ("another version", "GET /v2/ HTTP/3.0\r\n\r\n".to_owned(), "400 Bad Request"),
        ("a space in the path", get("/v2/a b", ""), "400 Bad Request"),
        ("a broken header", get("/v2/", "no colon\r\n"), "400 Bad Request"),
        (
            "two lengths",
            get("/v2/", "content-length: 1\r\ncontent-length: 2\r\n"),
            "400 Bad Request",
        ),
        (
            "a long header",
            get("/v2/", &format!("x: {}\r\n", long(70_000))),
            "431 Request Header Fields Too Large",
        ),
        (
            "many headers",
            get("/v2/", &"x: y\r\n".repeat(200)),
            "431 Request Header Fields Too Large",
        ),
        ("a long header that fits", get("/v2/", &format!("x: {}\r\n", long(60_000))), "200 OK"),
        ("a long path", get(&format!("/v2/{}", long(9_000)), ""), "414 URI Too Long"),
        ("a longer path", get(&format!("/v2/{}", long(60_000)), ""), "414 URI Too Long"),
        ("a long query", get(&format!("/v2/?x={}", long(9_000)), ""), "414 URI Too Long"),
        ("a long name", get(&format!("/v2/{}/manifests/1", long(5_000)), ""), "400 Bad Request"),
        ("an absolute target", get("http://elsewhere.example/v2/", ""), "200 OK"),
        ("an absolute target without a path", get("http://elsewhere.example", ""), "200 OK"),
        (
            "no path",
            "GET elsewhere.example:80 HTTP/1.1\r\nhost: m\r\n\r\n".to_owned(),
            "404 Not Found",
        ),
        ("an asterisk", get("*", ""), "404 Not Found"),
        (
            "options of the server",
            "OPTIONS * HTTP/1.1\r\nhost: m\r\n\r\n".to_owned(),
            "405 Method Not Allowed",
        ),
        (
            "a tunnel",
            "CONNECT a.example:443 HTTP/1.1\r\nhost: m\r\n\r\n".to_owned(),
            "405 Method Not Allowed",
        ),
        (
            "another protocol",
            get(
                "/v2/",
                "connection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABkAAQAoAAAAAIAAAAA\r\n",
            ),
            "200 OK",
        ),
        ("an expectation", get("/v2/", "expect: 100-continue\r\n"), "200 OK"),
        ("an unknown expectation", get("/v2/", "expect: miracles\r\n"), "200 OK"),
    ];
    for (what, request, expected) in table {
        let last = "GET /v2/ HTTP/1.1\r\nhost: m\r\nconnection: close\r\n\r\n";
        let answer = exchange(mirror.address(), (request + last).as_bytes()).await;
        assert_eq!(status_line(&answer), format!("HTTP/1.1 {expected}"), "{what}");
    }
    assert_eq!(mirror.get("/v2/").await.status, 200);
}

/// No request of this API has a body. One that comes with a body is answered, and the body is never
/// taken for a request.
#[tokio::test(flavor = "multi_thread")]
async fn a_body_is_not_taken_for_a_request() {
    let (_registry, mirror, _) = cached().await;
    let inner = "GET /v2/smuggled HTTP/1.1\r\nhost: m\r\n\r\n";
    let last = "GET /v2/ HTTP/1.1\r\nhost: m\r\nconnection: close\r\n\r\n";
    let length = inner.len();
    let chunks = format!("{length:x}\r\n{inner}\r\n0\r\n\r\n");
    let table = [
        ("GET", format!("content-length: {length}\r\n"), inner.to_owned(), 200),
        ("PUT", format!("content-length: {length}\r\n"), inner.to_owned(), 405),
        ("PATCH", "transfer-encoding: chunked\r\n".to_owned(), chunks.clone(), 405),
        (
            "GET",
            format!("expect: 100-continue\r\ncontent-length: {length}\r\n"),
            inner.to_owned(),
            200,
        ),
        ("POST", "expect: 100-continue\r\ntransfer-encoding: chunked\r\n".to_owned(), chunks, 405),
    ];
    for (method, headers, body, expected) in table {
        let request = format!("{method} /v2/ HTTP/1.1\r\nhost: m\r\n{headers}\r\n{body}{last}");
        let answers = exchange(mirror.address(), request.as_bytes()).await;
        // Whether the connection goes on behind a body that nobody read is the server's choice.
        let answers = split(&answers, &[method, "GET"]);
        let statuses: Vec<u16> = answers.iter().map(|answer| answer.status).collect();
        assert!(
            statuses == [expected] || statuses == [expected, 200],
            "{method} {headers}: {statuses:?}"
        );
    }
    assert_eq!(mirror.metric("larder_requests_total{code=\"404\"}").await, 0.0);
}

/// A client that waits for "100 Continue" with its body gets the final answer at once.
#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_asked_to_continue() {
    let (_registry, mirror, _) = cached().await;
    let head = "PUT /v2/x/manifests/1 HTTP/1.1\r\nhost: m\r\n\
        expect: 100-continue\r\ncontent-length: 1000000\r\n\r\n";
    let answer = exchange(mirror.address(), head.as_bytes()).await;
    let answers = split(&answer, &["PUT"]);
    assert_eq!(answers[0].status, 405);
}

/// One manifest, whichever way it is written: the octets of a path may be percent-encoded, unknown
/// query keys mean nothing, and the media types a client accepts may be spread over many lines.
#[tokio::test(flavor = "multi_thread")]
async fn the_same_thing_asked_for_in_other_words_is_the_same() {
    let (registry, mirror, image) = cached().await;
    let digest = image.digest().to_string();
    let accept = [
        "application/vnd.oci.image.index.v1+json",
        "application/vnd.docker.distribution.manifest.v1+prettyjws",
        "application/json",
        "application/vnd.oci.image.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.v2+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
    ];
    let six_lines = accept.map(|media_type| ("accept", media_type));
    let one_line = accept.join(", ");
    let upstream_before = registry.requests().len();
    let ways: [(String, &[(&str, &str)]); 8] = [
        ("/v2/library/x/manifests/latest".to_owned(), &six_lines),
        ("/v2/library/x/manifests/latest".to_owned(), &[("accept", &one_line)]),
        ("/v2/library/x/manifests/latest".to_owned(), &[("accept", "text/html")]),
        ("/v2/library%2Fx/manifests/l%61test".to_owned(), &[]),
        ("/%76%32/x/manifests/latest".to_owned(), &[]),
        (format!("/v2/library/x/manifests/{}", digest.replace(':', "%3A")), &[]),
        ("/v2/library/x/manifests/latest?a=b&&c&ns=docker.io&=%ff&ns".to_owned(), &[]),
        ("/v2/library/x/manifests/latest?".to_owned(), &[]),
    ];
    for (path, headers) in ways {
        let response = mirror.request("GET", &path, headers).await;
        assert_eq!(response.status, 200, "{path}");
        assert_eq!(response.header("docker-content-digest"), Some(digest.as_str()), "{path}");
        assert_eq!(response.bytes().await, image.manifest, "{path}");
    }
    assert_eq!(registry.requests().len(), upstream_before);
    for path in ["/v2/library%252Fx/manifests/latest", "/v2/library/x%00/manifests/latest"] {
        assert_eq!(mirror.get(path).await.status, 400, "{path}");
    }
}
