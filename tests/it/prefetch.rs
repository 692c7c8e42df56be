//! The layers after the one that is asked for: which are fetched ahead, when, and for whom not.

use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use larder::oci::{Digest, OCI_MANIFEST};
use serde_json::{Value, json};

use crate::support::{
    FakeRegistry, Fault, Gate, Image, TestMirror, Upstream,
    mirror::{Builder, blob_url, manifest_path},
    random_bytes, sha256,
    wait::until,
};

const SIZE: usize = 10_000;

const MISSES: &str = r#"larder_lookups_total{kind="blob",result="miss"}"#;
const HITS: &str = r#"larder_lookups_total{kind="blob",result="hit"}"#;

/// A registry with an image, and a mirror of it.
struct Setting {
    registry: FakeRegistry,
    mirror: TestMirror,
    image: Image,
}

impl Setting {
    /// An image of so many layers, and a mirror that `configure` sets up.
    async fn with_layers(count: u64, configure: impl FnOnce(Builder) -> Builder) -> Setting {
        let registry = FakeRegistry::start().await;
        let image = Image::with_layers(1, (0..count).map(layer).collect());
        registry.put_image("library/x", "latest", &image);
        let builder = TestMirror::builder()
            .upstream(Upstream::docker_io(&registry))
            .set("download.retries", 0);
        let mirror = configure(builder).start().await;
        Setting { registry, mirror, image }
    }

    /// An image of so many layers, and a mirror that may run one download ahead.
    async fn one_at_a_time(count: u64) -> Setting {
        Setting::with_layers(count, |builder| builder.set("download.max_concurrent", 1)).await
    }

    /// Holds a layer back upstream when its first byte is sent.
    fn hold(&self, place: usize) -> Gate {
        let gate = Gate::shut();
        self.registry.on("GET", &self.path(place), Fault::hold_after(1, &gate));
        gate
    }

    /// Serves the image's manifest.
    async fn serve(&self) {
        assert_eq!(self.mirror.manifest("library/x", "latest").await, self.image.manifest);
    }

    /// Pulls a layer whole.
    async fn pull(&self, place: usize) {
        self.mirror.get(&self.path(place)).await.expect(&self.image.layers[place]).await;
    }

    /// Returns when a layer is in the store, and no download runs.
    async fn stored(&self, place: usize) {
        self.mirror.wait_for_blob(&self.digest(place)).await;
    }

    /// Returns when upstream has been asked for a layer.
    async fn asked_for(&self, place: usize) {
        self.registry.wait_for("GET", &self.path(place), 1).await;
    }

    fn path(&self, place: usize) -> String {
        blob_url("library/x", &self.digest(place))
    }

    fn digest(&self, place: usize) -> Digest {
        sha256(&self.image.layers[place])
    }

    /// The layers that upstream was asked for, in that order.
    fn fetched(&self) -> Vec<usize> {
        let place = |path: &str| (0..self.image.layers.len()).find(|at| path == self.path(*at));
        let requests = self.registry.requests();
        let gets = requests.iter().filter(|request| request.method == "GET");
        gets.filter_map(|request| place(&request.path)).collect()
    }

    /// As [`Setting::fetched`], for layers that were asked for at the same time.
    fn fetched_in_any_order(&self) -> Vec<usize> {
        let mut fetched = self.fetched();
        fetched.sort_unstable();
        fetched
    }
}

/// The random layer of this number.
fn layer(number: u64) -> Bytes {
    random_bytes(100 + number, SIZE)
}

/// While a client reads the first layer, the next ones come, as many at a time as there are slots.
/// What a client asks for itself needs none, and all of it is fetched once.
#[tokio::test(flavor = "multi_thread")]
async fn the_layers_that_follow_come_in_idle_slots() {
    let three = |builder: Builder| builder.set("download.max_concurrent", 3);
    let setting = Setting::with_layers(6, three).await;
    let gates: Vec<Gate> = (0..6).map(|place| setting.hold(place)).collect();
    setting.serve().await;
    let first = setting.mirror.get(&setting.path(0)).await;
    setting.asked_for(1).await;
    setting.asked_for(2).await;
    // Were there another slot, the next layer would come before a request that comes now.
    setting.mirror.pull_blob("library/x", &sha256(&setting.image.config)).await;
    assert_eq!(setting.fetched_in_any_order(), [0, 1, 2]);
    let running = async || setting.mirror.metric("larder_downloads_in_flight").await;
    until("three downloads", async || running().await == 3.0).await;

    let last = setting.mirror.get(&setting.path(5)).await;
    assert_eq!(setting.fetched()[3..], [5], "a client's own download does not wait");
    for (ended, begun) in [(1, None), (2, Some(3)), (0, Some(4))] {
        gates[ended].open();
        setting.mirror.pull_blob("library/x", &setting.digest(ended)).await;
        if let Some(place) = begun {
            setting.asked_for(place).await;
        }
    }
    assert_eq!(setting.fetched()[3..], [5, 3, 4]);

    gates.iter().for_each(Gate::open);
    first.expect(&setting.image.layers[0]).await;
    last.expect(&setting.image.layers[5]).await;
    join_all((0..6).map(async |place| setting.pull(place).await)).await;
    assert_eq!(setting.fetched().len(), 6);
}

/// However the client's requests and those made ahead interleave.
#[tokio::test(flavor = "multi_thread")]
async fn every_layer_is_fetched_once() {
    for parallel in [1, 3, 20] {
        let setting = Setting::with_layers(20, |builder| builder).await;
        setting.serve().await;
        let places: Vec<usize> = (0..20).collect();
        for some in places.chunks(parallel) {
            join_all(some.iter().map(async |place| setting.pull(*place).await)).await;
        }
        setting.stored(19).await;
        assert_eq!(setting.fetched_in_any_order(), places, "{parallel} at a time");
    }
}

/// Looking at manifests, blobs' heads, configs and parts of layers is not pulling, nor are
/// layers asked for without their manifest.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_pull_of_a_layer_starts_nothing() {
    let setting = Setting::with_layers(4, |builder| builder).await;
    let (mirror, first) = (&setting.mirror, setting.path(0));
    setting.registry.put_blob("library/y", &setting.image.layers[0]);
    mirror.pull_blob("library/x", &setting.digest(0)).await;
    assert_eq!(mirror.head(&manifest_path("library/x", "latest")).await.status, 200);
    mirror.pull_blob("library/x", &setting.digest(0)).await;
    setting.serve().await;
    assert_eq!(mirror.head(&first).await.status, 200);
    mirror.pull_blob("library/x", &sha256(&setting.image.config)).await;
    for range in ["bytes=0-1023", "bytes=0-0", "bytes=5-", "bytes=-5", "bytes=0-0,5-"] {
        let response = mirror.request("GET", &first, &[("range", range)]).await;
        assert_eq!(response.status, 206, "{range}");
    }
    let etag = format!("\"{}\"", setting.digest(0));
    let known = mirror.request("GET", &first, &[("if-none-match", &etag)]).await;
    assert_eq!(known.status, 304);
    mirror.pull_blob("library/y", &setting.digest(0)).await;

    setting.pull(2).await;
    setting.stored(3).await;
    assert_eq!(setting.fetched(), [0, 2, 3]);
}

/// A layer that is cached leads to the next ones as well, whole or as the range that
/// containerd's parallel fetch begins with, whatever the manifest was asked by.
#[tokio::test(flavor = "multi_thread")]
async fn a_cached_layer_leads_to_those_that_are_not() {
    for (headers, status) in [(&[][..], 200), (&[("range", "bytes=0-")][..], 206)] {
        let setting = Setting::with_layers(3, |builder| builder).await;
        setting.pull(0).await;
        setting.stored(0).await;
        let digest = setting.image.digest();
        setting.mirror.manifest("library/x", &digest.to_string()).await;
        let response = setting.mirror.request("GET", &setting.path(0), headers).await;
        assert_eq!((response.status, response.bytes().await), (status, layer(0)));
        setting.stored(1).await;
        setting.stored(2).await;
        assert_eq!(setting.fetched_in_any_order(), [0, 1, 2]);
    }
}

/// Of several images with the same base, the one last asked for counts.
#[tokio::test(flavor = "multi_thread")]
async fn the_manifest_last_served_decides() {
    let setting = Setting::with_layers(4, |builder| builder).await;
    for (tag, top) in [("one", 1), ("two", 2), ("three", 3)] {
        let image = Image::with_layers(10 + top, vec![layer(0), layer(top)]);
        setting.registry.put_image("library/x", tag, &image);
    }
    for tag in ["two", "latest", "one", "three", "two"] {
        setting.mirror.manifest("library/x", tag).await;
    }
    setting.pull(0).await;
    setting.stored(2).await;
    setting.mirror.manifest("library/x", "one").await;
    setting.pull(0).await;
    setting.stored(1).await;
    assert_eq!(setting.fetched(), [0, 2, 1]);
}

/// A layer with `urls` need not be in the registry.
#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_layer_is_left_out() {
    let setting = Setting::with_layers(3, |builder| builder).await;
    let mut manifest: Value = serde_json::from_slice(&setting.image.manifest).unwrap();
    manifest["layers"][1]["urls"] = json!(["https://elsewhere.test/layer"]);
    let manifest = Bytes::from(serde_json::to_vec(&manifest).unwrap());
    let digest = setting.registry.put_manifest("library/x", OCI_MANIFEST, &manifest);
    assert_eq!(setting.mirror.manifest("library/x", &digest.to_string()).await, manifest);
    setting.pull(0).await;
    setting.stored(2).await;
    assert_eq!(setting.fetched(), [0, 2]);
}

/// Nothing comes ahead of its time for who does not want that, when the disk is full, or to one
/// who has the manifest from before Larder's start.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_prefetched_that_is_not_wanted() {
    let off = Setting::with_layers(3, |builder| builder.set("download.prefetch", false)).await;
    let full = Setting::with_layers(3, |builder| builder.set("cache.min_free", "100%")).await;
    for setting in [&off, &full] {
        setting.serve().await;
        setting.pull(0).await;
        setting.pull(2).await;
        assert_eq!(setting.fetched(), [0, 2]);
    }

    let Setting { registry, mirror, image } = Setting::one_at_a_time(3).await;
    mirror.manifest("library/x", "latest").await;
    let mirror = mirror.stop().await.start().await;
    let setting = Setting { registry, mirror, image };
    setting.pull(0).await;
    setting.pull(2).await;
    assert_eq!(setting.fetched(), [0, 2]);
}

/// A layer that cannot be had or kept ends it for the image, until its manifest is served again. Its
/// failure is no client's: who asks for the layer then gets it.
#[tokio::test(flavor = "multi_thread")]
async fn a_failure_ends_it_and_is_not_remembered() {
    for fault in [
        Fault::status(404),
        Fault::status(403),
        Fault::status(500),
        Fault::hang_up(),
        Fault::cut_after(SIZE / 2),
        Fault::flip_byte(SIZE / 2),
        // No disk has room for it.
        Fault::default().header("content-length", (1_u64 << 60).to_string()),
    ] {
        let setting = Setting::one_at_a_time(5).await;
        setting.registry.on("GET", &setting.path(1), fault.clone());
        setting.serve().await;
        setting.pull(0).await;
        setting.asked_for(1).await;
        setting.stored(0).await;
        setting.pull(0).await;
        setting.pull(3).await;
        setting.stored(3).await;
        let tried = setting.fetched().iter().filter(|place| **place == 1).count();
        let others: Vec<usize> =
            setting.fetched().into_iter().filter(|place| *place != 1).collect();
        assert_eq!(others, [0, 3], "{fault:?}");
        assert_eq!(setting.mirror.metric("larder_passthrough_total").await, 0.0, "{fault:?}");

        setting.registry.behave();
        setting.pull(1).await;
        setting.stored(1).await;
        setting.serve().await;
        let hits = setting.mirror.metric(HITS).await;
        setting.pull(1).await;
        assert_eq!(setting.mirror.metric(HITS).await, hits + 1.0, "{fault:?}");
        setting.stored(2).await;
        setting.stored(4).await;
        assert_eq!(setting.fetched().len(), 5 + tried, "{fault:?}");
    }
}

/// While upstream does not answer, it is not asked for what nobody waits for.
#[tokio::test(flavor = "multi_thread")]
async fn an_outage_is_left_alone() {
    let setting = Setting::with_layers(4, |builder| builder).await;
    setting.pull(0).await;
    setting.stored(0).await;
    setting.serve().await;
    setting.registry.on("HEAD", "*/manifests/other", Fault::status(503));
    let other = manifest_path("library/x", "other");
    assert_eq!(setting.mirror.get(&other).await.status, 502);
    setting.pull(0).await;
    setting.pull(2).await;
    assert_eq!(setting.fetched(), [0, 2]);

    setting.registry.behave();
    assert_eq!(setting.mirror.get(&other).await.status, 404);
    setting.pull(0).await;
    setting.stored(1).await;
    setting.stored(3).await;
}

/// What waits for a slot when the pull is given up is not fetched.
#[tokio::test(flavor = "multi_thread")]
async fn layers_of_a_pull_that_went_silent_are_not_begun() {
    let setting = Setting::one_at_a_time(4).await;
    let gate = setting.hold(0);
    setting.serve().await;
    let response = setting.mirror.get(&setting.path(0)).await;
    setting.mirror.advance(Duration::from_secs(61));
    gate.open();
    response.expect(&setting.image.layers[0]).await;
    setting.stored(0).await;
    setting.pull(2).await;
    setting.stored(3).await;
    assert_eq!(setting.fetched(), [0, 2, 3]);
}

/// A stop lets what is running end, and begins nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_stop_begins_nothing() {
    let setting = Setting::one_at_a_time(3).await;
    let gate = setting.hold(0);
    setting.serve().await;
    let response = setting.mirror.get(&setting.path(0)).await;
    let Setting { registry, mirror, image } = setting;
    let (builder, ()) = tokio::join!(mirror.stop(), async {
        gate.open();
        response.expect(&image.layers[0]).await;
    });
    let setting = Setting { registry, mirror: builder.start().await, image };
    assert_eq!(setting.fetched(), [0]);
    setting.stored(0).await;
}

/// Images take turns.
#[tokio::test(flavor = "multi_thread")]
async fn no_image_has_all_the_slots() {
    let setting = Setting::one_at_a_time(6).await;
    for (tag, places) in [("even", [0, 2, 4]), ("odd", [1, 3, 5])] {
        let image = Image::with_layers(places[0], places.map(layer).to_vec());
        setting.registry.put_image("library/x", tag, &image);
        setting.mirror.manifest("library/x", tag).await;
    }
    let gates = [setting.hold(0), setting.hold(1)];
    let first = setting.mirror.get(&setting.path(0)).await;
    let second = setting.mirror.get(&setting.path(1)).await;
    gates.iter().for_each(Gate::open);
    first.expect(&layer(0)).await;
    second.expect(&layer(1)).await;
    setting.asked_for(5).await;
    setting.stored(5).await;
    assert_eq!(setting.fetched(), [0, 1, 2, 3, 4, 5]);
}

/// Prefetching changes when a layer comes, not what is counted: its first client is the one that
/// it was fetched for.
#[tokio::test(flavor = "multi_thread")]
async fn a_layer_counts_as_fetched_for_its_first_client() {
    let setting = Setting::with_layers(2, |builder| builder).await;
    setting.serve().await;
    setting.pull(0).await;
    setting.stored(1).await;
    assert_eq!(setting.mirror.metric(MISSES).await, 1.0);
    for (misses, hits) in [(2.0, 0.0), (2.0, 1.0)] {
        setting.pull(1).await;
        assert_eq!(setting.mirror.metric(MISSES).await, misses);
        assert_eq!(setting.mirror.metric(HITS).await, hits);
    }
    assert_eq!(setting.fetched(), [0, 1]);
}
