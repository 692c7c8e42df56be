//! `index.json`: what is here, by name, for other tools and for a rebuilt index.
//!
//! With `oci-layout` and `blobs/` it makes the data directory an OCI image layout (image-spec,
//! image-layout.md) at all times. One descriptor for each tag of a repository, one for each
//! manifest that was asked for by digest, and one, without a name that tools would take for an
//! image's, for each list of referrers. What is pinned stands in an annotation of the whole: a pin
//! outlives the descriptors, which are only of what is here.

mod written;

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Write as _},
    iter,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use super::{
    directory::{Directory, Lock},
    health::Health,
    memory::{Memory, STEP},
    running::Moment,
    table::{LayoutEntry, PinRow, Pointer, PointerRow, Proof, Table},
};
use crate::oci::{Descriptor, Digest, ImageName, OCI_INDEX, Reference, Repository};

/// The name, as the OCI image layout has it.
const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// The full name, as containerd reads it.
const IMAGE_NAME: &str = "io.containerd.image.name";
/// The manifest whose referrers an index lists, by its full name.
const REFERRERS_OF: &str = "io.larder.referrers-of";
/// When upstream last confirmed a tag or a list of referrers (RFC 3339).
const CHECKED_AT: &str = "io.larder.checked-at";

/// What is pinned, in an annotation of the index itself: full names, each with the digest that it
/// holds behind an `@`, with spaces between.
const PINNED: &str = "io.larder.pinned";

/// The file that says what the directory is.
const MARKER: &[u8] = br#"{"imageLayoutVersion":"1.0.0"}"#;

/// A write that took `t` is followed by this many `t` of rest: 2 % of the time is spent writing.
const REST: u32 = 49;

/// As [`REST`], while there is no file at all.
const REST_WITHOUT_FILE: u32 = 1;

/// The least rest after a write.
const LEAST_REST: Duration = Duration::from_millis(500);

/// Writes `index.json` from the table, one write after the other; clones share it.
#[derive(Clone, Debug)]
pub struct Layout {
    directory: Directory,
    memory: Memory,
    lock: Arc<Lock>,
    health: Health,
    gate: Arc<Gate>,
}

#[derive(Debug, Default)]
struct Gate {
    /// Held by the one that writes. Whether the file may be written: not before it is known which
    /// of the manifests that are remembered have lost their file in a crash.
    allowed: Mutex<bool>,
    opened: Condvar,
}

/// The one that writes `index.json` while Larder runs. Owned by a thread of its own.
#[derive(Debug)]
pub struct LayoutKeeper {
    layout: Layout,
    /// When the last write ended, and how long it took.
    last_write: Option<(Instant, Duration)>,
}

impl Layout {
    /// Of `directory`, which is locked by `lock`, with what `memory` knows.
    pub fn new(directory: Directory, memory: Memory, lock: Arc<Lock>, health: Health) -> Layout {
        Layout { directory, memory, lock, health, gate: Arc::default() }
    }

    /// The table agrees with `blobs/`: from now on the file may be written.
    pub fn allow(&self) {
        *self.gate() = true;
        self.gate.opened.notify_all();
    }

    /// Whether [`Layout::allow`] was called.
    pub fn is_allowed(&self) -> bool {
        *self.gate()
    }

    /// Makes the directory an image layout from the beginning: with nothing named, where there is no
    /// `index.json`. Blocking.
    pub fn begin(&self, named: bool) -> io::Result<()> {
        self.write_marker()?;
        if !named {
            self.memory.with(Table::mark_layout);
            write(&self.directory, iter::empty(), &self.pins())?;
        }
        Ok(())
    }

    /// Writes `oci-layout`, if need be. Blocking.
    pub fn write_marker(&self) -> io::Result<()> {
        let path = self.directory.layout_marker();
        if fs::read(&path).is_ok_and(|text| text == MARKER) {
            return Ok(());
        }
        self.directory.replace(&path, |file| file.write_all(MARKER))
    }

    /// Writes the file as of now, or of a moment during the call, once it is allowed. What fails is
    /// tried again by the keeper. Blocking; the table is looked at in steps.
    pub fn write(&self) -> io::Result<()> {
        self.write_within(self.gate())
    }

    /// As [`Layout::write`], if the file is out of date. A write under way is waited for: what it has
    /// taken up is not on the disk before its end.
    fn write_changes(&self) -> io::Result<()> {
        let gate = self.gate();
        if !self.memory.look(|table| table.layout_has_changed()) {
            return Ok(());
        }
        self.write_within(gate)
    }

    fn write_within(&self, gate: MutexGuard<'_, bool>) -> io::Result<()> {
        let opened = self.gate.opened.wait_while(gate, |allowed| !*allowed);
        let _gate = opened.unwrap_or_else(PoisonError::into_inner);
        self.memory.with(Table::take_layout_change);
        let written = self.write_all();
        written.inspect_err(|error| {
            self.memory.with(Table::mark_layout);
            self.health.suspect(error);
            tracing::debug!(%error, "cannot write index.json");
        })
    }

    fn write_all(&self) -> io::Result<()> {
        if !self.lock.is_in_place() {
            let moved = "where the data directory was, there may be another's now";
            return Err(io::Error::new(io::ErrorKind::NotFound, moved));
        }
        let entries = self.memory.names(|table, place| table.layout_entries(place, STEP));
        write(&self.directory, entries, &self.pins())
    }

    fn pins(&self) -> Vec<String> {
        self.memory.look(|table| table.pins().map(|row| pin(&row)).collect())
    }

    fn gate(&self) -> MutexGuard<'_, bool> {
        self.gate.allowed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl LayoutKeeper {
    /// Keeps the file up to date with the table.
    pub fn new(layout: Layout) -> LayoutKeeper {
        LayoutKeeper { layout, last_write: None }
    }

    /// Writes the file if it is out of date and the rest is over. Blocking.
    pub fn keep_up(&mut self) {
        if self.rests() || !self.layout.is_allowed() {
            return;
        }
        let begun = Instant::now();
        // What fails is tried again.
        let _ = self.layout.write_changes();
        self.last_write = Some((Instant::now(), begun.elapsed()));
    }

    /// A slow disk makes a rest long. Where the file has gone meanwhile, other tools wait for it.
    fn rests(&self) -> bool {
        let Some((ended, took)) = self.last_write else {
            return false;
        };
        let is_there = self.layout.directory.layout_index().exists();
        let rest = took * if is_there { REST } else { REST_WITHOUT_FILE };
        ended.elapsed() < LEAST_REST.max(rest)
    }

    /// Writes the file if it is out of date, without a rest. Tells whether it is up to date then.
    pub fn write_now(&mut self) -> bool {
        self.layout.write_changes().is_ok()
    }

    /// Writes the file if it is out of date. Tells whether it is up to date then.
    pub fn finish(mut self) -> bool {
        self.write_now()
    }
}

/// The digests that `index.json` names. Blocking.
pub fn listed(directory: &Directory) -> io::Result<Vec<Digest>> {
    let file = File::open(directory.layout_index())?;
    let mut digests = Vec::new();
    written::read(file, &mut |descriptor| digests.push(descriptor.digest))?;
    Ok(digests)
}

/// Adds to the table what `index.json` says. A damaged file is set aside, after what could be read
/// of it was added. Tells whether a whole one was there. Blocking.
pub fn read(directory: &Directory, table: &mut Table, now: Moment) -> io::Result<bool> {
    let path = directory.layout_index();
    let file = match File::open(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        file => file?,
    };
    let annotations = match written::read(file, &mut |named| restore(&named, table, now)) {
        Ok(annotations) => annotations,
        Err(error) => {
            let aside = path.with_extension("json.damaged");
            tracing::warn!(%error, aside = %aside.display(), "index.json is damaged and set aside");
            fs::rename(path, aside)?;
            return Ok(false);
        }
    };
    let pinned = annotations.get(PINNED).and_then(serde_json::Value::as_str);
    for row in pinned.into_iter().flat_map(str::split_whitespace).filter_map(read_pin) {
        table.restore_pin(&row, now);
    }
    Ok(true)
}

fn write(
    directory: &Directory,
    entries: impl Iterator<Item = LayoutEntry>,
    pins: &[String],
) -> io::Result<()> {
    directory.replace(&directory.layout_index(), |file| {
        write!(file, r#"{{"schemaVersion":2,"mediaType":"{OCI_INDEX}","manifests":["#)?;
        let mut separator = "";
        for entry in entries {
            writeln!(file, "{separator}")?;
            serde_json::to_writer(&mut *file, &descriptor(&entry))?;
            separator = ",";
        }
        file.write_all(b"\n]")?;
        if !pins.is_empty() {
            let annotations = BTreeMap::from([(PINNED, pins.join(" "))]);
            file.write_all(b",\"annotations\":")?;
            serde_json::to_writer(&mut *file, &annotations)?;
        }
        file.write_all(b"}\n")
    })
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
        let ImageName { repository, reference } = subject.parse().ok()?;
        return match reference {
            Reference::Digest(of) => Some((repository, Some(Pointer::Referrers(of.into())))),
            Reference::Tag(_) => None,
        };
    }
    let ImageName { repository, reference } = annotation(REF_NAME)?.parse().ok()?;
    match reference {
        Reference::Tag(tag) => Some((repository, Some(Pointer::Tag(tag)))),
        Reference::Digest(_) => Some((repository, None)),
    }
}

/// The name of what is pinned by digest says already what it holds.
fn pin(row: &PinRow) -> String {
    match &row.image.reference {
        Reference::Tag(_) => format!("{}@{}", row.image, row.held),
        Reference::Digest(_) => row.image.to_string(),
    }
}

/// Reads [`pin`].
fn read_pin(text: &str) -> Option<PinRow> {
    let (name, held) = text.rsplit_once('@')?;
    let held = held.parse().ok()?;
    let image = name.parse().or_else(|_| text.parse()).ok()?;
    Some(PinRow { image, held })
}

#[cfg(test)]
mod tests {
    use std::{os::unix::fs::MetadataExt as _, sync::mpsc, thread};

    use tempfile::TempDir;

    use super::*;
    use crate::metrics::Metrics;

    fn layout(data_dir: &TempDir) -> Layout {
        let metrics = Arc::new(Metrics::new());
        let (directory, lock) = Directory::open(data_dir.path()).unwrap();
        let memory = Memory::new(Table::default(), Arc::clone(&metrics));
        let layout = Layout::new(directory, memory, Arc::new(lock), Health::new(metrics));
        layout.allow();
        layout
    }

    #[test]
    fn a_file_that_is_gone_is_written_though_the_last_write_took_long() {
        let data_dir = tempfile::tempdir().unwrap();
        let layout = layout(&data_dir);
        let path = layout.directory.layout_index();
        layout.begin(false).unwrap();
        let before = fs::metadata(&path).unwrap();
        let ended = Instant::now().checked_sub(Duration::from_secs(2)).unwrap();
        let last_write = Some((ended, Duration::from_secs(1)));
        let mut keeper = LayoutKeeper { layout, last_write };
        keeper.keep_up();
        assert_eq!(fs::metadata(&path).unwrap().ino(), before.ino(), "it rests");
        fs::remove_file(&path).unwrap();
        keeper.keep_up();
        assert!(path.exists());
    }

    /// Who asks whether all is written is not told so while it is only being written.
    #[test]
    fn a_write_under_way_is_waited_for() {
        let data_dir = tempfile::tempdir().unwrap();
        let layout = layout(&data_dir);
        let under_way = layout.gate();
        let mut keeper = LayoutKeeper::new(layout.clone());
        let (sender, written) = mpsc::channel();
        let asking = thread::spawn(move || sender.send(keeper.write_now()));
        assert!(written.recv_timeout(Duration::from_millis(50)).is_err());
        drop(under_way);
        assert!(written.recv().unwrap());
        asking.join().unwrap().unwrap();
    }

    #[test]
    fn pins_are_read_as_they_are_written() {
        let digest = format!("sha256:{}", "a".repeat(64));
        for image in ["localhost:5000/a/b:v1".to_owned(), format!("localhost:5000/a@{digest}")] {
            let row = PinRow { image: image.parse().unwrap(), held: digest.parse().unwrap() };
            assert_eq!(read_pin(&pin(&row)), Some(row));
        }
        for bad in ["", "@", "ghcr.io/a:v1", "ghcr.io/a:v1@", "ghcr.io/a:v1@sha256:1", "a b@c"] {
            assert_eq!(read_pin(bad), None, "{bad}");
        }
    }
}
