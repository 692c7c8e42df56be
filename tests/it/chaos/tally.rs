//! What happened to the pulls.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use larder::oci::Digest;

use super::puller::TRIES;

/// Counts what happens.
#[derive(Default)]
pub struct Tally {
    counts: Mutex<Counts>,
    /// All that came whole, with its size.
    content: Mutex<HashMap<Digest, u64>>,
}

/// What was counted.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    /// Pulls that succeeded at the first try, at the second, …
    pub succeeded: [usize; TRIES],
    /// Pulls whose every try failed, and how they did.
    pub failed: Vec<String>,
    /// Pulls that a client gave up in the middle.
    pub hung_up: usize,
    /// How tries failed.
    pub failures: BTreeMap<String, usize>,
    /// Bodies that were cut and gone on with.
    pub resumes: usize,
    /// Longest time from a request to the head of its answer.
    pub slowest_head: Duration,
    /// Longest time without a byte of a body.
    pub longest_silence: Duration,
    /// Longest time from the begin of a pull to its success, over all tries.
    pub slowest_pull: Duration,
    /// Bytes received.
    pub received: u64,
}

impl Tally {
    /// Changes the counts.
    pub fn count(&self, change: impl FnOnce(&mut Counts)) {
        change(&mut lock(&self.counts));
    }

    /// A manifest or blob came whole.
    pub fn got(&self, digest: &Digest, size: usize) {
        lock(&self.content).insert(digest.clone(), size as u64);
    }

    /// The counts now.
    pub fn counts(&self) -> Counts {
        lock(&self.counts).clone()
    }

    /// Bytes of all that came whole, each digest once.
    pub fn content_bytes(&self) -> u64 {
        lock(&self.content).values().sum()
    }
}

impl Counts {
    /// Pulls that were not given up by the client.
    pub fn pulls(&self) -> usize {
        self.succeeded.iter().sum::<usize>() + self.failed.len()
    }

    /// The part of the pulls that succeeded.
    pub fn success(&self) -> f64 {
        1.0 - self.failed.len() as f64 / self.pulls() as f64
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
