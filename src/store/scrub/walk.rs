//! The blobs in the order of their digests, without a list of all of them.

use std::{cmp::Ordering, collections::VecDeque};

use super::schedule::place;
use crate::{oci::Digest, store::memory::Memory};

/// Digests are listed by their first byte, one of so many.
const BUCKETS: u16 = 256;

/// Slots looked at under one lock.
const STEP: usize = 16 * 1024;

/// A walk over everything that is held.
#[derive(Debug)]
pub struct Walk {
    /// The next to be listed.
    bucket: u16,
    /// Those of the last one listed that are still to come.
    listed: VecDeque<Digest>,
    /// The last that was met.
    after: Option<Digest>,
}

impl Walk {
    /// Goes on behind a digest; `None`: from the beginning.
    pub fn behind(after: Option<Digest>) -> Walk {
        let first = after.as_ref().and_then(|digest| digest.as_bytes().first().copied());
        Walk { bucket: first.unwrap_or(0).into(), listed: VecDeque::new(), after }
    }

    /// Only over these, in this order.
    pub fn over(listed: impl IntoIterator<Item = Digest>) -> Walk {
        Walk { bucket: BUCKETS, listed: listed.into_iter().collect(), after: None }
    }

    /// The next digest whose place is no later than `due`.
    pub fn next_until(&mut self, due: f64, memory: &Memory) -> Option<Digest> {
        while self.listed.is_empty() {
            let is_due = f64::from(self.bucket) / f64::from(BUCKETS) <= due;
            let first = u8::try_from(self.bucket).ok().filter(|_| is_due)?;
            self.listed = self.list(first, memory);
            self.bucket += 1;
        }
        let is_due = self.listed.front().is_some_and(|digest| place(digest) <= due);
        let next = if is_due { self.listed.pop_front() } else { None }?;
        self.after = Some(next.clone());
        Some(next)
    }

    /// Whether this is the digest that was met last.
    pub fn is_at(&self, digest: &Digest) -> bool {
        self.after.as_ref() == Some(digest)
    }

    /// Whether nothing is left of the walk.
    pub fn is_over(&self) -> bool {
        self.bucket >= BUCKETS && self.listed.is_empty()
    }

    fn list(&self, first: u8, memory: &Memory) -> VecDeque<Digest> {
        let step = |from| memory.look(|table| table.held_in(first, from, STEP));
        let all = (0..).step_by(STEP).map_while(step).flatten();
        let behind = |digest: &Digest| {
            self.after.as_ref().is_none_or(|after| order(digest, after) == Ordering::Greater)
        };
        let mut digests: Vec<Digest> = all.filter(behind).collect();
        digests.sort_unstable_by(order);
        digests.into()
    }
}

/// By the bytes, whichever algorithm they are of.
fn order(one: &Digest, other: &Digest) -> Ordering {
    one.as_bytes().cmp(other.as_bytes())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{
        metrics::Metrics,
        oci::Algorithm,
        store::{running::Moment, table::Table},
    };

    fn memory(count: u32) -> Memory {
        let memory = Memory::new(Table::default(), Arc::new(Metrics::new()));
        for n in 0..count {
            let algorithm = if n % 3 == 0 { Algorithm::Sha512 } else { Algorithm::Sha256 };
            let digest = Digest::of(algorithm, &n.to_le_bytes());
            memory.with(|table| table.put_blob(&digest, 1, Moment::default()));
        }
        memory
    }

    #[test]
    fn a_walk_meets_each_blob_once_in_its_time_also_in_two_parts() {
        let memory = memory(3000);
        let mut walk = Walk::behind(None);
        let mut met = Vec::new();
        for due in [0.0, 0.1, 0.5] {
            met.extend(std::iter::from_fn(|| walk.next_until(due, &memory)));
            assert!(met.iter().all(|digest| place(digest) <= due));
            assert!(!walk.is_over());
        }
        assert!((1300..1700).contains(&met.len()), "{}", met.len());
        let mut walk = Walk::behind(met.last().cloned());
        met.extend(std::iter::from_fn(|| walk.next_until(1.0, &memory)));
        assert!(walk.is_over());
        assert_eq!(met.len(), 3000);
        met.sort_unstable();
        met.dedup();
        assert_eq!(met.len(), 3000);
    }
}
