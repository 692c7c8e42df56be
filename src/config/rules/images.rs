//! `match`: which images a rule is about.

use crate::{
    config::{
        Glob, Upstream,
        upstreams::{DOCKER_HUB, is_unmistakable},
        written::{Written, Wrong},
    },
    oci::Tag,
};

const WANT: &str = "no pattern of images; write for example \"docker.io/library/*:*\", in small letters up to the tag";

/// A pattern of images, written `registry/name:tag`.
#[derive(Clone, Debug)]
pub(super) struct Images {
    written: String,
    repositories: Glob,
    tags: Glob,
}

impl Images {
    /// Reads `registry/name:tag`, or `registry/name` for all tags. A registry is called by the name
    /// that its upstream has, since that is what a client's image comes to whichever way it is asked
    /// for.
    pub(super) fn read<'a>(
        written: Written<'a>,
        upstreams: &[Upstream],
    ) -> Result<Images, Wrong<'a>> {
        let text = written.as_text().unwrap_or_default();
        if text.contains('@') {
            let message = "a rule is about names; leave out the digest, and write for example \"docker.io/library/nginx:1.*\"";
            return Err(written.wrong(message));
        }
        let (repositories, tags) = split(text);
        let images = Glob::of_repositories(repositories).ok().zip(Glob::of_tags(tags).ok());
        let Some((repositories, tags)) = images else {
            return Err(written.is(WANT));
        };
        match better(repositories.as_str(), upstreams) {
            Some((why, better)) => {
                let better = text.replacen(repositories.as_str(), &better, 1);
                Err(written.is(&format!("{why}; write \"{better}\"")))
            }
            None => Ok(Images { written: text.to_owned(), repositories, tags }),
        }
    }

    /// As it is written.
    pub(super) fn as_str(&self) -> &str {
        &self.written
    }

    /// Whether some of the tags of a repository, called by its full name, can be meant.
    pub(super) fn are_in(&self, repository: &str) -> bool {
        self.repositories.matches(repository)
    }

    /// Whether a tag is meant, in a repository of which some are.
    pub(super) fn have_tag(&self, tag: &Tag) -> bool {
        self.tags.matches(tag.as_str())
    }

    /// Whether all of a repository is meant, if any of it is: every tag, and what has none.
    pub(super) fn have_all_tags(&self) -> bool {
        self.tags.is_one_star()
    }

    /// Whether everything that `other` means is meant.
    pub(super) fn cover(&self, other: &Images) -> bool {
        self.repositories.covers(&other.repositories) && self.tags.covers(&other.tags)
    }

    /// Whether there can be such an image in one of these registries.
    pub(super) fn are_in_any(&self, upstreams: &[Upstream]) -> bool {
        upstreams.iter().any(|upstream| {
            let registry = &upstream.registry;
            // There, a name of one component means another.
            let names = if registry.as_str() == DOCKER_HUB { "*/**" } else { "**" };
            let all = Glob::of_repositories(&format!("{registry}/{names}"));
            all.is_ok_and(|all| self.repositories.meets(&all))
        })
    }
}

/// The pattern of repositories, and that of tags: all of them where none is written.
fn split(text: &str) -> (&str, &str) {
    let last = text.rfind('/').map_or(0, |slash| slash + 1);
    let colon = text.get(last..).and_then(|name| name.find(':'));
    let parts = colon.and_then(|colon| text.split_at_checked(last + colon));
    parts
        .map_or((text, "*"), |(repositories, tag)| (repositories, tag.get(1..).unwrap_or_default()))
}

/// What is wrong with the registry that a pattern begins with, and a better pattern.
fn better(repositories: &str, upstreams: &[Upstream]) -> Option<(String, String)> {
    let (first, name) = match repositories.split_once('/') {
        Some((first, name)) => (first, Some(name)),
        None => (repositories, None),
    };
    if let Some(name) = name
        && let Some(upstream) = upstreams.iter().find(|upstream| has_alias(upstream, first))
    {
        let registry = &upstream.registry;
        let why = format!("not by the registry's own name: {first} is an alias of {registry}");
        return Some((why, format!("{registry}/{name}")));
    }
    let is_registry = |upstream: &Upstream| upstream.registry.as_str() == first;
    let is_known = first.contains('*') || upstreams.iter().any(is_registry);
    match name {
        Some(name) if first == DOCKER_HUB && !name.contains(['/', '*']) => {
            let why = "short for another name".to_owned();
            Some((why, format!("{first}/library/{name}")))
        }
        Some(_) if is_known || is_unmistakable(first) => None,
        None if first == "**" => None,
        Some(_) => Some(("without a registry".to_owned(), format!("docker.io/{repositories}"))),
        None => Some(("without a registry".to_owned(), format!("docker.io/library/{first}"))),
    }
}

fn has_alias(upstream: &Upstream, name: &str) -> bool {
    upstream.aliases.iter().any(|alias| alias == name)
}
