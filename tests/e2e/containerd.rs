//! containerd: a `hosts.toml` that sends one registry's pulls to Larder, for `ctr` and for what a
//! kubelet calls. Which registry is meant comes as `?ns=`, by some routes in the path as well.

use std::path::PathBuf;

use crate::{
    cri::ImageService,
    engine::Engine,
    lab::{HUB, IMAGES, Lab},
    phases::pull_cold_warm_stopped,
    process::{Daemon, run, succeeds, version, wait_for},
};

/// Where containerd and `ctr` look for `hosts.toml` files.
const HOSTS: &str = "/etc/containerd/certs.d";

#[test]
fn pulls_and_runs_by_hosts_toml() {
    let mut lab = Lab::start();
    let containerd = Containerd::start(&lab);
    for image in IMAGES {
        let route = format!("ctr, hosts.toml (`ns`), {image}");
        pull_cold_warm_stopped(&mut lab, &containerd.version, &route, 2, || {
            containerd.pull(image, HOSTS);
            assert_eq!(containerd.echo_ok(image), "ok\n");
            containerd.remove(image);
        });
    }
}

/// Beside `ns`, the registry's name after or before `/v2/`.
#[test]
fn pulls_by_paths_that_name_the_registry() {
    let mut lab = Lab::start();
    let containerd = Containerd::start(&lab);
    let larder = format!("http://{}", lab.larder.address());
    for (number, (path, override_path)) in
        [("/v2/docker.io", true), ("/docker.io", false)].into_iter().enumerate()
    {
        let hosts = format!("/etc/containerd/route-{number}");
        let text = format!(
            "server = \"{larder}\"\n\n\
             [host.\"{larder}{path}\"]\noverride_path = {override_path}\n"
        );
        containerd.engine.write(&format!("{hosts}/{HUB}/hosts.toml"), &text);
        let route =
            format!("ctr, hosts.toml (`ns`), LARDER{path}, override_path = {override_path}");
        pull_cold_warm_stopped(&mut lab, &containerd.version, &route, 2, || {
            containerd.pull(IMAGES[0], &hosts);
            containerd.remove(IMAGES[0]);
        });
    }
}

#[test]
fn pulls_by_cri() {
    let mut lab = Lab::start();
    let containerd = Containerd::start(&lab);
    let images = ImageService::new(&containerd.socket, containerd.engine.directory());
    for image in IMAGES {
        let route = format!("CRI PullImage, hosts.toml (`ns`), {image}");
        pull_cold_warm_stopped(&mut lab, &containerd.version, &route, 2, || {
            images.pull(image);
            assert!(images.has(image), "no {image} after PullImage");
            images.remove(image);
            assert!(!images.has(image), "{image} after RemoveImage");
        });
    }
}

/// A containerd of the test's own, and the `ctr` that speaks to it.
struct Containerd {
    engine: Engine,
    socket: PathBuf,
    ctr: String,
    version: String,
    _daemon: Daemon,
}

impl Containerd {
    fn start(lab: &Lab) -> Self {
        let engine = Engine::new(lab, "containerd");
        engine.write("/etc/containerd/config.toml", "version = 2\n");
        lab.larder.configure("containerd", engine.directory());
        let path = engine.directory().display();
        let socket = engine.directory().join("containerd.sock");
        let line = format!(
            "containerd --address {} --root {path}/root --state {path}/state",
            socket.display()
        );
        let mut daemon = Daemon::start("containerd", engine.directory(), &engine.line(&line));
        let ctr = format!("ctr --address {}", socket.display());
        wait_for("containerd", || {
            daemon.assert_running();
            succeeds(&format!("{ctr} version")).then_some(())
        });
        Self { engine, socket, ctr, version: version("containerd"), _daemon: daemon }
    }

    /// `ctr` itself asks the registry, so it too runs where Larder is all there is.
    fn pull(&self, image: &str, hosts: &str) {
        run(&self.engine.line(&format!("{} images pull --hosts-dir {hosts} {image}", self.ctr)));
    }

    fn echo_ok(&self, image: &str) -> String {
        let (ctr, path) = (&self.ctr, self.engine.directory().display());
        run(&format!("{ctr} run --rm --fifo-dir {path}/fifo {image} e2e echo ok"))
    }

    fn remove(&self, image: &str) {
        run(&format!("{} images rm --sync {image}", self.ctr));
    }
}
