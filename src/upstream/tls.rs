//! Whom Larder believes: the system's certificate authorities, or the bundled ones of a system
//! that has none, and those of an endpoint's own `ca` file beside them.

use std::{
    path::Path,
    sync::{Arc, LazyLock},
};

use rustls::{ClientConfig, RootCertStore, crypto::aws_lc_rs};
use rustls_pki_types::{CertificateDer, pem::PemObject as _};

use super::SetupError;

/// Read once: the system's bundle is large and each endpoint needs it.
static SYSTEM_ROOTS: LazyLock<RootCertStore> = LazyLock::new(system_roots);

/// The TLS settings for one endpoint. HTTP/1.1 only: bodies of several blobs over one connection
/// would wait for each other.
pub(super) fn client_config(ca: Option<&Path>) -> Result<ClientConfig, SetupError> {
    let mut roots = SYSTEM_ROOTS.clone();
    if let Some(ca) = ca {
        add_file(&mut roots, ca)
            .map_err(|problem| SetupError(format!("ca file {}: {problem}", ca.display())))?;
    }
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| SetupError(format!("TLS: {error}")))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
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
    use super::*;

    #[test]
    fn a_bad_ca_file_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ca.pem");
        let problem = |path: &Path| client_config(Some(path)).unwrap_err().to_string();

        assert!(problem(&path).contains("ca.pem"));
        std::fs::write(&path, "no certificate").unwrap();
        assert!(problem(&path).contains("ca.pem: holds no PEM certificate"));
        let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        std::fs::write(&path, broken).unwrap();
        assert!(problem(&path).contains("ca.pem"));
    }
}
