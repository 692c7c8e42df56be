//! Makes the table agree with `blobs/`, in the background after every start.
//!
//! First all names are listed: rows without a file go, and from then on `index.json` may be written
//! anew. Then files that the index did not remember are taken up. When the index was lost this is
//! the rebuild; meanwhile every look-up that misses looks at the disk.

use std::{
    fs::{self, ReadDir},
    io,
    num::NonZero,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};

use super::{
    Shared,
    blob::BlobReader,
    directory::{ALGORITHMS, Directory},
    files::open_without_waiting,
    manifest::begins_like_json,
    memory::STEP,
    table::Sight,
};
use crate::oci::{Algorithm, Digest, Manifest};

/// Names that a thread takes up in one go.
const NAMES: usize = 64;

/// Threads that take files up; more only make a disk seek.
const MOST_THREADS: usize = 4;

/// Looks at every file once. Ends early when the store is dropped. Blocking.
pub fn run(store: &Weak<Shared>) {
    let listed = list(store);
    if let Some(shared) = store.upgrade() {
        shared.layout.allow();
    }
    let done = listed.and_then(|listed| {
        let adopted = if listed.has_unknown { take_up_all(store)? } else { 0 };
        Ok((adopted, listed.lost))
    });
    match done {
        Ok((0, 0)) => {}
        Ok((adopted, lost)) => {
            tracing::info!(adopted, lost, "the index agrees with the blobs again");
        }
        // Without a full listing no row is dropped: each is put right when it is used.
        Err(error) => tracing::warn!(%error, "cannot compare the index with the blobs"),
    }
    if let Some(shared) = store.upgrade() {
        shared.looked_around.send_replace(true);
    }
}

/// What the names told.
struct Listed {
    /// Whether there are files of which not everything is known.
    has_unknown: bool,
    /// Rows that had no file.
    lost: u64,
}

fn list(store: &Weak<Shared>) -> io::Result<Listed> {
    let mut listed = Listed { has_unknown: false, lost: 0 };
    for (algorithm, names) in listings(store)? {
        for name in names {
            let Some(shared) = store.upgrade() else {
                return Ok(listed);
            };
            if let Some(digest) = digest_of(algorithm, &name?) {
                let sight = shared.memory.look(|table| table.see(&digest));
                listed.has_unknown |= sight != Sight::Known;
            }
        }
    }
    for from in (0..).step_by(STEP) {
        let Some(shared) = store.upgrade() else {
            break;
        };
        let Some(unseen) = shared.memory.look(|table| table.unseen(from, STEP)) else {
            break;
        };
        for digest in unseen {
            listed.lost += u64::from(shared.lose_if_gone(&digest)?);
        }
    }
    Ok(listed)
}

/// Returns how many files were new.
fn take_up_all(store: &Weak<Shared>) -> io::Result<u64> {
    let adopted = AtomicU64::new(0);
    let threads = thread::available_parallelism().map_or(1, NonZero::get).min(MOST_THREADS);
    for (algorithm, names) in listings(store)? {
        let names = Mutex::new(names);
        let take_up = || take_up_some(store, algorithm, &names, &adopted);
        thread::scope(|scope| {
            let workers: Vec<_> = (0..threads).map(|_| scope.spawn(take_up)).collect();
            let ended = workers.into_iter().map(|worker| {
                worker.join().unwrap_or_else(|_| Err(io::Error::other("a thread has panicked")))
            });
            ended.collect::<Vec<_>>().into_iter().collect::<io::Result<()>>()
        })?;
    }
    Ok(adopted.into_inner())
}

fn take_up_some(
    store: &Weak<Shared>,
    algorithm: Algorithm,
    names: &Mutex<ReadDir>,
    adopted: &AtomicU64,
) -> io::Result<()> {
    loop {
        let some: Vec<_> = {
            let mut names = names.lock().unwrap_or_else(PoisonError::into_inner);
            names.by_ref().take(NAMES).collect::<io::Result<_>>()?
        };
        let Some(shared) = store.upgrade().filter(|_| !some.is_empty()) else {
            return Ok(());
        };
        for digest in some.iter().filter_map(|name| digest_of(algorithm, name)) {
            match shared.take_up(&digest) {
                Ok(is_new) => adopted.fetch_add(u64::from(is_new), Ordering::Relaxed),
                // It is left for when it is used.
                Err(error) => {
                    tracing::debug!(%digest, %error, "cannot look at a blob");
                    continue;
                }
            };
        }
    }
}

impl Shared {
    /// Tells the table of a file of which it does not know everything; whether it is new. A
    /// manifest that is damaged is taken for a blob, and found out when it is read.
    fn take_up(&self, digest: &Digest) -> io::Result<bool> {
        let sight = self.memory.look(|table| table.see(digest));
        if sight == Sight::Known {
            return Ok(false);
        }
        let _name = self.names.take(digest);
        let file = match open_without_waiting(&self.directory.blob(digest)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            file => file?,
        };
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Ok(false);
        }
        let size = metadata.len();
        let manifest = self.parse(digest, &BlobReader::new(Arc::new(file), size, self))?;
        let now = self.running.now();
        self.memory.with(|table| {
            if table.size(digest).is_none() {
                table.adopt(digest, size, now);
            }
            if let Some(manifest) = manifest {
                table.mark_verified(digest);
                table.link_manifest(digest, &manifest);
            }
        });
        Ok(sight == Sight::New)
    }

    /// What a file lists, if it is a manifest and the right one.
    fn parse(&self, digest: &Digest, reader: &BlobReader) -> io::Result<Option<Manifest>> {
        if !begins_like_json(reader) {
            return Ok(None);
        }
        let bytes = reader.read_all()?;
        let media_type = self.memory.look(|table| table.media_type(digest));
        let manifest = Manifest::parse(&bytes, media_type.as_deref()).ok();
        Ok(manifest.filter(|_| Digest::of(digest.algorithm(), &bytes) == *digest))
    }
}

fn listings(store: &Weak<Shared>) -> io::Result<Vec<(Algorithm, ReadDir)>> {
    let directory: Option<Directory> = store.upgrade().map(|shared| shared.directory.clone());
    let listing = |algorithm, directory: &Directory| {
        Ok((algorithm, fs::read_dir(directory.blobs(algorithm))?))
    };
    let directories = directory.iter().flat_map(|directory| {
        ALGORITHMS.into_iter().map(move |algorithm| listing(algorithm, directory))
    });
    directories.collect()
}

/// The digest that a file of `blobs/` is named by.
pub fn digest_of(algorithm: Algorithm, entry: &fs::DirEntry) -> Option<Digest> {
    let name = entry.file_name();
    Digest::from_parts(algorithm.as_str(), name.to_str()?).ok()
}
