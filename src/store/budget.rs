//! How much the data directory may hold, and how much has to go when that is passed. Pure.
//!
//! `max_size` and `min_free` each have a low mark: eviction goes on until a tenth of the cache is
//! below the limit, so that a full cache evicts once for every tenth of its size that is pulled and
//! not once for every blob, and still keeps nine tenths of what it may.
//!
//! What another program takes of the disk must not empty the cache. So whatever is asked for by what is
//! free (`min_free`, and a `max_size` in per cent) leaves half of the most that was held that day.

use crate::config::{self, Size};

/// A low mark is this part of what is held, or may be, below its limit.
const SLACK: u64 = 10;

/// What is on the disk, in bytes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Standing {
    /// What the data directory takes up, with all that is promised to files that grow.
    pub held: u64,
    /// Of this, what never goes: the index and its like.
    pub fixed: u64,
    /// What nobody took up or was promised.
    pub free: u64,
    /// The whole file system.
    pub total: u64,
    /// What stays today, whoever fills the disk; all of it where nothing can be fetched again.
    pub floor: u64,
}

/// Bytes that have to go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Goal {
    /// With less, nothing need go at all.
    pub least: u64,
    /// Down to the low mark of `max_size`.
    pub size: u64,
    /// Down to the low mark of `min_free`.
    pub free: u64,
}

/// What both limits come to, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// What the data directory may hold.
    pub max_size: u64,
    /// What stays free of the file system.
    pub min_free: u64,
}

/// Why room cannot be had now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Short {
    /// Bytes by which it is too much.
    pub by: u64,
    /// Whether nothing that could go would help.
    pub for_good: bool,
    /// The key of the configuration that says so.
    pub key: &'static str,
    /// What that key allows, in bytes.
    pub allowed: u64,
}

/// The two limits.
#[derive(Clone, Debug)]
pub struct Budget {
    cache: config::Cache,
}

impl Budget {
    /// As the operator wants them.
    pub fn new(cache: config::Cache) -> Budget {
        Budget { cache }
    }

    /// The most bytes that may be held.
    pub fn limit(&self, standing: &Standing) -> u64 {
        let limit = self.cache.max_size_bytes(standing.held, standing.free);
        match self.cache.max_size {
            Size::Bytes(_) => limit,
            Size::Percent(_) => limit.max(standing.floor.min(standing.held)),
        }
    }

    /// What stays today, where half of the most that was held is `half`. What cannot be fetched
    /// again stays.
    pub fn floor(&self, half: u64) -> u64 {
        if self.cache.offline { u64::MAX } else { half }
    }

    /// Both limits.
    pub fn limits(&self, standing: &Standing) -> Limits {
        let min_free = self.min_free(standing.total);
        Limits { max_size: self.limit(standing), min_free }
    }

    /// Whether `wanted` bytes more fit.
    pub fn check(&self, standing: &Standing, wanted: u64) -> Result<(), Short> {
        let limit = self.limit(standing);
        let over = standing.held.saturating_add(wanted).saturating_sub(limit);
        let min_free = self.min_free(standing.total);
        let lacking = min_free.saturating_add(wanted).saturating_sub(standing.free);
        if over.max(lacking) == 0 {
            return Ok(());
        }
        let for_good = standing.fixed.saturating_add(wanted) > limit || lacking > standing.held;
        let (key, allowed) = match over >= lacking {
            true => ("max_size", limit),
            false => ("min_free", min_free),
        };
        Err(Short { by: over.max(lacking), for_good, key, allowed })
    }

    /// What has to go for `wanted` bytes more to fit; `wanted` 0: for what is there.
    pub fn goal(&self, standing: &Standing, wanted: u64) -> Goal {
        let limit = self.limit(standing);
        let over = standing.held.saturating_add(wanted).saturating_sub(limit);
        let min_free = self.min_free(standing.total);
        let lacking = min_free.saturating_add(wanted).saturating_sub(standing.free);
        let spare = standing.spare(wanted);
        let size = down_by(over, limit / SLACK);
        let size = match self.cache.max_size {
            Size::Bytes(_) => size,
            Size::Percent(_) => size.min(spare),
        };
        let least = if wanted == 0 { 0 } else { over.max(lacking) };
        Goal { least, size, free: down_by(lacking, standing.held / SLACK).min(spare) }
    }

    /// What has to go when `refused` bytes could not be written, or could soon not be, whatever is said to
    /// be free. Half stays even so, since nobody says that anything will come instead.
    pub fn relief(&self, standing: &Standing, refused: u64) -> Goal {
        let goal = self.goal(standing, 0);
        let free = down_by(refused, standing.held / SLACK).min(standing.spare(0));
        Goal { least: refused, free: goal.free.max(free), ..goal }
    }

    /// What is to stay free of a file system of `total` bytes.
    pub fn min_free(&self, total: u64) -> u64 {
        self.cache.min_free_bytes(total)
    }
}

impl Goal {
    /// All that has to go.
    pub fn bytes(&self) -> u64 {
        self.size.max(self.free)
    }

    /// What is left of it when so many bytes have gone.
    pub fn less(&self, gone: u64) -> Goal {
        Goal {
            least: self.least.saturating_sub(gone),
            size: self.size.saturating_sub(gone),
            free: self.free.saturating_sub(gone),
        }
    }

    /// Whether that is enough to be of use.
    pub fn is_of_use(&self) -> bool {
        self.bytes() > 0 && self.bytes() >= self.least
    }
}

impl Standing {
    /// What may go today because of what is free, when `wanted` bytes come instead.
    fn spare(&self, wanted: u64) -> u64 {
        self.held.saturating_add(wanted).saturating_sub(self.floor)
    }
}

fn down_by(over: u64, slack: u64) -> u64 {
    if over == 0 { 0 } else { over.saturating_add(slack) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Sources};

    const GIB: u64 = 1 << 30;

    fn budget(max_size: Size, min_free: u64) -> Budget {
        let flags = [("data_dir", "data".to_owned())].into();
        let config = Config::load(&Sources { flags, ..Sources::default() }).unwrap();
        let min_free = Some(Size::Bytes(min_free));
        Budget::new(config::Cache { max_size, min_free, ..config.cache })
    }

    fn standing(held: u64, free: u64) -> Standing {
        Standing {
            held: held * GIB,
            free: free * GIB,
            total: 200 * GIB,
            floor: held * GIB / 2,
            fixed: 0,
        }
    }

    #[test]
    fn what_fits_needs_nothing_to_go() {
        let budget = budget(Size::Bytes(100 * GIB), 10 * GIB);
        assert_eq!(budget.check(&standing(90, 20), 10 * GIB), Ok(()));
        assert_eq!(budget.goal(&standing(90, 20), 10 * GIB), Goal::default());
        assert_eq!(budget.goal(&standing(100, 10), 0), Goal::default());
    }

    #[test]
    fn what_does_not_fit_brings_down_to_the_low_mark() {
        let budget = budget(Size::Bytes(100 * GIB), 10 * GIB);
        let short = budget.check(&standing(95, 90), 10 * GIB).unwrap_err();
        assert_eq!((short.by, short.for_good, short.key), (5 * GIB, false, "max_size"));
        let goal = budget.goal(&standing(95, 90), 10 * GIB);
        assert_eq!(goal, Goal { least: 5 * GIB, size: 15 * GIB, free: 0 });
        let goal = budget.goal(&standing(50, 5), 0);
        assert_eq!(goal, Goal { least: 0, size: 0, free: 10 * GIB });
        assert!(budget.check(&standing(0, 199), 101 * GIB).unwrap_err().for_good);
        let short = budget.check(&standing(2, 5), 0).unwrap_err();
        assert_eq!((short.for_good, short.key), (true, "min_free"));
    }

    #[test]
    fn what_others_take_of_the_disk_leaves_half() {
        let (absolute, relative) = (Size::Bytes(10 * GIB), Size::Percent(50));
        let full = standing(80, 0);
        assert_eq!(budget(absolute, 0).goal(&full, 0).bytes(), 71 * GIB);
        assert_eq!(budget(relative, 0).limit(&full), 40 * GIB);
        assert_eq!(budget(relative, 0).goal(&full, 0).bytes(), 40 * GIB);
        assert_eq!(budget(Size::Percent(100), 200 * GIB).goal(&full, 0).bytes(), 40 * GIB);
        let later = Standing { held: 40 * GIB, ..full };
        for budget in [budget(relative, 0), budget(Size::Percent(100), 200 * GIB)] {
            assert_eq!(budget.goal(&later, 0).bytes(), 0);
        }
    }

    #[test]
    fn what_cannot_be_fetched_again_stays_whatever_is_free() {
        let offline = Standing { floor: u64::MAX, ..standing(80, 0) };
        for max_size in [Size::Percent(50), Size::Bytes(90 * GIB)] {
            assert_eq!(budget(max_size, 200 * GIB).goal(&offline, 0).bytes(), 0);
        }
        let lowered = budget(Size::Bytes(60 * GIB), 0);
        assert_eq!(lowered.goal(&offline, 0).size, 26 * GIB, "the operator wants it");
    }

    /// A quota of which the file system says nothing, or a disk full to the last byte.
    #[test]
    fn what_was_refused_comes_out_of_half_the_cache() {
        let (quota, full) = (standing(80, 60), standing(80, 0));
        let budget = budget(Size::Bytes(100 * GIB), 0);
        for standing in [quota, full] {
            let goal = budget.relief(&standing, GIB);
            assert_eq!(goal, Goal { least: GIB, size: 0, free: 9 * GIB });
            assert_eq!(budget.relief(&standing, 39 * GIB).bytes(), 40 * GIB);
            assert!(!budget.relief(&standing, 41 * GIB).is_of_use());
            let later = Standing { held: 40 * GIB, ..standing };
            assert!(!budget.relief(&later, GIB).is_of_use(), "nothing more that day");
            let offline = Standing { floor: u64::MAX, ..standing };
            assert!(!budget.relief(&offline, GIB).is_of_use());
        }
    }

    /// What comes in exchange for what goes empties nothing.
    #[test]
    fn a_cache_goes_on_working_on_a_disk_that_others_filled() {
        let budget = budget(Size::Percent(100), 10 * GIB);
        let tight = Standing { floor: 40 * GIB, ..standing(40, 10) };
        let goal = budget.goal(&tight, GIB);
        assert_eq!(goal, Goal { least: GIB, size: 0, free: GIB });
        assert!(goal.is_of_use());
    }
}
