//! The log: lines on standard error, as text or JSON.

use std::io::{self, IsTerminal as _};

use tracing::Level;
use tracing_subscriber::{
    filter::Targets, fmt, layer::SubscriberExt as _, util::SubscriberInitExt as _,
};

use crate::config::{Log, LogFormat};

/// Starts the log of this process, unless it has one already: a command may ask more than once. The level is Larder's own; libraries log warnings and errors.
pub(super) fn start(config: &Log) {
    let levels = Targets::new()
        .with_default(Level::WARN.min(config.level))
        .with_target(env!("CARGO_CRATE_NAME"), config.level);
    let lines = fmt::layer().with_writer(io::stderr).with_ansi(io::stderr().is_terminal());
    let registry = tracing_subscriber::registry().with(levels);
    // An error means that there is one.
    let _ = match config.format {
        LogFormat::Text => registry.with(lines.with_target(false)).try_init(),
        LogFormat::Json => registry.with(lines.json().flatten_event(true)).try_init(),
    };
}
