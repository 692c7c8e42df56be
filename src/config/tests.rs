//! Configurations as people write them.

mod example;
mod mistakes;
mod proxies;
mod rules;
mod upstreams;

use tempfile::TempDir;

use super::*;

/// A directory with a configuration file, the files it may name, and an environment.
struct Setting {
    directory: TempDir,
    sources: Sources,
}

impl Setting {
    fn new(text: &str) -> Setting {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("larder.toml");
        fs::write(&file, text).unwrap();
        for (name, content) in [
            ("secret", "s3cret\r\n"),
            ("password", "s3cret"),
            ("backup-password", "s3cret\n"),
            ("admin-token", "t0ken\n"),
            ("empty", "\n"),
            ("config.json", "{\"credsStore\": \"pass\"}"),
            ("corp.pem", "-----BEGIN CERTIFICATE-----\n"),
            ("cert.pem", "-----BEGIN CERTIFICATE-----\n"),
            ("key.pem", "-----BEGIN PRIVATE KEY-----\n"),
            ("client.pem", "-----BEGIN CERTIFICATE-----\n"),
            ("client-key.pem", "-----BEGIN PRIVATE KEY-----\n"),
        ] {
            fs::write(directory.path().join(name), content).unwrap();
        }
        let sources = Sources {
            file: Some(file),
            env: BTreeMap::from([("HOME".to_owned(), "/home/me".to_owned())]),
            flags: BTreeMap::new(),
        };
        Setting { directory, sources }
    }

    fn with_variable(mut self, name: &str, value: &str) -> Setting {
        self.sources.env.insert(name.to_owned(), value.to_owned());
        self
    }

    fn with_flag(mut self, key: &'static str, value: &str) -> Setting {
        self.sources.flags.insert(key, value.to_owned());
        self
    }

    fn load(&self) -> Config {
        Config::load(&self.sources).unwrap()
    }

    /// The mistakes, with paths as if the directory were the working directory.
    fn mistakes(&self) -> String {
        let mistakes = Config::load(&self.sources).unwrap_err().to_string();
        mistakes.replace(&format!("{}/", self.directory.path().display()), "")
    }
}

fn load(text: &str) -> Config {
    Setting::new(text).load()
}

fn upstream<'c>(config: &'c Config, registry: &str) -> &'c Upstream {
    let mut upstreams = config.upstreams.iter();
    upstreams.find(|upstream| upstream.registry.as_str() == registry).unwrap()
}

/// Each endpoint, with its secret.
fn endpoints(upstream: &Upstream) -> Vec<(&str, Option<String>)> {
    let endpoints = upstream.endpoints.iter();
    let secret = |endpoint: &Endpoint| endpoint.credentials.others.as_ref().map(secret);
    endpoints.map(|endpoint| (endpoint.url.as_str(), secret(endpoint))).collect()
}

fn secret(source: &CredentialSource) -> String {
    match source {
        CredentialSource::SecretFile { file, .. } => read_secret(file).unwrap(),
        CredentialSource::Stated(Identity::User { password, .. }) => password.clone(),
        CredentialSource::Stated(_)
        | CredentialSource::DockerConfig { .. }
        | CredentialSource::Helper { .. } => panic!("{source:?}"),
    }
}

#[test]
fn without_a_word_larder_mirrors_docker_hub_for_this_machine() {
    let config = Config::load(&Sources {
        env: BTreeMap::from([("HOME".to_owned(), "/home/me".to_owned())]),
        ..Sources::default()
    });
    let config = config.unwrap();
    assert_eq!(config.listen, [Listen::Tcp("127.0.0.1:5000".parse().unwrap())]);
    assert!(config.listens_on_loopback_only());
    assert!(config.access.allow.is_none());
    assert_eq!(config.data_dir, Path::new("/home/me/.local/share/larder"));
    assert_eq!(config.upstreams.len(), 13);
    let hub = upstream(&config, "docker.io");
    assert!(hub.default);
    assert_eq!(hub.tag_ttl, Duration::from_secs(60));
    assert_eq!(endpoints(hub), [("https://registry-1.docker.io/", None)]);
    assert_eq!(endpoints(upstream(&config, "ghcr.io")), [("https://ghcr.io/", None)]);
    assert_eq!(config.upstreams.iter().filter(|upstream| upstream.default).count(), 1);
    assert!(config.warnings.is_empty());
}

#[test]
fn options_win_over_variables_and_variables_over_the_file() {
    let file = "data_dir = \"/file\"\nlisten = \"127.0.0.1:1\"\n[log]\nlevel = \"warn\"";
    let setting = Setting::new(file)
        .with_variable("LARDER_LISTEN", "127.0.0.1:2, unix:/run/l.sock")
        .with_variable("LARDER_DATA_DIR", "/variable")
        .with_variable("LARDER_LOG_LEVEL", "")
        .with_flag("data_dir", "/flag");
    let config = setting.load();
    let unix = Listen::Unix("/run/l.sock".into());
    assert_eq!(config.listen, [Listen::Tcp("127.0.0.1:2".parse().unwrap()), unix]);
    assert_eq!(config.data_dir, Path::new("/flag"));
    assert_eq!(config.log.level, Level::WARN);
    assert_eq!(config.written_at.place("data_dir"), "--data-dir: data_dir");
    assert_eq!(config.written_at.place("listen"), "LARDER_LISTEN: listen");
    assert!(config.written_at.place("log.level").ends_with("larder.toml:4: log.level"));
    assert_eq!(config.written_at.place("admin.listen"), "admin.listen");
}

#[test]
fn the_file_may_be_named_by_a_variable() {
    let mut setting = Setting::new("drain_timeout = \"1s\"");
    let file = setting.sources.file.take().unwrap();
    let setting = setting.with_variable("LARDER_CONFIG", file.to_str().unwrap());
    assert_eq!(setting.load().drain_timeout, Duration::from_secs(1));
}

#[test]
fn the_data_directory_follows_systemd_then_xdg_then_home() {
    let setting = Setting::new("").with_variable("XDG_DATA_HOME", "/xdg");
    assert_eq!(setting.load().data_dir, Path::new("/xdg/larder"));
    let relative = Setting::new("").with_variable("XDG_DATA_HOME", "xdg");
    assert_eq!(relative.load().data_dir, Path::new("/home/me/.local/share/larder"));
    let setting = setting.with_variable("STATE_DIRECTORY", "/state:/other");
    assert_eq!(setting.load().data_dir, Path::new("/state"));

    let mistakes = Config::load(&Sources::default()).unwrap_err().to_string();
    assert_eq!(mistakes, "data_dir: no HOME to put it in; write data_dir, or use --data-dir");
}

#[test]
fn paths_in_the_file_are_relative_to_it() {
    let setting = Setting::new("data_dir = \"data\"\nlisten = \"unix:l.sock\"");
    let config = setting.load();
    assert_eq!(config.data_dir, setting.directory.path().join("data"));
    assert_eq!(config.listen, [Listen::Unix(setting.directory.path().join("l.sock"))]);
}

#[test]
fn tls_is_spoken_when_there_is_a_certificate_with_its_key() {
    assert!(load("").tls.is_none());
    assert!(load("[tls]").tls.is_none());
    let setting = Setting::new("[tls]\ncert = \"cert.pem\"\nkey = \"key.pem\"");
    let tls = setting.load().tls.unwrap();
    assert_eq!(tls.cert, setting.directory.path().join("cert.pem"));
    assert_eq!(tls.key, setting.directory.path().join("key.pem"));
}

#[test]
fn tls_that_nobody_can_speak_is_a_warning() {
    let tls = |listen: &str| {
        let setting = Setting::new(&format!(
            "listen = {listen}\n[tls]\ncert = \"cert.pem\"\nkey = \"key.pem\"\n"
        ));
        for file in ["cert.pem", "key.pem"] {
            fs::write(setting.directory.path().join(file), "").unwrap();
        }
        setting.load().warnings
    };
    assert!(tls("[\"unix:/x\", \"127.0.0.1:5000\"]").is_empty());
    let warnings = tls("\"unix:/x\"");
    assert!(warnings.len() == 1 && warnings[0].contains(":3: tls.cert: "), "{warnings:?}");
}

#[test]
fn unknown_variables_are_warnings_except_those_of_kubernetes() {
    let setting = Setting::new("")
        .with_variable("LARDER_PORT", "tcp://10.0.0.1:5000")
        .with_variable("LARDER_PORT_5000_TCP_ADDR", "10.0.0.1")
        .with_variable("LARDER_SERVICE_HOST", "10.0.0.1")
        .with_variable("LARDER_CACHE_EXPIRES_AFTER", "s3cret")
        .with_variable("LARDER_UPSTREAM_CORP_IO_PASSWORD", "s3cret");
    assert_eq!(
        setting.load().warnings,
        [
            "LARDER_CACHE_EXPIRES_AFTER: no such variable; the nearest is LARDER_CACHE_EXPIRE_AFTER",
            "LARDER_UPSTREAM_CORP_IO_PASSWORD: no such variable; the nearest is LARDER_UPSTREAM_GCR_IO_PASSWORD",
        ]
    );
}

#[test]
fn beyond_loopback_only_local_networks_may_ask() {
    let allow = load("listen = [\"127.0.0.1:5000\", \"[::]:5000\"]").access.allow.unwrap();
    let permits =
        |ip: &str| allow.iter().any(|network| network.contains(&ip.parse::<IpAddr>().unwrap()));
    for ip in ["127.0.0.1", "10.1.1.1", "172.31.0.1", "192.168.1.1", "100.64.0.1", "::1", "fd00::1"]
    {
        assert!(permits(ip), "{ip}");
    }
    for ip in ["8.8.8.8", "172.32.0.1", "100.128.0.1", "169.254.169.254", "2001:db8::1", "fe80::1"]
    {
        assert!(!permits(ip), "{ip}");
    }
    assert!(load("listen = [\"[::1]:5000\", \"unix:/x\"]").access.allow.is_none());
    assert_eq!(load("[access]\nallow = []").access.allow, Some(vec![]));
    let one = load("[access]\nallow = \"10.1.2.3\"").access.allow.unwrap();
    assert_eq!(one[0].to_string(), "10.1.2.3/32");
}

#[test]
fn the_space_to_leave_free_is_a_share_with_a_floor_unless_stated() {
    let total = 1 << 40;
    assert_eq!(load("").cache.min_free_bytes(10 << 30), 5 << 30);
    assert_eq!(load("").cache.min_free_bytes(total), total / 100 * 5);
    let stated = load("[cache]\nmin_free = \"1.5GiB\"").cache;
    assert_eq!(stated.min_free_bytes(total), 3 << 29);
    assert_eq!(load("[cache]\nmin_free = \"10%\"").cache.min_free_bytes(total), total / 100 * 10);
}
