//! What a sweep did, or would do.

use std::{collections::BTreeMap, io, sync::Arc, time::Duration, vec};

use super::{
    Shared, blocking,
    budget::Goal,
    eviction::{Reason, Victim},
    running::Moment,
};
use crate::oci::{Digest, Registry};

/// Victims described under one lock.
const STEP: usize = 64;

/// What went, or is to go, by reason.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// By `expired`, `max_size`, `min_free` and `partial`.
    pub reasons: BTreeMap<&'static str, Count>,
}

/// How much of one kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Blobs, manifests and half-done downloads.
    pub blobs: u64,
    /// Bytes in them.
    pub bytes: u64,
}

/// Something that the next sweep removes.
#[derive(Clone, Debug)]
pub struct Going {
    /// Which.
    pub digest: Digest,
    /// The tags that mean it, or else the repositories that show it.
    pub names: Vec<String>,
    /// Bytes in it; 0 when only its names are here.
    pub bytes: u64,
    /// Running time since anybody used it.
    pub unused: Duration,
    /// Why: as in [`Swept::reasons`].
    pub reason: &'static str,
}

/// What the next sweep removes, in order, as of now.
#[derive(Debug)]
pub struct Plan {
    store: Arc<Shared>,
    now: Moment,
    partials: Vec<Going>,
    victims: vec::IntoIter<Victim>,
}

impl Plan {
    /// Looks what there is. Blocking.
    pub(super) fn make(
        store: Arc<Shared>,
        unreachable: Vec<Registry>,
        now: Moment,
    ) -> io::Result<Plan> {
        let goal = store.room.goal(None)?;
        let partials = store.partials_to_go(&goal, now);
        let goal = goal.less(partials.iter().map(|partial| partial.bytes).sum());
        let victims = store.choose(goal, unreachable, now).into_iter();
        Ok(Plan { store, now, partials, victims })
    }

    /// The next few. Empty: there are no more.
    ///
    /// # Errors
    /// When the threads for such work are gone: at the very end.
    pub async fn next(&mut self) -> io::Result<Vec<Going>> {
        let mut going = std::mem::take(&mut self.partials);
        while going.is_empty() && self.victims.len() > 0 {
            let some: Vec<Victim> = self.victims.by_ref().take(STEP).collect();
            let (store, now) = (Arc::clone(&self.store), self.now);
            let describe = move || {
                let going = |victim| store.memory.look(|table| table.going(victim, now));
                some.iter().filter_map(going).collect()
            };
            going = blocking(describe).await?;
        }
        Ok(going)
    }
}

impl Swept {
    /// One more.
    pub fn add(&mut self, reason: &'static str, bytes: u64) {
        let count = self.reasons.entry(reason).or_default();
        count.blobs = count.blobs.saturating_add(1);
        count.bytes = count.bytes.saturating_add(bytes);
    }

    /// All of it.
    pub fn total(&self) -> Count {
        self.reasons.values().fold(Count::default(), |total, count| Count {
            blobs: total.blobs.saturating_add(count.blobs),
            bytes: total.bytes.saturating_add(count.bytes),
        })
    }
}

impl Shared {
    /// Half-done downloads that nobody went on with for long, and as many more as have to go.
    fn partials_to_go(&self, goal: &Goal, now: Moment) -> Vec<Going> {
        let mut gone: u64 = 0;
        let going = self.downloads.left_since().into_iter().take_while(|(since, _, bytes)| {
            let goes = self.downloads.is_stale(*since, now) || gone < goal.bytes();
            gone = gone.saturating_add(*bytes);
            goes
        });
        let describe = |(since, digest, bytes): (Moment, Digest, u64)| Going {
            names: self.memory.look(|table| table.names_of(&digest)),
            unused: now.since(since),
            reason: Reason::Partial.label(),
            digest,
            bytes,
        };
        going.map(describe).collect()
    }
}
