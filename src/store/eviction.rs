//! What goes, and in which order: a decision on figures alone, without disk or table.
//!
//! What has expired goes in any case. When that is not enough, what was unused longest goes next,
//! but nothing that is kept always. Of what was last used by one and the same pull, a manifest goes
//! before what it lists. Since nothing was last used before a manifest that lists it, no manifest
//! outlives its layers.
//!
//! Candidates come one by one, so that a million of them are never held at once: only as many of the
//! oldest are remembered as the goal needs.

use std::{collections::BinaryHeap, time::Duration};

use super::{
    budget::Goal,
    running::Moment,
    table::{Id, Keep},
};

/// Something in the store, in the order in which things go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Candidate {
    pub last_use: Moment,
    /// Lower for what lists others.
    pub rank: u8,
    pub id: Id,
    /// What its file takes up, in bytes; 0 when there is none.
    pub disk: u64,
}

/// Why something goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Nobody goes on with a half-done download.
    Partial,
    /// Nobody used it for `expire_after`.
    Expired,
    /// For `max_size`.
    Size,
    /// For `min_free`.
    Free,
}

/// Something that goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Victim {
    pub id: Id,
    /// When it was last used: since then, it is none.
    pub last_use: Moment,
    pub reason: Reason,
}

/// The candidates that matter so far.
#[derive(Debug)]
pub struct Selection {
    goal: Goal,
    /// What is unused for less has not expired. `None`: nothing has.
    expire_after: Option<Duration>,
    expired: Vec<Candidate>,
    expired_bytes: u64,
    oldest: BinaryHeap<Candidate>,
    oldest_bytes: u64,
}

impl Selection {
    /// Selects for `goal`, and what is unused for `expire_after` or longer as far as its own
    /// [`Keep`] says so.
    pub fn new(goal: Goal, expire_after: Option<Duration>) -> Selection {
        Selection {
            goal,
            expire_after,
            expired: Vec::new(),
            expired_bytes: 0,
            oldest: BinaryHeap::new(),
            oldest_bytes: 0,
        }
    }

    /// Looks at one more. How long it is kept is asked only where that matters.
    pub fn consider(
        &mut self,
        candidate: Candidate,
        unused: Duration,
        keep: impl FnOnce() -> Keep,
    ) {
        let may_have_expired = self.expire_after.is_some_and(|limit| unused >= limit);
        if !may_have_expired && !self.wants(&candidate) {
            return;
        }
        match keep() {
            keep if may_have_expired && keep.ends_after(unused) => {
                self.expired_bytes = self.expired_bytes.saturating_add(candidate.disk);
                self.expired.push(candidate);
            }
            Keep::For(_) | Keep::WhileThereIsRoom if self.wants(&candidate) => self.push(candidate),
            Keep::For(_) | Keep::WhileThereIsRoom | Keep::Always => {}
        }
    }

    /// What goes, in order.
    pub fn finish(mut self) -> Vec<Victim> {
        self.expired.sort_unstable();
        let is_of_use = self.expired_bytes.saturating_add(self.oldest_bytes) >= self.goal.least;
        let expired = self.expired.iter().map(|candidate| candidate.victim(Reason::Expired));
        let mut victims: Vec<Victim> = expired.collect();
        if !is_of_use {
            return victims;
        }
        let mut gone = self.expired_bytes;
        for candidate in self.oldest.into_sorted_vec() {
            if gone >= self.goal.bytes() {
                break;
            }
            let reason = if gone < self.goal.size { Reason::Size } else { Reason::Free };
            victims.push(candidate.victim(reason));
            gone = gone.saturating_add(candidate.disk);
        }
        victims
    }

    fn wants(&self, candidate: &Candidate) -> bool {
        let is_enough = self.oldest_bytes >= self.goal.bytes();
        candidate.disk > 0
            && (!is_enough || self.oldest.peek().is_some_and(|youngest| candidate < youngest))
    }

    /// Takes it in, and lets go of the youngest that are no longer needed.
    fn push(&mut self, candidate: Candidate) {
        self.oldest_bytes = self.oldest_bytes.saturating_add(candidate.disk);
        self.oldest.push(candidate);
        while let Some(youngest) = self.oldest.peek() {
            let without = self.oldest_bytes.saturating_sub(youngest.disk);
            if without < self.goal.bytes() {
                break;
            }
            self.oldest_bytes = without;
            self.oldest.pop();
        }
    }
}

impl Candidate {
    fn victim(&self, reason: Reason) -> Victim {
        Victim { id: self.id, last_use: self.last_use, reason }
    }
}

impl Reason {
    /// As a label of a metric, and in words for people.
    pub fn label(self) -> &'static str {
        match self {
            Reason::Partial => "partial",
            Reason::Expired => "expired",
            Reason::Size => "max_size",
            Reason::Free => "min_free",
        }
    }
}

#[cfg(test)]
mod properties;
