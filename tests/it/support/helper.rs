//! Credential helpers that do what a test says, on the `PATH` of its daemon.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

use serde_json::json;
use tempfile::TempDir;

use super::{binary::Daemon, mirror::Builder};

/// A directory of helpers.
pub struct Helpers(TempDir);

impl Helpers {
    /// None so far.
    pub fn new() -> Helpers {
        Helpers(TempDir::new().unwrap())
    }

    /// Puts `docker-credential-<name>`, which notes what it is asked and then runs `what`.
    pub fn put(&self, name: &str, what: &str) {
        let notes = self.path().join(format!("{name}.runs"));
        let script = format!(
            "#!/bin/sh\nread -r server\necho \"$1 $server\" >> '{}'\n{what}\n",
            notes.display()
        );
        let new = self.path().join("new");
        fs::write(&new, script).unwrap();
        fs::set_permissions(&new, fs::Permissions::from_mode(0o755)).unwrap();
        fs::rename(new, self.path().join(format!("docker-credential-{name}"))).unwrap();
    }

    /// Puts one that knows this user.
    pub fn put_user(&self, name: &str, username: &str, secret: &str) {
        let said = json!({ "ServerURL": "x", "Username": username, "Secret": secret });
        self.put(name, &format!("echo '{said}'"));
    }

    /// What it was asked, one line for each run.
    pub fn runs(&self, name: &str) -> Vec<String> {
        let notes = self.path().join(format!("{name}.runs"));
        let notes = fs::read_to_string(notes).unwrap_or_default();
        notes.lines().map(str::to_owned).collect()
    }

    /// Where they are.
    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// A daemon that finds them.
    pub async fn daemon(&self, mirror: Builder) -> Daemon {
        let system = std::env::var("PATH").unwrap();
        let path = format!("{}:{system}", self.path().display());
        Daemon::start_with(mirror, &[("PATH", &path)]).await
    }
}
