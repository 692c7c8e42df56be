//! Who holds room outside `blobs/`: files that grow, and what was left of them.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::SeqCst},
};

use tokio::sync::{Notify, futures::Notified};

/// What all [`Hold`]s add up to, in bytes; clones share it.
#[derive(Clone, Debug, Default)]
pub struct Ledger(Arc<Accounts>);

#[derive(Debug, Default)]
struct Accounts {
    held: AtomicU64,
    unallocated: AtomicU64,
    returned: Notify,
}

/// Room that belongs to one file for as long as this lives.
#[derive(Debug)]
pub struct Hold {
    ledger: Ledger,
    bytes: u64,
    /// Of these, what the file system does not know of yet.
    unallocated: u64,
}

impl Ledger {
    /// Holds `bytes` more, of which the file system does not know yet.
    pub fn hold(&self, bytes: u64) -> Hold {
        let mut hold = self.hold_on_disk(bytes);
        self.0.unallocated.fetch_add(bytes, SeqCst);
        hold.unallocated = bytes;
        hold
    }

    /// Holds what a file takes up already.
    pub fn hold_on_disk(&self, bytes: u64) -> Hold {
        self.0.held.fetch_add(bytes, SeqCst);
        Hold { ledger: self.clone(), bytes, unallocated: 0 }
    }

    /// Bytes held. Who adds what the table has must ask here first: a file enters the table before
    /// its hold ends, so that it may be seen twice, but never missed.
    pub fn held(&self) -> u64 {
        self.0.held.load(SeqCst)
    }

    /// Bytes that the file system calls free, and are not.
    pub fn unallocated(&self) -> u64 {
        self.0.unallocated.load(SeqCst)
    }

    /// Room was given back other than by a hold.
    pub fn notify(&self) {
        self.0.returned.notify_waiters();
    }

    /// Resolves when room is given back after this call.
    pub fn returned(&self) -> Notified<'_> {
        self.0.returned.notified()
    }
}

impl Hold {
    /// The file system knows of all of it now.
    pub fn is_allocated(&mut self) {
        self.is_written(self.unallocated);
    }

    /// So many bytes more were written, of which the file system knows now, if it did not before.
    pub fn is_written(&mut self, bytes: u64) {
        let known = bytes.min(self.unallocated);
        self.unallocated = self.unallocated.saturating_sub(known);
        self.ledger.0.unallocated.fetch_sub(known, SeqCst);
    }

    /// Bytes held.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Takes another hold in.
    pub fn merge(&mut self, mut other: Hold) {
        self.bytes = self.bytes.saturating_add(std::mem::take(&mut other.bytes));
        let unallocated = std::mem::take(&mut other.unallocated);
        self.unallocated = self.unallocated.saturating_add(unallocated);
    }

    /// Gives back what is more than `bytes`.
    pub fn shrink(&mut self, bytes: u64) {
        let more = self.bytes.saturating_sub(bytes);
        self.bytes = self.bytes.saturating_sub(more);
        self.ledger.0.held.fetch_sub(more, SeqCst);
        self.is_allocated();
        self.ledger.notify();
    }

    /// Moves all of it into a hold of its own.
    pub fn take(&mut self) -> Hold {
        let mut taken = self.ledger.hold_on_disk(0);
        std::mem::swap(&mut taken, self);
        taken
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.is_allocated();
        if self.bytes > 0 {
            self.ledger.0.held.fetch_sub(self.bytes, SeqCst);
            self.ledger.notify();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holds_add_up_and_go_with_their_owners() {
        let ledger = Ledger::default();
        let (mut one, other) = (ledger.hold(10), ledger.hold(5));
        let figures = || (ledger.held(), ledger.unallocated());
        assert_eq!(figures(), (15, 15));
        one.is_allocated();
        assert_eq!(figures(), (15, 5));
        one.merge(other);
        one.is_written(3);
        assert_eq!(figures(), (15, 2));
        one.is_written(7);
        assert_eq!(figures(), (15, 0));
        let left = ledger.hold_on_disk(7);
        assert_eq!(figures(), (22, 0));
        let taken = one.take();
        drop(one);
        assert_eq!(figures(), (22, 0));
        drop(taken);
        assert_eq!(figures(), (7, 0));
        drop(left);
        assert_eq!(figures(), (0, 0));
    }
}
