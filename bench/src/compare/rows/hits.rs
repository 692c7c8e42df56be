//! What is in the cache, and in the page cache too.

use super::{Row, TIME};
use crate::{
    Failure,
    bench::{Line, Speech},
    figures::Measure,
    load::Ask,
    rivals::Rival,
    rounds::Turn,
};

const CACHES: &[Rival] = &[Rival::Larder, Rival::Nginx, Rival::NginxThreads];

/// Far behind.
const SLOW: &[Rival] = &[Rival::Distribution, Rival::Drayage];

pub const BLOBS: Row = Row {
    name: "blobs",
    title: "Blob hit",
    about: "One blob of 256 MiB again and again over connections that stay open, plain HTTP/1.1.",
    rivals: CACHES,
    once: SLOW,
    repeats: 3,
    absent: &[],
    measure: blobs,
};

pub const MANIFESTS: Row = Row {
    name: "manifests",
    title: "Manifest hit",
    about: "One manifest of some 400 bytes over 16 connections that stay open, plain HTTP/1.1. \
            `nginx-plain` is nginx without `open_file_cache`, as most people have it.",
    rivals: &[Rival::Larder, Rival::Nginx, Rival::NginxPlain, Rival::NginxThreads],
    once: SLOW,
    repeats: 3,
    absent: &[],
    measure: manifests,
};

/// Connections, throughput and its cost.
const OF_BLOBS: [(u32, Measure, Measure); 2] = [
    (
        1,
        Measure::new("1 connection", "MB/s").at_least_nginx(1.1),
        Measure::new("1 connection, processor time", "s/GB").at_most_nginx(1.0),
    ),
    (
        8,
        Measure::new("8 connections", "MB/s").at_least_nginx(1.1),
        Measure::new("8 connections, processor time", "s/GB").at_most_nginx(1.0),
    ),
];

/// How many ask for a manifest at the same time.
const CONNECTIONS: u32 = 16;

const GET_TAG: [Measure; 2] = of_manifests("GET by tag", "GET by tag, processor time");
const HEAD_TAG: [Measure; 2] = of_manifests("HEAD by tag", "HEAD by tag, processor time");
const GET_DIGEST: [Measure; 2] = of_manifests("GET by digest", "GET by digest, processor time");
const HEAD_DIGEST: [Measure; 2] = of_manifests("HEAD by digest", "HEAD by digest, processor time");

const fn of_manifests(rate: &'static str, cost: &'static str) -> [Measure; 2] {
    [Measure::new(rate, "/s").at_least_nginx(2.0), Measure::new(cost, "µs").at_most(15.0)]
}

fn blobs(turn: &mut Turn<'_>) -> Result<(), Failure> {
    let bench = turn.bench;
    let site = bench.start(turn.rival, Speech::Http, Line::Unlimited)?;
    let blob = [bench.contents.blob()];
    bench.load.get(&site, &blob).requests(1).run()?;
    site.settle();
    for (connections, rate, cost) in &OF_BLOBS {
        let report = bench.load.get(&site, &blob).connections(*connections).during(TIME).run()?;
        turn.found(rate, report.mb_per_second);
        turn.found(cost, report.usage()?.cpu_seconds_per_gb);
    }
    Ok(())
}

fn manifests(turn: &mut Turn<'_>) -> Result<(), Failure> {
    let bench = turn.bench;
    let site = bench.start(turn.rival, Speech::Http, Line::Unlimited)?;
    let image = bench.contents.small();
    let [tag, digest] = [image.tagged(), image.digested()];
    // A manifest comes with the image that it is of: its blobs are there, too.
    let all = [vec![tag.clone(), digest.clone(), image.config()], image.layers()].concat();
    bench.load.get(&site, &all).requests(all.len()).run()?;
    site.settle();
    let get = |path: &String| bench.load.get(&site, std::slice::from_ref(path));
    let head = |path: &String| bench.load.head(&site, path);
    let asks: [(Ask, [Measure; 2]); 4] = [
        (get(&tag), GET_TAG),
        (head(&tag), HEAD_TAG),
        (get(&digest), GET_DIGEST),
        (head(&digest), HEAD_DIGEST),
    ];
    for (ask, [rate, cost]) in asks {
        let report = ask.connections(CONNECTIONS).during(TIME).run()?;
        turn.found(&rate, report.requests_per_second);
        turn.found(&cost, report.usage()?.cpu_micros_per_request);
    }
    Ok(())
}
