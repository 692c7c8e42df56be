//! What is shipped for deployment says what Larder and its clients understand, as far as that can
//! be told without them.

use std::{collections::BTreeMap, fs, path::PathBuf, process::Command};

/// The name that the client files give to the mirror.
const MIRROR: &str = "larder.lan:5000";

type Variables = BTreeMap<String, String>;

/// Docker needs the mirror twice: for bare names, and for pulls of `larder.lan:5000/ghcr.io/…`.
#[test]
fn docker_is_told_the_mirror() {
    let daemon = text_of("deploy/clients/daemon.json");
    let daemon: serde_json::Value = serde_json::from_str(&daemon).unwrap();
    let expected = serde_json::json!({
        "registry-mirrors": [format!("http://{MIRROR}")],
        "insecure-registries": [MIRROR],
    });
    assert_eq!(daemon, expected);
}

/// containerd falls back to Docker Hub, and for other registries to themselves.
#[test]
fn containerd_is_told_the_mirror() {
    let capabilities = toml::Value::from(vec!["pull", "resolve"]);
    for (registry, server) in
        [("docker.io", Some("https://registry-1.docker.io")), ("_default", None)]
    {
        let hosts = toml_of(&format!("deploy/clients/certs.d/{registry}/hosts.toml"));
        assert_eq!(hosts.get("server"), server.map(toml::Value::from).as_ref());
        let mirror = &hosts["host"][&format!("http://{MIRROR}")];
        assert_eq!(mirror["capabilities"], capabilities, "{registry}");
    }
}

/// Podman puts the mirror's location in the place of the registry's, so it must name the registry.
#[test]
fn podman_is_told_the_mirror() {
    let conf = toml_of("deploy/clients/registries.conf");
    for registry in conf["registry"].as_array().unwrap() {
        let location = registry["location"].as_str().unwrap();
        let mirror = &registry["mirror"][0];
        let expected = format!("{MIRROR}/{location}");
        assert_eq!(mirror["location"].as_str(), Some(expected.as_str()));
        assert_eq!(mirror["insecure"].as_bool(), Some(true), "{location}");
    }
}

#[test]
fn the_unit_runs_larder_as_a_service() {
    let unit = text_of("deploy/larder.service");
    for line in [
        "Type=notify",
        "ExecStart=/usr/bin/larder serve",
        "DynamicUser=yes",
        "StateDirectory=larder",
        "LimitNOFILE=524288",
        "ProtectSystem=strict",
    ] {
        assert!(unit.lines().any(|written| written == line), "{line}");
    }

    let mut variables = variables_in(&unit);
    assert_eq!(variables["LARDER_LISTEN"], "[::]:5000");
    variables.insert("STATE_DIRECTORY".to_owned(), "/var/lib/larder".to_owned());
    assert_accepted(&variables, &[]);
}

#[test]
fn the_container_runs_larder_without_privileges() {
    let image = text_of("deploy/Dockerfile");
    for line in ["USER 65532:65532", "ENTRYPOINT [\"/usr/bin/larder\"]", "CMD [\"serve\"]"] {
        assert!(image.lines().any(|written| written == line), "{line}");
    }

    let mut variables = variables_in(&image);
    assert_eq!(variables["LARDER_LISTEN"], "[::]:5000");
    assert_eq!(variables["LARDER_DATA_DIR"], "/var/lib/larder");
    variables.extend(variables_in(&text_of("deploy/compose.yaml")));
    assert_accepted(&variables, &[]);
}

#[test]
fn the_readme_can_be_followed() {
    let readme = text_of("README.md");
    for command in ["cargo run --release -- serve", "tests/run"] {
        assert!(readme.contains(command), "{command}");
    }

    for link in readme.split("](").skip(1) {
        let target = link.split([')', '#']).next().unwrap();
        assert!(shipped(target).exists(), "{target}");
    }

    let (_, example) = readme.split_once("```toml\n").unwrap();
    let (example, _) = example.split_once("```").unwrap();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("larder.toml");
    fs::write(&file, example).unwrap();
    let home = Variables::from([("HOME".to_owned(), "/home/larder".to_owned())]);
    assert_accepted(&home, &["--config", file.to_str().unwrap()]);
}

/// Asserts that `larder check` has nothing to say about this environment.
fn assert_accepted(environment: &Variables, arguments: &[&str]) {
    let output = Command::new(env!("CARGO_BIN_EXE_larder"))
        .arg("check")
        .args(arguments)
        .env_clear()
        .envs(environment)
        .output()
        .unwrap();
    let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    assert!(output.status.success() && !said.contains("warning"), "{said}");
}

/// The `LARDER_…` variables that a unit, Dockerfile or compose file sets.
fn variables_in(text: &str) -> Variables {
    text.lines()
        .filter(|line| !line.trim_start().starts_with('#'))
        .filter_map(|line| line[line.find("LARDER_")?..].split_once(['=', ':']))
        .map(|(name, value)| (name.to_owned(), value.trim_end_matches('\\').trim().to_owned()))
        .collect()
}

fn toml_of(path: &str) -> toml::Table {
    text_of(path).parse().unwrap()
}

fn text_of(path: &str) -> String {
    fs::read_to_string(shipped(path)).unwrap()
}

fn shipped(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(path)
}
