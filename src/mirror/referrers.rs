//! What refers to a manifest: signatures, attestations and whatever else names it as its subject.
//!
//! Upstream's list is an index that is believed, checked and kept like what a tag means. Only the
//! list is kept by this: what it names is pulled like any other manifest.

use std::sync::Arc;

use bytes::Bytes;

use super::{Error, Mirror, flight::Flights, manifest::Content, missing::Absent, tag::Cached};
use crate::oci::{Algorithm, Digest, Manifest, OCI_INDEX, Referrers, Repository, Tag};

pub(super) type ReferrersFlights = Flights<(Repository, Digest), Arc<Content>>;

/// The answer to a question for the referrers of a manifest.
#[derive(Clone, Debug)]
pub struct ReferrersList {
    /// An OCI index.
    pub document: Bytes,
    /// Why it may be out of date, if it may.
    pub stale: Option<String>,
}

impl Mirror {
    /// What refers to `subject`: all of it, or what is of one `artifact_type`. Not found says that
    /// upstream lacks the API.
    pub async fn referrers(
        self: &Arc<Self>,
        repository: &Repository,
        subject: &Digest,
        artifact_type: Option<&str>,
    ) -> Result<ReferrersList, Error> {
        let (content, stale) = self.referrers_of(repository, subject).await?;
        self.store.touch(&content.digest);
        let document = match artifact_type {
            Some(wanted) => of_type(&content.bytes, wanted)?,
            None => content.bytes.clone(),
        };
        Ok(ReferrersList { document, stale })
    }

    /// The list, and why it may be out of date.
    async fn referrers_of(
        self: &Arc<Self>,
        repository: &Repository,
        subject: &Digest,
    ) -> Result<(Arc<Content>, Option<String>), Error> {
        let mirrored = self.mirrored(repository)?;
        let cached = self.cached_referrers(repository, subject).await?;
        if let Some(cached) = self.fresh(mirrored, &cached) {
            self.count(repository, "referrers", "hit");
            return Ok((cached.content.clone(), None));
        }
        let listed = self.list_referrers(repository, subject);
        match self.ask(mirrored, &cached, self.deadline(), listed).await {
            Ok(content) => {
                let is_same = |cached: &Cached| cached.content.digest == content.digest;
                let result =
                    if cached.as_ref().is_some_and(is_same) { "revalidated" } else { "miss" };
                self.count(repository, "referrers", result);
                Ok((content, None))
            }
            Err(error @ Error::NotFound(_)) => Err(error),
            Err(error) => {
                let young = cached.filter(|cached| !self.is_too_old(cached.checked_at));
                let Some(cached) = young else {
                    return Err(self.toward_tag(repository, subject, error));
                };
                self.count(repository, "referrers", "stale");
                Ok((cached.content, Some(error.to_string())))
            }
        }
    }

    /// Why there is no list. Who finds that upstream lacks the API reads the referrers' tag instead:
    /// where that is here, it is what to send a client to while upstream does not answer.
    fn toward_tag(&self, repository: &Repository, subject: &Digest, error: Error) -> Error {
        let tag = Tag::of_referrers(subject);
        if self.store.tag(repository, &tag).is_none() {
            return error;
        }
        Error::NotFound(format!("{error}; what is cached of the referrers is at the tag {tag}"))
    }

    async fn cached_referrers(
        &self,
        repository: &Repository,
        subject: &Digest,
    ) -> Result<Option<Cached>, Error> {
        self.cached(self.store.referrers(repository, subject)).await
    }

    /// Asks upstream; one list for all who want to know.
    async fn list_referrers(
        self: &Arc<Self>,
        repository: &Repository,
        subject: &Digest,
    ) -> Result<Arc<Content>, Error> {
        self.refuse_absent(&Absent::referrers(repository, subject))?;
        let key = (repository.clone(), subject.clone());
        let fetch = || self.clone().fetch_referrers(repository.clone(), subject.clone());
        self.referrers.join(key, self.deadline(), fetch).await
    }

    async fn fetch_referrers(
        self: Arc<Self>,
        repository: Repository,
        subject: Digest,
    ) -> Result<Arc<Content>, Error> {
        let mirrored = self.mirrored(&repository)?;
        // Another flight may have landed after the caller had looked.
        let cached = self.cached_referrers(&repository, &subject).await?;
        if let Some(cached) = self.fresh(mirrored, &cached) {
            return Ok(cached.content.clone());
        }
        let name = repository.name();
        let fetched = mirrored.upstream.referrers(name, &subject, self.deadline()).await;
        let absent = || Absent::referrers(&repository, &subject);
        let fetched = fetched.map_err(|error| self.remember_absent(absent(), error));
        mirrored.note(&fetched);
        let bytes = fetched?;
        let digest = Digest::of(Algorithm::Sha256, &bytes);
        let list = Manifest::parse(&bytes, Some(OCI_INDEX))?;
        let content = self.hold(&repository, Content::new(digest, list, bytes)).await;
        let now = self.clock.wall();
        self.store.set_referrers(&repository, &subject, &content.digest, now);
        Ok(content)
    }
}

fn of_type(document: &[u8], artifact_type: &str) -> Result<Bytes, Error> {
    let no_list = || Error::Unreachable("upstream sent no list of referrers".to_owned());
    let (mut referrers, _) = Referrers::parse(document).ok_or_else(no_list)?;
    referrers.retain(artifact_type);
    Ok(referrers.to_json().into())
}
