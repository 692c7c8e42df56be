//! The breaker of one endpoint: what fails time and again is left alone for a while, so that nobody
//! waits for it in vain.
//!
//! Closed, it lets every question pass; [`FAILURES`] in a row that fail open it. When its time is
//! over it is half open: one question passes, to find out. An answer of any kind closes it, a failure
//! opens it for longer.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use crate::metrics::Metrics;

use super::Error;

/// So many failures in a row are no accident.
const FAILURES: u32 = 5;
/// How long it is open at first. It doubles with each failure that follows.
const FIRST_TIME: Duration = Duration::from_secs(1);
const LONGEST_TIME: Duration = Duration::from_secs(8);
/// By what part of its time it may open earlier or later, so that mirrors do not come in step.
const JITTER: f64 = 0.2;

/// The breaker of one endpoint.
pub(super) struct Breaker {
    registry: String,
    endpoint: String,
    metrics: Arc<Metrics>,
    circuit: Mutex<Circuit>,
}

/// Leave to ask an endpoint once. What comes of it is to be noted; where it is not, since whoever
/// asked has hung up, the next one may find out.
#[must_use]
pub(super) struct Leave<'a> {
    breaker: &'a Breaker,
    passage: Passage,
}

/// How an endpoint is, as its last answers tell.
#[derive(Clone, Debug)]
pub struct EndpointState {
    /// Whether it is asked.
    pub breaker: BreakerState,
    /// Failures since its last answer.
    pub failures: u32,
    /// The last of them. Holds no secret.
    pub last_error: Option<String>,
}

/// Whether an endpoint is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BreakerState {
    /// Always.
    Closed,
    /// Not for so long.
    Open(Duration),
    /// By one, to find out.
    HalfOpen,
}

impl Breaker {
    /// Closed. `endpoint` is what it is called in the metrics and the log.
    pub(super) fn new(registry: String, endpoint: String, metrics: Arc<Metrics>) -> Breaker {
        let breaker = Breaker { registry, endpoint, metrics, circuit: Mutex::default() };
        breaker.show(true);
        breaker
    }

    /// What the endpoint is called.
    pub(super) fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// How long nobody is to ask; zero also while one is asking to find out.
    pub(super) fn time_left(&self) -> Duration {
        match self.circuit().state(Instant::now()) {
            BreakerState::Open(left) => left,
            BreakerState::Closed | BreakerState::HalfOpen => Duration::ZERO,
        }
    }

    /// Leave to ask, if the endpoint is to be asked now.
    pub(super) fn admit(&self) -> Option<Leave<'_>> {
        let passage = self.circuit().admit(Instant::now())?;
        Some(Leave { breaker: self, passage })
    }

    /// Leave to ask, open or not.
    pub(super) fn admit_anyway(&self) -> Leave<'_> {
        Leave { breaker: self, passage: Passage::Usual }
    }

    /// Whether [`Breaker::admit`] would give leave.
    pub(super) fn is_passable(&self) -> bool {
        self.circuit().is_passable(Instant::now())
    }

    /// How it is now.
    pub(super) fn state(&self) -> EndpointState {
        let circuit = self.circuit();
        EndpointState {
            breaker: circuit.state(Instant::now()),
            failures: circuit.failures,
            last_error: circuit.last_error.clone(),
        }
    }

    fn note_answer(&self) {
        let was_open = {
            let mut circuit = self.circuit();
            let was_open = circuit.opening.is_some();
            circuit.note_answer();
            self.show(true);
            was_open
        };
        if was_open {
            tracing::info!(registry = self.registry, endpoint = self.endpoint, "endpoint is back");
        }
    }

    fn note_failure(&self, passage: Passage, error: &Error) {
        let opens = {
            let mut circuit = self.circuit();
            let was_open = circuit.opening.is_some();
            circuit.note_failure(passage, error.to_string(), Instant::now(), jitter());
            self.show(circuit.opening.is_none());
            circuit.opening.is_some() && !was_open
        };
        if opens {
            let (registry, endpoint) = (&self.registry, &self.endpoint);
            tracing::warn!(registry, endpoint, %error, "endpoint fails time and again; it is left alone until it answers a probe");
        }
    }

    /// To be called with the circuit locked, so that the last state is the one that stays.
    fn show(&self, is_closed: bool) {
        self.metrics
            .upstream
            .endpoint_up
            .with_label_values(&[&self.registry, &self.endpoint])
            .set(is_closed.into());
    }

    fn circuit(&self) -> MutexGuard<'_, Circuit> {
        self.circuit.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Leave<'_> {
    /// Whether this question decides on its own if the endpoint is back.
    pub(super) fn is_probe(&self) -> bool {
        matches!(self.passage, Passage::Probe(_))
    }

    /// Judges the endpoint by what came of the question.
    pub(super) fn note<T>(self, outcome: &Result<T, Error>) {
        match outcome {
            // The first says nothing of the endpoint, nor does the second, which any client may
            // provoke; the third may be of our own making too.
            Err(Error::HeldBack(_) | Error::RefusedElsewhere(_) | Error::Limited { .. }) => {}
            Err(error) if error.is_outage() => self.breaker.note_failure(self.passage, error),
            Ok(_) | Err(_) => self.breaker.note_answer(),
        }
    }
}

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        self.breaker.circuit().give_back(self.passage);
    }
}

/// The state of a breaker, to which the time is told.
#[derive(Debug, Default)]
struct Circuit {
    /// Since the last answer.
    failures: u32,
    last_error: Option<String>,
    /// `None` while it is closed.
    opening: Option<Opening>,
    /// How many there have been in all.
    probes: u64,
}

#[derive(Debug)]
struct Opening {
    until: Instant,
    /// How long it is open, but for the jitter.
    time: Duration,
    /// The number of the probe that is under way.
    probe: Option<u64>,
}

/// What a question is to the breaker that let it pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Passage {
    Usual,
    /// The one, by its number, that finds out whether the endpoint is back.
    Probe(u64),
}

impl Circuit {
    fn state(&self, now: Instant) -> BreakerState {
        match &self.opening {
            None => BreakerState::Closed,
            Some(opening) if opening.is_over(now) => BreakerState::HalfOpen,
            Some(opening) => BreakerState::Open(opening.until.saturating_duration_since(now)),
        }
    }

    fn is_passable(&self, now: Instant) -> bool {
        let lets_pass = |opening: &Opening| opening.is_over(now) && opening.probe.is_none();
        self.opening.as_ref().is_none_or(lets_pass)
    }

    fn admit(&mut self, now: Instant) -> Option<Passage> {
        if !self.is_passable(now) {
            return None;
        }
        let Some(opening) = &mut self.opening else {
            return Some(Passage::Usual);
        };
        self.probes = self.probes.wrapping_add(1);
        opening.probe = Some(self.probes);
        Some(Passage::Probe(self.probes))
    }

    fn note_answer(&mut self) {
        *self = Circuit { probes: self.probes, ..Circuit::default() };
    }

    /// A question has failed. While it is open, those count for no more than their number that were
    /// under way when it opened, or asked anyway.
    fn note_failure(&mut self, passage: Passage, error: String, now: Instant, jitter: f64) {
        self.failures = self.failures.saturating_add(1);
        self.last_error = Some(error);
        let time = match &self.opening {
            None if self.failures < FAILURES => return,
            None => FIRST_TIME,
            Some(opening) if opening.is_ended_by(passage, now) => {
                opening.time.saturating_mul(2).min(LONGEST_TIME)
            }
            Some(_) => return,
        };
        self.opening = Some(Opening { until: now + time.mul_f64(jitter), time, probe: None });
    }

    /// A question has ended. If it was a probe of which nothing was noted, another may be.
    fn give_back(&mut self, passage: Passage) {
        if let (Some(opening), Passage::Probe(number)) = (&mut self.opening, passage) {
            opening.probe.take_if(|probe| *probe == number);
        }
    }
}

impl Opening {
    fn is_over(&self, now: Instant) -> bool {
        self.until <= now
    }

    /// Whether this failure shows that the endpoint is not back: that of the probe, or where there is
    /// none, of another question.
    fn is_ended_by(&self, passage: Passage, now: Instant) -> bool {
        match (self.probe, passage) {
            (Some(probe), passage) => passage == Passage::Probe(probe),
            (None, _) => self.is_over(now),
        }
    }
}

fn jitter() -> f64 {
    1.0 - JITTER + 2.0 * JITTER * fastrand::f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    const USUAL: Passage = Passage::Usual;

    fn seconds(seconds: f64) -> Duration {
        Duration::from_secs_f64(seconds)
    }

    impl Circuit {
        fn fails(&mut self, passage: Passage, now: Instant) {
            self.note_failure(passage, "refused".to_owned(), now, 1.0);
        }

        /// One that has just opened for the first time.
        fn opened(now: Instant) -> Circuit {
            let mut circuit = Circuit::default();
            (0..FAILURES).for_each(|_| circuit.fails(USUAL, now));
            circuit
        }
    }

    #[test]
    fn failures_in_a_row_open_it() {
        let now = Instant::now();
        let mut circuit = Circuit::default();
        for _ in 1..FAILURES {
            circuit.fails(USUAL, now);
            assert_eq!(circuit.admit(now), Some(USUAL));
        }
        circuit.note_answer();
        assert_eq!((circuit.failures, &circuit.last_error), (0, &None));
        for _ in 1..FAILURES {
            circuit.fails(USUAL, now);
        }
        assert_eq!(circuit.state(now), BreakerState::Closed);
        circuit.fails(USUAL, now);
        assert_eq!(circuit.state(now), BreakerState::Open(FIRST_TIME));
        assert_eq!(circuit.admit(now), None);
        assert_eq!(circuit.last_error.as_deref(), Some("refused"));
    }

    #[test]
    fn one_probe_at_a_time_finds_out() {
        let now = Instant::now();
        let mut circuit = Circuit::opened(now);
        let later = now + FIRST_TIME;
        assert_eq!(circuit.state(later), BreakerState::HalfOpen);
        assert!(circuit.is_passable(later) && !circuit.is_passable(now));
        let probe = circuit.admit(later).unwrap();
        assert!(!circuit.is_passable(later));
        assert_eq!(circuit.admit(later), None);
        circuit.note_answer();
        circuit.give_back(probe);
        assert_eq!(circuit.admit(later), Some(USUAL));
        assert_eq!(circuit.state(later), BreakerState::Closed);
    }

    #[test]
    fn each_probe_that_fails_opens_it_for_longer() {
        let mut now = Instant::now();
        let mut circuit = Circuit::opened(now);
        for want in [2.0, 4.0, 8.0, 8.0] {
            now += LONGEST_TIME;
            let probe = circuit.admit(now).unwrap();
            circuit.fails(probe, now);
            assert_eq!(circuit.state(now), BreakerState::Open(seconds(want)));
        }
        circuit.note_answer();
        (0..FAILURES).for_each(|_| circuit.fails(USUAL, now));
        assert_eq!(circuit.state(now), BreakerState::Open(FIRST_TIME), "it begins anew");
    }

    #[test]
    fn a_probe_without_an_end_leaves_its_place_to_another() {
        let now = Instant::now();
        let mut circuit = Circuit::opened(now);
        let later = now + FIRST_TIME;
        let first = circuit.admit(later).unwrap();
        circuit.give_back(first);
        let second = circuit.admit(later).unwrap();
        assert_ne!(first, second);
        circuit.give_back(first);
        assert_eq!(circuit.admit(later), None, "the second is still under way");

        // Closed by another question, and opened again.
        circuit.note_answer();
        (0..FAILURES).for_each(|_| circuit.fails(USUAL, later));
        let third = circuit.admit(later + FIRST_TIME).unwrap();
        circuit.give_back(second);
        assert_eq!(circuit.admit(later + FIRST_TIME), None, "{third:?} is still under way");
    }

    #[test]
    fn stragglers_do_not_keep_it_open() {
        let now = Instant::now();
        let mut circuit = Circuit::opened(now);
        let soon = now + FIRST_TIME / 2;
        circuit.fails(USUAL, soon);
        assert_eq!(circuit.state(soon), BreakerState::Open(FIRST_TIME / 2));
        let later = now + FIRST_TIME;
        let probe = circuit.admit(later).unwrap();
        circuit.fails(USUAL, later);
        assert_eq!(circuit.state(later), BreakerState::HalfOpen, "the probe decides");
        circuit.give_back(probe);
        circuit.fails(USUAL, later);
        assert_eq!(circuit.state(later), BreakerState::Open(seconds(2.0)), "it is as good as one");
    }

    #[test]
    fn the_time_varies_a_little_and_is_never_long() {
        for _ in 0..1000 {
            let jitter = jitter();
            assert!((1.0 - JITTER..1.0 + JITTER).contains(&jitter), "{jitter}");
            assert!(LONGEST_TIME.mul_f64(jitter) < seconds(10.0));
        }
    }
}
