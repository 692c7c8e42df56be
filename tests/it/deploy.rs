//! What is shipped for deployment says what Larder and its clients understand, as far as that can
//! be told without them.

use std::{collections::BTreeMap, fs, path::PathBuf, process::Command};

type Variables = BTreeMap<String, String>;

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

fn text_of(path: &str) -> String {
    fs::read_to_string(shipped(path)).unwrap()
}

fn shipped(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(path)
}
