//! Our account is not everybody's: what a registry shows only to Larder's credentials is served to
//! others only where `share_private` says so.
//!
//! - Who may see a repository is upstream's word on a question without credentials, about what a client
//!   has just asked for. It is asked beside the client's own question, and once for all.
//! - The word is believed for a while, also over a restart. As long as upstream says nothing new, what
//!   it said before counts, however old. If it never said anything, nothing is served.
//! - So it is also where nothing is to be asked: what was never found to be public is not served before
//!   the operator says so.
//! - Where everything is shared, and where no credentials are configured, nobody is asked.

use std::{sync::Arc, time::Duration};

use moka::sync::Cache;
use tokio::time::Instant;

use super::{Error, Mirror, flight::Flights, missing::Absent};
use crate::{
    config::{self, Glob},
    oci::{Name, Repository, Visibility},
    store::Verdict,
    upstream::Sample,
};

/// How long a repository is believed to be public. It seldom ceases to be, and whoever could pull it
/// until then may have it anyway.
const PUBLIC_FOR: Duration = Duration::from_secs(24 * 3600);

/// How long a repository is believed to be private: whoever has just published one waits for it.
const PRIVATE_FOR: Duration = Duration::from_secs(10 * 60);

/// How long upstream is not asked again that could not say who may see a repository.
const UNDECIDED_FOR: Duration = Duration::from_secs(10);

/// The most repositories remembered that upstream could not say it of.
const MAX_UNDECIDED: u64 = 10_000;

/// Which repositories of a registry everyone may see who may ask, whoever may see them there.
pub(super) struct Shares {
    is_everything: bool,
    globs: Vec<Glob>,
}

/// Who may see which repository, beside what the store remembers of it.
pub(super) struct Sharing {
    undecided: Cache<Repository, Undecided>,
    flights: Flights<(Repository, Sample), Visibility>,
}

/// That upstream could not say who may see a repository.
#[derive(Clone)]
struct Undecided {
    /// In running time.
    until: Duration,
    error: Error,
}

/// What is known before upstream is asked.
enum Known {
    /// Everyone may see it who may ask.
    Shared,
    /// Nothing that is still believed; with what upstream said before.
    Outdated(Option<Verdict>),
}

impl Shares {
    pub(super) fn new(config: &config::Upstream) -> Shares {
        let is_everything = config.shares_everything();
        Shares { is_everything, globs: config.share_private.clone() }
    }

    fn has(&self, name: &Name) -> bool {
        self.is_everything || self.globs.iter().any(|glob| glob.matches(name.as_str()))
    }
}

impl Sharing {
    pub(super) fn new() -> Sharing {
        Sharing { undecided: Cache::new(MAX_UNDECIDED), flights: Flights::default() }
    }
}

impl Mirror {
    /// Answers with `answer` if everyone may see the repository who may ask; where that is not known,
    /// upstream is asked meanwhile.
    pub(super) async fn if_shared<T, F>(
        self: &Arc<Self>,
        repository: &Repository,
        sample: Sample,
        deadline: Instant,
        answer: impl FnOnce() -> F,
    ) -> Result<T, Error>
    where
        F: Future<Output = Result<T, Error>>,
    {
        match self.known(repository)? {
            Known::Shared => answer().await,
            Known::Outdated(old) => {
                Box::pin(self.once_shared(repository, sample, old, deadline, answer())).await
            }
        }
    }

    /// As [`Mirror::if_shared`], where it is not known.
    async fn once_shared<T>(
        self: &Arc<Self>,
        repository: &Repository,
        sample: Sample,
        old: Option<Verdict>,
        deadline: Instant,
        answer: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        if let Some(error) = self.still_undecided(repository, &sample, old) {
            fall_back(repository, old, error)?;
            return answer.await;
        }
        let shared = self.find_out(repository, sample, old, deadline);
        // What was private probably is: nothing shall be fetched in vain.
        if old.is_some_and(|old| old.visibility == Visibility::Private) {
            shared.await?;
            return answer.await;
        }
        let (answer, ()) = tokio::try_join!(answer, shared)?;
        Ok(answer)
    }

    /// Fails unless everyone may see the repository who may ask. For what is better not begun in vain.
    pub(super) async fn ensure_shared(
        self: &Arc<Self>,
        repository: &Repository,
        sample: Sample,
        deadline: Instant,
    ) -> Result<(), Error> {
        self.if_shared(repository, sample, deadline, || std::future::ready(Ok(()))).await
    }

    /// Whether everyone may know of the repository who may ask, as far as upstream ever said.
    pub(super) fn is_listed_for_all(&self, repository: &Repository) -> bool {
        match self.known(repository) {
            Ok(Known::Shared) => true,
            Ok(Known::Outdated(old)) => old.is_some_and(|old| old.visibility == Visibility::Public),
            Err(_) => false,
        }
    }

    /// What is known of a repository. Looks into memory only, and where neither credentials nor
    /// anything private is, not even there. Fails when it is private.
    fn known(&self, repository: &Repository) -> Result<Known, Error> {
        let (mirrored, name) = (self.mirrored(repository)?, repository.name());
        let has_credentials = mirrored.upstream.has_credentials_for(name);
        if !(has_credentials || mirrored.had_private) || mirrored.shares.has(name) {
            return Ok(Known::Shared);
        }
        match self.store.verdict(repository) {
            Some(verdict) if self.is_believed(&verdict) => {
                permit(repository, verdict.visibility).map(|()| Known::Shared)
            }
            // What came without credentials is nobody's secret, unless it once came with some.
            None | Some(Verdict { visibility: Visibility::Public, .. }) if !has_credentials => {
                Ok(Known::Shared)
            }
            old => Ok(Known::Outdated(old)),
        }
    }

    fn is_believed(&self, verdict: &Verdict) -> bool {
        let life = match verdict.visibility {
            Visibility::Public => PUBLIC_FOR,
            Visibility::Private => PRIVATE_FOR,
        };
        self.age(verdict.checked_at).is_some_and(|age| age < life)
    }

    /// Asks upstream who may see the repository. Who has an old answer waits no longer than one who
    /// has the content.
    async fn find_out(
        self: &Arc<Self>,
        repository: &Repository,
        sample: Sample,
        old: Option<Verdict>,
        deadline: Instant,
    ) -> Result<(), Error> {
        let until = match old {
            Some(_) => self.patience(self.mirrored(repository)?).min(deadline),
            None => deadline,
        };
        match self.ask_who_may_see(repository, sample, until).await {
            Ok(visibility) => permit(repository, visibility),
            Err(error) => fall_back(repository, old, error),
        }
    }

    /// Why there is no use in asking upstream now.
    fn still_undecided(
        &self,
        repository: &Repository,
        sample: &Sample,
        old: Option<Verdict>,
    ) -> Option<Error> {
        let undecided = self.sharing.undecided.get(repository);
        let undecided = undecided.filter(|undecided| self.clock.running() < undecided.until);
        let error = undecided.map(|undecided| undecided.error);
        // Without an old answer, what is wrong with one sample says nothing of the next, nor does
        // an outage that may be over. A limit does.
        let error = error.filter(|error| old.is_some() || matches!(error, Error::Limited { .. }));
        error.or_else(|| self.known_absence(&absent(repository, sample)))
    }

    /// Upstream's answer, for all who want to know by the same sample.
    async fn ask_who_may_see(
        self: &Arc<Self>,
        repository: &Repository,
        sample: Sample,
        until: Instant,
    ) -> Result<Visibility, Error> {
        let key = (repository.clone(), sample.clone());
        let check = || self.clone().check_visibility(repository.clone(), sample);
        let found = self.sharing.flights.join(key, until, check).await;
        if let Err(error) = &found {
            let until = self.clock.running().saturating_add(UNDECIDED_FOR);
            let undecided = Undecided { until, error: error.clone() };
            self.sharing.undecided.insert(repository.clone(), undecided);
        }
        found
    }

    async fn check_visibility(
        self: Arc<Self>,
        repository: Repository,
        sample: Sample,
    ) -> Result<Visibility, Error> {
        let old = self.store.verdict(&repository);
        // Another flight may have landed after the caller had looked.
        if let Some(verdict) = old.filter(|verdict| self.is_believed(verdict)) {
            return Ok(verdict.visibility);
        }
        let upstream = self.upstream(&repository)?;
        let found = upstream.visibility(repository.name(), &sample, self.deadline()).await;
        // What we are told does not exist is asked for by nobody for a while.
        let absent = || absent(&repository, &sample);
        let visibility = found.map_err(|error| self.remember_absent(absent(), error))?;
        let is_news = old.is_none_or(|old| old.visibility != visibility);
        if is_news && visibility == Visibility::Private {
            tracing::warn!(%repository, "only our credentials may see it: not served, unless share_private has it");
        }
        let verdict = Verdict { visibility, checked_at: self.clock.wall() };
        self.store.judge(&repository, verdict);
        Ok(visibility)
    }
}

/// What holds while upstream does not say who may see a repository, for this reason.
fn fall_back(repository: &Repository, old: Option<Verdict>, error: Error) -> Result<(), Error> {
    match (old, error) {
        (Some(old), _) => permit(repository, old.visibility),
        // Nobody will ask until the operator does something.
        (None, Error::Offline(why)) => Err(Error::Offline(format!(
            "{why}; nobody has asked yet whether {repository} is public, so that only share_private \
             in its [[upstream]] has it served"
        ))),
        (None, error) => Err(error),
    }
}

fn permit(repository: &Repository, visibility: Visibility) -> Result<(), Error> {
    match visibility {
        Visibility::Public => Ok(()),
        Visibility::Private => {
            let (registry, name) = (repository.registry(), repository.name());
            Err(Error::NotFound(format!(
                "{repository} is private upstream, and this mirror does not share it; \
                 its operator can, by share_private = [\"{name}\"] in the [[upstream]] of {registry}"
            )))
        }
    }
}

fn absent(repository: &Repository, sample: &Sample) -> Absent {
    match sample {
        Sample::Manifest(reference) => Absent::manifest(repository, reference),
        Sample::Blob(digest) => Absent::blob(repository, digest),
        Sample::Tags => Absent::tags(repository),
    }
}
