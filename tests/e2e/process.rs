//! Commands that end, daemons that do not, and waiting for what a daemon will do.
//!
//! A command is written as one line, its words separated by blanks. There is no quoting.

use std::{
    fs::{self, File},
    io,
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};

/// How long anything that is waited for may take on a slow machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long a command may take, in the words of `timeout(1)`.
const COMMAND_LIMIT: &str = "180s";

/// How much of each stream of a daemon is shown when its test has failed.
const LOG_LINES: usize = 40;

/// Runs a command to its end and returns what it printed; panics with its errors if it failed.
pub fn run(line: &str) -> String {
    println!("$ {line}");
    let output =
        command(&format!("timeout --kill-after 1s {COMMAND_LIMIT} {line}")).output().unwrap();
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    let stderr = String::from_utf8_lossy(&output.stderr);
    print!("{stdout}");
    assert!(output.status.success(), "{line}: {}\n{stderr}", output.status);
    stdout
}

/// A program's name and version: the first word of `--version` that is a number.
pub fn version(program: &str) -> String {
    let text = run(&format!("{program} --version"));
    let mut words = text.split_whitespace();
    let number = words.find(|word| word.starts_with(|first: char| first.is_ascii_digit())).unwrap();
    format!("{program} {}", number.trim_end_matches(','))
}

/// Whether a command ends well; what it prints is dropped.
pub fn succeeds(line: &str) -> bool {
    command(line).output().is_ok_and(|output| output.status.success())
}

/// Polls until there is an answer; panics when `what` takes longer than [`PATIENCE`].
pub fn wait_for<T>(what: &str, mut answer: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = answer() {
            return answer;
        }
        assert!(Instant::now() < deadline, "{what}: not within {PATIENCE:?}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// Waits until something accepts connections at `address`.
pub fn wait_for_listener(address: SocketAddr) {
    wait_for(&format!("listener at {address}"), || TcpStream::connect(address).ok());
}

/// A running program that is killed on drop, and by the kernel should the test be killed.
///
/// When the test has failed, the end of what it printed is shown.
pub struct Daemon {
    child: Child,
    output: PathBuf,
    log: PathBuf,
}

impl Daemon {
    /// Starts `line`; what it prints is appended to `<name>.out` and `<name>.log` in `directory`.
    pub fn start(name: &str, directory: &Path, line: &str) -> Self {
        println!("$ {line} &");
        let output = directory.join(format!("{name}.out"));
        let log = directory.join(format!("{name}.log"));
        let open = |path| File::options().create(true).append(true).open(path).unwrap();
        let child = command(&format!("setpriv --pdeathsig KILL -- {line}"))
            .stdin(Stdio::null())
            .stdout(open(&output))
            .stderr(open(&log))
            .spawn()
            .unwrap();
        Self { child, output, log }
    }

    /// The process id, as seen from outside any namespace.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Panics if the program has ended, to be called while its first answer is awaited.
    pub fn assert_running(&mut self) {
        let ended = self.child.try_wait().unwrap();
        assert_eq!(ended, None, "it ended: {}", self.log.display());
    }

    /// Tells it to end, and waits until it has.
    pub fn terminate(mut self) {
        let pid = i32::try_from(self.id()).ok().and_then(Pid::from_raw).unwrap();
        kill_process(pid, Signal::TERM).unwrap();
        wait_for("the end of a daemon", || self.child.try_wait().unwrap());
    }

    /// Everything printed to standard error so far, by all runs under this name.
    pub fn log(&self) -> String {
        read_lossy(&self.log)
    }

    /// Where there are child processes, kills those instead and waits for the daemon to end by
    /// itself: `unshare` does once its namespace is empty, so that nothing is left writing.
    fn kill(&mut self) -> io::Result<ExitStatus> {
        let id = self.child.id();
        let children = fs::read_to_string(format!("/proc/{id}/task/{id}/children"))?;
        let children: Vec<Pid> =
            children.split_whitespace().filter_map(|id| Pid::from_raw(id.parse().ok()?)).collect();
        if children.is_empty() {
            self.child.kill()?;
        }
        for child in children {
            kill_process(child, Signal::KILL)?;
        }
        self.child.wait()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let killed = self.kill();
        if thread::panicking() {
            println!("--- {}: {killed:?}", self.log.display());
            [&self.output, &self.log].into_iter().for_each(|path| print_end(path));
        }
    }
}

/// One line as a command that has not begun.
pub fn command(line: &str) -> Command {
    let mut words = line.split_whitespace();
    let mut command = Command::new(words.next().expect("an empty command"));
    command.args(words);
    command
}

fn print_end(path: &Path) {
    let text = read_lossy(path);
    let lines: Vec<&str> = text.lines().collect();
    let skipped = lines.len().saturating_sub(LOG_LINES);
    lines.iter().skip(skipped).for_each(|line| println!("{line}"));
}

fn read_lossy(path: &Path) -> String {
    fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
}
