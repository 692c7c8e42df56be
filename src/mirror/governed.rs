//! What the operator's rules say of what a client asks for: which nobody gets, whichever way it is
//! asked for and whether or not it is here, how long a tag is believed, and which keeps its meaning.

use std::{sync::Arc, time::Duration};

use super::{Error, Mirror, Mirrored};
use crate::{
    config::Rule,
    oci::{ImageName, Reference, Repository, Tag},
};

impl Mirror {
    /// Fails if nobody gets a manifest by this name.
    pub(super) fn permit_manifest(
        &self,
        repository: &Repository,
        reference: &Reference,
    ) -> Result<(), Error> {
        let Reference::Tag(tag) = reference else {
            return self.permit_repository(repository);
        };
        let rules = self.cache.rules.of(repository);
        let denial = rules.of_tag(tag).filter(|rule| rule.deny);
        denial.map_or(Ok(()), |rule| Err(denied(&format!("{repository}:{tag}"), rule)))
    }

    /// Fails if nobody gets anything of a repository. For what is asked for without a tag.
    pub(super) fn permit_repository(&self, repository: &Repository) -> Result<(), Error> {
        let rules = self.cache.rules.of(repository);
        let denial = rules.denial_of_all();
        denial.map_or(Ok(()), |rule| Err(denied(&repository.to_string(), rule)))
    }

    /// Those of a repository's tags that clients get.
    pub(super) fn permitted(&self, repository: &Repository, tags: Arc<[Tag]>) -> Arc<[Tag]> {
        let rules = self.cache.rules.of(repository);
        if rules.is_empty() {
            return tags;
        }
        let is_denied = |tag: &Tag| rules.of_tag(tag).is_some_and(|rule| rule.deny);
        tags.iter().filter(|tag| !is_denied(tag)).cloned().collect()
    }

    /// Whether a tag keeps its meaning, by command or by a rule.
    pub(super) fn is_pinned(&self, repository: &Repository, tag: &Tag) -> bool {
        let reference = Reference::Tag(tag.clone());
        let image = ImageName { repository: repository.clone(), reference };
        let rules = self.cache.rules.of(repository);
        self.store.is_pinned(&image) || rules.of_tag(tag).is_some_and(|rule| rule.pin)
    }

    /// How long it is believed what a tag means, or, without one, what a list says of a repository.
    pub(super) fn tag_ttl(
        &self,
        mirrored: &Mirrored,
        repository: &Repository,
        tag: Option<&Tag>,
    ) -> Duration {
        let rules = self.cache.rules.of(repository);
        let rule = match tag {
            Some(tag) => rules.of_tag(tag),
            None => rules.of_digests(),
        };
        rule.and_then(|rule| rule.tag_ttl).unwrap_or(mirrored.tag_ttl)
    }
}

fn denied(what: &str, rule: &Rule) -> Error {
    let rule = rule.as_str();
    Error::Forbidden(format!(
        "{what} is denied by a rule of this mirror's operator: [[cache.rule]] match = \"{rule}\""
    ))
}
