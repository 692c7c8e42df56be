//! The data directory as other tools read it while Larder runs: an OCI image layout at any moment.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use larder::oci::Digest;
use serde_json::Value;

use crate::support::{
    FakeRegistry, Image, TestMirror, Upstream,
    mirror::{blob_path, manifest_path},
};

const IMAGES: u64 = 60;

/// Pulls name images, and sweeps take them away, while a reader looks at every one that is named.
#[tokio::test(flavor = "multi_thread")]
async fn a_reader_never_finds_a_name_without_its_manifest() {
    let registry = FakeRegistry::start().await;
    let mirror = TestMirror::builder()
        .upstream(Upstream::docker_io(&registry))
        .set("cache.expire_after", "1s")
        .set("cache.sweep_interval", "20ms")
        .start()
        .await;
    let reader = Reader::start(mirror.data_dir());
    for number in 0..IMAGES {
        let (image, tag) = (Image::random(number), format!("v{number}"));
        registry.put_image("library/x", &tag, &image);
        mirror.get(&manifest_path("library/x", &tag)).await.expect(&image.manifest).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let expired = mirror.metric(r#"larder_evicted_blobs_total{reason="expired"}"#).await;
    assert!(expired > 0.0, "no manifest was taken away");
    assert!(reader.finish() > 0, "the reader saw no name");
}

struct Reader {
    thread: thread::JoinHandle<usize>,
    finished: Arc<AtomicBool>,
}

impl Reader {
    fn start(data_dir: PathBuf) -> Reader {
        let finished = Arc::new(AtomicBool::new(false));
        let until = Arc::clone(&finished);
        let thread = thread::spawn(move || {
            let mut names = 0;
            while !until.load(Ordering::Relaxed) {
                names += read_once(&data_dir);
            }
            names
        });
        Reader { thread, finished }
    }

    /// How many names it saw.
    fn finish(self) -> usize {
        self.finished.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

fn read_once(data_dir: &Path) -> usize {
    let marker = fs::read_to_string(data_dir.join("oci-layout")).unwrap();
    assert_eq!(marker, r#"{"imageLayoutVersion":"1.0.0"}"#);
    let named = named(data_dir);
    for (digest, size) in &named {
        let found = fs::metadata(blob_path(data_dir, digest)).ok().map(|file| file.len());
        // One that has gone meanwhile is named no longer.
        let is_valid =
            found == Some(*size) || !self::named(data_dir).contains(&(digest.clone(), *size));
        assert!(is_valid, "{digest} is named with {size} bytes, there are {found:?}");
    }
    named.len()
}

fn named(data_dir: &Path) -> Vec<(Digest, u64)> {
    let text = fs::read(data_dir.join("index.json")).unwrap();
    let index: Value = serde_json::from_slice(&text).unwrap();
    let named = index["manifests"].as_array().unwrap().iter();
    let descriptor = |descriptor: &Value| {
        let digest = descriptor["digest"].as_str().unwrap().parse().unwrap();
        (digest, descriptor["size"].as_u64().unwrap())
    };
    named.map(descriptor).collect()
}
