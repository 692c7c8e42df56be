//! When a scrub comes to which blob, and how fast it reads. Pure.

use std::{path::Path, time::Duration};

use serde::{Deserialize, Serialize};

use crate::oci::Digest;

/// The least and the most that is read in a second, in bytes. With the least, a large layer takes
/// minutes and no disk notices; a disk that is asked for more than the most has other work to do.
const SLOWEST: u64 = 8 * 1024 * 1024;
const FASTEST: u64 = 64 * 1024 * 1024;

/// How far a scrub has come, as it is remembered from one life to the next.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
pub struct Progress {
    /// The part of the interval that has passed; over 1 when the scrub is late.
    pub due: f64,
    /// The blob that was examined last.
    pub after: Option<Digest>,
}

impl Progress {
    /// Reads what was remembered. What cannot be read costs no more than beginning anew.
    pub fn read(path: &Path) -> Progress {
        let text = std::fs::read(path).unwrap_or_default();
        let read: Progress = serde_json::from_slice(&text).unwrap_or_default();
        if read.due.is_finite() && read.due >= 0.0 { read } else { Progress::default() }
    }

    /// That of the next pass, which makes good what this one was late; a whole interval at most.
    pub fn next(&self) -> Progress {
        Progress { due: (self.due - 1.0).clamp(0.0, 1.0), after: None }
    }

    /// Lets `time` of `interval` pass.
    pub fn pass(&mut self, time: Duration, interval: Duration) {
        self.due += time.as_secs_f64() / interval.as_secs_f64();
    }
}

/// When within an interval a blob has its turn: from 0 to 1, evenly over all blobs.
pub fn place(digest: &Digest) -> f64 {
    let first = digest.as_bytes().first_chunk().copied().unwrap_or_default();
    u64::from_be_bytes(first) as f64 / u64::MAX as f64
}

/// How much is read in a second, in bytes, where so much is held: twice what the interval asks for,
/// so that a scrub which was held up catches up.
pub fn pace(held: u64, interval: Duration) -> u64 {
    let needed = held.saturating_mul(2) / interval.as_secs().max(1);
    needed.clamp(SLOWEST, FASTEST)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::Algorithm;

    const DAY: Duration = Duration::from_secs(24 * 3600);

    #[test]
    fn the_pace_follows_from_what_is_held_within_bounds() {
        let table = [
            (0, 30 * DAY, SLOWEST),
            (100 << 30, 30 * DAY, SLOWEST),
            (20 << 40, 30 * DAY, (40 << 40) / (30 * 86400)),
            (1 << 40, DAY, (2 << 40) / 86400),
            (u64::MAX, DAY, FASTEST),
            (1 << 40, Duration::from_millis(1), FASTEST),
        ];
        for (held, interval, expected) in table {
            assert_eq!(pace(held, interval), expected, "{held} in {interval:?}");
        }
    }

    #[test]
    fn blobs_have_their_turns_evenly() {
        let digests = (0..1000u32).map(|n| Digest::of(Algorithm::Sha256, &n.to_le_bytes()));
        let early = digests.filter(|digest| place(digest) < 0.5).count();
        assert!((400..600).contains(&early), "{early}");
        let (first, last) = ([0; 32], [255; 64]);
        let first = Digest::from_bytes(Algorithm::Sha256, &first).unwrap();
        let last = Digest::from_bytes(Algorithm::Sha512, &last).unwrap();
        assert_eq!((place(&first), place(&last)), (0.0, 1.0));
    }

    #[test]
    fn progress_is_remembered_and_nonsense_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("scrub.json");
        assert_eq!(Progress::read(&path), Progress::default());
        let mut progress = Progress { due: 0.25, after: Some(Digest::of(Algorithm::Sha256, b"")) };
        progress.pass(3 * DAY, 12 * DAY);
        std::fs::write(&path, serde_json::to_vec(&progress).unwrap()).unwrap();
        assert_eq!(Progress::read(&path), progress);
        assert_eq!(progress.due, 0.5);
        for (due, next) in [(0.5, 0.0), (1.0, 0.0), (1.25, 0.25), (7.5, 1.0)] {
            let progress = Progress { due, ..progress.clone() };
            assert_eq!(progress.next(), Progress { due: next, after: None });
        }
        for nonsense in ["", "{", r#"{"due":-1}"#, r#"{"due":1e999}"#, r#"{"due":0,"after":"x"}"#] {
            std::fs::write(&path, nonsense).unwrap();
            assert_eq!(Progress::read(&path), Progress::default(), "{nonsense}");
        }
    }
}
