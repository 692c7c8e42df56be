//! How long a sweep takes, and what it costs those who look things up meanwhile, with a million blobs.
//!
//! `cargo test --release --lib scale -- --ignored --nocapture`

use std::{
    fmt::Write as _,
    sync::atomic::{AtomicBool, Ordering},
};

use super::*;
use crate::store::{
    budget::Goal,
    eviction::Selection,
    memory::{Memory, STEP},
    running::{Moment, RunningTime},
    table::{Cursor, Keeping, Pointer, PointerRow, Table, Target},
};

const MANIFESTS: u32 = 100_000;
const LAYERS: u32 = 9;

/// How long is looked up what a hit of a manifest needs.
const LOOKING: Duration = Duration::from_secs(5);

fn digest(manifest: u32, layer: u32) -> Digest {
    sha256(format!("{manifest} {layer}").as_bytes())
}

/// Each manifest with a config and layers of its own.
fn table() -> Table {
    let mut table = Table::default();
    for number in 0..MANIFESTS {
        let now = Moment::from_seconds(number);
        let mut layers = String::new();
        for layer in 1..LAYERS {
            let separator = if layer > 1 { "," } else { "" };
            write!(layers, "{separator}{}", descriptor(&digest(number, layer))).unwrap();
        }
        let config = descriptor(&digest(number, 0));
        let json = format!(r#"{{"schemaVersion":2,"config":{config},"layers":[{layers}]}}"#);
        let manifest = Manifest::parse(json.as_bytes(), None).unwrap();
        table.put_manifest(&sha256(json.as_bytes()), 1000, &manifest, now);
        for layer in 0..LAYERS {
            table.put_blob(&digest(number, layer), 1_000_000, now);
        }
    }
    table
}

#[test]
#[ignore = "a measurement"]
fn selecting_from_a_million_blobs() {
    let table = table();
    let totals = table.totals();
    let held = totals.blocks * 4096;
    let goals = [("nothing to do", 0), ("a tenth", held / 10), ("half", held / 2), ("all", held)];
    for (what, size) in goals {
        let goal = Goal { size, ..Goal::default() };
        let mut selection = Selection::new(goal, Some(90 * DAY));
        let (begun, mut longest) = (Instant::now(), Duration::ZERO);
        let (keeping, now) = (Keeping::default(), Moment::from_seconds(MANIFESTS));
        for from in (0..).step_by(STEP) {
            let step = Instant::now();
            let more = table.consider(from, STEP, &keeping, now, &mut selection);
            longest = longest.max(step.elapsed());
            if !more {
                break;
            }
        }
        let looked = begun.elapsed();
        let victims = selection.finish();
        println!(
            "{} blobs, {what}: {} go; looked for {looked:?}, in steps of at most {longest:?}, decided after {:?}",
            totals.blobs,
            victims.len(),
            begun.elapsed(),
        );
    }
}

#[test]
#[ignore = "a measurement"]
fn forgetting_every_tag_of_a_large_repository() {
    let (mut table, app, now) = (Table::default(), repository(APP), Moment::from_seconds(0));
    let manifest = Manifest::parse(br#"{"schemaVersion":2,"manifests":[]}"#, None).unwrap();
    let digests: Vec<_> = (0..50_000).map(|number| digest(number, 0)).collect();
    for (number, digest) in digests.iter().enumerate() {
        table.put_manifest(digest, 1000, &manifest, now);
        let row = PointerRow { digest: digest.clone(), checked_at: SystemTime::UNIX_EPOCH };
        table.point(&app, &Pointer::Tag(tag(&format!("v{number}"))), &row, now);
    }
    let begun = Instant::now();
    let named = digests.iter().filter(|digest| table.names_of(digest).len() == 1).count();
    println!("{named} were named after {:?}", begun.elapsed());
    let begun = Instant::now();
    let (mut seeds, mut place, mut longest) = (0, Cursor::default(), Duration::ZERO);
    let mut step = Instant::now();
    while let Some((some, next)) = table.seeds(&Target::Repository(app.clone()), &place, STEP) {
        longest = longest.max(step.elapsed());
        seeds += some.len();
        (place, step) = (next, Instant::now());
    }
    println!("{seeds} begin a removal: {:?}, in steps of at most {longest:?}", begun.elapsed());
    let (begun, mut longest) = (Instant::now(), Duration::ZERO);
    for digest in &digests {
        let step = Instant::now();
        table.forget(digest);
        longest = longest.max(step.elapsed());
    }
    println!("forgotten after {:?}, in steps of at most {longest:?}", begun.elapsed());
}

#[test]
#[ignore = "a measurement"]
fn looking_up_while_sweeps_walk() {
    let (mut table, app, now) = (table(), repository(APP), Moment::from_seconds(MANIFESTS));
    let tags: Vec<_> = (0..1000).map(|number| Pointer::Tag(tag(&format!("v{number}")))).collect();
    let images = (0..MANIFESTS).step_by(100).map(|number| digest(number, 0));
    for (pointer, digest) in tags.iter().zip(images) {
        let row = PointerRow { digest, checked_at: SystemTime::UNIX_EPOCH };
        table.point(&app, pointer, &row, now);
    }
    let memory = Memory::new(table, Arc::new(Metrics::new()));
    let running = RunningTime::resume(now, Clock::system());
    let hit = |pointer: &Pointer| {
        let found = memory.look(|table| table.meaning(&app, pointer)).unwrap();
        assert!(memory.look(|table| table.size(&found.digest)).is_some());
        memory.look(|table| table.touch(&found.digest, running.now()))
    };
    for sweeps in [false, true] {
        let over = AtomicBool::new(false);
        let sweep_on = || {
            let mut count = 0;
            while sweeps && !over.load(Ordering::Relaxed) {
                walk(&memory, now);
                count += 1;
            }
            count
        };
        thread::scope(|scope| {
            let swept = scope.spawn(sweep_on);
            let (begun, mut times) = (Instant::now(), Vec::new());
            for pointer in tags.iter().cycle().take_while(|_| begun.elapsed() < LOOKING) {
                let one = Instant::now();
                hit(pointer);
                times.push(one.elapsed());
            }
            over.store(true, Ordering::Relaxed);
            times.sort_unstable();
            let (hits, most) = (times.len(), times[times.len() / 100 * 99]);
            let (longest, swept) = (times.last().unwrap(), swept.join().unwrap());
            println!(
                "{hits} hits in {LOOKING:?}, p99 {most:?}, at most {longest:?}, beside {swept} sweeps"
            );
        });
    }
}

/// As a sweep that finds little to do.
fn walk(memory: &Memory, now: Moment) {
    let goal = Goal { size: 1 << 30, ..Goal::default() };
    let (keeping, mut selection) = (Keeping::default(), Selection::new(goal, Some(90 * DAY)));
    let mut step =
        |from| memory.look(|table| table.consider(from, STEP, &keeping, now, &mut selection));
    for from in (0..).step_by(STEP) {
        if !step(from) {
            break;
        }
    }
    assert!(!selection.finish().is_empty());
}
