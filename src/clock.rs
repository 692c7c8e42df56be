//! Wall time and running time, from the system or moved by hand in a test.
//!
//! Ages that may delete something count running time only, so that a host that was off, or
//! whose clock jumped, wipes nothing.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

/// A handle on the time, cheap to clone and passed down to whoever asks for it.
#[derive(Clone, Debug)]
pub struct Clock {
    started: Instant,
    moved: Arc<Moved>,
}

/// How far a test has moved the two times, in nanoseconds. Each request asks for both, on any core.
#[derive(Debug, Default)]
struct Moved {
    running: AtomicU64,
    wall: AtomicU64,
}

impl Clock {
    /// The system's time; running time starts at zero now.
    pub fn system() -> Clock {
        Clock { started: Instant::now(), moved: Arc::default() }
    }

    /// The time of day, which may jump either way.
    pub fn wall(&self) -> SystemTime {
        SystemTime::now() + moved(&self.moved.wall)
    }

    /// How long this process has been running. Never goes back.
    pub fn running(&self) -> Duration {
        self.started.elapsed() + moved(&self.moved.running)
    }

    /// Lets `time` pass, for every clone of this clock.
    pub fn advance(&self, time: Duration) {
        move_by(&self.moved.running, time);
        move_by(&self.moved.wall, time);
    }

    /// Sets the time of day forward without any time passing, as a broken host clock does.
    pub fn jump_wall(&self, time: Duration) {
        move_by(&self.moved.wall, time);
    }
}

fn moved(by: &AtomicU64) -> Duration {
    Duration::from_nanos(by.load(Ordering::Acquire))
}

fn move_by(by: &AtomicU64, time: Duration) {
    by.fetch_add(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX), Ordering::AcqRel);
}
