//! What every client goes through on every route: Larder knows nothing, Larder has it all,
//! upstream is gone. Each leaves a row of a Markdown table in the output, for `tests/run` to gather.

use crate::{
    lab::{Lab, Observed},
    process::wait_for,
};

/// Runs `pull` in the three phases. It must leave nothing at the client, so that the next one asks
/// again; `blobs` is how many configs and layers it takes.
///
/// Cold, upstream sends each blob once; warm, neither blobs nor manifests; stopped, Larder answers
/// from what it has, whatever a tag's age.
pub fn pull_cold_warm_stopped(
    lab: &mut Lab,
    client: &str,
    route: &str,
    blobs: usize,
    pull: impl Fn(),
) {
    lab.renew();
    pull();
    // The registry writes its log a moment after its last byte.
    wait_for("every blob in the access log", || {
        (lab.observed().asked.blob_gets().len() >= blobs).then_some(())
    });
    let cold = lab.take_observed();
    let sent = cold.asked.blob_gets();
    assert!(sent.len() == blobs && sent.values().all(|gets| *gets == 1), "{sent:?}");

    pull();
    let warm = lab.take_observed();
    assert_eq!(warm.asked.content_gets(), 0, "{}", warm.asked);
    assert_served_from_store(&warm);

    lab.stop_upstreams();
    pull();
    let stopped = lab.take_observed();
    assert_served_from_store(&stopped);
    println!("| {client} | {route} | {cold} | {warm} | {stopped} |");
}

/// That the client asked Larder at all, and that Larder had to fetch neither manifest nor blob.
fn assert_served_from_store(observed: &Observed) {
    assert!(!observed.lookups.is_empty(), "the client did not ask again");
    for fetched in ["manifest miss", "manifest join", "blob miss", "blob join"] {
        assert!(!observed.lookups.contains_key(fetched), "{observed}");
    }
}
