//! Writing, publishing and reading blobs.

use super::*;

#[tokio::test]
async fn blobs_survive_a_clean_end_and_a_crash() {
    let mut test = TestStore::new();
    let digest = test.put(b"layer").await;
    let empty = test.put(b"").await;
    let wide = Digest::of(Algorithm::Sha512, b"wide");
    test.put_as(&wide, b"wide").await;
    for crash in [false, true] {
        test = if crash { test.crash() } else { test.restart().await };
        assert_eq!(test.read(&digest).await.unwrap(), "layer");
        assert_eq!(test.read(&empty).await.unwrap(), "");
        assert_eq!(test.read(&wide).await.unwrap(), "wide");
        assert_eq!(test.store.blob_size(&wide).await.unwrap(), Some(4));
    }
    eventually("the gauges count them", || {
        test.metrics.store_blobs.get() == 3 && test.metrics.store_bytes.get() == 9
    });
    assert_eq!(test.files("downloads"), 0);
    assert_eq!(test.metrics.store_writable.get(), 1);
    assert!(test.metrics.store_free_bytes.get() > 0);
}

#[tokio::test]
async fn one_process_has_the_directory() {
    let test = TestStore::new();
    let path = test.directory.path();
    let error = Store::open(path, &test.cache, test.clock.clone(), Arc::default()).unwrap_err();
    let process = std::process::id().to_string();
    assert!(error.to_string().contains(&process), "{error}");
    assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
}

#[tokio::test]
async fn a_directory_that_cannot_be_used_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    fs::write(&file, b"").unwrap();
    let path = file.join("data");
    let error = Store::open(&path, &cache(), Clock::system(), Arc::default()).unwrap_err();
    assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
    assert!(error.to_string().contains("--data-dir"), "{error}");
}

#[tokio::test]
async fn wrong_bytes_leave_nothing() {
    let test = TestStore::new();
    let digest = sha256(b"right");
    let mut writer = test.store.create_blob(&digest, Some(5)).await.unwrap();
    writer.append(vec!["wrong".into()]).await.unwrap();
    let error = writer.verify().unwrap_err();
    assert_eq!(error.actual, sha256(b"wrong"));
    test.no_downloads_soon();
    assert_eq!(test.store.blob_size(&digest).await.unwrap(), None);
    test.put(b"right").await;
    assert_eq!(test.read(&digest).await.unwrap(), "right");
}

#[tokio::test]
async fn a_dropped_writer_leaves_nothing_and_frees_the_digest() {
    let test = TestStore::new();
    let digest = sha256(b"content");
    for _ in 0..20 {
        let size = Some(64 * 1024 * 1024);
        let mut writer = test.store.create_blob(&digest, size).await.unwrap();
        writer.append(vec!["cont".into()]).await.unwrap();
    }
    let mut writer = test.store.create_blob(&digest, None).await.unwrap();
    writer.append(vec!["content".into()]).await.unwrap();
    drop(writer.verify().unwrap());
    test.no_downloads_soon();
    assert!(test.read(&digest).await.is_none());
}

#[tokio::test]
async fn a_digest_has_one_writer() {
    let test = TestStore::new();
    let digest = sha256(b"content");
    let writer = test.store.create_blob(&digest, None).await.unwrap();
    let second = test.store.create_blob(&digest, None).await;
    assert!(matches!(
        second,
        Err(CannotTake::Failing(error)) if error.kind() == std::io::ErrorKind::AlreadyExists
    ));
    assert_eq!(test.metrics.store_writable.get(), 1);
    drop(writer);
    test.put(b"content").await;
}

#[tokio::test]
async fn an_append_that_was_dropped_breaks_the_writer() {
    let test = TestStore::new();
    let digest = sha256(b"content");
    let mut writer = test.store.create_blob(&digest, None).await.unwrap();
    writer.append(vec!["content".into()]).await.unwrap();
    let more = vec![Bytes::from(vec![1; 1 << 20]); 8];
    assert!(futures_util::FutureExt::now_or_never(writer.append(more)).is_none());
    assert!(writer.append(vec!["x".into()]).await.is_err());
    assert!(writer.verify().is_err());
}

/// Over several turns, and beyond what was reserved.
#[tokio::test]
async fn what_comes_meanwhile_is_appended_too() {
    let test = TestStore::new();
    let chunks: Vec<Bytes> = (0..20).map(|n| Bytes::from(vec![n; 1 << 20])).collect();
    let content = chunks.concat();
    let digest = sha256(&content);
    let mut writer = test.store.create_blob(&digest, Some(3 << 20)).await.unwrap();
    let growing = writer.reader().file().clone();
    let mut given = 0;
    let source = chunks.into_iter().inspect(move |chunk| {
        assert_eq!(growing.metadata().unwrap().len(), given, "what came before is there");
        given += chunk.len() as u64;
    });
    assert!(writer.append(source).await.unwrap().next().is_none());
    assert_eq!(writer.written(), content.len() as u64);
    writer.verify().unwrap().publish().await.unwrap();
    assert!(test.read(&digest).await.unwrap() == content);
}

#[tokio::test]
async fn followers_read_the_growing_file() {
    let test = TestStore::new();
    let digest = sha256(b"one two three");
    let mut writer = test.store.create_blob(&digest, None).await.unwrap();
    writer.append(vec!["one ".into(), "two ".into()]).await.unwrap();
    assert_eq!(writer.written(), 8);
    let follower = writer.reader();
    assert_eq!(follower.size(), 8);
    assert_eq!(follower.read_at(4, 3).await.unwrap(), "two");
    assert_eq!(follower.read_at(8, 9).await.unwrap(), "");
    writer.append(vec!["three".into()]).await.unwrap();
    assert_eq!(follower.read_at(8, 9).await.unwrap(), "three");
    writer.verify().unwrap().publish().await.unwrap();
    assert_eq!(follower.read_at(0, 3).await.unwrap(), "one");
    let reader = test.store.open_blob(&digest).await.unwrap().unwrap();
    assert_eq!(reader.size(), 13);
    assert_eq!(reader.read_at(13, 1).await.unwrap(), "");
    let file = fs::File::options().write(true).open(test.blob_path(&digest));
    file.unwrap().set_len(2).unwrap();
    let error = reader.read_at(4, 1).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::UnexpectedEof);
}

#[tokio::test]
async fn room_is_reserved_and_given_back() {
    use std::os::unix::fs::MetadataExt as _;
    let test = TestStore::new();
    let content = vec![7; 100_000];
    let digest = sha256(&content);
    let mut writer = test.store.create_blob(&digest, None).await.unwrap();
    writer.append(vec![content.clone().into()]).await.unwrap();
    let growing = test.path("downloads").join(format!("sha256-{}", digest.encoded()));
    assert_eq!(fs::metadata(&growing).unwrap().len(), 100_000);
    writer.verify().unwrap().publish().await.unwrap();
    let used = fs::metadata(test.blob_path(&digest)).unwrap().blocks() * 512;
    assert!(used < 1 << 20, "{used} bytes for 100,000");
}

#[tokio::test]
async fn min_free_stays_free() {
    let mut cache = cache();
    cache.min_free = Some(Size::Percent(100));
    let test = TestStore::with(cache);
    let digest = sha256(b"content");
    for size in [Some(7), None] {
        let refused = test.store.create_blob(&digest, size).await;
        assert!(matches!(refused, Err(CannotTake::NoRoom(_))), "{refused:?}");
    }
    test.no_downloads_soon();
    let json = r#"{"schemaVersion":2,"manifests":[]}"#;
    let manifest = Manifest::parse(json.as_bytes(), None).unwrap();
    let digest = sha256(json.as_bytes());
    let refused = test.store.put_manifest(&digest, &manifest, &json.into()).await;
    assert!(matches!(refused, Err(CannotTake::NoRoom(_))), "{refused:?}");
    test.no_downloads_soon();
    assert_eq!(test.metrics.store_writable.get(), 1);
}

#[tokio::test]
async fn more_than_was_announced_is_taken_too() {
    let test = TestStore::new();
    let digest = sha256(b"longer than it said");
    let mut writer = test.store.create_blob(&digest, Some(3)).await.unwrap();
    for chunk in ["longer ", "than ", "it ", "said"] {
        writer.append(vec![chunk.into()]).await.unwrap();
    }
    writer.verify().unwrap().publish().await.unwrap();
    assert_eq!(test.read(&digest).await.unwrap(), "longer than it said");
}

#[tokio::test]
async fn a_blob_of_the_wrong_size_is_quarantined() {
    let test = TestStore::new();
    for n in 0..12 {
        let digest = test.put(format!("content {n}").as_bytes()).await;
        fs::write(test.blob_path(&digest), b"short").unwrap();
        assert!(test.read(&digest).await.is_none());
        assert!(!test.store.has(&digest));
        assert!(!test.blob_path(&digest).exists());
        assert_eq!(test.metrics.store_damaged_blobs.get(), n + 1);
    }
    let quarantined = fs::read_dir(test.path("quarantine")).unwrap();
    let sizes: Vec<u64> = quarantined.map(|file| file.unwrap().metadata().unwrap().len()).collect();
    assert_eq!(sizes.len(), 12);
    assert_eq!(sizes.iter().sum::<u64>(), 8 * 5, "only the last few are kept");
    let digest = test.put(b"content 0").await;
    assert_eq!(test.read(&digest).await.unwrap(), "content 0");
}

#[tokio::test]
async fn the_table_follows_the_disk() {
    let test = TestStore::new();
    let digest = test.put(b"content").await;
    fs::remove_file(test.blob_path(&digest)).unwrap();
    assert!(test.store.has(&digest));
    assert!(test.read(&digest).await.is_none());
    assert_eq!(test.store.blob_size(&digest).await.unwrap(), None);
    fs::write(test.blob_path(&digest), b"content").unwrap();
    assert_eq!(test.store.blob_size(&digest).await.unwrap(), Some(7));
    assert_eq!(test.read(&digest).await.unwrap(), "content");
}

#[tokio::test]
async fn other_errors_are_no_miss() {
    let test = TestStore::new();
    let digest = sha256(b"content");
    let path = test.blob_path(&digest);
    std::os::unix::fs::symlink(path.file_name().unwrap(), &path).unwrap();
    assert!(test.store.open_blob(&digest).await.is_err());
}
