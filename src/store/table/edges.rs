//! What lists a digest, and where it was shown, in sixteen bytes: nearly every blob of a million
//! is listed by one manifest and was shown in one repository.

use smallvec::SmallVec;

use super::{RepositoryId, slots::Id};

/// The manifests that list a digest and the repositories in which upstream showed it, both sorted.
#[derive(Debug, Default)]
pub(super) struct Edges {
    /// Means nothing when there is `many`.
    parent: Option<Id>,
    /// Means nothing when there is `many`.
    repository: Option<RepositoryId>,
    many: Option<Box<Many>>,
}

/// Once there are two of one sort.
#[derive(Debug)]
struct Many {
    parents: SmallVec<[Id; 4]>,
    repositories: SmallVec<[RepositoryId; 4]>,
}

impl Edges {
    /// Manifests that list the digest.
    pub fn parents(&self) -> &[Id] {
        self.many.as_ref().map_or(self.parent.as_slice(), |many| &many.parents)
    }

    /// Repositories in which upstream showed the digest.
    pub fn repositories(&self) -> &[RepositoryId] {
        self.many.as_ref().map_or(self.repository.as_slice(), |many| &many.repositories)
    }

    /// A manifest lists the digest.
    pub fn add_parent(&mut self, parent: Id) {
        if self.many.is_none() && self.parent.is_none() {
            self.parent = Some(parent);
        } else if self.many.is_some() || self.parent != Some(parent) {
            insert_sorted(&mut self.many().parents, parent);
        }
    }

    /// A manifest that listed the digest is none any more.
    pub fn remove_parent(&mut self, parent: Id) {
        if let Some(many) = &mut self.many {
            remove_sorted(&mut many.parents, parent);
        } else if self.parent == Some(parent) {
            self.parent = None;
        }
    }

    /// Upstream showed the digest in a repository. Tells whether that is new.
    pub fn add_repository(&mut self, repository: RepositoryId) -> bool {
        if self.repositories().binary_search(&repository).is_ok() {
            return false;
        }
        if self.many.is_none() && self.repository.is_none() {
            self.repository = Some(repository);
        } else {
            insert_sorted(&mut self.many().repositories, repository);
        }
        true
    }

    /// A repository shows the digest no longer. Tells whether it did.
    pub fn remove_repository(&mut self, repository: RepositoryId) -> bool {
        let is_shown = self.repositories().binary_search(&repository).is_ok();
        match &mut self.many {
            Some(many) => remove_sorted(&mut many.repositories, repository),
            None if is_shown => self.repository = None,
            None => {}
        }
        is_shown
    }

    /// Empties the repositories.
    pub fn take_repositories(&mut self) -> Vec<RepositoryId> {
        match &mut self.many {
            Some(many) => std::mem::take(&mut many.repositories).into_vec(),
            None => self.repository.take().into_iter().collect(),
        }
    }

    fn many(&mut self) -> &mut Many {
        let Edges { parent, repository, many } = self;
        many.get_or_insert_with(|| {
            let (parents, repositories) = (parent.iter(), repository.iter());
            let parents = parents.copied().collect();
            Box::new(Many { parents, repositories: repositories.copied().collect() })
        })
    }
}

fn insert_sorted<T: Copy + Ord>(list: &mut SmallVec<[T; 4]>, item: T) {
    if let Err(place) = list.binary_search(&item) {
        list.insert(place, item);
    }
}

fn remove_sorted<T: Copy + Ord>(list: &mut SmallVec<[T; 4]>, item: T) {
    if let Ok(place) = list.binary_search(&item) {
        list.remove(place);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_number_of_links_is_kept_in_order() {
        let mut edges = Edges::default();
        for (number, is_new) in [(3, true), (1, true), (1, false), (2, true), (3, false)] {
            edges.add_parent(Id::at(number));
            assert_eq!(edges.add_repository(RepositoryId::at(number)), is_new);
        }
        assert_eq!(edges.parents(), [1, 2, 3].map(Id::at));
        assert_eq!(edges.repositories(), [1, 2, 3].map(RepositoryId::at));
        for number in [2, 3, 1] {
            edges.remove_parent(Id::at(number));
            assert!(!edges.parents().contains(&Id::at(number)));
        }
        assert!(edges.remove_repository(RepositoryId::at(2)));
        assert!(!edges.remove_repository(RepositoryId::at(2)));
        assert_eq!(edges.take_repositories(), [1, 3].map(RepositoryId::at));
        assert!(edges.parents().is_empty() && edges.repositories().is_empty());
    }

    #[test]
    fn one_edge_of_each_sort_takes_no_room_of_its_own() {
        let mut edges = Edges::default();
        edges.add_parent(Id::at(7));
        assert!(edges.add_repository(RepositoryId::at(8)));
        assert!(!edges.add_repository(RepositoryId::at(8)));
        edges.add_parent(Id::at(7));
        assert!(edges.many.is_none());
        assert_eq!((size_of::<Edges>(), size_of::<Many>()), (16, 48));
        edges.remove_parent(Id::at(7));
        assert!(edges.parents().is_empty());
        assert_eq!(edges.take_repositories(), [RepositoryId::at(8)]);
        assert!(edges.add_repository(RepositoryId::at(9)));
        assert!(!edges.remove_repository(RepositoryId::at(8)));
        assert!(edges.remove_repository(RepositoryId::at(9)));
        assert!(edges.repositories().is_empty());
    }
}
