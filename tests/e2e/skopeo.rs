//! skopeo: looks at an image, lists its tags, copies it with all its architectures.

use std::{
    collections::BTreeSet,
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
};

use serde_json::{Value, json};

use crate::{
    engine::Engine,
    lab::{Lab, OTHER},
    phases::pull_cold_warm_stopped,
    process::{run, version},
};

/// What a copy of all architectures takes: two configs, a layer of both, a layer of one.
const ALL_BLOBS: usize = 4;

/// With upstream gone, only an image that Larder holds whole is shown, and the tags of such: hence
/// the copy.
#[test]
fn copies_inspects_and_lists_tags() {
    let mut lab = Lab::start();
    let skopeo = Skopeo::new(&lab);
    let larder = lab.larder.address();
    for (route, repository, tag) in [
        ("the default upstream", format!("{larder}/busybox"), "latest"),
        ("by name: LARDER/REGISTRY/…", format!("{larder}/{OTHER}/team/busybox"), "1"),
    ] {
        let route = format!("copy, inspect, list-tags; {route}");
        let image = format!("docker://{repository}:{tag}");
        skopeo.in_all_phases(&mut lab, &route, 2, || {
            skopeo.copy(&image);
            let inspected = skopeo.json(&format!("inspect --tls-verify=false {image}"));
            assert_eq!(inspected["Os"], "linux");
            let list = skopeo.json(&format!("list-tags --tls-verify=false docker://{repository}"));
            assert_eq!(list["Tags"], json!([tag]));
        });
    }
}

#[test]
fn copies_all_architectures() {
    let mut lab = Lab::start();
    let skopeo = Skopeo::new(&lab);
    let image = blobs(lab.busybox.path());
    let larder = lab.larder.address();
    for (route, source) in [
        ("registries.conf", "docker.io/library/busybox".to_owned()),
        ("the default upstream", format!("{larder}/busybox")),
        ("by name: LARDER/REGISTRY/…", format!("{larder}/docker.io/library/busybox")),
    ] {
        skopeo.in_all_phases(&mut lab, &format!("copy --all, {route}"), ALL_BLOBS, || {
            let copy = skopeo.copy(&format!("--all --preserve-digests docker://{source}"));
            assert_eq!(blobs(&copy), image);
        });
    }
}

#[test]
fn syncs_a_repository_to_a_directory() {
    let mut lab = Lab::start();
    lab.hub.push(lab.busybox.path(), "library/busybox:1", "--preserve-digests");
    let skopeo = Skopeo::new(&lab);
    let source = format!("{}/docker.io/library/busybox", lab.larder.address());
    skopeo.in_all_phases(&mut lab, "sync --all, by name: LARDER/REGISTRY/…", ALL_BLOBS, || {
        let copy = skopeo.target();
        skopeo.run(&format!(
            "sync --all --scoped --src docker --src-tls-verify=false --dest dir {source} {}",
            copy.display()
        ));
        let tags = ["1", "latest"].map(|tag| copy.join(format!("{source}:{tag}")));
        assert!(tags.iter().all(|tag| tag.join("manifest.json").exists()), "{tags:?}");
    });
}

/// skopeo where Larder is all there is.
struct Skopeo {
    engine: Engine,
    version: String,
}

impl Skopeo {
    fn new(lab: &Lab) -> Self {
        let engine = Engine::new(lab, "skopeo");
        lab.larder.configure("podman", engine.directory());
        Self { engine, version: version("skopeo") }
    }

    fn in_all_phases(&self, lab: &mut Lab, route: &str, blobs: usize, pull: impl Fn()) {
        pull_cold_warm_stopped(lab, &self.version, route, blobs, pull);
    }

    /// An empty place to copy to.
    fn target(&self) -> PathBuf {
        let target = self.engine.directory().join("copy");
        if target.exists() {
            fs::remove_dir_all(&target).unwrap();
        }
        target
    }

    /// Copies to an OCI layout.
    fn copy(&self, source: &str) -> PathBuf {
        let copy = self.target();
        self.run(&format!("copy --quiet --src-tls-verify=false {source} oci:{}", copy.display()));
        copy
    }

    fn json(&self, line: &str) -> Value {
        serde_json::from_str(&self.run(line)).unwrap()
    }

    fn run(&self, line: &str) -> String {
        run(&self.engine.line(&format!("skopeo --insecure-policy {line}")))
    }
}

/// The names of a layout's blobs.
fn blobs(layout: &Path) -> BTreeSet<OsString> {
    let blobs = fs::read_dir(layout.join("blobs/sha256")).unwrap();
    blobs.map(|blob| blob.unwrap().file_name()).collect()
}
