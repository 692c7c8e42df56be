//! A new index in the place of the old one: a snapshot of the table, and an empty sled.
//!
//! Made beside the old one and then moved into its place by two renames. Whatever stops it, one
//! of the two indexes is found whole at the next start.

use std::{fs, io, path::Path};

use super::{
    Index, Trouble, guarded, remove_any, rows,
    snapshot::{self, Header},
};
use crate::{
    oci::Digest,
    store::{
        directory::{self, Directory},
        memory::Memory,
        peak::Day,
        running::Moment,
        table::Table,
    },
};

/// Makes the next index from the table. On failure nothing of it is left, and the table has
/// everything to tell that it had before. Blocking.
pub fn make(
    directory: &Directory,
    header: Header,
    day: Day,
    memory: &Memory,
    used: impl Fn(&[(Digest, Moment)]),
) -> Result<(), Trouble> {
    clear(directory)?;
    let next = directory.next_index();
    let made = fs::create_dir(&next).map_err(Trouble::from).and_then(|()| {
        memory.with(Table::begin_snapshot);
        let made = snapshot::write(&next, header, memory, used)
            .map_err(Trouble::from)
            .and_then(|()| make_sled(&next, header, day));
        memory.with(|table| match made {
            Ok(()) => table.end_snapshot(),
            Err(_) => table.abandon_snapshot(),
        });
        made
    });
    if made.is_err()
        && let Err(error) = remove(&next)
    {
        tracing::warn!(path = %next.display(), %error, "cannot remove an unfinished index");
    }
    made
}

/// Puts the next index in the place of the one that was closed. Blocking.
pub fn swap(directory: &Directory) -> io::Result<()> {
    let last = directory.last_index();
    fs::rename(directory.index(), &last)?;
    fs::rename(directory.next_index(), directory.index())?;
    directory::sync(directory.path())?;
    if let Err(error) = remove(&last) {
        tracing::warn!(path = %last.display(), %error, "cannot remove the last index");
    }
    Ok(())
}

/// Finishes or undoes what an earlier process was stopped in. Blocking.
pub fn settle(directory: &Directory) -> io::Result<()> {
    let (index, last) = (directory.index(), directory.last_index());
    if !index.try_exists()? && last.try_exists()? {
        fs::rename(&last, &index)?;
        directory::sync(directory.path())?;
    }
    clear(directory)
}

/// Removes what is not the index. Blocking.
pub fn clear(directory: &Directory) -> io::Result<()> {
    remove(&directory.last_index())?;
    remove(&directory.next_index())
}

fn make_sled(path: &Path, header: Header, day: Day) -> Result<(), Trouble> {
    let made = guarded(|| {
        let index = Index::open_database(path)?;
        index.meta.insert(b"snapshot", &header.number.to_le_bytes())?;
        index.meta.insert(b"running", rows::running_value(header.running))?;
        index.meta.insert(b"day", rows::day_value(day))?;
        index.database.flush()?;
        Ok(index)
    })?;
    if !made.close() {
        return Err(Trouble::Broken("sled panicked".to_owned()));
    }
    directory::sync(path).map_err(Trouble::from)
}

fn remove(path: &Path) -> io::Result<()> {
    match remove_any(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}
