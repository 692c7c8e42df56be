//! HTTP listeners: bind, accept, serve, drain. HTTP/1.1 and HTTP/2, in the clear and over TLS.
//! Generic over the handler, and knows nothing of registries.

mod connection;
mod dial;
mod glance;
mod head;
mod listener;
mod opening;
mod reach;
mod running;
mod target;
#[cfg(test)]
mod tests;
mod tls;

use std::{error::Error, time::Duration};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub use dial::{Dialled, dial};
pub use listener::{BindError, Listener};
pub use tls::{Tls, TlsError, own_certificate};

use crate::access::Client;
use connection::Terms;

/// Pause after a failed accept. Out of file descriptors, say, trying at once would only burn CPU.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Shortest time between two warnings about failing accepts.
const ACCEPT_WARNING_INTERVAL: Duration = Duration::from_secs(10);

/// A running server: any number of listeners with one handler each, and their connections.
#[derive(Debug, Default)]
pub struct Server {
    terms: Terms,
}

/// What connections are told. `stop`: finish the running response; `cut`: end now.
#[derive(Clone, Debug, Default)]
struct Signals {
    stop: CancellationToken,
    cut: CancellationToken,
}

impl Server {
    /// A server without listeners, in the clear.
    pub fn new() -> Server {
        Server::default()
    }

    /// Speaks TLS on the TCP listeners that are served from now on. Unix sockets stay as they are.
    pub fn with_tls(mut self, tls: Option<Tls>) -> Server {
        self.terms.tls = tls;
        self
    }

    /// Offers an [`Outlet`](crate::sendfile::Outlet) to the handlers of requests over HTTP/1 in the clear.
    pub fn with_sendfile(mut self) -> Server {
        self.terms.sends_files = true;
        self
    }

    /// Accepts connections in the background and answers their requests with `handler`.
    ///
    /// Whatever the version of HTTP, a request's URI is its path and query, and the host that the
    /// client asked for is in `Host`. A handler whose client hangs up is dropped. A body that fails
    /// cuts the connection, or over HTTP/2 the stream.
    pub fn serve<F, Fut, B>(&self, listener: Listener, handler: F)
    where
        F: Fn(Client, Request<Incoming>) -> Fut + Clone + Send + 'static,
        Fut: Future<Output = Response<B>> + Send + 'static,
        B: Body<Data = Bytes, Error: Into<Box<dyn Error + Send + Sync>>> + Send + Unpin + 'static,
    {
        let terms = self.terms.clone();
        self.terms.tasks.spawn(async move {
            let mut failures = AcceptFailures::default();
            let stop = terms.signals.stop.clone();
            while let Some(accepted) = stop.run_until_cancelled(listener.accept()).await {
                match accepted {
                    Ok((stream, peer)) => {
                        let serving =
                            connection::serve(stream, peer, handler.clone(), terms.clone());
                        terms.tasks.spawn(serving);
                    }
                    Err(error) => failures.note_and_pause(&error, &listener).await,
                }
            }
        });
    }

    /// Closes the listeners, lets running responses finish for `patience`, then cuts the rest.
    pub async fn stop(self, patience: Duration) {
        let Terms { tasks, signals, .. } = self.terms;
        signals.stop.cancel();
        tasks.close();
        if tokio::time::timeout(patience, tasks.wait()).await.is_err() {
            let left = tasks.len();
            tracing::warn!(left, "cutting what did not end in time");
            signals.cut.cancel();
            tasks.wait().await;
        }
    }
}

/// Raises the soft limit of open files to the hard one: each client and each blob being read
/// holds a descriptor, and the usual soft limit of 1024 is soon reached.
pub fn raise_open_file_limit() {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: maximum, maximum };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!(%error, ?current, ?maximum, "cannot raise the limit of open files");
    }
}

/// Keeps a stream of accept errors from flooding the log.
#[derive(Default)]
struct AcceptFailures {
    warned: Option<Instant>,
}

impl AcceptFailures {
    async fn note_and_pause(&mut self, error: &std::io::Error, listener: &Listener) {
        let is_quiet = |warned: Instant| warned.elapsed() < ACCEPT_WARNING_INTERVAL;
        if !self.warned.is_some_and(is_quiet) {
            self.warned = Some(Instant::now());
            tracing::warn!(%error, %listener, "cannot accept a connection; trying again");
        }
        tokio::time::sleep(ACCEPT_PAUSE).await;
    }
}
