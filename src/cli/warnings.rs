//! What a configuration is warned of that Larder starts with all the same.

use std::{collections::BTreeMap, env, fs, os::unix::fs::PermissionsExt as _, path::Path};

use super::shown::size;
use crate::{
    config::{Config, CredentialSource, DockerConfig, DockerLogin, Endpoint, Size},
    oci::Registry,
};

/// Layers of this size are common.
const SMALL_CACHE: u64 = 1 << 30;

/// One line each. Looks for programs on the disk.
pub(super) fn of(config: &Config) -> impl Iterator<Item = String> {
    let read = config.warnings.iter().cloned();
    read.chain(config.exposed_accounts()).chain(missing_helpers(config)).chain(small_cache(config))
}

/// A cache that holds hardly an image.
fn small_cache(config: &Config) -> Option<String> {
    let Size::Bytes(limit) = config.cache.max_size else {
        return None;
    };
    (limit < SMALL_CACHE).then(|| {
        let place = config.written_at.place("cache.max_size");
        let (limit, least) = (size(limit), size(SMALL_CACHE));
        format!(
            "{place}: {limit} is less than {least}: larger layers are passed through and not kept"
        )
    })
}

/// A warning for each credential helper that is not there.
fn missing_helpers(config: &Config) -> impl Iterator<Item = String> {
    let mut users: BTreeMap<String, Vec<&Registry>> = BTreeMap::new();
    for upstream in &config.upstreams {
        for helper in upstream.endpoints.iter().flat_map(helpers) {
            let users = users.entry(helper).or_default();
            if users.last() != Some(&&upstream.registry) {
                users.push(&upstream.registry);
            }
        }
    }
    let missing = users.into_iter().filter(|(program, _)| !is_on_path(program));
    missing.map(|(program, users)| {
        let users: Vec<&str> = users.into_iter().map(Registry::as_str).collect();
        let users = users.join(", ");
        format!(
            "{program}: not on the PATH of this command; {users} would be asked without credentials"
        )
    })
}

/// The programs that an endpoint's credentials come from.
fn helpers(endpoint: &Endpoint) -> impl Iterator<Item = String> {
    let of_prefixes = endpoint.credentials.by_prefix.iter().map(|(_, source)| source);
    let sources = of_prefixes.chain(&endpoint.credentials.others);
    let names = sources.filter_map(|source| helper(source, endpoint));
    names.map(|name| format!("docker-credential-{name}"))
}

fn helper(source: &CredentialSource, endpoint: &Endpoint) -> Option<String> {
    match source {
        CredentialSource::Stated(_) | CredentialSource::SecretFile { .. } => None,
        CredentialSource::Helper { name, .. } => Some(name.clone()),
        CredentialSource::DockerConfig { file, .. } => {
            let file = DockerConfig::read(file).ok()?;
            // Helpers are named by host only.
            match file.login(endpoint.url.authority(), "")? {
                DockerLogin::Helper(name) => Some(name.to_owned()),
                DockerLogin::Identity(_) => None,
            }
        }
    }
}

fn is_on_path(program: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).any(|directory| is_executable(&directory.join(program)))
}

fn is_executable(file: &Path) -> bool {
    fs::metadata(file)
        .is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}
