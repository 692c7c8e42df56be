//! Opening the store: lock, index, `index.json`, and the threads that keep them.

use std::{
    io,
    path::Path,
    sync::{Arc, Mutex, OnceLock, PoisonError, atomic::AtomicU64},
    thread,
    time::Duration,
};

use tokio::sync::{Semaphore, watch};

use super::{
    OpenError, Shared, Store,
    buffers::Buffers,
    directory::{Directory, Lock},
    downloads::Downloads,
    files::NameLocks,
    health::Health,
    index::{self, Before, Index, IndexKeeper, Trouble},
    layout::{self, Layout, LayoutKeeper},
    ledger::Ledger,
    memory::Memory,
    open_files::OpenFiles,
    peak::Peak,
    rebuild,
    room::{Room, is_full},
    running::RunningTime,
    table::{Proof, Table},
    threads::{Keeper, Work},
    trial::DiskKeeper,
};
use crate::{clock::Clock, config, metrics::Metrics};

/// How often the index learns what changed.
const INDEX_INTERVAL: Duration = Duration::from_secs(1);

/// How often a suspicion against the disk is looked for.
const DISK_INTERVAL: Duration = Duration::from_millis(100);

/// How often `index.json` is looked after.
const LAYOUT_INTERVAL: Duration = Duration::from_millis(250);

impl Store {
    /// Locks and opens the data directory, creating it when missing. Blocking. Never waits for
    /// a rebuild of the index: that goes on in the background while serving.
    ///
    /// # Errors
    /// When the directory cannot be used, or another process uses it.
    pub fn open(
        data_dir: &Path,
        cache: &config::Cache,
        clock: Clock,
        metrics: Arc<Metrics>,
    ) -> Result<Store, OpenError> {
        let (directory, lock) = Directory::open(data_dir)?;
        let (index, mut table, before) = load_index(&directory);
        table.apply_rules(cache.rules.clone());
        let running = RunningTime::resume(before.running, clock.clone());
        let peak = Peak::resume(before.day, running.clone());
        let ledger = Ledger::default();
        let downloads = Downloads::open(&directory, running.clone(), &ledger);
        let downloads = downloads.map_err(|error| cannot_open(&directory, &error))?;
        // The index may not have heard of it.
        for (digest, note) in downloads.left() {
            table.prove(&note.repository, &digest, Proof::Blob, running.now());
        }
        let named = layout::read(&directory, &mut table, running.now());
        let named = named.map_err(|error| cannot_open(&directory, &error))?;
        let health = Health::new(Arc::clone(&metrics));
        let memory = Memory::new(table, Arc::clone(&metrics));
        let room = Room::new(
            cache.clone(),
            directory.clone(),
            memory.clone(),
            peak.clone(),
            ledger,
            health.clone(),
            Arc::clone(&metrics),
        );
        let lock = Arc::new(lock);
        let layout =
            Layout::new(directory.clone(), memory.clone(), Arc::clone(&lock), health.clone());
        let shared = Arc::new(Shared {
            lock,
            layout,
            memory,
            names: NameLocks::new(),
            open_files: OpenFiles::new(),
            downloads,
            buffers: Buffers::default(),
            manifests_written: AtomicU64::new(0),
            room,
            evictions: Arc::new(Semaphore::new(1)),
            health,
            expire_after: cache.expire_after,
            shortest_life: cache.shortest_life(),
            scrub_interval: cache.scrub_interval,
            keepers: Mutex::default(),
            looked_around: watch::Sender::new(false),
            damage_reports: OnceLock::new(),
            directory,
            running,
            clock,
            metrics,
        });
        let begun = shared.begin(named, index, peak);
        begun.map_err(|error| cannot_open(&shared.directory, &error))?;
        Ok(Store(shared))
    }
}

impl Shared {
    /// Writes what must be there from the beginning, and starts the threads.
    fn begin(self: &Arc<Self>, named: bool, index: Option<Index>, peak: Peak) -> io::Result<()> {
        match self.layout.begin(named) {
            // What is here can be served all the same.
            Err(error) if is_full(&error) => self.health.suspect(&error),
            begun => begun?,
        }
        if self.lock.after_crash {
            self.memory.with(Table::mark_layout);
        }
        self.room.look()?;
        let keepers = vec![self.keep_disk()?, self.keep_index(index, peak)?, self.keep_layout()?];
        *self.keepers.lock().unwrap_or_else(PoisonError::into_inner) = keepers;
        let store = Arc::downgrade(self);
        let rebuild = thread::Builder::new().name("store-rebuild".to_owned());
        rebuild.spawn(move || rebuild::run(&store))?;
        Ok(())
    }

    fn keep_index(&self, index: Option<Index>, peak: Peak) -> io::Result<Keeper> {
        let keeper = IndexKeeper::new(
            self.directory.clone(),
            self.memory.clone(),
            self.running.clone(),
            peak,
            self.clock.clone(),
            Arc::clone(&self.lock),
            index,
        );
        let lock: Arc<Lock> = Arc::clone(&self.lock);
        let work = Work {
            keep_up: IndexKeeper::keep_up,
            write_now: Some(IndexKeeper::write_now),
            finish: IndexKeeper::finish,
        };
        Keeper::start("store-index", INDEX_INTERVAL, lock, keeper, work)
    }

    fn keep_disk(self: &Arc<Self>) -> io::Result<Keeper> {
        let (keeper, lock) = (DiskKeeper::new(Arc::downgrade(self)), Arc::clone(&self.lock));
        let work = Work { keep_up: DiskKeeper::keep_up, write_now: None, finish: |_| true };
        Keeper::start("store-disk", DISK_INTERVAL, lock, keeper, work)
    }

    fn keep_layout(&self) -> io::Result<Keeper> {
        let keeper = LayoutKeeper::new(self.layout.clone());
        let lock = Arc::clone(&self.lock);
        let work = Work {
            keep_up: LayoutKeeper::keep_up,
            write_now: Some(LayoutKeeper::write_now),
            finish: LayoutKeeper::finish,
        };
        Keeper::start("store-layout", LAYOUT_INTERVAL, lock, keeper, work)
    }
}

/// What the index remembers. One that is of no use is moved aside; without any, the store is
/// served from its files, and the index is made when it can be.
fn load_index(directory: &Directory) -> (Option<Index>, Table, Before) {
    match Index::load(directory) {
        Ok((index, table, before)) => return (Some(index), table, before),
        Err(Trouble::Disk(error)) => {
            tracing::warn!(%error, "the index cannot be opened, and waits")
        }
        Err(Trouble::Broken(reason)) => {
            tracing::warn!(reason, "the index is damaged and is written anew");
            let fresh = index::quarantine(directory).map_err(Trouble::from);
            match fresh.and_then(|()| Index::open(directory)) {
                Ok(index) => return (Some(index), Table::default(), Before::default()),
                Err(error) => tracing::warn!(%error, "the index cannot be written"),
            }
        }
    }
    (None, Table::default(), Before::default())
}

fn cannot_open(directory: &Directory, error: &io::Error) -> OpenError {
    OpenError::Unusable(format!(
        "cannot open data directory {}: {error}: make all of it readable and writable for this user, or choose another with --data-dir",
        directory.path().display(),
    ))
}
