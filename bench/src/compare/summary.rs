//! The few figures that the README shows.

use std::fmt::{self, Write as _};

use crate::{report::number, rivals::Rival, rounds::Found};

/// Whose.
const RIVALS: [Rival; 4] = [Rival::Larder, Rival::Nginx, Rival::Distribution, Rival::Drayage];

/// Row, measure and unit, and what the README calls it.
const LINES: [(&str, &str, &str, &str); 12] = [
    ("blobs", "8 connections", "MB/s", "blob hit, 8 connections"),
    ("blobs", "8 connections, processor time", "s/GB", "its processor time"),
    ("tls", "HTTP/1.1, 8 connections", "MB/s", "the same over TLS"),
    ("manifests", "GET by tag", "/s", "manifest hit by tag"),
    ("manifests", "GET by tag, processor time", "µs", "its processor time"),
    ("disk", "manifest hit, p99", "ms", "manifest hit while the disk is busy, p99"),
    ("fill", "throughput", "MB/s", "cold blob, one client"),
    (
        "herd",
        "GETs upstream",
        "",
        "32 clients, one cold blob of 64 MiB, upstream 100 MB/s: GETs upstream",
    ),
    ("herd", "first byte, p99", "ms", "first byte, p99"),
    ("herd", "all done after", "s", "all done after"),
    ("herd256", "peak memory, warm", "MiB", "memory with 256 clients"),
    ("nodes", "all pulled after", "s", "1,000 images × 50 nodes, all pulled after"),
];

/// A table.
pub fn table(found: &[Found]) -> Result<String, fmt::Error> {
    let mut text = String::from("\n|");
    RIVALS.iter().try_for_each(|rival| write!(text, " | {}", rival.name()))?;
    writeln!(text, " |\n|---{}|", "|---".repeat(RIVALS.len()))?;
    for (row, of, unit, name) in LINES {
        let Some(Found { figures, .. }) = found.iter().find(|found| found.row.name == row) else {
            continue;
        };
        let unit = if unit.is_empty() { String::new() } else { format!(", {unit}") };
        write!(text, "| {name}{unit} |")?;
        for rival in RIVALS {
            let figure = figures.median(of, rival);
            write!(text, " {} |", figure.map_or("–".to_owned(), number))?;
        }
        writeln!(text)?;
    }
    writeln!(text)?;
    Ok(text)
}
