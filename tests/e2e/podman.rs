//! Podman and Buildah: a `registries.conf` whose mirrors are Larder, each registry by a path of its
//! own.

use std::fs;

use crate::{
    engine::Engine,
    lab::Lab,
    phases::pull_cold_warm_stopped,
    process::{run, version},
};

/// The lab's image of each registry.
const IMAGES: [&str; 2] = ["docker.io/library/busybox:latest", "registry.test/team/busybox:1"];

#[test]
fn podman_pulls_and_runs() {
    let mut lab = Lab::start();
    let podman = Client::new(&lab, "podman", "--cgroup-manager cgroupfs --events-backend none");
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
        let built = buildah.run(&format!("build --network none {}", context.display()));
        built.lines().find(|line| *line == "ok").unwrap_or_default().to_owned() + "\n"
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
        let tmp = if name == "podman" { format!("--tmpdir {path}/tmp") } else { String::new() };
        let line = engine
            .line(&format!("{name} --root {path}/root --runroot {path}/runroot {tmp} {options}"));
        Self { engine, line, version: version(name) }
    }

    /// Has `pull` pull an image and run its `echo ok`.
    fn in_all_phases(&self, lab: &mut Lab, route: &str, pull: impl Fn() -> String) {
        pull_cold_warm_stopped(lab, &self.version, route, 2, || {
            assert_eq!(pull(), "ok\n");
            self.run("rmi --all --force");
        });
    }

    fn run(&self, line: &str) -> String {
        run(&format!("{} {line}", self.line))
    }
}
