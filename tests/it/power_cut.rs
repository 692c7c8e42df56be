//! The power is cut at any moment: what was done in order to be durable is there, and what is there
//! is right.
//!
//! strace(1) writes down what a daemon does to its files while it is used. After each of these
//! operations the states in which the disk may be found are laid out, opened as a store and examined.

mod disk;
mod trace;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use larder::{
    clock::Clock,
    config::Cache,
    metrics::Metrics,
    oci::{Digest, Reference, Repository},
    store::Store,
};
use serde_json::Value;
use tempfile::TempDir;

use self::{
    disk::{Cut, Disk, State},
    trace::Operation,
};
use crate::support::{
    Client, FakeRegistry, Fault, Gate, Image, Index, TestMirror, Upstream,
    admin::over_socket,
    binary::Daemon,
    mirror::{Builder, blob_path, blob_url, load_directory, manifest_path, metric},
    random_bytes, sha256,
    wait::until,
};

/// The image that is pinned and unpinned.
const PINNED: &str = "docker.io/library/pinned:latest";

/// States that are on disk at a time.
const STATES: usize = 64;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs strace; tests/run installs it"]
async fn after_every_operation_the_power_may_be_cut() {
    let recorded = Recorded::new().await;
    let marked = recorded.marked();
    let (mut disk, mut seen, mut states) = (Disk::default(), BTreeSet::new(), Vec::new());
    for (number, operation) in recorded.operations.iter().enumerate() {
        disk.apply(operation);
        for cut in cuts(number) {
            let state = disk.state(cut);
            let is_pinned = match marked.map(|mark| number >= mark) {
                [true, false, false] => Some(true),
                [true, true, true] => Some(false),
                _ => None,
            };
            if seen.insert((state.clone(), is_pinned)) {
                states.push(Found::lay_out(&disk, &state, cut, number, is_pinned));
            }
        }
        if states.len() >= STATES {
            examine_all(std::mem::take(&mut states), &recorded).await;
        }
    }
    examine_all(states, &recorded).await;
    let operations = recorded.operations.len();
    eprintln!("{} states after {operations} operations", seen.len());
}

fn cuts(number: usize) -> [Cut; 8] {
    let seed = number as u64;
    [
        Cut::Killed,
        Cut::Certain,
        Cut::NamesWithoutBytes,
        Cut::NamesAndZeros,
        Cut::BytesWithoutNames,
        Cut::DeletesUndone,
        Cut::Mixed(seed),
        Cut::Mixed(seed + (1 << 32)),
    ]
}

async fn examine_all(states: Vec<Found>, recorded: &Recorded) {
    stream::iter(states).for_each_concurrent(4, |found| found.examine(recorded)).await;
}

/// What a daemon did in two lives, and with what.
struct Recorded {
    operations: Vec<Operation>,
    cache: Cache,
    /// Everything that upstream has.
    contents: BTreeMap<Digest, Bytes>,
    /// What is pulled after the pin was answered, before it is taken away, and after that was answered.
    marks: [Digest; 3],
}

impl Recorded {
    async fn new() -> Recorded {
        let registry = FakeRegistry::start().await;
        let builder = TestMirror::builder()
            .upstream(Upstream::docker_io(&registry).set("tag_ttl", "0s"))
            .set("cache.expire_after", "3s")
            .set("cache.sweep_interval", "200ms")
            .set("drain_timeout", "100ms");
        let directory = TempDir::new().unwrap();
        let traces = ["first", "second"].map(|life| directory.path().join(life));

        let content = Content::put(&registry);
        let daemon = Daemon::start_traced(builder, trace::CALLS, &traces[0]).await;
        content.first_life(&registry, &daemon).await;
        let data_dir = daemon.data_dir();
        let kept = daemon.stop().await;

        registry.behave();
        let builder = Builder::in_directory(kept);
        let daemon = Daemon::start_traced(builder, trace::CALLS, &traces[1]).await;
        content.second_life(&daemon).await;
        let kept = daemon.stop().await;
        Recorded {
            operations: trace::read(&traces, &data_dir),
            cache: load_directory(kept.path()).cache,
            contents: content.contents(),
            marks: content.marks.each_ref().map(|mark| sha256(mark)),
        }
    }

    /// After how many operations each mark was come to.
    fn marked(&self) -> [usize; 3] {
        self.marks.each_ref().map(|mark| {
            let names = |path: &Path| path.to_string_lossy().contains(&*mark.encoded());
            let is_begun =
                |operation: &Operation| matches!(operation, Operation::Create { path, .. } if names(path));
            self.operations.iter().position(is_begun).unwrap()
        })
    }
}

/// What is pulled, small enough for a trace.
struct Content {
    old: Image,
    new: Image,
    index: Index,
    broken_off: Bytes,
    pinned: Image,
    /// As [`Recorded::marks`].
    marks: [Bytes; 3],
}

impl Content {
    fn put(registry: &FakeRegistry) -> Content {
        let image = |seed| {
            let layers = [1, 2].map(|n| random_bytes(seed * 10 + n, 1500));
            Image::with_layers(seed, layers.to_vec())
        };
        let content = Content {
            old: image(1),
            new: image(2),
            index: Index::of(vec![image(3), image(4)]),
            broken_off: random_bytes(5, 40_000),
            pinned: image(6),
            marks: [7, 8, 9].map(|seed| random_bytes(seed, 300)),
        };
        registry.put_image("library/pinned", "latest", &content.pinned);
        for mark in &content.marks {
            registry.put_blob("library/index", mark);
        }
        registry.put_image("library/moves", "latest", &content.old);
        registry.put_index("library/index", "latest", &content.index);
        registry.put_blob("library/index", &content.broken_off);
        content
    }

    /// Pulls, a pin, a tag that moves, an image that expires, and a download that is broken off.
    async fn first_life(&self, registry: &FakeRegistry, daemon: &Daemon) {
        let client = daemon.client();
        pull(&client, "library/pinned", "latest", &self.pinned).await;
        change_pin(daemon, "pin").await;
        self.mark(&client, 0).await;
        pull(&client, "library/moves", "latest", &self.old).await;
        registry.put_image("library/moves", "latest", &self.new);
        pull(&client, "library/moves", "latest", &self.new).await;
        self.pull_index(&client).await;
        until_gone(daemon, &self.old.digest()).await;
        pull(&client, "library/moves", "latest", &self.new).await;
        self.pull_index(&client).await;

        let path = blob_url("library/index", &sha256(&self.broken_off));
        registry.on("GET", &path, Fault::hold_after(20_000, &Gate::shut()));
        let mut response = client.get(&path).await;
        assert!(response.read_some(10_000).await.is_some());
    }

    /// Goes on with the download, lets everything else expire but what is pinned, and unpins.
    async fn second_life(&self, daemon: &Daemon) {
        let client = daemon.client();
        let path = blob_url("library/index", &sha256(&self.broken_off));
        client.get(&path).await.expect(&self.broken_off).await;
        until_gone(daemon, &self.new.digest()).await;
        self.pull_index(&client).await;

        assert!(blob_path(&daemon.data_dir(), &self.pinned.digest()).exists());
        self.mark(&client, 1).await;
        change_pin(daemon, "unpin").await;
        self.mark(&client, 2).await;
    }

    async fn mark(&self, client: &Client, number: usize) {
        let mark = &self.marks[number];
        client.get(&blob_url("library/index", &sha256(mark))).await.expect(mark).await;
    }

    async fn pull_index(&self, client: &Client) {
        let response = client.get(&manifest_path("library/index", "latest")).await;
        response.expect(&self.index.manifest).await;
        let image = &self.index.images[0];
        pull(client, "library/index", &image.digest().to_string(), image).await;
    }

    fn contents(&self) -> BTreeMap<Digest, Bytes> {
        let images = [&self.old, &self.new, &self.pinned].into_iter().chain(&self.index.images);
        let blobs = images.flat_map(|image| image.blobs().chain([&image.manifest]));
        let blobs = blobs.chain([&self.index.manifest, &self.broken_off]).chain(&self.marks);
        blobs.map(|blob| (sha256(blob), blob.clone())).collect()
    }
}

async fn pull(client: &Client, repository: &str, reference: &str, image: &Image) {
    let response = client.get(&manifest_path(repository, reference)).await;
    response.expect(&image.manifest).await;
    for blob in image.blobs() {
        client.get(&blob_url(repository, &sha256(blob))).await.expect(blob).await;
    }
}

async fn change_pin(daemon: &Daemon, question: &str) {
    let socket = daemon.data_dir().join("admin.sock");
    let path = format!("POST /api/v1/{question}");
    let asked = format!(r#"{{"images":["{PINNED}"]}}"#);
    let answer = over_socket(&socket, &[&path, "content-type: application/json"], &asked).await;
    assert!(answer.status == 200 && !answer.text.contains("error"), "{answer:?}");
}

/// Returns once a manifest has expired.
async fn until_gone(daemon: &Daemon, digest: &Digest) {
    let (path, admin) = (blob_path(&daemon.data_dir(), digest), daemon.admin());
    let expired = r#"larder_evicted_blobs_total{reason="expired"}"#;
    until("something to expire", async || metric(&admin, expired).await > 0.0).await;
    until("a manifest to leave", async || !path.exists()).await;
}

/// A disk as it is found after a cut.
struct Found {
    directory: TempDir,
    promised: Vec<PathBuf>,
    /// `None`: it may be or not.
    is_pinned: Option<bool>,
    case: String,
}

impl Found {
    fn lay_out(
        disk: &Disk,
        state: &State,
        cut: Cut,
        number: usize,
        is_pinned: Option<bool>,
    ) -> Found {
        let directory = in_memory();
        let promised: Vec<PathBuf> = disk.promised().map(Path::to_owned).collect();
        let case = format!("{cut:?} after operation {number}");
        disk.write(state, directory.path(), |path, bytes| {
            if cut == Cut::Killed { bytes } else { in_another_boot(path, bytes) }
        });
        Found { directory, promised, is_pinned, case }
    }

    async fn examine(self, recorded: &Recorded) {
        let Found { directory, promised, is_pinned, case } = &self;
        for path in promised {
            assert!(directory.path().join(path).exists(), "{case}: {path:?} is gone");
        }
        self.assert_blobs_right(recorded);
        let tags = self.assert_layout_valid("found");

        let (clock, metrics) = (Clock::system(), Arc::new(Metrics::new()));
        let opened = Store::open(directory.path(), &recorded.cache, clock, metrics.clone());
        let store = opened.unwrap_or_else(|error| panic!("{case}: {error}"));
        for (digest, bytes) in &recorded.contents {
            let is_there = blob_path(directory.path(), digest).exists();
            let reader = store.open_blob(digest).await.unwrap();
            assert_eq!(reader.is_some(), is_there, "{case}: {digest}");
            if let Some(reader) = reader {
                assert_eq!(reader.read_at(0, bytes.len()).await.unwrap(), bytes, "{case}");
            }
        }
        for (repository, reference, digest) in &tags {
            if let Reference::Tag(tag) = reference {
                assert!(store.tag(repository, tag).is_some(), "{case}: {repository}:{tag}");
            }
            assert!(store.manifest(digest).await.unwrap().is_some(), "{case}: {digest}");
        }
        if let Some(is_pinned) = is_pinned {
            assert_eq!(store.is_pinned(&PINNED.parse().unwrap()), *is_pinned, "{case}");
        }
        store.close().await;
        drop(store);
        assert_eq!(metrics.store_damaged_blobs.get(), 0, "{case}");
        let after = self.assert_layout_valid("after a life");
        assert!(after.len() >= tags.len(), "{case}: {tags:?} became {after:?}");
    }

    /// Every file has the digest that is its name.
    fn assert_blobs_right(&self, recorded: &Recorded) {
        for digest in recorded.contents.keys() {
            if let Ok(bytes) = fs::read(blob_path(self.directory.path(), digest)) {
                assert_eq!(sha256(&bytes), *digest, "{}", self.case);
            }
        }
    }

    /// The directory is an image layout, unless it was too early to be one; says what is named.
    fn assert_layout_valid(&self, when: &str) -> Vec<(Repository, Reference, Digest)> {
        let path = |name| self.directory.path().join(name);
        if let Ok(marker) = fs::read_to_string(path("oci-layout")) {
            assert_eq!(marker, r#"{"imageLayoutVersion":"1.0.0"}"#, "{}", self.case);
        }
        let Ok(text) = fs::read(path("index.json")) else {
            return Vec::new();
        };
        let index: Value = serde_json::from_slice(&text)
            .unwrap_or_else(|error| panic!("{}: index.json: {error}", self.case));
        let named = index["manifests"].as_array().unwrap();
        named.iter().map(|descriptor| self.assert_descriptor_valid(descriptor, when)).collect()
    }

    fn assert_descriptor_valid(
        &self,
        descriptor: &Value,
        when: &str,
    ) -> (Repository, Reference, Digest) {
        let digest: Digest = descriptor["digest"].as_str().unwrap().parse().unwrap();
        let size = fs::metadata(blob_path(self.directory.path(), &digest)).map(|file| file.len());
        let size =
            size.unwrap_or_else(|error| panic!("{}, {when}: {descriptor}: {error}", self.case));
        assert_eq!(descriptor["size"], size, "{}, {when}: {descriptor}", self.case);
        let name = &descriptor["annotations"]["org.opencontainers.image.ref.name"];
        let name = name.as_str().unwrap();
        let (repository, reference) =
            name.split_once('@').unwrap_or_else(|| name.rsplit_once(':').unwrap());
        (repository.parse().unwrap(), reference.parse().unwrap(), digest)
    }
}

/// A directory in memory where there is one: there a sync costs nothing.
fn in_memory() -> TempDir {
    TempDir::new_in("/dev/shm").or_else(|_| TempDir::new()).unwrap()
}

/// A note of the growing file tells the boot, which is another after a power cut.
fn in_another_boot(path: &Path, bytes: Vec<u8>) -> Vec<u8> {
    if !path.starts_with("downloads") || path.extension().is_none() {
        return bytes;
    }
    String::from_utf8_lossy(&bytes).replace("\"boot\":\"", "\"boot\":\"not-").into_bytes()
}
