//! Where a client lives: in the clients' network, with an `/etc` of its own over the machine's.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::lab::Lab;

/// The surroundings of one client, and the directory for all its files.
pub struct Engine {
    directory: PathBuf,
    /// What enters the network.
    inside: String,
}

impl Engine {
    /// Makes the directory `name` among the files of the test.
    pub fn new(lab: &Lab, name: &str) -> Self {
        let directory = lab.directory().join(name);
        fs::create_dir(&directory).unwrap();
        Self { directory, inside: lab.network.inside("") }
    }

    /// Holds what the client keeps.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Writes a file that the client finds at `path`, which is under `/etc`.
    pub fn write(&self, path: &str, text: &str) {
        let path = self.directory.join(path.trim_start_matches('/'));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// The line that runs `line` here, as the first process of a PID namespace, with mounts of its
    /// own: all that it starts and mounts goes when it goes.
    pub fn line(&self, line: &str) -> String {
        format!(
            "{} unshare --pid --fork --kill-child --mount-proc sh {}/tests/e2e/with_etc.sh {} {line}",
            self.inside,
            env!("CARGO_MANIFEST_DIR"),
            self.directory.display()
        )
    }
}
