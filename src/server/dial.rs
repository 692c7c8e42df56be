//! A connection to one of our own listeners, as a client has it: to see whether it is there.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
};

use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature},
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tokio_util::either::Either;

use super::{reach::Reach, tls::certificates};
use crate::config::{self, Listen};

/// A connection in the clear, or one over TLS.
pub type Dialled = Either<Either<TcpStream, UnixStream>, Box<TlsStream<TcpStream>>>;

/// Connects to what listens on `listen`; with `tls`, shakes hands on TCP with whoever shows that very
/// certificate. An unspecified address is dialled as loopback.
///
/// # Errors
/// When nothing listens there, or it has another certificate.
pub async fn dial(listen: &Listen, tls: Option<&config::Tls>) -> io::Result<Dialled> {
    let stream = match listen {
        Listen::Unix(path) => {
            let stream = UnixStream::connect(Reach::to(path)?.path()).await?;
            return Ok(in_the_clear(Either::Right(stream)));
        }
        Listen::Tcp(address) => TcpStream::connect(reachable(*address)).await?,
    };
    let Some(tls) = tls else {
        return Ok(in_the_clear(Either::Left(stream)));
    };
    let name = ServerName::from(reachable_ip(stream.peer_addr()?.ip()));
    let connector = TlsConnector::from(Arc::new(client_config(tls)?));
    Ok(Either::Right(Box::new(connector.connect(name, stream).await?)))
}

fn in_the_clear(stream: Either<TcpStream, UnixStream>) -> Dialled {
    Either::Left(stream)
}

fn reachable(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(reachable_ip(address.ip()), address.port())
}

fn reachable_ip(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(v4) if v4.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(v6) if v6.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        IpAddr::V4(_) | IpAddr::V6(_) => address,
    }
}

fn client_config(tls: &config::Tls) -> io::Result<ClientConfig> {
    let expected = certificates(&tls.cert).map_err(io::Error::other)?.into_iter().next();
    let provider = Arc::new(aws_lc_rs::default_provider());
    let only = Only { expected, provider: Arc::clone(&provider) };
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(only))
        .with_no_client_auth();
    Ok(config)
}

/// Believes one certificate, whoever vouches for it and whatever it is for.
#[derive(Debug)]
struct Only {
    expected: Option<CertificateDer<'static>>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Only {
    fn verify_server_cert(
        &self,
        shown: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        match self.expected.as_ref() == Some(shown) {
            true => Ok(ServerCertVerified::assertion()),
            false => Err(CertificateError::UnknownIssuer.into()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
