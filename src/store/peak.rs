//! The most that was held on a day: half of it stays, whoever fills the disk.
//!
//! The index remembers it. Else a mirror that is started over and over would take what is left for all that
//! it held, each time anew.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use super::running::RunningTime;

/// The time in which at most half of the cache leaves for what another program takes of the disk,
/// in running time.
const DAY: Duration = Duration::from_secs(24 * 3600);

/// A day of running time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Day {
    /// Which, counted from the beginning of the index.
    pub number: u32,
    /// The most bytes that were held on it so far.
    pub peak: u64,
}

/// The present [`Day`]; clones share it.
#[derive(Clone, Debug)]
pub struct Peak {
    running: RunningTime,
    day: Arc<Mutex<Day>>,
}

impl Peak {
    /// Goes on from `before`, where the previous life ended.
    pub fn resume(before: Day, running: RunningTime) -> Peak {
        Peak { running, day: Arc::new(Mutex::new(before)) }
    }

    /// So many bytes are held now. Returns the most that were today.
    pub fn see(&self, held: u64) -> u64 {
        let number = u64::from(self.running.now().seconds()) / DAY.as_secs();
        let number = u32::try_from(number).unwrap_or(u32::MAX);
        let mut day = self.lock();
        if number != day.number {
            *day = Day { number, peak: 0 };
        }
        day.peak = day.peak.max(held);
        day.peak
    }

    /// The day as it is to be remembered.
    pub fn day(&self) -> Day {
        *self.lock()
    }

    fn lock(&self) -> MutexGuard<'_, Day> {
        self.day.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{clock::Clock, store::running::Moment};

    #[test]
    fn a_peak_lasts_for_a_day_of_any_number_of_lives() {
        let clock = Clock::system();
        let mut peak = Peak::resume(
            Day { number: 0, peak: 7 },
            RunningTime::resume(Moment::default(), clock.clone()),
        );
        assert_eq!([5, 9, 3].map(|held| peak.see(held)), [7, 9, 9]);
        let noon = RunningTime::resume(Moment::from_seconds(12 * 3600), clock.clone());
        peak = Peak::resume(peak.day(), noon);
        assert_eq!(peak.see(3), 9);
        clock.advance(DAY / 2);
        assert_eq!([3, 2].map(|held| peak.see(held)), [3, 3]);
        assert_eq!(peak.day(), Day { number: 1, peak: 3 });
    }
}
