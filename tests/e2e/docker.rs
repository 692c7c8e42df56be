//! Docker: a mirror of Docker Hub by `registry-mirrors`, any other registry by its name; and the
//! BuildKit inside `dockerd`, which resolves images as containerd does.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, thread,
};

use crate::{
    engine::Engine,
    image::Layout,
    lab::{Lab, OTHER},
    phases::pull_cold_warm_stopped,
    process::{Daemon, run, succeeds, version, wait_for},
};

/// Debian's client, whichever other is in the path: it belongs to the engine, and builds by the
/// engine's BuildKit without a plugin, or with Debian's.
const CLIENT: &str = "/usr/bin/docker";

#[test]
fn pulls_by_tag_digest_and_name() {
    let mut lab = Lab::start();
    let docker = Docker::start(&lab, "docker");
    docker.pull_and_run(&mut lab, "registry-mirrors, tag", "busybox");
    let digest = lab.busybox.digest().to_owned();
    docker.pull_and_run(&mut lab, "registry-mirrors, digest", &format!("busybox@{digest}"));
    let other = format!("{}/{OTHER}/team/busybox:1", lab.larder.address());
    docker.pull_and_run(&mut lab, "by name: LARDER/REGISTRY/…", &other);
}

#[test]
fn pulls_all_tags() {
    let mut lab = Lab::start();
    lab.hub.push(lab.busybox.path(), "library/busybox:1", "--preserve-digests");
    let docker = Docker::start(&lab, "docker");
    pull_cold_warm_stopped(&mut lab, &docker.version, "registry-mirrors, pull -a", 2, || {
        docker.run("pull --all-tags busybox");
        let tags = docker.run("images --format {{.Tag}} busybox");
        assert_eq!(tags.lines().collect::<BTreeSet<_>>(), BTreeSet::from(["1", "latest"]));
        docker.forget_images();
    });
}

#[test]
fn builds_from_a_mirrored_image() {
    let mut lab = Lab::start();
    let docker = Docker::start(&lab, "docker");
    let context = lab.directory().join("context");
    fs::create_dir(&context).unwrap();
    fs::write(context.join("Dockerfile"), "FROM busybox\nRUN echo ok > /built\n").unwrap();
    pull_cold_warm_stopped(
        &mut lab,
        &docker.version,
        "registry-mirrors, docker build (BuildKit, `ns`)",
        2,
        || {
            docker.run(&format!("build --network none --tag built {}", context.display()));
            assert_eq!(docker.run("run --rm --network none built cat /built"), "ok\n");
            docker.forget_images();
        },
    );
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
    let requests = lab.hub.requests();
    println!("asked of upstream: {requests}");
    assert_eq!(requests.blob_gets(), once);
}

/// An upstream that dies three times in the middle of a pull is no concern of the client.
#[test]
fn notices_nothing_of_an_upstream_that_dies() {
    const MIB: f64 = 1024.0 * 1024.0;
    let mut lab = Lab::start();
    let image = Layout::large(&lab.directory().join("large"));
    lab.hub.push(image.path(), "library/large:latest", "--preserve-digests");
    let docker = Docker::start(&lab, "docker");
    let output = thread::scope(|scope| {
        let pull = scope.spawn(|| docker.run("pull large"));
        for received in [30.0, 80.0, 130.0] {
            wait_for("the middle of the image", || {
                let bytes = lab.larder.metric("larder_upstream_bytes_total");
                (bytes > received * MIB).then_some(())
            });
            lab.hub.stop();
            lab.hub.restart();
        }
        pull.join().unwrap()
    });

    assert!(!output.contains("Retrying"), "{output}");
    let log = docker.daemon.log();
    assert!(!log.contains("next endpoint") && !log.contains("retrying"), "{log}");
    let file = |digest: &str| image.path().join("blobs").join(digest.replace(':', "/"));
    let size: u64 = image.blobs().map(|digest| fs::metadata(file(digest)).unwrap().len()).sum();
    let resumes = lab.larder.metric("larder_download_resumes_total");
    let received = lab.larder.metric("larder_upstream_bytes_total") / size as f64;
    println!("{resumes} resumes, {received:.3} times the image from upstream");
    assert!(resumes >= 3.0);
    assert!(received < 1.05);
}

/// A `dockerd` in the clients' network with Larder as its mirror.
struct Docker {
    socket: String,
    version: String,
    daemon: Daemon,
}

impl Docker {
    fn start(lab: &Lab, name: &str) -> Self {
        let engine = Engine::new(lab, name);
        lab.larder.configure("docker", engine.directory());
        let path = engine.directory().display();
        let socket = format!("unix://{path}/docker.sock");
        let line = format!(
            "dockerd --host {socket} --data-root {path}/data --exec-root {path}/exec \
             --pidfile {path}/pid --bridge none --iptables=false --ip6tables=false"
        );
        let mut daemon = Daemon::start(name, lab.directory(), &engine.line(&line));
        wait_for("dockerd", || {
            daemon.assert_running();
            succeeds(&format!("{CLIENT} --host {socket} version")).then_some(())
        });
        Self { socket, version: version("dockerd"), daemon }
    }

    /// Pulls `image` and runs it, in all phases.
    fn pull_and_run(&self, lab: &mut Lab, route: &str, image: &str) {
        pull_cold_warm_stopped(lab, &self.version, route, 2, || {
            self.run(&format!("pull {image}"));
            assert_eq!(self.run(&format!("run --rm --network none {image} echo ok")), "ok\n");
            self.forget_images();
        });
    }

    /// Removes all images, and what builds kept of them.
    fn forget_images(&self) {
        self.run("system prune --all --force");
    }

    fn run(&self, line: &str) -> String {
        run(&format!("env DOCKER_BUILDKIT=1 {CLIENT} --host {} {line}", self.socket))
    }
}
