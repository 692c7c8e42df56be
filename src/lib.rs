//! Larder: a pull-through caching mirror for container registries.
//!
//! Bytes flow one way: upstream → store → client, and every blob that is sent is a read of the
//! store. So a hit and a miss share one path, any number of clients cost one upstream request,
//! and a slow client slows nobody.
//!
//! # The life of a pull
//!
//! 1. A client connects. [`server`] accepts, and hands each request to [`handler`] with the
//!    [`access::Peer`] it came from.
//! 2. [`routes`] turns method, path, query and host into one `Endpoint` of one
//!    [`oci::Repository`]; nothing later sees a name that is not valid and configured.
//! 3. A **tag** goes to [`mirror`], which believes it for `tag_ttl`, and then asks [`upstream`]
//!    by one HEAD that everyone shares; lists of tags and of referrers go the same way. Upstream
//!    negotiates tokens and follows redirects; its guards see to it that credentials and
//!    connections go only where they belong. It asks the endpoints of a registry in order, and leaves
//!    those alone that fail or limit requests.
//! 4. A **manifest** comes from memory, from the [`store`], or by one GET from upstream; it is
//!    verified, stored verbatim, and thereby proved for this repository.
//! 5. A **blob** is a file of the store. If it is not there, the mirror starts a `Download`: a task
//!    that appends upstream's body to a file and hashes it, while any number of clients read
//!    behind it. A large one may come in parts, by several requests at once, and is read up to the first
//!    gap. Where upstream breaks off, the task asks for the rest; what a stop breaks off, the next
//!    process goes on with. The last byte is held back until the digest is right; then the file moves into
//!    place, and the index is told. Only who wants a part far ahead of the file gets it straight
//!    from upstream, until the file is there. Meanwhile idle slots fetch the layers that come after.
//! 6. [`response`] gives the result its status and headers. A file that the page cache has goes to a client
//!    in the clear past this process, by [`sendfile`]. When the body has ended, [`account`] counts it and
//!    [`pulls`] writes one line for the whole image.
//! 7. What nobody pulls any more leaves: a sweep runs on a schedule, from [`start`]. What does not fit
//!    makes room for itself before it comes, at the cost of what was unused longest. What stays is
//!    read and hashed again now and then, by a scrub in the store; what it finds damaged, or a
//!    client's reading does, it tells the mirror over a channel, which fetches it again.
//! 8. Whoever looks after it asks [`admin`]: over `admin.sock`, over TCP with a token, or in the process of a
//!    command when no daemon runs.
//!
//! # Layers
//!
//! A module may use only those of a row above its own, and in its own row those to its left.
//!
//! | layer | modules |
//! |---|---|
//! | 0 | [`oci`], [`metrics`], [`clock`], [`sendfile`], [`finding`] → [`certificate`] |
//! | 1 | [`config`] |
//! | 2 | [`store`] and [`upstream`], which do not know each other |
//! | 3 | [`mirror`] |
//! | 4 | [`routes`] → [`response`] → [`access`] → [`pulls`] → [`account`], [`refused`] → [`handler`], [`admin`] |
//! | 5 | [`server`] |
//! | 6 | [`start`] and [`run`], `assembly`, `signals`, `schedule`, `announce`, [`cli`] |

// What content is called and how it is sent, what is counted, what time it is, and what an examination says.
pub mod certificate;
pub mod clock;
pub mod finding;
pub mod metrics;
pub mod oci;
pub mod sendfile;

// What the operator wants.
pub mod config;

// Where content is, and where it comes from.
pub mod mirror;
pub mod store;
pub mod upstream;

// HTTP towards the clients.
pub mod access;
pub mod account;
pub mod admin;
pub mod handler;
pub mod pulls;
pub mod refused;
pub mod response;
pub mod routes;
pub mod server;

// The process.
mod announce;
mod assembly;
pub mod cli;
mod schedule;
mod signals;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use http::Request;
use hyper::body::Incoming;
use tokio::{
    sync::mpsc,
    task::JoinHandle,
    time::{Instant, sleep, timeout_at},
};
use tokio_util::sync::CancellationToken;

use crate::{
    access::{Access, Client, Peer},
    admin::{Admin, Authority, Content, Readiness},
    assembly::Parts,
    clock::Clock,
    config::{Config, Listen},
    handler::Handler,
    mirror::Mirror,
    routes::Routes,
    server::{BindError, Listener, Server, Tls, TlsError},
    signals::Signals,
    store::Store,
};

/// How long a scrape or probe that is running at the very end may take.
const ADMIN_DRAIN: Duration = Duration::from_secs(1);

/// How long a start waits for a command that has the data directory, and how long between two looks.
const LOCK_PATIENCE: Duration = Duration::from_secs(10);
const LOCK_PAUSE: Duration = Duration::from_millis(100);

/// A running mirror. Dropping it without [`Larder::stop`] leaves it running.
pub struct Larder {
    registry_addresses: Vec<SocketAddr>,
    admin_address: SocketAddr,
    registry: Server,
    admin: Admin,
    admin_server: Server,
    mirror: Arc<Mirror>,
    store: Store,
    sweeps: JoinHandle<()>,
    prefetching: JoinHandle<()>,
    healing: JoinHandle<()>,
    draining: CancellationToken,
    drain_timeout: Duration,
}

/// Why Larder cannot start, for the person who starts it.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address cannot be listened on. `place` says where its key was written, and which it is.
    #[error("{place}: {cause}")]
    Listen {
        /// File and line or variable, and the key.
        place: String,
        /// What is wrong with the address.
        #[source]
        cause: BindError,
    },
    /// The certificate or its key cannot be used. `place` says where the file was named.
    #[error("{place}: {cause}")]
    Tls {
        /// File and line or variable, and the key.
        place: String,
        /// What is wrong with the file.
        #[source]
        cause: TlsError,
    },
    /// The data directory cannot be used.
    #[error(transparent)]
    Store(#[from] store::OpenError),
    /// An upstream cannot be set up.
    #[error(transparent)]
    Upstream(#[from] upstream::SetupError),
    /// Signals cannot be received.
    #[error("cannot listen for signals: {0}")]
    Signals(std::io::Error),
}

/// How [`run`] ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// By a signal, drained and flushed.
    Clean,
    /// By a second signal, at once.
    Forced,
}

/// Runs a mirror until SIGTERM or SIGINT: start, announce, wait, drain.
pub async fn run(config: Config) -> Result<Ended, StartError> {
    let mut signals = Signals::new().map_err(StartError::Signals)?;
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    if !config.listens_on_loopback_only() {
        for exposed in config.exposed_accounts() {
            tracing::warn!("{exposed}");
        }
    }
    let larder = start(config.clone(), Clock::system()).await?;
    announce::started(&config, &larder);
    announce::to_service_manager(sd_notify::NotifyState::Ready);

    let name = signals.next().await;
    tracing::info!(
        "{name}: no new connections; running pulls may finish for {}; once more to stop at once",
        humantime::format_duration(config.drain_timeout)
    );
    announce::to_service_manager(sd_notify::NotifyState::Stopping);
    tokio::select! {
        () = larder.stop() => Ok(Ended::Clean),
        _ = signals.next() => Ok(Ended::Forced),
    }
}

/// Starts a mirror: binds, opens the store, sets up the upstreams, serves. Contacts no upstream.
///
/// # Errors
/// When an address, the data directory or a file named in the configuration cannot be used.
pub async fn start(config: Config, clock: Clock) -> Result<Larder, StartError> {
    server::raise_open_file_limit();
    let draining = CancellationToken::new();

    let tls = load_tls(&config)?;
    let listeners = bind_registry(&config).await?;
    let admin_listener = bind(&config, "admin.listen", &Listen::Tcp(config.admin.listen)).await?;
    let registry_addresses: Vec<_> = listeners.iter().filter_map(Listener::address).collect();
    let admin_address = admin_listener.address().unwrap_or(config.admin.listen);

    let own_listeners = registry_addresses.iter().copied().chain([admin_address]).collect();
    // Last of what may fail: once open, the store has to be closed.
    let parts = assemble(&config, clock, own_listeners).await?;
    let Content { store, mirror } = parts.content.clone();

    let sweeps = tokio::spawn(schedule::sweep(mirror.clone(), config.cache.sweep_interval));
    let prefetching = tokio::spawn(mirror.clone().prefetch());
    mirror.finish_whole_downloads();
    let (reports, damaged) = mpsc::channel(mirror::REPORTS);
    store.watch_for_damage(reports);
    let healing = tokio::spawn(mirror.clone().heal(damaged));

    let registry = serve_registry(&config, listeners, tls, &parts);
    let admin = parts.admin(&config, readiness(draining.clone(), store.clone()));
    let admin_server = serve_admin(admin_listener, &config, &admin);
    Ok(Larder {
        registry_addresses,
        admin_address,
        registry,
        admin,
        admin_server,
        mirror,
        store,
        sweeps,
        prefetching,
        healing,
        draining,
        drain_timeout: config.drain_timeout,
    })
}

impl Larder {
    /// The TCP addresses of the registry API, with the ports that were found for port 0.
    pub fn registry_addresses(&self) -> &[SocketAddr] {
        &self.registry_addresses
    }

    /// The address of metrics and health.
    pub fn admin_address(&self) -> SocketAddr {
        self.admin_address
    }

    /// Stops accepting, lets running responses and downloads finish for `drain_timeout`, and
    /// flushes. Health and metrics are served to the end.
    pub async fn stop(self) {
        let deadline = Instant::now() + self.drain_timeout;
        self.draining.cancel();
        self.prefetching.abort();
        self.healing.abort();
        self.registry.stop(self.drain_timeout).await;
        if timeout_at(deadline, self.mirror.drain()).await.is_err() {
            tracing::warn!("leaving downloads that did not end in time");
        }
        self.sweeps.abort();
        self.admin.settle().await;
        self.store.close().await;
        // The socket goes before the lock does: the next process has one of its own there.
        self.admin_server.stop(ADMIN_DRAIN).await;
    }
}

/// As [`Parts::assemble`], but waits a little for a process that has the data directory and takes no
/// commands: a command, or a daemon that ends.
async fn assemble(
    config: &Config,
    clock: Clock,
    own_listeners: Arc<[SocketAddr]>,
) -> Result<Parts, StartError> {
    let deadline = Instant::now() + LOCK_PATIENCE;
    let mut is_told = false;
    loop {
        let parts = Parts::assemble(config, clock.clone(), Arc::clone(&own_listeners));
        let Err(StartError::Store(store::OpenError::InUse { process, .. })) = &parts else {
            return parts;
        };
        if Instant::now() >= deadline || has_daemon(config).await {
            return parts;
        }
        if !std::mem::replace(&mut is_told, true) {
            tracing::info!(process, "the data directory is in use: waiting for that process");
        }
        sleep(LOCK_PAUSE).await;
    }
}

/// Whether a daemon takes commands on content of the data directory.
async fn has_daemon(config: &Config) -> bool {
    let socket = Listen::Unix(store::admin_socket(&config.data_dir));
    server::dial(&socket, None).await.is_ok()
}

/// The certificate and its key, if there is one.
fn load_tls(config: &Config) -> Result<Option<Tls>, StartError> {
    let load = |tls| {
        Tls::load(tls).map_err(|cause| {
            let place = config.written_at.place(cause.key);
            StartError::Tls { place, cause }
        })
    };
    config.tls.as_ref().map(load).transpose()
}

async fn bind_registry(config: &Config) -> Result<Vec<Listener>, StartError> {
    let mut listeners = Vec::new();
    for listen in &config.listen {
        listeners.push(bind(config, "listen", listen).await?);
    }
    Ok(listeners)
}

async fn bind(config: &Config, key: &str, listen: &Listen) -> Result<Listener, StartError> {
    Listener::bind(listen)
        .await
        .map_err(|cause| StartError::Listen { place: config.written_at.place(key), cause })
}

fn serve_registry(
    config: &Config,
    listeners: Vec<Listener>,
    tls: Option<Tls>,
    parts: &Parts,
) -> Server {
    let routes = Routes::new(&config.upstreams);
    let access = Access::new(&config.access);
    let mirror = parts.content.mirror.clone();
    let (metrics, refused) = (parts.metrics.clone(), parts.refused.clone());
    let handler = Arc::new(Handler::new(mirror, routes, access, metrics, refused));
    let server = Server::new().with_tls(tls);
    let server = if config.sendfile { server.with_sendfile() } else { server };
    for listener in listeners {
        let handler = handler.clone();
        server.serve(listener, move |client: Client, request: Request<Incoming>| {
            let handler = handler.clone();
            async move { handler.answer(client, request).await }
        });
    }
    server
}

/// Serves on `admin.listen`, and on `admin.sock`. A file system that can have no socket keeps nobody from
/// pulling.
fn serve_admin(listener: Listener, config: &Config, admin: &Admin) -> Server {
    let server = Server::new();
    let path = store::admin_socket(&config.data_dir);
    let socket = Listener::bind_private(&path).inspect_err(|error| {
        tracing::warn!(%error, path = %path.display(), "no commands are taken: cannot listen there");
    });
    for listener in [Some(listener), socket.ok()].into_iter().flatten() {
        let admin = admin.clone();
        server.serve(listener, move |client: Client, request: Request<Incoming>| {
            let admin = admin.clone();
            let authority = match client.peer {
                Peer::Tcp(_) => Authority::Public,
                Peer::Unix => Authority::Trusted,
            };
            async move { admin.answer(request, authority).await }
        });
    }
    server
}

fn readiness(draining: CancellationToken, store: Store) -> impl Fn() -> Readiness {
    move || match store.trouble() {
        _ if draining.is_cancelled() => Readiness::NotReady("draining".to_owned()),
        Some(trouble) => Readiness::Impaired(format!("the store cannot be written: {trouble}")),
        None => Readiness::Ready,
    }
}

#[cfg(test)]
mod properties;
