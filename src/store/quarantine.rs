//! `quarantine/`: what was found damaged, for whoever wants to know what became of it.
//!
//! Only the last few are kept, for all of it can be fetched again. Of the others an empty file stays,
//! by whose name a repair knows what is missing.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use super::Shared;
use crate::oci::Digest;

/// Damaged blobs that are kept for inspection.
const QUARANTINED_FILES: usize = 8;

/// What they may add up to, in bytes. A larger one is emptied at once.
const QUARANTINED_BYTES: u64 = 1024 * 1024 * 1024;

/// Or this part of what the data directory may hold: no cache is full of what nobody can use.
const QUARANTINED_PART: u64 = 10;

/// Empty files that stay; what is missing of more is fetched by the next pull.
const QUARANTINED_NAMES: usize = 1024;

impl Shared {
    /// What was set aside and is not here again, though something here needs it. Blocking.
    pub fn lacking(&self) -> io::Result<Vec<Digest>> {
        let entries = match fs::read_dir(self.directory.quarantine()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let mut lacking = Vec::new();
        for entry in entries {
            let digest = quarantined(&entry?);
            let is_lacking = |digest: &Digest| self.memory.look(|table| table.is_lacking(digest));
            lacking.extend(digest.filter(is_lacking));
        }
        lacking.sort_unstable();
        Ok(lacking)
    }

    /// Empties what has been in quarantine longest, until the rest is little. Blocking.
    pub fn trim_quarantine(&self) -> io::Result<()> {
        let (mut files, mut names) = (Vec::new(), Vec::new());
        for entry in fs::read_dir(self.directory.quarantine())? {
            let entry = entry?;
            let metadata = entry.metadata()?;
            // The time of the move: a file's content is as old as its last use.
            let moved_at = (metadata.ctime(), metadata.ctime_nsec());
            match metadata.len() {
                0 => names.push((moved_at, entry.path())),
                size => files.push((moved_at, size, entry.path())),
            }
        }
        files.sort();
        let most = QUARANTINED_BYTES.min(self.room.limits()?.max_size / QUARANTINED_PART);
        for path in surplus(files.into_iter().rev().map(|(_, size, path)| (size, path)), most) {
            remove_any(&path)?;
            File::create(&path)?;
        }
        names.sort();
        let surplus = names.len().saturating_sub(QUARANTINED_NAMES);
        for (_, path) in names.into_iter().take(surplus) {
            remove_any(&path)?;
        }
        self.room.look_anew();
        Ok(())
    }
}

/// Removes whatever is there, if anything is.
pub fn remove_any(path: &Path) -> io::Result<()> {
    let removed = match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

/// The digest that something in quarantine is named by.
fn quarantined(entry: &fs::DirEntry) -> Option<Digest> {
    entry.file_name().to_str()?.replacen('-', ":", 1).parse().ok()
}

/// Which of these files, the last that came first, are too many or too large.
fn surplus(files: impl Iterator<Item = (u64, PathBuf)>, most: u64) -> Vec<PathBuf> {
    let (mut kept, mut bytes) = (0, 0u64);
    let mut surplus = Vec::new();
    for (size, path) in files {
        let with_it = bytes.saturating_add(size);
        if kept < QUARANTINED_FILES && with_it <= most {
            (kept, bytes) = (kept + 1, with_it);
        } else {
            surplus.push(path);
        }
    }
    surplus
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_few_are_kept_and_little_of_them() {
        let gibibyte = QUARANTINED_BYTES;
        let kept = |sizes: &[u64]| {
            let files = sizes.iter().enumerate();
            let gone = surplus(files.map(|(n, size)| (*size, n.to_string().into())), gibibyte);
            let names = (0..sizes.len()).map(|n| PathBuf::from(n.to_string()));
            names.filter(|name| !gone.contains(name)).count()
        };
        assert_eq!(kept(&[]), 0);
        assert_eq!(kept(&[5; 12]), QUARANTINED_FILES);
        assert_eq!(kept(&[gibibyte]), 1);
        assert_eq!(kept(&[gibibyte + 1]), 0);
        assert_eq!(kept(&[gibibyte + 1, 7, 7]), 2);
        assert_eq!(kept(&[gibibyte / 2; 5]), 2);
        assert_eq!(kept(&[u64::MAX, gibibyte, u64::MAX]), 1);
    }
}
