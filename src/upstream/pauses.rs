//! Who asked to be left alone, and until when.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// The longest pause that is believed. Docker Hub names hours; it may be asked before that. After as
/// long again without a word, nothing is in a row any more.
const LONGEST: Duration = Duration::from_secs(300);

/// The first pause where none is stated. It doubles with each in a row.
const FIRST_UNSTATED: Duration = Duration::from_secs(1);
const LAST_UNSTATED: Duration = Duration::from_secs(60);

/// Pauses remembered at once. There are as many as there are credentials, which a helper may change
/// for ever.
const MOST: usize = 64;

/// Pauses, each of whatever `K` tells apart. Has no `Debug`: keys may be secrets.
pub(super) struct Pauses<K> {
    known: Mutex<Known<K>>,
}

impl<K: PartialEq> Pauses<K> {
    /// Leaves `key` alone from now on: for so long as is `stated`, or until a pause that is running
    /// ends, or else for longer than the last time. A pause of no time is none that is stated.
    pub(super) fn begin(&self, key: K, stated: Option<Duration>) {
        self.known().begin(key, stated, Instant::now());
    }

    /// `key` was served: what comes next is not in a row with what is over.
    pub(super) fn note_success(&self, key: &K) {
        self.known().note_success(key, Instant::now());
    }

    /// How much longer `key` is to be left alone; `None` when it may be asked.
    pub(super) fn left(&self, key: &K) -> Option<Duration> {
        self.known().left(key, Instant::now())
    }

    /// The longest that any is to be left alone.
    pub(super) fn longest_left(&self) -> Option<Duration> {
        self.known().longest_left(Instant::now())
    }

    fn known(&self) -> MutexGuard<'_, Known<K>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K> Default for Pauses<K> {
    fn default() -> Pauses<K> {
        Pauses { known: Mutex::new(Known(Vec::new())) }
    }
}

/// The pauses that are remembered, the latest last. The time is told to it.
struct Known<K>(Vec<Pause<K>>);

/// One that is running, or over for so short a time that the next may be in a row with it.
struct Pause<K> {
    key: K,
    until: Instant,
    /// How long it is where it is not stated.
    unstated: Duration,
}

impl<K: PartialEq> Known<K> {
    fn begin(&mut self, key: K, stated: Option<Duration>, now: Instant) {
        self.0.retain(|pause| now < pause.until + LONGEST);
        let last = self.0.iter().position(|pause| pause.key == key);
        let last = last.map(|place| self.0.remove(place));
        if self.0.len() >= MOST {
            self.0.remove(0);
        }
        let stated = stated.filter(|stated| !stated.is_zero());
        self.0.push(Pause::after(last, key, stated, now));
    }

    fn note_success(&mut self, key: &K, now: Instant) {
        self.0.retain(|pause| pause.key != *key || pause.left(now).is_some());
    }

    fn left(&self, key: &K, now: Instant) -> Option<Duration> {
        self.0.iter().find(|pause| pause.key == *key)?.left(now)
    }

    fn longest_left(&self, now: Instant) -> Option<Duration> {
        self.0.iter().filter_map(|pause| pause.left(now)).max()
    }
}

impl<K> Pause<K> {
    fn after(last: Option<Pause<K>>, key: K, stated: Option<Duration>, now: Instant) -> Pause<K> {
        let running = last.as_ref().map(|last| last.until).filter(|until| now < *until);
        let unstated = match (last, running) {
            (None, _) => FIRST_UNSTATED,
            // What was asked before it began says nothing new.
            (Some(last), Some(_)) => last.unstated,
            (Some(last), None) => last.unstated.saturating_mul(2).min(LAST_UNSTATED),
        };
        let until = match stated {
            Some(stated) => now + stated.min(LONGEST),
            None => running.unwrap_or(now + unstated),
        };
        Pause { key, until, unstated }
    }

    fn left(&self, now: Instant) -> Option<Duration> {
        let left = self.until.saturating_duration_since(now);
        (!left.is_zero()).then_some(left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn each_has_its_own_pause() {
        let now = Instant::now();
        let mut known = Known(Vec::new());
        assert_eq!(known.longest_left(now), None);
        known.begin("anna", Some(MINUTE), now);
        known.begin("bert", Some(2 * MINUTE), now);
        assert_eq!(known.left(&"anna", now), Some(MINUTE));
        assert_eq!(known.left(&"bert", now), Some(2 * MINUTE));
        assert_eq!(known.left(&"carl", now), None);
        assert_eq!(known.longest_left(now), Some(2 * MINUTE));
        known.begin("bert", Some(SECOND), now);
        let later = now + SECOND;
        assert_eq!(known.left(&"bert", later), None);
        assert_eq!(known.longest_left(later), Some(MINUTE - SECOND));
    }

    #[test]
    fn pauses_that_are_not_stated_become_longer() {
        let mut now = Instant::now();
        let mut known = Known(Vec::new());
        for want in [1, 2, 4, 8, 16, 32, 60, 60] {
            known.begin("anna", None, now);
            let half = known.left(&"anna", now).unwrap() / 2;
            assert_eq!(2 * half, want * SECOND);
            now += half;
            known.begin("anna", Some(Duration::ZERO), now);
            assert_eq!(known.left(&"anna", now), Some(half), "it was asked for before");
            known.note_success(&"anna", now);
            assert_eq!(known.left(&"anna", now), Some(half), "so was this");
            now += half;
        }
        known.note_success(&"anna", now);
        known.begin("anna", None, now);
        assert_eq!(known.left(&"anna", now), Some(SECOND), "after a success");
        known.begin("anna", Some(MINUTE), now);
        known.begin("anna", None, now);
        assert_eq!(known.left(&"anna", now), Some(MINUTE), "what is stated stays");
        now += MINUTE + LONGEST;
        known.begin("anna", None, now);
        assert_eq!(known.left(&"anna", now), Some(SECOND), "after a long time");
    }

    #[test]
    fn neither_time_nor_number_is_without_bound() {
        let now = Instant::now();
        let mut known = Known(Vec::new());
        for key in 0..=MOST {
            known.begin(key, Some(Duration::MAX), now);
        }
        assert_eq!(known.left(&0, now), None);
        assert_eq!(known.left(&1, now), Some(LONGEST));
        assert_eq!(known.0.len(), MOST);
    }
}
