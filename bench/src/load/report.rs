//! The line of JSON.

use std::{collections::BTreeMap, time::Duration};

use rustix::time::{ClockId, clock_gettime};
use serde::Serialize;

use crate::{
    Failure,
    histogram::Percentiles,
    processes::Usage,
    tally::{Fault, Tally},
};

/// What a run found; times are in milliseconds, MB is 10^6 bytes.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Good and whole answers.
    pub requests: u64,
    /// Bytes of bodies.
    pub bytes: u64,
    pub seconds: f64,
    pub mb_per_second: f64,
    pub requests_per_second: f64,
    /// Requests without a good answer, and of which kind.
    pub errors: u64,
    pub faults: BTreeMap<Fault, u64>,
    pub statuses: BTreeMap<u16, u64>,
    pub reconnects: u64,
    pub first_byte_ms: Option<Percentiles>,
    pub answer_ms: Option<Percentiles>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub manifest_hits: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub manifest_hit_ms: Option<Percentiles>,
    /// Processor time of this program.
    pub client_cpu_seconds: f64,
    pub server: Option<Usage>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pulls_per_second: Option<f64>,
}

impl Report {
    /// What is to be told of a run.
    pub fn new(tally: &Tally, time: Duration, client: Duration, server: Option<Usage>) -> Report {
        let seconds = time.as_secs_f64();
        let manifest_hits = tally.manifest_hits.total();
        Report {
            requests: tally.answers,
            bytes: tally.bytes,
            seconds,
            mb_per_second: tally.bytes as f64 / 1e6 / seconds,
            requests_per_second: tally.answers as f64 / seconds,
            errors: tally.faults.values().sum(),
            faults: tally.faults.clone(),
            statuses: tally.statuses.clone(),
            reconnects: tally.reconnects,
            first_byte_ms: tally.first_byte.percentiles(),
            answer_ms: tally.whole.percentiles(),
            manifest_hits: (manifest_hits > 0).then_some(manifest_hits),
            manifest_hit_ms: tally.manifest_hits.percentiles(),
            client_cpu_seconds: client.as_secs_f64(),
            server,
            pulls_per_second: None,
        }
    }

    /// Prints it. An error where a request got no good answer, so that scripts notice.
    pub fn print(&self) -> Result<(), Failure> {
        println!("{}", serde_json::to_string(self)?);
        if self.errors > 0 {
            return Err(format!("{} requests got no good answer", self.errors).into());
        }
        Ok(())
    }
}

/// Processor time of this process so far.
pub fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or_default())
}
