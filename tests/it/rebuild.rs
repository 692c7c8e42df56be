//! An index that is lost or of no use: everything is known again soon, and served meanwhile.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use bytes::Bytes;
use serde_json::{Value, json};

use crate::support::{
    FakeRegistry, Image, Mode, TestMirror, Upstream,
    admin::over_socket,
    binary::Daemon,
    mirror::{blob_path, blob_url, manifest_path, metric},
    sha256,
};

/// Layers of each image: with its manifest and config, ten blobs.
const LAYERS: usize = 8;

/// How much work a rebuild may be for each blob: 10 s for 100,000.
const WORK: Duration = Duration::from_micros(100);

/// How much work it is to read and hash one, where nobody else uses the processor. Where it is more, the rebuild
/// may be more by as much: tests run beside this one, and a processor that is shared works more slowly.
const READING: Duration = Duration::from_micros(15);

/// Longer than that work takes on a slow disk of a loaded machine.
const LIMIT: Duration = Duration::from_secs(300);

/// With nothing but the files and `index.json`, every tag is served at once, every pin holds, and every
/// blob is known again after no more work than `WORK`. Work, not time: other tests run beside this one.
#[tokio::test(flavor = "multi_thread")]
async fn a_lost_index_is_rebuilt_while_its_images_are_served() {
    rebuild(2_000).await;
}

/// As the test before, ten times as much.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a hundred thousand files take a disk a while; tests/run runs it"]
async fn a_lost_index_of_a_hundred_thousand_blobs_is_rebuilt() {
    rebuild(10_000).await;
}

async fn rebuild(images: u64) {
    let registry = FakeRegistry::start().await;
    registry.set_mode(Mode::Down).await;
    let builder = TestMirror::builder().upstream(Upstream::docker_io(&registry));
    write_store(&builder.data_dir(), images);
    let before = work_of(|| read_store(&builder.data_dir()));
    let daemon = Daemon::start(builder).await;
    for number in (0..images).step_by(499) {
        expect_image(&daemon, number).await;
    }
    let blobs = images * (LAYERS as u64 + 2);
    wait_for_blobs(&daemon, blobs).await;
    let work = daemon.work();
    let after = work_of(|| read_store(&daemon.data_dir()));
    let reading = before.max(after);
    eprintln!("{blobs} blobs known after {work:?} of work; reading them is {reading:?}");
    assert_pinned(&daemon).await;
    let limit = WORK.mul_f64(reading.div_duration_f64(READING).max(blobs as f64));
    assert!(work < limit, "{work:?} of work for {blobs} blobs, and not {limit:?}");
}

async fn wait_for_blobs(daemon: &Daemon, blobs: u64) {
    let begun = Instant::now();
    loop {
        let known = metric(&daemon.admin(), "larder_store_blobs").await;
        if known >= blobs as f64 {
            return;
        }
        assert!(begun.elapsed() < LIMIT, "after {LIMIT:?}, {known} of {blobs} blobs are known");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// What is not pinned cannot be unpinned.
async fn assert_pinned(daemon: &Daemon) {
    let socket = daemon.data_dir().join("admin.sock");
    let unpin = ["POST /api/v1/unpin", "content-type: application/json"];
    for image in pinned().chain(["docker.io/library/large:v1".to_owned()]) {
        let asked = json!({ "images": [image] }).to_string();
        let answer = over_socket(&socket, &unpin, &asked).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        let was_pinned = !answer.text.contains("not pinned");
        assert_eq!(was_pinned, pinned().any(|pinned| pinned == image), "{answer:?}");
    }
}

async fn expect_image(daemon: &Daemon, number: u64) {
    let (client, image) = (daemon.client(), small_image(number));
    let manifest = client.get(&manifest_path("library/large", &tag(number))).await;
    manifest.expect(&image.manifest).await;
    for blob in image.blobs() {
        client.get(&blob_url("library/large", &sha256(blob))).await.expect(blob).await;
    }
}

fn tag(number: u64) -> String {
    format!("v{number}")
}

/// A tag, and an image by its digest.
fn pinned() -> impl Iterator<Item = String> {
    let by_digest = format!("docker.io/library/large@{}", small_image(2).digest());
    ["docker.io/library/large:v0".to_owned(), by_digest].into_iter()
}

/// As small as an image can be that shares nothing with others.
fn small_image(number: u64) -> Image {
    let layer = |layer| Bytes::from(format!("layer {layer} of {number}"));
    Image::with_layers(number, (0..LAYERS).map(layer).collect())
}

/// How long a processor works for this thread meanwhile (proc(5), `schedstat`).
fn work_of(action: impl FnOnce()) -> Duration {
    let worked = || {
        let stat = fs::read_to_string("/proc/thread-self/schedstat").unwrap();
        Duration::from_nanos(stat.split(' ').next().unwrap().parse().unwrap())
    };
    let before = worked();
    action();
    worked() - before
}

fn read_store(data_dir: &Path) {
    for file in data_dir.join("blobs/sha256").read_dir().unwrap() {
        let file = file.unwrap();
        let digest = sha256(&fs::read(file.path()).unwrap());
        assert_eq!(file.file_name().to_str().unwrap(), digest.encoded());
    }
}

/// Writes what a mirror has that pulled so many images, but no index.
fn write_store(data_dir: &Path, images: u64) {
    fs::create_dir_all(data_dir.join("blobs/sha256")).unwrap();
    let mut manifests = Vec::new();
    for number in 0..images {
        let image = small_image(number);
        for blob in image.blobs().chain([&image.manifest]) {
            fs::write(blob_path(data_dir, &sha256(blob)), blob).unwrap();
        }
        manifests.push(named(&image, number));
    }
    let mut pins: Vec<String> = pinned().collect();
    pins[0] += &format!("@{}", small_image(0).digest());
    let index = json!({
        "schemaVersion": 2,
        "manifests": manifests,
        "annotations": { "io.larder.pinned": pins.join(" ") },
    });
    fs::write(data_dir.join("index.json"), index.to_string()).unwrap();
}

fn named(image: &Image, number: u64) -> Value {
    json!({
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "digest": image.digest(),
        "size": image.manifest.len(),
        "annotations": {
            "org.opencontainers.image.ref.name": format!("docker.io/library/large:{}", tag(number)),
            "io.larder.checked-at": "2026-01-02T03:04:05Z",
        },
    })
}
