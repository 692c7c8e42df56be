//! A run from its arguments to its line of JSON.

use std::{
    fs, iter,
    sync::{Arc, Barrier, atomic::AtomicU64},
    thread,
    time::{Duration, Instant},
};

use crate::{
    Failure,
    exchange::Checks,
    options::{Ask, Order, Run},
    processes::Watch,
    report::{Report, processor_time},
    tally::Tally,
    tls,
    worker::{Rules, Worker},
    workload::{Method, Server, Turns, Workload, split},
};

/// Does what `get` and `head` are for.
pub fn ask(method: Method, ask: &Ask) -> Result<(), Failure> {
    measure(method, ask)?.print()
}

/// What these URLs were answered with.
pub fn measure(method: Method, ask: &Ask) -> Result<Report, Failure> {
    let mut urls = ask.urls.clone();
    if let Some(list) = &ask.list {
        urls.extend(fs::read_to_string(list)?.lines().map(str::to_owned));
    }
    let first = urls.first().ok_or("no URLs")?;
    let server = Server::new(first, ask.run.http2, &ask.run.headers)?;
    let (origin, _) = split(first)?;
    let requests = urls.iter().map(|url| match split(url)? {
        (other, path) if other == origin => Ok(server.request(method, path)),
        (other, _) => Err(Failure::from(format!("{other} is not {origin}"))),
    });
    let requests = requests.collect::<Result<Vec<_>, _>>()?;
    let workload = Workload {
        requests,
        server,
        total: ask.until.requests.unwrap_or(u64::MAX),
        each: ask.until.each.unwrap_or(u64::MAX),
        started: AtomicU64::new(0),
    };
    let turns = (0..ask.connections as u64).map(|connection| match ask.order {
        Order::List => Turns::List,
        Order::Random => Turns::Random(fastrand::Rng::with_seed(ask.seed + connection)),
    });
    let checks = Checks { sha256: ask.run.sha256, bytes: ask.expect_bytes };
    run(workload, turns.collect(), checks, ask.until.duration, &ask.run)
}

/// Runs a workload, with a connection for each order.
pub fn run(
    workload: Workload,
    turns: Vec<Turns>,
    checks: Checks,
    duration: Option<Duration>,
    run: &Run,
) -> Result<Report, Failure> {
    let tls = match &run.ca {
        Some(ca) if workload.server.tls => Some(tls::config(ca, run.http2)?),
        None if workload.server.tls => return Err("https needs --ca".into()),
        _ => None,
    };
    let threads = run.threads.clamp(1, turns.len().max(1));
    let barrier = Barrier::new(threads + 1);
    let rules = Arc::new(Rules { workload, checks, duration, stall: run.stall, tls, barrier });
    let workers: Vec<_> = deal(turns, threads)
        .into_iter()
        .map(|turns| {
            let rules = rules.clone();
            thread::spawn(move || Worker::run(&rules, turns))
        })
        .collect();

    rules.barrier.wait();
    let (watch, cpu) = (Watch::start(&run.pids)?, processor_time());
    let began = Instant::now();
    rules.barrier.wait();
    let mut tally = Tally::default();
    for worker in workers {
        tally.merge(worker.join().map_err(|_| "a thread panicked")??);
    }
    let (time, cpu) = (began.elapsed(), processor_time().saturating_sub(cpu));
    let server = watch.map(|watch| watch.read(&tally)).transpose()?;
    Ok(Report::new(&tally, time, cpu, server))
}

/// Deals connections out to threads, one after the other.
fn deal(turns: Vec<Turns>, threads: usize) -> Vec<Vec<Turns>> {
    let mut hands: Vec<Vec<Turns>> = iter::repeat_with(Vec::new).take(threads).collect();
    for (index, turn) in turns.into_iter().enumerate() {
        hands[index % threads].push(turn);
    }
    hands
}
