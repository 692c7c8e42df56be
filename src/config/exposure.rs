//! What a configuration lets others do with the operator's accounts.

use super::{Config, Glob, Upstream};

impl Upstream {
    /// Whether everything that the credentials may see is for everyone who may ask Larder.
    pub fn shares_everything(&self) -> bool {
        self.share_private.contains(&Glob::everything())
    }

    fn has_credentials(&self) -> bool {
        self.endpoints.iter().any(|endpoint| !endpoint.credentials.is_empty())
    }

    fn exposed(&self) -> String {
        let globs: Vec<&str> = self.share_private.iter().map(Glob::as_str).collect();
        match globs.as_slice() {
            _ if self.shares_everything() => "everything that its credentials may see".to_owned(),
            [] => "its public repositories, at the expense of its credentials".to_owned(),
            globs => format!("its public repositories and private ones in {}", globs.join(", ")),
        }
    }
}

impl Config {
    /// A warning for each upstream whose credentials serve whoever the default of `access.allow` lets
    /// in: nobody has said that they should.
    pub fn exposed_accounts(&self) -> Vec<String> {
        if self.written_at.has("access.allow") {
            return Vec::new();
        }
        let who = match self.listens_on_loopback_only() {
            true => "everyone on this machine",
            false => "every client in a loopback, private or unique local network",
        };
        let exposed = self.upstreams.iter().filter(|upstream| upstream.has_credentials());
        let warning = |upstream: &Upstream| {
            let (registry, what) = (&upstream.registry, upstream.exposed());
            format!(
                "{registry} has credentials, and access.allow is not set: {who} may pull {what}; \
                 set allow in [access] to say who may"
            )
        };
        exposed.map(warning).collect()
    }
}
