//! What servers use: processor time and memory of processes and all their children, from /proc.

use std::{collections::BTreeSet, fs, time::Duration};

use serde::Serialize;

use crate::{Failure, tally::Tally};

/// The unit of times in /proc, in milliseconds: USER_HZ is 100 on every Linux that x86 and Arm run.
const TICK: u64 = 10;

/// Processes under watch.
pub struct Watch {
    pids: Vec<u32>,
    ticks: u64,
}

/// What they used since.
#[derive(Debug, Serialize)]
pub struct Usage {
    pub cpu_seconds: f64,
    /// By 10^9 bytes of bodies.
    pub cpu_seconds_per_gb: f64,
    /// By good answer.
    pub cpu_micros_per_request: f64,
    /// The sum of the most that each process had at any time.
    pub peak_rss_mib: f64,
}

impl Watch {
    /// Begins, with a peak of memory that begins here too. `None`: there is nothing to watch.
    pub fn start(pids: &[u32]) -> Result<Option<Watch>, Failure> {
        if pids.is_empty() {
            return Ok(None);
        }
        for pid in family(pids) {
            // Another user's process keeps its old peak, which then says too much, never too little.
            let _ = fs::write(format!("/proc/{pid}/clear_refs"), "5");
        }
        Ok(Some(Watch { pids: pids.to_vec(), ticks: ticks(pids)? }))
    }

    /// What was used until now for what was answered.
    pub fn read(&self, tally: &Tally) -> Result<Usage, Failure> {
        let used = Duration::from_millis(ticks(&self.pids)?.saturating_sub(self.ticks) * TICK);
        let cpu_seconds = used.as_secs_f64();
        let peaks: u64 = family(&self.pids).into_iter().map(peak).sum();
        Ok(Usage {
            cpu_seconds,
            cpu_seconds_per_gb: cpu_seconds * 1e9 / tally.bytes.max(1) as f64,
            cpu_micros_per_request: cpu_seconds * 1e6 / tally.answers.max(1) as f64,
            peak_rss_mib: peaks as f64 / 1024.0,
        })
    }
}

/// These processes and all that descend from them.
fn family(pids: &[u32]) -> BTreeSet<u32> {
    let mut found = BTreeSet::new();
    let mut open = pids.to_vec();
    while let Some(pid) = open.pop() {
        if found.insert(pid) {
            open.extend(children(pid));
        }
    }
    found
}

/// The children of all threads of a process.
fn children(pid: u32) -> Vec<u32> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let lists =
        threads.filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok());
    lists
        .flat_map(|list| list.split_whitespace().flat_map(str::parse).collect::<Vec<_>>())
        .collect()
}

/// Processor time of a family, also of those members that ended and were waited for.
fn ticks(pids: &[u32]) -> Result<u64, Failure> {
    let gone = pids.iter().find(|pid| process_ticks(**pid).is_none());
    if let Some(pid) = gone {
        return Err(format!("there is no process {pid}").into());
    }
    Ok(family(pids).into_iter().filter_map(process_ticks).sum())
}

/// The fields utime, stime, cutime and cstime of proc_pid_stat(5).
fn process_ticks(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, after_name) = stat.rsplit_once(')')?;
    let times = after_name.split_whitespace().skip(11).take(4);
    Some(times.filter_map(|time| time.parse::<u64>().ok()).sum())
}

/// The most resident memory a process had, in KiB.
fn peak(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let value = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.strip_suffix("kB"));
    value.and_then(|value| value.trim().parse().ok()).unwrap_or_default()
}
