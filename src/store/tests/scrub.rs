//! What is damaged is found: when it is used, by the schedule, and when somebody asks.

use std::{
    fs::{self, File},
    os::unix::fs::{FileExt as _, PermissionsExt as _},
};

use tokio::sync::mpsc;

use super::{super::Scope, *};

/// A store that scrubs, and who is told of damage.
struct Scrubbed {
    test: TestStore,
    reports: mpsc::Receiver<Digest>,
}

impl Scrubbed {
    fn every(interval: Duration) -> Scrubbed {
        Scrubbed::of(TestStore::with(Cache { scrub_interval: Some(interval), ..cache() }))
    }

    fn of(test: TestStore) -> Scrubbed {
        let (sender, reports) = mpsc::channel(64);
        test.store.watch_for_damage(sender);
        Scrubbed { test, reports }
    }

    async fn put_many(&self, count: u32) -> Vec<Digest> {
        let mut digests = Vec::new();
        for n in 0..count {
            digests.push(self.test.put(&n.to_le_bytes()).await);
        }
        digests.sort_unstable();
        digests
    }

    fn flip(&self, digest: &Digest) {
        flip_a_bit(&self.test.blob_path(digest));
    }

    fn damaged(&self) -> u64 {
        self.test.metrics.store_damaged_blobs.get()
    }
}

fn flip_a_bit(path: &Path) {
    let file = File::options().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, 0).unwrap();
    file.write_all_at(&[byte[0] ^ 4], 0).unwrap();
}

/// Each blob has its turn once within the interval, and none before its time.
#[tokio::test]
async fn blobs_are_examined_in_their_time() {
    let mut scrubbed = Scrubbed::every(30 * DAY);
    let digests = scrubbed.put_many(40).await;
    let middle = digests.iter().filter(|digest| digest.as_bytes()[0] < 128).count() as u64;
    digests.iter().for_each(|digest| scrubbed.flip(digest));
    assert_eq!(scrubbed.damaged(), 0, "no burst at the start");
    scrubbed.test.clock.advance(15 * DAY);
    eventually("half of them are examined", || scrubbed.damaged() == middle);
    scrubbed.test.clock.advance(15 * DAY);
    eventually("all are examined", || scrubbed.damaged() == 40);
    eventually("the last is reported", || scrubbed.reports.len() == 40);
    let mut reported = Vec::new();
    while let Ok(digest) = scrubbed.reports.try_recv() {
        assert!(!scrubbed.test.store.has(&digest));
        reported.push(digest);
    }
    assert_eq!(reported, digests, "in the order of their places");
    scrubbed.test.store.close().await;
}

/// What a scrub found right before a restart, it does not examine again.
#[tokio::test]
async fn a_restart_goes_on_where_the_scrub_stopped() {
    let scrubbed = Scrubbed::every(30 * DAY);
    let digests = scrubbed.put_many(40).await;
    scrubbed.flip(&digests[19]);
    scrubbed.test.clock.advance(20 * DAY);
    eventually("the scrub has passed", || scrubbed.damaged() == 1);
    let Scrubbed { test, .. } = scrubbed;
    let scrubbed = Scrubbed::of(test.restart().await);
    let passed: Vec<&Digest> = digests[..19].iter().filter(|d| d.as_bytes()[0] < 128).collect();
    passed.iter().for_each(|digest| scrubbed.flip(digest));
    scrubbed.flip(&digests[39]);
    scrubbed.test.clock.advance(10 * DAY);
    eventually("the last is examined", || !scrubbed.test.store.has(&digests[39]));
    assert!(passed.iter().all(|digest| scrubbed.test.store.has(digest)));
    // In the next interval their turn comes again.
    scrubbed.test.clock.advance(30 * DAY);
    eventually("all are found", || passed.iter().all(|digest| !scrubbed.test.store.has(digest)));
}

#[tokio::test]
async fn what_is_found_on_disk_is_verified_before_it_is_served() {
    let mut test = TestStore::new();
    let (sound, damaged) = (test.put(b"sound").await, test.put(b"damaged").await);
    test.store.close().await;
    fs::remove_dir_all(test.path("index")).unwrap();
    fs::write(test.blob_path(&damaged), b"dama").unwrap();
    test = test.crash();
    let Scrubbed { test, mut reports } = Scrubbed::of(test);
    assert_eq!(test.read(&sound).await.unwrap(), "sound");
    assert!(test.read(&damaged).await.is_none());
    assert_eq!(reports.recv().await.unwrap(), damaged);
}

/// A command opens the store for a moment, and does what it was asked to.
#[tokio::test]
async fn who_does_not_watch_does_not_scrub() {
    let interval = Some(DAY);
    let test = TestStore::with(Cache { scrub_interval: interval, ..cache() }).restart().await;
    assert!(!test.path("scrub.json").exists());
    let scrubbed = Scrubbed::of(test);
    let test = scrubbed.test.restart().await;
    assert!(test.path("scrub.json").exists());
}

/// What nobody's word is behind comes before its time.
#[tokio::test]
async fn what_is_found_on_disk_is_scrubbed_first() {
    let scrubbed = Scrubbed::every(30 * DAY);
    let digests = scrubbed.put_many(20).await;
    let Scrubbed { test, .. } = scrubbed;
    test.store.close().await;
    fs::remove_dir_all(test.path("index")).unwrap();
    digests.iter().for_each(|digest| flip_a_bit(&test.blob_path(digest)));
    let scrubbed = Scrubbed::of(test.crash());
    eventually("all are found", || scrubbed.damaged() == 20);
}

#[tokio::test]
async fn a_damaged_manifest_is_no_blob_that_is_none() {
    let Scrubbed { test, mut reports } = Scrubbed::of(TestStore::new());
    let json = r#"{"schemaVersion":2,"manifests":[]}"#;
    for damage in [r#"x"schemaVersion":2,"manifests":[]}"#, r#"{"schemaVersion":2,"manifests":[xx"#]
    {
        let digest = test.put_manifest(json).await;
        fs::write(test.blob_path(&digest), &damage.as_bytes()[..json.len()]).unwrap();
        assert!(test.store.manifest(&digest).await.unwrap().is_none());
        assert!(!test.store.has(&digest));
        assert_eq!(reports.recv().await.unwrap(), digest);
    }
    let digest = test.put_manifest(json).await;
    flip_a_bit(&test.blob_path(&digest));
    test.put_manifest(json).await;
    assert_eq!(fs::read_to_string(test.blob_path(&digest)).unwrap(), json);
    assert_eq!(test.metrics.store_damaged_blobs.get(), 3);
}

/// A file that is cut while it is read goes at once.
#[tokio::test]
async fn a_file_that_is_cut_under_its_reader_is_replaced() {
    let Scrubbed { test, mut reports } = Scrubbed::of(TestStore::new());
    let digest = test.put(&[5; 1000]).await;
    let reader = test.store.open_blob(&digest).await.unwrap().unwrap();
    let file = File::options().write(true).open(test.blob_path(&digest)).unwrap();
    file.set_len(100).unwrap();
    assert_eq!(reader.read_at(0, 1000).await.unwrap().len(), 100);
    let error = reader.read_at(100, 900).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::UnexpectedEof);
    assert_eq!(reports.recv().await.unwrap(), digest);
    assert!(!test.blob_path(&digest).exists());
    assert!(test.path("quarantine").join(format!("sha256-{}", digest.encoded())).exists());
    // The reader of the old file does no harm to the new one.
    test.put(&[5; 1000]).await;
    assert!(reader.read_at(100, 900).await.is_err());
    assert!(test.store.has(&digest));
}

/// The hash is of what was written: a file that somebody cuts meanwhile is not published.
#[tokio::test]
async fn a_file_that_is_cut_under_its_writer_is_not_kept() {
    let test = TestStore::new();
    let digest = sha256(b"two parts");
    let path = test.path("downloads").join(format!("sha256-{}", digest.encoded()));
    let mut writer = test.store.create_blob(&digest, Some(9)).await.unwrap();
    writer.append(vec!["two ".into()]).await.unwrap();
    File::options().write(true).open(&path).unwrap().set_len(2).unwrap();
    writer.append(vec!["parts".into()]).await.unwrap_err();
    drop(writer);
    test.no_downloads_soon();

    let mut writer = test.store.create_blob(&digest, Some(9)).await.unwrap();
    writer.append(vec!["two parts".into()]).await.unwrap();
    File::options().write(true).open(&path).unwrap().set_len(2).unwrap();
    writer.verify().unwrap().publish().await.unwrap_err();
    assert!(!test.store.has(&digest) && !test.blob_path(&digest).exists());
}

/// What cannot be used is a miss, and what is fetched takes its place.
#[tokio::test]
async fn what_is_in_the_way_is_replaced() {
    let test = TestStore::new();
    let digest = test.put(b"content").await;
    let path = test.blob_path(&digest);
    for n in 0..2 {
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        fs::write(path.join("x"), b"x").unwrap();
        assert!(test.read(&digest).await.is_none());
        test.put(b"content").await;
        assert_eq!(test.read(&digest).await.unwrap(), "content", "time {n}");
    }
    fs::set_permissions(&path, fs::Permissions::from_mode(0o000)).unwrap();
    let may_read = File::open(&path).is_ok();
    assert_eq!(test.read(&digest).await.is_some(), may_read, "root reads everything");
    assert_eq!(test.store.has(&digest), may_read);
    test.put(b"content").await;
    assert_eq!(test.read(&digest).await.unwrap(), "content");
    assert_eq!(test.metrics.store_damaged_blobs.get(), 2);
}

/// A scrub on demand meets everything once, and what it finds damaged is here no longer.
#[tokio::test]
async fn on_demand_all_is_examined_now() {
    let mut scrubbed = Scrubbed::of(TestStore::new());
    let digests = scrubbed.put_many(600).await;
    let layer = scrubbed.test.put(&vec![9; 3_000_000]).await;
    let image = scrubbed.test.put_image(&layer, &[&layer]).await;
    let repository = repository("docker.io/library/busybox");
    scrubbed.test.store.set_tag(&repository, &tag("latest"), &image, SystemTime::now());
    scrubbed.flip(&digests[100]);
    scrubbed.flip(&digests[500]);
    scrubbed.flip(&layer);

    let (blobs, damaged) = run(&scrubbed.test, Scope::Below(image.clone())).await;
    assert_eq!((blobs, damaged), (2, vec![layer.clone()]));
    let (blobs, damaged) = run(&scrubbed.test, Scope::Everything).await;
    assert_eq!((blobs, damaged), (601, vec![digests[100].clone(), digests[500].clone()]));
    let (blobs, damaged) = run(&scrubbed.test, Scope::Everything).await;
    assert_eq!((blobs, damaged), (599, vec![]));
    assert!(scrubbed.reports.try_recv().is_err(), "the caller knows");
}

/// What nobody needs, or never was here, is not.
#[tokio::test]
async fn what_was_set_aside_is_lacking_until_it_is_here_again() {
    let mut test = TestStore::new();
    let (image, config, layer) = test.put_tagged("v1").await;
    let never_here = sha256(b"never here");
    test.put_image(&config, &[&never_here]).await;
    let lone = test.put(b"of no image").await;
    for digest in [&image, &layer, &lone] {
        flip_a_bit(&test.blob_path(digest));
    }
    assert_eq!(lacking(&test, Scope::Everything).await, []);
    run(&test, Scope::Everything).await;
    let mut gone = [image.clone(), layer.clone()];
    gone.sort_unstable();
    assert_eq!(lacking(&test, Scope::Everything).await, gone);
    assert_eq!(lacking(&test, Scope::Below(image.clone())).await, gone);
    assert_eq!(lacking(&test, Scope::Below(config.clone())).await, []);

    test = test.restart().await;
    assert!(lacking(&test, Scope::Everything).await.contains(&image));
    test.put_image(&config, &[&layer]).await;
    assert_eq!(lacking(&test, Scope::Everything).await, [layer]);
    test.put(b"layer of v1").await;
    assert_eq!(lacking(&test, Scope::Everything).await, []);
}

async fn lacking(test: &TestStore, scope: Scope) -> Vec<Digest> {
    test.store.begin_scrub(scope).await.unwrap().lacking().await.unwrap()
}

async fn run(test: &TestStore, scope: Scope) -> (u64, Vec<Digest>) {
    let mut scrub = test.store.begin_scrub(scope).await.unwrap();
    let (mut blobs, mut bytes, mut damaged) = (0, 0, Vec::new());
    while let Some(done) = scrub.next().await.unwrap() {
        blobs += done.blobs;
        bytes += done.bytes;
        damaged.extend(done.damaged.map(|(digest, _)| digest));
    }
    assert_eq!((blobs, bytes), (scrub.blobs(), scrub.bytes()));
    (blobs, damaged)
}

#[tokio::test]
async fn what_does_not_belong_is_named_and_stays() {
    let test = TestStore::new();
    let image = test.put_index(&[]).await;
    let repository = repository("docker.io/library/busybox");
    test.store.set_tag(&repository, &tag("latest"), &image, SystemTime::now());
    eventually("index.json names it", || {
        fs::read_to_string(test.path("index.json")).unwrap().contains(&image.to_string())
    });
    assert_eq!(test.store.look_around().await.unwrap().len(), 0);
    fs::write(test.path("blobs/notes.txt"), b"x").unwrap();
    fs::write(test.path("blobs/sha256/notes.txt"), b"x").unwrap();
    let index = fs::read_to_string(test.path("index.json")).unwrap();
    let absent = sha256(b"absent");
    let index = index.replace(&image.to_string(), &absent.to_string());
    fs::write(test.path("index.json"), index).unwrap();
    let findings = test.store.look_around().await.unwrap();
    let findings: Vec<String> = findings.iter().map(ToString::to_string).collect();
    assert_eq!(findings.len(), 3, "{findings:?}");
    assert!(findings.iter().filter(|text| text.contains("notes.txt is no blob")).count() == 2);
    assert!(
        findings.iter().any(|text| text.contains(&format!("index.json: {absent} is not here")))
    );
    assert!(test.path("blobs/sha256/notes.txt").exists());
}
