//! `larder check`

use std::{
    collections::BTreeMap,
    env, fs,
    io::{self, Write as _},
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::ExitCode,
    sync::Arc,
};

use super::{Common, refuse};
use crate::{
    StartError,
    config::{Config, CredentialSource, DockerConfig, DockerLogin, Endpoint},
    oci::Registry,
};

#[derive(clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    common: Common,
}

pub(super) fn check(arguments: &Arguments) -> ExitCode {
    let config = match Config::load(&arguments.common.sources()) {
        Ok(config) => config,
        Err(error) => return refuse(&error),
    };
    if let Err(error) = look_into_files(&config) {
        return refuse(&error);
    }
    let warnings = config.warnings.iter().cloned();
    let warnings = warnings.chain(config.exposed_accounts()).chain(missing_helpers(&config));
    let mut output = io::stdout().lock();
    let written = warnings
        .map(|warning| format!("warning: {warning}"))
        .chain(["ok".to_owned()])
        .try_for_each(|line| writeln!(output, "{line}"));
    match written {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

/// Whether the certificates and keys that are named can be used.
fn look_into_files(config: &Config) -> Result<(), StartError> {
    crate::load_tls(config)?;
    crate::set_up_upstreams(config, Arc::default(), &Arc::default()).map(drop)
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
