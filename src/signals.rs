//! SIGTERM and SIGINT: how a mirror is told to stop. And SIGXFSZ, which shall not stop it.

use std::io;

use rustix::process::Signal as Known;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Receives them from the moment this is made.
pub(crate) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    /// A file that may not grow any more (`ulimit -f`) is an error of the write that met it.
    _file_limit: Signal,
}

impl Signals {
    /// Begins to receive them, in place of the kernel's own way with them.
    pub(crate) fn new() -> io::Result<Signals> {
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            _file_limit: signal(SignalKind::from_raw(Known::XFSZ.as_raw()))?,
        })
    }

    /// Waits for the next one, and names it.
    pub(crate) async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}
