//! An HTTP/1.1 client by hand: it sees whether a body ended or was cut, and reads as slowly, or
//! hangs up as rudely, as a test wants.

use std::{
    fmt,
    net::SocketAddr,
    time::{Duration, Instant},
};

use bytes::Bytes;
use larder::oci::Digest;
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::TcpStream,
};

use super::wait::within_limit;

/// Asks one server, on a new connection for each request.
#[derive(Clone, Copy, Debug)]
pub struct Client {
    server: SocketAddr,
}

/// The head of an answer, its body still on the way.
pub struct Response {
    /// The status code.
    pub status: u16,
    headers: Vec<(String, String)>,
    stream: BufReader<TcpStream>,
    rest: Rest,
    asked: Instant,
}

/// How a body ended.
#[derive(Clone, PartialEq, Eq)]
pub enum Body {
    /// As HTTP has it: all that was announced is here.
    Complete(Bytes),
    /// The connection ended first.
    Cut(Bytes),
}

/// What of a body is still to come.
#[derive(Clone, Copy, Debug)]
enum Rest {
    Bytes(u64),
    /// In chunks; so many bytes are left of the present one.
    Chunks(u64),
    UntilClose,
    Nothing,
}

impl Client {
    /// A client of the server at this address.
    pub fn new(server: SocketAddr) -> Client {
        Client { server }
    }

    /// Where the server is.
    pub fn address(&self) -> SocketAddr {
        self.server
    }

    /// Sends a GET and reads the head of the answer.
    pub async fn get(&self, path: &str) -> Response {
        self.request("GET", path, &[]).await
    }

    /// Sends a HEAD and reads the answer.
    pub async fn head(&self, path: &str) -> Response {
        self.request("HEAD", path, &[]).await
    }

    /// Sends a request with these headers and reads the head of the answer.
    ///
    /// # Panics
    /// When there is none.
    pub async fn request(&self, method: &str, path: &str, headers: &[(&str, &str)]) -> Response {
        let response = self.try_request(method, path, headers).await;
        response.unwrap_or_else(|| panic!("no answer to {method} {path}"))
    }

    /// As [`Client::request`]; `None` when the server cannot be reached or hangs up.
    pub async fn try_request(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
    ) -> Option<Response> {
        let asked = Instant::now();
        let stream = self.send(method, path, headers).await?;
        let what = format!("the answer to {method} {path}");
        within_limit(&what, Response::read(stream, method, asked)).await
    }

    /// Sends a GET and leaves the answer unread. Dropping the connection hangs up.
    pub async fn ask(&self, path: &str) -> TcpStream {
        self.send("GET", path, &[]).await.unwrap()
    }

    async fn send(&self, method: &str, path: &str, headers: &[(&str, &str)]) -> Option<TcpStream> {
        let mut stream = TcpStream::connect(self.server).await.ok()?;
        stream.set_nodelay(true).unwrap();
        let mut head = format!("{method} {path} HTTP/1.1\r\n");
        if headers.iter().all(|(name, _)| *name != "host") {
            head += &format!("host: {}\r\n", self.server);
        }
        for (name, value) in headers {
            head += &format!("{name}: {value}\r\n");
        }
        head += "\r\n";
        stream.write_all(head.as_bytes()).await.ok()?;
        Some(stream)
    }
}

impl Response {
    async fn read(stream: TcpStream, method: &str, asked: Instant) -> Option<Response> {
        let mut stream = BufReader::with_capacity(64 * 1024, stream);
        let status_line = read_line(&mut stream).await?;
        let status = status_line.split(' ').nth(1)?.parse().ok()?;
        let mut headers = Vec::new();
        loop {
            let line = read_line(&mut stream).await?;
            let Some((name, value)) = line.split_once(':') else {
                break;
            };
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        let mut response = Response { status, headers, stream, rest: Rest::Nothing, asked };
        if method != "HEAD" && status != 304 {
            response.rest = response.framing();
        }
        Some(response)
    }

    fn framing(&self) -> Rest {
        if self.header("transfer-encoding") == Some("chunked") {
            return Rest::Chunks(0);
        }
        self.header("content-length")
            .map_or(Rest::UntilClose, |length| Rest::Bytes(length.parse().unwrap()))
    }

    /// The value of a header, its name in small letters.
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(header, _)| header == name);
        found.map(|(_, value)| value.as_str())
    }

    /// Time since the request was sent.
    pub fn elapsed(&self) -> Duration {
        self.asked.elapsed()
    }

    /// Reads some bytes, at most `limit`; `None` when the body or the connection is at its end.
    pub async fn read_some(&mut self, limit: usize) -> Option<Bytes> {
        let room = match self.rest {
            Rest::Nothing | Rest::Bytes(0) => return None,
            Rest::Bytes(left) => left,
            Rest::Chunks(0) => self.next_chunk().await?,
            Rest::Chunks(left) => left,
            Rest::UntilClose => u64::MAX,
        };
        let mut bytes = vec![0; limit.min(usize::try_from(room).unwrap_or(limit))];
        let count = self.stream.read(&mut bytes).await.unwrap_or(0);
        bytes.truncate(count);
        if count == 0 {
            // An end nobody announced is the end of one body only: that without any framing.
            if matches!(self.rest, Rest::UntilClose) {
                self.rest = Rest::Nothing;
            }
            return None;
        }
        self.count_down(count as u64).await;
        Some(bytes.into())
    }

    /// Bytes in the next chunk, or `None` at the end.
    async fn next_chunk(&mut self) -> Option<u64> {
        let size = read_line(&mut self.stream).await?;
        let size = u64::from_str_radix(&size, 16).ok()?;
        if size == 0 {
            read_line(&mut self.stream).await?;
            self.rest = Rest::Nothing;
            return None;
        }
        self.rest = Rest::Chunks(size);
        Some(size)
    }

    async fn count_down(&mut self, count: u64) {
        match &mut self.rest {
            Rest::Bytes(left) => *left -= count,
            Rest::Chunks(left) => {
                *left -= count;
                if *left == 0 {
                    read_line(&mut self.stream).await;
                }
            }
            Rest::UntilClose | Rest::Nothing => {}
        }
    }

    /// Reads as many bytes as `expected` has, and asserts that they are these.
    pub async fn expect_next(&mut self, expected: &[u8]) {
        let mut read = 0;
        let reading = async {
            while read < expected.len() {
                let more = self.read_some(expected.len() - read).await.expect("more of the body");
                assert!(expected[read..].starts_with(&more), "wrong from byte {read} on");
                read += more.len();
            }
        };
        within_limit("a part of a body", reading).await;
    }

    /// Reads the body to its end, good or bad.
    pub async fn body(mut self) -> Body {
        let mut bytes = Vec::new();
        let reading = async {
            while let Some(more) = self.read_some(64 * 1024).await {
                bytes.extend_from_slice(&more);
            }
        };
        within_limit("a body", reading).await;
        if self.is_complete() { Body::Complete(bytes.into()) } else { Body::Cut(bytes.into()) }
    }

    /// Reads the body.
    ///
    /// # Panics
    /// When it is cut.
    pub async fn bytes(self) -> Bytes {
        let status = self.status;
        match self.body().await {
            Body::Complete(bytes) => bytes,
            Body::Cut(bytes) => panic!("a {status} was cut after {} bytes", bytes.len()),
        }
    }

    /// Reads the body and asserts that it is complete and equal to `expected`. Keeps none of
    /// it, so that a hundred large bodies fit into memory.
    pub async fn expect(mut self, expected: &[u8]) {
        assert_eq!(self.status, 200);
        let mut read = 0;
        let reading = async {
            while let Some(more) = self.read_some(64 * 1024).await {
                let end = read + more.len();
                assert!(expected.get(read..end) == Some(&more), "wrong before byte {end}");
                read = end;
            }
        };
        within_limit("a body", reading).await;
        assert_eq!(read, expected.len(), "the body ended early");
        assert!(self.is_complete(), "the connection was cut instead of the body's end");
    }

    /// Whether the body has come to the end that HTTP has it come to.
    pub fn is_complete(&self) -> bool {
        matches!(self.rest, Rest::Nothing | Rest::Bytes(0))
    }

    /// The code and message of an error in the form of the OCI distribution specification.
    pub async fn error(self) -> (String, String) {
        assert_eq!(self.header("content-type"), Some("application/json"));
        let body: Value = serde_json::from_slice(&self.bytes().await).unwrap();
        let text = |field: &str| body["errors"][0][field].as_str().unwrap().to_owned();
        (text("code"), text("message"))
    }

    /// Asserts a 200 whose complete body has this digest, and returns the body.
    pub async fn verified(self, digest: &Digest) -> Bytes {
        assert_eq!(self.status, 200);
        let bytes = self.bytes().await;
        let actual = Digest::of(digest.algorithm(), &bytes);
        assert_eq!(&actual, digest);
        bytes
    }
}

impl fmt::Debug for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Response")
            .field("status", &self.status)
            .field("headers", &self.headers)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Body::Complete(bytes) => write!(f, "a complete body of {} bytes", bytes.len()),
            Body::Cut(bytes) => write!(f, "a body cut after {} bytes", bytes.len()),
        }
    }
}

/// A line without its end; `None` when the connection ends first.
async fn read_line(stream: &mut BufReader<TcpStream>) -> Option<String> {
    let mut line = String::new();
    stream.read_line(&mut line).await.ok()?;
    line.ends_with('\n').then(|| line.trim_end().to_owned())
}
