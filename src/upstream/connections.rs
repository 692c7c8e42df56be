//! How many requests to one upstream are under way at once, over all its endpoints, its token
//! servers and wherever it redirects to.
//!
//! A request holds its connection to the end of the answer's body. Whoever held one while waiting
//! for another could wait for ever, so they are nested: blobs leave two to all else, and whatever may
//! need a token leaves one to tokens, which need nothing more.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, timeout_at},
};

use super::{Error, health::Operation};
use crate::{
    metrics::{InUse, Metrics},
    oci::Registry,
};

/// So long before its time is over, who waits in vain is told what for.
const NOTICE: Duration = Duration::from_millis(250);

/// The connections of one upstream. Who waits is served in turn.
#[derive(Debug)]
pub(super) struct Connections {
    registry: String,
    limit: usize,
    all: Arc<Semaphore>,
    /// All but one.
    exchanges: Arc<Semaphore>,
    /// All but two.
    blobs: Arc<Semaphore>,
    metrics: Arc<Metrics>,
}

/// A connection in use. It is free again when this is dropped.
#[derive(Debug)]
pub(super) struct Connection {
    _permits: Vec<OwnedSemaphorePermit>,
    _in_use: InUse,
}

impl Connections {
    /// All are free.
    pub(super) fn new(registry: &Registry, limit: usize, metrics: Arc<Metrics>) -> Connections {
        let but = |kept| Arc::new(Semaphore::new(limit.saturating_sub(kept)));
        Connections {
            registry: registry.to_string(),
            limit,
            all: but(0),
            exchanges: but(1),
            blobs: but(2),
            metrics,
        }
    }

    /// For a request that helps an exchange on, which has a connection of its own, or that has
    /// nothing to do with any. `None`: it is that of an exchange.
    pub(super) async fn beside(&self, operation: Operation) -> Option<Connection> {
        match is_beside(operation) {
            true => Some(self.within(&[&self.all]).await),
            false => None,
        }
    }

    /// For an exchange, with all requests that it takes one after the other.
    pub(super) async fn for_exchange(&self, operation: Operation) -> Connection {
        match operation == Operation::BlobGet {
            true => self.within(&[&self.blobs, &self.exchanges, &self.all]).await,
            false => self.within(&[&self.exchanges, &self.all]).await,
        }
    }

    /// [`Connections::for_exchange`] before `deadline`. That there was none in time says nothing of
    /// upstream.
    pub(super) async fn for_exchange_until(
        &self,
        operation: Operation,
        deadline: Instant,
    ) -> Result<Connection, Error> {
        let until = deadline.checked_sub(NOTICE).unwrap_or(deadline);
        timeout_at(until, self.for_exchange(operation)).await.map_err(|_| {
            let Connections { limit, registry, .. } = self;
            let what = "were in use all the time (max_connections)";
            Error::Timeout(format!("the {limit} connections to {registry} {what}"))
        })
    }

    /// Always in the same order, the innermost first.
    async fn within(&self, nested: &[&Arc<Semaphore>]) -> Connection {
        let mut permits = Vec::with_capacity(nested.len());
        for semaphore in nested {
            // It fails only when it is closed, and none ever is.
            permits.extend(Arc::clone(semaphore).acquire_owned().await);
        }
        Connection {
            _permits: permits,
            _in_use: self.metrics.limits.use_connection(&self.registry),
        }
    }

    /// Also how many are kept open for later, with each host.
    pub(super) fn limit(&self) -> usize {
        self.limit
    }

    /// Whether more than half are free.
    pub(super) fn has_spare(&self) -> bool {
        self.blobs.available_permits() > self.limit / 2
    }
}

fn is_beside(operation: Operation) -> bool {
    matches!(operation, Operation::Token | Operation::Probe)
}
