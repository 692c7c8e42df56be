//! What a thread saw.

use std::collections::BTreeMap;

use crate::histogram::Histogram;

/// Why an answer is none.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// The server took no connection, or none that speaks as it should.
    Connect,
    /// The connection broke, or ended before the answer did.
    Cut,
    /// Nothing came for too long.
    Stall,
    /// What came is no answer.
    Protocol,
    /// A status other than 2xx.
    Status,
    /// A body that is larger or smaller than it must be.
    Size,
    /// A body that has another digest, or one whose digest nobody tells.
    Digest,
}

/// Sums over answers.
#[derive(Default)]
pub struct Tally {
    /// Answers that are good and whole.
    pub answers: u64,
    /// Bytes of bodies, also of those that were not read to the end.
    pub bytes: u64,
    pub statuses: BTreeMap<u16, u64>,
    pub faults: BTreeMap<Fault, u64>,
    /// Connections opened in place of such as the server closed.
    pub reconnects: u64,
    /// From the request to the first byte of the body, or of the head where there is no body.
    pub first_byte: Histogram,
    /// From the request to the end of the answer.
    pub whole: Histogram,
    /// As `whole`, of manifests that somebody had got before they were asked for.
    pub manifest_hits: Histogram,
}

impl Tally {
    /// Counts a request that got no good answer.
    pub fn fault(&mut self, fault: Fault) {
        *self.faults.entry(fault).or_default() += 1;
    }

    /// Adds what another thread saw.
    pub fn merge(&mut self, other: Tally) {
        self.answers += other.answers;
        self.bytes += other.bytes;
        for (status, count) in other.statuses {
            *self.statuses.entry(status).or_default() += count;
        }
        for (fault, count) in other.faults {
            *self.faults.entry(fault).or_default() += count;
        }
        self.reconnects += other.reconnects;
        self.first_byte.merge(&other.first_byte);
        self.whole.merge(&other.whole);
        self.manifest_hits.merge(&other.manifest_hits);
    }
}
