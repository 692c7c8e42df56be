//! A connection one stage at a time, for whoever wants to know at which it fails.

use std::{fmt, net::SocketAddr, time::SystemTime};

use http::Uri;
use hyper_rustls::MaybeHttpsStream;
use rustls::ProtocolVersion;
use tower_service::Service as _;

use super::{BoxError, Connector, NextHop};
use crate::{certificate::Certificate, finding::Verdict};

/// What a TLS handshake agreed on.
#[derive(Clone, Debug)]
pub(in crate::upstream) struct Handshake {
    version: Option<ProtocolVersion>,
    /// Whether anybody vouches for the certificate.
    is_verified: bool,
    /// The server's own.
    certificate: Option<Certificate>,
}

impl Connector {
    /// Where the line to `uri` begins.
    pub(in crate::upstream) async fn next_hop(&self, uri: &Uri) -> Result<NextHop, BoxError> {
        let found = tokio::time::timeout(self.limit, self.lines.next_hop(uri)).await;
        found.unwrap_or_else(|_| Err(format!("no address within {:?}", self.limit).into()))
    }

    /// Connects as far as below TLS, through a proxy if there is one, and hangs up. The address that
    /// answered.
    pub(in crate::upstream) async fn dial(&self, uri: &Uri) -> Result<SocketAddr, BoxError> {
        let line = tokio::time::timeout(self.limit, self.lines.clone().call(uri.clone())).await;
        let line = line.map_err(|_| format!("no connection within {:?}", self.limit))?;
        Ok(line?.peer()?)
    }

    /// Connects as a request does, shakes hands, and hangs up. `None`: this is not TLS.
    pub(in crate::upstream) async fn shake_hands(
        &self,
        uri: &Uri,
    ) -> Result<Option<Handshake>, BoxError> {
        match self.clone().call(uri.clone()).await? {
            MaybeHttpsStream::Http(_) => Ok(None),
            MaybeHttpsStream::Https(stream) => {
                let (_, connection) = stream.inner().get_ref();
                let first = connection.peer_certificates().and_then(<[_]>::first);
                Ok(Some(Handshake {
                    version: connection.protocol_version(),
                    is_verified: !self.believes_own || !self.is_own(uri),
                    certificate: first.and_then(|der| Certificate::read(der)),
                }))
            }
        }
    }
}

impl Handshake {
    /// What it is worth, and for how much longer.
    pub(in crate::upstream) fn verdict(&self, now: SystemTime) -> Verdict {
        let verdict = match &self.certificate {
            Some(certificate) => certificate.verdict(&format!("{self}, "), now),
            None => Verdict::good(self.to_string()),
        };
        match self.is_verified {
            true => verdict,
            false => Verdict::doubtful(format!(
                "not verified (insecure_skip_verify): {}",
                verdict.detail
            )),
        }
    }
}

/// `TLS 1.3`
impl fmt::Display for Handshake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.version {
            Some(ProtocolVersion::TLSv1_3) => f.write_str("TLS 1.3"),
            Some(ProtocolVersion::TLSv1_2) => f.write_str("TLS 1.2"),
            Some(_) | None => f.write_str("TLS"),
        }
    }
}
