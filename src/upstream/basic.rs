//! User name and password as `Authorization` (RFC 7617).

use base64::{Engine as _, engine::general_purpose::STANDARD};

use crate::config::Identity;

/// The header's value that answers a Basic challenge; `None` for who has no password.
pub(super) fn basic(identity: &Identity) -> Option<String> {
    let (name, secret) = match identity {
        // A registry token is no secret of a user's, and is shown as it is or not at all.
        Identity::Anonymous | Identity::RegistryToken(_) => return None,
        Identity::User { name, password } => (name.as_str(), password),
        // Where OAuth2 is not spoken, an identity token is a password without a user.
        Identity::Token(secret) => ("", secret),
    };
    Some(format!("Basic {}", STANDARD.encode(format!("{name}:{secret}"))))
}
