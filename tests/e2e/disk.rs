//! A disk that is full, fails, is read-only or gone: pulls go on, and the store comes back.

use crate::{
    impaired::{Impaired, PINNED},
    lab::directory,
    larder::PROGRAM,
    small_disk::Disk,
};

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
    larder.lives_through("input/output errors", || disk.fail(), || disk.heal());
    larder.starts_with(fill, empty);
}
