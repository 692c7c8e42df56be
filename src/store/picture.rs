//! A picture of all that is kept: which digest lists which, what has a name, and how large everything is
//! together. Taken in bounded steps, so that nothing waits for it; what changes meanwhile may be in it or
//! not.

use super::{
    Shared,
    memory::{Memory, STEP},
    running::Moment,
    table::{Id, Kind, Named},
};

/// Everything that is kept, and its names.
#[derive(Debug)]
pub struct Picture {
    nodes: Vec<Node>,
    /// Those of a repository are together, its tags before what has no tag.
    pub names: Vec<Named>,
}

/// What is known of a digest.
#[derive(Clone, Debug, Default)]
struct Node {
    size: Option<u64>,
    last_use: Moment,
    kind: Option<Kind>,
    children: Box<[Id]>,
}

/// Some names that are looked at as one.
#[derive(Clone, Debug, Default)]
pub struct Group {
    /// What they mean.
    pub roots: Vec<Id>,
    /// How many others there are that are just the same; at least one.
    pub alike: u32,
}

/// How large something is with all that is below it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Extent {
    /// Bytes in the files.
    pub bytes: u64,
    /// Those of them that nothing else needs.
    pub unique_bytes: u64,
}

/// The extent of each group, and by how many a digest is needed.
#[derive(Debug)]
pub struct Extents {
    pub groups: Vec<Extent>,
    users: Vec<u32>,
}

/// Which nodes this walk has seen.
struct Marks {
    seen: Vec<u32>,
    walk: u32,
}

impl Shared {
    /// Blocking.
    pub fn picture(&self) -> Picture {
        let nodes = nodes(&self.memory);
        let names = self.memory.names(|table, place| table.named(place, STEP)).collect();
        Picture { nodes, names }
    }
}

impl Picture {
    /// When a digest was last used.
    pub fn last_use(&self, id: Id) -> Moment {
        self.node(id).map_or_else(Moment::default, |node| node.last_use)
    }

    /// What an index lists; nothing of anything else.
    pub fn entries(&self, id: Id) -> &[Id] {
        match self.node(id) {
            Some(Node { kind: Some(Kind::Index), children, .. }) => children,
            Some(_) | None => &[],
        }
    }

    /// The extent of each group among all of them. Looks at each node once for each group that needs it.
    pub fn extents(&self, groups: &[Group]) -> Extents {
        let mut marks = Marks { seen: vec![0; self.nodes.len()], walk: 0 };
        let mut users = vec![0u32; self.nodes.len()];
        for group in groups {
            self.walk(group, &mut marks, |place, _| {
                if let Some(users) = users.get_mut(place) {
                    *users = users.saturating_add(group.alike);
                }
            });
        }
        let mut extent = |group: &Group| {
            let mut extent = Extent::default();
            self.walk(group, &mut marks, |place, size| {
                extent.bytes = extent.bytes.saturating_add(size);
                if users.get(place) == Some(&1) {
                    extent.unique_bytes = extent.unique_bytes.saturating_add(size);
                }
            });
            extent
        };
        Extents { groups: groups.iter().map(&mut extent).collect(), users }
    }

    /// The size of each file, with the number of groups that need it.
    pub fn files<'a>(&'a self, extents: &'a Extents) -> impl Iterator<Item = (u64, u32)> + 'a {
        let nodes = self.nodes.iter().zip(&extents.users);
        nodes.filter_map(|(node, users)| Some((node.size?, *users)))
    }

    /// Visits all that is at and below the roots once, each with its size. The walk goes through what
    /// is not here: what it lists is needed as soon as it is here again.
    fn walk(&self, group: &Group, marks: &mut Marks, mut visit: impl FnMut(usize, u64)) {
        marks.walk = marks.walk.wrapping_add(1);
        let mut left = group.roots.clone();
        while let Some(id) = left.pop() {
            let Some((node, seen)) = self.node(id).zip(marks.seen.get_mut(id.index())) else {
                continue;
            };
            if *seen == marks.walk {
                continue;
            }
            *seen = marks.walk;
            visit(id.index(), node.size.unwrap_or(0));
            left.extend_from_slice(&node.children);
        }
    }

    fn node(&self, id: Id) -> Option<&Node> {
        self.nodes.get(id.index())
    }
}

fn nodes(memory: &Memory) -> Vec<Node> {
    let mut nodes = Vec::new();
    let step = |from| memory.look(|table| table.links(from, STEP));
    for link in (0..).step_by(STEP).map_while(step).flatten() {
        let place = link.id.index();
        if nodes.len() <= place {
            nodes.resize(place.saturating_add(1), Node::default());
        }
        if let Some(node) = nodes.get_mut(place) {
            let super::table::Link { size, last_use, kind, children, .. } = link;
            *node = Node { size, last_use, kind, children };
        }
    }
    nodes
}
