//! Blobs that were left half-written, and the writers that go on with them.

use super::*;

const CONTENT: &[u8] = b"one two three";

/// Leaves the first 8 bytes.
async fn leave(test: &TestStore, digest: &Digest) {
    let mut writer = test.store.create_blob(digest, Some(13)).await.unwrap();
    writer.leave_to_next(&repository("ghcr.io/a/b")).await;
    writer.append(vec!["one two ".into()]).await.unwrap();
}

#[tokio::test]
async fn the_next_writer_goes_on() {
    let mut test = TestStore::new();
    let digest = sha256(CONTENT);
    leave(&test, &digest).await;
    for _ in 0..2 {
        test = test.crash();
        assert!(test.store.is_proved(&repository("ghcr.io/a/b"), &digest));
        let writer = test.store.resume_blob(&digest).await.unwrap();
        assert_eq!((writer.written(), writer.size()), (8, Some(13)));
        assert_eq!(writer.reader().read_at(4, 3).await.unwrap(), "two");
        assert!(test.store.resume_blob(&digest).await.is_none(), "one writer");
    }
    let mut writer = test.store.resume_blob(&digest).await.unwrap();
    for chunk in ["th", "r", "ee"] {
        writer.append(vec![chunk.into()]).await.unwrap();
    }
    writer.hash_all().await.unwrap();
    writer.verify().unwrap().publish().await.unwrap();
    assert_eq!(test.read(&digest).await.unwrap(), CONTENT);
    test.no_downloads_soon();
    assert!(test.store.resume_blob(&digest).await.is_none());
}

/// Room that nobody writes to for now is free for others, however its writer ended.
#[tokio::test]
async fn what_is_left_takes_no_more_than_its_room() {
    use rustix::fs::FallocateFlags;
    use std::os::unix::fs::MetadataExt as _;
    let test = TestStore::new();
    let digest = sha256(CONTENT);
    let file = test.path("downloads").join(format!("sha256-{}", digest.encoded()));
    let used = || fs::metadata(&file).unwrap().blocks() * 512;
    let mut writer = test.store.create_blob(&digest, Some(1 << 24)).await.unwrap();
    writer.leave_to_next(&repository("ghcr.io/a/b")).await;
    writer.append(vec!["one two ".into()]).await.unwrap();
    drop(writer);
    assert!(used() < 1 << 20, "{} bytes for 8", used());

    let as_if_killed = fs::File::options().write(true).open(&file).unwrap();
    rustix::fs::fallocate(&as_if_killed, FallocateFlags::KEEP_SIZE, 0, 1 << 24).unwrap();
    let _test = test.crash();
    assert!(used() < 1 << 20, "{} bytes for 8 of an earlier life", used());
    assert_eq!(fs::read(&file).unwrap(), b"one two ");
}

/// Other readers take turns with the hash of what is left, be it ever so much.
#[test]
fn hashing_what_is_left_holds_no_thread() {
    let runtime = tokio::runtime::Builder::new_current_thread().max_blocking_threads(1).build();
    runtime.unwrap().block_on(async {
        let test = TestStore::new();
        let content = vec![7; 1 << 25];
        let digest = sha256(&content);
        let mut writer = test.store.create_blob(&digest, None).await.unwrap();
        writer.leave_to_next(&repository("ghcr.io/a/b")).await;
        writer.append(vec![content.into()]).await.unwrap();
        drop(writer);
        let mut writer = test.store.resume_blob(&digest).await.unwrap();
        assert_eq!(writer.reader().read_at(0, 1).await.unwrap(), [7_u8][..]);
        assert!(writer.hashing.at_hand().unwrap().is_none(), "hashed before it could be read");
        writer.hash_all().await.unwrap();
        writer.verify().unwrap();
    });
}

#[tokio::test]
async fn a_writer_that_begins_anew_takes_the_place() {
    let test = TestStore::new();
    let digest = sha256(CONTENT);
    leave(&test, &digest).await;
    test.put(CONTENT).await;
    test.no_downloads_soon();
    assert_eq!(test.read(&digest).await.unwrap(), CONTENT);
}

#[tokio::test]
async fn what_is_wrong_is_not_left() {
    let test = TestStore::new();
    let digest = sha256(CONTENT);
    leave(&test, &digest).await;
    let mut writer = test.store.resume_blob(&digest).await.unwrap();
    writer.append(vec!["wrong".into()]).await.unwrap();
    writer.hash_all().await.unwrap();
    assert_eq!(writer.verify().unwrap_err().actual, sha256(b"one two wrong"));
    test.no_downloads_soon();
    leave(&test, &digest).await;
    test.store.resume_blob(&digest).await.unwrap().discard();
    test.no_downloads_soon();
    let writer = test.store.create_blob(&digest, None).await.unwrap();
    writer.leave_to_next(&repository("ghcr.io/a/b")).await;
    drop(writer);
    test.no_downloads_soon();
}

#[tokio::test]
async fn only_files_with_a_note_that_fits_are_left() {
    let mut test = TestStore::new();
    let digest = sha256(CONTENT);
    let file = test.path("downloads").join(format!("sha256-{}", digest.encoded()));
    let note = file.with_extension("json");
    leave(&test, &digest).await;
    let right = fs::read_to_string(&note).unwrap();
    for (content, text) in [
        ("longer than thirteen", right.as_str()),
        ("", &right),
        ("one two ", &right.replace("\"boot\":\"", "\"boot\":\"x")),
        ("one two ", &right.replace("ghcr.io", "")),
        ("one two ", "{"),
    ] {
        fs::write(&file, content).unwrap();
        fs::write(&note, text).unwrap();
        test = test.crash();
        assert_eq!(test.files("downloads"), 0, "{content} {text}");
    }
}

#[tokio::test]
async fn what_nobody_goes_on_with_is_removed() {
    let test = TestStore::new();
    let digest = sha256(CONTENT);
    leave(&test, &digest).await;
    test.clock.advance(DAY - Duration::from_secs(60));
    test.store.begin_sweep().run(&[]).await.unwrap();
    drop(test.store.resume_blob(&digest).await.unwrap());
    test.clock.advance(DAY - Duration::from_secs(60));
    test.store.begin_sweep().run(&[]).await.unwrap();
    assert_eq!(test.files("downloads"), 2);
    test.clock.advance(Duration::from_secs(61));
    test.store.begin_sweep().run(&[]).await.unwrap();
    assert_eq!(test.files("downloads"), 0);
    assert!(test.store.resume_blob(&digest).await.is_none());
}

/// However often a daemon is restarted.
#[tokio::test]
async fn a_restart_makes_what_is_left_no_younger() {
    let mut test = TestStore::new();
    let digest = sha256(CONTENT);
    leave(&test, &digest).await;
    for _ in 0..3 {
        test.clock.advance(DAY / 2 - Duration::from_secs(60));
        test = test.restart().await;
        drop(test.store.resume_blob(&digest).await.unwrap());
    }
    for _ in 0..2 {
        test.store.begin_sweep().run(&[]).await.unwrap();
        assert_eq!(test.files("downloads"), 2);
        test.clock.advance(DAY / 2);
        test = test.restart().await;
    }
    test.store.begin_sweep().run(&[]).await.unwrap();
    assert_eq!(test.files("downloads"), 0);
}
