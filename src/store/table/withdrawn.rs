//! Manifests that are about to go, and are therefore named in `index.json` no longer.

use super::Table;
use crate::oci::Digest;

impl Table {
    /// `index.json` is to name none of these any more, until each was [readmitted] as often as it
    /// was withdrawn. Returns those of them that it may name now.
    ///
    /// [readmitted]: Table::readmit
    pub fn withdraw(&mut self, digests: &[Digest]) -> Vec<Digest> {
        let is_named = |digest: &&Digest| {
            self.slots.of(digest).is_some_and(|slot| slot.present && slot.manifest.is_some())
        };
        let named: Vec<Digest> = digests.iter().filter(is_named).cloned().collect();
        for digest in &named {
            let times = self.withdrawn.entry(digest.clone()).or_default();
            *times = times.saturating_add(1);
        }
        named
    }

    /// `index.json` may name these again, those of them that are still here.
    pub fn readmit(&mut self, digests: &[Digest]) {
        for digest in digests {
            let Some(times) = self.withdrawn.get_mut(digest) else {
                continue;
            };
            *times = times.saturating_sub(1);
            if *times == 0 {
                self.withdrawn.remove(digest);
                self.changes.layout |= self.size(digest).is_some();
            }
        }
    }

    /// `index.json` may name everything again.
    pub fn readmit_all(&mut self) {
        self.changes.layout |= !self.withdrawn.is_empty();
        self.withdrawn.clear();
    }
}
