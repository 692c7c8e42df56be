//! Ranges that start far ahead of a growing file: passed from upstream until the file is there.
//!
//! A client that wants the end of a large blob would otherwise wait for all that is before it.
//! This is only ever a shortcut: who cannot take it, or is thrown off it, waits for the file.

use std::{ops::Range, pin::Pin};

use bytes::Bytes;
use futures_util::{FutureExt as _, Stream, stream};
use tokio::sync::watch;

use super::{
    download::{Growing, Progress},
    relay::Relay,
    remote::Remote,
};
use crate::upstream;

/// A range that starts no farther past what the file has waits for it, in bytes.
const NEAR: u64 = 4 * 1024 * 1024;

/// The pieces of a range. They end early when upstream does not give the rest.
pub(super) type Ahead = Pin<Box<dyn Stream<Item = Bytes> + Send>>;

/// `range` from upstream, asked for as soon as a slot of the download is free. `None` when it is
/// near enough for the file. Dropping it closes its connection.
pub(super) fn ahead(growing: &Growing, range: Range<u64>) -> Option<Ahead> {
    let size = growing.size?;
    if !is_far(&growing.progress, range.start) {
        return None;
    }
    let (remote, slots) = (growing.remote.clone(), growing.slots.clone());
    let progress = growing.progress.clone();
    let opened = async move {
        let slot = slots.clone().acquire_owned().await.ok()?;
        if !is_far(&progress, range.start) {
            return None;
        }
        remote.metrics.passthrough.with_label_values(&["range"]).inc();
        match remote.part(&range, size).await {
            Ok(body) => {
                let body = Relay::of(body, Some(slot), remote.patience);
                Some(Passed { body, remote })
            }
            Err(upstream::Error::Invalid(_)) => {
                // Upstream knows no ranges, or none of this blob: nobody need ask for another.
                slots.close();
                None
            }
            Err(_) => None,
        }
    };
    Some(Box::pin(opened.map(pieces).flatten_stream()))
}

/// A range on its way.
struct Passed {
    body: Relay,
    remote: Remote,
}

fn pieces(passed: Option<Passed>) -> impl Stream<Item = Bytes> {
    stream::unfold(passed, |passed| async move {
        let mut passed = passed?;
        let piece = passed.body.chunk().await;
        let piece = piece.inspect_err(|error| passed.remote.report(error)).ok()??;
        Some((piece, Some(passed)))
    })
}

fn is_far(progress: &watch::Receiver<Progress>, start: u64) -> bool {
    match *progress.borrow() {
        Progress::Filling(written) => start > written.saturating_add(NEAR),
        Progress::Opening
        | Progress::Stranded(_)
        | Progress::Refused(_)
        | Progress::Untaken(_)
        | Progress::Verified(_)
        | Progress::Broken => false,
    }
}
