//! Time limits without a timer for each. The head of every request has one, and to set a timer and take it
//! back means to take a lock twice that all connections share. Instead a connection looks at the time
//! whenever it is woken, and sees to it that it is woken now and then.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};

use hyper::rt::{Sleep, Timer};

/// How often a connection is woken to look at the time: a limit is kept to this.
pub(super) const PERIOD: Duration = Duration::from_secs(5);

/// A timer whose sleepers wake nobody: they have to be looked at. Clones end together.
#[derive(Clone, Debug, Default)]
pub(super) struct Glances {
    ended: Arc<AtomicBool>,
}

struct Until {
    deadline: Instant,
    ended: Arc<AtomicBool>,
}

impl Glances {
    /// From now on, every time is over.
    pub(super) fn end(&self) {
        self.ended.store(true, Ordering::Relaxed);
    }

    /// Wakes the task that waits for it every `period`, and never ends.
    pub(super) async fn every(period: Duration) -> Infallible {
        let mut ticks = tokio::time::interval(period);
        loop {
            ticks.tick().await;
        }
    }
}

impl Timer for Glances {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Sleep>> {
        self.sleep_until(self.now() + duration)
    }

    fn sleep_until(&self, deadline: Instant) -> Pin<Box<dyn Sleep>> {
        Box::pin(Until { deadline, ended: Arc::clone(&self.ended) })
    }
}

impl Future for Until {
    type Output = ();

    fn poll(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<()> {
        let is_over = self.ended.load(Ordering::Relaxed) || Instant::now() >= self.deadline;
        if is_over { Poll::Ready(()) } else { Poll::Pending }
    }
}

impl Sleep for Until {}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::Response;
    use http_body_util::Empty;
    use hyper::{server::conn::http1, service::service_fn};
    use hyper_util::rt::TokioIo;
    use tokio::io::AsyncReadExt as _;

    use super::*;

    const LIMIT: Duration = Duration::from_millis(50);

    #[tokio::test]
    async fn a_client_that_says_nothing_is_cut_though_nothing_wakes_its_connection() {
        let (mut client, server) = tokio::io::duplex(64);
        let service =
            service_fn(async |_| Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new())));
        let connection = http1::Builder::new()
            .timer(Glances::default())
            .header_read_timeout(LIMIT)
            .serve_connection(TokioIo::new(server), service);
        let begun = Instant::now();
        tokio::select! {
            biased;
            ended = connection => assert!(ended.is_err_and(|error| error.is_timeout())),
            never = Glances::every(LIMIT) => match never {},
        }
        assert!(begun.elapsed() >= LIMIT);
        assert_eq!(client.read(&mut [0]).await.unwrap(), 0);
    }
}
