//! Who Larder is at one endpoint and its token realm.

use base64::{Engine as _, engine::general_purpose::STANDARD};

use crate::config;

/// The user name that marks a secret as an identity token (docker/cli, native_store.go).
const IDENTITY_TOKEN: &str = "<token>";

/// What is presented to an endpoint. Has no `Debug`: it is all secret.
#[derive(Clone)]
pub(super) enum Identity {
    /// Nothing.
    Anonymous,
    /// A user with a password.
    User {
        /// The user name, which the token endpoint also gets as `account`.
        name: String,
        /// The password.
        password: String,
    },
    /// An OAuth2 refresh token.
    Token(String),
}

impl Identity {
    /// What the configuration says of an endpoint.
    pub(super) fn new(credentials: Option<&config::Credentials>) -> Identity {
        match credentials {
            None => Identity::Anonymous,
            Some(credentials) if credentials.username == IDENTITY_TOKEN => {
                Identity::Token(credentials.password.clone())
            }
            Some(credentials) => Identity::User {
                name: credentials.username.clone(),
                password: credentials.password.clone(),
            },
        }
    }

    /// Whether there is something to keep from strangers.
    pub(super) fn is_secret(&self) -> bool {
        !matches!(self, Identity::Anonymous)
    }

    /// The `Authorization` that answers a Basic challenge (RFC 7617).
    pub(super) fn basic(&self) -> Option<String> {
        match self {
            Identity::Anonymous => None,
            Identity::User { name, password } => Some(basic(name, password)),
            // Where OAuth2 is not spoken, an identity token is a password without a user.
            Identity::Token(secret) => Some(basic("", secret)),
        }
    }
}

fn basic(name: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{name}:{password}")))
}
