//! `--write`: files that are there already.

use std::{
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink},
    path::{Path, PathBuf},
};

use tempfile::TempDir;

use super::{
    BUILDKITD_TOML, CLIENTS, CONFIG, DAEMON_JSON, DROP_IN, REGISTRIES_YAML, configure, files_below,
    write, wrote,
};

const CONTAINERD_CONFIG: &str = "/etc/containerd/config.toml";
const HUB_HOSTS: &str = "/etc/containerd/certs.d/docker.io/hosts.toml";

/// A directory with one file of a client.
fn root_with(path: &str, text: &str) -> TempDir {
    let root = TempDir::new().unwrap();
    put(root.path(), path, text);
    root
}

fn put(root: &Path, path: &str, text: &str) {
    let path = below(root, path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

fn below(root: &Path, path: &str) -> PathBuf {
    root.join(&path[1..])
}

fn text_of(root: &TempDir, path: &str) -> String {
    fs::read_to_string(below(root.path(), path)).unwrap()
}

/// For each client: its file, what a person wrote there, and parts of what it becomes, in order.
const MERGES: [(&str, &str, &str, &[&str]); 6] = [
    (
        "docker",
        DAEMON_JSON,
        "{\n    \"log-opts\": {\"max-size\": \"10m\"},\n    \"registry-mirrors\": [\"https://old.test\"],\n    \"debug\": true\n}\n",
        &[
            "{\n    \"log-opts\": {\"max-size\": \"10m\"},\n",
            "    \"registry-mirrors\": [\"http://larder.lan:5000\", \"https://old.test\"],\n",
            "    \"debug\": true,\n",
            "    \"insecure-registries\": [\"http://larder.lan:5000\"]\n}\n",
        ],
    ),
    (
        "containerd",
        HUB_HOSTS,
        "# by hand\nserver = \"https://hub.test\" # not the Hub\n\n# the old one\n[host.\"https://old.test\"]\n  ca = \"old.crt\"\n",
        &[
            "# by hand\nserver = \"https://hub.test\" # not the Hub\n",
            "[host.\"http://larder.lan:5000\"]\ncapabilities = [\"pull\", \"resolve\"]\n",
            "\n# the old one\n[host.\"https://old.test\"]\n  ca = \"old.crt\"\n",
        ],
    ),
    (
        "containerd",
        CONTAINERD_CONFIG,
        "version = 2 # as kubeadm wants it\n[plugins.\"io.containerd.grpc.v1.cri\"]\n  sandbox_image = \"pause\"\n",
        &[
            "version = 2 # as kubeadm wants it\n",
            "  sandbox_image = \"pause\"\n",
            "[plugins.\"io.containerd.grpc.v1.cri\".registry]\nconfig_path = \"/etc/containerd/certs.d\"\n",
        ],
    ),
    (
        "podman",
        DROP_IN,
        "# by hand\n[[registry]]\nprefix = \"docker.io\"\nlocation = \"hub.test\"\n[[registry.mirror]] # old\nlocation = \"old.test\"\n\n[[registry]]\nlocation = \"mine.test\"\nblocked = true\n",
        &[
            "# by hand\n[[registry]]\nprefix = \"docker.io\"\nlocation = \"hub.test\"\n",
            "[[registry.mirror]]\nlocation = \"larder.lan:5000/docker.io\"\ninsecure = true\n",
            "[[registry.mirror]] # old\nlocation = \"old.test\"\n",
            "[[registry]]\nlocation = \"mine.test\"\nblocked = true\n",
            "[[registry]]\nlocation = \"registry.test:5000\"\n",
        ],
    ),
    (
        "buildkit",
        BUILDKITD_TOML,
        "# by hand\n[worker.oci]\n  gc = true\n[registry.\"docker.io\"]\n  mirrors = [\"old.test\"] # old\n[registry.\"larder.lan:5000\"]\n  http = false # why?\n",
        &[
            "# by hand\n[worker.oci]\n  gc = true\n[registry.\"docker.io\"]\n",
            "  mirrors = [\"larder.lan:5000/docker.io\", \"old.test\"] # old\n",
            "[registry.\"larder.lan:5000\"]\n  http = true # why?\n",
        ],
    ),
    (
        "k3s",
        REGISTRIES_YAML,
        "mirrors:\n  docker.io:\n    endpoint: [\"https://old.test\"]\n    rewrite: {\"^a\": b}\n  mine.test:\nconfigs:\n  old.test:\n    auth: {username: me}\n",
        &[
            "mirrors:\n  docker.io:\n    endpoint:\n    - http://larder.lan:5000/v2/docker.io\n    - https://old.test\n    rewrite:\n      ^a: b\n",
            "  mine.test: null\n",
            "    - http://larder.lan:5000/v2/registry.test:5000\n",
            "configs:\n  old.test:\n    auth:\n      username: me\n",
        ],
    ),
];

/// What a person wrote is in the result, and as it was in the backup. A second run has nothing to
/// do; a later one does not touch the backup of the first.
#[test]
fn existing_files_are_merged_and_kept() {
    for (client, path, before, parts) in MERGES {
        let root = root_with(path, before);
        let said = wrote(client, root.path());
        let after = text_of(&root, path);
        let mut rest = after.as_str();
        for part in parts {
            let place = rest.find(part).unwrap_or_else(|| panic!("{part}in:\n{after}"));
            rest = &rest[place + part.len()..];
        }
        let backup = format!("{path}.bak");
        assert_eq!(text_of(&root, &backup), before, "{client}");
        assert!(said.contains(below(root.path(), &backup).to_str().unwrap()), "{said}");

        let files = files_below(root.path());
        let said = wrote(client, root.path());
        let mut done = said.lines().take_while(|line| !line.is_empty());
        assert!(done.all(|line| line.starts_with("unchanged ")), "{said}");
        assert_eq!(files_below(root.path()), files, "{client}");

        put(root.path(), path, before);
        wrote(client, root.path());
        assert_eq!(text_of(&root, &backup), before, "{client}");
        assert_eq!(text_of(&root, &format!("{path}.bak.1")), before, "{client}");
    }
}

/// A mistake in the last file leaves even the first one unwritten, and all mistakes are named.
#[test]
fn what_is_malformed_is_named_and_nothing_is_written() {
    for (client, path, text, line) in [
        ("docker", DAEMON_JSON, "{\n  \"debug\": true,\n}", 3),
        ("docker", DAEMON_JSON, "{\n  \"registry-mirrors\": \"x\"\n}", 2),
        ("containerd", HUB_HOSTS, "server = \"x\"\nserver = \"y\"\n", 2),
        ("containerd", CONTAINERD_CONFIG, "version = 2\n[plugins\n", 2),
        ("podman", DROP_IN, "[[registry]]\n\nlocation = \n", 3),
        ("crio", DROP_IN, "\nregistry = 1\n", 2),
        ("buildkit", BUILDKITD_TOML, "\n\nregistry.\"docker.io\".mirrors = \"x\"\n", 3),
        ("k3s", REGISTRIES_YAML, "mirrors:\n  docker.io:\n\tendpoint: []\n", 3),
    ] {
        let root = root_with(path, text);
        let other = "/etc/docker/certs.d/registry.test:5000/hosts.toml";
        if client == "docker" {
            put(root.path(), other, "x");
        }
        let before = files_below(root.path());
        let ended = write(client, root.path());
        assert_eq!(ended.code, Some(1), "{ended:?}");
        let place = format!("{}:{line}: ", below(root.path(), path).display());
        assert!(ended.output.contains(&place), "{place} in {ended:?}");
        assert_eq!(ended.output.contains(other), client == "docker", "{ended:?}");
        assert_eq!(files_below(root.path()), before, "{client}");
    }
}

/// YAML that is well-formed but no registries.yaml has no line to name.
#[test]
fn yaml_of_another_shape_is_refused() {
    for (text, key) in [
        ("[]", "mapping"),
        ("mirrors: []", "mirrors"),
        ("mirrors: {docker.io: x}", "docker.io"),
        ("mirrors: {docker.io: {endpoint: x}}", "endpoint"),
    ] {
        let root = root_with(REGISTRIES_YAML, text);
        let ended = write("k3s", root.path());
        assert_eq!(ended.code, Some(1), "{ended:?}");
        assert!(ended.output.contains(key), "{ended:?}");
    }
}

/// Written anew, a number could become another password. Quoted it stays what it is.
#[test]
fn yaml_that_would_be_spelt_otherwise_is_refused() {
    let with = |password: &str| format!("configs: {{a.b: {{auth: {{password: {password}}}}}}}\n");
    for password in ["0x1F", "1e3", "1.10", "0o17", "+5", "True"] {
        let before = with(password);
        let root = root_with(REGISTRIES_YAML, &before);
        let ended = write("k3s", root.path());
        assert_eq!(ended.code, Some(1), "{password}: {ended:?}");
        assert!(ended.output.contains("quotes"), "{password}: {ended:?}");
        assert_eq!(text_of(&root, REGISTRIES_YAML), before);
    }
    for password in ["\"0x1F\"", "'1e3'", "12", "-1.5", "true", "012", "~"] {
        let root = root_with(REGISTRIES_YAML, &with(password));
        wrote("k3s", root.path());
        let read = |text: &str| -> yaml_serde::Value { yaml_serde::from_str(text).unwrap() };
        let after = read(&text_of(&root, REGISTRIES_YAML));
        assert_eq!(after["configs"], read(&with(password))["configs"], "{password}");
    }
}

/// Owner and mode stay, and a link stays a link.
#[test]
fn a_file_is_replaced_where_it_really_is() {
    let root = root_with("/real/daemon.json", "{}");
    let real = below(root.path(), "/real/daemon.json");
    fs::set_permissions(&real, fs::Permissions::from_mode(0o600)).unwrap();
    let owner = (fs::metadata(&real).unwrap().uid(), fs::metadata(&real).unwrap().gid());
    let link = below(root.path(), DAEMON_JSON);
    fs::create_dir_all(link.parent().unwrap()).unwrap();
    symlink("../../real/daemon.json", &link).unwrap();

    wrote("docker", root.path());
    assert!(link.is_symlink());
    let written = fs::metadata(&real).unwrap();
    assert_eq!(written.mode() & 0o7777, 0o600);
    assert_eq!((written.uid(), written.gid()), owner);
    assert!(text_of(&root, "/real/daemon.json").contains("registry-mirrors"));
    assert_eq!(text_of(&root, "/real/daemon.json.bak"), "{}");
}

/// Neither what a link to nothing means can be known, nor what one out of the directory, which may
/// be another machine's root, would change.
#[test]
fn links_to_elsewhere_are_refused() {
    let elsewhere = root_with("/daemon.json", "{}");
    let outside = elsewhere.path().to_str().unwrap();
    let file = format!("{outside}/daemon.json");
    for (link, target) in [
        ("/etc/docker/daemon.json", "nowhere"),
        ("/etc/docker/daemon.json", file.as_str()),
        ("/etc/docker", outside),
    ] {
        let root = TempDir::new().unwrap();
        let path = below(root.path(), link);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        symlink(target, &path).unwrap();
        let ended = write("docker", root.path());
        assert_eq!(ended.code, Some(1), "{ended:?}");
        assert!(ended.output.contains(below(root.path(), DAEMON_JSON).to_str().unwrap()));
    }
    assert_eq!(files_below(elsewhere.path()).len(), 1);
    assert_eq!(text_of(&elsewhere, "/daemon.json"), "{}");
}

/// containerd's own configuration is not ours to begin.
#[test]
fn no_configuration_of_containerd_is_made() {
    let root = TempDir::new().unwrap();
    let said = wrote("containerd", root.path());
    assert!(!below(root.path(), CONTAINERD_CONFIG).exists());
    assert!(said.contains("# config_path = "), "{said}");
}

/// Of two tables for one prefix only the last counts, so the mirror goes into that one.
#[test]
fn podman_registries_of_other_files_are_merged_there() {
    let main = "/etc/containers/registries.conf";
    let early = "/etc/containers/registries.conf.d/10-site.conf";
    let late = "/etc/containers/registries.conf.d/90-site.conf";
    let hub = "[[registry]]\nlocation = \"docker.io\"\nblocked = true\n";
    let root = root_with(main, hub);
    put(root.path(), early, hub);
    put(root.path(), late, "[[registry]]\nlocation = \"plain.test\"\n");
    wrote("podman", root.path());

    assert_eq!(text_of(&root, main), hub);
    let early = text_of(&root, early);
    assert!(early.starts_with(hub) && early.contains("larder.lan:5000/docker.io"), "{early}");
    assert!(text_of(&root, late).contains("larder.lan:5000/plain.test"));
    let ours = text_of(&root, DROP_IN);
    let locations: Vec<&str> = ours.lines().filter(|line| line.starts_with("location")).collect();
    let expected =
        ["location = \"registry.test:5000\"", "location = \"larder.lan:5000/registry.test:5000\""];
    assert_eq!(locations, expected);
    let files = files_below(root.path());
    wrote("podman", root.path());
    assert_eq!(files_below(root.path()), files);
}

/// What a person wrote in another form is not put out of force unseen.
#[test]
fn podman_registries_that_are_written_inline_are_refused() {
    let main = "/etc/containers/registries.conf";
    let root = root_with(main, "registry = [\n  { location = \"docker.io\" },\n]\n");
    let ended = write("podman", root.path());
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.output.contains("write [[registry]]"), "{ended:?}");
    assert!(!below(root.path(), DROP_IN).exists());
}

/// Podman asks a mirror over plain HTTP only if it is told to.
#[test]
fn a_mirror_that_podman_knows_is_asked_as_it_listens() {
    let mirror = "[[registry]]\nlocation = \"docker.io\"\n[[registry.mirror]]\nlocation = \"larder.lan:5000/docker.io\"\n";
    for before in [mirror.to_owned(), format!("{mirror}insecure = false # why?\n")] {
        let root = root_with(DROP_IN, &before);
        wrote("podman", root.path());
        let after = text_of(&root, DROP_IN);
        assert!(after.starts_with(&format!("{mirror}insecure = true")), "{after}");
        assert_eq!(after.matches("larder.lan:5000/docker.io").count(), 1, "{after}");
    }
}

/// Certificates beside a hosts.toml are found only if it names them.
#[test]
fn the_certificates_of_a_registry_stay_in_force() {
    let directory = "/etc/docker/certs.d/registry.test:5000";
    let root = root_with(&format!("{directory}/ca.crt"), "");
    put(root.path(), &format!("{directory}/client.cert"), "");
    put(root.path(), &format!("{directory}/client.key"), "");
    wrote("docker", root.path());
    let hosts: toml::Table = text_of(&root, &format!("{directory}/hosts.toml")).parse().unwrap();
    assert_eq!(hosts["ca"], vec!["ca.crt"].into());
    assert_eq!(hosts["client"], vec![vec!["client.cert", "client.key"]].into());
}

/// containerd looks at `host_port_` before `host:port`.
#[test]
fn a_registry_s_other_directory_is_used_if_it_is_there() {
    let other = "/etc/containerd/certs.d/registry.test_5000_/hosts.toml";
    let root = root_with(other, "server = \"https://registry.test:5000\"\n");
    wrote("containerd", root.path());
    assert!(text_of(&root, other).contains("larder.lan:5000"));
    assert!(!below(root.path(), "/etc/containerd/certs.d/registry.test:5000").exists());
}

#[test]
fn what_cannot_be_asked_for_is_a_mistake_in_usage() {
    let client = CLIENTS[0];
    for (config, arguments) in [
        (CONFIG, vec![client]),
        (CONFIG, vec!["rkt", "--mirror", "http://larder.lan:5000"]),
        (CONFIG, vec![client, "--mirror", "larder.lan:5000"]),
        ("listen = 1", vec![client, "--mirror", "http://larder.lan:5000"]),
    ] {
        let ended = configure(config, &arguments);
        assert_eq!(ended.code, Some(2), "{arguments:?}: {ended:?}");
    }
}
