//! A request's method, path, query and headers, parsed once into what is asked of which
//! repository. The set of registries is closed: nothing that a client names is ever dialled.

mod conditions;
mod page;

use std::collections::HashMap;

use http::{Method, Uri};
use percent_encoding::percent_decode_str;

pub use conditions::Conditions;
pub use page::{Listed, Page};

use crate::{
    config,
    oci::{Digest, InvalidName, Name, Reference, Registry, Repository},
};

/// The longest path with its query, in bytes: that of a valid request has its names and a little more.
const MAX_TARGET: usize = 8 * 1024;

/// The ways in: which names stand for which registry.
#[derive(Debug)]
pub struct Routes {
    /// Registries and their aliases, in lower case.
    registries: HashMap<String, Registry>,
    default: Option<Registry>,
}

/// A valid request.
#[derive(Debug, PartialEq, Eq)]
pub struct Route {
    /// GET or HEAD.
    pub verb: Verb,
    /// What is asked for.
    pub endpoint: Endpoint,
    /// The `ns` that decided the registry, to be echoed as `OCI-Namespace`.
    pub namespace: Option<Registry>,
}

/// The methods of a registry that is only read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// With a body.
    Get,
    /// Headers only.
    Head,
}

/// What can be asked for.
#[derive(Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// `/`: a person, or a load balancer, looks whether anyone is here.
    Greeting,
    /// `/v2/`: a client looks whether this is a registry.
    Version,
    /// A manifest.
    Manifest {
        /// Where it is looked for.
        repository: Repository,
        /// What it is asked by.
        reference: Reference,
    },
    /// A blob.
    Blob {
        /// Where it is looked for.
        repository: Repository,
        /// Its name.
        digest: Digest,
    },
    /// The tags of a repository.
    Tags {
        /// Where they are looked for.
        repository: Repository,
        /// What the client calls it.
        name: String,
        /// The part that is wanted.
        page: Page,
    },
}

/// Why a request cannot be routed.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum RouteError {
    /// Neither GET nor HEAD.
    #[error("this mirror is read-only: {0} is not supported")]
    Method(Method),
    /// Longer than any valid path.
    #[error("the path is longer than {MAX_TARGET} bytes")]
    Length,
    /// No endpoint of the API.
    #[error("this mirror has no such endpoint")]
    Endpoint,
    /// `ns` or the path names a registry that is not configured.
    #[error("{0} is not mirrored here")]
    Registry(String),
    /// A bare name, and no default upstream.
    #[error("name the registry, as in /v2/<registry>/<name>: no default upstream is configured")]
    NoDefault,
    /// `n` is not how many entries a page shall have.
    #[error("n is not a number")]
    PageSize,
    /// The repository, tag or digest breaks the grammar.
    #[error(transparent)]
    Name(#[from] InvalidName),
}

impl Routes {
    /// The routes to `upstreams`.
    pub fn new(upstreams: &[config::Upstream]) -> Routes {
        let mut registries = HashMap::new();
        for upstream in upstreams {
            registries.insert(upstream.registry.as_str().to_owned(), upstream.registry.clone());
            for alias in &upstream.aliases {
                registries.insert(alias.to_ascii_lowercase(), upstream.registry.clone());
            }
        }
        let default = upstreams.iter().find(|upstream| upstream.default);
        Routes { registries, default: default.map(|upstream| upstream.registry.clone()) }
    }

    /// Finds out what is asked for.
    pub fn parse(&self, method: &Method, uri: &Uri) -> Result<Route, RouteError> {
        let verb = match *method {
            Method::GET => Verb::Get,
            Method::HEAD => Verb::Head,
            _ => return Err(RouteError::Method(method.clone())),
        };
        if uri.path_and_query().is_some_and(|target| target.as_str().len() > MAX_TARGET) {
            return Err(RouteError::Length);
        }
        let path =
            percent_decode_str(uri.path()).decode_utf8().map_err(|_| RouteError::Endpoint)?;
        let namespace = self.namespace(uri.query().unwrap_or_default())?;
        let endpoint = self.endpoint(&path, uri, namespace.as_ref())?;
        Ok(Route { verb, endpoint, namespace })
    }

    /// The registry that `ns` names. Other query keys are ignored.
    fn namespace(&self, query: &str) -> Result<Option<Registry>, RouteError> {
        let Some(value) = query.split('&').find_map(|pair| pair.strip_prefix("ns=")) else {
            return Ok(None);
        };
        let name = percent_decode_str(value).decode_utf8_lossy();
        let registry =
            self.registry(&name).ok_or_else(|| RouteError::Registry(name.into_owned()))?;
        Ok(Some(registry.clone()))
    }

    fn registry(&self, name: &str) -> Option<&Registry> {
        self.registries.get(&name.to_ascii_lowercase())
    }

    fn endpoint(
        &self,
        path: &str,
        uri: &Uri,
        namespace: Option<&Registry>,
    ) -> Result<Endpoint, RouteError> {
        if path == "/" {
            return Ok(Endpoint::Greeting);
        }
        let (prefix, rest) = split_version(path).ok_or(RouteError::Endpoint)?;
        let prefix = match prefix {
            Some(name) => {
                Some(self.registry(name).ok_or_else(|| RouteError::Registry(name.to_owned()))?)
            }
            None => None,
        };
        if rest.is_empty() {
            return Ok(Endpoint::Version);
        }
        let (name, kind) = split_kind(rest).ok_or(RouteError::Endpoint)?;
        let repository = self.repository(name, prefix, namespace)?;
        match kind {
            Kind::Manifest(reference) => {
                Ok(Endpoint::Manifest { repository, reference: reference.parse()? })
            }
            Kind::Blob(digest) => {
                let digest = digest.parse().map_err(InvalidName::Digest)?;
                Ok(Endpoint::Blob { repository, digest })
            }
            Kind::Tags => {
                let page = Page::parse(uri, namespace)?;
                Ok(Endpoint::Tags { repository, name: name.to_owned(), page })
            }
        }
    }

    /// Which repository is meant: by `ns`, by the path's registry, or of the default upstream.
    fn repository(
        &self,
        name: &str,
        prefix: Option<&Registry>,
        namespace: Option<&Registry>,
    ) -> Result<Repository, RouteError> {
        let registry = namespace.or(prefix);
        if let (Some(prefix), Some(registry)) = (prefix, registry)
            && prefix != registry
        {
            return Err(RouteError::Registry(format!("{prefix} under {registry}")));
        }
        let (leading, inner) = name.split_once('/').unwrap_or((name, ""));
        let named = self.registry(leading).filter(|_| !inner.is_empty());
        let (registry, name) = match (registry, named) {
            // BuildKit and k3s name the registry twice.
            (Some(registry), Some(_)) if leading == registry.as_str() => (registry, inner),
            (Some(registry), Some(other)) if leading == other.as_str() => {
                return Err(RouteError::Registry(format!("{other} under {registry}")));
            }
            (Some(registry), Some(_) | None) => (registry, name),
            (None, Some(registry)) => (registry, inner),
            (None, None) if leading.contains(':') => {
                return Err(RouteError::Registry(leading.to_owned()));
            }
            (None, None) => (self.default.as_ref().ok_or(RouteError::NoDefault)?, name),
        };
        Ok(Repository::new(registry.clone(), name_in(registry, name)?))
    }
}

/// Official images are in `library/` on Docker Hub, whatever a user types.
fn name_in(registry: &Registry, name: &str) -> Result<Name, InvalidName> {
    if registry.as_str() == "docker.io" && !name.contains('/') {
        return format!("library/{name}").parse();
    }
    name.parse()
}

/// What of a repository, by what is written behind its name.
enum Kind<'a> {
    Manifest(&'a str),
    Blob(&'a str),
    Tags,
}

/// Splits `/v2/rest` and `/<registry>/v2/rest`. The trailing slash of `/v2/` may be missing.
fn split_version(path: &str) -> Option<(Option<&str>, &str)> {
    let path = path.strip_prefix('/')?;
    if let Some(rest) = strip_version(path) {
        return Some((None, rest));
    }
    let (registry, rest) = path.split_once('/')?;
    Some((Some(registry), strip_version(rest)?))
}

fn strip_version(path: &str) -> Option<&str> {
    if path == "v2" { Some("") } else { path.strip_prefix("v2/") }
}

/// Splits `name/manifests/reference` from the end: names may have components called
/// `manifests`, `blobs` or `tags`.
fn split_kind(rest: &str) -> Option<(&str, Kind<'_>)> {
    let (rest, last) = rest.rsplit_once('/')?;
    let (name, kind) = rest.rsplit_once('/')?;
    let kind = match (kind, last) {
        ("manifests", reference) => Kind::Manifest(reference),
        ("blobs", digest) => Kind::Blob(digest),
        ("tags", "list") => Kind::Tags,
        _ => return None,
    };
    Some((name, kind))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn upstream(registry: &str, alias: &str, default: bool) -> config::Upstream {
        config::Upstream {
            registry: registry.parse().unwrap(),
            endpoints: Vec::new(),
            aliases: vec![alias.to_owned()],
            default,
            tag_ttl: std::time::Duration::ZERO,
            trusted_realms: Vec::new(),
        }
    }

    fn routes() -> Routes {
        Routes::new(&[
            upstream("docker.io", "hub.corp", true),
            upstream("quay.io:443", "quay.corp", false),
        ])
    }

    fn repository(uri: &str) -> Result<String, RouteError> {
        let route = routes().parse(&Method::GET, &uri.parse().unwrap())?;
        match route.endpoint {
            Endpoint::Manifest { repository, .. }
            | Endpoint::Blob { repository, .. }
            | Endpoint::Tags { repository, .. } => Ok(repository.to_string()),
            other @ (Endpoint::Greeting | Endpoint::Version) => panic!("{uri}: {other:?}"),
        }
    }

    #[test]
    fn each_way_in_leads_to_its_registry() {
        let cases = [
            ("/v2/busybox/manifests/1", "docker.io/library/busybox"),
            ("/v2/a/b/manifests/1", "docker.io/a/b"),
            ("/v2/docker.io/busybox/manifests/1", "docker.io/library/busybox"),
            ("/v2/quay.io:443/a/manifests/1", "quay.io:443/a"),
            ("/v2/quay.io%3A443/a/manifests/1", "quay.io:443/a"),
            ("/v2/quay.corp/a/b/manifests/1", "quay.io:443/a/b"),
            ("/QUAY.corp/v2/a/b/manifests/1", "quay.io:443/a/b"),
            ("/v2/a/b/manifests/1?ns=quay.io:443", "quay.io:443/a/b"),
            ("/v2/quay.io:443/a/manifests/1?ns=quay.io%3A443", "quay.io:443/a"),
            ("/quay.corp/v2/a/manifests/1?x=1&ns=quay.io:443", "quay.io:443/a"),
            ("/v2/quay.corp/a/manifests/1?ns=quay.io:443", "quay.io:443/quay.corp/a"),
            ("/v2/busybox/manifests/1?ns=docker.io", "docker.io/library/busybox"),
            ("/v2/manifests/blobs/manifests/1", "docker.io/manifests/blobs"),
            ("/v2/busybox/tags/list", "docker.io/library/busybox"),
            ("/v2/quay.corp/tags/list/tags/list?n=1", "quay.io:443/tags/list"),
            ("/quay.corp/v2/a/manifests/tags/list", "quay.io:443/a/manifests"),
            ("/v2/a/tags/manifests/list", "docker.io/a/tags"),
        ];
        for (uri, expected) in cases {
            assert_eq!(repository(uri).as_deref(), Ok(expected), "{uri}");
        }
    }

    #[test]
    fn the_set_of_registries_is_closed() {
        for uri in [
            "/v2/a/manifests/1?ns=evil.example",
            "/v2/localhost:5000/a/manifests/1",
            "/evil.example/v2/a/manifests/1",
            "/v2/quay.io:443/a/manifests/1?ns=docker.io",
            "/quay.corp/v2/a/manifests/1?ns=docker.io",
        ] {
            assert!(matches!(repository(uri), Err(RouteError::Registry(_))), "{uri}");
        }
    }

    #[test]
    fn what_is_malformed_is_named() {
        let digest = format!("sha256:{}", "0".repeat(64));
        assert_eq!(repository(&format!("/v2/A/blobs/{digest}")), Err(InvalidName::Name.into()));
        assert!(matches!(
            repository("/v2/a/blobs/latest"),
            Err(RouteError::Name(InvalidName::Digest(_)))
        ));
        assert_eq!(repository("/v2/a/manifests/-x"), Err(InvalidName::Tag.into()));
        assert_eq!(repository("/v2/a/../b/manifests/1"), Err(InvalidName::Name.into()));
        assert_eq!(repository("/v2/a/tags/list?n=x"), Err(RouteError::PageSize));
        for uri in
            ["/v1/", "/v2/a", "/v2/a/b", "/v2/tags/list", "/v2/a/tags/1", "/v2/%ff/manifests/1"]
        {
            assert_eq!(repository(uri), Err(RouteError::Endpoint), "{uri}");
        }
    }

    #[test]
    fn the_version_endpoint_needs_no_slash_and_no_default() {
        for uri in ["/v2", "/v2/", "/v2/?ns=docker.io", "/quay.corp/v2/"] {
            let route = Routes::new(&[upstream("docker.io", "quay.corp", false)])
                .parse(&Method::HEAD, &uri.parse().unwrap());
            assert_eq!(route.unwrap().endpoint, Endpoint::Version, "{uri}");
        }
    }
}
