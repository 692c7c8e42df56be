//! Images of which the cache has only a part, while upstream cannot be asked.

use std::time::Duration;

use larder::oci::OCI_INDEX;

use crate::support::{FakeRegistry, Image, Index, Mode, TestMirror, mirror::manifest_path, sha256};

/// More than the `tag_ttl` of a [`TestMirror`].
const PAST_TTL: Duration = Duration::from_secs(61);

/// Podman takes its blobs from whoever answered the manifest, so a manifest whose layers cannot
/// be had is not answered with 200.
#[tokio::test(flavor = "multi_thread")]
async fn an_image_that_is_not_whole_is_no_200_without_upstream() {
    for mode in [Mode::Down, Mode::BlackHole, Mode::Dropping] {
        let registry = FakeRegistry::start().await;
        let image = Image::random(3);
        registry.put_image("library/x", "latest", &image);
        let mirror = TestMirror::of(&registry).await;
        mirror.manifest("library/x", "latest").await;
        mirror.pull_blob("library/x", &sha256(&image.config)).await;
        // A mirror that has just started has seen no sign of life of upstream yet.
        let stopped = mirror.stop().await;
        registry.set_mode(mode).await;
        let mirror = stopped.wall_jumped(PAST_TTL).start().await;

        for reference in ["latest", &image.digest().to_string()] {
            let response = mirror.get(&manifest_path("library/x", reference)).await;
            assert!(matches!(response.status, 502 | 504 | 429), "{response:?}");
        }
    }
}

/// Of an image for many platforms, one is enough to go on with: nodes pull but their own.
#[tokio::test(flavor = "multi_thread")]
async fn an_index_with_one_image_is_served_without_upstream() {
    let registry = FakeRegistry::start().await;
    let index = Index::of(vec![Image::random(5), Image::random(6)]);
    registry.put_index("library/x", "latest", &index);
    let mirror = TestMirror::of(&registry).await;
    mirror.manifest("library/x", "latest").await;
    let [mine, others] = &index.images[..] else {
        panic!("two images");
    };
    mirror.pull("library/x", &mine.digest().to_string(), mine).await;
    let stopped = mirror.stop().await;
    registry.set_mode(Mode::Down).await;
    let mirror = stopped.wall_jumped(PAST_TTL).start().await;

    assert_eq!(mirror.manifest("library/x", "latest").await, index.manifest);
    mirror.pull("library/x", &mine.digest().to_string(), mine).await;
    let path = manifest_path("library/x", &others.digest().to_string());
    assert!(matches!(mirror.get(&path).await.status, 502 | 504));
}

/// An index that lists the same thing over and over, level by level, is looked through once: the
/// thousand ways down each of its three levels are a billion ways to the image.
#[tokio::test(flavor = "multi_thread")]
async fn an_index_that_repeats_itself_costs_little() {
    let registry = FakeRegistry::start().await;
    let image = Image::random(7);
    registry.put_image("library/x", "latest", &image);
    let mirror = TestMirror::of(&registry).await;
    let mut manifest = image.manifest.clone();
    let mut digest = image.digest();
    mirror.manifest("library/x", &digest.to_string()).await;
    for _ in 0..3 {
        manifest = Index::repeating(&manifest, 1_000);
        digest = registry.put_manifest("library/x", OCI_INDEX, &manifest);
        mirror.manifest("library/x", &digest.to_string()).await;
    }
    let stopped = mirror.stop().await;
    registry.set_mode(Mode::Down).await;
    let mirror = stopped.start().await;
    let response = mirror.get(&manifest_path("library/x", &digest.to_string())).await;
    assert_eq!(response.status, 502, "none of its blobs is here");
}
