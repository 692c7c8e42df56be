//! Answers that are one document, and what is printed.

use std::{
    io::{self, Write as _},
    process::ExitCode,
};

use serde::Deserialize;
use serde_json::Value;

use super::content::{Answer, Failure, each_line};

/// Why one thing that was asked for was not done.
#[derive(Deserialize)]
pub(super) struct Undone {
    /// `None`: it was done.
    pub(super) error: Option<String>,
    /// Names that are here, and much like the one asked for.
    #[serde(default)]
    near: Vec<String>,
}

/// The document that an answer is.
pub(super) async fn read(answer: Answer) -> Result<Value, Failure> {
    let mut document = Value::Null;
    let read = each_line(answer, |line| {
        document = serde_json::from_slice(line).map_err(Failure::not_understood)?;
        Ok(())
    });
    read.await.map(|()| document)
}

/// What a document says.
pub(super) fn understood<'d, T: Deserialize<'d>>(document: &'d Value) -> Result<T, Failure> {
    T::deserialize(document).map_err(Failure::not_understood)
}

/// Of what a command was asked to do, what was not done: each with the reason, on standard error. The
/// exit code tells whether there was any.
pub(super) fn report<'a>(answers: impl Iterator<Item = (&'a str, &'a Undone)>) -> ExitCode {
    let mut code = ExitCode::SUCCESS;
    for (name, Undone { error, near }) in answers {
        let Some(error) = error else {
            continue;
        };
        code = ExitCode::FAILURE;
        let hint = if near.is_empty() { "" } else { "; there is " };
        // Without a standard error there is only the exit code.
        let _ = writeln!(io::stderr(), "{name}: {error}{hint}{}", near.join(", "));
    }
    code
}

/// Prints a document that is all of the output, over several lines.
pub(super) fn print(document: &Value) -> Result<(), Failure> {
    print_line(&format!("{document:#}"))
}

/// Prints a line, or several, to standard output.
pub(super) fn print_line(line: &str) -> Result<(), Failure> {
    writeln!(io::stdout(), "{line}").map_err(Failure::unheard)
}
