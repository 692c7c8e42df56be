//! Waiting out an upstream that asks for a moment.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::Error;

/// The longest pause that is waited out. Who would have to wait for longer is told so, and may turn
/// to another registry.
const LONGEST: Duration = Duration::from_secs(5);

/// The least time between two questions, though upstream asks for less.
const LEAST: Duration = Duration::from_millis(100);

/// The answer to `question`, which is put again after each short pause that upstream asks for and
/// that ends before `deadline`.
pub(super) async fn wait_out<T, F>(deadline: Instant, question: impl Fn() -> F) -> Result<T, Error>
where
    F: Future<Output = Result<T, Error>>,
{
    loop {
        match question().await {
            Err(Error::Limited { retry_after: Some(pause), .. })
                if pause <= LONGEST && Instant::now() + pause < deadline =>
            {
                sleep(pause.max(LEAST)).await;
            }
            outcome => return outcome,
        }
    }
}
