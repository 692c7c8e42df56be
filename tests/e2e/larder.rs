//! The program under test, as a user starts it.

use std::{
    fs,
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    path::Path,
};

use crate::process::{Daemon, wait_for};

/// A running `larder serve`.
pub struct Larder {
    _daemon: Daemon,
    address: SocketAddr,
}

impl Larder {
    /// Starts it and waits until it says it is ready.
    pub fn start(listen: SocketAddr, admin: SocketAddr, upstreams: &str, parent: &Path) -> Self {
        let directory = parent.join("larder");
        fs::create_dir(&directory).unwrap();
        let config = directory.join("larder.toml");
        let text = format!(
            "listen = [\"{listen}\"]\ndata_dir = \"{}\"\n\n\
             [admin]\nlisten = \"{admin}\"\n\n[log]\nlevel = \"debug\"\n\n{upstreams}",
            directory.join("data").display(),
        );
        println!("{text}");
        fs::write(&config, text).unwrap();
        let line = format!("{} serve --config {}", env!("CARGO_BIN_EXE_larder"), config.display());
        let mut daemon = Daemon::start("larder", &directory, &line);
        wait_for("larder's readiness", || {
            daemon.assert_running();
            is_ready(admin).ok().filter(|ready| *ready)
        });
        Self { _daemon: daemon, address: listen }
    }

    /// Where clients reach it.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

fn is_ready(admin: SocketAddr) -> io::Result<bool> {
    let mut stream = TcpStream::connect(admin)?;
    write!(stream, "GET /readyz HTTP/1.1\r\nHost: {admin}\r\nConnection: close\r\n\r\n")?;
    let mut response = String::new();
    stream.read_to_string(&mut response)?;
    Ok(response.starts_with("HTTP/1.1 200"))
}
