//! Manifests, tags, proofs, and `index.json`.

use serde_json::Value;

use super::*;
use crate::{oci::Visibility, store::Verdict};

fn index_json(test: &TestStore) -> Value {
    let text = fs::read(test.path("index.json")).unwrap();
    serde_json::from_slice(&text).unwrap()
}

/// The full names in `index.json`, and that both annotations agree.
fn names(test: &TestStore) -> Vec<String> {
    let json = index_json(test);
    let manifests = json["manifests"].as_array().unwrap().clone();
    let name = |one: &Value| {
        let annotations = &one["annotations"];
        let name = annotations["org.opencontainers.image.ref.name"].as_str();
        assert_eq!(annotations["io.containerd.image.name"].as_str(), name);
        name.unwrap().to_owned()
    };
    manifests.iter().map(name).collect()
}

/// What is said of a repository outlives the process, and in the end not the repository's content.
#[tokio::test]
async fn who_may_see_a_repository_is_remembered_while_it_has_content() {
    let test = TestStore::new();
    let [kept, idle] = ["docker.io/team/kept", "docker.io/team/idle"].map(repository);
    let verdict =
        |visibility, store: &TestStore| Verdict { visibility, checked_at: store.clock.wall() };
    let index = test.put_index(&[]).await;
    test.store.set_tag(&kept, &tag("v1"), &index, test.clock.wall());
    let (private, public) =
        (verdict(Visibility::Private, &test), verdict(Visibility::Public, &test));
    test.store.judge(&kept, private);
    test.store.judge(&idle, public);

    let test = test.restart().await;
    assert_eq!(test.store.verdict(&kept), Some(private));
    assert_eq!(test.store.verdict(&idle), Some(public));
    let with_private = test.store.registries_with_private();
    assert_eq!(with_private.into_iter().collect::<Vec<_>>(), [kept.registry().clone()]);

    test.clock.advance(2 * DAY);
    test.store.begin_sweep().run(&[]).await.unwrap();
    let test = test.restart().await;
    assert_eq!(test.store.verdict(&kept), Some(private));
    assert_eq!(test.store.verdict(&idle), None);
}

#[tokio::test]
async fn manifests_tags_and_proofs_survive_a_restart() {
    let mut test = TestStore::new();
    let (config, layer) = (test.put(b"{}").await, test.put(b"layer").await);
    let image = test.put_image(&config, &[&layer]).await;
    let index = test.put_index(&[&image]).await;
    let (busybox, other) = (repository("docker.io/library/busybox"), repository("ghcr.io/a/b"));
    test.store.set_tag(&busybox, &tag("latest"), &index, SystemTime::now());
    test.store.prove_manifest(&busybox, &image);
    test.store.prove_blob(&busybox, &layer);
    let before = test.store.tag(&busybox, &tag("latest")).unwrap();
    for crash in [false, true, false] {
        if crash {
            eventually("index.json has both", || names(&test).len() == 2);
            test = test.crash();
        } else {
            test = test.restart().await;
        }
        let store = &test.store;
        assert_eq!(store.tag(&busybox, &tag("latest")), Some(before.clone()));
        assert_eq!(store.tag(&other, &tag("latest")), None);
        assert_eq!(store.tag(&busybox, &tag("other")), None);
        assert_eq!(store.tags(&busybox), [(tag("latest"), before.checked_at)]);
        assert_eq!(store.tags(&other), []);
        for digest in [&index, &image, &layer] {
            assert!(store.is_proved(&busybox, digest));
            assert!(!store.is_proved(&other, digest));
        }
        assert!(!store.is_proved(&busybox, &config));
        assert!(store.is_listed(&busybox, &config));
        assert!(!store.is_listed(&other, &config));
        assert!(!store.is_listed(&busybox, &image), "an index lists no blobs");
        assert_eq!(test.children(&image), Some(vec![config.clone(), layer.clone()]));
        assert_eq!(store.nesting_above(&image), 1);
        let (manifest, bytes) = store.manifest(&index).await.unwrap().unwrap();
        assert_eq!(sha256(&bytes), index);
        assert_eq!(manifest.children.digests().collect::<Vec<_>>(), [&image]);
        assert!(store.manifest(&layer).await.unwrap().is_none());
        assert!(store.manifest(&config).await.unwrap().is_none());
    }
}

#[tokio::test]
async fn the_directory_is_an_image_layout_at_all_times() {
    let test = TestStore::new();
    let marker = fs::read_to_string(test.path("oci-layout")).unwrap();
    assert_eq!(marker, r#"{"imageLayoutVersion":"1.0.0"}"#);
    assert_eq!(names(&test), Vec::<String>::new());
    let index = test.put_index(&[]).await;
    let old = test.put_manifest(r#"{"schemaVersion":2,"manifests":[] }"#).await;
    let repository = repository("localhost:5000/a/b");
    test.store.set_tag(&repository, &tag("v1"), &old, SystemTime::now());
    test.store.set_tag(&repository, &tag("v1"), &index, SystemTime::now());
    test.store.set_tag(&repository, &tag("v2"), &sha256(b"not here"), SystemTime::now());
    eventually("written", || names(&test).len() == 2);
    let written = ["localhost:5000/a/b:v1".to_owned(), format!("localhost:5000/a/b@{old}")];
    assert_eq!(names(&test), written);
    let json = index_json(&test);
    assert_eq!(json["schemaVersion"], 2);
    let first = &json["manifests"][0];
    assert_eq!(first["digest"], index.to_string());
    assert_eq!(first["size"], 34);
    assert_eq!(first["mediaType"], crate::oci::OCI_INDEX);
    assert!(first["annotations"]["io.larder.checked-at"].is_string());
    test.store.drop_tag(&repository, &tag("v1"));
    test.store.close().await;
    assert_eq!(names(&test).len(), 2, "the manifest is still asked for by digest");
    assert_eq!(test.store.tag(&repository, &tag("v1")), None);
    assert!(!names(&test).contains(&"localhost:5000/a/b:v1".to_owned()));
}

#[tokio::test]
async fn index_json_rests_between_writes() {
    use std::os::unix::fs::MetadataExt as _;
    let test = TestStore::new();
    let index = test.put_index(&[]).await;
    let (repository, mut files) = (repository("ghcr.io/a"), std::collections::BTreeSet::new());
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(2) || files.len() < 2 {
        assert!(begun.elapsed() < PATIENCE, "never written");
        test.store.set_tag(&repository, &tag("v1"), &index, SystemTime::now());
        files.insert(fs::metadata(test.path("index.json")).unwrap().ctime_nsec());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // The one of the beginning, one at once, and then two in a second.
    let most = 2 + begun.elapsed().as_millis() / 500;
    assert!(files.len() as u128 <= most, "{} writes", files.len());
}

#[tokio::test]
async fn a_manifest_stored_twice_is_one() {
    let test = TestStore::new();
    let digest = test.put_index(&[]).await;
    let json = r#"{"schemaVersion":2,"manifests":[]}"#;
    let puts = (0..8).map(|_| test.put_manifest(json));
    futures_util::future::join_all(puts).await;
    assert_eq!(test.metrics.store_blobs.get(), 1);
    assert!(test.store.manifest(&digest).await.unwrap().is_some());
    test.no_downloads_soon();
}

#[tokio::test]
async fn a_damaged_manifest_is_quarantined_and_can_be_stored_again() {
    let test = TestStore::new();
    let json = r#"{"schemaVersion":2,"manifests":[]}"#;
    let digest = test.put_manifest(json).await;
    let swapped = r#"{"manifests":[],"schemaVersion":2}"#;
    assert_eq!(swapped.len(), json.len());
    fs::write(test.blob_path(&digest), swapped).unwrap();
    assert!(test.store.manifest(&digest).await.unwrap().is_none());
    assert_eq!(test.metrics.store_damaged_blobs.get(), 1);
    test.put_manifest(json).await;
    assert!(test.store.manifest(&digest).await.unwrap().is_some());
}

#[tokio::test]
async fn a_blob_that_is_a_manifest_is_one_when_asked_for() {
    let test = TestStore::new();
    let layer = test.put(b"layer").await;
    let json = format!(r#" {{"schemaVersion":2,"config":{0},"layers":[{0}]}}"#, descriptor(&layer));
    let digest = test.put(json.as_bytes()).await;
    assert_eq!(test.children(&digest), None);
    assert!(test.store.manifest(&digest).await.unwrap().is_some());
    assert_eq!(test.children(&digest).unwrap().len(), 2);
}
