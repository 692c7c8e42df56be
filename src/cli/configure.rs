//! `larder configure`: what a client has to be told so that it pulls through Larder.
//!
//! Each client is a function from mirror and registries to files and notes. A file is what its
//! format's module makes of the text that is there; printed, it is made of nothing.

mod buildkit;
mod containerd;
mod containerd_toml;
mod daemon_json;
mod docker;
mod hosts_toml;
mod k3s;
mod mirror;
mod registries_conf;
mod registry;
mod setup;
mod toml_text;
mod write;

use std::{
    io::{self, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
};

use super::{Common, refuse};
use crate::config::Config;
use mirror::Mirror;
use registry::Registry;
use setup::{Setup, Site};

#[derive(clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    common: Common,
    /// Whose configuration
    client: Client,
    /// Where clients reach the mirror, such as http://larder.lan:5000
    #[arg(long, value_name = "URL")]
    mirror: Mirror,
    /// Merge into the files below this directory (/ for this machine) instead of printing them
    #[arg(long, value_name = "DIRECTORY")]
    write: Option<PathBuf>,
}

/// The clients that can be configured.
#[derive(Clone, Copy, clap::ValueEnum)]
enum Client {
    /// Docker Engine
    Docker,
    /// containerd, for Kubernetes, nerdctl and ctr
    Containerd,
    /// Podman, Buildah and Skopeo
    Podman,
    /// CRI-O
    Crio,
    /// BuildKit's daemon
    Buildkit,
    /// K3s and RKE2
    K3s,
}

impl Client {
    fn setup(self, site: &Site) -> Setup<'_> {
        match self {
            Client::Docker => docker::setup(site),
            Client::Containerd => containerd::setup(site),
            Client::Podman => registries_conf::podman(site),
            Client::Crio => registries_conf::crio(site),
            Client::Buildkit => buildkit::setup(site),
            Client::K3s => k3s::setup(site),
        }
    }
}

pub(super) fn configure(arguments: Arguments) -> ExitCode {
    let config = match Config::load(&arguments.common.sources()) {
        Ok(config) => config,
        Err(error) => return refuse(&error),
    };
    let registries = config.upstreams.iter().map(Registry::of).collect();
    let site = Site { mirror: arguments.mirror, registries, root: arguments.write };
    let setup = arguments.client.setup(&site);
    let done = match &site.root {
        None => print(&setup),
        Some(root) => write(&setup, root),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Without a standard error there is only the exit code.
            let _ = writeln!(io::stderr(), "{error}");
            ExitCode::FAILURE
        }
    }
}

/// Prints every file as it would be written where there is none, then the notes.
fn print(setup: &Setup<'_>) -> io::Result<()> {
    let mut output = io::stdout().lock();
    for file in setup.files.iter().filter(|file| file.is_created) {
        let content = file.merged_into("").map_err(io::Error::other)?;
        writeln!(output, "# file: {}\n{content}", file.path)?;
    }
    print_notes(setup, &mut output)
}

/// Merges every file, then says of each what was done, and prints the notes.
fn write(setup: &Setup<'_>, root: &Path) -> io::Result<()> {
    let merges = write::merges(&setup.files, root)?;
    // Nobody who stops reading stops the writing.
    let (done, failed) = write::apply(&merges);
    let mut output = io::stdout().lock();
    for line in done {
        writeln!(output, "{line}")?;
    }
    failed.map_or(Ok(()), Err)?;
    writeln!(output)?;
    print_notes(setup, &mut output)
}

fn print_notes(setup: &Setup<'_>, output: &mut impl io::Write) -> io::Result<()> {
    for (number, note) in setup.notes.iter().enumerate() {
        if number > 0 {
            writeln!(output, "#")?;
        }
        for line in note.lines() {
            writeln!(output, "{}", format!("# {line}").trim_end())?;
        }
    }
    Ok(())
}
