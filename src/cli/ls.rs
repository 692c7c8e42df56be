//! `larder ls`

use std::{
    io::{self, Write as _},
    process::ExitCode,
    str::FromStr,
    time::Duration,
};

use bytesize::ByteSize;
use serde::Deserialize;
use url::form_urlencoded::Serializer;

use super::{
    content::{self, Answer, Failure, Place, Question, each_line},
    names,
    shown::{age, short, size},
    table::{Column, Table},
};
use crate::config::Config;

#[derive(clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    place: Place,
    /// Only images whose registry/name:tag has this in it, or is this with * for any text; also short
    /// names as Docker has them, and aliases
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    /// Only images of this registry
    #[arg(long, value_name = "REGISTRY")]
    registry: Option<String>,
    /// Only what has no tag, known by its digest alone
    #[arg(long)]
    untagged: bool,
    /// Only images that nobody pulled for so long, such as 30d; counts only the time Larder runs
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    unused_for: Option<Duration>,
    /// Only images with more than this, such as 1GiB
    #[arg(long, value_name = "SIZE", value_parser = ByteSize::from_str)]
    larger_than: Option<ByteSize>,
    /// Only images of which no platform is complete, or one is begun and not complete
    #[arg(long)]
    partial: bool,
    /// Only images that stay whatever happens, by larder pin or by a rule
    #[arg(long)]
    pinned: bool,
    /// What comes first: the first name, the largest, or what was last used or added
    #[arg(long, value_name = "KEY", default_value = "name")]
    #[arg(value_parser = ["name", "size", "unique", "used", "added"])]
    sort: String,
    /// Turn the order round
    #[arg(long)]
    reverse: bool,
    /// Print one JSON document a line
    #[arg(long)]
    json: bool,
}

/// One line of the answer, as far as it is shown.
#[derive(Deserialize)]
struct Image {
    image: String,
    digest: String,
    tag: Option<String>,
    bytes: u64,
    unique_bytes: u64,
    platforms: Vec<PlatformHere>,
    added: Option<String>,
    unused_seconds: u64,
    pinned: Option<String>,
}

#[derive(Deserialize)]
struct PlatformHere {
    platform: Option<String>,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum State {
    Complete,
    Partial,
    Absent,
}

pub(super) fn ls(arguments: &Arguments) -> ExitCode {
    content::told(try_ls(arguments))
}

fn try_ls(arguments: &Arguments) -> Result<(), Failure> {
    let query = query(arguments, &arguments.place.config()?);
    let question = Question::get(&format!("/api/v1/images?{query}"));
    content::ask(&arguments.place, question, async |answer| match arguments.json {
        true => pass_on(answer).await,
        false => show(answer).await,
    })
}

fn query(arguments: &Arguments, config: &Config) -> String {
    let mut query = Serializer::new(String::new());
    for name in &arguments.names {
        query.append_pair("name", name);
        query.extend_pairs(names::full(name, config).map(|full| ("name", full)));
    }
    query.extend_pairs(arguments.registry.iter().map(|name| {
        let registry = names::registry(name, config);
        ("registry", registry.map_or_else(|| name.clone(), |registry| registry.to_string()))
    }));
    let least = arguments.unused_for.map(|time| ("unused_for", time.as_secs().to_string()));
    query.extend_pairs(least);
    query.extend_pairs(arguments.larger_than.map(|size| ("larger_than", size.0.to_string())));
    for (name, value) in [
        ("untagged", arguments.untagged),
        ("partial", arguments.partial),
        ("pinned", arguments.pinned),
        ("reverse", arguments.reverse),
    ] {
        query.append_pair(name, &value.to_string());
    }
    query.append_pair("sort", &arguments.sort);
    query.finish()
}

async fn pass_on(answer: Answer) -> Result<(), Failure> {
    let mut output = io::BufWriter::new(io::stdout().lock());
    each_line(answer, |line| {
        output.write_all(line).and_then(|()| output.write_all(b"\n")).map_err(Failure::unheard)
    })
    .await?;
    output.flush().map_err(Failure::unheard)
}

async fn show(answer: Answer) -> Result<(), Failure> {
    let mut table = Table::new(&[
        Column::Left("IMAGE"),
        Column::Left("DIGEST"),
        Column::Right("SIZE"),
        Column::Right("UNIQUE"),
        Column::Right("UNUSED"),
        Column::Left("ADDED"),
        Column::Left("PINNED BY"),
        Column::Left("PLATFORMS"),
    ]);
    each_line(answer, |line| {
        let image: Image = serde_json::from_slice(line).map_err(Failure::not_understood)?;
        table.add(row(&image));
        Ok(())
    })
    .await?;
    table.print()
}

fn row(image: &Image) -> Vec<String> {
    // A digest is not shown twice.
    let name = image.image.split_once('@').filter(|_| image.tag.is_none());
    let name = name.map_or(image.image.as_str(), |(name, _)| name);
    let added = image.added.as_deref().and_then(|time| time.split_once('T'));
    vec![
        name.to_owned(),
        short(&image.digest),
        size(image.bytes),
        size(image.unique_bytes),
        age(image.unused_seconds),
        added.map_or_else(String::new, |(day, _)| day.to_owned()),
        image.pinned.clone().unwrap_or_default(),
        platforms(&image.platforms),
    ]
}

/// Those that are here, and how many are not.
fn platforms(platforms: &[PlatformHere]) -> String {
    let here = platforms.iter().filter(|here| here.state != State::Absent);
    let here = here.map(|here| {
        let name = here.platform.as_deref().unwrap_or("unknown");
        match here.state {
            State::Partial => format!("{name} (partial)"),
            State::Complete | State::Absent => name.to_owned(),
        }
    });
    let absent = platforms.iter().filter(|here| here.state == State::Absent).count();
    let others = (absent > 0).then(|| format!("{absent} not here"));
    here.chain(others).collect::<Vec<_>>().join(", ")
}
