//! `larder pin` and `larder unpin`

use std::process::ExitCode;

use serde::Deserialize;
use serde_json::json;

use super::{
    content::{self, Failure, Place, Question},
    document::{self, Undone},
    names,
    shown::size,
};

#[derive(clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    place: Place,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
    /// Images, as Docker names them: nginx (which is nginx:latest), team/app:v1, ghcr.io/a/b@sha256:…
    #[arg(value_name = "IMAGE", required = true)]
    images: Vec<String>,
}

/// The answer to both, as far as it is told to people.
#[derive(Deserialize)]
struct Told {
    images: Vec<Image>,
    pinned_bytes: Option<u64>,
    max_size_bytes: Option<u64>,
}

#[derive(Deserialize)]
struct Image {
    image: String,
    #[serde(default)]
    bytes: u64,
    #[serde(flatten)]
    undone: Undone,
}

/// Which of the two.
#[derive(Clone, Copy)]
enum Change {
    Pin,
    Unpin,
}

pub(super) fn pin(arguments: &Arguments) -> ExitCode {
    change(arguments, Change::Pin).unwrap_or_else(Failure::report)
}

pub(super) fn unpin(arguments: &Arguments) -> ExitCode {
    change(arguments, Change::Unpin).unwrap_or_else(Failure::report)
}

fn change(arguments: &Arguments, change: Change) -> Result<ExitCode, Failure> {
    let config = arguments.place.config()?;
    let image = |text: &String| Ok(names::image(text, &config)?.to_string());
    let images: Vec<String> = arguments.images.iter().map(image).collect::<Result<_, Failure>>()?;
    let path = match change {
        Change::Pin => "/api/v1/pin",
        Change::Unpin => "/api/v1/unpin",
    };
    let question = Question::change(path, &json!({ "images": images }));
    let answer = content::ask(&arguments.place, question, document::read)?;
    let told: Told = document::understood(&answer)?;
    match arguments.json {
        true => document::print(&answer)?,
        false => told.lines(change).iter().try_for_each(|line| document::print_line(line))?,
    }
    Ok(document::report(told.images.iter().map(|image| (&*image.image, &image.undone))))
}

impl Told {
    fn lines(&self, change: Change) -> Vec<String> {
        let done = self.images.iter().filter(|image| image.undone.error.is_none());
        let lines = done.map(|Image { image, bytes, .. }| match change {
            Change::Pin => format!("pinned {image} ({})", size(*bytes)),
            Change::Unpin => format!("unpinned {image}"),
        });
        let lines: Vec<String> = lines.collect();
        let totals = self.totals().filter(|_| !lines.is_empty());
        lines.into_iter().chain(totals).collect()
    }

    fn totals(&self) -> Option<String> {
        let pinned = self.pinned_bytes?;
        let text = format!("pinned in all: {}", size(pinned));
        Some(match self.max_size_bytes {
            None => text,
            Some(limit) if pinned < limit => {
                format!(
                    "{text} of the {} that everything may come to (cache.max_size)",
                    size(limit)
                )
            }
            Some(limit) => format!(
                "{text}, which leaves no room for anything else: cache.max_size is {}",
                size(limit)
            ),
        })
    }
}
