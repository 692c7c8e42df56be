//! Room for what is about to be fetched: taken if it is there, made by an eviction if it is not.
//!
//! Evictions take turns. Who needs one waits until there is room enough for what it wants; the
//! eviction goes on to its low marks behind its back, and lets others have what it makes.

use std::{io, pin::pin, sync::Arc, time::Duration};

use tokio::{
    sync::{OwnedSemaphorePermit, oneshot},
    time::{Instant, sleep_until},
};

use super::{
    CannotTake, Shared, blocking,
    budget::{Goal, Short},
    eviction::{Selection, Victim},
    ledger::Hold,
    memory::STEP,
    running::Moment,
    swept::{Count, Swept},
    table::Keeping,
    withdrawal::Withdrawal,
};
use crate::oci::Digest;

/// How long room is waited for that others may give back: who waits has a client that waits.
const PATIENCE: Duration = Duration::from_secs(2);

/// Blobs removed before those who wait look again.
const REMOVALS: usize = 64;

impl Shared {
    /// Takes room for a file of `bytes`.
    ///
    /// # Errors
    /// When there is none, none can be made, and none is given back in a little while.
    pub async fn take_room(self: &Arc<Self>, bytes: u64) -> Result<Hold, CannotTake> {
        let patience = Instant::now() + PATIENCE;
        loop {
            let mut returned = pin!(self.room.ledger().returned());
            returned.as_mut().enable();
            let short = match self.try_take_room(bytes).await? {
                Ok(hold) => return Ok(hold),
                Err(short) if short.for_good || Instant::now() >= patience => {
                    return Err(no_room(bytes, &short));
                }
                Err(short) => short,
            };
            tokio::select! {
                made = self.make_room(bytes) => {
                    // Those who fill files now may give back what they hold.
                    let may_return = self.room.ledger().held() >= short.by;
                    match made {
                        true => continue,
                        false if may_return => {}
                        false => return Err(no_room(bytes, &short)),
                    }
                }
                () = &mut returned => continue,
                () = sleep_until(patience) => continue,
            }
            // What is given back is found by the next look, which is the last one after this time.
            let _ = tokio::time::timeout_at(patience, returned).await;
        }
    }

    async fn try_take_room(
        self: &Arc<Self>,
        bytes: u64,
    ) -> Result<Result<Hold, Short>, CannotTake> {
        let store = Arc::clone(self);
        let taken = blocking(move || store.room.take(bytes)).await;
        taken.and_then(|taken| taken).map_err(|error| self.room.failed(error))
    }

    /// Waits until all files are known, for its turn, and then until an eviction has made room, if it can.
    /// Tells whether it has made any.
    async fn make_room(self: &Arc<Self>, bytes: u64) -> bool {
        self.looked_around().await;
        let Some(turn) = self.turn_to_evict().await else {
            return false;
        };
        let (enough, is_enough) = oneshot::channel();
        let store = Arc::clone(self);
        let evict = move || {
            let _turn = turn;
            store.evict_for(bytes, enough);
        };
        // It goes on when this future is dropped, and tells of its end by the channel.
        drop(tokio::task::spawn_blocking(evict));
        is_enough.await.unwrap_or(false)
    }

    /// `None` at the very end, when nobody gives turns any more.
    pub(super) async fn turn_to_evict(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.evictions).acquire_owned().await.ok()
    }

    /// Evicts for a file of `bytes`, and says when there is enough room for it. Blocking.
    fn evict_for(self: &Arc<Self>, bytes: u64, enough: oneshot::Sender<bool>) {
        let goal = match self.room.goal(Some(bytes)) {
            Ok(goal) => goal,
            Err(error) => return tracing::warn!(%error, "cannot look for room"),
        };
        let mut waiting = Waiting { least: goal.least, enough: Some(enough) };
        if goal.least == 0 {
            return waiting.see(0);
        }
        if !goal.is_of_use() {
            return;
        }
        let Count { blobs, bytes: evicted } = self.evict(&goal, |made| waiting.see(made));
        if blobs > 0 {
            tracing::info!(blobs, bytes = evicted, "made room for a file of {bytes} bytes");
        }
    }

    /// Evicts where `refused` bytes could not be written, or could soon not be, whatever is said to be
    /// free. Tells whether that was of use. Blocking.
    pub(super) fn relieve(self: &Arc<Self>, refused: u64) -> bool {
        // An eviction under way makes room as well.
        let Ok(_turn) = self.evictions.try_acquire() else {
            return true;
        };
        let goal = match self.room.relief(refused) {
            Ok(goal) if goal.is_of_use() => goal,
            Ok(_) => return false,
            Err(error) => {
                tracing::warn!(%error, "cannot look for room");
                return false;
            }
        };
        let Count { blobs, bytes } = self.evict(&goal, |_| ());
        if blobs > 0 {
            tracing::info!(blobs, bytes, "made room on a disk that is too full");
        }
        blobs > 0
    }

    /// Removes what was left half-done, and then what was unused longest. Says after each step how many
    /// bytes of the disk that were so far. Blocking.
    fn evict(self: &Arc<Self>, goal: &Goal, mut progress: impl FnMut(u64)) -> Count {
        let mut swept = Swept::default();
        let partials = self.evict_partials(goal, &mut swept);
        progress(partials);
        let selection = Selection::new(goal.less(partials), None);
        let victims = self.select(selection, &self.keeping(Vec::new()), self.running.now());
        self.remove_victims(&victims, &mut swept, |removed| {
            progress(partials.saturating_add(removed));
        });
        swept.total()
    }

    /// Removes what was left half-done, oldest first, and tells how many bytes that were. Blocking.
    pub(super) fn evict_partials(&self, goal: &Goal, swept: &mut Swept) -> u64 {
        let removed = self.downloads.remove_left(goal.bytes());
        self.count_partials(&removed, swept);
        removed.iter().sum()
    }

    /// What is to go, of all there is. Blocking; the table is locked for a step at a time.
    pub(super) fn select(
        &self,
        mut selection: Selection,
        keeping: &Keeping,
        now: Moment,
    ) -> Vec<Victim> {
        let mut step = |from| {
            self.memory.look(|table| table.consider(from, STEP, keeping, now, &mut selection))
        };
        for from in (0..).step_by(STEP) {
            if !step(from) {
                break;
            }
        }
        selection.finish()
    }

    /// Removes what nobody has used since it was chosen, until the store is closed. Says after each how
    /// many bytes of the disk that were so far. Blocking.
    pub(super) fn remove_victims(
        self: &Arc<Self>,
        victims: &[Victim],
        swept: &mut Swept,
        mut progress: impl FnMut(u64),
    ) {
        let mut removed: u64 = 0;
        let mut failures = Failures::default();
        let _withdrawn = Withdrawal::of(Arc::clone(self), &self.manifests_of(victims));
        for some in victims.chunks(REMOVALS) {
            for victim in some {
                if self.evictions.is_closed() {
                    return;
                }
                match self.remove_one(victim, swept) {
                    Ok(bytes) => removed = removed.saturating_add(bytes),
                    Err(error) => failures.note(&error),
                }
                progress(removed);
            }
            self.room.ledger().notify();
        }
        failures.tell();
    }
}

impl Shared {
    fn manifests_of(&self, victims: &[Victim]) -> Vec<Digest> {
        let step = |some| self.memory.look(|table| table.manifests_of(some));
        victims.chunks(STEP).flat_map(step).collect()
    }
}

/// What could not be removed: on a disk that cannot be written that is all there is, and one line.
#[derive(Default)]
struct Failures {
    blobs: u64,
    first: Option<String>,
}

impl Failures {
    fn note(&mut self, error: &io::Error) {
        self.blobs = self.blobs.saturating_add(1);
        self.first.get_or_insert_with(|| error.to_string());
    }

    fn tell(self) {
        if let Failures { blobs, first: Some(error) } = self {
            tracing::warn!(blobs, error, "cannot remove what has to go");
        }
    }
}

/// Somebody who needs so much, until it is there.
struct Waiting {
    least: u64,
    enough: Option<oneshot::Sender<bool>>,
}

impl Waiting {
    fn see(&mut self, bytes: u64) {
        if bytes >= self.least
            && let Some(enough) = self.enough.take()
        {
            // Who has gone meanwhile need not know.
            let _ = enough.send(true);
        }
    }
}

fn no_room(bytes: u64, short: &Short) -> CannotTake {
    let Short { by, key, allowed, .. } = short;
    CannotTake::NoRoom(format!(
        "{bytes} bytes are {by} more than fit, with cache.{key} at {allowed} bytes"
    ))
}
