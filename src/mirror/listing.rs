//! Lists of tags: fetched whole and remembered for a while; when upstream does not answer, what
//! is here.

use std::{sync::Arc, time::Duration};

use moka::sync::Cache;
use tokio::time::Instant;

use super::{Error, Mirror, Mirrored, flight::Flights, missing::Absent};
use crate::{
    oci::{Repository, Tag},
    upstream::Sample,
};

/// Lists kept in memory, in bytes.
const MEMORY: u64 = 32 * 1024 * 1024;

/// A tag in memory without its text, in bytes: two pointers, two counters and the allocator's share.
const TAG_OVERHEAD: usize = 48;

/// How long a list is remembered at least, so that a client that goes through its pages causes
/// one list of upstream, not one for each page.
const MIN_MEMORY: Duration = Duration::from_secs(10);

/// How long upstream may take over all pages of a list. Clients do not wait so long, but one that
/// asks again finds the list begun, or there.
const LIST_DEADLINE: Duration = Duration::from_secs(120);

/// The answer to a question for the tags of a repository.
#[derive(Clone, Debug)]
pub struct Listing {
    /// All of them, sorted.
    pub tags: Arc<[Tag]>,
    /// Why they are only those that are cached, if so.
    pub stale: Option<String>,
}

#[derive(Clone)]
pub(super) struct Remembered {
    tags: Arc<[Tag]>,
    /// In running time.
    at: Duration,
}

pub(super) type Lists = Cache<Repository, Remembered>;
pub(super) type ListFlights = Flights<Repository, Arc<[Tag]>>;

/// The lists asked for last, bounded in bytes.
pub(super) fn lists() -> Lists {
    let weigh = |_: &Repository, list: &Remembered| {
        let bytes = list.tags.iter().map(|tag| tag.as_str().len() + TAG_OVERHEAD).sum::<usize>();
        u32::try_from(bytes).unwrap_or(u32::MAX)
    };
    Cache::builder().max_capacity(MEMORY).weigher(weigh).build()
}

impl Mirror {
    /// The tags of a repository, as upstream lists them, but for those that are denied. While upstream
    /// does not, those whose manifests are here.
    pub async fn tags(self: &Arc<Self>, repository: &Repository) -> Result<Listing, Error> {
        self.permit_repository(repository)?;
        let deadline = self.deadline();
        let listing = || self.listing(repository, deadline);
        let listing = self.if_shared(repository, Sample::Tags, deadline, listing).await?;
        Ok(Listing { tags: self.permitted(repository, listing.tags), ..listing })
    }

    async fn listing(
        self: &Arc<Self>,
        repository: &Repository,
        deadline: Instant,
    ) -> Result<Listing, Error> {
        let mirrored = self.mirrored(repository)?;
        if let Some(tags) = self.remembered_tags(mirrored, repository) {
            self.count(repository, "tags", "hit");
            return Ok(Listing { tags, stale: None });
        }
        let cached = self.cached_tags(mirrored, repository);
        let until =
            if cached.is_empty() { deadline } else { self.patience(mirrored).min(deadline) };
        match self.list(repository, until).await {
            Ok(tags) => {
                self.count(repository, "tags", "miss");
                Ok(Listing { tags, stale: None })
            }
            Err(error) if cached.is_empty() || self.is_deletion(&error) => Err(error),
            Err(error) => {
                self.count(repository, "tags", "stale");
                Ok(Listing { tags: cached, stale: Some(error.to_string()) })
            }
        }
    }

    fn remembered_tags(&self, mirrored: &Mirrored, repository: &Repository) -> Option<Arc<[Tag]>> {
        let list = self.lists.get(repository)?;
        let age = self.clock.running().saturating_sub(list.at);
        let ttl = self.tag_ttl(mirrored, repository, None);
        (age < ttl.max(MIN_MEMORY)).then_some(list.tags)
    }

    fn cached_tags(&self, mirrored: &Mirrored, repository: &Repository) -> Arc<[Tag]> {
        let tags = self.store.tags(repository).into_iter();
        let young = tags.filter(|(_, checked_at)| !self.is_too_old(mirrored, *checked_at));
        young.map(|(tag, _)| tag).collect()
    }

    /// Asks upstream; one list for all who want to know. Being late is not taken for an outage:
    /// a long list takes long.
    async fn list(
        self: &Arc<Self>,
        repository: &Repository,
        until: Instant,
    ) -> Result<Arc<[Tag]>, Error> {
        self.refuse_absent(&Absent::tags(repository))?;
        let list = || self.clone().fetch_list(repository.clone());
        self.listings.join(repository.clone(), until, list).await
    }

    async fn fetch_list(self: Arc<Self>, repository: Repository) -> Result<Arc<[Tag]>, Error> {
        let mirrored = self.mirrored(&repository)?;
        let deadline = Instant::now() + LIST_DEADLINE;
        let listed = mirrored.upstream.list_tags(repository.name(), deadline).await;
        let listed = listed.map_err(|error| self.remember_absent(Absent::tags(&repository), error));
        mirrored.note(&listed);
        let tags: Arc<[Tag]> = listed?.into();
        let list = Remembered { tags: tags.clone(), at: self.clock.running() };
        self.lists.insert(repository, list);
        Ok(tags)
    }
}
