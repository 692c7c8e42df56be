//! A file system as it is, and as it may be found after the power was cut.
//!
//! What is certain is what fsync(2) promises: of a file, its bytes; of a directory, its names. All
//! else that was done since may have reached the disk or not, each part for itself.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fs,
    path::{Path, PathBuf},
};

use super::trace::Operation;
use crate::support::Random;

/// The files and directories below one directory, which itself is certain.
#[derive(Default)]
pub struct Disk {
    files: Vec<File>,
    names: BTreeMap<PathBuf, Node>,
    durable_names: BTreeMap<PathBuf, Node>,
    begun_syncs: HashMap<usize, Sync>,
    /// The last sync of each directory that has ended.
    ended_syncs: HashMap<PathBuf, usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Node {
    Directory,
    File(usize),
}

#[derive(Default)]
struct File {
    bytes: Vec<u8>,
    version: u64,
    durable_bytes: Vec<u8>,
    durable_version: u64,
}

enum Sync {
    File { file: usize, bytes: Vec<u8>, version: u64 },
    Directory { path: PathBuf, names: BTreeMap<PathBuf, Node> },
}

/// Which of the legal states of a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// The process died, the machine did not.
    Killed,
    /// Nothing but what is certain.
    Certain,
    /// All names, of the bytes only what is certain.
    NamesWithoutBytes,
    /// All names and lengths, zeros for the bytes that are not certain.
    NamesAndZeros,
    /// All bytes, of the names only what is certain.
    BytesWithoutNames,
    /// As `NamesAndZeros`, but no name that was certain is gone.
    DeletesUndone,
    /// Each name and each file for itself, as this seed has it.
    Mixed(u64),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Bytes {
    All,
    Certain,
    Zeros,
}

/// One state: which file each name stands for, in which version, with which of its bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct State {
    directories: BTreeSet<PathBuf>,
    files: BTreeMap<PathBuf, Content>,
}

/// What bytes a file has: the same for the same value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Content {
    file: usize,
    bytes: Bytes,
    version: u64,
    length: usize,
}

impl Disk {
    /// Does what the process did.
    pub fn apply(&mut self, operation: &Operation) {
        match operation {
            Operation::MakeDirectory(path) => {
                self.names.insert(path.clone(), Node::Directory);
            }
            Operation::Create { path, truncate } => {
                let file = self.find_or_create(path);
                if *truncate {
                    self.change(file, Vec::clear);
                }
            }
            Operation::Write { path, offset, bytes } => {
                let end = offset + bytes.len();
                let file = self.file(path);
                self.change(file, |content| {
                    content.resize(content.len().max(end), 0);
                    content[*offset..end].copy_from_slice(bytes);
                });
            }
            Operation::SetLength { path, length } => {
                let file = self.file(path);
                self.change(file, |content| content.resize(*length, 0));
            }
            Operation::Rename { from, to } => {
                let node = self.names.remove(from);
                let node = node.unwrap_or_else(|| panic!("{} is nowhere", from.display()));
                assert_ne!(node, Node::Directory, "{} is renamed", from.display());
                self.names.insert(to.clone(), node);
            }
            Operation::Remove(path) => {
                let node = self.names.remove(path);
                assert!(node.is_some(), "{} is nowhere", path.display());
            }
            Operation::SyncBegins { path, number } => {
                let sync = self.begin_sync(path);
                self.begun_syncs.insert(*number, sync);
            }
            Operation::SyncEnds { number } => self.end_sync(*number),
        }
    }

    /// The names that are there whatever happens, until they are removed.
    pub fn promised(&self) -> impl Iterator<Item = &Path> {
        let is_promised = |(path, node): &(&PathBuf, &Node)| {
            self.durable_names.get(*path) == Some(node) && self.has_certain_parents(path)
        };
        self.names.iter().filter(is_promised).map(|(path, _)| path.as_path())
    }

    /// What may be found now.
    pub fn state(&self, cut: Cut) -> State {
        let (mut random, both) =
            (Random::new(0), self.names.keys().chain(self.durable_names.keys()));
        if let Cut::Mixed(seed) = cut {
            random = Random::new(seed);
        }
        let mut state = State::default();
        let paths: BTreeSet<&PathBuf> = both.collect();
        for path in paths {
            if path.parent().is_some_and(|parent| !state.has_directory(parent)) {
                continue;
            }
            match self.node(path, cut, &mut random) {
                None => {}
                Some(Node::Directory) => {
                    state.directories.insert(path.clone());
                }
                Some(Node::File(file)) => {
                    let content = self.content(file, cut, &mut random);
                    state.files.insert(path.clone(), content);
                }
            }
        }
        state
    }

    /// Writes a state below `target`, with `change` applied to each file.
    pub fn write(&self, state: &State, target: &Path, change: impl Fn(&Path, Vec<u8>) -> Vec<u8>) {
        for directory in &state.directories {
            fs::create_dir_all(target.join(directory)).unwrap();
        }
        for (path, content) in &state.files {
            let file = &self.files[content.file];
            let mut bytes = match content.bytes {
                Bytes::All => file.bytes.clone(),
                Bytes::Certain | Bytes::Zeros => file.durable_bytes.clone(),
            };
            bytes.resize(content.length, 0);
            fs::write(target.join(path), change(path, bytes)).unwrap();
        }
    }

    fn node(&self, path: &Path, cut: Cut, random: &mut Random) -> Option<Node> {
        let (now, certain) = (self.names.get(path), self.durable_names.get(path));
        let node = match cut {
            Cut::Killed | Cut::NamesWithoutBytes | Cut::NamesAndZeros => now,
            Cut::Certain | Cut::BytesWithoutNames => certain,
            Cut::DeletesUndone => now.or(certain),
            Cut::Mixed(_) if now == certain || random.below(2) == 0 => now,
            Cut::Mixed(_) => certain,
        };
        node.copied()
    }

    fn content(&self, number: usize, cut: Cut, random: &mut Random) -> Content {
        let file = &self.files[number];
        let bytes = match cut {
            _ if file.version == file.durable_version => Bytes::All,
            Cut::Killed | Cut::BytesWithoutNames => Bytes::All,
            Cut::Certain | Cut::NamesWithoutBytes => Bytes::Certain,
            Cut::NamesAndZeros | Cut::DeletesUndone => Bytes::Zeros,
            Cut::Mixed(_) => [Bytes::All, Bytes::Certain, Bytes::Zeros][random.index(3)],
        };
        let (version, length) = match bytes {
            Bytes::All => (file.version, file.bytes.len()),
            Bytes::Certain => (file.durable_version, file.durable_bytes.len()),
            Bytes::Zeros => (file.durable_version, file.bytes.len()),
        };
        Content { file: number, bytes, version, length }
    }

    fn has_certain_parents(&self, path: &Path) -> bool {
        let mut parents = path.ancestors().skip(1).filter(|parent| *parent != Path::new(""));
        parents.all(|parent| self.durable_names.contains_key(parent))
    }

    fn find_or_create(&mut self, path: &Path) -> usize {
        if let Some(Node::File(file)) = self.names.get(path) {
            return *file;
        }
        self.files.push(File::default());
        let file = self.files.len() - 1;
        self.names.insert(path.to_owned(), Node::File(file));
        file
    }

    fn file(&self, path: &Path) -> usize {
        match self.names.get(path) {
            Some(Node::File(file)) => *file,
            other => panic!("{} is {other:?}", path.display()),
        }
    }

    fn change(&mut self, file: usize, change: impl FnOnce(&mut Vec<u8>)) {
        let file = &mut self.files[file];
        change(&mut file.bytes);
        file.version += 1;
    }

    fn begin_sync(&self, path: &Path) -> Sync {
        match self.names.get(path) {
            Some(Node::File(file)) => {
                let File { bytes, version, .. } = &self.files[*file];
                Sync::File { file: *file, bytes: bytes.clone(), version: *version }
            }
            _ => {
                let is_in = |(name, _): &(&PathBuf, &Node)| name.parent() == Some(path);
                let names = self.names.iter().filter(is_in);
                let names = names.map(|(name, node)| (name.clone(), *node)).collect();
                Sync::Directory { path: path.to_owned(), names }
            }
        }
    }

    fn end_sync(&mut self, number: usize) {
        match self.begun_syncs.remove(&number).unwrap() {
            Sync::File { file, bytes, version } => {
                let file = &mut self.files[file];
                if version > file.durable_version {
                    file.durable_bytes = bytes;
                    file.durable_version = version;
                }
            }
            Sync::Directory { path, names } => {
                let last = self.ended_syncs.entry(path.clone()).or_default();
                if number < *last {
                    return;
                }
                *last = number;
                self.durable_names.retain(|name, _| name.parent() != Some(&path));
                self.durable_names.extend(names);
            }
        }
    }
}

impl State {
    fn has_directory(&self, path: &Path) -> bool {
        path == Path::new("") || self.directories.contains(path)
    }
}
