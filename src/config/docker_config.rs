//! Docker's `config.json`, Podman's `auth.json` and Kubernetes' `.dockerconfigjson`: one format
//! (docker/cli, configfile; containers-auth.json(5)).

use std::{collections::BTreeMap, fs, io, path::Path};

use base64::{
    Engine as _, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use serde::Deserialize;
use serde_json::error::Category;

use super::{credentials::Identity, value::is_helper_name};

/// Base64 as tools and people write it, padded or not.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// What clients call Docker Hub in such files. The first is what it is called here.
const DOCKER_HUB: [&str; 3] = ["docker.io", "index.docker.io", "registry-1.docker.io"];

/// What credential helpers know Docker Hub by.
const DOCKER_HUB_SERVER: &str = "https://index.docker.io/v1/";

/// The credentials in such a file. Has no `Debug`: it is all secret.
pub struct DockerConfig {
    /// By host, or by host and the first components of a repository: `quay.io/team`.
    auths: BTreeMap<String, Identity>,
    /// The helper of each host; an empty name is none, not even the store.
    helpers: BTreeMap<String, String>,
    /// The helper of all other hosts.
    store: Option<String>,
}

/// What such a file has for a repository.
#[derive(Debug, PartialEq, Eq)]
pub enum DockerLogin<'a> {
    /// This.
    Identity(&'a Identity),
    /// Whatever `docker-credential-<this>` says.
    Helper(&'a str),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Written {
    auths: Option<BTreeMap<String, Entry>>,
    cred_helpers: Option<BTreeMap<String, String>>,
    creds_store: Option<String>,
}

#[derive(Deserialize)]
struct Entry {
    /// Base64 of `user:password`.
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
    identitytoken: Option<String>,
    registrytoken: Option<String>,
}

impl DockerConfig {
    /// Reads a file.
    ///
    /// # Errors
    /// When it cannot be read or is no such file. The text shows no secret.
    pub fn read(file: &Path) -> io::Result<DockerConfig> {
        DockerConfig::parse(&fs::read_to_string(file)?).map_err(io::Error::other)
    }

    fn parse(text: &str) -> Result<DockerConfig, String> {
        let written: Written = serde_json::from_str(text).map_err(|error| mistake(&error))?;
        if written.auths.is_none()
            && written.cred_helpers.is_none()
            && written.creds_store.is_none()
        {
            return Err("it has none of auths, credHelpers and credsStore".to_owned());
        }
        let mut auths = BTreeMap::new();
        for (key, entry) in written.auths.unwrap_or_default() {
            let identity = entry.identity().map_err(|mistake| format!("auths {key:?}: {mistake}"));
            if let Some(identity) = identity? {
                auths.entry(canonical(&key)).or_insert(identity);
            }
        }
        let helpers = written.cred_helpers.unwrap_or_default();
        let store = written.creds_store.filter(|store| !store.is_empty());
        let mut named = helpers.values().chain(&store).filter(|name| !name.is_empty());
        if let Some(name) = named.find(|name| !is_helper_name(name)) {
            return Err(format!("{name:?} is no name of a credential helper"));
        }
        let helpers = helpers.into_iter().map(|(key, helper)| (canonical(&key), helper));
        Ok(DockerConfig { auths, helpers: helpers.collect(), store })
    }

    /// What there is for a repository of `host`, which may have a port. Helpers come before
    /// what is written, and of that the longest namespace wins.
    pub fn login(&self, host: &str, repository: &str) -> Option<DockerLogin<'_>> {
        let host = canonical(host);
        let helper = self.helpers.get(&host).or(self.store.as_ref());
        if let Some(helper) = helper.filter(|helper| !helper.is_empty()) {
            return Some(DockerLogin::Helper(helper));
        }
        let name = format!("{host}/{repository}");
        let mut names = std::iter::successors(Some(name.as_str()), |name| {
            name.rsplit_once('/').map(|(shorter, _)| shorter)
        });
        names.find_map(|name| self.auths.get(name)).map(DockerLogin::Identity)
    }
}

/// What a credential helper is asked for the credentials of `host`.
pub fn helper_server(host: &str) -> String {
    let host = canonical(host);
    if host == DOCKER_HUB[0] { DOCKER_HUB_SERVER.to_owned() } else { host }
}

impl Entry {
    /// `None`: an empty entry, which stands for what a helper has.
    fn identity(self) -> Result<Option<Identity>, String> {
        let given = |text: Option<String>| text.filter(|text| !text.is_empty());
        if let Some(token) = given(self.registrytoken) {
            return Ok(Some(Identity::RegistryToken(token)));
        }
        if let Some(token) = given(self.identitytoken) {
            return Ok(Some(Identity::Token(token)));
        }
        if let Some(auth) = given(self.auth) {
            let (username, password) =
                decoded(&auth).ok_or("auth is no base64 of user:password")?;
            return Ok(Some(Identity::new(&username, password)));
        }
        let login = given(self.username).zip(given(self.password));
        Ok(login.map(|(username, password)| Identity::new(&username, password)))
    }
}

fn decoded(auth: &str) -> Option<(String, String)> {
    let text = String::from_utf8(BASE64.decode(auth.trim()).ok()?).ok()?;
    let (username, password) = text.split_once(':')?;
    Some((username.to_owned(), password.trim_end_matches('\0').to_owned()))
}

/// A key as `host` or `host/namespace`. Docker writes URLs, whose path means nothing.
fn canonical(key: &str) -> String {
    let bare = ["https://", "http://"].iter().find_map(|scheme| key.strip_prefix(scheme));
    let (host, namespace) = match bare.unwrap_or(key).split_once('/') {
        Some((host, path)) if bare.is_none() => (host, path.trim_end_matches('/')),
        Some((host, _)) => (host, ""),
        None => (bare.unwrap_or(key), ""),
    };
    let host = host.to_lowercase();
    let host = host.strip_suffix(":443").unwrap_or(&host);
    let host = if DOCKER_HUB.contains(&host) { DOCKER_HUB[0] } else { host };
    match namespace {
        "" | "v1" | "v2" => host.to_owned(),
        namespace => format!("{host}/{namespace}"),
    }
}

/// Where the text is wrong. serde's own words may show a part of it.
fn mistake(error: &serde_json::Error) -> String {
    let what = match error.classify() {
        Category::Data => "it is not as Docker writes it",
        Category::Syntax | Category::Eof | Category::Io => "it is no JSON",
    };
    format!("{what}: line {}", error.line())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(name: &str, password: &str) -> Identity {
        Identity::User { name: name.to_owned(), password: password.to_owned() }
    }

    #[test]
    fn every_kind_of_entry_is_understood() {
        let table = [
            (r#"{"auth":"YW5uYTpvbmU6dHdv"}"#, Some(user("anna", "one:two"))),
            (r#"{"auth":"YW5uYTpvbmUAAA"}"#, Some(user("anna", "one"))),
            (r#"{"auth":"YW5uYTpvbmU=\n","email":"a@b"}"#, Some(user("anna", "one"))),
            (r#"{"username":"anna","password":"one"}"#, Some(user("anna", "one"))),
            (
                r#"{"auth":"PHRva2VuPjpzM2NyZXQ=","username":"x"}"#,
                Some(Identity::Token("s3cret".into())),
            ),
            (
                r#"{"auth":"YW5uYTo=","identitytoken":"s3cret"}"#,
                Some(Identity::Token("s3cret".into())),
            ),
            (r#"{"registrytoken":"s3cret"}"#, Some(Identity::RegistryToken("s3cret".into()))),
            ("{}", None),
            (r#"{"auth":"","username":"anna"}"#, None),
        ];
        for (entry, want) in table {
            let file = DockerConfig::parse(&format!(r#"{{"auths":{{"quay.io":{entry}}}}}"#));
            let file = file.unwrap();
            let want = want.as_ref().map(DockerLogin::Identity);
            assert_eq!(file.login("quay.io", "team/app"), want, "{entry}");
            assert_eq!(file.login("ghcr.io", "team/app"), None);
        }
    }

    #[test]
    fn keys_fold_to_hosts_and_the_longest_namespace_wins() {
        let names = |keys: &[&str], host: &str, repository: &str| {
            let entry = |key: &&str| format!(r#""{key}":{{"username":"{key}","password":"p"}}"#);
            let entries: Vec<String> = keys.iter().map(entry).collect();
            let file = DockerConfig::parse(&format!(r#"{{"auths":{{{}}}}}"#, entries.join(",")));
            match file.unwrap().login(host, repository) {
                Some(DockerLogin::Identity(Identity::User { name, .. })) => name.clone(),
                _ => String::new(),
            }
        };
        let namespaces = ["quay.io/team/app", "quay.io/team", "quay.io"];
        for (keys, host, repository, want) in [
            (&namespaces[..], "quay.io", "team/app", "quay.io/team/app"),
            (&namespaces, "quay.io", "team/apple", "quay.io/team"),
            (&namespaces, "quay.io", "teamster/app", "quay.io"),
            (&namespaces[..2], "quay.io", "teamster/app", ""),
            (
                &["https://index.docker.io/v1/"],
                "registry-1.docker.io",
                "library/x",
                "https://index.docker.io/v1/",
            ),
            (&["docker.io/team"], "registry-1.docker.io", "team/x", "docker.io/team"),
            (&["index.docker.io/v1/"], "docker.io", "library/x", "index.docker.io/v1/"),
            (&["https://quay.io/team"], "quay.io", "other/x", "https://quay.io/team"),
            (&["Art.Corp:5000"], "art.corp:5000", "a/b", "Art.Corp:5000"),
            (&["art.corp:5000"], "art.corp", "a/b", ""),
            (&["art.corp:443"], "art.corp", "a/b", "art.corp:443"),
            (&["corp"], "art.corp", "a/b", ""),
        ] {
            assert_eq!(names(keys, host, repository), want, "{keys:?} {host}/{repository}");
        }
    }

    #[test]
    fn helpers_come_first() {
        let file = r#"{"auths":{"quay.io":{"auth":"YTpi"}},"credHelpers":{"https://index.docker.io/v1/":"hub"},"credsStore":"all"}"#;
        let file = DockerConfig::parse(file).unwrap();
        assert_eq!(file.login("registry-1.docker.io", "a/b"), Some(DockerLogin::Helper("hub")));
        assert_eq!(file.login("quay.io", "a/b"), Some(DockerLogin::Helper("all")));
        assert_eq!(helper_server("registry-1.docker.io"), "https://index.docker.io/v1/");
        assert_eq!(helper_server("quay.io"), "quay.io");
    }

    #[test]
    fn a_host_without_a_helper_has_what_is_written() {
        let file = r#"{"auths":{"quay.io":{"auth":"YTpi"}},"credHelpers":{"quay.io":""},"credsStore":"all"}"#;
        let file = DockerConfig::parse(file).unwrap();
        let written = user("a", "b");
        assert_eq!(file.login("quay.io", "a/b"), Some(DockerLogin::Identity(&written)));
        assert_eq!(file.login("ghcr.io", "a/b"), Some(DockerLogin::Helper("all")));
    }

    #[test]
    fn mistakes_show_no_secret() {
        let table = [
            ("", "it is no JSON: line 1"),
            ("{\n\"auths\": s3cret", "it is no JSON: line 2"),
            ("{\"auths\":\n\"s3cret\"}", "it is not as Docker writes it: line 2"),
            ("{}", "it has none of auths, credHelpers and credsStore"),
            (
                r#"{"auths":{"quay.io":{"auth":"s3cret"}}}"#,
                "auths \"quay.io\": auth is no base64 of user:password",
            ),
            (r#"{"credsStore":"../x"}"#, "\"../x\" is no name of a credential helper"),
        ];
        for (text, want) in table {
            assert_eq!(DockerConfig::parse(text).err().as_deref(), Some(want), "{text}");
        }
    }
}
