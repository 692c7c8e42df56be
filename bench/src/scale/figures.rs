//! What was measured, in the order in which it was.

use std::time::{Duration, Instant};

use rustix::fs::{Advice, fadvise};

use crate::Failure;

/// Figures, each with what it is of.
#[derive(Debug, Default)]
pub struct Figures(Vec<(String, String)>);

/// Wall and processor time since a moment.
pub struct Stopwatch {
    began: Instant,
    processor: Duration,
}

/// How long each of many calls took.
#[derive(Default)]
pub struct Latencies(Vec<u32>);

impl Figures {
    /// Adds a figure, and tells it to whoever watches.
    pub fn add(&mut self, of: &str, value: impl Into<String>) {
        let value = value.into();
        eprintln!("   {of}: {value}");
        self.0.push((of.to_owned(), value));
    }

    /// Adds those that were taken after these.
    pub fn extend(&mut self, later: Figures) {
        self.0.extend(later.0);
    }

    /// For another process, as [`Figures::read`] takes them.
    pub fn print(&self) {
        for (of, value) in &self.0 {
            println!("{of}\t{value}");
        }
    }

    /// Adds a figure from a line of [`Figures::print`].
    pub fn read(&mut self, line: &str) -> Result<(), Failure> {
        let (of, value) = line.split_once('\t').ok_or("a line without a figure")?;
        self.0.push((of.to_owned(), value.to_owned()));
        Ok(())
    }

    /// Each with what it is of.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(of, value)| (of.as_str(), value.as_str()))
    }
}

impl Stopwatch {
    /// Begins now.
    pub fn start() -> Stopwatch {
        Stopwatch { began: Instant::now(), processor: processor_time() }
    }

    /// As a figure: the wall time, and the processor time of all threads of this process.
    pub fn read(&self) -> String {
        let processor = processor_time().saturating_sub(self.processor);
        format!("{} ({} of processor)", seconds(self.began.elapsed()), seconds(processor))
    }
}

impl Latencies {
    /// Makes a call and notes how long it took.
    pub fn time<T>(&mut self, call: impl FnOnce() -> T) -> T {
        let began = Instant::now();
        let result = call();
        self.0.push(u32::try_from(began.elapsed().as_nanos()).unwrap_or(u32::MAX));
        result
    }

    /// Adds those of another thread.
    pub fn extend(&mut self, other: Latencies) {
        self.0.extend(other.0);
    }

    /// As a figure: calls per second of `time`, the 99th percentile and the longest.
    pub fn read(mut self, time: Duration) -> String {
        let rate = self.0.len() as f64 / time.as_secs_f64();
        self.0.sort_unstable();
        let p99 = self.0.get(self.0.len() * 99 / 100).copied().unwrap_or_default();
        let longest = self.0.last().copied().unwrap_or_default();
        let [p99, longest] = [p99, longest].map(|nanos| micros(Duration::from_nanos(nanos.into())));
        format!("{rate:.0}/s, p99 {p99}, longest {longest}")
    }
}

/// A time as a figure.
pub fn seconds(time: Duration) -> String {
    format!("{:.2} s", time.as_secs_f64())
}

/// A size as a figure.
pub fn mebibytes(bytes: u64) -> String {
    format!("{:.0} MiB", bytes as f64 / f64::from(1 << 20))
}

/// Bytes below a directory.
pub fn size_of(directory: &std::path::Path) -> std::io::Result<u64> {
    let mut total = 0;
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        total += if metadata.is_dir() { size_of(&entry.path())? } else { metadata.len() };
    }
    Ok(total)
}

/// Lets a file, or the files below a directory, leave the page cache.
pub fn make_cold(path: &std::path::Path) -> std::io::Result<()> {
    if path.is_dir() {
        return std::fs::read_dir(path)?.try_for_each(|entry| make_cold(&entry?.path()));
    }
    let file = std::fs::File::open(path)?;
    file.sync_all()?;
    fadvise(&file, 0, None, Advice::DontNeed)?;
    Ok(())
}

/// A line of `/proc/<process>/status` that is in kB, in bytes; `process` may be `self`.
pub fn memory(process: &str, line: &str) -> std::io::Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status"))?;
    let value = status.lines().find_map(|text| text.strip_prefix(line)?.strip_prefix(':'));
    let value = value.and_then(|value| value.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    Ok(value.unwrap_or_default() * 1024)
}

fn micros(time: Duration) -> String {
    match time.as_nanos() {
        nanos if nanos < 10_000_000 => format!("{:.1} µs", nanos as f64 / 1e3),
        nanos => format!("{:.1} ms", nanos as f64 / 1e6),
    }
}

/// User and system time of this process so far.
fn processor_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}
