//! Commands on content, given by the user that Larder runs as, by root, and by another.

use std::{
    fs::{self, Permissions},
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown},
    path::{Path, PathBuf},
    process::Output,
};

use tempfile::TempDir;

use crate::{
    lab::directory,
    process::{Daemon, command, wait_for},
};

/// Whom Larder runs as, and somebody else.
const OWNER: u32 = 65534;
const OTHER: u32 = 65533;

#[test]
fn only_its_user_and_root_give_commands() {
    let place = Place::new();
    let daemon = place.start();
    for user in [OWNER, 0] {
        let listed = place.larder(user, "ls --json");
        assert!(listed.status.success() && listed.stdout.is_empty(), "{user}: {listed:?}");
    }
    let refused = place.larder(OTHER, "ls");
    assert_eq!(refused.status.code(), Some(1));
    assert!(said(&refused).contains(&format!("only user {OWNER} may give commands at ")));

    daemon.terminate();
    assert!(place.larder(OWNER, "du").status.success());
    for user in [0, OTHER] {
        let refused = place.larder(user, "sweep");
        assert_eq!(refused.status.code(), Some(1), "{user}");
        let said = said(&refused);
        assert!(said.contains(&format!("belongs to user {OWNER}: start the daemon")), "{said}");
    }
    assert_all_of(OWNER, &place.data());
}

/// A data directory of Larder's own user, and the program where everybody may run it.
struct Place(TempDir);

impl Place {
    fn new() -> Self {
        let place = Self(directory());
        fs::set_permissions(place.0.path(), Permissions::from_mode(0o755)).unwrap();
        fs::copy(env!("CARGO_BIN_EXE_larder"), place.program()).unwrap();
        fs::create_dir(place.data()).unwrap();
        chown(place.data(), Some(OWNER), Some(OWNER)).unwrap();
        place
    }

    fn program(&self) -> PathBuf {
        self.0.path().join("larder")
    }

    fn data(&self) -> PathBuf {
        self.0.path().join("data")
    }

    fn start(&self) -> Daemon {
        let socket = self.data().join("registry.sock");
        let arguments = format!("serve --listen unix:{}", socket.display());
        let mut daemon = Daemon::start("larder", self.0.path(), &self.line(OWNER, &arguments));
        wait_for("larder's socket for commands", || {
            daemon.assert_running();
            self.data().join("admin.sock").exists().then_some(())
        });
        daemon
    }

    fn larder(&self, user: u32, arguments: &str) -> Output {
        command(&self.line(user, arguments)).output().unwrap()
    }

    fn line(&self, user: u32, arguments: &str) -> String {
        let (program, data) = (self.program(), self.data());
        let (program, data) = (program.display(), data.display());
        let user = format!("setpriv --reuid={user} --regid={user} --clear-groups");
        // A port of the system's choice: no other test is in the way.
        let variable = "env LARDER_ADMIN_LISTEN=127.0.0.1:0";
        format!("{user} {variable} {program} {arguments} --data-dir {data} ")
    }
}

fn said(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// Whatever a command left must be the daemon's to read and replace.
fn assert_all_of(user: u32, directory: &Path) {
    for entry in fs::read_dir(directory).unwrap().map(Result::unwrap) {
        let metadata = entry.path().symlink_metadata().unwrap();
        assert_eq!(metadata.uid(), user, "{}", entry.path().display());
        if metadata.is_dir() {
            assert_all_of(user, &entry.path());
        }
    }
}
