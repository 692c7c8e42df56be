//! The least HTTP client that can keep a server busy from the same machine.

use std::{
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    os::unix::net::UnixStream,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use crate::{Failure, figures::Latencies, images::Manifest};

/// Connections that ask at the same time.
const CONNECTIONS: u32 = 4;

/// How long they ask.
const TIME: Duration = Duration::from_secs(3);

/// A connection that stays open.
pub struct Connection(BufReader<TcpStream>);

/// Where a manifest is asked for by its first tag. `None`: it has no tag.
pub fn path(manifest: &Manifest) -> Option<String> {
    let tag = manifest.tags.first()?;
    let repository = &manifest.repository;
    Some(format!("/v2/{}/{}/manifests/{tag}", repository.registry(), repository.name()))
}

/// Asks for any of these for a while over several connections. The figure of it.
pub fn look_ups(server: SocketAddr, method: &str, paths: &[String]) -> Result<String, Failure> {
    let began = Instant::now();
    let ask = || -> io::Result<Latencies> {
        let (mut connection, mut latencies) = (Connection::open(server)?, Latencies::default());
        while began.elapsed() < TIME {
            let path = &paths[fastrand::usize(..paths.len())];
            latencies.time(|| connection.ask(method, path))?;
        }
        Ok(latencies)
    };
    let mut all = Latencies::default();
    thread::scope(|scope| {
        let clients: Vec<_> = (0..CONNECTIONS).map(|_| scope.spawn(ask)).collect();
        clients.into_iter().try_for_each(|client| {
            all.extend(client.join().expect("no panic")?);
            io::Result::Ok(())
        })
    })?;
    Ok(all.read(began.elapsed()))
}

/// The whole answer to one GET on a connection of its own.
pub fn get(server: SocketAddr, path: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect(server)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

/// Asks a daemon over its socket. The bytes of the whole answer, which must be a good one.
pub fn command(socket: &Path, method: &str, path: &str) -> io::Result<u64> {
    let mut stream = UnixStream::connect(socket)?;
    let body = if method == "POST" { "{}" } else { "" };
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )?;
    let mut answer = BufReader::new(stream);
    let mut line = String::new();
    answer.read_line(&mut line)?;
    if !line.starts_with("HTTP/1.1 200 ") {
        return Err(io::Error::other(format!("{method} {path}: {line:?}")));
    }
    io::copy(&mut answer, &mut io::sink())
}

impl Connection {
    /// Connects.
    pub fn open(server: SocketAddr) -> io::Result<Connection> {
        let stream = TcpStream::connect(server)?;
        stream.set_nodelay(true)?;
        Ok(Connection(BufReader::new(stream)))
    }

    /// Asks, and reads the answer to its end. Anything but 200 is an error.
    pub fn ask(&mut self, method: &str, path: &str) -> io::Result<()> {
        let request = format!("{method} {path} HTTP/1.1\r\nHost: bench\r\n\r\n");
        self.0.get_mut().write_all(request.as_bytes())?;
        let mut line = String::new();
        self.0.read_line(&mut line)?;
        if !line.starts_with("HTTP/1.1 200 ") {
            return Err(io::Error::other(format!("{method} {path}: {line:?}")));
        }
        let mut length = 0;
        while line != "\r\n" {
            line.clear();
            self.0.read_line(&mut line)?;
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().map_err(io::Error::other)?;
            }
        }
        if method != "HEAD" {
            io::copy(&mut self.0.by_ref().take(length), &mut io::sink())?;
        }
        Ok(())
    }
}
