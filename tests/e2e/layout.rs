//! skopeo reads Larder's live data directory as the OCI image layout that it is.

use std::{
    fs,
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use crate::{
    lab::{IMAGES, Lab, OTHER},
    process::{run, wait_for},
};

/// Tags that are pulled, each for the first time, while the directory is read.
const TAGS: usize = 8;

/// Both images are for two platforms, of which one was pulled.
#[test]
fn skopeo_copies_from_the_live_directory() {
    let mut lab = Lab::start();
    for tag in 0..TAGS {
        lab.hub.push(lab.busybox.path(), &format!("library/busybox:{tag}"), "--preserve-digests");
    }
    let larder = lab.larder.address();
    let data_dir = lab.larder.data_dir();
    pull(&lab, &format!("{larder}/busybox"));
    pull(&lab, &format!("{larder}/{OTHER}/team/busybox:1"));
    wait_for("both images in index.json", || {
        let index = fs::read_to_string(data_dir.join("index.json")).unwrap();
        IMAGES.iter().all(|image| index.contains(image)).then_some(())
    });

    let pulled = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            for tag in 0..TAGS {
                pull(&lab, &format!("{larder}/busybox:{tag}"));
            }
            pulled.store(true, Ordering::Relaxed);
        });
        while !pulled.load(Ordering::Relaxed) {
            for image in IMAGES {
                read(&lab, &data_dir, image);
            }
        }
    });
    read(&lab, &data_dir, &format!("docker.io/library/busybox:{}", TAGS - 1));
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
