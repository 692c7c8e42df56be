//! Where credentials come from, for people: everything about them but the secret.

use super::{Credentials, Source, helpers::Failure, watched::When};
use crate::{
    config::{DockerLogin, Identity},
    finding::Verdict,
    oci::Name,
};

impl Credentials {
    /// Who asks for something in a repository, or without a name at the registry itself, and which
    /// source says so.
    pub(in crate::upstream) async fn explained(&self, name: Option<&Name>) -> (Identity, Verdict) {
        let identity = self.learn(name, None).await;
        let verdict = match self.source(name) {
            Source::Stated(Identity::Anonymous) => Verdict::good("anonymous"),
            Source::Stated(_) => self.said(name, &identity, "password in the configuration"),
            Source::SecretFile { secret, .. } => {
                let file = format!("password_file {}", secret.path().display());
                self.said(name, &identity, &file)
            }
            Source::DockerConfig { file, .. } => {
                let origin = format!("docker_config {}", file.path().display());
                let content = file.content(When::Due).await;
                match content.login(&self.endpoint.host, &self.endpoint.repository(name)) {
                    Some(DockerLogin::Helper(helper)) => {
                        let origin = format!("{origin}, docker-credential-{helper}");
                        self.said_by(helper, name, &identity, &origin)
                    }
                    Some(DockerLogin::Identity(_)) => self.said(name, &identity, &origin),
                    None => Verdict::doubtful(format!(
                        "anonymous: {origin} has nothing for {}; log in there, or remove the key",
                        self.endpoint.host
                    )),
                }
            }
            Source::Helper { name: helper, .. } => {
                self.said_by(helper, name, &identity, &format!("credential_helper {helper}"))
            }
        };
        (identity, verdict)
    }

    /// The prefixes with credentials of their own that none of these repositories is below.
    pub(in crate::upstream) fn untried<'a>(&'a self, names: &[&Name]) -> Vec<&'a Name> {
        let tried: Vec<&Name> = names
            .iter()
            .filter_map(|name| self.own_source(Some(name)).map(|(prefix, _)| prefix))
            .collect();
        let prefixes = self.by_prefix.iter().map(|(prefix, _)| prefix);
        prefixes.filter(|prefix| !tried.contains(prefix)).collect()
    }

    fn said(&self, name: Option<&Name>, identity: &Identity, origin: &str) -> Verdict {
        let whose = match self.own_source(name) {
            Some((prefix, _)) => format!(" of prefix {prefix}"),
            None => String::new(),
        };
        Verdict::good(format!("{}: {origin}{whose}", who(identity)))
    }

    fn said_by(
        &self,
        helper: &str,
        name: Option<&Name>,
        identity: &Identity,
        origin: &str,
    ) -> Verdict {
        let server = self.question(helper).server;
        match self.helpers.last_failure(&self.question(helper)) {
            None => self.said(name, identity, origin),
            Some(Failure::NotFound) => Verdict::doubtful(format!(
                "anonymous: {origin} has nothing for {server}; log in there, or remove the key"
            )),
            Some(Failure::Broken(problem)) => Verdict::bad(format!(
                "anonymous: {origin} fails for {server}: {problem}; run it by hand"
            )),
        }
    }
}

fn who(identity: &Identity) -> String {
    match identity {
        Identity::Anonymous => "anonymous".to_owned(),
        Identity::User { name, .. } => name.clone(),
        Identity::Token(_) => "an identity token".to_owned(),
        Identity::RegistryToken(_) => "a registry token".to_owned(),
    }
}
