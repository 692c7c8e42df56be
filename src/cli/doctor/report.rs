//! What was found, as a table for people and as a document for machines.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::finding::{Finding, Outcome};

/// What a subject belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Section {
    Configuration,
    Upstream,
    Disk,
    Listener,
    Daemon,
}

/// One line of the report.
#[derive(Clone, Debug)]
pub(super) struct Row {
    pub(super) section: Section,
    /// Which upstream, directory or address.
    pub(super) subject: String,
    pub(super) finding: Finding,
}

/// All that was found, in groups.
#[derive(Debug, Default)]
pub(super) struct Report(Vec<Vec<Row>>);

impl Section {
    fn label(self) -> &'static str {
        match self {
            Section::Configuration => "configuration",
            Section::Upstream => "upstream",
            Section::Disk => "disk",
            Section::Listener => "listener",
            Section::Daemon => "daemon",
        }
    }
}

impl Row {
    /// One row for each finding about `subject`.
    pub(super) fn all(section: Section, subject: &str, findings: Vec<Finding>) -> Vec<Row> {
        let row = |finding| Row { section, subject: subject.to_owned(), finding };
        findings.into_iter().map(row).collect()
    }
}

impl Report {
    /// Adds a group of rows.
    pub(super) fn add(&mut self, rows: Vec<Row>) {
        self.0.push(rows);
    }

    /// How many checks failed.
    pub(super) fn failures(&self) -> usize {
        self.count(Outcome::Bad)
    }

    /// One line for each check, in columns: how it ended, what was looked at, which check, how long
    /// it took, what was found. The last line sums up.
    pub(super) fn table(&self) -> String {
        let subjects = self.width(|row| &row.subject);
        let checks = self.width(|row| row.finding.check);
        let mut table = String::new();
        for group in self.0.iter().filter(|group| !group.is_empty()) {
            for Row { subject, finding, .. } in group {
                let Finding { check, verdict, took } = finding;
                let outcome = word(verdict.outcome);
                let took = match took.as_millis() {
                    0 => String::new(),
                    time => format!("{time} ms"),
                };
                let detail = &verdict.detail;
                // Writing to a string cannot fail.
                let _ = writeln!(
                    table,
                    "{outcome:<4}  {subject:<subjects$}  {check:<checks$}  {took:>8}  {detail}"
                );
            }
            table.push('\n');
        }
        let (bad, doubtful) = (self.failures(), self.count(Outcome::Doubtful));
        let checks = self.rows().count();
        let _ = writeln!(table, "checks: {checks}, failed: {bad}, warnings: {doubtful}");
        table
    }

    /// All checks and how many failed.
    pub(super) fn document(&self) -> String {
        let checks: Vec<Value> = self.rows().map(entry).collect();
        let document = json!({
            "failed": self.failures(),
            "warnings": self.count(Outcome::Doubtful),
            "checks": checks,
        });
        format!("{document:#}\n")
    }

    fn rows(&self) -> impl Iterator<Item = &Row> {
        self.0.iter().flatten()
    }

    fn count(&self, outcome: Outcome) -> usize {
        self.rows().filter(|row| row.finding.verdict.outcome == outcome).count()
    }

    fn width<'a>(&'a self, column: impl Fn(&'a Row) -> &'a str) -> usize {
        self.rows().map(|row| column(row).chars().count()).max().unwrap_or(0)
    }
}

fn entry(row: &Row) -> Value {
    let Finding { check, verdict, took } = &row.finding;
    json!({
        "section": row.section.label(),
        "subject": row.subject,
        "check": check,
        "outcome": word(verdict.outcome).to_lowercase(),
        "detail": verdict.detail,
        "seconds": took.as_secs_f64(),
    })
}

fn word(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Good => "ok",
        Outcome::Skipped => "skip",
        Outcome::Doubtful => "warn",
        Outcome::Bad => "FAIL",
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::finding::Verdict;

    #[test]
    fn the_table_has_columns_and_a_sum() {
        let row = |section, subject: &str, check, verdict, took| Row {
            section,
            subject: subject.to_owned(),
            finding: Finding { check, verdict, took: Duration::from_millis(took) },
        };
        let mut report = Report::default();
        report.add(vec![
            row(Section::Upstream, "ghcr.io", "resolve", Verdict::good("10.0.0.1"), 12),
            row(Section::Upstream, "registry.corp:5000", "tls", Verdict::bad("expired"), 1234),
        ]);
        report.add(Vec::new());
        report.add(vec![
            row(Section::Disk, "/data", "writable", Verdict::doubtful("hm"), 0),
            row(Section::Daemon, "daemon", "running", Verdict::skipped("no"), 0),
        ]);
        let want = "\
ok    ghcr.io             resolve      12 ms  10.0.0.1
FAIL  registry.corp:5000  tls        1234 ms  expired

warn  /data               writable            hm
skip  daemon              running             no

checks: 4, failed: 1, warnings: 1
";
        assert_eq!(report.table(), want);
        assert_eq!(report.failures(), 1);
    }
}
