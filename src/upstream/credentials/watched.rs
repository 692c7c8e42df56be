//! A file that is read again after it has changed, as secrets that somebody rotates are.

use std::{
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use crate::upstream::SetupError;

/// How long a file is taken for unchanged after it was looked at.
const INTERVAL: Duration = Duration::from_secs(2);

/// What a file holds. A file that cannot be read or understood any more leaves what it held before,
/// with one warning.
pub(super) struct Watched<T> {
    path: PathBuf,
    /// Its error shows nothing of the content.
    read: fn(&Path) -> io::Result<T>,
    state: Mutex<State<T>>,
}

struct State<T> {
    content: Arc<T>,
    stamp: Stamp,
    looked_at: Instant,
    /// What has been wrong with the file since it was last read.
    mistake: Option<String>,
}

/// When a file is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum When {
    /// At most every [`INTERVAL`].
    Due,
    /// In any case.
    Now,
}

/// What changes when a file is written, or another is put in its place.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    size: u64,
    /// Modification and change, in seconds and nanoseconds.
    times: [i64; 4],
}

impl<T: Send + Sync + 'static> Watched<T> {
    /// Reads a file, which has to be in order to begin with.
    pub(super) fn open(
        path: &Path,
        read: fn(&Path) -> io::Result<T>,
    ) -> Result<Watched<T>, SetupError> {
        let opened = Stamp::of(path).and_then(|stamp| Ok((stamp, read(path)?)));
        let (stamp, content) =
            opened.map_err(|error| SetupError(format!("{}: {error}", path.display())))?;
        let state =
            State { content: Arc::new(content), stamp, looked_at: Instant::now(), mistake: None };
        Ok(Watched { path: path.to_owned(), read, state: Mutex::new(state) })
    }

    /// Where the file is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// What the file holds. Whoever comes while it is being read gets what it held before.
    pub(super) async fn content(&self, when: When) -> Arc<T> {
        if let Some(stamp) = self.begin_look(when) {
            let (path, read) = (self.path.clone(), self.read);
            let look = tokio::task::spawn_blocking(move || changed(&path, read, stamp));
            if let Ok(outcome) = look.await {
                self.note(outcome);
            }
        }
        Arc::clone(&self.lock().content)
    }

    /// The stamp to compare with, if it is time.
    fn begin_look(&self, when: When) -> Option<Stamp> {
        let mut state = self.lock();
        if when == When::Due && state.looked_at.elapsed() < INTERVAL {
            return None;
        }
        state.looked_at = Instant::now();
        Some(state.stamp)
    }

    fn note(&self, outcome: io::Result<Option<(Stamp, T)>>) {
        let path = self.path.display();
        let mut state = self.lock();
        let mistake = match outcome {
            Ok(None) => None,
            Ok(Some((stamp, content))) => {
                tracing::info!("{path} has changed; its new content is used");
                state.stamp = stamp;
                state.content = Arc::new(content);
                None
            }
            Err(error) => Some(error.to_string()),
        };
        if let Some(mistake) = mistake.as_ref().filter(|_| state.mistake != mistake) {
            tracing::warn!("{path}: {mistake}; going on with what it held before");
        }
        state.mistake = mistake;
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Stamp {
    fn of(path: &Path) -> io::Result<Stamp> {
        let file = fs::metadata(path)?;
        Ok(Stamp {
            inode: file.ino(),
            size: file.size(),
            times: [file.mtime(), file.mtime_nsec(), file.ctime(), file.ctime_nsec()],
        })
    }
}

/// The file's content and stamp, unless it is the file that `known` was taken of. The stamp is
/// taken before the content, so that a change in between is seen the next time.
fn changed<T>(
    path: &Path,
    read: fn(&Path) -> io::Result<T>,
    known: Stamp,
) -> io::Result<Option<(Stamp, T)>> {
    let stamp = Stamp::of(path)?;
    if stamp == known {
        return Ok(None);
    }
    Ok(Some((stamp, read(path)?)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::read_secret;

    #[tokio::test]
    async fn a_change_is_seen_when_asked_for() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("secret");
        fs::write(&path, "one\n").unwrap();
        let file = Watched::open(&path, read_secret).unwrap();
        fs::write(&path, "longer").unwrap();
        assert_eq!(*file.content(When::Due).await, "one");
        assert_eq!(*file.content(When::Now).await, "longer");
    }

    #[tokio::test]
    async fn a_file_that_is_gone_or_none_leaves_what_it_held() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("secret");
        fs::write(&path, "one").unwrap();
        let file = Watched::open(&path, read_secret).unwrap();
        fs::remove_file(&path).unwrap();
        assert_eq!(*file.content(When::Now).await, "one");
        fs::write(&path, "").unwrap();
        assert_eq!(*file.content(When::Now).await, "one");
        fs::write(&path, "two").unwrap();
        assert_eq!(*file.content(When::Now).await, "two");
    }

    #[test]
    fn a_file_that_is_missing_at_first_is_named() {
        let Err(error) = Watched::open(Path::new("/nowhere/secret"), read_secret) else {
            panic!("opened");
        };
        assert!(error.to_string().starts_with("/nowhere/secret: "), "{error}");
    }
}
