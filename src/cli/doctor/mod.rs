//! `larder doctor`: tries what a pull needs, by the code and the settings that pulls use, and says
//! what is wrong and what to do about it. Changes nothing, needs no running daemon, and asks one that
//! runs what it knows.

mod daemon;
mod disk;
mod listeners;
mod report;
mod upstreams;
mod visit;

use std::{
    io::{self, Write as _},
    net::SocketAddr,
    process::ExitCode,
    sync::Arc,
};

use super::{Common, LAST_WORK, refuse, warnings};
use crate::{
    clock::Clock,
    config::{Config, Listen},
    finding::{Findings, Verdict},
    metrics::Metrics,
};
use report::{Report, Row, Section};
use upstreams::Examinee;

#[derive(clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    common: Common,
    /// Which upstreams to try [default: all that are configured]
    #[arg(value_name = "REGISTRY")]
    registries: Vec<String>,
    /// An image to try its upstream by, such as ghcr.io/owner/image:tag; repeatable
    #[arg(long = "image", value_name = "IMAGE")]
    images: Vec<String>,
    /// Print one JSON document instead of a table
    #[arg(long)]
    json: bool,
}

pub(super) fn doctor(arguments: &Arguments) -> ExitCode {
    let config = match Config::load(&arguments.common.sources()) {
        Ok(config) => config,
        Err(error) => return refuse(&error),
    };
    let examinees = match prepare(arguments, &config) {
        Ok(examinees) => examinees,
        Err(reason) => return refuse(&reason),
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return refuse(&format_args!("cannot start the runtime: {error}")),
    };
    let report = runtime.block_on(examine(config, examinees));
    // A look-up of a name cannot be interrupted, and need not be waited for.
    runtime.shutdown_timeout(LAST_WORK);
    let text = if arguments.json { report.document() } else { report.table() };
    // Whoever does not read the report still gets the exit code.
    let _ = io::stdout().write_all(text.as_bytes());
    match report.failures() {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}

/// What to examine; the error says what keeps the daemon from starting, or what is asked wrongly.
fn prepare(arguments: &Arguments, config: &Config) -> Result<Vec<Examinee>, String> {
    crate::load_tls(config).map_err(|error| error.to_string())?;
    let metrics = Arc::new(Metrics::new());
    let clients = crate::assembly::set_up_upstreams(config, own_listeners(config), &metrics);
    let clients = clients.map_err(|error| error.to_string())?;
    upstreams::chosen(config, clients, &arguments.registries, &arguments.images)
}

/// The addresses that the daemon would never dial as an upstream's.
fn own_listeners(config: &Config) -> Arc<[SocketAddr]> {
    let tcp = config.listen.iter().filter_map(|listen| match listen {
        Listen::Tcp(address) => Some(*address),
        Listen::Unix(_) => None,
    });
    tcp.chain([config.admin.listen]).collect()
}

async fn examine(config: Config, examinees: Vec<Examinee>) -> Report {
    let (data_dir, cache) = (config.data_dir.clone(), config.cache.clone());
    let disk = tokio::task::spawn_blocking(move || disk::examine(&data_dir, &cache));
    let clock = Clock::system();
    let (upstreams, listeners) =
        tokio::join!(upstreams::examine(&examinees, &clock), listeners::examine(&config, &clock));
    let mut report = Report::default();
    report.add(configuration(&config));
    report.add(upstreams);
    report.add(disk.await.unwrap_or_default());
    report.add(listeners);
    report
}

/// What `larder check` warns of.
fn configuration(config: &Config) -> Vec<Row> {
    let mut findings = Findings::default();
    for warning in warnings::of(config) {
        findings.note("check", Verdict::doubtful(warning));
    }
    Row::all(Section::Configuration, "configuration", findings.into_vec())
}
