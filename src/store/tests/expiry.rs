//! Use, age and sweeps, by the manual clock.

use super::*;
use crate::{
    oci::Registry,
    store::{Swept, TOUCH_INTERVAL, budget::Goal},
};

fn registry(name: &str) -> Registry {
    name.parse().unwrap()
}

#[tokio::test]
async fn what_nobody_used_leaves_with_its_tags_and_proofs() {
    let test = TestStore::new();
    let (old, new) = (test.put(b"old").await, test.put(b"new").await);
    let index = test.put_index(&[]).await;
    let repository = repository("ghcr.io/a/b");
    test.store.set_tag(&repository, &tag("v1"), &index, SystemTime::now());
    test.clock.advance(60 * DAY);
    test.store.begin_sweep().run(&[]).await.unwrap();
    assert_eq!(test.metrics.store_blobs.get(), 3);
    test.store.touch(&new);
    let reader = test.store.open_blob(&old).await.unwrap().unwrap();
    let mut writer = test.store.create_blob(&sha256(b"late"), None).await.unwrap();
    writer.append(vec!["la".into()]).await.unwrap();
    test.clock.advance(31 * DAY);
    test.store.begin_sweep().run(&[]).await.unwrap();
    assert!(test.store.has(&new));
    assert!(!test.blob_path(&old).exists());
    assert!(!test.blob_path(&index).exists());
    assert_eq!(test.store.tag(&repository, &tag("v1")), None);
    assert!(!test.store.is_proved(&repository, &index));
    assert_eq!(reader.read_at(0, 3).await.unwrap(), "old", "a reader's file survives");
    writer.append(vec!["te".into()]).await.unwrap();
    writer.verify().unwrap().publish().await.unwrap();
    let evicted = test.metrics.evicted_blobs.with_label_values(&["expired"]);
    assert_eq!(evicted.get(), 2);
    let evicted = test.metrics.evicted_bytes.with_label_values(&["expired"]);
    assert_eq!(evicted.get(), 3 + 34);
    test.store.close().await;
    let json = fs::read_to_string(test.path("index.json")).unwrap();
    assert!(!json.contains("ghcr.io"), "{json}");
}

#[tokio::test]
async fn what_was_said_of_a_manifest_leaves_with_it() {
    let test = TestStore::new();
    let subject = test.put_index(&[]).await;
    let list = test.put_manifest(r#"{"schemaVersion":2,"manifests":[] }"#).await;
    let repository = repository("docker.io/library/x");
    test.store.prove_manifest(&repository, &subject);
    test.store.set_referrers(&repository, &subject, &list, SystemTime::now());
    test.clock.advance(60 * DAY);
    test.store.touch(&list);
    test.clock.advance(31 * DAY);
    test.store.begin_sweep().run(&[]).await.unwrap();
    assert!(test.store.has(&list) && !test.store.has(&subject));
    assert_eq!(test.store.referrers(&repository, &subject), None);
}

#[tokio::test]
async fn use_of_a_manifest_is_use_of_everything_below() {
    let test = TestStore::new();
    let shared = test.put(b"shared").await;
    let (one, two) = (test.put(b"one").await, test.put(b"two").await);
    let used = test.put_image(&one, &[&shared]).await;
    let unused = test.put_image(&two, &[&shared]).await;
    let index = test.put_index(&[&used]).await;
    test.clock.advance(60 * DAY);
    test.store.touch(&index);
    test.clock.advance(60 * DAY);
    test.store.begin_sweep().run(&[]).await.unwrap();
    for digest in [&index, &used, &one, &shared] {
        assert!(test.store.has(digest), "{digest}");
    }
    for digest in [&unused, &two] {
        assert!(!test.store.has(digest), "{digest}");
    }
    test.store.touch(&shared);
    test.clock.advance(60 * DAY);
    test.store.begin_sweep().run(&[]).await.unwrap();
    assert!(test.store.has(&shared), "a child lives without its parents");
    assert_eq!(test.metrics.store_blobs.get(), 1);
}

/// Whoever probes upstreams before a sweep need not probe those of which nothing is old.
#[tokio::test]
async fn a_sweep_knows_whom_it_concerns() {
    let test = TestStore::new();
    let layer = test.put(b"layer").await;
    let image = test.put_image(&layer, &[]).await;
    test.store.prove_manifest(&repository("ghcr.io/a"), &image);
    test.clock.advance(91 * DAY);
    let fresh = test.put(b"fresh").await;
    test.store.prove_blob(&repository("quay.io/a"), &fresh);
    assert_eq!(test.store.begin_sweep().concerned().await, [registry("ghcr.io")].into());
}

#[tokio::test]
async fn nothing_of_an_unreachable_registry_expires() {
    let test = TestStore::new();
    let (layer, other) = (test.put(b"layer").await, test.put(b"other").await);
    let image = test.put_image(&layer, &[&layer]).await;
    test.store.prove_manifest(&repository("ghcr.io/a"), &image);
    test.store.prove_blob(&repository("quay.io/a"), &layer);
    test.store.prove_blob(&repository("quay.io/a"), &other);
    test.clock.advance(100 * DAY);
    test.store.begin_sweep().run(&[registry("ghcr.io")]).await.unwrap();
    assert!(test.store.has(&image));
    assert!(test.store.has(&layer), "below a manifest that stays");
    assert!(!test.store.has(&other));
    test.store.begin_sweep().run(&[]).await.unwrap();
    assert_eq!(test.metrics.store_blobs.get(), 0);
}

#[tokio::test]
async fn nothing_expires_where_the_operator_says_never() {
    let test = TestStore::with(Cache { expire_after: None, ..cache() });
    let digest = test.put(b"content").await;
    test.clock.advance(10_000 * DAY);
    test.store.prove_blob(&repository("ghcr.io/a"), &digest);
    assert!(test.store.begin_sweep().concerned().await.is_empty());
    test.store.begin_sweep().run(&[]).await.unwrap();
    assert!(test.store.has(&digest));
}

#[tokio::test]
async fn only_running_time_counts() {
    let mut test = TestStore::new();
    let digest = test.put(b"content").await;
    test.clock.advance(50 * DAY);
    test.clock.jump_wall(400 * DAY);
    test.store.begin_sweep().run(&[]).await.unwrap();
    assert!(test.store.has(&digest));
    test = test.restart().await;
    test.clock.jump_wall(800 * DAY);
    test.store.begin_sweep().run(&[]).await.unwrap();
    assert!(test.store.has(&digest), "off for long");
    test.clock.advance(39 * DAY);
    test.store.begin_sweep().run(&[]).await.unwrap();
    assert!(test.store.has(&digest), "89 days of two lives");
    test.clock.advance(DAY);
    test.store.begin_sweep().run(&[]).await.unwrap();
    assert!(!test.store.has(&digest), "90 days of two lives");
}

#[tokio::test]
async fn last_use_survives_a_restart_and_shows_in_the_file() {
    let mut test = TestStore::new();
    let (used, unused) = (test.put(b"used").await, test.put(b"unused").await);
    test.clock.advance(60 * DAY);
    test.store.touch(&used);
    test.store.close().await;
    test = test.crash();
    let modified = |digest| {
        let metadata = fs::metadata(test.blob_path(digest)).unwrap();
        metadata.modified().unwrap()
    };
    let apart = modified(&used).duration_since(modified(&unused)).unwrap();
    assert!(apart > 59 * DAY, "{apart:?}");
    test.clock.advance(31 * DAY);
    test.store.begin_sweep().run(&[]).await.unwrap();
    assert!(test.store.has(&used));
    assert!(!test.store.has(&unused));
}

#[tokio::test]
async fn without_an_index_everything_was_used_just_now() {
    let mut test = TestStore::new();
    let digest = test.put(b"content").await;
    test.clock.advance(80 * DAY);
    test.store.close().await;
    fs::remove_dir_all(test.path("index")).unwrap();
    test = test.crash();
    eventually("found", || test.store.has(&digest));
    test.clock.advance(80 * DAY);
    test.store.begin_sweep().run(&[]).await.unwrap();
    assert!(test.store.has(&digest));
}

#[tokio::test]
async fn an_hour_passes_between_two_writes_of_one_use() {
    let test = TestStore::new();
    let digest = test.put(b"content").await;
    let pending = || test.store.0.memory.with(|table| table.take_changes(10).blobs.len());
    eventually("written", || pending() == 0);
    test.clock.advance(TOUCH_INTERVAL - Duration::from_secs(10));
    test.store.touch(&digest);
    assert_eq!(pending(), 0);
    test.clock.advance(Duration::from_secs(11));
    test.store.touch(&digest);
    assert_eq!(pending(), 1);
    test.store.touch(&digest);
    assert_eq!(pending(), 0);
}

/// Whose registry could be asked when the sweep began would not have been asked for this.
#[tokio::test]
async fn what_expires_during_a_sweep_stays_until_the_next() {
    let test = TestStore::new();
    let digest = test.put(b"content").await;
    test.clock.advance(89 * DAY);
    let sweep = test.store.begin_sweep();
    test.clock.advance(2 * DAY);
    sweep.run(&[]).await.unwrap();
    assert!(test.store.has(&digest));
    test.store.begin_sweep().run(&[]).await.unwrap();
    assert!(!test.store.has(&digest));
}

#[tokio::test]
async fn use_during_a_sweep_saves() {
    let test = TestStore::new();
    let (used, unused) = (test.put(b"used").await, test.put(b"unused").await);
    test.clock.advance(100 * DAY);
    let now = test.store.0.running.now();
    let victims = test.store.0.choose(Goal::default(), Vec::new(), now);
    assert_eq!(victims.len(), 2);
    test.store.touch(&used);
    test.store.0.remove_victims(&victims, &mut Swept::default(), |_| ());
    assert!(test.store.has(&used));
    assert!(!test.store.has(&unused));
}
