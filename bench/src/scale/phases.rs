//! What is measured of the store by itself, each in a process of its own.

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use larder::{
    clock::Clock,
    config::{Config, Sources},
    metrics::Metrics,
    oci::{Digest, Repository, Tag},
    store::Store,
};
use tokio::runtime::Runtime;

use crate::{
    Failure,
    figures::{Figures, Latencies, Stopwatch, mebibytes, memory, seconds, size_of},
    images::{self, Images},
};

/// With [`Images::tops`] of 100,000 images, 20 million touches.
const ROUNDS: u32 = 20;

/// How long look-ups are made.
const LOOK_UP_TIME: Duration = Duration::from_secs(3);

/// Runs a phase and prints its figures.
pub fn run(name: &str, images: &Images, data_dir: &Path) -> Result<(), Failure> {
    let phase = match name {
        "files" => write_files,
        "build" => build,
        "look-ups" => look_up,
        "touches" => touch,
        "loss" => lose,
        _ => return Err(format!("there is no phase {name:?}").into()),
    };
    let mut figures = Figures::default();
    phase(*images, data_dir, &mut figures)?;
    figures.print();
    Ok(())
}

/// The blobs, by as many threads as there are processors.
fn write_files(images: Images, data_dir: &Path, figures: &mut Figures) -> Result<(), Failure> {
    let watch = Stopwatch::start();
    let blobs = data_dir.join("blobs/sha256");
    fs::create_dir_all(&blobs)?;
    let threads = threads();
    let write = |text: &str| fs::write(blobs.join(images::digest(text).encoded()), text);
    let part = |from: u32| -> std::io::Result<()> {
        for number in (from..images.count()).step_by(threads as usize) {
            write(&images.image(number).json)?;
            write(&Images::config(number))?;
            Images::own_layers(number).try_for_each(|layer| write(&layer))?;
            if number < images.shared_layers() {
                write(&Images::shared_layer(number))?;
            }
            if number < images.indexes() {
                write(&images.index(number).json)?;
            }
        }
        Ok(())
    };
    thread::scope(|scope| {
        let parts: Vec<_> = (0..threads).map(|from| scope.spawn(move || part(from))).collect();
        parts.into_iter().try_for_each(|part| part.join().expect("no panic"))
    })?;
    figures.add("making the files", watch.read());
    Ok(())
}

/// The index, made by the store as if all had been pulled through it.
fn build(images: Images, data_dir: &Path, figures: &mut Figures) -> Result<(), Failure> {
    let open = Open::at(data_dir)?;
    let watch = Stopwatch::start();
    open.wait_for(images.blobs());
    figures.add("all files found by a store without an index", watch.read());
    let now = open.clock.wall();
    for number in 0..images.count() {
        let image = images.image(number);
        open.store.prove_manifest(&image.repository, &image.digest);
        image.blobs.iter().for_each(|blob| open.store.prove_blob(&image.repository, blob));
    }
    for top in images.tops() {
        for tag in &top.tags {
            open.store.set_tag(&top.repository, tag, &top.digest, now);
        }
    }
    open.close();
    figures.add("until it was closed, its whole index written", watch.read());
    figures.add("peak memory of this", mebibytes(memory("self", "VmHWM")?));
    figures.add("fresh index on disk", mebibytes(size_of(&data_dir.join("index"))?));
    let layout = fs::metadata(data_dir.join("index.json"))?.len();
    figures.add("index.json", mebibytes(layout));
    Ok(())
}

/// Look-ups in the table, and what a sweep takes and costs them.
fn look_up(images: Images, data_dir: &Path, figures: &mut Figures) -> Result<(), Failure> {
    let open = Open::at(data_dir)?;
    let tops: Vec<_> = images.tops().step_by(7).collect();
    let tagged = |top: images::Manifest| Some((top.repository, top.tags.into_iter().next()?));
    let digests: Vec<Digest> = tops.iter().flat_map(|top| top.blobs.iter().cloned()).collect();
    let tags: Vec<(Repository, Tag)> = tops.into_iter().filter_map(tagged).collect();
    open.wait_for(images.blobs());

    figures.add("store look-ups, idle", open.look_ups(&digests, &tags));
    let stop = AtomicBool::new(false);
    let (read, times) = thread::scope(|scope| {
        let sweeps = scope.spawn(|| open.sweep_until(&stop));
        let read = open.look_ups(&digests, &tags);
        stop.store(true, Ordering::Relaxed);
        (read, sweeps.join().expect("no panic"))
    });
    figures.add("store look-ups, sweeping", read);
    let longest = times.iter().max().copied().unwrap_or_default();
    figures.add("sweep, nothing expired", seconds(longest));
    Ok(())
}

/// Everything used once an hour, and each time remembered.
fn touch(images: Images, data_dir: &Path, figures: &mut Figures) -> Result<(), Failure> {
    let fresh = size_of(&data_dir.join("index"))?;
    let tops: Vec<Digest> = images.tops().map(|top| top.digest).collect();
    let watch = Stopwatch::start();
    let mut largest = 0;
    for _ in 0..ROUNDS {
        let open = Open::at(data_dir)?;
        open.clock.advance(Duration::from_secs(3601));
        tops.iter().for_each(|top| open.store.touch(top));
        open.close();
        largest = largest.max(size_of(&data_dir.join("index"))?);
    }
    let touches = images.blobs() * u64::from(ROUNDS);
    figures.add(&format!("{ROUNDS} lives with {touches} touches in all"), watch.read());
    let times = |size: u64| format!("{} ({:.2} ×)", mebibytes(size), size as f64 / fresh as f64);
    figures.add("index on disk after them", times(size_of(&data_dir.join("index"))?));
    figures.add("index on disk between them, at most", times(largest));
    Ok(())
}

/// The index is gone: serving at once, everything found again, everything written.
fn lose(images: Images, data_dir: &Path, figures: &mut Figures) -> Result<(), Failure> {
    fs::remove_dir_all(data_dir.join("index"))?;
    let watch = Stopwatch::start();
    let open = Open::at(data_dir)?;
    figures.add("index lost: open after", watch.read());
    open.wait_for(images.blobs());
    figures.add("index lost: all found after", watch.read());
    open.close();
    figures.add("index lost: all written after", watch.read());
    Ok(())
}

/// A store that is open, with what it needs.
struct Open {
    store: Store,
    clock: Clock,
    metrics: Arc<Metrics>,
    runtime: Runtime,
}

impl Open {
    fn at(data_dir: &Path) -> Result<Open, Failure> {
        let flags = BTreeMap::from([("data_dir", data_dir.display().to_string())]);
        let cache = Config::load(&Sources { flags, ..Sources::default() })?.cache;
        let (clock, metrics) = (Clock::system(), Arc::new(Metrics::new()));
        let store = Store::open(data_dir, &cache, clock.clone(), Arc::clone(&metrics))?;
        Ok(Open { store, clock, metrics, runtime: Runtime::new()? })
    }

    fn close(self) {
        self.runtime.block_on(self.store.close());
    }

    /// Until so many blobs are known.
    fn wait_for(&self, blobs: u64) {
        while self.metrics.store_blobs.get() < blobs as i64 {
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// One thread for each processor looks up digests and tags in turn.
    fn look_ups(&self, digests: &[Digest], tags: &[(Repository, Tag)]) -> String {
        let began = Instant::now();
        let some = || {
            let mut latencies = Latencies::default();
            while began.elapsed() < LOOK_UP_TIME {
                let digest = &digests[fastrand::usize(..digests.len())];
                assert!(latencies.time(|| self.store.has(digest)), "{digest} is there");
                let (repository, tag) = &tags[fastrand::usize(..tags.len())];
                let meaning = latencies.time(|| self.store.tag(repository, tag));
                assert!(meaning.is_some(), "{repository}:{tag} means something");
            }
            latencies
        };
        let all = thread::scope(|scope| {
            let threads: Vec<_> = (0..threads()).map(|_| scope.spawn(some)).collect();
            threads.into_iter().fold(Latencies::default(), |mut all, thread| {
                all.extend(thread.join().expect("no panic"));
                all
            })
        });
        all.read(began.elapsed())
    }

    fn sweep_until(&self, stop: &AtomicBool) -> Vec<Duration> {
        let mut times = Vec::new();
        while !stop.load(Ordering::Relaxed) {
            let began = Instant::now();
            self.runtime.block_on(self.store.begin_sweep().run(&[])).expect("a sweep succeeds");
            times.push(began.elapsed());
        }
        times
    }
}

fn threads() -> u32 {
    thread::available_parallelism().map_or(1, |count| count.get() as u32)
}
