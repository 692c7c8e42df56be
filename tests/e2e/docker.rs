//! Docker: a mirror of Docker Hub by `registry-mirrors`, any other registry by its name.

use std::{collections::BTreeMap, fs, thread};

use crate::{
    image::Layout,
    lab::{Lab, OTHER},
    process::{Daemon, contained, run, succeeds, wait_for},
};

/// The main job: pull and run, and again from the store alone.
#[test]
fn pulls_and_runs_with_and_without_upstream() {
    let mut lab = Lab::start();
    let docker = Docker::start(&lab, "docker");
    docker.run("pull busybox");
    assert_eq!(docker.run("run --rm --network none busybox echo ok"), "ok\n");

    docker.run("image rm busybox");
    lab.hub.stop();
    docker.run("pull busybox");
    assert_eq!(docker.run("run --rm --network none busybox echo ok"), "ok\n");

    lab.hub.restart();
    docker.run("pull busybox");
    let requests = lab.hub.requests();
    let sent = requests.blob_gets();
    assert!(!sent.is_empty() && sent.values().all(|gets| *gets == 1), "{sent:?}");
}

#[test]
fn pulls_by_the_name_of_a_second_upstream() {
    let lab = Lab::start();
    let docker = Docker::start(&lab, "docker");
    let image = format!("{}/{OTHER}/team/busybox:1", lab.larder.address());
    docker.run(&format!("pull {image}"));
    assert_eq!(docker.run(&format!("run --rm --network none {image} echo ok")), "ok\n");
}

/// However many ask at once, upstream sends each blob once.
#[test]
fn two_engines_share_one_download() {
    let mut lab = Lab::start();
    let image = Layout::large(&lab.directory().join("large"));
    lab.hub.push(image.path(), "library/large:latest", "--preserve-digests");
    let engines = [Docker::start(&lab, "one"), Docker::start(&lab, "two")];
    thread::scope(|scope| {
        for engine in &engines {
            scope.spawn(|| engine.run("pull large"));
        }
    });

    let once: BTreeMap<&str, usize> = image.blobs().map(|digest| (digest, 1)).collect();
    wait_for("every blob in the access log", || {
        (lab.hub.requests().blob_gets().len() == once.len()).then_some(())
    });
    assert_eq!(lab.hub.requests().blob_gets(), once);
}

/// A `dockerd` in the clients' network with Larder as its mirror.
struct Docker {
    socket: String,
    _daemon: Daemon,
}

impl Docker {
    fn start(lab: &Lab, name: &str) -> Self {
        let directory = lab.directory().join(name).display().to_string();
        fs::create_dir(&directory).unwrap();
        let socket = format!("unix://{directory}/docker.sock");
        let larder = lab.larder.address();
        let line = format!(
            "dockerd --host {socket} --data-root {directory}/data --exec-root {directory}/exec \
             --pidfile {directory}/pid --bridge none --iptables=false --ip6tables=false \
             --registry-mirror http://{larder} --insecure-registry {larder}"
        );
        let mut daemon =
            Daemon::start(name, lab.directory(), &lab.network.inside(&contained(&line)));
        wait_for("dockerd", || {
            daemon.assert_running();
            succeeds(&format!("docker --host {socket} version")).then_some(())
        });
        Self { socket, _daemon: daemon }
    }

    fn run(&self, line: &str) -> String {
        run(&format!("docker --host {} {line}", self.socket))
    }
}
