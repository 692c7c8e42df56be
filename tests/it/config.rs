//! What the operator writes, and what the binary says to it.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener},
    os::unix::net::UnixStream,
    path::Path,
};

use tempfile::TempDir;

use crate::support::{
    Client, FakeRegistry, Image, TestMirror, Upstream, address,
    binary::{Daemon, Ended, run},
    helper::Helpers,
    mirror::CONFIG,
    tls::TestCa,
};

const EXAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/config.example.toml");

/// Runs a subcommand with this text as its configuration.
fn run_with(subcommand: &str, text: &str) -> Ended {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join(CONFIG);
    fs::write(&file, text).unwrap();
    run(&[subcommand, "--config", file.to_str().unwrap()], &[])
}

/// The example with every key written out, and with its files in `directory`.
fn example_in_full(directory: &Path) -> String {
    for name in ["admin-token", "password", "backup-password"] {
        fs::write(directory.join(name), "secret\n").unwrap();
    }
    fs::write(directory.join("config.json"), r#"{"auths":{}}"#).unwrap();
    let ca = TestCa::new();
    let (certificate, key) = ca.certificate(Ipv4Addr::LOCALHOST.into());
    let (client, client_key) = ca.certificate(Ipv4Addr::LOCALHOST.into());
    for (name, pem) in [
        ("corp.pem", ca.pem()),
        ("cert.pem", certificate),
        ("key.pem", key),
        ("client.pem", client),
        ("client-key.pem", client_key),
    ] {
        fs::write(directory.join(name), pem).unwrap();
    }
    let example = fs::read_to_string(EXAMPLE).unwrap();
    let mut lines: Vec<&str> = Vec::new();
    let mut in_header = true;
    for line in example.lines() {
        in_header &= !line.is_empty();
        // Prose is "# Like this", a key that is commented out is "#like this".
        let is_prose = in_header || (line.starts_with("# ") && !line.starts_with("#  "));
        lines.push(if is_prose { line } else { line.trim_start_matches('#') });
    }
    lines.join("\n").replace("/etc/larder", directory.to_str().unwrap())
}

/// The example is right as it is shipped, and with every key that it shows.
#[test]
fn the_example_is_a_configuration() {
    let directory = TempDir::new().unwrap();
    let in_full = example_in_full(directory.path());
    for text in [fs::read_to_string(EXAMPLE).unwrap(), in_full] {
        let ended = run_with("check", &text);
        assert_eq!(ended.code, Some(0), "{ended:?}\n{text}");
    }
}

/// Each key of the example, misspelt, is an error that names the line and the right key.
#[test]
fn a_misspelt_key_is_named_with_its_remedy() {
    let directory = TempDir::new().unwrap();
    let example = example_in_full(directory.path());
    let mut tried = 0;
    for (number, line) in example.lines().enumerate() {
        let Some((key, value)) = line.split_once(" = ") else {
            continue;
        };
        if !key.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_') {
            continue;
        }
        let wrong = format!("{key}x = {value}");
        let mut lines: Vec<&str> = example.lines().collect();
        lines[number] = &wrong;
        let ended = run_with("check", &lines.join("\n"));
        assert_eq!(ended.code, Some(2), "{wrong}: {ended:?}");
        let place = format!("{CONFIG}:{}: ", number + 1);
        assert!(ended.output.contains(&place), "{wrong}: {ended:?}");
        assert!(ended.output.contains(&format!("{key}x")), "{wrong}: {ended:?}");
        let remedy = ended.output.replace(&format!("{key}x"), "");
        assert!(remedy.contains(key), "{wrong}: {ended:?}");
        tried += 1;
    }
    assert!(tried > 20, "{tried} keys");
}

/// A wrong value or unit stops the start with one clear error.
#[test]
fn a_wrong_value_is_named_with_its_line() {
    for (text, key) in [
        ("listen = [\"127.0.0.1\"]", "listen"),
        ("listen = \"nowhere\"", "listen"),
        ("drain_timeout = \"30\"", "drain_timeout"),
        ("drain_timeout = 30", "drain_timeout"),
        ("builtin_upstreams = \"maybe\"", "builtin_upstreams"),
        ("access.allow = [\"10.0.0.0/33\"]", "allow"),
        ("admin.listen = \"localhost\"", "listen"),
        ("log.level = \"loud\"", "level"),
        ("log.format = \"xml\"", "format"),
        ("cache.min_free = \"5 parsecs\"", "min_free"),
        ("cache.min_free = \"101%\"", "min_free"),
        ("cache.expire_after = \"-1d\"", "expire_after"),
        ("cache.on_deleted = \"maybe\"", "on_deleted"),
        ("download.idle_timeout = \"never\"", "idle_timeout"),
        ("download.connect_timeout = \"0s\"", "connect_timeout"),
        ("upstream = [{ registry = \"not a host\" }]", "registry"),
        ("upstream = [{ registry = \"a.b\", endpoints = [\"ftp://a.b\"] }]", "endpoints"),
        ("upstream = [{ registry = \"a.b\", password_file = \"/nowhere\" }]", "password_file"),
        ("upstream = [{ registry = \"a.b\", docker_config = \"/nowhere\" }]", "docker_config"),
        ("upstream = [{ registry = \"a.b\", docker_config = \"larder.toml\" }]", "docker_config"),
        ("upstream = [{ registry = \"a.b\", credential_helper = \"../x\" }]", "credential_helper"),
        ("upstream = [{ registry = \"a.b\", max_connections = 2 }]", "max_connections"),
        ("upstream = [{ registry = \"a.b\", quota_reserve = -1 }]", "quota_reserve"),
        ("upstream = [{ registry = \"a.b\", helper_ttl = \"1h\" }]", "helper_ttl"),
        ("upstream = [{ registry = \"a.b\", aliases = [\"nodot\"] }]", "aliases"),
        ("upstream = [{ registry = \"a.b\" }, { registry = \"a.b\" }]", "registry"),
        ("this is no TOML", ""),
    ] {
        let ended = run_with("serve", &format!("\n{text}\n"));
        assert_eq!(ended.code, Some(2), "{text}: {ended:?}");
        let place = format!("{CONFIG}:2");
        assert!(ended.output.contains(&place), "{text}: {ended:?}");
        assert!(ended.output.contains(key), "{text}: {ended:?}");
    }
}

/// A secret with a mistake beside it is not printed.
#[test]
fn an_error_does_not_show_the_password() {
    let text = "upstream = [{ registry = \"a.b\", password = \"hunter2\", usernam = \"x\" }]";
    let ended = run_with("check", text);
    assert_eq!(ended.code, Some(2));
    assert!(!ended.output.contains("hunter2"), "{ended:?}");
}

/// A file that is not there is an error, not a start with defaults.
#[test]
fn a_missing_file_is_named() {
    let ended = run(&["serve", "--config", "/nowhere/larder.toml"], &[]);
    assert_eq!(ended.code, Some(2), "{ended:?}");
    assert!(ended.output.contains("/nowhere/larder.toml"), "{ended:?}");
}

/// A port that another process has is one line that says where it was written and what to do.
#[test]
fn a_taken_port_is_named() {
    let holder = TcpListener::bind(address::unique()).unwrap();
    let taken = holder.local_addr().unwrap().to_string();
    let option = run(&["serve", "--listen", &taken], &[]);
    let variable = run(&["serve"], &[("LARDER_LISTEN", &taken)]);
    let written = run_with("serve", &format!("\nlisten = [\"{taken}\"]\n"));
    for (ended, place) in [
        (option, "--listen: listen: "),
        (variable, "LARDER_LISTEN: listen: "),
        (written, &*format!("{CONFIG}:2: listen: ")),
    ] {
        assert_eq!(ended.code, Some(2), "{ended:?}");
        for part in [place, &taken, "; stop what listens there"] {
            assert!(ended.output.contains(part), "{part} in {ended:?}");
        }
        assert_eq!(ended.output.lines().count(), 1, "{ended:?}");
    }
}

/// A data directory that cannot be one is an error that names it.
#[test]
fn a_data_dir_that_is_a_file_is_named() {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("file");
    fs::write(&file, "").unwrap();
    let file = file.to_str().unwrap();
    let listen = address::unique().to_string();
    let variables = [("LARDER_ADMIN_LISTEN", "127.0.0.1:0"), ("LARDER_LISTEN", &listen)];
    let ended = run(&["serve", "--data-dir", file], &variables);
    assert_eq!(ended.code, Some(2), "{ended:?}");
    assert!(ended.output.contains(file), "{ended:?}");
}

/// Two daemons on one data directory would damage it.
#[tokio::test(flavor = "multi_thread")]
async fn a_data_dir_in_use_is_refused() {
    let registry = FakeRegistry::start().await;
    let mirror = TestMirror::of(&registry).await;
    let data_dir = mirror.data_dir().to_str().unwrap().to_owned();
    let listen = address::unique().to_string();
    let variables = [("LARDER_ADMIN_LISTEN", "127.0.0.1:0"), ("LARDER_LISTEN", &listen)];
    let ended = run(&["serve", "--data-dir", &data_dir], &variables);
    assert_eq!(ended.code, Some(2), "{ended:?}");
    for part in [data_dir, format!("by process {} ", std::process::id())] {
        assert!(ended.output.contains(&part), "{part} in {ended:?}");
    }
    assert_eq!(mirror.get("/v2/").await.status, 200);
}

/// Kubernetes puts variables with our prefix into every pod; an unknown one of ours is only a
/// warning.
#[tokio::test(flavor = "multi_thread")]
async fn variables_of_kubernetes_are_ignored() {
    let registry = FakeRegistry::start().await;
    let mirror = TestMirror::builder().upstream(Upstream::docker_io(&registry));
    let variables = [
        ("LARDER_PORT", "tcp://10.0.0.1:5000"),
        ("LARDER_PORT_5000_TCP_ADDR", "10.0.0.1"),
        ("LARDER_SERVICE_HOST", "10.0.0.1"),
        ("LARDER_CACHE_EXPIRE_AFER", "1d"),
    ];
    let daemon = Daemon::start_with(mirror, &variables).await;
    assert_eq!(daemon.client().get("/v2/").await.status, 200);
    let log = daemon.log();
    assert!(!log.contains("LARDER_PORT") && !log.contains("LARDER_SERVICE"), "{log}");
    assert!(log.contains("LARDER_CACHE_EXPIRE_AFER"), "{log}");
}

/// Accounts that nobody said are for everyone, and helpers that are not there, are no mistakes.
#[test]
fn credentials_are_warned_of() {
    let helpers = Helpers::new();
    helpers.put_user("present", "anna", "secret");
    let json = r#"{"credHelpers":{"art.corp":"absent-too"}}"#;
    fs::write(helpers.path().join("config.json"), json).unwrap();
    let text = r#"
        upstream = [
            { registry = "ghcr.io", credential_helper = "present" },
            { registry = "quay.io", credential_helper = "absent" },
            { registry = "corp.test", endpoints = ["https://art.corp"], docker_config = "config.json" },
        ]
    "#;
    let file = helpers.path().join(CONFIG);
    let check = |text: &str| {
        fs::write(&file, text).unwrap();
        let path = helpers.path().to_str().unwrap();
        run(&["check", "--config", file.to_str().unwrap()], &[("PATH", path)])
    };
    let ended = check(text);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    for warning in [
        "warning: ghcr.io has credentials, and access.allow is not set: everyone on this machine may",
        "warning: quay.io has credentials",
        "may pull everything that its credentials may see",
        "warning: docker-credential-absent: not on the PATH of this command; quay.io would",
        "warning: docker-credential-absent-too: not on the PATH of this command; corp.test would",
    ] {
        assert!(ended.output.contains(warning), "{warning}: {ended:?}");
    }
    assert_eq!(ended.output.lines().count(), 6, "{ended:?}");

    let ended = check(&format!("access.allow = \"10.0.0.0/8\"\n{text}"));
    assert!(!ended.output.contains("access.allow"), "{ended:?}");
}

/// Nor does a daemon serve a network with them without a word, whatever else becomes of it.
#[test]
fn a_start_beyond_loopback_warns_of_credentials() {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join(CONFIG);
    for (listen, is_told) in [("0.0.0.0:0", true), ("127.0.0.1:0", false)] {
        let text = format!(
            "listen = \"{listen}\"\nadmin.listen = \"127.0.0.1:0\"\ndata_dir = \"{CONFIG}\"\n\
             upstream = [{{ registry = \"a.b\", username = \"anna\", password = \"hidden\" }}]"
        );
        fs::write(&file, text).unwrap();
        let ended = run(&["serve", "--config", file.to_str().unwrap()], &[]);
        assert_ne!(ended.code, Some(0), "{ended:?}");
        assert_eq!(ended.output.contains("a.b has credentials"), is_told, "{ended:?}");
        assert!(!ended.output.contains("hidden"), "{ended:?}");
    }
}

/// A variable wins over the file.
#[tokio::test(flavor = "multi_thread")]
async fn a_variable_wins_over_the_file() {
    let (written, stated) = (FakeRegistry::start().await, FakeRegistry::start().await);
    let mirror = TestMirror::builder().upstream(Upstream::docker_io(&written));
    let variable = ("LARDER_UPSTREAM_DOCKER_IO_ENDPOINTS", stated.url());
    let daemon = Daemon::start_with(mirror, &[(variable.0, &variable.1)]).await;
    daemon.client().get("/v2/library/x/manifests/latest").await;
    assert_eq!(written.requests().len(), 0);
    assert!(!stated.requests().is_empty());
}

/// Who is not in `access.allow` is refused, by the registry API only.
#[tokio::test(flavor = "multi_thread")]
async fn only_allowed_networks_may_pull() {
    let registry = FakeRegistry::start().await;
    registry.put_image("library/x", "latest", &Image::random(1));
    let paths = ["/", "/v2/", "/v2/library/x/manifests/latest"];
    for (network, status) in [("10.0.0.0/8", 403), ("127.0.0.0/8", 200)] {
        let mirror = TestMirror::builder()
            .upstream(Upstream::docker_io(&registry))
            .set("access.allow", vec![network])
            .start()
            .await;
        for path in paths {
            let response = mirror.get(path).await;
            assert_eq!(response.status, status, "{network} {path}");
            if status == 403 {
                assert_eq!(response.error().await.0, "DENIED");
                assert_eq!(registry.requests().len(), 0);
            }
        }
        assert_eq!(mirror.admin().get("/healthz").await.status, 200);
    }
}

/// On all addresses, those of this machine and the LAN may pull without a word.
#[tokio::test(flavor = "multi_thread")]
async fn beyond_loopback_local_networks_may_pull() {
    let registry = FakeRegistry::start().await;
    let mirror = TestMirror::builder()
        .upstream(Upstream::docker_io(&registry))
        .set("listen", vec!["0.0.0.0:0"])
        .start()
        .await;
    let port = mirror.address().port();
    let here = Client::new(SocketAddr::from(([127, 0, 0, 1], port)));
    assert_eq!(here.get("/v2/").await.status, 200);
}

/// The registry API on a Unix socket.
#[tokio::test(flavor = "multi_thread")]
async fn a_unix_socket_serves_the_registry() {
    let registry = FakeRegistry::start().await;
    let directory = TempDir::new().unwrap();
    let socket = directory.path().join("registry.sock");
    let listen = vec![format!("unix:{}", socket.display()), "127.0.0.1:0".to_owned()];
    let _mirror = TestMirror::builder()
        .upstream(Upstream::docker_io(&registry))
        .set("listen", listen)
        .start()
        .await;
    let answer = tokio::task::spawn_blocking(move || {
        let mut stream = UnixStream::connect(socket).unwrap();
        let request = "GET /v2/ HTTP/1.1\r\nhost: larder\r\nconnection: close\r\n\r\n";
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    });
    let answer = answer.await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

/// A CA file that is none stops the start before there is anything to clean up.
#[test]
fn a_start_that_fails_leaves_no_data_directory() {
    let directory = TempDir::new().unwrap();
    let (file, data_dir) = (directory.path().join(CONFIG), directory.path().join("data"));
    fs::write(&file, "upstream = [{ registry = \"a.b\", ca = \"larder.toml\" }]").unwrap();
    let [file, data] = [&file, &data_dir].map(|path| path.to_str().unwrap());
    let arguments = ["serve", "--config", file, "--data-dir", data, "--listen", "127.0.0.1:0"];
    let ended = run(&arguments, &[("LARDER_ADMIN_LISTEN", "127.0.0.1:0")]);
    assert_eq!(ended.code, Some(2), "{ended:?}");
    assert!(ended.output.contains("ca file"), "{ended:?}");
    assert!(!data_dir.exists());
}
