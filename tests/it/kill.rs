//! kill -9, again and again on the same data, while everything is going on: pulls that fill,
//! pulls that hit, tags that move, sweeps, scrubs, removals, pins.
//!
//! A kill costs what was under way, and nothing else. Each run prints the seed of its rounds.

mod commands;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use futures_util::future::join_all;
use larder::oci::Digest;
use serde_json::Value;
use tokio::task::JoinSet;

use self::commands::{Change, Commands, Promised, refusal};
use crate::support::{
    Client, FakeRegistry, Fault, Image, Random, TestMirror, Upstream,
    binary::Daemon,
    client::Body,
    mirror::{blob_path, blob_url, manifest_path},
    sha256,
    wait::until,
};

/// So often the daemon of each world is killed. Worlds live beside each other: each waits more than it works.
const ROUNDS: u64 = 50;
const WORLDS: u64 = 4;

/// The latest moment of a round in which it is killed, in milliseconds.
const LATEST: u64 = 250;

/// Images that are pulled in every round, and do not expire in a slow one either.
const KEPT: u64 = 3;

/// An image that is pinned and otherwise left alone, but for a pull every so many rounds: by then it
/// would have expired.
const PINNED: &str = "docker.io/library/pinned:latest";
const REST: u64 = 40;

/// The kept image whose pin comes and goes.
const CHANGING: &str = "docker.io/library/kept:v1";

/// More than one round leaves under `downloads/`: of each of its blobs a file and a note.
const MOST_LEFT: usize = 20;

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_kills_damage_nothing() {
    join_all((0..WORLDS).map(|_| live_and_let_die())).await;
}

async fn live_and_let_die() {
    let mut world = World::start().await;
    for round in 0..ROUNDS {
        world.round(round).await;
    }
    world.end().await;
}

struct World {
    registry: FakeRegistry,
    /// Only in between is there none.
    daemon: Option<Daemon>,
    random: Random,
    kept: Vec<Image>,
    pinned: Image,
    is_changing_pinned: bool,
    /// What the last round pulled.
    last: Vec<Image>,
}

impl World {
    async fn start() -> World {
        let seed = new_seed();
        let registry = FakeRegistry::start().await;
        let kept: Vec<Image> = (0..KEPT).map(|number| image(number, 10_000)).collect();
        for (number, image) in kept.iter().enumerate() {
            registry.put_image("library/kept", &format!("v{number}"), image);
        }
        let pinned = image(KEPT, 10_000);
        registry.put_image("library/pinned", "latest", &pinned);
        let upstream = Upstream::docker_io(&registry).set("tag_ttl", "1h");
        let mirror = TestMirror::builder()
            .upstream(upstream)
            .set("cache.expire_after", "4s")
            .set("cache.rule", vec![long_life("docker.io/library/kept")])
            .set("cache.sweep_interval", "50ms");
        let daemon = Daemon::start(mirror).await;
        expect_image(&daemon.client(), "library/pinned", "latest", &pinned).await;
        commands::pin(&socket(&daemon), PINNED).await;
        let world = World {
            registry,
            daemon: Some(daemon),
            random: Random::new(seed),
            kept,
            pinned,
            is_changing_pinned: false,
            last: Vec::new(),
        };
        world.pull_kept().await;
        world.wait_until_all_is_here().await;
        world
    }

    /// Clients do not wait until a blob is published, nor until it is written down what a tag means: that
    /// may take a second, and a kill within it costs the question again.
    async fn wait_until_all_is_here(&self) {
        let data_dir = self.daemon().data_dir();
        let images = self.kept.iter().chain([&self.pinned]);
        let blobs: Vec<Digest> = images.flat_map(Image::blobs).map(|blob| sha256(blob)).collect();
        let is_here = |digest| blob_path(&data_dir, digest).exists();
        let tags: Vec<String> = (0..KEPT).map(kept).collect();
        let is_named = || {
            let named = named(&data_dir);
            tags.iter().all(|tag| named.contains_key(tag))
        };
        until("all to be published", async || blobs.iter().all(is_here) && is_named()).await;
    }

    /// Pulls what is new and what is old, kills at some moment, and looks what is there.
    async fn round(&mut self, round: u64) {
        let new = self.publish(round);
        let pulls = self.pull_all(&new);
        let commands = self.command();
        let moment = Duration::from_millis(self.random.below(LATEST));
        tokio::time::sleep(moment).await;
        let before = named(&self.daemon().data_dir());
        commands.end();
        let daemon = self.daemon.take().unwrap();
        self.daemon = Some(daemon.kill_and_restart().await);
        pulls.join_all().await;

        self.assert_tags_known(&before).await;
        self.assert_done(commands.promised().await).await;
        self.assert_pinned_stays(round).await;
        self.pull_kept().await;
        for image in &new {
            expect_image(&self.daemon().client(), "library/new", &tag_of(image), image).await;
        }
        self.assert_nothing_piles_up().await;
        self.last = new;
    }

    async fn end(self) {
        let daemon = self.daemon();
        let expired = |image: &Image| !blob_path(&daemon.data_dir(), &image.digest()).exists();
        until("what nobody uses to expire", async || self.last.iter().all(expired)).await;
        self.assert_all_right();
        assert!(named(&daemon.data_dir()).len() <= self.kept.len() + 1);
        let quarantine = daemon.data_dir().join("quarantine");
        assert!(!quarantine.exists(), "a kill has damaged something");
    }

    fn daemon(&self) -> &Daemon {
        self.daemon.as_ref().unwrap()
    }

    /// Two images, whose blobs come slowly enough that a kill breaks some of them off; one shares a
    /// layer with a kept image, and the tag of one moves.
    fn publish(&mut self, round: u64) -> Vec<Image> {
        self.registry.behave();
        let feed = Fault::feed(Duration::from_millis(100));
        self.registry.on("GET", "/v2/library/new/blobs/*", feed);
        let mut own = image(1000 + round, 1 + self.random.index(200_000));
        own.layers.push(self.kept[0].layers[0].clone());
        let shared = Image::with_layers(2000 + round, own.layers.clone());
        let new = vec![shared, image(5000 + round, 1 + self.random.index(5000))];
        for image in &new {
            self.registry.put_image("library/new", &tag_of(image), image);
        }
        self.registry.put_image("library/moving", "latest", &new[1]);
        new
    }

    fn pull_all(&self, new: &[Image]) -> JoinSet<()> {
        let mut pulls = JoinSet::new();
        let client = self.daemon().client();
        for image in new {
            pulls.spawn(try_image(client, "library/new", tag_of(image), image.clone()));
        }
        pulls.spawn(try_image(client, "library/moving", "latest".to_owned(), new[1].clone()));
        for (number, image) in self.kept.iter().enumerate() {
            pulls.spawn(try_image(client, "library/kept", format!("v{number}"), image.clone()));
        }
        pulls
    }

    /// Removes what the last round pulled, and pins or unpins.
    fn command(&self) -> Commands {
        let name = |image| format!("docker.io/library/new:{}", tag_of(image));
        let doomed = self.last.iter().map(name).collect();
        let change = if self.is_changing_pinned { Change::Unpin } else { Change::Pin };
        Commands::begin(&socket(self.daemon()), doomed, change, CHANGING)
    }

    /// What was answered is so in the next life; what was not may be.
    async fn assert_done(&mut self, promised: Promised) {
        let socket = socket(self.daemon());
        for image in promised.removed {
            assert_eq!(refusal(&socket, &image).await.as_deref(), Some("not here"), "{image}");
        }
        let refusal = refusal(&socket, CHANGING).await;
        let is_pinned = refusal.is_some_and(|refusal| refusal.starts_with("pinned: "));
        if promised.is_pin_changed {
            assert_ne!(is_pinned, self.is_changing_pinned, "a pin came or went");
        }
        self.is_changing_pinned = is_pinned;
    }

    async fn assert_pinned_stays(&self, round: u64) {
        let data_dir = self.daemon().data_dir();
        for blob in self.pinned.blobs().chain([&self.pinned.manifest]) {
            assert!(blob_path(&data_dir, &sha256(blob)).exists(), "{PINNED} is broken");
        }
        let refusal = refusal(&socket(self.daemon()), PINNED).await.unwrap();
        assert!(refusal.starts_with("pinned: "), "{refusal}");
        if round % REST == REST - 1 {
            let asked = self.registry.count("GET", "/v2/library/pinned/*");
            expect_image(&self.daemon().client(), "library/pinned", "latest", &self.pinned).await;
            assert_eq!(self.registry.count("GET", "/v2/library/pinned/*"), asked);
        }
    }

    async fn pull_kept(&self) {
        let asked = self.asked_of_kept().len();
        for (number, image) in self.kept.iter().enumerate() {
            let tag = format!("v{number}");
            expect_image(&self.daemon().client(), "library/kept", &tag, image).await;
        }
        let mut again = self.asked_of_kept().split_off(asked);
        again.retain(|request| request.starts_with("GET "));
        assert!(asked == 0 || again.is_empty(), "{again:?}, which was there");
    }

    /// What `index.json` named is known, without a word of upstream, unless it has expired.
    async fn assert_tags_known(&self, before: &BTreeMap<String, Digest>) {
        let asked = self.asked_of_kept();
        for name in before.keys() {
            let Some(tag) = name.strip_prefix("docker.io/library/kept:") else {
                continue;
            };
            let path = manifest_path("library/kept", tag);
            assert_eq!(self.daemon().client().head(&path).await.status, 200, "{name}");
        }
        let asked_now = self.asked_of_kept();
        assert_eq!(asked_now, asked, "tags were forgotten");
    }

    fn asked_of_kept(&self) -> Vec<String> {
        let requests = self.registry.requests().into_iter();
        let of_kept = requests.filter(|request| request.path.starts_with("/v2/library/kept/"));
        of_kept.map(|request| format!("{} {}", request.method, request.path)).collect()
    }

    async fn assert_nothing_piles_up(&self) {
        let data_dir = self.daemon().data_dir();
        let left = || data_dir.join("downloads").read_dir().unwrap().count();
        // Clients do not wait until a blob is published.
        until("the downloads to be published", async || left() <= MOST_LEFT).await;
        let entries = data_dir.read_dir().unwrap().map(|entry| entry.unwrap().file_name());
        let damaged =
            |name: &std::ffi::OsString| name.to_string_lossy().starts_with("index.damaged-");
        assert!(entries.filter(damaged).count() <= 1, "damaged indexes pile up");
        named(&data_dir);
    }

    /// Every file has the digest that is its name.
    fn assert_all_right(&self) {
        for file in self.daemon().data_dir().join("blobs/sha256").read_dir().unwrap() {
            let file = file.unwrap();
            // One may expire meanwhile.
            if let Ok(bytes) = fs::read(file.path()) {
                let name = file.file_name();
                assert_eq!(name.to_string_lossy(), sha256(&bytes).encoded());
            }
        }
    }
}

/// The full name of a kept image.
fn kept(number: u64) -> String {
    format!("docker.io/library/kept:v{number}")
}

fn socket(daemon: &Daemon) -> PathBuf {
    daemon.data_dir().join("admin.sock")
}

fn new_seed() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let seed = u64::try_from(now.as_nanos() % u128::from(u64::MAX)).unwrap();
    eprintln!("seed {seed}");
    seed
}

fn long_life(images: &str) -> toml::Table {
    let keys = [("match", images), ("expire_after", "1h")];
    keys.map(|(key, value)| (key.to_owned(), value.into())).into_iter().collect()
}

fn image(seed: u64, size: usize) -> Image {
    let layer = |n| crate::support::random_bytes(seed.wrapping_mul(1000).wrapping_add(n), size);
    Image::with_layers(seed, vec![layer(1), layer(2)])
}

fn tag_of(image: &Image) -> String {
    image.digest().encoded()[..12].to_owned()
}

/// What `index.json` names, which must be valid, though a sweep may run.
fn named(data_dir: &Path) -> BTreeMap<String, Digest> {
    let index = fs::read(data_dir.join("index.json")).unwrap();
    let index: Value = serde_json::from_slice(&index).unwrap();
    let named = index["manifests"].as_array().unwrap().iter().map(|descriptor| {
        let name = &descriptor["annotations"]["org.opencontainers.image.ref.name"];
        let digest = descriptor["digest"].as_str().unwrap().parse().unwrap();
        (name.as_str().unwrap().to_owned(), digest)
    });
    named.collect()
}

/// A pull that may fail, but never ends in a complete body that is wrong.
async fn try_image(client: Client, repository: &str, tag: String, image: Image) {
    try_get(client, manifest_path(repository, &tag), None).await;
    for blob in image.blobs() {
        try_get(client, blob_url(repository, &sha256(blob)), Some(blob)).await;
    }
}

async fn try_get(client: Client, path: String, expected: Option<&Bytes>) {
    let Some(response) = client.try_request("GET", &path, &[]).await else {
        return;
    };
    let status = response.status;
    if let (200, Body::Complete(body)) = (status, response.body().await) {
        assert!(expected.is_none_or(|expected| *expected == body), "{path} is wrong");
    }
}

async fn expect_image(client: &Client, repository: &str, tag: &str, image: &Image) {
    let manifest = client.get(&manifest_path(repository, tag)).await;
    manifest.expect(&image.manifest).await;
    for blob in image.blobs() {
        client.get(&blob_url(repository, &sha256(blob))).await.expect(blob).await;
    }
}
