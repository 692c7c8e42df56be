//! Parts of a blob that are written before what comes ahead of them.

use super::*;
use crate::store::{BlobWriter, PartWriter};

const CONTENT: &[u8] = b"one two three";

/// A writer that has `one ` and, behind a gap, `three`.
async fn with_a_gap(test: &TestStore, digest: &Digest) -> (BlobWriter, PartWriter) {
    let mut writer = test.store.create_blob(digest, Some(13)).await.unwrap();
    writer.leave_to_next(&repository("ghcr.io/a/b")).await;
    let parts = writer.begin_parts().await.unwrap();
    parts.write_at(vec!["three".into()], 8).await.unwrap();
    parts.write_at(vec!["on".into(), "e ".into()], 0).await.unwrap();
    writer.take_in(4).await.unwrap();
    assert_eq!((writer.written(), writer.hashed().unwrap().length), (4, 4));
    (writer, parts)
}

async fn publish(writer: BlobWriter) {
    writer.verify().unwrap().publish().await.unwrap();
}

#[tokio::test]
async fn parts_may_come_in_any_order() {
    let test = TestStore::new();
    let digest = sha256(CONTENT);
    let (mut writer, parts) = with_a_gap(&test, &digest).await;
    parts.write_at(vec!["two ".into()], 4).await.unwrap();
    writer.take_in(13).await.unwrap();
    publish(writer).await;
    assert_eq!(test.read(&digest).await.unwrap(), CONTENT);
}

#[tokio::test]
async fn without_what_is_behind_the_gap_more_can_be_appended() {
    let test = TestStore::new();
    let digest = sha256(CONTENT);
    let (mut writer, _) = with_a_gap(&test, &digest).await;
    writer.drop_parts().await.unwrap();
    writer.append(vec!["two three".into()]).await.unwrap();
    publish(writer).await;
    assert_eq!(test.read(&digest).await.unwrap(), CONTENT);
}

#[tokio::test]
async fn the_next_writer_goes_on_at_the_gap() {
    let mut test = TestStore::new();
    let digest = sha256(CONTENT);
    drop(with_a_gap(&test, &digest).await);
    for _ in 0..2 {
        let writer = test.store.resume_blob(&digest).await.unwrap();
        assert_eq!((writer.written(), writer.size()), (4, Some(13)));
        drop(writer);
        test = test.crash();
    }
    let mut writer = test.store.resume_blob(&digest).await.unwrap();
    writer.append(vec!["two three".into()]).await.unwrap();
    writer.hash_all().await.unwrap();
    publish(writer).await;
    assert_eq!(test.read(&digest).await.unwrap(), CONTENT);
}

/// What the part said was there, and is not, is no part of any blob.
#[tokio::test]
async fn what_was_never_written_cannot_be_taken_in() {
    let test = TestStore::new();
    let digest = sha256(CONTENT);
    let (mut writer, _parts) = with_a_gap(&test, &digest).await;
    assert!(writer.take_in(14).await.is_err());
    assert!(writer.take_in(13).await.is_err(), "it is broken");
    drop(writer);
    assert!(test.store.resume_blob(&digest).await.is_none());
}
