//! Merging into a client's files: all of it is worked out before anything is written, each file
//! is replaced whole, and what was there is kept beside it.

use std::{
    fmt::Write as _,
    fs,
    io::{self, Write as _},
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, fchown},
    path::{Path, PathBuf},
};

use super::setup::{File, Mistake, below};

/// The mode of a file that was not there.
const NEW_MODE: u32 = 0o644;

/// The mode of a file that takes another's place until it has the mode of that.
const PRIVATE_MODE: u32 = 0o600;

/// One file, worked out.
pub(super) struct Merge {
    /// Where it really is, behind links.
    target: PathBuf,
    existing: Option<String>,
    merged: String,
}

/// Works out every file below `root`.
///
/// # Errors
/// When a file cannot be read or merged with. All of them are named, one a line.
pub(super) fn merges(files: &[File<'_>], root: &Path) -> io::Result<Vec<Merge>> {
    let mut merges = Vec::new();
    let mut mistakes = String::new();
    for file in files {
        let path = below(root, &file.path);
        match Merge::of(file, &path, root) {
            Ok(Some(merge)) => merges.push(merge),
            Ok(None) => {}
            Err(mistake) => {
                // Writing to a string does not fail.
                let _ = writeln!(mistakes, "{}{mistake}", path.display());
            }
        }
    }
    if !mistakes.is_empty() {
        mistakes.push_str("nothing was written");
        return Err(io::Error::other(mistakes));
    }
    Ok(merges)
}

/// Writes the files in turn, and says of each what was done. An error ends it.
pub(super) fn apply(merges: &[Merge]) -> (Vec<String>, Option<io::Error>) {
    let mut done = Vec::new();
    for merge in merges {
        match merge.apply() {
            Ok(line) => done.push(line),
            Err(error) => return (done, Some(error)),
        }
    }
    (done, None)
}

impl Merge {
    /// `None`: the file is not there, and need not be.
    fn of(file: &File<'_>, path: &Path, root: &Path) -> Result<Option<Merge>, Mistake> {
        let failed = |error: io::Error| Mistake::of_all(error.to_string());
        if leads_out(path, root) {
            return Err(Mistake::of_all(format!("a link leads out of {}", root.display())));
        }
        let (target, existing) = match fs::canonicalize(path) {
            Ok(target) => {
                let text = fs::read_to_string(&target).map_err(failed)?;
                (target, Some(text))
            }
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
            Err(_) if path.is_symlink() => {
                return Err(Mistake::of_all("a link to a file that is not there"));
            }
            Err(_) if !file.is_created => return Ok(None),
            Err(_) => (path.to_owned(), None),
        };
        let merged = file.merged_into(existing.as_deref().unwrap_or_default())?;
        Ok(Some(Merge { target, existing, merged }))
    }

    /// Writes the file unless it is as it should be, and says what was done.
    fn apply(&self) -> io::Result<String> {
        let target = self.target.display();
        let named = |error: io::Error| io::Error::new(error.kind(), format!("{target}: {error}"));
        match &self.existing {
            None => {
                self.replace().map_err(named)?;
                Ok(format!("wrote {target}"))
            }
            Some(existing) if *existing == self.merged => Ok(format!("unchanged {target}")),
            Some(_) => {
                let backup = self.back_up().map_err(named)?;
                self.replace().map_err(named)?;
                Ok(format!("merged {target}; the old one is {}", backup.display()))
            }
        }
    }

    /// Gives the file a second name, under which it stays when it is replaced.
    fn back_up(&self) -> io::Result<PathBuf> {
        let names = (0_u32..).map(|number| match number {
            0 => "bak".to_owned(),
            number => format!("bak.{number}"),
        });
        for name in names {
            let mut backup = self.target.clone().into_os_string();
            backup.push(format!(".{name}"));
            match fs::hard_link(&self.target, &backup) {
                Ok(()) => return Ok(backup.into()),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
        Err(io::ErrorKind::AlreadyExists.into())
    }

    /// Puts a new file in the place of the old one, with its owner and mode.
    fn replace(&self) -> io::Result<()> {
        let directory = self.target.parent().unwrap_or(Path::new("/"));
        fs::create_dir_all(directory)?;
        let mode = if self.existing.is_some() { PRIVATE_MODE } else { NEW_MODE };
        let mode = fs::Permissions::from_mode(mode);
        let file = tempfile::Builder::new().permissions(mode).tempfile_in(directory)?;
        file.as_file().write_all(self.merged.as_bytes())?;
        if self.existing.is_some() {
            let old = fs::metadata(&self.target)?;
            let new = file.as_file().metadata()?;
            if (old.uid(), old.gid()) != (new.uid(), new.gid()) {
                fchown(file.as_file(), Some(old.uid()), Some(old.gid()))?;
            }
            file.as_file().set_permissions(old.permissions())?;
        }
        file.as_file().sync_all()?;
        file.persist(&self.target).map_err(|error| error.error)?;
        Ok(())
    }
}

/// Whether a link on the way to `path` leads out of `root`, which may be another machine's.
fn leads_out(path: &Path, root: &Path) -> bool {
    let real = path.ancestors().find_map(|part| fs::canonicalize(part).ok());
    match (real, fs::canonicalize(root)) {
        (Some(real), Ok(root)) => !real.starts_with(root),
        // Nothing is there yet.
        (None, _) | (_, Err(_)) => false,
    }
}
