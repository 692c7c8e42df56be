//! What upstream has, by the paths it is asked for with.

use std::{fs, path::Path};

use serde::Deserialize;

use crate::Failure;

/// The part of `contents.json` that rows ask for by name.
#[derive(Deserialize)]
pub struct Contents {
    /// Each of one large blob.
    blobs: Vec<Image>,
    /// What an engine pulls.
    image: Image,
}

/// An image with one tag.
#[derive(Deserialize)]
pub struct Image {
    name: String,
    tag: String,
    manifest: Blob,
    config: Blob,
    layers: Vec<Blob>,
}

#[derive(Deserialize)]
struct Blob {
    digest: String,
}

impl Contents {
    /// Reads what `load data` wrote.
    pub fn read(root: &Path) -> Result<Contents, Failure> {
        let contents: Contents = serde_json::from_slice(&fs::read(root.join("contents.json"))?)?;
        let complete = !contents.blobs.is_empty() && !contents.image.layers.is_empty();
        complete.then_some(contents).ok_or_else(|| "there is no blob or no layer".into())
    }

    /// The large blobs, some hundred megabytes each.
    pub fn blobs(&self) -> Vec<String> {
        self.blobs.iter().flat_map(Image::layers).collect()
    }

    /// The first of them.
    pub fn blob(&self) -> String {
        self.blobs[0].layers().swap_remove(0)
    }

    /// The image of that one, whose manifest has some 400 bytes.
    pub fn small(&self) -> &Image {
        &self.blobs[0]
    }

    /// The image of several layers.
    pub fn image(&self) -> &Image {
        &self.image
    }
}

impl Image {
    /// As an engine names it at this host.
    pub fn reference(&self, host: impl std::fmt::Display) -> String {
        format!("{host}/{}:{}", self.name, self.tag)
    }

    /// Its manifest by tag.
    pub fn tagged(&self) -> String {
        format!("/v2/{}/manifests/{}", self.name, self.tag)
    }

    /// Its manifest by digest.
    pub fn digested(&self) -> String {
        format!("/v2/{}/manifests/{}", self.name, self.manifest.digest)
    }

    /// Its config.
    pub fn config(&self) -> String {
        self.blob(&self.config)
    }

    /// Its layers.
    pub fn layers(&self) -> Vec<String> {
        self.layers.iter().map(|layer| self.blob(layer)).collect()
    }

    fn blob(&self, blob: &Blob) -> String {
        format!("/v2/{}/blobs/{}", self.name, blob.digest)
    }
}
