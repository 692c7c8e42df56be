//! Manifests: which content a manifest needs, and which manifests are refused.

use serde::Deserialize;

use super::{Descriptor, Digest, OCI_INDEX, OCI_MANIFEST, is_manifest_type};

/// The largest manifest that is accepted, in bytes (distribution-spec asks for at least 4 MiB).
pub const MAX_MANIFEST_BYTES: u64 = 4 * 1024 * 1024;

/// How many indexes may stand above a manifest.
pub const MAX_NESTING: u32 = 4;

/// The most entries a manifest may list.
const MAX_CHILDREN: usize = 10_000;

/// What is known of a manifest after parsing it. The bytes themselves are kept elsewhere,
/// verbatim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// The type it is served with: the body's own `mediaType`, or else upstream's Content-Type.
    pub media_type: String,
    /// What it lists.
    pub children: Children,
}

/// What a manifest lists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Children {
    /// An index: other manifests, one for each platform.
    Index(Vec<Descriptor>),
    /// An image or another artefact: a config and layers.
    Image {
        /// The config blob.
        config: Descriptor,
        /// The layers, base first.
        layers: Vec<Descriptor>,
    },
}

/// Why a manifest is not accepted, in words for the client.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RefusedManifest {
    /// The bytes are no manifest.
    #[error("upstream sent no valid manifest: {0}")]
    Malformed(String),
    /// Docker schema 1, obsolete since 2017: its digest is not that of its bytes.
    #[error("schema 1 manifests are not supported: push the image again with a current client")]
    Schema1,
    /// Readers would disagree on what it is (CVE-2021-41190).
    #[error("ambiguous manifest: it has both 'manifests' and 'layers' or 'config'")]
    Ambiguous,
    /// The body calls itself something else than the header does.
    #[error("the manifest's mediaType is {body}, its Content-Type is {header}")]
    TypeMismatch {
        /// The `mediaType` in the body.
        body: String,
        /// The Content-Type upstream sent.
        header: String,
    },
    /// Too many entries.
    #[error("the manifest lists more than {MAX_CHILDREN} entries")]
    TooManyChildren,
    /// Index within index, too deep.
    #[error("the manifest is nested more than {MAX_NESTING} indexes deep")]
    TooDeep,
}

impl Manifest {
    /// Parses `bytes` that came with `content_type` (without parameters; `None` when there was
    /// none, or when a file on disk is read).
    ///
    /// # Errors
    /// When the manifest is one of those that are refused.
    pub fn parse(bytes: &[u8], content_type: Option<&str>) -> Result<Manifest, RefusedManifest> {
        let raw: Raw = serde_json::from_slice(bytes)
            .map_err(|error| RefusedManifest::Malformed(error.to_string()))?;
        raw.refuse_schema_1(content_type)?;
        let media_type = raw.media_type(content_type)?;
        let children = raw.children()?;
        Ok(Manifest { media_type, children })
    }
}

impl Children {
    /// Whether this is no index.
    pub fn is_image(&self) -> bool {
        matches!(self, Children::Image { .. })
    }

    /// Every descriptor that the manifest lists.
    pub fn descriptors(&self) -> impl Iterator<Item = &Descriptor> {
        let (manifests, config, layers) = match self {
            Children::Index(manifests) => (manifests.as_slice(), None, [].as_slice()),
            Children::Image { config, layers } => ([].as_slice(), Some(config), layers.as_slice()),
        };
        manifests.iter().chain(config).chain(layers)
    }

    /// The layers, base first; an index has none.
    pub fn layers(&self) -> &[Descriptor] {
        match self {
            Children::Index(_) => &[],
            Children::Image { layers, .. } => layers,
        }
    }

    /// The digests of [`Children::descriptors`].
    pub fn digests(&self) -> impl Iterator<Item = &Digest> {
        self.descriptors().map(|descriptor| &descriptor.digest)
    }
}

/// A manifest as written. Fields whose mere presence decides are kept as raw JSON.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Raw {
    schema_version: u64,
    media_type: Option<String>,
    manifests: Option<Vec<Descriptor>>,
    config: Option<Descriptor>,
    layers: Option<Vec<Descriptor>>,
}

impl Raw {
    fn refuse_schema_1(&self, content_type: Option<&str>) -> Result<(), RefusedManifest> {
        let types = [content_type, self.media_type.as_deref()];
        if self.schema_version == 1 || types.into_iter().flatten().any(is_schema_1_type) {
            return Err(RefusedManifest::Schema1);
        }
        if self.schema_version != 2 {
            let version = self.schema_version;
            return Err(RefusedManifest::Malformed(format!("schemaVersion is {version}, not 2")));
        }
        Ok(())
    }

    /// The body's type must be the header's. A header that names no manifest type at all
    /// (S3 and static file servers say `binary/octet-stream`) yields to the body.
    fn media_type(&self, header: Option<&str>) -> Result<String, RefusedManifest> {
        let header = header.filter(|header| is_manifest_type(header));
        match (&self.media_type, header) {
            (Some(body), Some(header)) if body != header => {
                Err(RefusedManifest::TypeMismatch { body: body.clone(), header: header.to_owned() })
            }
            (Some(body), _) => Ok(body.clone()),
            (None, Some(header)) => Ok(header.to_owned()),
            (None, None) if self.manifests.is_some() => Ok(OCI_INDEX.to_owned()),
            (None, None) => Ok(OCI_MANIFEST.to_owned()),
        }
    }

    fn children(self) -> Result<Children, RefusedManifest> {
        let children = match (self.manifests, self.config, self.layers) {
            (Some(manifests), None, None) => Children::Index(manifests),
            // `layers` is required, and yet there are images without, which registries took.
            (None, Some(config), layers) => {
                Children::Image { config, layers: layers.unwrap_or_default() }
            }
            (Some(_), _, _) => return Err(RefusedManifest::Ambiguous),
            (None, None, _) => {
                let message = "neither 'manifests' nor 'config'".to_owned();
                return Err(RefusedManifest::Malformed(message));
            }
        };
        if children.descriptors().count() > MAX_CHILDREN {
            return Err(RefusedManifest::TooManyChildren);
        }
        Ok(children)
    }
}

fn is_schema_1_type(media_type: &str) -> bool {
    media_type.contains("docker") && media_type.contains("manifest.v1+")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::{DOCKER_LIST, DOCKER_MANIFEST};

    fn descriptor() -> String {
        format!(r#"{{"mediaType":"x","digest":"sha256:{}","size":1}}"#, "0".repeat(64))
    }

    fn parse(json: &str, content_type: Option<&str>) -> Result<Manifest, RefusedManifest> {
        Manifest::parse(json.as_bytes(), content_type)
    }

    #[test]
    fn an_image_lists_its_config_and_layers() {
        let one = descriptor();
        let json = format!(r#"{{"schemaVersion":2,"config":{one},"layers":[{one},{one}]}}"#);
        let manifest = parse(&json, Some(DOCKER_MANIFEST)).unwrap();
        assert_eq!(manifest.media_type, DOCKER_MANIFEST);
        assert_eq!(manifest.children.descriptors().count(), 3);
    }

    #[test]
    fn a_type_that_names_no_manifest_yields_to_the_body() {
        let json = format!(r#"{{"schemaVersion":2,"mediaType":"{DOCKER_LIST}","manifests":[]}}"#);
        assert_eq!(parse(&json, Some("binary/octet-stream")).unwrap().media_type, DOCKER_LIST);
        assert_eq!(
            parse(r#"{"schemaVersion":2,"manifests":[]}"#, None).unwrap().media_type,
            OCI_INDEX
        );
    }

    #[test]
    fn what_readers_would_disagree_on_is_refused() {
        let one = descriptor();
        let both = format!(r#"{{"schemaVersion":2,"manifests":[],"layers":[{one}]}}"#);
        assert_eq!(parse(&both, None), Err(RefusedManifest::Ambiguous));
        let typed = format!(r#"{{"schemaVersion":2,"mediaType":"{OCI_INDEX}","manifests":[]}}"#);
        assert!(matches!(
            parse(&typed, Some(OCI_MANIFEST)),
            Err(RefusedManifest::TypeMismatch { .. })
        ));
    }

    #[test]
    fn schema_1_is_refused_by_body_and_by_type() {
        let prettyjws = "application/vnd.docker.distribution.manifest.v1+prettyjws";
        assert_eq!(
            parse(r#"{"schemaVersion":1,"fsLayers":[]}"#, None),
            Err(RefusedManifest::Schema1)
        );
        assert_eq!(
            parse(r#"{"schemaVersion":2,"manifests":[]}"#, Some(prettyjws)),
            Err(RefusedManifest::Schema1)
        );
        let typed = format!(r#"{{"schemaVersion":2,"mediaType":"{prettyjws}","manifests":[]}}"#);
        assert_eq!(parse(&typed, None), Err(RefusedManifest::Schema1));
    }

    #[test]
    fn more_than_ten_thousand_children_are_refused() {
        let many = vec![descriptor(); 10_001].join(",");
        let json = format!(r#"{{"schemaVersion":2,"manifests":[{many}]}}"#);
        assert_eq!(parse(&json, None), Err(RefusedManifest::TooManyChildren));
    }

    #[test]
    fn what_is_no_manifest_is_refused() {
        for json in [
            "",
            "<html>",
            "{}",
            "[]",
            r#"{"schemaVersion":2}"#,
            r#"{"schemaVersion":3,"manifests":[]}"#,
        ] {
            assert!(matches!(parse(json, None), Err(RefusedManifest::Malformed(_))), "{json}");
        }
    }
}
