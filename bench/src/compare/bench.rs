//! What every row needs: the programs, the content, the upstream and the way to it.

use std::{
    cell::Cell,
    collections::BTreeMap,
    fs::{self, File},
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use rustix::fs::{Advice, fadvise, sync};
use serde::Deserialize;

use crate::{
    Failure,
    contents::Contents,
    load::Load,
    rivals::{Identity, Programs, Rival},
    server::Server,
    service::Service,
};

/// Files from this size on, in bytes, hold blobs that [`Site::make_cold`] is about.
const LARGE: u64 = 1 << 20;

/// What a server may take to publish a blob that is on the disk.
const SETTLED: Duration = Duration::from_millis(200);

/// The long, narrow line: 20 ms each way, 50 MB/s a connection.
const RELAY: [&str; 4] = ["--delay-ms", "20", "--rate-mb", "50"];

/// The blobs, the image of an engine, and those of the nodes.
#[rustfmt::skip]
const CONTENT: [&str; 10] = [
    "--blobs", "8", "--blob-mib", "256", "--layers", "8", "--layer-mib", "64", "--images", "1000",
];

/// What is shared by all rows.
pub struct Bench<'a> {
    programs: &'a Programs,
    pub load: Load,
    pub contents: Contents,
    directory: PathBuf,
    identity: Identity,
    upstream: Service,
    relay: Service,
    /// Servers started so far.
    started: Cell<u32>,
}

/// How clients reach a rival.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Speech {
    Http,
    Tls,
}

/// How a rival reaches upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Line {
    /// Over the loopback.
    Unlimited,
    /// So many megabytes a second for all together.
    Limited(u32),
    /// Over the relay.
    Relay,
}

/// A rival that serves, or upstream itself.
pub struct Site {
    /// `None`: upstream itself.
    pub server: Option<Server>,
    /// Where it serves.
    pub address: SocketAddr,
    /// The certificate it shows, if it speaks TLS.
    pub trust: Option<PathBuf>,
}

/// What upstream tells.
#[derive(Deserialize)]
struct Counts {
    /// By method and path.
    paths: BTreeMap<String, Count>,
}

#[derive(Deserialize)]
struct Count {
    requests: u64,
}

impl Bench<'_> {
    /// Makes the content and starts what is shared, below an empty directory.
    pub fn open(
        programs: &Programs,
        load: Load,
        identity: Identity,
        directory: PathBuf,
    ) -> Result<Bench<'_>, Failure> {
        let root = directory.join("root");
        eprintln!("== content");
        load.data(&root, &CONTENT)?;
        let contents = Contents::read(&root)?;
        let upstream =
            Service::start(&load.program, &["upstream", "--root", &root.display().to_string()])?;
        let to = ["relay", "--to", &upstream.address.to_string()];
        let relay = Service::start(&load.program, &[&to[..], &RELAY].concat())?;
        let started = Cell::new(0);
        Ok(Bench { programs, load, contents, directory, identity, upstream, relay, started })
    }

    /// Starts a rival with an empty cache.
    pub fn start(&self, rival: Rival, speech: Speech, line: Line) -> Result<Site, Failure> {
        let megabytes = if let Line::Limited(megabytes) = line { megabytes } else { 0 };
        self.upstream.post(&format!("/_rate/{megabytes}"))?;
        self.upstream.post("/_counts")?;
        let upstream = if line == Line::Relay { &self.relay } else { &self.upstream }.address;
        self.started.set(self.started.get() + 1);
        let directory = self.directory.join(format!("{}-{}", rival.name(), self.started.get()));
        let identity = (speech == Speech::Tls).then_some(&self.identity);
        let server = rival.start(self.programs, upstream, identity, directory)?;
        let address = server.as_ref().map_or(upstream, Server::address);
        Ok(Site { server, address, trust: identity.map(|identity| identity.certificate.clone()) })
    }

    /// How often upstream was asked for this, as "GET /path", since a rival was started.
    pub fn upstream_requests(&self, request: &str) -> Result<u64, Failure> {
        let counts: Counts = serde_json::from_str(&self.upstream.get("/_counts")?)?;
        Ok(counts.paths.get(request).map_or(0, |count| count.requests))
    }

    /// Where the content is.
    pub fn root(&self) -> PathBuf {
        self.directory.join("root")
    }

    /// A place for what a row writes beside the servers' own.
    pub fn scratch(&self) -> PathBuf {
        self.directory.join("scratch")
    }
}

impl Site {
    /// Where this path is.
    pub fn url(&self, path: &str) -> String {
        let scheme = if self.trust.is_some() { "https" } else { "http" };
        format!("{scheme}://{}{path}", self.address)
    }

    /// Waits until what the server wrote is on the disk, and it has done what waits for that.
    pub fn settle(&self) {
        sync();
        thread::sleep(SETTLED);
    }

    /// Lets the blobs that the server keeps leave the page cache.
    pub fn make_cold(&self) -> io::Result<()> {
        self.settle();
        self.server.as_ref().map_or(Ok(()), |server| make_cold(server.directory()))
    }
}

fn make_cold(directory: &Path) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        if metadata.is_dir() {
            make_cold(&entry.path())?;
        } else if metadata.len() >= LARGE {
            fadvise(File::open(entry.path())?, 0, None, Advice::DontNeed)?;
        }
    }
    Ok(())
}
