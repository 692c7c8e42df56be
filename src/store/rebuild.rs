//! Makes the table agree with `blobs/`, in the background after every start.
//!
//! Files that the index did not remember are taken up, and rows without a file go. When the
//! index was lost this is the rebuild; meanwhile every look-up that misses looks at the disk.

use std::{
    fs, io,
    sync::{Arc, Weak},
};

use super::{Shared, directory::ALGORITHMS, table::Sight};
use crate::oci::{Algorithm, Digest};

/// Slots looked at under one lock.
const STEP: usize = 4096;

/// What the look around found.
#[derive(Debug, Default)]
struct Findings {
    adopted: u64,
    lost: u64,
}

/// Looks at every file once. Ends early when the store is dropped. Blocking.
pub fn run(store: &Weak<Shared>) {
    let mut findings = Findings::default();
    if let Err(error) = compare(store, &mut findings) {
        // Without a full listing no row is dropped: each is put right when it is used.
        tracing::warn!(%error, "cannot compare the index with the blobs");
    }
    if let Some(shared) = store.upgrade() {
        shared.looked_around.send_replace(true);
    }
    if findings.adopted > 0 || findings.lost > 0 {
        let Findings { adopted, lost } = findings;
        tracing::info!(adopted, lost, "the index agrees with the blobs again");
    }
    if let Some(shared) = store.upgrade() {
        shared.looked_around.send_replace(true);
    }
}

fn compare(store: &Weak<Shared>, findings: &mut Findings) -> io::Result<()> {
    for algorithm in ALGORITHMS {
        let Some(directory) = store.upgrade().map(|shared| shared.directory.clone()) else {
            return Ok(());
        };
        for entry in fs::read_dir(directory.blobs(algorithm))? {
            let Some(shared) = store.upgrade() else {
                return Ok(());
            };
            if let Some(digest) = digest_of(algorithm, &entry?) {
                shared.take_up(&digest, findings);
            }
        }
    }
    for from in (0..).step_by(STEP) {
        let Some(shared) = store.upgrade() else {
            return Ok(());
        };
        let Some(unseen) = shared.memory.with(|table| table.unseen(from, STEP)) else {
            break;
        };
        for digest in unseen {
            findings.lost += u64::from(shared.lose_if_gone(&digest)?);
        }
    }
    Ok(())
}

impl Shared {
    /// A file that cannot be read now is left for when it is used.
    fn take_up(self: &Arc<Self>, digest: &Digest, findings: &mut Findings) {
        let sight = self.memory.with(|table| table.see(digest));
        if sight == Sight::Known {
            return;
        }
        if sight == Sight::New {
            findings.adopted += 1;
        }
        let taken = self.adopt(digest).and_then(|_| self.read_manifest(digest));
        if let Err(error) = taken {
            tracing::debug!(%digest, %error, "cannot look at a blob");
        }
    }
}

/// The digest that a file of `blobs/` is named by.
pub fn digest_of(algorithm: Algorithm, entry: &fs::DirEntry) -> Option<Digest> {
    let name = entry.file_name();
    Digest::from_parts(algorithm.as_str(), name.to_str()?).ok()
}
