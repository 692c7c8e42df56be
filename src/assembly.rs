//! The parts that a daemon and a command on content have in common: all but the listeners.

use std::{net::SocketAddr, sync::Arc};

use crate::{
    StartError,
    admin::{Admin, Content, Readiness, Token, Upstreams},
    clock::Clock,
    config::Config,
    metrics::Metrics,
    mirror::{Mirror, Mirrored},
    refused::Refused,
    store::Store,
    upstream::{self, Upstream},
};

/// A store that is open, and what works on it.
pub(crate) struct Parts {
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) content: Content,
    pub(crate) refused: Refused,
    upstreams: Vec<Upstream>,
}

impl Parts {
    /// Sets up the upstreams and opens the store, in this order. Contacts no upstream. Blocking.
    ///
    /// # Errors
    /// When the data directory or a file named in the configuration cannot be used.
    pub(crate) fn assemble(
        config: &Config,
        clock: Clock,
        own_listeners: Arc<[SocketAddr]>,
    ) -> Result<Parts, StartError> {
        let metrics = Arc::new(Metrics::new());
        let upstreams = set_up_upstreams(config, own_listeners, &metrics)?;
        let store = Store::open(&config.data_dir, &config.cache, clock.clone(), metrics.clone())?;
        let refused = Refused::new(clock.clone());
        let mirrored = mirrored(config, &upstreams);
        let mirror = Mirror::new(store.clone(), mirrored, config, clock, metrics.clone());
        let content = Content { store, mirror: Arc::new(mirror) };
        Ok(Parts { metrics, content, refused, upstreams })
    }

    /// The admin API of these parts, which is ready when `ready` says so.
    pub(crate) fn admin(
        &self,
        config: &Config,
        ready: impl Fn() -> Readiness + Send + Sync + 'static,
    ) -> Admin {
        let shown = config.upstreams.iter().cloned().zip(self.upstreams.iter().cloned());
        let upstreams = Upstreams::new(shown.collect(), self.refused.clone());
        let token = Token::in_file(config.admin.token_file.clone());
        Admin::new(self.metrics.clone(), ready, upstreams, self.content.clone(), token)
    }
}

/// Sets up a client for each upstream; one that was dialled at `own_listeners` would ask itself.
pub(crate) fn set_up_upstreams(
    config: &Config,
    own_listeners: Arc<[SocketAddr]>,
    metrics: &Arc<Metrics>,
) -> Result<Vec<Upstream>, StartError> {
    let shared = upstream::Shared {
        limits: &config.download,
        own_listeners,
        helpers: Arc::default(),
        resolver: upstream::Resolver::system(),
        metrics: Arc::clone(metrics),
    };
    let set_up = |upstream| Ok(Upstream::new(upstream, &shared)?);
    config.upstreams.iter().map(set_up).collect()
}

fn mirrored(config: &Config, upstreams: &[Upstream]) -> Vec<Mirrored> {
    let clients = upstreams.iter().cloned();
    let mirrored = clients.zip(&config.upstreams);
    mirrored.map(|(client, upstream)| Mirrored::new(client, upstream)).collect()
}
