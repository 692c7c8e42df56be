//! What is said in `Authorization` to one endpoint: before anybody asks, once its way to
//! authenticate is known, and in answer to a challenge.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
};

use http::StatusCode;
use tokio::time::Instant;
use url::Url;

use crate::config::Identity;

use super::{
    Error,
    answer::{Answer, Source},
    basic::basic,
    challenge::Challenge,
    client::{Client, Outgoing},
    health::Operation,
    redirect::{self, Redirects},
    token::{Grant, NoToken, Token},
    tokens::Tokens,
    trust,
};

/// Authenticates requests to one endpoint.
pub(super) struct Authorizer {
    /// The endpoint's `/v2/`.
    root: Url,
    trusted_realms: Vec<String>,
    client: Arc<Client>,
    /// How the endpoint last wanted it.
    known: Mutex<Option<Way>>,
    tokens: Tokens,
}

/// A way to authenticate.
#[derive(Clone)]
enum Way {
    Basic,
    Bearer { realm: Url, service: Option<String> },
}

/// What a request presents.
pub(super) enum Authorization {
    /// The credentials themselves.
    Given(String),
    /// A token for them.
    Bearer(Token, Box<Grant>),
}

impl Authorization {
    /// The header's value.
    pub(super) fn header(&self) -> String {
        match self {
            Authorization::Given(value) => value.clone(),
            Authorization::Bearer(token, _) => format!("Bearer {}", token.value),
        }
    }
}

impl Authorizer {
    /// `root` is the endpoint's `/v2/`.
    pub(super) fn new(root: Url, trusted_realms: Vec<String>, client: Arc<Client>) -> Authorizer {
        Authorizer {
            root,
            trusted_realms,
            client,
            known: Mutex::default(),
            tokens: Tokens::default(),
        }
    }

    /// What to present without having been asked; `None` while the endpoint's way is unknown, or
    /// when it refuses a token for `scope`: then the registry itself shall say what it thinks.
    pub(super) async fn known(
        &self,
        scope: &str,
        identity: &Identity,
    ) -> Result<Option<Authorization>, NoToken> {
        if let Identity::RegistryToken(token) = identity {
            return Ok(Some(Authorization::Given(format!("Bearer {token}"))));
        }
        let way = self.known.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let grant = match way {
            None => return Ok(None),
            Some(Way::Basic) => return Ok(basic(identity).map(Authorization::Given)),
            Some(Way::Bearer { realm, service }) => {
                let new = grant(identity, realm, service, scope, None);
                self.tokens.grant(scope).filter(|kept| kept.is_like(&new)).unwrap_or(new)
            }
        };
        match self.token(scope, grant).await {
            Ok(authorization) => Ok(Some(authorization)),
            Err(NoToken::Denied(_)) => Ok(None),
            Err(failed @ NoToken::Failed(_)) => Err(failed),
        }
    }

    /// What to present after `answer` refused `presented`; `None` if there is nothing better.
    /// A token that came before `started`, the begin of this exchange, deserves a renewal; one that
    /// came since is as good as any, unless the registry now names another scope.
    pub(super) async fn renewed(
        &self,
        answer: &Answer,
        scope: &str,
        identity: &Identity,
        presented: Option<Authorization>,
        started: Instant,
    ) -> Result<Option<Authorization>, NoToken> {
        if answer.source == Source::Elsewhere || matches!(identity, Identity::RegistryToken(_)) {
            return Ok(None);
        }
        match (answer.status, presented) {
            (StatusCode::UNAUTHORIZED, presented) => {
                let Some((way, named)) = self.way(answer).await? else {
                    return Ok(None);
                };
                let Way::Bearer { realm, service } = way.clone() else {
                    self.remember(way);
                    let is_new = !matches!(presented, Some(Authorization::Given(_)));
                    return Ok(basic(identity).filter(|_| is_new).map(Authorization::Given));
                };
                let grant = grant(identity, realm, service, scope, named.as_deref());
                let token = self.new_token(scope, grant, presented, started).await?;
                // Not before it has proved itself: who remembers a way that leads nowhere fails at its
                // end, and never again asks the registry for another.
                self.remember(way);
                Ok(token)
            }
            (StatusCode::FORBIDDEN, Some(Authorization::Bearer(token, grant)))
                if token.received < started =>
            {
                self.tokens.forget(scope, &token);
                self.token(scope, *grant).await.map(Some)
            }
            _ => Ok(None),
        }
    }

    /// What to present after `refusal` of `/v2/` itself, for no repository in particular; `None` if
    /// there is nothing that would do.
    pub(super) async fn login(
        &self,
        refusal: &Answer,
        identity: &Identity,
    ) -> Result<Option<Authorization>, Error> {
        if let Identity::RegistryToken(_) = identity {
            return Ok(self.known("", identity).await?);
        }
        match self.way(refusal).await? {
            None => Ok(None),
            Some((Way::Basic, _)) => Ok(basic(identity).map(Authorization::Given)),
            Some((Way::Bearer { realm, service }, _)) => {
                let scopes = BTreeSet::new();
                let grant = Grant { identity: identity.clone(), realm, service, scopes };
                Ok(Some(self.token("", grant).await?))
            }
        }
    }

    fn remember(&self, way: Way) {
        *self.known.lock().unwrap_or_else(PoisonError::into_inner) = Some(way);
    }

    async fn new_token(
        &self,
        scope: &str,
        grant: Grant,
        presented: Option<Authorization>,
        started: Instant,
    ) -> Result<Option<Authorization>, NoToken> {
        if let Some(Authorization::Bearer(token, refused)) = presented {
            if token.received >= started && *refused == grant {
                return Ok(None);
            }
            self.tokens.forget(scope, &token);
        }
        self.token(scope, grant).await.map(Some)
    }

    /// The way a refusal points to, and the scope it names. Some registries challenge only at
    /// `/v2/`, whose scope is that of no repository.
    async fn way(&self, refusal: &Answer) -> Result<Option<(Way, Option<String>)>, Error> {
        if let Some(challenge) = Challenge::best_of(&refusal.headers) {
            return way(challenge, &refusal.url).map(Some);
        }
        let root = Outgoing::get(Operation::Probe, self.root.clone());
        let answer = redirect::follow(&self.client, root, Redirects::Follow).await?;
        let is_challenge =
            answer.status == StatusCode::UNAUTHORIZED && answer.source == Source::Asked;
        match Challenge::best_of(&answer.headers).filter(|_| is_challenge) {
            Some(challenge) => {
                let (way, _) = way(challenge, &answer.url)?;
                Ok(Some((way, None)))
            }
            None => Ok(None),
        }
    }

    /// Whatever leads here, credentials pass only to a realm that may see them.
    async fn token(&self, scope: &str, grant: Grant) -> Result<Authorization, NoToken> {
        let realm = &grant.realm;
        let may_see = || trust::may_see_credentials(&self.root, realm, &self.trusted_realms);
        if grant.identity != Identity::Anonymous && !may_see() {
            let what = format!(
                "{} sends its credentials to the realm {}, which is not trusted with them; add \"{}\" to trusted_realms if it should be",
                self.root.authority(),
                realm.authority(),
                realm.host_str().unwrap_or_default(),
            );
            return Err(Error::Invalid(what).into());
        }
        let token = self.tokens.get(scope, &grant, &self.client).await?;
        Ok(Authorization::Bearer(token, grant.into()))
    }
}

/// The way that a challenge to a request for `asked` points to, and the scope it names.
fn way(challenge: Challenge, asked: &Url) -> Result<(Way, Option<String>), Error> {
    match challenge {
        Challenge::Basic => Ok((Way::Basic, None)),
        Challenge::Bearer { realm, service, scope } => {
            let realm = trust::checked_step(asked, &realm)?;
            Ok((Way::Bearer { realm, service }, scope))
        }
    }
}

/// Asks for `scope`, and for what the registry `named` beside it.
fn grant(
    identity: &Identity,
    realm: Url,
    service: Option<String>,
    scope: &str,
    named: Option<&str>,
) -> Grant {
    let scopes: BTreeSet<String> =
        named.unwrap_or_default().split_ascii_whitespace().chain([scope]).map(Into::into).collect();
    Grant { identity: identity.clone(), realm, service, scopes }
}
