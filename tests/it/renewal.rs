//! kill -9 while the index is made anew: whenever that is, a whole one is found.

use std::{fs::File, path::Path, time::Duration};

use futures_util::future::join_all;

use crate::support::{
    FakeRegistry, Image, Random, TestMirror, Upstream,
    binary::Daemon,
    mirror::{blob_url, manifest_path},
    sha256,
    wait::until,
};

/// So often a daemon is killed, and so many daemons beside each other: they wait more than they work.
const ROUNDS: u64 = 4;
const DAEMONS: u64 = 3;

/// The latest moment after the beginning of a renewal in which it is killed, in milliseconds.
const LATEST: u64 = 80;

/// More than sled may hold.
const OVERGROWN: u64 = 64 << 20;

#[tokio::test(flavor = "multi_thread")]
async fn an_index_is_found_whole_whenever_it_was_being_made_anew() {
    join_all((0..DAEMONS).map(kill_in_renewal)).await;
}

async fn kill_in_renewal(seed: u64) {
    let registry = FakeRegistry::start().await;
    let mirror = TestMirror::builder().upstream(Upstream::docker_io(&registry));
    let mut daemon = Daemon::start(mirror.set("cache.expire_after", "30d")).await;
    let mut random = Random::new(u64::from(std::process::id()).wrapping_add(seed));
    for round in 0..ROUNDS {
        let image = Image::random(round);
        registry.put_image("library/x", &format!("v{round}"), &image);
        let client = daemon.client();
        client
            .get(&manifest_path("library/x", &format!("v{round}")))
            .await
            .expect(&image.manifest)
            .await;
        for blob in image.blobs() {
            client.get(&blob_url("library/x", &sha256(blob))).await.expect(blob).await;
        }
        let directory = daemon.data_dir();
        grow(&directory.join("index/db"));
        until("the index to be made anew", async || is_being_renewed(&directory)).await;
        tokio::time::sleep(Duration::from_millis(random.below(LATEST))).await;
        daemon = daemon.kill_and_restart().await;
        assert!(!directory.join("index.damaged-1").exists(), "{}", daemon.log());
        for number in 0..=round {
            let path = manifest_path("library/x", &format!("v{number}"));
            assert_eq!(daemon.client().head(&path).await.status, 200, "v{number}");
        }
    }
    assert_eq!(registry.count("GET", "/v2/library/x/manifests/*"), ROUNDS as usize);
    daemon.stop().await;
}

fn grow(file: &Path) {
    File::options().write(true).open(file).unwrap().set_len(OVERGROWN).unwrap();
}

/// Or was.
fn is_being_renewed(directory: &Path) -> bool {
    let length = |file: &Path| file.metadata().map_or(0, |metadata| metadata.len());
    directory.join("index.next").exists() || length(&directory.join("index/db")) < OVERGROWN
}
