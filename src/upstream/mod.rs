//! One registry that content comes from: its endpoints, its tokens, its redirects.
//!
//! [`Upstream`] is the only way in. Below it, from the outside in:
//!
//! - `failover`: which endpoint is asked, over `breaker`: whether it may be;
//! - `endpoint`: one exchange, with as many requests as authentication takes;
//! - `limits`, over `quota` and `pauses`: what it allows to whom;
//! - `credentials`: who Larder is; `auth`, over `challenge`, `tokens`, `token` and `basic`: what it
//!   presents;
//! - `redirect`: from one request to the answer it leads to;
//! - `connections`: how many requests there are at once;
//! - `client`: one request on one connection;
//! - `connector`: the connection;
//! - `answer` and `body`: what comes back; `secrets`: what is not quoted of it; `health`: what it
//!   says of upstream;
//! - `tags` and `referrers`, over `link`: lists that come in pages;
//! - `ranges`: blobs in parts, and who does not give them;
//! - `visibility`: who may see a repository;
//! - `quoted`: how headers quote;
//! - `trust`: which hosts belong together;
//! - `examination`: the same, one step at a time, for `larder doctor`.

use std::{net::SocketAddr, ops::Range, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::future::FutureExt as _;
use tokio::time::Instant;

use crate::{
    config,
    metrics::Metrics,
    oci::{Digest, Name, Reference, Registry, Tag},
};

use self::{
    connections::Connections,
    endpoint::{Ask, Endpoint},
    health::Health,
    visibility::Viewer,
};

mod answer;
mod auth;
mod basic;
mod body;
mod breaker;
mod challenge;
mod client;
mod connections;
mod connector;
mod credentials;
mod endpoint;
mod error;
mod examination;
mod failover;
#[cfg(any(fuzzing, test))]
pub mod fuzzing;
mod health;
mod limits;
mod link;
mod pauses;
mod quota;
mod quoted;
mod ranges;
mod redirect;
mod referrers;
mod secrets;
mod tags;
#[cfg(test)]
mod tests;
mod token;
mod tokens;
mod trust;
mod visibility;

pub use body::BlobBody;
pub use breaker::{BreakerState, EndpointState};
pub use connector::Resolver;
pub use credentials::Helpers;
pub use error::{Error, SetupError};
pub use examination::{Examined, SampleImage, SampleSource};
pub use limits::{RateLimit, Spending};
pub use visibility::Sample;

/// A handle on one upstream registry; clones share connections, tokens and health.
#[derive(Clone)]
pub struct Upstream {
    inner: Arc<Inner>,
}

/// What all upstreams have in common.
pub struct Shared<'a> {
    /// Time limits.
    pub limits: &'a config::Download,
    /// Larder's own addresses, which are never dialled.
    pub own_listeners: Arc<[SocketAddr]>,
    /// The credential helpers, each of which runs once at a time.
    pub helpers: Arc<Helpers>,
    /// How names become addresses.
    pub resolver: Resolver,
    /// Where requests and bytes are counted.
    pub metrics: Arc<Metrics>,
}

struct Inner {
    registry: Registry,
    /// Whether nothing is asked of it.
    is_offline: bool,
    /// In order of preference.
    endpoints: Vec<Endpoint>,
    health: Arc<Health>,
    connections: Arc<Connections>,
}

/// One of an upstream's endpoints, as its place in the order of preference.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place(usize);

/// The part of a blob that is still wanted.
#[derive(Clone, Copy, Debug)]
pub struct Rest {
    /// Its first byte.
    pub start: u64,
    /// Bytes in the whole blob, if that is known; more than `start`.
    pub size: Option<u64>,
}

#[cfg(test)]
impl Place {
    /// Any place, of no upstream in particular.
    pub(crate) fn numbered(number: usize) -> Place {
        Place(number)
    }
}

/// What upstream's last answers say of it.
#[derive(Clone, Debug)]
pub struct UpstreamState {
    /// Time since it answered; `None` when it was never asked, or has failed since.
    pub since_answer: Option<Duration>,
    /// How much longer it asked to be left alone: the longest of its endpoints' pauses, each of which
    /// is for one identity of ours.
    pub pause_left: Option<Duration>,
    /// The quota that it stated last, to whichever identity.
    pub rate_limit: Option<RateLimit>,
}

/// Upstream's answer to a HEAD of a manifest. What is `None` was missing or unusable.
#[derive(Clone, Debug, Default)]
pub struct ManifestHead {
    /// `Docker-Content-Digest`.
    pub digest: Option<Digest>,
    /// `Content-Type` without parameters.
    pub media_type: Option<String>,
    /// `Content-Length`.
    pub size: Option<u64>,
}

/// A manifest as upstream sent it, unverified.
#[derive(Clone, Debug)]
pub struct FetchedManifest {
    /// The body, verbatim, at most `oci::MAX_MANIFEST_BYTES`.
    pub bytes: Bytes,
    /// `Content-Type` without parameters.
    pub media_type: Option<String>,
}

impl Upstream {
    /// Sets up the client; opens no connection.
    pub fn new(config: &config::Upstream, shared: &Shared<'_>) -> Result<Upstream, SetupError> {
        let health = Arc::new(Health::new(&config.registry, Arc::clone(&shared.metrics)));
        let metrics = Arc::clone(&shared.metrics);
        let connections = Connections::new(&config.registry, config.max_connections, metrics);
        let connections = Arc::new(connections);
        let endpoint = |(place, endpoint)| {
            let (health, connections) = (Arc::clone(&health), Arc::clone(&connections));
            Endpoint::new(Place(place), endpoint, config, shared, health, connections)
        };
        let endpoints = config.endpoints.iter().enumerate().map(endpoint);
        let endpoints = endpoints.collect::<Result<_, _>>()?;
        Ok(Upstream {
            inner: Arc::new(Inner {
                registry: config.registry.clone(),
                is_offline: config.offline,
                endpoints,
                health,
                connections,
            }),
        })
    }

    /// The registry this stands for.
    pub fn registry(&self) -> &Registry {
        &self.inner.registry
    }

    /// Succeeds unless the operator says to ask nothing of it. Then every question fails like this.
    ///
    /// # Errors
    /// [`Error::Offline`].
    pub fn ensure_online(&self) -> Result<(), Error> {
        match self.inner.is_offline {
            true => Err(Error::Offline(self.registry().clone())),
            false => Ok(()),
        }
    }

    /// HEAD of a manifest, redirects followed.
    pub async fn head_manifest(
        &self,
        name: &Name,
        reference: &Reference,
        deadline: Instant,
    ) -> Result<ManifestHead, Error> {
        let answer = self.ask(&Ask::manifest_head(name, reference), deadline).await?;
        let digest = answer.header(http::HeaderName::from_static("docker-content-digest"));
        Ok(ManifestHead {
            digest: digest.and_then(|digest| digest.parse().ok()),
            media_type: answer.media_type(),
            size: answer.content_length(),
        })
    }

    /// GET of a manifest with the full Accept list. `deadline` bounds the body too.
    pub async fn get_manifest(
        &self,
        name: &Name,
        reference: &Reference,
        spending: Spending,
        deadline: Instant,
    ) -> Result<FetchedManifest, Error> {
        let ask = Ask::manifest_get(name, reference).spending(spending);
        self.first_answer(&ask, deadline, |endpoint| endpoint.manifest(&ask)).await
    }

    /// Whether a GET of this manifest would be sent now, and no pause or reserve be in its way.
    ///
    /// # Errors
    /// As the GET itself would end: [`Error::Limited`] or [`Error::Offline`].
    pub async fn admits_manifest(
        &self,
        name: &Name,
        reference: &Reference,
        spending: Spending,
    ) -> Result<(), Error> {
        self.ensure_online()?;
        let ask = Ask::manifest_get(name, reference).spending(spending);
        let mut refused = Ok(());
        for endpoint in &self.inner.endpoints {
            match endpoint.admits(&ask).await {
                Ok(()) => return Ok(()),
                refusal => refused = refusal,
            }
        }
        refused
    }

    /// HEAD of a blob, redirects followed, for its size (`None` when upstream does not say).
    pub async fn head_blob(
        &self,
        name: &Name,
        digest: &Digest,
        deadline: Instant,
    ) -> Result<Option<u64>, Error> {
        let answer = self.ask(&Ask::blob_head(name, digest), deadline).await?;
        Ok(answer.content_length())
    }

    /// Asks whether upstream shows this blob in this repository.
    pub async fn prove_blob(
        &self,
        name: &Name,
        digest: &Digest,
        deadline: Instant,
    ) -> Result<(), Error> {
        self.look(Viewer::Larder, name, &Sample::Blob(digest.clone()), deadline).await
    }

    /// GET of a whole blob. Returns at the headers; `deadline` bounds only them.
    pub async fn get_blob(
        &self,
        name: &Name,
        digest: &Digest,
        deadline: Instant,
    ) -> Result<BlobBody, Error> {
        self.get_blob_from(Place::default(), name, digest, deadline).await
    }

    /// As [`Upstream::get_blob`], from this endpoint or those after it.
    pub async fn get_blob_from(
        &self,
        place: Place,
        name: &Name,
        digest: &Digest,
        deadline: Instant,
    ) -> Result<BlobBody, Error> {
        let ask = Ask::blob_get(name, digest);
        let endpoints = self.inner.endpoints.get(place.0..).unwrap_or_default();
        self.ask_of(endpoints, &ask, deadline).await?.whole_body()
    }

    /// GET of what is still wanted of a blob, from one endpoint only, which is asked once and whatever
    /// its breaker says. Returns at the headers; `limit` bounds only them, once there is a connection.
    /// The body begins at `rest.start` whatever upstream sends, and fails unless it ends where the blob
    /// does.
    pub async fn get_blob_rest(
        &self,
        place: Place,
        name: &Name,
        digest: &Digest,
        rest: Rest,
        limit: Duration,
    ) -> Result<BlobBody, Error> {
        let ask = Ask::blob_get(name, digest).starting_at(rest.start);
        self.ask_only(place, &ask, limit).await?.rest_body(rest)
    }

    /// The endpoint after this one.
    pub fn place_after(&self, place: Place) -> Option<Place> {
        let next = place.0 + 1;
        (next < self.inner.endpoints.len()).then_some(Place(next))
    }

    /// All endpoints, in order of preference.
    pub fn places(&self) -> impl Iterator<Item = Place> + use<> {
        (0..self.inner.endpoints.len()).map(Place)
    }

    /// GET of `range`, which lies within the blob and is not empty, of a blob of `size` bytes.
    /// Returns at the headers; `deadline` bounds only them. The body fails unless it has the
    /// range's length.
    pub async fn get_blob_part(
        &self,
        name: &Name,
        digest: &Digest,
        range: &Range<u64>,
        size: u64,
        deadline: Instant,
    ) -> Result<BlobBody, Error> {
        let ask = Ask::blob_get(name, digest).part(range);
        self.ask(&ask, deadline).await?.part_body(range, size)
    }

    /// All tags of a repository, sorted, from as many pages as upstream makes of them.
    pub async fn list_tags(&self, name: &Name, deadline: Instant) -> Result<Vec<Tag>, Error> {
        let ask = Ask::tags_list(name);
        self.first_answer(&ask, deadline, |endpoint| endpoint.list_tags(name)).await
    }

    /// The index of what refers to `subject`, from as many pages as upstream makes of it. Not found
    /// is every answer of a registry that lacks the API.
    pub async fn referrers(
        &self,
        name: &Name,
        subject: &Digest,
        deadline: Instant,
    ) -> Result<Bytes, Error> {
        let ask = Ask::referrers(name, subject);
        self.first_answer(&ask, deadline, |endpoint| endpoint.referrers(name, subject)).await
    }

    /// How it is, as far as it was asked.
    pub fn state(&self) -> UpstreamState {
        let endpoints = self.inner.endpoints.iter();
        UpstreamState {
            since_answer: self.inner.health.since_answer(),
            pause_left: self.pause_left(),
            rate_limit: endpoints.filter_map(Endpoint::rate_limit).min_by_key(|last| last.seen),
        }
    }

    fn pause_left(&self) -> Option<Duration> {
        self.inner.endpoints.iter().filter_map(Endpoint::pause_left).max()
    }

    /// How each of its endpoints is, in order of preference.
    pub fn endpoints(&self) -> Vec<EndpointState> {
        self.inner.endpoints.iter().map(|endpoint| endpoint.breaker().state()).collect()
    }

    /// Whether upstream answered anything (any status below 500) within the last `time`, and has
    /// not failed since.
    pub fn answered_within(&self, time: Duration) -> bool {
        self.inner.health.answered_within(time)
    }

    /// Whether upstream asked one of our identities to wait, and the time is not over.
    pub fn wants_pause(&self) -> bool {
        self.pause_left().is_some()
    }

    /// Whether so many connections are free that one can be used for what nobody waits for: more than
    /// half.
    pub fn has_spare_connections(&self) -> bool {
        self.inner.connections.has_spare()
    }

    /// Whether upstream answers now: one `GET /v2/`, shared by all who ask at once, at most `limit`.
    /// An endpoint whose breaker is open does not, and is not asked.
    pub async fn probe(&self, limit: Duration) -> bool {
        if self.ensure_online().is_err() {
            return false;
        }
        let upstream = self.clone();
        let probe = self
            .inner
            .health
            .shared_probe(|| async move { upstream.is_alive(limit).await }.boxed());
        tokio::time::timeout(limit, probe).await.unwrap_or(false)
    }
}

impl std::fmt::Debug for Upstream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Upstream").field(self.registry()).finish()
    }
}
