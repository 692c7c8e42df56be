//! Whom Larder believes, and what it shows of itself.
//!
//! Believed are the system's certificate authorities, or the bundled ones of a system that has none,
//! and those of an endpoint's own `ca` file beside them. A client certificate and
//! `insecure_skip_verify` are for the endpoint's own host; wherever it redirects to, or sends for
//! tokens, is another matter.

use std::{
    path::Path,
    sync::{Arc, LazyLock},
};

use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error as TlsError, InconsistentKeys,
    RootCertStore, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature},
    sign::{CertifiedKey, SingleCertAndKey},
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject as _};

use crate::{config, upstream::SetupError};

/// Read once: the system's bundle is large and each endpoint needs it.
static SYSTEM_ROOTS: LazyLock<Arc<RootCertStore>> = LazyLock::new(|| Arc::new(system_roots()));

const NO_CERTIFICATE: &str = "holds no certificate that can be read; name a PEM file with Larder's, and then those between it and its authority";
const NO_KEY: &str =
    "holds no key that can be read; name a PEM file with one that has no passphrase";

/// The TLS settings of one endpoint. HTTP/1.1 only: bodies of several blobs over one connection
/// would wait for each other.
pub(super) struct Settings {
    /// Towards its own host.
    pub(super) own: Arc<ClientConfig>,
    /// Towards every other: other registries, storage, token servers, a proxy.
    pub(super) others: Arc<ClientConfig>,
}

impl Settings {
    /// Reads the files that the endpoint names.
    pub(super) fn of(endpoint: &config::Endpoint) -> Result<Settings, SetupError> {
        let roots = roots(endpoint.ca.as_deref())?;
        let verifier = match endpoint.insecure_skip_verify {
            true => Verifier::Nobody,
            false => Verifier::Roots(Arc::clone(&roots)),
        };
        let own = client_config(verifier, endpoint.client_certificate.as_ref())?;
        // A configuration of its own, that no session is resumed which was never verified.
        let others = client_config(Verifier::Roots(roots), None)?;
        Ok(Settings { own: Arc::new(own), others: Arc::new(others) })
    }
}

/// Who says whether a certificate is that of the host.
enum Verifier {
    Roots(Arc<RootCertStore>),
    Nobody,
}

fn client_config(
    verifier: Verifier,
    shown: Option<&config::ClientCertificate>,
) -> Result<ClientConfig, SetupError> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let shown = shown.map(|files| certified_key(files, &provider)).transpose()?;
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| SetupError(format!("TLS: {error}")))?;
    let builder = match verifier {
        Verifier::Roots(roots) => builder.with_root_certificates(roots),
        Verifier::Nobody => {
            builder.dangerous().with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
        }
    };
    let mut config = match shown {
        None => builder.with_no_client_auth(),
        Some(shown) => builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(shown))),
    };
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

/// Whether the certificate is one that the endpoint believes is the endpoint's to say, even if it is
/// of version 1, which rustls believes of nobody and `openssl x509 -req` makes unless told otherwise.
fn certified_key(
    files: &config::ClientCertificate,
    provider: &CryptoProvider,
) -> Result<CertifiedKey, SetupError> {
    let certificates = certificates(&files.cert)?;
    let no_key = || wrong("client_key", &files.key, NO_KEY);
    let key = PrivateKeyDer::from_pem_file(&files.key).map_err(|_| no_key())?;
    let key = provider.key_provider.load_private_key(key).map_err(|_| no_key())?;
    let pair = CertifiedKey::new(certificates, key);
    match pair.keys_match() {
        Err(TlsError::InconsistentKeys(InconsistentKeys::KeyMismatch)) => {
            let cert = files.cert.display();
            let problem = format!("is not the key of {cert}; name the one it was made with");
            Err(wrong("client_key", &files.key, &problem))
        }
        Err(TlsError::InvalidCertificate(CertificateError::BadEncoding)) => {
            Err(wrong("client_cert", &files.cert, NO_CERTIFICATE))
        }
        Ok(()) | Err(_) => Ok(pair),
    }
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, SetupError> {
    let read = CertificateDer::pem_file_iter(file).and_then(Iterator::collect);
    let read: Option<Vec<_>> = read.ok().filter(|certificates: &Vec<_>| !certificates.is_empty());
    read.ok_or_else(|| wrong("client_cert", file, NO_CERTIFICATE))
}

fn wrong(key: &str, file: &Path, problem: &str) -> SetupError {
    SetupError(format!("{key} {} {problem}", file.display()))
}

/// Believes any certificate, but not that its key is held by who has shown it.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, TlsError> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

fn roots(ca: Option<&Path>) -> Result<Arc<RootCertStore>, SetupError> {
    let Some(ca) = ca else {
        return Ok(Arc::clone(&SYSTEM_ROOTS));
    };
    let mut roots = RootCertStore::clone(&SYSTEM_ROOTS);
    add_file(&mut roots, ca)
        .map_err(|problem| SetupError(format!("ca file {}: {problem}", ca.display())))?;
    Ok(Arc::new(roots))
}

fn system_roots() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    for problem in &found.errors {
        tracing::debug!(%problem, "cannot read all of the system's certificate authorities");
    }
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        tracing::info!("the system has no certificate authorities; using the bundled ones");
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    }
    roots
}

fn add_file(roots: &mut RootCertStore, path: &Path) -> Result<(), String> {
    let mut is_empty = true;
    for certificate in CertificateDer::pem_file_iter(path).map_err(|error| error.to_string())? {
        let certificate = certificate.map_err(|error| error.to_string())?;
        roots.add(certificate).map_err(|error| error.to_string())?;
        is_empty = false;
    }
    match is_empty {
        true => Err("holds no PEM certificate".into()),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use base64::{Engine as _, prelude::BASE64_STANDARD as STANDARD};

    use super::*;

    #[test]
    fn a_bad_ca_file_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ca.pem");
        let problem = |path: &Path| roots(Some(path)).unwrap_err().to_string();

        assert!(problem(&path).contains("ca.pem"));
        std::fs::write(&path, "no certificate").unwrap();
        assert!(problem(&path).contains("ca.pem: holds no PEM certificate"));
        let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        std::fs::write(&path, broken).unwrap();
        assert!(problem(&path).contains("ca.pem"));
    }

    /// The content of the first element of DER, and what follows it.
    fn element(der: &[u8]) -> (&[u8], &[u8]) {
        let (start, length) = match usize::from(der[1]) {
            short @ ..0x80 => (2, short),
            long => {
                let start = 2 + long - 0x80;
                let bytes = der[2..start].iter().map(|byte| usize::from(*byte));
                (start, bytes.fold(0, |length, byte| length << 8 | byte))
            }
        };
        der[start..].split_at(length)
    }

    /// What an older tool would have written: PKCS #1 or SEC 1, which PKCS #8 wraps.
    fn unwrapped(pkcs8: &[u8]) -> &[u8] {
        let (key_info, _) = element(pkcs8);
        let (_version, rest) = element(key_info);
        let (_algorithm, rest) = element(rest);
        element(rest).0
    }

    #[test]
    fn keys_of_every_kind_are_read() {
        let rsa = rcgen::KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).unwrap();
        let ec = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let [cert, key] = ["cert.pem", "key.pem"].map(|name| directory.path().join(name));
        for (pair, label) in [(&rsa, "RSA PRIVATE KEY"), (&ec, "EC PRIVATE KEY")] {
            let certificate = rcgen::CertificateParams::default().self_signed(pair).unwrap();
            std::fs::write(&cert, certificate.pem()).unwrap();
            let whole = pair.serialize_der();
            for (label, der) in [("PRIVATE KEY", whole.as_slice()), (label, unwrapped(&whole))] {
                let body = STANDARD.encode(der);
                let pem = format!("-----BEGIN {label}-----\n{body}\n-----END {label}-----\n");
                std::fs::write(&key, pem).unwrap();
                let files = config::ClientCertificate { cert: cert.clone(), key: key.clone() };
                let roots = Arc::clone(&SYSTEM_ROOTS);
                client_config(Verifier::Roots(roots), Some(&files)).expect(label);
            }
        }
    }

    #[test]
    fn a_client_certificate_of_version_1_is_shown() {
        let pair = rcgen::KeyPair::generate().unwrap();
        let certificate = rcgen::CertificateParams::default().self_signed(&pair).unwrap();
        let mut der = certificate.der().to_vec();
        let version_3 = [0xa0, 3, 2, 1, 2];
        let place = der.windows(5).position(|bytes| bytes == version_3).unwrap();
        der[place + 4] = 0;
        let directory = tempfile::tempdir().unwrap();
        let [cert, key] = ["cert.pem", "key.pem"].map(|name| directory.path().join(name));
        let body = STANDARD.encode(der);
        let pem = format!("-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n");
        std::fs::write(&cert, pem).unwrap();
        std::fs::write(&key, pair.serialize_pem()).unwrap();
        let files = config::ClientCertificate { cert, key };
        client_config(Verifier::Nobody, Some(&files)).unwrap();
    }
}
