//! `RESULTS.md` and the README, in which every program has a part of its own.

use std::{fs, io, path::Path};

/// Puts a text in the place of what the program of this name wrote before; the rest stays.
pub fn write(program: &str, text: &str, results: &Path) -> io::Result<()> {
    let begin = format!("<!-- {program}: written by bench/{program} -->");
    let end = format!("<!-- {program}: end -->");
    let whole = fs::read_to_string(results)?;
    let parts = whole.split_once(&begin).and_then(|(before, rest)| {
        let (_, after) = rest.split_once(&end)?;
        Some((before, after))
    });
    let (before, after) =
        parts.ok_or_else(|| io::Error::other(format!("{} has no {begin}", results.display())))?;
    fs::write(results, format!("{before}{begin}\n{text}{end}{after}"))
}
