//! What else the machine had to do: figures are worth little beside a compiler.

use std::{
    fs, io,
    thread::available_parallelism,
    time::{Duration, Instant},
};

/// USER_HZ, which is 100 on every Linux that x86 and Arm run.
const TICKS_PER_SECOND: f64 = 100.0;

/// A watch that began.
pub struct Neighbours {
    began: Instant,
    ticks: u64,
}

impl Neighbours {
    /// Begins. Children that are to count as our own are started from here on.
    pub fn watch() -> io::Result<Neighbours> {
        Ok(Neighbours { began: Instant::now(), ticks: foreign_ticks()? })
    }

    /// The part of all processors that neither this process used since nor its children did, all
    /// of which have ended.
    pub fn share(&self) -> io::Result<f64> {
        let used = foreign_ticks()?.saturating_sub(self.ticks) as f64 / TICKS_PER_SECOND;
        let all = self.began.elapsed().max(Duration::from_millis(1)).as_secs_f64();
        Ok(used / all / available_parallelism()?.get() as f64)
    }
}

/// What everybody used (proc_stat(5): all but idle and iowait, the fourth and fifth field) less what
/// we and our ended children did (proc_pid_stat(5), fields 14 to 17).
fn foreign_ticks() -> io::Result<u64> {
    let all = fs::read_to_string("/proc/stat")?;
    let all = all.lines().next().unwrap_or_default().split_whitespace().skip(1).take(8);
    let used = all.enumerate().filter(|(field, _)| ![3, 4].contains(field));
    let used: u64 = used.filter_map(|(_, ticks)| ticks.parse::<u64>().ok()).sum();
    let own = fs::read_to_string("/proc/self/stat")?;
    let own = own.rsplit_once(')').map_or("", |(_, fields)| fields);
    let own = own.split_whitespace().skip(11).take(4);
    let own: u64 = own.filter_map(|ticks| ticks.parse::<u64>().ok()).sum();
    Ok(used.saturating_sub(own))
}
