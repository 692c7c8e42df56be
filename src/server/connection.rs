//! One connection from its first byte to its last, and the limits that hold on it.

use std::{convert::Infallible, error::Error, pin::pin, time::Duration};

use bytes::Bytes;
use futures_util::{FutureExt as _, StreamExt as _, stream::FuturesUnordered};
use http::{Method, Request, Response};
use http_body::Body;
use hyper::{
    body::Incoming,
    rt::Executor,
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::GracefulConnection,
};
use tokio_util::task::TaskTracker;

use super::{
    Signals, Tls,
    glance::{self, Glances},
    head,
    listener::Stream,
    opening::{self, Opened, Protocol},
    running::Running,
    target,
};
use crate::access::{Client, Peer};

/// Longest a client may take to send a request's head, and an idle connection is kept; over HTTP/1.1 it
/// may be [`glance::PERIOD`] more.
pub(super) const HEAD_TIMEOUT: Duration = Duration::from_secs(30);

/// Most bytes of a request's head; a longer one is answered 431 by hyper and h2.
pub(super) const HEAD_BYTES: u32 = 64 * 1024;

/// Most requests at once on one HTTP/2 connection; a client waits with the next.
pub(super) const MAX_STREAMS: u32 = 128;

/// Most bytes of one response that wait on an HTTP/2 connection: about two pieces of a file.
const SEND_BUFFER: usize = 128 * 1024;

/// Most bytes of request bodies that HTTP/2 clients may send unasked (RFC 9113, section 6.9.2):
/// the least there is, since no handler reads one.
const RECEIVE_WINDOW: u32 = 65_535;

/// How often an HTTP/2 client is asked whether it is there. HTTP/1.1 leaves that to TCP.
const PING_INTERVAL: Duration = Duration::from_secs(60);

/// Longest an HTTP/2 client may take to say so. On a slow line a ping waits behind megabytes of a
/// blob, so this is long.
const PING_TIMEOUT: Duration = Duration::from_secs(300);

/// What all connections of a server have in common.
#[derive(Clone, Debug, Default)]
pub(super) struct Terms {
    /// Spoken on TCP connections.
    pub(super) tls: Option<Tls>,
    /// Whether the kernel may send pieces of files.
    pub(super) sends_files: bool,
    /// Where connections and the requests on them run.
    pub(super) tasks: TaskTracker,
    pub(super) signals: Signals,
}

/// Serves requests on one connection until either side ends it.
pub(super) async fn serve<F, Fut, B>(stream: Stream, peer: Peer, handler: F, terms: Terms)
where
    F: Fn(Client, Request<Incoming>) -> Fut + Send + 'static,
    Fut: Future<Output = Response<B>> + Send + 'static,
    B: Body<Data = Bytes, Error: Into<Box<dyn Error + Send + Sync>>> + Send + Unpin + 'static,
{
    let opening = opening::open(stream, terms.tls.as_ref());
    let Some(opened) = terms.signals.stop.run_until_cancelled(opening).await else {
        return;
    };
    let ended: Result<(), Box<dyn Error + Send + Sync>> = match opened {
        Err(error) => Err(error.into()),
        Ok((stream, Protocol::Http1)) => {
            let outlet = stream.outlet().filter(|_| terms.sends_files);
            let client = Client { peer, outlet };
            serve_http1(stream, client, handler, &terms.signals).await.map_err(Into::into)
        }
        Ok((stream, Protocol::Http2)) => {
            // Boxed, so that HTTP/1.1 does not pay for its size.
            let client = Client { peer, outlet: None };
            Box::pin(serve_http2(stream, client, handler, &terms)).await.map_err(Into::into)
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%peer, error, "connection ended early");
    }
}

async fn serve_http1<F, Fut, B>(
    stream: Opened,
    client: Client,
    handler: F,
    signals: &Signals,
) -> hyper::Result<()>
where
    F: Fn(Client, Request<Incoming>) -> Fut + Send,
    Fut: Future<Output = Response<B>> + Send,
    B: Body<Data = Bytes, Error: Into<Box<dyn Error + Send + Sync>>> + Send + 'static,
{
    let service = service_fn(move |request| {
        handler(client.clone(), target::in_origin_form(request)).map(Ok::<_, Infallible>)
    });
    let glances = Glances::default();
    let connection = http1::Builder::new()
        .timer(glances.clone())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(HEAD_BYTES as usize)
        .serve_connection(TokioIo::new(stream), service);
    // "100 Continue" is sent when a handler reads the body, and none does: `Expect` gets the final
    // answer at once. The timeout of the next head ends an idle connection.
    let never = async {
        let never = Glances::every(glance::PERIOD).await;
        match never {}
    };
    // It has only limits for heads: at the end, nobody waits for the rest of one.
    drive(connection, never, || glances.end(), signals).await
}

async fn serve_http2<F, Fut, B>(
    stream: Opened,
    client: Client,
    handler: F,
    terms: &Terms,
) -> hyper::Result<()>
where
    F: Fn(Client, Request<Incoming>) -> Fut + Send,
    Fut: Future<Output = Response<B>> + Send + 'static,
    B: Body<Data = Bytes, Error: Into<Box<dyn Error + Send + Sync>>> + Send + Unpin + 'static,
{
    let running = Running::none();
    let idle = running.idle_for(HEAD_TIMEOUT);
    let service = service_fn(move |request: Request<Incoming>| {
        let one = running.begin();
        let is_head = request.method() == Method::HEAD;
        let response = handler(client.clone(), target::in_origin_form(request));
        async move {
            let response = response.await;
            let response = if is_head { head::without_body(response) } else { response.map(Some) };
            Ok::<_, Infallible>(response.map(|body| one.until_end_of(body)))
        }
    });
    let connection = http2::Builder::new(Tasks(terms.tasks.clone()))
        .timer(TokioTimer::new())
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT)
        .max_header_list_size(HEAD_BYTES)
        .max_concurrent_streams(MAX_STREAMS)
        .max_send_buf_size(SEND_BUFFER)
        .initial_stream_window_size(RECEIVE_WINDOW)
        .initial_connection_window_size(RECEIVE_WINDOW)
        .serve_connection(TokioIo::new(stream), service);
    drive(connection, idle, || (), &terms.signals).await
}

/// Lets a connection go on until it ends. It is asked to once it is `idle` or the server stops,
/// and may then finish what is running, unless it is cut; `ending` is called before.
async fn drive<C: GracefulConnection<Error = hyper::Error>>(
    connection: C,
    idle: impl Future<Output = ()>,
    ending: impl FnOnce(),
    signals: &Signals,
) -> hyper::Result<()> {
    let mut connection = pin!(connection);
    let end = async {
        tokio::select! {
            () = signals.stop.cancelled() => {}
            () = idle => {}
        }
    };
    // Polled only when it is woken itself, and not with every request: each look at the signal takes a lock
    // that all connections share.
    let mut end = FuturesUnordered::from_iter([end]);
    tokio::select! {
        biased;
        ended = connection.as_mut() => return ended,
        _ = end.next() => {}
    }
    ending();
    connection.as_mut().graceful_shutdown();
    signals.cut.run_until_cancelled(connection).await.unwrap_or(Ok(()))
}

/// Runs the streams of an HTTP/2 connection where a stop waits for them.
#[derive(Clone)]
struct Tasks(TaskTracker);

impl<F: Future<Output: Send> + Send + 'static> Executor<F> for Tasks {
    fn execute(&self, stream: F) {
        self.0.spawn(stream);
    }
}
