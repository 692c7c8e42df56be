//! `index.json`: what is here, by name, for other tools and for a rebuilt index.
//!
//! With `oci-layout` and `blobs/` it makes the data directory an OCI image layout (image-spec,
//! image-layout.md) at all times. One descriptor for each tag of a repository, one for each
//! manifest that was asked for by digest, and one, without a name that tools would take for an
//! image's, for each list of referrers.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, BufReader, Write as _},
    time::{Duration, Instant, SystemTime},
};

use serde::Deserialize;

use super::{
    directory::Directory,
    memory::Memory,
    running::Moment,
    table::{LayoutEntry, Pointer, PointerRow, Proof, Table},
};
use crate::oci::{Descriptor, OCI_INDEX, Reference, Repository};

/// The name, as the OCI image layout has it.
const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// The full name, as containerd reads it.
const IMAGE_NAME: &str = "io.containerd.image.name";
/// The manifest whose referrers an index lists, by its full name.
const REFERRERS_OF: &str = "io.larder.referrers-of";
/// When upstream last confirmed a tag or a list of referrers (RFC 3339).
const CHECKED_AT: &str = "io.larder.checked-at";

/// The file that says what the directory is.
const MARKER: &[u8] = br#"{"imageLayoutVersion":"1.0.0"}"#;

/// A write that took `t` is followed by this many `t` of rest: 2 % of the time is spent writing.
const REST: u32 = 49;

/// The least rest after a write.
const LEAST_REST: Duration = Duration::from_millis(500);

/// The one that writes `index.json` while Larder runs. Owned by a thread of its own.
#[derive(Debug)]
pub struct LayoutKeeper {
    directory: Directory,
    memory: Memory,
    rest_until: Option<Instant>,
    failing: bool,
}

#[derive(Deserialize)]
struct Written {
    manifests: Vec<serde_json::Value>,
}

impl LayoutKeeper {
    /// Keeps the file up to date with the table.
    pub fn new(directory: Directory, memory: Memory) -> LayoutKeeper {
        LayoutKeeper { directory, memory, rest_until: None, failing: false }
    }

    /// Writes the file if it is out of date and the rest is over. Blocking.
    pub fn keep_up(&mut self) {
        let begun = Instant::now();
        if self.rest_until.is_some_and(|until| begun < until) {
            return;
        }
        self.write_changes();
        self.rest_until = Some(Instant::now() + LEAST_REST.max(begun.elapsed() * REST));
    }

    /// Writes the file if it is out of date.
    pub fn finish(mut self) {
        self.write_changes();
    }

    fn write_changes(&mut self) {
        if !self.memory.with(Table::take_layout_change) {
            return;
        }
        match write(&self.directory, &self.memory) {
            Ok(()) => self.failing = false,
            Err(error) => {
                self.memory.with(Table::mark_layout);
                if !self.failing {
                    tracing::warn!(%error, "cannot write index.json");
                }
                self.failing = true;
            }
        }
    }
}

/// Writes `oci-layout`, if need be. Blocking.
pub fn write_marker(directory: &Directory) -> io::Result<()> {
    let path = directory.layout_marker();
    if fs::read(&path).is_ok_and(|text| text == MARKER) {
        return Ok(());
    }
    directory.replace(&path, |file| file.write_all(MARKER))
}

/// Writes `index.json`. Blocking; the table is locked for one repository at a time.
pub fn write(directory: &Directory, memory: &Memory) -> io::Result<()> {
    directory.replace(&directory.layout_index(), |file| {
        write!(file, r#"{{"schemaVersion":2,"mediaType":"{OCI_INDEX}","manifests":["#)?;
        let mut separator = "";
        let entries = |number| memory.with(|table| table.layout_entries(number));
        for entry in (0..).map_while(entries).flatten() {
            writeln!(file, "{separator}")?;
            serde_json::to_writer(&mut *file, &descriptor(&entry))?;
            separator = ",";
        }
        file.write_all(b"\n]}\n")
    })
}

/// Adds to the table what `index.json` says. A damaged file is set aside. Tells whether a whole
/// one was there. Blocking.
pub fn read(directory: &Directory, table: &mut Table, now: Moment) -> io::Result<bool> {
    let path = directory.layout_index();
    let file = match File::open(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        file => file?,
    };
    let written: Written = match serde_json::from_reader(BufReader::new(file)) {
        Ok(written) => written,
        Err(error) => {
            let aside = path.with_extension("json.damaged");
            tracing::warn!(%error, aside = %aside.display(), "index.json is damaged and set aside");
            fs::rename(path, aside)?;
            return Ok(false);
        }
    };
    for descriptor in written.manifests {
        if let Ok(descriptor) = serde_json::from_value::<Descriptor>(descriptor) {
            restore(&descriptor, table, now);
        }
    }
    Ok(true)
}

fn descriptor(entry: &LayoutEntry) -> Descriptor {
    let repository = &entry.repository;
    let image = |name: String| {
        BTreeMap::from([(IMAGE_NAME.to_owned(), name.clone()), (REF_NAME.to_owned(), name)])
    };
    let mut annotations = match &entry.pointer {
        Some((Pointer::Tag(tag), _)) => image(format!("{repository}:{tag}")),
        None => image(format!("{repository}@{}", entry.digest)),
        Some((Pointer::Referrers(subject), _)) => {
            BTreeMap::from([(REFERRERS_OF.to_owned(), format!("{repository}@{subject}"))])
        }
    };
    if let Some((_, checked_at)) = &entry.pointer {
        let checked_at = humantime::format_rfc3339_nanos((*checked_at).max(SystemTime::UNIX_EPOCH));
        annotations.insert(CHECKED_AT.to_owned(), checked_at.to_string());
    }
    Descriptor {
        media_type: entry.media_type.to_string(),
        artifact_type: None,
        digest: entry.digest.clone(),
        size: entry.size,
        urls: Vec::new(),
        annotations,
    }
}

/// Descriptors of other tools, which have no full name, are left out.
fn restore(descriptor: &Descriptor, table: &mut Table, now: Moment) {
    let Some((repository, pointer)) = named(descriptor) else {
        return;
    };
    let digest = &descriptor.digest;
    if table.size(digest).is_none() {
        table.expect_manifest(digest, descriptor.size, &descriptor.media_type, now);
    }
    let Some(pointer) = pointer else {
        return table.prove(&repository, digest, Proof::Manifest, now);
    };
    let checked_at = descriptor.annotations.get(CHECKED_AT);
    let checked_at = checked_at.and_then(|text| humantime::parse_rfc3339(text).ok());
    let row = PointerRow {
        digest: digest.clone(),
        checked_at: checked_at.unwrap_or(SystemTime::UNIX_EPOCH),
    };
    table.restore_pointer(&repository, &pointer, &row, now);
}

/// What a descriptor is of, and which question it answers. `None` there: one by its own digest.
fn named(descriptor: &Descriptor) -> Option<(Repository, Option<Pointer>)> {
    let annotation = |key| descriptor.annotations.get(key);
    if let Some(subject) = annotation(REFERRERS_OF) {
        return match parse_name(subject)? {
            (repository, Reference::Digest(of)) => Some((repository, Some(Pointer::Referrers(of)))),
            (_, Reference::Tag(_)) => None,
        };
    }
    match parse_name(annotation(REF_NAME)?)? {
        (repository, Reference::Tag(tag)) => Some((repository, Some(Pointer::Tag(tag)))),
        (repository, Reference::Digest(_)) => Some((repository, None)),
    }
}

fn parse_name(name: &str) -> Option<(Repository, Reference)> {
    if let Some((repository, digest)) = name.split_once('@') {
        let digest = Reference::Digest(digest.parse().ok()?);
        return Some((repository.parse().ok()?, digest));
    }
    let (repository, tag) = name.rsplit_once(':')?;
    Some((repository.parse().ok()?, Reference::Tag(tag.parse().ok()?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_written() {
        let digest = format!("sha256:{}", "a".repeat(64));
        let (repository, reference) = parse_name("localhost:5000/a/b:v1").unwrap();
        assert_eq!(repository.to_string(), "localhost:5000/a/b");
        assert_eq!(reference.to_string(), "v1");
        let (repository, reference) = parse_name(&format!("ghcr.io/a@{digest}")).unwrap();
        assert_eq!(repository.to_string(), "ghcr.io/a");
        assert_eq!(reference.to_string(), digest);
        for foreign in ["latest", "localhost:5000/a", "a b:c", ""] {
            assert!(parse_name(foreign).is_none(), "{foreign}");
        }
    }
}
