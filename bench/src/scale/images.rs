//! The images of the synthetic store, by arithmetic: small files with right digests.
//!
//! For each image there are ten blobs and one tag: its manifest, its config, seven layers of its
//! own and nine tenths of a shared one, and a tenth of an index over two images. Twenty images
//! make a repository.

use larder::oci::{Algorithm, Digest, Repository, Tag};

use crate::Failure;

/// The registries, none of which exists.
pub const REGISTRIES: [&str; 3] = ["one.test", "two.test", "three.test"];

const OWN_LAYERS: u32 = 7;
const SHARED_LAYERS: u32 = 3;
const PER_REPOSITORY: u32 = 20;
const IMAGE: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// How many there are.
#[derive(Clone, Copy, Debug)]
pub struct Images(u32);

/// A manifest and what it lists.
pub struct Manifest {
    /// Where it belongs.
    pub repository: Repository,
    /// Its bytes.
    pub json: String,
    /// Its name.
    pub digest: Digest,
    /// What it lists that is no manifest.
    pub blobs: Vec<Digest>,
    /// Tags that mean it. One without any is asked for by digest.
    pub tags: Vec<Tag>,
}

impl Images {
    /// So many images.
    pub fn new(count: u32) -> Result<Images, Failure> {
        if count == 0 || !count.is_multiple_of(100) {
            return Err("the number of images must be a multiple of 100".into());
        }
        Ok(Images(count))
    }

    /// The number of images, and of tags.
    pub fn count(self) -> u32 {
        self.0
    }

    /// The number of indexes over two images each.
    pub fn indexes(self) -> u32 {
        self.0 / 10
    }

    /// The number of layers that several images share.
    pub fn shared_layers(self) -> u32 {
        self.0 / 10 * 9
    }

    /// The number of all files.
    pub fn blobs(self) -> u64 {
        u64::from(self.0) * 10
    }

    /// The number of repositories.
    pub fn repositories(self) -> u32 {
        self.0 / PER_REPOSITORY
    }

    /// The image of this number.
    pub fn image(self, number: u32) -> Manifest {
        let config = Images::config(number);
        let layers = (0..OWN_LAYERS).map(|layer| Images::own_layer(number, layer));
        let shared = (0..SHARED_LAYERS).map(|layer| self.shared_of(number, layer));
        let layers: Vec<String> = layers.chain(shared).collect();
        let listed: Vec<String> =
            layers.iter().map(|text| descriptor("application/x-tar", text)).collect();
        let json = format!(
            r#"{{"schemaVersion":2,"mediaType":"{IMAGE}","config":{},"layers":[{}]}}"#,
            descriptor("application/vnd.oci.image.config.v1+json", &config),
            listed.join(","),
        );
        let contents = std::iter::once(&config).chain(&layers);
        Manifest {
            blobs: contents.map(|text| digest(text)).collect(),
            ..self.manifest(number, json, self.image_tags(number))
        }
    }

    /// The index of this number.
    pub fn index(self, number: u32) -> Manifest {
        let images = [2 * number, 2 * number + 1].map(|image| self.image(image).json);
        let listed = images.map(|json| descriptor(IMAGE, &json)).join(",");
        let json = format!(r#"{{"schemaVersion":2,"mediaType":"{INDEX}","manifests":[{listed}]}}"#);
        self.manifest(2 * number, json, vec![tag(&format!("multi-{number}"))])
    }

    /// What nodes ask for first: the indexes, and the images that are in none.
    pub fn tops(self) -> impl Iterator<Item = Manifest> {
        let alone = self.indexes() * 2..self.0;
        let indexes = (0..self.indexes()).map(move |number| self.index(number));
        indexes.chain(alone.map(move |number| self.image(number)))
    }

    /// The content of an image's config.
    pub fn config(number: u32) -> String {
        format!(r#"{{"architecture":"amd64","os":"linux","image":{number}}}"#)
    }

    /// The contents of the layers that only this image has.
    pub fn own_layers(number: u32) -> impl Iterator<Item = String> {
        (0..OWN_LAYERS).map(move |layer| Images::own_layer(number, layer))
    }

    /// The content of a layer that several images have.
    pub fn shared_layer(number: u32) -> String {
        format!("the shared layer {number}\n")
    }

    fn own_layer(number: u32, layer: u32) -> String {
        format!("layer {layer} of image {number}\n")
    }

    fn shared_of(self, number: u32, layer: u32) -> String {
        Images::shared_layer((number * SHARED_LAYERS + layer) % self.shared_layers())
    }

    fn image_tags(self, number: u32) -> Vec<Tag> {
        let is_listed = number < self.indexes() * 2;
        let is_latest = number >= self.0 - self.indexes();
        let mut tags = Vec::new();
        tags.extend((!is_listed).then(|| tag(&format!("v{number}"))));
        tags.extend(is_latest.then(|| tag(&format!("latest-{number}"))));
        tags
    }

    fn manifest(self, image: u32, json: String, tags: Vec<Tag>) -> Manifest {
        let repository = image / PER_REPOSITORY;
        let registry = REGISTRIES[repository as usize % REGISTRIES.len()];
        let repository = format!("{registry}/team-{}/app-{repository}", repository % 50);
        let repository = repository.parse().expect("a name as the grammar has it");
        Manifest { repository, digest: digest(&json), json, blobs: Vec::new(), tags }
    }
}

/// The digest of a content.
pub fn digest(content: &str) -> Digest {
    Digest::of(Algorithm::Sha256, content.as_bytes())
}

fn tag(text: &str) -> Tag {
    text.parse().expect("a tag as the grammar has it")
}

fn descriptor(media_type: &str, content: &str) -> String {
    let (digest, size) = (digest(content), content.len());
    format!(r#"{{"mediaType":"{media_type}","digest":"{digest}","size":{size}}}"#)
}
