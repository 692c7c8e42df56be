//! `larder doctor`: what it says of things that work and of things that do not.

mod credentials;
mod here;
mod proxies;
mod upstreams;

use std::path::Path;

use serde_json::Value;

use crate::support::{
    binary::{Ended, run},
    mirror::{Builder, CONFIG},
};

/// A secret that no output may show.
const SECRET: &str = "hunter2-s3cret";

/// What `larder doctor --json` found.
struct Report {
    code: Option<i32>,
    document: Value,
}

/// Runs `larder doctor` on this configuration.
fn doctor(mirror: Builder, arguments: &[&str]) -> Ended {
    let directory = mirror.into_file();
    doctor_on(&directory.path().join(CONFIG), arguments, &[])
}

fn doctor_on(config: &Path, arguments: &[&str], variables: &[(&str, &str)]) -> Ended {
    let config = ["doctor", "--config", config.to_str().unwrap()];
    let ended = run(&[&config, arguments].concat(), variables);
    assert!(!ended.output.contains(SECRET), "{ended:?}");
    ended
}

impl Report {
    fn of(mirror: Builder, arguments: &[&str]) -> Report {
        let directory = mirror.into_file();
        Report::on(&directory.path().join(CONFIG), arguments, &[])
    }

    fn on(config: &Path, arguments: &[&str], variables: &[(&str, &str)]) -> Report {
        let ended = doctor_on(config, &[&["--json"], arguments].concat(), variables);
        let document = serde_json::from_str(&ended.output);
        let document = document.unwrap_or_else(|error| panic!("{error}: {ended:?}"));
        Report { code: ended.code, document }
    }

    /// All checks about what is called like this, each as `check: outcome: detail`.
    fn about(&self, subject: &str) -> Vec<String> {
        let text = |entry: &Value, key: &str| entry[key].as_str().unwrap().to_owned();
        let checks = self.document["checks"].as_array().unwrap().iter();
        let about = checks.filter(|entry| entry["subject"] == subject);
        let line = |entry| ["check", "outcome", "detail"].map(|key| text(entry, key)).join(": ");
        about.map(line).collect()
    }

    /// The first line about `subject` that starts like this.
    #[track_caller]
    fn line(&self, subject: &str, start: &str) -> String {
        let lines = self.about(subject);
        let line = lines.iter().find(|line| line.starts_with(start));
        line.unwrap_or_else(|| panic!("no {start:?} about {subject} in {:#}", self.document))
            .clone()
    }

    /// The last line about `subject`.
    fn last(&self, subject: &str) -> String {
        self.about(subject).pop().unwrap()
    }
}
