//! Larder under test, in this process, with a data directory and a clock of its own.

use std::{
    fs,
    net::Ipv4Addr,
    ops::Deref,
    path::{Path, PathBuf},
    time::Duration,
};

use bytes::Bytes;
use larder::{
    Larder, StartError,
    clock::Clock,
    config::{Config, Sources},
    oci::Digest,
};
use tempfile::TempDir;
use toml::{Table, Value};

use super::{
    Client, FakeRegistry, Image,
    tls::TestCa,
    wait::{until, within_limit},
};

/// The configuration's name beside the data directory.
pub const CONFIG: &str = "larder.toml";

/// The data directory's name.
pub const DATA_DIR: &str = "data";

/// A running mirror. It is a [`Client`] of its own registry API.
pub struct TestMirror {
    larder: Larder,
    client: Client,
    clock: Clock,
    directory: TempDir,
    config: Table,
}

/// How a mirror is set up before it starts.
pub struct Builder {
    config: Table,
    upstreams: Vec<Upstream>,
    clock: Clock,
    directory: TempDir,
}

/// One `[[upstream]]` of a mirror under test.
pub struct Upstream {
    keys: Table,
    ca_pem: Option<String>,
}

impl TestMirror {
    /// A mirror whose docker.io is `registry`, with a `tag_ttl` of a minute.
    pub async fn of(registry: &FakeRegistry) -> TestMirror {
        TestMirror::builder().upstream(Upstream::docker_io(registry)).start().await
    }

    /// To start one that differs. It knows no upstreams until told.
    pub fn builder() -> Builder {
        let mut builder = Builder {
            config: Table::new(),
            upstreams: Vec::new(),
            clock: Clock::system(),
            directory: TempDir::new().unwrap(),
        };
        let data_dir = builder.directory.path().join(DATA_DIR);
        builder.put("listen", vec!["127.0.0.1:0"]);
        builder.put("data_dir", data_dir.to_str().unwrap());
        builder.put("builtin_upstreams", false);
        builder.put("admin.listen", "127.0.0.1:0");
        builder.put("cache.min_free", "1MiB");
        builder
    }

    /// Stops as on SIGTERM. The data stays, to be tampered with or to start again on.
    pub async fn stop(self) -> Builder {
        within_limit("the mirror's stop", self.larder.stop()).await;
        Builder {
            config: self.config,
            upstreams: Vec::new(),
            clock: Clock::system(),
            directory: self.directory,
        }
    }

    /// Lets time pass for the mirror.
    pub fn advance(&self, time: Duration) {
        self.clock.advance(time);
    }

    /// Sets the mirror's time of day forward, with no time passing.
    pub fn jump_wall(&self, time: Duration) {
        self.clock.jump_wall(time);
    }

    /// A client of the admin listener.
    pub fn admin(&self) -> Client {
        Client::new(self.larder.admin_address())
    }

    /// The sum of all series of a metric that have the labels in the braces, if there are any:
    /// `larder_lookups_total{kind="blob",result="hit"}`.
    pub async fn metric(&self, selector: &str) -> f64 {
        metric(&self.admin(), selector).await
    }

    /// Whether a blob is in the store, whole.
    pub fn has_blob(&self, digest: &Digest) -> bool {
        self.blob_path(digest).exists()
    }

    /// Returns when a blob is in the store, whole, and no download is under way: a file shows a
    /// moment before the store knows since when it is there.
    pub async fn wait_for_blob(&self, digest: &Digest) {
        let what = format!("{digest} in the store");
        until(&what, async || {
            self.has_blob(digest) && self.metric("larder_downloads_in_flight").await == 0.0
        })
        .await;
    }

    /// Returns when a blob is in the store no longer.
    pub async fn wait_until_gone(&self, digest: &Digest) {
        let what = format!("{digest} to leave");
        until(&what, async || !self.has_blob(digest)).await;
    }

    /// Where the store keeps a blob.
    pub fn blob_path(&self, digest: &Digest) -> PathBuf {
        blob_path(self.data_dir().as_path(), digest)
    }

    /// The directory with everything the mirror keeps.
    pub fn data_dir(&self) -> PathBuf {
        self.directory.path().join(DATA_DIR)
    }

    /// Pulls an image by tag, as an engine does, checks every byte, and waits for the store.
    pub async fn pull(&self, repository: &str, tag: &str, image: &Image) {
        self.pull_by_tag(repository, tag, image).await;
        self.wait_for_blob(&image.digest()).await;
        for blob in image.blobs() {
            self.wait_for_blob(&super::sha256(blob)).await;
        }
    }

    async fn pull_by_tag(&self, repository: &str, tag: &str, image: &Image) {
        let manifest = self.manifest(repository, tag).await;
        assert_eq!(manifest, image.manifest);
        for blob in image.blobs() {
            self.pull_blob(repository, &super::sha256(blob)).await;
        }
    }

    /// Pulls a manifest by tag or digest.
    pub async fn manifest(&self, repository: &str, reference: &str) -> Bytes {
        let response = self.get(&manifest_path(repository, reference)).await;
        assert_eq!(response.status, 200, "{response:?}");
        response.bytes().await
    }

    /// Pulls a blob and checks it.
    pub async fn pull_blob(&self, repository: &str, digest: &Digest) -> Bytes {
        let response = self.get(&blob_url(repository, digest)).await;
        response.verified(digest).await
    }
}

impl Deref for TestMirror {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

impl Builder {
    /// As [`Builder::into_file`] left it.
    pub fn in_directory(directory: TempDir) -> Builder {
        let config = fs::read_to_string(directory.path().join(CONFIG)).unwrap();
        let config = config.parse().unwrap();
        Builder { config, upstreams: Vec::new(), clock: Clock::system(), directory }
    }

    /// Adds an upstream.
    pub fn upstream(mut self, upstream: Upstream) -> Builder {
        self.upstreams.push(upstream);
        self
    }

    /// Sets a key: `cache.check_timeout`.
    pub fn set(mut self, key: &str, value: impl Into<Value>) -> Builder {
        self.put(key, value);
        self
    }

    /// Speaks TLS, as 127.0.0.1 and with a certificate of `ca`.
    pub fn tls(self, ca: &TestCa) -> Builder {
        let (certificate, key) = ca.certificate(Ipv4Addr::LOCALHOST.into());
        fs::write(self.directory.path().join("cert.pem"), certificate).unwrap();
        fs::write(self.directory.path().join("key.pem"), key).unwrap();
        self.set("tls.cert", "cert.pem").set("tls.key", "key.pem")
    }

    /// Starts with the time of day so much later than it is.
    pub fn wall_jumped(self, time: Duration) -> Builder {
        self.clock.jump_wall(time);
        self
    }

    /// The directory with everything the mirror keeps.
    pub fn data_dir(&self) -> PathBuf {
        self.directory.path().join(DATA_DIR)
    }

    /// Starts with a copy of what another mirror kept.
    pub fn with_copy_of(self, data_dir: &Path) -> Builder {
        copy_directory(data_dir, &self.data_dir());
        self
    }

    /// Starts the mirror.
    pub async fn start(mut self) -> TestMirror {
        self.write();
        let config = load_directory(self.directory.path());
        let larder = within_limit("the mirror's start", start(&config, &self.clock)).await;
        TestMirror {
            client: Client::new(larder.registry_addresses()[0]),
            larder,
            clock: self.clock,
            directory: self.directory,
            config: self.config,
        }
    }

    /// The directory with the configuration in a file, and with all that it names.
    pub fn into_file(mut self) -> TempDir {
        self.write();
        self.directory
    }

    fn put(&mut self, key: &str, value: impl Into<Value>) {
        let (table, key) = match key.split_once('.') {
            Some((section, key)) => (section_of(&mut self.config, section), key),
            None => (&mut self.config, key),
        };
        table.insert(key.to_owned(), value.into());
    }

    fn write(&mut self) {
        let upstreams: Vec<Upstream> = self.upstreams.drain(..).collect();
        if !upstreams.is_empty() {
            let tables = upstreams.into_iter().map(|upstream| self.write_ca(upstream));
            let tables: Vec<Table> = tables.collect();
            self.config.insert("upstream".to_owned(), tables.into());
        }
        let path = self.directory.path().join(CONFIG);
        fs::write(path, self.config.to_string()).unwrap();
    }

    fn write_ca(&self, mut upstream: Upstream) -> Table {
        if let Some(pem) = upstream.ca_pem {
            let name = format!("{}.pem", upstream.keys["registry"].as_str().unwrap());
            fs::write(self.directory.path().join(&name), pem).unwrap();
            upstream.keys.insert("ca".to_owned(), name.into());
        }
        upstream.keys
    }
}

impl Upstream {
    /// docker.io, the default for bare names, with a `tag_ttl` of a minute.
    pub fn docker_io(registry: &FakeRegistry) -> Upstream {
        Upstream::named("docker.io", registry).set("default", true)
    }

    /// Some registry, with a `tag_ttl` of a minute, that shares all that its credentials may see.
    pub fn named(name: &str, registry: &FakeRegistry) -> Upstream {
        let upstream =
            Upstream { keys: Table::new(), ca_pem: registry.ca_pem().map(str::to_owned) };
        upstream
            .set("registry", name)
            .set("endpoints", vec![registry.url()])
            .set("tag_ttl", "1m")
            .set("share_private", "**")
    }

    /// Leaves a key to its default.
    pub fn unset(mut self, key: &str) -> Upstream {
        self.keys.remove(key);
        self
    }

    /// Sets a key.
    pub fn set(mut self, key: &str, value: impl Into<Value>) -> Upstream {
        self.keys.insert(key.to_owned(), value.into());
        self
    }

    /// Trusts only what the system trusts.
    pub fn without_ca(mut self) -> Upstream {
        self.ca_pem = None;
        self
    }

    /// Sets name and secret.
    pub fn credentials(self, username: &str, password: &str) -> Upstream {
        self.set("username", username).set("password", password)
    }
}

/// Starts a mirror. What an earlier one in this process still does in the background may hold the
/// data directory for a moment; a process of its own would have ended by then.
async fn start(config: &Config, clock: &Clock) -> Larder {
    loop {
        match larder::start(config.clone(), clock.clone()).await {
            Err(StartError::Store(error)) if error.to_string().contains("in use") => {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            started => return started.unwrap(),
        }
    }
}

/// As [`TestMirror::metric`], of any admin listener.
pub async fn metric(admin: &Client, selector: &str) -> f64 {
    let text = admin.get("/metrics").await.bytes().await;
    let text = String::from_utf8(text.to_vec()).unwrap();
    let (name, labels) = selector.split_once('{').unwrap_or((selector, ""));
    let labels: Vec<&str> = labels.trim_end_matches('}').split_terminator(',').collect();
    text.lines()
        .filter_map(|line| line.rsplit_once(' '))
        .filter(|(series, _)| series.split('{').next() == Some(name))
        .filter(|(series, _)| labels.iter().all(|label| series.contains(label)))
        .map(|(_, value)| value.parse::<f64>().unwrap())
        .sum()
}

/// Where the store under `data_dir` keeps a blob.
pub fn blob_path(data_dir: &Path, digest: &Digest) -> PathBuf {
    data_dir.join("blobs").join(digest.algorithm().as_str()).join(digest.encoded())
}

/// The path of a manifest in the registry API.
pub fn manifest_path(repository: &str, reference: &str) -> String {
    format!("/v2/{repository}/manifests/{reference}")
}

/// The path of a blob in the registry API.
pub fn blob_url(repository: &str, digest: &Digest) -> String {
    format!("/v2/{repository}/blobs/{digest}")
}

fn section_of<'a>(config: &'a mut Table, section: &str) -> &'a mut Table {
    let entry = config.entry(section).or_insert_with(|| Table::new().into());
    entry.as_table_mut().unwrap()
}

/// The configuration that [`Builder::into_file`] wrote into a directory.
pub fn load_directory(directory: &Path) -> Config {
    load(&directory.join(CONFIG))
}

fn load(file: &Path) -> Config {
    let sources = Sources { file: Some(file.to_owned()), ..Sources::default() };
    Config::load(&sources).unwrap()
}

fn copy_directory(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in from.read_dir().unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_directory(&entry.path(), &target);
        } else if entry.file_type().unwrap().is_file() {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}
