//! Changes under way, which must have ended before the store closes.

use tokio_util::{
    sync::CancellationToken,
    task::{TaskTracker, task_tracker::TaskTrackerToken},
};

use super::refusal::Refusal;

/// What is under way; clones share it.
#[derive(Clone, Debug, Default)]
pub(super) struct Work {
    running: TaskTracker,
    ending: CancellationToken,
}

/// One change under way, until it is dropped.
#[derive(Debug)]
pub(super) struct Running {
    _counted: TaskTrackerToken,
    ending: CancellationToken,
}

impl Work {
    /// Begins a change. `None`: it is too late.
    pub(super) fn begin(&self) -> Option<Running> {
        // Counted before the look: whoever waits either waits for this one, or is seen here.
        let counted = self.running.token();
        let ending = self.ending.clone();
        (!self.running.is_closed()).then_some(Running { _counted: counted, ending })
    }

    /// Begins nothing more, tells what is running, and waits for it.
    pub(super) async fn end(&self) {
        self.running.close();
        self.ending.cancel();
        self.running.wait().await;
    }
}

impl Running {
    /// Does this to its end, also when the client hangs up meanwhile.
    pub(super) async fn finish<T: Send + 'static>(
        self,
        work: impl Future<Output = Result<T, Refusal>> + Send + 'static,
    ) -> Result<T, Refusal> {
        let done = tokio::spawn(async move {
            let done = work.await;
            drop(self);
            done
        });
        done.await.unwrap_or_else(|error| Err(Refusal::failed(error)))
    }

    /// Returns when this should come to an end early.
    pub(super) async fn told_to_end(&self) {
        self.ending.cancelled().await;
    }
}
