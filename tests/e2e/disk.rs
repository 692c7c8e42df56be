//! A disk that is full, fails, is read-only or gone: pulls go on, and the store comes back.

use crate::{
    impaired::{Impaired, LAYER, PINNED},
    lab::directory,
    larder::PROGRAM,
    process::wait_for,
    small_disk::Disk,
};

/// What nobody pulled for longest may go, but only for what the disk refuses.
const UNPINNED: &str = r#"
[cache]
min_free = "0B"
max_size = "100%"
sweep_interval = "365d"
"#;

#[test]
fn every_trouble_with_the_disk_is_lived_through() {
    let directory = directory();
    let disk = Disk::new(directory.path());
    let mut larder = Impaired::start(&disk.inside(PROGRAM), PINNED, directory.path());
    let (fill, empty) = (|| disk.fill(&disk.data()), || disk.empty(&disk.data()));
    larder.lives_through("a full disk", fill, empty);
    larder.lives_through("no inodes", || disk.take_inodes(), || disk.give_inodes());
    larder.lives_through("a read-only mount", || disk.forbid_writing(), || disk.unmount());
    larder.lives_through("no mount", || disk.unmount(), || disk.mount_again());
    larder.starts_with(fill, empty);
    // Last: it may leave the file system at odds with itself.
    larder.lives_through("input/output errors", || disk.fail(), || disk.heal());
}

/// What was unused longest leaves for what another program writes, before anyone sweeps.
#[test]
fn a_full_disk_is_given_room_at_once() {
    let directory = directory();
    let disk = Disk::new(directory.path());
    let mut larder = Impaired::start(&disk.inside(PROGRAM), UNPINNED, directory.path());
    let images: Vec<String> = (0..12).map(|_| larder.pull_new()).collect();
    disk.take_but(512 * 1024);
    wait_for("room", || (larder.evicted() > 0.0).then_some(()));
    larder.wait_until_writable();
    let kept = larder.pull_new();
    assert!(larder.evicted() < 6.0 * LAYER as f64, "{}", larder.evicted());
    larder.are_kept(&[images[11].clone(), kept]);
    assert!(disk.data().join("ballast").exists());
}
