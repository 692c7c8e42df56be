//! Long operations: what they tell while they run, as JSON documents of one line each.
//!
//! | event | |
//! |---|---|
//! | `{"progress": {"done": n, "total": n, "unit": "bytes"}}` | how far it is; `total` is null while unknown |
//! | `{"finding": {…}}` | something the operation found; its form is the operation's |
//! | `{"done": {…}}` | the last: it has ended well; the form is the operation's |
//! | `{"error": "…"}` | the last: why it has not |
//!
//! An operation ends when its client hangs up, and when the daemon stops: at its next await, with what it
//! has done so far done.

use std::fmt;

use bytes::Bytes;
use http::Response;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::{
    answer::{self, Body},
    work::Running,
};

/// Events that may wait for the client.
const WAITING: usize = 64;

/// Where an operation tells its events.
#[derive(Clone, Debug)]
pub struct Events(mpsc::Sender<Bytes>);

/// What progress is counted in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Bytes of blobs.
    Bytes,
    /// Blobs, manifests included.
    Blobs,
}

impl Events {
    /// How far the operation is. Left out while the client is behind.
    pub fn progress(&self, done: u64, total: Option<u64>, unit: Unit) {
        let event =
            json!({ "progress": { "done": done, "total": total, "unit": unit.to_string() } });
        // The next will be newer.
        let _ = self.0.try_send(line(&event));
    }

    /// Something was found. Waits for a client that is behind.
    pub async fn finding(&self, finding: Value) {
        self.send(json!({ "finding": finding })).await;
    }

    async fn send(&self, event: Value) {
        // Who hangs up ends the operation in another way.
        let _ = self.0.send(line(&event)).await;
    }
}

impl fmt::Display for Unit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Unit::Bytes => "bytes",
            Unit::Blobs => "blobs",
        })
    }
}

/// Runs `operation` in a task of its own, and answers with what it tells. It returns what goes with `done`,
/// or the text of `error`.
pub(super) fn answer<F, Fut>(running: Running, operation: F) -> Response<Body>
where
    F: FnOnce(Events) -> Fut,
    Fut: Future<Output = Result<Value, String>> + Send + 'static,
{
    let (sender, receiver) = mpsc::channel(WAITING);
    let events = Events(sender);
    let work = operation(events.clone());
    tokio::spawn(async move {
        let ended = tokio::select! {
            ended = work => ended,
            () = running.told_to_end() => Err("Larder is stopping".to_owned()),
            () = events.0.closed() => return,
        };
        let last = match ended {
            Ok(done) => json!({ "done": done }),
            Err(reason) => json!({ "error": reason }),
        };
        tokio::select! {
            biased;
            () = events.send(last) => {}
            // The store is about to close, and waits for no client that is behind.
            () = running.told_to_end() => {}
        }
    });
    answer::lines(receiver)
}

fn line(event: &Value) -> Bytes {
    format!("{event}\n").into()
}

#[cfg(test)]
mod tests {
    use std::{future::pending, time::Duration};

    use http_body_util::BodyExt as _;
    use tokio::{sync::oneshot, time::timeout};

    use super::*;
    use crate::admin::work::Work;

    /// A stop ends what runs, even if its client reads nothing any more.
    #[tokio::test]
    async fn a_client_that_is_behind_keeps_nothing_from_stopping() {
        let work = Work::default();
        let endless = |events: Events| async move {
            loop {
                events.finding(json!({})).await;
            }
        };
        let unread = answer(work.begin().unwrap(), endless);
        let read = answer(work.begin().unwrap(), |_| pending());
        timeout(Duration::from_secs(30), work.end()).await.unwrap();
        assert!(work.begin().is_none());
        let read = read.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(read, "{\"error\":\"Larder is stopping\"}\n");
        drop(unread);
    }

    /// An operation whose client has hung up is dropped.
    #[tokio::test]
    async fn an_operation_ends_with_its_client() {
        let (kept, dropped) = oneshot::channel::<()>();
        let operation = |_| async move {
            let _kept = kept;
            pending().await
        };
        drop(answer(Work::default().begin().unwrap(), operation));
        assert!(timeout(Duration::from_secs(30), dropped).await.unwrap().is_err());
    }
}
