//! The configuration: what `config.example.toml` describes, checked.
//!
//! A key is asked for in one place, with its parser and its default; `reader` finds it on the
//! command line, in the environment and in the file, and knows by that which keys there are.

mod cache;
mod credentials;
mod docker_config;
mod exposure;
#[cfg(any(fuzzing, test))]
pub mod fuzzing;
mod glob;
mod no_proxy;
mod proxy;
mod reader;
mod rules;
#[cfg(test)]
mod tests;
mod tls;
mod upstreams;
mod value;
mod written;

use std::{
    collections::BTreeMap,
    fmt, fs,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use ipnet::IpNet;
use toml::de::DeTable;
use tracing::Level;

use crate::oci::Registry;
use reader::{Reader, Section};
use written::{Document, Origin};

pub use cache::{Cache, OnDeleted, Size};
pub use credentials::{CredentialSource, Credentials, Identity, read_secret};
pub use docker_config::{DockerConfig, DockerLogin, helper_server};
pub use glob::{Glob, InvalidGlob};
pub use no_proxy::is_loopback_name;
pub use proxy::{Proxies, Proxy, Route};
pub use reader::Sources;
pub use rules::{RepositoryRules, Rule, Rules};
pub use tls::{ClientCertificate, Tls};
pub use upstreams::MIN_CONNECTIONS;

/// Where the registry API is served unless configured.
const LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 5000);
/// Where metrics and health are served unless configured.
const ADMIN_LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 5001);
const DRAIN_TIMEOUT: Duration = Duration::from_secs(30);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// With the pauses between them, about 25 seconds: enough for a registry to be started anew.
const RETRIES: u32 = 8;
/// What containerd's `ctr` opens at once by itself, so that one pull through Larder asks no more of
/// upstream than one without.
const MAX_CONCURRENT: usize = 6;
/// Some upstreams give no ranges, or count each request.
const STREAMS: usize = 1;

/// Who may ask when Larder listens beyond loopback and nothing else is said: loopback, private,
/// carrier-grade NAT (RFC 6598) and unique local (RFC 4193) addresses.
const LOCAL_NETWORKS: [&str; 7] = [
    "127.0.0.0/8",
    "10.0.0.0/8",
    "172.16.0.0/12",
    "192.168.0.0/16",
    "100.64.0.0/10",
    "::1/128",
    "fc00::/7",
];

/// A checked configuration: whoever holds one need not doubt any value in it.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where the registry API is served.
    pub listen: Vec<Listen>,
    /// The data directory.
    pub data_dir: PathBuf,
    /// How long running responses and downloads may go on after a stop was asked for.
    pub drain_timeout: Duration,
    /// Whether the kernel sends blobs from the page cache to clients in the clear.
    pub sendfile: bool,
    /// What is spoken on the TCP addresses of `listen`. `None`: HTTP in the clear.
    pub tls: Option<Tls>,
    /// Who may ask.
    pub access: Access,
    /// The admin listener.
    pub admin: Admin,
    /// What is logged, and how.
    pub log: Log,
    /// What is kept, and for how long it counts as fresh.
    pub cache: Cache,
    /// Limits of a download.
    pub download: Download,
    /// Every upstream, the built-in ones included. At most one is the default.
    pub upstreams: Vec<Upstream>,
    /// Legal but odd: unknown `LARDER_*` variables, variables that name no proxy, TLS that is spoken
    /// nowhere, certificates that nobody verifies, and rules that match nothing. To be logged at start.
    pub warnings: Vec<String>,
    /// Where each key was written, for errors that only show later.
    pub written_at: Places,
}

/// Where keys were written.
#[derive(Clone, Debug, Default)]
pub struct Places(BTreeMap<String, String>);

/// Every mistake in a configuration, one a line. Shows no secret.
#[derive(Debug, thiserror::Error)]
#[error("{}", mistakes.join("\n"))]
pub struct ConfigError {
    mistakes: Vec<String>,
}

/// An address to listen on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listen {
    /// An IP address and port.
    Tcp(SocketAddr),
    /// A Unix socket, written `unix:/path`.
    Unix(PathBuf),
}

/// `[access]`
#[derive(Clone, Debug)]
pub struct Access {
    /// Client networks that may ask. `None`: everyone (all listeners are loopback or Unix sockets).
    pub allow: Option<Vec<IpNet>>,
}

/// `[admin]`
#[derive(Clone, Debug)]
pub struct Admin {
    /// Where metrics and health are served.
    pub listen: SocketAddr,
    /// The file with the token of who may do anything there.
    pub token_file: Option<PathBuf>,
}

/// `[log]`
#[derive(Clone, Debug)]
pub struct Log {
    /// The least severe level written.
    pub level: Level,
    /// Text or JSON lines.
    pub format: LogFormat,
}

/// How log lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// `[download]`
#[derive(Clone, Debug)]
pub struct Download {
    /// Time for a TCP and TLS connection to upstream.
    pub connect_timeout: Duration,
    /// Silence after which a body counts as stalled.
    pub idle_timeout: Duration,
    /// How often in a row an endpoint is asked in vain to go on with a download that broke.
    pub retries: u32,
    /// Whether layers are fetched before the client that pulls their image asks for them.
    pub prefetch: bool,
    /// With so many downloads of any kind running, one at least, nothing is prefetched. A client's
    /// own never waits.
    pub max_concurrent: usize,
    /// How many requests one large blob may take at once. 1: it is fetched as a whole.
    pub streams: usize,
}

/// `[[upstream]]`
#[derive(Clone, Debug)]
pub struct Upstream {
    /// The registry this stands for.
    pub registry: Registry,
    /// Where it is reached, in order of preference; never empty.
    pub endpoints: Vec<Endpoint>,
    /// Other names it is known by in paths and `ns`.
    pub aliases: Vec<String>,
    /// Hosts by which clients reach this mirror when they mean the registry; with a port, only on
    /// that.
    pub server_names: Vec<String>,
    /// Whether bare names are looked up here.
    pub default: bool,
    /// How long a tag is served without asking upstream.
    pub tag_ttl: Duration,
    /// Which repositories that need credentials everyone may pull who may ask Larder.
    pub share_private: Vec<Glob>,
    /// Hosts that may receive the credentials although they are no part of the registry's domain.
    pub trusted_realms: Vec<String>,
    /// How many requests to upstream, tokens included, may be under way at once; at least
    /// [`MIN_CONNECTIONS`].
    pub max_connections: usize,
    /// With so few manifests left of upstream's quota, none is fetched in place of a cached one.
    /// 0: all are.
    pub quota_reserve: u64,
    /// Whether nothing is asked of it: only what is cached is served, whatever its age.
    pub offline: bool,
}

/// One place where a registry is reached.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// Scheme, host, port and an optional path prefix without a trailing slash.
    pub url: url::Url,
    /// What is presented there.
    pub credentials: Credentials,
    /// PEM file with certificate authorities trusted beside the system's.
    pub ca: Option<PathBuf>,
    /// What its host, and no other, is shown in TLS.
    pub client_certificate: Option<ClientCertificate>,
    /// Whether any certificate of its host, and of no other, is believed.
    pub insecure_skip_verify: bool,
    /// The way there, and to wherever it leads.
    pub proxies: Arc<Proxies>,
}

impl Config {
    /// Reads and checks a configuration. Flags win over variables, variables over the file, the
    /// file over the defaults.
    pub fn load(sources: &Sources) -> Result<Config, ConfigError> {
        let path = sources.file().unwrap_or(Path::new(""));
        let text = match sources.file() {
            Some(path) => read_file(path)?,
            None => String::new(),
        };
        Config::parse(sources, path, &text)
    }

    /// Reads what the file at `path` holds, and the other sources.
    fn parse(sources: &Sources, path: &Path, text: &str) -> Result<Config, ConfigError> {
        let document = Document { path, text };
        let table = DeTable::parse(text).map_err(|error| syntax_error(document, &error))?;
        let mut reader = Reader::new(sources, document, table.get_ref());
        let mut config = Config::read(&mut reader, sources);
        (config.written_at, config.warnings) = reader.finish()?;
        config.warnings.extend(config.unspoken_tls());
        config.warnings.extend(config.upstreams.iter().flat_map(Upstream::unverified));
        Ok(config)
    }

    /// Whether nobody but this machine can reach the registry API.
    pub fn listens_on_loopback_only(&self) -> bool {
        are_loopback(&self.listen)
    }

    fn unspoken_tls(&self) -> Option<String> {
        let speaks_tls = |listen: &Listen| matches!(listen, Listen::Tcp(_));
        let is_unspoken = self.tls.is_some() && !self.listen.iter().any(speaks_tls);
        let place = self.written_at.place("tls.cert");
        is_unspoken
            .then(|| format!("{place}: has no effect; only TCP addresses in listen speak TLS"))
    }

    /// Everything, with defaults where something is wrong: the reader knows, and refuses it all.
    fn read(reader: &mut Reader<'_>, sources: &Sources) -> Config {
        let mut root = reader.root();
        let listen = root.take("listen", value::some_of(value::listen));
        let listen = listen.unwrap_or_else(|| vec![Listen::Tcp(LISTEN)]);
        let data_dir = data_dir(&mut root, sources);
        let drain_timeout = root.take("drain_timeout", value::duration);
        let sendfile = root.take("sendfile", value::boolean);
        let with_built_in = root.take("builtin_upstreams", value::boolean);
        let mut cache = Cache::read(reader.section("cache"));
        let upstreams = upstreams::upstreams(reader, with_built_in.unwrap_or(true), &cache);
        cache.rules = Rules::read(reader, &upstreams);
        Config {
            access: Access::read(reader.section("access"), &listen),
            listen,
            data_dir,
            drain_timeout: drain_timeout.unwrap_or(DRAIN_TIMEOUT),
            sendfile: sendfile.unwrap_or(true),
            tls: Tls::read(reader.section("tls")),
            admin: Admin::read(reader.section("admin")),
            log: Log::read(reader.section("log")),
            cache,
            download: Download::read(reader.section("download")),
            upstreams,
            warnings: Vec::new(),
            written_at: Places::default(),
        }
    }
}

impl Access {
    fn read(mut section: Section<'_, '_>, listen: &[Listen]) -> Access {
        let stated = section.take("allow", value::list_of(value::network));
        let local = || LOCAL_NETWORKS.iter().filter_map(|net| net.parse().ok()).collect();
        Access { allow: stated.or_else(|| (!are_loopback(listen)).then(local)) }
    }
}

impl Admin {
    fn read(mut section: Section<'_, '_>) -> Admin {
        let listen = section.take("listen", value::socket_address);
        let token_file = section.take("token_file", value::secret_file);
        Admin { listen: listen.unwrap_or(ADMIN_LISTEN), token_file }
    }
}

impl Log {
    fn read(mut section: Section<'_, '_>) -> Log {
        let levels = [
            ("error", Level::ERROR),
            ("warn", Level::WARN),
            ("info", Level::INFO),
            ("debug", Level::DEBUG),
            ("trace", Level::TRACE),
        ];
        let formats = [("text", LogFormat::Text), ("json", LogFormat::Json)];
        let level = section.take("level", |written| value::one_of(written, &levels));
        let format = section.take("format", |written| value::one_of(written, &formats));
        Log { level: level.unwrap_or(Level::INFO), format: format.unwrap_or(LogFormat::Text) }
    }
}

impl Download {
    fn read(mut section: Section<'_, '_>) -> Download {
        let connect_timeout = section.take("connect_timeout", value::positive_duration);
        let idle_timeout = section.take("idle_timeout", value::positive_duration);
        let retries = section.take("retries", value::times);
        let prefetch = section.take("prefetch", value::boolean);
        let max_concurrent = section.take("max_concurrent", value::positive_count);
        let streams = section.take("streams", value::positive_count);
        Download {
            connect_timeout: connect_timeout.unwrap_or(CONNECT_TIMEOUT),
            idle_timeout: idle_timeout.unwrap_or(IDLE_TIMEOUT),
            retries: retries.unwrap_or(RETRIES),
            prefetch: prefetch.unwrap_or(true),
            max_concurrent: max_concurrent.unwrap_or(MAX_CONCURRENT),
            streams: streams.unwrap_or(STREAMS),
        }
    }
}

impl Places {
    /// `larder.toml:3: listen`, or only the key if it has its default.
    pub fn place(&self, key: &str) -> String {
        match self.0.get(key) {
            Some(place) => format!("{place}: {key}"),
            None => key.to_owned(),
        }
    }

    fn has(&self, key: &str) -> bool {
        self.0.contains_key(key)
    }
}

impl ConfigError {
    fn new(mistakes: Vec<String>) -> ConfigError {
        ConfigError { mistakes }
    }
}

/// As it is written in the configuration.
impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Listen::Tcp(address) => fmt::Display::fmt(address, f),
            Listen::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

fn read_file(path: &Path) -> Result<String, ConfigError> {
    fs::read_to_string(path).map_err(|error| {
        let path = path.display();
        ConfigError::new(vec![format!(
            "{path}: cannot read the configuration: {error}; name a file that this user may read"
        )])
    })
}

/// What breaks TOML's grammar. Only the line is named, not shown: it may hold a secret.
fn syntax_error(document: Document<'_>, error: &toml::de::Error) -> ConfigError {
    let offset = error.span().map_or(0, |span| span.start);
    let origin = Origin::File(document, offset);
    ConfigError::new(vec![format!("{origin}: this is no TOML: {}", error.message())])
}

fn are_loopback(listen: &[Listen]) -> bool {
    listen.iter().all(|listen| match listen {
        Listen::Tcp(address) => address.ip().to_canonical().is_loopback(),
        Listen::Unix(_) => true,
    })
}

/// As configured, or else where this kind of process keeps its data.
fn data_dir(root: &mut Section<'_, '_>, sources: &Sources) -> PathBuf {
    let stated = root.take("data_dir", value::path);
    let directory = stated.or_else(|| {
        let variable = |name| sources.variable(name).map(|(_, value)| value);
        // systemd separates several state directories by colons.
        let state = variable("STATE_DIRECTORY").and_then(|list| list.split(':').next());
        // The XDG specification ignores a relative one.
        let data_home = variable("XDG_DATA_HOME").filter(|home| home.starts_with('/'));
        let home = || variable("HOME").map(|home| Path::new(home).join(".local/share"));
        let below_home =
            || data_home.map(PathBuf::from).or_else(home).map(|home| home.join("larder"));
        state.map(PathBuf::from).or_else(below_home)
    });
    if directory.is_none() && !root.has("data_dir") {
        root.wrong("data_dir", "no HOME to put it in; write data_dir, or use --data-dir");
    }
    directory.unwrap_or_default()
}
