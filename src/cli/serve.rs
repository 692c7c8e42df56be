//! `larder serve`

use std::process::ExitCode;

use super::{Common, LAST_WORK, logging, refuse};
use crate::{Ended, config::Config};

/// The most threads that read and write files at once. More would only queue at the disk.
const BLOCKING_THREADS: usize = 64;

#[derive(clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    common: Common,
    /// Address of the registry API, such as 0.0.0.0:5000 or unix:/run/larder.sock; repeatable
    #[arg(long, value_name = "ADDRESS")]
    listen: Vec<String>,
    /// Where blobs are kept
    #[arg(long, value_name = "DIRECTORY")]
    data_dir: Option<String>,
}

pub(super) fn serve(arguments: Arguments) -> ExitCode {
    let config = match load(arguments) {
        Ok(config) => config,
        Err(error) => return refuse(&error),
    };
    logging::start(&config.log);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .max_blocking_threads(BLOCKING_THREADS)
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return refuse(&format_args!("cannot start the runtime: {error}")),
    };
    let ended = runtime.block_on(crate::run(config));
    // Tasks are dropped, and with them the programs they run. Whoever asks twice does not want to
    // wait for blocking work.
    runtime.shutdown_timeout(LAST_WORK);
    match ended {
        Ok(Ended::Clean) => ExitCode::SUCCESS,
        Ok(Ended::Forced) => ExitCode::FAILURE,
        Err(error) => refuse(&error),
    }
}

fn load(arguments: Arguments) -> Result<Config, crate::config::ConfigError> {
    let mut sources = arguments.common.sources();
    if !arguments.listen.is_empty() {
        sources.flags.insert("listen", arguments.listen.join(","));
    }
    if let Some(data_dir) = arguments.data_dir {
        sources.flags.insert("data_dir", data_dir);
    }
    Config::load(&sources)
}
