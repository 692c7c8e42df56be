//! Measures Larder with very many blobs; `bench/scale` builds and calls it.
//!
//! Every phase is a process of its own, so that its memory and processor time are its own: this
//! program calls itself as `scale phase <name> <images> <directory>`, and reads from its output
//! a line for each figure.

mod client;
mod daemon;
mod figures;
mod images;
mod phases;
mod report;

use std::{
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
};

use crate::{figures::Figures, images::Images};

/// What any step may fail with, for the person who reads it.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match arguments.as_slice() {
        ["run", images, directory, larder, results] => {
            parse(images).and_then(|images| run(&images, directory, larder, results))
        }
        ["phase", name, images, directory] => {
            parse(images).and_then(|images| phases::run(name, &images, Path::new(directory)))
        }
        _ => Err("usage: bench/scale [images]".into()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("scale: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn parse(images: &str) -> Result<Images, Failure> {
    Images::new(images.parse()?)
}

/// The phases in order; each finds the directory as the one before left it.
fn run(images: &Images, directory: &str, larder: &str, results: &str) -> Result<(), Failure> {
    let data_dir = PathBuf::from(directory).join("data");
    let mut figures = Figures::default();
    for name in ["files", "build"] {
        figures.extend(phase(name, images, &data_dir)?);
    }
    figures.extend(daemon::starts(images, larder, &data_dir)?);
    figures.extend(daemon::look_ups(images, larder, &data_dir)?);
    figures.extend(daemon::commands(images, larder, &data_dir)?);
    for name in ["look-ups", "touches", "loss"] {
        figures.extend(phase(name, images, &data_dir)?);
    }
    report::write(images, &figures, Path::new(results))
}

/// Runs one phase in a process of its own.
fn phase(name: &str, images: &Images, data_dir: &Path) -> Result<Figures, Failure> {
    eprintln!("== {name}");
    let mut child = Command::new(std::env::current_exe()?)
        .args(["phase", name, &images.count().to_string()])
        .arg(data_dir)
        .stdout(Stdio::piped())
        .spawn()?;
    let output = child.stdout.take().ok_or("no output")?;
    let mut figures = Figures::default();
    for line in BufReader::new(output).lines() {
        figures.read(&line?)?;
    }
    if !child.wait()?.success() {
        return Err(format!("the phase {name:?} failed").into());
    }
    Ok(figures)
}
