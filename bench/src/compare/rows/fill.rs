//! Cold blobs for one client.

use super::Row;
use crate::{
    Failure,
    bench::{Line, Speech},
    figures::Measure,
    rivals::Rival,
    rounds::Turn,
};

/// Large blobs, one after the other.
const BLOBS: usize = 3;

pub const ROW: Row = Row {
    name: "fill",
    title: "Cold fill",
    about: "Three blobs of 256 MiB that nobody had, one after the other for one client, upstream \
            unthrottled. Direct is the same without a cache. Only Larder, docker-registry and \
            drayage verify what they store.",
    rivals: &[Rival::Larder, Rival::Nginx, Rival::NginxThreads, Rival::Distribution, Rival::Direct],
    once: &[Rival::Drayage],
    repeats: 1,
    absent: &[],
    measure,
};

const TIME: Measure = Measure::new("time for each", "s").at_most_direct(1.1);
const RATE: Measure = Measure::new("throughput", "MB/s").at_least_nginx(1.0);
const COST: Measure = Measure::new("processor time", "s/GB").at_most(1.2);

fn measure(turn: &mut Turn<'_>) -> Result<(), Failure> {
    let bench = turn.bench;
    let site = bench.start(turn.rival, Speech::Http, Line::Unlimited)?;
    let mut blobs = bench.contents.blobs();
    blobs.truncate(BLOBS);
    let report = bench.load.get(&site, &blobs).requests(blobs.len()).run()?;
    turn.found(&TIME, report.seconds / blobs.len() as f64);
    turn.found(&RATE, report.mb_per_second);
    if let Some(usage) = report.server {
        turn.found(&COST, usage.cpu_seconds_per_gb);
    }
    Ok(())
}
