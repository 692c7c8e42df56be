//! The table behind its lock. The lock is held for a look-up or a bounded step, never across
//! an await or any I/O.

use std::sync::{Arc, Mutex, PoisonError};

use super::table::Table;
use crate::metrics::Metrics;

/// Slots, or names of one repository, looked at under one lock where all are looked at: a client's
/// look-up waits for no more than these.
pub const STEP: usize = 4096;

/// A handle on the one [`Table`]; clones share it.
#[derive(Clone, Debug)]
pub struct Memory {
    table: Arc<Mutex<Table>>,
    metrics: Arc<Metrics>,
}

impl Memory {
    /// Shares `table`, and keeps the gauges of what it holds.
    pub fn new(table: Table, metrics: Arc<Metrics>) -> Memory {
        let table = Arc::new(Mutex::new(table));
        let memory = Memory { table, metrics };
        memory.with(|_| ());
        memory
    }

    /// Runs `step` on the table.
    pub fn with<R>(&self, step: impl FnOnce(&mut Table) -> R) -> R {
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        let result = step(&mut table);
        let totals = table.totals();
        self.metrics.store_blobs.set(gauge(totals.blobs));
        self.metrics.store_bytes.set(gauge(totals.bytes));
        result
    }
}

/// A count as a gauge takes it.
pub fn gauge(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
