//! Long operations as a person follows them: a bar on a terminal, a line now and then elsewhere.

use std::{
    io::{self, IsTerminal as _, Write as _},
    time::Duration,
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Deserialize;
use serde_json::Value;
use tokio::time::Instant;

use super::{
    content::{Answer, Failure, each_line},
    shown::size,
};

/// Time between two lines of progress where there is no terminal.
const LINE_INTERVAL: Duration = Duration::from_secs(10);

/// One line of the answer: see [`crate::admin::events`].
#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Event {
    Progress(Done),
    Finding(Value),
    Done(Value),
    Error(String),
}

#[derive(Clone, Deserialize)]
struct Done {
    done: u64,
    total: Option<u64>,
    unit: String,
}

/// Progress on standard error.
enum Progress {
    Bar(ProgressBar),
    Lines { next: Instant },
}

/// Follows an operation to its end: shows its progress, hands what it finds to `found`, and returns what it
/// tells at the end.
pub(super) async fn follow(
    answer: Answer,
    mut found: impl FnMut(Value) -> Result<(), Failure>,
) -> Result<Value, Failure> {
    let mut progress = Progress::new();
    let mut last = None;
    let followed = each_line(answer, |line| {
        match serde_json::from_slice(line).map_err(Failure::not_understood)? {
            Event::Progress(done) => progress.show(&done),
            Event::Finding(finding) => progress.aside(|| found(finding))?,
            Event::Done(done) => last = Some(Ok(done)),
            Event::Error(reason) => last = Some(Err(Failure::Failed(reason))),
        }
        Ok(())
    });
    let followed = followed.await;
    progress.clear();
    followed?;
    last.unwrap_or_else(|| {
        Err(Failure::failed("the operation broke off; the daemon may have ended"))
    })
}

impl Progress {
    fn new() -> Progress {
        match io::stderr().is_terminal() {
            true => {
                Progress::Bar(ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr()))
            }
            false => Progress::Lines { next: Instant::now() + LINE_INTERVAL },
        }
    }

    fn show(&mut self, done: &Done) {
        match self {
            Progress::Bar(bar) => {
                bar.set_style(style(done));
                if let Some(total) = done.total {
                    bar.set_length(total);
                }
                bar.set_position(done.done);
            }
            Progress::Lines { next } if Instant::now() >= *next => {
                *next = Instant::now() + LINE_INTERVAL;
                // Nobody reads it, then.
                let _ = writeln!(io::stderr(), "{}", text(done));
            }
            Progress::Lines { .. } => {}
        }
    }

    /// Lets `print` have the terminal for itself.
    fn aside<T>(&self, print: impl FnOnce() -> T) -> T {
        match self {
            Progress::Bar(bar) => bar.suspend(print),
            Progress::Lines { .. } => print(),
        }
    }

    fn clear(&self) {
        if let Progress::Bar(bar) = self {
            bar.finish_and_clear();
        }
    }
}

fn style(done: &Done) -> ProgressStyle {
    let counted = match done.unit.as_str() {
        "bytes" => "{binary_bytes} of {binary_total_bytes} {binary_bytes_per_sec}",
        _ => "{human_pos} of {human_len}",
    };
    let template = match done.total {
        Some(_) => format!("[{{bar:30}}] {counted} {{eta}}"),
        None => format!("{{spinner}} {{human_pos}} {}", done.unit),
    };
    ProgressStyle::with_template(&template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

fn text(progress: &Done) -> String {
    let count = |number: u64| match progress.unit.as_str() {
        "bytes" => size(number),
        unit => format!("{number} {unit}"),
    };
    match progress.total {
        Some(total) => format!("{} of {}", count(progress.done), count(total)),
        None => count(progress.done),
    }
}
