//! The line to a host, below its TLS: TCP, straight there or through a proxy.
//!
//! A proxy resolves the names that it is asked for, so the guard judges only what is plain from the
//! target itself: an address, or a name of the proxy's own machine. What other names lead to is the
//! proxy's business. Its own address was chosen by the operator and may lie anywhere.

use std::{
    future::{Future, ready},
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
    vec,
};

use http::{HeaderValue, Uri};
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_rustls::MaybeHttpsStream;
use hyper_util::{
    client::legacy::connect::{Connected, Connection, HttpConnector, dns::Name},
    rt::TokioIo,
};
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tower_service::Service;
use url::Url;

use super::{
    guard::{Guard, Refused},
    proxy,
    resolver::Resolver,
};
use crate::config::{Proxies, Proxy, Route, is_loopback_name};

pub(in crate::upstream) type BoxError = Box<dyn std::error::Error + Send + Sync>;
pub(super) type BoxFuture<T> = Pin<Box<dyn Future<Output = Result<T, BoxError>> + Send>>;

/// A connection to the next hop: to the target, or to a proxy, which may speak TLS itself.
type Hop = MaybeHttpsStream<TokioIo<TcpStream>>;

/// Makes lines to wherever a URI points.
#[derive(Clone)]
pub(super) struct Lines {
    /// Its clones share one.
    pub(super) guard: Arc<Guard>,
    pub(super) resolver: Resolver,
    pub(super) proxies: Arc<Proxies>,
    /// Towards a proxy.
    pub(super) tls: Arc<ClientConfig>,
    /// For the addresses of one host together.
    pub(super) limit: Duration,
}

/// A line.
pub(in crate::upstream) struct Line {
    hop: Hop,
    /// Whether requests go to a proxy, which is told their whole URL.
    is_proxied: bool,
}

/// Where a line begins: at the target itself, or at a proxy.
#[derive(Debug)]
pub(in crate::upstream) struct NextHop {
    /// The proxy's URL, without secrets.
    pub(in crate::upstream) proxy: Option<Url>,
    /// Those that may be dialled.
    pub(in crate::upstream) addresses: Vec<SocketAddr>,
}

/// Where a URI points.
struct Target<'a> {
    scheme: &'a str,
    host: &'a str,
    port: u16,
}

/// What a proxy, shown without its secrets, has to do with it.
#[derive(Debug, thiserror::Error)]
#[error("through the proxy {proxy}")]
pub(super) struct Proxied {
    proxy: Url,
    #[source]
    cause: BoxError,
}

/// A proxy that was meant and cannot be used: why, and what to do about it.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Closed(String);

impl Lines {
    /// What the proxy is shown with each request for `url`: nothing where it only sees a tunnel.
    pub(super) fn proxy_authorization(&self, url: &Url) -> Option<HeaderValue> {
        let (host, port) = (url.host_str()?, url.port_or_known_default()?);
        match self.proxies.route(url.scheme(), host, port) {
            Route::Through(to) if url.scheme() == "http" => proxy::authorization(to),
            Route::Through(_) | Route::Direct | Route::Closed(_) => None,
        }
    }

    /// Where a line to `uri` begins.
    pub(super) async fn next_hop(&self, uri: &Uri) -> Result<NextHop, BoxError> {
        let target = Target::of(uri);
        match self.proxies.route(target.scheme, target.host, target.port) {
            Route::Closed(reason) => Err(Closed(reason.to_owned()).into()),
            Route::Direct => {
                Ok(NextHop { proxy: None, addresses: self.addresses_of(&target).await? })
            }
            Route::Through(proxy) => {
                self.admit_unresolved(&target)?;
                let addresses = self.addresses_of_proxy(proxy).await;
                let addresses = addresses.map_err(|cause| Proxied::by(proxy, cause))?;
                Ok(NextHop { proxy: Some(proxy.url.clone()), addresses })
            }
        }
    }

    async fn connect(self, uri: Uri) -> Result<Line, BoxError> {
        let target = Target::of(&uri);
        match self.proxies.route(target.scheme, target.host, target.port) {
            Route::Closed(reason) => Err(Closed(reason.to_owned()).into()),
            Route::Direct => {
                let tcp = self.dial(&uri, self.addresses_of(&target).await?).await?;
                Ok(Line { hop: tcp.into(), is_proxied: false })
            }
            Route::Through(proxy) => {
                self.admit_unresolved(&target)?;
                let line = self.connect_through(proxy, &target).await;
                line.map_err(|cause| Proxied::by(proxy, cause))
            }
        }
    }

    async fn connect_through(&self, proxy: &Proxy, target: &Target<'_>) -> Result<Line, BoxError> {
        let hop = self.reach(proxy).await?;
        if target.scheme == "http" {
            return Ok(Line { hop, is_proxied: true });
        }
        let authority = format!("{}:{}", target.host, target.port);
        let hop = proxy::tunnel(hop, proxy, &authority).await?;
        Ok(Line { hop, is_proxied: false })
    }

    async fn reach(&self, proxy: &Proxy) -> Result<Hop, BoxError> {
        let uri: Uri = proxy.url.as_str().parse()?;
        let target = Target::of(&uri);
        let tcp = self.dial(&uri, self.addresses_of_proxy(proxy).await?).await?;
        if target.scheme == "http" {
            return Ok(tcp.into());
        }
        let name = ServerName::try_from(without_brackets(target.host).to_owned())?;
        let tls = TlsConnector::from(Arc::clone(&self.tls));
        Ok(tls.connect(name, TokioIo::new(tcp)).await?.into())
    }

    /// What can be said of a target that nobody here resolves.
    fn admit_unresolved(&self, target: &Target<'_>) -> Result<(), Refused> {
        let known = literal(target.host)
            .or_else(|| is_loopback_name(target.host).then_some(Ipv4Addr::LOCALHOST.into()));
        let known = known.map(|address| vec![SocketAddr::new(address, target.port)]);
        known.map_or(Ok(()), |known| self.guard.admit(target.host, known).map(drop))
    }

    async fn addresses_of(&self, target: &Target<'_>) -> Result<Vec<SocketAddr>, BoxError> {
        let found = self.addresses(target.host, target.port).await?;
        Ok(self.guard.admit(target.host, found)?)
    }

    async fn addresses_of_proxy(&self, proxy: &Proxy) -> Result<Vec<SocketAddr>, BoxError> {
        let uri: Uri = proxy.url.as_str().parse()?;
        let Target { host, port, .. } = Target::of(&uri);
        Ok(self.guard.admit_proxy(self.addresses(host, port).await?)?)
    }

    async fn addresses(&self, host: &str, port: u16) -> Result<Vec<SocketAddr>, BoxError> {
        match literal(host) {
            Some(address) => Ok(vec![SocketAddr::new(address, port)]),
            None => Ok(self.resolver.addresses(host, port).await?),
        }
    }

    /// TCP to the first of `addresses` that answers: what was judged is what is dialled. Where they
    /// are of both families, the second gets its chance a moment after the first (RFC 8305).
    async fn dial(
        &self,
        uri: &Uri,
        addresses: Vec<SocketAddr>,
    ) -> Result<TokioIo<TcpStream>, BoxError> {
        let mut tcp = HttpConnector::new_with_resolver(Found(addresses));
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        // Shared among the addresses, so that a dead one leaves time for the next.
        tcp.set_connect_timeout(Some(self.limit));
        Ok(tcp.call(uri.clone()).await?)
    }
}

impl Proxied {
    fn by(proxy: &Proxy, cause: BoxError) -> BoxError {
        Proxied { proxy: proxy.url.clone(), cause }.into()
    }
}

impl Line {
    /// Who is at its other end: the target, or a proxy.
    pub(super) fn peer(&self) -> io::Result<SocketAddr> {
        match &self.hop {
            MaybeHttpsStream::Http(tcp) => tcp.inner().peer_addr(),
            MaybeHttpsStream::Https(tls) => tls.inner().get_ref().0.inner().inner().peer_addr(),
        }
    }
}

impl Service<Uri> for Lines {
    type Response = Line;
    type Error = BoxError;
    type Future = BoxFuture<Line>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        Box::pin(self.clone().connect(uri))
    }
}

impl Connection for Line {
    fn connected(&self) -> Connected {
        self.hop.connected().proxy(self.is_proxied)
    }
}

impl Read for Line {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.hop).poll_read(context, buffer)
    }
}

impl Write for Line {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.hop).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.hop).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.hop).poll_shutdown(context)
    }

    fn is_write_vectored(&self) -> bool {
        self.hop.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.hop).poll_write_vectored(context, slices)
    }
}

/// A resolver for one connection, to addresses that are known.
#[derive(Clone)]
struct Found(Vec<SocketAddr>);

impl Service<Name> for Found {
    type Response = vec::IntoIter<SocketAddr>;
    type Error = BoxError;
    type Future = std::future::Ready<Result<Self::Response, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Name) -> Self::Future {
        ready(Ok(self.0.clone().into_iter()))
    }
}

impl Target<'_> {
    fn of(uri: &Uri) -> Target<'_> {
        let scheme = uri.scheme_str().unwrap_or_default();
        let default = if scheme == "https" { 443 } else { 80 };
        let port = uri.port_u16().unwrap_or(default);
        Target { scheme, host: uri.host().unwrap_or_default(), port }
    }
}

/// The address that is written as a URI's host, IPv6 in brackets.
fn literal(host: &str) -> Option<IpAddr> {
    without_brackets(host).parse().ok()
}

fn without_brackets(host: &str) -> &str {
    host.trim_start_matches('[').trim_end_matches(']')
}
