//! The fakes keep their word: what the other tests rely on, tried without Larder.

use std::time::{Duration, Instant};

use larder::oci::{DOCKER_LIST, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST};

use crate::support::{
    Auth, Client, FakeRegistry, Fault, Gate, Image, Mode, Trouble,
    client::Body,
    mirror::{blob_url, manifest_path},
    random_bytes, sha256,
};

const IDENTITY: (&str, &str) = ("accept-encoding", "identity");

/// A manifest comes by tag and digest with its headers, blobs come whole and in ranges.
#[tokio::test]
async fn a_registry_serves_what_is_put_in() {
    let registry = FakeRegistry::start().await;
    let image = Image::random(1);
    registry.put_image("library/x", "latest", &image);
    let client = Client::new(registry.address());
    let accept = [OCI_INDEX, OCI_MANIFEST, DOCKER_LIST, DOCKER_MANIFEST].join(",");
    let headers = [("accept", accept.as_str()), IDENTITY];

    for reference in ["latest", &image.digest().to_string()] {
        let path = manifest_path("library/x", reference);
        let response = client.request("GET", &path, &headers).await;
        assert_eq!(response.header("content-type"), Some(OCI_MANIFEST));
        response.verified(&image.digest()).await;
        assert_eq!(registry.count("GET", &path), 1);
    }

    let layer = &image.layers[0];
    let path = blob_url("library/x", &sha256(layer));
    let whole = client.request("GET", &path, &[IDENTITY]).await;
    assert_eq!(whole.bytes().await, layer);
    let ranged = client.request("GET", &path, &[IDENTITY, ("range", "bytes=5-9")]).await;
    assert_eq!(ranged.status, 206);
    assert_eq!(ranged.bytes().await, layer.slice(5..10));
}

/// Tags come in pages that link to the next.
#[tokio::test]
async fn a_registry_lists_tags_in_pages() {
    let registry = FakeRegistry::start().await;
    for tag in ["b", "c", "a"] {
        registry.put_tag("library/x", tag, &sha256(b"x"));
    }
    let client = Client::new(registry.address());
    let path = "/v2/library/x/tags/list";
    registry.limit_pages(2);

    let first = client.get(&format!("{path}?n=9")).await;
    let link = format!("<{path}?last=b&n=2>; rel=\"next\"");
    assert_eq!(first.header("link"), Some(link.as_str()));
    assert!(first.bytes().await.ends_with(br#""tags":["a","b"]}"#));
    let second = client.get(&format!("{path}?last=b&n=2")).await;
    assert_eq!(second.header("link"), None);
    assert!(second.bytes().await.ends_with(br#""tags":["c"]}"#));
}

/// Each framing of a body can be told from a body that is cut.
#[tokio::test]
async fn a_cut_body_is_told_from_a_complete_one() {
    let registry = FakeRegistry::start().await;
    let blob = random_bytes(2, 10_000);
    let path = blob_url("a", &registry.put_blob("a", &blob));
    let client = Client::new(registry.address());

    for fault in [Fault::default(), Fault::chunked(), Fault::until_close()] {
        registry.once("GET", &path, fault);
        let response = client.request("GET", &path, &[IDENTITY]).await;
        assert_eq!(response.body().await, Body::Complete(blob.clone()));
    }
    for fault in [Fault::cut_after(4_000), Fault::cut_after(4_000).and_chunked()] {
        registry.once("GET", &path, fault);
        let response = client.request("GET", &path, &[IDENTITY]).await;
        assert_eq!(response.body().await, Body::Cut(blob.slice(..4_000)));
    }
    registry.once("GET", &path, Fault::flip_byte(9_999));
    let response = client.request("GET", &path, &[IDENTITY]).await;
    assert_ne!(response.bytes().await, blob);
}

/// A body can be slow, and stop until it is let go on.
#[tokio::test]
async fn a_body_is_fed_over_time_and_held() {
    let registry = FakeRegistry::start().await;
    let blob = random_bytes(3, 64_000);
    let path = blob_url("a", &registry.put_blob("a", &blob));
    let client = Client::new(registry.address());

    let started = Instant::now();
    registry.once("GET", &path, Fault::feed(Duration::from_millis(320)));
    let response = client.request("GET", &path, &[IDENTITY]).await;
    assert_eq!(response.bytes().await, blob);
    assert!(started.elapsed() > Duration::from_millis(250));

    let gate = Gate::shut();
    registry.once("GET", &path, Fault::hold_after(5, &gate));
    let mut response = client.request("GET", &path, &[IDENTITY]).await;
    assert_eq!(response.read_some(100).await.unwrap(), blob.slice(..5));
    gate.open();
    assert_eq!(response.bytes().await, blob.slice(5..));
}

/// A registry that is down refuses, a black hole is silent, and both come back.
#[tokio::test]
async fn a_registry_goes_down_and_comes_back() {
    let registry = FakeRegistry::start().await;
    let client = Client::new(registry.address());
    for mode in [Mode::Down, Mode::Dropping] {
        registry.set_mode(mode).await;
        assert!(client.try_request("GET", "/v2/", &[]).await.is_none());
        registry.set_mode(Mode::Up).await;
        assert_eq!(client.get("/v2/").await.status, 200);
    }
    registry.set_mode(Mode::BlackHole).await;
    let silence = client.try_request("GET", "/v2/", &[]);
    assert!(tokio::time::timeout(Duration::from_millis(100), silence).await.is_err());
    registry.set_mode(Mode::Up).await;
    assert_eq!(client.get("/v2/").await.status, 200);
}

/// Tokens are asked for, given, and expire.
#[tokio::test]
async fn a_registry_wants_tokens() {
    let auth = Auth::PasswordToken("anna", "secret");
    let registry = FakeRegistry::builder().auth(auth).start().await;
    let client = Client::new(registry.address());
    let path = blob_url("a", &registry.put_blob("a", &random_bytes(4, 10)));
    let denied = client.request("GET", &path, &[IDENTITY]).await;
    assert_eq!(denied.status, 401);
    let challenge = denied.header("www-authenticate").unwrap();
    assert!(challenge.contains("scope=\"repository:a:pull\""), "{challenge}");

    let realm = "/token?service=fake-registry&scope=repository%3Aa%3Apull";
    assert_eq!(client.get(realm).await.status, 401);
    let basic = ("authorization", "Basic YW5uYTpzZWNyZXQ=");
    let token = client.request("GET", realm, &[basic]).await.bytes().await;
    let token: serde_json::Value = serde_json::from_slice(&token).unwrap();
    let bearer = format!("Bearer {}", token["token"].as_str().unwrap());
    let headers = [IDENTITY, ("authorization", bearer.as_str())];
    assert_eq!(client.request("GET", &path, &headers).await.status, 200);
    registry.expire_tokens();
    assert_eq!(client.request("GET", &path, &headers).await.status, 401);
}

/// Wild registries fail in each way about as often as they should, and by the same seed in the same ways.
#[tokio::test]
async fn a_wild_registry_fails_as_its_seed_has_it() {
    let mut troubles = Vec::new();
    for seed in [1, 1, 2] {
        let registry = FakeRegistry::start().await;
        registry.go_wild(seed, &registry);
        let client = Client::new(registry.address());
        for _ in 0..1000 {
            client.ask("/v2/").await;
        }
        registry.wait_for("GET", "/v2/", 1000).await;
        troubles.push(registry.troubles());
        registry.behave();
        assert_eq!(client.get("/v2/").await.status, 200);
    }
    assert_eq!(troubles[0], troubles[1]);
    assert_ne!(troubles[0], troubles[2]);
    for troubles in troubles {
        assert_eq!(troubles.len(), 9, "{troubles:?}");
        for (trouble, times) in troubles {
            let is_rare = trouble == Trouble::Corruption;
            let usual = if is_rare { 1..=15 } else { 8..=40 };
            assert!(usual.contains(&times), "{trouble:?}: {times}");
        }
    }
}

/// Bad manners upstream fail the test that caused them.
#[tokio::test]
#[should_panic(expected = "ns is forwarded")]
async fn a_registry_complains_of_bad_manners() {
    let registry = FakeRegistry::start().await;
    let client = Client::new(registry.address());
    client.get("/v2/?ns=docker.io").await;
}
