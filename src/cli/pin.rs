//! `larder pin` and `larder unpin`

use std::process::ExitCode;

use bytesize::ByteSize;
use serde::Deserialize;
use serde_json::json;

use super::{
    content::{self, Failure, Place, Question},
    document::{self, Undone},
    names,
};

#[derive(clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    place: Place,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Images that are here, as Docker names them: nginx, team/app:v1, ghcr.io/a/b@sha256:…
    #[arg(value_name = "IMAGE", required = true)]
    images: Vec<String>,
}

/// The answer to both, as far as it is told to people.
#[derive(Deserialize)]
struct Told {
    images: Vec<Image>,
    pinned_bytes: Option<u64>,
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
    ended(change(arguments, Change::Pin))
}

pub(super) fn unpin(arguments: &Arguments) -> ExitCode {
    ended(change(arguments, Change::Unpin))
}

fn ended(result: Result<ExitCode, Failure>) -> ExitCode {
    result.unwrap_or_else(Failure::report)
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
        true => document::print(&format!("{answer:#}\n"))?,
        false => document::print(&told.text(change))?,
    }
    Ok(document::report(told.images.iter().map(|image| (&*image.image, &image.undone))))
}

impl Told {
    fn text(&self, change: Change) -> String {
        let done = self.images.iter().filter(|image| image.undone.error.is_none());
        let lines = done.map(|Image { image, bytes, .. }| match change {
            Change::Pin => format!("pinned {image} ({})\n", size(*bytes)),
            Change::Unpin => format!("unpinned {image}\n"),
        });
        let mut text: String = lines.collect();
        if let Some(bytes) = self.pinned_bytes {
            text += &format!("pinned in all: {}\n", size(bytes));
        }
        text
    }
}

fn size(bytes: u64) -> String {
    ByteSize::b(bytes).display().iec().to_string()
}
