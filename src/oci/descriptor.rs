//! Descriptors (image-spec, descriptor.md): what a manifest says of each thing it lists.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};

use super::Digest;

/// A pointer from one piece of content to another. `null` is read as what is not there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// The type of the content pointed to.
    #[serde(default, deserialize_with = "or_nothing")]
    pub media_type: String,
    /// What an artifact is, where the content pointed to is one and no image.
    #[serde(default, deserialize_with = "or_nothing", skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// Its name.
    pub digest: Digest,
    /// Its size in bytes, as the manifest's author says: a hint, never stored as the blob's own.
    pub size: u64,
    /// Where else the content may be had. A layer with `urls` need not be in the registry.
    #[serde(default, deserialize_with = "or_nothing", skip_serializing_if = "Vec::is_empty")]
    pub urls: Vec<String>,
    /// Free notes, such as `vnd.docker.reference.type`.
    #[serde(default, deserialize_with = "or_nothing", skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

impl Descriptor {
    /// Whether this entry of an index is an artifact, or BuildKit's attestation of another entry,
    /// and no image.
    pub fn is_attached(&self) -> bool {
        self.artifact_type.is_some() || self.annotations.contains_key("vnd.docker.reference.type")
    }

    /// Whether this is `{}`, the config of what has none (image-spec, § Guidance for an empty
    /// descriptor), which hardly any client asks for.
    pub fn is_empty_object(&self) -> bool {
        self.size == 2 && self.digest == Digest::of(self.digest.algorithm(), b"{}")
    }
}

fn or_nothing<'de, D, T>(value: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Ok(Option::deserialize(value)?.unwrap_or_default())
}
