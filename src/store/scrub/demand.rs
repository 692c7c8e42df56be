//! A scrub that somebody asked for: now, of everything or of one image, as fast as one reader can.

use std::{collections::BTreeSet, fs, io, path::PathBuf, sync::Arc};

use super::{
    examiner::{Ended, Examiner},
    walk::Walk,
};
use crate::{
    oci::Digest,
    store::{Damage, Shared, Store, blocking, directory::ALGORITHMS, layout, rebuild::digest_of},
};

/// How much is read before others have their turn on the blocking threads, in bytes.
const TURN: u64 = 8 * 1024 * 1024;

/// How many blobs are examined in one turn at most.
const TURN_BLOBS: u64 = 256;

/// What is to be examined.
#[derive(Clone, Debug)]
pub enum Scope {
    /// All that is held.
    Everything,
    /// A blob or manifest, and all that is below it.
    Below(Digest),
}

/// A scrub under way.
#[derive(Debug)]
pub struct Scrub {
    store: Arc<Shared>,
    scope: Scope,
    /// `None` while a turn runs, and after one that was dropped.
    work: Option<Work>,
    blobs: u64,
    bytes: u64,
}

/// What a turn did.
#[derive(Debug, Default)]
pub struct Examination {
    /// Blobs that were examined to their end.
    pub blobs: u64,
    /// Bytes that were read.
    pub bytes: u64,
    /// The damaged blob that this turn ended with.
    pub damaged: Option<(Digest, Damage)>,
}

/// What is in the directory that does not belong there, or is not as it should be.
#[derive(Debug, thiserror::Error)]
pub enum Finding {
    /// No blob has such a name.
    #[error("{0} is no blob")]
    Foreign(PathBuf),
    /// `index.json` names what is not here, or cannot be read.
    #[error("index.json: {0}")]
    Layout(String),
}

#[derive(Debug)]
struct Work {
    examiner: Examiner,
    walk: Walk,
}

impl Store {
    /// Begins to hash blobs again. What is damaged is set aside, and reported to nobody else.
    ///
    /// # Errors
    /// When the threads for such work are gone: at the very end.
    pub async fn begin_scrub(&self, scope: Scope) -> io::Result<Scrub> {
        let store = Arc::clone(&self.0);
        blocking(move || {
            let (walk, totals) = match &scope {
                Scope::Everything => {
                    (Walk::behind(None), store.memory.look(|table| table.totals()))
                }
                Scope::Below(digest) => {
                    let (held, totals) = store.memory.look(|table| table.held_below(digest));
                    (Walk::over(held), totals)
                }
            };
            let work = Some(Work { examiner: Examiner::default(), walk });
            Scrub { store, scope, work, blobs: totals.blobs, bytes: totals.bytes }
        })
        .await
    }

    /// Looks for what does not belong in the directory. Changes nothing.
    ///
    /// # Errors
    /// What the disk says.
    pub async fn look_around(&self) -> io::Result<Vec<Finding>> {
        self.looked_around().await;
        let store = Arc::clone(&self.0);
        blocking(move || {
            let mut findings = foreign_files(&store)?;
            findings.extend(dangling_names(&store));
            Ok(findings)
        })
        .await?
    }
}

impl Scrub {
    /// Blobs to be examined, as far as was known at the beginning.
    pub fn blobs(&self) -> u64 {
        self.blobs
    }

    /// Bytes in them.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// What is missing now because it was found damaged, as far as `quarantine/` tells, and is needed by
    /// something that is here.
    ///
    /// # Errors
    /// What the disk says.
    pub async fn lacking(&self) -> io::Result<Vec<Digest>> {
        let (store, scope) = (Arc::clone(&self.store), self.scope.clone());
        blocking(move || {
            let mut lacking = store.lacking()?;
            if let Scope::Below(digest) = scope {
                let below = store.memory.with(|table| table.below(&digest));
                lacking.retain(|lacking| below.iter().any(|(digest, _)| digest == lacking));
            }
            Ok(lacking)
        })
        .await?
    }

    /// Goes on for a moment, or until something is found. `None`: everything is examined.
    ///
    /// # Errors
    /// When the disk fails, so that it cannot be told what is damaged.
    pub async fn next(&mut self) -> io::Result<Option<Examination>> {
        let interrupted = || io::Error::other("an earlier turn was interrupted");
        let work = self.work.take().ok_or_else(interrupted)?;
        let store = Arc::clone(&self.store);
        let (work, done) = blocking(move || work.take_turn(&store)).await?;
        self.work = Some(work);
        done
    }
}

impl Work {
    fn take_turn(mut self, store: &Shared) -> (Work, io::Result<Option<Examination>>) {
        let done = self.examine_some(store);
        (self, done)
    }

    fn examine_some(&mut self, store: &Shared) -> io::Result<Option<Examination>> {
        let mut done = Examination::default();
        while done.bytes < TURN && done.blobs < TURN_BLOBS {
            let next = || self.walk.next_until(1.0, &store.memory);
            let Some(step) = self.examiner.step(store, next)? else {
                return Ok((done.blobs > 0).then_some(done));
            };
            done.bytes += step.bytes;
            if let Some(Ended { digest, damage }) = step.ended {
                done.blobs += 1;
                done.damaged = damage.map(|damage| (digest, damage));
            }
            if done.damaged.is_some() {
                break;
            }
        }
        Ok(Some(done))
    }
}

/// What in `blobs/` has no blob's name, or is no file.
fn foreign_files(store: &Shared) -> io::Result<Vec<Finding>> {
    let mut foreign = Vec::new();
    let folders = ALGORITHMS.map(|algorithm| store.directory.blobs(algorithm));
    for entry in fs::read_dir(store.directory.path().join("blobs"))? {
        let path = entry?.path();
        if !folders.contains(&path) {
            foreign.push(Finding::Foreign(path));
        }
    }
    for (algorithm, folder) in ALGORITHMS.into_iter().zip(folders) {
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            let is_file = entry.file_type()?.is_file();
            if !is_file || digest_of(algorithm, &entry).is_none() {
                foreign.push(Finding::Foreign(entry.path()));
            }
        }
    }
    Ok(foreign)
}

/// What goes while the file is read was taken out of it before: it is not named at a second look.
fn dangling_names(store: &Shared) -> Vec<Finding> {
    let twice = || Ok((gone_but_named(store)?, gone_but_named(store)?));
    match twice() {
        Ok((once, again)) => {
            let finding = |digest| Finding::Layout(format!("{digest} is not here"));
            once.intersection(&again).map(finding).collect()
        }
        Err::<_, io::Error>(error) => vec![Finding::Layout(error.to_string())],
    }
}

fn gone_but_named(store: &Shared) -> io::Result<BTreeSet<Digest>> {
    let is_gone = |digest: &Digest| store.memory.look(|table| table.size(digest)).is_none();
    Ok(layout::listed(&store.directory)?.into_iter().filter(is_gone).collect())
}
