//! `admin.sock`, and commands with and without a daemon.

use std::{
    fs,
    os::unix::fs::{FileTypeExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    process,
};

use rustix::fs::{FlockOperation, flock};
use tempfile::TempDir;

use crate::support::{
    TestMirror,
    admin::over_socket,
    binary::{Daemon, Ended, run},
    mirror::{CONFIG, DATA_DIR},
    wait::until,
};

const SWEEP: [&str; 2] = ["POST /api/v1/sweep", "content-type: application/json"];

fn sweep(directory: &Path) -> Ended {
    run(&["sweep", "--config", directory.join(CONFIG).to_str().unwrap()], &[])
}

fn assert_done(ended: &Ended) {
    assert_eq!(ended.code, Some(0), "{ended:?}");
}

/// A directory with a configuration, and with what a mirror kept.
async fn stopped() -> TempDir {
    TestMirror::builder().start().await.stop().await.into_file()
}

/// Only who Larder runs as may open the socket; who opens it may do everything. It ends with the daemon.
#[tokio::test(flavor = "multi_thread")]
async fn the_socket_is_its_owners_alone() {
    let mut daemon = Daemon::start(TestMirror::builder()).await;
    let socket = daemon.data_dir().join("admin.sock");
    let metadata = fs::metadata(&socket).unwrap();
    assert!(metadata.file_type().is_socket());
    assert_eq!(metadata.permissions().mode() & 0o777, 0o600);

    let swept = over_socket(&socket, &SWEEP, "{}").await;
    assert_eq!(swept.status, 200, "{swept:?}");
    assert!(swept.text.contains(r#"{"done":{"blobs":0,"#), "{swept:?}");
    assert_eq!(over_socket(&socket, &["GET /metrics"], "").await.status, 200);
    let foreign = over_socket(&socket, &[SWEEP[0], "content-type: text/plain"], "{}").await;
    assert_eq!(foreign.status, 415, "{foreign:?}");

    daemon.signal("TERM");
    assert_eq!(daemon.ended().await.code(), Some(0));
    assert!(!socket.exists());
}

/// A command is answered by the daemon, whose lock nobody else gets; after a kill by this process, and
/// then by the next daemon, whatever is left of the last one's socket.
#[tokio::test(flavor = "multi_thread")]
async fn a_command_is_answered_with_and_without_a_daemon() {
    let mut daemon = Daemon::start(TestMirror::builder()).await;
    assert_done(&sweep(daemon.directory()));
    daemon.signal("KILL");
    daemon.ended().await;
    let socket = daemon.data_dir().join("admin.sock");
    assert!(socket.exists(), "a killed daemon leaves its socket");
    assert_done(&sweep(daemon.directory()));

    let daemon = daemon.kill_and_restart().await;
    assert_eq!(over_socket(&socket, &SWEEP, "{}").await.status, 200);
    assert_done(&sweep(daemon.directory()));
}

/// A command in this process leaves the directory as a clean stop does, and without a socket.
#[tokio::test(flavor = "multi_thread")]
async fn a_command_without_a_daemon_closes_the_store() {
    let directory = stopped().await;
    assert_done(&sweep(directory.path()));
    let data_dir = directory.path().join(DATA_DIR);
    assert_eq!(fs::read_to_string(data_dir.join("lock")).unwrap(), "");
    assert!(!data_dir.join("admin.sock").exists());
}

/// The kernel takes 107 bytes of a socket's path; a data directory may have more.
#[tokio::test(flavor = "multi_thread")]
async fn a_data_directory_may_have_a_long_path() {
    let directory = TempDir::new().unwrap();
    let data_dir = directory.path().join("d".repeat(100)).join("e".repeat(100));
    let mirror = TestMirror::builder().set("data_dir", data_dir.to_str().unwrap());
    let mut daemon = Daemon::start(mirror).await;
    let socket = data_dir.join("admin.sock");
    assert_eq!(fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o600);
    assert_done(&sweep(daemon.directory()));
    daemon.signal("TERM");
    daemon.ended().await;
    assert!(!socket.exists());
    assert_done(&sweep(daemon.directory()));
}

/// Pulls are served although no socket can be made.
#[tokio::test(flavor = "multi_thread")]
async fn a_mirror_without_a_socket_serves() {
    let mirror = TestMirror::builder();
    let socket = mirror.data_dir().join("admin.sock");
    fs::create_dir_all(socket.join("something")).unwrap();
    let daemon = Daemon::start(mirror).await;
    until("the warning", async || daemon.log().contains("no commands are taken")).await;
    assert_eq!(daemon.client().get("/v2/").await.status, 200);
    assert_eq!(socket.read_dir().unwrap().count(), 1);
}

/// Who has the directory is named when neither way works.
#[tokio::test(flavor = "multi_thread")]
async fn a_directory_that_another_process_has_is_told() {
    let directory = stopped().await;
    let path = directory.path().join(DATA_DIR).join("lock");
    let lock = fs::File::options().write(true).open(&path).unwrap();
    flock(&lock, FlockOperation::LockExclusive).unwrap();
    fs::write(&path, format!("{}\n", process::id())).unwrap();
    let ended = sweep(directory.path());
    assert_eq!(ended.code, Some(1), "{ended:?}");
    let process = format!("process {}", process::id());
    let socket = path.with_file_name("admin.sock");
    for part in [process.as_str(), socket.to_str().unwrap()] {
        assert!(ended.output.contains(part), "{part} in {ended:?}");
    }
}

/// A command waits a moment for a directory that is about to be free.
#[tokio::test(flavor = "multi_thread")]
async fn a_command_outlasts_a_short_holder() {
    let directory = stopped().await;
    let path = directory.path().join(DATA_DIR).join("lock");
    let lock = fs::File::options().write(true).open(&path).unwrap();
    flock(&lock, FlockOperation::LockExclusive).unwrap();
    let ended = std::thread::scope(|scope| {
        let command = scope.spawn(|| sweep(directory.path()));
        std::thread::sleep(std::time::Duration::from_millis(300));
        drop(lock);
        command.join().unwrap()
    });
    assert_done(&ended);
}

/// So does a daemon.
#[tokio::test(flavor = "multi_thread")]
async fn a_start_outlasts_a_short_holder() {
    let mirror = TestMirror::builder();
    fs::create_dir_all(mirror.data_dir()).unwrap();
    let lock = fs::File::create(mirror.data_dir().join("lock")).unwrap();
    flock(&lock, FlockOperation::LockExclusive).unwrap();
    let holder = std::thread::spawn(move || {
        std::thread::sleep(std::time::Duration::from_secs(1));
        drop(lock);
    });
    let mut daemon = Daemon::start(mirror).await;
    holder.join().unwrap();
    daemon.signal("TERM");
    assert_eq!(daemon.ended().await.code(), Some(0));
}

/// Nothing is made where there is no data directory, and what is meant is told.
#[tokio::test(flavor = "multi_thread")]
async fn a_command_makes_no_data_directory() {
    let directory = TempDir::new().unwrap();
    let foreign = directory.path().join("foreign");
    fs::create_dir(&foreign).unwrap();
    fs::write(foreign.join("oci-layout"), "{}").unwrap();
    let file = directory.path().join("file");
    fs::write(&file, "").unwrap();
    for (data_dir, said) in [
        (directory.path().join("none"), "no such directory"),
        (foreign.clone(), "no data directory of Larder"),
        (file, "no data directory of Larder"),
    ] {
        let before = entries(directory.path());
        let ended = run(&["sweep", "--data-dir", data_dir.to_str().unwrap()], &[]);
        assert_eq!(ended.code, Some(1), "{ended:?}");
        let named = format!("{}: {said}", data_dir.display());
        assert!(ended.output.contains(&named), "{named} in {ended:?}");
        assert_eq!(entries(directory.path()), before);
    }
    assert_eq!(entries(&foreign).len(), 1);
    let ended = run(&["sweep", "--config", "/no/such/file"], &[]);
    assert_eq!(ended.code, Some(2), "{ended:?}");
}

fn entries(directory: &Path) -> Vec<PathBuf> {
    let mut entries: Vec<PathBuf> =
        directory.read_dir().unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    entries
}
