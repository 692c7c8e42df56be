//! One request and what came of it.

use std::{sync::atomic::Ordering, time::Instant};

use sha2::{Digest as _, Sha256};

use crate::{
    tally::{Fault, Tally},
    workload::{Method, Request, Sum},
};

/// What is asked of every answer.
#[derive(Clone, Copy, Debug)]
pub struct Checks {
    /// Hash the bodies.
    pub sha256: bool,
    /// The size that every body must have.
    pub bytes: Option<u64>,
}

/// An answer as far as it came.
pub struct Exchange {
    /// Which of the workload's requests was sent.
    pub request: usize,
    pub method: Method,
    pub started: Instant,
    /// Whether the request had got a good answer before it was sent.
    pub repeated: bool,
    /// When the first byte of the body was there.
    pub first: Option<Instant>,
    /// Once the head is there.
    pub status: Option<u16>,
    /// Whether the connection ends with the answer.
    pub closes: bool,
    /// The digest that the head tells.
    pub told: Option<Sum>,
    /// Bytes of the body.
    pub bytes: u64,
    hash: Option<Sha256>,
}

impl Exchange {
    /// A request that is sent now.
    pub fn new(index: usize, request: &Request, checks: Checks, started: Instant) -> Exchange {
        Exchange {
            request: index,
            method: request.method,
            started,
            repeated: request.answered.load(Ordering::Relaxed),
            first: None,
            status: None,
            closes: false,
            told: None,
            bytes: 0,
            hash: (checks.sha256 && request.method == Method::Get).then(Sha256::new),
        }
    }

    /// Whether user space must see the body.
    pub fn is_hashed(&self) -> bool {
        self.hash.is_some()
    }

    /// Takes a piece of the body.
    pub fn body(&mut self, piece: &[u8]) {
        self.bytes += piece.len() as u64;
        if let Some(hash) = &mut self.hash {
            hash.update(piece);
        }
    }

    /// Counts a piece of the body that nobody saw.
    pub fn skipped(&mut self, bytes: u64) {
        self.bytes += bytes;
    }

    /// Judges the whole answer and counts it.
    pub fn finish(self, request: &Request, checks: Checks, now: Instant, tally: &mut Tally) {
        let whole = now.saturating_duration_since(self.started);
        let first = self.first.unwrap_or(now).saturating_duration_since(self.started);
        let repeated = self.repeated;
        tally.bytes += self.bytes;
        *tally.statuses.entry(self.status.unwrap_or_default()).or_default() += 1;
        if let Err(fault) = self.judge(request, checks) {
            return tally.fault(fault);
        }
        tally.answers += 1;
        tally.first_byte.add(first);
        tally.whole.add(whole);
        if request.of_manifest {
            if repeated {
                tally.manifest_hits.add(whole);
            }
            request.answered.store(true, Ordering::Relaxed);
        }
    }

    fn judge(self, request: &Request, checks: Checks) -> Result<(), Fault> {
        if !self.status.is_some_and(|status| (200..300).contains(&status)) {
            return Err(Fault::Status);
        }
        if self.method == Method::Get && checks.bytes.is_some_and(|bytes| bytes != self.bytes) {
            return Err(Fault::Size);
        }
        let Some(hash) = self.hash else { return Ok(()) };
        let sum: Sum = hash.finalize().into();
        if request.sum.or(self.told) == Some(sum) { Ok(()) } else { Err(Fault::Digest) }
    }
}
