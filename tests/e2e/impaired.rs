//! Larder whose store cannot be written for a while, and what it does then: pulls go on, it says so, and
//! the store comes back.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
};

use crate::{
    image::Layout,
    lab::HUB,
    larder::Larder,
    process::{run, wait_for},
    upstream::Upstream,
};

/// Bytes in the layer of an image.
pub const LAYER: u64 = 1 << 20;

/// All of the disk is Larder's, and all is pinned: else room would be made for what is new.
pub const PINNED: &str = r#"
[cache]
min_free = "0B"
max_size = "100%"

[[cache.rule]]
match = "docker.io/**"
pin = true
"#;

/// Larder, and an upstream with as many images as are wanted.
pub struct Impaired {
    pub larder: Larder,
    pub hub: Upstream,
    images: usize,
    directory: PathBuf,
}

impl Impaired {
    /// Starts a `program` that is configured so, besides the upstream.
    pub fn start(program: &str, config: &str, directory: &Path) -> Self {
        let hub = Upstream::start(HUB, directory);
        let config = format!("{config}\n{}default = true\n", hub.as_config());
        let (listen, admin) = (free_address(), free_address());
        let larder = Larder::start_by(program, listen, admin, &config, directory);
        Self { larder, hub, images: 0, directory: directory.to_owned() }
    }

    /// What is not cached passes through, and is kept as soon as that is possible again.
    pub fn lives_through(&mut self, what: &str, harm: impl FnOnce(), mend: impl FnOnce()) {
        println!("--- {what}");
        let cached = self.pull_new();
        self.wait_until_named(&cached);
        let lines = self.lines();
        harm();
        let passed = self.pull_new();
        self.pull(&cached);
        wait_for("the trouble to be told", || (self.writable() == 0.0).then_some(()));
        let readiness = self.larder.readiness();
        assert!(readiness.starts_with("HTTP/1.1 200"), "{readiness}");
        assert!(readiness.contains("ready; the store cannot be written: "), "{readiness}");
        self.pull(&passed);
        self.pull_new();
        assert!(self.larder.metric("larder_passthrough_total") >= 4.0);

        mend();
        self.wait_until_writable();
        assert!(self.larder.readiness().ends_with("ready\n"));
        assert_eq!(self.lines(), (lines.0 + 1, lines.1 + 1), "one line each");
        let kept = self.pull_new();
        self.pull(&passed);
        self.are_kept(&[cached, passed, kept]);
    }

    /// As [`Self::lives_through`], from the start on.
    pub fn starts_with(&mut self, harm: impl FnOnce(), mend: impl FnOnce()) {
        let cached = self.pull_new();
        self.wait_until_named(&cached);
        harm();
        self.larder.restart();
        self.pull(&cached);
        self.pull_new();
        mend();
        self.wait_until_writable();
        let kept = self.pull_new();
        self.are_kept(&[cached, kept]);
    }

    /// Pulls an image that nobody has pulled before, and names it.
    pub fn pull_new(&mut self) -> String {
        self.images += 1;
        let name = format!("noise{}", self.images);
        let layout = Layout::noise(&self.directory.join(&name), 1, LAYER);
        self.hub.push(layout.path(), &format!("library/{name}:latest"), "--preserve-digests");
        fs::remove_dir_all(layout.path()).unwrap();
        self.pull(&name);
        name
    }

    /// skopeo verifies every digest.
    pub fn pull(&self, name: &str) {
        let copy = self.directory.join("copy");
        let larder = self.larder.address();
        run(&format!(
            "skopeo --insecure-policy copy --quiet --src-tls-verify=false docker://{larder}/{name} dir:{}",
            copy.display()
        ));
        fs::remove_dir_all(copy).unwrap();
    }

    /// A client has all bytes before they are synced.
    pub fn wait_until_kept(&self) {
        wait_for("the downloads' end", || {
            (self.larder.metric("larder_downloads_in_flight") == 0.0).then_some(())
        });
    }

    /// The index is a moment behind what is kept, and what it was not told in time is lost if it
    /// cannot be written any more.
    fn wait_until_named(&self, image: &str) {
        self.wait_until_kept();
        wait_for("the image's name on the disk", || {
            let names = fs::read_to_string(self.larder.own_data_dir().join("index.json")).ok()?;
            names.contains(&format!("/{image}:latest")).then_some(())
        });
    }

    /// They are served by another life, without upstream.
    pub fn are_kept(&mut self, images: &[String]) {
        self.wait_until_kept();
        self.hub.stop();
        self.larder.restart();
        images.iter().for_each(|image| self.pull(image));
        self.hub.restart();
    }

    /// The disk is tried again about once a second.
    pub fn wait_until_writable(&self) {
        wait_for("the store to work again", || (self.writable() == 1.0).then_some(()));
    }

    /// Bytes that left for want of room.
    pub fn evicted(&self) -> f64 {
        self.larder.metric("larder_evicted_bytes_total")
    }

    fn writable(&self) -> f64 {
        self.larder.metric("larder_store_writable")
    }

    /// How often the log says that the store cannot be written, and that it can again.
    fn lines(&self) -> (usize, usize) {
        let log = self.larder.log();
        let count = |what| log.matches(what).count();
        (count("the store cannot be written"), count("the store can be written again"))
    }
}

/// Where nothing listens yet.
pub fn free_address() -> SocketAddr {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap()
}
