//! Letting in only those who can show something (distribution's token specification).

use std::collections::HashMap;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use bytes::Bytes;
use serde_json::json;

use super::{
    Shared, State,
    content::error,
    http::{Answer, Request},
    profile::Profile,
};

const SERVICE: &str = "fake-registry";

/// What the tokens of those begin with who show no name.
const STRANGER: &str = "anonymous";

/// Whom a registry lets in.
#[derive(Clone, Debug, Default)]
pub enum Auth {
    /// Everyone.
    #[default]
    Open,
    /// Who sends name and password with each request.
    Basic(&'static str, &'static str),
    /// Who shows a token; everyone gets one.
    AnonymousToken,
    /// Who shows a token, given for name and password.
    PasswordToken(&'static str, &'static str),
    /// As [`Auth::PasswordToken`], with a name and a password for each repository.
    PasswordTokenOf(&'static [(&'static str, &'static str, &'static str)]),
    /// Who shows a token; everyone gets one, but for these repositories only who has this name and
    /// password.
    PasswordTokenFor(&'static [&'static str], &'static str, &'static str),
    /// Who shows a token, given by POST for this refresh token.
    IdentityToken(&'static str),
    /// Who shows this token.
    RegistryToken(&'static str),
    /// Who shows a token, as a registry in the field wants it.
    Like(Profile),
    /// Who shows a token of a server elsewhere; nobody has one.
    ForeignRealm(String),
}

/// Tokens that are good now, with their scopes.
#[derive(Default)]
pub(super) struct Tokens {
    good: HashMap<String, Vec<String>>,
    given: usize,
}

impl Tokens {
    pub(super) fn expire(&mut self) {
        self.good.clear();
    }

    /// A new one, whose name begins with `kind`.
    pub(super) fn give(&mut self, kind: &str, scopes: Vec<String>) -> String {
        self.given += 1;
        let token = format!("{kind}-{}", self.given);
        self.good.insert(token.clone(), scopes);
        token
    }

    fn allow(&self, request: &Request, scope: Option<&str>) -> bool {
        let shown = request.header("authorization").unwrap_or_default();
        let scopes = shown.strip_prefix("Bearer ").and_then(|token| self.good.get(token));
        let is_in =
            |scopes: &Vec<String>| scope.is_none_or(|scope| scopes.iter().any(|one| one == scope));
        scopes.is_some_and(is_in)
    }
}

impl Shared {
    /// The 401 for a request that may not pass.
    pub(super) fn challenge(
        &self,
        state: &State,
        request: &Request,
        repository: Option<&str>,
    ) -> Option<Answer> {
        let scope = repository.map(|name| format!("repository:{name}:pull"));
        let (passes, challenge) = match &state.auth {
            Auth::Open => return None,
            Auth::Like(profile) => {
                let passes = state.tokens.allow(request, scope.as_deref());
                return (!passes).then(|| profile.refusal(&self.url, scope.as_deref()));
            }
            Auth::Basic(user, password) => {
                (is_basic(request, user, password), "Basic realm=\"fake\"".to_owned())
            }
            Auth::RegistryToken(token) => {
                let shown = request.header("authorization");
                (shown == Some(&format!("Bearer {token}")), "Bearer realm=\"none\"".to_owned())
            }
            Auth::AnonymousToken
            | Auth::PasswordToken(..)
            | Auth::PasswordTokenOf(_)
            | Auth::PasswordTokenFor(..)
            | Auth::IdentityToken(_)
            | Auth::ForeignRealm(_) => (
                state.tokens.allow(request, scope.as_deref()),
                self.bearer_challenge(state, scope.as_deref()),
            ),
        };
        let unauthorized = error(401, "UNAUTHORIZED").with("www-authenticate", challenge);
        (!passes).then_some(unauthorized)
    }

    pub(super) fn bearer_challenge(&self, state: &State, scope: Option<&str>) -> String {
        let realm = if let Auth::ForeignRealm(realm) = &state.auth {
            realm.clone()
        } else {
            format!("{}/token", self.url)
        };
        let scope = scope.map_or_else(String::new, |scope| format!(",scope=\"{scope}\""));
        format!("Bearer realm=\"{realm}\",service=\"{SERVICE}\"{scope}")
    }

    /// Whether this is where tokens are had.
    pub(super) fn is_realm(state: &State, path: &str) -> bool {
        let realm = if let Auth::Like(profile) = &state.auth { profile.realm } else { "/token" };
        realm == path
    }

    /// The answer of the token endpoint.
    pub(super) fn token(&self, state: &mut State, request: &Request) -> Answer {
        if let Auth::Like(profile) = state.auth {
            return profile.token(state, request);
        }
        let is_post = request.method == "POST";
        let asked: Vec<String> = if is_post {
            request.form_values("scope").collect()
        } else {
            request.query_values("scope").collect()
        };
        let mut scopes: Vec<String> =
            asked.iter().flat_map(|scope| scope.split(' ')).map(str::to_owned).collect();
        let may_have = match &state.auth {
            Auth::PasswordToken(user, password) => is_basic(request, user, password),
            Auth::PasswordTokenOf(accounts) => {
                accounts.iter().any(|(repository, user, password)| {
                    scopes == [format!("repository:{repository}:pull")]
                        && is_basic(request, user, password)
                })
            }
            // Docker Hub refuses nobody a token: it is one for less.
            Auth::PasswordTokenFor(private, user, password) => {
                let is_private = |scope: &String| {
                    private.iter().any(|name| *scope == format!("repository:{name}:pull"))
                };
                let may_have_all = is_basic(request, user, password);
                scopes.retain(|scope| may_have_all || !is_private(scope));
                true
            }
            Auth::IdentityToken(secret) => is_post && has_refresh_token(request, secret),
            Auth::Open | Auth::AnonymousToken => true,
            Auth::Basic(..) | Auth::RegistryToken(_) | Auth::Like(_) | Auth::ForeignRealm(_) => {
                false
            }
        };
        if !may_have {
            return error(401, "UNAUTHORIZED");
        }
        let is_stranger = !is_post && request.header("authorization").is_none();
        let kind = if is_stranger { STRANGER } else { "token" };
        let token = state.tokens.give(kind, scopes);
        let field = if is_post { "access_token" } else { "token" };
        let body = json!({ field: token, "expires_in": 300 });
        Answer::new(200, body.to_string()).with("content-type", "application/json")
    }
}

/// An error that repeats credentials in every form they can be read in, and the query.
pub(super) fn echo(request: &Request) -> Bytes {
    let shown = request.header("authorization").unwrap_or_default();
    let login = shown.strip_prefix("Basic ").and_then(|login| BASE64_STANDARD.decode(login).ok());
    let login = login.and_then(|login| String::from_utf8(login).ok()).unwrap_or_default();
    let form = String::from_utf8_lossy(&request.body);
    let words = format!("cannot use {shown} {login} {form} {}", request.query);
    let error = json!({ "code": "ECHO", "message": words });
    json!({ "errors": [error] }).to_string().into()
}

/// Whether a request shows the token of somebody without a name.
pub(super) fn is_strangers(request: &Request) -> bool {
    let shown = request.header("authorization").unwrap_or_default();
    shown.strip_prefix("Bearer ").is_some_and(|token| token.starts_with(STRANGER))
}

pub(super) fn is_basic(request: &Request, user: &str, password: &str) -> bool {
    let credentials = BASE64_STANDARD.encode(format!("{user}:{password}"));
    request.header("authorization") == Some(&format!("Basic {credentials}"))
}

fn has_refresh_token(request: &Request, secret: &str) -> bool {
    let is = |field: &str, value: &str| request.form_values(field).any(|sent| sent == value);
    is("grant_type", "refresh_token") && is("refresh_token", secret) && is("service", SERVICE)
}
