//! What every test starts from: two upstreams, Larder before them, and a network of clients.

use std::{collections::BTreeMap, fmt, path::Path};

use tempfile::TempDir;

use crate::{
    access_log::Requests, image::Layout, larder::Larder, network::Network, upstream::Upstream,
};

/// The registry of bare names; Larder's default upstream.
pub const HUB: &str = "docker.io";

/// The registry of the second upstream.
pub const OTHER: &str = "registry.test";

/// Both images, as clients know them without Larder.
pub const IMAGES: [&str; 2] = ["docker.io/library/busybox:latest", "registry.test/team/busybox:1"];

/// Everything around the client under test. The fields go in this order, the files last.
pub struct Lab {
    pub larder: Larder,
    pub network: Network,
    /// Holds `library/busybox:latest`. A tag is taken for fresh for a minute.
    pub hub: Upstream,
    /// Holds `team/busybox:1`, in Docker's media types instead of OCI's. A tag is never fresh.
    pub other: Upstream,
    /// What both were filled from.
    pub busybox: Layout,
    /// Look-ups that were counted before what is observed now.
    counted: BTreeMap<String, u64>,
    directory: TempDir,
}

/// What was seen on both sides of Larder during a stretch of a test.
pub struct Observed {
    /// What the upstreams were asked for.
    pub asked: Requests,
    /// How often Larder's look-ups ended how, such as `blob hit`.
    pub lookups: BTreeMap<String, u64>,
}

impl Lab {
    /// Fills the upstreams and starts Larder with nothing in its store.
    pub fn start() -> Self {
        let directory = directory();
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
        Self { larder, network, hub, other, busybox, counted: BTreeMap::new(), directory }
    }

    /// A directory for the files of a test.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Begins again: upstreams that answer, a Larder that holds nothing, nothing observed.
    pub fn renew(&mut self) {
        self.hub.restart();
        self.other.restart();
        self.larder.restart_empty();
        self.counted.clear();
        self.take_observed();
    }

    /// Stops both registries.
    pub fn stop_upstreams(&mut self) {
        self.hub.stop();
        self.other.stop();
    }

    /// What was observed since [`Self::take_observed`], or the start.
    pub fn observed(&self) -> Observed {
        let mut asked = self.hub.requests();
        asked.add(self.other.requests());
        let mut lookups = self.larder.lookups();
        lookups.retain(|lookup, count| {
            *count -= self.counted.get(lookup).copied().unwrap_or_default();
            *count > 0
        });
        Observed { asked, lookups }
    }

    /// What was observed, which is not observed again.
    pub fn take_observed(&mut self) -> Observed {
        let observed = self.observed();
        self.hub.forget_requests();
        self.other.forget_requests();
        self.counted = self.larder.lookups();
        observed
    }
}

/// A directory for all files of a test.
pub fn directory() -> TempDir {
    tempfile::Builder::new().prefix("larder-e2e-").tempdir().unwrap()
}

impl fmt::Display for Observed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lookups: Vec<String> =
            self.lookups.iter().map(|(lookup, count)| format!("{lookup} {count}")).collect();
        write!(f, "{}; upstream: {}", lookups.join(", "), self.asked)
    }
}
