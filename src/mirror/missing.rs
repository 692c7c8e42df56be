//! What upstream said it does not have, remembered briefly for each repository.

use std::{sync::Arc, time::Duration};

use moka::sync::Cache;

use super::{Error, Mirror};
use crate::{
    clock::Clock,
    oci::{Digest, Reference, Repository},
    upstream,
};

/// The most absences remembered.
const CAPACITY: u64 = 10_000;

/// The longest time for which something attached to an image, such as a signature, is remembered
/// as absent: it appears after the image.
const ATTACHED_TTL: Duration = Duration::from_secs(10);

/// Something that may be absent.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Absent {
    Manifest(Repository, Reference),
    Blob(Repository, Digest),
    Tags(Repository),
    Referrers(Repository, Digest),
}

/// The absences upstream reported.
pub(super) struct Missing {
    remembered: Cache<Absent, Arc<Remembered>>,
    ttl: Duration,
    clock: Clock,
}

struct Remembered {
    /// In running time.
    until: Duration,
    error: Error,
}

impl Absent {
    pub(super) fn manifest(repository: &Repository, reference: &Reference) -> Absent {
        Absent::Manifest(repository.clone(), reference.clone())
    }

    pub(super) fn blob(repository: &Repository, digest: &Digest) -> Absent {
        Absent::Blob(repository.clone(), digest.clone())
    }

    pub(super) fn tags(repository: &Repository) -> Absent {
        Absent::Tags(repository.clone())
    }

    pub(super) fn referrers(repository: &Repository, subject: &Digest) -> Absent {
        Absent::Referrers(repository.clone(), subject.clone())
    }

    fn repository(&self) -> &Repository {
        match self {
            Absent::Manifest(repository, _)
            | Absent::Blob(repository, _)
            | Absent::Referrers(repository, _)
            | Absent::Tags(repository) => repository,
        }
    }

    fn kind(&self) -> &'static str {
        match self {
            Absent::Manifest(..) => "manifest",
            Absent::Blob(..) => "blob",
            Absent::Tags(_) => "tags",
            Absent::Referrers(..) => "referrers",
        }
    }

    fn is_attached(&self) -> bool {
        match self {
            Absent::Manifest(_, Reference::Tag(tag)) => tag.is_of_digest(),
            Absent::Referrers(..) => true,
            Absent::Manifest(..) | Absent::Blob(..) | Absent::Tags(_) => false,
        }
    }
}

impl Missing {
    pub(super) fn new(ttl: Duration, clock: Clock) -> Missing {
        Missing { remembered: Cache::new(CAPACITY), ttl, clock }
    }

    /// Whatever was absent may be asked for again.
    pub(super) fn forget_all(&self) {
        self.remembered.invalidate_all();
    }

    fn get(&self, absent: &Absent) -> Option<Error> {
        let remembered = self.remembered.get(absent)?;
        (self.clock.running() < remembered.until).then(|| remembered.error.clone())
    }

    /// Whether this was not known, not even as long past.
    fn insert(&self, absent: Absent, error: Error) -> bool {
        let ttl = if absent.is_attached() { self.ttl.min(ATTACHED_TTL) } else { self.ttl };
        let until = self.clock.running().saturating_add(ttl);
        let is_news = !self.remembered.contains_key(&absent);
        self.remembered.insert(absent, Arc::new(Remembered { until, error }));
        is_news
    }
}

impl Mirror {
    /// Whether upstream has just said that there is no such thing. Counts as no look-up.
    pub(super) fn is_absent(&self, absent: &Absent) -> bool {
        self.known_absence(absent).is_some()
    }

    /// What upstream has just said of a thing, if it said that there is none. Counts as no look-up.
    pub(super) fn known_absence(&self, absent: &Absent) -> Option<Error> {
        self.missing.get(absent)
    }

    /// Fails when upstream has just said that there is no such thing.
    pub(super) fn refuse_absent(&self, absent: &Absent) -> Result<(), Error> {
        let Some(error) = self.missing.get(absent) else {
            return Ok(());
        };
        self.count(absent.repository(), absent.kind(), "negative");
        Err(error)
    }

    /// Remembers upstream's answer if it said that there is no such thing.
    pub(super) fn remember_absent(&self, absent: Absent, error: upstream::Error) -> Error {
        let error = Error::from(error);
        if !matches!(error, Error::NotFound(_) | Error::Denied(_)) {
            return error;
        }
        let is_news = self.missing.insert(absent.clone(), error.clone());
        if is_news && matches!(error, Error::Denied(_)) {
            let (repository, kind) = (absent.repository(), absent.kind());
            tracing::warn!(%repository, kind, %error, "upstream denies access");
        }
        error
    }
}
