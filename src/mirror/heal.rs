//! Healing: what was found damaged is fetched again, before anyone asks for it.
//!
//! - Only through a repository in which upstream showed it, and only where that can be asked now.
//! - One at a time, and only while a slot is idle that prefetch could use: clients go first. One that
//!   asks meanwhile starts the same download, or joins it.
//! - What cannot be had now is tried again, less and less often. What upstream has no longer stays away.

use std::{cmp::Reverse, sync::Arc, time::Duration};

use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until},
};

use super::{
    Error, Mirror,
    blob::{File, Listed},
    download::Progress,
};
use crate::{
    oci::{Digest, Reference, Repository},
    store::Shown,
    upstream::{self, Spending},
};

/// Damaged blobs that wait to be looked at; more are left to the next pull.
pub const REPORTS: usize = 1024;

/// Damaged blobs that wait to be fetched; more are left to the next pull.
const MAX_WAITING: usize = 1024;

/// How long a blob waits that could not be had, at first and at most. Each wait is twice as long as
/// the one before.
const FIRST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(3600);

/// How often a blob is tried: for about a day.
const TRIES: u32 = 35;

/// How an attempt to fetch a blob again has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Healing {
    /// It is here again.
    Healed,
    /// It cannot be had now, for this reason.
    Later(String),
    /// It cannot be had, for this reason.
    Hopeless(String),
}

/// A blob that waits to be fetched again.
struct Patient {
    digest: Digest,
    tries: u32,
    due: Instant,
}

impl Mirror {
    /// Fetches again what is reported to be damaged, until nobody reports any more.
    pub async fn heal(self: Arc<Self>, mut reports: mpsc::Receiver<Digest>) {
        let mut patients: Vec<Patient> = Vec::new();
        loop {
            let next = patients.iter().map(|patient| patient.due).min();
            tokio::select! {
                reported = reports.recv() => match reported {
                    Some(digest) => admit(&mut patients, digest),
                    None => return,
                },
                () = sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => {
                    self.treat_next(&mut patients).await;
                }
            }
        }
    }

    /// Fetches a blob or manifest again that was found damaged, unless that is done already.
    pub async fn heal_one(self: &Arc<Self>, digest: &Digest) -> Healing {
        let healing = self.heal_in(&self.store.shown_in(digest), digest).await;
        tell(digest, &healing);
        healing
    }

    async fn treat_next(self: &Arc<Self>, patients: &mut Vec<Patient>) {
        patients.sort_by_key(|patient| Reverse(patient.due));
        let Some(mut patient) = patients.pop() else {
            return;
        };
        let digest = &patient.digest;
        match self.heal_in_passing(digest).await {
            ended @ (Healing::Healed | Healing::Hopeless(_)) => tell(digest, &ended),
            Healing::Later(reason) if patient.tries >= TRIES => {
                tracing::warn!(%digest, reason, "a damaged blob is left to the next pull");
            }
            Healing::Later(reason) => {
                tracing::debug!(%digest, reason, "a damaged blob has to wait");
                patient.due = Instant::now() + wait_after(patient.tries);
                patient.tries += 1;
                patients.push(patient);
            }
        }
    }

    /// As [`Mirror::heal_one`], where that is in nobody's way.
    async fn heal_in_passing(self: &Arc<Self>, digest: &Digest) -> Healing {
        let mut shown = self.store.shown_in(digest);
        shown.retain(|shown| self.mirrored(&shown.repository).is_ok());
        let is_known = !shown.is_empty();
        shown.retain(|shown| self.is_available(&shown.repository));
        if is_known && (shown.is_empty() || !self.has_idle_slot()) {
            return Healing::Later("others go first, or upstream is away".to_owned());
        }
        self.heal_in(&shown, digest).await
    }

    /// Asks one repository after another.
    async fn heal_in(self: &Arc<Self>, shown: &[Shown], digest: &Digest) -> Healing {
        let mut outcome = Healing::Hopeless("no registry is known to have it".to_owned());
        for Shown { repository, is_manifest } in shown {
            if self.store.has(digest) {
                return Healing::Healed;
            }
            let healing = match is_manifest {
                _ if self.permit_repository(repository).is_err() => {
                    Healing::Hopeless(format!("a rule denies {repository}"))
                }
                true => self.heal_manifest(repository, digest).await,
                false => self.heal_blob(repository, digest).await,
            };
            // Where it may be had later counts for more than where it is not.
            outcome = match (healing, outcome) {
                (Healing::Healed, _) => return Healing::Healed,
                (Healing::Hopeless(_), later @ Healing::Later(_)) => later,
                (healing, _) => healing,
            };
        }
        if self.store.has(digest) { Healing::Healed } else { outcome }
    }

    async fn heal_manifest(self: &Arc<Self>, repository: &Repository, digest: &Digest) -> Healing {
        let (reference, spending) = (Reference::Digest(digest.clone()), Spending::AboveReserve);
        match self.fetch(repository, &reference, spending, self.deadline()).await {
            Ok(_) => self.healed(digest, "the store cannot keep it"),
            Err(Error::NotFound(reason)) => Healing::Hopeless(reason),
            Err(error) => Healing::Later(error.to_string()),
        }
    }

    async fn heal_blob(self: &Arc<Self>, repository: &Repository, digest: &Digest) -> Healing {
        let listed = match self.list_download(repository, digest, File::Absent) {
            Ok(Some(listed)) => listed,
            Ok(None) => return self.healed(digest, "it is on its way"),
            Err(error) => return Healing::Hopeless(error.to_string()),
        };
        let progress = listed.progress();
        let run = async move |mut listed: Listed| listed.run().await;
        // In a task of its own: who stops waiting ends nothing.
        let ended = self.tasks.spawn(run(listed)).await;
        let seen = progress.borrow().clone();
        match seen {
            _ if ended.is_err() => Healing::Later("the download was lost".to_owned()),
            Progress::Refused(upstream::Error::NotFound(reason)) => Healing::Hopeless(reason),
            Progress::Refused(error) => Healing::Later(error.to_string()),
            Progress::Opening
            | Progress::Untaken(_)
            | Progress::Filling(_)
            | Progress::Verified(_)
            | Progress::Broken
            | Progress::Stranded(_) => {
                self.healed(digest, "upstream broke off, or the store cannot keep it")
            }
        }
    }

    fn healed(&self, digest: &Digest, otherwise: &str) -> Healing {
        if self.store.has(digest) { Healing::Healed } else { Healing::Later(otherwise.to_owned()) }
    }
}

fn tell(digest: &Digest, healing: &Healing) {
    match healing {
        Healing::Healed => tracing::info!(%digest, "a damaged blob is here again"),
        Healing::Later(reason) => tracing::info!(%digest, reason, "a damaged blob has to wait"),
        Healing::Hopeless(reason) => {
            tracing::warn!(%digest, reason, "a damaged blob cannot be fetched again");
        }
    }
}

fn admit(patients: &mut Vec<Patient>, digest: Digest) {
    let is_known = patients.iter().any(|patient| patient.digest == digest);
    if !is_known && patients.len() < MAX_WAITING {
        patients.push(Patient { digest, tries: 0, due: Instant::now() });
    }
}

/// How long to wait after so many tries before this one.
fn wait_after(tries: u32) -> Duration {
    FIRST_WAIT.saturating_mul(2u32.saturating_pow(tries)).min(LONGEST_WAIT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_waits_grow_to_an_hour_and_add_up_to_a_day() {
        assert_eq!(wait_after(0), FIRST_WAIT);
        assert_eq!(wait_after(3), 8 * FIRST_WAIT);
        assert_eq!(wait_after(u32::MAX), LONGEST_WAIT);
        let total: Duration = (0..TRIES).map(wait_after).sum();
        let day = Duration::from_secs(24 * 3600);
        assert!(total > day && total < 2 * day, "{total:?}");
    }

    #[test]
    fn who_waits_already_is_not_admitted_twice() {
        let digest = |n: u32| Digest::of(crate::oci::Algorithm::Sha256, &n.to_le_bytes());
        let mut patients = Vec::new();
        [1, 2, 1].into_iter().for_each(|n| admit(&mut patients, digest(n)));
        assert_eq!(patients.len(), 2);
    }
}
