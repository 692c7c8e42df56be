//! Why upstream gave no usable answer.

use std::time::Duration;

/// Why upstream gave no answer that can be used. The text is for logs and clients; it holds no secret.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// Refused, silent, cut, 5xx, or a token endpoint in such a state.
    #[error("{0}")]
    Unreachable(String),
    /// No answer within the deadline, or a body that stalled.
    #[error("{0}")]
    Timeout(String),
    /// 404.
    #[error("{0}")]
    NotFound(String),
    /// 401 or 403 after one renewal of the token.
    #[error("{0}")]
    Denied(String),
    /// 429.
    #[error("{message}")]
    Limited {
        /// What upstream said.
        message: String,
        /// `Retry-After`, if sent; at most a day.
        retry_after: Option<Duration>,
    },
    /// A HEAD that this registry does not support: 400, 405 or 501, or any 4xx but 404 and 429 of a
    /// host it was redirected to (a URL signed for GET).
    #[error("{0}")]
    HeadRefused(String),
    /// An answer that breaks the protocol or a rule of trust, such as a manifest that is too
    /// large or a redirect to a link-local address.
    #[error("{0}")]
    Invalid(String),
}

impl Error {
    /// Whether another endpoint may do better.
    pub(super) fn is_outage(&self) -> bool {
        matches!(self, Error::Unreachable(_) | Error::Timeout(_))
    }
}

/// An upstream that cannot be set up: a CA file that cannot be read, say.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct SetupError(pub String);
