//! Lists of referrers (distribution-spec, § Listing referrers): indexes that a registry makes of the
//! manifests whose `subject` is the one that is asked about.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{Descriptor, OCI_INDEX};

/// What refers to a manifest. Each entry is kept to the byte, with all that its author noted.
#[derive(Debug, Default)]
pub struct Referrers {
    entries: Vec<Box<RawValue>>,
}

/// A list as registries write it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Written {
    schema_version: u64,
    media_type: Option<String>,
    /// Some write `null` for an empty list, but none leaves it out.
    #[serde(deserialize_with = "Option::deserialize")]
    manifests: Option<Vec<Box<RawValue>>>,
}

/// A list as the specification has it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Document<'a> {
    schema_version: u64,
    media_type: &'static str,
    manifests: &'a [Box<RawValue>],
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    artifact_type: Option<String>,
}

impl Referrers {
    /// Parses a list, or a page of one, and tells whether it has the form of the specification.
    /// `None`: it is no index.
    pub fn parse(bytes: &[u8]) -> Option<(Referrers, bool)> {
        let written: Written = serde_json::from_slice(bytes).ok()?;
        let is_well_formed =
            written.media_type.as_deref() == Some(OCI_INDEX) && written.manifests.is_some();
        let entries = written.manifests.unwrap_or_default();
        let is_descriptor =
            |entry: &RawValue| serde_json::from_str::<Descriptor>(entry.get()).is_ok();
        let is_index =
            written.schema_version == 2 && entries.iter().all(|entry| is_descriptor(entry));
        is_index.then_some((Referrers { entries }, is_well_formed))
    }

    /// Adds the entries of the next page.
    pub fn append(&mut self, mut page: Referrers) {
        self.entries.append(&mut page.entries);
    }

    /// Leaves only what is of this `artifactType`.
    pub fn retain(&mut self, artifact_type: &str) {
        let type_of = |entry: &RawValue| serde_json::from_str::<Entry>(entry.get()).ok();
        self.entries.retain(|entry| {
            let of = type_of(entry).and_then(|entry| entry.artifact_type);
            of.as_deref() == Some(artifact_type)
        });
    }

    /// The index.
    pub fn to_json(&self) -> Vec<u8> {
        let document =
            Document { schema_version: 2, media_type: OCI_INDEX, manifests: &self.entries };
        // Text that was parsed as JSON can be written as JSON.
        serde_json::to_vec(&document).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(artifact_type: &str) -> String {
        let digest = "0".repeat(64);
        format!(
            r#"{{"x":1.50, "artifactType":"{artifact_type}","mediaType":"m","digest":"sha256:{digest}","size":1}}"#
        )
    }

    #[test]
    fn entries_are_filtered_and_joined_to_the_byte() {
        let (a, b) = (entry("a/a"), entry("b/b+json"));
        let page = |entries: &str| {
            let list = format!(r#"{{ "schemaVersion":2, "manifests":[{entries}] }}"#);
            Referrers::parse(list.as_bytes()).unwrap().0
        };
        let list = |entries: &str| {
            format!(r#"{{"schemaVersion":2,"mediaType":"{OCI_INDEX}","manifests":[{entries}]}}"#)
        };
        let mut referrers = page(&a);
        referrers.append(page(&format!("{b} , {a}")));
        assert_eq!(referrers.to_json(), list(&format!("{a},{b},{a}")).as_bytes());
        referrers.retain("b/b+json");
        assert_eq!(referrers.to_json(), list(&b).as_bytes());
        referrers.retain("b/b");
        assert_eq!(referrers.to_json(), list("").as_bytes());
    }

    #[test]
    fn what_is_no_index_is_none() {
        let typed =
            |rest: &str| format!(r#"{{"schemaVersion":2,"mediaType":"{OCI_INDEX}"{rest}}}"#);
        for (text, is_well_formed) in [
            (typed(r#","manifests":[]"#), Some(true)),
            (typed(r#","manifests":null"#), Some(false)),
            (typed(""), None),
            (r#"{"schemaVersion":2,"manifests":[]}"#.to_owned(), Some(false)),
            (r#"{"schemaVersion":1,"manifests":[]}"#.to_owned(), None),
            (typed(r#","manifests":[{}]"#), None),
            (typed(r#","manifests":{}"#), None),
            ("<html>".to_owned(), None),
            ("[]".to_owned(), None),
            (String::new(), None),
        ] {
            let parsed = Referrers::parse(text.as_bytes());
            assert_eq!(parsed.map(|(_, is_well_formed)| is_well_formed), is_well_formed, "{text}");
        }
    }
}
