//! What is attached to an image at the tags of the fallback schema, and of cosign's.

use super::*;

/// What is attached to an image appears after it: that it is missing is believed for ten seconds
/// at most. Once there, it is a tag like any other.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_attached_to_an_image_is_missed_only_briefly() {
    let hex = subject().encoded();
    let registry = with_referrers(&[]).await;
    registry.on("GET", &list(), Fault::status(404));
    let mirror = TestMirror::builder()
        .upstream(Upstream::docker_io(&registry))
        .set("cache.negative_ttl", "1h")
        .start()
        .await;
    let tags = ["", ".sig", ".att", ".sbom"].map(|suffix| format!("sha256-{hex}{suffix}"));
    let attached = tags.iter().map(|tag| manifest_path("library/x", tag)).chain([list()]);
    let attached: Vec<String> = attached.collect();
    let plain = manifest_path("library/x", "v1");
    let ask = async |expected: u16| {
        for path in &attached {
            assert_eq!(mirror.get(path).await.status, expected, "{path}");
        }
        mirror.get(&plain).await.status
    };
    ask(404).await;
    let asked = registry.requests().len();
    mirror.advance(Duration::from_secs(9));
    ask(404).await;
    assert_eq!(registry.requests().len(), asked);

    let image = Image::random(1);
    for tag in tags.iter().map(String::as_str).chain(["v1"]) {
        registry.put_image("library/x", tag, &image);
    }
    registry.behave();
    mirror.advance(Duration::from_secs(2));
    assert_eq!(ask(200).await, 404, "negative_ttl is an hour");
    let asked = registry.requests().len();
    registry.set_mode(Mode::Down).await;
    ask(200).await;
    assert_eq!(registry.requests().len(), asked);
    let body: Bytes = mirror.get(&attached[0]).await.bytes().await;
    assert_eq!(body, image.manifest);
}

/// Who finds that there is no API reads the tag instead. While upstream is down, that is the way to
/// what is cached, and nothing else is.
#[tokio::test(flavor = "multi_thread")]
async fn an_outage_leads_to_the_tag_when_that_is_what_is_cached() {
    let registry = with_referrers(&[]).await;
    registry.on("GET", &list(), Fault::status(404));
    let attached = Image::random(1);
    let tag = format!("sha256-{}", subject().encoded());
    registry.put_image("library/x", &tag, &attached);
    let mirror = TestMirror::of(&registry).await;
    mirror.pull("library/x", &tag, &attached).await;
    let tag = manifest_path("library/x", &tag);

    registry.set_mode(Mode::Down).await;
    mirror.advance(PAST_TTL);
    let response = mirror.get(&list()).await;
    assert_eq!(response.status, 404);
    assert_eq!(response.error().await.0, "UNSUPPORTED");
    let response = mirror.get(&tag).await;
    assert_eq!(response.status, 200);
    assert!(warns(&response), "{response:?}");

    let other = format!("/v2/library/x/referrers/{}", sha256(b"other"));
    assert_eq!(mirror.get(&other).await.status, 502);
}

/// What the tag means is a list, and is served for itself: who only looks for what there is has
/// pulled none of it.
#[tokio::test(flavor = "multi_thread")]
async fn an_outage_does_not_hide_the_list_at_the_tag() {
    let path = manifest_path("library/x", &format!("sha256-{}", subject().encoded()));
    let image = json!({ "mediaType": OCI_MANIFEST, "digest": sha256(b"image"), "size": 7 });
    for (listed, is_list) in [
        (vec![], true),
        (vec![referrer("a", SBOM), referrer("b", SIGNATURE)], true),
        (vec![referrer("a", SBOM), image], false),
    ] {
        let registry = with_referrers(&[]).await;
        registry.on("GET", &list(), Fault::status(404));
        let index = json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": listed });
        let digest = registry.put_manifest("library/x", OCI_INDEX, &index.to_string().into());
        registry.put_tag("library/x", path.rsplit('/').next().unwrap(), &digest);
        let mirror = TestMirror::of(&registry).await;
        assert_eq!(mirror.get(&path).await.status, 200);

        registry.set_mode(Mode::Down).await;
        mirror.advance(PAST_TTL);
        assert_eq!(mirror.get(&list()).await.status, 404, "{index}");
        let response = mirror.get(&path).await;
        assert_eq!(response.status == 200, is_list, "{index}");
        if is_list {
            assert!(warns(&response), "{response:?}");
            assert_eq!(response.bytes().await, index.to_string());
        }
    }
}
