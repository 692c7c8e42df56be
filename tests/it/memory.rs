//! Memory and descriptors: what a process needs, and what it does without.

use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;

use crate::support::{
    FakeRegistry, Fault, TestMirror, Upstream, binary::Daemon, mirror::blob_url, random_bytes,
    wait::until,
};

const MIB: usize = 1024 * 1024;

/// A hundred clients on one cold blob need at most 16 MiB more than one.
#[tokio::test(flavor = "multi_thread")]
async fn memory_does_not_grow_with_the_number_of_clients() {
    let blob = random_bytes(1, 8 * MIB);
    let with_one = peak_memory(&blob, 1).await;
    let with_hundred = peak_memory(&blob, 100).await;
    let allowed = with_one + 16 * MIB as u64;
    assert!(with_hundred <= allowed, "{with_one} bytes with one client, {with_hundred} with 100");
}

/// The most memory a fresh daemon has resident while so many clients pull a cold blob.
async fn peak_memory(blob: &Bytes, clients: usize) -> u64 {
    let registry = FakeRegistry::start().await;
    let path = blob_url("library/x", &registry.put_blob("library/x", blob));
    registry.on("GET", &path, Fault::feed(Duration::from_secs(2)));
    let mirror = TestMirror::builder().upstream(Upstream::docker_io(&registry));
    let daemon = Daemon::start(mirror).await;
    let client = daemon.client();
    join_all((0..clients).map(async |_| client.get(&path).await.expect(blob).await)).await;
    assert_eq!(registry.count("GET", &path), 1);
    daemon.peak_memory()
}

/// Of a blob that is sent to many, nothing is in this process, nor counted as if it were.
#[tokio::test(flavor = "multi_thread")]
async fn a_warm_blob_takes_no_memory() {
    let registry = FakeRegistry::start().await;
    let blob = random_bytes(1, 12 * MIB);
    let path = blob_url("library/x", &registry.put_blob("library/x", &blob));
    let mirror = TestMirror::builder().upstream(Upstream::docker_io(&registry));
    let daemon = Daemon::start(mirror).await;
    let client = daemon.client();
    client.get(&path).await.expect_next(&blob).await;
    let before = daemon.peak_memory();
    let answers = join_all((0..32).map(async |_| client.get(&path).await)).await;
    join_all(answers.into_iter().map(async |mut answer| answer.expect_next(&blob).await)).await;
    let after = daemon.peak_memory();
    assert!(after <= before + 6 * MIB as u64, "{before} bytes before, {after} after");
}

/// A daemon that runs out of descriptors goes on when there are some again.
#[tokio::test(flavor = "multi_thread")]
async fn too_many_connections_end_nothing() {
    let registry = FakeRegistry::start().await;
    let mirror = TestMirror::builder().upstream(Upstream::docker_io(&registry));
    let daemon = Daemon::start(mirror).await;
    let client = daemon.client();
    daemon.limit_open_files(64);
    let crowd = join_all((0..100).map(async |_| client.ask("/v2/").await)).await;
    until("the shortage", async || daemon.log().contains("Too many open files")).await;
    drop(crowd);
    until("an answer", async || {
        let answer = client.try_request("GET", "/v2/", &[]).await;
        answer.is_some_and(|answer| answer.status == 200)
    })
    .await;
}

/// Each client and each blob being read holds a descriptor, and usual soft limits are low.
#[tokio::test(flavor = "multi_thread")]
async fn the_limit_of_open_files_is_raised() {
    let registry = FakeRegistry::start().await;
    let mirror = TestMirror::builder().upstream(Upstream::docker_io(&registry));
    let (soft, hard) = Daemon::start(mirror).await.open_file_limits();
    assert_eq!(soft, hard);
}
