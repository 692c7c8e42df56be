//! Times, kept in as much memory for a thousand as for a billion.

use std::time::Duration;

use serde::Serialize;

/// Each doubling of a time is divided into so many steps, as a power of two: an error below 1 %.
const STEPS: u32 = 7;

/// Buckets for every number of nanoseconds that 64 bits can hold.
const BUCKETS: usize = ((64 - STEPS as usize) + 1) << STEPS;

/// How often each time was seen.
#[derive(Clone)]
pub struct Histogram {
    counts: Vec<u64>,
    total: u64,
    /// In nanoseconds.
    longest: u64,
}

/// What is told of times, in milliseconds.
#[derive(Debug, Serialize)]
pub struct Percentiles {
    pub p50: f64,
    pub p90: f64,
    pub p99: f64,
    pub max: f64,
}

impl Default for Histogram {
    fn default() -> Histogram {
        Histogram { counts: vec![0; BUCKETS], total: 0, longest: 0 }
    }
}

impl Histogram {
    /// Counts a time.
    pub fn add(&mut self, time: Duration) {
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.counts[bucket(nanos)] += 1;
        self.total += 1;
        self.longest = self.longest.max(nanos);
    }

    /// Counts what another one did.
    pub fn merge(&mut self, other: &Histogram) {
        for (count, more) in self.counts.iter_mut().zip(&other.counts) {
            *count += more;
        }
        self.total += other.total;
        self.longest = self.longest.max(other.longest);
    }

    /// How many times were counted.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// The percentiles. `None`: nothing was counted.
    pub fn percentiles(&self) -> Option<Percentiles> {
        (self.total > 0).then(|| Percentiles {
            p50: self.at(0.50),
            p90: self.at(0.90),
            p99: self.at(0.99),
            max: milliseconds(self.longest),
        })
    }

    /// The time that this part of all did not exceed.
    fn at(&self, part: f64) -> f64 {
        let rank = (part * self.total as f64).ceil() as u64;
        let mut seen = 0;
        let found = self.counts.iter().position(|count| {
            seen += count;
            seen >= rank
        });
        milliseconds(found.map_or(self.longest, |bucket| upper(bucket).min(self.longest)))
    }
}

fn milliseconds(nanos: u64) -> f64 {
    (nanos as f64 / 1e3).round() / 1e3
}

/// Numbers below two times the steps have a bucket each; further up a bucket holds those that
/// agree in their first bits.
fn bucket(nanos: u64) -> usize {
    let shift = nanos.checked_ilog2().unwrap_or(0).saturating_sub(STEPS);
    ((shift as usize) << STEPS) + (nanos >> shift) as usize
}

/// The largest number in a bucket.
fn upper(bucket: usize) -> u64 {
    let shift = (bucket >> STEPS).saturating_sub(1);
    let first_bits = (bucket - (shift << STEPS)) as u128;
    u64::try_from(((first_bits + 1) << shift) - 1).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{BUCKETS, Histogram, bucket, upper};

    #[test]
    fn a_bucket_is_within_one_per_cent_of_what_it_holds() {
        for nanos in (0..64).flat_map(|bit| [1 << bit, (1 << bit) + 1, u64::MAX >> (63 - bit)]) {
            let upper = upper(bucket(nanos));
            assert!(upper >= nanos && upper - nanos <= nanos / 100, "{nanos}: {upper}");
        }
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn percentiles_are_those_of_all_threads() {
        let (mut even, mut odd) = (Histogram::default(), Histogram::default());
        for millis in 1..=1000 {
            let one = if millis % 2 == 0 { &mut even } else { &mut odd };
            one.add(Duration::from_millis(millis));
        }
        even.merge(&odd);
        let told = even.percentiles().unwrap();
        for (value, expected) in [(told.p50, 500.0), (told.p90, 900.0), (told.p99, 990.0)] {
            assert!((value - expected).abs() <= expected / 100.0, "{value}, not {expected}");
        }
        assert_eq!(told.max, 1000.0);
        assert!(Histogram::default().percentiles().is_none());
    }
}
