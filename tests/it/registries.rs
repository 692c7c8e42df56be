//! Private images from the registries people use, each with its own way of letting them in.

use std::fs;

use tempfile::TempDir;

use crate::support::{
    Auth, FakeRegistry, Image, TestMirror, Upstream,
    helper::Helpers,
    mirror::{blob_url, manifest_path},
    registry::{Profile, Scope, Wants},
    sha256,
};

/// What Google's registries take as the password of `_json_key`.
const JSON_KEY: &str =
    "{\n  \"type\": \"service_account\",\n  \"private_key\": \"-----BEGIN\\nx:y\\n\"\n}";

/// A registry, what the operator writes as name and secret, and a repository there.
struct Case {
    name: &'static str,
    profile: Profile,
    username: &'static str,
    secret: &'static str,
    repository: &'static str,
}

const USUAL: Profile = Profile {
    realm: "/token",
    service: None,
    scope: Scope::Needed,
    wants: login("", ""),
    lifetime: Some(300),
};

/// A GET for name and password; POST is not known.
const fn login(user: &'static str, password: &'static str) -> Wants {
    Wants::Login { user, password, post: 404 }
}

/// Google: an empty service, and gcr.io challenges at `/v2/` only.
const fn google(wants: Wants) -> Profile {
    let scope = Scope::UnsaidAtRootOnly;
    Profile { realm: "/v2/token", service: Some(""), scope, wants, ..USUAL }
}

const fn azure(wants: Wants) -> Profile {
    Profile { realm: "/oauth2/token", service: Some("corp.azurecr.io"), wants, ..USUAL }
}

/// GHCR: an example for a scope at `/v2/`, and no lifetime.
const fn github(wants: Wants) -> Profile {
    let scope = Scope::ExampleAtRoot("repository:user/image:pull");
    Profile { service: Some("ghcr.io"), scope, wants, lifetime: None, ..USUAL }
}

/// NVIDIA: neither service nor scope.
const fn nvidia(wants: Wants) -> Profile {
    Profile { realm: "/proxy_auth", scope: Scope::Unsaid, wants, ..USUAL }
}

/// Artifactory: a POST is 401, which says nothing of the secret.
const fn artifactory(user: &'static str) -> Profile {
    let wants = Wants::Login { user, password: "secret", post: 401 };
    Profile { realm: "/v2/token", service: Some("art.corp"), wants, ..USUAL }
}

/// Registries that differ in nothing but names.
const fn plain(realm: &'static str, service: &'static str, user: &'static str) -> Profile {
    Profile { realm, service: Some(service), wants: login(user, "secret"), ..USUAL }
}

const CASES: [Case; 11] = [
    Case {
        name: "gcr.io",
        profile: google(login("_json_key", JSON_KEY)),
        username: "_json_key",
        secret: JSON_KEY,
        repository: "project/app",
    },
    Case {
        name: "europe-docker.pkg.dev",
        profile: google(login("oauth2accesstoken", "ya29.x")),
        username: "oauth2accesstoken",
        secret: "ya29.x",
        repository: "project/repository/app",
    },
    Case {
        name: "corp.azurecr.io",
        profile: azure(Wants::RefreshToken("refresh")),
        username: "<token>",
        secret: "refresh",
        repository: "app",
    },
    Case {
        name: "user.azurecr.io",
        profile: azure(Wants::Login { user: "robot", password: "secret", post: 400 }),
        username: "robot",
        secret: "secret",
        repository: "app",
    },
    Case {
        name: "ghcr.io",
        profile: github(login("octocat", "ghp_x")),
        username: "octocat",
        secret: "ghp_x",
        repository: "org/app",
    },
    Case {
        name: "quay.io",
        profile: plain("/v2/auth", "quay.io", "org+robot"),
        username: "org+robot",
        secret: "secret",
        repository: "org/app",
    },
    Case {
        name: "registry.gitlab.com",
        profile: plain("/jwt/auth", "container_registry", "deploy"),
        username: "deploy",
        secret: "secret",
        repository: "group/subgroup/project/app",
    },
    Case {
        name: "harbor.corp",
        profile: plain("/service/token", "harbor-registry", "robot$larder"),
        username: "robot$larder",
        secret: "secret",
        repository: "project/app",
    },
    Case {
        name: "nvcr.io",
        profile: nvidia(login("$oauthtoken", "key")),
        username: "$oauthtoken",
        secret: "key",
        repository: "nvidia/app",
    },
    Case {
        name: "art.corp",
        profile: artifactory("robot"),
        username: "robot",
        secret: "secret",
        repository: "docker-remote/library/x",
    },
    Case {
        name: "token.art.corp",
        profile: artifactory(""),
        username: "<token>",
        secret: "secret",
        repository: "docker-remote/library/x",
    },
];

/// With the secret that its documentation names, and with no secret at the storage it redirects to.
#[tokio::test(flavor = "multi_thread")]
async fn private_images_come_from_every_kind_of_registry() {
    for case in CASES {
        let (cdn, registry) = (FakeRegistry::start().await, FakeRegistry::builder());
        let registry = registry.auth(Auth::Like(case.profile)).start().await;
        let image = Image::random(1);
        registry.put_image(case.repository, "latest", &image);
        registry.redirect_blobs_to(&cdn);
        let directory = TempDir::new().unwrap();
        let secret = directory.path().join("secret");
        fs::write(&secret, format!("{}\n", case.secret)).unwrap();
        let upstream = Upstream::named(case.name, &registry)
            .set("username", case.username)
            .set("password_file", secret.to_str().unwrap());
        let (upstream, name) = below_its_path(upstream, &registry, case.repository);
        let mirror = TestMirror::builder().upstream(upstream).start().await;

        mirror.pull(&format!("{}/{name}", case.name), "latest", &image).await;
        let scopes: Vec<String> = registry
            .requests()
            .iter()
            .filter(|request| request.path == case.profile.realm)
            .flat_map(|request| request.query_values("scope").chain(request.form_values("scope")))
            .collect();
        let own = format!("repository:{}:pull", case.repository);
        assert!(!scopes.is_empty(), "{}", case.name);
        assert!(scopes.iter().all(|scope| *scope == own), "{}: {scopes:?}", case.name);
        assert!(cdn.requests().len() >= 3);
        assert!(cdn.requests().iter().all(|request| request.header("authorization").is_none()));
    }
}

/// Artifactory keeps many registries below paths of one host.
fn below_its_path<'a>(
    upstream: Upstream,
    registry: &FakeRegistry,
    repository: &'a str,
) -> (Upstream, &'a str) {
    let path = "docker-remote";
    match repository.strip_prefix(path) {
        None => (upstream, repository),
        Some(rest) => {
            let endpoint = format!("{}/{path}", registry.url());
            (upstream.set("endpoints", vec![endpoint]), rest.trim_start_matches('/'))
        }
    }
}

/// Who is not let in gets the registry's refusal, never a prompt for a password.
#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_secret_is_a_refusal_by_every_kind_of_registry() {
    for case in CASES {
        let registry = FakeRegistry::builder().auth(Auth::Like(case.profile)).start().await;
        registry.put_image(case.repository, "latest", &Image::random(1));
        let upstream = Upstream::named(case.name, &registry).credentials(case.username, "wrong");
        let (upstream, name) = below_its_path(upstream, &registry, case.repository);
        let mirror = TestMirror::builder().upstream(upstream).start().await;
        let path = manifest_path(&format!("{}/{name}", case.name), "latest");
        let answer = mirror.get(&path).await;
        assert_eq!(answer.status, 404, "{}", case.name);
        assert_eq!(answer.header("www-authenticate"), None);
    }
}

/// Amazon knows no token server: its helper has a password for twelve hours, for all repositories,
/// and the storage it redirects to refuses a second authorization.
#[tokio::test(flavor = "multi_thread")]
async fn private_images_come_from_amazon_by_its_helper() {
    let cdn = FakeRegistry::start().await;
    let registry = FakeRegistry::builder().auth(Auth::Basic("AWS", "eyJ")).start().await;
    let image = Image::random(1);
    let helpers = Helpers::new();
    helpers.put_user("ecr-login", "AWS", "eyJ");
    let name = "123456789012.dkr.ecr.eu-central-1.amazonaws.com";
    let upstream = Upstream::named(name, &registry).set("credential_helper", "ecr-login");
    let daemon = helpers.daemon(TestMirror::builder().upstream(upstream)).await;
    for repository in ["team/app", "team/other"] {
        registry.put_image(repository, "latest", &image);
        registry.redirect_blobs_to(&cdn);
        let repository = format!("{name}/{repository}");
        let manifest = daemon.client().get(&manifest_path(&repository, "latest")).await;
        manifest.expect(&image.manifest).await;
        for blob in image.blobs() {
            let path = blob_url(&repository, &sha256(blob));
            daemon.client().get(&path).await.expect(blob).await;
        }
    }
    assert_eq!(helpers.runs("ecr-login").len(), 1);
    assert!(cdn.requests().iter().all(|request| request.header("authorization").is_none()));
}
