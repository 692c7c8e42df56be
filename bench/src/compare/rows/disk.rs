//! Cold files: whether a slow disk stalls who does not need it.

use super::Row;
use crate::{
    Failure,
    bench::{Line, Speech},
    figures::Measure,
    rivals::Rival,
    rounds::Turn,
};

pub const ROW: Row = Row {
    name: "disk",
    title: "Manifest hits while blobs are read from disk",
    about: "Eight clients read a blob of 256 MiB each that is in the cache but not in the page \
            cache; meanwhile one connection asks for a manifest again and again.",
    rivals: &[Rival::Larder, Rival::Nginx, Rival::NginxThreads],
    once: &[],
    repeats: 1,
    absent: &[],
    measure,
};

const P50: Measure = Measure::new("manifest hit, median", "ms");
const P99: Measure = Measure::new("manifest hit, p99", "ms").at_most_nginx(1.0);
const RATE: Measure = Measure::new("the blobs together", "MB/s");

/// How long manifests are asked for: not longer than a fast disk takes for the blobs.
const TIME: std::time::Duration = std::time::Duration::from_millis(500);

fn measure(turn: &mut Turn<'_>) -> Result<(), Failure> {
    let bench = turn.bench;
    let site = bench.start(turn.rival, Speech::Http, Line::Unlimited)?;
    let (blobs, manifest) = (bench.contents.blobs(), [bench.contents.small().tagged()]);
    bench.load.get(&site, &manifest).requests(1).run()?;
    bench.load.get(&site, &blobs).requests(blobs.len()).run()?;
    site.make_cold()?;
    let readers = bench.load.get(&site, &blobs).connections(8).each(1).start()?;
    let asked = bench.load.get(&site, &manifest).during(TIME).run()?;
    let answer = asked.answer_ms.ok_or("no manifest came")?;
    turn.found(&P50, answer.p50);
    turn.found(&P99, answer.p99);
    turn.found(&RATE, readers.finish()?.mb_per_second);
    Ok(())
}
