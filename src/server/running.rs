//! The requests running on one HTTP/2 connection, counted to know when it is idle: hyper ends an
//! idle connection of HTTP/1.1 only.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use http_body::{Body, Frame, SizeHint};
use tokio::{sync::watch, time::timeout};

/// How many requests are running.
pub(super) struct Running(watch::Sender<usize>);

/// One of them, until dropped.
pub(super) struct One(watch::Sender<usize>);

/// A body, or none, whose request runs until it is dropped.
pub(super) struct Counted<B> {
    body: Option<B>,
    _one: One,
}

impl Running {
    pub(super) fn none() -> Running {
        Running(watch::Sender::new(0))
    }

    /// One more.
    pub(super) fn begin(&self) -> One {
        self.0.send_modify(|running| *running += 1);
        One(self.0.clone())
    }

    /// Returns when no request has been running for so long.
    pub(super) fn idle_for(&self, time: Duration) -> impl Future<Output = ()> + use<> {
        let mut running = self.0.subscribe();
        async move {
            // Both fail only when the connection is gone, and nobody waits any more.
            while running.wait_for(|running| *running == 0).await.is_ok()
                && timeout(time, running.changed()).await.is_ok()
            {}
        }
    }
}

impl One {
    /// Goes on until the body has ended.
    pub(super) fn until_end_of<B>(self, body: Option<B>) -> Counted<B> {
        Counted { body, _one: self }
    }
}

impl Drop for One {
    fn drop(&mut self) {
        self.0.send_modify(|running| *running -= 1);
    }
}

impl<B: Body + Unpin> Body for Counted<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        match &mut self.body {
            Some(body) => Pin::new(body).poll_frame(context),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or(SizeHint::with_exact(0), Body::size_hint)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use bytes::Bytes;
    use http_body_util::Empty;

    use super::*;

    const IDLE: Duration = Duration::from_millis(50);

    #[tokio::test]
    async fn a_connection_is_idle_when_nothing_has_run_for_so_long() {
        let running = Running::none();
        let body = running.begin().until_end_of(Some(Empty::<Bytes>::new()));
        let idle = tokio::spawn(running.idle_for(IDLE));
        tokio::time::sleep(3 * IDLE).await;
        assert!(!idle.is_finished());
        let ended = Instant::now();
        drop(body);
        idle.await.unwrap();
        assert!(ended.elapsed() >= IDLE);
    }
}
