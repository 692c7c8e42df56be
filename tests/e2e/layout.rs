//! skopeo reads Larder's live data directory as the OCI image layout that it is: what has OCI's media
//! types. In a layout it passes over descriptors of Docker's.

use std::{
    fs,
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use crate::{
    lab::{IMAGES, Lab},
    process::{run, wait_for},
};

/// Tags that are pulled, each for the first time, while the directory is read.
const TAGS: usize = 8;

/// The image is for two platforms, of which one was pulled.
#[test]
fn skopeo_copies_from_the_live_directory() {
    let mut lab = Lab::start();
    for tag in 0..TAGS {
        lab.hub.push(lab.busybox.path(), &format!("library/busybox:{tag}"), "--preserve-digests");
    }
    let larder = lab.larder.address();
    let (data_dir, [image, _]) = (lab.larder.data_dir(), IMAGES);
    pull(&lab, &format!("{larder}/busybox"));
    wait_until_named(&data_dir, image);

    let pulled = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            for tag in 0..TAGS {
                pull(&lab, &format!("{larder}/busybox:{tag}"));
            }
            pulled.store(true, Ordering::Relaxed);
        });
        while !pulled.load(Ordering::Relaxed) {
            read(&lab, &data_dir, image);
        }
    });
    let last = format!("docker.io/library/busybox:{}", TAGS - 1);
    wait_until_named(&data_dir, &last);
    read(&lab, &data_dir, &last);
}

fn wait_until_named(data_dir: &Path, image: &str) {
    wait_for("the image in index.json", || {
        let index = fs::read_to_string(data_dir.join("index.json")).unwrap();
        index.contains(image).then_some(())
    });
}

/// Pulls one platform of an image through Larder.
fn pull(lab: &Lab, image: &str) {
    let target = tempfile::tempdir_in(lab.directory()).unwrap();
    let skopeo = "skopeo --insecure-policy copy --quiet --src-tls-verify=false";
    run(&lab.network.inside(&format!("{skopeo} docker://{image} dir:{}", target.path().display())));
}

/// Looks at an image in the directory, and copies it out of there.
fn read(lab: &Lab, data_dir: &Path, image: &str) {
    let target = tempfile::tempdir_in(lab.directory()).unwrap();
    let source = format!("oci:{}:{image}", data_dir.display());
    let inspected = run(&format!("skopeo inspect {source}"));
    assert!(inspected.contains(r#""Os": "linux""#), "{inspected}");
    let skopeo = "skopeo --insecure-policy copy --quiet";
    run(&format!("{skopeo} {source} dir:{}", target.path().display()));
}
