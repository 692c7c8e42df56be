//! Power cuts and damaged files: what is served afterwards is right, and it is served.

use std::{
    fs,
    path::{Path, PathBuf},
};

use futures_util::{StreamExt as _, stream};

use crate::support::{
    Client, FakeRegistry, Image, Mode, Random, TestMirror, Upstream,
    binary::Daemon,
    mirror::{Builder, blob_url, manifest_path},
    sha256,
    wait::until,
};

const DAMAGES: u64 = 200;

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
