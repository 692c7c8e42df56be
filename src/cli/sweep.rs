//! `larder sweep`

use std::{
    io::{self, IsTerminal as _, Write as _},
    process::ExitCode,
    time::Duration,
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
    /// Remove nothing; say what would go, and why
    #[arg(long)]
    dry_run: bool,
    /// Print one JSON object a line, the totals last
    #[arg(long)]
    json: bool,
}

/// One thing that would go: see `POST /api/v1/sweep`.
#[derive(Deserialize)]
struct Going {
    digest: String,
    names: Vec<String>,
    bytes: u64,
    unused_seconds: u64,
    reason: String,
}

/// What went, or would.
#[derive(Deserialize)]
struct Totals {
    blobs: u64,
    bytes: u64,
}

pub(super) fn sweep(arguments: &Arguments) -> ExitCode {
    let body = json!({ "dry_run": arguments.dry_run });
    let question = Question::change("/api/v1/sweep", &body);
    let mut heading = heading(arguments);
    let swept = content::ask(&arguments.place, question, async |answer| {
        let found = |finding: Value| {
            let row = if arguments.json { finding.to_string() } else { row(finding)? };
            heading.take().into_iter().try_for_each(print)?;
            print(row)
        };
        let done = events::follow(answer, found).await?;
        print(if arguments.json { done.to_string() } else { total(done, arguments.dry_run)? })
    });
    match swept {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

/// Above the first row, for who reads it on a terminal.
fn heading(arguments: &Arguments) -> Option<String> {
    let is_read = !arguments.json && io::stdout().is_terminal();
    is_read.then(|| line("REASON", "SIZE", "UNUSED", "DIGEST", "NAMES"))
}

fn row(finding: Value) -> Result<String, Failure> {
    let going: Going = serde_json::from_value(finding).map_err(Failure::not_understood)?;
    let (size, unused) = (ByteSize(going.bytes).display().iec(), shown(going.unused_seconds));
    let names = going.names.join(" ");
    Ok(line(&going.reason, &size.to_string(), &unused, &going.digest, &names))
}

fn total(done: Value, dry_run: bool) -> Result<String, Failure> {
    let Totals { blobs, bytes } = serde_json::from_value(done).map_err(Failure::not_understood)?;
    let verb = if dry_run { "would remove" } else { "removed" };
    Ok(format!("{verb} {blobs} blobs, {}", ByteSize(bytes).display().iec()))
}

fn line(reason: &str, size: &str, unused: &str, digest: &str, names: &str) -> String {
    let line = format!("{reason:<8}  {size:>10}  {unused:>10}  {digest:<71}  {names}");
    line.trim_end().to_owned()
}

/// The two largest units of a time.
fn shown(seconds: u64) -> String {
    let text = humantime::format_duration(Duration::from_secs(seconds)).to_string();
    text.split(' ').take(2).collect::<Vec<_>>().join(" ")
}

fn print(line: String) -> Result<(), Failure> {
    writeln!(io::stdout(), "{line}").map_err(Failure::failed)
}
