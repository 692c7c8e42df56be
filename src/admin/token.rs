//! The token that makes who asks over TCP as good as who asks over `admin.sock`.

use std::path::PathBuf;

use http::{HeaderMap, header::AUTHORIZATION};

use super::refusal::Refusal;
use crate::{
    config::read_secret,
    oci::{Algorithm, Digest},
};

/// What `admin.token_file` holds, if it is set. Read anew for each who shows a token, so that a new one
/// counts from then on, and an old one no longer.
#[derive(Clone, Debug)]
pub struct Token(Option<PathBuf>);

impl Token {
    /// The token in a file. `None`: nobody is believed.
    pub fn in_file(file: Option<PathBuf>) -> Token {
        Token(file)
    }

    /// Whether the request shows the token.
    pub(super) async fn check(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        let file = self.0.clone().ok_or(Refusal::NoToken)?;
        let shown = shown(headers).ok_or(Refusal::WrongToken)?;
        let read = tokio::task::spawn_blocking(move || read_secret(&file)).await;
        match read.map_err(std::io::Error::other).and_then(|read| read) {
            Ok(expected) if are_equal(shown, expected.as_bytes()) => Ok(()),
            Ok(_) => Err(Refusal::WrongToken),
            Err(error) => {
                tracing::warn!(%error, "cannot read admin.token_file: nobody is believed");
                Err(Refusal::WrongToken)
            }
        }
    }
}

/// The token of `Authorization: Bearer` (RFC 6750, section 2.1).
fn shown(headers: &HeaderMap) -> Option<&[u8]> {
    let value = headers.get(AUTHORIZATION)?.as_bytes();
    let (scheme, token) = value.split_at_checked("Bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"Bearer ").then(|| token.trim_ascii())
}

/// Compares digests: how much of them is alike tells nothing of the token to who measures the time.
fn are_equal(shown: &[u8], expected: &[u8]) -> bool {
    Digest::of(Algorithm::Sha256, shown) == Digest::of(Algorithm::Sha256, expected)
}
