//! The endpoints of one upstream, in order: who is asked, how often, and for how long.
//!
//! In each round those are asked, one after the other, whose breaker lets the question pass, until one
//! has an answer. Where all fail, those whose trouble may be over in a moment, or whose redirect led
//! to a refusal, are asked again, after a pause. All requests are GET or HEAD, so that nothing is done
//! twice; the deadline is one for all rounds.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use super::{
    Error, Place, Upstream,
    answer::Answer,
    breaker::Leave,
    connections::Connection,
    endpoint::{Ask, Endpoint},
    health::Operation,
};

/// Rounds in all.
const ROUNDS: u32 = 3;
/// The most that is waited before the second round, unless an endpoint asks for more. It doubles
/// with each round.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// How long an endpoint has to show that it is back, where another can be asked instead.
const PROBE_TIME: Duration = Duration::from_secs(2);
/// The silence of one that had less time than this, because others had used it up, is not held
/// against it.
const FAIR_TIME: Duration = Duration::from_millis(500);

/// What came of asking in vain.
struct Vain<'a> {
    /// The answer, if no other endpoint does better.
    error: Option<Error>,
    /// Those whose trouble may be over in a moment.
    again: Vec<&'a Endpoint>,
    /// How long one of them asked to be left alone.
    retry_after: Duration,
}

impl Upstream {
    /// The answer of the first endpoint that has one.
    pub(super) async fn ask(&self, ask: &Ask<'_>, deadline: Instant) -> Result<Answer, Error> {
        self.ask_of(&self.inner.endpoints, ask, deadline).await
    }

    /// The answer of the first of `endpoints` that has one. It holds a connection to the end of its
    /// body.
    pub(super) async fn ask_of<'a>(
        &'a self,
        endpoints: &'a [Endpoint],
        ask: &Ask<'_>,
        deadline: Instant,
    ) -> Result<Answer, Error> {
        let answer =
            self.first_answer_of(endpoints, ask, deadline, |endpoint| endpoint.exchange(ask));
        let (mut answer, connection) = answer.await?;
        answer.body.hold(connection);
        Ok(answer)
    }

    /// [`Upstream::first_answer_of`] all endpoints.
    pub(super) async fn first_answer<'a, T, F>(
        &'a self,
        ask: &Ask<'_>,
        deadline: Instant,
        question: impl Fn(&'a Endpoint) -> F,
    ) -> Result<T, Error>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let endpoints = &self.inner.endpoints;
        let (answer, _) = self.first_answer_of(endpoints, ask, deadline, question).await?;
        Ok(answer)
    }

    /// Asks these endpoints in order until one gives an answer that no other could better, in as many
    /// rounds as `deadline` and the breakers allow. With the answer is the connection that it came by:
    /// a round has one at a time, the pauses between them have none.
    pub(super) async fn first_answer_of<'a, T, F>(
        &'a self,
        endpoints: &'a [Endpoint],
        ask: &Ask<'_>,
        deadline: Instant,
        question: impl Fn(&'a Endpoint) -> F,
    ) -> Result<(T, Connection), Error>
    where
        F: Future<Output = Result<T, Error>>,
    {
        self.ensure_online()?;
        let connections = &self.inner.connections;
        let mut vain = Vain::new(endpoints);
        for round in 1..=ROUNDS {
            let connection = connections.for_exchange_until(ask.operation, deadline).await?;
            if let Some(outcome) = self.round(&mut vain, ask, deadline, &question).await {
                return outcome.map(|answer| (answer, connection));
            }
            drop(connection);
            let Some(pause) = vain.pause_after(round, deadline) else { break };
            self.inner.health.note_retry();
            sleep(pause).await;
        }
        Err(vain.error.unwrap_or_else(|| self.left_alone(endpoints)))
    }

    /// The answer of this endpoint, which is asked once and whatever its breaker says: for those who
    /// have a backoff of their own, and clients who have read half of what only it may have. They wait
    /// for a connection as long as it takes, and for the answer within `limit`.
    pub(super) async fn ask_only(
        &self,
        place: Place,
        ask: &Ask<'_>,
        limit: Duration,
    ) -> Result<Answer, Error> {
        self.ensure_online()?;
        let endpoint = self.inner.endpoints.get(place.0).ok_or_else(|| self.left_alone(&[]))?;
        let connection = self.inner.connections.for_exchange(ask.operation).await;
        let leave = endpoint.breaker().admit_anyway();
        let late = || self.late(ask);
        let answer = self.put(ask.operation, leave, limit, endpoint.exchange(ask), late);
        let mut answer = answer.await?;
        answer.body.hold(connection);
        Ok(answer)
    }

    /// Asks each endpoint once. `None`: all in vain, as is told to `vain`.
    async fn round<'a, T, F>(
        &'a self,
        vain: &mut Vain<'a>,
        ask: &Ask<'_>,
        deadline: Instant,
        question: &impl Fn(&'a Endpoint) -> F,
    ) -> Option<Result<T, Error>>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let endpoints = std::mem::take(&mut vain.again);
        let mut waiting = endpoints.as_slice();
        while let Some((endpoint, leave, time)) = next(&mut waiting, deadline) {
            let late = || self.late(ask);
            match self.put(ask.operation, leave, time, question(endpoint), late).await {
                Err(error) if error.is_worth_another() => {
                    tracing::debug!(endpoint = endpoint.authority(), %error, "endpoint fails");
                    vain.note(endpoint, error);
                }
                outcome => return Some(outcome),
            }
        }
        None
    }

    /// Whether an endpoint answers within `limit`.
    pub(super) async fn is_alive(&self, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        let endpoints: Vec<&Endpoint> = self.inner.endpoints.iter().collect();
        let mut waiting = endpoints.as_slice();
        while let Some((endpoint, leave, time)) = next(&mut waiting, deadline) {
            let authority = endpoint.authority();
            let late = || Error::Timeout(format!("GET {authority}/v2/: no answer in time"));
            if self.put(Operation::Probe, leave, time, endpoint.liveness(), late).await.is_ok() {
                return true;
            }
        }
        false
    }

    /// Puts one question, which fails like `late` after `time`, and tells the breaker what came of it.
    async fn put<T>(
        &self,
        operation: Operation,
        leave: Leave<'_>,
        time: Duration,
        question: impl Future<Output = Result<T, Error>>,
        late: impl FnOnce() -> Error,
    ) -> Result<T, Error> {
        let outcome = timeout(time, question).await;
        if outcome.is_err() {
            self.inner.health.note_silence(operation);
        }
        let is_telling = outcome.is_ok() || time >= FAIR_TIME;
        let outcome = outcome.unwrap_or_else(|_| Err(late()));
        if is_telling {
            leave.note(&outcome);
        }
        outcome
    }

    /// That no breaker lets a question pass.
    fn left_alone(&self, endpoints: &[Endpoint]) -> Error {
        let registry = self.registry();
        let breakers = endpoints.iter().map(Endpoint::breaker);
        let failed = breakers.clone().map(|breaker| {
            format!("{} failed {} times in a row", breaker.endpoint(), breaker.state().failures)
        });
        let soonest = breakers.map(|breaker| breaker.time_left()).min();
        let failed = failed.collect::<Vec<_>>().join(", ");
        Error::Unreachable(match soonest {
            None => format!("{registry} has no such endpoint"),
            Some(Duration::ZERO) => format!("{registry}: {failed}; it is being asked again"),
            Some(left) => {
                format!("{registry}: {failed}; asked again in {} s", left.as_secs() + 1)
            }
        })
    }

    /// That its time passed without an answer.
    fn late(&self, ask: &Ask<'_>) -> Error {
        let (registry, method) = (self.registry(), &ask.method);
        let what = format!("{method} {registry}/{} {}", ask.name, ask.path);
        Error::Timeout(format!("{what}: no answer in time"))
    }
}

impl<'a> Vain<'a> {
    /// Nobody has been asked.
    fn new(endpoints: &'a [Endpoint]) -> Vain<'a> {
        Vain { error: None, again: endpoints.iter().collect(), retry_after: Duration::ZERO }
    }

    /// A limit says more than an outage does, and of two the one that is over first.
    fn note(&mut self, endpoint: &'a Endpoint, error: Error) {
        if matches!(error, Error::Unavailable { .. } | Error::RefusedElsewhere(_)) {
            self.again.push(endpoint);
        }
        if let Error::Unavailable { retry_after: Some(time), .. } = &error {
            self.retry_after = self.retry_after.max(*time);
        }
        let says_more = match (limited_for(self.error.as_ref()), limited_for(Some(&error))) {
            (Some(known), Some(new)) => new < known,
            (known, _) => known.is_none(),
        };
        if says_more {
            self.error = Some(error);
        }
    }

    /// How long to wait for the next round; `None` when there is none that could end well.
    fn pause_after(&mut self, round: u32, deadline: Instant) -> Option<Duration> {
        self.again.retain(|endpoint| endpoint.breaker().is_passable());
        if round == ROUNDS || self.again.is_empty() {
            return None;
        }
        let doubled = 1_u32.checked_shl(round - 1)?;
        let pause = FIRST_PAUSE.saturating_mul(doubled).mul_f64(fastrand::f64());
        let pause = pause.max(std::mem::take(&mut self.retry_after));
        (pause < share(deadline, 1)).then_some(pause)
    }
}

/// How long a limit holds: for ever where nobody knows. `None`: it is no limit.
fn limited_for(error: Option<&Error>) -> Option<Duration> {
    match error {
        Some(Error::Limited { retry_after, .. }) => Some(retry_after.unwrap_or(Duration::MAX)),
        _ => None,
    }
}

/// The first of `waiting` whose breaker lets a question pass, and how long it may take: its share
/// of the time that is left, so that one that swallows everything leaves some for the next.
fn next<'a>(
    waiting: &mut &[&'a Endpoint],
    deadline: Instant,
) -> Option<(&'a Endpoint, Leave<'a>, Duration)> {
    while let [endpoint, others @ ..] = *waiting {
        *waiting = others;
        let Some(leave) = endpoint.breaker().admit() else { continue };
        let others = others.iter().filter(|other| other.breaker().is_passable()).count();
        let share = share(deadline, 1 + others);
        let is_in_doubt = leave.is_probe() && others > 0;
        return Some((endpoint, leave, if is_in_doubt { share.min(PROBE_TIME) } else { share }));
    }
    None
}

/// The part of the time until `deadline` that the first of `count` may use.
fn share(deadline: Instant, count: usize) -> Duration {
    let left = deadline.saturating_duration_since(Instant::now());
    left / u32::try_from(count).unwrap_or(u32::MAX)
}
