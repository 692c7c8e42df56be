//! What an examination finds: the words that those who examine have in common with `larder doctor`,
//! which prints them.

use std::time::{Duration, Instant};

/// How a check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// As it should be.
    Good,
    /// Not tried, or of no use here.
    Skipped,
    /// Pulls work, but somebody should look at it.
    Doubtful,
    /// Something does not work.
    Bad,
}

/// How a check ended, and why. The text holds no secret; of what is not good it says what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// How it ended.
    pub outcome: Outcome,
    /// What was seen, on one line.
    pub detail: String,
}

/// One check of an examination.
#[derive(Clone, Debug)]
pub struct Finding {
    /// What was looked at, in a word.
    pub check: &'static str,
    /// How it ended.
    pub verdict: Verdict,
    /// How long it took.
    pub took: Duration,
}

/// An examination that goes on: what was found so far, and the check that has begun.
#[derive(Debug, Default)]
pub struct Findings {
    ended: Vec<Finding>,
    begun: Option<(&'static str, Instant)>,
}

impl Verdict {
    /// As it should be.
    pub fn good(detail: impl Into<String>) -> Verdict {
        Verdict::new(Outcome::Good, detail)
    }

    /// Not tried.
    pub fn skipped(detail: impl Into<String>) -> Verdict {
        Verdict::new(Outcome::Skipped, detail)
    }

    /// Somebody should look at it.
    pub fn doubtful(detail: impl Into<String>) -> Verdict {
        Verdict::new(Outcome::Doubtful, detail)
    }

    /// It does not work.
    pub fn bad(detail: impl Into<String>) -> Verdict {
        Verdict::new(Outcome::Bad, detail)
    }

    /// What upstreams and errors say may go over several lines.
    fn new(outcome: Outcome, detail: impl Into<String>) -> Verdict {
        let detail = detail.into().replace(|letter: char| letter.is_control(), " ");
        Verdict { outcome, detail }
    }
}

impl Findings {
    /// A check begins.
    pub fn begin(&mut self, check: &'static str) {
        self.begun = Some((check, Instant::now()));
    }

    /// The check that has begun ends like this; without one, nothing has been found.
    pub fn end(&mut self, verdict: Verdict) {
        if let Some((check, begun)) = self.begun.take() {
            self.ended.push(Finding { check, verdict, took: begun.elapsed() });
        }
    }

    /// A check that takes no time.
    pub fn note(&mut self, check: &'static str, verdict: Verdict) {
        self.ended.push(Finding { check, verdict, took: Duration::ZERO });
    }

    /// Everything that was found, in the order in which it was.
    pub fn into_vec(self) -> Vec<Finding> {
        self.ended
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_found_stays_on_its_line() {
        assert_eq!(Verdict::bad("one\r\ntwo\u{1b}[31m").detail, "one  two [31m");
    }

    #[test]
    fn only_what_has_begun_can_end() {
        let mut findings = Findings::default();
        findings.end(Verdict::bad("nothing has begun"));
        findings.begin("first");
        findings.end(Verdict::good("one"));
        findings.end(Verdict::bad("the first has ended"));
        let found: Vec<_> = findings.into_vec().iter().map(|finding| finding.check).collect();
        assert_eq!(found, ["first"]);
    }
}
