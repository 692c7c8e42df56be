//! The bytes of one blob from upstream, over as many requests as that takes.
//!
//! A body that breaks or stalls is no failure of its download as long as some endpoint goes on from
//! the last byte that is here. Each request begins at the registry, so that token and redirect are
//! fresh; there is no `If-Range`, for the digest is the name and each endpoint has its own ETags.

use std::{collections::VecDeque, ops::Range, time::Duration};

use bytes::Bytes;
use futures_util::FutureExt as _;

use super::{ANSWER_DEADLINE, remote::Remote};
use crate::upstream::{self, BlobBody, Place, Rest};

/// How much is gathered before it is hashed and written, in bytes.
const BATCH: usize = 512 * 1024;

/// The pause before the first try. It doubles with each that brings nothing. Clients wait meanwhile.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// The rest of one blob, on its way.
pub(super) struct Supply {
    remote: Remote,
    body: Option<BlobBody>,
    rest: Rest,
    /// Where it ends, if that is before the blob does.
    end: Option<u64>,
    /// Who sent all that is here; `None` if that were several, or nobody knows.
    sender: Option<Place>,
    tries: Tries,
    breaks: u32,
}

impl Supply {
    /// The blob with this body, from its first byte on.
    pub(super) fn of(body: BlobBody, remote: Remote) -> Supply {
        let rest = Rest { start: 0, size: body.size() };
        let sender = body.place();
        let tries = Tries::new(remote.upstream.places(), sender, remote.retries);
        let (body, sender) = (Some(body), Some(sender));
        Supply { tries, body, sender, ..Supply::rest(rest, remote) }
    }

    /// What is lacked of a blob, to be asked for.
    pub(super) fn rest(rest: Rest, remote: Remote) -> Supply {
        let tries = Tries::new(remote.upstream.places(), Place::default(), remote.retries);
        Supply { remote, body: None, rest, end: None, sender: None, tries, breaks: 0 }
    }

    /// A part of a blob of `size` bytes, to be asked for, of this endpoint before others.
    pub(super) fn part(range: &Range<u64>, size: u64, first: Place, remote: Remote) -> Supply {
        let tries = Tries::new(remote.upstream.places(), first, remote.retries);
        let rest = Rest { start: range.start, size: Some(size) };
        Supply { tries, sender: Some(first), ..Supply::rest(rest, remote).until(range.end) }
    }

    /// The same up to there, and no further.
    pub(super) fn until(self, end: u64) -> Supply {
        Supply { end: Some(end), ..self }
    }

    /// The same to the blob's end, if its body goes there. What came behind its end is lost.
    pub(super) fn whole(self) -> Option<Supply> {
        let is_whole = self.body.as_ref().is_some_and(|body| body.size() == self.rest.size);
        let is_at_end = self.end == Some(self.rest.start);
        (is_whole && !is_at_end).then_some(Supply { end: None, ..self })
    }

    /// The first byte that is not here.
    pub(super) fn start(&self) -> u64 {
        self.rest.start
    }

    /// The same, of which this endpoint sent all that is here.
    pub(super) fn sent_by(self, sender: Option<Place>) -> Supply {
        Supply { sender, ..self }
    }

    /// The endpoint that sends, or is asked next.
    pub(super) fn place(&self) -> Place {
        self.tries.place()
    }

    /// The endpoint that sent all bytes so far; `None` if that were several, or nobody knows.
    pub(super) fn sender(&self) -> Option<Place> {
        self.sender
    }

    /// Waits for the next bytes and takes what else is there already; `None` at the blob's end.
    ///
    /// # Errors
    /// Upstream's last failure, when it has been asked in vain too often, or the mirror stops before
    /// it answers, or when what it answers to a question for a part is none.
    pub(super) async fn next(&mut self) -> Result<Option<Vec<Bytes>>, upstream::Error> {
        // With all bytes here there is nothing to ask for, however their body ended.
        while !self.is_at_end() {
            let Some(body) = &mut self.body else {
                match self.ask().await {
                    Ok(()) => {}
                    Err(error @ upstream::Error::Invalid(_)) if self.end.is_some() => {
                        return Err(error);
                    }
                    Err(error) => self.pause(Trouble::Refused(error)).await?,
                }
                continue;
            };
            match next_batch(body).await {
                Ok(batch) => return Ok(batch.map(|batch| self.count_all(batch))),
                Err(error) => self.pause(Trouble::Broken(error)).await?,
            }
        }
        Ok(None)
    }

    /// The next bytes, if they are here already. What else there is to say, [`Supply::next`] says.
    pub(super) fn at_hand(&mut self) -> Option<Bytes> {
        if self.is_at_end() {
            return None;
        }
        let chunk = self.body.as_mut()?.chunk().now_or_never()?.ok()??;
        Some(self.count(chunk))
    }

    fn is_at_end(&self) -> bool {
        self.end.or(self.rest.size) == Some(self.rest.start)
    }

    async fn ask(&mut self) -> Result<(), upstream::Error> {
        let Remote { upstream, repository, digest, metrics, stopping, .. } = &self.remote;
        let (place, name, rest) = (self.tries.place(), repository.name(), self.rest);
        let asked = async {
            match self.end.zip(rest.size) {
                None => upstream.get_blob_rest(place, name, digest, rest, ANSWER_DEADLINE).await,
                Some((end, size)) => {
                    let (range, limit) = (rest.start..end, ANSWER_DEADLINE);
                    upstream.get_blob_part_from(place, name, digest, &range, size, limit).await
                }
            }
        };
        let answer = stopping.run_until_cancelled(asked).await;
        let body = answer.unwrap_or_else(|| Err(stopped()))?;
        // The first question for a part goes on with nothing.
        if self.end.is_none() || self.breaks > 0 {
            let registry = repository.registry().as_str();
            metrics.download_resumes.with_label_values(&[registry]).inc();
        }
        self.body = Some(body);
        self.sender = match self.rest.start {
            0 => Some(place),
            _ => self.sender.filter(|sender| *sender == place),
        };
        Ok(())
    }

    fn count_all(&mut self, batch: Vec<Bytes>) -> Vec<Bytes> {
        batch.into_iter().map(|chunk| self.count(chunk)).collect()
    }

    /// What is behind the end is dropped.
    fn count(&mut self, mut chunk: Bytes) -> Bytes {
        let left = self.end.map_or(u64::MAX, |end| end.saturating_sub(self.rest.start));
        chunk.truncate(usize::try_from(left).unwrap_or(usize::MAX));
        self.rest.start = self.rest.start.saturating_add(chunk.len() as u64);
        if !chunk.is_empty() {
            self.tries.forget();
        }
        chunk
    }

    /// Waits until upstream may be asked again, unless the mirror stops.
    async fn pause(&mut self, trouble: Trouble) -> Result<(), upstream::Error> {
        self.body = None;
        let pause = self.tries.next(&trouble).map(|pause| pause.mul_f64(jitter()));
        let error = trouble.into_error();
        let Some(pause) = pause else {
            return Err(error);
        };
        self.breaks = self.breaks.saturating_add(1);
        let Remote { repository, digest, stopping, .. } = &self.remote;
        let from = self.rest.start;
        // Once is enough for the log of a download that breaks all the time.
        match self.breaks {
            1 => tracing::info!(%repository, %digest, from, %error, "a blob broke off; going on"),
            _ => tracing::debug!(%repository, %digest, from, %error, "a blob broke off again"),
        }
        let slept = stopping.run_until_cancelled(tokio::time::sleep(pause)).await;
        slept.ok_or(error)
    }
}

/// What is wrong with an endpoint.
enum Trouble {
    /// Its body broke off or stalled.
    Broken(upstream::Error),
    /// It gave no body.
    Refused(upstream::Error),
}

impl Trouble {
    fn into_error(self) -> upstream::Error {
        match self {
            Trouble::Broken(error) | Trouble::Refused(error) => error,
        }
    }

    /// How long it asked to be left alone.
    fn retry_after(&self) -> Duration {
        use upstream::Error::{Limited, Unavailable};
        match self {
            Trouble::Refused(
                Limited { retry_after: Some(time), .. }
                | Unavailable { retry_after: Some(time), .. },
            ) => *time,
            Trouble::Refused(_) | Trouble::Broken(_) => Duration::ZERO,
        }
    }
}

/// How often each endpoint was asked since the last byte came, the present one first.
struct Tries {
    present: Tried,
    others: VecDeque<Tried>,
    /// So often, at most.
    limit: u32,
}

#[derive(Clone, Copy)]
struct Tried {
    place: Place,
    times: u32,
}

impl Tries {
    /// None yet. `first` is the endpoint that sends now.
    fn new(places: impl Iterator<Item = Place>, first: Place, limit: u32) -> Tries {
        let mut others: VecDeque<Tried> = places.map(|place| Tried { place, times: 0 }).collect();
        // Whoever comes after the first in the order of preference is the next.
        let before = others.iter().position(|tried| tried.place == first).unwrap_or(0);
        others.rotate_left(before);
        others.pop_front();
        Tries { present: Tried { place: first, times: 0 }, others, limit }
    }

    /// The endpoint to ask.
    fn place(&self) -> Place {
        self.present.place
    }

    /// A byte came.
    fn forget(&mut self) {
        self.present.times = 0;
        self.others.iter_mut().for_each(|tried| tried.times = 0);
    }

    /// How long to wait before the next try, which may be at another endpoint: one that gives no
    /// body is left at once, one whose bodies break when it has had its tries. `None`: all have.
    fn next(&mut self, trouble: &Trouble) -> Option<Duration> {
        let mut at_least = trouble.retry_after();
        let is_refused = matches!(trouble, Trouble::Refused(_));
        if is_refused && self.others.iter().any(|tried| tried.times < self.limit) {
            self.turn();
            at_least = Duration::ZERO;
        }
        for _ in 0..=self.others.len() {
            if self.present.times < self.limit {
                let pause = pause_after(self.present.times).max(at_least).min(LONGEST_PAUSE);
                self.present.times += 1;
                return Some(pause);
            }
            self.turn();
        }
        None
    }

    /// Turns to the next endpoint.
    fn turn(&mut self) {
        self.others.push_back(self.present);
        if let Some(next) = self.others.pop_front() {
            self.present = next;
        }
    }
}

fn pause_after(tries: u32) -> Duration {
    FIRST_PAUSE.saturating_mul(1_u32.checked_shl(tries).unwrap_or(u32::MAX)).min(LONGEST_PAUSE)
}

/// From one to one and a half, so that downloads which broke together do not come back together.
fn jitter() -> f64 {
    1.0 + fastrand::f64() / 2.0
}

fn stopped() -> upstream::Error {
    upstream::Error::Unreachable("no answer before the mirror stopped".to_owned())
}

/// Waits for one chunk and takes what else is there already, up to [`BATCH`].
async fn next_batch(body: &mut BlobBody) -> Result<Option<Vec<Bytes>>, upstream::Error> {
    let Some(first) = body.chunk().await? else {
        return Ok(None);
    };
    let mut gathered = first.len();
    let mut batch = vec![first];
    while gathered < BATCH {
        // The end, or a failure, is seen again by the next call.
        let Some(Ok(Some(chunk))) = body.chunk().now_or_never() else {
            break;
        };
        gathered = gathered.saturating_add(chunk.len());
        batch.push(chunk);
    }
    Ok(Some(batch))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: u32 = 3;

    fn broken() -> Trouble {
        Trouble::Broken(upstream::Error::Timeout("stalled".to_owned()))
    }

    fn refused() -> Trouble {
        Trouble::Refused(upstream::Error::Unreachable("500".to_owned()))
    }

    fn tries(endpoints: usize) -> (Tries, Vec<Place>) {
        let places: Vec<Place> = (0..endpoints).map(Place::numbered).collect();
        (Tries::new(places.iter().copied(), places[0], LIMIT), places)
    }

    /// Milliseconds of each pause, and which endpoint is asked after it.
    fn course(tries: &mut Tries, places: &[Place], trouble: &Trouble) -> Vec<(u128, usize)> {
        let next = || {
            let pause = tries.next(trouble)?;
            let place = places.iter().position(|place| *place == tries.place())?;
            Some((pause.as_millis(), place))
        };
        std::iter::from_fn(next).collect()
    }

    #[test]
    fn one_endpoint_is_asked_less_and_less_often() {
        let (mut tries, places) = tries(1);
        assert_eq!(course(&mut tries, &places, &broken()), [(100, 0), (200, 0), (400, 0)]);
        assert_eq!(tries.next(&refused()), None);
        tries.forget();
        assert_eq!(course(&mut tries, &places, &refused()), [(100, 0), (200, 0), (400, 0)]);
    }

    #[test]
    fn the_next_endpoint_has_its_own_tries() {
        let (mut tries, places) = tries(2);
        let (once, twice, thrice) = (100, 200, 400);
        let [at_first, at_second] =
            [0, 1].map(|place| [(once, place), (twice, place), (thrice, place)]);
        assert_eq!(course(&mut tries, &places, &broken()), [at_first, at_second].concat());
    }

    #[test]
    fn who_gives_no_body_is_left_at_once() {
        let (mut tries, places) = tries(2);
        let want = [(100, 1), (100, 0), (200, 1), (200, 0), (400, 1), (400, 0)];
        assert_eq!(course(&mut tries, &places, &refused()), want);
    }

    #[test]
    fn a_limit_is_waited_for_within_reason() {
        let kinds: [fn(Option<Duration>) -> upstream::Error; 2] = [
            |retry_after| upstream::Error::Limited { message: String::new(), retry_after },
            |retry_after| upstream::Error::Unavailable { message: String::new(), retry_after },
        ];
        for kind in kinds {
            let (mut tries, _) = tries(1);
            let limited = |seconds| Trouble::Refused(kind(Some(Duration::from_secs(seconds))));
            assert_eq!(tries.next(&limited(3)), Some(Duration::from_secs(3)));
            assert_eq!(tries.next(&limited(3600)), Some(LONGEST_PAUSE));
        }
        assert_eq!(pause_after(60), LONGEST_PAUSE);
    }
}
