//! Removal by hand: of an image, of a repository, of what has no tag.
//!
//! Names go first, then manifests, then what they list. So no name ever means what is half gone, and
//! what a crash leaves is at worst a file that belongs to nothing.

use std::{collections::HashSet, fs, io, sync::Arc};

use super::{
    Shared, Store, blocking,
    memory::STEP,
    table::{Plan, Seed, Target},
    withdrawal::Withdrawal,
};
use crate::oci::{Digest, ImageName, Reference};

/// What is removed, or would be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Removal {
    /// Images that can be asked for no more, by tag, or by digest where there is no tag.
    pub names: Vec<ImageName>,
    /// Files that go.
    pub digests: Vec<Digest>,
    /// Bytes in them.
    pub bytes: u64,
}

/// Why nothing is removed.
#[derive(Debug, thiserror::Error)]
pub enum CannotRemove {
    /// Nothing of it is here.
    #[error("not here")]
    NotHere,
    /// These pins stand in the way.
    #[error("pinned")]
    Pinned(Vec<ImageName>),
    /// This blob of it is being downloaded.
    #[error("in use: {0} is being downloaded")]
    Downloading(Digest),
    /// An image of the same repository lists it.
    #[error("in use: {0} lists it")]
    Listed(ImageName),
    /// The disk fails; what could be removed is.
    #[error("{0}")]
    Failing(#[from] io::Error),
}

/// A removal that has been thought through.
struct Planned {
    seeds: Vec<Seed>,
    doomed: Vec<(Digest, Option<u64>)>,
}

impl Store {
    /// What [`Store::remove`] would remove now.
    ///
    /// # Errors
    /// Why it would be refused.
    pub async fn plan_removal(&self, target: &Target) -> Result<Removal, CannotRemove> {
        self.looked_around().await;
        let (store, target) = (Arc::clone(&self.0), target.clone());
        let planned = blocking(move || store.plan_removal(&target)).await??;
        let names = planned.names();
        let files = planned.doomed.into_iter().filter_map(|(digest, size)| Some((digest, size?)));
        let mut removal = Removal { names, ..Removal::default() };
        for (digest, size) in files {
            removal.add(digest, size);
        }
        Ok(removal)
    }

    /// Removes everything that only `target` needs. What somebody reads now is read to its end.
    ///
    /// # Errors
    /// Why nothing was removed, or what the disk says.
    pub async fn remove(&self, target: &Target) -> Result<Removal, CannotRemove> {
        self.looked_around().await;
        let (store, target) = (Arc::clone(&self.0), target.clone());
        blocking(move || store.remove(&target)).await?
    }
}

impl Removal {
    fn add(&mut self, digest: Digest, size: u64) {
        self.digests.push(digest);
        self.bytes = self.bytes.saturating_add(size);
    }
}

impl Planned {
    fn names(&self) -> Vec<ImageName> {
        let mut names: Vec<_> = self.seeds.iter().flat_map(|seed| seed.names.clone()).collect();
        names.sort();
        names
    }
}

impl Shared {
    fn remove(self: &Arc<Self>, target: &Target) -> Result<Removal, CannotRemove> {
        let planned = self.plan_removal(target)?;
        let doomed: Vec<Digest> = planned.doomed.iter().map(|(digest, _)| digest.clone()).collect();
        let _withdrawn = Withdrawal::of(Arc::clone(self), &doomed);
        self.drop_names(target, &doomed)?;
        let mut removal = Removal { names: planned.names(), ..Removal::default() };
        let mut failed = None;
        for digest in &doomed {
            match self.remove_loose(digest) {
                Ok(size) => size.into_iter().for_each(|size| removal.add(digest.clone(), size)),
                Err(error) => {
                    tracing::warn!(%digest, %error, "cannot remove a blob");
                    failed = Some(error);
                }
            }
        }
        self.room.ledger().notify();
        failed.map_or(Ok(removal), |error| Err(error.into()))
    }

    fn plan_removal(&self, target: &Target) -> Result<Planned, CannotRemove> {
        self.refuse_pinned(target)?;
        let mut seeds = self.seeds(target)?;
        let writing = self.downloads.writing();
        if matches!(target, Target::Untagged(_)) {
            seeds.retain(|seed| self.any_below(seed, &writing).is_none());
        }
        let mut plan = Plan::default();
        for seed in &seeds {
            if let Some(digest) = self.any_below(seed, &writing) {
                return Err(CannotRemove::Downloading(digest));
            }
            self.memory.look(|table| table.survey(target, &seed.digest, &mut plan));
        }
        Ok(Planned { seeds, doomed: plan.doomed() })
    }

    fn refuse_pinned(&self, target: &Target) -> Result<(), CannotRemove> {
        let pinned = self.memory.look(|table| table.pinned_of(target));
        if pinned.is_empty() { Ok(()) } else { Err(CannotRemove::Pinned(pinned)) }
    }

    fn seeds(&self, target: &Target) -> Result<Vec<Seed>, CannotRemove> {
        if let Target::Image(image) = target {
            let (seed, lister) = self
                .memory
                .look(|table| {
                    let seed = table.seed_of_image(target, image)?;
                    let lister = table.lister(&image.repository, &seed.digest);
                    Some((seed, lister))
                })
                .ok_or(CannotRemove::NotHere)?;
            return match (lister, &image.reference) {
                (Some(lister), Reference::Digest(_)) => Err(CannotRemove::Listed(lister)),
                _ => Ok(vec![seed]),
            };
        }
        let lone = |from| self.memory.look(|table| table.lone(target, from, STEP));
        let seeds = self.memory.names(|table, place| table.seeds(target, place, STEP));
        let mut seeds: Vec<Seed> = seeds.collect();
        let lone = (0..).step_by(STEP).map_while(lone).flatten();
        seeds.extend(lone.map(|digest| Seed { digest, names: Vec::new() }));
        match target {
            Target::Repository(_) if seeds.is_empty() => Err(CannotRemove::NotHere),
            Target::Image(_) | Target::Repository(_) | Target::Untagged(_) => Ok(seeds),
        }
    }

    /// What is in `writing`, of a seed and everything below it.
    fn any_below(&self, seed: &Seed, writing: &HashSet<Digest>) -> Option<Digest> {
        if writing.is_empty() {
            return None;
        }
        let below = self.memory.look(|table| table.below(&seed.digest));
        below.into_iter().map(|(digest, _)| digest).find(|digest| writing.contains(digest))
    }

    /// From here on nobody is served what goes. A pin that has come meanwhile forbids it.
    fn drop_names(&self, target: &Target, doomed: &[Digest]) -> Result<(), CannotRemove> {
        self.memory.with(|table| {
            let pinned = table.pinned_of(target);
            if !pinned.is_empty() {
                return Err(CannotRemove::Pinned(pinned));
            }
            if let Target::Image(image) = target {
                table.drop_image(target, image);
            }
            Ok(())
        })?;
        let mut doomed = doomed.chunks(STEP);
        self.memory
            .walk((), |table, ()| doomed.next().map(|some| table.drop_digests(target, some)));
        if let Target::Repository(repository) = target {
            self.memory.walk(0, |table, from| table.drop_all(repository, from, STEP));
        }
        Ok(())
    }

    /// Removes a file that nothing needs, and what an unfinished download left of it. `None`: there is
    /// no file, or it is needed by now.
    fn remove_loose(&self, digest: &Digest) -> io::Result<Option<u64>> {
        let _name = self.names.take(digest);
        let (is_loose, size) =
            self.memory.look(|table| (table.is_loose(digest), table.size(digest)));
        if !is_loose {
            return Ok(None);
        }
        self.downloads.remove_if_left(digest);
        match fs::remove_file(self.directory.blob(digest)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            removed => removed?,
        }
        self.memory.with(|table| table.forget(digest));
        self.open_files.let_go(digest);
        Ok(size)
    }
}
