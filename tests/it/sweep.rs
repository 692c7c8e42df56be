//! `larder sweep`: what goes, why, and what would.

use std::{path::Path, time::Duration};

use serde_json::Value;

use crate::support::{
    FakeRegistry, Image, TestMirror, Upstream,
    binary::{Ended, run},
    mirror::CONFIG,
};

const DAY: Duration = Duration::from_secs(24 * 3600);

fn sweep(config: &Path, options: &[&str]) -> Ended {
    let config = config.to_str().unwrap();
    run(&[&["sweep", "--config", config], options].concat(), &[])
}

/// A look changes nothing, and says of each thing why it would go; then it goes.
#[tokio::test(flavor = "multi_thread")]
async fn what_would_go_is_told_before_it_goes() {
    let registry = FakeRegistry::start().await;
    let image = Image::random(1);
    registry.put_image("library/x", "latest", &image);
    let mirror = TestMirror::builder()
        .upstream(Upstream::docker_io(&registry))
        .set("cache.expire_after", "30d")
        .set("cache.sweep_interval", "365d")
        .start()
        .await;
    mirror.pull("library/x", "latest", &image).await;
    mirror.advance(31 * DAY);
    let config = mirror.data_dir().with_file_name(CONFIG);

    let told = sweep(&config, &["--dry-run", "--json"]);
    assert_eq!(told.code, Some(0), "{told:?}");
    let mut lines: Vec<Value> =
        told.output.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let totals = lines.pop().unwrap();
    assert_eq!(totals["blobs"], 4, "{totals}");
    assert_eq!(totals["reasons"]["expired"]["blobs"], 4, "{totals}");
    assert_eq!(lines[0]["digest"], image.digest().to_string(), "the manifest goes first");
    assert_eq!(lines[0]["names"][0], "docker.io/library/x:latest");
    assert_eq!(lines[0]["bytes"], image.manifest.len());
    assert!(lines.iter().all(|line| line["reason"] == "expired"), "{lines:?}");
    assert!(lines[0]["unused_seconds"].as_u64().unwrap() >= 31 * DAY.as_secs());

    let told = sweep(&config, &["--dry-run"]);
    assert!(told.output.contains(&image.digest().encoded()[..12]), "{told:?}");
    assert!(told.output.contains("docker.io/library/x:latest"), "{told:?}");
    assert!(told.output.contains("would remove 4 blobs, "), "{told:?}");
    assert!(mirror.has_blob(&image.digest()), "nothing has gone");

    let swept = sweep(&config, &[]);
    assert!(swept.output.starts_with("removed 4 blobs, "), "{swept:?}");
    assert!(!mirror.has_blob(&image.digest()));
    let swept = sweep(&config, &[]);
    assert_eq!(swept.output, "removed 0 blobs, 0 B\n", "{swept:?}");
}

/// Without a daemon the command itself keeps the limits.
#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_cache_is_swept_too() {
    let registry = FakeRegistry::start().await;
    let image = Image::random(2);
    registry.put_image("library/x", "latest", &image);
    let mirror = TestMirror::of(&registry).await;
    mirror.pull("library/x", "latest", &image).await;
    let stopped = mirror.stop().await.upstream(Upstream::docker_io(&registry));
    let directory = stopped.set("cache.max_size", "1MiB").into_file();
    let config = directory.path().join(CONFIG);
    let told = sweep(&config, &["--dry-run"]);
    assert!(told.output.contains("\nmax_size  "), "{told:?}");
    let swept = sweep(&config, &[]);
    assert!(swept.output.starts_with("removed 4 blobs, "), "{swept:?}");
}
