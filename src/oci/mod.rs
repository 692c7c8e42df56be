//! The nouns of the OCI specifications, as types that are built only by parsing. Pure: no I/O.

mod descriptor;
mod digest;
mod image_name;
mod manifest;
mod name;
mod platform;
mod referrers;
mod visibility;

pub use descriptor::Descriptor;
pub use digest::{Algorithm, Digest, Hasher, InvalidDigest};
pub use image_name::ImageName;
pub use manifest::{Children, MAX_MANIFEST_BYTES, MAX_NESTING, Manifest, RefusedManifest};
pub use name::{InvalidName, Name, Reference, Registry, Repository, Tag};
pub use platform::Platform;
pub use referrers::Referrers;
pub use visibility::Visibility;

/// Media type of an OCI image manifest (image-spec, manifest.md).
pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// Media type of an OCI image index (image-spec, image-index.md).
pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// Media type of a Docker image manifest, version 2 schema 2.
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
/// Media type of a Docker manifest list.
pub const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";

/// Whether this is the type of a manifest that clients pull, and nothing more general.
pub fn is_manifest_type(media_type: &str) -> bool {
    [OCI_MANIFEST, OCI_INDEX, DOCKER_MANIFEST, DOCKER_LIST].contains(&media_type)
}
