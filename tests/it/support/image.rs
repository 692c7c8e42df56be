//! Images made of random layers.

use bytes::Bytes;
use larder::oci::{Digest, OCI_INDEX, OCI_MANIFEST};
use serde_json::{Value, json};

use super::content::{random_bytes, sha256};

const CONFIG_TYPE: &str = "application/vnd.oci.image.config.v1+json";
const LAYER_TYPE: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// An image for one platform.
#[derive(Clone, Debug)]
pub struct Image {
    /// The manifest, as a registry serves it.
    pub manifest: Bytes,
    /// The config blob.
    pub config: Bytes,
    /// The layers, base first.
    pub layers: Vec<Bytes>,
}

/// One image for several platforms.
#[derive(Clone, Debug)]
pub struct Index {
    /// The index, as a registry serves it.
    pub manifest: Bytes,
    /// Its images, in order.
    pub images: Vec<Image>,
}

impl Image {
    /// An image with two layers of 20,000 and 30,000 bytes.
    pub fn random(seed: u64) -> Image {
        let layers =
            [20_000, 30_000].map(|size| random_bytes(seed.wrapping_add(size), size as usize));
        Image::with_layers(seed, layers.to_vec())
    }

    /// An image with these layers and a config of its own.
    pub fn with_layers(seed: u64, layers: Vec<Bytes>) -> Image {
        let config = json!({ "architecture": "amd64", "os": "linux", "author": seed.to_string() });
        let config = to_bytes(&config);
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": descriptor(CONFIG_TYPE, &config),
            "layers": layers.iter().map(|layer| descriptor(LAYER_TYPE, layer)).collect::<Vec<_>>(),
        });
        Image { manifest: to_bytes(&manifest), config, layers }
    }

    /// The manifest's digest.
    pub fn digest(&self) -> Digest {
        sha256(&self.manifest)
    }

    /// The config and the layers: all that is served as blobs.
    pub fn blobs(&self) -> impl Iterator<Item = &Bytes> {
        std::iter::once(&self.config).chain(&self.layers)
    }
}

impl Index {
    /// An index of `images`, each for a platform of its own.
    pub fn of(images: Vec<Image>) -> Index {
        let manifests: Vec<Value> = images
            .iter()
            .zip(["amd64", "arm64", "riscv64", "s390x"])
            .map(|(image, architecture)| {
                let mut entry = descriptor(OCI_MANIFEST, &image.manifest);
                entry["platform"] = json!({ "architecture": architecture, "os": "linux" });
                entry
            })
            .collect();
        let manifest =
            json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": manifests });
        Index { manifest: to_bytes(&manifest), images }
    }

    /// The text of an index that lists one and the same index or image `times` over.
    pub fn repeating(manifest: &Bytes, times: usize) -> Bytes {
        let manifests = vec![descriptor(OCI_INDEX, manifest); times];
        to_bytes(&json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": manifests }))
    }

    /// The index's digest.
    pub fn digest(&self) -> Digest {
        sha256(&self.manifest)
    }
}

fn descriptor(media_type: &str, content: &Bytes) -> Value {
    json!({ "mediaType": media_type, "digest": sha256(content), "size": content.len() })
}

fn to_bytes(value: &Value) -> Bytes {
    serde_json::to_vec(value).unwrap().into()
}
