//! One place where a registry is reached: its URLs, and an exchange with it from the first request
//! to an answer that counts.

mod examination;

use std::{ops::Range, sync::Arc, time::Duration};

use http::{
    HeaderMap, HeaderValue, Method, StatusCode,
    header::{ACCEPT, RANGE},
};
use tokio::time::Instant;
use url::{Position, Url};

use crate::{
    config::{self, Identity},
    oci::{Digest, MAX_MANIFEST_BYTES, Name, OCI_INDEX, Reference},
};

use super::{
    Error, FetchedManifest, Place, SetupError, Shared,
    answer::{Answer, Source},
    auth::{Authorization, Authorizer},
    breaker::Breaker,
    client::{Client, Outgoing, Times},
    connections::Connections,
    connector::Connector,
    credentials::{Credentials, Refusal},
    health::{Health, Operation},
    limits::{Limits, RateLimit, Spending},
    ranges::Ranges,
    redirect::{self, Redirects},
    token::NoToken,
};

/// Time from a request to the first byte of its answer.
const FIRST_BYTE: Duration = Duration::from_secs(10);
/// Requests of one exchange: without a token, with one, and with a renewed one.
const MAX_ATTEMPTS: u32 = 3;
/// Tags asked for at once. Of more, Amazon's registries say that they are too many.
const TAGS_OF_A_PAGE: u32 = 1_000;

/// Every type of manifest, whatever a client asked for: what a tag means must not depend on it.
const EVERY_MANIFEST: &str = "application/vnd.oci.image.index.v1+json, \
    application/vnd.oci.image.manifest.v1+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, \
    application/vnd.docker.distribution.manifest.v2+json, */*";

/// One endpoint of an upstream.
pub(super) struct Endpoint {
    place: Place,
    /// As it is configured.
    url: Url,
    /// Its `/v2/`.
    root: Url,
    /// Comes before the names of repositories: empty, or `prefix/`.
    prefix: String,
    /// What `client` connects with.
    connector: Connector,
    client: Arc<Client>,
    credentials: Credentials,
    auth: Authorizer,
    /// For what is asked without credentials: its tokens are others, for the same scopes.
    anonymous_auth: Authorizer,
    breaker: Breaker,
    limits: Limits,
    ranges: Ranges,
}

/// What is asked of a repository.
pub(super) struct Ask<'a> {
    /// What it is counted as.
    pub(super) operation: Operation,
    pub(super) method: Method,
    pub(super) name: &'a Name,
    /// The path below the repository: `blobs/sha256:…`.
    pub(super) path: String,
    pub(super) query: Option<String>,
    pub(super) headers: HeaderMap,
    pub(super) redirects: Redirects,
    pub(super) spending: Spending,
}

impl<'a> Ask<'a> {
    pub(super) fn manifest_head(name: &'a Name, reference: &Reference) -> Ask<'a> {
        Ask {
            operation: Operation::ManifestHead,
            method: Method::HEAD,
            ..Ask::manifest_get(name, reference)
        }
    }

    pub(super) fn manifest_get(name: &'a Name, reference: &Reference) -> Ask<'a> {
        Ask {
            operation: Operation::ManifestGet,
            method: Method::GET,
            name,
            path: format!("manifests/{reference}"),
            query: None,
            headers: HeaderMap::from_iter([(ACCEPT, HeaderValue::from_static(EVERY_MANIFEST))]),
            redirects: Redirects::Follow,
            spending: Spending::All,
        }
    }

    pub(super) fn blob_head(name: &'a Name, digest: &Digest) -> Ask<'a> {
        Ask { operation: Operation::BlobHead, method: Method::HEAD, ..Ask::blob_get(name, digest) }
    }

    pub(super) fn blob_get(name: &'a Name, digest: &Digest) -> Ask<'a> {
        Ask {
            operation: Operation::BlobGet,
            method: Method::GET,
            name,
            path: format!("blobs/{digest}"),
            query: None,
            headers: HeaderMap::new(),
            redirects: Redirects::Follow,
            spending: Spending::All,
        }
    }

    /// The first page of the tags.
    pub(super) fn tags_list(name: &'a Name) -> Ask<'a> {
        Ask {
            operation: Operation::TagsList,
            method: Method::GET,
            name,
            path: "tags/list".to_owned(),
            query: Some(format!("n={TAGS_OF_A_PAGE}")),
            headers: HeaderMap::new(),
            redirects: Redirects::Follow,
            spending: Spending::All,
        }
    }

    /// The first page of what refers to `subject`, of whatever type.
    pub(super) fn referrers(name: &'a Name, subject: &Digest) -> Ask<'a> {
        Ask {
            operation: Operation::Referrers,
            method: Method::GET,
            name,
            path: format!("referrers/{subject}"),
            query: None,
            headers: HeaderMap::from_iter([(ACCEPT, HeaderValue::from_static(OCI_INDEX))]),
            redirects: Redirects::ToTheSame,
            spending: Spending::All,
        }
    }

    /// As long as it costs no more than this.
    pub(super) fn spending(mut self, spending: Spending) -> Ask<'a> {
        self.spending = spending;
        self
    }

    /// Takes a redirect for the answer.
    pub(super) fn not_followed(mut self) -> Ask<'a> {
        self.redirects = Redirects::AreAnswers;
        self
    }

    /// Asks for these bytes only, of which there is at least one.
    pub(super) fn part(mut self, range: &Range<u64>) -> Ask<'a> {
        let last = range.end.saturating_sub(1);
        let value = HeaderValue::try_from(format!("bytes={}-{last}", range.start));
        self.headers.extend(value.ok().map(|value| (RANGE, value)));
        self
    }

    /// Asks for the bytes from `start` on.
    pub(super) fn starting_at(mut self, start: u64) -> Ask<'a> {
        let value = HeaderValue::try_from(format!("bytes={start}-"));
        self.headers.extend(value.ok().filter(|_| start > 0).map(|value| (RANGE, value)));
        self
    }

    fn is_answered_by(&self, answer: &Answer) -> bool {
        let status = answer.status;
        let is_other_answer = match self.redirects {
            Redirects::Follow => false,
            Redirects::AreAnswers => {
                redirect::location(status, &answer.headers).is_some()
                    || status == StatusCode::RANGE_NOT_SATISFIABLE
            }
            Redirects::ToTheSame => Ask::is_unsupported(status),
        };
        status.is_success() || is_other_answer
    }
}

impl Endpoint {
    /// Opens no connection.
    pub(super) fn new(
        place: Place,
        endpoint: &config::Endpoint,
        upstream: &config::Upstream,
        shared: &Shared<'_>,
        health: Arc<Health>,
        connections: Arc<Connections>,
    ) -> Result<Endpoint, SetupError> {
        let root = endpoint
            .url
            .join("/v2/")
            .map_err(|error| SetupError(format!("endpoint {}: {error}", endpoint.url)))?;
        let connector = Connector::new(&root, endpoint, shared)?;
        let times = Times { first_byte: FIRST_BYTE, idle: shared.limits.idle_timeout };
        let client = Arc::new(Client::new(connector.clone(), health, connections, times));
        let prefix = prefix_of(&endpoint.url);
        let trusted = &upstream.trusted_realms;
        let authorizer = || Authorizer::new(root.clone(), trusted.clone(), Arc::clone(&client));
        Ok(Endpoint {
            place,
            url: endpoint.url.clone(),
            connector,
            breaker: Breaker::new(
                upstream.registry.to_string(),
                label(&endpoint.url),
                Arc::clone(&shared.metrics),
            ),
            auth: authorizer(),
            anonymous_auth: authorizer(),
            credentials: Credentials::open(
                &endpoint.credentials,
                &root,
                &prefix,
                Arc::clone(&shared.helpers),
            )?,
            limits: Limits::new(&upstream.registry, upstream.quota_reserve),
            ranges: Ranges::default(),
            prefix,
            root,
            client,
        })
    }

    /// Host and port, for people.
    pub(super) fn authority(&self) -> &str {
        self.root.authority()
    }

    /// Whether it is to be asked.
    pub(super) fn breaker(&self) -> &Breaker {
        &self.breaker
    }

    /// An answer that counts as success: 2xx, or what `ask` takes for it. Authenticates as needed;
    /// where that is in vain, it is tried once more if the credentials have changed meanwhile.
    pub(super) async fn exchange(&self, ask: &Ask<'_>) -> Result<Answer, Error> {
        let mut identity = self.credentials.identity(ask.name).await;
        let mut outcome = self.exchange_as(&identity, &self.auth, ask).await;
        if let Some(refusal) = refusal(&outcome)
            && let Some(other) = self.credentials.instead_of(&identity, refusal, ask.name).await
        {
            outcome = self.exchange_as(&other, &self.auth, ask).await;
            identity = other;
        }
        self.accepted(outcome?, &identity, ask).await
    }

    /// As [`Endpoint::exchange`], without credentials.
    pub(super) async fn exchange_anonymously(&self, ask: &Ask<'_>) -> Result<Answer, Error> {
        let anonymous = Identity::Anonymous;
        let answer = self.exchange_as(&anonymous, &self.anonymous_auth, ask).await?;
        self.accepted(answer, &anonymous, ask).await
    }

    /// Whether there are credentials for a repository.
    pub(super) fn has_credentials_for(&self, name: &Name) -> bool {
        self.credentials.are_for(name)
    }

    async fn accepted(
        &self,
        answer: Answer,
        identity: &Identity,
        ask: &Ask<'_>,
    ) -> Result<Answer, Error> {
        match ask.is_answered_by(&answer) {
            true => Ok(answer.of_endpoint(self.place)),
            false => Err(self.limits.told_to_wait(identity, answer.into_error().await)),
        }
    }

    /// Whether `ask` would be sent now.
    pub(super) async fn admits(&self, ask: &Ask<'_>) -> Result<(), Error> {
        self.limits.admit(&self.credentials.identity(ask.name).await, ask)
    }

    /// How much longer it asked one of Larder's identities to wait.
    pub(super) fn pause_left(&self) -> Option<Duration> {
        self.limits.pause_left()
    }

    /// Whether it gives parts of blobs.
    pub(super) fn ranges(&self) -> &Ranges {
        &self.ranges
    }

    /// The quota that it stated last.
    pub(super) fn rate_limit(&self) -> Option<RateLimit> {
        self.limits.rate_limit()
    }

    /// The last answer to one identity, if its limits let it ask.
    async fn exchange_as(
        &self,
        identity: &Identity,
        auth: &Authorizer,
        ask: &Ask<'_>,
    ) -> Result<Answer, NoToken> {
        self.limits.admit(identity, ask)?;
        let answer = self.authenticated(identity, auth, ask).await?;
        self.limits.note(identity, ask.operation, &answer);
        Ok(answer)
    }

    /// The last answer after as many requests as authentication takes.
    async fn authenticated(
        &self,
        identity: &Identity,
        auth: &Authorizer,
        ask: &Ask<'_>,
    ) -> Result<Answer, NoToken> {
        let started = Instant::now();
        let scope = self.scope(ask.name);
        let mut authorization = auth.known(&scope, identity).await?;
        for _ in 1..MAX_ATTEMPTS {
            let answer = self.send(ask, authorization.as_ref()).await?;
            if ask.is_answered_by(&answer) {
                return Ok(answer);
            }
            let renewal = auth.renewed(&answer, &scope, identity, authorization, started);
            authorization = renewal.await?;
            if authorization.is_none() {
                return Ok(answer);
            }
        }
        Ok(self.send(ask, authorization.as_ref()).await?)
    }

    /// The manifest that `ask` is for.
    pub(super) async fn manifest(&self, ask: &Ask<'_>) -> Result<FetchedManifest, Error> {
        let answer = self.exchange(ask).await?;
        let media_type = answer.media_type();
        let bytes = answer.whole_body()?.collect(MAX_MANIFEST_BYTES).await?;
        Ok(FetchedManifest { bytes, media_type })
    }

    /// Good if `/v2/` answers anything, even a challenge, but a failure of its own.
    pub(super) async fn liveness(&self) -> Result<(), Error> {
        let root = Outgoing::get(Operation::Probe, self.root.clone());
        match self.client.send(&root).await? {
            answer if answer.status.is_server_error() => Err(answer.into_error().await),
            _ => Ok(()),
        }
    }

    async fn send(
        &self,
        ask: &Ask<'_>,
        authorization: Option<&Authorization>,
    ) -> Result<Answer, Error> {
        let outgoing = Outgoing {
            method: ask.method.clone(),
            headers: ask.headers.clone(),
            authorization: authorization.map(Authorization::header),
            ..Outgoing::get(ask.operation, self.url(ask))
        };
        redirect::follow(&self.client, outgoing, ask.redirects).await
    }

    /// What a token for a repository has to allow.
    fn scope(&self, name: &Name) -> String {
        format!("repository:{}{name}:pull", self.prefix)
    }

    fn url(&self, ask: &Ask<'_>) -> Url {
        let mut url = self.root.clone();
        url.set_path(&format!("/v2/{}{}/{}", self.prefix, ask.name, ask.path));
        url.set_query(ask.query.as_deref());
        url
    }
}

/// How the registry, or who gives out its tokens, refused who asked; `None` if neither did.
fn refusal(outcome: &Result<Answer, NoToken>) -> Option<Refusal> {
    match outcome {
        Ok(answer) if answer.source == Source::Elsewhere => None,
        Ok(answer) => match answer.status {
            StatusCode::UNAUTHORIZED => Some(Refusal::Unauthorized),
            StatusCode::BAD_REQUEST | StatusCode::FORBIDDEN => Some(Refusal::Other),
            _ => None,
        },
        Err(NoToken::Denied(denial)) => Some(denial.refusal),
        Err(NoToken::Failed(_)) => None,
    }
}

/// Host and path, as the metrics call an endpoint.
fn label(url: &Url) -> String {
    url[Position::BeforeHost..Position::AfterPath].trim_end_matches('/').to_owned()
}

/// The path of an endpoint as the first part of its repositories' names: `https://art.corp/docker`
/// is asked for `/v2/docker/<name>/…`.
fn prefix_of(url: &Url) -> String {
    match url.path().trim_matches('/') {
        "" => String::new(),
        path => format!("{path}/"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::{DOCKER_LIST, DOCKER_MANIFEST, OCI_MANIFEST};

    #[test]
    fn every_manifest_is_asked_for() {
        let types = [OCI_INDEX, OCI_MANIFEST, DOCKER_LIST, DOCKER_MANIFEST, "*/*"];
        assert_eq!(EVERY_MANIFEST, types.join(", "));
    }

    #[test]
    fn a_path_is_a_prefix_of_names() {
        let table = [
            ("https://art.corp", ""),
            ("https://art.corp/", ""),
            ("https://art.corp/docker-remote", "docker-remote/"),
            ("https://art.corp/a/b/", "a/b/"),
        ];
        for (url, want) in table {
            assert_eq!(prefix_of(&url.parse().unwrap()), want, "{url}");
        }
    }
}
