//! The time Larder has run, over all its lives: the only clock by which anything expires.
//!
//! The index remembers how far it came, so that time in which the daemon was off, or by which
//! the host's clock jumped, makes nothing older.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use crate::clock::Clock;

/// A point of running time: the seconds since the index began in the upper half, and in the lower
/// half a number by which what happens within one second is put in order. Only the seconds are
/// remembered from one life to the next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(u64);

/// The latest of some moments, which any number may add to at the same time.
#[derive(Debug)]
pub struct LatestMoment(AtomicU64);

/// Tells the present [`Moment`]. Clones share what they told.
#[derive(Clone, Debug)]
pub struct RunningTime {
    before: Moment,
    opened: Duration,
    clock: Clock,
    told: Arc<AtomicU64>,
}

impl Moment {
    /// The moment `seconds` after the beginning.
    pub fn from_seconds(seconds: u32) -> Moment {
        Moment(u64::from(seconds) << 32)
    }

    /// Seconds since the beginning.
    pub fn seconds(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// The running time from `earlier` to this moment, in whole seconds; zero when `earlier` is later.
    pub fn since(self, earlier: Moment) -> Duration {
        Duration::from_secs(u64::from(self.seconds().saturating_sub(earlier.seconds())))
    }
}

impl LatestMoment {
    /// Of one moment.
    pub fn of(moment: Moment) -> LatestMoment {
        LatestMoment(AtomicU64::new(moment.0))
    }

    /// The latest so far. Who sees it sees all that was done before it was added.
    pub fn get(&self) -> Moment {
        Moment(self.0.load(Ordering::Acquire))
    }

    /// Adds a moment. Tells whether it is the latest.
    pub fn add(&self, moment: Moment) -> bool {
        self.0.fetch_max(moment.0, Ordering::AcqRel) < moment.0
    }
}

impl RunningTime {
    /// Goes on from `before`, where the previous life ended.
    pub fn resume(before: Moment, clock: Clock) -> RunningTime {
        RunningTime { before, opened: clock.running(), clock, told: Arc::default() }
    }

    /// The present moment, later than every one told before.
    pub fn now(&self) -> Moment {
        let life = self.clock.running().saturating_sub(self.opened).as_secs();
        let life = u32::try_from(life).unwrap_or(u32::MAX);
        let second = Moment::from_seconds(self.before.seconds().saturating_add(life));
        self.told.fetch_max(second.0, Ordering::Relaxed);
        Moment(self.told.fetch_add(1, Ordering::Relaxed).saturating_add(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_life_goes_on_where_the_last_one_ended() {
        let clock = Clock::system();
        clock.advance(Duration::from_secs(50));
        let before = Moment::from_seconds(1000);
        let running = RunningTime::resume(before, clock.clone());
        assert_eq!(running.now().seconds(), 1000);
        clock.jump_wall(Duration::from_secs(1 << 30));
        clock.advance(Duration::from_secs(7));
        assert_eq!(running.now().since(before), Duration::from_secs(7));
        assert_eq!(before.since(running.now()), Duration::ZERO);
    }

    #[test]
    fn moments_of_one_second_are_in_order() {
        let running = RunningTime::resume(Moment::default(), Clock::system());
        let (first, second) = (running.now(), running.clone().now());
        assert!(first < second);
        assert_eq!(second.since(first), Duration::ZERO);
        let begun = Moment::from_seconds(running.now().seconds().saturating_add(1));
        assert!(second < begun, "the order is that of the seconds first");
    }
}
