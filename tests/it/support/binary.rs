//! The real binary, for what only a process can do: be killed, be told to stop, use memory.

use std::{
    fs::{self, File},
    io::Read as _,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

use tempfile::TempDir;

use super::{
    Client, address,
    mirror::{Builder, CONFIG, DATA_DIR},
    wait::{LIMIT, until},
};

/// The binary under test.
const LARDER: &str = env!("CARGO_BIN_EXE_larder");

/// The log's name beside the configuration.
const LOG: &str = "log";

/// `larder serve`, ready. Killed when dropped.
pub struct Daemon {
    child: Child,
    /// Holds the configuration, the data and the log. Moves to the next daemon at a restart.
    directory: Option<TempDir>,
    registry: SocketAddr,
    admin: SocketAddr,
}

/// How a run of the binary ended.
#[derive(Debug)]
pub struct Ended {
    /// The exit code; `None` when a signal ended it.
    pub code: Option<i32>,
    /// What it wrote to standard error and standard output.
    pub output: String,
}

impl Daemon {
    /// Starts a daemon with this configuration on addresses of its own, and waits until it is
    /// ready.
    pub async fn start(mirror: Builder) -> Daemon {
        Daemon::start_with(mirror, &[]).await
    }

    /// As [`Daemon::start`], with these variables in its environment.
    pub async fn start_with(mirror: Builder, variables: &[(&str, &str)]) -> Daemon {
        let registry = address::unique();
        let admin = address::unique();
        let mirror =
            mirror.set("listen", vec![registry.to_string()]).set("admin.listen", admin.to_string());
        let directory = mirror.into_file();
        let daemon = Daemon {
            child: spawn_on_file(directory.path(), variables),
            directory: Some(directory),
            registry,
            admin,
        };
        daemon.until_ready().await;
        daemon
    }

    /// As [`Daemon::start`], with what it does to files below its data directory in `trace`.
    pub async fn start_traced(mirror: Builder, calls: &str, trace: &Path) -> Daemon {
        let (registry, admin) = (address::unique(), address::unique());
        let mirror =
            mirror.set("listen", vec![registry.to_string()]).set("admin.listen", admin.to_string());
        let directory = mirror.into_file();
        let mut command = Command::new("strace");
        // The process is the daemon, not strace.
        command.args(["-D", "-f", "-y", "-xx", "-s", "10000000", "--seccomp-bpf", "-e", calls]);
        command.arg("-o").arg(trace).arg(LARDER);
        let mut command = without_our_variables(command);
        command.arg("serve").arg("--config").arg(directory.path().join(CONFIG));
        let child = spawn(command, directory.path(), &[]);
        let daemon = Daemon { child, directory: Some(directory), registry, admin };
        daemon.until_ready().await;
        daemon
    }

    /// Stops it as a service manager does. The data stays, for another daemon or a mirror.
    pub async fn stop(mut self) -> TempDir {
        self.signal("TERM");
        assert!(self.ended().await.success());
        self.directory.take().unwrap()
    }

    /// Starts a daemon without a configuration file, with these variables in its environment,
    /// and a data home and addresses of its own.
    pub async fn start_without_file(variables: &[(&str, &str)]) -> Daemon {
        let (registry, admin) = (address::unique(), address::unique());
        let directory = TempDir::new().unwrap();
        let mut command = daemon();
        command.args(["serve", "--listen", &registry.to_string()]);
        command.env("XDG_DATA_HOME", directory.path());
        command.env("LARDER_ADMIN_LISTEN", admin.to_string());
        let child = spawn(command, directory.path(), variables);
        let daemon = Daemon { child, directory: Some(directory), registry, admin };
        daemon.until_ready().await;
        daemon
    }

    /// The directory that holds all that belongs to this daemon.
    pub fn directory(&self) -> &Path {
        self.directory.as_ref().unwrap().path()
    }

    /// The directory with everything the daemon of a [`Builder`] keeps.
    pub fn data_dir(&self) -> PathBuf {
        self.directory().join(DATA_DIR)
    }

    /// A client of the registry API.
    pub fn client(&self) -> Client {
        Client::new(self.registry)
    }

    /// A client of the admin listener.
    pub fn admin(&self) -> Client {
        Client::new(self.admin)
    }

    /// Everything the daemon wrote to standard output and standard error so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.directory().join(LOG)).unwrap()
    }

    /// The soft and the hard limit of open files, in words of the kernel.
    pub fn open_file_limits(&self) -> (String, String) {
        let limits = fs::read_to_string(self.process("limits")).unwrap();
        let limits = limits.lines().find_map(|line| line.strip_prefix("Max open files")).unwrap();
        let mut limits = limits.split_whitespace().map(str::to_owned);
        (limits.next().unwrap(), limits.next().unwrap())
    }

    /// The most memory it has had resident so far, in bytes.
    pub fn peak_memory(&self) -> u64 {
        let status = fs::read_to_string(self.process("status")).unwrap();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        let kibibytes: u64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
        kibibytes * 1024
    }

    /// How long processors have worked for it so far, whatever else they did (proc(5), `stat`).
    pub fn work(&self) -> Duration {
        let stat = fs::read_to_string(self.process("stat")).unwrap();
        let (_, fields) = stat.rsplit_once(')').unwrap();
        let ticks = fields.split_whitespace().skip(11).take(2);
        ticks.map(|ticks| Duration::from_millis(10) * ticks.parse::<u32>().unwrap()).sum()
    }

    /// How many descriptors it has open, but for those that it keeps: of whole blobs, for who reads them next,
    /// and the one of `/dev/null` that it opens when a blob is first read from the disk.
    pub fn open_files(&self) -> usize {
        let entries = self.process("fd").read_dir().unwrap().map(Result::unwrap);
        let is_kept = |path: &Path| {
            let name = path.to_string_lossy();
            let is_whole_blob = name.contains("/blobs/") && !name.ends_with(" (deleted)");
            is_whole_blob || name == "/dev/null"
        };
        // One may be closed meanwhile.
        let paths = entries.filter_map(|entry| fs::read_link(entry.path()).ok());
        paths.filter(|path| !is_kept(path)).count()
    }

    /// How many threads it has, but for those of sled, which keeps as many as it once needed.
    pub fn threads(&self) -> usize {
        let threads = self.process("task").read_dir().unwrap().map(Result::unwrap);
        // One may end meanwhile.
        let names =
            threads.filter_map(|thread| fs::read_to_string(thread.path().join("comm")).ok());
        names.filter(|name| !name.starts_with("sled")).count()
    }

    fn process(&self, what: &str) -> PathBuf {
        Path::new("/proc").join(self.child.id().to_string()).join(what)
    }

    /// Lets the process have only so many descriptors from now on.
    pub fn limit_open_files(&self, number: u32) {
        let process = self.child.id().to_string();
        let limit = format!("--nofile={number}:{number}");
        let limited = Command::new("prlimit").args(["--pid", &process, &limit]).status();
        assert!(limited.unwrap().success());
    }

    /// Lets no file of the process grow beyond so many bytes; `None`: as far as it likes.
    pub fn limit_file_size(&self, bytes: Option<usize>) {
        let process = self.child.id().to_string();
        let soft = bytes.map_or("unlimited".to_owned(), |bytes| bytes.to_string());
        let limit = format!("--fsize={soft}:unlimited");
        let limited = Command::new("prlimit").args(["--pid", &process, &limit]).status();
        assert!(limited.unwrap().success());
    }

    /// Sends a signal: `TERM`, `INT`.
    pub fn signal(&self, name: &str) {
        let process = self.child.id().to_string();
        let sent = Command::new("kill").args(["-s", name, &process]).status();
        assert!(sent.unwrap().success());
    }

    /// Waits until the process has ended, and says how.
    pub async fn ended(&mut self) -> ExitStatus {
        let child = &mut self.child;
        let mut status = None;
        until("the daemon's end", async || {
            status = child.try_wait().unwrap();
            status.is_some()
        })
        .await;
        status.unwrap()
    }

    /// Kills it unless it has ended, and starts it again on the same data and addresses.
    pub async fn kill_and_restart(mut self) -> Daemon {
        self.child.kill().unwrap();
        self.ended().await;
        let daemon = Daemon {
            child: spawn_on_file(self.directory(), &[]),
            directory: self.directory.take(),
            registry: self.registry,
            admin: self.admin,
        };
        daemon.until_ready().await;
        daemon
    }

    async fn until_ready(&self) {
        let admin = self.admin();
        until("the daemon to be ready", async || {
            let answer = admin.try_request("GET", "/readyz", &[]).await;
            answer.is_some_and(|answer| answer.status == 200)
        })
        .await;
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs `larder` with these arguments and variables until it ends by itself.
///
/// # Panics
/// When it does not.
pub fn run(arguments: &[&str], variables: &[(&str, &str)]) -> Ended {
    let mut child = command()
        .args(arguments)
        .envs(variables.iter().copied())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let status = wait(&mut child);
    let mut output = String::new();
    child.stderr.take().unwrap().read_to_string(&mut output).unwrap();
    child.stdout.take().unwrap().read_to_string(&mut output).unwrap();
    Ended { code: status.code(), output }
}

/// `larder`, with an environment that says nothing of it.
pub fn command() -> Command {
    without_our_variables(Command::new(LARDER))
}

/// As [`command`], with a soft limit of open files too low for anything but a start.
fn daemon() -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -S -n 32 && exec \"$@\"", "sh", LARDER]);
    without_our_variables(command)
}

fn without_our_variables(mut command: Command) -> Command {
    let ours = |name: &str| name.starts_with("LARDER_") || name.to_lowercase().ends_with("_proxy");
    for (name, _) in std::env::vars().filter(|(name, _)| ours(name)) {
        command.env_remove(name);
    }
    command.env_remove("STATE_DIRECTORY").env_remove("NOTIFY_SOCKET");
    command
}

fn spawn_on_file(directory: &Path, variables: &[(&str, &str)]) -> Child {
    let mut command = daemon();
    command.arg("serve").arg("--config").arg(directory.join(CONFIG));
    spawn(command, directory, variables)
}

fn spawn(mut command: Command, directory: &Path, variables: &[(&str, &str)]) -> Child {
    let log = directory.join(LOG);
    let log = File::options().create(true).append(true).open(log).unwrap();
    command.envs(variables.iter().copied());
    command.stdout(log.try_clone().unwrap()).stderr(log);
    command.spawn().unwrap()
}

fn wait(child: &mut Child) -> ExitStatus {
    let step = Duration::from_millis(10);
    let mut waited = Duration::ZERO;
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        if waited > LIMIT {
            let _ = child.kill();
            panic!("larder does not end");
        }
        std::thread::sleep(step);
        waited += step;
    }
}
