//! The host by which a client reached this mirror, as a way to name a registry.

use std::collections::HashMap;

use http::{HeaderMap, Uri, header::HOST, uri::Authority};

use crate::{config, oci::Registry};

/// Registries by the hosts that stand for them (`server_names`).
#[derive(Debug)]
pub(super) struct Hosts(HashMap<String, Registry>);

impl Hosts {
    /// The hosts of `upstreams`.
    pub(super) fn new(upstreams: &[config::Upstream]) -> Hosts {
        let names = |upstream: &config::Upstream| {
            let registry = upstream.registry.clone();
            let names = upstream.server_names.clone().into_iter();
            names.map(move |name| (name.to_ascii_lowercase(), registry.clone()))
        };
        Hosts(upstreams.iter().flat_map(names).collect())
    }

    /// The registry that the request's host stands for. A name with that port goes before one
    /// without a port, which stands for all of them.
    pub(super) fn registry(&self, uri: &Uri, headers: &HeaderMap) -> Option<&Registry> {
        if self.0.is_empty() {
            return None;
        }
        let authority = uri.authority().cloned().or_else(|| {
            let host = headers.get(HOST)?;
            Authority::try_from(host.as_bytes()).ok()
        })?;
        let host = authority.host().to_ascii_lowercase();
        let host = host.strip_suffix('.').unwrap_or(&host);
        let with_port = authority.port_u16().map(|port| format!("{host}:{port}"));
        with_port.and_then(|name| self.0.get(&name)).or_else(|| self.0.get(host))
    }
}
