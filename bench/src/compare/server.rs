//! A program that is measured, and what the kernel tells of it.

use std::{
    fs::{self, File},
    io,
    net::{SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};

use crate::Failure;

/// How long a start, or an end after SIGTERM, may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// A running server. Dropped, it ends, and all that it kept is removed.
pub struct Server {
    process: Child,
    address: SocketAddr,
    directory: PathBuf,
}

impl Server {
    /// Starts it, and waits until it takes connections at the address. All that it keeps, and its
    /// log, is in the directory.
    pub fn start(
        mut command: Command,
        address: SocketAddr,
        directory: PathBuf,
    ) -> Result<Server, Failure> {
        let log = File::create(directory.join("log"))?;
        let process = command.stdout(log.try_clone()?).stderr(log).spawn()?;
        let mut server = Server { process, address, directory };
        server.wait_until_it_listens()?;
        Ok(server)
    }

    /// Where it serves.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What it keeps.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Its process; its children come with it.
    pub fn process(&self) -> u32 {
        self.process.id()
    }

    /// The memory that it and its children have resident, in bytes. What several of them share
    /// counts several times.
    pub fn resident_memory(&self) -> io::Result<u64> {
        let mut kib = 0;
        for process in self.processes()? {
            let status = fs::read_to_string(format!("/proc/{process}/status"))?;
            let value = status.lines().find_map(|text| text.strip_prefix("VmRSS:"));
            let value = value.and_then(|text| text.trim().strip_suffix(" kB")?.parse().ok());
            kib += value.unwrap_or(0_u64);
        }
        Ok(kib * 1024)
    }

    /// It, and the processes that it started.
    fn processes(&self) -> io::Result<Vec<u32>> {
        let id = self.process.id();
        let children = fs::read_to_string(format!("/proc/{id}/task/{id}/children"))?;
        let children = children.split_whitespace().filter_map(|child| child.parse().ok());
        Ok(std::iter::once(id).chain(children).collect())
    }

    fn wait_until_it_listens(&mut self) -> Result<(), Failure> {
        let began = Instant::now();
        while TcpStream::connect(self.address).is_err() {
            if self.process.try_wait()?.is_some() || began.elapsed() > PATIENCE {
                let log = fs::read_to_string(self.directory.join("log"))?;
                let first = log.lines().next().unwrap_or("it says nothing");
                let first = first.replace(&format!("{}/", self.directory.display()), "");
                return Err(format!("does not start: {first}").into());
            }
            thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }

    fn end(&mut self) -> io::Result<()> {
        if self.process.try_wait()?.is_none() {
            kill_process(Pid::from_child(&self.process), Signal::TERM)?;
        }
        let began = Instant::now();
        while self.process.try_wait()?.is_none() {
            if began.elapsed() > PATIENCE {
                self.process.kill()?;
            }
            thread::sleep(Duration::from_millis(2));
        }
        fs::remove_dir_all(&self.directory)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Err(failure) = self.end() {
            eprintln!("compare: the server in {}: {failure}", self.directory.display());
        }
    }
}

/// An address of this machine that nobody listens at.
pub fn free_address() -> io::Result<SocketAddr> {
    TcpListener::bind("127.0.0.1:0")?.local_addr()
}
