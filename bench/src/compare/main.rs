//! Compares Larder with the caches that a user can get; `bench/compare` installs them, builds what
//! is needed and calls this.
//!
//! [`rows`] say what is measured, [`rivals`] who is, [`rounds`] take them in turn. Every
//! measurement starts a [`server`] of its own with an empty cache, so that none inherits what
//! another left. [`load`] asks, [`bench`] knows what is asked for, [`figures`] keeps medians and
//! goals, [`report`] tells all of it, [`summary`] a little.

mod bench;
mod contents;
mod figures;
mod load;
mod neighbours;
mod report;
mod rivals;
mod rounds;
mod rows;
mod server;
mod service;
mod summary;

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
};

use clap::Parser;
use larder_bench::results;

use crate::{
    bench::Bench,
    load::Load,
    neighbours::Neighbours,
    rivals::{Identity, Programs, Rival},
    rounds::Found,
    rows::Row,
};

/// What any step may fail with, for the person who reads it.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Compares Larder with nginx and other caches.
#[derive(Parser)]
#[command(name = "bench/compare")]
struct Options {
    /// How often everything is measured; the median counts
    #[arg(long, default_value_t = 3, value_name = "N")]
    rounds: usize,
    /// Rows to measure, with commas; RESULTS.md and README.md then stay as they are
    #[arg(long, value_delimiter = ',', value_name = "ROW", value_parser = row)]
    rows: Vec<&'static Row>,
    /// Rivals to measure, with commas; RESULTS.md and README.md then stay as they are
    #[arg(long, value_delimiter = ',', value_name = "RIVAL", value_parser = rival)]
    rivals: Vec<Rival>,
    /// Larder
    #[arg(long, value_name = "PROGRAM")]
    larder: PathBuf,
    /// The load client, upstream and relay
    #[arg(long, value_name = "PROGRAM", hide = true)]
    load: PathBuf,
    /// drayage
    #[arg(long, value_name = "PROGRAM", hide = true)]
    drayage: PathBuf,
    /// An empty directory, which grows to some gigabytes
    #[arg(long, value_name = "DIRECTORY", hide = true)]
    directory: PathBuf,
    /// Where the figures of a whole run go
    #[arg(long, value_name = "FILE", hide = true)]
    results: PathBuf,
    /// Where some of them go too
    #[arg(long, value_name = "FILE", hide = true)]
    readme: PathBuf,
}

fn main() -> ExitCode {
    match run(Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("compare: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: Options) -> Result<(), Failure> {
    let whole = options.rows.is_empty() && options.rivals.is_empty();
    let rows = if options.rows.is_empty() { rows::ALL.to_vec() } else { options.rows };
    let rivals = if options.rivals.is_empty() { Rival::ALL.to_vec() } else { options.rivals };
    let identity = identity(&options.directory)?;
    let programs = Programs { larder: options.larder, drayage: options.drayage };
    let load = Load { program: options.load };
    let neighbours = Neighbours::watch()?;
    let bench = Bench::open(&programs, load, identity, options.directory)?;
    let found = rounds::run(&bench, &rows, &rivals, options.rounds);
    drop(bench);
    let section = report::section(&found, options.rounds, &programs, neighbours.share()?)?;
    print!("{section}");
    if whole {
        results::write("compare", &section, &options.results)?;
        results::write("compare", &summary::table(&found)?, &options.readme)?;
    }
    larder_served(&found)
}

/// An error if Larder itself could not be measured.
fn larder_served(found: &[Found]) -> Result<(), Failure> {
    let failed = |found: &&Found| found.failures.iter().any(|(who, _)| *who == Rival::Larder);
    match found.iter().find(failed) {
        Some(found) => Err(format!("Larder failed at {:?}", found.row.title).into()),
        None => Ok(()),
    }
}

/// A certificate for the loopback address that is its own issuer.
fn identity(directory: &Path) -> Result<Identity, Failure> {
    fs::create_dir_all(directory)?;
    let [certificate, key] = ["certificate.pem", "key.pem"].map(|name| directory.join(name));
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"])
        .args(["-days", "30", "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"])
        .args(["-addext", "basicConstraints=critical,CA:FALSE", "-keyout"])
        .arg(&key)
        .arg("-out")
        .arg(&certificate)
        .stderr(Stdio::null())
        .status()?;
    made.success().then_some(Identity { certificate, key }).ok_or_else(|| "no certificate".into())
}

fn row(name: &str) -> Result<&'static Row, String> {
    let known = rows::ALL.map(|row| row.name).join(", ");
    let found = rows::ALL.into_iter().find(|row| row.name == name);
    found.ok_or_else(|| format!("there are {known}"))
}

fn rival(name: &str) -> Result<Rival, String> {
    let known = Rival::ALL.map(Rival::name).join(", ");
    let found = Rival::ALL.into_iter().find(|rival| rival.name() == name);
    found.ok_or_else(|| format!("there are {known}"))
}
