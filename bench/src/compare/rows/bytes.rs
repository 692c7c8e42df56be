//! Whether what comes is what was asked for.

use super::Row;
use crate::{
    Failure,
    bench::{Bench, Line, Site, Speech},
    figures::Measure,
    rivals::Rival,
    rounds::Turn,
};

pub const ROW: Row = Row {
    name: "bytes",
    title: "Every byte checked",
    about: "Blobs of 256 MiB and manifests, by plain HTTP and by TLS as HTTP/1.1 and HTTP/2: cold \
            for one client, cold for four at once, and from the cache, each hashed by the client \
            and compared with its digest. Whoever gives other bytes is measured no further here.",
    rivals: &[],
    once: &[Rival::Larder, Rival::Nginx, Rival::NginxThreads, Rival::Distribution, Rival::Drayage],
    repeats: 1,
    absent: &[],
    measure,
};

const CHECKED: Measure = Measure::new("right", "MB");

fn measure(turn: &mut Turn<'_>) -> Result<(), Failure> {
    let bench = turn.bench;
    let mut bytes =
        checked(bench, &bench.start(turn.rival, Speech::Http, Line::Unlimited)?, false)?;
    if turn.rival != Rival::Drayage {
        let site = bench.start(turn.rival, Speech::Tls, Line::Unlimited)?;
        bytes += checked(bench, &site, false)? + checked(bench, &site, true)?;
    }
    turn.found(&CHECKED, bytes as f64 / 1e6);
    Ok(())
}

/// Bytes that were right.
fn checked(bench: &Bench<'_>, site: &Site, http2: bool) -> Result<u64, Failure> {
    let (blobs, image) = (bench.contents.blobs(), bench.contents.small());
    // Over HTTP/2 the client does not read what a tag means.
    let manifests = [image.digested(), image.tagged()];
    let manifests = if http2 { &manifests[..1] } else { &manifests };
    let mut bytes = 0;
    for (of, connections) in [(&blobs[..1], 1), (&blobs[1..2], 4), (&blobs[..2], 2), (manifests, 4)]
    {
        let ask = bench.load.get(site, of).connections(connections).each(2).hashed();
        bytes += if http2 { ask.http2() } else { ask }.run()?.bytes;
    }
    Ok(bytes)
}
