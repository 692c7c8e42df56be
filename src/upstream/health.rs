//! What upstream's answers, and their absence, say of it: metrics, and whether it is there.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use futures_util::future::{BoxFuture, FutureExt as _, Shared};
use http::StatusCode;
use tokio::time::Instant;

use crate::{metrics::Metrics, oci::Registry};

/// What a request is for, as the metrics name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operation {
    ManifestHead,
    ManifestGet,
    BlobHead,
    BlobGet,
    TagsList,
    Referrers,
    /// A request to a token endpoint, which says nothing of the registry's own health.
    Token,
    Probe,
}

/// A future that runs in a task of its own and that any number of callers can await.
pub(super) type Flight<T> = Shared<BoxFuture<'static, T>>;

/// The health of one upstream, over all its endpoints.
#[derive(Debug)]
pub(super) struct Health {
    registry: String,
    metrics: Arc<Metrics>,
    last_answer: LastAnswer,
    probe: Mutex<Option<Flight<bool>>>,
}

/// When upstream last answered, unless it has failed since. Every hit looks at it, on all cores, and so no
/// lock guards it.
#[derive(Debug)]
struct LastAnswer {
    begun: Instant,
    /// In milliseconds after `begun`, plus one. Zero: never, or it has failed since.
    after: AtomicU64,
}

impl Health {
    /// Nothing is known yet.
    pub(super) fn new(registry: &Registry, metrics: Arc<Metrics>) -> Health {
        Health {
            registry: registry.to_string(),
            metrics,
            last_answer: LastAnswer::none(),
            probe: Mutex::default(),
        }
    }

    /// Counts an answer's headers, which came `after` the request.
    pub(super) fn note_answer(&self, operation: Operation, status: StatusCode, after: Duration) {
        self.count(operation, status.as_str());
        self.metrics
            .upstream
            .seconds
            .with_label_values(&[&self.registry, operation.label()])
            .observe(after.as_secs_f64());
        let is_up = !status.is_server_error() || status == StatusCode::NOT_IMPLEMENTED;
        self.remember(operation, is_up.then(Instant::now));
    }

    /// Counts a request that got no answer.
    pub(super) fn note_silence(&self, operation: Operation) {
        self.count(operation, "error");
        self.remember(operation, None);
    }

    /// Counts a request that one of Larder's own rules forbade.
    pub(super) fn note_refusal(&self, operation: Operation) {
        self.count(operation, "error");
    }

    /// Counts a round in which endpoints are asked again.
    pub(super) fn note_retry(&self) {
        self.metrics.upstream.retries.with_label_values(&[&self.registry]).inc();
    }

    /// Counts body bytes.
    pub(super) fn note_bytes(&self, received: usize) {
        self.metrics
            .upstream
            .bytes
            .with_label_values(&[&self.registry])
            .inc_by(u64::try_from(received).unwrap_or(u64::MAX));
    }

    /// Time since upstream answered; `None` when it never did, or has failed since.
    pub(super) fn since_answer(&self) -> Option<Duration> {
        self.last_answer.since()
    }

    /// Whether upstream answered within the last `time` and has not failed since.
    pub(super) fn answered_within(&self, time: Duration) -> bool {
        self.since_answer().is_some_and(|since| since <= time)
    }

    /// The probe that is running, or else the one that `start` makes.
    pub(super) fn shared_probe(
        &self,
        start: impl FnOnce() -> BoxFuture<'static, bool>,
    ) -> Flight<bool> {
        let mut probe = lock(&self.probe);
        match &*probe {
            Some(running) if running.peek().is_none() => running.clone(),
            Some(_) | None => probe.insert(launch(start())).clone(),
        }
    }

    fn count(&self, operation: Operation, code: &str) {
        self.metrics
            .upstream
            .requests
            .with_label_values(&[&self.registry, operation.label(), code])
            .inc();
    }

    fn remember(&self, operation: Operation, last_answer: Option<Instant>) {
        if operation == Operation::Token {
            return;
        }
        let up = self.metrics.upstream.up.with_label_values(&[&self.registry]);
        up.set(last_answer.is_some().into());
        self.last_answer.set(last_answer);
    }
}

impl LastAnswer {
    fn none() -> LastAnswer {
        LastAnswer { begun: Instant::now(), after: AtomicU64::new(0) }
    }

    fn set(&self, answer: Option<Instant>) {
        let after = answer.map_or(0, |answer| {
            let after = answer.duration_since(self.begun).as_millis();
            u64::try_from(after).unwrap_or(u64::MAX).saturating_add(1)
        });
        self.after.store(after, Relaxed);
    }

    fn since(&self) -> Option<Duration> {
        let after = self.after.load(Relaxed).checked_sub(1)?;
        Some(self.begun.elapsed().saturating_sub(Duration::from_millis(after)))
    }
}

impl Operation {
    /// Whether it waits while upstream asked us to.
    pub(super) fn is_limited(self) -> bool {
        matches!(
            self,
            Operation::ManifestHead
                | Operation::ManifestGet
                | Operation::TagsList
                | Operation::Referrers
        )
    }

    fn label(self) -> &'static str {
        match self {
            Operation::ManifestHead => "manifest_head",
            Operation::ManifestGet => "manifest_get",
            Operation::BlobHead => "blob_head",
            Operation::BlobGet => "blob_get",
            Operation::TagsList => "tags_list",
            Operation::Referrers => "referrers",
            Operation::Token => "token",
            Operation::Probe => "probe",
        }
    }
}

/// Starts `future` in a task of its own, so that no caller's hanging up ends it.
pub(super) fn launch<T>(future: BoxFuture<'static, T>) -> Flight<T>
where
    T: Clone + Send + Sync + 'static,
{
    let flight = future.shared();
    tokio::spawn(flight.clone());
    flight
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
