//! `larder du`

use std::process::ExitCode;

use serde::Deserialize;

use super::{
    content::{self, Failure, Place, Question},
    document,
    shown::{count, size},
    table::{Column, Table},
};

#[derive(clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    place: Place,
    /// What blobs are counted by
    #[arg(long, value_name = "WHAT", default_value = "registry")]
    #[arg(value_parser = ["registry", "repository"])]
    by: String,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

/// The answer.
#[derive(Deserialize)]
struct Usage {
    users: Vec<User>,
    held: Totals,
    shared: Totals,
    unused: Totals,
    downloads_bytes: u64,
    left_downloads_bytes: u64,
    quarantine_bytes: u64,
    index_bytes: u64,
    damaged_indexes_bytes: u64,
    other_bytes: u64,
    total_bytes: u64,
    reclaimable_bytes: u64,
    max_size_bytes: u64,
    disk_bytes: u64,
    free_bytes: u64,
    min_free_bytes: u64,
}

#[derive(Deserialize)]
struct User {
    registry: String,
    repository: Option<String>,
    images: u64,
    bytes: u64,
    unique_bytes: u64,
}

#[derive(Clone, Copy, Deserialize)]
struct Totals {
    blobs: u64,
    bytes: u64,
}

pub(super) fn du(arguments: &Arguments) -> ExitCode {
    content::told(try_du(arguments))
}

fn try_du(arguments: &Arguments) -> Result<(), Failure> {
    let question = Question::get(&format!("/api/v1/usage?by={}", arguments.by));
    let usage = content::ask(&arguments.place, question, document::read)?;
    match arguments.json {
        true => document::print(&usage),
        false => show(&document::understood(&usage)?),
    }
}

fn show(usage: &Usage) -> Result<(), Failure> {
    let columns = ["IMAGES", "SIZE", "UNIQUE"].map(Column::Right);
    let mut users = Table::new(&[&[Column::Left("USED BY")], columns.as_slice()].concat());
    for user in &usage.users {
        let name = user.repository.as_ref().map(|name| format!("{}/{name}", user.registry));
        users.add(vec![
            name.unwrap_or_else(|| user.registry.clone()),
            user.images.to_string(),
            size(user.bytes),
            size(user.unique_bytes),
        ]);
    }
    users.print()?;
    document::print_line("")?;
    parts(usage).print()
}

fn parts(usage: &Usage) -> Table {
    let mut table =
        Table::new(&[Column::Left("WHAT"), Column::Right("SIZE"), Column::Left("NOTE")]);
    let blobs = |totals: Totals| count(totals.blobs, "blob");
    let left = match usage.left_downloads_bytes {
        0 => String::new(),
        left => format!("{} left by pulls that broke off", size(left)),
    };
    let limit = format!("of {} that it may come to (cache.max_size)", size(usage.max_size_bytes));
    let disk = format!(
        "of {}, {} stay free (cache.min_free)",
        size(usage.disk_bytes),
        size(usage.min_free_bytes)
    );
    for (what, bytes, note) in [
        ("blobs", usage.held.bytes, blobs(usage.held)),
        (
            "  shared",
            usage.shared.bytes,
            format!("{} of several of the above", blobs(usage.shared)),
        ),
        ("  unused", usage.unused.bytes, format!("{} of no image", blobs(usage.unused))),
        ("downloads", usage.downloads_bytes, left),
        ("index", usage.index_bytes, String::new()),
        ("quarantine", usage.quarantine_bytes, String::new()),
        ("damaged indexes", usage.damaged_indexes_bytes, String::new()),
        ("other files", usage.other_bytes, String::new()),
        ("total", usage.total_bytes, limit),
        ("reclaimable", usage.reclaimable_bytes, "of no use to any pull".to_owned()),
        ("disk free", usage.free_bytes, disk),
    ] {
        table.add(vec![what.to_owned(), size(bytes), note]);
    }
    table
}
