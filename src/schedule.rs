//! What is done at intervals for as long as a mirror runs.

use std::{sync::Arc, time::Duration};

use tokio::time::MissedTickBehavior;

use crate::mirror::Mirror;

/// Sweeps at once, and then every `interval`.
pub(crate) async fn sweep(mirror: Arc<Mirror>, interval: Duration) {
    let mut ticks = tokio::time::interval(interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if let Err(error) = mirror.sweep().await {
            tracing::warn!(%error, "a sweep did not end well");
        }
    }
}
