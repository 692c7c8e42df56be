//! The `oras` library for Python: an artifact, and another that refers to it, pushed upstream and
//! found through Larder.

use crate::{
    engine::Engine,
    lab::{Lab, OTHER},
    phases::pull_cold_warm_stopped,
    process::run,
};

/// Python with the library, where `tests/run` puts it.
const PYTHON: &str = concat!(env!("CARGO_TARGET_TMPDIR"), "/oras-0.2.43/bin/python");

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/e2e/oras_client.py");

/// The config that both share, and a file of each.
const BLOBS: usize = 3;

/// Debian's registry does not know the referrers API, and Larder passes that on.
#[test]
fn finds_a_referrer_by_the_tag_made_of_the_digest() {
    let mut lab = Lab::start();
    lab.other.push_with(&format!("{PYTHON} {SCRIPT} push"), "team/artifact");
    let engine = Engine::new(&lab, "oras");
    let repository = format!("{}/{OTHER}/team/artifact", lab.larder.address());
    let client = "oras for Python 0.2.43";
    pull_cold_warm_stopped(&mut lab, client, "by name: LARDER/REGISTRY/…", BLOBS, || {
        let found = run(&engine.line(&format!("{PYTHON} {SCRIPT} discover {repository}")));
        assert_eq!(found, "found by the tag made of the digest\n");
    });
}
