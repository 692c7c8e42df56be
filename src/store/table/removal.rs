//! What goes when something is removed by hand, and what stays because something else needs it.
//!
//! A [`Plan`] is gathered in small steps, each of which looks at one manifest and what is below it. By
//! the time that it is carried out it may be out of date, so that each file is looked at once more
//! ([`Table::is_loose`]) before it goes.

use std::collections::{HashMap, HashSet};

use super::{
    Table,
    names::{Pointer, RepositoryId, RepositorySlot},
    slots::{Id, Slot},
    walk::{Cursor, Name},
};
use crate::oci::{Digest, ImageName, Reference, Registry, Repository, Tag};

/// What is to be removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// One tag with what it means, or one manifest with all its tags in the repository.
    Image(ImageName),
    /// Everything that is only of this repository.
    Repository(Repository),
    /// Manifests without a tag, and blobs that belong to nothing.
    Untagged(Place),
}

/// Where to look for what has no tag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// In all repositories.
    Everywhere,
    /// In those of a registry.
    Registry(Registry),
    /// In this one.
    Repository(Repository),
}

/// Where a removal begins.
#[derive(Debug)]
pub struct Seed {
    pub digest: Digest,
    /// Images that can be asked for no more, and mean it.
    pub names: Vec<ImageName>,
}

/// Everything that a removal may concern.
#[derive(Debug, Default)]
pub struct Plan {
    nodes: HashMap<Id, Node>,
}

#[derive(Debug)]
struct Node {
    digest: Digest,
    /// Bytes in the file, if it is here.
    size: Option<u64>,
    /// What keeps it unless it goes as well: manifests that list it, and of a list of referrers the
    /// manifest that it is about.
    parents: Vec<Id>,
    /// Whether it stays, whatever becomes of its parents.
    is_needed: bool,
}

impl Target {
    fn covers(&self, repository: &Repository) -> bool {
        match self {
            Target::Image(image) => image.repository == *repository,
            Target::Repository(whole) => whole == repository,
            Target::Untagged(Place::Everywhere) => true,
            Target::Untagged(Place::Registry(registry)) => registry == repository.registry(),
            Target::Untagged(Place::Repository(one)) => one == repository,
        }
    }

    /// Whether it takes a tag away that means this digest.
    fn takes(&self, tag: &Tag, digest: &Digest) -> bool {
        match self {
            Target::Image(image) => match &image.reference {
                Reference::Tag(one) => one == tag,
                Reference::Digest(one) => one == digest,
            },
            Target::Repository(_) => true,
            Target::Untagged(_) => false,
        }
    }
}

impl Plan {
    /// What goes, with its size if its file is here: manifests come before what they list.
    pub fn doomed(&self) -> Vec<(Digest, Option<u64>)> {
        let mut left = self.unneeded();
        let mut ordered = Vec::new();
        while !left.is_empty() {
            let is_below = |node: &Node| node.parents.iter().any(|parent| left.contains(parent));
            let nodes = left.iter().filter_map(|id| Some((*id, self.nodes.get(id)?)));
            let mut highest: Vec<(Id, &Node)> = nodes.filter(|(_, node)| !is_below(node)).collect();
            highest.sort_by_key(|(_, node)| &node.digest);
            if highest.is_empty() {
                break;
            }
            for (id, node) in highest {
                left.remove(&id);
                ordered.push((node.digest.clone(), node.size));
            }
        }
        ordered
    }

    /// Everything that only things need which go as well.
    fn unneeded(&self) -> HashSet<Id> {
        let free = self.nodes.iter().filter(|(_, node)| !node.is_needed);
        let mut unneeded: HashSet<Id> = free.map(|(id, _)| *id).collect();
        loop {
            let stays = |id: &Id| {
                let parents = self.nodes.get(id).into_iter().flat_map(|node| &node.parents);
                parents.into_iter().any(|parent| !unneeded.contains(parent))
            };
            let staying: HashSet<Id> = unneeded.iter().copied().filter(stays).collect();
            if staying.is_empty() {
                return unneeded;
            }
            unneeded.retain(|id| !staying.contains(id));
        }
    }
}

impl Table {
    /// Pins that stand in the way.
    pub fn pinned_of(&self, target: &Target) -> Vec<ImageName> {
        let is_meant = |image: &ImageName, held: &Digest| match (target, &image.reference) {
            (Target::Image(meant), Reference::Tag(tag)) => {
                meant == image || target.takes(tag, held)
            }
            (Target::Image(meant), Reference::Digest(_)) => meant == image,
            (Target::Repository(_), _) => true,
            (Target::Untagged(_), _) => false,
        };
        let pins = self.pins().filter(|pin| target.covers(&pin.image.repository));
        pins.filter(|pin| is_meant(&pin.image, &pin.held)).map(|pin| pin.image).collect()
    }

    /// Where the removal of an image begins. `None`: nothing of it is known here.
    pub fn seed_of_image(&self, target: &Target, image: &ImageName) -> Option<Seed> {
        let repository = self.repository(&image.repository)?;
        let digest = match &image.reference {
            Reference::Tag(tag) => {
                self.meaning(&image.repository, &Pointer::Tag(tag.clone()))?.digest
            }
            Reference::Digest(digest) => digest.clone(),
        };
        let id = self.slots.find(&digest).filter(|id| repository.manifests.contains(id))?;
        let mut names = vec![image.clone()];
        names.extend(self.names_taken(target, repository, id).filter(|name| name != image));
        Some(Seed { digest, names })
    }

    /// Where the removal begins among at most `count` names from `place` on, and where to go on looking.
    /// `None`: there are no more.
    pub fn seeds(
        &self,
        target: &Target,
        place: &Cursor,
        count: usize,
    ) -> Option<(Vec<Seed>, Cursor)> {
        let stretch = self.stretch(place, count)?;
        if !target.covers(&stretch.repository.repository) {
            return Some((Vec::new(), place.behind_repository()));
        }
        let seeds = stretch.names.iter().filter_map(|name| match name {
            Name::Pointer(..) => None,
            Name::Manifest(id) | Name::List(id) => self.seed(target, stretch.repository, *id),
        });
        Some((seeds.collect(), stretch.next))
    }

    /// Among the `count` slots from number `from`, files that belong to nothing, and that were shown in
    /// no repository but those concerned. `None`: there are no more slots.
    pub fn lone(&self, target: &Target, from: usize, count: usize) -> Option<Vec<Digest>> {
        let is_lone = |slot: &Slot| match target {
            Target::Image(_) => false,
            Target::Untagged(Place::Everywhere) => true,
            Target::Repository(_) | Target::Untagged(_) => {
                let mut shown =
                    slot.edges.repositories().iter().filter_map(|id| self.repository_at(*id));
                !slot.edges.repositories().is_empty()
                    && shown.all(|slot| target.covers(&slot.repository))
            }
        };
        (from < self.slots.end()).then(|| {
            let slots = self.slots.range(from, count).filter(|(_, slot)| slot.present);
            let lone = slots.filter(|(id, slot)| is_lone(slot) && self.nothing_needs(*id, slot));
            lone.map(|(_, slot)| slot.digest.clone()).collect()
        })
    }

    /// Adds to the plan what begins at a seed: everything below, and lists about that.
    pub fn survey(&self, target: &Target, seed: &Digest, plan: &mut Plan) {
        let mut level: Vec<Id> = self.slots.find(seed).into_iter().collect();
        while !level.is_empty() {
            let fresh = self.ids_below(level).into_iter();
            let fresh: Vec<Id> = fresh.filter(|id| !plan.nodes.contains_key(id)).collect();
            for id in &fresh {
                plan.nodes.extend(self.node(target, *id).map(|node| (*id, node)));
            }
            level = fresh.iter().flat_map(|id| self.lists_about(target, *id)).collect();
        }
    }

    /// Takes the names of an image away: the tags that mean it, or the one tag, and what says that it
    /// may be asked for by digest, unless it is still content of the repository.
    pub fn drop_image(&mut self, target: &Target, image: &ImageName) {
        let Some(place) = self.repository_ids.get(&image.repository).copied() else {
            return;
        };
        let Some(seed) = self.seed_of_image(target, image) else {
            return;
        };
        for name in seed.names {
            if let Reference::Tag(tag) = name.reference {
                self.drop_pointer(&image.repository, &Pointer::Tag(tag));
            }
        }
        let Some(id) = self.slots.find(&seed.digest) else {
            return;
        };
        let has_tag = self.repository_at(place).is_some_and(|slot| slot.has_tag(id));
        if !has_tag && self.lister(&image.repository, &seed.digest).is_none() {
            self.disown(place, id);
        }
    }

    /// An image of the repository that lists a manifest.
    pub fn lister(&self, repository: &Repository, digest: &Digest) -> Option<ImageName> {
        let place = self.repository(repository)?;
        let parents = self.slots.of(digest)?.edges.parents();
        let lister = parents.iter().find(|id| place.manifests.contains(id))?;
        let tag = place.pointers_to(*lister).find_map(Pointer::tag);
        let reference = match tag {
            Some(tag) => Reference::Tag(tag.clone()),
            None => return Some(place.by_digest(&self.slots.get(*lister)?.digest)),
        };
        Some(ImageName { repository: repository.clone(), reference })
    }

    /// The repositories that are concerned no longer show these.
    pub fn drop_digests(&mut self, target: &Target, digests: &[Digest]) {
        for id in digests.iter().filter_map(|digest| self.slots.find(digest)).collect::<Vec<_>>() {
            let shown = self.slots.get(id).map(|slot| slot.edges.repositories().to_vec());
            for place in shown.unwrap_or_default() {
                let name = self.repository_at(place).map(|slot| &slot.repository);
                if name.is_some_and(|name| target.covers(name)) {
                    self.disown(place, id);
                }
            }
        }
    }

    /// A repository shows a digest no longer.
    pub fn disprove(&mut self, repository: &Repository, digest: &Digest) {
        let place = self.repository_ids.get(repository).copied();
        if let Some((place, id)) = place.zip(self.slots.find(digest)) {
            self.disown(place, id);
        }
    }

    /// A repository shows none of the `count` slots from number `from`. Returns where to go on.
    pub fn drop_all(
        &mut self,
        repository: &Repository,
        from: usize,
        count: usize,
    ) -> Option<usize> {
        let place = self.repository_ids.get(repository).copied()?;
        let ids: Vec<Id> = self.slots.range(from, count).map(|(id, _)| id).collect();
        for id in ids {
            self.disown(place, id);
        }
        self.slots.next(from, count)
    }

    /// Whether nothing needs a digest: no pin, no manifest that lists it, no name.
    pub fn is_loose(&self, digest: &Digest) -> bool {
        let id = self.slots.find(digest);
        let slot = id.and_then(|id| Some((id, self.slots.get(id)?)));
        slot.is_some_and(|(id, slot)| self.nothing_needs(id, slot))
    }

    /// Whether the file of a digest is not here, though something needs it.
    pub fn is_lacking(&self, digest: &Digest) -> bool {
        let id = self.slots.find(digest);
        let slot = id.and_then(|id| Some((id, self.slots.get(id)?)));
        slot.is_some_and(|(id, slot)| !slot.present && !self.nothing_needs(id, slot))
    }

    /// `None`: the removal does not begin there.
    fn seed(&self, target: &Target, repository: &RepositorySlot, id: Id) -> Option<Seed> {
        let slot = self.slots.get(id)?;
        if matches!(target, Target::Untagged(_)) && !self.is_untagged(target, id, slot) {
            return None;
        }
        let mut names: Vec<_> = self.names_taken(target, repository, id).collect();
        let is_image = repository.manifests.contains(&id) && slot.present;
        if names.is_empty() && slot.edges.parents().is_empty() && is_image {
            names.push(repository.by_digest(&slot.digest));
        }
        Some(Seed { digest: slot.digest.clone(), names })
    }

    fn nothing_needs(&self, id: Id, slot: &Slot) -> bool {
        let shows = |place: &RepositoryId| {
            let slot = self.repository_at(*place);
            slot.is_some_and(|slot| slot.manifests.contains(&id) || slot.lists.contains(&id))
        };
        !self.pins.hold(id)
            && slot.edges.parents().is_empty()
            && !slot.edges.repositories().iter().any(shows)
    }

    /// Whether no manifest lists it and no name needs it, but that it was asked for by digest.
    fn is_untagged(&self, target: &Target, id: Id, slot: &Slot) -> bool {
        slot.edges.parents().is_empty()
            && self.node(target, id).is_some_and(|node| !node.is_needed && node.parents.is_empty())
    }

    fn node(&self, target: &Target, id: Id) -> Option<Node> {
        let slot = self.slots.get(id)?;
        let mut node = Node {
            digest: slot.digest.clone(),
            size: slot.present.then_some(slot.size),
            parents: slot.edges.parents().to_vec(),
            is_needed: self.pins.hold(id),
        };
        for place in slot.edges.repositories().iter().filter_map(|place| self.repository_at(*place))
        {
            if !target.covers(&place.repository) {
                node.is_needed |= place.manifests.contains(&id) || place.lists.contains(&id);
                continue;
            }
            if slot.manifest.is_none() || matches!(target, Target::Repository(_)) {
                continue;
            }
            for pointer in place.pointers_to(id) {
                match pointer {
                    Pointer::Tag(tag) => node.is_needed |= !target.takes(tag, &slot.digest),
                    Pointer::Referrers(subject) => match self.slots.find(subject) {
                        Some(subject) => node.parents.push(subject),
                        None => node.is_needed = true,
                    },
                }
            }
        }
        Some(node)
    }

    fn lists_about(&self, target: &Target, id: Id) -> Vec<Id> {
        let Some(slot) = self.slots.get(id).filter(|slot| slot.manifest.is_some()) else {
            return Vec::new();
        };
        let about = Pointer::Referrers(slot.digest.clone().into());
        let places =
            slot.edges.repositories().iter().filter_map(|place| self.repository_at(*place));
        let places = places.filter(|place| target.covers(&place.repository));
        places.filter_map(|place| place.meaning_of(&about)).collect()
    }

    /// Tags of the repository that mean a manifest, and that the removal takes away.
    fn names_taken<'a>(
        &'a self,
        target: &'a Target,
        repository: &'a RepositorySlot,
        id: Id,
    ) -> impl Iterator<Item = ImageName> + 'a {
        let digest = self.slots.get(id).map(|slot| &slot.digest);
        let tags = repository.pointers_to(id).filter_map(Pointer::tag);
        let taken = tags.filter(move |tag| digest.is_some_and(|digest| target.takes(tag, digest)));
        taken.map(|tag| ImageName {
            repository: repository.repository.clone(),
            reference: Reference::Tag(tag.clone()),
        })
    }

    /// A repository shows a digest no longer, nor anything that was said there to refer to it.
    fn disown(&mut self, place: RepositoryId, id: Id) {
        let Some(slot) = self.slots.get_mut(id) else {
            return;
        };
        if !slot.edges.remove_repository(place) {
            return;
        }
        let digest = slot.digest.clone();
        self.drop_names(place, id, &digest);
        self.changes.unproved.push((place, digest));
        self.release_if_idle(id);
    }
}
