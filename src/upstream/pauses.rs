//! Who asked to be left alone, and until when.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// The longest pause that is believed. Docker Hub names hours; it may be asked before that.
const LONGEST: Duration = Duration::from_secs(300);

/// Pauses remembered at once. There are as many as there are credentials, which a helper may change
/// for ever.
const MOST: usize = 64;

/// Pauses, each of whatever `K` tells apart. Has no `Debug`: keys may be secrets.
pub(super) struct Pauses<K> {
    running: Mutex<Vec<(K, Instant)>>,
}

impl<K: PartialEq> Pauses<K> {
    /// Leaves `key` alone for so long from now on.
    pub(super) fn begin(&self, key: K, pause: Duration) {
        let now = Instant::now();
        let mut running = self.lock();
        running.retain(|(known, until)| *known != key && *until > now);
        if running.len() >= MOST {
            running.remove(0);
        }
        running.push((key, now + pause.min(LONGEST)));
    }

    /// How much longer `key` is to be left alone; `None` when it may be asked.
    pub(super) fn left(&self, key: &K) -> Option<Duration> {
        let running = self.lock();
        let (_, until) = running.iter().find(|(known, _)| known == key)?;
        left_until(*until)
    }

    /// The longest that any is to be left alone.
    pub(super) fn longest_left(&self) -> Option<Duration> {
        self.lock().iter().filter_map(|(_, until)| left_until(*until)).max()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<(K, Instant)>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K> Default for Pauses<K> {
    fn default() -> Pauses<K> {
        Pauses { running: Mutex::default() }
    }
}

fn left_until(until: Instant) -> Option<Duration> {
    let left = until.saturating_duration_since(Instant::now());
    (!left.is_zero()).then_some(left)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn each_has_its_own_pause() {
        let pauses = Pauses::default();
        assert_eq!(pauses.longest_left(), None);
        pauses.begin("anna", MINUTE);
        pauses.begin("bert", 2 * MINUTE);
        assert!(pauses.left(&"anna").is_some_and(|left| left <= MINUTE));
        assert!(pauses.left(&"bert").is_some_and(|left| left > MINUTE));
        assert_eq!(pauses.left(&"carl"), None);
        assert!(pauses.longest_left().is_some_and(|left| left > MINUTE));
        pauses.begin("bert", Duration::ZERO);
        assert_eq!(pauses.left(&"bert"), None);
        assert!(pauses.longest_left().is_some_and(|left| left <= MINUTE));
    }

    #[test]
    fn neither_time_nor_number_is_without_bound() {
        let pauses = Pauses::default();
        for key in 0..=MOST {
            pauses.begin(key, Duration::MAX);
        }
        assert_eq!(pauses.left(&0), None);
        assert!(pauses.left(&1).is_some_and(|left| left <= LONGEST));
        assert_eq!(pauses.lock().len(), MOST);
    }
}
