//! One blob by several requests at once (`download.streams`).
//!
//! Where the way is long, or upstream limits each connection, one stream carries less than the line
//! does. So a large blob is asked for in parts, in order and a few at a time. Each is written to its
//! place in the file as it comes; the writer takes in what has no gap before it, hashes it, and lets it be
//! read. Who reads the file, now or in a later life, sees what one stream would have brought.
//!
//! The body that tells how large the blob is becomes the first part, and is let go where the second
//! begins. A part that fails is asked for again; where that is in vain, one stream goes on from the
//! first gap, the first body if it is still there, and upstream's last word is said to that one.

use std::{collections::VecDeque, ops::Range};

use bytes::Bytes;
use tokio::{
    sync::watch,
    task::{JoinError, JoinSet},
};
use tokio_util::sync::CancellationToken;

use super::{
    download::{Download, Failure, Means, Progress},
    remote::Remote,
    resume::Supply,
};
use crate::{
    store::{BlobWriter, CannotTake, PartWriter},
    upstream::{self, Place, Rest},
};

const MIB: u64 = 1024 * 1024;

/// The least that is asked for in parts, in bytes: below, the requests would take the time that they save.
const LEAST: u64 = 16 * MIB;

/// How small and how large a part may be, in bytes. The largest keep what lies behind a gap within
/// bounds, the smallest are worth a request.
const SMALLEST: u64 = 4 * MIB;
const LARGEST: u64 = 32 * MIB;

/// So much is taken in before readers are told, in bytes.
const STEP: u64 = 4 * MIB;

/// How often in a row each endpoint is asked for a part in vain.
const RETRIES: u32 = 2;

/// How a blob is divided.
struct Plan {
    /// Bytes in the blob.
    size: u64,
    /// Bytes in each part but the last.
    length: u64,
    /// Parts under way at once.
    streams: usize,
    /// The endpoint to be asked first.
    place: Place,
}

/// The parts of one blob.
struct Streams {
    plan: Plan,
    remote: Remote,
    file: PartWriter,
    /// Where the first part begins that nobody was asked for.
    next: u64,
    /// Asked for and not taken in, in order. The writer ends within the first.
    coming: VecDeque<Coming>,
    tasks: JoinSet<(Supply, Result<(), Trouble>)>,
    stop: CancellationToken,
    /// Who sent all parts that have ended, or were stopped; `None` if that were several, or nobody knows.
    sender: Option<Place>,
}

/// A part on its way.
struct Coming {
    end: u64,
    /// Up to where it is in the file.
    arrived: watch::Receiver<u64>,
}

/// A part that has come to its end, or to some other: what is left of its supply, and why.
type Ended = Result<(Supply, Result<(), Trouble>), JoinError>;

/// Why there are no more parts.
enum Trouble {
    /// This endpoint gave none, or broke off.
    Upstream(Place, upstream::Error),
    /// They cannot be written.
    Disk(CannotTake),
    /// A task was lost.
    Lost,
}

impl Download {
    /// Fills by several requests as much as can be had so. `supply` brings the rest then.
    pub(super) async fn fill_in_parts(
        &self,
        means: &Means,
        supply: &mut Supply,
        writer: &mut BlobWriter,
    ) -> Result<(), Failure> {
        let Some(plan) = Plan::of(means, supply, writer) else {
            return Ok(());
        };
        let hashed = writer.hash_all().await;
        hashed.map_err(|error| self.strand(writer, error))?;
        let Ok(file) = writer.begin_parts().await else {
            return Ok(());
        };
        let (remote, start) = (means.remote.clone(), writer.written());
        let first = std::mem::replace(supply, rest(writer, means));
        let mut streams = Streams::begin(plan, first, file, remote, start);
        let taken_in = self.take_in_parts(&mut streams, writer).await;
        let whole = streams.stop().await;
        let ended = match taken_in {
            Err(Trouble::Disk(error)) => Err(error),
            Err(trouble) => {
                trouble.note(&means.remote);
                go_on_alone(writer, &whole).await
            }
            Ok(()) => Ok(()),
        };
        if ended.is_err() {
            writer.discard();
        }
        ended.map_err(|error| self.strand(writer, error))?;
        *supply = whole.unwrap_or_else(|| rest(writer, means).sent_by(streams.sender));
        Ok(())
    }

    async fn take_in_parts(
        &self,
        streams: &mut Streams,
        writer: &mut BlobWriter,
    ) -> Result<(), Trouble> {
        while let Some(end) = streams.next_arrived(writer.written()).await? {
            writer.take_in(end).await.map_err(Trouble::Disk)?;
            self.advance(Progress::Filling(writer.written()));
        }
        Ok(())
    }
}

/// Makes the file one that is appended to, by what the body of the whole still brings, if there is one.
async fn go_on_alone(writer: &mut BlobWriter, whole: &Option<Supply>) -> Result<(), CannotTake> {
    if let Some(whole) = whole {
        writer.take_in(whole.start()).await?;
    }
    writer.drop_parts().await
}

/// What the writer lacks.
fn rest(writer: &BlobWriter, means: &Means) -> Supply {
    let rest = Rest { start: writer.written(), size: writer.size() };
    Supply::rest(rest, means.remote.clone())
}

impl Means {
    /// What one endpoint sent was wrong, or what several did if it is not known which. That may be the
    /// right bytes in wrong places.
    pub(super) fn distrust_parts(&self, sender: Option<Place>) {
        let upstream = &self.remote.upstream;
        let suspects = upstream.places().filter(|place| sender.is_none_or(|sent| sent == *place));
        suspects.for_each(|place| upstream.distrust_parts(place));
    }
}

impl Plan {
    /// `None`: one stream is all that is wanted, or worth it, or to be had.
    fn of(means: &Means, supply: &Supply, writer: &BlobWriter) -> Option<Plan> {
        let (upstream, place) = (&means.remote.upstream, supply.place());
        let size = writer.size().filter(|_| means.streams > 1 && upstream.gives_parts(place))?;
        let left = size.checked_sub(writer.written()).filter(|left| *left >= LEAST)?;
        is_welcome(&means.remote).then(|| {
            let length = part_length(left, means.streams);
            Plan { size, length, streams: means.streams, place }
        })
    }
}

/// Whether upstream has connections to spare for more than the one that a blob needs.
fn is_welcome(remote: &Remote) -> bool {
    remote.upstream.has_spare_connections() && !remote.upstream.wants_pause()
}

/// Parts of equal length, as many for one stream as for the other, so that none has the last part for
/// itself: two each, unless they were too small or too large.
fn part_length(left: u64, streams: usize) -> u64 {
    let streams = streams as u64;
    let at_least = left.div_ceil(streams.saturating_mul(LARGEST));
    let at_most = left / streams.saturating_mul(SMALLEST);
    let parts = streams.saturating_mul(at_most.clamp(1, 2).max(at_least));
    left.div_ceil(parts).max(SMALLEST)
}

impl Streams {
    /// The first part is what `supply` brings, from `start` on.
    fn begin(plan: Plan, supply: Supply, file: PartWriter, remote: Remote, start: u64) -> Streams {
        // A part is on its way with the blob, and may come while the mirror stops.
        let stopping = CancellationToken::new();
        let remote = Remote { retries: RETRIES.min(remote.retries), stopping, ..remote };
        let sender = Some(plan.place);
        let mut streams = Streams {
            plan,
            remote,
            file,
            next: start,
            coming: VecDeque::new(),
            tasks: JoinSet::new(),
            stop: CancellationToken::new(),
            sender,
        };
        let first = streams.next_range();
        streams.start(supply.until(first.end), first);
        streams
    }

    /// Waits for more than the writer has, and tells up to where it may take in. `None` at the end.
    async fn next_arrived(&mut self, written: u64) -> Result<Option<u64>, Trouble> {
        loop {
            while let Some(ended) = self.tasks.try_join_next() {
                self.note_end(ended)?;
            }
            self.ask_for_more(written);
            while self.coming.front().is_some_and(|first| first.end <= written) {
                self.coming.pop_front();
            }
            let Some(first) = self.coming.front_mut() else {
                return Ok(None);
            };
            let arrived = *first.arrived.borrow_and_update();
            if arrived > written {
                return Ok(Some(arrived.min(written.saturating_add(STEP))));
            }
            tokio::select! {
                Ok(()) = first.arrived.changed() => {}
                Some(ended) = self.tasks.join_next() => {
                    self.note_end(ended)?;
                }
                else => return Err(Trouble::Lost),
            }
        }
    }

    /// Notes who sent what came of a part.
    fn note_end(&mut self, ended: Ended) -> Result<Supply, Trouble> {
        let Ok((supply, brought)) = ended else {
            self.sender = None;
            return Err(Trouble::Lost);
        };
        self.sender = self.sender.filter(|sender| supply.sender() == Some(*sender));
        brought.map(|()| supply)
    }

    /// One part at least, more as long as upstream has room for them and the gap is not too far back.
    fn ask_for_more(&mut self, written: u64) {
        let ahead = self.plan.length.saturating_mul(2).saturating_mul(self.plan.streams as u64);
        while self.next < self.plan.size {
            let under_way = self.tasks.len();
            let is_near = self.next.saturating_sub(written) < ahead;
            let may_be_more = under_way < self.plan.streams && is_near && is_welcome(&self.remote);
            if under_way > 0 && !may_be_more {
                return;
            }
            let range = self.next_range();
            let (size, place) = (self.plan.size, self.plan.place);
            let supply = Supply::part(&range, size, place, self.remote.clone());
            self.start(supply, range);
        }
    }

    fn next_range(&mut self) -> Range<u64> {
        let start = self.next;
        self.next = start.saturating_add(self.plan.length).min(self.plan.size);
        start..self.next
    }

    fn start(&mut self, mut supply: Supply, range: Range<u64>) {
        let (arriving, arrived) = watch::channel(range.start);
        self.coming.push_back(Coming { end: range.end, arrived });
        let (file, stop) = (self.file.clone(), self.stop.clone());
        self.tasks.spawn(async move {
            let brought = bring(&mut supply, file, arriving, stop).await;
            (supply, brought)
        });
    }

    /// Returns when no part is written any more, with the body of the whole if it was still on its way.
    async fn stop(&mut self) -> Option<Supply> {
        self.stop.cancel();
        let mut whole = None;
        while let Some(ended) = self.tasks.join_next().await {
            let stopped = self.note_end(ended).ok();
            whole = whole.or(stopped.and_then(Supply::whole));
        }
        whole
    }
}

impl Trouble {
    /// An answer that is no part is remembered: one who gives none need not be asked each time.
    fn note(&self, remote: &Remote) {
        let Trouble::Upstream(place, error) = self else { return };
        if matches!(error, upstream::Error::Invalid(_)) {
            remote.upstream.distrust_parts(*place);
        }
        let (repository, digest) = (&remote.repository, &remote.digest);
        tracing::info!(%repository, %digest, %error, "a blob goes on in one stream");
    }
}

/// Writes one part to its place, to its end unless it is stopped.
async fn bring(
    supply: &mut Supply,
    file: PartWriter,
    arriving: watch::Sender<u64>,
    stop: CancellationToken,
) -> Result<(), Trouble> {
    // A write that has begun is waited for: nobody may write when the parts have been stopped.
    while let Some(gathered) = stop.run_until_cancelled(supply.next()).await {
        let gathered = gathered.map_err(|error| Trouble::Upstream(supply.place(), error))?;
        let Some(batch) = gathered else { break };
        let start = *arriving.borrow();
        let length: u64 = batch.iter().map(|chunk: &Bytes| chunk.len() as u64).sum();
        file.write_at(batch, start).await.map_err(Trouble::Disk)?;
        arriving.send_replace(start.saturating_add(length));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_equal_and_neither_small_nor_large() {
        let table = [
            (16 * MIB, 4, 4 * MIB, 4),
            (16 * MIB, 8, 4 * MIB, 4),
            (20 * MIB, 4, 5 * MIB, 4),
            (256 * MIB, 4, 32 * MIB, 8),
            (256 * MIB + 1, 4, 256 * MIB / 12 + 1, 12),
            (100 * MIB, 4, 100 * MIB / 8, 8),
            (10_000 * MIB, 4, 33_182_785, 316),
            (17 * MIB, 2, 17 * MIB / 4, 4),
            (u64::MAX, usize::MAX, 4 * MIB, u64::MAX.div_ceil(4 * MIB)),
        ];
        for (left, streams, want, parts) in table {
            let length = part_length(left, streams);
            assert_eq!((length, left.div_ceil(length)), (want, parts), "{left} by {streams}");
        }
    }
}
