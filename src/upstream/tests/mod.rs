//! [`Upstream`](super::Upstream) against a small server whose every byte a test decides.

mod auth;
mod failover;
mod fake;
mod hostile;
mod names;
mod redirects;
mod tags;
mod transfer;
mod visibility;

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{
    Error, Resolver, Shared, Spending, Upstream,
    client::{Client, Times},
    connections::Connections,
    connector::Connector,
    health::Health,
};
use crate::{
    config::{self, CredentialSource, Credentials, Endpoint, Identity},
    metrics::Metrics,
    oci::{Algorithm, Digest, Name, Reference},
};

/// Limits that are short.
const LIMITS: config::Download = config::Download {
    connect_timeout: Duration::from_millis(500),
    idle_timeout: Duration::from_millis(300),
    prefetch: false,
    retries: 0,
    max_concurrent: 1,
    streams: 1,
};

/// An upstream at these URLs, without credentials.
fn anonymous(urls: &[String]) -> Upstream {
    let endpoints = urls.iter().map(|url| endpoint(url, None)).collect();
    build(endpoints, &[])
}

/// An upstream at `url` that knows Larder as `username`.
fn with_credentials(url: &str, username: &str, trusted_realms: &[&str]) -> Upstream {
    let identity = Identity::new(username, "secret".to_owned());
    build(vec![endpoint(url, Some(CredentialSource::Stated(identity)))], trusted_realms)
}

fn endpoint(url: &str, source: Option<CredentialSource>) -> Endpoint {
    let credentials = Credentials { others: source, ..Credentials::default() };
    Endpoint {
        url: url.parse().unwrap(),
        credentials,
        ca: None,
        client_certificate: None,
        insecure_skip_verify: false,
        proxies: Arc::default(),
    }
}

fn build(endpoints: Vec<Endpoint>, trusted_realms: &[&str]) -> Upstream {
    build_with(endpoints, trusted_realms, &shared(&LIMITS, Resolver::system()))
}

fn build_with(endpoints: Vec<Endpoint>, trusted_realms: &[&str], shared: &Shared<'_>) -> Upstream {
    let config = config::Upstream {
        registry: "registry.test".parse().unwrap(),
        endpoints,
        aliases: Vec::new(),
        server_names: Vec::new(),
        default: false,
        tag_ttl: Duration::ZERO,
        share_private: Vec::new(),
        trusted_realms: trusted_realms.iter().map(ToString::to_string).collect(),
        max_connections: 100,
        quota_reserve: 0,
        offline: false,
    };
    Upstream::new(&config, shared).unwrap()
}

/// What upstreams share.
fn shared(limits: &config::Download, resolver: Resolver) -> Shared<'_> {
    Shared {
        limits,
        own_listeners: Arc::new([]),
        helpers: Arc::default(),
        resolver,
        metrics: Arc::new(Metrics::new()),
    }
}

fn name() -> Name {
    "team/app".parse().unwrap()
}

fn tag() -> Reference {
    "v1".parse().unwrap()
}

fn digest() -> Digest {
    Digest::of(Algorithm::Sha256, b"content")
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(5)
}

async fn get_manifest(upstream: &Upstream) -> Result<super::FetchedManifest, Error> {
    upstream.get_manifest(&name(), &tag(), Spending::All, soon()).await
}

async fn get_blob(upstream: &Upstream) -> Result<super::BlobBody, Error> {
    upstream.get_blob(&name(), &digest(), soon()).await
}

fn kind(error: &Error) -> &'static str {
    match error {
        Error::Unreachable(_) => "unreachable",
        Error::Unavailable { .. } => "unavailable",
        Error::HeldBack(_) => "held back",
        Error::Timeout(_) => "timeout",
        Error::NotFound(_) => "not found",
        Error::Denied(_) => "denied",
        Error::Limited { .. } => "limited",
        Error::HeadRefused(_) => "head refused",
        Error::RefusedElsewhere(_) => "refused elsewhere",
        Error::Offline(_) => "offline",
        Error::Invalid(_) => "invalid",
    }
}

/// A client of the endpoint at `url` that waits 200 ms for an answer.
fn impatient_client(url: &str, metrics: Arc<Metrics>) -> Client {
    let endpoint = endpoint(url, None);
    let connector =
        Connector::new(&endpoint.url, &endpoint, &shared(&LIMITS, Resolver::system())).unwrap();
    let registry = "registry.test".parse().unwrap();
    let connections = Arc::new(Connections::new(&registry, 3, Arc::clone(&metrics)));
    let health = Arc::new(Health::new(&registry, metrics));
    let times = Times { first_byte: Duration::from_millis(200), idle: Duration::from_secs(5) };
    Client::new(connector, health, connections, times)
}
