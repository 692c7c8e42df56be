//! Certificates of Larder's own: `[tls]` towards clients, `client_cert` towards an endpoint.

use std::path::PathBuf;

use super::{reader::Section, value};

/// `[tls]`, when it is written. Both files can be read; what is in them is the server's business.
#[derive(Clone, Debug)]
pub struct Tls {
    /// PEM file with the certificate, and those between it and its authority.
    pub cert: PathBuf,
    /// PEM file with its private key.
    pub key: PathBuf,
}

/// `client_cert` and `client_key`. Both files can be read; what is in them is the upstream's business.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientCertificate {
    /// PEM file with the certificate, and those between it and its authority.
    pub cert: PathBuf,
    /// PEM file with its private key.
    pub key: PathBuf,
}

impl Tls {
    pub(super) fn read(mut section: Section<'_, '_>) -> Option<Tls> {
        let (cert, key) = pair(&mut section, "cert", "key")?;
        Some(Tls { cert, key })
    }
}

impl ClientCertificate {
    pub(super) fn read(section: &mut Section<'_, '_>) -> Option<ClientCertificate> {
        let (cert, key) = pair(section, "client_cert", "client_key")?;
        Some(ClientCertificate { cert, key })
    }
}

/// Both files, or neither.
fn pair(section: &mut Section<'_, '_>, cert: &str, key: &str) -> Option<(PathBuf, PathBuf)> {
    let cert_file = section.take(cert, value::readable_file);
    let key_file = section.take(key, value::readable_file);
    match (section.has(cert), section.has(key)) {
        (true, false) => section.wrong(cert, &format!("has no key; add {key}")),
        (false, true) => section.wrong(key, &format!("has no certificate; add {cert}")),
        (true, true) | (false, false) => {}
    }
    Some((cert_file?, key_file?))
}
