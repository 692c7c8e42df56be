//! Reading what is in the page cache, and what is not.

use std::fs::File;

use rustix::fs::{Advice, fadvise};

use super::*;
use crate::{
    sendfile::{Outlet, PIECE as PIECE_OF_FILE},
    store::{PIECE, Place, Target},
};

const SIZE: usize = 3 * 1024 * 1024 + 7;

fn content() -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(1);
    (0..SIZE).map(|_| random.u8(..)).collect()
}

/// By reads of any length at any place, before and after the page cache has forgotten the file.
#[tokio::test]
async fn a_blob_is_read_from_wherever_it_is() {
    let (test, content) = (TestStore::new(), content());
    let digest = test.put(&content).await;
    let reader = test.store.open_blob(&digest).await.unwrap().unwrap();
    for (offset, length) in [(0, 1), (0, PIECE), (7, PIECE - 1), (SIZE - 9, PIECE), (SIZE, 1)] {
        for is_forgotten in [false, true] {
            if is_forgotten {
                let file = File::open(test.blob_path(&digest)).unwrap();
                fadvise(&file, 0, None, Advice::DontNeed).unwrap();
            }
            let resident = reader.read_resident(offset as u64, length).unwrap_or_default();
            assert!(content[offset..].starts_with(&resident), "{length} at {offset}");
            let read = reader.read_at(offset as u64, length).await.unwrap();
            assert!(content[offset..].starts_with(&read), "{length} at {offset}");
            assert_eq!(read.is_empty(), offset == SIZE);
        }
    }
}

/// Of a file that the page cache has forgotten, no more is brought for a client than its range wants and the file has.
#[tokio::test]
async fn a_piece_is_brought_from_the_disk() {
    let test = TestStore::new();
    let digest = test.put(&content()).await;
    let reader = test.store.open_blob(&digest).await.unwrap().unwrap();
    let (size, outlet) = (SIZE as u64, Outlet::default());
    let file = File::options().write(true).open(test.blob_path(&digest)).unwrap();
    for (range, expected) in [
        (0..size, PIECE_OF_FILE),
        (7..100_007, 100_000),
        (size - 50_000..size, 50_000),
        (size - 50_000..size + 1, 50_000),
        (size..size + 50_000, 0),
        (0..1000, 0),
    ] {
        fadvise(&file, 0, None, Advice::DontNeed).unwrap();
        let piece = reader.brought_piece(&range).await;
        assert_eq!(piece.map_or(0, |piece| outlet.pass(piece).len()), expected, "{range:?}");
    }
}

/// Whatever the page cache has, no piece reaches past the end of the file.
#[tokio::test]
async fn a_piece_lies_within_the_file() {
    let test = TestStore::new();
    let digest = test.put(&content()).await;
    let reader = test.store.open_blob(&digest).await.unwrap().unwrap();
    let (size, outlet) = (SIZE as u64, Outlet::default());
    for range in
        [0..size, 5..size, size - 100_000..size, size - 100_000..size + 1, size..size + 99_999]
    {
        for cut in [0, 1, 70_000, SIZE as u64 - 50_000] {
            let file = File::options().write(true).open(test.blob_path(&digest)).unwrap();
            file.set_len(size - cut).unwrap();
            let length = reader.piece(&range).map_or(0, |piece| outlet.pass(piece).len());
            assert!(length as u64 <= (size - cut).saturating_sub(range.start), "{range:?}, {cut}");
        }
    }
    assert!(reader.piece(&(0..1000)).is_none());
}

/// Whether this process has a file open that has lost its name, which was this.
fn holds_removed(path: &Path) -> bool {
    let removed = format!("{} (deleted)", path.display());
    let open = fs::read_dir("/proc/self/fd").unwrap();
    let mut links = open.filter_map(|entry| fs::read_link(entry.unwrap().path()).ok());
    links.any(|link| link.as_os_str() == removed.as_str())
}

/// A file that stays open for the next client is the one that is in its place, and takes up no room once it
/// is not.
#[tokio::test]
async fn a_file_that_was_open_is_gone_when_it_is_removed() {
    let test = TestStore::new();
    let (removed, lost) = (test.put(b"removed").await, test.put(b"lost").await);
    for digest in [&removed, &lost] {
        // The first finds the way to the file, the second leaves it open, the third has it from there.
        for _ in 0..3 {
            assert!(test.read(digest).await.is_some());
        }
    }
    test.store.remove(&Target::Untagged(Place::Everywhere)).await.unwrap();
    assert!(test.store.open_blob(&removed).await.unwrap().is_none());
    assert!(!holds_removed(&test.blob_path(&removed)));

    let lost = test.put(b"lost").await;
    for _ in 0..3 {
        assert!(test.read(&lost).await.is_some());
    }
    fs::remove_file(test.blob_path(&lost)).unwrap();
    assert!(test.store.open_blob(&lost).await.unwrap().is_none());
    assert!(!holds_removed(&test.blob_path(&lost)));

    let again = test.put(b"lost").await;
    assert_eq!(test.read(&again).await.unwrap(), b"lost"[..]);
}

/// Its bytes would stay on the disk for as long.
#[tokio::test]
async fn a_file_that_is_replaced_is_not_kept_open() {
    let test = TestStore::new();
    let digest = test.put(b"content").await;
    assert_eq!(test.read(&digest).await.unwrap(), "content");
    test.put(b"content").await;
    let open = fs::read_dir("/proc/self/fd").unwrap().flatten();
    let open: Vec<PathBuf> = open.filter_map(|file| fs::read_link(file.path()).ok()).collect();
    let replaced = format!("{} (deleted)", test.blob_path(&digest).display());
    assert!(!open.contains(&replaced.into()), "{open:?}");
}
