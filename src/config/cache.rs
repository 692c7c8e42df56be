//! `[cache]`: what is kept, and for how long it counts as fresh.

use std::time::Duration;

use super::{Rules, reader::Section, value};

const MAX_SIZE: Size = Size::Percent(80);
const EXPIRE_AFTER: Duration = Duration::from_secs(90 * 24 * 3600);
const SWEEP_INTERVAL: Duration = Duration::from_secs(10 * 60);
const SCRUB_INTERVAL: Duration = Duration::from_secs(30 * 24 * 3600);
const CHECK_TIMEOUT: Duration = Duration::from_secs(2);
const NEGATIVE_TTL: Duration = Duration::from_secs(10);

/// `[cache]`
#[derive(Clone, Debug)]
pub struct Cache {
    /// The most that the data directory may hold. Per cent are of what it holds and what is free.
    pub max_size: Size,
    /// Free space to leave on the file system. `None`: the larger of 5 % and 5 GiB.
    pub min_free: Option<Size>,
    /// Running time after which an unused blob leaves. `None`: never.
    pub expire_after: Option<Duration>,
    /// Time between two sweeps.
    pub sweep_interval: Duration,
    /// Running time within which every blob is hashed again. `None`: only on demand.
    pub scrub_interval: Option<Duration>,
    /// How old a tag may be when it is served because upstream cannot be asked. `None`: any age.
    pub max_stale: Option<Duration>,
    /// How long a client waits for upstream's word on a tag that is cached.
    pub check_timeout: Duration,
    /// How long upstream's "not found" is remembered.
    pub negative_ttl: Duration,
    /// What happens to a cached tag that upstream no longer has.
    pub on_deleted: OnDeleted,
    /// Whether no upstream is asked anything but those that say otherwise, and nothing leaves to make
    /// room for other programs.
    pub offline: bool,
    /// What differs for some images.
    pub rules: Rules,
}

/// What happens to a cached tag that upstream no longer has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnDeleted {
    /// It goes here too.
    Follow,
    /// It is still served, as stale.
    Serve,
}

/// A size on disk, absolute or relative to a whole that its key names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    /// Bytes.
    Bytes(u64),
    /// Per cent, 0 to 100.
    Percent(u8),
}

impl Cache {
    /// The most bytes that the data directory may hold, where it holds `held` and `free` are free.
    pub fn max_size_bytes(&self, held: u64, free: u64) -> u64 {
        self.max_size.of(held.saturating_add(free))
    }

    /// Running time after which the first unused blob may leave, by this section or a rule. `None`:
    /// none ever does.
    pub fn shortest_life(&self) -> Option<Duration> {
        let stated = self.rules.iter().filter_map(|rule| rule.expire_after);
        stated.chain([self.expire_after]).flatten().min()
    }

    /// Bytes to leave free on a file system of `total` bytes.
    pub fn min_free_bytes(&self, total: u64) -> u64 {
        match self.min_free {
            Some(size) => size.of(total),
            None => Size::Percent(5).of(total).max(5 << 30),
        }
    }

    /// All of it but the rules, which are about upstreams.
    pub(super) fn read(mut section: Section<'_, '_>) -> Cache {
        let expire_after = section.take("expire_after", value::positive_duration_or_never);
        let sweep_interval = section.take("sweep_interval", value::positive_duration);
        let scrub_interval = section.take("scrub_interval", value::positive_duration_or_never);
        let max_stale = section.take("max_stale", value::duration_or_never);
        let check_timeout = section.take("check_timeout", value::duration);
        let negative_ttl = section.take("negative_ttl", value::duration);
        let on_deleted = section.take("on_deleted", |written| {
            let words = [("follow", OnDeleted::Follow), ("serve", OnDeleted::Serve)];
            value::one_of(written, &words)
        });
        Cache {
            max_size: section.take("max_size", value::size).unwrap_or(MAX_SIZE),
            min_free: section.take("min_free", value::size),
            expire_after: expire_after.unwrap_or(Some(EXPIRE_AFTER)),
            sweep_interval: sweep_interval.unwrap_or(SWEEP_INTERVAL),
            scrub_interval: scrub_interval.unwrap_or(Some(SCRUB_INTERVAL)),
            max_stale: max_stale.unwrap_or(None),
            check_timeout: check_timeout.unwrap_or(CHECK_TIMEOUT),
            negative_ttl: negative_ttl.unwrap_or(NEGATIVE_TTL),
            on_deleted: on_deleted.unwrap_or(OnDeleted::Follow),
            offline: section.take("offline", value::boolean).unwrap_or(false),
            rules: Rules::default(),
        }
    }
}

impl Size {
    /// Bytes of this size, where the whole is `total` bytes.
    pub fn of(self, total: u64) -> u64 {
        match self {
            Size::Bytes(bytes) => bytes,
            Size::Percent(percent) => (total / 100).saturating_mul(percent.into()),
        }
    }
}
