//! What is printed leads to the right bytes: each client's sequence of requests, sent to the
//! addresses that it would make of its files.

use super::{BUILDKITD_TOML, DAEMON_JSON, DROP_IN, Printed, REGISTRIES_YAML, printed_for};
use crate::support::{FakeRegistry, Image, TestMirror, Upstream, sha256};

/// Repositories with the same name in two registries.
const NAME: &str = "library/app";
const REGISTRIES: [&str; 2] = ["docker.io", "registry.test:5000"];

const CONFIG: &str = "
builtin_upstreams = false
[[upstream]]
registry = \"docker.io\"
[[upstream]]
registry = \"registry.test:5000\"
";

/// Two upstreams with an image each, and the mirror of both.
struct Lab {
    mirror: TestMirror,
    images: [Image; 2],
    /// The upstreams run as long as the mirror does.
    _upstreams: [FakeRegistry; 2],
}

/// How a client asks for the images of one registry.
struct Way {
    /// What stands before a repository's name, from the scheme on.
    api: String,
    /// The value of `ns`, if the client sends it.
    namespace: Option<&'static str>,
    first: First,
}

/// What a client does before it has the digest of a tag.
enum First {
    /// A HEAD, then everything by digest.
    Head,
    /// A look at `/v2/`, then a HEAD, then everything by digest.
    PingAndHead,
    /// A look at `/v2/`, then the manifest by its tag.
    Ping,
}

impl Lab {
    async fn start() -> Lab {
        let upstreams = [FakeRegistry::start().await, FakeRegistry::start().await];
        let images = [Image::random(1), Image::random(2)];
        for (upstream, image) in upstreams.iter().zip(&images) {
            upstream.put_image(NAME, "latest", image);
        }
        let mirror = TestMirror::builder()
            .upstream(Upstream::docker_io(&upstreams[0]))
            .upstream(Upstream::named(REGISTRIES[1], &upstreams[1]))
            .start()
            .await;
        Lab { mirror, images, _upstreams: upstreams }
    }

    fn printed(&self, client: &str) -> Printed {
        printed_for(CONFIG, client, &format!("http://{}", self.mirror.address()))
    }

    /// Pulls an image as the client does, and checks every byte.
    async fn pull(&self, way: &Way, image: &Image) {
        let here = format!("http://{}", self.mirror.address());
        let api = way.api.strip_prefix(&here).unwrap_or_else(|| panic!("{} elsewhere", way.api));
        let query = way.namespace.map(|name| format!("?ns={name}")).unwrap_or_default();
        let url = |rest: &str| format!("{api}/{NAME}/{rest}{query}");

        if !matches!(way.first, First::Head) {
            assert_eq!(self.mirror.get("/v2/").await.status, 200);
        }
        let mut reference = "latest".to_owned();
        if !matches!(way.first, First::Ping) {
            let head = self.mirror.head(&url("manifests/latest")).await;
            assert_eq!(head.status, 200, "{}", way.api);
            reference = head.header("docker-content-digest").unwrap().to_owned();
        }
        let manifest = self.mirror.get(&url(&format!("manifests/{reference}"))).await;
        assert_eq!(manifest.status, 200, "{}", way.api);
        assert_eq!(manifest.bytes().await, image.manifest, "{}", way.api);
        for blob in image.blobs() {
            let digest = sha256(blob);
            let answer = self.mirror.get(&url(&format!("blobs/{digest}"))).await;
            answer.verified(&digest).await;
        }
    }

    async fn pull_each(&self, way: impl Fn(&'static str) -> Way) {
        for (registry, image) in REGISTRIES.into_iter().zip(&self.images) {
            self.pull(&way(registry), image).await;
        }
    }
}

/// Docker's classic store, by registry-mirrors: `<mirror>/v2/<name>`.
#[tokio::test(flavor = "multi_thread")]
async fn docker_finds_docker_hub() {
    let lab = Lab::start().await;
    let daemon = lab.printed("docker").json(DAEMON_JSON);
    let mirror = daemon["registry-mirrors"][0].as_str().unwrap();
    let way = Way { api: format!("{mirror}/v2"), namespace: None, first: First::PingAndHead };
    lab.pull(&way, &lab.images[0]).await;
}

/// Docker's containerd store, and BuildKit inside of it, by the same entry: `ns`, and no ping.
#[tokio::test(flavor = "multi_thread")]
async fn docker_s_image_store_finds_docker_hub() {
    let lab = Lab::start().await;
    let docker = lab.printed("docker");
    // With a hosts.toml for Docker Hub the entry would not count.
    assert!(!docker.files.contains_key("/etc/docker/certs.d/docker.io/hosts.toml"));
    let daemon = docker.json(DAEMON_JSON);
    let mirror = daemon["registry-mirrors"][0].as_str().unwrap();
    let api = format!("{mirror}/v2");
    let way = Way { api, namespace: Some("docker.io"), first: First::Head };
    lab.pull(&way, &lab.images[0]).await;
}

/// Any client, by the name that Docker's notes show.
#[tokio::test(flavor = "multi_thread")]
async fn docker_pulls_by_name() {
    let lab = Lab::start().await;
    let notes = lab.printed("docker").notes;
    let (_, name) = notes.split_once("docker pull ").unwrap();
    let (host, name) = name.split_once('/').unwrap();
    let (registry, _) = name.split_once('/').unwrap();
    let api = format!("http://{host}/v2/{registry}");
    let way = Way { api, namespace: None, first: First::PingAndHead };
    lab.pull(&way, &lab.images[1]).await;
}

/// containerd of any version, and Docker with its image store: `<host>/v2/<name>?ns=<registry>`.
#[tokio::test(flavor = "multi_thread")]
async fn containerd_finds_each_registry_by_hosts_toml() {
    let lab = Lab::start().await;
    let hosts = |printed: &Printed, path: &str| {
        let hosts = printed.toml(path);
        hosts["host"].as_table().unwrap().keys().next().unwrap().clone()
    };
    let containerd = lab.printed("containerd");
    lab.pull_each(|registry| {
        let path = format!("/etc/containerd/certs.d/{registry}/hosts.toml");
        let api = format!("{}/v2", hosts(&containerd, &path));
        Way { api, namespace: Some(registry), first: First::Head }
    })
    .await;

    let docker = lab.printed("docker");
    let path = format!("/etc/docker/certs.d/{}/hosts.toml", REGISTRIES[1]);
    let api = format!("{}/v2", hosts(&docker, &path));
    let way = Way { api, namespace: Some(REGISTRIES[1]), first: First::Head };
    lab.pull(&way, &lab.images[1]).await;
}

/// Podman and CRI-O put the mirror's location in the place of the registry's; no `ns`.
#[tokio::test(flavor = "multi_thread")]
async fn podman_and_crio_find_each_registry() {
    let lab = Lab::start().await;
    for client in ["podman", "crio"] {
        let conf = lab.printed(client).toml(DROP_IN);
        let registries = conf["registry"].as_array().unwrap();
        lab.pull_each(|registry| {
            let is_it = |table: &&toml::Value| table["location"].as_str() == Some(registry);
            let table = registries.iter().find(is_it).unwrap();
            let location = table["mirror"][0]["location"].as_str().unwrap();
            let (host, path) = location.split_once('/').unwrap();
            Way { api: format!("http://{host}/v2/{path}"), namespace: None, first: First::Ping }
        })
        .await;
    }
}

/// BuildKit puts a mirror's path behind `/v2/`, and sends `ns` too.
#[tokio::test(flavor = "multi_thread")]
async fn buildkit_finds_each_registry() {
    let lab = Lab::start().await;
    let conf = lab.printed("buildkit").toml(BUILDKITD_TOML);
    lab.pull_each(|registry| {
        let mirror = conf["registry"][registry]["mirrors"][0].as_str().unwrap();
        let (host, path) = mirror.split_once('/').unwrap();
        assert_eq!(conf["registry"][host]["http"].as_bool(), Some(true));
        let api = format!("http://{host}/v2/{path}");
        Way { api, namespace: Some(registry), first: First::Head }
    })
    .await;
}

/// K3s makes of an endpoint with a path a host with `override_path`: the path is the API's root.
#[tokio::test(flavor = "multi_thread")]
async fn k3s_finds_each_registry() {
    let lab = Lab::start().await;
    let registries = lab.printed("k3s").yaml(REGISTRIES_YAML);
    lab.pull_each(|registry| {
        let endpoint = &registries["mirrors"][registry]["endpoint"][0];
        let api = endpoint.as_str().unwrap().to_owned();
        Way { api, namespace: Some(registry), first: First::Head }
    })
    .await;
}
