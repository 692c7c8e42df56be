//! Expiry: removes what nobody used for long, in bounded steps.

use std::{cmp::Reverse, fs, io, sync::Arc, time::Duration};

use super::{
    Shared, blocking,
    running::Moment,
    table::{Aged, Keep, Keeping, Kind},
};
use crate::oci::{Digest, Registry};

/// Slots looked at under one lock.
const STEP: usize = 16 * 1024;

/// How long a partial download is kept that nobody goes on with, in running time since it was left
/// or found at a start. A pull that broke is tried again within minutes, or the next morning.
const PARTIAL_LIFE: Duration = Duration::from_secs(24 * 3600);

/// How long it is remembered who may see a repository of which nothing is here.
const VERDICT_LIFE: Duration = Duration::from_secs(24 * 3600);

/// Blobs removed in one go on a blocking thread.
const REMOVALS: usize = 64;

/// A look at what nobody used for `expire_after` of running time, as of the moment it began: what
/// expires after that is not seen, so that nothing is removed which nobody could ask to keep.
#[derive(Debug)]
pub struct Sweep {
    store: Arc<Shared>,
    now: Moment,
}

impl Sweep {
    pub(super) fn begin(store: Arc<Shared>) -> Sweep {
        Sweep { now: store.running.now(), store }
    }

    /// Whether anything of a registry has expired.
    pub async fn concerns(&self, registry: &Registry) -> bool {
        let Some(limit) = self.store.expire_after else {
            return false;
        };
        let (store, registry, now) = (Arc::clone(&self.store), registry.clone(), self.now);
        let of_registry = move || {
            let keeping = store.keeping(vec![registry]);
            store.aged(limit, &keeping, now).any(|aged| aged.keep == Keep::WhileThereIsRoom)
        };
        blocking(of_registry).await.unwrap_or(false)
    }

    /// Removes what has expired, except what belongs to a registry that is unreachable now.
    pub async fn run(self, unreachable: &[Registry]) {
        if let Err(error) = self.try_run(unreachable.to_vec()).await {
            tracing::warn!(%error, "a sweep did not end well");
        }
    }

    async fn try_run(self, unreachable: Vec<Registry>) -> io::Result<()> {
        let store = Arc::clone(&self.store);
        blocking(move || {
            store.downloads.remove_stale(PARTIAL_LIFE);
            store.forget_idle_verdicts();
            store.room.look(&store.directory)
        })
        .await??;
        let Some(limit) = self.store.expire_after else {
            return Ok(());
        };
        let (store, now) = (Arc::clone(&self.store), self.now);
        let victims = blocking(move || store.victims(limit, unreachable, now)).await?;
        for some in victims.chunks(REMOVALS) {
            let (store, some) = (Arc::clone(&self.store), some.to_vec());
            blocking(move || store.remove_unused(&some, limit)).await?;
        }
        Ok(())
    }
}

impl Shared {
    /// What was said of who may see a repository counts until upstream is asked again: it goes once it
    /// is old, and the repository has nothing here that it would be of use for.
    fn forget_idle_verdicts(&self) {
        let recent = self.clock.wall().checked_sub(VERDICT_LIFE);
        if let Some(recent) = recent {
            self.memory.with(|table| table.forget_idle_verdicts(recent));
        }
    }

    /// What is to be removed, in order. Blocking.
    pub(super) fn victims(
        &self,
        limit: Duration,
        unreachable: Vec<Registry>,
        now: Moment,
    ) -> Vec<Digest> {
        let keeping = self.keeping(unreachable);
        choose(self.aged(limit, &keeping, now).collect())
    }

    /// What was not used for `limit` at `now`. Blocking.
    fn aged(&self, limit: Duration, keeping: &Keeping, now: Moment) -> impl Iterator<Item = Aged> {
        let step =
            move |from| self.memory.with(|table| table.aged(from, STEP, limit, keeping, now));
        (0..).step_by(STEP).map_while(step).flatten()
    }

    fn keeping(&self, unreachable: Vec<Registry>) -> Keeping {
        Keeping { expire_after: self.expire_after, unreachable }
    }

    /// Removes those that are still unused for `limit`. Blocking.
    pub(super) fn remove_unused(&self, digests: &[Digest], limit: Duration) {
        for digest in digests {
            if let Err(error) = self.remove_one(digest, limit) {
                tracing::warn!(%digest, %error, "cannot remove an expired blob");
            }
        }
    }

    fn remove_one(&self, digest: &Digest, limit: Duration) -> io::Result<()> {
        let _name = self.names.take(digest);
        let now = self.running.now();
        let (unused, size) =
            self.memory.with(|table| (table.unused(digest, now), table.size(digest)));
        if unused.is_none_or(|unused| unused < limit) {
            return Ok(());
        }
        match fs::remove_file(self.directory.blob(digest)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            removed => removed?,
        }
        self.memory.with(|table| table.forget(digest));
        if let Some(size) = size {
            let reason = &["expired"];
            self.metrics.evicted_blobs.with_label_values(reason).inc();
            let bytes = self.metrics.evicted_bytes.with_label_values(reason);
            bytes.inc_by(size);
        }
        Ok(())
    }
}

/// The order of removal: what was unused longest goes first, and a manifest before what it
/// lists, so that no pull finds a manifest whose layers have just gone.
fn choose(mut aged: Vec<Aged>) -> Vec<Digest> {
    aged.retain(|aged| matches!(aged.keep, Keep::For(limit) if aged.unused >= limit));
    aged.sort_by_key(|aged| (Reverse(aged.unused), rank(aged.kind)));
    aged.into_iter().map(|aged| aged.digest).collect()
}

fn rank(kind: Option<Kind>) -> u8 {
    match kind {
        Some(Kind::Index) => 0,
        Some(Kind::Unread) => 1,
        Some(Kind::Image) => 2,
        None => 3,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::Algorithm;

    const OVERDUE: Keep = Keep::For(Duration::from_secs(10));

    fn aged(n: u8, seconds: u64, kind: Option<Kind>, keep: Keep) -> Aged {
        Aged {
            digest: Digest::of(Algorithm::Sha256, &[n]),
            unused: Duration::from_secs(seconds),
            kind,
            keep,
        }
    }

    #[test]
    fn the_oldest_go_first_and_manifests_before_what_they_list() {
        let layer = aged(1, 50, None, OVERDUE);
        let image = aged(2, 50, Some(Kind::Image), OVERDUE);
        let index = aged(3, 50, Some(Kind::Index), OVERDUE);
        let older = aged(4, 60, None, OVERDUE);
        let kept = aged(5, 70, Some(Kind::Index), Keep::WhileThereIsRoom);
        let all = [&layer, &image, &index, &older, &kept];
        assert_eq!(
            choose(all.into_iter().cloned().collect()),
            [&older, &index, &image, &layer].map(|aged| aged.digest.clone()),
        );
    }
}
