//! Damaged files of `blobs/`: out of the way, counted, and reported to whoever can fetch them again.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::MetadataExt as _,
    path::Path,
};

use tokio::sync::mpsc;

use super::{Shared, Store, quarantine::remove_any, table::Proof};
use crate::oci::{Digest, Repository};

/// What is wrong with the file of a blob.
#[derive(Debug, thiserror::Error)]
pub enum Damage {
    /// It is shorter or longer than the blob.
    #[error("it has {found} bytes instead of {expected}")]
    Size {
        /// Bytes in the blob.
        expected: u64,
        /// Bytes in the file.
        found: u64,
    },
    /// It is another blob.
    #[error("its content is {0}")]
    Content(Digest),
    /// There is something else in its place: a directory, say.
    #[error("it is no file")]
    NoFile,
    /// The disk does not give it, or not to this user.
    #[error("it cannot be read: {0}")]
    Unreadable(#[source] io::Error),
}

/// Where a blob or manifest can be had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// Upstream showed it here,
    pub repository: Repository,
    /// and as this.
    pub is_manifest: bool,
}

impl Store {
    /// Where upstream showed a digest as content, whether or not it is here now.
    pub fn shown_in(&self, digest: &Digest) -> Vec<Shown> {
        let shown = self.0.memory.look(|table| table.shown_in(digest));
        // A list of referrers is made when somebody asks for it.
        let content = shown.into_iter().filter(|(_, proof)| *proof != Proof::List);
        let as_shown =
            |(repository, proof)| Shown { repository, is_manifest: proof == Proof::Manifest };
        content.map(as_shown).collect()
    }

    /// From now on, scrubs on schedule, and sends each digest whose file turns out to be damaged, then
    /// or while it is used. What a full channel does not take, or what was found before, is fetched
    /// again by the next pull.
    pub fn watch_for_damage(&self, reports: mpsc::Sender<Digest>) {
        // Only the first caller is told; a second has nothing to wait for.
        if self.0.damage_reports.set(reports).is_ok()
            && let Err(error) = self.0.keep_scrubbing()
        {
            tracing::error!(%error, "there is no scrub but on demand");
        }
    }
}

impl Shared {
    /// Moves a damaged file out of the way, so that nobody is served of it, and has it fetched
    /// again. Blocking.
    pub fn replace_damaged(&self, digest: &Digest, file: &File, damage: &Damage) -> io::Result<()> {
        if self.quarantine(digest, file, damage)? {
            self.report(digest);
        }
        Ok(())
    }

    /// Moves a damaged file out of the way, so that nobody is served of it. Tells whether it was
    /// still there: another may have been faster, or put the right one in its place. Blocking.
    pub fn quarantine(&self, digest: &Digest, file: &File, damage: &Damage) -> io::Result<bool> {
        let _name = self.names.take(digest);
        let (path, aside) = (self.directory.blob(digest), self.directory.quarantined(digest));
        if !is_at(file, &path)? {
            return Ok(false);
        }
        fs::create_dir_all(self.directory.quarantine())?;
        remove_any(&aside)?;
        fs::rename(path, &aside)?;
        self.room.look_anew();
        self.memory.with(|table| table.lose(digest));
        self.open_files.let_go(digest);
        self.metrics.store_damaged_blobs.inc();
        tracing::warn!(%digest, %damage, aside = %aside.display(), "a blob is damaged and set aside");
        if let Err(error) = self.trim_quarantine() {
            tracing::warn!(%error, "cannot remove what is in quarantine for long");
        }
        Ok(true)
    }

    /// Has a blob fetched again that was here.
    pub fn report(&self, digest: &Digest) {
        if let Some(reports) = self.damage_reports.get()
            && reports.try_send(digest.clone()).is_err()
        {
            tracing::debug!(%digest, "a damaged blob is left to the next pull");
        }
    }
}

/// Whether the file at `path` is this one.
pub fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    let this = file.metadata()?;
    match fs::symlink_metadata(path) {
        Ok(found) if found.is_symlink() => Ok(true),
        Ok(found) => Ok((found.dev(), found.ino()) == (this.dev(), this.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}
