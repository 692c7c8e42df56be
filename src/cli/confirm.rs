//! Asking before what cannot be undone.

use std::io::{self, BufRead as _, IsTerminal as _, Write as _};

use super::content::Failure;

/// The option of every command that destroys something.
#[derive(clap::Args)]
pub(super) struct Assent {
    /// Do not ask
    #[arg(long)]
    yes: bool,
}

impl Assent {
    /// Asks on the terminal, unless `--yes` has answered. `question` says what will be gone.
    pub(super) fn ask(&self, question: &str) -> Result<(), Failure> {
        if self.yes {
            return Ok(());
        }
        if !io::stdin().is_terminal() {
            let what = format!("{question} Nobody is there to be asked: add --yes");
            return Err(Failure::Usage(what));
        }
        // Whoever cannot read the question will not answer it either.
        let _ = write!(io::stderr(), "{question} [y/N] ");
        let mut answer = String::new();
        io::stdin().lock().read_line(&mut answer).map_err(Failure::failed)?;
        match answer.trim().to_ascii_lowercase().as_str() {
            "y" | "yes" => Ok(()),
            _ => Err(Failure::failed("nothing was changed")),
        }
    }
}
