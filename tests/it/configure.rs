//! `larder configure`: what it prints is what each client reads, and leads to the right bytes; what
//! it writes leaves alone what it does not own.

mod replayed;
mod written;

use std::{collections::BTreeMap, fs, path::Path};

use serde_json::json;
use tempfile::TempDir;

use crate::support::binary::{Ended, run};

const CLIENTS: [&str; 6] = ["docker", "containerd", "podman", "crio", "buildkit", "k3s"];

const MIRROR: &str = "http://larder.lan:5000";

/// Docker Hub as the default, a registry with a port, and one without TLS.
const CONFIG: &str = r#"
builtin_upstreams = false
[[upstream]]
registry = "docker.io"
[[upstream]]
registry = "registry.test:5000"
endpoints = ["https://elsewhere.test"]
[[upstream]]
registry = "plain.test"
endpoints = ["http://plain.test"]
"#;

const DAEMON_JSON: &str = "/etc/docker/daemon.json";
const DROP_IN: &str = "/etc/containers/registries.conf.d/50-larder.conf";
const BUILDKITD_TOML: &str = "/etc/buildkit/buildkitd.toml";
const REGISTRIES_YAML: &str = "/etc/rancher/k3s/registries.yaml";

/// Printed files by path, and the comments behind them.
struct Printed {
    files: BTreeMap<String, String>,
    notes: String,
}

impl Printed {
    fn toml(&self, path: &str) -> toml::Table {
        self.files[path].parse().unwrap()
    }

    fn json(&self, path: &str) -> serde_json::Value {
        serde_json::from_str(&self.files[path]).unwrap()
    }

    fn yaml(&self, path: &str) -> serde_json::Value {
        yaml_serde::from_str(&self.files[path]).unwrap()
    }
}

/// Runs `larder configure` with a configuration.
fn configure(config: &str, arguments: &[&str]) -> Ended {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("larder.toml");
    fs::write(&file, config).unwrap();
    let arguments = [&["configure", "--config", file.to_str().unwrap()], arguments].concat();
    run(&arguments, &[])
}

fn printed_for(config: &str, client: &str, mirror: &str) -> Printed {
    let ended = configure(config, &[client, "--mirror", mirror]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let (files, notes) = ended.output.rsplit_once("\n\n# ").unwrap();
    let files = files.split("# file: ").skip(1).map(|file| {
        let (path, content) = file.split_once('\n').unwrap();
        (path.to_owned(), format!("{}\n", content.trim_end()))
    });
    Printed { files: files.collect(), notes: format!("# {notes}") }
}

fn printed(client: &str, mirror: &str) -> Printed {
    printed_for(CONFIG, client, mirror)
}

/// Merges into the files below `root`.
fn write(client: &str, root: &Path) -> Ended {
    configure(CONFIG, &[client, "--mirror", MIRROR, "--write", root.to_str().unwrap()])
}

fn wrote(client: &str, root: &Path) -> String {
    let ended = write(client, root);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    ended.output
}

/// All files below a directory by their paths as if it were the root.
fn files_below(root: &Path) -> BTreeMap<String, String> {
    fn collect(directory: &Path, root: &Path, files: &mut BTreeMap<String, String>) {
        for entry in directory.read_dir().unwrap().map(Result::unwrap) {
            let path = entry.path();
            if path.is_dir() {
                collect(&path, root, files);
            } else {
                let name = path.strip_prefix(root).unwrap();
                files.insert(format!("/{}", name.display()), fs::read_to_string(&path).unwrap());
            }
        }
    }
    let mut files = BTreeMap::new();
    collect(root, root, &mut files);
    files
}

#[test]
fn docker_is_told_the_mirror() {
    let plain = printed("docker", MIRROR);
    let expected = json!({
        "registry-mirrors": [MIRROR],
        "insecure-registries": [MIRROR],
    });
    assert_eq!(plain.json(DAEMON_JSON), expected);
    let tls = printed("docker", "https://larder.lan");
    assert_eq!(tls.json(DAEMON_JSON), json!({ "registry-mirrors": ["https://larder.lan"] }));

    let paths: Vec<&str> = plain.files.keys().map(String::as_str).collect();
    let certs_d = |name| format!("/etc/docker/certs.d/{name}/hosts.toml");
    assert_eq!(paths, [&certs_d("plain.test"), &certs_d("registry.test:5000"), DAEMON_JSON]);
    assert_hosts(&plain.toml(&certs_d("registry.test:5000")), "https://registry.test:5000");
    for note in ["docker.io only", "docker pull larder.lan:5000/registry.test:5000/"] {
        assert!(plain.notes.contains(note), "{}", plain.notes);
    }
}

/// Without `ns` a bare name is the default's, so another default must not stand in for Docker Hub.
#[test]
fn docker_gets_no_registry_mirror_of_another_default() {
    let other = "upstream = [{ registry = \"other.test\", default = true }]";
    let docker = printed_for(other, "docker", MIRROR);
    assert_eq!(docker.json(DAEMON_JSON), json!({ "insecure-registries": [MIRROR] }));
    assert!(docker.notes.contains("no registry-mirrors"), "{}", docker.notes);
    let hub = docker.toml("/etc/docker/certs.d/docker.io/hosts.toml");
    assert_hosts(&hub, "https://registry-1.docker.io");
}

#[test]
fn containerd_is_told_the_mirror_for_each_registry() {
    let containerd = printed("containerd", MIRROR);
    assert_eq!(containerd.files.len(), 3);
    for (registry, server) in [
        ("docker.io", "https://registry-1.docker.io"),
        ("registry.test:5000", "https://registry.test:5000"),
        ("plain.test", "http://plain.test"),
    ] {
        let path = format!("/etc/containerd/certs.d/{registry}/hosts.toml");
        assert_hosts(&containerd.toml(&path), server);
    }
    let sections: Vec<toml::Table> = containerd
        .notes
        .split("version = ")
        .skip(1)
        .map(|section| {
            let lines = section.lines().take(3).map(|line| line.trim_start_matches("# "));
            format!("version = {}", lines.collect::<Vec<_>>().join("\n")).parse().unwrap()
        })
        .collect();
    let versions = [(2, "io.containerd.grpc.v1.cri"), (3, "io.containerd.cri.v1.images")];
    for (section, (version, plugin)) in sections.iter().zip(versions) {
        assert_eq!(section["version"].as_integer(), Some(version));
        let path = &section["plugins"][plugin]["registry"]["config_path"];
        assert_eq!(path.as_str(), Some("/etc/containerd/certs.d"));
    }
    assert_eq!(sections.len(), 2);
}

/// The mirror first, for pulls only, then the registry itself.
fn assert_hosts(hosts: &toml::Table, server: &str) {
    assert_eq!(hosts["server"].as_str(), Some(server));
    let mirrors = hosts["host"].as_table().unwrap();
    assert_eq!(mirrors.len(), 1);
    assert_eq!(mirrors[MIRROR]["capabilities"], vec!["pull", "resolve"].into());
}

#[test]
fn podman_and_crio_are_told_the_mirror() {
    for client in ["podman", "crio"] {
        for (mirror, insecure) in [(MIRROR, Some(true)), ("https://larder.lan:5000", None)] {
            let conf = printed(client, mirror).toml(DROP_IN);
            let registries = conf["registry"].as_array().unwrap();
            for (registry, (name, is_plain)) in registries.iter().zip([
                ("docker.io", None),
                ("registry.test:5000", None),
                ("plain.test", Some(true)),
            ]) {
                assert_eq!(registry["location"].as_str(), Some(name));
                assert_eq!(registry.get("insecure").and_then(toml::Value::as_bool), is_plain);
                let mirror = &registry["mirror"][0];
                let location = format!("larder.lan:5000/{name}");
                assert_eq!(mirror["location"].as_str(), Some(location.as_str()));
                assert_eq!(mirror.get("insecure").and_then(toml::Value::as_bool), insecure);
            }
            assert_eq!((conf.len(), registries.len()), (1, 3));
        }
    }
}

#[test]
fn buildkit_is_told_the_mirror() {
    let conf = printed("buildkit", MIRROR).toml(BUILDKITD_TOML);
    let expected = toml::toml! {
        [registry."docker.io"]
        mirrors = ["larder.lan:5000/docker.io"]
        [registry."registry.test:5000"]
        mirrors = ["larder.lan:5000/registry.test:5000"]
        [registry."plain.test"]
        mirrors = ["larder.lan:5000/plain.test"]
        http = true
        [registry."larder.lan:5000"]
        http = true
    };
    assert_eq!(conf, expected);
    let tls = printed("buildkit", "https://larder.lan").toml(BUILDKITD_TOML);
    assert!(tls["registry"].get("larder.lan").is_none(), "{tls}");
}

#[test]
fn k3s_is_told_the_mirror() {
    let endpoint = |name| json!({ "endpoint": [format!("{MIRROR}/v2/{name}")] });
    let expected = json!({ "mirrors": {
        "docker.io": endpoint("docker.io"),
        "registry.test:5000": endpoint("registry.test:5000"),
        "plain.test": endpoint("plain.test"),
    }});
    let k3s = printed("k3s", MIRROR);
    assert_eq!(k3s.yaml(REGISTRIES_YAML), expected);
    assert!(k3s.notes.contains("\"*\""), "{}", k3s.notes);
}

/// Whoever uses TLS may have an authority of their own.
#[test]
fn every_client_is_told_where_an_authority_goes() {
    for client in CLIENTS {
        assert!(printed(client, "https://larder.lan").notes.contains("authority"), "{client}");
        assert!(!printed(client, MIRROR).notes.contains("authority"), "{client}");
    }
}

/// An entry of before would have `docker build` ask in the clear.
#[test]
fn docker_is_told_to_forget_a_mirror_without_tls() {
    let forgotten = "Where http://larder.lan:5000 is still in daemon.json";
    assert!(printed("docker", "https://larder.lan:5000").notes.contains(forgotten));
    assert!(!printed("docker", MIRROR).notes.contains(forgotten));
}

#[test]
fn what_is_written_is_what_is_printed() {
    for client in CLIENTS {
        let root = TempDir::new().unwrap();
        let said = wrote(client, root.path());
        let printed = printed(client, MIRROR);
        assert_eq!(files_below(root.path()), printed.files, "{client}");
        for path in printed.files.keys() {
            assert!(said.contains(&format!("wrote {}{path}\n", root.path().display())), "{said}");
        }
        assert!(said.ends_with(&printed.notes), "{said}");
    }
}

/// Without a configuration file there are the built-in registries, as for `larder serve`.
#[test]
fn the_shipped_examples_are_what_is_printed() {
    for client in CLIENTS {
        let ended = run(&["configure", client, "--mirror", MIRROR], &[]);
        let file = format!("{}/deploy/clients/{client}.txt", env!("CARGO_MANIFEST_DIR"));
        assert_eq!(ended.output, fs::read_to_string(&file).unwrap(), "{file}");
    }
}
