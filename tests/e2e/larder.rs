//! The program under test, as a user starts it.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
};

use crate::process::{Daemon, run, wait_for};

/// Where the build has put it.
pub const PROGRAM: &str = env!("CARGO_BIN_EXE_larder");

/// A running `larder serve`.
pub struct Larder {
    /// Only in between is there none.
    daemon: Option<Daemon>,
    directory: PathBuf,
    address: SocketAddr,
    admin: SocketAddr,
    /// What its command line begins with, the program last.
    program: String,
}

impl Larder {
    /// Starts it and waits until it says it is ready.
    pub fn start(listen: SocketAddr, admin: SocketAddr, upstreams: &str, parent: &Path) -> Self {
        Self::start_by(PROGRAM, listen, admin, upstreams, parent)
    }

    /// As [`Self::start`], by a line that begins with `program`: that, or one that runs it.
    pub fn start_by(
        program: &str,
        listen: SocketAddr,
        admin: SocketAddr,
        upstreams: &str,
        parent: &Path,
    ) -> Self {
        let directory = parent.join("larder");
        fs::create_dir_all(&directory).unwrap();
        let text = format!(
            "listen = [\"{listen}\"]\ndata_dir = \"{}\"\n\n\
             [admin]\nlisten = \"{admin}\"\n\n[log]\nlevel = \"debug\"\n\n{upstreams}",
            directory.join("data").display(),
        );
        println!("{text}");
        let program = program.to_owned();
        let mut larder = Self { daemon: None, directory, address: listen, admin, program };
        fs::write(larder.config(), text).unwrap();
        larder.launch();
        larder
    }

    /// Ends it, removes all that it kept, and starts it anew.
    pub fn restart_empty(&mut self) {
        self.daemon = None;
        fs::remove_dir_all(self.data_dir()).unwrap();
        self.launch();
    }

    /// Stops it and starts it again on what it kept.
    pub fn restart(&mut self) {
        self.stop();
        self.launch();
    }

    /// Stops it as a service manager does.
    pub fn stop(&mut self) {
        self.daemon.take().unwrap().terminate();
    }

    /// Gives it no time for anything.
    pub fn kill(&mut self) {
        self.daemon = None;
    }

    /// Starts it on what it kept, by a line that begins with `program`.
    pub fn start_again(&mut self, program: &str) {
        program.clone_into(&mut self.program);
        self.launch();
    }

    /// The line that runs another command of it, with the configuration of this one.
    pub fn command(&self, arguments: &str) -> String {
        format!("{} {arguments} --config {}", self.program, self.config().display())
    }

    /// What it says of its readiness, status line and all.
    pub fn readiness(&self) -> String {
        get(self.admin, "/readyz").unwrap()
    }

    /// Everything it logged so far, in all its lives.
    pub fn log(&self) -> String {
        self.daemon.as_ref().unwrap().log()
    }

    /// What it keeps.
    pub fn data_dir(&self) -> PathBuf {
        self.directory.join("data")
    }

    /// What it keeps, through its own eyes: it may have mounts of its own.
    pub fn own_data_dir(&self) -> PathBuf {
        let root = format!("/proc/{}/root", self.daemon.as_ref().unwrap().id());
        Path::new(&root).join(self.data_dir().strip_prefix("/").unwrap())
    }

    /// Where clients reach it.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Merges what it says that `client` has to be told into the files below `root`.
    pub fn configure(&self, client: &str, root: &Path) {
        run(&format!(
            "{PROGRAM} configure {client} --config {} --mirror http://{} --write {}",
            self.config().display(),
            self.address,
            root.display()
        ));
    }

    /// How often its look-ups ended how since it started: `larder_lookups_total` as `blob hit`,
    /// for all registries together.
    pub fn lookups(&self) -> BTreeMap<String, u64> {
        let mut lookups = BTreeMap::new();
        let metrics = get(self.admin, "/metrics").unwrap();
        for line in metrics.lines().filter(|line| line.starts_with("larder_lookups_total{")) {
            let (labels, count) = line.rsplit_once(' ').unwrap();
            let label = |name| labels.split_once(name).unwrap().1.split('"').nth(1).unwrap();
            let lookup = format!("{} {}", label("kind="), label("result="));
            *lookups.entry(lookup).or_default() += count.parse::<u64>().unwrap();
        }
        lookups
    }

    /// The sum of a metric over all its labels.
    pub fn metric(&self, name: &str) -> f64 {
        let metrics = get(self.admin, "/metrics").unwrap();
        let of_name =
            |line: &&str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']));
        let values = metrics.lines().filter(of_name);
        values.map(|line| line.rsplit_once(' ').unwrap().1.parse::<f64>().unwrap()).sum()
    }

    fn launch(&mut self) {
        let mut daemon = Daemon::start("larder", &self.directory, &self.command("serve"));
        wait_for("larder's readiness", || {
            daemon.assert_running();
            get(self.admin, "/readyz").ok().filter(|answer| answer.starts_with("HTTP/1.1 200"))
        });
        self.daemon = Some(daemon);
    }

    fn config(&self) -> PathBuf {
        self.directory.join("larder.toml")
    }
}

/// The whole answer of the admin listener, headers and all.
fn get(admin: SocketAddr, path: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect(admin)?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {admin}\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}
