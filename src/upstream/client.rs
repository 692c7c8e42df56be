//! One HTTP request to wherever its URL points, over the pooled connections of one endpoint.

use std::{error::Error as StdError, io, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Method, Request, Response,
    header::{ACCEPT_ENCODING, AUTHORIZATION, CONTENT_TYPE, PROXY_AUTHORIZATION, USER_AGENT},
};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::{
    client::legacy::{self, connect::capture_connection},
    rt::{TokioExecutor, TokioTimer},
};
use tokio::time::{Instant, sleep};
use url::Url;

use super::{
    BlobBody, Error,
    answer::{Answer, Source, request_line},
    connections::{Connection, Connections},
    connector::{Connector, Refused, wants_certificate},
    health::{Health, Operation},
    secrets::Secrets,
};

/// Idle connections are closed before the peers' usual 60 seconds, so that a request seldom meets
/// one that is being closed.
const IDLE_CONNECTION: Duration = Duration::from_secs(30);

/// Sends requests and counts what comes back.
pub(super) struct Client {
    pool: legacy::Client<Connector, Full<Bytes>>,
    connector: Connector,
    health: Arc<Health>,
    connections: Arc<Connections>,
    times: Times,
}

/// How long upstream may be silent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Times {
    /// From the request, on an open connection, to the first byte of the answer.
    pub(super) first_byte: Duration,
    /// Within a body.
    pub(super) idle: Duration,
}

/// A request that can be sent more than once. Has no `Debug`: it may hold a secret.
#[derive(Clone)]
pub(super) struct Outgoing {
    pub(super) operation: Operation,
    pub(super) method: Method,
    pub(super) url: Url,
    pub(super) headers: HeaderMap,
    /// The value of `Authorization`.
    pub(super) authorization: Option<String>,
    /// URL-encoded fields of a POST.
    pub(super) form: String,
    /// Whether a redirect led to the URL, whose query may then be a signature.
    pub(super) is_redirected: bool,
}

impl Outgoing {
    /// A GET without credentials.
    pub(super) fn get(operation: Operation, url: Url) -> Outgoing {
        Outgoing {
            operation,
            method: Method::GET,
            url,
            headers: HeaderMap::new(),
            authorization: None,
            form: String::new(),
            is_redirected: false,
        }
    }

    fn to_request(&self) -> Result<Request<Full<Bytes>>, Error> {
        let mut request = Request::builder()
            .method(&self.method)
            .uri(self.url.as_str())
            .body(Full::from(self.form.clone()))
            .map_err(|_| self.invalid("a URL that HTTP cannot carry"))?;
        let headers = request.headers_mut();
        headers.clone_from(&self.headers);
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        let agent = concat!("larder/", env!("CARGO_PKG_VERSION"));
        headers.insert(USER_AGENT, HeaderValue::from_static(agent));
        if self.method == Method::POST {
            let form = HeaderValue::from_static("application/x-www-form-urlencoded");
            headers.insert(CONTENT_TYPE, form);
        }
        if let Some(authorization) = &self.authorization {
            let mut value = HeaderValue::from_str(authorization)
                .map_err(|_| self.invalid("a token that HTTP cannot carry"))?;
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
        Ok(request)
    }

    fn invalid(&self, what: &str) -> Error {
        Error::Invalid(self.said(what))
    }

    /// What there is to say of this request.
    fn said(&self, what: &str) -> String {
        format!("{}: {what}", request_line(&self.method, &self.url))
    }
}

/// Why there is no answer.
enum Failure {
    /// The connection broke after it was made: a kept one may just have been closed.
    Broken(Error),
    /// Anything that a second try would not better.
    Final(Error),
}

impl Client {
    pub(super) fn new(
        connector: Connector,
        health: Arc<Health>,
        connections: Arc<Connections>,
        times: Times,
    ) -> Client {
        let pool = legacy::Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_CONNECTION)
            .pool_max_idle_per_host(connections.limit())
            .build(connector.clone());
        Client { pool, connector, health, connections, times }
    }

    /// The answer to `outgoing`, of any status. Redirects are not followed.
    pub(super) async fn send(&self, outgoing: &Outgoing) -> Result<Answer, Error> {
        let connection = self.connections.beside(outgoing.operation).await;
        let started = Instant::now();
        match self.try_twice(outgoing).await {
            Ok(response) => {
                let status = response.status();
                self.health.note_answer(outgoing.operation, status, started.elapsed());
                Ok(self.answer(outgoing, response, connection))
            }
            Err(error) if error.is_outage() => {
                self.health.note_silence(outgoing.operation);
                Err(error)
            }
            Err(error) => {
                self.health.note_refusal(outgoing.operation);
                Err(error)
            }
        }
    }

    async fn try_twice(&self, outgoing: &Outgoing) -> Result<Response<Incoming>, Error> {
        match self.try_once(outgoing).await {
            Err(Failure::Broken(_)) if outgoing.method != Method::POST => {
                self.try_once(outgoing).await
            }
            outcome => outcome,
        }
        .map_err(|failure| match failure {
            Failure::Broken(error) | Failure::Final(error) => error,
        })
    }

    /// The time for the first byte starts when there is a connection; making one has its own limit.
    async fn try_once(&self, outgoing: &Outgoing) -> Result<Response<Incoming>, Failure> {
        let mut request = outgoing.to_request().map_err(Failure::Final)?;
        let to_proxy = self.connector.proxy_authorization(&outgoing.url);
        request.headers_mut().extend(to_proxy.map(|value| (PROXY_AUTHORIZATION, value)));
        let mut connection = capture_connection(&mut request);
        let silence = async {
            connection.wait_for_connection_metadata().await;
            sleep(self.times.first_byte).await;
        };
        tokio::select! {
            answer = self.pool.request(request) => answer.map_err(|error| failure(outgoing, &error)),
            () = silence => {
                let what = format!("no answer within {:?}", self.times.first_byte);
                Err(Failure::Final(Error::Unreachable(outgoing.said(&what))))
            }
        }
    }

    fn answer(
        &self,
        outgoing: &Outgoing,
        response: Response<Incoming>,
        connection: Option<Connection>,
    ) -> Answer {
        let (head, incoming) = response.into_parts();
        let request = request_line(&outgoing.method, &outgoing.url);
        let health = Arc::clone(&self.health);
        let mut body = BlobBody::new(incoming, request, self.times.idle, health);
        if let Some(connection) = connection {
            body.hold(connection);
        }
        Answer {
            method: outgoing.method.clone(),
            url: outgoing.url.clone(),
            source: Source::Asked,
            status: head.status,
            headers: head.headers,
            secrets: Secrets::of(outgoing),
            body,
        }
    }
}

/// An error with all its causes, outermost first.
pub(super) fn causes(error: &dyn StdError) -> String {
    chain(error).fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

fn failure(outgoing: &Outgoing, error: &legacy::Error) -> Failure {
    if let Some(refused) = chain(error).find_map(|cause| cause.downcast_ref::<Refused>()) {
        return Failure::Final(outgoing.invalid(&refused.to_string()));
    }
    if wants_certificate(error) {
        let what =
            "it lets nobody in without a certificate; name one by client_cert and client_key";
        return Failure::Final(Error::Unreachable(outgoing.said(what)));
    }
    if !error.is_connect() {
        return Failure::Broken(Error::momentary(outgoing.said(&causes(error))));
    }
    // Outermost it says only that it is about a connection, as its cause does too.
    let what = error.source().map_or_else(|| error.to_string(), causes);
    let message = outgoing.said(&what);
    Failure::Final(match was_dropped(error) {
        true => Error::momentary(message),
        false => Error::Unreachable(message),
    })
}

/// Whether the peer refused the connection, or dropped it while it was made.
fn was_dropped(error: &legacy::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, UnexpectedEof};
    let is_drop = |error: &io::Error| {
        matches!(
            error.kind(),
            ConnectionAborted | ConnectionRefused | ConnectionReset | UnexpectedEof
        )
    };
    chain(error).filter_map(|cause| cause.downcast_ref::<io::Error>()).any(|error| {
        // What broke off a handshake is wrapped once more, and is no source of what wraps it.
        let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<io::Error>());
        is_drop(error) || inner.is_some_and(is_drop)
    })
}

fn chain(error: &dyn StdError) -> impl Iterator<Item = &(dyn StdError + 'static)> {
    std::iter::successors(error.source(), |&cause| cause.source())
}
