//! Power cuts and damaged files: what is served afterwards is right, and it is served.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use futures_util::{StreamExt as _, future::join_all, stream};
use tokio::task::JoinSet;

use crate::support::{
    Client, FakeRegistry, Fault, Image, Mode, Random, TestMirror, Upstream,
    binary::Daemon,
    client::Body,
    mirror::{Builder, blob_url, manifest_path},
    sha256,
    wait::until,
};

const KILLS: u64 = 50;
const DAMAGES: u64 = 200;

/// Killed at any moment of a fill, the daemon serves only right bytes, then and afterwards, and
/// keeps no others.
#[tokio::test(flavor = "multi_thread")]
async fn kill_9_never_makes_a_wrong_blob() {
    let seed = new_seed();
    let mut random = Random::new(seed);
    let registry = FakeRegistry::start().await;
    registry.on("GET", "/v2/library/x/blobs/*", Fault::feed(Duration::from_millis(150)));
    let mirror = TestMirror::builder().upstream(Upstream::docker_io(&registry));
    let mut daemon = Daemon::start(mirror).await;
    let mut blobs = Vec::new();

    for _ in 0..KILLS {
        let new: Vec<Bytes> = (0..4).map(|_| random_blob(&mut random)).collect();
        let pulls = pull_all(daemon.client(), &registry, &new);
        tokio::time::sleep(Duration::from_millis(random.below(250))).await;
        daemon = daemon.kill_and_restart().await;
        pulls.join_all().await;
        blobs.extend(new.clone());
        let old = blobs[random.index(blobs.len())].clone();
        let after = new.iter().chain([&old]).map(|blob| expect_blob(&daemon, blob));
        join_all(after).await;
    }

    let asked = registry.count("GET", "/v2/library/x/blobs/*");
    assert!(asked > blobs.len(), "no kill hit a fill: {asked} GETs for {} blobs", blobs.len());
    registry.behave();
    for blob in &blobs {
        expect_blob(&daemon, blob).await;
    }
    assert_named_rightly(&daemon.data_dir());
}

async fn expect_blob(daemon: &Daemon, blob: &Bytes) {
    let path = blob_url("library/x", &sha256(blob));
    daemon.client().get(&path).await.expect(blob).await;
}

/// Every file in the store has the digest that is its name.
fn assert_named_rightly(data_dir: &Path) {
    for file in files_below(&data_dir.join("blobs").join("sha256")) {
        let digest = sha256(&fs::read(&file).unwrap());
        assert_eq!(file.file_name().unwrap().to_string_lossy(), digest.encoded());
    }
}

fn new_seed() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let seed = u64::try_from(now.as_nanos() % u128::from(u64::MAX)).unwrap();
    eprintln!("seed {seed}");
    seed
}

fn random_blob(random: &mut Random) -> Bytes {
    let size = 1 + random.index(400_000);
    random.bytes(size)
}

/// Pulls that may fail, but never end in a complete body that is wrong.
fn pull_all(client: Client, registry: &FakeRegistry, blobs: &[Bytes]) -> JoinSet<()> {
    let mut pulls = JoinSet::new();
    for blob in blobs.iter().cloned() {
        let path = blob_url("library/x", &registry.put_blob("library/x", &blob));
        pulls.spawn(async move {
            let Some(response) = client.try_request("GET", &path, &[]).await else {
                return;
            };
            let status = response.status;
            if let (200, Body::Complete(body)) = (status, response.body().await) {
                assert!(body == blob, "a complete body of {path} is wrong");
            }
        });
    }
    pulls
}

/// However the index is damaged, the daemon starts without upstream and serves tags and blobs.
#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_index_costs_nothing() {
    let registry = FakeRegistry::start().await;
    let images = [Image::random(1), Image::random(2)];
    registry.put_image("library/a", "latest", &images[0]);
    registry.put_image("library/b", "v1", &images[1]);
    let mirror = TestMirror::of(&registry).await;
    mirror.pull("library/a", "latest", &images[0]).await;
    mirror.pull("library/b", "v1", &images[1]).await;
    let healthy = mirror.stop().await;
    registry.set_mode(Mode::Down).await;

    stream::iter(0..DAMAGES)
        .for_each_concurrent(4, async |seed| {
            let builder = damaged(seed, &registry, &healthy.data_dir());
            let mirror = builder.start().await;
            assert_served(&mirror, "library/a", "latest", &images[0], seed).await;
            assert_served(&mirror, "library/b", "v1", &images[1], seed).await;
            mirror.stop().await;
        })
        .await;
}

async fn assert_served(mirror: &TestMirror, name: &str, tag: &str, image: &Image, seed: u64) {
    let admin = mirror.admin();
    until("readiness", async || admin.get("/readyz").await.status == 200).await;
    let response = mirror.get(&manifest_path(name, tag)).await;
    assert_eq!(response.status, 200, "{name}:{tag}, seed {seed}: {response:?}");
    assert_eq!(response.bytes().await, image.manifest, "seed {seed}");
    for blob in image.blobs() {
        let response = mirror.get(&blob_url(name, &sha256(blob))).await;
        assert_eq!(response.status, 200, "a blob of {name}, seed {seed}: {response:?}");
        response.expect(blob).await;
    }
}

/// A mirror to be started on a copy of `data_dir` whose index is damaged as `seed` has it.
fn damaged(seed: u64, registry: &FakeRegistry, data_dir: &Path) -> Builder {
    let builder =
        TestMirror::builder().upstream(Upstream::docker_io(registry)).with_copy_of(data_dir);
    let index = builder.data_dir().join("index");
    let mut random = Random::new(seed);
    match seed % 5 {
        0 => fs::remove_dir_all(&index).unwrap(),
        1 => change_file(&index, &mut random, truncate),
        2 => change_file(&index, &mut random, flip_bits),
        3 => change_file(&index, &mut random, scribble),
        _ => {
            fs::remove_dir_all(&index).unwrap();
            fs::write(&index, random.bytes(1000)).unwrap();
        }
    }
    builder
}

fn change_file(index: &Path, random: &mut Random, change: fn(Vec<u8>, &mut Random) -> Vec<u8>) {
    let mut files = files_below(index);
    files.retain(|file| file.metadata().unwrap().len() > 0);
    let file = &files[random.index(files.len())];
    fs::write(file, change(fs::read(file).unwrap(), random)).unwrap();
}

fn files_below(directory: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in directory.read_dir().unwrap().map(Result::unwrap) {
        if entry.file_type().unwrap().is_dir() {
            files.extend(files_below(&entry.path()));
        } else {
            files.push(entry.path());
        }
    }
    files.sort();
    files
}

fn truncate(mut bytes: Vec<u8>, random: &mut Random) -> Vec<u8> {
    bytes.truncate(random.index(bytes.len()));
    bytes
}

fn flip_bits(mut bytes: Vec<u8>, random: &mut Random) -> Vec<u8> {
    for _ in 0..=random.below(20) {
        let place = random.index(bytes.len());
        bytes[place] ^= 1 << random.below(8);
    }
    bytes
}

fn scribble(bytes: Vec<u8>, random: &mut Random) -> Vec<u8> {
    random.bytes(bytes.len()).to_vec()
}

/// A tag that was set is there after a kill, a little later at most.
#[tokio::test(flavor = "multi_thread")]
async fn a_tag_survives_kill_9() {
    let registry = FakeRegistry::start().await;
    let image = Image::random(3);
    registry.put_image("library/x", "latest", &image);
    let mirror = TestMirror::builder().upstream(Upstream::docker_io(&registry));
    let daemon = Daemon::start(mirror).await;
    pull(&daemon.client(), &image).await;
    let index = daemon.data_dir().join("index.json");
    until("index.json to name the tag", async || {
        fs::read_to_string(&index).is_ok_and(|index| index.contains("library/x:latest"))
    })
    .await;
    registry.set_mode(Mode::Down).await;
    let daemon = daemon.kill_and_restart().await;
    pull(&daemon.client(), &image).await;
}

async fn pull(client: &Client, image: &Image) {
    let manifest = client.get(&manifest_path("library/x", "latest")).await;
    manifest.expect(&image.manifest).await;
    for blob in image.blobs() {
        let path = blob_url("library/x", &sha256(blob));
        client.get(&path).await.expect(blob).await;
    }
}

/// What a crash left half done is not taken for a blob, and not kept for ever either.
#[tokio::test(flavor = "multi_thread")]
async fn rubbish_in_the_data_directory_is_no_blob() {
    let registry = FakeRegistry::start().await;
    let blob = crate::support::random_bytes(4, 100_000);
    let digest = registry.put_blob("library/x", &blob);
    let stopped = TestMirror::of(&registry).await.stop().await;
    let partial = format!("{}-{}", digest.algorithm().as_str(), digest.encoded());
    fs::write(stopped.data_dir().join("downloads").join(partial), b"half of somethi").unwrap();

    let mirror = stopped.start().await;
    let response = mirror.get(&blob_url("library/x", &digest)).await;
    response.expect(&blob).await;
    mirror.wait_for_blob(&digest).await;
    let downloads = mirror.data_dir().join("downloads");
    until("an empty downloads/", async || downloads.read_dir().unwrap().count() == 0).await;
}

/// A file that went missing is fetched again, not answered with an error for ever.
#[tokio::test(flavor = "multi_thread")]
async fn a_blob_that_was_removed_by_hand_is_fetched_again() {
    let registry = FakeRegistry::start().await;
    let blob = crate::support::random_bytes(5, 100_000);
    let digest = registry.put_blob("library/x", &blob);
    let mirror = TestMirror::of(&registry).await;
    for _ in 0..2 {
        mirror.pull_blob("library/x", &digest).await;
        mirror.wait_for_blob(&digest).await;
        fs::remove_file(mirror.blob_path(&digest)).unwrap();
    }
    assert_eq!(registry.count("GET", &blob_url("library/x", &digest)), 2);
}
