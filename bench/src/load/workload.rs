//! What is asked for, as requests that are made before the clock starts.

use std::{
    net::{SocketAddr, ToSocketAddrs as _},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
};

use crate::{Failure, http2};

/// A SHA-256 digest.
pub type Sum = [u8; 32];

/// How something is asked for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Method {
    Get,
    Head,
}

/// A server, and what is the same in all requests to it.
#[derive(Debug)]
pub struct Server {
    pub address: SocketAddr,
    /// The name that its certificate must have.
    pub name: String,
    pub tls: bool,
    pub http2: bool,
    /// The host that requests are for, unless a header tells another.
    authority: String,
    headers: Vec<(String, String)>,
}

/// A request, ready to be sent.
#[derive(Debug)]
pub struct Request {
    pub method: Method,
    /// The head of HTTP/1.1, or the header block of HTTP/2.
    pub head: Vec<u8>,
    /// The digest in its path.
    pub sum: Option<Sum>,
    /// Whether it is a GET of a manifest.
    pub of_manifest: bool,
    /// Whether it got a good answer before; kept for manifests.
    pub answered: AtomicBool,
}

/// The order in which one connection asks.
pub enum Turns {
    /// The next one of all connections.
    List,
    Random(fastrand::Rng),
    /// Exactly these.
    Script(std::vec::IntoIter<u32>),
}

/// What all connections share.
pub struct Workload {
    pub server: Server,
    pub requests: Vec<Request>,
    /// How many may be sent over all connections.
    pub total: u64,
    /// How many may be sent over each.
    pub each: u64,
    pub started: AtomicU64,
}

impl Method {
    /// As it is written in a request.
    pub fn as_str(self) -> &'static str {
        match self {
            Method::Get => "GET",
            Method::Head => "HEAD",
        }
    }
}

impl Server {
    /// The server of a URL.
    pub fn new(url: &str, http2: bool, headers: &[String]) -> Result<Server, Failure> {
        let (origin, _) = split(url)?;
        let (tls, authority) = match origin.split_once("://") {
            Some(("http", authority)) => (false, authority),
            Some(("https", authority)) => (true, authority),
            _ => return Err(format!("{url:?} is no http URL").into()),
        };
        let with_port = match authority.rsplit_once(':') {
            Some((_, port)) if !port.ends_with(']') => authority.to_owned(),
            _ => format!("{authority}:{}", if tls { 443 } else { 80 }),
        };
        let address = with_port.to_socket_addrs()?.next().ok_or("no address")?;
        let host = with_port.rsplit_once(':').map_or("", |(host, _)| host);
        let mut server = Server {
            address,
            name: host.trim_matches(['[', ']']).to_owned(),
            tls,
            http2,
            authority: authority.to_owned(),
            headers: Vec::new(),
        };
        for line in headers {
            let (name, value) = line.split_once(':').ok_or_else(|| format!("no header: {line}"))?;
            if name.eq_ignore_ascii_case("host") {
                server.authority = value.trim().to_owned();
            } else {
                server.headers.push((name.to_owned(), value.trim().to_owned()));
            }
        }
        Ok(server)
    }

    /// A request for a path on it.
    pub fn request(&self, method: Method, path: &str) -> Request {
        let head = if self.http2 {
            let scheme = if self.tls { "https" } else { "http" };
            http2::header_block(method, scheme, &self.authority, path, &self.headers)
        } else {
            let mut head =
                format!("{} {path} HTTP/1.1\r\nHost: {}\r\n", method.as_str(), self.authority);
            for (name, value) in &self.headers {
                head.push_str(&format!("{name}: {value}\r\n"));
            }
            (head + "\r\n").into_bytes()
        };
        Request {
            method,
            head,
            sum: path.split_once("sha256:").and_then(|(_, hex)| parse_sum(hex.as_bytes())),
            of_manifest: method == Method::Get && path.contains("/manifests/"),
            answered: AtomicBool::new(false),
        }
    }
}

impl Workload {
    /// The next request of a connection that sent `sent` before. `None`: it is done.
    pub fn next(&self, turns: &mut Turns, sent: u64) -> Option<usize> {
        let started = self.started.fetch_add(1, Ordering::Relaxed);
        if sent >= self.each || started >= self.total {
            return None;
        }
        match turns {
            Turns::List => Some((started % self.requests.len() as u64) as usize),
            Turns::Random(random) => Some(random.usize(..self.requests.len())),
            Turns::Script(indices) => indices.next().map(|index| index as usize),
        }
    }
}

/// The origin of a URL, and the path with the query.
pub fn split(url: &str) -> Result<(&str, &str), Failure> {
    let scheme = url.find("://").ok_or_else(|| format!("{url:?} is no URL"))? + 3;
    let path = url[scheme..].find('/').map_or(url.len(), |at| scheme + at);
    Ok(match url.split_at(path) {
        (origin, "") => (origin, "/"),
        parts => parts,
    })
}

/// A digest from its first 64 hexadecimal digits.
pub fn parse_sum(hex: &[u8]) -> Option<Sum> {
    let mut sum = [0; 32];
    for (byte, digits) in sum.iter_mut().zip(hex.get(..64)?.chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
    }
    Some(sum)
}
