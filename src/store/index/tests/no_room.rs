//! A renewal on a disk that has no room for it.
//!
//! What takes the room away is a limit on the size of files (RLIMIT_FSIZE), which is of a whole process. So the
//! test runs in a process of its own, which runs nothing else.

use std::{env, process::Command};

use rustix::process::{Resource, Rlimit, Signal, getrlimit, setrlimit};
use tokio::signal::unix::{SignalKind, signal};

use super::*;

/// Tells the process that is for the test alone.
const ALONE: &str = "LARDER_TEST_ALONE";

const NAME: &str = "store::index::tests::no_room::an_index_that_cannot_be_renewed_goes_on";

/// Bytes for a part of the snapshot.
const TOO_LITTLE: u64 = 1 << 10;

#[tokio::test]
async fn an_index_that_cannot_be_renewed_goes_on() {
    if env::var_os(ALONE).is_none() {
        let mut alone = Command::new(env::current_exe().unwrap());
        let ended = alone.args(["--exact", NAME, "--nocapture"]).env(ALONE, "1").output().unwrap();
        assert!(ended.status.success(), "{ended:?}");
        return;
    }
    // Else it would be the end of the process.
    let _limit = signal(SignalKind::from_raw(Signal::XFSZ.as_raw())).unwrap();
    goes_on_as_it_was();
    writes_later_what_there_is_no_room_for();
}

/// By rows, whether or not it is killed; and the next renewal works.
fn goes_on_as_it_was() {
    let mut life = small();
    limit(Some(TOO_LITTLE));
    assert!(life.keeper.renew(), "there is the one before");
    limit(None);
    assert_eq!(number(&life), 1);
    assert!(!life.directory.next_index().exists());

    life.put(300..310);
    life.keeper.keep_up();
    let known = life.known();
    let Life { data_dir, keeper, .. } = life;
    drop(keeper);
    let mut life = Life::new(data_dir);
    assert_eq!(life.known(), known);
    assert!(life.keeper.renew());
    assert_eq!(number(&life), 2);
    assert_eq!(life.next().known(), known);
}

/// Neither as rows nor in a snapshot.
fn writes_later_what_there_is_no_room_for() {
    let mut life = small();
    life.put(300..310);
    let known = life.known();
    limit(Some(0));
    life.keeper.keep_up();
    assert!(!life.keeper.renew());
    limit(None);
    let life = life.next();
    assert_eq!(life.known(), known);
    assert_eq!(number(&life), 1);
}

/// Something in a snapshot, and something in rows.
fn small() -> Life {
    let mut life = Life::first();
    life.put(0..200);
    assert!(life.keeper.renew());
    life.put(200..300);
    (0..9).for_each(|number| life.prove(number));
    life.keeper.keep_up();
    life
}

/// The number of the snapshot.
fn number(life: &Life) -> u32 {
    snapshot::read(&life.directory.index()).unwrap().0.number
}

/// Lets no file grow beyond so many bytes; `None`: as far as before.
fn limit(bytes: Option<u64>) {
    let maximum = getrlimit(Resource::Fsize).maximum;
    setrlimit(Resource::Fsize, Rlimit { current: bytes.or(maximum), maximum }).unwrap();
}
