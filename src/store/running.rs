//! The time Larder has run, over all its lives: the only clock by which anything expires.
//!
//! The index remembers how far it came, so that time in which the daemon was off, or by which
//! the host's clock jumped, makes nothing older.

use std::time::Duration;

use crate::clock::Clock;

/// A point of running time, in whole seconds since the index began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(u32);

/// Tells the present [`Moment`].
#[derive(Clone, Debug)]
pub struct RunningTime {
    before: Moment,
    opened: Duration,
    clock: Clock,
}

impl Moment {
    /// The moment `seconds` after the beginning.
    pub fn from_seconds(seconds: u32) -> Moment {
        Moment(seconds)
    }

    /// Seconds since the beginning.
    pub fn seconds(self) -> u32 {
        self.0
    }

    /// The running time from `earlier` to this moment; zero when `earlier` is later.
    pub fn since(self, earlier: Moment) -> Duration {
        Duration::from_secs(u64::from(self.0.saturating_sub(earlier.0)))
    }
}

impl RunningTime {
    /// Goes on from `before`, where the previous life ended.
    pub fn resume(before: Moment, clock: Clock) -> RunningTime {
        RunningTime { before, opened: clock.running(), clock }
    }

    /// The present moment.
    pub fn now(&self) -> Moment {
        let life = self.clock.running().saturating_sub(self.opened).as_secs();
        let life = u32::try_from(life).unwrap_or(u32::MAX);
        Moment(self.before.0.saturating_add(life))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_life_goes_on_where_the_last_one_ended() {
        let clock = Clock::system();
        clock.advance(Duration::from_secs(50));
        let running = RunningTime::resume(Moment(1000), clock.clone());
        assert_eq!(running.now(), Moment(1000));
        clock.jump_wall(Duration::from_secs(1 << 30));
        clock.advance(Duration::from_secs(7));
        assert_eq!(running.now().since(Moment(1000)), Duration::from_secs(7));
        assert_eq!(Moment(3).since(running.now()), Duration::ZERO);
    }
}
