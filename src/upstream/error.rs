//! Why upstream gave no usable answer.

use std::time::Duration;

use crate::oci::Registry;

/// Why upstream gave no answer that can be used. The text is for logs and clients; it holds no secret.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// Not to be connected to, silent, 5xx but for those below, or a token endpoint in such a state.
    #[error("{0}")]
    Unreachable(String),
    /// The same, but perhaps over in a moment: refused, cut, 500, 502, 503 or 504.
    #[error("{message}")]
    Unavailable {
        /// What happened.
        message: String,
        /// `Retry-After`, if sent; at most a day.
        retry_after: Option<Duration>,
    },
    /// Nobody was asked: the token endpoint wants to be left alone by who would ask.
    #[error("{0}")]
    HeldBack(String),
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
    /// 400, 401 or 403 of a host that the registry redirected to: a signed URL that has expired, say.
    /// The registry itself has not said no.
    #[error("{0}")]
    RefusedElsewhere(String),
    /// Nobody was asked: the operator says to ask nothing here.
    #[error("Larder is offline for {0} (offline = true): what is cached is all there is")]
    Offline(Registry),
    /// An answer that breaks the protocol or a rule of trust, such as a manifest that is too
    /// large, a redirect to a link-local address, or a GET that is not implemented (501).
    #[error("{0}")]
    Invalid(String),
}

impl Error {
    /// Whether the endpoint is in trouble.
    pub(super) fn is_outage(&self) -> bool {
        matches!(
            self,
            Error::Unreachable(_)
                | Error::Unavailable { .. }
                | Error::HeldBack(_)
                | Error::Timeout(_)
        )
    }

    /// Whether another endpoint may do better.
    pub(super) fn is_worth_another(&self) -> bool {
        self.is_outage() || matches!(self, Error::Limited { .. } | Error::RefusedElsewhere(_))
    }

    /// An outage that may be over in a moment, and does not say when.
    pub(super) fn momentary(message: String) -> Error {
        Error::Unavailable { message, retry_after: None }
    }

    /// The same failure of a request that is not to be repeated.
    pub(super) fn for_good(self) -> Error {
        let Error::Unavailable { message, .. } = self else {
            return self;
        };
        Error::Unreachable(message)
    }
}

/// An upstream that cannot be set up: a CA file that cannot be read, say.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct SetupError(pub String);
