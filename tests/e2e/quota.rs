//! A quota that is used up: pulls go on, and the store comes back.
//!
//! The quota is btrfs's own, because every kernel that has btrfs has it. Those of ext4, XFS and tmpfs are parts
//! that a kernel may have been built without. Where btrfs is missing too, the test fails.

use crate::{
    impaired::{Impaired, PINNED},
    lab::directory,
    larder::PROGRAM,
    small_disk::Disk,
};

/// Less than is held anyway: nothing more can be written.
const LESS: &str = "64K";

#[test]
fn a_quota_that_is_used_up_is_lived_through() {
    let directory = directory();
    let disk = Disk::with_quota(directory.path());
    let mut larder = Impaired::start(&disk.inside(PROGRAM), PINNED, directory.path());
    larder.lives_through("a quota that is used up", || disk.limit(LESS), || disk.limit("none"));
    larder.starts_with(|| disk.limit(LESS), || disk.limit("none"));
}
