//! What is kept, image by image.

use std::{
    collections::{HashMap, HashSet},
    fmt, io,
    sync::Arc,
    time::{Duration, SystemTime},
};

use super::{
    Shared, Store, blocking,
    picture::{Extent, Group, Picture},
    table::{Id, KnownBy, Named, PinRow},
};
use crate::{
    config::{RepositoryRules, Rules},
    oci::{Digest, Repository, Tag},
};

/// A manifest that is here and that clients know by a tag, or by its digest alone.
///
/// A manifest without a tag is an image of its own unless an index of the same repository lists it that
/// clients know as well: then it is one platform of that.
#[derive(Clone, Debug)]
pub struct Image {
    /// Where upstream showed it.
    pub repository: Repository,
    /// `None`: clients ask for it by digest, or by a tag that meant it once.
    pub tag: Option<Tag>,
    /// The manifest.
    pub digest: Digest,
    /// Its type.
    pub media_type: Arc<str>,
    /// Bytes on disk, of the manifest and of all below it.
    pub size: u64,
    /// Those of them that no other image needs.
    pub unique_size: u64,
    /// When upstream last confirmed the tag.
    pub checked_at: Option<SystemTime>,
    /// How long nobody used it, in running time.
    pub unused: Duration,
    /// Why it never leaves. `None`: it may.
    pub pinned: Option<PinnedBy>,
}

/// What makes an image stay, however long nobody uses it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PinnedBy {
    /// A pin of its name, or of another in its repository that means the same.
    Command,
    /// The rule that is about its name.
    Rule,
}

/// All that pins.
struct Pinning {
    held: HashSet<(Repository, Digest)>,
    rules: Rules,
}

impl Store {
    /// All images, in no order. Takes a look at everything that is kept, from memory.
    ///
    /// # Errors
    /// When the threads for such work are gone: at the very end.
    pub async fn images(&self) -> io::Result<Vec<Image>> {
        let store = Arc::clone(&self.0);
        blocking(move || store.images()).await
    }
}

/// As in commands: `docker.io/library/nginx:latest`, or with the digest where there is no tag.
impl fmt::Display for Image {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.tag {
            Some(tag) => write!(f, "{}:{}", self.repository, tag.as_str()),
            None => write!(f, "{}@{}", self.repository, self.digest),
        }
    }
}

impl Shared {
    fn images(&self) -> Vec<Image> {
        let now = self.running.now();
        let picture = self.picture();
        let names = listed(&picture);
        let extents = extents(&picture, &names);
        let pinned = self.pinning().of(&names);
        let image = |(named, pinned): (Named, Option<PinnedBy>)| {
            let extent = extents.get(&named.id).copied().unwrap_or_default();
            let (tag, checked_at) = match named.known_by {
                KnownBy::Tag(tag, checked_at) => (Some(tag), Some(checked_at)),
                KnownBy::Digest | KnownBy::Referrers => (None, None),
            };
            Image {
                repository: named.repository,
                tag,
                digest: named.digest,
                media_type: named.media_type,
                size: extent.bytes,
                unique_size: extent.unique_bytes,
                checked_at,
                unused: now.since(picture.last_use(named.id)),
                pinned,
            }
        };
        names.into_iter().zip(pinned).map(image).collect()
    }

    fn pinning(&self) -> Pinning {
        let pins = self.memory.look(|table| table.pins().collect::<Vec<PinRow>>());
        let held = pins.into_iter().map(|row| (row.image.repository, row.held));
        Pinning { held: held.collect(), rules: self.memory.look(|table| table.rules()) }
    }
}

impl Pinning {
    /// What pins each. Those of a repository are together.
    fn of(&self, names: &[Named]) -> Vec<Option<PinnedBy>> {
        let mut pinned = Vec::with_capacity(names.len());
        for of_one in names.chunk_by(|one, next| one.repository == next.repository) {
            let rules = of_one.first().map(|named| self.rules.of(&named.repository));
            let rules = rules.unwrap_or_default();
            pinned.extend(of_one.iter().map(|named| self.by(named, &rules)));
        }
        pinned
    }

    fn by(&self, named: &Named, rules: &RepositoryRules) -> Option<PinnedBy> {
        let content = (named.repository.clone(), named.digest.clone());
        if self.held.contains(&content) {
            return Some(PinnedBy::Command);
        }
        let rule = match &named.known_by {
            KnownBy::Tag(tag, _) => rules.of_tag(tag),
            KnownBy::Digest | KnownBy::Referrers => rules.of_digests(),
        };
        rule.is_some_and(|rule| rule.pin).then_some(PinnedBy::Rule)
    }
}

/// The names that are images.
pub(super) fn listed(picture: &Picture) -> Vec<Named> {
    let mut listed = Vec::new();
    for of_one in picture.names.chunk_by(|one, next| one.repository == next.repository) {
        let mut elsewhere: HashSet<Id> = HashSet::new();
        for named in of_one {
            match named.known_by {
                KnownBy::Tag(..) => drop(elsewhere.insert(named.id)),
                KnownBy::Digest => elsewhere.extend(picture.entries(named.id)),
                KnownBy::Referrers => {}
            }
        }
        let is_image = |named: &&Named| match named.known_by {
            KnownBy::Tag(..) => true,
            KnownBy::Digest => !elsewhere.contains(&named.id),
            KnownBy::Referrers => false,
        };
        listed.extend(of_one.iter().filter(is_image).cloned());
    }
    listed
}

/// The extent of what each name means. Two names of one manifest need it both.
fn extents(picture: &Picture, names: &[Named]) -> HashMap<Id, Extent> {
    let mut alike: HashMap<Id, u32> = HashMap::new();
    for named in names {
        let number = alike.entry(named.id).or_default();
        *number = number.saturating_add(1);
    }
    let (ids, groups): (Vec<Id>, Vec<Group>) =
        alike.into_iter().map(|(id, alike)| (id, Group { roots: vec![id], alike })).unzip();
    ids.into_iter().zip(picture.extents(&groups).groups).collect()
}
