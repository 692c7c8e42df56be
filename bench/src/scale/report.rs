//! The part of `RESULTS.md` that tells of scale.

use std::{
    fmt::{self, Write as _},
    path::Path,
};

use larder_bench::{machine, results};

use crate::{Failure, figures::Figures, images::Images};

/// Puts the figures in the place of the earlier ones.
pub fn write(images: &Images, figures: &Figures, results: &Path) -> Result<(), Failure> {
    Ok(results::write("scale", &section(images, figures)?, results)?)
}

fn section(images: &Images, figures: &Figures) -> Result<String, fmt::Error> {
    let mut text = String::new();
    writeln!(
        text,
        "{} blobs, {} tags, {} repositories; {}\n",
        images.blobs(),
        images.count(),
        images.repositories(),
        machine::text(),
    )?;
    writeln!(text, "| what | figure |\n|---|---|")?;
    for (of, value) in figures.iter() {
        writeln!(text, "| {of} | {value} |")?;
    }
    Ok(text)
}
