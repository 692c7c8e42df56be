//! Keeps the index up to date with the table, and the index alive.

use std::{
    fs::{self, File, FileTimes},
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    Before, Index, Trouble, quarantine, renewal,
    snapshot::{self, Header},
};
use crate::{
    clock::Clock,
    oci::Digest,
    store::{
        directory::{Directory, Lock},
        examination::try_writing,
        memory::{Memory, STEP},
        peak::Peak,
        room::is_full,
        running::{Moment, RunningTime},
        table::{Batch, Untold},
    },
};

/// Rows made at a time under the table's lock.
const BATCH_ROWS: usize = 2048;

/// Rows that are written as such, however few blobs there are.
const MANY_ROWS: usize = 16 * 1024;

/// Bytes that sled may always hold: it begins with half a megabyte, and grows by as much.
const LEAST_SURPLUS: u64 = 16 << 20;

/// How long the running time may go unremembered.
const RUNNING_INTERVAL: Duration = Duration::from_secs(60);

/// How long an index that cannot be opened is left alone.
const RETRY_INTERVAL: Duration = Duration::from_secs(10);

/// The one that writes to the index. Owned by a thread of its own.
#[derive(Debug)]
pub struct IndexKeeper {
    directory: Directory,
    memory: Memory,
    running: RunningTime,
    peak: Peak,
    clock: Clock,
    lock: Arc<Lock>,
    index: Option<Index>,
    /// A batch that was taken from the table but met a disk that failed.
    unwritten: Option<Batch>,
    retry_at: Option<Instant>,
    /// Not before then, after one that failed.
    renew_at: Option<Instant>,
    remembered: Moment,
}

impl IndexKeeper {
    /// Goes on with `index`; without one, makes it when the time comes.
    pub fn new(
        directory: Directory,
        memory: Memory,
        running: RunningTime,
        peak: Peak,
        clock: Clock,
        lock: Arc<Lock>,
        index: Option<Index>,
    ) -> IndexKeeper {
        IndexKeeper {
            remembered: running.now(),
            directory,
            memory,
            running,
            peak,
            clock,
            lock,
            index,
            unwritten: None,
            retry_at: None,
            renew_at: None,
        }
    }

    /// Writes what changed. Blocking; errors are dealt with here.
    pub fn keep_up(&mut self) {
        if !self.write_now() {
            return;
        }
        let now = self.running.now();
        if now.since(self.remembered) >= RUNNING_INTERVAL {
            self.apply(Batch::default());
        }
    }

    /// Writes what changed, and tells whether the index knows everything then. Blocking.
    pub fn write_now(&mut self) -> bool {
        if !self.lock.is_in_place() {
            // Where the directory was, there may be another's now.
            self.leave();
            return false;
        }
        if self.index.as_ref().is_some_and(|index| !index.is_in_place(&self.directory)) {
            self.start_anew("its files are gone");
        }
        if self.index.is_none() && !self.reopen() {
            return false;
        }
        let mut has_applied = false;
        loop {
            // While rows are written, more may come than that is for.
            if self.is_to_be_renewed() && !self.renew() {
                return false;
            }
            let Some(batch) = self.next_batch() else {
                return !has_applied || self.sync();
            };
            if !self.apply(batch) {
                return false;
            }
            has_applied = true;
        }
    }

    /// Writes everything, whenever it was last written, and closes the index. Tells whether the index
    /// knows everything then.
    pub fn finish(mut self) -> bool {
        self.memory.walk(0, |table, from| table.mark_uses(from, STEP));
        (self.retry_at, self.renew_at) = (None, None);
        // One that breaks over this is begun anew, and is to be told everything.
        let is_written = self.write_now() || (self.index.is_some() && self.write_now());
        let knows_all = is_written && self.apply(Batch::default());
        self.close();
        knows_all
    }

    fn next_batch(&mut self) -> Option<Batch> {
        let batch = self
            .unwritten
            .take()
            .unwrap_or_else(|| self.memory.with(|table| table.take_changes(BATCH_ROWS)));
        (!batch.is_empty()).then_some(batch)
    }

    fn is_to_be_renewed(&self) -> bool {
        let is_time = self.renew_at.is_none_or(|at| Instant::now() >= at);
        is_time && (self.has_much_to_tell() || self.is_overgrown())
    }

    /// Whether a snapshot of everything is less work than the rows.
    fn has_much_to_tell(&self) -> bool {
        let (backlog, slots) = self.memory.look(|table| (table.backlog(), table.slots()));
        backlog >= MANY_ROWS.max(slots / 8)
    }

    /// Whether sled holds more than the snapshot would.
    fn is_overgrown(&self) -> bool {
        let index = self.directory.index();
        let size = |path| fs::metadata(path).map_or(0, |metadata| metadata.len());
        size(index.join("db")) > LEAST_SURPLUS.max(size(snapshot::path(&index)) / 2)
    }

    /// Takes a snapshot of everything known now, beside which sled begins empty. One that cannot be
    /// made leaves the index as it is. Tells whether there is an index now.
    pub(super) fn renew(&mut self) -> bool {
        let number = self.index.as_ref().map_or(0, Index::snapshot).saturating_add(1);
        let header = Header { number, running: self.running.now() };
        let used = |used: &[(Digest, Moment)]| self.stamp(used);
        let made = renewal::make(&self.directory, header, self.peak.day(), &self.memory, used);
        if let Err(trouble) = made {
            if self.renew_at.is_none() {
                tracing::warn!(%trouble, "the index cannot be made anew, and grows");
            }
            self.renew_at = Some(Instant::now() + RETRY_INTERVAL);
            return self.index.is_some();
        }
        if !self.lock.is_in_place() {
            self.leave();
            return false;
        }
        (self.unwritten, self.renew_at, self.remembered) = (None, None, header.running);
        self.close();
        match renewal::swap(&self.directory) {
            Ok(()) => match Index::open_made(&self.directory) {
                Ok(index) => self.index = Some(index),
                Err(trouble) => self.face(trouble, None),
            },
            // The one before knows too little by now.
            Err(error) => self.start_anew(&error.to_string()),
        }
        self.index.is_some()
    }

    /// Tells whether it worked.
    fn apply(&mut self, batch: Batch) -> bool {
        let Some(index) = &self.index else {
            return false;
        };
        let now = Before { running: self.running.now(), day: self.peak.day() };
        match index.apply(&batch, now) {
            Ok(()) => {
                self.remembered = now.running;
                self.stamp(&batch.used);
                true
            }
            Err(trouble) => {
                self.face(trouble, Some(batch));
                false
            }
        }
    }

    /// Tells whether it worked.
    fn sync(&mut self) -> bool {
        match self.index.as_ref().map(|index| index.sync(&self.directory)) {
            Some(Ok(())) => true,
            Some(Err(trouble)) => {
                self.face(trouble, None);
                false
            }
            None => false,
        }
    }

    /// sled fails for good after one error of the disk, and may panic of it. Opened again, it works.
    fn face(&mut self, trouble: Trouble, batch: Option<Batch>) {
        let can_be_written = || try_writing(self.directory.path()).is_ok();
        match trouble {
            // Its files alone are to blame.
            Trouble::Disk(error) if batch.is_none() && !is_full(&error) && can_be_written() => {
                self.start_anew(&error.to_string());
            }
            Trouble::Disk(error) => self.wait(&error.to_string(), batch),
            Trouble::Broken(reason) if can_be_written() => self.start_anew(&reason),
            Trouble::Broken(reason) => self.wait(&reason, batch),
        }
    }

    /// Tells whether there is an index now.
    fn reopen(&mut self) -> bool {
        if self.retry_at.is_some_and(|at| Instant::now() < at) {
            return false;
        }
        match Index::open(&self.directory) {
            Ok(index) => {
                tracing::info!("the index works again");
                self.index = Some(index);
                self.retry_at = None;
            }
            Err(trouble) => self.face(trouble, None),
        }
        self.index.is_some()
    }

    fn wait(&mut self, reason: &str, batch: Option<Batch>) {
        if self.retry_at.is_none() {
            tracing::warn!(reason, "the index cannot be written, and waits");
        }
        self.close();
        self.unwritten = batch.or(self.unwritten.take());
        self.retry_at = Some(Instant::now() + RETRY_INTERVAL);
    }

    fn start_anew(&mut self, reason: &str) {
        if self.retry_at.is_none() {
            tracing::warn!(reason, "the index is damaged and is written anew");
        }
        self.close();
        self.unwritten = None;
        self.mark_all();
        let fresh = quarantine(&self.directory)
            .map_err(Trouble::from)
            .and_then(|()| Index::open(&self.directory));
        match fresh {
            Ok(index) => self.index = Some(index),
            Err(error) => {
                if self.retry_at.is_none() {
                    tracing::warn!(%error, "the index cannot be written");
                }
                self.retry_at = Some(Instant::now() + RETRY_INTERVAL);
            }
        }
    }

    /// Shows the last use to others as the file's modification time. Only a hint: a file that
    /// is gone, or not ours, keeps whatever it has.
    fn stamp(&self, used: &[(Digest, Moment)]) {
        let now = self.running.now();
        for (digest, last_use) in used {
            let used = self.clock.wall().checked_sub(now.since(*last_use));
            let file = File::options().write(true).open(self.directory.blob(digest));
            if let (Ok(file), Some(used)) = (file, used) {
                // A stamp that fails is only a less helpful listing.
                let _ = file.set_times(FileTimes::new().set_modified(used));
            }
        }
    }

    /// Whichever index is opened next may know nothing.
    fn leave(&mut self) {
        if self.index.is_some() {
            self.close();
            self.unwritten = None;
            self.mark_all();
        }
    }

    /// The next index must be told everything.
    fn mark_all(&self) {
        self.memory.walk(Untold::default(), |table, place| table.mark_untold(&place, STEP));
    }

    pub(super) fn close(&mut self) {
        if let Some(index) = self.index.take() {
            // What it wrote was synced before.
            index.close();
        }
    }
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;
    use crate::{
        metrics::Metrics,
        oci::Algorithm,
        store::{peak::Day, table::Table},
    };

    fn keeper(data_dir: &TempDir) -> IndexKeeper {
        let (directory, lock) = Directory::open(data_dir.path()).unwrap();
        let memory = Memory::new(Table::default(), Arc::new(Metrics::new()));
        let clock = Clock::system();
        let running = RunningTime::resume(Moment::default(), clock.clone());
        let peak = Peak::resume(Day::default(), running.clone());
        let index = Index::open(&directory).unwrap();
        IndexKeeper::new(directory, memory, running, peak, clock, Arc::new(lock), Some(index))
    }

    fn put(keeper: &IndexKeeper, content: &[u8]) -> Digest {
        let digest = Digest::of(Algorithm::Sha256, content);
        let now = Moment::default();
        keeper.memory.with(|table| table.put_blob(&digest, 1, now));
        digest
    }

    fn remembered(directory: &Directory) -> Table {
        let (index, table, _) = Index::load(directory).unwrap();
        index.close();
        table
    }

    #[test]
    fn an_index_that_breaks_while_in_use_is_written_anew() {
        let data_dir = tempfile::tempdir().unwrap();
        let mut keeper = keeper(&data_dir);
        let before = put(&keeper, b"before");
        keeper.keep_up();
        keeper.start_anew("a test");
        let after = put(&keeper, b"after");
        let directory = keeper.directory.clone();
        keeper.finish();
        let table = remembered(&directory);
        assert_eq!(table.size(&before).and(table.size(&after)), Some(1));
        assert!(directory.damaged_index(1).is_dir());
    }

    #[test]
    fn an_index_that_breaks_at_the_end_is_written_anew() {
        let data_dir = tempfile::tempdir().unwrap();
        let mut keeper = keeper(&data_dir);
        let before = put(&keeper, b"before");
        keeper.keep_up();
        keeper.index.as_ref().unwrap().database.drop_tree("blobs").unwrap();
        let after = put(&keeper, b"after");
        let directory = keeper.directory.clone();
        assert!(keeper.finish());
        let table = remembered(&directory);
        assert_eq!(table.size(&before).and(table.size(&after)), Some(1));
    }

    #[test]
    fn what_a_full_disk_refused_is_written_once_there_is_room() {
        let data_dir = tempfile::tempdir().unwrap();
        let mut keeper = keeper(&data_dir);
        let digest = put(&keeper, b"refused");
        let batch = keeper.next_batch();
        keeper.wait("a test", batch);
        let directory = keeper.directory.clone();
        keeper.keep_up();
        assert!(keeper.index.is_none(), "not before the time");
        assert_eq!(remembered(&directory).size(&digest), None);
        keeper.finish();
        assert_eq!(remembered(&directory).size(&digest), Some(1));
    }
}
