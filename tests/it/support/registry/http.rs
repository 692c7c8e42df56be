//! HTTP/1.1 as a server speaks it, by hand: a fault is a matter of single bytes.

use std::{
    collections::BTreeSet,
    io::{self, ErrorKind},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use bytes::Bytes;
use percent_encoding::percent_decode_str;
use tokio::io::{
    AsyncBufRead, AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWrite,
    AsyncWriteExt as _, BufStream,
};

use super::{
    Shared, Tallied,
    fault::{Ending, Fault, Framing, Start},
    manners,
};

/// A slowly fed body comes in this many pieces.
const PIECES: usize = 32;

/// A body is written in parts of so many bytes at most.
const PART: usize = 64 * 1024;

/// A request as it came.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// `GET`, `HEAD`, …
    pub method: String,
    /// The path without the query.
    pub path: String,
    /// What follows the question mark.
    pub query: String,
    /// Names in small letters.
    pub headers: Vec<(String, String)>,
    /// The body, such as the form of a token request.
    pub body: Bytes,
}

/// An answer before any fault is applied.
#[derive(Clone, Debug, Default)]
pub(super) struct Answer {
    pub(super) status: u16,
    /// Names in small letters.
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Bytes,
}

impl Request {
    /// The value of a header, its name in small letters; the first line if there are several.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.header_lines(name).next()
    }

    /// The values of all lines of a header, its name in small letters.
    pub fn header_lines(&self, name: &str) -> impl Iterator<Item = &str> {
        self.headers
            .iter()
            .filter(move |(header, _)| header == name)
            .map(|(_, value)| value.as_str())
    }

    /// The decoded values of a parameter in the query.
    pub fn query_values(&self, name: &str) -> impl Iterator<Item = String> {
        form_values(&self.query, name)
    }

    /// The decoded values of a field in a form body.
    pub fn form_values(&self, name: &str) -> impl Iterator<Item = String> {
        form_values(std::str::from_utf8(&self.body).unwrap(), name)
    }
}

fn form_values(form: &str, name: &str) -> impl Iterator<Item = String> {
    form.split('&')
        .filter_map(|pair| pair.split_once('='))
        .filter(move |(key, _)| *key == name)
        .map(|(_, value)| value.replace('+', " "))
        .map(|value| percent_decode_str(&value).decode_utf8_lossy().into_owned())
}

impl Answer {
    pub(super) fn new(status: u16, body: impl Into<Bytes>) -> Answer {
        Answer { status, headers: Vec::new(), body: body.into() }
    }

    pub(super) fn with(mut self, name: &str, value: impl Into<String>) -> Answer {
        self.headers.push((name.to_owned(), value.into()));
        self
    }
}

/// Answers one request after the other until either side ends the connection.
pub(super) async fn serve(
    shared: &Shared,
    stream: impl AsyncRead + AsyncWrite + Unpin,
) -> io::Result<()> {
    let mut stream = BufStream::new(stream);
    while let Some(request) = read_request(&mut stream).await? {
        if let Some(complaint) = manners::complaint(&request) {
            shared.complain(complaint);
        }
        let (answer, fault) = shared.answer_and_fault(&request);
        let is_head = request.method == "HEAD";
        // An answer to a `Range` counts until its last piece goes out, or the client has hung up.
        let under_way = request.header("range").map(|_| Tallied::enter(&shared.ranges));
        shared.log.send_modify(|log| log.push(Arc::new(request)));
        send(shared, &mut stream, is_head, answer, &fault, under_way).await?;
    }
    Ok(())
}

async fn read_request<S>(stream: &mut S) -> io::Result<Option<Request>>
where
    S: AsyncBufRead + Unpin,
{
    let first = read_line(stream).await?;
    if first.is_empty() {
        return Ok(None);
    }
    let mut words = first.split(' ');
    let method = words.next().unwrap_or_default().to_owned();
    let target = words.next().unwrap_or_default();
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let mut request =
        Request { method, path: path.to_owned(), query: query.to_owned(), ..Request::default() };
    loop {
        let line = read_line(stream).await?;
        let Some((name, value)) = line.split_once(':') else {
            break;
        };
        let header = (name.to_ascii_lowercase(), value.trim().to_owned());
        request.headers.push(header);
    }
    let length = request.header("content-length").unwrap_or("0");
    let mut body = vec![0; length.parse().unwrap()];
    stream.read_exact(&mut body).await?;
    request.body = body.into();
    Ok(Some(request))
}

async fn read_line<S: AsyncBufRead + Unpin>(stream: &mut S) -> io::Result<String> {
    let mut line = String::new();
    stream.read_line(&mut line).await?;
    Ok(line.trim_end().to_owned())
}

/// Sends the answer as the fault has it. An error ends the connection, `ConnectionReset` by a reset.
async fn send<S: AsyncBufRead + AsyncWrite + Unpin>(
    shared: &Shared,
    stream: &mut S,
    is_head: bool,
    answer: Answer,
    fault: &Fault,
    under_way: Option<Tallied<'_>>,
) -> io::Result<()> {
    match fault.start {
        Start::AtOnce => {}
        Start::After(time) => tokio::time::sleep(time).await,
        Start::Never => {
            closed(stream).await;
            return Err(hung_up(fault));
        }
        Start::Closed => return Err(hung_up(fault)),
    }
    let answer = changed(answer, fault);
    stream.write_all(head(&answer, fault).as_bytes()).await?;
    if !is_head {
        send_body(shared, stream, &answer.body, fault, under_way).await?;
    }
    stream.flush().await?;
    match fault.framing {
        Framing::UntilClose => Err(hung_up(fault)),
        Framing::ContentLength | Framing::Chunked => Ok(()),
    }
}

fn changed(mut answer: Answer, fault: &Fault) -> Answer {
    if let Some(status) = fault.status {
        answer = Answer::new(status, "");
    }
    answer.body = fault.body.clone().unwrap_or(answer.body);
    if let Some(place) = fault.flipped_byte {
        let mut bytes = answer.body.to_vec();
        bytes[place] ^= 1;
        answer.body = bytes.into();
    }
    if fault.framing == Framing::ContentLength {
        let length = answer.body.len().to_string();
        answer = answer.with("content-length", length);
    }
    let is_kept = |(name, _): &(String, String)| !fault.missing_headers.contains(&name.as_str());
    answer.headers.retain(is_kept);
    answer.headers.extend(fault.headers.iter().cloned());
    answer
}

fn head(answer: &Answer, fault: &Fault) -> String {
    let mut head = format!("HTTP/1.1 {} Answer\r\n", answer.status);
    for (name, value) in &answer.headers {
        head += &format!("{name}: {value}\r\n");
    }
    head += match fault.framing {
        Framing::ContentLength => "",
        Framing::Chunked => "transfer-encoding: chunked\r\n",
        Framing::UntilClose => "connection: close\r\n",
    };
    head + "\r\n"
}

async fn send_body<S>(
    shared: &Shared,
    stream: &mut S,
    body: &[u8],
    fault: &Fault,
    mut under_way: Option<Tallied<'_>>,
) -> io::Result<()>
where
    S: AsyncBufRead + AsyncWrite + Unpin,
{
    stream.flush().await?;
    let pause = fault.feed_time / u32::try_from(PIECES).unwrap();
    let mut sent = 0;
    for end in piece_ends(body.len(), fault) {
        if end == body.len() {
            // The client may ask for the next as soon as it has the last byte.
            under_way.take();
        }
        send_piece(shared, stream, &body[sent..end], fault.framing).await?;
        sent = end;
        if fault.cut_after == Some(sent) {
            return Err(hung_up(fault));
        }
        for (_, gate) in fault.holds.iter().filter(|(place, _)| *place == sent) {
            tokio::select! {
                () = gate.passed() => {}
                () = closed(stream) => return Err(hung_up(fault)),
            }
        }
        if pause > Duration::ZERO && sent < body.len() {
            tokio::time::sleep(pause).await;
        }
    }
    if fault.framing == Framing::Chunked {
        stream.write_all(b"0\r\n\r\n").await?;
    }
    stream.flush().await
}

/// Returns when the client has hung up.
async fn closed<S: AsyncBufRead + Unpin>(stream: &mut S) {
    if stream.fill_buf().await.is_ok_and(|next_request| !next_request.is_empty()) {
        std::future::pending().await
    }
}

/// Where the pieces of a body end: at every place in it where something happens.
fn piece_ends(length: usize, fault: &Fault) -> BTreeSet<usize> {
    let mut ends = BTreeSet::from([length]);
    let held = fault.holds.iter().map(|(place, _)| *place);
    ends.extend(held.chain(fault.cut_after).filter(|place| *place < length));
    if fault.feed_time > Duration::ZERO {
        ends.extend((1..PIECES).map(|number| length * number / PIECES));
    }
    ends
}

/// In parts, so that little is sent in vain when the client hangs up.
async fn send_piece<S>(
    shared: &Shared,
    stream: &mut S,
    piece: &[u8],
    framing: Framing,
) -> io::Result<()>
where
    S: AsyncWrite + Unpin,
{
    for part in piece.chunks(PART) {
        if framing == Framing::Chunked {
            stream.write_all(format!("{:x}\r\n", part.len()).as_bytes()).await?;
            stream.write_all(part).await?;
            stream.write_all(b"\r\n").await?;
        } else {
            stream.write_all(part).await?;
        }
        stream.flush().await?;
        shared.body_bytes.fetch_add(part.len() as u64, Ordering::Relaxed);
    }
    Ok(())
}

fn hung_up(fault: &Fault) -> io::Error {
    let kind = match fault.ending {
        Ending::Closed => ErrorKind::ConnectionAborted,
        Ending::Reset => ErrorKind::ConnectionReset,
    };
    io::Error::new(kind, "as the fault has it")
}
