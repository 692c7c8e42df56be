//! skopeo: looks at an image and copies all its architectures.

use std::{collections::BTreeSet, ffi::OsString, fs, path::Path};

use serde_json::Value;

use crate::{
    lab::{Lab, OTHER},
    process::run,
};

#[test]
fn inspects() {
    let lab = Lab::start();
    let larder = lab.larder.address();
    let skopeo = lab.network.inside("skopeo --insecure-policy inspect --tls-verify=false");
    for image in ["busybox", &format!("{OTHER}/team/busybox:1")] {
        let image = run(&format!("{skopeo} docker://{larder}/{image}"));
        let image: Value = serde_json::from_str(&image).unwrap();
        assert_eq!(image["Os"], "linux");
    }
}

#[test]
fn copies_all_architectures() {
    let lab = Lab::start();
    let copy = lab.directory().join("copy");
    run(&lab.network.inside(&format!(
        "skopeo --insecure-policy copy --quiet --all --preserve-digests --src-tls-verify=false \
         docker://{}/library/busybox oci:{}",
        lab.larder.address(),
        copy.display()
    )));
    assert_eq!(blobs(&copy), blobs(lab.busybox.path()));
}

/// The names of a layout's blobs.
fn blobs(layout: &Path) -> BTreeSet<OsString> {
    let blobs = fs::read_dir(layout.join("blobs/sha256")).unwrap();
    blobs.map(|blob| blob.unwrap().file_name()).collect()
}
