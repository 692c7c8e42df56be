//! What refers to a manifest: signatures, attestations and whatever else names it as its subject.
//!
//! Upstream's list is an index that is believed, checked and kept like what a tag means. Only the
//! list is kept by this: what it names is pulled like any other manifest. An empty list about what
//! is not here is kept in memory only, since anybody can ask for any number of those.

use std::sync::Arc;

use bytes::Bytes;
use moka::sync::Cache;

use super::{Error, Mirror, flight::Flights, manifest::Content, missing::Absent, tag::Cached};
use crate::{
    oci::{
        Algorithm, Children, Digest, Manifest, OCI_INDEX, Reference, Referrers, Repository, Tag,
    },
    upstream::Sample,
};

/// Empty lists kept in memory, in bytes.
const MEMORY: u64 = 4 * 1024 * 1024;

/// What an empty list costs in memory beside its bytes, in bytes.
const LIST_OVERHEAD: usize = 512;

/// Empty lists about manifests that are not here.
pub(super) type EmptyLists = Cache<(Repository, Digest), Cached>;

pub(super) type ReferrersFlights = Flights<(Repository, Digest), Arc<Content>>;

/// The answer to a question for the referrers of a manifest.
#[derive(Clone, Debug)]
pub struct ReferrersList {
    /// An OCI index.
    pub document: Bytes,
    /// Why it may be out of date, if it may.
    pub stale: Option<String>,
}

/// Those asked for last, bounded in bytes.
pub(super) fn empty_lists() -> EmptyLists {
    let weigh = |_: &(Repository, Digest), list: &Cached| {
        u32::try_from(list.content.bytes.len() + LIST_OVERHEAD).unwrap_or(u32::MAX)
    };
    Cache::builder().max_capacity(MEMORY).weigher(weigh).build()
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
        self.permit_repository(repository)?;
        let sample = Sample::Manifest(Reference::Digest(subject.clone()));
        let list = || self.referrers_of(repository, subject);
        let (content, stale) = self.if_shared(repository, sample, self.deadline(), list).await?;
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
        if let Some(cached) = self.fresh(self.tag_ttl(mirrored, repository, None), &cached) {
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
                let is_young = |cached: &Cached| !self.is_too_old(mirrored, cached.checked_at);
                let young = cached.filter(is_young);
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
        let empty = self.empty_lists.get(&(repository.clone(), subject.clone()));
        match empty {
            Some(list) => Ok(Some(list)),
            None => self.cached(self.store.referrers(repository, subject)).await,
        }
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
        if let Some(cached) = self.fresh(self.tag_ttl(mirrored, &repository, None), &cached) {
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
        let list = Content::new(digest, list, bytes);
        Ok(self.keep_list(&repository, &subject, list).await)
    }

    async fn keep_list(
        &self,
        repository: &Repository,
        subject: &Digest,
        list: Content,
    ) -> Arc<Content> {
        let (key, checked_at) = ((repository.clone(), subject.clone()), self.clock.wall());
        let is_empty = matches!(&list.manifest.children, Children::Index(all) if all.is_empty());
        let is_known = || {
            self.store.is_proved(repository, subject)
                || self.store.referrers(repository, subject).is_some()
        };
        if is_empty && !is_known() {
            let content = Arc::new(list);
            self.empty_lists.insert(key, Cached { content: content.clone(), checked_at });
            return content;
        }
        let content = self.hold(repository, list).await;
        self.store.set_referrers(repository, subject, &content.digest, checked_at);
        self.empty_lists.invalidate(&key);
        content
    }
}

fn of_type(document: &[u8], artifact_type: &str) -> Result<Bytes, Error> {
    let no_list = || Error::Unusable("upstream sent no list of referrers".to_owned());
    let (mut referrers, _) = Referrers::parse(document).ok_or_else(no_list)?;
    referrers.retain(artifact_type);
    Ok(referrers.to_json().into())
}
