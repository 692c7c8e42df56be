//! Many clients that want the same cold blob at once.

use super::Row;
use crate::{
    Failure,
    bench::{Line, Speech},
    figures::Measure,
    rivals::Rival,
    rounds::Turn,
};

/// What upstream gives to all together, in MB/s.
const LIMIT: u32 = 100;

const RIVALS: &[Rival] =
    &[Rival::Larder, Rival::Nginx, Rival::NginxThreads, Rival::NginxSlices, Rival::Direct];

pub const SMALL: Row = Row {
    name: "herd",
    title: "Cold herd of 32",
    about: "32 clients ask at once for one blob of 64 MiB that nobody had; upstream gives 100 MB/s \
            in all. Direct is one client alone without a cache.",
    rivals: RIVALS,
    once: &[Rival::Distribution, Rival::Drayage],
    repeats: 1,
    absent: &[],
    measure: small,
};

pub const LARGE: Row = Row {
    name: "herd256",
    title: "Cold herd of 256, and its memory",
    about: "As above with 256 clients, which then all ask for the blob once more, from the cache: \
            where the loopback is the limit, and not upstream, they cannot be faster. Memory is \
            what all processes of a server had resident at their peaks, together.",
    rivals: RIVALS,
    once: &[],
    repeats: 1,
    absent: &[
        (Rival::Distribution, "fetches the blob for each client, which takes minutes"),
        (Rival::Drayage, "takes minutes"),
    ],
    measure: large,
};

const GETS: Measure = Measure::new("GETs upstream", "").at_most(1.0);
const FIRST_P50: Measure = Measure::new("first byte, median", "ms");
const FIRST_P99: Measure = Measure::new("first byte, p99", "ms").at_most(50.0);
const DONE: Measure = Measure::new("all done after", "s").at_most_direct(1.5);
const DONE_LARGE: Measure = DONE.or_at_most_own(1.1, CACHED.of);
const CACHED: Measure = Measure::new("the same from the cache", "s");
const TOGETHER: Measure = Measure::new("all together get", "MB/s");
const COLD: Measure = Measure::new("peak memory, cold", "MiB").at_most(40.0);
const WARM: Measure = Measure::new("peak memory, warm", "MiB").at_most(40.0);

fn small(turn: &mut Turn<'_>) -> Result<(), Failure> {
    herd(turn, 32, &DONE)
}

fn large(turn: &mut Turn<'_>) -> Result<(), Failure> {
    herd(turn, 256, &DONE_LARGE)
}

fn herd(turn: &mut Turn<'_>, clients: u32, done: &Measure) -> Result<(), Failure> {
    let bench = turn.bench;
    let site = bench.start(turn.rival, Speech::Http, Line::Limited(LIMIT))?;
    let mut blob = bench.contents.image().layers();
    blob.truncate(1);
    let clients = if turn.rival == Rival::Direct { 1 } else { clients };
    let report = bench.load.get(&site, &blob).connections(clients).each(1).run()?;
    let first = report.first_byte_ms.ok_or("nothing came")?;
    turn.found(&GETS, bench.upstream_requests(&format!("GET {}", blob[0]))? as f64);
    turn.found(&FIRST_P50, first.p50);
    turn.found(&FIRST_P99, first.p99);
    turn.found(done, report.seconds);
    turn.found(&TOGETHER, report.mb_per_second);
    if let (256, Some(cold)) = (clients, report.server) {
        let warm = bench.load.get(&site, &blob).connections(clients).each(1).run()?;
        turn.found(&CACHED, warm.seconds);
        turn.found(&COLD, cold.peak_rss_mib);
        turn.found(&WARM, warm.usage()?.peak_rss_mib);
    }
    Ok(())
}
