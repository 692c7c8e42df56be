//! What a client has to be told: files, and what a person should know about them.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use super::{mirror::Mirror, registry::Registry};

/// What all clients' files are made of.
#[derive(Debug)]
pub(super) struct Site {
    /// Where the mirror is reached.
    pub(super) mirror: Mirror,
    /// What it mirrors.
    pub(super) registries: Vec<Registry>,
    /// What the paths of files are below, if files may be there already.
    pub(super) root: Option<PathBuf>,
}

/// A client's configuration.
pub(super) struct Setup<'a> {
    /// In the order in which they are shown.
    pub(super) files: Vec<File<'a>>,
    /// Paragraphs, their lines broken.
    pub(super) notes: Vec<String>,
}

/// Makes a file's content of what is in it now.
type MergeInto<'a> = dyn Fn(&str) -> Result<String, Mistake> + 'a;

/// One file of a client.
pub(super) struct File<'a> {
    /// The absolute path on the client's machine.
    pub(super) path: String,
    /// Whether it is written where there is none. What is not is told in the notes instead.
    pub(super) is_created: bool,
    merge: Box<MergeInto<'a>>,
}

/// Why an existing file cannot be merged with.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Mistake {
    /// Where, counted from 1, if that is known.
    pub(super) line: Option<usize>,
    /// What is wrong, and what to do.
    pub(super) message: String,
}

impl Site {
    /// The names of what is in a directory of the client's machine, in order.
    pub(super) fn list(&self, directory: &str) -> Vec<String> {
        let below = |root: &PathBuf| below(root, directory).read_dir().ok();
        let entries = self.root.as_ref().and_then(below);
        let names = entries.into_iter().flatten().flatten();
        let mut names: Vec<String> =
            names.filter_map(|entry| entry.file_name().into_string().ok()).collect();
        names.sort();
        names
    }

    /// The text of a file of the client's machine, if it is there and can be read.
    pub(super) fn read(&self, path: &str) -> Option<String> {
        std::fs::read_to_string(below(self.root.as_ref()?, path)).ok()
    }
}

impl<'a> File<'a> {
    /// A file that is made by merging into what is there, or into nothing.
    pub(super) fn new(
        path: impl Into<String>,
        merge: impl Fn(&str) -> Result<String, Mistake> + 'a,
    ) -> File<'a> {
        File { path: path.into(), is_created: true, merge: Box::new(merge) }
    }

    /// A file that is only changed if it is there.
    pub(super) fn if_there(
        path: impl Into<String>,
        merge: impl Fn(&str) -> Result<String, Mistake> + 'a,
    ) -> File<'a> {
        File { is_created: false, ..File::new(path, merge) }
    }

    /// The file's content where `existing` is in it now; empty where there is no file.
    ///
    /// # Errors
    /// When `existing` is not what the client would read, or says the opposite.
    pub(super) fn merged_into(&self, existing: &str) -> Result<String, Mistake> {
        (self.merge)(existing)
    }
}

/// Where a path of the client's machine is if its root is elsewhere.
pub(super) fn below(root: &Path, path: &str) -> PathBuf {
    root.join(path.trim_start_matches('/'))
}

impl Mistake {
    /// A mistake of no line in particular.
    pub(super) fn of_all(message: impl Into<String>) -> Mistake {
        Mistake { line: None, message: message.into() }
    }

    /// A mistake at a byte of `text`.
    pub(super) fn at(text: &str, offset: usize, message: impl Into<String>) -> Mistake {
        let before = text.as_bytes().iter().take(offset);
        let line = before.filter(|byte| **byte == b'\n').count() + 1;
        Mistake { line: Some(line), message: message.into() }
    }
}

impl std::error::Error for Mistake {}

/// What follows a path: `:3: this is no TOML`.
impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, ":{line}: {}", self.message),
            None => write!(f, ": {}", self.message),
        }
    }
}
