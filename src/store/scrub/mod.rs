//! Scrub: every blob is read and hashed again within each `cache.scrub_interval`, for disks forget.
//!
//! - Each blob has its place within the interval, by its digest. So the work is spread evenly over the
//!   running time, a small cache is not read in one go, and a restart changes nothing.
//! - What was found on disk without anyone's word for it comes first.
//! - One thread reads one blob at a time, no faster than the [`schedule::pace`], and for a fifth of the
//!   time at most: where the disk is busy, reading takes longer and the rest is longer, too.
//! - What is written behind the present place was verified just now.

mod demand;
mod examiner;
mod schedule;
mod walk;

use std::{
    io::{self, Write as _},
    sync::{Arc, PoisonError, Weak},
    time::{Duration, Instant},
};

pub use demand::{Examination, Finding, Scope, Scrub};

use self::{
    examiner::{Ended, Examiner},
    schedule::{Progress, pace},
    walk::Walk,
};
use super::{
    Shared,
    threads::{Keeper, Work},
};
use crate::oci::Digest;

/// How often there is a turn.
const TURNS: Duration = Duration::from_millis(250);

/// How much of the time between two turns is spent reading at most.
const TURN: Duration = Duration::from_millis(50);

/// What a blob costs beside its bytes, in bytes: a disk has to look for it.
const COST_OF_A_BLOB: u64 = 64 * 1024;

/// How often it is written down how far the scrub has come, in running time.
const SAVE_INTERVAL: Duration = Duration::from_secs(600);

/// How long a disk that fails is left alone, in running time.
const REST: Duration = Duration::from_secs(3600);

/// The one that scrubs on a schedule. Owned by a thread of its own.
#[derive(Debug)]
struct ScrubKeeper {
    store: Weak<Shared>,
    interval: Duration,
    progress: Progress,
    walk: Walk,
    examiner: Examiner,
    examined: u64,
    damaged: u64,
    /// These in running time.
    seen: Duration,
    saved: Duration,
    rests_until: Duration,
}

impl ScrubKeeper {
    /// Goes on where the last life stopped.
    fn new(store: &Arc<Shared>, interval: Duration) -> ScrubKeeper {
        let now = store.clock.running();
        let progress = Progress::read(&store.directory.scrub());
        ScrubKeeper {
            store: Arc::downgrade(store),
            interval,
            walk: Walk::behind(progress.after.clone()),
            progress,
            examiner: Examiner::default(),
            examined: 0,
            damaged: 0,
            seen: now,
            saved: now,
            rests_until: now,
        }
    }

    /// Hashes some of what is due. Blocking; errors are dealt with here.
    fn keep_up(&mut self) {
        let Some(store) = self.store.upgrade() else {
            return;
        };
        let now = store.clock.running();
        self.progress.pass(now.saturating_sub(self.seen), self.interval);
        self.seen = now;
        if now < self.rests_until {
            return;
        }
        if let Err(error) = self.take_turn(&store) {
            tracing::error!(%error, "the disk fails under the scrub, which rests for an hour");
            self.rests_until = now.saturating_add(REST);
        }
        if now.saturating_sub(self.saved) >= SAVE_INTERVAL {
            self.save(&store, now);
        }
    }

    /// Remembers how far it has come. That is a hint: nothing is missing without it.
    fn finish(mut self) -> bool {
        if let Some(store) = self.store.upgrade() {
            let now = store.clock.running();
            self.progress.pass(now.saturating_sub(self.seen), self.interval);
            self.save(&store, now);
        }
        true
    }

    fn take_turn(&mut self, store: &Arc<Shared>) -> io::Result<()> {
        let begun = Instant::now();
        let mut credit = self.credit(store);
        while credit > 0 && begun.elapsed() < TURN {
            let (walk, due) = (&mut self.walk, self.progress.due);
            let next = || next(store, walk, due);
            let Some(step) = self.examiner.step(store, next)? else {
                self.end_pass();
                break;
            };
            credit = credit.saturating_sub(step.bytes);
            if let Some(ended) = step.ended {
                credit = credit.saturating_sub(COST_OF_A_BLOB);
                self.note(store, ended);
            }
        }
        Ok(())
    }

    /// Bytes that may be read in one turn.
    fn credit(&self, store: &Shared) -> u64 {
        let held = store.memory.look(|table| table.totals().bytes);
        let turns_in_a_second = 1000 / TURNS.as_millis() as u64;
        pace(held, self.interval) / turns_in_a_second
    }

    fn note(&mut self, store: &Shared, ended: Ended) {
        let Ended { digest, damage } = ended;
        self.examined += 1;
        if damage.is_some() {
            self.damaged += 1;
            store.report(&digest);
        }
        if self.walk.is_at(&digest) {
            self.progress.after = Some(digest);
        }
    }

    /// Begins the next pass if this one is over, and its time.
    fn end_pass(&mut self) {
        if self.progress.due < 1.0 || !self.walk.is_over() {
            return;
        }
        let (examined, damaged) = (self.examined, self.damaged);
        tracing::info!(examined, damaged, "every blob was hashed again");
        self.progress = self.progress.next();
        self.walk = Walk::behind(None);
        (self.examined, self.damaged) = (0, 0);
    }

    fn save(&mut self, store: &Shared, now: Duration) {
        self.saved = now;
        let path = store.directory.scrub();
        let written = store.directory.replace(&path, |file| {
            serde_json::to_writer(&mut *file, &self.progress)?;
            file.write_all(b"\n")
        });
        if let Err(error) = written {
            tracing::debug!(%error, "a restart will begin the scrub at an earlier place");
        }
    }
}

impl Shared {
    /// Starts the thread that scrubs, if there is a schedule.
    pub(super) fn keep_scrubbing(self: &Arc<Self>) -> io::Result<()> {
        let Some(interval) = self.scrub_interval else {
            return Ok(());
        };
        let keeper = ScrubKeeper::new(self, interval);
        let lock = Arc::clone(&self.lock);
        let work =
            Work { keep_up: ScrubKeeper::keep_up, write_now: None, finish: ScrubKeeper::finish };
        let keeper = Keeper::start("store-scrub", TURNS, lock, keeper, work)?;
        self.keepers.lock().unwrap_or_else(PoisonError::into_inner).push(keeper);
        Ok(())
    }
}

/// The blob whose turn it is.
fn next(store: &Shared, walk: &mut Walk, due: f64) -> Option<Digest> {
    let adopted = store.memory.look(|table| table.some_adopted().cloned());
    adopted.or_else(|| walk.next_until(due, &store.memory))
}
