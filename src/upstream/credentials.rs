//! Who Larder is at one endpoint: one identity for each repository, from wherever it is written.

mod watched;

use crate::{
    config::{self, CredentialSource, Identity},
    oci::Name,
};

use self::watched::{Watched, When};
use super::SetupError;

/// The credentials for one endpoint.
pub(super) struct Credentials {
    /// For the repositories below each prefix, the longest prefix first.
    by_prefix: Vec<(Name, Source)>,
    others: Source,
}

/// Where an identity comes from.
enum Source {
    Stated(Identity),
    SecretFile { username: String, secret: Watched<String> },
}

impl Credentials {
    /// Reads the files that `config` names.
    pub(super) fn open(config: &config::Credentials) -> Result<Credentials, SetupError> {
        let of_prefix = |(prefix, source): &(Name, CredentialSource)| {
            Ok((prefix.clone(), Source::open(source)?))
        };
        let others = config.others.as_ref().map(Source::open).transpose()?;
        Ok(Credentials {
            by_prefix: config.by_prefix.iter().map(of_prefix).collect::<Result<_, _>>()?,
            others: others.unwrap_or(Source::Stated(Identity::Anonymous)),
        })
    }

    /// Who asks for something in a repository.
    pub(super) async fn identity(&self, name: &Name) -> Identity {
        self.source(name).identity(When::Due).await
    }

    /// Who asks after `refused` was refused; `None` if it can be nobody else.
    pub(super) async fn instead_of(&self, refused: &Identity, name: &Name) -> Option<Identity> {
        let identity = self.source(name).identity(When::Now).await;
        (identity != *refused).then_some(identity)
    }

    fn source(&self, name: &Name) -> &Source {
        let own = self.by_prefix.iter().find(|(prefix, _)| is_below(name, prefix));
        own.map_or(&self.others, |(_, source)| source)
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
        })
    }

    async fn identity(&self, when: When) -> Identity {
        match self {
            Source::Stated(identity) => identity.clone(),
            Source::SecretFile { username, secret } => {
                Identity::new(username, secret.content(when).await.to_string())
            }
        }
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
