//! How registries in the field differ in letting people in. What is known of each stands where a
//! profile is made.

use serde_json::json;

use super::{
    State,
    auth::is_basic,
    content::error,
    http::{Answer, Request},
};

/// A registry's own way of token authentication.
#[derive(Clone, Copy, Debug)]
pub struct Profile {
    /// Where tokens are had, from the root.
    pub realm: &'static str,
    /// As in the challenge; with `None` there is none, and none may be sent.
    pub service: Option<&'static str>,
    /// What the challenge says of the scope.
    pub scope: Scope,
    /// For what a token is given.
    pub wants: Wants,
    /// The `expires_in` of a token.
    pub lifetime: Option<u32>,
}

/// What a challenge says of the scope.
#[derive(Clone, Copy, Debug)]
pub enum Scope {
    /// What the request needs.
    Needed,
    /// Nothing.
    Unsaid,
    /// At `/v2/` an example, elsewhere what the request needs.
    ExampleAtRoot(&'static str),
    /// Only `/v2/` has a challenge, and it says nothing.
    UnsaidAtRootOnly,
}

/// For what a token is given.
#[derive(Clone, Copy, Debug)]
pub enum Wants {
    /// A GET with name and password; a POST is answered with this status.
    Login {
        /// The user's name.
        user: &'static str,
        /// Its password.
        password: &'static str,
        /// The answer to a POST.
        post: u16,
    },
    /// A POST with this refresh token.
    RefreshToken(&'static str),
}

impl Profile {
    /// The refusal of a request that needs `scope`, or of `/v2/` itself.
    pub(super) fn refusal(&self, url: &str, scope: Option<&str>) -> Answer {
        let unauthorized = error(401, "UNAUTHORIZED");
        let named = match (self.scope, scope) {
            (Scope::UnsaidAtRootOnly, Some(_)) => return unauthorized,
            (Scope::UnsaidAtRootOnly | Scope::Unsaid, _) => None,
            (Scope::ExampleAtRoot(example), None) => Some(example),
            (Scope::ExampleAtRoot(_) | Scope::Needed, scope) => scope,
        };
        let parameters = [("service", self.service), ("scope", named)];
        let parameters = parameters.into_iter().filter_map(|(name, value)| Some((name, value?)));
        let parameters: String =
            parameters.map(|(name, value)| format!(",{name}=\"{value}\"")).collect();
        let challenge = format!("Bearer realm=\"{url}{}\"{parameters}", self.realm);
        unauthorized.with("www-authenticate", challenge)
    }

    /// The answer of the token endpoint.
    pub(super) fn token(&self, state: &mut State, request: &Request) -> Answer {
        let is_post = request.method == "POST";
        let values = |name: &str| -> Vec<String> {
            if is_post {
                request.form_values(name).collect()
            } else {
                request.query_values(name).collect()
            }
        };
        let (service, scope) = (values("service"), values("scope"));
        // An empty service is none.
        let expected: Vec<&str> =
            self.service.into_iter().filter(|name| !name.is_empty()).collect();
        if service != expected || scope.is_empty() {
            return error(400, "UNSUPPORTED");
        }
        match self.wants {
            Wants::Login { post, .. } if is_post => return error(post, "UNSUPPORTED"),
            Wants::Login { user, password, .. } if is_basic(request, user, password) => {}
            Wants::RefreshToken(secret)
                if is_post
                    && values("grant_type") == ["refresh_token"]
                    && values("refresh_token") == [secret] => {}
            Wants::Login { .. } | Wants::RefreshToken(_) => return error(401, "UNAUTHORIZED"),
        }
        let scopes = scope.iter().flat_map(|scope| scope.split(' ')).map(str::to_owned);
        let field = if is_post { "access_token" } else { "token" };
        let mut body = json!({ field: state.tokens.give("token", scopes.collect()) });
        if let Some(lifetime) = self.lifetime {
            body["expires_in"] = lifetime.into();
        }
        Answer::new(200, body.to_string()).with("content-type", "application/json")
    }
}
