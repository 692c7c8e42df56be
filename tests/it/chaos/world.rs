//! What the upstreams hold, and what a pull of it has to bring.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use larder::oci::Digest;

use crate::support::{FakeRegistry, Image, Index, Random, random_bytes, sha256};

/// Where images are, by turns.
pub const REPOSITORIES: [Repository; 6] = [
    Repository { registry: "docker.io", name: "library/web" },
    Repository { registry: "registry.corp", name: "team/app" },
    Repository { registry: "docker.io", name: "library/db" },
    Repository { registry: "registry.corp", name: "tool" },
    Repository { registry: "docker.io", name: "someone/thing" },
    Repository { registry: "registry.corp", name: "team/deep/er" },
];

/// The tag that moves.
const LATEST: &str = "latest";

/// So many images are there from the begin; the others appear one after the other.
const AT_FIRST: usize = 20;

/// By when all have appeared, as a part of the whole time.
const ALL_HERE: f64 = 0.75;

/// A repository of a registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Repository {
    pub registry: &'static str,
    pub name: &'static str,
}

/// Something to pull.
#[derive(Clone, Debug)]
pub struct Tagged {
    pub repository: Repository,
    pub tag: String,
}

/// All images.
pub struct World {
    images: Vec<Published>,
    /// Manifests and blobs.
    contents: HashMap<Digest, Bytes>,
    /// What `latest` of each repository meant so far, the present meaning last.
    latest: Mutex<HashMap<Repository, Vec<Digest>>>,
}

struct Published {
    tagged: Tagged,
    root: Root,
}

enum Root {
    Image(Image),
    Index(Index),
}

impl World {
    /// So many images with one to six layers, a third of those shared with others.
    pub fn new(seed: u64, images: usize) -> World {
        let mut random = Random::new(seed);
        let mut layers = Vec::new();
        let publish = |number| Published {
            tagged: Tagged { repository: repository_of(number), tag: format!("v{number}") },
            root: root(&mut random, &mut layers),
        };
        let images: Vec<Published> = (0..images).map(publish).collect();
        let contents = images.iter().flat_map(|image| image.root.contents());
        let contents = contents.map(|bytes| (sha256(bytes), bytes.clone())).collect();
        let first = |(repository, image): (_, &Published)| (repository, vec![image.root.digest()]);
        let latest = REPOSITORIES.into_iter().zip(&images).map(first).collect();
        World { images, contents, latest: Mutex::new(latest) }
    }

    /// Puts all images of these repositories into a fake.
    pub fn put_into(&self, fake: &FakeRegistry, holds: impl Fn(Repository) -> bool) {
        for (number, Published { tagged, root }) in self.images.iter().enumerate() {
            let Tagged { repository, tag } = tagged;
            if !holds(*repository) {
                continue;
            }
            match root {
                Root::Image(image) => fake.put_image(repository.name, tag, image),
                Root::Index(index) => fake.put_index(repository.name, tag, index),
            }
            if number < REPOSITORIES.len() {
                fake.put_tag(repository.name, LATEST, &root.digest());
            }
        }
    }

    /// Lets `latest` of some repository mean another of the images that have appeared.
    pub fn move_latest(&self, random: &mut Random, passed: f64, fakes: &[&FakeRegistry]) {
        let image = &self.images[random.index(self.appeared(passed))];
        let (repository, digest) = (image.tagged.repository, image.root.digest());
        self.latest().get_mut(&repository).unwrap().push(digest.clone());
        for fake in fakes {
            fake.put_tag(repository.name, LATEST, &digest);
        }
    }

    /// Something to pull when this part of the whole time has passed: often one of the newest.
    pub fn pick(&self, random: &mut Random, passed: f64) -> Tagged {
        let appeared = self.appeared(passed);
        let newest = appeared - random.index(AT_FIRST) - 1;
        let any = random.index(appeared);
        let tagged = &self.images[if random.below(2) == 0 { newest } else { any }].tagged;
        if random.below(6) > 0 {
            return tagged.clone();
        }
        Tagged { tag: LATEST.to_owned(), ..tagged.clone() }
    }

    /// Each image by its own tag.
    pub fn all(&self) -> impl Iterator<Item = Tagged> {
        self.images.iter().map(|image| image.tagged.clone())
    }

    /// Whether the tag means this, or has meant it.
    pub fn is(&self, tagged: &Tagged, digest: &Digest) -> bool {
        if tagged.tag == LATEST {
            return self.latest()[&tagged.repository].contains(digest);
        }
        let is_tagged = |image: &&Published| image.tagged.tag == tagged.tag;
        self.images.iter().find(is_tagged).unwrap().root.digest() == *digest
    }

    /// The manifest or blob with this digest.
    ///
    /// # Panics
    /// When there never was one.
    pub fn content(&self, digest: &Digest) -> &Bytes {
        &self.contents[digest]
    }

    fn appeared(&self, passed: f64) -> usize {
        let appeared = self.images.len() as f64 * passed / ALL_HERE;
        (appeared as usize).clamp(AT_FIRST, self.images.len())
    }

    fn latest(&self) -> MutexGuard<'_, HashMap<Repository, Vec<Digest>>> {
        self.latest.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Root {
    fn digest(&self) -> Digest {
        match self {
            Root::Image(image) => image.digest(),
            Root::Index(index) => index.digest(),
        }
    }

    fn contents(&self) -> Vec<&Bytes> {
        fn of_image(image: &Image) -> impl Iterator<Item = &Bytes> {
            std::iter::once(&image.manifest).chain(image.blobs())
        }
        match self {
            Root::Image(image) => of_image(image).collect(),
            Root::Index(index) => {
                let images = index.images.iter().flat_map(of_image);
                images.chain([&index.manifest]).collect()
            }
        }
    }
}

fn repository_of(number: usize) -> Repository {
    REPOSITORIES[number % REPOSITORIES.len()]
}

fn root(random: &mut Random, layers: &mut Vec<Bytes>) -> Root {
    if random.below(3) > 0 {
        return Root::Image(image(random, layers));
    }
    let platforms = 2 + random.below(2);
    Root::Index(Index::of((0..platforms).map(|_| image(random, layers)).collect()))
}

fn image(random: &mut Random, layers: &mut Vec<Bytes>) -> Image {
    let count = 1 + random.below(6);
    let layer = |_| {
        if !layers.is_empty() && random.below(3) == 0 {
            return layers[random.index(layers.len())].clone();
        }
        let size = size(random);
        let layer = random_bytes(random.next(), size);
        layers.push(layer.clone());
        layer
    };
    let layers = (0..count).map(layer).collect();
    Image::with_layers(random.next(), layers)
}

/// Most layers are small, few are several MiB, and some are empty.
fn size(random: &mut Random) -> usize {
    match random.below(20) {
        0 => 0,
        1 | 2 => 1 + random.index(1024),
        3..=12 => 1024 + random.index(99 * 1024),
        13..=18 => 100 * 1024 + random.index(1400 * 1024),
        _ => 2 * 1024 * 1024 + random.index(6 * 1024 * 1024),
    }
}
