//! The upstream and the relay: processes of `load` that last as long as the whole run.

use std::{
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
};

use crate::Failure;

/// One of them. Dropped, it ends.
pub struct Service {
    process: Child,
    pub address: SocketAddr,
}

impl Service {
    /// Starts one that prints its address as its first line.
    pub fn start(program: &Path, arguments: &[&str]) -> Result<Service, Failure> {
        let mut process = Command::new(program).args(arguments).stdout(Stdio::piped()).spawn()?;
        let output = process.stdout.take().ok_or("no output")?;
        let mut line = String::new();
        BufReader::new(output).read_line(&mut line)?;
        let address = line.trim().parse().map_err(|_| format!("{arguments:?} did not start"))?;
        Ok(Service { process, address })
    }

    /// What it answers to a GET.
    pub fn get(&self, path: &str) -> io::Result<String> {
        self.ask("GET", path)
    }

    /// Tells it something.
    pub fn post(&self, path: &str) -> io::Result<()> {
        self.ask("POST", path).map(drop)
    }

    fn ask(&self, method: &str, path: &str) -> io::Result<String> {
        let mut stream = TcpStream::connect(self.address)?;
        write!(stream, "{method} {path} HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_default();
        if !head.starts_with("HTTP/1.1 200 ") {
            return Err(io::Error::other(format!("{method} {path}: {head:?}")));
        }
        Ok(body.to_owned())
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
