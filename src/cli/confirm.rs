//! Asking before what cannot be undone.

use std::io::{self, BufRead as _, IsTerminal as _, Write as _};

use super::content::Failure;

/// The most names that are shown with a question.
const SHOWN: usize = 20;

/// The option of every command that destroys something.
#[derive(clap::Args)]
pub(super) struct Assent {
    /// Do not ask
    #[arg(long)]
    yes: bool,
}

impl Assent {
    /// Asks on the terminal, unless `--yes` has answered. Shows some of what will be gone; `question` says
    /// how much it is.
    pub(super) fn ask<'a>(
        &self,
        going: impl Iterator<Item = &'a String>,
        question: &str,
    ) -> Result<(), Failure> {
        if self.yes {
            return Ok(());
        }
        if !io::stdin().is_terminal() {
            let what = format!("{question} Nobody is there to be asked: add --yes");
            return Err(Failure::Usage(what));
        }
        // Whoever cannot read the question will not answer it either.
        let _ = write_question(going, question);
        let mut answer = String::new();
        io::stdin().lock().read_line(&mut answer).map_err(Failure::failed)?;
        match answer.trim().to_ascii_lowercase().as_str() {
            "y" | "yes" => Ok(()),
            _ => Err(Failure::failed("nothing was changed")),
        }
    }
}

fn write_question<'a>(going: impl Iterator<Item = &'a String>, question: &str) -> io::Result<()> {
    let mut output = io::stderr().lock();
    let mut going = going.fuse();
    going.by_ref().take(SHOWN).try_for_each(|name| writeln!(output, "  {name}"))?;
    match going.count() {
        0 => {}
        others => writeln!(output, "  and {others} more")?,
    }
    write!(output, "{question} [y/N] ")
}
