//! Tags: how long one is believed, when upstream is asked, and what is served when it does not
//! answer.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use moka::sync::Cache;
use tokio::time::{Instant, timeout_at};

use super::{
    Error, Mirror, Mirrored, Source,
    flight::Flights,
    manifest::{Content, Found},
    missing::Absent,
};
use crate::{
    config::OnDeleted,
    oci::{Digest, Reference, Repository, Tag},
    store::TaggedManifest,
    upstream::Spending,
};

/// The most tags remembered whose manifest upstream announced but nobody fetched.
const ANNOUNCEMENTS: u64 = 10_000;

pub(super) type TagFlights = Flights<(Repository, Tag), Checked>;
pub(super) type Announcements = Cache<(Repository, Tag), Announced>;

/// What a client wants to know of a tag.
#[derive(Clone, Copy)]
enum Wanted {
    /// What it means.
    Meaning,
    /// The manifest that it means.
    Manifest,
}

/// A HEAD's answer. It is remembered until the manifest is here, so that those who only look do
/// not ask upstream each time.
#[derive(Clone)]
pub(super) struct Announced {
    found: Found,
    at: SystemTime,
}

/// What asking upstream for a tag brought.
#[derive(Clone)]
pub(super) enum Checked {
    /// A HEAD told all about the manifest.
    Announced(Announced),
    /// The manifest itself is here: a GET brought it where a HEAD is of no use, or the tag has just
    /// become fresh.
    Fetched(Arc<Content>),
}

/// What upstream once said, and is here: a tag's manifest, or a list of referrers.
#[derive(Clone)]
pub(super) struct Cached {
    pub(super) content: Arc<Content>,
    pub(super) checked_at: SystemTime,
}

pub(super) fn announcements() -> Announcements {
    Cache::new(ANNOUNCEMENTS)
}

impl Mirror {
    pub(super) async fn manifest_by_tag(
        self: &Arc<Self>,
        repository: &Repository,
        tag: &Tag,
        deadline: Instant,
    ) -> Result<Found, Error> {
        let mirrored = self.mirrored(repository)?;
        let cached = self.cached_tag(repository, tag).await?;
        if let Some(found) = self.hit_by_tag(mirrored, repository, tag, &cached).await? {
            return Ok(found);
        }
        Box::pin(self.manifest_by_refresh(mirrored, repository, tag, cached, deadline)).await
    }

    async fn manifest_by_refresh(
        self: &Arc<Self>,
        mirrored: &Mirrored,
        repository: &Repository,
        tag: &Tag,
        cached: Option<Cached>,
        deadline: Instant,
    ) -> Result<Found, Error> {
        let spending = self.spending(mirrored, &cached);
        let refresh = self.clone().refresh(repository.clone(), tag.clone(), spending);
        let refresh = tokio::spawn(refresh);
        let refresh = async { refresh.await.unwrap_or_else(|_| Err(Error::lost())) };
        match self.ask(mirrored, &cached, deadline, refresh).await {
            Ok(content) => Ok(self.answered(repository, cached, content)),
            Err(error) => self.stale(repository, tag, cached, error).await,
        }
    }

    pub(super) async fn head_by_tag(
        self: &Arc<Self>,
        repository: &Repository,
        tag: &Tag,
        deadline: Instant,
    ) -> Result<Found, Error> {
        let mirrored = self.mirrored(repository)?;
        let cached = self.cached_tag(repository, tag).await?;
        if let Some(found) = self.hit_by_tag(mirrored, repository, tag, &cached).await? {
            return Ok(found);
        }
        Box::pin(self.head_by_check(mirrored, repository, tag, cached, deadline)).await
    }

    async fn head_by_check(
        self: &Arc<Self>,
        mirrored: &Mirrored,
        repository: &Repository,
        tag: &Tag,
        cached: Option<Cached>,
        deadline: Instant,
    ) -> Result<Found, Error> {
        let check = self.check_tag(repository, tag, Wanted::Meaning);
        match self.ask(mirrored, &cached, deadline, check).await {
            Ok(Checked::Fetched(content)) => Ok(self.answered(repository, cached, content)),
            Ok(Checked::Announced(Announced { found, .. })) => match &cached {
                Some(Cached { content, .. }) if content.digest == found.digest => {
                    let content = content.clone();
                    Ok(self.answered(repository, cached, content))
                }
                Some(_) | None => match self.admits(repository, &cached, &found).await {
                    Ok(()) => {
                        self.count(repository, "manifest", "miss");
                        Ok(found)
                    }
                    Err(error) => self.stale(repository, tag, cached, error).await,
                },
            },
            Err(error) => self.stale(repository, tag, cached, error).await,
        }
    }

    /// Whether upstream would give what it announced now. Who is told of it comes for it, by a digest
    /// that is not here.
    async fn admits(
        &self,
        repository: &Repository,
        cached: &Option<Cached>,
        announced: &Found,
    ) -> Result<(), Error> {
        if self.store.has(&announced.digest) {
            return Ok(());
        }
        let reference = Reference::Digest(announced.digest.clone());
        let mirrored = self.mirrored(repository)?;
        let spending = self.spending(mirrored, cached);
        Ok(mirrored.upstream.admits_manifest(repository.name(), &reference, spending).await?)
    }

    /// The tag's manifest, if upstream confirmed it not long ago.
    async fn hit_by_tag(
        &self,
        mirrored: &Mirrored,
        repository: &Repository,
        tag: &Tag,
        cached: &Option<Cached>,
    ) -> Result<Option<Found>, Error> {
        let ttl = self.tag_ttl(mirrored, repository, Some(tag));
        let Some(cached) = self.fresh(ttl, cached) else {
            return Ok(None);
        };
        self.ensure_obtainable(repository, &cached.content).await?;
        self.count(repository, "manifest", "hit");
        Ok(Some(Found::new(cached.content.clone(), Source::Cache)))
    }

    /// Finds out what the tag means now and fetches that.
    async fn refresh(
        self: Arc<Self>,
        repository: Repository,
        tag: Tag,
        spending: Spending,
    ) -> Result<Arc<Content>, Error> {
        match self.check_tag(&repository, &tag, Wanted::Manifest).await? {
            Checked::Announced(announced) => {
                self.fetch_announced(&repository, &tag, &announced, spending).await
            }
            Checked::Fetched(content) => Ok(content),
        }
    }

    async fn cached_tag(
        &self,
        repository: &Repository,
        tag: &Tag,
    ) -> Result<Option<Cached>, Error> {
        self.cached(self.store.tag(repository, tag)).await
    }

    /// What `tagged` means, if it is here.
    pub(super) async fn cached(
        &self,
        tagged: Option<TaggedManifest>,
    ) -> Result<Option<Cached>, Error> {
        let Some(tagged) = tagged else {
            return Ok(None);
        };
        let content = self.content(&tagged.digest).await;
        Ok(content.map(|content| Cached { content, checked_at: tagged.checked_at }))
    }

    /// What is cached, if upstream confirmed it less than `ttl` ago.
    pub(super) fn fresh<'a>(
        &self,
        ttl: Duration,
        cached: &'a Option<Cached>,
    ) -> Option<&'a Cached> {
        let is_fresh = |cached: &&Cached| self.age(cached.checked_at).is_some_and(|age| age < ttl);
        cached.as_ref().filter(is_fresh)
    }

    /// Waits for upstream: as long as the client may wait when nothing is cached that could be served
    /// instead, else only for the patience of one that can do without. What was begun ends in the
    /// background.
    pub(super) async fn ask<T>(
        &self,
        mirrored: &Mirrored,
        cached: &Option<Cached>,
        deadline: Instant,
        question: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        let until = match self.is_spare(mirrored, cached) {
            true => self.patience(mirrored).min(deadline),
            false => deadline,
        };
        let Ok(answer) = timeout_at(until, question).await else {
            mirrored.note_outage();
            return Err(Error::late());
        };
        answer
    }

    /// What the present manifest of a tag may cost.
    fn spending(&self, mirrored: &Mirrored, cached: &Option<Cached>) -> Spending {
        if self.is_spare(mirrored, cached) { Spending::AboveReserve } else { Spending::All }
    }

    /// Whether there is something that can be served instead of upstream's answer.
    fn is_spare(&self, mirrored: &Mirrored, cached: &Option<Cached>) -> bool {
        cached.as_ref().is_some_and(|cached| !self.is_too_old(mirrored, cached.checked_at))
    }

    /// Asks upstream what the tag means now, once for all who want to know.
    async fn check_tag(
        self: &Arc<Self>,
        repository: &Repository,
        tag: &Tag,
        wanted: Wanted,
    ) -> Result<Checked, Error> {
        self.refuse_absent(&Absent::manifest(repository, &Reference::Tag(tag.clone())))?;
        if let Some(announced) = self.fresh_announcement(repository, tag)? {
            return Ok(Checked::Announced(announced));
        }
        let key = (repository.clone(), tag.clone());
        let check = || self.clone().ask_for_tag(repository.clone(), tag.clone(), wanted);
        self.tag_checks.join(key, self.deadline(), check).await
    }

    fn fresh_announcement(
        &self,
        repository: &Repository,
        tag: &Tag,
    ) -> Result<Option<Announced>, Error> {
        let ttl = self.tag_ttl(self.mirrored(repository)?, repository, Some(tag));
        let announced = self.announcements.get(&(repository.clone(), tag.clone()));
        Ok(announced.filter(|announced| self.age(announced.at).is_some_and(|age| age < ttl)))
    }

    /// What another check learnt after the caller had looked, and before this one began.
    async fn just_checked(
        &self,
        repository: &Repository,
        tag: &Tag,
    ) -> Result<Option<Checked>, Error> {
        if let Some(announced) = self.fresh_announcement(repository, tag)? {
            return Ok(Some(Checked::Announced(announced)));
        }
        let cached = self.cached_tag(repository, tag).await?;
        let ttl = self.tag_ttl(self.mirrored(repository)?, repository, Some(tag));
        let fresh = self.fresh(ttl, &cached);
        Ok(fresh.map(|cached| Checked::Fetched(cached.content.clone())))
    }

    async fn ask_for_tag(
        self: Arc<Self>,
        repository: Repository,
        tag: Tag,
        wanted: Wanted,
    ) -> Result<Checked, Error> {
        if let Some(checked) = self.just_checked(&repository, &tag).await? {
            return Ok(checked);
        }
        let reference = Reference::Tag(tag.clone());
        let deadline = self.deadline();
        let announced = self.announced_if_of_use(&repository, &reference, wanted, deadline).await;
        let checked = match announced {
            Ok(Some(found)) => {
                let announced = Announced { found, at: self.clock.wall() };
                self.note_announced(&repository, &tag, &announced).await?;
                Ok(Checked::Announced(announced))
            }
            Ok(None) => {
                let mirrored = self.mirrored(&repository)?;
                let spending = self.spending(mirrored, &self.cached_tag(&repository, &tag).await?);
                let fetched = self.fetch(&repository, &reference, spending, deadline).await;
                fetched.map(Checked::Fetched)
            }
            Err(error) => Err(error),
        };
        if let Err(error) = &checked {
            self.follow_deletion(&repository, &tag, error);
        }
        checked
    }

    /// What a HEAD tells. `None`: it is of no use. Of a repository that is new here, nothing is here that
    /// the tag may mean: who wants the manifest gets it by one GET, and need not wait for a HEAD as well.
    async fn announced_if_of_use(
        &self,
        repository: &Repository,
        reference: &Reference,
        wanted: Wanted,
        deadline: Instant,
    ) -> Result<Option<Found>, Error> {
        match wanted {
            Wanted::Manifest if !self.store.knows(repository) => Ok(None),
            Wanted::Manifest | Wanted::Meaning => {
                self.announced(repository, reference, deadline).await
            }
        }
    }

    /// The tag's row moves only to a manifest that is here; until then the old one stays the
    /// stale answer.
    async fn note_announced(
        self: &Arc<Self>,
        repository: &Repository,
        tag: &Tag,
        announced: &Announced,
    ) -> Result<(), Error> {
        let digest = &announced.found.digest;
        let key = (repository.clone(), tag.clone());
        if let Some(content) = self.content(digest).await {
            self.set_tag(repository, tag, &content, announced.at);
            // What was announced before is out of date.
            self.announcements.invalidate(&key);
            return Ok(());
        }
        self.announcements.insert(key, announced.clone());
        Ok(())
    }

    /// A manifest is here now: tags that upstream said mean it move to it. Docker asks for the
    /// tag by HEAD, and for the manifest by digest.
    pub(super) fn settle_announced(&self, repository: &Repository, digest: &Digest) {
        for (key, announced) in self.announcements.iter() {
            let (announced_in, tag) = key.as_ref();
            if announced_in == repository && announced.found.digest == *digest {
                self.store.set_tag(repository, tag, digest, announced.at);
                self.announcements.invalidate(key.as_ref());
            }
        }
    }

    async fn fetch_announced(
        self: &Arc<Self>,
        repository: &Repository,
        tag: &Tag,
        announced: &Announced,
        spending: Spending,
    ) -> Result<Arc<Content>, Error> {
        let digest = &announced.found.digest;
        let content = match self.content(digest).await {
            Some(content) => content,
            None => {
                let reference = Reference::Digest(digest.clone());
                self.fetch(repository, &reference, spending, self.deadline()).await?
            }
        };
        let known = self.store.tag(repository, tag);
        if known.is_none_or(|known| known.checked_at < announced.at) {
            self.set_tag(repository, tag, &content, announced.at);
        }
        Ok(content)
    }

    /// Upstream said at `checked_at` that the tag means this manifest, which may be here only
    /// from another repository.
    fn set_tag(
        self: &Arc<Self>,
        repository: &Repository,
        tag: &Tag,
        content: &Arc<Content>,
        checked_at: SystemTime,
    ) {
        let is_new_here = !self.store.is_proved(repository, &content.digest);
        self.store.set_tag(repository, tag, &content.digest, checked_at);
        if is_new_here {
            self.prove_children(repository, content);
        }
    }

    /// A pinned tag keeps its meaning: it is served again when upstream cannot be asked.
    fn follow_deletion(&self, repository: &Repository, tag: &Tag, error: &Error) {
        if !self.is_deletion(error) {
            return;
        }
        self.announcements.invalidate(&(repository.clone(), tag.clone()));
        if !self.is_pinned(repository, tag) {
            self.store.drop_tag(repository, tag);
        }
    }

    fn answered(
        &self,
        repository: &Repository,
        cached: Option<Cached>,
        content: Arc<Content>,
    ) -> Found {
        let unchanged = cached.is_some_and(|cached| cached.content.digest == content.digest);
        let (result, source) =
            if unchanged { ("revalidated", Source::Cache) } else { ("miss", Source::Upstream) };
        self.count(repository, "manifest", result);
        Found::new(content, source)
    }

    /// The cached manifest in place of the answer that failed, if that is allowed.
    async fn stale(
        &self,
        repository: &Repository,
        tag: &Tag,
        cached: Option<Cached>,
        error: Error,
    ) -> Result<Found, Error> {
        // A deleted tag is dropped by the check that learnt of it, unless it is pinned.
        let absent = Absent::manifest(repository, &Reference::Tag(tag.clone()));
        let is_deleted = self.store.tag(repository, tag).is_none()
            || (self.is_deletion(&error) && self.is_absent(&absent));
        let mirrored = self.mirrored(repository)?;
        let is_young = |cached: &Cached| !self.is_too_old(mirrored, cached.checked_at);
        let Some(cached) = cached.filter(|cached| !is_deleted && is_young(cached)) else {
            return Err(error);
        };
        let is_obtainable = if matches!(error, Error::Limited { .. }) {
            // Upstream may have been silent because nothing was asked.
            self.ensure_obtainable(repository, &cached.content).await.is_ok()
        } else {
            self.is_obtainable(repository, &cached.content).await?
        };
        if !is_obtainable {
            return Err(error);
        }
        self.count(repository, "manifest", "stale");
        let mut found = Found::new(cached.content, Source::Cache);
        found.stale = Some(error.to_string());
        Ok(found)
    }

    /// Whether upstream has no such thing, and the mirror is to follow.
    pub(super) fn is_deletion(&self, error: &Error) -> bool {
        matches!((error, self.cache.on_deleted), (Error::NotFound(_), OnDeleted::Follow))
    }

    /// Whether a tag confirmed so long ago may not be served without asking. Where nothing is to be
    /// asked, there is none.
    pub(super) fn is_too_old(&self, mirrored: &Mirrored, checked_at: SystemTime) -> bool {
        match (self.cache.max_stale, self.age(checked_at)) {
            (Some(limit), Some(age)) => age > limit && !mirrored.is_offline(),
            (Some(_) | None, _) => false,
        }
    }

    /// Time of day that passed since `moment`. `None` when the clock has been set back.
    pub(super) fn age(&self, moment: SystemTime) -> Option<Duration> {
        self.clock.wall().duration_since(moment).ok()
    }
}
