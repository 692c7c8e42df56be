//! What is kept, image by image and in bytes.

use super::*;
use crate::store::{Grouping, Image, Inspected, PlatformState};

const CONFIG: &[u8] = br#"{"os":"linux","architecture":"arm64","variant":"v8"}"#;

async fn images(test: &TestStore) -> Vec<Image> {
    let mut images = test.store.images().await.unwrap();
    images.sort_by_key(ToString::to_string);
    images
}

/// Name, size and unique size of each.
async fn sizes(test: &TestStore) -> Vec<(String, u64, u64)> {
    let images = images(test).await.into_iter();
    images.map(|image| (image.to_string(), image.size, image.unique_size)).collect()
}

async fn inspected(test: &TestStore, digest: &Digest) -> Inspected {
    let mut images = test.store.images().await.unwrap();
    images.retain(|image| image.digest == *digest);
    let inspected = test.store.inspect(images).await.unwrap();
    inspected.into_iter().next().unwrap().1
}

fn states(inspected: &Inspected) -> Vec<(String, PlatformState)> {
    let name = |platform: &Option<_>| platform.as_ref().map_or("?".to_owned(), ToString::to_string);
    inspected.platforms.iter().map(|here| (name(&here.platform), here.state)).collect()
}

fn size_of(test: &TestStore, digest: &Digest) -> u64 {
    fs::metadata(test.blob_path(digest)).unwrap().len()
}

#[tokio::test]
async fn an_image_is_as_large_as_what_is_below_it_and_unique_is_what_no_other_needs() {
    let test = TestStore::new();
    let (shared, own) = (test.put(&[b's'; 1000]).await, test.put(&[b'o'; 300]).await);
    let (config, other_config) = (test.put(CONFIG).await, test.put(b"{}").await);
    let first = test.put_image(&config, &[&shared, &own]).await;
    let second = test.put_image(&other_config, &[&shared]).await;
    let (x, y) = (repository("docker.io/library/x"), repository("ghcr.io/a/y"));
    let now = SystemTime::now();
    test.store.set_tag(&x, &tag("1"), &first, now);
    test.store.set_tag(&y, &tag("1"), &second, now);
    let (first_size, second_size) = (size_of(&test, &first), size_of(&test, &second));
    let config_size = CONFIG.len() as u64;
    let x1 = "docker.io/library/x:1".to_owned();
    let y1 = "ghcr.io/a/y:1".to_owned();
    let all_of_first = first_size + config_size + 1300;
    let second_only = second_size + 2;
    assert_eq!(
        sizes(&test).await,
        [
            (x1.clone(), all_of_first, all_of_first - 1000),
            (y1.clone(), second_only + 1000, second_only),
        ]
    );

    // With a second name, nothing is freed when one of them goes.
    test.store.set_tag(&x, &tag("also"), &first, now);
    let also = "docker.io/library/x:also".to_owned();
    assert_eq!(
        sizes(&test).await,
        [(x1, all_of_first, 0), (also, all_of_first, 0), (y1, second_only + 1000, second_only),]
    );
}

#[tokio::test]
async fn what_has_no_tag_is_an_image_unless_an_index_has_it() {
    let test = TestStore::new();
    let (config, layer) = (test.put(CONFIG).await, test.put(b"layer").await);
    let platform = test.put_image(&config, &[&layer]).await;
    let index = test.put_index(&[&platform]).await;
    let (x, y) = (repository("docker.io/library/x"), repository("docker.io/library/y"));
    test.store.set_tag(&x, &tag("1"), &index, SystemTime::now());
    test.store.prove_manifest(&x, &platform);
    test.store.prove_manifest(&y, &platform);
    let names = async || sizes(&test).await.into_iter().map(|(name, ..)| name).collect::<Vec<_>>();
    let of_y = format!("docker.io/library/y@{platform}");
    assert_eq!(names().await, ["docker.io/library/x:1".to_owned(), of_y.clone()]);

    // The tag moves on: the index it meant is an image without a tag.
    let next = test.put_index(&[]).await;
    test.store.set_tag(&x, &tag("1"), &next, SystemTime::now());
    let before = format!("docker.io/library/x@{index}");
    assert_eq!(names().await, ["docker.io/library/x:1".to_owned(), before, of_y]);

    // What is gone is no image, and neither is a list of referrers.
    let list = test.put_manifest(r#"{"schemaVersion":2,"manifests":[] }"#).await;
    test.store.set_referrers(&y, &platform, &list, SystemTime::now());
    fs::remove_file(test.blob_path(&platform)).unwrap();
    assert!(test.store.open_blob(&platform).await.unwrap().is_none());
    assert_eq!(names().await.len(), 2);
}

#[tokio::test]
async fn each_platform_is_told_with_how_much_of_it_is_here() {
    let test = TestStore::new();
    let (config, layer) = (test.put(CONFIG).await, test.put(b"layer").await);
    let missing = sha256(b"missing");
    let whole = test.put_image(&config, &[&layer]).await;
    let begun = test.put_image(&config, &[&layer, &missing]).await;
    let elsewhere = descriptor(&missing).replacen('{', r#"{"urls":["https://a/b"],"#, 1);
    let foreign =
        format!(r#"{{"schemaVersion":2,"config":{},"layers":[{elsewhere}]}}"#, descriptor(&config));
    let foreign = test.put_manifest(&foreign).await;
    let absent = sha256(b"absent");
    let entry =
        |digest: &Digest, more: &str| descriptor(digest).replacen('{', &format!("{{{more},"), 1);
    let platform = |arch: &str| format!(r#""platform":{{"os":"linux","architecture":"{arch}"}}"#);
    let entries = [
        entry(&whole, &platform("amd64")),
        entry(&begun, &platform("arm64")),
        entry(&foreign, &platform("s390x")),
        entry(&absent, &platform("riscv64")),
        entry(&sha256(b"attestation"), r#""annotations":{"vnd.docker.reference.type":"x"}"#),
        descriptor(&sha256(b"unnamed")),
    ];
    let index = format!(r#"{{"schemaVersion":2,"manifests":[{}]}}"#, entries.join(","));
    let index = test.put_manifest(&index).await;
    let repository = repository("docker.io/library/x");
    test.store.set_tag(&repository, &tag("1"), &index, SystemTime::now());
    test.store.set_tag(&repository, &tag("2"), &begun, SystemTime::now());
    use PlatformState::{Absent, Complete, Partial};
    assert_eq!(
        states(&inspected(&test, &index).await),
        [
            ("linux/amd64".to_owned(), Complete),
            ("linux/arm64".to_owned(), Partial),
            ("linux/s390x".to_owned(), Complete),
            ("linux/riscv64".to_owned(), Absent),
            ("?".to_owned(), Absent),
        ]
    );
    let of_one = inspected(&test, &begun).await;
    assert_eq!(states(&of_one), [("linux/arm64/v8".to_owned(), Partial)]);
    if let Some(added) = of_one.added {
        assert!(added.elapsed().unwrap() < DAY, "{added:?}");
    }
}

/// Nothing that upstream may put there, or that happens to the disk, ends a listing.
#[tokio::test]
async fn damaged_files_are_listed_without_platforms() {
    let test = TestStore::new();
    let config = test.put(b"\xff no JSON").await;
    let image = test.put_image(&config, &[]).await;
    let index = test.put_index(&[&image]).await;
    let repository = repository("docker.io/library/x");
    test.store.set_tag(&repository, &tag("1"), &index, SystemTime::now());
    test.store.set_tag(&repository, &tag("2"), &image, SystemTime::now());
    let of_image = states(&inspected(&test, &image).await);
    assert_eq!(of_image, [("?".to_owned(), PlatformState::Complete)]);
    fs::write(test.blob_path(&index), b"[[[").unwrap();
    assert!(inspected(&test, &index).await.platforms.is_empty());
    fs::remove_file(test.blob_path(&index)).unwrap();
    let gone = inspected(&test, &index).await;
    assert!(gone.platforms.is_empty() && gone.added.is_none());
}

#[tokio::test]
async fn usage_tells_who_needs_what_and_what_nobody_needs() {
    let test = TestStore::new();
    let (shared, own) = (test.put(&[b's'; 1000]).await, test.put(&[b'o'; 300]).await);
    let orphan = test.put(&[b'x'; 70]).await;
    let (config, other_config) = (test.put(CONFIG).await, test.put(b"{}").await);
    let first = test.put_image(&config, &[&shared, &own]).await;
    let second = test.put_image(&other_config, &[&shared]).await;
    let (x, y) = (repository("docker.io/library/x"), repository("docker.io/library/y"));
    let now = SystemTime::now();
    test.store.set_tag(&x, &tag("1"), &first, now);
    test.store.set_tag(&x, &tag("2"), &first, now);
    test.store.set_tag(&y, &tag("1"), &second, now);
    test.store.prove_blob(&y, &orphan);
    fs::create_dir(test.path("quarantine")).unwrap();
    fs::write(test.path("quarantine/sha256-x"), [0; 40]).unwrap();
    fs::create_dir(test.path("index.damaged-1")).unwrap();
    fs::write(test.path("index.damaged-1/db"), [0; 50]).unwrap();
    fs::write(test.path("downloads/something"), [0; 60]).unwrap();

    let usage = test.store.usage(Grouping::Repository).await.unwrap();
    let users: Vec<_> = usage
        .users
        .iter()
        .map(|user| {
            (user.name.as_ref().unwrap().as_str(), user.images, user.bytes, user.unique_bytes)
        })
        .collect();
    let own_of_first = size_of(&test, &first) + CONFIG.len() as u64 + 300;
    let own_of_second = size_of(&test, &second) + 2;
    assert_eq!(
        users,
        [
            ("library/x", 2, own_of_first + 1000, own_of_first),
            ("library/y", 1, own_of_second + 1000, own_of_second),
        ]
    );
    assert_eq!((usage.shared.blobs, usage.shared.bytes), (1, 1000));
    assert_eq!((usage.unused.blobs, usage.unused.bytes), (1, 70));
    assert_eq!(usage.blobs.blobs, 7);
    assert_eq!(usage.blobs.bytes, own_of_first + own_of_second + 1000 + 70);
    assert_eq!((usage.quarantine, usage.damaged_indexes, usage.downloads), (40, 50, 60));
    assert_eq!(usage.reclaimable(), 70 + 40 + 50);
    assert!(usage.disk.free <= usage.disk.total);
    assert_eq!(usage.limits.min_free, test.cache.min_free_bytes(usage.disk.total));

    let usage = test.store.usage(Grouping::Registry).await.unwrap();
    let all = own_of_first + own_of_second + 1000;
    assert_eq!(usage.users.len(), 1);
    assert!(usage.users[0].name.is_none());
    assert_eq!(
        (usage.users[0].images, usage.users[0].bytes, usage.users[0].unique_bytes),
        (3, all, all)
    );
    assert_eq!(usage.shared.bytes, 0);
}

/// What was left by a pull that broke off is of no use until somebody goes on with it.
#[tokio::test]
async fn a_left_download_is_reclaimable_and_one_in_progress_is_not() {
    let test = TestStore::new();
    let digest = sha256(b"whole blob");
    let mut writer = test.store.create_blob(&digest, Some(10)).await.unwrap();
    writer.append(vec!["whole".into()]).await.unwrap();
    let usage = test.store.usage(Grouping::Registry).await.unwrap();
    assert!(usage.downloads >= 5, "{usage:?}");
    assert_eq!(usage.left_downloads, 0);
    writer.leave_to_next(&repository("docker.io/library/x")).await;
    drop(writer);
    eventually("the download to be left", || {
        let usage = test.store.0.usage(Grouping::Registry).unwrap();
        usage.left_downloads == usage.downloads && usage.left_downloads > 5
    });
}
