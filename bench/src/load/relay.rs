//! A long, narrow line: every byte is under way for a while, and each connection carries so many
//! a second, each way.
//!
//! Each way has a thread that reads and a thread that writes, with a queue between them whose
//! pieces know when they may leave: a piece has passed the narrow place when its last byte has,
//! and arrives a delay later. The first bytes wait for the round trip of a TCP handshake besides,
//! because the kernel made one without any delay.

use std::{
    collections::VecDeque,
    io::{Read as _, Write as _},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use crate::{Failure, options::Relay, pace::Pace};

/// What is read at once, in bytes.
const PIECE: usize = 64 << 10;

/// What a way without a limit may hold, in bytes.
const UNLIMITED: usize = 64 << 20;

/// Relays until the process ends.
pub fn run(options: &Relay) -> Result<(), Failure> {
    let listener = TcpListener::bind(options.listen)?;
    println!("{}", listener.local_addr()?);
    serve(&listener, options)
}

/// Relays every connection that comes.
pub fn serve(listener: &TcpListener, options: &Relay) -> Result<(), Failure> {
    for client in listener.incoming() {
        let (client, connected) = (client?, Instant::now() + options.delay_ms * 2);
        // The client sees the connection end where the server cannot be reached.
        if let Ok(server) = TcpStream::connect(options.to) {
            carry(&client, &server, connected, options)?;
            carry(&server, &client, connected, options)?;
        }
    }
    Ok(())
}

/// Carries what comes from one side to the other; nothing is under way before `connected`.
fn carry(
    from: &TcpStream,
    to: &TcpStream,
    connected: Instant,
    options: &Relay,
) -> Result<(), Failure> {
    to.set_nodelay(true)?;
    let (from, to) = (from.try_clone()?, to.try_clone()?);
    let pace = Pace::new(options.rate_mb);
    let room = room(options.rate_mb, options.delay_ms);
    let way = Arc::new(Way {
        delay: options.delay_ms,
        room,
        state: Mutex::default(),
        changed: Condvar::new(),
    });
    let reading = way.clone();
    spawn(move || reading.fill(from, pace, connected))?;
    spawn(move || way.empty(to))
}

fn spawn(work: impl FnOnce() + Send + 'static) -> Result<(), Failure> {
    thread::Builder::new().stack_size(256 << 10).spawn(work)?;
    Ok(())
}

/// What is under way at full speed, and what the two threads need to keep up with it.
fn room(rate_mb: f64, delay: Duration) -> usize {
    if rate_mb > 0.0 {
        (rate_mb * 1e6 * delay.as_secs_f64()) as usize + 4 * PIECE
    } else {
        UNLIMITED
    }
}

/// One way of a connection.
struct Way {
    delay: Duration,
    /// How many bytes may be under way.
    room: usize,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// Pieces, each with when it arrives; an empty one is the end.
    pieces: VecDeque<(Instant, Vec<u8>)>,
    /// Bytes in them.
    bytes: usize,
    /// Used before and free again.
    spare: Vec<Vec<u8>>,
    /// Whether nobody takes pieces any more.
    broken: bool,
}

impl Way {
    /// Reads until the end, not faster than the pace.
    fn fill(&self, mut from: TcpStream, mut pace: Pace, connected: Instant) {
        thread::sleep(connected.saturating_duration_since(Instant::now()));
        while let Some(mut piece) = self.room() {
            piece.resize(PIECE, 0);
            let bytes = from.read(&mut piece).unwrap_or(0);
            piece.truncate(bytes);
            let passed = pace.passed(bytes, Instant::now());
            self.push(passed + self.delay, piece);
            if bytes == 0 {
                break;
            }
            thread::sleep(passed.saturating_duration_since(Instant::now()));
        }
        let _ = from.shutdown(Shutdown::Read);
    }

    /// Writes each piece when it arrives.
    fn empty(&self, mut to: TcpStream) {
        loop {
            let (arrives, piece) = self.pop();
            thread::sleep(arrives.saturating_duration_since(Instant::now()));
            if piece.is_empty() {
                let _ = to.shutdown(Shutdown::Write);
                return;
            }
            let outcome = to.write_all(&piece);
            if self.give_back(piece, outcome.is_err()) {
                let _ = to.shutdown(Shutdown::Both);
                return;
            }
        }
    }

    /// Waits for room: a buffer to fill. `None`: what is read would go nowhere.
    fn room(&self) -> Option<Vec<u8>> {
        let mut state = self.state();
        while state.bytes + PIECE > self.room && !state.broken {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        (!state.broken).then(|| state.spare.pop().unwrap_or_default())
    }

    fn push(&self, arrives: Instant, piece: Vec<u8>) {
        let mut state = self.state();
        state.bytes += piece.len();
        state.pieces.push_back((arrives, piece));
        drop(state);
        self.changed.notify_all();
    }

    fn pop(&self) -> (Instant, Vec<u8>) {
        let mut state = self.state();
        loop {
            if let Some(piece) = state.pieces.pop_front() {
                return piece;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Takes a written piece back. Whether the way is broken.
    fn give_back(&self, piece: Vec<u8>, broken: bool) -> bool {
        let mut state = self.state();
        state.bytes -= piece.len();
        state.spare.push(piece);
        state.broken |= broken;
        let broken = state.broken;
        drop(state);
        self.changed.notify_all();
        broken
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
