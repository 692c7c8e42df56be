//! `larder sweep`

use std::process::ExitCode;

use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    content::{self, Failure, Place, Question},
    document, events,
    shown::{age, count, short, size},
    table::{Column, Table},
};

#[derive(clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    place: Place,
    /// Remove nothing; say what would go, and why
    #[arg(long)]
    dry_run: bool,
    /// Print one JSON document a line, the totals last
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
    let swept = content::ask(&arguments.place, question, async |answer| match arguments.json {
        true => {
            let found = |finding: Value| document::print_line(&finding.to_string());
            let done = events::follow(answer, found).await?;
            document::print_line(&done.to_string())
        }
        false => {
            let mut going = Vec::new();
            let found = |finding: Value| {
                going.push(document::understood::<Going>(&finding)?);
                Ok(())
            };
            let done = events::follow(answer, found).await?;
            show(&going, &document::understood(&done)?, arguments.dry_run)
        }
    });
    content::told(swept)
}

fn show(going: &[Going], totals: &Totals, dry_run: bool) -> Result<(), Failure> {
    if !going.is_empty() {
        table(going).print()?;
    }
    let verb = if dry_run { "would remove" } else { "removed" };
    document::print_line(&format!("{verb} {}, {}", count(totals.blobs, "blob"), size(totals.bytes)))
}

fn table(going: &[Going]) -> Table {
    let mut table = Table::new(&[
        Column::Left("REASON"),
        Column::Left("DIGEST"),
        Column::Right("SIZE"),
        Column::Right("UNUSED"),
        Column::Left("NAMES"),
    ]);
    for Going { digest, names, bytes, unused_seconds, reason } in going {
        let (digest, unused) = (short(digest), age(*unused_seconds));
        table.add(vec![reason.clone(), digest, size(*bytes), unused, names.join(" ")]);
    }
    table
}
