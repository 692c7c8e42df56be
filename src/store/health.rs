//! Whether the store can be written, and who is told.
//!
//! An error of the disk is no more than a suspicion: whoever met it goes on without the store, and
//! `trial` finds out on a thread of its own whether the disk fails. So one bad sector does not
//! stop the store, and one good write does not hide a disk that is full.

use std::{
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use rustix::io::Errno;

use super::{CannotTake, room::is_full};
use crate::metrics::Metrics;

/// How long nothing more is logged of single failures after one was.
const SILENCE: Duration = Duration::from_secs(60);

/// What is known of the disk; clones share it.
#[derive(Clone, Debug)]
pub struct Health(Arc<Known>);

#[derive(Debug)]
struct Known {
    metrics: Arc<Metrics>,
    suspicion: Mutex<Option<Suspicion>>,
    /// `None`: the store can be written.
    trouble: Mutex<Option<Trouble>>,
    told: Mutex<Option<Instant>>,
}

/// Something that failed, for which the disk may be to blame.
#[derive(Debug)]
pub struct Suspicion {
    error: String,
    /// Bytes that a disk or a quota was too full for, though room had been taken for them.
    pub refused: u64,
}

/// Why the store cannot be written.
#[derive(Clone, Debug)]
struct Trouble {
    kind: io::ErrorKind,
    reason: String,
    since: Instant,
}

impl Health {
    /// Of a store that can be written.
    pub fn new(metrics: Arc<Metrics>) -> Health {
        metrics.store_writable.set(1);
        Health(Arc::new(Known {
            metrics,
            suspicion: Mutex::default(),
            trouble: Mutex::default(),
            told: Mutex::default(),
        }))
    }

    /// Why the store cannot be written, if it cannot.
    pub fn trouble(&self) -> Option<String> {
        lock(&self.0.trouble).as_ref().map(|trouble| trouble.reason.clone())
    }

    /// Fails as long as the store cannot be written: nobody need try.
    pub fn check(&self) -> io::Result<()> {
        match &*lock(&self.0.trouble) {
            Some(trouble) => Err(io::Error::new(trouble.kind, trouble.reason.clone())),
            None => Ok(()),
        }
    }

    /// Something failed that the disk may be to blame for.
    pub fn suspect(&self, error: &io::Error) {
        self.suspect_refusal(error, 0);
    }

    /// As [`Health::suspect`], when room for so many bytes was asked of the disk.
    pub fn suspect_refusal(&self, error: &io::Error, bytes: u64) {
        // That two wanted to write one file says nothing of the disk.
        let is_ours = error.kind() == io::ErrorKind::AlreadyExists || is_own_limit(error);
        if is_ours || self.check().is_err() {
            return;
        }
        let mut suspicion = lock(&self.0.suspicion);
        let before = suspicion.take().map_or(0, |before| before.refused);
        let refused = before.max(if is_full(error) { bytes } else { 0 });
        *suspicion = Some(Suspicion { error: error.to_string(), refused });
    }

    /// A file that is there could not be read. Whoever wanted it turns to upstream.
    pub fn cannot_read(&self, error: &io::Error) {
        self.suspect(error);
        self.tell("a file of the store cannot be read: upstream is asked instead", error);
    }

    /// A file that is there could not be sent to its end. Whoever wanted it comes again.
    pub fn cannot_send(&self, error: &io::Error) {
        self.suspect(error);
        self.tell("a file of the store cannot be sent to its end: its client is cut", error);
    }

    /// The store cannot take something.
    pub fn cannot_take(&self, reason: &CannotTake) {
        if let CannotTake::NoRoom(_) = reason
            && self.check().is_ok()
            && lock(&self.0.suspicion).is_none()
        {
            self.tell("the store has no room for all that is pulled", reason);
        }
    }

    /// What was suspected since this was last asked.
    pub fn take_suspicion(&self) -> Option<Suspicion> {
        lock(&self.0.suspicion).take()
    }

    /// The store can be written after all. Tells whether that is news.
    pub fn clear(&self, suspicion: Option<Suspicion>) -> bool {
        self.0.metrics.store_writable.set(1);
        if let Some(trouble) = lock(&self.0.trouble).take() {
            let after = trouble.since.elapsed().as_secs();
            tracing::info!(seconds = after, "the store can be written again");
            return true;
        }
        if let Some(Suspicion { error, .. }) = suspicion {
            self.tell("the disk failed, though the store can be written", error);
        }
        false
    }

    /// The store cannot be written.
    pub fn fail(&self, error: &io::Error) {
        self.0.metrics.store_writable.set(0);
        let (kind, reason) = (error.kind(), error.to_string());
        let mut trouble = lock(&self.0.trouble);
        let since = trouble.as_ref().map_or_else(Instant::now, |trouble| trouble.since);
        if trouble.is_none() {
            tracing::warn!(
                reason,
                "the store cannot be written: until it can, what is not cached passes through"
            );
        }
        *trouble = Some(Trouble { kind, reason, since });
    }

    /// One line a minute, whatever there is to say: there may be thousands of failures a second.
    fn tell(&self, what: &str, error: impl std::fmt::Display) {
        let mut told = lock(&self.0.told);
        if told.is_none_or(|told| told.elapsed() >= SILENCE) {
            *told = Some(Instant::now());
            tracing::warn!(%error, "{what}");
        } else {
            tracing::debug!(%error, "{what}");
        }
    }
}

/// Whether this process, or the machine, has run out of something other than a disk.
pub fn is_own_limit(error: &io::Error) -> bool {
    let own = [Errno::MFILE, Errno::NFILE, Errno::NOMEM];
    Errno::from_io_error(error).is_some_and(|errno| own.contains(&errno))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn not_every_failure_is_the_disk_s() {
        let cases = [
            (Errno::NOSPC, true),
            (Errno::DQUOT, true),
            (Errno::IO, true),
            (Errno::ROFS, true),
            (Errno::ACCESS, true),
            (Errno::NOENT, true),
            (Errno::MFILE, false),
            (Errno::NFILE, false),
            (Errno::NOMEM, false),
            (Errno::EXIST, false),
        ];
        for (errno, is_suspect) in cases {
            let health = Health::new(Arc::new(Metrics::new()));
            health.suspect(&errno.into());
            assert_eq!(health.take_suspicion().is_some(), is_suspect, "{errno}");
        }
    }

    #[test]
    fn the_most_that_was_refused_is_remembered() {
        let health = Health::new(Arc::new(Metrics::new()));
        for (errno, bytes) in
            [(Errno::IO, 99), (Errno::DQUOT, 7), (Errno::NOSPC, 5), (Errno::NFILE, 99)]
        {
            health.suspect_refusal(&errno.into(), bytes);
        }
        health.suspect(&Errno::NOSPC.into());
        assert_eq!(health.take_suspicion().unwrap().refused, 7);
        assert!(health.take_suspicion().is_none());
    }

    #[test]
    fn a_full_quota_is_a_full_disk() {
        for (errno, label) in
            [(Errno::DQUOT, "no_room"), (Errno::NOSPC, "no_room"), (Errno::IO, "disk")]
        {
            let health = Health::new(Arc::new(Metrics::new()));
            health.fail(&errno.into());
            assert_eq!(health.check().map_err(CannotTake::of).unwrap_err().label(), label);
            assert_eq!(health.0.metrics.store_writable.get(), 0);
            assert!(health.clear(None));
            assert_eq!((health.trouble(), health.0.metrics.store_writable.get()), (None, 1));
        }
        let own = CannotTake::of(Errno::MFILE.into());
        assert_eq!(own.label(), "descriptors");
    }
}
