//! Podman: a `registries.conf` whose mirrors are Larder, each registry by a path of its own.

use std::fs;

use crate::{
    lab::{Lab, OTHER},
    process::{contained, run},
};

#[test]
fn pulls_and_runs_by_registries_conf() {
    let lab = Lab::start();
    let podman = podman(&lab);
    for image in ["docker.io/library/busybox:latest", "registry.test/team/busybox:1"] {
        run(&format!("{podman} pull {image}"));
        let ran =
            run(&format!("{podman} run --rm --network none --log-driver none {image} echo ok"));
        assert_eq!(ran, "ok\n");
    }
}

/// The line that runs podman in the clients' network, with a storage of the test's own.
fn podman(lab: &Lab) -> String {
    let directory = lab.directory().join("podman");
    fs::create_dir(&directory).unwrap();
    let larder = lab.larder.address();
    let mirrors = ["docker.io", OTHER].map(|registry| {
        format!(
            "[[registry]]\nlocation = \"{registry}\"\n\n\
             [[registry.mirror]]\nlocation = \"{larder}/{registry}\"\ninsecure = true\n\n"
        )
    });
    fs::write(directory.join("registries.conf"), mirrors.concat()).unwrap();
    let path = directory.display();
    lab.network.inside(&contained(&format!(
        "env CONTAINERS_REGISTRIES_CONF={path}/registries.conf podman --root {path}/root \
         --runroot {path}/runroot --tmpdir {path}/tmp --cgroup-manager cgroupfs \
         --events-backend none"
    )))
}
