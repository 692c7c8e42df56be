//! Platforms: what an image runs on, as an index (image-spec, image-index.md) or the image's own config
//! (config.md) says. It is for people to read: what is missing or odd is left out, never refused.

use std::fmt;

use serde::Deserialize;

/// What an image runs on. Shown as `linux/arm64/v8`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Platform {
    os: String,
    architecture: String,
    variant: Option<String>,
}

#[derive(Deserialize)]
struct Index {
    manifests: Vec<Entry>,
}

#[derive(Deserialize)]
struct Entry {
    platform: Option<Platform>,
}

impl Platform {
    /// The platform that an image's config states.
    pub fn of_config(config: &[u8]) -> Option<Platform> {
        serde_json::from_slice(config).ok()
    }

    /// The platform of each entry of an index, in order. Empty when they cannot be read.
    pub fn of_entries(index: &[u8]) -> Vec<Option<Platform>> {
        let index: Option<Index> = serde_json::from_slice(index).ok();
        let entries = index.into_iter().flat_map(|index| index.manifests);
        entries.map(|entry| entry.platform).collect()
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        match self.variant.as_deref() {
            Some("") | None => Ok(()),
            Some(variant) => write!(f, "/{variant}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn platforms_are_read_where_they_are_stated() {
        let shown = |platform: Option<Platform>| platform.map(|platform| platform.to_string());
        let config = |text: &str| shown(Platform::of_config(text.as_bytes()));
        let arm = r#"{"os": "linux", "architecture": "arm64", "variant": "v8", "rootfs": {}}"#;
        assert_eq!(config(arm).as_deref(), Some("linux/arm64/v8"));
        let plain = r#"{"architecture": "amd64", "os": "windows", "variant": ""}"#;
        assert_eq!(config(plain).as_deref(), Some("windows/amd64"));
        assert_eq!(config("{}"), None);
        assert_eq!(config("no JSON"), None);

        let index = format!(r#"{{"manifests": [{{"platform": {arm}}}, {{"size": 1}}]}}"#);
        let entries: Vec<_> =
            Platform::of_entries(index.as_bytes()).into_iter().map(shown).collect();
        assert_eq!(entries, [Some("linux/arm64/v8".to_owned()), None]);
        assert!(Platform::of_entries(b"[]").is_empty());
    }
}
