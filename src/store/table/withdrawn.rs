//! Manifests that are about to go, and are therefore named in `index.json` no longer.

use super::Table;
use crate::oci::Digest;

impl Table {
    /// `index.json` is to name none of these any more, until each is gone or [readmitted]. Tells
    /// whether it may name one of them now.
    ///
    /// [readmitted]: Table::readmit
    pub fn withdraw(&mut self, digests: &[Digest]) -> bool {
        let mut is_named = false;
        for id in digests.iter().filter_map(|digest| self.slots.find(digest)) {
            let is_manifest = |slot: &super::slots::Slot| slot.present && slot.manifest.is_some();
            if self.slots.get(id).is_some_and(is_manifest) {
                self.withdrawn.insert(id);
                is_named = true;
            }
        }
        is_named
    }

    /// `index.json` may name these again, those of them that are still here.
    pub fn readmit(&mut self, digests: &[Digest]) {
        for id in digests.iter().filter_map(|digest| self.slots.find(digest)) {
            self.changes.layout |= self.withdrawn.remove(&id);
        }
    }
}
