//! `larder check`

use std::{
    io::{self, Write as _},
    process::ExitCode,
};

use super::{Common, refuse};
use crate::config::Config;

#[derive(clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    common: Common,
}

pub(super) fn check(arguments: &Arguments) -> ExitCode {
    let config = match Config::load(&arguments.common.sources()) {
        Ok(config) => config,
        Err(error) => return refuse(&error),
    };
    if let Err(error) = crate::load_tls(&config) {
        return refuse(&error);
    }
    let mut output = io::stdout().lock();
    let written = config
        .warnings
        .iter()
        .map(|warning| format!("warning: {warning}"))
        .chain(["ok".to_owned()])
        .try_for_each(|line| writeln!(output, "{line}"));
    match written {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}
