//! Who Larder is to a registry, and where that is written: the keys of `[[upstream]]`, of its
//! `[[upstream.credentials]]` and of an endpoint's table.

use std::{
    cmp::Reverse,
    fmt, fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use super::{reader::Section, value, written::Written};
use crate::oci::{Name, Registry};

/// The user name that marks a secret as an identity token (docker/cli, native_store.go).
const IDENTITY_TOKEN: &str = "<token>";

/// Keys of which one says who Larder is.
const SOURCES: [&str; 3] = ["username", "docker_config", "credential_helper"];

/// How long what a credential helper says is believed unless configured.
const HELPER_TTL: Duration = Duration::from_secs(15 * 60);

/// What an endpoint is shown, by repository.
#[derive(Clone, Debug, Default)]
pub struct Credentials {
    /// `[[upstream.credentials]]`: for the repositories below each prefix, the longest prefix first.
    pub by_prefix: Vec<(Name, CredentialSource)>,
    /// For all other repositories. `None`: nothing.
    pub others: Option<CredentialSource>,
}

/// Where credentials come from.
#[derive(Clone, Debug)]
pub enum CredentialSource {
    /// They are written in the configuration.
    Stated(Identity),
    /// The user name is; the secret is all that this file holds.
    SecretFile {
        /// The user name, or `<token>`.
        username: String,
        /// For [`read_secret`].
        file: PathBuf,
    },
    /// Docker's, Podman's or Kubernetes' own file has them.
    DockerConfig {
        /// For [`super::DockerConfig::read`].
        file: PathBuf,
        /// How long what a helper says is believed.
        helper_ttl: Duration,
    },
    /// A credential helper says them.
    Helper {
        /// `docker-credential-<name>`
        name: String,
        /// How long what it says is believed.
        helper_ttl: Duration,
    },
}

/// Who Larder is. `Debug` shows no secret.
#[derive(Clone, PartialEq, Eq)]
pub enum Identity {
    /// Nobody.
    Anonymous,
    /// A user with a password.
    User {
        /// The user name, which a token endpoint also gets as `account`.
        name: String,
        /// The password.
        password: String,
    },
    /// The holder of an OAuth2 refresh token, which Docker calls an identity token.
    Token(String),
    /// The holder of a token that the registry itself takes, and that nothing renews.
    RegistryToken(String),
}

impl Credentials {
    /// Whether nothing is shown to anybody.
    pub fn is_empty(&self) -> bool {
        self.by_prefix.is_empty() && self.others.is_none()
    }

    /// The credentials that stand directly in a section.
    pub(super) fn read(section: &mut Section<'_, '_>) -> Credentials {
        Credentials { by_prefix: Vec::new(), others: source(section) }
    }

    /// As [`Credentials::read`], with those that the section has for some of `registry`'s repositories.
    pub(super) fn read_with_prefixes(
        section: &mut Section<'_, '_>,
        registry: &Registry,
    ) -> Credentials {
        Credentials { by_prefix: by_prefix(section, registry), ..Credentials::read(section) }
    }
}

impl Identity {
    /// A user, or for the user name `<token>` the holder of an identity token, as Docker's
    /// credential helpers say it.
    pub fn new(username: &str, secret: String) -> Identity {
        match username {
            IDENTITY_TOKEN => Identity::Token(secret),
            name => Identity::User { name: name.to_owned(), password: secret },
        }
    }
}

/// The secret that a file holds, without the line break at its end.
///
/// # Errors
/// When it cannot be read, or is empty. The text shows neither content nor path.
pub fn read_secret(file: &Path) -> io::Result<String> {
    let content = fs::read_to_string(file)?;
    match content.trim_end_matches(['\r', '\n']) {
        "" => Err(io::Error::other("it is empty")),
        secret => Ok(secret.to_owned()),
    }
}

fn by_prefix(section: &mut Section<'_, '_>, registry: &Registry) -> Vec<(Name, CredentialSource)> {
    let mut by_prefix = Vec::new();
    for table in section.tables("credentials") {
        if let Some(entry) = of_prefix(section, table, registry, &by_prefix) {
            by_prefix.push(entry);
        }
    }
    by_prefix.sort_by_key(|(prefix, _)| Reverse(prefix.as_str().len()));
    by_prefix
}

fn of_prefix<'a>(
    section: &mut Section<'_, 'a>,
    table: Written<'a>,
    registry: &Registry,
    others: &[(Name, CredentialSource)],
) -> Option<(Name, CredentialSource)> {
    let mut keys = section.below("credentials", table)?;
    if !keys.has("prefix") {
        keys.wrong("prefix", "is missing; write for example prefix = \"team\"");
    }
    let prefix = keys.take_written("prefix", value::name);
    let source = source(&mut keys);
    let (prefix, origin) = prefix?;
    if others.iter().any(|(other, _)| *other == prefix) {
        keys.wrong_at(origin, "prefix", "has credentials already; write one of them");
    }
    if prefix.as_str().split('/').next() == Some(registry.as_str()) {
        let message = "begins with the registry's name; write only what comes after it";
        keys.wrong_at(origin, "prefix", message);
    }
    let is_stated = SOURCES.iter().chain(&["password", "password_file"]).any(|key| keys.has(key));
    if source.is_none() && !is_stated {
        keys.wrong_at(origin, "prefix", "has no credentials; add username and password_file");
    }
    Some((prefix, source?))
}

/// What the keys of one table say.
fn source(section: &mut Section<'_, '_>) -> Option<CredentialSource> {
    let login = login(section);
    let file = section.take("docker_config", value::docker_config);
    let helper = section.take("credential_helper", value::helper_name);
    let helper_ttl = section.take("helper_ttl", value::positive_duration).unwrap_or(HELPER_TTL);
    let stated: Vec<&str> = SOURCES.into_iter().filter(|key| section.has(key)).collect();
    match stated.as_slice() {
        [first, second, ..] => {
            section.wrong(second, &format!("stands beside {first}; write one of them"));
        }
        [] | ["username"] if section.has("helper_ttl") => {
            let message = "has no effect; add docker_config or credential_helper";
            section.wrong("helper_ttl", message);
        }
        [] | [_] => {}
    }
    let file = file.map(|file| CredentialSource::DockerConfig { file, helper_ttl });
    let helper = helper.map(|name| CredentialSource::Helper { name, helper_ttl });
    login.or(file).or(helper)
}

/// A user name with its password.
fn login(section: &mut Section<'_, '_>) -> Option<CredentialSource> {
    let username = section.take("username", value::text);
    let secret = secret(section);
    let secret_key = ["password", "password_file"].into_iter().find(|key| section.has(key));
    match (section.has("username"), secret_key) {
        (true, None) => section.wrong("username", "has no password; add password_file"),
        (false, Some(key)) => {
            section.wrong(key, "has no username; add username (\"<token>\" for an identity token)")
        }
        (true, Some(_)) | (false, None) => {}
    }
    let username = username?;
    Some(match secret? {
        Secret::Stated(secret) => CredentialSource::Stated(Identity::new(&username, secret)),
        Secret::File(file) => CredentialSource::SecretFile { username, file },
    })
}

enum Secret {
    Stated(String),
    File(PathBuf),
}

/// The password, or the file that holds it, whichever is written in the stronger place.
fn secret(section: &mut Section<'_, '_>) -> Option<Secret> {
    let stated = section.take_written("password", value::text);
    let in_file = section.take_written("password_file", value::secret_file);
    match (stated, in_file) {
        (Some((secret, stated)), Some((file, origin))) => {
            if stated.strength() == origin.strength() {
                let message = "stands beside password; write one of them";
                section.wrong_at(origin, "password_file", message);
            }
            let is_stated = stated.strength() > origin.strength();
            Some(if is_stated { Secret::Stated(secret) } else { Secret::File(file) })
        }
        (Some((secret, _)), None) => Some(Secret::Stated(secret)),
        (None, in_file) => in_file.map(|(file, _)| Secret::File(file)),
    }
}

/// Shows who, never the secret.
impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Identity::Anonymous => f.write_str("Anonymous"),
            Identity::User { name, .. } => f.debug_tuple("User").field(name).finish(),
            Identity::Token(_) => f.write_str("Token"),
            Identity::RegistryToken(_) => f.write_str("RegistryToken"),
        }
    }
}
