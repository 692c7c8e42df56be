//! `POST /api/v1/remove`: takes images, repositories, or what has no tag out of the store.
//!
//! Asked with `{"targets": […], "dry_run": false}`. A target is `{"image": "registry/name:tag"}`,
//! `{"repository": "registry/name"}`, or `{"untagged": "everywhere"}`, with a registry or a repository in
//! place of `everywhere`. The answer has an object for each, in order: its `target` as one text, and either
//! `images` (names that can be asked for no more), `blobs`, their number, and `bytes`, or `error` and, where there are
//! any, `near`: names that are here. What was done is on the disk by then.

use http::Response;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    Admin, Content,
    answer::{self, Body},
    page::Question,
    refusal::Refusal,
    work::Running,
};
use crate::store::{CannotRemove, Place, Removal, Target, Written};

/// The body of the question.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    targets: Vec<AskedTarget>,
    #[serde(default)]
    dry_run: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum AskedTarget {
    Image(String),
    Repository(String),
    Untagged(String),
}

impl Admin {
    /// Tells what would be done, or does it.
    pub(super) async fn remove(
        &self,
        question: &Question,
        running: Running,
    ) -> Result<Response<Body>, Refusal> {
        let Asked { targets, dry_run } = question.json()?;
        let targets: Vec<Target> = targets.iter().map(parse).collect::<Result<_, _>>()?;
        let content = self.content.clone();
        let work = async move {
            match dry_run {
                true => Ok(content.plan_removals(&targets).await),
                false => content.remove_all(&targets).await,
            }
        };
        running.finish(work).await
    }
}

impl Content {
    async fn plan_removals(&self, targets: &[Target]) -> Response<Body> {
        let mut answers = Vec::new();
        for target in targets {
            answers.push(self.told(target, self.store.plan_removal(target).await).await);
        }
        answer::document(&json!({ "targets": answers }))
    }

    async fn remove_all(&self, targets: &[Target]) -> Result<Response<Body>, Refusal> {
        let mut answers = Vec::new();
        for target in targets {
            answers.push(self.told(target, self.mirror.remove(target).await).await);
        }
        if self.store.write_now().await.map_err(Refusal::failed)? != Written::Everywhere {
            let reason = "removed, but that cannot be written: names may come back after a crash";
            return Err(Refusal::failed(reason));
        }
        Ok(answer::document(&json!({ "targets": answers })))
    }

    async fn told(&self, target: &Target, result: Result<Removal, CannotRemove>) -> Value {
        match result {
            Ok(Removal { names, digests, bytes }) => {
                let images: Vec<String> = names.iter().map(ToString::to_string).collect();
                json!({
                    "target": shown(target),
                    "images": images,
                    "blobs": digests.len(),
                    "bytes": bytes,
                })
            }
            Err(error) => json!({
                "target": shown(target),
                "error": explained(&error),
                "near": match error {
                    CannotRemove::NotHere => self.near_target(target).await,
                    CannotRemove::Pinned(_) | CannotRemove::Downloading(_)
                    | CannotRemove::Listed(_) | CannotRemove::Failing(_) => Vec::new(),
                },
            }),
        }
    }

    async fn near_target(&self, target: &Target) -> Vec<String> {
        match target {
            Target::Image(image) => self.near(image).await,
            Target::Repository(repository) => self.near_repository(repository).await,
            Target::Untagged(_) => Vec::new(),
        }
    }
}

fn parse(target: &AskedTarget) -> Result<Target, Refusal> {
    let wrong = |text: &str, error| Refusal::Wrong(format!("{text}: {error}"));
    Ok(match target {
        AskedTarget::Image(name) => {
            Target::Image(name.parse().map_err(|error| wrong(name, error))?)
        }
        AskedTarget::Repository(name) => {
            Target::Repository(name.parse().map_err(|error| wrong(name, error))?)
        }
        AskedTarget::Untagged(place) => Target::Untagged(match place.as_str() {
            "everywhere" => Place::Everywhere,
            name if name.contains('/') => {
                Place::Repository(name.parse().map_err(|error| wrong(name, error))?)
            }
            name => Place::Registry(name.parse().map_err(|error| wrong(name, error))?),
        }),
    })
}

fn shown(target: &Target) -> String {
    match target {
        Target::Image(image) => image.to_string(),
        Target::Repository(repository) => repository.to_string(),
        Target::Untagged(Place::Everywhere) => "untagged".to_owned(),
        Target::Untagged(Place::Registry(registry)) => format!("untagged in {registry}"),
        Target::Untagged(Place::Repository(repository)) => format!("untagged in {repository}"),
    }
}

fn explained(error: &CannotRemove) -> String {
    match error {
        CannotRemove::Pinned(pins) => {
            let pins: Vec<String> = pins.iter().map(ToString::to_string).collect();
            let pins = pins.join(" ");
            format!("pinned: to remove it, first larder unpin {pins}")
        }
        CannotRemove::Downloading(_) => format!("{error}: try again when that has ended"),
        CannotRemove::Listed(image) => format!("{error}: remove {image}, which lists it"),
        CannotRemove::NotHere | CannotRemove::Failing(_) => error.to_string(),
    }
}
