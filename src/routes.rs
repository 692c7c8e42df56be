//! A request's method, path, query and host, parsed once into what is asked of which repository.
//! The set of registries is closed: nothing that a client names is ever dialled.
//!
//! Which registry is meant is decided by the first of these that says so: `ns` in the query, the
//! registry or alias that the path begins with, the host that the client reached this mirror by,
//! and the default upstream.

mod catalog;
mod conditions;
mod host;
mod page;
mod path;

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;

use std::{borrow::Cow, collections::HashMap};

use http::{HeaderMap, Method, Uri};
use percent_encoding::percent_decode_str;

pub use catalog::Catalog;
pub use conditions::Conditions;
pub use page::{Listed, Page};

use crate::{
    config,
    oci::{Digest, InvalidName, Name, Reference, Registry, Repository},
};
use host::Hosts;
use path::{Content, Kind, Place};

/// The longest path with its query, in bytes: that of a valid request has its names and a little more.
const MAX_TARGET: usize = 8 * 1024;

/// The ways in: which names stand for which registry.
#[derive(Debug)]
pub struct Routes {
    /// Registries and their aliases, in lower case.
    registries: HashMap<String, Registry>,
    hosts: Hosts,
    default: Option<Registry>,
}

/// A valid request.
#[derive(Debug, PartialEq, Eq)]
pub struct Route {
    /// GET or HEAD.
    pub verb: Verb,
    /// What is asked for.
    pub endpoint: Endpoint,
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
    /// What refers to a manifest: its signatures and other attachments.
    Referrers {
        /// Where they are looked for.
        repository: Repository,
        /// What they refer to.
        subject: Digest,
        /// The only `artifactType` that is wanted, if any.
        artifact_type: Option<String>,
    },
    /// The repositories of which something is here.
    Catalog {
        /// Which of them, and by what names.
        catalog: Catalog,
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
    /// Outside of the API.
    #[error("there is nothing here; the registry is at /v2/")]
    Elsewhere,
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

/// The registries that a request names, strongest first.
struct Named<'a> {
    /// By `ns`.
    namespace: Option<&'a Registry>,
    /// By what stands before `/v2/`.
    prefix: Option<&'a Registry>,
    /// By the host, for bare names.
    host: Option<&'a Registry>,
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
        Routes {
            registries,
            hosts: Hosts::new(upstreams),
            default: default.map(|upstream| upstream.registry.clone()),
        }
    }

    /// Finds out what is asked for. Of the headers only `Host` counts, and only where the URI has
    /// no authority (RFC 9112, section 3.2.2; HTTP/2 has it there always).
    pub fn parse(
        &self,
        method: &Method,
        uri: &Uri,
        headers: &HeaderMap,
    ) -> Result<Route, RouteError> {
        let verb = match *method {
            Method::GET => Verb::Get,
            Method::HEAD => Verb::Head,
            _ => return Err(RouteError::Method(method.clone())),
        };
        if uri.path_and_query().is_some_and(|target| target.as_str().len() > MAX_TARGET) {
            return Err(RouteError::Length);
        }
        let path = decoded(uri.path())?;
        let namespace = self.namespace(uri)?;
        let endpoint = match path::split(&path).ok_or(RouteError::Elsewhere)? {
            Place::Root => Endpoint::Greeting,
            Place::Api { prefix, rest } => {
                let prefix = prefix.map(|name| self.mirrored(name)).transpose()?;
                let host = self.hosts.registry(uri, headers);
                self.endpoint(rest, uri, &Named { namespace, prefix, host })?
            }
        };
        Ok(Route { verb, endpoint })
    }

    /// The registry that `ns` names, whatever else is wrong with the request.
    ///
    /// # Errors
    /// When it is not mirrored.
    pub fn namespace(&self, uri: &Uri) -> Result<Option<&Registry>, RouteError> {
        let namespace = page::value(uri, "ns").filter(|name| !name.is_empty());
        namespace.map(|name| self.mirrored(&name)).transpose()
    }

    fn registry(&self, name: &str) -> Option<&Registry> {
        if name.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return self.registries.get(&name.to_ascii_lowercase());
        }
        self.registries.get(name)
    }

    fn mirrored(&self, name: &str) -> Result<&Registry, RouteError> {
        self.registry(name).ok_or_else(|| RouteError::Registry(name.to_owned()))
    }

    fn endpoint(&self, rest: &str, uri: &Uri, named: &Named<'_>) -> Result<Endpoint, RouteError> {
        let (name, content) = match path::kind(rest).ok_or(RouteError::Endpoint)? {
            Kind::Version => return Ok(Endpoint::Version),
            Kind::Catalog { registry } => {
                let page = Page::parse(uri, named.namespace)?;
                return Ok(Endpoint::Catalog { catalog: self.catalog(registry, named)?, page });
            }
            Kind::Of { name, content } => (name, content),
        };
        let repository = self.repository(name, named)?;
        Ok(match content {
            Content::Manifest(reference) => {
                Endpoint::Manifest { repository, reference: reference.parse()? }
            }
            Content::Blob(digest) => Endpoint::Blob { repository, digest: parsed(digest)? },
            Content::Tags => {
                let page = Page::parse(uri, named.namespace)?;
                Endpoint::Tags { repository, name: name.to_owned(), page }
            }
            Content::Referrers(subject) => {
                let artifact_type = page::value(uri, "artifactType");
                let artifact_type = artifact_type.filter(|wanted| !wanted.is_empty());
                let artifact_type = artifact_type.map(Cow::into_owned);
                Endpoint::Referrers { repository, subject: parsed(subject)?, artifact_type }
            }
        })
    }

    /// Which repository is meant, and by what name it goes there.
    fn repository(&self, name: &str, named: &Named<'_>) -> Result<Repository, RouteError> {
        let (leading, inner) = name.split_once('/').unwrap_or((name, ""));
        let within = self.registry(leading).filter(|_| !inner.is_empty());
        let (registry, name) = match (named.registry()?, within) {
            // BuildKit and k3s name the registry twice.
            (Some(registry), Some(_)) if leading == registry.as_str() => (registry, inner),
            (Some(registry), Some(other)) if leading == other.as_str() => {
                return Err(under(other, registry));
            }
            (Some(registry), Some(_) | None) => (registry, name),
            (None, Some(registry)) => (registry, inner),
            (None, None) if leading.contains(':') => {
                return Err(RouteError::Registry(leading.to_owned()));
            }
            (None, None) => {
                let home = named.host.or(self.default.as_ref()).ok_or(RouteError::NoDefault)?;
                // Namespaces of Docker Hub have no dots: this is another registry's name.
                if is_docker_hub(home) && leading.contains('.') && !inner.is_empty() {
                    return Err(RouteError::Registry(leading.to_owned()));
                }
                (home, name)
            }
        };
        Ok(Repository::new(registry.clone(), name_in(registry, name)?))
    }

    /// Which repositories are listed. Behind `ns` or a prefix, no other registry is named.
    fn catalog(&self, within: Option<&str>, named: &Named<'_>) -> Result<Catalog, RouteError> {
        match (named.registry()?, within) {
            (Some(_), Some(_)) => Err(RouteError::Endpoint),
            (None, Some(name)) => Ok(Catalog::within(self.mirrored(name)?, name)),
            (Some(registry), None) => Ok(Catalog::of(registry)),
            (None, None) => match named.host {
                Some(registry) => Ok(Catalog::of(registry)),
                None => Ok(Catalog::of_all(self.default.as_ref())),
            },
        }
    }
}

impl<'a> Named<'a> {
    /// The registry that nothing in the name can change.
    fn registry(&self) -> Result<Option<&'a Registry>, RouteError> {
        match (self.namespace, self.prefix) {
            (Some(namespace), Some(prefix)) if namespace != prefix => Err(under(prefix, namespace)),
            (namespace, prefix) => Ok(namespace.or(prefix)),
        }
    }
}

fn under(inner: &Registry, outer: &Registry) -> RouteError {
    RouteError::Registry(format!("{inner} under {outer}"))
}

/// A path without percent-encoding. Hardly a client encodes anything, and decoding looks at byte after byte.
fn decoded(path: &str) -> Result<Cow<'_, str>, InvalidName> {
    if !path.contains('%') {
        return Ok(Cow::Borrowed(path));
    }
    percent_decode_str(path).decode_utf8().map_err(|_| InvalidName::Name)
}

fn parsed(digest: &str) -> Result<Digest, InvalidName> {
    Ok(digest.parse::<Digest>()?)
}

/// Official images are in `library/` on Docker Hub, whatever a user types.
fn name_in(registry: &Registry, name: &str) -> Result<Name, InvalidName> {
    if is_docker_hub(registry) && !name.contains('/') {
        return format!("library/{name}").parse();
    }
    name.parse()
}

fn is_docker_hub(registry: &Registry) -> bool {
    registry.as_str() == "docker.io"
}
