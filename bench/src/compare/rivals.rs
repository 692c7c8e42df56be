//! Who is compared, and how each is started: with the best configuration that its own
//! documentation leads to.

mod distribution;
mod drayage;
mod larder;
mod nginx;

use std::{fs, net::SocketAddr, path::PathBuf, process::Command};

use crate::{
    Failure,
    server::{Server, free_address},
};

/// A way from a client to upstream's bytes; in the order of the columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rival {
    /// Larder as it comes.
    Larder,
    /// Larder that asks for four ranges of a large blob at once.
    LarderStreams,
    /// Larder that fetches layers beside the six that skopeo takes at a time.
    LarderPrefetch,
    /// nginx, with what is fastest while everything is in the page cache.
    Nginx,
    /// nginx as most people have it: it opens the file of each hit.
    NginxPlain,
    /// nginx that reads and writes files on other threads.
    NginxThreads,
    /// nginx that caches pieces of 4 MiB, so that who waits for a blob waits for the next piece only.
    NginxSlices,
    /// Debian's docker-registry as a pull-through cache.
    Distribution,
    /// PyPI's drayage.
    Drayage,
    /// No cache at all.
    Direct,
}

/// What a rival is started for.
pub struct Assignment<'a> {
    /// Where it fetches from, by plain HTTP.
    pub upstream: SocketAddr,
    /// Where it serves.
    pub listen: SocketAddr,
    /// Whether it speaks TLS 1.3 there, with these files.
    pub tls: Option<&'a Identity>,
    /// An empty directory, where all it keeps goes.
    pub directory: PathBuf,
}

/// A certificate and its key, PEM files.
pub struct Identity {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

/// The programs that are no part of the system.
pub struct Programs {
    pub larder: PathBuf,
    pub drayage: PathBuf,
}

impl Rival {
    /// All of them.
    pub const ALL: [Rival; 10] = [
        Rival::Larder,
        Rival::LarderStreams,
        Rival::LarderPrefetch,
        Rival::Nginx,
        Rival::NginxPlain,
        Rival::NginxThreads,
        Rival::NginxSlices,
        Rival::Distribution,
        Rival::Drayage,
        Rival::Direct,
    ];

    /// All that are nginx.
    pub const NGINX: [Rival; 4] =
        [Rival::Nginx, Rival::NginxPlain, Rival::NginxThreads, Rival::NginxSlices];

    /// Its column, and its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Rival::Larder => "larder",
            Rival::LarderStreams => "larder-streams",
            Rival::LarderPrefetch => "larder-prefetch",
            Rival::Nginx => "nginx",
            Rival::NginxPlain => "nginx-plain",
            Rival::NginxThreads => "nginx-aio",
            Rival::NginxSlices => "nginx-slice",
            Rival::Distribution => "docker-registry",
            Rival::Drayage => "drayage",
            Rival::Direct => "direct",
        }
    }

    /// What it says of its version.
    pub fn version(self, programs: &Programs) -> String {
        let (program, argument) = match self {
            Rival::Larder | Rival::LarderStreams | Rival::LarderPrefetch => {
                (programs.larder.as_path(), "--version")
            }
            Rival::Nginx | Rival::NginxPlain | Rival::NginxThreads | Rival::NginxSlices => {
                ("nginx".as_ref(), "-v")
            }
            Rival::Distribution => ("docker-registry".as_ref(), "--version"),
            Rival::Drayage => (programs.drayage.as_path(), "--version"),
            Rival::Direct => return "no cache".to_owned(),
        };
        let output = Command::new(program).arg(argument).output();
        // nginx says it on stderr.
        let text = output.map(|output| [output.stdout, output.stderr].concat()).unwrap_or_default();
        String::from_utf8_lossy(&text).trim().to_owned()
    }

    /// Starts it with nothing in its cache. `None`: there is nothing to start.
    pub fn start(
        self,
        programs: &Programs,
        upstream: SocketAddr,
        tls: Option<&Identity>,
        directory: PathBuf,
    ) -> Result<Option<Server>, Failure> {
        fs::create_dir(&directory)?;
        let listen = free_address()?;
        let assignment = Assignment { upstream, listen, tls, directory };
        let command = match self {
            Rival::Larder => larder::command(&programs.larder, &assignment, "")?,
            Rival::LarderStreams => {
                larder::command(&programs.larder, &assignment, larder::STREAMS)?
            }
            Rival::LarderPrefetch => {
                larder::command(&programs.larder, &assignment, larder::PREFETCH)?
            }
            Rival::Nginx => nginx::command(&assignment, &[nginx::WHOLE, nginx::KEPT_OPEN])?,
            Rival::NginxPlain => nginx::command(&assignment, &[nginx::WHOLE])?,
            Rival::NginxThreads => {
                let files = [nginx::WHOLE, nginx::KEPT_OPEN, nginx::THREADS];
                nginx::command(&assignment, &files)?
            }
            Rival::NginxSlices => nginx::command(&assignment, &[nginx::SLICES, nginx::KEPT_OPEN])?,
            Rival::Distribution => distribution::command(&assignment)?,
            Rival::Drayage => drayage::command(&programs.drayage, &assignment)?,
            Rival::Direct => return Ok(None),
        };
        Server::start(command, listen, assignment.directory).map(Some)
    }
}
