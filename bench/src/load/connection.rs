//! A connection to the server, and the one request that is under way on it.

use std::{
    io::Write as _,
    net::TcpStream,
    sync::Arc,
    time::{Duration, Instant},
};

use rustix::{
    io::Errno,
    net::{RecvFlags, recv},
};
use rustls::ClientConfig;

use crate::{
    Failure,
    exchange::{Checks, Exchange},
    http1::Answers,
    http2::Session,
    tally::Fault,
    tls::Tls,
    workload::{Request, Server},
};

/// The most that is thrown away at once, in bytes.
const DISCARD: usize = 16 << 20;

/// The most that is read at once where user space looks at it: fits a processor's own cache.
const READ: usize = 256 << 10;

/// A connection; it sends and waits for one answer at a time.
pub struct Connection {
    pub stream: TcpStream,
    tls: Option<Tls>,
    protocol: Protocol,
    /// What HTTP/2 wants to say.
    output: Vec<u8>,
    pub exchange: Option<Exchange>,
    /// Requests sent on this and earlier connections in its place.
    pub sent: u64,
    /// When something last came.
    pub heard: Instant,
}

enum Protocol {
    Http1(Answers),
    Http2(Session),
}

/// Room to read into, shared by the connections of a thread.
pub struct Scratch {
    /// Never written to: the kernel throws away what would go here.
    discard: Vec<u8>,
    read: Vec<u8>,
}

impl Default for Scratch {
    fn default() -> Scratch {
        Scratch { discard: vec![0; DISCARD], read: vec![0; READ] }
    }
}

impl Connection {
    /// Connects.
    pub fn open(
        server: &Server,
        tls: Option<&Arc<ClientConfig>>,
        stall: Duration,
    ) -> Result<Connection, Failure> {
        let stream = TcpStream::connect(server.address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(stall))?;
        let tls = tls.map(|tls| Tls::connect(&stream, tls.clone(), &server.name)).transpose()?;
        let (protocol, output) = if server.http2 {
            (Protocol::Http2(Session::default()), Session::preface())
        } else {
            (Protocol::Http1(Answers::default()), Vec::new())
        };
        let heard = Instant::now();
        Ok(Connection { stream, tls, protocol, output, exchange: None, sent: 0, heard })
    }

    /// Sends a request.
    pub fn send(
        &mut self,
        index: usize,
        request: &Request,
        checks: Checks,
        now: Instant,
    ) -> Result<(), Fault> {
        self.sent += 1;
        self.heard = now;
        self.exchange = Some(Exchange::new(index, request, checks, now));
        match &mut self.protocol {
            Protocol::Http2(session) => {
                session.request(&request.head, &mut self.output);
                self.flush()
            }
            Protocol::Http1(_) => write(&self.stream, self.tls.as_mut(), &request.head),
        }
    }

    /// Takes what came. The exchange once it is whole.
    pub fn receive(&mut self, scratch: &mut Scratch) -> Result<Option<Exchange>, Fault> {
        let Some(mut exchange) = self.exchange.take() else { return Err(Fault::Protocol) };
        let outcome = self.receive_into(&mut exchange, scratch);
        if exchange.first.is_none() && exchange.bytes > 0 {
            exchange.first = Some(Instant::now());
        }
        if let Ok(true) = outcome {
            return Ok(Some(exchange));
        }
        self.exchange = Some(exchange);
        outcome.map(|_| None)
    }

    fn receive_into(
        &mut self,
        exchange: &mut Exchange,
        scratch: &mut Scratch,
    ) -> Result<bool, Fault> {
        let whole = match (&mut self.tls, &mut self.protocol) {
            (Some(tls), protocol) => {
                tls.receive(&self.stream, |bytes| protocol.take(bytes, exchange, &mut self.output))?
            }
            (None, Protocol::Http1(answers)) if answers.left() > 0 && !exchange.is_hashed() => {
                let left = usize::try_from(answers.left()).unwrap_or(usize::MAX);
                let room = &mut scratch.discard[..left.min(DISCARD)];
                let bytes = read(&self.stream, room, RecvFlags::TRUNC)?;
                bytes > 0 && answers.skip(bytes as u64, exchange)
            }
            (None, protocol) => {
                let bytes = read(&self.stream, &mut scratch.read, RecvFlags::empty())?;
                protocol.take(&scratch.read[..bytes], exchange, &mut self.output)?
            }
        };
        self.flush()?;
        Ok(whole)
    }

    /// Sends what HTTP/2 wants to say.
    fn flush(&mut self) -> Result<(), Fault> {
        if self.output.is_empty() {
            return Ok(());
        }
        write(&self.stream, self.tls.as_mut(), &self.output)?;
        self.output.clear();
        Ok(())
    }
}

impl Protocol {
    fn take(
        &mut self,
        bytes: &[u8],
        exchange: &mut Exchange,
        output: &mut Vec<u8>,
    ) -> Result<bool, Fault> {
        match self {
            Protocol::Http1(answers) => answers.take(bytes, exchange),
            Protocol::Http2(session) => session.take(bytes, exchange, output),
        }
    }
}

/// Reads once: how many bytes, 0 if there are none yet. The end of the connection is a fault,
/// because something is expected.
fn read(stream: &TcpStream, room: &mut [u8], flags: RecvFlags) -> Result<usize, Fault> {
    match recv(stream, room, flags | RecvFlags::DONTWAIT) {
        Ok((_, 0)) => Err(Fault::Cut),
        Ok((_, bytes)) => Ok(bytes),
        Err(Errno::AGAIN | Errno::INTR) => Ok(0),
        Err(_) => Err(Fault::Cut),
    }
}

fn write(mut stream: &TcpStream, tls: Option<&mut Tls>, bytes: &[u8]) -> Result<(), Fault> {
    match tls {
        Some(tls) => tls.send(stream, bytes),
        None => stream.write_all(bytes).map_err(|_| Fault::Cut),
    }
}
