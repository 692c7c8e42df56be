//! Wall time and running time, from the system or moved by hand in a test.
//!
//! Ages that may delete something count running time only, so that a host that was off, or
//! whose clock jumped, wipes nothing.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant, SystemTime},
};

/// A handle on the time, cheap to clone and passed down to whoever asks for it.
#[derive(Clone, Debug)]
pub struct Clock {
    started: Instant,
    moved: Arc<Mutex<Moved>>,
}

/// How far a test has moved the two times.
#[derive(Clone, Copy, Debug, Default)]
struct Moved {
    running: Duration,
    wall: Duration,
}

impl Clock {
    /// The system's time; running time starts at zero now.
    pub fn system() -> Clock {
        Clock { started: Instant::now(), moved: Arc::default() }
    }

    /// The time of day, which may jump either way.
    pub fn wall(&self) -> SystemTime {
        SystemTime::now() + self.moved().wall
    }

    /// How long this process has been running. Never goes back.
    pub fn running(&self) -> Duration {
        self.started.elapsed() + self.moved().running
    }

    /// Lets `time` pass, for every clone of this clock.
    pub fn advance(&self, time: Duration) {
        let mut moved = self.moved.lock().unwrap_or_else(PoisonError::into_inner);
        moved.running += time;
        moved.wall += time;
    }

    /// Sets the time of day forward without any time passing, as a broken host clock does.
    pub fn jump_wall(&self, time: Duration) {
        self.moved.lock().unwrap_or_else(PoisonError::into_inner).wall += time;
    }

    fn moved(&self) -> Moved {
        *self.moved.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
