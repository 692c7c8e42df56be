//! A connection one stage at a time, for whoever wants to know at which it fails.

use std::{fmt, net::SocketAddr, time::SystemTime};

use http::Uri;
use hyper_rustls::MaybeHttpsStream;
use rustls::{CertificateError, ClientConnection, ProtocolVersion};
use tower_service::Service as _;

use super::Connector;
use crate::{
    certificate::Certificate,
    finding::Verdict,
    upstream::line::{BoxError, NextHop},
};

/// What a TLS handshake agreed on.
#[derive(Clone, Debug)]
pub(in crate::upstream) struct Handshake {
    version: Option<ProtocolVersion>,
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
                Ok(Some(Handshake::of(connection)))
            }
        }
    }
}

impl Handshake {
    fn of(connection: &ClientConnection) -> Handshake {
        let first = connection.peer_certificates().and_then(<[_]>::first);
        Handshake {
            version: connection.protocol_version(),
            certificate: first.and_then(|der| Certificate::read(der)),
        }
    }

    /// What it is worth, and for how much longer.
    pub(in crate::upstream) fn verdict(&self, now: SystemTime) -> Verdict {
        match &self.certificate {
            Some(certificate) => certificate.verdict(&format!("{self}, "), now),
            None => Verdict::good(self.to_string()),
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

/// What to do when a handshake fails like this.
pub(in crate::upstream) fn tls_remedy(error: &BoxError) -> &'static str {
    use CertificateError as Wrong;
    let Some(rustls::Error::InvalidCertificate(wrong)) = tls_error(error.as_ref()) else {
        return "does it speak TLS at all?";
    };
    if matches!(wrong, Wrong::UnknownIssuer) {
        return "if you trust its authority, name that one's PEM file as ca";
    }
    if matches!(wrong, Wrong::Expired | Wrong::ExpiredContext { .. }) {
        return "it has to be renewed there, unless this machine's clock is wrong";
    }
    if matches!(wrong, Wrong::NotValidYet | Wrong::NotValidYetContext { .. }) {
        return "is this machine's clock right?";
    }
    if matches!(wrong, Wrong::NotValidForName | Wrong::NotValidForNameContext { .. }) {
        return "write a host that the certificate names in endpoints";
    }
    "only its owner can mend that"
}

/// What rustls said. It comes inside of errors of I/O, which do not list it among their sources.
fn tls_error<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a rustls::Error> {
    if let Some(found) = error.downcast_ref() {
        return Some(found);
    }
    let io: Option<&std::io::Error> = error.downcast_ref();
    match io.and_then(std::io::Error::get_ref) {
        Some(inner) => tls_error(inner),
        None => tls_error(error.source()?),
    }
}
