//! A cluster that pulls everything.

use super::Row;
use crate::{
    Failure,
    bench::{Line, Speech},
    figures::Measure,
    rivals::Rival,
    rounds::Turn,
};

pub const ROW: Row = Row {
    name: "nodes",
    title: "1,000 images × 50 nodes",
    about: "Each of 50 nodes pulls 1,000 small images, each in a random order of its own: the \
            manifest by tag, the config and three layers of 4 to 64 KiB. The cache is empty at \
            first. A hit is a manifest that somebody had got before. `nginx-plain` has no \
            `open_file_cache`.",
    rivals: &[Rival::Larder, Rival::Nginx, Rival::NginxPlain],
    once: &[Rival::Drayage],
    repeats: 1,
    absent: &[(Rival::Distribution, "asks upstream at every pull, which takes minutes")],
    measure,
};

const ERRORS: Measure = Measure::new("errors", "").at_most(0.0);
const HIT_P50: Measure = Measure::new("manifest hit, median", "ms");
const HIT_P99: Measure = Measure::new("manifest hit, p99", "ms").at_most(5.0);
const TIME: Measure = Measure::new("all pulled after", "s");

fn measure(turn: &mut Turn<'_>) -> Result<(), Failure> {
    let bench = turn.bench;
    let site = bench.start(turn.rival, Speech::Http, Line::Unlimited)?;
    let report = bench.load.nodes(&site, &bench.root()).run()?;
    let hit = report.manifest_hit_ms.ok_or("no manifest was a hit")?;
    turn.found(&ERRORS, report.errors as f64);
    turn.found(&HIT_P50, hit.p50);
    turn.found(&HIT_P99, hit.p99);
    turn.found(&TIME, report.seconds);
    Ok(())
}
