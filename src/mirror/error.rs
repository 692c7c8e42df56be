//! Why the mirror has nothing to give.

use std::{io, sync::Arc, time::Duration};

use crate::{oci::RefusedManifest, upstream};

/// Why a manifest, a blob or a list of tags cannot be had. Each variant is answered in its own way.
///
/// The texts are for the client; none holds a secret.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// Upstream does not have it.
    #[error("{0}")]
    NotFound(String),
    /// Upstream denies it to us, which may also mean that it does not exist.
    #[error("upstream denied access, or it does not exist: {0}")]
    Denied(String),
    /// A rule of the operator denies it to everyone.
    #[error("{0}")]
    Forbidden(String),
    /// It is not here, and the operator says to ask nothing upstream: asking again is of no use.
    #[error("{0}")]
    Offline(String),
    /// Upstream's manifest is one that Larder does not serve.
    #[error(transparent)]
    Refused(#[from] RefusedManifest),
    /// Upstream cannot be reached.
    #[error("{0}")]
    Unreachable(String),
    /// Upstream's answer is of no use, or it may not be asked this now. It may be well otherwise.
    #[error("{0}")]
    Unusable(String),
    /// Upstream did not answer in time.
    #[error("{0}")]
    Timeout(String),
    /// Upstream allows no more requests for now.
    #[error("{message}")]
    Limited {
        /// What upstream said.
        message: String,
        /// How long it asked to wait.
        retry_after: Option<Duration>,
    },
    /// Our own disk failed.
    #[error("the mirror cannot read its disk: {0}")]
    Store(Arc<io::Error>),
}

impl Error {
    /// Upstream gave no answer, so that its word cannot be known for now.
    pub(super) fn is_outage(&self) -> bool {
        matches!(self, Error::Unreachable(_) | Error::Timeout(_))
    }

    /// A flight that ended without a result.
    pub(super) fn lost() -> Error {
        Error::Unreachable("the request to upstream was lost".to_owned())
    }

    /// A blob whose body ended before the client had any of it.
    pub(super) fn broken() -> Error {
        Error::Unreachable("upstream broke off the blob or sent wrong bytes".to_owned())
    }

    /// The deadline of the client's request passed.
    pub(super) fn late() -> Error {
        Error::Timeout("upstream did not answer in time".to_owned())
    }
}

impl From<upstream::Error> for Error {
    fn from(error: upstream::Error) -> Error {
        use upstream::Error as Upstream;
        match error {
            Upstream::Offline(_) => Error::Offline(error.to_string()),
            Upstream::NotFound(message) => Error::NotFound(message),
            Upstream::Denied(message) => Error::Denied(message),
            Upstream::Unreachable(message) | Upstream::Unavailable { message, .. } => {
                Error::Unreachable(message)
            }
            Upstream::HeldBack(message)
            | Upstream::HeadRefused(message)
            | Upstream::RefusedElsewhere(message)
            | Upstream::Invalid(message) => Error::Unusable(message),
            Upstream::Timeout(message) => Error::Timeout(message),
            Upstream::Limited { message, retry_after } => Error::Limited { message, retry_after },
        }
    }
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Error {
        Error::Store(Arc::new(error))
    }
}
