//! `larder check`

use std::{
    io::{self, Write as _},
    process::ExitCode,
    sync::Arc,
};

use super::{Common, refuse, warnings};
use crate::{StartError, config::Config};

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
    if let Err(error) = look_into_files(&config) {
        return refuse(&error);
    }
    let mut output = io::stdout().lock();
    let written = warnings::of(&config)
        .map(|warning| format!("warning: {warning}"))
        .chain(["ok".to_owned()])
        .try_for_each(|line| writeln!(output, "{line}"));
    match written {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

/// Whether the certificates and keys that are named can be used.
fn look_into_files(config: &Config) -> Result<(), StartError> {
    crate::load_tls(config)?;
    crate::assembly::set_up_upstreams(config, Arc::default(), &Arc::default()).map(drop)
}
