//! No secret of ours or of a client's is ever written anywhere: not into the log, however much is
//! logged, not into answers, metrics or the admin API, not where something goes wrong.
//!
//! Every secret has the word `s3cret` in it, is a login in Base64, or a token of a fake registry.

use std::{collections::BTreeMap, fs, path::Path};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use futures_util::future::join_all;
use larder::{
    config::{Config, Sources},
    oci::Digest,
};
use serde_json::json;
use toml::{Table, Value};

use crate::support::{
    Auth, FakeRegistry, Fault, Image, TestMirror, Upstream,
    binary::{Daemon, run},
    helper::Helpers,
    mirror::{Builder, blob_url, manifest_path},
    sha256,
};

/// A kind of secret: the name of its registry, and whom that lets in.
const KINDS: [(&str, Auth); 8] = [
    ("stated.test", Auth::PasswordToken("anna", "s3cret-stated")),
    ("file.test", Auth::Basic("anna", "s3cret-file")),
    ("prefix.test", Auth::PasswordToken("anna", "s3cret-prefix")),
    ("variable.test", Auth::PasswordToken("anna", "s3cret-variable")),
    ("docker.test", Auth::PasswordToken("anna", "s3cret-docker")),
    ("identity.test", Auth::IdentityToken("s3cret-identity")),
    ("registry.test", Auth::RegistryToken("s3cret-registry")),
    ("helper.test", Auth::Basic("anna", "s3cret-helper")),
];

/// What a client shows that has nothing to show: its secret is not ours to see.
const STRAY: &str = "Basic Ym9iOnMzY3JldC1jbGllbnQ=";

const VARIABLE: (&str, &str) = ("LARDER_UPSTREAM_VARIABLE_TEST_PASSWORD", "s3cret-variable");

/// What a redirect to storage holds.
const SIGNED: &str = "blob?X-Amz-Signature=s3cret-signature&X-Amz-Expires=300";

/// A registry for each kind of secret, and the files that some of them are in.
struct Setting {
    registries: Vec<(&'static str, FakeRegistry)>,
    storage: FakeRegistry,
    helpers: Helpers,
    image: Image,
}

impl Setting {
    async fn start() -> Setting {
        let helpers = Helpers::new();
        helpers.put_user("test", "anna", "s3cret-helper");
        let image = Image::random(1);
        let mut registries = Vec::new();
        for (name, auth) in KINDS {
            let registry = FakeRegistry::builder().auth(auth).start().await;
            registry.put_image("a/good", "latest", &image);
            registry.put_image("a/bad", "latest", &image);
            registries.push((name, registry));
        }
        let setting = Setting { registries, storage: FakeRegistry::start().await, helpers, image };
        fs::write(setting.file("password"), "s3cret-file\n").unwrap();
        let auths: serde_json::Map<_, _> = [
            ("docker.test", json!({ "auth": base64("anna:s3cret-docker") })),
            ("identity.test", json!({ "auth": "YW5uYTo=", "identitytoken": "s3cret-identity" })),
            ("registry.test", json!({ "registrytoken": "s3cret-registry" })),
        ]
        .into_iter()
        .map(|(name, entry)| (setting.registry(name).address().to_string(), entry))
        .collect();
        fs::write(setting.file("config.json"), json!({ "auths": auths }).to_string()).unwrap();
        setting
    }

    fn registry(&self, name: &str) -> &FakeRegistry {
        &self.registries.iter().find(|(known, _)| *known == name).unwrap().1
    }

    fn file(&self, name: &str) -> String {
        self.helpers.path().join(name).to_str().unwrap().to_owned()
    }

    fn mirror(&self, format: &str) -> Builder {
        let mirror = TestMirror::builder().set("log.level", "trace").set("log.format", format);
        self.registries.iter().fold(mirror, |mirror, (name, registry)| {
            mirror.upstream(self.with_credentials(name, Upstream::named(name, registry)))
        })
    }

    fn with_credentials(&self, name: &str, upstream: Upstream) -> Upstream {
        match name {
            "stated.test" => upstream.credentials("anna", "s3cret-stated"),
            "file.test" => {
                upstream.set("username", "anna").set("password_file", self.file("password"))
            }
            "prefix.test" => {
                let keys = [("prefix", "a"), ("username", "anna"), ("password", "s3cret-prefix")];
                let keys = keys.map(|(key, value)| (key.to_owned(), value.into()));
                upstream.set("credentials", vec![Value::from(Table::from_iter(keys))])
            }
            "variable.test" => upstream.set("username", "anna"),
            "helper.test" => upstream.set("credential_helper", "test"),
            _ => upstream.set("docker_config", self.file("config.json")),
        }
    }

    async fn daemon(&self, format: &str) -> Daemon {
        let system = std::env::var("PATH").unwrap();
        let path = format!("{}:{system}", self.helpers.path().display());
        Daemon::start_with(self.mirror(format), &[("PATH", &path), VARIABLE]).await
    }

    /// Pulls what every registry gives.
    async fn pull_all(&self, daemon: &Daemon) -> String {
        let mut seen = String::new();
        for (name, _) in &self.registries {
            let repository = format!("{name}/a/good");
            for path in paths(&repository, &self.image) {
                let answer = ask(daemon, "GET", &path).await;
                assert!(answer.starts_with("Response { status: 200"), "{path}: {answer}");
                seen += &answer;
            }
        }
        seen
    }

    /// Asks for what every registry fails to give, in all ways.
    async fn fail_all(&self, daemon: &Daemon) -> String {
        let asks = self.registries.iter().map(async |(name, _)| {
            let repository = format!("{name}/a/bad");
            let mut seen = String::new();
            let others = [
                format!("/v2/{repository}/tags/list"),
                format!("/v2/{repository}/referrers/{}", self.image.digest()),
                blob_url(&repository, &sha256(b"absent")),
            ];
            for path in paths(&repository, &self.image).chain(others) {
                for method in ["HEAD", "GET"] {
                    seen += &ask(daemon, method, &path).await;
                }
            }
            seen
        });
        join_all(asks).await.concat()
    }
}

fn paths(repository: &str, image: &Image) -> impl Iterator<Item = String> {
    let blobs: Vec<Digest> = image.blobs().map(|blob| sha256(blob)).collect();
    let manifest = manifest_path(repository, "latest");
    let repository = repository.to_owned();
    let blobs = blobs.into_iter().map(move |digest| blob_url(&repository, &digest));
    [manifest].into_iter().chain(blobs)
}

/// All that a client sees of an answer.
async fn ask(daemon: &Daemon, method: &str, path: &str) -> String {
    shown(daemon.client().request(method, path, &[("authorization", STRAY)]).await).await
}

async fn shown(response: crate::support::Response) -> String {
    let head = format!("{response:?}");
    let body = response.bytes().await;
    format!("{head}\n{}\n", String::from_utf8_lossy(&body))
}

fn base64(login: &str) -> String {
    BASE64_STANDARD.encode(login)
}

/// # Panics
/// When a secret is in a text.
fn assert_clean(what: &str, text: &str) {
    let mut logins = Vec::new();
    for (_, auth) in KINDS {
        if let Auth::PasswordToken(user, password) | Auth::Basic(user, password) = auth {
            logins.push(base64(&format!("{user}:{password}")));
        }
    }
    let identity = base64(":s3cret-identity");
    let others = ["s3cret", "token-1", "token-2", &STRAY["Basic ".len()..], &identity];
    for secret in logins.into_iter().chain(others.map(str::to_owned)) {
        if let Some(line) = text.lines().find(|line| line.contains(&secret)) {
            panic!("{secret} in {what}: {line}");
        }
    }
}

/// Pulls from all registries before and after `cause` was done to each of them, which is given the
/// storage too, and looks for secrets in all that can be seen.
async fn trouble(format: &str, cause: impl Fn(&FakeRegistry, &FakeRegistry)) -> Setting {
    let setting = Setting::start().await;
    let daemon = setting.daemon(format).await;
    let mut answers = setting.pull_all(&daemon).await;
    for (_, registry) in &setting.registries {
        cause(registry, &setting.storage);
    }
    answers += &setting.fail_all(&daemon).await;
    for path in ["/metrics", "/api/v1/upstreams", "/healthz", "/readyz"] {
        answers += &shown(daemon.admin().get(path).await).await;
    }
    assert_clean("an answer", &answers);
    end(daemon).await;
    setting
}

/// Stops a daemon and looks through its log.
async fn end(mut daemon: Daemon) {
    daemon.signal("TERM");
    daemon.ended().await;
    let log = daemon.log();
    assert!(log.contains("a/good"), "{log}");
    assert_clean("the log", &log);
}

/// Registries that repeat in their errors what they were shown.
#[tokio::test(flavor = "multi_thread")]
async fn an_echo_of_the_registry_is_not_passed_on() {
    for (status, format) in
        [(400, "text"), (401, "json"), (403, "text"), (404, "text"), (429, "json"), (500, "text")]
    {
        let setting = trouble(format, |registry, _| {
            for method in ["GET", "HEAD"] {
                registry.on(method, "/v2/a/bad/*", Fault::echo(status));
            }
        })
        .await;
        for (name, registry) in &setting.registries {
            let asked = registry.requests();
            let shown = asked.iter().filter(|request| request.path.starts_with("/v2/a/bad/"));
            let shown = shown.filter(|request| request.header("authorization").is_some());
            assert!(shown.count() > 0, "{name}: {status}");
        }
    }
}

/// Token servers that do, and those that issue what is no token.
#[tokio::test(flavor = "multi_thread")]
async fn an_echo_of_the_token_server_is_not_passed_on() {
    for (status, format) in
        [(200, "text"), (400, "text"), (401, "text"), (403, "json"), (429, "text"), (500, "json")]
    {
        let setting = trouble(format, |registry, _| {
            registry.expire_tokens();
            for method in ["GET", "POST"] {
                registry.on(method, "/token", Fault::echo(status));
            }
        })
        .await;
        for name in ["stated.test", "prefix.test", "variable.test", "docker.test"] {
            assert!(setting.registry(name).count("GET", "/token") > 1, "{name}: {status}");
        }
        assert!(setting.registry("identity.test").count("POST", "/token") > 1, "{status}");
    }
}

/// Redirects to URLs that are signed, to storage that repeats them, and to where none may lead.
#[tokio::test(flavor = "multi_thread")]
async fn the_url_of_a_redirect_is_not_passed_on() {
    for (format, scheme_and_user, host) in [
        ("text", "http://", None),
        ("json", "http://bob:s3cret-user@", None),
        ("text", "http://bob:s3cret-user@", Some("169.254.169.254")),
        ("text", "ftp://bob:s3cret-user@", Some("storage.test")),
        ("json", "http://s3cret:", Some("[::g]")),
    ] {
        let setting = trouble(format, |registry, storage| {
            let host = host.map_or(storage.address().to_string(), str::to_owned);
            let location = format!("{scheme_and_user}{host}/{SIGNED}");
            for method in ["GET", "HEAD"] {
                storage.on(method, "/blob", Fault::echo(403));
                let redirect = Fault::status(307).header("location", location.clone());
                registry.on(method, "/v2/a/bad/*", redirect);
            }
        })
        .await;
        assert_eq!(setting.storage.count("GET", "/blob") > 0, host.is_none());
    }
}

/// A configuration is looked through, and shown for debugging, without its secrets.
#[tokio::test(flavor = "multi_thread")]
async fn a_configuration_is_shown_without_its_secrets() {
    let setting = Setting::start().await;
    let directory = setting.mirror("text").into_file();
    let file = directory.path().join("larder.toml");
    assert!(fs::read_to_string(&file).unwrap().contains("s3cret-stated"));

    let env = BTreeMap::from([(VARIABLE.0.to_owned(), VARIABLE.1.to_owned())]);
    let sources = Sources { file: Some(file.clone()), env, ..Sources::default() };
    let config = Config::load(&sources).unwrap();
    assert_clean("Debug", &format!("{config:?}\n{config:#?}"));

    let checked = check(&file, &[VARIABLE]);
    assert_eq!(checked.0, Some(0), "{}", checked.1);
    let text = fs::read_to_string(&file).unwrap();
    for (from, to) in [
        ("\"s3cret-stated\"", "s3cret-stated"),
        ("password = \"s3cret-stated\"", "passwort = \"s3cret-stated\""),
        ("username = \"anna\"", "usrname = \"anna\""),
        ("http://", "http://bob:s3cret-user@"),
        ("registry = \"stated.test\"", "registry = \"http://bob:s3cret-user@stated.test\""),
    ] {
        let wrong = text.replace(from, to);
        assert_ne!(wrong, text);
        fs::write(&file, wrong).unwrap();
        assert_eq!(check(&file, &[VARIABLE]).0, Some(2), "{to}");
    }
}

/// The exit code of `larder check`, whose output is clean.
fn check(file: &Path, variables: &[(&str, &str)]) -> (Option<i32>, String) {
    let ended = run(&["check", "--config", file.to_str().unwrap()], variables);
    assert_clean("the check", &ended.output);
    (ended.code, ended.output)
}
