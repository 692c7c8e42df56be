//! Pins: what they keep, and that they outlive whatever becomes of index, `index.json` and files.

use super::*;
use crate::store::Written;

impl TestStore {
    fn pinned(&self) -> Vec<String> {
        self.store.pins().iter().map(|pin| pin.image.to_string()).collect()
    }

    async fn sweep_after(&self, time: Duration) {
        self.clock.advance(time);
        self.store.begin_sweep().run(&[]).await.unwrap();
    }
}

#[tokio::test]
async fn what_is_pinned_stays_with_everything_below() {
    let test = TestStore::new();
    let kept = test.put_tagged("kept").await;
    let index = test.put_index(&[&kept.0]).await;
    test.store.set_tag(&repository(APP), &tag("multi"), &index, test.clock.wall());
    let unused = test.put_tagged("unused").await;
    let pinned = image("docker.io/team/app:multi");
    let extent = test.store.pin(&pinned).await.unwrap().unwrap();
    assert_eq!(extent.digest, index);
    assert_eq!(test.store.pinned_bytes().await.unwrap(), extent.bytes);
    let by_digest = image(&format!("{APP}@{}", kept.0));
    assert!(test.store.pin(&by_digest).await.unwrap().unwrap().bytes < extent.bytes);
    assert_eq!(test.store.pinned_bytes().await.unwrap(), extent.bytes, "counted once");

    test.sweep_after(200 * DAY).await;
    for digest in [&index, &kept.0, &kept.1, &kept.2] {
        assert!(test.store.has(digest));
    }
    for digest in [&unused.0, &unused.1, &unused.2] {
        assert!(!test.store.has(digest));
    }
    assert!(test.store.unpin(&pinned));
    assert!(!test.store.unpin(&pinned), "it was none any more");
    test.sweep_after(200 * DAY).await;
    assert!(!test.store.has(&index));
    assert!(test.store.has(&kept.2), "the image is pinned by digest as well");
}

#[tokio::test]
async fn what_is_not_here_cannot_be_pinned() {
    let test = TestStore::new();
    let (manifest, _, layer) = test.put_tagged("v1").await;
    test.store.set_tag(&repository(APP), &tag("gone"), &sha256(b"gone"), test.clock.wall());
    test.store.prove_blob(&repository(APP), &layer);
    for name in [
        "docker.io/team/app:v2".to_owned(),
        "docker.io/team/app:gone".to_owned(),
        format!("docker.io/team/other@{manifest}"),
        format!("{APP}@{layer}"),
    ] {
        assert_eq!(test.store.pin(&image(&name)).await.unwrap(), None, "{name}");
    }
    assert_eq!(test.pinned(), Vec::<String>::new());
}

/// The pin goes with the tag, and of a tag that is gone it keeps what it meant.
#[tokio::test]
async fn a_pin_follows_its_tag() {
    let test = TestStore::new();
    let old = test.put_tagged("v1").await;
    let name = image("docker.io/team/app:v1");
    test.store.pin(&name).await.unwrap().unwrap();
    let new = test.put_tagged("v2").await;
    test.store.set_tag(&repository(APP), &tag("v1"), &new.0, test.clock.wall());
    test.store.drop_tag(&repository(APP), &tag("v1"));
    test.sweep_after(200 * DAY).await;
    assert!(!test.store.has(&old.0) && !test.store.has(&old.2));
    assert!(test.store.has(&new.0) && test.store.has(&new.2));
    let test = test.restart().await;
    assert_eq!(test.store.pins()[0].held, new.0);
}

/// Pins are in the index and in `index.json`, and whichever is lost learns of them from the other.
#[tokio::test]
async fn pins_outlive_the_index_and_index_json_lost_in_turn() {
    let mut test = TestStore::new();
    let (manifest, ..) = test.put_tagged("v1").await;
    let other = test.put_tagged("v2").await;
    let names = ["docker.io/team/app:v1".to_owned(), format!("{APP}@{}", other.0)];
    for name in &names {
        test.store.pin(&image(name)).await.unwrap().unwrap();
    }
    // A pin needs no content: not that of a damaged file, nor the tag.
    fs::write(test.blob_path(&manifest), b"short").unwrap();
    assert!(test.store.open_blob(&manifest).await.unwrap().is_none());
    let losses: [fn(&TestStore); 5] = [
        |test| fs::remove_dir_all(test.path("index")).unwrap(),
        |test| fs::remove_file(test.path("index.json")).unwrap(),
        |test| {
            fs::remove_dir_all(test.path("index")).unwrap();
            fs::write(test.path("index"), b"garbage").unwrap();
        },
        |test| fs::write(test.path("index.json"), b"{\"manifests\":[").unwrap(),
        |_| (),
    ];
    for lose in losses {
        test.store.close().await;
        lose(&test);
        test = test.crash();
        let mut expected = names.to_vec();
        expected.sort();
        assert_eq!(test.pinned(), expected);
        assert_eq!(test.store.pins()[0].held, manifest);
        test.store.write_now().await.unwrap();
    }
    for name in &names {
        assert!(test.store.unpin(&image(name)));
    }
    let test = test.restart().await;
    assert_eq!(test.pinned(), Vec::<String>::new());
}

/// What the answer waits for is what a crash finds.
#[tokio::test]
async fn what_is_written_now_survives_a_crash() {
    let test = TestStore::new();
    test.put_tagged("v1").await;
    let name = image("docker.io/team/app:v1");
    test.store.pin(&name).await.unwrap().unwrap();
    assert_eq!(test.store.write_now().await.unwrap(), Written::Everywhere);
    let test = test.crash();
    assert_eq!(test.pinned(), ["docker.io/team/app:v1"]);
    test.store.unpin(&name);
    assert_eq!(test.store.write_now().await.unwrap(), Written::Everywhere);
    let test = test.crash();
    assert_eq!(test.pinned(), Vec::<String>::new());
    test.store.close().await;
    assert_eq!(test.store.write_now().await.unwrap(), Written::Nowhere, "nobody writes any more");
}
