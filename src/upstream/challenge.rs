//! `WWW-Authenticate` in full (RFC 9110 §11.6.1), and the choice among what it offers.
//!
//! One header may hold several challenges, several headers one each, and registries in the field
//! leave out commas and quotes. Whatever is not understood is skipped, never fatal.

use std::{iter::Peekable, str::Chars};

use http::{HeaderMap, header::WWW_AUTHENTICATE};

use super::quoted::rest_of_quoted;

/// A way to authenticate that Larder speaks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Challenge {
    /// User name and password, to the registry itself (RFC 7617).
    Basic,
    /// A token from elsewhere (Docker's token specification).
    Bearer {
        /// Where tokens are had; possibly relative to the request.
        realm: String,
        /// For whom the token is to be made out. Some registries have none.
        service: Option<String>,
        /// What the refused request would have needed, as a list separated by spaces.
        scope: Option<String>,
    },
}

impl Challenge {
    /// The best of all challenges in `headers`: the first usable Bearer, else Basic.
    pub(super) fn best_of(headers: &HeaderMap) -> Option<Challenge> {
        let offers: Vec<Offer> = headers
            .get_all(WWW_AUTHENTICATE)
            .iter()
            .flat_map(|value| parse(&String::from_utf8_lossy(value.as_bytes())))
            .collect();
        let basic = || offers.iter().any(|offer| offer.scheme == "basic");
        offers.iter().find_map(Offer::as_bearer).or_else(|| basic().then_some(Challenge::Basic))
    }
}

/// One challenge as written; scheme and parameter names in lower case.
#[derive(Debug, Default, PartialEq, Eq)]
struct Offer {
    scheme: String,
    parameters: Vec<(String, String)>,
}

impl Offer {
    fn as_bearer(&self) -> Option<Challenge> {
        if self.scheme != "bearer" {
            return None;
        }
        Some(Challenge::Bearer {
            realm: self.parameter("realm")?,
            service: self.parameter("service"),
            scope: self.parameter("scope"),
        })
    }

    /// The first parameter of this name that is not empty.
    fn parameter(&self, name: &str) -> Option<String> {
        self.parameters
            .iter()
            .find(|(key, value)| key == name && !value.is_empty())
            .map(|(_, value)| value.clone())
    }
}

/// Every challenge in one header value. A word followed by `=` is a parameter of the challenge
/// before it, any other word begins a new one; so a token68 becomes a challenge or a parameter
/// that nobody knows.
fn parse(header: &str) -> Vec<Offer> {
    let mut offers: Vec<Offer> = Vec::new();
    let mut rest = header.chars().peekable();
    loop {
        skip(&mut rest, |c| !is_word(c));
        let word = take(&mut rest, is_word).to_ascii_lowercase();
        if word.is_empty() {
            return offers;
        }
        skip(&mut rest, |c| c.is_ascii_whitespace());
        if rest.next_if_eq(&'=').is_none() {
            offers.push(Offer { scheme: word, parameters: Vec::new() });
            continue;
        }
        skip(&mut rest, |c| c.is_ascii_whitespace());
        let value = value(&mut rest);
        if let Some(offer) = offers.last_mut() {
            offer.parameters.push((word, value));
        }
    }
}

/// A quoted string, unescaped, or everything up to the next comma or space.
fn value(rest: &mut Peekable<Chars<'_>>) -> String {
    if rest.next_if_eq(&'"').is_none() {
        return take(rest, |c| !c.is_ascii_whitespace() && c != ',');
    }
    rest_of_quoted(rest)
}

fn is_word(c: char) -> bool {
    !c.is_ascii_whitespace() && !matches!(c, ',' | '=' | '"')
}

fn skip(rest: &mut Peekable<Chars<'_>>, skipped: impl Fn(char) -> bool) {
    while rest.next_if(|c| skipped(*c)).is_some() {}
}

fn take(rest: &mut Peekable<Chars<'_>>, taken: impl Fn(char) -> bool) -> String {
    let mut text = String::new();
    while let Some(c) = rest.next_if(|c| taken(*c)) {
        text.push(c);
    }
    text
}

#[cfg(test)]
mod properties;

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn best(headers: &[&str]) -> Option<Challenge> {
        let mut map = HeaderMap::new();
        for header in headers {
            map.append(WWW_AUTHENTICATE, HeaderValue::from_str(header).unwrap());
        }
        Challenge::best_of(&map)
    }

    fn bearer(realm: &str, service: Option<&str>, scope: Option<&str>) -> Option<Challenge> {
        Some(Challenge::Bearer {
            realm: realm.into(),
            service: service.map(Into::into),
            scope: scope.map(Into::into),
        })
    }

    #[test]
    fn docker_hub() {
        let header = r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:library/x:pull,push""#;
        let want = bearer(
            "https://auth.docker.io/token",
            Some("registry.docker.io"),
            Some("repository:library/x:pull,push"),
        );
        assert_eq!(best(&[header]), want);
    }

    #[test]
    fn odd_but_legal_and_odd_and_illegal_forms() {
        let table: &[(&[&str], Option<Challenge>)] = &[
            (&[], None),
            (&[""], None),
            (&[",,, ,"], None),
            (&["Basic"], Some(Challenge::Basic)),
            (&[r#"BASIC realm="x""#], Some(Challenge::Basic)),
            (&["Negotiate"], None),
            (&["Negotiate YWJj+/==", "Basic"], Some(Challenge::Basic)),
            (&["bearer REALM=/token"], bearer("/token", None, None)),
            (&["Bearer realm = \"/t\" ,\tservice = s"], bearer("/t", Some("s"), None)),
            (&[r#"Bearer realm="/t" service="s""#], bearer("/t", Some("s"), None)),
            (&[r#"Bearer realm="/a\"b\\c,d",service="""#], bearer(r#"/a"b\c,d"#, None, None)),
            (
                &["Bearer realm=https://h/t?a=b&c=d,service=s"],
                bearer("https://h/t?a=b&c=d", Some("s"), None),
            ),
            (
                &[
                    r#"Negotiate abc==, Digest qop="auth, int", Basic realm="x, y", Bearer realm="/t""#,
                ],
                bearer("/t", None, None),
            ),
            (&[r#"Basic realm="b""#, r#"Bearer realm="/t""#], bearer("/t", None, None)),
            (&[r#"Bearer error="invalid_token", Basic"#], Some(Challenge::Basic)),
            (&[r#"Bearer realm="/unfinished"#], bearer("/unfinished", None, None)),
            (&[r#"realm="/t""#], None),
            (&[r#""Bearer realm=x"#], bearer("x", None, None)),
        ];
        for (headers, want) in table {
            assert_eq!(&best(headers), want, "{headers:?}");
        }
    }
}
