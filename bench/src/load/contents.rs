//! What a root holds, as `data` writes it down and everybody else reads it.
//!
//! ```text
//! contents.json          every image with its digests and sizes
//! blobs/sha256/<hex>     manifests, configs and layers
//! ```

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::Failure;

/// The media type of every manifest here.
pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// `contents.json`.
#[derive(Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Contents {
    /// Images of one large blob and a manifest of some 400 bytes.
    pub blobs: Vec<Image>,
    /// The image that an engine pulls.
    pub image: Image,
    /// Small images that many nodes pull.
    pub many: Vec<Image>,
}

/// An image, named by one tag.
#[derive(Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Image {
    pub name: String,
    pub tag: String,
    pub manifest: Blob,
    pub config: Blob,
    pub layers: Vec<Blob>,
}

/// Bytes by their digest.
#[derive(Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Blob {
    /// `sha256:<hex>`.
    pub digest: String,
    /// In bytes.
    pub size: u64,
}

impl Contents {
    /// Reads what `data` wrote.
    pub fn read(root: &Path) -> Result<Contents, Failure> {
        let path = root.join("contents.json");
        let text = fs::read(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(serde_json::from_slice(&text)?)
    }

    /// Writes it where [`Contents::read`] looks.
    pub fn write(&self, root: &Path) -> Result<(), Failure> {
        Ok(fs::write(root.join("contents.json"), serde_json::to_vec_pretty(self)?)?)
    }

    /// Every image there is.
    pub fn images(&self) -> impl Iterator<Item = &Image> {
        self.blobs.iter().chain([&self.image]).chain(&self.many)
    }
}

/// Where a blob lies. `None`: that is no sha256 digest.
pub fn path(root: &Path, digest: &str) -> Option<PathBuf> {
    let hex = digest.strip_prefix("sha256:")?;
    let valid = hex.len() == 64 && hex.bytes().all(|byte| byte.is_ascii_hexdigit());
    valid.then(|| root.join("blobs/sha256").join(hex))
}
