//! The data directory stays within `cache.max_size`, and keeps what was pulled last.

use std::{fs, os::unix::fs::MetadataExt as _, path::Path, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::future::join_all;
use larder::oci::Digest;

use crate::support::{
    FakeRegistry, Fault, Gate, Image, Mode, Random, TestMirror, Upstream,
    mirror::{blob_url, manifest_path},
    random_bytes, sha256,
    wait::until,
};

const MIB: usize = 1 << 20;
/// With what the index takes up, and may soon, room for some eight layers.
const MAX_SIZE: u64 = 12 << 20;

/// What is below a directory takes up on disk, as `du` says.
fn used(directory: &Path) -> u64 {
    let metadata = fs::symlink_metadata(directory);
    // What goes while it is looked at takes up nothing.
    let own = metadata.map_or(0, |metadata| metadata.blocks() * 512);
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    own + entries.map(|entry| used(&entry.path())).sum::<u64>()
}

/// So many bytes that no other layer has.
fn layer(seed: usize, base: &Bytes) -> Bytes {
    [&seed.to_le_bytes()[..], &base[8..]].concat().into()
}

async fn limited(registry: &FakeRegistry) -> TestMirror {
    let builder = TestMirror::builder().upstream(Upstream::docker_io(registry));
    builder.set("cache.max_size", format!("{MAX_SIZE}B")).start().await
}

fn upstream_gets(registry: &FakeRegistry) -> usize {
    registry.count("GET", "*")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_images_pulled_last_are_hits() {
    let (registry, base) = (FakeRegistry::start().await, random_bytes(1, MIB));
    let mirror = limited(&registry).await;
    let images: Vec<Image> =
        (0..120).map(|seed| Image::with_layers(seed as u64, vec![layer(seed, &base)])).collect();
    for (number, image) in images.iter().enumerate() {
        registry.put_image("library/x", &format!("v{number}"), image);
        mirror.pull("library/x", &format!("v{number}"), image).await;
        let used = used(&mirror.data_dir());
        assert!(used <= MAX_SIZE, "{used} after {number}");
    }
    let before = upstream_gets(&registry);
    for (number, image) in images.iter().enumerate().skip(115) {
        mirror.pull("library/x", &format!("v{number}"), image).await;
    }
    assert_eq!(upstream_gets(&registry), before, "all hits");
    assert!(!mirror.has_blob(&images[0].digest()), "ten times the limit was pulled");
    let evicted = mirror.metric(r#"larder_evicted_bytes_total{reason="max_size"}"#).await;
    assert!(evicted > 100.0 * MIB as f64, "{evicted}");
    assert_eq!(mirror.metric("larder_store_limit_bytes").await, MAX_SIZE as f64);
    assert_eq!(mirror.metric("larder_passthrough_total").await, 0.0);
}

/// Use counts, not age: a base image that everyone pulls stays while others come and go.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_used_stays() {
    let (registry, base) = (FakeRegistry::start().await, random_bytes(2, MIB));
    let mirror = limited(&registry).await;
    let used = Image::with_layers(1000, vec![layer(1000, &base)]);
    registry.put_image("library/used", "latest", &used);
    mirror.pull("library/used", "latest", &used).await;
    for number in 0..20 {
        let image = Image::with_layers(number as u64, vec![layer(number, &base)]);
        registry.put_image("library/x", &format!("v{number}"), &image);
        mirror.pull("library/x", &format!("v{number}"), &image).await;
        // As a node does that has the layers.
        mirror.manifest("library/used", "latest").await;
    }
    for blob in used.blobs() {
        assert!(mirror.has_blob(&sha256(blob)));
    }
}

/// A pinned image is a hit after ten times the limit was pulled.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_pinned_is_never_evicted() {
    let (registry, base) = (FakeRegistry::start().await, random_bytes(7, MIB));
    let pinned = Image::with_layers(1000, vec![layer(1000, &base), layer(1001, &base)]);
    registry.put_image("library/pinned", "v1", &pinned);
    let mirror = pinning(&registry).await;
    mirror.pull("library/pinned", "v1", &pinned).await;
    for number in 0..120 {
        let digest = registry.put_blob("library/x", &layer(number, &base));
        mirror.pull_blob("library/x", &digest).await;
    }
    let evicted = mirror.metric(r#"larder_evicted_bytes_total{reason="max_size"}"#).await;
    assert!(evicted > 90.0 * MIB as f64, "{evicted}");
    let before = upstream_gets(&registry);
    mirror.pull("library/pinned", "v1", &pinned).await;
    assert_eq!(upstream_gets(&registry), before);
}

/// When all the room is pinned, what does not fit passes through, and what is pinned stays.
#[tokio::test(flavor = "multi_thread")]
async fn more_than_fits_may_be_pinned() {
    let (registry, base) = (FakeRegistry::start().await, random_bytes(8, MIB));
    let mirror = pinning(&registry).await;
    let images = (0..16).map(|seed| Image::with_layers(seed as u64, vec![layer(seed, &base)]));
    let images: Vec<Image> = images.collect();
    for (number, image) in images.iter().enumerate() {
        let tag = format!("v{number}");
        registry.put_image("library/pinned", &tag, image);
        mirror.manifest("library/pinned", &tag).await;
        for blob in image.blobs() {
            mirror.get(&blob_url("library/pinned", &sha256(blob))).await.expect(blob).await;
        }
        assert!(used(&mirror.data_dir()) <= MAX_SIZE);
    }
    until("no download", async || mirror.metric("larder_downloads_in_flight").await == 0.0).await;
    assert!(mirror.metric(r#"larder_passthrough_total{reason="no_room"}"#).await >= 4.0);
    assert_eq!(mirror.metric("larder_evicted_blobs_total").await, 0.0);
    let kept = images.iter().take_while(|image| mirror.has_blob(&sha256(&image.layers[0])));
    assert!(kept.count() >= 5);
}

async fn pinning(registry: &FakeRegistry) -> TestMirror {
    let rule = toml::toml! {
        match = "docker.io/library/pinned"
        pin = true
    };
    let builder = TestMirror::builder().upstream(Upstream::docker_io(registry));
    builder
        .set("cache.max_size", format!("{MAX_SIZE}B"))
        .set("cache.rule", vec![rule])
        .start()
        .await
}

/// Whatever is pulled and evicted, a tag that is a hit pulls whole without upstream.
#[tokio::test(flavor = "multi_thread")]
async fn a_hit_is_a_whole_image() {
    let (registry, base) = (FakeRegistry::start().await, random_bytes(9, MIB));
    let mirror = limited(&registry).await;
    let layers: Vec<Bytes> = (0..20).map(|seed| layer(seed, &base)).collect();
    let mut random = Random::new(1);
    let images: Vec<Image> = (0..30)
        .map(|seed| {
            let chosen = (0..=random.index(3)).map(|_| layers[random.index(20)].clone());
            Image::with_layers(seed, chosen.collect())
        })
        .collect();
    for (number, image) in images.iter().enumerate() {
        registry.put_image("library/x", &format!("v{number}"), image);
    }
    for _ in 0..60 {
        let number = random.index(30);
        mirror.manifest("library/x", &format!("v{number}")).await;
        // Some clients have layers of it already, or hang up.
        for blob in images[number].blobs().skip(random.index(3)) {
            mirror.get(&blob_url("library/x", &sha256(blob))).await.expect(blob).await;
        }
    }
    until("no download", async || mirror.metric("larder_downloads_in_flight").await == 0.0).await;
    registry.set_mode(Mode::Down).await;
    let mut hits = 0;
    for (number, image) in images.iter().enumerate() {
        let manifest = mirror.get(&manifest_path("library/x", &format!("v{number}"))).await;
        if manifest.status == 200 {
            hits += 1;
            for blob in image.blobs() {
                mirror.get(&blob_url("library/x", &sha256(blob))).await.expect(blob).await;
            }
        }
    }
    assert!((1..30).contains(&hits), "{hits}");
}

/// Forty cold blobs at once are thirty more than there is room for. Those pass through, and nothing is
/// ever beyond the limit.
#[tokio::test(flavor = "multi_thread")]
async fn a_herd_does_not_pass_the_limit() {
    let (registry, base) = (FakeRegistry::start().await, random_bytes(3, MIB));
    let blobs: Vec<Bytes> = (0..40).map(|seed| layer(seed, &base)).collect();
    let gate = Gate::shut();
    for blob in &blobs {
        let path = blob_url("library/x", &registry.put_blob("library/x", blob));
        registry.on("GET", &path, Fault::hold_after(MIB / 2, &gate));
    }
    let mirror = limited(&registry).await;
    let data_dir = mirror.data_dir();
    let watched = Arc::new(());
    let watching = Arc::downgrade(&watched);
    let watch = tokio::task::spawn_blocking(move || {
        let mut most = 0;
        loop {
            let is_over = watching.strong_count() == 0;
            most = used(&data_dir).max(most);
            if is_over {
                return most;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    });
    let pulls = join_all(blobs.iter().map(|blob| async {
        mirror.pull_blob("library/x", &sha256(blob)).await;
    }));
    let passed = async {
        let passing = r#"larder_passthrough_total{reason="no_room"}"#;
        until("what does not fit to pass", async || mirror.metric(passing).await >= 30.0).await;
        gate.open();
    };
    tokio::join!(pulls, passed);
    drop(watched);
    let most = watch.await.unwrap();
    assert!(most <= MAX_SIZE, "{most}");
    assert!(most > MAX_SIZE / 2, "{most}: the room there is was used");
    until("no download", async || mirror.metric("larder_downloads_in_flight").await == 0.0).await;
    let kept = blobs.iter().filter(|blob| mirror.has_blob(&sha256(blob))).count();
    assert!(kept >= 5, "{kept}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_larger_than_the_limit_passes_and_evicts_nothing() {
    let registry = FakeRegistry::start().await;
    let (small, large) = (random_bytes(4, MIB), random_bytes(5, 13 * MIB));
    let digests = [&small, &large].map(|blob| registry.put_blob("library/x", blob));
    let mirror = limited(&registry).await;
    for digest in &digests {
        mirror.pull_blob("library/x", digest).await;
    }
    mirror.wait_for_blob(&digests[0]).await;
    let has = digests.each_ref().map(|digest: &Digest| mirror.has_blob(digest));
    assert_eq!(has, [true, false]);
    assert_eq!(mirror.metric("larder_evicted_blobs_total").await, 0.0);
}

/// A limit that was lowered is kept from the start on.
#[tokio::test(flavor = "multi_thread")]
async fn a_lower_limit_is_kept_from_the_start_on() {
    let (registry, base) = (FakeRegistry::start().await, random_bytes(6, MIB));
    let mirror = TestMirror::of(&registry).await;
    let mut digests = Vec::new();
    for seed in 0..16 {
        let digest = registry.put_blob("library/x", &layer(seed, &base));
        mirror.pull_blob("library/x", &digest).await;
        mirror.wait_for_blob(&digest).await;
        mirror.advance(Duration::from_secs(1));
        digests.push(digest);
    }
    let stopped = mirror.stop().await.upstream(Upstream::docker_io(&registry));
    let mirror = stopped.set("cache.max_size", format!("{MAX_SIZE}B")).start().await;
    until("the eviction", async || used(&mirror.data_dir()) <= MAX_SIZE).await;
    assert!(!mirror.has_blob(&digests[0]) && mirror.has_blob(&digests[15]));
}
