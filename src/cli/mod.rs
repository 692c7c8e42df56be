//! The command line: one small file per subcommand.

mod check;
mod configure;
mod confirm;
mod content;
mod doctor;
mod document;
mod du;
mod events;
mod logging;
mod ls;
mod names;
mod pin;
mod remove;
mod scrub;
mod serve;
mod shown;
mod sweep;
mod table;
mod warnings;

use std::{
    collections::BTreeMap,
    fmt::Display,
    io::{self, Write as _},
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};

use clap::Parser;

use crate::config::Sources;

/// How long tasks that are dropped at the end of a process may take for it.
const LAST_WORK: Duration = Duration::from_millis(200);

/// Exit code for usage, configuration and everything else that stands in the way of a start.
const USAGE: u8 = 2;

/// A pull-through caching mirror for container registries
#[derive(Parser)]
#[command(name = "larder", version)]
enum Command {
    /// Serve the mirror until SIGTERM or SIGINT
    Serve(serve::Arguments),
    /// Check the configuration and say what is wrong with it
    Check(check::Arguments),
    /// Try everything that a pull needs and say what is wrong, with the daemon running or not
    Doctor(doctor::Arguments),
    /// Print or write what a client has to be told
    Configure(configure::Arguments),
    /// List the images that are kept
    Ls(ls::Arguments),
    /// Tell what the disk is used for
    Du(du::Arguments),
    /// Read and hash now all that is kept, and say what is damaged
    Scrub(scrub::Arguments),
    /// Remove now what nobody pulls any more
    Sweep(sweep::Arguments),
    /// Keep images, however long nobody pulls them and however scarce room is
    Pin(pin::Arguments),
    /// Let go of images that are pinned
    Unpin(pin::Arguments),
    /// Remove images and repositories
    Rm(remove::Arguments),
}

/// Options of every subcommand.
#[derive(clap::Args)]
struct Common {
    /// Configuration file [default: none, or $LARDER_CONFIG]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// Does what the arguments of this process ask for. Exit codes: 0 done, 1 failed, 2 usage.
pub fn main() -> ExitCode {
    match Command::parse() {
        Command::Serve(arguments) => serve::serve(arguments),
        Command::Check(arguments) => check::check(&arguments),
        Command::Doctor(arguments) => doctor::doctor(&arguments),
        Command::Configure(arguments) => configure::configure(arguments),
        Command::Ls(arguments) => ls::ls(&arguments),
        Command::Du(arguments) => du::du(&arguments),
        Command::Scrub(arguments) => scrub::scrub(&arguments),
        Command::Sweep(arguments) => sweep::sweep(&arguments),
        Command::Pin(arguments) => pin::pin(&arguments),
        Command::Unpin(arguments) => pin::unpin(&arguments),
        Command::Rm(arguments) => remove::remove(&arguments),
    }
}

impl Common {
    /// The configuration's sources: this process's environment, the file, and no flags yet.
    fn sources(&self) -> Sources {
        let env: BTreeMap<String, String> = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        Sources { file: self.config.clone(), env, flags: BTreeMap::new() }
    }
}

/// Says on standard error why a subcommand cannot begin.
fn refuse(reason: &dyn Display) -> ExitCode {
    // Without a standard error there is only the exit code.
    let _ = writeln!(io::stderr(), "{reason}");
    ExitCode::from(USAGE)
}
