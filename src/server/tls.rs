//! TLS towards clients: the certificate, its key, and the handshake.

use std::{fmt, io, path::Path, sync::Arc, time::Duration};

use rustls::{ServerConfig, crypto::aws_lc_rs};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use crate::{certificate::Certificate, config};

/// Longest a handshake may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// What a client hears that does not speak TLS.
const NO_TLS: &[u8] = b"HTTP/1.1 400 Bad Request\r\n\
    content-type: text/plain; charset=utf-8\r\nconnection: close\r\n\r\n\
    this address speaks TLS only; use https://\n";

/// The most that is read of what such a client sends.
const NO_TLS_BYTES: u64 = 64 * 1024;

const NO_CERTIFICATE: &str = "holds no certificate that can be read; name a PEM file with the server's, and then those between it and its authority";
const NO_KEY: &str =
    "holds no key that can be read; name a PEM file with one that has no passphrase";

/// A certificate with its key, ready for handshakes; clones share it.
#[derive(Clone)]
pub struct Tls(TlsAcceptor);

/// A certificate or key that cannot be used, and why.
#[derive(Debug, thiserror::Error)]
#[error("{problem}")]
pub struct TlsError {
    /// The key that names the file: `tls.cert` or `tls.key`.
    pub key: &'static str,
    problem: String,
}

impl Tls {
    /// Reads the files.
    ///
    /// # Errors
    /// When they hold no certificate or no key, or do not belong together.
    pub fn load(config: &config::Tls) -> Result<Tls, TlsError> {
        let certificates = certificates(&config.cert)?;
        let key = private_key(&config.key)?;
        let provider = Arc::new(aws_lc_rs::default_provider());
        let mut server = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map(|builder| builder.with_no_client_auth())
            .and_then(|builder| builder.with_single_cert(certificates, key))
            .map_err(|error| refusal(config, &error))?;
        server.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Tls(Arc::new(server).into()))
    }

    /// Shakes hands. A client that speaks HTTP in the clear is told so.
    pub(super) async fn accept(&self, stream: TcpStream) -> io::Result<Box<TlsStream<TcpStream>>> {
        timeout(HANDSHAKE_TIMEOUT, async {
            let mut first = [0];
            stream.peek(&mut first).await?;
            // A handshake begins with 22 (RFC 8446, section 5.1), HTTP with the letter of a method.
            if first.first().is_some_and(u8::is_ascii_uppercase) {
                refuse_clear_text(stream).await?;
                return Err(io::Error::other("HTTP where TLS is spoken"));
            }
            self.0.accept(stream).await.map(Box::new)
        })
        .await?
    }
}

/// What the certificate in `config` says of itself; `None` if that cannot be told.
pub fn own_certificate(config: &config::Tls) -> Option<Certificate> {
    Certificate::read(certificates(&config.cert).ok()?.first()?)
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").finish_non_exhaustive()
    }
}

impl TlsError {
    fn cert(path: &Path, problem: &str) -> TlsError {
        TlsError { key: "tls.cert", problem: format!("{} {problem}", path.display()) }
    }

    fn key(path: &Path, problem: &str) -> TlsError {
        TlsError { key: "tls.key", problem: format!("{} {problem}", path.display()) }
    }
}

/// The certificates that a file holds, the server's own first; there is one at least.
pub(super) fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect);
    let read: Option<Vec<_>> = read.ok().filter(|certificates: &Vec<_>| !certificates.is_empty());
    read.ok_or_else(|| TlsError::cert(path, NO_CERTIFICATE))
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_file(path).map_err(|_| TlsError::key(path, NO_KEY))
}

/// Whose fault it is that rustls refuses the pair.
fn refusal(config: &config::Tls, error: &rustls::Error) -> TlsError {
    if let rustls::Error::InvalidCertificate(_) = error {
        return TlsError::cert(&config.cert, NO_CERTIFICATE);
    }
    if let rustls::Error::InconsistentKeys(_) = error {
        let cert = config.cert.display();
        return TlsError::key(
            &config.key,
            &format!("is not the key of {cert}; name the one it was made with"),
        );
    }
    TlsError::key(&config.key, NO_KEY)
}

/// Answers, and reads what the client still sends: data left unread would be answered by a reset,
/// and that could overtake the answer.
async fn refuse_clear_text(mut stream: TcpStream) -> io::Result<()> {
    stream.write_all(NO_TLS).await?;
    stream.shutdown().await?;
    tokio::io::copy(&mut stream.take(NO_TLS_BYTES), &mut tokio::io::sink()).await?;
    Ok(())
}
