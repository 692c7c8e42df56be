//! The table behind its lock. The lock is held for a look-up or a bounded step, never across
//! an await or any I/O.
//!
//! Any number look at the table at the same time, each thread by one part of the lock, so that cores do not
//! wait for each other; who changes the table takes all parts. A use is a look: it raises a number in the
//! table ([`Table::touch`]). So clients are served side by side, and beside whatever walks through all there
//! is.

use std::{
    iter,
    sync::{Arc, PoisonError},
    thread,
    time::Duration,
};

use crossbeam_utils::sync::ShardedLock;

use super::table::{Cursor, Table};
use crate::metrics::Metrics;

/// Slots or names looked at under one lock where all are looked at: who wants to change the table waits for
/// no more than these, and so does who comes after that.
pub const STEP: usize = 4096;

/// How long others may have the table between two steps that change it.
const PAUSE: Duration = Duration::from_micros(100);

/// A handle on the one [`Table`]; clones share it.
#[derive(Clone, Debug)]
pub struct Memory {
    table: Arc<ShardedLock<Table>>,
    metrics: Arc<Metrics>,
}

impl Memory {
    /// Shares `table`, and keeps the gauges of what it holds.
    pub fn new(table: Table, metrics: Arc<Metrics>) -> Memory {
        let table = Arc::new(ShardedLock::new(table));
        let memory = Memory { table, metrics };
        memory.with(|_| ());
        memory
    }

    /// Looks at the table.
    pub fn look<R>(&self, look: impl FnOnce(&Table) -> R) -> R {
        look(&self.table.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Looks at all names in steps, each of which tells where the next goes on.
    pub fn names<T>(
        &self,
        step: impl Fn(&Table, &Cursor) -> Option<(Vec<T>, Cursor)>,
    ) -> impl Iterator<Item = T> {
        let mut place = Cursor::default();
        let some = iter::from_fn(move || {
            let (some, next) = self.look(|table| step(table, &place))?;
            place = next;
            Some(some)
        });
        some.flatten()
    }

    /// Runs `step`, which may change the table.
    pub fn with<R>(&self, step: impl FnOnce(&mut Table) -> R) -> R {
        let mut table = self.table.write().unwrap_or_else(PoisonError::into_inner);
        let result = step(&mut table);
        let totals = table.totals();
        self.metrics.store_blobs.set(gauge(totals.blobs));
        self.metrics.store_bytes.set(gauge(totals.bytes));
        result
    }

    /// Changes all there is in steps, each from where the one before came to, until one comes to the end.
    /// Between two of them others have their turn: the lock is not fair, and who takes it again at once
    /// keeps out those that it has only just woken.
    pub fn walk<P>(&self, from: P, mut step: impl FnMut(&mut Table, P) -> Option<P>) {
        let mut next = self.with(|table| step(table, from));
        while let Some(place) = next {
            thread::sleep(PAUSE);
            next = self.with(|table| step(table, place));
        }
    }
}

/// A count as a gauge takes it.
pub fn gauge(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        oci::{Algorithm, Digest},
        store::running::Moment,
    };

    fn memory() -> Memory {
        Memory::new(Table::default(), Arc::new(Metrics::new()))
    }

    #[test]
    fn many_look_at_the_same_time() {
        let memory = memory();
        let digest = Digest::of(Algorithm::Sha256, b"used");
        memory.with(|table| table.put_blob(&digest, 7, Moment::default()));
        let (memory, digest) = (&memory, &digest);
        memory.look(|table| {
            thread::scope(|scope| {
                for now in (1..9).map(Moment::from_seconds) {
                    scope.spawn(move || memory.look(|table| table.touch(digest, now)));
                }
            });
            assert_eq!(table.touch(digest, Moment::from_seconds(8)), []);
        });
    }

    #[test]
    fn a_walk_goes_on_until_a_step_comes_to_the_end() {
        let (memory, mut met) = (memory(), Vec::new());
        memory.walk(0, |_, place| {
            met.push(place);
            (place < 3).then_some(place + 1)
        });
        assert_eq!(met, [0, 1, 2, 3]);
    }
}
