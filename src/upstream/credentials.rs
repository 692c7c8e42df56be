//! Who Larder is at one endpoint: one identity for each repository, from wherever it is written.

mod explained;
mod helpers;
mod watched;

use std::{sync::Arc, time::Duration};

use url::Url;

use crate::{
    config::{self, CredentialSource, DockerConfig, DockerLogin, Identity, helper_server},
    oci::Name,
};

use self::{
    helpers::{Question, Reason},
    watched::{Watched, When},
};
use super::SetupError;

pub use helpers::Helpers;

/// The credentials for one endpoint.
pub(super) struct Credentials {
    /// For the repositories below each prefix, the longest prefix first.
    by_prefix: Vec<(Name, Source)>,
    others: Source,
    endpoint: Place,
    helpers: Arc<Helpers>,
}

/// Where an identity comes from.
enum Source {
    Stated(Identity),
    SecretFile { username: String, secret: Watched<String> },
    DockerConfig { file: Watched<DockerConfig>, helper_ttl: Duration },
    Helper { name: String, helper_ttl: Duration },
}

/// What an endpoint is in files and to helpers. What they have for another host, be it the
/// registry's own, is not for this one.
struct Place {
    /// The host, with a port unless it is the scheme's.
    host: String,
    /// Comes before the names of repositories: empty, or `prefix/`.
    prefix: String,
}

/// How a registry, or who gives out its tokens, says that it does not believe who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// 401.
    Unauthorized,
    /// 400 or 403, which may have another reason.
    Other,
}

impl Credentials {
    /// Reads the files that `config` names. `endpoint` is where the credentials are for, and
    /// `prefix` what its repositories' names begin with.
    pub(super) fn open(
        config: &config::Credentials,
        endpoint: &Url,
        prefix: &str,
        helpers: Arc<Helpers>,
    ) -> Result<Credentials, SetupError> {
        let of_prefix = |(prefix, source): &(Name, CredentialSource)| {
            Ok((prefix.clone(), Source::open(source)?))
        };
        let others = config.others.as_ref().map(Source::open).transpose()?;
        let host = endpoint.host_str().unwrap_or_default();
        let host = endpoint.port().map_or(host.to_owned(), |port| format!("{host}:{port}"));
        Ok(Credentials {
            by_prefix: config.by_prefix.iter().map(of_prefix).collect::<Result<_, _>>()?,
            others: others.unwrap_or(Source::Stated(Identity::Anonymous)),
            endpoint: Place { host, prefix: prefix.to_owned() },
            helpers,
        })
    }

    /// Who asks for something in a repository.
    pub(super) async fn identity(&self, name: &Name) -> Identity {
        self.learn(Some(name), None).await
    }

    /// Who asks after `refused` was refused; `None` if it can be nobody else.
    pub(super) async fn instead_of(
        &self,
        refused: &Identity,
        refusal: Refusal,
        name: &Name,
    ) -> Option<Identity> {
        let identity = self.learn(Some(name), Some(refusal)).await;
        (identity != *refused).then_some(identity)
    }

    /// Who asks, learnt afresh after a refusal; without a name, for no repository in particular.
    async fn learn(&self, name: Option<&Name>, refusal: Option<Refusal>) -> Identity {
        let when = if refusal.is_some() { When::Now } else { When::Due };
        let reason = |ttl| refusal.map_or(Reason::Needed(ttl), Reason::Refused);
        match self.source(name) {
            Source::Stated(identity) => identity.clone(),
            Source::SecretFile { username, secret } => {
                Identity::new(username, secret.content(when).await.to_string())
            }
            Source::DockerConfig { file, helper_ttl } => {
                let file = file.content(when).await;
                match file.login(&self.endpoint.host, &self.endpoint.repository(name)) {
                    None => Identity::Anonymous,
                    Some(DockerLogin::Identity(identity)) => identity.clone(),
                    Some(DockerLogin::Helper(name)) => self.ask(name, reason(*helper_ttl)).await,
                }
            }
            Source::Helper { name, helper_ttl } => self.ask(name, reason(*helper_ttl)).await,
        }
    }

    /// Whether a repository is asked for as anybody in particular, as far as the configuration tells:
    /// what files and helpers hold may be nothing, or may have been something.
    pub(super) fn are_for(&self, name: &Name) -> bool {
        !matches!(self.source(Some(name)), Source::Stated(Identity::Anonymous))
    }

    async fn ask(&self, helper: &str, reason: Reason) -> Identity {
        self.helpers.identity(&self.question(helper), reason).await
    }

    fn question(&self, helper: &str) -> Question {
        let server = helper_server(&self.endpoint.host);
        Question { helper: helper.to_owned(), server }
    }

    fn source(&self, name: Option<&Name>) -> &Source {
        self.own_source(name).map_or(&self.others, |(_, source)| source)
    }

    /// The source for the repositories below a prefix that this one is below, and the prefix.
    fn own_source(&self, name: Option<&Name>) -> Option<&(Name, Source)> {
        let name = name?;
        self.by_prefix.iter().find(|(prefix, _)| is_below(name, prefix))
    }
}

impl Place {
    /// What a repository is called here; without a name, what all names begin with.
    fn repository(&self, name: Option<&Name>) -> String {
        format!("{}{}", self.prefix, name.map_or("", Name::as_str))
    }
}

impl Source {
    fn open(source: &CredentialSource) -> Result<Source, SetupError> {
        Ok(match source {
            CredentialSource::Stated(identity) => Source::Stated(identity.clone()),
            CredentialSource::SecretFile { username, file } => Source::SecretFile {
                username: username.clone(),
                secret: Watched::open(file, config::read_secret)?,
            },
            CredentialSource::DockerConfig { file, helper_ttl } => Source::DockerConfig {
                file: Watched::open(file, DockerConfig::read)?,
                helper_ttl: *helper_ttl,
            },
            CredentialSource::Helper { name, helper_ttl } => {
                Source::Helper { name: name.clone(), helper_ttl: *helper_ttl }
            }
        })
    }
}

/// Whether a repository is `prefix` itself, or has it as its first components.
fn is_below(name: &Name, prefix: &Name) -> bool {
    let rest = name.as_str().strip_prefix(prefix.as_str());
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_ends_where_a_component_does() {
        let table = [
            ("team/app", "team", true),
            ("team", "team", true),
            ("team/app/x", "team/app", true),
            ("teamster/app", "team", false),
            ("a/team", "team", false),
        ];
        for (name, prefix, want) in table {
            let below = is_below(&name.parse().unwrap(), &prefix.parse().unwrap());
            assert_eq!(below, want, "{name} {prefix}");
        }
    }
}
