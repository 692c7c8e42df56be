//! `larder rm`

use std::process::ExitCode;

use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    confirm::Assent,
    content::{self, Failure, Place, Question},
    document::{self, Undone},
    names::{self, Named},
    shown::{count, size},
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
    /// Print one JSON document
    #[arg(long)]
    json: bool,
    /// Images, with a tag or digest; without, whole repositories with all their tags
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
    blobs: u64,
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
    let images = told.images().fold(0u64, |number, _| number.saturating_add(1));
    if told.blobs() == 0 && images == 0 {
        return tell(&planned, arguments, "removed", "freed");
    }
    let question = format!("Remove {}, {}?", count(images, "image"), told.size());
    arguments.assent.ask(told.images(), &question)?;
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

    fn blobs(&self) -> u64 {
        self.targets.iter().map(|target| target.blobs).fold(0, u64::saturating_add)
    }

    fn size(&self) -> String {
        let bytes = self.targets.iter().map(|target| target.bytes).fold(0, u64::saturating_add);
        format!("{} in {}", size(bytes), count(self.blobs(), "blob"))
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
        document::print(answer)?;
    } else if told.targets.iter().any(|target| target.undone.error.is_none()) {
        let lines = told.images().map(|image| format!("{removed} {image}\n"));
        document::print_line(&format!("{}{freed} {}", lines.collect::<String>(), told.size()))?;
    }
    Ok(document::report(told.targets.iter().map(|target| (&*target.target, &target.undone))))
}
