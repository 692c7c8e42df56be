//! Which tags and lists of a repository mean a manifest, so that nobody need look at all of them for it:
//! a repository may have tens of thousands.

use std::collections::BTreeSet;

use super::{names::Pointer, slots::Id};

/// The pointers to each manifest, in order. There is always a pointer: `None` stands before all of them in a
/// search.
#[derive(Debug, Default)]
pub(super) struct Pointed(BTreeSet<(Id, Option<Pointer>)>);

impl Pointed {
    /// A pointer means a manifest.
    pub(super) fn add(&mut self, manifest: Id, pointer: &Pointer) {
        self.0.insert((manifest, Some(pointer.clone())));
    }

    /// A pointer means a manifest no longer.
    pub(super) fn remove(&mut self, manifest: Id, pointer: &Pointer) {
        self.0.remove(&(manifest, Some(pointer.clone())));
    }

    /// Takes over all of another.
    pub(super) fn append(&mut self, other: &mut Pointed) {
        self.0.append(&mut other.0);
    }

    /// The pointers that mean a manifest.
    pub(super) fn to(&self, manifest: Id) -> impl Iterator<Item = &Pointer> {
        let from = self.0.range((manifest, None)..);
        from.take_while(move |(meant, _)| *meant == manifest).filter_map(|(_, to)| to.as_ref())
    }
}

impl<'p> FromIterator<(Id, &'p Pointer)> for Pointed {
    fn from_iter<I: IntoIterator<Item = (Id, &'p Pointer)>>(pointers: I) -> Pointed {
        let pointers = pointers.into_iter().map(|(meant, pointer)| (meant, Some(pointer.clone())));
        Pointed(pointers.collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pointer_is_small() {
        assert_eq!(size_of::<Pointer>(), 16);
        assert_eq!(size_of::<(Id, Option<Pointer>)>(), 32);
    }
}
