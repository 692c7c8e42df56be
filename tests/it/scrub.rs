//! What is damaged on the disk is found and fetched again, before anyone asks for it.

use std::{
    fs::{self, File},
    os::unix::fs::FileExt as _,
    path::Path,
    time::Duration,
};

use larder::oci::Digest;

use crate::support::{
    FakeRegistry, Image, Mode, TestMirror, Upstream,
    binary::{Daemon, Ended, run},
    mirror::{Builder, CONFIG, blob_path, blob_url, manifest_path},
    random_bytes, sha256,
    wait::until,
};

const DAY: Duration = Duration::from_secs(24 * 3600);

const DAMAGED: &str = "larder_store_damaged_blobs_total";

/// Changes one bit in the middle of a file.
pub fn flip_a_bit(path: &Path) {
    let file = File::options().read(true).write(true).open(path).unwrap();
    let middle = file.metadata().unwrap().len() / 2;
    let mut byte = [0];
    file.read_exact_at(&mut byte, middle).unwrap();
    file.write_all_at(&[byte[0] ^ 1], middle).unwrap();
}

/// A mirror that has pulled an image, and what the image is made of.
struct Setting {
    registry: FakeRegistry,
    mirror: TestMirror,
    image: Image,
}

impl Setting {
    async fn start() -> Setting {
        let registry = FakeRegistry::start().await;
        let image = Image::random(1);
        registry.put_image("library/x", "latest", &image);
        let mirror = builder(&registry).start().await;
        mirror.pull("library/x", "latest", &image).await;
        Setting { registry, mirror, image }
    }

    fn digests(&self) -> Vec<Digest> {
        [self.image.digest()]
            .into_iter()
            .chain(self.image.blobs().map(|blob| sha256(blob)))
            .collect()
    }

    fn flip_all(&self) {
        self.digests().iter().for_each(|digest| flip_a_bit(&self.mirror.blob_path(digest)));
    }

    fn is_sound(&self, digest: &Digest) -> bool {
        fs::read(self.mirror.blob_path(digest)).is_ok_and(|bytes| sha256(&bytes) == *digest)
    }

    async fn wait_until_sound(&self) {
        until("everything to be sound", async || {
            self.digests().iter().all(|digest| self.is_sound(digest))
        })
        .await;
    }
}

fn builder(registry: &FakeRegistry) -> Builder {
    TestMirror::builder().upstream(Upstream::docker_io(registry))
}

/// Within the interval each blob is read again, and what is damaged is fetched again: manifest, config
/// and layers. Then all of it can be pulled without upstream.
#[tokio::test(flavor = "multi_thread")]
async fn what_the_schedule_finds_is_fetched_again() {
    let setting = Setting::start().await;
    setting.flip_all();
    assert_eq!(setting.mirror.metric(DAMAGED).await, 0.0);
    setting.mirror.advance(30 * DAY);
    let all = setting.digests().len();
    let mirror = &setting.mirror;
    until("all is found", async || mirror.metric(DAMAGED).await == all as f64).await;
    setting.wait_until_sound().await;
    assert_eq!(mirror.data_dir().join("quarantine").read_dir().unwrap().count(), all);
    for digest in setting.digests() {
        let blobs = setting.registry.count("GET", &blob_url("library/x", &digest));
        let manifest = manifest_path("library/x", &digest.to_string());
        assert!(blobs + setting.registry.count("GET", &manifest) <= 2, "{digest}");
    }
    mirror.advance(Duration::from_secs(1));
    setting.registry.set_mode(Mode::Down).await;
    mirror.pull("library/x", "latest", &setting.image).await;
}

/// While upstream is away, what is damaged is a miss; once it is back, it is fetched without anyone's
/// asking.
#[tokio::test(flavor = "multi_thread")]
async fn healing_waits_for_upstream() {
    let setting = Setting::start().await;
    setting.registry.set_mode(Mode::Down).await;
    let digest = sha256(&setting.image.layers[0]);
    flip_a_bit(&setting.mirror.blob_path(&digest));
    setting.mirror.advance(30 * DAY);
    setting.mirror.wait_until_gone(&digest).await;
    let refused = setting.mirror.get(&blob_url("library/x", &digest)).await;
    assert_eq!(refused.status, 429);
    setting.registry.set_mode(Mode::Up).await;
    setting.wait_until_sound().await;
}

/// What upstream no longer has stays away, and the tag stays for what it means.
#[tokio::test(flavor = "multi_thread")]
async fn what_upstream_has_no_longer_stays_away() {
    let setting = Setting::start().await;
    let lost = sha256(&setting.image.layers[0]);
    setting.registry.put_blob("library/y", &random_bytes(9, 100));
    let path = blob_url("library/x", &lost);
    setting.registry.on("GET", &path, crate::support::Fault::status(404));
    let asked = setting.registry.count("GET", &path);
    flip_a_bit(&setting.mirror.blob_path(&lost));
    setting.mirror.advance(30 * DAY);
    setting.registry.wait_for("GET", &path, asked + 1).await;
    assert_eq!(setting.mirror.get(&path).await.status, 404);
    assert!(!setting.mirror.has_blob(&lost));
    let manifest = setting.mirror.manifest("library/x", "latest").await;
    assert_eq!(manifest, setting.image.manifest);
}

/// A scrub goes on behind the place where the last process stopped.
#[tokio::test(flavor = "multi_thread")]
async fn a_restart_does_not_begin_anew() {
    let setting = Setting::start().await;
    let mut digests = setting.digests();
    digests.sort_unstable();
    let (first, last) = (digests[0].clone(), digests[digests.len() - 1].clone());
    flip_a_bit(&setting.mirror.blob_path(&last));
    setting.mirror.advance(30 * DAY - Duration::from_secs(1));
    until("the last is found", async || setting.mirror.metric(DAMAGED).await == 1.0).await;
    setting.wait_until_sound().await;
    let stopped = setting.mirror.stop().await;
    let data_dir = stopped.data_dir();
    assert!(data_dir.join("scrub.json").exists());
    flip_a_bit(&blob_path(&data_dir, &first));
    let mirror = stopped.start().await;
    mirror.advance(Duration::from_secs(2));
    assert!(mirror.has_blob(&first));
    mirror.advance(30 * DAY);
    until("the first is found", async || mirror.metric(DAMAGED).await == 1.0).await;
}

fn scrub(directory: &Path, arguments: &[&str]) -> Ended {
    let config = directory.join(CONFIG);
    let mut all = vec!["scrub", "--config", config.to_str().unwrap()];
    all.extend(arguments);
    run(&all, &[])
}

/// The command finds, tells and repairs, with a daemon and without; its exit code says whether all is
/// well now.
#[tokio::test(flavor = "multi_thread")]
async fn the_command_finds_and_repairs() {
    for with_daemon in [true, false] {
        let registry = FakeRegistry::start().await;
        let (image, other) = (Image::random(1), Image::random(2));
        registry.put_image("library/x", "latest", &image);
        registry.put_image("library/y", "latest", &other);
        let mirror = builder(&registry).start().await;
        mirror.pull("library/x", "latest", &image).await;
        mirror.pull("library/y", "latest", &other).await;
        let builder = mirror.stop().await;
        let data_dir = builder.data_dir();
        let place = |digest: &Digest| blob_path(&data_dir, digest);
        let (daemon, kept);
        let directory = if with_daemon {
            daemon = Daemon::start(builder).await;
            daemon.directory()
        } else {
            kept = builder.into_file();
            kept.path()
        };

        let ended = scrub(directory, &[]);
        assert_eq!(ended.code, Some(0), "{ended:?}");
        assert!(ended.output.contains(" 0 damaged"), "{ended:?}");

        let damaged = sha256(&image.layers[0]);
        flip_a_bit(&place(&damaged));
        let elsewhere = scrub(directory, &["y"]);
        assert_eq!(elsewhere.code, Some(0), "{elsewhere:?}");
        let found = scrub(directory, &["--json", "docker.io/library/x:latest"]);
        assert_eq!(found.code, Some(1), "{found:?}");
        assert!(found.output.contains(&damaged.to_string()), "{found:?}");
        assert!(found.output.contains(r#""repaired":null"#), "{found:?}");
        assert!(!place(&damaged).exists(), "nobody is served of it");

        flip_a_bit(&place(&image.digest()));
        fs::write(data_dir.join("blobs/sha256/notes.txt"), "mine").unwrap();
        let repaired = scrub(directory, &["--repair"]);
        assert_eq!(repaired.code, Some(0), "{repaired:?}");
        assert!(repaired.output.contains("fetched again"), "{repaired:?}");
        assert!(repaired.output.contains("2 damaged, 2 of them repaired"), "{repaired:?}");
        assert!(repaired.output.contains("set aside before; fetched again"), "{repaired:?}");
        assert_eq!(fs::read(place(&damaged)).unwrap(), image.layers[0]);
        assert!(repaired.output.contains("notes.txt is no blob"), "{repaired:?}");
        assert_eq!(fs::read(place(&image.digest())).unwrap(), image.manifest);
        assert!(data_dir.join("blobs/sha256/notes.txt").exists());

        registry.set_mode(Mode::Down).await;
        flip_a_bit(&place(&image.digest()));
        let failed = scrub(directory, &["--repair"]);
        assert_eq!(failed.code, Some(1), "{failed:?}");
        assert!(failed.output.contains("cannot be fetched now"), "{failed:?}");
        let elsewhere = scrub(directory, &["y:1"]);
        assert_eq!(elsewhere.code, Some(1), "{elsewhere:?}");
        let hint = "docker.io/library/y:1: not here; there is docker.io/library/y:latest";
        assert!(elsewhere.output.contains(hint), "{elsewhere:?}");
        let unknown = format!("sha256:{}", "a".repeat(64));
        assert_eq!(scrub(directory, &[&unknown]).code, Some(1));
        assert_eq!(scrub(directory, &["?"]).code, Some(2));
    }
}
