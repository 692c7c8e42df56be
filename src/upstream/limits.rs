//! What one endpoint allows each of Larder's identities: when it may be asked, and how many
//! manifests are left of its quota.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use http::StatusCode;
use tokio::time::Instant;

use crate::{config::Identity, oci::Registry};

use super::{
    Error,
    answer::{Answer, Source},
    endpoint::Ask,
    health::Operation,
    pauses::Pauses,
    quota::Quota,
};

/// Identities whose quota is remembered. A helper may change them for ever.
const MOST_QUOTAS: usize = 64;

/// What a manifest may cost where upstream counts them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Spending {
    /// It is wanted: whatever is left may be spent on it.
    All,
    /// There is one that will do: not what `quota_reserve` keeps.
    AboveReserve,
}

/// How many manifests upstream gives, as it said last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RateLimit {
    /// In a window.
    pub limit: Option<u64>,
    /// In what is left of this window.
    pub remaining: Option<u64>,
    /// How long upstream looks back.
    pub window: Duration,
    /// To whom it counts, in its own words: Docker Hub tells an address or the number of an account.
    pub source: Option<String>,
    /// How long ago it said so.
    pub seen: Duration,
}

/// The limits of one endpoint. Has no `Debug`: it knows identities.
pub(super) struct Limits {
    registry: Registry,
    /// What is kept of a quota for manifests that are not here.
    reserve: u64,
    pauses: Pauses<Identity>,
    /// As last stated to each identity, the latest last.
    quotas: Mutex<Vec<Stated>>,
}

struct Stated {
    identity: Identity,
    quota: Quota,
    at: Instant,
}

impl Limits {
    /// Nothing is known yet.
    pub(super) fn new(registry: &Registry, reserve: u64) -> Limits {
        Limits {
            registry: registry.clone(),
            reserve,
            pauses: Pauses::default(),
            quotas: Mutex::default(),
        }
    }

    /// Whether `ask` may be sent as `identity` now. The endpoint limits manifests and lists; blobs go
    /// on, so that pulls which have begun can end.
    pub(super) fn admit(&self, identity: &Identity, ask: &Ask<'_>) -> Result<(), Error> {
        if ask.operation.is_limited() {
            self.respect_pause(identity)?;
        }
        match (ask.operation, ask.spending) {
            (Operation::ManifestGet, Spending::AboveReserve) => self.keep_reserve(identity),
            _ => Ok(()),
        }
    }

    /// Remembers what an answer to `identity` says of limits.
    pub(super) fn note(&self, identity: &Identity, operation: Operation, answer: &Answer) {
        if answer.source == Source::Elsewhere {
            return;
        }
        if answer.status == StatusCode::TOO_MANY_REQUESTS {
            self.pauses.begin(identity.clone(), answer.retry_after());
        }
        // Blobs go on meanwhile, and say nothing of it.
        if operation.is_limited() && answer.status.is_success() {
            self.pauses.note_success(identity);
        }
        if matches!(operation, Operation::ManifestHead | Operation::ManifestGet) {
            self.note_quota(identity, answer);
        }
    }

    /// `error`, with the pause that it began where upstream did not say how long.
    pub(super) fn told_to_wait(&self, identity: &Identity, error: Error) -> Error {
        let Error::Limited { message, retry_after: None } = error else {
            return error;
        };
        Error::Limited { message, retry_after: self.pauses.left(identity) }
    }

    /// The longest that any identity is to wait.
    pub(super) fn pause_left(&self) -> Option<Duration> {
        self.pauses.longest_left()
    }

    /// The quota that was stated last, if its window is not over.
    pub(super) fn rate_limit(&self) -> Option<RateLimit> {
        self.quotas().iter().rfind(|stated| stated.is_valid()).map(Stated::shown)
    }

    fn respect_pause(&self, identity: &Identity) -> Result<(), Error> {
        match self.pauses.left(identity) {
            Some(left) => Err(Error::Limited {
                message: format!("{} limits our requests", self.registry),
                retry_after: Some(left),
            }),
            None => Ok(()),
        }
    }

    fn keep_reserve(&self, identity: &Identity) -> Result<(), Error> {
        let is_own = |stated: &&Stated| stated.is_valid() && stated.identity == *identity;
        let left = self.quotas().iter().find(is_own).and_then(|stated| stated.quota.remaining);
        match left.filter(|left| *left <= self.reserve && self.reserve > 0) {
            Some(left) => Err(Error::Limited {
                message: format!(
                    "{} allows {left} more pulls, which quota_reserve keeps for what is not cached",
                    self.registry
                ),
                retry_after: None,
            }),
            None => Ok(()),
        }
    }

    /// A success that states no quota tells that there is none.
    fn note_quota(&self, identity: &Identity, answer: &Answer) {
        let quota = Quota::of(&answer.headers);
        if quota.is_none() && !answer.status.is_success() {
            return;
        }
        let mut quotas = self.quotas();
        quotas.retain(|stated| stated.identity != *identity && stated.is_valid());
        if quotas.len() >= MOST_QUOTAS {
            quotas.remove(0);
        }
        let stated = |quota| Stated { identity: identity.clone(), quota, at: Instant::now() };
        quotas.extend(quota.map(stated));
    }

    fn quotas(&self) -> MutexGuard<'_, Vec<Stated>> {
        self.quotas.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Stated {
    fn is_valid(&self) -> bool {
        self.at.elapsed() < self.quota.window
    }

    fn shown(&self) -> RateLimit {
        let Quota { limit, remaining, window, source } = self.quota.clone();
        RateLimit { limit, remaining, window, source, seen: self.at.elapsed() }
    }
}
