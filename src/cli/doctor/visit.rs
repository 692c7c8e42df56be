//! One GET to one of our own listeners.

use std::{io, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode, header::HOST};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::time::timeout;

use crate::{
    config::{self, Listen},
    server,
};

/// How long a listener may take.
const LIMIT: Duration = Duration::from_secs(5);

/// The longest answer that is read.
const MAX_BODY: usize = 4 << 20;

/// What a listener answered.
#[derive(Debug)]
pub(super) struct Visited {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoAnswer {
    #[error("nothing listens here")]
    Absent,
    #[error("no answer within {} s", LIMIT.as_secs())]
    Late,
    #[error("{0}")]
    Failed(io::Error),
}

/// Asks for `path`.
pub(super) async fn get(
    listen: &Listen,
    tls: Option<&config::Tls>,
    path: &str,
) -> Result<Visited, NoAnswer> {
    let visit = timeout(LIMIT, exchange(listen, tls, path)).await;
    let is_absent = |error: &io::Error| {
        matches!(error.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound)
    };
    visit.map_err(|_| NoAnswer::Late)?.map_err(|error| match is_absent(&error) {
        true => NoAnswer::Absent,
        false => NoAnswer::Failed(error),
    })
}

async fn exchange(listen: &Listen, tls: Option<&config::Tls>, path: &str) -> io::Result<Visited> {
    let stream = server::dial(listen, tls).await?;
    let (mut sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
    let request = Request::get(path).header(HOST, "localhost").body(Empty::<Bytes>::new());
    let talk = async {
        let answer = sender.send_request(request.map_err(io::Error::other)?).await;
        let (head, body) = answer.map_err(io::Error::other)?.into_parts();
        let body = Limited::new(body, MAX_BODY).collect().await.map_err(io::Error::other)?;
        Ok(Visited { status: head.status, headers: head.headers, body: body.to_bytes() })
    };
    tokio::pin!(talk, connection);
    tokio::select! {
        biased;
        answer = &mut talk => answer,
        // What ended the connection, the talk hears of too.
        _ = &mut connection => talk.await,
    }
}
