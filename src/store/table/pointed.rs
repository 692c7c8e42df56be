//! Which tags and lists of a repository mean a manifest, so that nobody need look at all of them for it:
//! a repository may have tens of thousands.

use std::collections::BTreeMap;

use super::{names::Pointer, slots::Id};

/// The pointers to each manifest, in order.
#[derive(Debug, Default)]
pub(super) struct Pointed(BTreeMap<Id, Vec<Pointer>>);

impl Pointed {
    /// A pointer means a manifest, which it did not.
    pub(super) fn add(&mut self, manifest: Id, pointer: &Pointer) {
        // Nearly all manifests have one, and a list that is made for one has no room for more.
        let pointers = self.0.entry(manifest).or_insert_with(|| Vec::with_capacity(1));
        if let Err(place) = pointers.binary_search(pointer) {
            pointers.insert(place, pointer.clone());
        }
    }

    /// A pointer means a manifest no longer.
    pub(super) fn remove(&mut self, manifest: Id, pointer: &Pointer) {
        let Some(pointers) = self.0.get_mut(&manifest) else {
            return;
        };
        if let Ok(place) = pointers.binary_search(pointer) {
            pointers.remove(place);
        }
        if pointers.is_empty() {
            self.0.remove(&manifest);
        }
    }

    /// The pointers that mean a manifest.
    pub(super) fn to(&self, manifest: Id) -> &[Pointer] {
        self.0.get(&manifest).map_or(&[], Vec::as_slice)
    }
}
