//! The sweep: removes what nobody used for long, and what passes the limits, in bounded steps.

use std::{collections::HashSet, fs, io, sync::Arc, time::Duration};

use super::{
    Shared, blocking,
    budget::Goal,
    eviction::{Reason, Selection, Victim},
    memory::STEP,
    running::Moment,
    swept::{Plan, Swept},
    table::{BLOCK, Keeping},
};
use crate::oci::Registry;

/// How long it is remembered who may see a repository of which nothing is here.
const VERDICT_LIFE: Duration = Duration::from_secs(24 * 3600);

/// A look at what nobody used for as long as it is kept, in running time, as of the moment it began: what
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

    /// The registries of which anything may have expired.
    pub async fn concerned(&self) -> HashSet<Registry> {
        let Some(limit) = self.store.shortest_life else {
            return HashSet::new();
        };
        let (store, now) = (Arc::clone(&self.store), self.now);
        let step =
            move |from| store.memory.look(|table| table.registries_unused(from, STEP, limit, now));
        let all = blocking(move || (0..).step_by(STEP).map_while(step).flatten().collect());
        all.await.unwrap_or_default()
    }

    /// Removes what has expired, except what belongs to a registry that is unreachable now, and
    /// then what was unused longest until both limits are kept.
    ///
    /// # Errors
    /// What the disk says.
    pub async fn run(self, unreachable: &[Registry]) -> io::Result<Swept> {
        self.store.looked_around().await;
        let Some(turn) = self.store.turn_to_evict().await else {
            return Ok(Swept::default());
        };
        let (unreachable, now) = (unreachable.to_vec(), self.now);
        let sweep = move || {
            let _turn = turn;
            self.store.sweep(unreachable, now)
        };
        blocking(sweep).await?
    }

    /// What [`Sweep::run`] would remove.
    ///
    /// # Errors
    /// What the disk says.
    pub async fn plan(self, unreachable: &[Registry]) -> io::Result<Plan> {
        self.store.looked_around().await;
        let unreachable = unreachable.to_vec();
        blocking(move || Plan::make(self.store, unreachable, self.now)).await?
    }
}

impl Shared {
    /// Blocking.
    fn sweep(self: &Arc<Self>, unreachable: Vec<Registry>, now: Moment) -> io::Result<Swept> {
        let mut swept = Swept::default();
        self.count_partials(&self.downloads.remove_stale(), &mut swept);
        self.forget_idle_verdicts();
        let goal = self.room.goal(None)?;
        let goal = goal.less(self.evict_partials(&goal, &mut swept));
        let victims = self.choose(goal, unreachable, now);
        self.remove_victims(&victims, &mut swept, |_| ());
        self.room.look()?;
        Ok(swept)
    }

    /// What goes, in order. Blocking.
    pub(super) fn choose(
        &self,
        goal: Goal,
        unreachable: Vec<Registry>,
        now: Moment,
    ) -> Vec<Victim> {
        let selection = Selection::new(goal, self.shortest_life);
        self.select(selection, &self.keeping(unreachable), now)
    }

    /// What was said of who may see a repository counts until upstream is asked again: it goes once it
    /// is old, and the repository has nothing here that it would be of use for.
    fn forget_idle_verdicts(&self) {
        let recent = self.clock.wall().checked_sub(VERDICT_LIFE);
        if let Some(recent) = recent {
            self.memory.with(|table| table.forget_idle_verdicts(recent));
        }
    }

    pub(super) fn keeping(&self, unreachable: Vec<Registry>) -> Keeping {
        Keeping { expire_after: self.expire_after, unreachable }
    }

    /// Removes a victim, unless it was used meanwhile, and tells how many bytes of the disk that
    /// were. Blocking.
    pub(super) fn remove_one(&self, victim: &Victim, swept: &mut Swept) -> io::Result<u64> {
        let still_unused = || self.memory.look(|table| table.still_unused(victim));
        let Some((digest, _)) = still_unused() else {
            return Ok(0);
        };
        let _name = self.names.take(&digest);
        let Some((_, size)) = still_unused().filter(|(still, _)| *still == digest) else {
            return Ok(0);
        };
        match fs::remove_file(self.directory.blob(&digest)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            removed => removed?,
        }
        self.memory.with(|table| table.forget(&digest));
        self.open_files.let_go(&digest);
        let Some(size) = size else {
            return Ok(0);
        };
        self.count_evicted(victim.reason, size, swept);
        Ok(size.div_ceil(BLOCK).saturating_mul(BLOCK))
    }

    /// Half-done downloads of so many bytes were removed.
    pub(super) fn count_partials(&self, removed: &[u64], swept: &mut Swept) {
        for bytes in removed {
            self.count_evicted(Reason::Partial, *bytes, swept);
        }
    }

    fn count_evicted(&self, reason: Reason, bytes: u64, swept: &mut Swept) {
        swept.add(reason.label(), bytes);
        let reason = &[reason.label()];
        self.metrics.evicted_blobs.with_label_values(reason).inc();
        self.metrics.evicted_bytes.with_label_values(reason).inc_by(bytes);
    }
}
