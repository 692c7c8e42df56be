//! Who may see which repository upstream.

use std::{collections::HashMap, time::SystemTime};

use super::Table;
use crate::oci::{Repository, Visibility};

/// The most repositories of which it is remembered; of more, those asked about longest ago are
/// forgotten.
const MAX_VERDICTS: usize = 10_000;

/// What upstream said of who may see a repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Who may.
    pub visibility: Visibility,
    /// When upstream said so.
    pub checked_at: SystemTime,
}

pub(super) type Verdicts = HashMap<Repository, Verdict>;

impl Table {
    /// What upstream last said of who may see a repository.
    pub fn verdict(&self, repository: &Repository) -> Option<Verdict> {
        self.verdicts.get(repository).copied()
    }

    /// Everything that upstream said of who may see what.
    pub fn verdicts(&self) -> impl Iterator<Item = (&Repository, &Verdict)> {
        self.verdicts.iter()
    }

    /// Upstream said who may see a repository.
    pub fn judge(&mut self, repository: &Repository, verdict: Verdict) {
        if self.verdicts.len() >= MAX_VERDICTS && !self.verdicts.contains_key(repository) {
            self.forget_oldest_verdicts();
        }
        self.verdicts.insert(repository.clone(), verdict);
        self.changes.verdicts.insert(repository.clone());
    }

    /// Forgets what was said before `moment` of repositories that have nothing to show here.
    pub fn forget_idle_verdicts(&mut self, moment: SystemTime) {
        self.forget_verdicts(|table, repository, verdict| {
            verdict.checked_at < moment && !table.is_shown(repository)
        });
    }

    /// A tenth of them at once, so that few of many calls look at them all.
    fn forget_oldest_verdicts(&mut self) {
        let mut times: Vec<SystemTime> =
            self.verdicts.values().map(|verdict| verdict.checked_at).collect();
        let tenth = times.len() / 10;
        let limit = *times.select_nth_unstable(tenth).1;
        self.forget_verdicts(|_, _, verdict| verdict.checked_at <= limit);
    }

    /// Nothing is known any more of who may see a repository.
    pub fn forget_verdict(&mut self, repository: &Repository) {
        self.verdicts.remove(repository);
        self.changes.verdicts.insert(repository.clone());
    }

    fn forget_verdicts(&mut self, is_done: impl Fn(&Table, &Repository, &Verdict) -> bool) {
        let done = self.verdicts.iter().filter(|(name, verdict)| is_done(self, name, verdict));
        let done: Vec<Repository> = done.map(|(name, _)| name.clone()).collect();
        for repository in done {
            self.forget_verdict(&repository);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn said_at(seconds: u64) -> Verdict {
        let checked_at = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        Verdict { visibility: Visibility::Private, checked_at }
    }

    fn repository(number: usize) -> Repository {
        format!("ghcr.io/a/{number}").parse().unwrap()
    }

    #[test]
    fn of_too_many_the_oldest_are_forgotten() {
        let mut table = Table::default();
        for number in 0..MAX_VERDICTS {
            table.judge(&repository(number), said_at(number as u64));
        }
        table.judge(&repository(0), said_at(20_000));
        assert_eq!(table.verdicts().count(), MAX_VERDICTS, "one that is known takes no room");
        table.judge(&repository(MAX_VERDICTS), said_at(20_000));
        assert_eq!(table.verdicts().count(), MAX_VERDICTS - MAX_VERDICTS / 10);
        assert_eq!(table.verdict(&repository(1)), None);
        for kept in [0, MAX_VERDICTS - 1, MAX_VERDICTS] {
            assert!(table.verdict(&repository(kept)).is_some(), "{kept}");
        }
    }

    #[test]
    fn the_index_learns_what_is_said_and_what_is_forgotten() {
        let mut table = Table::default();
        table.judge(&repository(1), said_at(1));
        table.judge(&repository(2), said_at(2));
        table.judge(&repository(1), said_at(3));
        let mut batch = table.take_changes(10).verdicts;
        batch.sort_by_key(|(repository, _)| repository.clone());
        let expected = vec![(repository(1), Some(said_at(3))), (repository(2), Some(said_at(2)))];
        assert_eq!(batch, expected);

        table.forget_idle_verdicts(said_at(3).checked_at);
        assert_eq!(table.take_changes(10).verdicts, [(repository(2), None)]);
        table.mark_all();
        assert_eq!(table.take_changes(10).verdicts, [(repository(1), Some(said_at(3)))]);
        assert!(table.take_changes(10).is_empty());
    }
}
