//! Files that grow under `downloads/`: at most one for each digest. When its writer is gone, a file is
//! removed, unless it was published or has a [`Note`]: then it is left for the next writer.

use std::{
    collections::{HashMap, HashSet},
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::runtime::Handle;

use super::{
    directory::Directory,
    ledger::{Hold, Ledger},
    note::Note,
    room::on_disk,
    running::{Moment, RunningTime},
};
use crate::oci::{Digest, Repository};

/// How long a partial download is kept that nobody goes on with, in running time since it was left
/// or found at a start. A pull that broke is tried again within minutes, or the next morning.
const LIFE: Duration = Duration::from_secs(24 * 3600);

/// How much is written before it is noted again how much counts, in bytes.
const NOTED_STEP: u64 = 4 * 1024 * 1024;

/// Who writes which digest; clones share it.
#[derive(Clone, Debug)]
pub struct Downloads(Arc<Claims>);

#[derive(Debug)]
struct Claims {
    directory: Directory,
    running: RunningTime,
    claims: Mutex<HashMap<Digest, Claim>>,
    released: Condvar,
}

#[derive(Debug)]
enum Claim {
    Writing,
    /// The writer is gone, its file about to be.
    Removing,
    /// The writer is gone since this moment, its file is not.
    Left(Moment, Note, Hold),
}

/// A growing file that is the only one of its digest.
#[derive(Debug)]
pub struct Partial {
    file: Arc<File>,
    path: PathBuf,
    digest: Digest,
    downloads: Downloads,
    fate: Mutex<Fate>,
    /// How much of the file counts, where its length does not tell.
    counted: Mutex<Option<Counted>>,
    hold: Mutex<Hold>,
}

/// Bytes from the beginning of a file that count.
#[derive(Clone, Copy, Debug)]
struct Counted {
    bytes: u64,
    /// As the note has it: so many, or less.
    noted: u64,
}

/// What becomes of a file when its writer is gone.
#[derive(Debug)]
enum Fate {
    Removed,
    /// Left, unless it is empty.
    Left(Note),
    /// It has moved to its place: nothing is left to be removed.
    Published,
}

/// A file that an earlier writer left.
#[derive(Debug)]
pub struct Left {
    pub partial: Partial,
    pub note: Note,
    /// Bytes in it.
    pub written: u64,
}

impl Downloads {
    /// Looks what an earlier life left, and removes what is of no use. Blocking.
    pub fn open(
        directory: &Directory,
        running: RunningTime,
        ledger: &Ledger,
    ) -> io::Result<Downloads> {
        let mut left = HashMap::new();
        for digest in directory.noted()? {
            let note = Note::read(&directory.note(&digest));
            let file = File::options().write(true).open(directory.download(&digest));
            let counted = note.as_ref().and_then(|note| note.written);
            let written = file.and_then(|file| give_back(&file, counted)).unwrap_or(0);
            let is_right =
                |note: &Note| written > 0 && note.size.is_none_or(|size| size >= written);
            if let Some(note) = note.filter(is_right) {
                let hold = ledger.hold_on_disk(on_disk(written));
                // Where the running time was lost, it may lie ahead.
                let since = note.begun.min(running.now());
                left.insert(digest, Claim::Left(since, note, hold));
            }
        }
        let files = |digest| [directory.download(digest), directory.note(digest)];
        directory.clear_downloads(&left.keys().flat_map(files).collect())?;
        let directory = directory.clone();
        let claims = Mutex::new(left);
        Ok(Downloads(Arc::new(Claims { directory, running, claims, released: Condvar::new() })))
    }

    /// Everything that is left, with its note.
    pub fn left(&self) -> Vec<(Digest, Note)> {
        let of = |(digest, claim): (&Digest, &Claim)| match claim {
            Claim::Left(_, note, _) => Some((digest.clone(), note.clone())),
            Claim::Writing | Claim::Removing => None,
        };
        self.lock().iter().filter_map(of).collect()
    }

    /// What is left with all its bytes, as far as its first writer knew how many those are. Blocking.
    pub fn whole(&self) -> Vec<(Repository, Digest)> {
        let is_whole = |(digest, note): &(Digest, Note)| {
            let written = fs::metadata(self.0.directory.download(digest));
            written.is_ok_and(|written| note.size == Some(written.len()))
        };
        let whole = self.left().into_iter().filter(is_whole);
        whole.map(|(digest, note)| (note.repository, digest)).collect()
    }

    /// Creates the file of a digest, in place of one that was left, with this room. Waits for the
    /// removal of an earlier one. Blocking.
    ///
    /// # Errors
    /// [`io::ErrorKind::AlreadyExists`] when another writer has the digest, or what the disk says.
    pub fn claim(&self, digest: &Digest, hold: Hold) -> io::Result<Partial> {
        self.take(digest)?;
        let path = self.0.directory.download(digest);
        let created = create(&path).inspect_err(|_| self.release(digest));
        Ok(self.partial(digest, created?, Fate::Removed, hold))
    }

    /// Whether a file of a digest was left that may be taken over.
    pub fn has_left(&self, digest: &Digest) -> bool {
        matches!(self.lock().get(digest), Some(Claim::Left(..)))
    }

    /// Takes over the file of a digest that was left. `None`: there is none. Blocking.
    ///
    /// # Errors
    /// What the disk says; the file is removed.
    pub fn take_over(&self, digest: &Digest) -> io::Result<Option<Left>> {
        let (note, hold) = match self.lock().get_mut(digest) {
            Some(claim @ Claim::Left(..)) => match std::mem::replace(claim, Claim::Writing) {
                Claim::Left(_, note, hold) => (note, hold),
                Claim::Writing | Claim::Removing => return Ok(None),
            },
            Some(Claim::Writing | Claim::Removing) | None => return Ok(None),
        };
        let path = self.0.directory.download(digest);
        let opened = File::options().read(true).write(true).open(&path);
        let opened = opened.and_then(|file| Ok((file.metadata()?.len(), file)));
        let (written, file) = opened.inspect_err(|_| self.remove(digest))?;
        let note = Note { begun: self.0.running.now(), written: None, ..note };
        // One that cannot be written only makes the file look older than it is to the next life.
        let _ = note.write(&self.0.directory.note(digest));
        let partial = self.partial(digest, file, Fate::Left(note.clone()), hold);
        Ok(Some(Left { partial, note, written }))
    }

    /// Removes what nobody went on with for long. Tells what each took up, in bytes. Blocking.
    pub fn remove_stale(&self) -> Vec<u64> {
        let now = self.0.running.now();
        let left = self.left_since();
        let stale = left.into_iter().filter(|(since, ..)| self.is_stale(*since, now));
        stale.filter_map(|(_, digest, _)| self.remove_if_left(&digest)).collect()
    }

    /// Removes what was left longest ago, until so many bytes are free. Tells what each took up.
    /// Blocking.
    pub fn remove_left(&self, bytes: u64) -> Vec<u64> {
        let mut removed = Vec::new();
        let mut left = self.left_since().into_iter();
        while removed.iter().sum::<u64>() < bytes
            && let Some((_, digest, _)) = left.next()
        {
            removed.extend(self.remove_if_left(&digest));
        }
        removed
    }

    /// What was left when, and what it takes up, in bytes; the oldest first.
    pub fn left_since(&self) -> Vec<(Moment, Digest, u64)> {
        let of = |(digest, claim): (&Digest, &Claim)| match claim {
            Claim::Left(since, _, hold) => Some((*since, digest.clone(), hold.bytes())),
            Claim::Writing | Claim::Removing => None,
        };
        let mut left: Vec<_> = self.lock().iter().filter_map(of).collect();
        left.sort_unstable();
        left
    }

    /// Whether what was left `since` is of no use `now`.
    pub fn is_stale(&self, since: Moment, now: Moment) -> bool {
        now.since(since) >= LIFE
    }

    /// Removes what was left of a digest, unless somebody has gone on with it. Tells what it took
    /// up. Blocking.
    pub fn remove_if_left(&self, digest: &Digest) -> Option<u64> {
        let claim = match self.lock().get_mut(digest) {
            Some(claim @ Claim::Left(..)) => std::mem::replace(claim, Claim::Removing),
            Some(Claim::Writing | Claim::Removing) | None => return None,
        };
        self.remove(digest);
        match claim {
            Claim::Left(_, _, hold) => Some(hold.bytes()),
            Claim::Writing | Claim::Removing => None,
        }
    }

    /// What somebody writes now.
    pub fn writing(&self) -> HashSet<Digest> {
        let claims = self.lock();
        let writing = claims.iter().filter(|(_, claim)| matches!(claim, Claim::Writing));
        writing.map(|(digest, _)| digest.clone()).collect()
    }

    fn partial(&self, digest: &Digest, file: File, fate: Fate, hold: Hold) -> Partial {
        Partial {
            file: Arc::new(file),
            path: self.0.directory.download(digest),
            digest: digest.clone(),
            downloads: self.clone(),
            fate: Mutex::new(fate),
            counted: Mutex::default(),
            hold: Mutex::new(hold),
        }
    }

    fn take(&self, digest: &Digest) -> io::Result<()> {
        let mut claims = self.lock();
        loop {
            match claims.get(digest) {
                None | Some(Claim::Left(..)) => break,
                Some(Claim::Writing) => return Err(io::ErrorKind::AlreadyExists.into()),
                Some(Claim::Removing) => {
                    let released = self.0.released.wait(claims);
                    claims = released.unwrap_or_else(PoisonError::into_inner);
                }
            }
        }
        claims.insert(digest.clone(), Claim::Writing);
        Ok(())
    }

    /// Removes file and note, and then lets others write the digest. Blocking.
    fn remove(&self, digest: &Digest) {
        for path in [self.0.directory.download(digest), self.0.directory.note(digest)] {
            if let Err(error) = fs::remove_file(&path)
                && error.kind() != io::ErrorKind::NotFound
            {
                tracing::warn!(path = %path.display(), %error, "cannot remove a partial download");
            }
        }
        self.release(digest);
    }

    fn release(&self, digest: &Digest) {
        self.lock().remove(digest);
        self.0.released.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Digest, Claim>> {
        self.0.claims.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Partial {
    /// The file.
    pub fn file(&self) -> &Arc<File> {
        &self.file
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The room that it has.
    pub fn hold(&self) -> MutexGuard<'_, Hold> {
        self.hold.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Leaves the file to the next writer, unless it is published. Blocking.
    ///
    /// # Errors
    /// When the note cannot be written.
    pub fn leave(&self, note: Note) -> io::Result<()> {
        if note.write(&self.downloads.0.directory.note(&self.digest))? {
            self.decide(Fate::Left(note));
        }
        Ok(())
    }

    /// The file is worth nothing.
    pub fn discard(&self) {
        self.decide(Fate::Removed);
    }

    /// The file has moved to its place. Blocking.
    pub fn published(&self) {
        self.decide(Fate::Published);
        // Without its file it is nobody's, and goes at the next start.
        let _ = fs::remove_file(self.downloads.0.directory.note(&self.digest));
    }

    /// Only so many bytes from the beginning count, whatever the file's length says. The next life may
    /// count some less. Blocking.
    ///
    /// # Errors
    /// When that cannot be noted.
    pub fn count_only(&self, bytes: u64) -> io::Result<()> {
        let mut counted = self.counted.lock().unwrap_or_else(PoisonError::into_inner);
        let noted = counted.map(|counted| counted.noted);
        let noted = match noted.filter(|noted| bytes.saturating_sub(*noted) < NOTED_STEP) {
            Some(noted) => noted,
            None => {
                self.note_written(Some(bytes))?;
                bytes
            }
        };
        *counted = Some(Counted { bytes, noted });
        Ok(())
    }

    /// All that the file has counts again. Blocking.
    ///
    /// # Errors
    /// When that cannot be noted.
    pub fn count_all(&self) -> io::Result<()> {
        self.note_written(None)?;
        *self.counted.lock().unwrap_or_else(PoisonError::into_inner) = None;
        Ok(())
    }

    fn note_written(&self, written: Option<u64>) -> io::Result<()> {
        let mut fate = self.fate.lock().unwrap_or_else(PoisonError::into_inner);
        if let Fate::Left(note) = &mut *fate {
            note.written = written;
            note.write(&self.downloads.0.directory.note(&self.digest))?;
        }
        Ok(())
    }

    fn decide(&self, fate: Fate) {
        *self.fate.lock().unwrap_or_else(PoisonError::into_inner) = fate;
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        let fate = self.fate.get_mut().unwrap_or_else(PoisonError::into_inner);
        let counted = self.counted.get_mut().unwrap_or_else(PoisonError::into_inner);
        let counted = counted.take().map(|counted| counted.bytes);
        match std::mem::replace(fate, Fate::Removed) {
            Fate::Published => self.downloads.release(&self.digest),
            Fate::Left(note) => match give_back(&self.file, counted) {
                Ok(written) if written > 0 => self.leave_with(note, written),
                Ok(_) | Err(_) => self.remove(),
            },
            Fate::Removed => self.remove(),
        }
    }
}

impl Partial {
    fn leave_with(&self, mut note: Note, written: u64) {
        if note.written.take().is_some() {
            // One that cannot be written tells of less than there is.
            let _ = note.write(&self.downloads.0.directory.note(&self.digest));
        }
        let mut hold = self.hold().take();
        hold.shrink(on_disk(written));
        let left = Claim::Left(self.downloads.0.running.now(), note, hold);
        self.downloads.lock().insert(self.digest.clone(), left);
    }

    /// Removes the file, on a blocking thread where there is one.
    fn remove(&self) {
        self.downloads.lock().insert(self.digest.clone(), Claim::Removing);
        let leftover = Leftover {
            downloads: self.downloads.clone(),
            digest: self.digest.clone(),
            _hold: self.hold().take(),
        };
        // The last handle on a large file frees its blocks when it goes.
        let file = Arc::clone(&self.file);
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn_blocking(move || drop((leftover, file)));
        }
    }
}

/// Goes with its file, also where no thread is left to run.
struct Leftover {
    downloads: Downloads,
    digest: Digest,
    _hold: Hold,
}

impl Drop for Leftover {
    fn drop(&mut self) {
        self.downloads.remove(&self.digest);
    }
}

/// Gives back what is reserved beyond the end, which moves no bytes, and tells how many there are. What
/// does not count goes with it. The next writer reserves anew; until then the room is everybody's.
fn give_back(file: &File, counted: Option<u64>) -> io::Result<u64> {
    let length = file.metadata()?.len();
    let written = counted.map_or(length, |counted| counted.min(length));
    file.set_len(written)?;
    Ok(written)
}

/// A leftover of the name is nobody's: the claim is ours.
fn create(path: &Path) -> io::Result<File> {
    let mut options = File::options();
    options.read(true).write(true).create_new(true);
    match options.open(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            fs::remove_file(path)?;
            options.open(path)
        }
        created => created,
    }
}
