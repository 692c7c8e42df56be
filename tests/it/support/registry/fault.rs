//! Ways for a registry to fail, and the requests they apply to.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::sync::watch;

use super::http::Request;

/// How an answer differs from that of a registry in good health. Parts combine.
#[derive(Clone, Debug, Default)]
pub struct Fault {
    pub(super) status: Option<u16>,
    pub(super) body: Option<Bytes>,
    pub(super) headers: Vec<(String, String)>,
    pub(super) missing_headers: Vec<&'static str>,
    pub(super) framing: Framing,
    pub(super) start: Start,
    pub(super) feed_time: Duration,
    pub(super) holds: Vec<(usize, Gate)>,
    pub(super) cut_after: Option<usize>,
    pub(super) ending: Ending,
    pub(super) flipped_byte: Option<usize>,
    pub(super) echoes: bool,
}

/// When the answer begins.
#[derive(Clone, Debug, Default)]
pub(super) enum Start {
    #[default]
    AtOnce,
    After(Duration),
    /// The connection stays open and silent.
    Never,
    /// The connection is closed instead.
    Closed,
}

/// How a connection ends that is ended too early.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Ending {
    /// In order.
    #[default]
    Closed,
    /// By a reset, for which what was sent last may be lost.
    Reset,
}

/// How the client learns where a body ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Framing {
    #[default]
    ContentLength,
    Chunked,
    /// Neither a length nor chunks: the connection's end is the body's.
    UntilClose,
}

/// Stays shut until a test opens it.
#[derive(Clone, Debug, Default)]
pub struct Gate(Arc<watch::Sender<bool>>);

impl Fault {
    /// Another status, with an empty body unless [`Fault::body`] says otherwise.
    pub fn status(status: u16) -> Fault {
        Fault { status: Some(status), body: Some(Bytes::new()), ..Fault::default() }
    }

    /// Another status, with an error that repeats whatever the request says of who asks.
    pub fn echo(status: u16) -> Fault {
        let json = ("content-type".to_owned(), "application/json".to_owned());
        Fault { status: Some(status), echoes: true, headers: vec![json], ..Fault::default() }
    }

    /// The answer begins only after this time.
    pub fn delay(time: Duration) -> Fault {
        Fault { start: Start::After(time), ..Fault::default() }
    }

    /// The request is taken and never answered.
    pub fn silent() -> Fault {
        Fault { start: Start::Never, ..Fault::default() }
    }

    /// The connection is closed instead of an answer.
    pub fn hang_up() -> Fault {
        Fault { start: Start::Closed, ..Fault::default() }
    }

    /// The body comes evenly over this time.
    pub fn feed(time: Duration) -> Fault {
        Fault::default().and_feed(time)
    }

    /// The connection ends after this many bytes of the body.
    pub fn cut_after(bytes: usize) -> Fault {
        Fault { cut_after: Some(bytes), ..Fault::default() }
    }

    /// The body pauses after this many bytes until the gate opens.
    pub fn hold_after(bytes: usize, gate: &Gate) -> Fault {
        Fault::default().and_hold_after(bytes, gate)
    }

    /// One bit of the body's byte at this place is wrong.
    pub fn flip_byte(place: usize) -> Fault {
        Fault { flipped_byte: Some(place), ..Fault::default() }
    }

    /// The body comes in chunks, its length is not announced.
    pub fn chunked() -> Fault {
        Fault::default().and_chunked()
    }

    /// The body has neither length nor chunks and ends with the connection.
    pub fn until_close() -> Fault {
        Fault { framing: Framing::UntilClose, ..Fault::default() }
    }

    /// A header is missing. In small letters.
    pub fn without(header: &'static str) -> Fault {
        Fault { missing_headers: vec![header], ..Fault::default() }
    }

    /// Another body.
    pub fn body(mut self, body: impl Into<Bytes>) -> Fault {
        self.body = Some(body.into());
        self
    }

    /// A header more, or another value of one.
    pub fn header(mut self, name: &'static str, value: impl Into<String>) -> Fault {
        self.missing_headers.push(name);
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    /// Also [`Fault::hold_after`].
    pub fn and_hold_after(mut self, bytes: usize, gate: &Gate) -> Fault {
        self.holds.push((bytes, gate.clone()));
        self
    }

    /// Also [`Fault::cut_after`].
    pub fn and_cut_after(mut self, bytes: usize) -> Fault {
        self.cut_after = Some(bytes);
        self
    }

    /// Where it ends the connection, it does so by a reset.
    pub fn and_reset(mut self) -> Fault {
        self.ending = Ending::Reset;
        self
    }

    /// Also [`Fault::feed`].
    pub fn and_feed(mut self, time: Duration) -> Fault {
        self.feed_time = time;
        self
    }

    /// Also [`Fault::chunked`].
    pub fn and_chunked(mut self) -> Fault {
        self.framing = Framing::Chunked;
        self
    }
}

impl Gate {
    /// A shut gate.
    pub fn shut() -> Gate {
        Gate::default()
    }

    /// Opens it for good.
    pub fn open(&self) {
        self.0.send_replace(true);
    }

    /// Returns when it is open.
    pub(super) async fn passed(&self) {
        // The sender lives in `self`, so waiting cannot fail.
        let _ = self.0.subscribe().wait_for(|open| *open).await;
    }
}

/// Which GETs a rule is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanting {
    /// With a `Range` and without.
    Anything,
    /// Without.
    TheWhole,
    /// With.
    ARange,
    /// With one that begins there.
    ARangeFrom(usize),
}

/// A fault and the requests it applies to.
pub(super) struct Rule {
    method: &'static str,
    path: String,
    wanting: Wanting,
    fault: Fault,
    once: bool,
}

impl Rule {
    pub(super) fn new(method: &'static str, path: &str, fault: Fault) -> Rule {
        Rule { method, path: path.to_owned(), wanting: Wanting::Anything, fault, once: false }
    }

    pub(super) fn once(self) -> Rule {
        Rule { once: true, ..self }
    }

    pub(super) fn wanting(self, wanting: Wanting) -> Rule {
        Rule { wanting, ..self }
    }

    fn fits(&self, request: &Request) -> bool {
        let has_range = request.header("range").is_some();
        let is_wanted = match self.wanting {
            Wanting::Anything => true,
            Wanting::TheWhole => !has_range,
            Wanting::ARange => has_range,
            Wanting::ARangeFrom(start) => {
                let wanted = format!("bytes={start}-");
                request.header("range").is_some_and(|range| range.starts_with(&wanted))
            }
        };
        is_wanted && self.method == request.method && fits(&self.path, &request.path)
    }
}

/// Rules, newest first.
#[derive(Default)]
pub(super) struct Rules(VecDeque<Rule>);

impl Rules {
    pub(super) fn add(&mut self, rule: Rule) {
        self.0.push_front(rule);
    }

    /// What happens to this request; a rule for one request is used up by it.
    pub(super) fn apply(&mut self, request: &Request) -> Fault {
        let Some(place) = self.0.iter().position(|rule| rule.fits(request)) else {
            return Fault::default();
        };
        if self.0[place].once {
            return self.0.remove(place).unwrap().fault;
        }
        self.0[place].fault.clone()
    }
}

/// Whether `path` looks like `pattern`, where each `*` stands for any text.
pub(super) fn fits(pattern: &str, path: &str) -> bool {
    let Some((start, rest)) = pattern.split_once('*') else {
        return pattern == path;
    };
    let Some(tail) = path.strip_prefix(start) else {
        return false;
    };
    tail.char_indices()
        .map(|(place, _)| place)
        .chain([tail.len()])
        .any(|place| fits(rest, &tail[place..]))
}
