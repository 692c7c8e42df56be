//! `larder rm`

use std::process::ExitCode;

use bytesize::ByteSize;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    confirm::Assent,
    content::{self, Failure, Place, Question},
    document::{self, Undone},
    names::{self, Named},
};
use crate::config::Config;

#[derive(clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    assent: Assent,
    /// Remove what has no tag, and blobs that belong to no image: everywhere, or of the repositories
    /// and registries that are named
    #[arg(long)]
    untagged: bool,
    /// Tell what would be removed, and remove nothing
    #[arg(long)]
    dry_run: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Images, with a tag or digest, and whole repositories, without
    #[arg(value_name = "IMAGE|REPOSITORY", required_unless_present = "untagged")]
    names: Vec<String>,
}

/// The answer, as far as it is told to people.
#[derive(Deserialize)]
struct Told {
    targets: Vec<Target>,
}

#[derive(Deserialize)]
struct Target {
    target: String,
    #[serde(default)]
    images: Vec<String>,
    #[serde(default)]
    files: u64,
    #[serde(default)]
    bytes: u64,
    #[serde(flatten)]
    undone: Undone,
}

pub(super) fn remove(arguments: &Arguments) -> ExitCode {
    try_remove(arguments).unwrap_or_else(Failure::report)
}

fn try_remove(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let targets = targets(arguments, &arguments.place.config()?)?;
    let ask = |dry_run: bool| {
        let body = json!({ "targets": targets, "dry_run": dry_run });
        let question = Question::change("/api/v1/remove", &body);
        content::ask(&arguments.place, question, document::read)
    };
    let planned = ask(true)?;
    if arguments.dry_run {
        return tell(&planned, arguments, "would remove", "would free");
    }
    let told: Told = document::understood(&planned)?;
    let images = told.images().count();
    if told.files() == 0 && images == 0 {
        return tell(&planned, arguments, "removed", "freed");
    }
    let question = format!("Remove {images} images, {}?", told.size());
    arguments.assent.ask(&question)?;
    tell(&ask(false)?, arguments, "removed", "freed")
}

fn targets(arguments: &Arguments, config: &Config) -> Result<Vec<Value>, Failure> {
    if arguments.untagged && arguments.names.is_empty() {
        return Ok(vec![json!({ "untagged": "everywhere" })]);
    }
    let target = |text: &String| {
        if arguments.untagged
            && let Some(registry) = names::registry(text, config)
        {
            return Ok(json!({ "untagged": registry.as_str() }));
        }
        match (names::named(text, config)?, arguments.untagged) {
            (Named::Image(image), false) => Ok(json!({ "image": image.to_string() })),
            (Named::Repository(repository), false) => {
                Ok(json!({ "repository": repository.to_string() }))
            }
            (Named::Repository(repository), true) => {
                Ok(json!({ "untagged": repository.to_string() }))
            }
            (Named::Image(_), true) => {
                Err(Failure::Usage(format!("{text}: --untagged takes repositories and registries")))
            }
        }
    };
    arguments.names.iter().map(target).collect()
}

impl Told {
    fn images(&self) -> impl Iterator<Item = &String> {
        self.targets.iter().flat_map(|target| &target.images)
    }

    fn files(&self) -> u64 {
        self.targets.iter().map(|target| target.files).fold(0, u64::saturating_add)
    }

    fn size(&self) -> String {
        let bytes = self.targets.iter().map(|target| target.bytes).fold(0, u64::saturating_add);
        format!("{} in {} files", ByteSize::b(bytes).display().iec(), self.files())
    }
}

fn tell(
    answer: &Value,
    arguments: &Arguments,
    removed: &str,
    freed: &str,
) -> Result<ExitCode, Failure> {
    let told: Told = document::understood(answer)?;
    if arguments.json {
        document::print(&format!("{answer:#}\n"))?;
    } else {
        let lines = told.images().map(|image| format!("{removed} {image}\n"));
        document::print(&format!("{}{freed} {}\n", lines.collect::<String>(), told.size()))?;
    }
    Ok(document::report(told.targets.iter().map(|target| (&*target.target, &target.undone))))
}
