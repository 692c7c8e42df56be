//! Answers of HTTP/1.1, as they come.

use std::mem;

use crate::{
    exchange::Exchange,
    tally::Fault,
    workload::{Method, parse_sum},
};

/// The longest head, or line of a chunk, in bytes.
const LONGEST: usize = 64 << 10;

/// Where in an answer a connection is.
#[derive(Default)]
pub struct Answers {
    state: State,
    /// The beginning of a head or a line whose end did not come yet.
    pending: Vec<u8>,
}

#[derive(Clone, Copy, Default)]
enum State {
    #[default]
    Head,
    /// So many bytes of the body are to come.
    Body(u64),
    ChunkSize,
    Chunk(u64),
    ChunkEnd,
    Trailer,
    Done,
}

impl Answers {
    /// Takes what came. Whether the answer is whole; then the next one is expected.
    pub fn take(&mut self, bytes: &[u8], exchange: &mut Exchange) -> Result<bool, Fault> {
        if self.pending.is_empty() {
            return self.take_all(bytes, exchange);
        }
        let mut all = mem::take(&mut self.pending);
        all.extend_from_slice(bytes);
        self.take_all(&all, exchange)
    }

    /// Bytes that belong to the body and may be thrown away unseen.
    pub fn left(&self) -> u64 {
        if let State::Body(left) = self.state { left } else { 0 }
    }

    /// As [`Answers::take`], for bytes of [`Answers::left`] that nobody saw.
    pub fn skip(&mut self, bytes: u64, exchange: &mut Exchange) -> bool {
        exchange.skipped(bytes);
        let left = self.left().saturating_sub(bytes);
        self.state = if left > 0 { State::Body(left) } else { State::Head };
        left == 0
    }

    fn take_all(&mut self, mut bytes: &[u8], exchange: &mut Exchange) -> Result<bool, Fault> {
        while !bytes.is_empty() {
            let Some(used) = self.take_part(bytes, exchange)? else {
                self.pending = bytes.to_vec();
                return if bytes.len() > LONGEST { Err(Fault::Protocol) } else { Ok(false) };
            };
            bytes = &bytes[used..];
            if let State::Done = self.state {
                self.state = State::Head;
                return if bytes.is_empty() { Ok(true) } else { Err(Fault::Protocol) };
            }
        }
        Ok(false)
    }

    /// Takes the first part of these bytes: how many they are. `None`: there is no whole part.
    fn take_part(&mut self, bytes: &[u8], exchange: &mut Exchange) -> Result<Option<usize>, Fault> {
        let used = match self.state {
            State::Head => return self.head(bytes, exchange),
            State::Body(left) => {
                let piece = body(bytes, left, exchange);
                let left = left - piece as u64;
                self.state = if left > 0 { State::Body(left) } else { State::Done };
                Some(piece)
            }
            State::Chunk(left) => {
                let piece = body(bytes, left, exchange);
                let left = left - piece as u64;
                self.state = if left > 0 { State::Chunk(left) } else { State::ChunkEnd };
                Some(piece)
            }
            State::ChunkSize => match httparse::parse_chunk_size(bytes) {
                Ok(httparse::Status::Complete((used, size))) => {
                    self.state = if size > 0 { State::Chunk(size) } else { State::Trailer };
                    Some(used)
                }
                Ok(httparse::Status::Partial) => None,
                Err(_) => return Err(Fault::Protocol),
            },
            State::ChunkEnd => match line(bytes) {
                Some(2) => {
                    self.state = State::ChunkSize;
                    Some(2)
                }
                None if bytes.len() < 2 => None,
                _ => return Err(Fault::Protocol),
            },
            State::Trailer => {
                let line = line(bytes);
                if line == Some(2) {
                    self.state = State::Done;
                }
                line
            }
            State::Done => return Err(Fault::Protocol),
        };
        Ok(used)
    }

    fn head(&mut self, bytes: &[u8], exchange: &mut Exchange) -> Result<Option<usize>, Fault> {
        let mut headers = [httparse::EMPTY_HEADER; 64];
        let mut head = httparse::Response::new(&mut headers);
        let used = match head.parse(bytes) {
            Ok(httparse::Status::Complete(used)) => used,
            Ok(httparse::Status::Partial) => return Ok(None),
            Err(_) => return Err(Fault::Protocol),
        };
        let status = head.code.filter(|code| *code >= 200).ok_or(Fault::Protocol)?;
        let (mut length, mut chunked) = (None, false);
        for header in head.headers.iter() {
            if header.name.eq_ignore_ascii_case("content-length") {
                let value = std::str::from_utf8(header.value).ok();
                length = Some(value.and_then(|value| value.parse().ok()).ok_or(Fault::Protocol)?);
            } else if header.name.eq_ignore_ascii_case("transfer-encoding") {
                chunked = header.value.eq_ignore_ascii_case(b"chunked");
            } else if header.name.eq_ignore_ascii_case("connection") {
                exchange.closes = header.value.eq_ignore_ascii_case(b"close");
            } else if exchange.is_hashed()
                && header.name.eq_ignore_ascii_case("docker-content-digest")
            {
                exchange.told = header.value.strip_prefix(b"sha256:").and_then(parse_sum);
            }
        }
        exchange.status = Some(status);
        self.state = match (exchange.method, status) {
            (Method::Head, _) | (_, 204 | 304) => State::Done,
            _ if chunked => State::ChunkSize,
            // A body that ends with the connection cannot be told from one that was cut.
            _ => match length.ok_or(Fault::Protocol)? {
                0 => State::Done,
                length => State::Body(length),
            },
        };
        Ok(Some(used))
    }
}

/// Gives the exchange what of these bytes is its body: how many.
fn body(bytes: &[u8], left: u64, exchange: &mut Exchange) -> usize {
    let piece = bytes.len().min(usize::try_from(left).unwrap_or(usize::MAX));
    exchange.body(&bytes[..piece]);
    piece
}

/// The length of the first line, with its end.
fn line(bytes: &[u8]) -> Option<usize> {
    bytes.windows(2).position(|pair| pair == b"\r\n").map(|at| at + 2)
}
