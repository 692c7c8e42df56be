//! One large blob through a long, narrow line.

use super::Row;
use crate::{
    Failure,
    bench::{Line, Speech},
    figures::Measure,
    rivals::Rival,
    rounds::Turn,
};

pub const ROW: Row = Row {
    name: "relay",
    title: "A cold blob over a long line",
    about: "One blob of 256 MiB that nobody had, over the same line. `larder-streams` has \
            `download.streams = 4`.",
    rivals: &[Rival::Larder, Rival::LarderStreams, Rival::Nginx, Rival::Direct],
    once: &[],
    repeats: 1,
    absent: &[
        (Rival::Distribution, "has the one stream of the line, as nginx"),
        (Rival::Drayage, "has the one stream of the line, as nginx"),
    ],
    measure,
};

const RATE: Measure = Measure::new("throughput", "MB/s").streams_at_least(3.0);

fn measure(turn: &mut Turn<'_>) -> Result<(), Failure> {
    let bench = turn.bench;
    let site = bench.start(turn.rival, Speech::Http, Line::Relay)?;
    let report = bench.load.get(&site, &[bench.contents.blob()]).requests(1).run()?;
    turn.found(&RATE, report.mb_per_second);
    Ok(())
}
