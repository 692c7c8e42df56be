//! Blob hits over TLS.

use super::{Row, TIME};
use crate::{
    Failure,
    bench::{Line, Speech},
    figures::Measure,
    rivals::Rival,
    rounds::Turn,
};

pub const ROW: Row = Row {
    name: "tls",
    title: "Blob hit over TLS 1.3, AES-128-GCM",
    about: "One blob of 256 MiB again and again over connections that stay open; an HTTP/2 \
            connection carries one request at a time.",
    rivals: &[Rival::Larder, Rival::Nginx],
    once: &[Rival::Distribution],
    repeats: 3,
    absent: &[(Rival::Drayage, "speaks TLS only as a transparent proxy")],
    measure,
};

/// Connections, and whether they speak HTTP/2.
const RUNS: [(u32, bool, Measure, Measure); 4] = [
    (
        1,
        false,
        Measure::new("HTTP/1.1, 1 connection", "MB/s").at_least_nginx(1.0),
        Measure::new("HTTP/1.1, 1 connection, processor time", "s/GB"),
    ),
    (
        8,
        false,
        Measure::new("HTTP/1.1, 8 connections", "MB/s").at_least_nginx(1.0),
        Measure::new("HTTP/1.1, 8 connections, processor time", "s/GB"),
    ),
    (
        1,
        true,
        Measure::new("HTTP/2, 1 connection", "MB/s").at_least_nginx(1.0),
        Measure::new("HTTP/2, 1 connection, processor time", "s/GB"),
    ),
    (
        8,
        true,
        Measure::new("HTTP/2, 8 connections", "MB/s").at_least_nginx(1.0),
        Measure::new("HTTP/2, 8 connections, processor time", "s/GB"),
    ),
];

fn measure(turn: &mut Turn<'_>) -> Result<(), Failure> {
    let bench = turn.bench;
    let site = bench.start(turn.rival, Speech::Tls, Line::Unlimited)?;
    let blob = [bench.contents.blob()];
    bench.load.get(&site, &blob).requests(1).run()?;
    site.settle();
    for (connections, http2, rate, cost) in &RUNS {
        let ask = bench.load.get(&site, &blob).connections(*connections).during(TIME);
        let report = if *http2 { ask.http2() } else { ask }.run()?;
        turn.found(rate, report.mb_per_second);
        turn.found(cost, report.usage()?.cpu_seconds_per_gb);
    }
    Ok(())
}
