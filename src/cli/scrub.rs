//! `larder scrub`

use std::{
    fmt,
    io::{self, Write as _},
    process::ExitCode,
};

use bytesize::ByteSize;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    content::{self, Failure, Place, Question},
    events,
};

#[derive(clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    place: Place,
    /// Fetch again what is damaged
    #[arg(long)]
    repair: bool,
    /// Print JSON, one line for each finding and one at the end
    #[arg(long)]
    json: bool,
    /// Only this image (docker.io/library/nginx:latest) or digest, and all below it
    #[arg(value_name = "IMAGE")]
    of: Option<String>,
}

/// What the daemon tells of a finding.
#[derive(Deserialize)]
#[serde(untagged)]
enum Finding {
    Damaged { digest: String, damage: String, repaired: Option<bool>, reason: Option<String> },
    Stray { stray: String },
}

/// What it tells at the end.
#[derive(Deserialize)]
struct Tally {
    blobs: u64,
    bytes: u64,
    damaged: u64,
    repaired: u64,
}

/// Exits with 1 when something is damaged that is not repaired.
pub(super) fn scrub(arguments: &Arguments) -> ExitCode {
    let body = json!({ "repair": arguments.repair, "of": arguments.of });
    let question = Question::change("/api/v1/scrub", &body);
    let scrubbed = content::ask(&arguments.place, question, async |answer| {
        let done = events::follow(answer, |finding| arguments.show::<Finding>(finding)).await?;
        let tally: Tally = read(done.clone())?;
        arguments.show::<Tally>(done)?;
        Ok(tally)
    });
    match scrubbed {
        Ok(tally) if tally.damaged > tally.repaired => ExitCode::FAILURE,
        Ok(_) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

impl Arguments {
    /// Prints a document as it is, or what it says.
    fn show<T>(&self, document: Value) -> Result<(), Failure>
    where
        T: for<'de> Deserialize<'de> + ToString,
    {
        let line = match self.json {
            true => document.to_string(),
            false => read::<T>(document)?.to_string(),
        };
        writeln!(io::stdout(), "{line}").map_err(Failure::failed)
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Finding::Stray { stray } => write!(f, "stray: {stray}"),
            Finding::Damaged { digest, damage, repaired, reason } => {
                write!(f, "damaged: {digest}: {damage}")?;
                match (repaired, reason) {
                    (Some(true), _) => f.write_str("; fetched again"),
                    (Some(false), Some(reason)) => write!(f, "; cannot be fetched now: {reason}"),
                    (Some(false), None) => f.write_str("; cannot be fetched now"),
                    (None, _) => f.write_str("; the next pull fetches it again"),
                }
            }
        }
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = ByteSize::b(self.bytes).display().iec();
        write!(f, "{} blobs of {bytes} examined, {} damaged", self.blobs, self.damaged)?;
        if self.damaged > 0 {
            write!(f, ", {} of them repaired", self.repaired)?;
        }
        Ok(())
    }
}

fn read<T: for<'de> Deserialize<'de>>(document: Value) -> Result<T, Failure> {
    let read = serde_json::from_value(document);
    read.map_err(|error| Failure::failed(format_args!("the daemon is not understood: {error}")))
}
