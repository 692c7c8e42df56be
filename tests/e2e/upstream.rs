//! An upstream: Debian's `docker-registry` over TLS with token auth, and what it was asked for.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
};

use crate::{
    access_log::{Request, Requests},
    certificates::Identity,
    process::{Daemon, run, wait_for, wait_for_listener},
    token_server::{ISSUER, PUSHER, TokenServer},
};

/// A registry that can be stopped and started again on the same port.
pub struct Upstream {
    registry: &'static str,
    directory: PathBuf,
    tokens: TokenServer,
    port: u16,
    daemon: Option<Daemon>,
    /// Lines of the access log, and token requests, that do not count any more.
    forgotten: (usize, usize),
}

impl Upstream {
    /// Starts an empty registry that clients know as `registry`.
    pub fn start(registry: &'static str, parent: &Path) -> Self {
        let directory = parent.join(registry);
        fs::create_dir(&directory).unwrap();
        let tokens = TokenServer::start(Identity::write_to(&directory));
        let mut upstream =
            Self { registry, directory, tokens, port: 0, daemon: None, forgotten: (0, 0) };
        upstream.launch();
        upstream.port = wait_for("the registry's port", || upstream.announced_port());
        upstream
    }

    /// Copies an OCI layout, all its architectures, to `image`; `options` are skopeo's.
    pub fn push(&mut self, layout: &Path, image: &str, options: &str) {
        let Self { directory, port, .. } = self;
        run(&format!(
            "skopeo --insecure-policy copy --quiet --all {options} --dest-creds {PUSHER} \
             --dest-cert-dir {} oci:{} docker://127.0.0.1:{port}/{image}",
            directory.display(),
            layout.display()
        ));
        self.forget_requests();
    }

    /// Runs a Python program that pushes: `line`, then a repository, the account and its password.
    pub fn push_with(&mut self, line: &str, repository: &str) {
        let Self { directory, port, .. } = self;
        let (user, password) = PUSHER.split_once(':').unwrap();
        run(&format!(
            "env REQUESTS_CA_BUNDLE={}/ca.crt {line} 127.0.0.1:{port}/{repository} {user} {password}",
            directory.display()
        ));
        self.forget_requests();
    }

    /// Stops the registry; its token server stays.
    pub fn stop(&mut self) {
        self.daemon = None;
    }

    /// Starts the registry again where it was, if it does not run.
    pub fn restart(&mut self) {
        if self.daemon.is_some() {
            return;
        }
        self.launch();
        wait_for_listener(SocketAddr::from((Ipv4Addr::LOCALHOST, self.port)));
    }

    /// The section of Larder's configuration about this upstream.
    pub fn as_config(&self) -> String {
        format!(
            "[[upstream]]\nregistry = \"{}\"\nendpoints = [\"https://127.0.0.1:{}\"]\nca = \"{}\"\n",
            self.registry,
            self.port,
            self.directory.join("ca.crt").display()
        )
    }

    /// What was asked for since the last push, or since it was last forgotten.
    pub fn requests(&self) -> Requests {
        let (lines, tokens) = self.forgotten;
        let log = self.access_log();
        let registry = log.lines().skip(lines).filter_map(Request::parse).collect();
        Requests { tokens: self.tokens.requests() - tokens, registry }
    }

    /// Counts from here on.
    pub fn forget_requests(&mut self) {
        self.forgotten = (self.access_log().lines().count(), self.tokens.requests());
    }

    fn access_log(&self) -> String {
        fs::read_to_string(self.directory.join("registry.out")).unwrap()
    }

    fn launch(&mut self) {
        let config = self.directory.join("config.yml");
        fs::write(&config, self.config()).unwrap();
        let line = format!("docker-registry serve {}", config.display());
        self.daemon = Some(Daemon::start("registry", &self.directory, &line));
    }

    fn config(&self) -> String {
        format!(
            r#"version: 0.1
storage: {{ filesystem: {{ rootdirectory: "{directory}/storage" }} }}
http:
  addr: "127.0.0.1:{port}"
  tls: {{ certificate: "{directory}/server.pem", key: "{directory}/server-key.pem" }}
auth:
  token:
    realm: "{realm}"
    service: "{registry}"
    issuer: "{ISSUER}"
    rootcertbundle: "{directory}/ca.crt"
"#,
            directory = self.directory.display(),
            port = self.port,
            realm = self.tokens.realm(),
            registry = self.registry,
        )
    }

    /// The port in the line `… msg="listening on 127.0.0.1:40123, tls" …` of its log.
    fn announced_port(&self) -> Option<u16> {
        let log = self.daemon.as_ref()?.log();
        let (_, address) = log.split_once("listening on ")?;
        let (address, _) = address.split_once(',')?;
        Some(address.parse::<SocketAddr>().unwrap().port())
    }
}
