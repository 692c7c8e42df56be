//! Commands on content: each is one request to the admin API, sent to the daemon of the data directory over
//! its `admin.sock`, or, while no daemon runs, answered by the same code in this process, which holds the
//! directory's lock meanwhile. Nothing is made in a directory that is no data directory yet.

mod place;

use std::{
    error::Error,
    fmt::Display,
    io::{self, Write as _},
    process::ExitCode,
};

use bytes::{Bytes, BytesMut};
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited, combinators::UnsyncBoxBody};
use serde_json::Value;
use tracing::Level;

use super::{Common, LAST_WORK, USAGE, logging};
use crate::config::{Config, Log};

/// The longest explanation of a refusal that is read.
const MAX_REFUSAL: usize = 64 * 1024;

/// The longest line of an answer.
const MAX_LINE: usize = 16 << 20;

/// Options of every command on content.
#[derive(clap::Args)]
pub(super) struct Place {
    #[command(flatten)]
    common: Common,
    /// Where blobs are kept, as for `larder serve`
    #[arg(long, value_name = "DIRECTORY")]
    data_dir: Option<String>,
}

/// A request to the admin API.
#[derive(Clone, Debug)]
pub(super) struct Question {
    method: Method,
    target: String,
    body: Bytes,
}

/// The answer to one, which is a 200.
pub(super) type Answer = Response<AnswerBody>;

/// As it comes from the daemon, or from this process.
type AnswerBody = UnsyncBoxBody<Bytes, Box<dyn Error + Send + Sync>>;

/// Why a command did not do what was asked for.
#[derive(Debug)]
pub(super) enum Failure {
    /// It was asked for wrongly.
    Usage(String),
    /// It could not be done.
    Failed(String),
    /// Whoever read the output wants no more: `larder ls | head`.
    Unheard,
}

/// Asks `question` where content is kept, and lets `read` make something of the answer.
pub(super) fn ask<T>(
    place: &Place,
    question: Question,
    read: impl AsyncFnOnce(Answer) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let config = place.config()?;
    logging::start(&Log { level: Level::WARN, format: config.log.format });
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(Failure::failed)?;
    let result = runtime.block_on(place::ask(&config, question, read));
    runtime.shutdown_timeout(LAST_WORK);
    result
}

/// Hands each line of an answer, without its end, to `take`.
pub(super) async fn each_line(
    answer: Answer,
    mut take: impl FnMut(&[u8]) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let mut body = answer.into_body();
    let mut rest = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(broken_off)?;
        rest.extend_from_slice(frame.data_ref().map_or(&[], |data| data));
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            let line = rest.split_to(end.saturating_add(1));
            take(line.trim_ascii_end())?;
        }
        if rest.len() > MAX_LINE {
            return Err(Failure::not_understood("a line has no end"));
        }
    }
    match rest.is_empty() {
        true => Ok(()),
        false => take(&rest),
    }
}

/// The exit code of a command that only tells something: whoever wants no more of it has enough.
pub(super) fn told(result: Result<(), Failure>) -> ExitCode {
    match result {
        Ok(()) | Err(Failure::Unheard) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

impl Place {
    /// The configuration, as the daemon reads it too.
    pub(super) fn config(&self) -> Result<Config, Failure> {
        let mut sources = self.common.sources();
        if let Some(data_dir) = &self.data_dir {
            sources.flags.insert("data_dir", data_dir.clone());
        }
        Config::load(&sources).map_err(|error| Failure::Usage(error.to_string()))
    }
}

impl Question {
    /// Asks for something that changes nothing.
    pub(super) fn get(target: &str) -> Question {
        Question { method: Method::GET, target: target.to_owned(), body: Bytes::new() }
    }

    /// Asks for a change. The body is what the page documents.
    pub(super) fn change(path: &str, body: &Value) -> Question {
        let body = body.to_string().into();
        Question { method: Method::POST, target: path.to_owned(), body }
    }

    fn into_request(self) -> Result<Request<Full<Bytes>>, Failure> {
        Request::builder()
            .method(self.method)
            .uri(self.target)
            .header(header::HOST, "localhost")
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(self.body))
            .map_err(Failure::failed)
    }
}

impl Failure {
    pub(super) fn failed(reason: impl Display) -> Failure {
        Failure::Failed(reason.to_string())
    }

    /// The answer makes no sense here.
    pub(super) fn not_understood(error: impl Display) -> Failure {
        Failure::failed(format_args!(
            "the daemon's answer is not understood; is it of another version? {error}"
        ))
    }

    /// Standard output cannot be written.
    pub(super) fn unheard(error: io::Error) -> Failure {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Failure::Unheard;
        }
        Failure::failed(format_args!("cannot write the output: {error}"))
    }

    /// Says it on standard error.
    pub(super) fn report(self) -> ExitCode {
        let (reason, code) = match self {
            Failure::Usage(reason) => (reason, ExitCode::from(USAGE)),
            Failure::Failed(reason) => (reason, ExitCode::FAILURE),
            Failure::Unheard => return ExitCode::FAILURE,
        };
        // Without a standard error there is only the exit code.
        let _ = writeln!(io::stderr(), "{reason}");
        code
    }
}

/// An answer that is no refusal.
async fn accepted(answer: Answer) -> Result<Answer, Failure> {
    let status = answer.status();
    if status == StatusCode::OK {
        return Ok(answer);
    }
    let body = Limited::new(answer.into_body(), MAX_REFUSAL).collect().await;
    let reason = body.map_err(broken_off)?.to_bytes();
    let reason = String::from_utf8_lossy(&reason).trim_end().to_owned();
    Err(match status {
        StatusCode::BAD_REQUEST => Failure::Usage(reason),
        StatusCode::NOT_FOUND if reason.starts_with("no such page") => {
            Failure::failed("the daemon does not know this command; is it of another version?")
        }
        _ => Failure::Failed(reason),
    })
}

fn broken_off(error: impl Display) -> Failure {
    Failure::failed(format_args!("the answer broke off: {error}"))
}
