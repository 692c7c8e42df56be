//! Where a command on content is answered: by the daemon that has the data directory, or in this process.

use std::{io, path::Path, sync::Arc, time::Duration};

use http::Request;
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustix::process::geteuid;
use tokio::time::sleep;

use bytes::Bytes;

use super::{Answer, Failure, Question, accepted};
use crate::{
    StartError,
    admin::{Authority, Readiness},
    assembly::Parts,
    clock::Clock,
    config::{Config, Listen},
    server::{self, Dialled},
    store::{self, OpenError},
};

/// How often a data directory is tried that another process holds without taking commands: a daemon that
/// starts or ends, or another command.
const ATTEMPTS: u32 = 30;

/// Time between two attempts.
const PAUSE: Duration = Duration::from_millis(100);

/// Who answers.
enum Answerer {
    Daemon(Dialled),
    /// This process, which has the lock. Boxed, as it is many times as large.
    Here(Box<Parts>),
}

/// Asks whoever has the data directory.
pub(super) async fn ask<T>(
    config: &Config,
    question: Question,
    read: impl AsyncFnOnce(Answer) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let request = question.into_request()?;
    match find(config).await? {
        Answerer::Daemon(stream) => read(accepted(ask_daemon(stream, request).await?).await?).await,
        Answerer::Here(parts) => {
            let admin = parts.admin(config, || Readiness::Ready);
            let answer = admin.answer(request, Authority::Trusted).await;
            let answer = answer.map(|body| body.map_err(|never| match never {}).boxed_unsync());
            let result = match accepted(answer).await {
                Ok(answer) => read(answer).await,
                Err(refused) => Err(refused),
            };
            admin.settle().await;
            parts.content.mirror.drain().await;
            parts.content.store.close().await;
            result
        }
    }
}

async fn find(config: &Config) -> Result<Answerer, Failure> {
    let owner = store::owner(&config.data_dir).map_err(Failure::failed)?;
    let socket = store::admin_socket(&config.data_dir);
    let mut holder = String::new();
    for _ in 0..ATTEMPTS {
        if let Some(stream) = dial(&socket, owner).await? {
            return Ok(Answerer::Daemon(stream));
        }
        // What this process would write there, the daemon could not read or replace.
        if owner != geteuid().as_raw() {
            return Err(Failure::failed(format_args!(
                "no daemon takes commands at {}, and the directory belongs to user {owner}: start the daemon, or run this as that user",
                socket.display()
            )));
        }
        match Parts::assemble(config, Clock::system(), Arc::default()) {
            Ok(parts) => return Ok(Answerer::Here(Box::new(parts))),
            Err(StartError::Store(OpenError::InUse { process, .. })) => holder = process,
            Err(error) => return Err(Failure::failed(error)),
        }
        sleep(PAUSE).await;
    }
    Err(Failure::failed(format_args!(
        "data directory {} is in use by process {holder}, which takes no commands at {}: wait for it, if it is another command, or stop it",
        config.data_dir.display(),
        socket.display()
    )))
}

/// `None`: nobody listens there.
async fn dial(socket: &Path, owner: u32) -> Result<Option<Dialled>, Failure> {
    use io::ErrorKind::{ConnectionRefused, NotFound, PermissionDenied};
    match server::dial(&Listen::Unix(socket.to_owned()), None).await {
        Ok(stream) => Ok(Some(stream)),
        Err(error) if matches!(error.kind(), ConnectionRefused | NotFound) => Ok(None),
        Err(error) if error.kind() == PermissionDenied => Err(Failure::failed(format_args!(
            "only user {owner} may give commands at {}: run this as that user",
            socket.display()
        ))),
        Err(error) => {
            Err(Failure::failed(format_args!("cannot connect to {}: {error}", socket.display())))
        }
    }
}

async fn ask_daemon(stream: Dialled, request: Request<Full<Bytes>>) -> Result<Answer, Failure> {
    let no_answer =
        |error: hyper::Error| Failure::failed(format_args!("the daemon does not answer: {error}"));
    let (mut sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(no_answer)?;
    // What ends it, the body hears of too.
    tokio::spawn(connection);
    let answer = sender.send_request(request).await.map_err(no_answer)?;
    Ok(answer.map(|body| body.map_err(Into::into).boxed_unsync()))
}
