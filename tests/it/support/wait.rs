//! Waiting for something to become true, with a limit, so that a broken test ends.

use std::{future::Future, time::Duration};

/// Longer than anything a test waits for on a loaded machine.
pub const LIMIT: Duration = Duration::from_secs(30);

/// The result of `future`.
///
/// # Panics
/// When it takes longer than [`LIMIT`].
pub async fn within_limit<F: Future>(what: &str, future: F) -> F::Output {
    match tokio::time::timeout(LIMIT, future).await {
        Ok(output) => output,
        Err(_) => panic!("waited {LIMIT:?} in vain for {what}"),
    }
}

/// Returns when `condition` holds; asks every few milliseconds. For things that send no event,
/// such as a file that appears.
///
/// # Panics
/// When it takes longer than [`LIMIT`].
pub async fn until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    within_limit(what, async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}
