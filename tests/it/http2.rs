//! HTTP/2 without TLS and without being asked first: many requests on one connection.

use h2::{Reason, RecvStream};
use http::Response;
use serde_json::Value;
use tokio::net::UnixStream;

use crate::support::{
    FakeRegistry, Fault, Gate, Image, TestMirror, Upstream,
    binary::Daemon,
    http2::{Http2, Stream, read},
    mirror::{blob_url, manifest_path},
    random_bytes, sha256,
};

const MIB: usize = 1024 * 1024;

/// A whole pull over one connection, its blobs at once, and each of them fetched once.
#[tokio::test(flavor = "multi_thread")]
async fn an_image_is_pulled_over_one_connection() {
    let registry = FakeRegistry::start().await;
    let layers = (0..8).map(|seed| random_bytes(seed, MIB)).collect();
    let image = Image::with_layers(1, layers);
    registry.put_image("library/x", "latest", &image);
    let mirror = TestMirror::of(&registry).await;
    let client = Http2::connect(mirror.address()).await;

    client.expect(&manifest_path("library/x", "latest"), &image.manifest).await;
    let pulls = image.blobs().map(|blob| {
        let path = blob_url("library/x", &sha256(blob));
        let client = &client;
        async move { client.expect(&path, blob).await }
    });
    futures_util::future::join_all(pulls).await;
    for blob in image.blobs() {
        assert_eq!(registry.count("GET", &blob_url("library/x", &sha256(blob))), 1);
    }
    for blob in image.blobs() {
        client.expect(&blob_url("library/x", &sha256(blob)), blob).await;
    }
    let path = blob_url("library/x", &sha256(&image.layers[0]));
    let head = client.request("HEAD", &format!("http://mirror{path}"), &[]).await.unwrap();
    assert_eq!(head.headers()["content-length"], MIB.to_string());
    assert!(head.into_body().is_end_stream());
}

/// A body that upstream breaks off, or that has the wrong bytes, breaks off here: the stream is
/// reset and never ended, and the others on its connection go on.
#[tokio::test(flavor = "multi_thread")]
async fn a_failed_body_resets_its_stream_only() {
    for fault in [Fault::cut_after(MIB / 2), Fault::flip_byte(MIB / 2)] {
        let registry = FakeRegistry::start().await;
        let blob = random_bytes(1, MIB);
        let other = random_bytes(2, MIB);
        let broken = blob_url("library/x", &registry.put_blob("library/x", &blob));
        let whole = blob_url("library/x", &registry.put_blob("library/x", &other));
        registry.on("GET", &broken, fault.clone());
        let mirror = TestMirror::builder()
            .upstream(Upstream::docker_io(&registry))
            .set("download.retries", 0)
            .start()
            .await;
        let client = Http2::connect(mirror.address()).await;

        // A reset may overtake the head of the answer.
        let response = client.request("GET", &format!("http://mirror{broken}"), &[]).await;
        let reason = match response {
            Err(error) => error.reason(),
            Ok(response) => match read(response.into_body()).await {
                Stream::Reset(received, reason) => {
                    assert!(received < MIB, "{fault:?}");
                    reason
                }
                Stream::Ended(bytes) => panic!("{fault:?}: ended after {} bytes", bytes.len()),
            },
        };
        assert_eq!(reason, Some(Reason::INTERNAL_ERROR), "{fault:?}");
        client.expect(&whole, &other).await;
    }
}

/// A head beyond the limits is refused on its stream; the connection goes on.
#[tokio::test(flavor = "multi_thread")]
async fn a_head_that_is_too_long_is_refused() {
    let registry = FakeRegistry::start().await;
    let mirror = TestMirror::of(&registry).await;
    let client = Http2::connect(mirror.address()).await;
    let long = |length: usize| "y".repeat(length);
    let table = [
        (format!("http://mirror/v2/?{}", long(9_000)), 0, 414),
        (format!("http://mirror/v2/?{}", long(60_000)), 0, 414),
        ("http://mirror/v2/".to_owned(), 60_000, 200),
        ("http://mirror/v2/".to_owned(), 70_000, 431),
    ];
    for (uri, header, expected) in table {
        let value = long(header);
        let response = client.request("GET", &uri, &[("x", &value)]).await.unwrap();
        assert_eq!(response.status(), expected, "{} {header}", uri.len());
    }
    client.expect("/v2/", b"{}").await;
}

/// The answer to a HEAD is that to the GET, without a body: whatever it is about, whoever made it.
#[tokio::test(flavor = "multi_thread")]
async fn the_answer_to_a_head_has_no_body() {
    let registry = FakeRegistry::start().await;
    let image = Image::random(1);
    registry.put_image("library/x", "latest", &image);
    let mirror = TestMirror::of(&registry).await;
    mirror.pull("library/x", "latest", &image).await;
    let paths = [
        "/".to_owned(),
        "/v2/".to_owned(),
        manifest_path("library/x", "latest"),
        blob_url("library/x", &sha256(&image.layers[0])),
        manifest_path("library/x", "-no-tag"),
        "/v2/library/x/tags/list".to_owned(),
        "/nowhere".to_owned(),
    ];
    let client = Http2::connect(mirror.address()).await;
    for path in &paths {
        let uri = format!("http://mirror{path}");
        let head = client.request("HEAD", &uri, &[]).await.unwrap();
        let get = client.request("GET", &uri, &[]).await.unwrap();
        assert_eq!(head.status(), get.status(), "{path}");
        let length = |response: &Response<RecvStream>| {
            response.headers().get("content-length").unwrap().to_str().unwrap().to_owned()
        };
        assert_eq!(length(&head), length(&get), "{path}");
        let Stream::Ended(body) = read(get.into_body()).await else {
            panic!("{path} was reset");
        };
        assert_eq!(length(&head), body.len().to_string(), "{path}");
        let Stream::Ended(none) = read(head.into_body()).await else {
            panic!("the HEAD of {path} was reset");
        };
        assert!(none.is_empty(), "{path}: {none:?}");
    }
    let client = Http2::connect(mirror.admin().address()).await;
    let head = client.request("HEAD", "http://mirror/healthz", &[]).await.unwrap();
    assert_eq!(head.headers()["content-length"], "3");
    assert!(head.into_body().is_end_stream());
}

/// Methods of other APIs get the same answers as over HTTP/1.1.
#[tokio::test(flavor = "multi_thread")]
async fn other_methods_are_refused() {
    let registry = FakeRegistry::start().await;
    let mirror = TestMirror::of(&registry).await;
    let client = Http2::connect(mirror.address()).await;
    let digest = sha256(b"x");
    for (method, uri) in [
        ("PUT", "http://mirror/v2/x/manifests/latest"),
        ("POST", "http://mirror/v2/x/blobs/uploads/"),
        ("PATCH", "http://mirror/v2/x/blobs/uploads/1"),
        ("DELETE", &format!("http://mirror/v2/x/blobs/{digest}")),
        ("OPTIONS", "http://mirror/v2/"),
        ("CONNECT", "mirror:443"),
    ] {
        let response = client.request(method, uri, &[]).await.unwrap();
        assert_eq!(response.status(), 405, "{method}");
        assert_eq!(response.headers()["content-type"], "application/json", "{method}");
        let Stream::Ended(body) = read(response.into_body()).await else {
            panic!("{method} was reset");
        };
        let body: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(body["errors"][0]["code"], "UNSUPPORTED", "{method}");
    }
    assert_eq!(registry.requests().len(), 0);
}

/// A Unix socket speaks whatever a TCP socket does.
#[tokio::test(flavor = "multi_thread")]
async fn a_unix_socket_speaks_it_too() {
    let registry = FakeRegistry::start().await;
    let builder = TestMirror::builder().upstream(Upstream::docker_io(&registry));
    let socket = builder.data_dir().with_file_name("registry.sock");
    let listen = format!("unix:{}", socket.display());
    let mirror = builder.set("listen", vec!["127.0.0.1:0".to_owned(), listen]).start().await;
    let client = Http2::over(UnixStream::connect(&socket).await.unwrap()).await;
    client.expect("/v2/", b"{}").await;
    mirror.stop().await;
}

/// A drain tells the client to ask elsewhere, and what is running comes to its end.
#[tokio::test(flavor = "multi_thread")]
async fn a_drain_finishes_running_streams() {
    let registry = FakeRegistry::start().await;
    let blob = random_bytes(1, MIB);
    let path = blob_url("library/x", &registry.put_blob("library/x", &blob));
    let gate = Gate::shut();
    registry.on("GET", &path, Fault::hold_after(MIB / 2, &gate));
    let mirror = TestMirror::builder().upstream(Upstream::docker_io(&registry));
    let mut daemon = Daemon::start(mirror).await;
    let client = Http2::connect(daemon.client().address()).await;
    let response = client.get(&path).await;

    daemon.signal("TERM");
    let refusal = loop {
        match client.request("GET", "http://mirror/v2/", &[]).await {
            Ok(response) => assert_eq!(response.status(), 200),
            Err(refusal) => break refusal,
        }
    };
    assert!(refusal.is_go_away() && refusal.reason() == Some(Reason::NO_ERROR), "{refusal}");
    gate.open();
    match read(response.into_body()).await {
        Stream::Ended(bytes) => assert!(bytes == blob),
        Stream::Reset(received, reason) => panic!("{reason:?} after {received} bytes"),
    }
    client.ended().await.unwrap();
    assert_eq!(daemon.ended().await.code(), Some(0));
}
