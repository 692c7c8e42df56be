//! The command line.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Measures registries and mirrors; each command prints one line of JSON.
#[derive(Debug, Parser)]
#[command(name = "load")]
pub struct Options {
    #[command(subcommand)]
    pub command: Command,
}

/// What is to be done.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Send GETs, and discard the bodies or check their digests
    Get(Ask),
    /// Send HEADs
    Head(Ask),
    /// Let many nodes pull every small image, each in an order of its own
    Nodes(Nodes),
    /// Serve what `data` made as a registry
    Upstream(Upstream),
    /// Carry connections over a long, narrow line
    Relay(Relay),
    /// Make the content that `upstream` serves and `nodes` pulls
    Data(Data),
}

/// What `get` and `head` do.
#[derive(Debug, Args)]
pub struct Ask {
    /// What to ask for; all of one server
    #[arg(required_unless_present = "list")]
    pub urls: Vec<String>,
    /// More URLs, one on each line
    #[arg(long, value_name = "FILE")]
    pub list: Option<PathBuf>,
    /// In which order the URLs are asked for
    #[arg(long, value_enum, default_value = "list")]
    pub order: Order,
    /// Seeds the random order
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Connections; all are open before the first request is sent
    #[arg(long, short = 'c', default_value_t = 1, value_name = "N")]
    pub connections: usize,
    /// How large every body must be
    #[arg(long, value_name = "BYTES")]
    pub expect_bytes: Option<u64>,
    #[command(flatten)]
    pub until: Until,
    #[command(flatten)]
    pub run: Run,
}

/// In which order URLs are asked for.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Order {
    /// One after the other, over all connections, and again from the first.
    List,
    /// Any, each time.
    Random,
}

/// When enough was asked.
#[derive(Args, Debug)]
#[group(required = true, multiple = false)]
pub struct Until {
    /// Ask for so many seconds; answers that are on their way then are left
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub duration: Option<Duration>,
    /// Send so many requests over all connections
    #[arg(long, value_name = "N")]
    pub requests: Option<u64>,
    /// Send so many requests on each connection; 1 with many connections is a herd
    #[arg(long, value_name = "N")]
    pub each: Option<u64>,
}

/// How a server is asked, and what is watched meanwhile.
#[derive(Args, Debug)]
pub struct Run {
    /// Another header of every request, as `Name: value`; a `Host` replaces the URL's
    #[arg(long = "header", short = 'H', value_name = "LINE")]
    pub headers: Vec<String>,
    /// Threads that share the connections
    #[arg(long, short = 't', default_value_t = 1, value_name = "N")]
    pub threads: usize,
    /// Hash every body and compare it with the digest in the URL, or else in Docker-Content-Digest
    #[arg(long)]
    pub sha256: bool,
    /// Speak HTTP/2, over TLS or with prior knowledge
    #[arg(long)]
    pub http2: bool,
    /// The certificate to trust with https, as PEM
    #[arg(long, value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// An answer of which nothing came for so long is an error
    #[arg(long, default_value = "30", value_name = "SECONDS", value_parser = seconds)]
    pub stall: Duration,
    /// A server whose processor time and memory are told, with all its children; may be repeated
    #[arg(long = "pid", value_name = "PID")]
    pub pids: Vec<u32>,
}

/// What `nodes` does.
#[derive(Debug, Args)]
pub struct Nodes {
    /// The mirror, as `http://host:port`
    pub server: String,
    /// What `data` made
    #[arg(long, value_name = "DIR")]
    pub root: PathBuf,
    /// What stands before each repository's name, such as a registry
    #[arg(long, default_value = "", value_name = "NAME")]
    pub prefix: String,
    /// Nodes, each with a connection of its own
    #[arg(long, default_value_t = 50, value_name = "N")]
    pub nodes: usize,
    /// Images each node pulls, of those there are
    #[arg(long, value_name = "N")]
    pub images: Option<usize>,
    /// Seeds the orders
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    #[command(flatten)]
    pub run: Run,
}

/// What `upstream` does.
#[derive(Debug, Args)]
pub struct Upstream {
    /// What `data` made
    #[arg(long, value_name = "DIR")]
    pub root: PathBuf,
    /// Where to listen; with port 0 the first line of output tells which
    #[arg(long, default_value = "127.0.0.1:0")]
    pub listen: SocketAddr,
    /// Megabytes (10^6) of bodies a second over all connections; 0 for no limit
    #[arg(long, default_value_t = 0.0, value_name = "MB")]
    pub rate_mb: f64,
}

/// What `relay` does.
#[derive(Debug, Args)]
pub struct Relay {
    /// Where to listen; with port 0 the first line of output tells which
    #[arg(long, default_value = "127.0.0.1:0")]
    pub listen: SocketAddr,
    /// Where connections lead
    #[arg(long)]
    pub to: SocketAddr,
    /// How long every byte is under way, each way
    #[arg(long, default_value = "0", value_name = "MILLISECONDS", value_parser = milliseconds)]
    pub delay_ms: Duration,
    /// Megabytes (10^6) a second of each connection, each way; 0 for no limit
    #[arg(long, default_value_t = 0.0, value_name = "MB")]
    pub rate_mb: f64,
}

/// What `data` makes.
#[derive(Debug, Args)]
pub struct Data {
    /// Where; the same arguments always make the same bytes
    #[arg(long, value_name = "DIR")]
    pub root: PathBuf,
    /// Images of one large blob
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub blobs: u64,
    /// How large these are
    #[arg(long, default_value_t = 256, value_name = "MIB")]
    pub blob_mib: u64,
    /// Layers of the image that an engine pulls
    #[arg(long, default_value_t = 8, value_name = "N")]
    pub layers: u64,
    /// How large each is
    #[arg(long, default_value_t = 32, value_name = "MIB")]
    pub layer_mib: u64,
    /// Small images, of three layers of 4 to 64 KiB
    #[arg(long, default_value_t = 1000, value_name = "N")]
    pub images: u64,
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
}

fn milliseconds(text: &str) -> Result<Duration, String> {
    seconds(text).map(|thousandfold| thousandfold / 1000)
}
