//! Connections: name, guard, TCP, TLS, all within one time limit.

mod stages;

use std::{
    future::{Future, ready},
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
    vec,
};

use http::{Uri, uri::Scheme};
use hyper_rustls::{HttpsConnector, MaybeHttpsStream};
use hyper_util::{
    client::legacy::connect::{HttpConnector, dns::Name},
    rt::TokioIo,
};
use rustls::ClientConfig;
use tokio::net::TcpStream;
use tower_service::Service;

use super::guard::Guard;

pub(super) use stages::tls_remedy;

pub(super) type BoxError = Box<dyn std::error::Error + Send + Sync>;
type BoxFuture<T> = Pin<Box<dyn Future<Output = Result<T, BoxError>> + Send>>;

/// Connects to wherever a URI points, if the guard lets it, within `limit`.
#[derive(Clone, Debug)]
pub(super) struct Connector {
    https: HttpsConnector<GuardedTcp>,
    /// What `https` stands on.
    tcp: GuardedTcp,
    limit: Duration,
}

impl Connector {
    /// `limit` covers the look-up, TCP and TLS together.
    pub(super) fn new(guard: Guard, tls: ClientConfig, limit: Duration) -> Connector {
        let tcp = GuardedTcp { guard: Arc::new(guard), limit };
        Connector { https: (tcp.clone(), tls).into(), tcp, limit }
    }
}

impl Service<Uri> for Connector {
    type Response = MaybeHttpsStream<TokioIo<TcpStream>>;
    type Error = BoxError;
    type Future = BoxFuture<Self::Response>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.https.poll_ready(context)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connecting = tokio::time::timeout(self.limit, self.https.call(uri));
        let limit = self.limit;
        Box::pin(async move {
            connecting
                .await
                .unwrap_or_else(|_| Err(format!("no connection within {limit:?}").into()))
        })
    }
}

/// TCP to addresses that the guard has admitted.
#[derive(Clone, Debug)]
struct GuardedTcp {
    guard: Arc<Guard>,
    limit: Duration,
}

impl Service<Uri> for GuardedTcp {
    type Response = TokioIo<TcpStream>;
    type Error = BoxError;
    type Future = BoxFuture<Self::Response>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    /// The resolver is made for this one connection, since the guard judges addresses with their
    /// port. An IP address in the URI never reaches the resolver and is judged here.
    fn call(&mut self, uri: Uri) -> Self::Future {
        let host = uri.host().unwrap_or_default();
        let port = port_of(&uri);
        if let Some(address) = literal(host)
            && let Err(refused) = self.guard.admit(host, vec![SocketAddr::new(address, port)])
        {
            return Box::pin(ready(Err(refused.into())));
        }
        let mut tcp =
            HttpConnector::new_with_resolver(Resolver { guard: Arc::clone(&self.guard), port });
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        // Shared among the addresses, so that a dead one leaves time for the next.
        tcp.set_connect_timeout(Some(self.limit));
        let connecting = tcp.call(uri);
        Box::pin(async move { Ok(connecting.await?) })
    }
}

/// The system's resolver, filtered by the guard: what is checked is what is dialled.
#[derive(Clone, Debug)]
struct Resolver {
    guard: Arc<Guard>,
    port: u16,
}

impl Service<Name> for Resolver {
    type Response = vec::IntoIter<SocketAddr>;
    type Error = BoxError;
    type Future = BoxFuture<Self::Response>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let Resolver { guard, port } = self.clone();
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), port)).await?;
            Ok(guard.admit(name.as_str(), found.collect())?.into_iter())
        })
    }
}

fn port_of(uri: &Uri) -> u16 {
    let default = || match uri.scheme() == Some(&Scheme::HTTPS) {
        true => 443,
        false => 80,
    };
    uri.port_u16().unwrap_or_else(default)
}

/// The address that is written as a URI's host, IPv6 in brackets.
fn literal(host: &str) -> Option<IpAddr> {
    host.trim_start_matches('[').trim_end_matches(']').parse().ok()
}
