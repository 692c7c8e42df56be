//! Room on the disk: what is held and what is free, and taking of it what both limits leave.

use std::{
    fs::File,
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use rustix::{
    fs::{FallocateFlags, StatVfs, fallocate, statvfs},
    io::Errno,
};

use super::{
    CannotTake,
    budget::{Budget, Goal, Limits, Short, Standing},
    directory::Directory,
    health::Health,
    ledger::{Hold, Ledger},
    memory::{Memory, gauge},
    overhead::Overhead,
    peak::Peak,
    table::BLOCK,
};
use crate::{config, metrics::Metrics};

/// Takes room for files, so that `max_size` and `min_free` are kept.
#[derive(Debug)]
pub struct Room {
    directory: Directory,
    memory: Memory,
    peak: Peak,
    budget: Budget,
    overhead: Overhead,
    ledger: Ledger,
    health: Health,
    metrics: Arc<Metrics>,
    /// Held from looking how much there is to having taken some of it.
    looking: Mutex<()>,
}

impl Room {
    /// Keeps the limits of `cache` in `directory`, whose blobs `memory` knows.
    pub fn new(
        cache: config::Cache,
        directory: Directory,
        memory: Memory,
        peak: Peak,
        ledger: Ledger,
        health: Health,
        metrics: Arc<Metrics>,
    ) -> Room {
        let overhead = Overhead::new(directory.clone());
        let (budget, looking) = (Budget::new(cache), Mutex::default());
        Room { directory, memory, peak, budget, overhead, ledger, health, metrics, looking }
    }

    /// What is held by files that grow, or were left.
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// Takes room for a file of `bytes`, with what belongs to it. Blocking.
    ///
    /// # Errors
    /// By how much it is too much; or what the disk says.
    pub fn take(&self, bytes: u64) -> io::Result<Result<Hold, Short>> {
        let wanted = on_disk(bytes);
        let _looking = self.look_closely();
        let standing = self.standing()?;
        let checked = self.budget.check(&standing, wanted);
        Ok(checked.map(|()| self.ledger.hold(wanted)))
    }

    /// What has to go for a file of `bytes` to fit; `None`: for what is there. Blocking.
    pub fn goal(&self, bytes: Option<u64>) -> io::Result<Goal> {
        let _looking = self.look_closely();
        let standing = self.standing()?;
        Ok(self.budget.goal(&standing, bytes.map_or(0, on_disk)))
    }

    /// What has to go where `refused` bytes could not be written, or could soon not be. Blocking.
    pub fn relief(&self, refused: u64) -> io::Result<Goal> {
        let _looking = self.look_closely();
        let standing = self.standing()?;
        Ok(self.budget.relief(&standing, refused))
    }

    /// Whether less is free than `min_free`, or than `least` bytes. Blocking.
    pub fn is_short(&self, least: u64) -> io::Result<bool> {
        let disk = statvfs(self.directory.path())?;
        let free = self.show(&disk).saturating_sub(self.ledger.unallocated());
        Ok(free < self.budget.min_free(size(&disk)).max(least))
    }

    /// What both limits come to now. Blocking.
    pub fn limits(&self) -> io::Result<Limits> {
        let _looking = self.look_closely();
        let standing = self.standing()?;
        Ok(self.budget.limits(&standing))
    }

    /// Looks how much there is, for the metrics. Blocking.
    pub fn look(&self) -> io::Result<()> {
        let _looking = self.look_closely();
        self.standing().map(drop)
    }

    /// Makes the file system set aside what is held for `file`, from `offset` on, without changing
    /// the file's size. Blocking.
    pub fn allocate(
        &self,
        hold: &mut Hold,
        file: &File,
        offset: u64,
        length: u64,
    ) -> Result<(), CannotTake> {
        match allocate(file, offset, length) {
            // It cannot set anything aside: what is held is not free, whatever it says, until it is written.
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(()),
            Err(errno) => {
                let error = errno.into();
                self.health.suspect_refusal(&error, length);
                Err(CannotTake::of(error))
            }
            Ok(()) => {
                hold.is_allocated();
                Ok(())
            }
        }
    }

    /// What an error of the disk means for the one that wanted to write.
    pub fn failed(&self, error: io::Error) -> CannotTake {
        self.note(&error);
        CannotTake::of(error)
    }

    /// Something could not be written.
    pub fn note(&self, error: &io::Error) {
        self.health.suspect(error);
    }

    /// A file was moved to where only a look at the disk finds it.
    pub fn look_anew(&self) {
        self.overhead.forget();
    }

    fn look_closely(&self) -> MutexGuard<'_, ()> {
        self.looking.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn standing(&self) -> io::Result<Standing> {
        let disk = statvfs(self.directory.path())?;
        let growing = self.ledger.held();
        let (totals, slots) = self.memory.look(|table| (table.totals(), table.slots()));
        // Blocks of another size round up further.
        let block = disk.f_frsize.max(BLOCK);
        let rounding = totals.blobs.saturating_mul(block.saturating_sub(BLOCK));
        let blobs = totals.blocks.saturating_mul(BLOCK).saturating_add(rounding);
        let fixed = self.overhead.bytes(slots);
        let held = blobs.saturating_add(growing).saturating_add(fixed);
        let peak = self.peak.see(held);
        let standing = Standing {
            held,
            fixed,
            free: self.show(&disk).saturating_sub(self.ledger.unallocated()),
            total: size(&disk),
            floor: self.budget.floor(half(peak, fixed)),
        };
        self.metrics.store_limit_bytes.set(gauge(self.budget.limit(&standing)));
        Ok(standing)
    }

    fn show(&self, disk: &StatVfs) -> u64 {
        let free = disk.f_bavail.saturating_mul(disk.f_frsize);
        self.metrics.store_free_bytes.set(gauge(free));
        free
    }
}

/// Half of the most that was held, of which `fixed` never goes.
fn half(peak: u64, fixed: u64) -> u64 {
    (peak.saturating_sub(fixed) / 2).saturating_add(fixed)
}

/// Bytes of a whole file system.
fn size(disk: &StatVfs) -> u64 {
    disk.f_blocks.saturating_mul(disk.f_frsize)
}

/// What a growing file of `bytes` and the note beside it take up on disk.
pub fn on_disk(bytes: u64) -> u64 {
    bytes.div_ceil(BLOCK).saturating_add(1).saturating_mul(BLOCK)
}

/// Whether the disk, or a quota on it, is full.
pub fn is_full(error: &io::Error) -> bool {
    use io::ErrorKind::{QuotaExceeded, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded)
}

fn allocate(file: &File, offset: u64, length: u64) -> Result<(), Errno> {
    if length == 0 {
        return Ok(());
    }
    loop {
        match fallocate(file, FallocateFlags::KEEP_SIZE, offset, length) {
            Err(Errno::INTR) => {}
            allocated => return allocated,
        }
    }
}
