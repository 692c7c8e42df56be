//! Connections: a line to the host and TLS over it, within one time limit.
//!
//! `line`, over `resolver`, `guard` and `proxy`, is what lies below TLS; `tls` says who is believed;
//! `stages` and `remedies` are for `larder doctor`.

mod guard;
mod line;
mod proxy;
mod remedies;
mod resolver;
mod stages;
mod tls;

use std::{
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use http::{HeaderValue, Uri};
use hyper_rustls::{HttpsConnector, MaybeHttpsStream};
use tower_service::Service;
use url::Url;

use super::{SetupError, Shared, trust};
use crate::config;
use guard::Guard;
use line::{BoxFuture, Line, Lines};

pub(super) use guard::Refused;
pub(super) use line::{BoxError, NextHop};
pub(super) use remedies::{line_remedy, tls_remedy, wants_certificate};
pub use resolver::Resolver;
pub(super) use resolver::Unresolved;

/// Connects to wherever a URI points, if the guard lets it, within `limit`.
#[derive(Clone)]
pub(super) struct Connector {
    /// The endpoint's own host.
    host: String,
    /// Whether its certificate is believed whatever it is.
    believes_own: bool,
    to_own: HttpsConnector<Lines>,
    to_others: HttpsConnector<Lines>,
    lines: Lines,
    limit: Duration,
}

impl Connector {
    /// For the endpoint at `root`.
    pub(super) fn new(
        root: &Url,
        endpoint: &config::Endpoint,
        shared: &Shared<'_>,
    ) -> Result<Connector, SetupError> {
        let host = root.host_str().unwrap_or_default();
        let tls = tls::Settings::of(endpoint)?;
        let limit = shared.limits.connect_timeout;
        let lines = Lines {
            guard: Arc::new(Guard::new(host, Arc::clone(&shared.own_listeners))),
            resolver: shared.resolver.clone(),
            proxies: Arc::clone(&endpoint.proxies),
            tls: Arc::clone(&tls.others),
            limit,
        };
        Ok(Connector {
            host: trust::without_dot(host).to_owned(),
            believes_own: endpoint.insecure_skip_verify,
            to_own: (lines.clone(), tls.own).into(),
            to_others: (lines.clone(), tls.others).into(),
            lines,
            limit,
        })
    }

    /// What a proxy is shown with a request for `url`.
    pub(super) fn proxy_authorization(&self, url: &Url) -> Option<HeaderValue> {
        self.lines.proxy_authorization(url)
    }

    fn is_own(&self, uri: &Uri) -> bool {
        uri.host().is_some_and(|host| trust::without_dot(host) == self.host)
    }
}

impl Service<Uri> for Connector {
    type Response = MaybeHttpsStream<Line>;
    type Error = BoxError;
    type Future = BoxFuture<Self::Response>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let is_own = self.is_own(&uri);
        let connector = if is_own { &mut self.to_own } else { &mut self.to_others };
        let connecting = tokio::time::timeout(self.limit, connector.call(uri));
        let limit = self.limit;
        Box::pin(async move {
            connecting
                .await
                .unwrap_or_else(|_| Err(format!("no connection within {limit:?}").into()))
        })
    }
}
