//! `[tls]`: whether clients are spoken to in TLS, and with which certificate.

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

impl Tls {
    pub(super) fn read(mut section: Section<'_, '_>) -> Option<Tls> {
        let cert = section.take("cert", value::readable_file);
        let key = section.take("key", value::readable_file);
        match (section.has("cert"), section.has("key")) {
            (true, false) => section.wrong("cert", "has no key; add key"),
            (false, true) => section.wrong("key", "has no certificate; add cert"),
            (true, true) | (false, false) => {}
        }
        Some(Tls { cert: cert?, key: key? })
    }
}
