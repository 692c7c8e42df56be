//! What nobody uses leaves, by the time the daemon ran and by nothing else.
//!
//! That something stays can only be seen once a sweep has happened; each test therefore has two
//! witnesses, images that nobody uses. When the second has left, in a sweep of its own, the one
//! that took the first is over.

use std::time::Duration;

use crate::support::{
    FakeRegistry, Image, Mode, TestMirror, Upstream,
    mirror::{Builder, blob_url, manifest_path},
    random_bytes, sha256,
};

const DAY: Duration = Duration::from_secs(24 * 3600);

/// A mirror that forgets after 30 days, on day 20, with an image of day 0 in `library/x`.
struct Forgetful {
    registry: FakeRegistry,
    mirror: TestMirror,
    witnesses: Witnesses,
    image: Image,
}

/// An image of day 0 and one of day 2, both unused since.
struct Witnesses([Image; 2]);

impl Forgetful {
    async fn start() -> Forgetful {
        let registry = FakeRegistry::start().await;
        let image = Image::random(3);
        registry.put_image("library/x", "latest", &image);
        let mirror = builder().upstream(Upstream::docker_io(&registry)).start().await;
        mirror.pull("library/x", "latest", &image).await;
        let witnesses = Witnesses::pull(&registry, &mirror).await;
        Forgetful { registry, mirror, witnesses, image }
    }
}

impl Witnesses {
    /// Pulls the witnesses; day 20 begins.
    async fn pull(registry: &FakeRegistry, mirror: &TestMirror) -> Witnesses {
        let images = [Image::random(1), Image::random(2)];
        for (image, tag, days) in [(&images[0], "first", 2), (&images[1], "second", 18)] {
            registry.put_image("library/witness", tag, image);
            mirror.pull("library/witness", tag, image).await;
            mirror.advance(days * DAY);
        }
        Witnesses(images)
    }

    /// Lets 13 days pass from day 20, with a sweep on day 31 and another on day 33.
    async fn leave(&self, mirror: &TestMirror) {
        mirror.advance(11 * DAY);
        assert_gone(mirror, &self.0[0]).await;
        assert_whole(mirror, &self.0[1]);
        mirror.advance(2 * DAY);
        assert_gone(mirror, &self.0[1]).await;
    }
}

fn builder() -> Builder {
    TestMirror::builder().set("cache.expire_after", "30d").set("cache.sweep_interval", "100ms")
}

async fn assert_gone(mirror: &TestMirror, image: &Image) {
    mirror.wait_until_gone(&image.digest()).await;
    for blob in image.blobs() {
        mirror.wait_until_gone(&sha256(blob)).await;
    }
}

fn assert_whole(mirror: &TestMirror, image: &Image) {
    assert!(mirror.has_blob(&image.digest()));
    for blob in image.blobs() {
        assert!(mirror.has_blob(&sha256(blob)));
    }
}

/// An image leaves when nobody used it for `expire_after`; one that is used stays.
#[tokio::test(flavor = "multi_thread")]
async fn the_unused_leaves_and_the_used_stays() {
    let Forgetful { registry, mirror, witnesses, image } = Forgetful::start().await;
    mirror.pull("library/x", "latest", &image).await;
    witnesses.leave(&mirror).await;
    assert_whole(&mirror, &image);
    assert_eq!(mirror.metric(r#"larder_evicted_blobs_total{reason="expired"}"#).await, 8.0);
    assert!(mirror.metric(r#"larder_evicted_bytes_total{reason="expired"}"#).await > 100_000.0);

    let asked = registry.count("GET", "/v2/library/witness/*");
    mirror.pull("library/witness", "first", &witnesses.0[0]).await;
    assert_eq!(registry.count("GET", "/v2/library/witness/*"), asked + 4);
}

/// A node that has the layers only asks for the manifest; that is use of the layers.
#[tokio::test(flavor = "multi_thread")]
async fn use_of_a_manifest_is_use_of_its_layers() {
    for by_tag in [true, false] {
        for method in ["HEAD", "GET"] {
            let Forgetful { registry: _registry, mirror, witnesses, image } =
                Forgetful::start().await;
            let digest = image.digest().to_string();
            let reference = if by_tag { "latest" } else { &digest };
            let path = manifest_path("library/x", reference);
            assert_eq!(mirror.request(method, &path, &[]).await.status, 200);
            witnesses.leave(&mirror).await;
            assert_whole(&mirror, &image);
        }
    }
}

/// A clock that jumps a year ahead deletes nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_jump_of_the_clock_deletes_nothing() {
    let Forgetful { registry: _registry, mirror, witnesses, image } = Forgetful::start().await;
    mirror.pull("library/x", "latest", &image).await;
    mirror.jump_wall(365 * DAY);
    witnesses.leave(&mirror).await;
    assert_whole(&mirror, &image);
}

/// Days on which the host was off do not count, and days before it are not forgotten.
#[tokio::test(flavor = "multi_thread")]
async fn days_off_delete_nothing() {
    let Forgetful { registry: _registry, mirror, witnesses, image } = Forgetful::start().await;
    mirror.pull("library/x", "latest", &image).await;
    let mirror = mirror.stop().await.wall_jumped(40 * DAY).start().await;
    witnesses.leave(&mirror).await;
    assert_whole(&mirror, &image);
}

/// Of a registry that cannot be reached nothing leaves: it could not be fetched again.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_an_unreachable_registry_leaves() {
    let (hub, quay) = (FakeRegistry::start().await, FakeRegistry::start().await);
    let kept = Image::random(4);
    quay.put_image("org/app", "latest", &kept);
    let mirror = builder()
        .upstream(Upstream::docker_io(&hub))
        .upstream(Upstream::named("quay.io", &quay))
        .start()
        .await;
    mirror.pull("quay.io/org/app", "latest", &kept).await;
    let witnesses = Witnesses::pull(&hub, &mirror).await;

    quay.set_mode(Mode::Down).await;
    mirror.get("/v2/quay.io/org/app/manifests/unknown").await;
    witnesses.leave(&mirror).await;
    assert_whole(&mirror, &kept);
}

/// What is being read is read to its end.
#[tokio::test(flavor = "multi_thread")]
async fn a_blob_that_leaves_is_read_to_its_end() {
    const SIZE: usize = 16 * 1024 * 1024;
    let Forgetful { registry, mirror, .. } = Forgetful::start().await;
    let blob = random_bytes(5, SIZE);
    let digest = registry.put_blob("library/x", &blob);
    let path = blob_url("library/x", &digest);
    mirror.get(&path).await.expect(&blob).await;
    mirror.wait_for_blob(&digest).await;

    let mut reading = mirror.get(&path).await;
    let first = reading.read_some(1).await.unwrap();
    assert_eq!(first, blob.slice(..1));
    mirror.advance(31 * DAY);
    mirror.wait_until_gone(&digest).await;
    reading.expect(&blob[1..]).await;
}
