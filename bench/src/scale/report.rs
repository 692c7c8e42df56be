//! The part of `RESULTS.md` that tells of scale. What others write there stays.

use std::{fmt::Write as _, fs, path::Path, process::Command};

use crate::{Failure, figures::Figures, images::Images};

const BEGIN: &str = "<!-- scale: written by bench/scale -->";
const END: &str = "<!-- scale: end -->";

/// Puts the figures in the place of the earlier ones.
pub fn write(images: &Images, figures: &Figures, results: &Path) -> Result<(), Failure> {
    let whole = fs::read_to_string(results)?;
    let parts = whole.split_once(BEGIN).and_then(|(before, rest)| {
        let (_, after) = rest.split_once(END)?;
        Some((before, after))
    });
    let (before, after) = parts.ok_or("RESULTS.md has no place for the figures")?;
    fs::write(results, format!("{before}{BEGIN}\n{}{END}{after}", section(images, figures)?))?;
    Ok(())
}

fn section(images: &Images, figures: &Figures) -> Result<String, Failure> {
    let mut text = String::new();
    writeln!(
        text,
        "{} blobs, {} tags, {} repositories; {}; larder {}, {}; {}\n",
        images.blobs(),
        images.count(),
        images.repositories(),
        output("date", &["--utc", "+%F"]),
        output("git", &["rev-parse", "--short", "HEAD"]),
        output("rustc", &["--version"]),
        machine()?,
    )?;
    writeln!(text, "| what | figure |\n|---|---|")?;
    for (of, value) in figures.iter() {
        writeln!(text, "| {of} | {value} |")?;
    }
    Ok(text)
}

/// Processors, memory and kernel.
fn machine() -> Result<String, Failure> {
    let processors = fs::read_to_string("/proc/cpuinfo")?;
    let models = processors.lines().filter_map(|line| line.strip_prefix("model name"));
    let models: Vec<&str> =
        models.filter_map(|line| line.split_once(": ")).map(|(_, model)| model).collect();
    let memory = fs::read_to_string("/proc/meminfo")?;
    let memory = memory.lines().next().and_then(|line| line.split_whitespace().nth(1));
    let gib = memory.and_then(|kib| kib.parse::<u64>().ok()).unwrap_or_default() >> 20;
    let kernel = output("uname", &["-sr"]);
    Ok(format!("{} × {}, {gib} GiB, {kernel}", models.len(), models.first().unwrap_or(&"unknown")))
}

/// What a command says, or that it does not.
fn output(command: &str, arguments: &[&str]) -> String {
    let output = Command::new(command).args(arguments).output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    text.unwrap_or_else(|_| "unknown".to_owned())
}
