//! The secrets of one request, which an answer to it must not be quoted with: some servers repeat
//! in their errors what they were sent.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use url::form_urlencoded;

use super::client::Outgoing;

/// Shorter values in the query of a redirect are no signature.
const MIN_SIGNATURE: usize = 8;

/// What must not be repeated. Has no `Debug`.
#[derive(Default)]
pub(super) struct Secrets(Vec<String>);

impl Secrets {
    /// Those that this request carries: credentials in every form that they are sent in, and the
    /// signature of a URL that a redirect led to.
    pub(super) fn of(outgoing: &Outgoing) -> Secrets {
        let mut secrets = Vec::new();
        if let Some(authorization) = &outgoing.authorization {
            secrets.extend(shown_in(authorization));
        }
        let form = form_urlencoded::parse(outgoing.form.as_bytes());
        let refresh_tokens = form.filter(|(field, _)| field == "refresh_token");
        secrets.extend(refresh_tokens.map(|(_, value)| value.into_owned()));
        if outgoing.is_redirected {
            let values = outgoing.url.query_pairs().map(|(_, value)| value.into_owned());
            secrets.extend(values.filter(|value| value.len() >= MIN_SIGNATURE));
        }
        secrets.retain(|secret| !secret.is_empty());
        Secrets(secrets)
    }

    /// Whether a text repeats any of them.
    pub(super) fn are_in(&self, text: &str) -> bool {
        self.0.iter().any(|secret| text.contains(secret))
    }
}

/// What a value of `Authorization` shows: itself, and the password of Basic.
fn shown_in(authorization: &str) -> Vec<String> {
    let Some((scheme, shown)) = authorization.split_once(' ') else {
        return vec![authorization.to_owned()];
    };
    let login = STANDARD.decode(shown).ok().filter(|_| scheme == "Basic");
    let login = login.and_then(|login| String::from_utf8(login).ok());
    let password = login.as_deref().and_then(|login| login.split_once(':'));
    let password = password.map(|(_, password)| password.to_owned());
    [shown.to_owned()].into_iter().chain(password).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::health::Operation;

    fn get(url: &str) -> Outgoing {
        Outgoing::get(Operation::Token, url.parse().unwrap())
    }

    #[test]
    fn what_was_sent_is_known_again() {
        let basic = Outgoing {
            // anna:s3cret:x
            authorization: Some("Basic YW5uYTpzM2NyZXQ6eA==".to_owned()),
            ..get("https://h/t?scope=repository:a/b:pull")
        };
        let bearer =
            Outgoing { authorization: Some("Bearer t0ken".to_owned()), ..get("https://h") };
        let form = "grant_type=refresh_token&refresh_token=a%2Bb".to_owned();
        let form = Outgoing { form, ..get("https://h") };
        let signed = get("https://cdn/x?Expires=900&X-Amz-Signature=00112233");
        let redirected = Outgoing { is_redirected: true, ..signed.clone() };
        for (outgoing, text, want) in [
            (&basic, "wrong password s3cret:x", true),
            (&basic, "Authorization: Basic YW5uYTpzM2NyZXQ6eA==", true),
            (&basic, "anna has no right to repository:a/b:pull", false),
            (&bearer, "t0ken has expired", true),
            (&bearer, "Bearer token expected", false),
            (&form, "what is a+b?", true),
            (&form, "no refresh_token", false),
            (&redirected, "signature 00112233 is wrong", true),
            (&redirected, "expired after 900 s", false),
            (&signed, "signature 00112233 is wrong", false),
        ] {
            assert_eq!(Secrets::of(outgoing).are_in(text), want, "{text}");
        }
    }
}
