//! What every test starts from: two upstreams, Larder before them, and a network of clients.

use std::path::Path;

use tempfile::TempDir;

use crate::{image::Layout, larder::Larder, network::Network, upstream::Upstream};

/// The registry of bare names; Larder's default upstream.
const HUB: &str = "docker.io";

/// The registry of the second upstream.
pub const OTHER: &str = "registry.test";

/// Everything around the client under test. The fields go in this order, the files last.
pub struct Lab {
    pub larder: Larder,
    pub network: Network,
    /// Holds `library/busybox:latest`.
    pub hub: Upstream,
    /// Holds `team/busybox:1`, in Docker's media types instead of OCI's.
    pub other: Upstream,
    /// What both were filled from.
    pub busybox: Layout,
    directory: TempDir,
}

impl Lab {
    /// Fills the upstreams and starts Larder with nothing in its store.
    pub fn start() -> Self {
        let directory = tempfile::Builder::new().prefix("larder-e2e-").tempdir().unwrap();
        let path = directory.path();
        let busybox = Layout::busybox(&path.join("busybox"));
        let mut hub = Upstream::start(HUB, path);
        hub.push(busybox.path(), "library/busybox:latest", "--preserve-digests");
        let mut other = Upstream::start(OTHER, path);
        other.push(busybox.path(), "team/busybox:1", "--format v2s2");

        let network = Network::start(path);
        let upstreams = format!("{}default = true\n\n{}", hub.as_config(), other.as_config());
        let (listen, admin) = (network.free_address(), network.free_address());
        let larder = Larder::start(listen, admin, &upstreams, path);
        Self { larder, network, hub, other, busybox, directory }
    }

    /// A directory for the files of a test.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }
}

impl Drop for Lab {
    /// For the record, whether the test passed or not.
    fn drop(&mut self) {
        println!("asked of {HUB}: {}", self.hub.requests());
        println!("asked of {OTHER}: {}", self.other.requests());
    }
}
