//! A proxy as companies put before the internet: it knows hosts that nobody else can resolve.

use std::{
    collections::HashMap,
    convert::Infallible,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use http_body_util::{Either, Empty};
use hyper::{
    Method, Request, Response, StatusCode, Uri,
    body::{Bytes, Incoming},
    client, server,
    service::service_fn,
    upgrade,
};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite, copy_bidirectional},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};
use tokio_rustls::TlsAcceptor;

use super::{FakeRegistry, address, tls::TestCa};

type Answer = Response<Either<Incoming, Empty<Bytes>>>;

/// A running proxy; ends when dropped.
pub struct TestProxy {
    address: SocketAddr,
    scheme: &'static str,
    shared: Arc<Shared>,
    accepting: JoinHandle<()>,
}

#[derive(Default)]
struct Shared {
    /// `name:password` that it wants to be shown.
    login: Option<&'static str>,
    hosts: Mutex<HashMap<String, SocketAddr>>,
    /// Method and target of each request.
    log: Mutex<Vec<String>>,
}

impl TestProxy {
    /// A proxy that serves everyone.
    pub async fn start() -> TestProxy {
        TestProxy::listen(None, None).await
    }

    /// A proxy that serves who shows `name:password`.
    pub async fn with_login(login: &'static str) -> TestProxy {
        TestProxy::listen(Some(login), None).await
    }

    /// A proxy that is spoken to in TLS.
    pub async fn with_tls(ca: &TestCa) -> TestProxy {
        TestProxy::listen(None, Some(ca)).await
    }

    async fn listen(login: Option<&'static str>, ca: Option<&TestCa>) -> TestProxy {
        let address = address::unique();
        let listener = TcpListener::bind(address).await.unwrap();
        let shared = Arc::new(Shared { login, ..Shared::default() });
        let acceptor = ca.map(|ca| ca.acceptor(address.ip()));
        let scheme = if acceptor.is_some() { "https" } else { "http" };
        let accepting = tokio::spawn(accept(Arc::clone(&shared), listener, acceptor));
        TestProxy { address, scheme, shared, accepting }
    }

    /// Its URL, with `userinfo` before the host.
    pub fn url_for(&self, userinfo: &str) -> String {
        format!("{}://{userinfo}@{}", self.scheme, self.address)
    }

    /// Its URL.
    pub fn url(&self) -> String {
        format!("{}://{}", self.scheme, self.address)
    }

    /// Leads to `registry` whoever asks for the host of its URL.
    pub fn lead_to(&self, registry: &FakeRegistry) {
        let uri: Uri = registry.url().parse().unwrap();
        let host = uri.host().unwrap().to_owned();
        self.shared.hosts.lock().unwrap().insert(host, registry.address());
    }

    /// Every request so far: `CONNECT host:port`, or a method and a URL.
    pub fn requests(&self) -> Vec<String> {
        self.shared.log.lock().unwrap().clone()
    }
}

impl Drop for TestProxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(shared: Arc<Shared>, listener: TcpListener, acceptor: Option<TlsAcceptor>) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let (shared, acceptor) = (Arc::clone(&shared), acceptor.clone());
        tokio::spawn(async move {
            match acceptor {
                None => serve(shared, stream).await,
                Some(acceptor) => {
                    if let Ok(stream) = acceptor.accept(stream).await {
                        serve(shared, stream).await;
                    }
                }
            }
        });
    }
}

async fn serve(shared: Arc<Shared>, stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) {
    let service = service_fn(move |request| answer(Arc::clone(&shared), request));
    let connection = server::conn::http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    // Nothing is lost by an error: Larder hung up.
    let _ = connection.await;
}

async fn answer(shared: Arc<Shared>, mut request: Request<Incoming>) -> Result<Answer, Infallible> {
    let line = format!("{} {}", request.method(), request.uri());
    shared.log.lock().unwrap().push(line);
    let shown = request.headers_mut().remove("proxy-authorization");
    let wanted = shared.login.map(|login| format!("Basic {}", BASE64_STANDARD.encode(login)));
    if shown.as_ref().map(|value| value.to_str().unwrap()) != wanted.as_deref() {
        return Ok(refusal(StatusCode::PROXY_AUTHENTICATION_REQUIRED));
    }
    let host = request.uri().host().unwrap_or_default();
    let known = shared.hosts.lock().unwrap().get(host).copied();
    let Some(target) = known else {
        return Ok(refusal(StatusCode::BAD_GATEWAY));
    };
    let Ok(stream) = TcpStream::connect(target).await else {
        return Ok(refusal(StatusCode::BAD_GATEWAY));
    };
    if request.method() != Method::CONNECT {
        return Ok(forward(request, stream).await);
    }
    tokio::spawn(tunnel(request, stream));
    Ok(refusal(StatusCode::OK))
}

async fn tunnel(request: Request<Incoming>, mut target: TcpStream) {
    let upgraded = upgrade::on(request).await.unwrap();
    let _ = copy_bidirectional(&mut TokioIo::new(upgraded), &mut target).await;
}

/// Asks the target, by the path alone.
async fn forward(mut request: Request<Incoming>, target: TcpStream) -> Answer {
    let path = request.uri().path_and_query().unwrap().as_str().parse().unwrap();
    *request.uri_mut() = path;
    let (mut sender, connection) =
        client::conn::http1::handshake(TokioIo::new(target)).await.unwrap();
    tokio::spawn(connection);
    match sender.send_request(request).await {
        Ok(response) => response.map(Either::Left),
        Err(_) => refusal(StatusCode::BAD_GATEWAY),
    }
}

fn refusal(status: StatusCode) -> Answer {
    let mut answer = Response::new(Either::Right(Empty::new()));
    *answer.status_mut() = status;
    answer
}
