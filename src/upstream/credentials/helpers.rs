//! Docker's credential helpers: programs that say who we are at a registry
//! (docker/docker-credential-helpers).

use std::{
    collections::{HashMap, HashSet},
    io,
    process::{ExitStatus, Stdio},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures_util::future::FutureExt as _;
use rustix::process::{Pid, Signal, kill_process_group};
use serde::Deserialize;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    process::{Child, Command},
    time::{Instant, timeout},
};

use super::Refusal;
use crate::{
    config::Identity,
    upstream::health::{Flight, launch},
};

/// How long a helper may run.
const LIMIT: Duration = Duration::from_secs(10);
/// The longest answer of a helper.
const MAX_ANSWER: u64 = 1024 * 1024;
/// A helper that failed is asked again after this time, and so is one whose answer is doubted.
const PATIENCE: Duration = Duration::from_secs(60);
/// What a helper says that knows nobody (credentials/error.go).
const NOT_FOUND: &str = "credentials not found";

/// What helpers said. Of each helper, one run at a time is under way for a server, however many
/// wait for it.
#[derive(Default)]
pub struct Helpers {
    runs: Mutex<HashMap<Question, Run>>,
    /// Those that a warning has told of.
    failing: Mutex<HashSet<Question>>,
}

/// Which helper is asked, and for which server.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Question {
    /// `docker-credential-<helper>`
    pub(super) helper: String,
    pub(super) server: String,
}

struct Run {
    flight: Flight<Outcome>,
    /// Whether it began because what the one before it said was refused.
    is_second: bool,
    /// The run before it, if what that said is still believed.
    before: Option<Flight<Outcome>>,
}

#[derive(Clone)]
struct Outcome {
    at: Instant,
    identity: Identity,
    failure: Option<Failure>,
}

/// Why a helper is asked.
#[derive(Clone, Copy, Debug)]
pub(super) enum Reason {
    /// To know what it says, or said at most so long ago.
    Needed(Duration),
    /// What it said was refused.
    Refused(Refusal),
}

impl Helpers {
    /// What a helper says; where that is as good, what it said before.
    pub(super) async fn identity(
        self: &Arc<Self>,
        question: &Question,
        reason: Reason,
    ) -> Identity {
        self.flight(question, reason).await.identity
    }

    /// Why a helper named nobody when it last ran; `None` if it did name somebody, or never ran.
    pub(super) fn last_failure(&self, question: &Question) -> Option<Failure> {
        lock(&self.runs).get(question)?.flight.peek()?.failure.clone()
    }

    fn flight(self: &Arc<Self>, question: &Question, reason: Reason) -> Flight<Outcome> {
        let mut runs = lock(&self.runs);
        let last = runs.get(question);
        if let Some(run) = last.filter(|run| run.is_good(reason)) {
            return run.soonest(reason);
        }
        let before = last.and_then(|run| run.still_believed(reason));
        let last = last.filter(|_| before.is_some()).map(|run| run.flight.clone());
        let (helpers, asked) = (Arc::clone(self), question.clone());
        let flight = launch(async move { helpers.outcome(&asked, before).await }.boxed());
        let is_second = matches!(reason, Reason::Refused(_));
        let run = Run { flight, is_second, before: last };
        let soonest = run.soonest(reason);
        runs.insert(question.clone(), run);
        soonest
    }

    /// What the helper says now, or if it fails what it said `before`.
    async fn outcome(&self, question: &Question, before: Option<Identity>) -> Outcome {
        // A task of the runtime's ends with it; a flight that somebody holds need not.
        let said = tokio::spawn(ask(question.clone())).await;
        let said = said.unwrap_or_else(|error| Err(Failure::Broken(error.to_string())));
        let before = before.filter(|_| matches!(said, Err(Failure::Broken(_))));
        self.report(question, &said, before.as_ref());
        let (identity, failure) = match said {
            Ok(identity) => (identity, None),
            Err(failure) => (before.unwrap_or(Identity::Anonymous), Some(failure)),
        };
        Outcome { at: Instant::now(), identity, failure }
    }

    /// One warning, until it is better.
    fn report(
        &self,
        question: &Question,
        said: &Result<Identity, Failure>,
        before: Option<&Identity>,
    ) {
        let mut failing = lock(&self.failing);
        let Err(failure) = said else {
            failing.remove(question);
            return;
        };
        if failing.insert(question.clone()) {
            let Question { helper, server } = question;
            let instead = match before {
                Some(_) => "going on with what it said before",
                None => "going on without credentials",
            };
            tracing::warn!("docker-credential-{helper} for {server}: {failure}; {instead}");
        }
    }
}

impl Outcome {
    fn has_failed(&self) -> bool {
        matches!(self.failure, Some(Failure::Broken(_)))
    }
}

impl Run {
    /// Whether its outcome, be it still to come, makes another run superfluous.
    fn is_good(&self, reason: Reason) -> bool {
        let Some(outcome) = self.flight.peek() else {
            return true;
        };
        let age = outcome.at.elapsed();
        match reason {
            Reason::Needed(ttl) if outcome.has_failed() => age < ttl.min(PATIENCE),
            Reason::Needed(ttl) => age < ttl,
            Reason::Refused(Refusal::Unauthorized) => self.is_second && age < PATIENCE,
            Reason::Refused(Refusal::Other) => age < PATIENCE,
        }
    }

    /// Its own outcome; while that is not there the one before it, unless that is twice as old as it
    /// should be.
    fn soonest(&self, reason: Reason) -> Flight<Outcome> {
        let is_recent = |before: &&Flight<Outcome>| match (before.peek(), reason) {
            (Some(outcome), Reason::Needed(ttl)) => outcome.at.elapsed() < 2 * ttl,
            (None, _) | (_, Reason::Refused(_)) => false,
        };
        let is_under_way = self.flight.peek().is_none();
        let before = self.before.as_ref().filter(|_| is_under_way).filter(is_recent);
        before.unwrap_or(&self.flight).clone()
    }

    /// Whom it named, unless the registry does not believe that.
    fn still_believed(&self, reason: Reason) -> Option<Identity> {
        let identity = &self.flight.peek()?.identity;
        let is_believed = !matches!(reason, Reason::Refused(Refusal::Unauthorized))
            && *identity != Identity::Anonymous;
        is_believed.then(|| identity.clone())
    }
}

/// Why a helper named nobody. The text shows nothing of what it said.
#[derive(Clone, Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error("it has no credentials for this registry")]
    NotFound,
    /// The helper's own fault.
    #[error("{0}")]
    Broken(String),
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Said {
    username: String,
    secret: String,
}

/// A helper that runs, alone in its process group.
struct Running(Child);

/// Kills it with all that it has started, unless it has ended.
impl Drop for Running {
    fn drop(&mut self) {
        // It has a number only until it is reaped, so that this is no other's.
        let group = self.0.id().and_then(|id| Pid::from_raw(id.try_into().ok()?));
        let _ = group.map(|group| kill_process_group(group, Signal::KILL));
    }
}

async fn ask(question: Question) -> Result<Identity, Failure> {
    let mut running = start(&question).map_err(|error| Failure::Broken(error.to_string()))?;
    match timeout(LIMIT, talk(&mut running.0, &question.server)).await {
        Ok(Ok((status, said))) if status.success() => understood(&said),
        Ok(Ok((_, said))) if String::from_utf8_lossy(&said).contains(NOT_FOUND) => {
            Err(Failure::NotFound)
        }
        Ok(Ok((status, _))) => Err(Failure::Broken(status.to_string())),
        Ok(Err(error)) => Err(Failure::Broken(error.to_string())),
        Err(_) => Err(Failure::Broken(format!("no answer in {} s", LIMIT.as_secs()))),
    }
}

fn start(question: &Question) -> io::Result<Running> {
    Command::new(format!("docker-credential-{}", question.helper))
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .map(Running)
}

/// How the helper ended, and what it said.
async fn talk(child: &mut Child, server: &str) -> io::Result<(ExitStatus, Vec<u8>)> {
    if let Some(mut stdin) = child.stdin.take() {
        // A helper need not listen.
        let _ = stdin.write_all(server.as_bytes()).await;
    }
    let mut said = Vec::new();
    if let Some(stdout) = child.stdout.take() {
        stdout.take(MAX_ANSWER).read_to_end(&mut said).await?;
    }
    Ok((child.wait().await?, said))
}

fn understood(said: &[u8]) -> Result<Identity, Failure> {
    match serde_json::from_slice(said) {
        Ok(Said { username, secret }) if !secret.is_empty() => Ok(Identity::new(&username, secret)),
        Ok(_) => Err(Failure::NotFound),
        Err(_) => Err(Failure::Broken("its answer makes no sense".to_owned())),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A run that ended `age` seconds ago.
    async fn ended(age: u64, has_failed: bool) -> Flight<Outcome> {
        let at = Instant::now().checked_sub(Duration::from_secs(age)).unwrap();
        let failure = has_failed.then(|| Failure::Broken("a fault".to_owned()));
        let outcome = Outcome { at, identity: Identity::Anonymous, failure };
        let flight = launch(async move { outcome }.boxed());
        flight.clone().await;
        flight
    }

    /// Whether the outcome of a run that ended `age` seconds ago is as good as another.
    async fn is_good(is_second: bool, has_failed: bool, age: u64, reason: Reason) -> bool {
        let flight = ended(age, has_failed).await;
        Run { flight, is_second, before: None }.is_good(reason)
    }

    #[tokio::test]
    async fn who_needs_nothing_better_does_not_wait_for_a_run() {
        let needed = Reason::Needed(Duration::from_secs(90));
        let unauthorized = Reason::Refused(Refusal::Unauthorized);
        for (age_before, reason, waits) in [
            (Some(100), needed, false),
            (Some(170), needed, false),
            (Some(190), needed, true),
            (None, needed, true),
            (Some(100), unauthorized, true),
        ] {
            let before = match age_before {
                Some(age) => Some(ended(age, false).await),
                None => None,
            };
            let flight = launch(std::future::pending().boxed());
            let soonest = Run { flight, is_second: false, before }.soonest(reason);
            assert_eq!(soonest.peek().is_none(), waits, "{age_before:?} {reason:?}");
        }
        let (flight, before) = (ended(10, true).await, Some(ended(100, false).await));
        let outcome = Run { flight, is_second: false, before }.soonest(needed).await;
        assert!(outcome.has_failed(), "its own outcome is there");
    }

    #[tokio::test]
    async fn a_helper_runs_again_when_that_may_help() {
        let needed = Reason::Needed(Duration::from_secs(90));
        let unauthorized = Reason::Refused(Refusal::Unauthorized);
        let other = Reason::Refused(Refusal::Other);
        for (is_second, has_failed, age, reason, want) in [
            (false, false, 80, needed, true),
            (false, false, 100, needed, false),
            (false, true, 50, needed, true),
            (false, true, 80, needed, false),
            (false, false, 0, unauthorized, false),
            (true, false, 50, unauthorized, true),
            (true, false, 70, unauthorized, false),
            (false, false, 50, other, true),
            (false, false, 70, other, false),
        ] {
            let good = is_good(is_second, has_failed, age, reason).await;
            assert_eq!(good, want, "{is_second} {has_failed} {age} {reason:?}");
        }
    }
}
