//! Podman and Buildah: a `registries.conf` whose mirrors are Larder, each registry by a path of its
//! own.

use std::fs;

use crate::{
    engine::Engine,
    lab::{IMAGES, Lab},
    phases::pull_cold_warm_stopped,
    process::{run, version},
};

#[test]
fn podman_pulls_and_runs() {
    let mut lab = Lab::start();
    let tmp = lab.directory().join("podman/tmp");
    let options =
        format!("--tmpdir {} --cgroup-manager cgroupfs --events-backend none", tmp.display());
    let podman = Client::new(&lab, "podman", &options);
    for image in IMAGES {
        podman.in_all_phases(&mut lab, &format!("registries.conf, {image}"), || {
            podman.run(&format!("pull {image}"));
            podman.run(&format!("run --rm --network none --log-driver none {image} echo ok"))
        });
    }
    let named = format!("{}/docker.io/library/busybox", lab.larder.address());
    podman.in_all_phases(&mut lab, "by name: LARDER/REGISTRY/…", || {
        podman.run(&format!("pull --tls-verify=false {named}"));
        podman.run(&format!("run --rm --network none --log-driver none {named} echo ok"))
    });
}

#[test]
fn buildah_pulls_and_builds() {
    let mut lab = Lab::start();
    let buildah = Client::new(&lab, "buildah", "");
    for image in IMAGES {
        buildah.in_all_phases(&mut lab, &format!("from, registries.conf, {image}"), || {
            let container = buildah.run(&format!("from {image}"));
            buildah.run(&format!("run --network none {} echo ok", container.trim()))
        });
    }
    let context = buildah.engine.directory().join("context");
    fs::create_dir(&context).unwrap();
    fs::write(context.join("Containerfile"), format!("FROM {}\nRUN echo ok\n", IMAGES[0])).unwrap();
    buildah.in_all_phases(&mut lab, "build, registries.conf", || {
        buildah.run(&format!("build --network none {}", context.display()))
    });
}

/// One of the two, with a storage of the test's own.
struct Client {
    engine: Engine,
    line: String,
    version: String,
}

impl Client {
    fn new(lab: &Lab, name: &str, options: &str) -> Self {
        let engine = Engine::new(lab, name);
        lab.larder.configure("podman", engine.directory());
        let path = engine.directory().display();
        let line =
            engine.line(&format!("{name} --root {path}/root --runroot {path}/runroot {options}"));
        Self { engine, line, version: version(name) }
    }

    /// Has `pull` pull an image and run its `echo ok`, and removes all images.
    fn in_all_phases(&self, lab: &mut Lab, route: &str, pull: impl Fn() -> String) {
        pull_cold_warm_stopped(lab, &self.version, route, 2, || {
            assert!(pull().lines().any(|line| line == "ok"));
            self.run("rmi --all --force");
        });
    }

    fn run(&self, line: &str) -> String {
        run(&format!("{} {line}", self.line))
    }
}
