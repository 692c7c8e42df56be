//! A token: what it is asked for, and asking a realm for it (distribution, docs/spec/auth: token.md and
//! oauth.md).

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use futures_util::future::FutureExt as _;
use http::{Method, StatusCode};
use serde::Deserialize;
use serde_json::Value;
use tokio::time::Instant;
use url::{Url, form_urlencoded};

use crate::config::Identity;

use super::{
    Error,
    answer::Answer,
    basic::basic,
    client::{Client, Outgoing},
    credentials::Refusal,
    health::{Flight, Operation, launch},
    pauses::Pauses,
    redirect::{self, Redirects},
};

/// How OAuth2 servers are told who asks.
const CLIENT_ID: &str = "larder";
/// The largest answer a token endpoint may give.
const MAX_ANSWER: u64 = 1024 * 1024;
/// Lifetime of a token that states none, and the least that is believed (token.md).
const MIN_LIFETIME: Duration = Duration::from_secs(60);
/// The longest lifetime that is believed.
const MAX_LIFETIME: Duration = Duration::from_secs(24 * 3600);
/// A token is renewed this long before it expires.
const MARGIN: Duration = Duration::from_secs(10);
/// How long one token may take, redirects and fallback included.
const MAX_FETCH: Duration = Duration::from_secs(20);

/// What a token is asked for, and by whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Grant {
    pub(super) identity: Identity,
    pub(super) realm: Url,
    pub(super) service: Option<String>,
    pub(super) scopes: BTreeSet<String>,
}

impl Grant {
    /// Whether both differ in nothing but scopes.
    pub(super) fn is_like(&self, other: &Grant) -> bool {
        self.identity == other.identity
            && self.realm == other.realm
            && self.service == other.service
    }

    /// Who asks, and whom.
    pub(super) fn asker(&self) -> (Url, Identity) {
        (self.realm.clone(), self.identity.clone())
    }
}

/// A token. Has no `Debug`: it is a secret.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Token {
    /// The token itself.
    pub(super) value: String,
    /// When it came. Upstream's own clock (`issued_at`) is not believed.
    pub(super) received: Instant,
    /// How long it is good from then on.
    pub(super) lifetime: Duration,
}

impl Token {
    /// Whether it is still good.
    pub(super) fn is_fresh(&self) -> bool {
        self.received.elapsed() < self.lifetime
    }
}

/// Why there is no token.
#[derive(Clone, Debug)]
pub(super) enum NoToken {
    /// Its server refuses to give one to who asks.
    Denied(Denial),
    /// Any other reason.
    Failed(Error),
}

/// A token server's refusal.
#[derive(Clone, Debug)]
pub(super) struct Denial {
    pub(super) refusal: Refusal,
    /// The server's words.
    pub(super) message: String,
    pub(super) received: Instant,
}

impl NoToken {
    /// As [`Error::for_good`].
    fn for_good(self) -> NoToken {
        match self {
            NoToken::Failed(error) => NoToken::Failed(error.for_good()),
            denied @ NoToken::Denied(_) => denied,
        }
    }
}

impl From<Error> for NoToken {
    fn from(error: Error) -> NoToken {
        NoToken::Failed(error)
    }
}

impl From<NoToken> for Error {
    fn from(reason: NoToken) -> Error {
        match reason {
            NoToken::Denied(denial) => Error::Denied(denial.message),
            NoToken::Failed(error) => error,
        }
    }
}

/// Realms that limit the requests of an identity.
pub(super) type RealmPauses = Pauses<(Url, Identity)>;

/// A token that was asked for.
pub(super) type TokenFlight = Flight<Result<Token, NoToken>>;

/// Asks for a token, for all who wait for it.
pub(super) fn start(client: Arc<Client>, grant: Grant, pauses: Arc<RealmPauses>) -> TokenFlight {
    let request = async move {
        let late = |_| {
            let what = format!("no token from {} in time", grant.realm.authority());
            Err(Error::Unreachable(what).into())
        };
        tokio::time::timeout(MAX_FETCH, fetch(&client, &grant, &pauses)).await.unwrap_or_else(late)
    };
    launch(request.boxed())
}

async fn fetch(client: &Client, grant: &Grant, pauses: &RealmPauses) -> Result<Token, NoToken> {
    let answer = ask(client, grant).await?;
    if answer.status == StatusCode::TOO_MANY_REQUESTS {
        pauses.begin(grant.asker(), answer.retry_after());
    } else if answer.status.is_success() {
        pauses.note_success(&grant.asker());
    }
    match answer.method {
        Method::POST => token(answer).await.map_err(NoToken::for_good),
        _ => token(answer).await,
    }
}

async fn ask(client: &Client, grant: &Grant) -> Result<Answer, Error> {
    if let Identity::Token(secret) = &grant.identity {
        let answer = client.send(&refresh(grant, secret)).await.map_err(Error::for_good)?;
        // Not every realm speaks OAuth2, and they say so in many ways.
        if !matches!(answer.status.as_u16(), 300..=399 | 400 | 401 | 404 | 405) {
            return Ok(answer);
        }
    }
    redirect::follow(client, query(grant), Redirects::Follow).await
}

/// The GET of token.md. A query of the realm's own stays.
fn query(grant: &Grant) -> Outgoing {
    let mut outgoing = Outgoing::get(Operation::Token, grant.realm.clone());
    {
        let mut pairs = outgoing.url.query_pairs_mut();
        pairs.extend_pairs(grant.service.iter().map(|service| ("service", service)));
        pairs.extend_pairs(grant.scopes.iter().map(|scope| ("scope", scope)));
        if let Identity::User { name, .. } = &grant.identity {
            pairs.append_pair("account", name);
        }
    }
    outgoing.authorization = basic(&grant.identity);
    outgoing
}

/// The POST of oauth.md. It is not repeated: the realm may have acted on one whose answer was lost.
fn refresh(grant: &Grant, secret: &str) -> Outgoing {
    let scopes: Vec<&str> = grant.scopes.iter().map(String::as_str).collect();
    let form = form_urlencoded::Serializer::new(String::new())
        .append_pair("grant_type", "refresh_token")
        .append_pair("client_id", CLIENT_ID)
        .extend_pairs(grant.service.iter().map(|service| ("service", service)))
        .append_pair("scope", &scopes.join(" "))
        .append_pair("refresh_token", secret)
        .finish();
    Outgoing { method: Method::POST, form, ..Outgoing::get(Operation::Token, grant.realm.clone()) }
}

/// The token in an answer. Trouble of the token endpoint is an outage and not a refusal: the
/// registry has not said no.
async fn token(answer: Answer) -> Result<Token, NoToken> {
    let received = Instant::now();
    if !answer.status.is_success() {
        return Err(refusal(answer).await);
    }
    let unusable = Error::Unreachable(answer.describe(Some("no token in the answer")));
    let body = answer.body.collect(MAX_ANSWER).await?;
    let (value, lifetime) = issued(&body).ok_or(unusable)?;
    Ok(Token { value, received, lifetime })
}

/// The token in the body of an answer, and how long it is used. What no header can carry is none.
pub(super) fn issued(body: &[u8]) -> Option<(String, Duration)> {
    let issued: Issued = serde_json::from_slice(body).ok()?;
    let lifetime = issued.lifetime();
    let mut values = [issued.token, issued.access_token].into_iter().flatten();
    let is_token =
        |value: &String| !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_graphic());
    Some((values.find(is_token)?, lifetime))
}

/// 401 is a refusal, so are 400 and 403 when a token server explains them; a firewall's page is not.
async fn refusal(answer: Answer) -> NoToken {
    let (status, received) = (answer.status, Instant::now());
    let denied = |refusal, message| NoToken::Denied(Denial { refusal, message, received });
    let is_explained = answer
        .media_type()
        .is_some_and(|media_type| media_type.to_ascii_lowercase().ends_with("json"));
    let error = answer.into_error().await;
    match status {
        StatusCode::UNAUTHORIZED => denied(Refusal::Unauthorized, error.to_string()),
        StatusCode::FORBIDDEN | StatusCode::BAD_REQUEST if is_explained => {
            denied(Refusal::Other, error.to_string())
        }
        _ if error.is_outage() => error.into(),
        _ => Error::Unreachable(error.to_string()).into(),
    }
}

/// What a token endpoint answers.
#[derive(Deserialize)]
struct Issued {
    token: Option<String>,
    access_token: Option<String>,
    /// Seconds. Read leniently: a token is good whatever its server thinks a number is.
    expires_in: Option<Value>,
}

impl Issued {
    /// How long the token is used.
    fn lifetime(&self) -> Duration {
        self.expires_in
            .as_ref()
            .and_then(Value::as_f64)
            .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
            .unwrap_or(MIN_LIFETIME)
            .clamp(MIN_LIFETIME, MAX_LIFETIME)
            .saturating_sub(MARGIN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grant(realm: &str, service: Option<&str>, scopes: &[&str]) -> Grant {
        Grant {
            identity: Identity::Anonymous,
            realm: realm.parse().unwrap(),
            service: service.map(Into::into),
            scopes: scopes.iter().map(ToString::to_string).collect(),
        }
    }

    #[test]
    fn the_query_is_merged_with_the_realms_own() {
        let table = [
            (
                grant("https://h/t", Some("s"), &["repository:a/b:pull"]),
                "service=s&scope=repository%3Aa%2Fb%3Apull",
            ),
            (grant("https://h/t?x=1", None, &["b", "a"]), "x=1&scope=a&scope=b"),
        ];
        for (grant, want) in table {
            let outgoing = query(&grant);
            assert_eq!(outgoing.url.query(), Some(want));
            assert_eq!(outgoing.authorization, None);
        }
    }
    #[test]
    fn lifetimes_are_clamped() {
        let lifetime = |json: &str| {
            let issued: Issued = serde_json::from_str(json).unwrap();
            (issued.lifetime() + MARGIN).as_secs()
        };
        assert_eq!(lifetime("{}"), 60);
        assert_eq!(lifetime(r#"{"expires_in":30}"#), 60);
        assert_eq!(lifetime(r#"{"expires_in":-1}"#), 60);
        assert_eq!(lifetime(r#"{"expires_in":"soon"}"#), 60);
        assert_eq!(lifetime(r#"{"expires_in":300.5}"#), 300);
        assert_eq!(lifetime(r#"{"expires_in":1e300}"#), 60);
        assert_eq!(lifetime(r#"{"expires_in":999999999}"#), 86400);
    }
}
