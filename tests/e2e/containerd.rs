//! containerd: a `hosts.toml` that sends one registry's pulls to Larder, which learns by `?ns=`
//! which registry is meant.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::{
    lab::{Lab, OTHER},
    process::{Daemon, contained, run, succeeds, wait_for},
};

#[test]
fn pulls_and_runs_by_hosts_toml() {
    let lab = Lab::start();
    let containerd = Containerd::start(&lab);
    for image in ["docker.io/library/busybox:latest", "registry.test/team/busybox:1"] {
        containerd.pull(&lab, image);
        assert_eq!(containerd.echo_ok(image), "ok\n");
    }
}

/// A containerd of the test's own, and the `ctr` that speaks to it.
struct Containerd {
    directory: PathBuf,
    ctr: String,
    _daemon: Daemon,
}

impl Containerd {
    fn start(lab: &Lab) -> Self {
        let directory = lab.directory().join("containerd");
        for registry in ["docker.io", OTHER] {
            write_hosts_toml(lab, &directory.join("hosts").join(registry));
        }
        let path = directory.display();
        fs::write(directory.join("config.toml"), "version = 2\n").unwrap();
        let line = format!(
            "containerd --config {path}/config.toml --address {path}/containerd.sock \
             --root {path}/root --state {path}/state"
        );
        let line = lab.network.inside(&contained(&line));
        let mut daemon = Daemon::start("containerd", &directory, &line);
        let ctr = format!("ctr --address {path}/containerd.sock");
        wait_for("containerd", || {
            daemon.assert_running();
            succeeds(&format!("{ctr} version")).then_some(())
        });
        Self { directory, ctr, _daemon: daemon }
    }

    /// `ctr` itself asks the registry, so it too runs in the clients' network.
    fn pull(&self, lab: &Lab, image: &str) {
        let (ctr, directory) = (&self.ctr, self.directory.display());
        let line = format!("{ctr} images pull --hosts-dir {directory}/hosts {image}");
        run(&lab.network.inside(&line));
    }

    fn echo_ok(&self, image: &str) -> String {
        let (ctr, directory) = (&self.ctr, self.directory.display());
        run(&format!("{ctr} run --rm --fifo-dir {directory}/fifo {image} e2e echo ok"))
    }
}

/// Names Larder as the registry's server too, so that nothing is asked elsewhere.
fn write_hosts_toml(lab: &Lab, directory: &Path) {
    let larder = lab.larder.address();
    fs::create_dir_all(directory).unwrap();
    let text = format!(
        "server = \"http://{larder}\"\n\n\
         [host.\"http://{larder}\"]\ncapabilities = [\"pull\", \"resolve\"]\n"
    );
    fs::write(directory.join("hosts.toml"), text).unwrap();
}
