//! Requests on a connection.

use std::{
    io::{self, Read as _},
    net::TcpStream,
};

/// The longest head, in bytes.
const LONGEST: usize = 32 << 10;

/// A request, without a body.
#[derive(Debug)]
pub struct Request {
    pub method: String,
    /// Without the query.
    pub path: String,
    /// The value of `Range`.
    pub range: Option<String>,
    /// Whether the connection ends after the answer.
    pub closes: bool,
}

/// The requests of one connection, one after the other.
pub struct Requests {
    stream: TcpStream,
    /// What was read and belongs to no request yet.
    buffer: Vec<u8>,
}

impl Requests {
    /// Those that this connection will bring.
    pub fn new(stream: TcpStream) -> Requests {
        Requests { stream, buffer: Vec::new() }
    }

    /// The next one. `None`: the client has no more.
    pub fn next(&mut self) -> io::Result<Option<Request>> {
        loop {
            if let Some((request, length)) = parse(&self.buffer)? {
                self.buffer.drain(..length);
                return Ok(Some(request));
            }
            let mut piece = [0; 4096];
            match self.stream.read(&mut piece)? {
                0 => return Ok(None),
                _ if self.buffer.len() > LONGEST => return Err(io::ErrorKind::InvalidData.into()),
                bytes => self.buffer.extend_from_slice(&piece[..bytes]),
            }
        }
    }
}

/// The first request of these bytes and how many are its own. `None`: there is no whole one yet.
fn parse(bytes: &[u8]) -> io::Result<Option<(Request, usize)>> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut head = httparse::Request::new(&mut headers);
    let httparse::Status::Complete(length) = head.parse(bytes).map_err(io::Error::other)? else {
        return Ok(None);
    };
    let value = |name: &str| {
        let header = head.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name))?;
        std::str::from_utf8(header.value).ok()
    };
    let closes = match value("Connection") {
        Some(connection) => connection.eq_ignore_ascii_case("close"),
        None => head.version == Some(0),
    };
    let path = head.path.unwrap_or_default();
    let request = Request {
        method: head.method.unwrap_or_default().to_owned(),
        path: path.split_once('?').map_or(path, |(path, _)| path).to_owned(),
        range: value("Range").map(str::to_owned),
        closes,
    };
    Ok(Some((request, length)))
}
