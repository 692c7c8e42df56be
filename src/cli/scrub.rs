//! `larder scrub`

use std::{fmt, process::ExitCode};

use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    content::{self, Failure, Place, Question},
    document, events, names,
    shown::{count, size},
};
use crate::{config::Config, oci::Digest};

#[derive(clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    place: Place,
    /// Fetch again at once what is damaged, or was found so before; without, the next pull does
    #[arg(long)]
    repair: bool,
    /// Print one JSON document a line, the totals last
    #[arg(long)]
    json: bool,
    /// Only this image, as Docker names it, or digest, and all below it
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

/// Exits with 1 when something is damaged that is not repaired, or nobody heard the end of it.
pub(super) fn scrub(arguments: &Arguments) -> ExitCode {
    try_scrub(arguments).unwrap_or_else(Failure::report)
}

fn try_scrub(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let of = match &arguments.of {
        Some(text) => Some(subject(text, &arguments.place.config()?)?),
        None => None,
    };
    let body = json!({ "repair": arguments.repair, "of": of });
    let question = Question::change("/api/v1/scrub", &body);
    let scrubbed = content::ask(&arguments.place, question, async |answer| {
        let done = events::follow(answer, |finding| arguments.show::<Finding>(&finding)).await?;
        arguments.show::<Tally>(&done)?;
        document::understood::<Tally>(&done)
    });
    Ok(match scrubbed? {
        Tally { damaged, repaired, .. } if damaged > repaired => ExitCode::FAILURE,
        _ => ExitCode::SUCCESS,
    })
}

/// An image by its full name; a digest as it is.
fn subject(text: &str, config: &Config) -> Result<String, Failure> {
    match text.parse::<Digest>() {
        Ok(digest) => Ok(digest.to_string()),
        Err(_) => Ok(names::image(text, config)?.to_string()),
    }
}

impl Arguments {
    /// Prints a document as it is, or what it says.
    fn show<T>(&self, document: &Value) -> Result<(), Failure>
    where
        T: for<'de> Deserialize<'de> + ToString,
    {
        document::print_line(&match self.json {
            true => document.to_string(),
            false => document::understood::<T>(document)?.to_string(),
        })
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
        let (blobs, bytes) = (count(self.blobs, "blob"), size(self.bytes));
        write!(f, "{blobs} of {bytes} examined, {} damaged", self.damaged)?;
        if self.damaged > 0 {
            write!(f, ", {} of them repaired", self.repaired)?;
        }
        Ok(())
    }
}
