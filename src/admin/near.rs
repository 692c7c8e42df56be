//! What is here under a name much like one that is not.

use std::collections::BTreeSet;

use super::Content;
use crate::oci::{ImageName, Reference, Repository};

/// The most names suggested.
const SUGGESTIONS: usize = 3;

/// The most letters that may differ.
const MAX_DISTANCE: usize = 3;

impl Content {
    /// Images here with a name like `image`, the likest first: another tag of its repository, or else
    /// repositories.
    pub(super) async fn near(&self, image: &ImageName) -> Vec<String> {
        let (tags, image) = (self.store.tags(&image.repository), image.clone());
        if tags.is_empty() {
            return self.near_repository(&image.repository).await;
        }
        aside(move || {
            let asked = image.reference.to_string();
            let others = tags.into_iter().map(|(tag, _)| {
                let (distance, reference) = (distance(&asked, tag.as_str()), Reference::Tag(tag));
                let repository = image.repository.clone();
                (distance, ImageName { repository, reference }.to_string())
            });
            first(others.collect())
        })
        .await
    }

    /// Repositories here with a name like `repository`, the likest first.
    pub(super) async fn near_repository(&self, repository: &Repository) -> Vec<String> {
        // Without the threads for such work there is no daemon to be asked again.
        let here = self.store.repositories().await.unwrap_or_default();
        let repository = repository.clone();
        aside(move || {
            let (asked, last) = (repository.to_string(), last_component(&repository));
            let likeness = |other: &Repository| match last_component(other) == last {
                true => 0,
                false => distance(&asked, &other.to_string()),
            };
            let near = here.iter().map(|other| (likeness(other), other.to_string()));
            first(near.filter(|(distance, _)| *distance <= MAX_DISTANCE).collect())
        })
        .await
    }
}

/// Compares names where that keeps nobody from being answered: there may be a hundred thousand.
async fn aside(compare: impl FnOnce() -> Vec<String> + Send + 'static) -> Vec<String> {
    // A suggestion is no more than that.
    tokio::task::spawn_blocking(compare).await.unwrap_or_default()
}

/// What comes first is what is told.
fn first(near: BTreeSet<(usize, String)>) -> Vec<String> {
    near.into_iter().take(SUGGESTIONS).map(|(_, name)| name).collect()
}

fn distance(one: &str, other: &str) -> usize {
    strsim::damerau_levenshtein(one, other)
}

fn last_component(repository: &Repository) -> &str {
    repository.name().as_str().rsplit('/').next().unwrap_or_default()
}
