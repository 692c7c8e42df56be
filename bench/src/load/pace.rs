//! So many bytes a second.

use std::time::{Duration, Instant};

/// How far what was not used may be made good: more than a sleep oversleeps.
const SLACK: Duration = Duration::from_millis(5);

/// A line that carries one byte after the other.
#[derive(Debug)]
pub struct Pace {
    seconds_per_byte: f64,
    /// When what was given to the line has passed.
    free_at: Instant,
}

impl Pace {
    /// A line for so many megabytes (10^6) a second; 0 for no limit.
    pub fn new(rate_mb: f64) -> Pace {
        let seconds_per_byte = if rate_mb > 0.0 { 1e-6 / rate_mb } else { 0.0 };
        Pace { seconds_per_byte, free_at: Instant::now() }
    }

    /// Whether there is a limit.
    pub fn is_limited(&self) -> bool {
        self.seconds_per_byte > 0.0
    }

    /// When bytes that are given to the line at `now` have passed it; not before.
    pub fn passed(&mut self, bytes: usize, now: Instant) -> Instant {
        let begins = self.free_at.max(now.checked_sub(SLACK).unwrap_or(now));
        self.free_at = begins + Duration::from_secs_f64(bytes as f64 * self.seconds_per_byte);
        self.free_at.max(now)
    }
}
