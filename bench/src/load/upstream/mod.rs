//! A registry that is never the limit: static content, one thread a connection, bodies by
//! sendfile(2), and no authorisation.
//!
//! It counts what it is asked for: `GET /_counts` tells it, `POST /_counts` forgets it, and
//! `POST /_rate/<MB>` changes the limit of all bodies together.

mod answer;
mod counts;
mod request;
mod shelf;

use std::{
    fs::File,
    io::{self, Write as _},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::Instant,
};

use rustix::fs::sendfile;

use crate::{
    Failure,
    options::Upstream,
    pace::Pace,
    upstream::{
        answer::{Answer, Body},
        counts::Counts,
        request::{Request, Requests},
        shelf::Shelf,
    },
};

/// What is sent at once while the rate is limited, in bytes.
const PIECE: u64 = 64 << 10;

/// What all connections share.
pub struct Registry {
    shelf: Shelf,
    counts: Counts,
    pace: Mutex<Pace>,
}

/// Serves until the process ends.
pub fn run(options: &Upstream) -> Result<(), Failure> {
    let listener = TcpListener::bind(options.listen)?;
    println!("{}", listener.local_addr()?);
    Arc::new(Registry::open(options)?).serve(&listener)
}

impl Registry {
    /// Reads which content there is.
    pub fn open(options: &Upstream) -> Result<Registry, Failure> {
        Ok(Registry {
            shelf: Shelf::open(&options.root)?,
            counts: Counts::default(),
            pace: Mutex::new(Pace::new(options.rate_mb)),
        })
    }

    /// Answers on every connection.
    pub fn serve(self: Arc<Registry>, listener: &TcpListener) -> Result<(), Failure> {
        for stream in listener.incoming() {
            let (stream, registry) = (stream?, self.clone());
            // A client that hangs up is no failure of ours.
            thread::Builder::new().stack_size(256 << 10).spawn(move || registry.answer(stream))?;
        }
        Ok(())
    }

    fn answer(&self, stream: TcpStream) -> io::Result<()> {
        stream.set_nodelay(true)?;
        let mut requests = Requests::new(stream.try_clone()?);
        while let Some(request) = requests.next()? {
            let answer = self.find(&request);
            (&stream).write_all(answer.head(&request).as_bytes())?;
            let mut sent = 0;
            let outcome = match &answer.body {
                _ if request.method == "HEAD" => Ok(()),
                Body::Bytes(bytes) => self.send_bytes(&stream, bytes, &mut sent),
                Body::File { file, range } => {
                    self.send_file(&stream, file, range.clone(), &mut sent)
                }
            };
            self.counts.add(&request, sent);
            outcome?;
            if request.closes {
                break;
            }
        }
        Ok(())
    }

    fn find(&self, request: &Request) -> Answer {
        match (request.method.as_str(), request.path.as_str()) {
            ("GET", "/_counts") => Answer::json(200, self.counts.tell()),
            ("POST", "/_counts") => {
                self.counts.forget();
                Answer::json(200, "{}".to_owned())
            }
            ("POST", path) => match path.strip_prefix("/_rate/").map(str::parse) {
                Some(Ok(rate_mb)) => {
                    *self.pace.lock().unwrap_or_else(PoisonError::into_inner) = Pace::new(rate_mb);
                    Answer::json(200, "{}".to_owned())
                }
                _ => Answer::error(405, "UNSUPPORTED"),
            },
            _ => self.shelf.find(request),
        }
    }

    fn send_bytes(&self, mut stream: &TcpStream, bytes: &[u8], sent: &mut u64) -> io::Result<()> {
        self.wait_for(bytes.len() as u64);
        stream.write_all(bytes)?;
        *sent += bytes.len() as u64;
        Ok(())
    }

    fn send_file(
        &self,
        stream: &TcpStream,
        file: &File,
        range: std::ops::Range<u64>,
        sent: &mut u64,
    ) -> io::Result<()> {
        let mut offset = range.start;
        while offset < range.end {
            let piece = self.wait_for(range.end - offset);
            let end = offset + piece;
            while offset < end {
                let left = (end - offset) as usize;
                match sendfile(stream, file, Some(&mut offset), left)? {
                    0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                    bytes => *sent += bytes as u64,
                }
            }
        }
        Ok(())
    }

    /// Waits until some of `bytes` may go: how many.
    fn wait_for(&self, bytes: u64) -> u64 {
        let mut pace = self.pace.lock().unwrap_or_else(PoisonError::into_inner);
        if !pace.is_limited() {
            return bytes;
        }
        let (piece, now) = (bytes.min(PIECE), Instant::now());
        let passed = pace.passed(piece as usize, now);
        drop(pace);
        thread::sleep(passed.saturating_duration_since(now));
        piece
    }
}
