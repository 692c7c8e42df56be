//! The registries that Larder mirrors, as their clients know them.

use crate::config::Upstream;

/// Docker Hub, whose images clients name without a registry.
const DOCKER_HUB: &str = "docker.io";

/// Where clients reach Docker Hub.
const DOCKER_HUB_SERVER: &str = "https://registry-1.docker.io";

/// A registry that Larder mirrors.
#[derive(Debug)]
pub(super) struct Registry {
    /// Its name in images: `docker.io`, `registry.corp:5000`.
    pub(super) name: String,
    /// Where clients find it without Larder: `https://registry-1.docker.io`.
    pub(super) server: String,
    /// Whether Larder takes bare names for its repositories.
    pub(super) is_default: bool,
}

impl Registry {
    /// The registry of an upstream.
    pub(super) fn of(upstream: &Upstream) -> Registry {
        let name = upstream.registry.as_str();
        // Larder may reach it elsewhere, which is nothing to its clients.
        let itself = upstream.endpoints.iter().find(|endpoint| endpoint.url.authority() == name);
        let server = match itself {
            Some(endpoint) => endpoint.url.origin().ascii_serialization(),
            None if name == DOCKER_HUB => DOCKER_HUB_SERVER.to_owned(),
            None => format!("https://{name}"),
        };
        Registry { name: name.to_owned(), server, is_default: upstream.default }
    }

    /// Whether it is Docker Hub.
    pub(super) fn is_docker_hub(&self) -> bool {
        self.name == DOCKER_HUB
    }

    /// Whether it is reached without TLS.
    pub(super) fn is_plain(&self) -> bool {
        self.server.starts_with("http:")
    }
}
