//! What is held, listed for who looks at all of it.

use super::{Table, Totals, slots::Id, usage::MAX_LEVELS};
use crate::oci::Digest;

impl Table {
    /// Those held of the `count` slots from number `from` whose digest begins with this byte. `None`:
    /// there are no more slots.
    pub fn held_in(&self, first: u8, from: usize, count: usize) -> Option<Vec<Digest>> {
        (from < self.slots.end()).then(|| {
            let slots = self.slots.range(from, count).map(|(_, slot)| slot);
            let held =
                slots.filter(|slot| slot.present && slot.digest.as_bytes().first() == Some(&first));
            held.map(|slot| slot.digest.clone()).collect()
        })
    }

    /// What is held of a digest and of everything below it, each once, and what that adds up to.
    pub fn held_below(&self, digest: &Digest) -> (Vec<Digest>, Totals) {
        let (mut held, mut totals) = (Vec::new(), Totals::default());
        let mut level: Vec<Id> = self.slots.find(digest).into_iter().collect();
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..=MAX_LEVELS {
            let mut below = Vec::new();
            for id in level {
                let Some(slot) = self.slots.get(id).filter(|_| seen.insert(id)) else {
                    continue;
                };
                if slot.present {
                    held.push(slot.digest.clone());
                    totals.blobs += 1;
                    totals.bytes = totals.bytes.saturating_add(slot.size);
                }
                below.extend(slot.manifest.iter().flat_map(|manifest| manifest.children.iter()));
            }
            level = below;
        }
        (held, totals)
    }
}
