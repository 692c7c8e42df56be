//! Permissions that Larder's user loses and gets back: pulls go on, and the store comes back.

use std::{
    fs::{self, Permissions},
    os::unix::fs::{PermissionsExt as _, chown},
    path::{Path, PathBuf},
};

use crate::{
    impaired::{Impaired, PINNED},
    lab::directory,
    larder::PROGRAM,
    process::wait_for,
};

/// Whom Larder runs as: root may do everything everywhere.
const USER: u32 = 65534;

/// A directory and what is left of its mode: nothing, or all but writing.
const TAKEN: [(&str, u32); 6] = [
    ("", 0o000),
    ("", 0o500),
    ("blobs", 0o000),
    ("blobs/sha256", 0o000),
    ("blobs/sha256", 0o500),
    ("downloads", 0o500),
];

#[test]
fn directories_that_lose_their_permissions_are_lived_through() {
    let directory = directory();
    let (mut larder, data) = start(directory.path());
    for (part, mode) in TAKEN {
        let path = data.join(part);
        let before = mode_of(&path);
        let what = format!("{part:?} with mode {mode:o}");
        larder.lives_through(&what, || set_mode(&path, mode), || set_mode(&path, before));
    }
}

/// It comes from upstream, and a file that can be read takes its place.
#[test]
fn a_blob_without_permissions_is_fetched_anew() {
    let directory = directory();
    let (mut larder, data) = start(directory.path());
    let image = larder.pull_new();
    larder.wait_until_kept();
    let blobs = fs::read_dir(data.join("blobs/sha256")).unwrap();
    let blobs: Vec<PathBuf> = blobs.map(|blob| blob.unwrap().path()).collect();
    assert_eq!(blobs.len(), 4, "index, manifest, config and layer");
    blobs.iter().for_each(|blob| set_mode(blob, 0o000));

    // A life that has manifests in memory would not read them.
    larder.larder.restart();
    wait_for("files that can be read", || {
        larder.pull(&image);
        blobs.iter().all(|blob| mode_of(blob) & 0o400 != 0).then_some(())
    });
    larder.are_kept(&[image]);
}

/// Larder as a user of its own, and where its data is. The program lies where everybody may run it.
fn start(directory: &Path) -> (Impaired, PathBuf) {
    set_mode(directory, 0o755);
    let data = directory.join("larder/data");
    fs::create_dir_all(&data).unwrap();
    chown(&data, Some(USER), Some(USER)).unwrap();
    let copy = directory.join("program");
    fs::copy(PROGRAM, &copy).unwrap();
    let user = format!("setpriv --reuid={USER} --regid={USER} --clear-groups --pdeathsig KILL");
    let program = format!("{user} {}", copy.display());
    (Impaired::start(&program, PINNED, directory), data)
}

fn mode_of(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode()
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}
