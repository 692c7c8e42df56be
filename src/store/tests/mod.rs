//! The store as its callers see it, on a real directory.

mod blobs;
mod damage;
mod disk;
mod expiry;
mod left;
mod listing;
mod names;
mod parts;
mod pins;
mod reading;
mod removal;
mod room;
mod scale;
mod scrub;

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::{Duration, Instant, SystemTime},
};

use bytes::Bytes;
use tempfile::TempDir;

use super::{CannotTake, OpenError, Store};
use crate::{
    clock::Clock,
    config::{Cache, OnDeleted, Rules, Size},
    metrics::Metrics,
    oci::{Algorithm, Digest, ImageName, Manifest, Repository, Tag},
};

/// A store in a directory of its own, whose clock is moved by hand.
struct TestStore {
    store: Store,
    clock: Clock,
    metrics: Arc<Metrics>,
    cache: Cache,
    directory: TempDir,
}

/// The repository of [`TestStore::put_tagged`].
const APP: &str = "docker.io/team/app";

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// What has not happened by then never will; a busy disk takes seconds for one write.
const PATIENCE: Duration = Duration::from_secs(60);

impl TestStore {
    fn new() -> TestStore {
        TestStore::with(cache())
    }

    fn with(cache: Cache) -> TestStore {
        TestStore::in_directory(tempfile::tempdir().unwrap(), cache)
    }

    fn in_directory(directory: TempDir, cache: Cache) -> TestStore {
        let (clock, metrics) = (Clock::system(), Arc::new(Metrics::new()));
        let store = open(directory.path(), &cache, &clock, &metrics).unwrap();
        TestStore { store, clock, metrics, cache, directory }
    }

    /// A new life of the same directory, after a clean end.
    async fn restart(self) -> TestStore {
        self.store.close().await;
        self.crash()
    }

    /// A new life of the same directory, after an end without notice.
    fn crash(self) -> TestStore {
        let TestStore { store, cache, directory, .. } = self;
        drop(store);
        TestStore::in_directory(directory, cache)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn children(&self, digest: &Digest) -> Option<Vec<Digest>> {
        self.store.0.memory.with(|table| table.children(digest))
    }

    fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.path("blobs").join("sha256").join(digest.encoded())
    }

    async fn put(&self, content: &[u8]) -> Digest {
        let digest = sha256(content);
        self.put_as(&digest, content).await;
        digest
    }

    async fn put_as(&self, digest: &Digest, content: &[u8]) {
        let size = Some(content.len() as u64);
        let mut writer = self.store.create_blob(digest, size).await.unwrap();
        writer.append(vec![Bytes::copy_from_slice(content)]).await.unwrap();
        writer.verify().unwrap().publish().await.unwrap();
    }

    async fn read(&self, digest: &Digest) -> Option<Bytes> {
        let reader = self.store.open_blob(digest).await.unwrap()?;
        let length = usize::try_from(reader.size()).unwrap();
        Some(reader.read_at(0, length).await.unwrap())
    }

    /// Puts an image manifest that lists a config and layers.
    async fn put_image(&self, config: &Digest, layers: &[&Digest]) -> Digest {
        let layers: Vec<String> = layers.iter().map(|layer| descriptor(layer)).collect();
        let layers = layers.join(",");
        let config = descriptor(config);
        let json = format!(r#"{{"schemaVersion":2,"config":{config},"layers":[{layers}]}}"#);
        self.put_manifest(&json).await
    }

    async fn put_index(&self, manifests: &[&Digest]) -> Digest {
        let manifests: Vec<String> = manifests.iter().map(|one| descriptor(one)).collect();
        let manifests = manifests.join(",");
        self.put_manifest(&format!(r#"{{"schemaVersion":2,"manifests":[{manifests}]}}"#)).await
    }

    async fn put_manifest(&self, json: &str) -> Digest {
        let digest = sha256(json.as_bytes());
        let manifest = Manifest::parse(json.as_bytes(), None).unwrap();
        let bytes = Bytes::copy_from_slice(json.as_bytes());
        let put = self.store.put_manifest(&digest, &manifest, &bytes).await;
        put.unwrap();
        digest
    }

    /// An image with a layer of its own that is tagged in [`APP`].
    async fn put_tagged(&self, name: &str) -> (Digest, Digest, Digest) {
        let config = self.put(format!("{{\"of\":\"{name}\"}}").as_bytes()).await;
        let layer = self.put(format!("layer of {name}").as_bytes()).await;
        let manifest = self.put_image(&config, &[&layer]).await;
        self.store.set_tag(&repository(APP), &tag(name), &manifest, self.clock.wall());
        (manifest, config, layer)
    }

    /// Files under a directory of the store.
    fn files(&self, name: &str) -> usize {
        fs::read_dir(self.path(name)).map_or(0, Iterator::count)
    }

    fn no_downloads_soon(&self) {
        eventually("downloads/ is empty", || self.files("downloads") == 0);
    }
}

fn cache() -> Cache {
    Cache {
        max_size: Size::Percent(100),
        min_free: Some(Size::Bytes(0)),
        expire_after: Some(90 * DAY),
        sweep_interval: Duration::from_secs(600),
        scrub_interval: None,
        max_stale: None,
        check_timeout: Duration::from_secs(2),
        negative_ttl: Duration::from_secs(10),
        on_deleted: OnDeleted::Follow,
        offline: false,
        rules: Rules::default(),
    }
}

/// Opens a store; one that was dropped just now may still hold the lock.
fn open(
    path: &Path,
    cache: &Cache,
    clock: &Clock,
    metrics: &Arc<Metrics>,
) -> Result<Store, OpenError> {
    let begun = Instant::now();
    loop {
        match Store::open(path, cache, clock.clone(), Arc::clone(metrics)) {
            Err(error)
                if matches!(error, OpenError::InUse { .. }) && begun.elapsed() < PATIENCE =>
            {
                thread::sleep(Duration::from_millis(5));
            }
            opened => return opened,
        }
    }
}

fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < PATIENCE, "never: {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

fn sha256(content: &[u8]) -> Digest {
    Digest::of(Algorithm::Sha256, content)
}

fn descriptor(digest: &Digest) -> String {
    format!(r#"{{"mediaType":"application/x","digest":"{digest}","size":1}}"#)
}

fn image(name: &str) -> ImageName {
    name.parse().unwrap()
}

fn repository(name: &str) -> Repository {
    name.parse().unwrap()
}

fn tag(name: &str) -> Tag {
    name.parse().unwrap()
}
