//! The limits: what is held counts, what does not fit goes or passes, in the right order.

use std::{io, os::unix::fs::MetadataExt as _};

use super::*;
use crate::store::trial::DiskKeeper;

const MIB: u64 = 1 << 20;

/// A store that may hold so much beside what an empty one takes up.
async fn roomy(mib: u64) -> TestStore {
    let test = TestStore::new();
    let empty = used(&test) + 2 * MIB;
    drop(test);
    TestStore::with(limited_to(empty + mib * MIB))
}

fn limited_to(bytes: u64) -> Cache {
    Cache { max_size: Size::Bytes(bytes), ..cache() }
}

/// What the data directory takes up on disk, as `du` says.
fn used(test: &TestStore) -> u64 {
    fn below(path: &Path) -> u64 {
        let metadata = fs::symlink_metadata(path).unwrap();
        let entries = fs::read_dir(path).into_iter().flatten();
        metadata.blocks() * 512 + entries.map(|entry| below(&entry.unwrap().path())).sum::<u64>()
    }
    below(test.directory.path())
}

/// So many bytes that no other blob has.
fn content(n: u8, mib: u64) -> Vec<u8> {
    vec![n; usize::try_from(mib * MIB).unwrap()]
}

fn evicted(test: &TestStore, reason: &str) -> u64 {
    test.metrics.evicted_blobs.with_label_values(&[reason]).get()
}

#[tokio::test]
async fn the_least_recently_used_makes_room() {
    let test = roomy(10).await;
    let mut blobs = Vec::new();
    for n in 0..9 {
        blobs.push(test.put(&content(n, 1)).await);
    }
    test.store.touch(&blobs[0]);
    let new = test.put(&content(9, 2)).await;
    assert!(test.store.has(&new) && test.store.has(&blobs[0]));
    assert!(!test.store.has(&blobs[1]), "unused longest");
    assert!(!test.blob_path(&blobs[1]).exists());
    assert!(test.store.has(&blobs[8]), "no more than needed");
    let gone = blobs.iter().filter(|blob| !test.store.has(blob)).count();
    assert_eq!(evicted(&test, "max_size"), gone as u64);
    assert!(test.metrics.store_limit_bytes.get() > 10 * (1 << 20));
}

#[tokio::test]
async fn what_never_fits_evicts_nothing() {
    let test = roomy(4).await;
    let kept = test.put(&content(0, 1)).await;
    let refused = test.store.create_blob(&sha256(b"x"), Some(5 * MIB)).await;
    assert!(matches!(refused, Err(CannotTake::NoRoom(_))), "{refused:?}");
    assert!(test.store.has(&kept));
}

/// What is promised to one is not promised to another, and nobody waits in vain.
#[tokio::test]
async fn many_at_once_do_not_pass_the_limit() {
    let test = roomy(8).await;
    let limit = test.cache.max_size.of(0);
    let digests: Vec<Digest> = (0..20u8).map(|n| sha256(&[n])).collect();
    let writers = digests.iter().map(|digest| test.store.create_blob(digest, Some(MIB)));
    let writers = futures_util::future::join_all(writers).await;
    let taken = writers.iter().filter(|writer| writer.is_ok()).count();
    assert!((6..=8).contains(&taken), "{taken}");
    assert!(used(&test) <= limit, "{} of {limit}", used(&test));
    drop(writers);
    test.no_downloads_soon();
    eventually("room is given back", || test.store.0.room.ledger().held() == 0);
}

#[tokio::test]
async fn room_that_is_given_back_is_waited_for() {
    let test = roomy(4).await;
    let first = test.store.create_blob(&sha256(b"first"), Some(3 * MIB)).await.unwrap();
    let second = sha256(b"second");
    let waiting = test.store.create_blob(&second, Some(3 * MIB));
    let give_back = async {
        tokio::task::yield_now().await;
        drop(first);
    };
    let (second, ()) = futures_util::future::join(waiting, give_back).await;
    second.unwrap();
}

#[tokio::test]
async fn what_was_left_half_done_goes_first() {
    let test = roomy(8).await;
    let kept = test.put(&content(0, 2)).await;
    let left = sha256(b"left");
    let mut writer = test.store.create_blob(&left, Some(4 * MIB)).await.unwrap();
    writer.leave_to_next(&repository("ghcr.io/a")).await;
    writer.append(vec![content(1, 3).into()]).await.unwrap();
    drop(writer);
    let new = test.put(&content(2, 4)).await;
    assert!(test.store.has(&kept) && test.store.has(&new));
    assert!(test.store.resume_blob(&left).await.is_none());
    assert_eq!((evicted(&test, "partial"), evicted(&test, "max_size")), (1, 0));
}

#[tokio::test]
async fn a_manifest_goes_before_its_layers() {
    let test = roomy(9).await;
    let mut images = Vec::new();
    for n in 0..4 {
        let layer = test.put(&content(n, 2)).await;
        let image = test.put_image(&layer, &[&layer]).await;
        test.store.touch(&image);
        images.push((image, layer));
    }
    test.put(&content(9, 2)).await;
    for (image, layer) in &images {
        assert!(!test.store.has(image) || test.store.has(layer), "a manifest without its layer");
    }
    assert!(!test.store.has(&images[0].0) && test.store.has(&images[3].0));
}

#[tokio::test]
async fn a_lower_limit_is_kept_from_the_next_life_on() {
    let mut test = TestStore::new();
    let mut blobs = Vec::new();
    for n in 0..8 {
        blobs.push(test.put(&content(n, 1)).await);
        test.clock.advance(Duration::from_secs(1));
    }
    test.store.close().await;
    test.cache = limited_to(used(&test) - 2 * MIB);
    let limit = test.cache.max_size.of(0);
    test = test.crash();
    test.store.begin_sweep().run(&[]).await.unwrap();
    assert!(used(&test) <= limit, "{} of {limit}", used(&test));
    assert!(!test.store.has(&blobs[0]) && test.store.has(&blobs[7]));
}

/// Nothing that Larder can do frees that much: another program has the disk.
#[tokio::test]
async fn a_full_disk_takes_half_of_the_cache_a_day() {
    let cache = Cache { min_free: Some(Size::Percent(100)), ..cache() };
    let mut test = TestStore::new();
    for n in 0..32 {
        test.put(&content(n, 1)).await;
    }
    test.cache = cache;
    test = test.restart().await;
    let blobs = |test: &TestStore| test.metrics.store_blobs.get();
    for _ in 0..3 {
        test.store.begin_sweep().run(&[]).await.unwrap();
        assert!((15..=17).contains(&blobs(&test)), "{}", blobs(&test));
    }
    assert_eq!(evicted(&test, "min_free") as i64, 32 - blobs(&test));
    test.clock.advance(DAY);
    test.store.begin_sweep().run(&[]).await.unwrap();
    assert!((7..=9).contains(&blobs(&test)), "{}", blobs(&test));
}

/// Each life finds less than the one before, and it is the same day.
#[tokio::test]
async fn a_full_disk_takes_no_more_for_a_restart() {
    let mut test = TestStore::new();
    for n in 0..32 {
        test.put(&content(n, 1)).await;
    }
    test.cache.min_free = Some(Size::Percent(100));
    let blobs = |test: &TestStore| test.metrics.store_blobs.get();
    for _ in 0..3 {
        test = test.restart().await;
        test.store.begin_sweep().run(&[]).await.unwrap();
        assert!((15..=17).contains(&blobs(&test)), "{}", blobs(&test));
    }
    test.store.write_now().await.unwrap();
    test = test.crash();
    test.store.begin_sweep().run(&[]).await.unwrap();
    assert!((15..=17).contains(&blobs(&test)), "{}", blobs(&test));
    test.clock.advance(DAY);
    test = test.restart().await;
    test.store.begin_sweep().run(&[]).await.unwrap();
    assert!((7..=9).contains(&blobs(&test)), "{}", blobs(&test));
}

/// Nobody waits for the schedule: another program may need the room now.
#[tokio::test]
async fn a_disk_that_others_fill_is_given_room_at_once() {
    let mut test = TestStore::new();
    for n in 0..32 {
        test.put(&content(n, 1)).await;
    }
    test.cache.min_free = Some(Size::Percent(100));
    test = test.restart().await;
    eventually("half has gone", || test.metrics.store_blobs.get() <= 17);
    eventually("half stays, whatever is refused", || !test.store.0.relieve(MIB));
    let left = test.metrics.store_blobs.get();
    assert!((15..=17).contains(&left), "{left}");
    eventually("it is counted", || evicted(&test, "min_free") as i64 == 32 - left);
}

/// A quota of which the file system says nothing: room is taken, and then there is none.
#[tokio::test]
async fn what_a_quota_refuses_is_made_room_for() {
    let test = TestStore::new();
    for n in 0..32 {
        test.put(&content(n, 1)).await;
    }
    let refuse = |mib: u64| {
        let quota = io::ErrorKind::QuotaExceeded.into();
        test.store.0.health.suspect_refusal(&quota, mib * MIB);
    };
    refuse(6);
    eventually("there is room", || test.metrics.store_blobs.get() < 32);
    eventually("that is all", || test.metrics.store_blobs.get() == 32 - 10);
    assert_eq!(test.store.trouble(), None);
    assert!(!test.store.0.relieve(30 * MIB), "what never fits evicts nothing");
    assert_eq!(evicted(&test, "min_free"), 10);
}

/// The second look comes before the file system says that there is room.
#[tokio::test]
async fn what_has_just_gone_is_not_made_up_for_by_more() {
    let test = TestStore::new();
    test.store.looked_around().await;
    for n in 0..32 {
        test.put(&content(n, 1)).await;
    }
    let mut keeper = DiskKeeper::new(Arc::downgrade(&test.store.0));
    for _ in 0..2 {
        keeper.relieve(&test.store.0, 6 * MIB);
        assert_eq!(test.metrics.store_blobs.get(), 32 - 10);
    }
}

/// What cannot be fetched again, or is to stay, stays.
#[tokio::test]
async fn a_full_disk_takes_nothing_that_is_pinned_or_offline() {
    let mut test = TestStore::with(Cache { offline: true, ..cache() });
    let (image, ..) = test.put_tagged("v1").await;
    test.put(&content(1, 4)).await;
    assert!(!test.store.0.relieve(MIB));
    test.cache.offline = false;
    test = test.restart().await;
    test.store.0.memory.with(|table| table.pin(&super::image(&format!("{APP}:v1")))).unwrap();
    assert!(test.store.0.relieve(MIB));
    assert!(test.store.has(&image));
    assert_eq!(test.metrics.store_blobs.get(), 3, "the image alone is left");
    assert!(!test.store.0.relieve(4096));
}

/// Before that, a layer may be here whose image is not known yet, and is pinned.
#[tokio::test]
async fn nothing_goes_before_all_files_are_known() {
    let test = roomy(4).await;
    test.store.looked_around().await;
    let kept = test.put(&content(0, 3)).await;
    test.clock.advance(200 * DAY);
    test.store.0.looked_around.send_replace(false);
    let sweep = test.store.begin_sweep();
    let sweep = tokio::spawn(async move { sweep.run(&[]).await });
    let (new, size) = (sha256(b"new"), Some(3 * MIB));
    let refused = test.store.create_blob(&new, size).await;
    assert!(matches!(refused, Err(CannotTake::NoRoom(_))));
    assert!(test.store.has(&kept) && !sweep.is_finished());

    test.store.0.looked_around.send_replace(true);
    sweep.await.unwrap().unwrap();
    assert!(!test.store.has(&kept));
    test.store.create_blob(&new, size).await.unwrap();
}

#[tokio::test]
async fn small_files_count_as_their_blocks() {
    let test = TestStore::new();
    for n in 0..50u8 {
        test.put(&[n]).await;
    }
    let totals = test.store.0.memory.look(|table| table.totals());
    assert_eq!((totals.bytes, totals.blocks), (50, 50));
}

/// What is set aside still takes its room: whatever takes the place of it needs its own.
#[tokio::test]
async fn what_is_in_quarantine_counts_at_once() {
    let (content, test) = (content(7, 1), TestStore::with(limited_to(100 * MIB)));
    let digest = test.put(&content).await;
    let over = || test.store.0.room.goal(Some(1 << 30)).unwrap().least;
    let before = over();
    fs::write(test.blob_path(&digest), &content[1..]).unwrap();
    assert!(test.read(&digest).await.is_none());
    assert!(test.path("quarantine").read_dir().unwrap().count() == 1 && over() >= before);
}

/// Of little room, next to nothing is for what nobody can use.
#[tokio::test]
async fn the_quarantine_takes_a_small_part_of_the_cache() {
    let (content, test) = (content(7, 1), TestStore::with(limited_to(9 * MIB)));
    let digest = test.put(&content).await;
    fs::write(test.blob_path(&digest), &content[1..]).unwrap();
    assert!(test.read(&digest).await.is_none());
    let left = test.path("quarantine").read_dir().unwrap().next().unwrap().unwrap();
    assert_eq!(left.metadata().unwrap().len(), 0, "its name");
}
