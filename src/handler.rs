//! One request: may it ask, what does it ask, and the mirror's answer as a response.

use std::sync::Arc;

use http::{HeaderMap, HeaderValue, Request, Response};

use crate::{
    access::{Access, Client},
    account::{Account, Accounted, Part, Served},
    metrics::Metrics,
    mirror::{AheadBytes, Found, Mirror, Source},
    oci::{Digest, Reference, Repository},
    pulls::{PulledBlob, Puller, Pulls},
    refused::Refused,
    response::{self, Body},
    routes::{Catalog, Conditions, Endpoint, Page, Route, RouteError, Routes, Verb},
    sendfile::Outlet,
};

/// Answers the registry API.
pub struct Handler {
    mirror: Arc<Mirror>,
    routes: Routes,
    access: Access,
    metrics: Arc<Metrics>,
    refused: Refused,
    pulls: Pulls,
}

impl Handler {
    /// A handler in front of `mirror`, which tells `refused` what is not mirrored.
    pub fn new(
        mirror: Arc<Mirror>,
        routes: Routes,
        access: Access,
        metrics: Arc<Metrics>,
        refused: Refused,
    ) -> Handler {
        Handler { mirror, routes, access, metrics, refused, pulls: Pulls::default() }
    }

    /// Answers one request; its body, if it has one, is not read.
    pub async fn answer<B>(&self, client: Client, request: Request<B>) -> Response<Accounted> {
        let (method, uri) = (request.method().clone(), request.uri());
        let mut account = Account::open(self.metrics.clone(), method, uri, client.peer);
        let response = self.respond(client, &request, &mut account).await;
        account.attach(response)
    }

    async fn respond<B>(
        &self,
        client: Client,
        request: &Request<B>,
        account: &mut Account,
    ) -> Response<Body> {
        if !self.access.permits(client.peer) {
            return response::denied();
        }
        let (uri, headers) = (request.uri(), request.headers());
        let mut response = match self.routes.parse(request.method(), uri, headers) {
            Ok(route) => self.respond_to(client, route, headers, account).await,
            Err(error) => self.refuse(&error),
        };
        if let Ok(Some(namespace)) = self.routes.namespace(uri) {
            response::set(&mut response, response::NAMESPACE, namespace.as_str());
        }
        response
    }

    fn refuse(&self, error: &RouteError) -> Response<Body> {
        if let RouteError::Registry(name) = error {
            self.metrics.refused_namespaces.inc();
            self.refused.note(name);
            tracing::debug!(name, "refused a registry that is not configured");
        }
        response::route_error(error)
    }

    /// What is seldom asked for is boxed, here and below: the state of every request is moved to where it
    /// runs, and would have room for the largest.
    async fn respond_to(
        &self,
        client: Client,
        route: Route,
        headers: &HeaderMap<HeaderValue>,
        account: &mut Account,
    ) -> Response<Body> {
        let conditions = Conditions::of(headers);
        match (route.endpoint, route.verb) {
            (Endpoint::Greeting, _) => {
                account.endpoint = "root";
                response::greeting()
            }
            (Endpoint::Version, _) => {
                account.endpoint = "version";
                response::version()
            }
            (Endpoint::Manifest { repository, reference }, verb) => {
                account.endpoint = "manifest";
                let puller = Puller { client: client.peer.caller(), repository };
                self.manifest(puller, &reference, verb, &conditions, account).await
            }
            (Endpoint::Blob { repository, digest }, verb) => {
                account.endpoint = "blob";
                // Who has it already gets no more than a head, and fetches nothing.
                if verb == Verb::Head || conditions.has(&digest) {
                    return self.blob_head(&repository, &digest, &conditions).await;
                }
                let puller = Puller { client: client.peer.caller(), repository };
                self.blob(puller, client.outlet, &digest, &conditions, account).await
            }
            (Endpoint::Tags { repository, name, page }, _) => {
                account.endpoint = "tags";
                Box::pin(self.tags(&repository, &name, &page)).await
            }
            (Endpoint::Referrers { repository, subject, artifact_type }, _) => {
                account.endpoint = "referrers";
                Box::pin(self.referrers(&repository, &subject, artifact_type.as_deref())).await
            }
            (Endpoint::Catalog { catalog, page }, _) => {
                account.endpoint = "catalog";
                Box::pin(self.catalog(&catalog, &page)).await
            }
        }
    }

    async fn manifest(
        &self,
        puller: Puller,
        reference: &Reference,
        verb: Verb,
        conditions: &Conditions,
        account: &mut Account,
    ) -> Response<Body> {
        let asked = match verb {
            Verb::Get => self.mirror.manifest(&puller.repository, reference).await,
            Verb::Head => self.mirror.manifest_head(&puller.repository, reference).await,
        };
        let found = match asked {
            Ok(found) => found,
            Err(error) => return response::manifest_error(&error),
        };
        self.note_manifest(&puller, reference, verb, &found);
        account.content = Some(Served {
            registry: puller.repository.registry().clone(),
            kind: "manifest",
            source: found.source,
            ahead: AheadBytes::default(),
        });
        response::manifest(found, verb, conditions)
    }

    fn note_manifest(&self, puller: &Puller, reference: &Reference, verb: Verb, found: &Found) {
        let content = found.content.as_deref().filter(|_| verb == Verb::Get);
        self.pulls.saw_manifest(puller, reference, content);
    }

    async fn blob_head(
        &self,
        repository: &Repository,
        digest: &Digest,
        conditions: &Conditions,
    ) -> Response<Body> {
        match self.mirror.blob_size(repository, digest).await {
            Ok(size) => response::blob_head(digest, size, conditions),
            Err(error) => response::blob_error(&error),
        }
    }

    async fn blob(
        &self,
        puller: Puller,
        outlet: Option<Outlet>,
        digest: &Digest,
        conditions: &Conditions,
        account: &mut Account,
    ) -> Response<Body> {
        let repository = puller.repository.clone();
        let pulled = PulledBlob { digest: digest.clone(), role: self.mirror.role(digest) };
        account.part = Some(Part::begin(&self.pulls, puller, pulled));
        let blob = match self.mirror.blob(&repository, digest).await {
            Ok(blob) => blob.through(outlet),
            Err(error) => return response::blob_error(&error),
        };
        account.content = Some(Served {
            registry: repository.registry().clone(),
            kind: "blob",
            source: blob.source(),
            ahead: blob.ahead_bytes(),
        });
        let is_kept = blob.source() != Source::Upstream;
        if is_kept && conditions.want_all(digest) {
            self.mirror.prefetch_after(&repository, digest);
        }
        response::blob(digest, blob, conditions)
    }

    async fn tags(&self, repository: &Repository, name: &str, page: &Page) -> Response<Body> {
        match self.mirror.tags(repository).await {
            Ok(listing) => response::tags(name, &listing, page),
            Err(error) => response::list_error(&error),
        }
    }

    async fn referrers(
        &self,
        repository: &Repository,
        subject: &Digest,
        artifact_type: Option<&str>,
    ) -> Response<Body> {
        match self.mirror.referrers(repository, subject, artifact_type).await {
            Ok(list) => response::referrers(list, artifact_type),
            Err(error) => response::referrers_error(&error),
        }
    }

    async fn catalog(&self, catalog: &Catalog, page: &Page) -> Response<Body> {
        match self.mirror.catalog().await {
            Ok(repositories) => response::catalog(&catalog.names(&repositories), page),
            Err(error) => response::list_error(&error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size<F>(_: impl Fn(&'static Handler, Client, Request<()>) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn the_state_of_a_request_is_small() {
        let size = size(|handler, client, request| handler.answer(client, request));
        assert!(size <= 4096, "{size} bytes");
    }
}
