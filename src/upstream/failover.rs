//! The endpoints of one upstream, in order: who is asked, and for how long.

use std::time::Duration;

use tokio::time::Instant;

use super::{
    Error, Upstream,
    answer::Answer,
    endpoint::{Ask, Endpoint},
};

impl Upstream {
    /// The answer of the first endpoint that has one.
    pub(super) async fn ask(&self, ask: &Ask<'_>, deadline: Instant) -> Result<Answer, Error> {
        self.first_answer(ask, deadline, |endpoint| endpoint.exchange(ask)).await
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
        self.first_answer_of(&self.inner.endpoints, ask, deadline, question).await
    }

    /// Asks the endpoints in order until one gives an answer that is no outage. Each has its share
    /// of the time that is left, so that one that swallows everything leaves some for the next.
    pub(super) async fn first_answer_of<'a, T, F>(
        &'a self,
        mut waiting: &'a [Endpoint],
        ask: &Ask<'_>,
        deadline: Instant,
        question: impl Fn(&'a Endpoint) -> F,
    ) -> Result<T, Error>
    where
        F: Future<Output = Result<T, Error>>,
    {
        self.respect_pause(ask)?;
        let mut outage = Error::Unreachable(format!("{} has no endpoint", self.registry()));
        while let [endpoint, rest @ ..] = waiting {
            let share = share(deadline, waiting.len());
            outage = match tokio::time::timeout(share, question(endpoint)).await {
                Ok(Err(error)) if error.is_outage() => error,
                Ok(outcome) => {
                    self.note_limit(&outcome);
                    return outcome;
                }
                Err(_) => {
                    self.inner.health.note_silence(ask.operation);
                    self.late(ask)
                }
            };
            tracing::debug!(endpoint = endpoint.authority(), error = %outage, "endpoint fails");
            waiting = rest;
        }
        Err(outage)
    }

    /// Upstream limits manifests and lists; blobs go on, so that pulls which have begun can end.
    fn respect_pause(&self, ask: &Ask<'_>) -> Result<(), Error> {
        match self.inner.health.pause_left() {
            Some(left) if ask.operation.is_limited() => Err(Error::Limited {
                message: format!("{} limits our requests", self.registry()),
                retry_after: Some(left),
            }),
            Some(_) | None => Ok(()),
        }
    }

    fn note_limit<T>(&self, outcome: &Result<T, Error>) {
        if let Err(Error::Limited { retry_after, .. }) = outcome {
            self.inner.health.pause(*retry_after);
        }
    }

    /// Whether an endpoint answers within `limit`.
    pub(super) async fn is_alive(&self, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        let mut waiting = self.inner.endpoints.as_slice();
        while let [endpoint, rest @ ..] = waiting {
            let share = share(deadline, waiting.len());
            if let Ok(true) = tokio::time::timeout(share, endpoint.is_alive()).await {
                return true;
            }
            waiting = rest;
        }
        false
    }

    /// That `deadline` passed without an answer.
    pub(super) fn late(&self, ask: &Ask<'_>) -> Error {
        let (registry, method) = (self.registry(), &ask.method);
        let what = format!("{method} {registry}/{} {}", ask.name, ask.path);
        Error::Timeout(format!("{what}: no answer in time"))
    }
}

/// The part of the time until `deadline` that the first of `count` may use.
fn share(deadline: Instant, count: usize) -> Duration {
    let left = deadline.saturating_duration_since(Instant::now());
    left / u32::try_from(count).unwrap_or(u32::MAX)
}
