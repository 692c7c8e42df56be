//! A certificate authority of the test's own, and the one identity it vouches for.

use std::{fs, path::Path, sync::Arc};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, PKCS_RSA_SHA256,
    SigningKey,
};
use rustls::{ServerConfig, crypto::aws_lc_rs, pki_types::PrivateKeyDer};

/// The key and certificate with which an upstream on 127.0.0.1 speaks TLS and signs its tokens.
///
/// RSA, because a PKCS #1 v1.5 signature is both what a certificate and what the JWT algorithm
/// RS256 carries.
pub struct Identity {
    key: KeyPair,
    certificate: rcgen::Certificate,
}

impl Identity {
    /// Makes an authority and an identity, and writes `ca.crt`, `server.pem` and `server-key.pem`.
    pub fn write_to(directory: &Path) -> Self {
        let mut authority = CertificateParams::default();
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority =
            CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate_for(&PKCS_RSA_SHA256).unwrap();
        let server = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        let certificate = server.signed_by(&key, &authority).unwrap();

        fs::write(directory.join("ca.crt"), authority.pem()).unwrap();
        fs::write(directory.join("server.pem"), certificate.pem()).unwrap();
        fs::write(directory.join("server-key.pem"), key.serialize_pem()).unwrap();
        Self { key, certificate }
    }

    /// The certificate in DER, as a JWT's `x5c` wants it.
    pub fn certificate(&self) -> &[u8] {
        self.certificate.der()
    }

    /// An RSASSA-PKCS1-v1_5 signature with SHA-256, JWT's `RS256` (RFC 7518 §3.3).
    pub fn sign(&self, message: &str) -> Vec<u8> {
        self.key.sign(message.as_bytes()).unwrap()
    }

    /// What a TLS server of this identity needs.
    pub fn server_config(&self) -> Arc<ServerConfig> {
        let key = PrivateKeyDer::try_from(self.key.serialize_der()).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![self.certificate.der().clone()], key)
            .unwrap();
        Arc::new(config)
    }
}
