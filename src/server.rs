//! HTTP/1.1 listeners: bind, accept, serve, drain. Generic over the handler, and knows nothing of
//! registries.

mod listener;
#[cfg(test)]
mod tests;

use std::{convert::Infallible, error::Error, pin::pin, time::Duration};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::time::Instant;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub use listener::{BindError, Listener};

use crate::access::Peer;
use listener::Stream;

/// Longest a client may take to send a request's head, and an idle connection is kept.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);

/// Most bytes buffered of a request's head; a longer one is answered 431 by hyper.
const HEAD_BYTES: usize = 64 * 1024;

/// Pause after a failed accept. Out of file descriptors, say, trying at once would only burn CPU.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Shortest time between two warnings about failing accepts.
const ACCEPT_WARNING_INTERVAL: Duration = Duration::from_secs(10);

/// A running server: any number of listeners with one handler each, and their connections.
#[derive(Debug, Default)]
pub struct Server {
    tasks: TaskTracker,
    signals: Signals,
}

/// What connections are told. `stop`: finish the running response; `cut`: end now.
#[derive(Clone, Debug, Default)]
struct Signals {
    stop: CancellationToken,
    cut: CancellationToken,
}

impl Server {
    /// A server without listeners.
    pub fn new() -> Server {
        Server::default()
    }

    /// Accepts connections in the background and answers their requests with `handler`.
    ///
    /// A handler whose client hangs up is dropped.
    pub fn serve<F, Fut, B>(&self, listener: Listener, handler: F)
    where
        F: Fn(Peer, Request<Incoming>) -> Fut + Clone + Send + 'static,
        Fut: Future<Output = Response<B>> + Send + 'static,
        B: Body<Data = Bytes, Error: Into<Box<dyn Error + Send + Sync>>> + Send + 'static,
    {
        let tasks = self.tasks.clone();
        let signals = self.signals.clone();
        self.tasks.spawn(async move {
            let mut failures = AcceptFailures::default();
            while let Some(accepted) = signals.stop.run_until_cancelled(listener.accept()).await {
                match accepted {
                    Ok((stream, peer)) => {
                        let handler = handler.clone();
                        tasks.spawn(serve_connection(stream, peer, handler, signals.clone()));
                    }
                    Err(error) => failures.note_and_pause(&error, &listener).await,
                }
            }
        });
    }

    /// Closes the listeners, lets running responses finish for `patience`, then cuts the rest.
    pub async fn stop(self, patience: Duration) {
        self.signals.stop.cancel();
        self.tasks.close();
        if tokio::time::timeout(patience, self.tasks.wait()).await.is_err() {
            let connections = self.tasks.len();
            tracing::warn!(connections, "cutting connections that did not end in time");
            self.signals.cut.cancel();
            self.tasks.wait().await;
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

/// Serves requests on one connection until either side ends it.
async fn serve_connection<F, Fut, B>(stream: Stream, peer: Peer, handler: F, signals: Signals)
where
    F: Fn(Peer, Request<Incoming>) -> Fut + Send,
    Fut: Future<Output = Response<B>> + Send,
    B: Body<Data = Bytes, Error: Into<Box<dyn Error + Send + Sync>>> + Send + 'static,
{
    let service = service_fn(move |request| {
        let response = handler(peer, request);
        async { Ok::<_, Infallible>(response.await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);

    let mut ended = signals.stop.run_until_cancelled(connection.as_mut()).await;
    if ended.is_none() {
        connection.as_mut().graceful_shutdown();
        ended = signals.cut.run_until_cancelled(connection).await;
    }
    if let Some(Err(error)) = ended {
        tracing::debug!(%peer, %error, "connection ended early");
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
