//! The rows: what is measured, of whom, and how.

mod bytes;
mod disk;
mod fill;
mod herd;
mod hits;
mod idle;
mod image;
mod nodes;
mod relay;
mod tls;

use std::time::Duration;

use crate::{Failure, rivals::Rival, rounds::Turn};

/// How long whatever has no end of its own is measured.
const TIME: Duration = Duration::from_millis(700);

/// One measurement, with figures of its own.
pub struct Row {
    /// On the command line.
    pub name: &'static str,
    /// Above its table.
    pub title: &'static str,
    /// How it is measured, in a sentence or two.
    pub about: &'static str,
    /// Of whom in every round.
    pub rivals: &'static [Rival],
    /// Of whom in the first round only, because it takes them long and is of no goal.
    pub once: &'static [Rival],
    /// How often in every round: what takes little time is of little worth alone.
    pub repeats: usize,
    /// Of whom not, and why.
    pub absent: &'static [(Rival, &'static str)],
    /// Measures the rival whose turn it is.
    pub measure: fn(&mut Turn<'_>) -> Result<(), Failure>,
}

/// In the order of the report.
pub const ALL: [&Row; 12] = [
    &bytes::ROW,
    &hits::BLOBS,
    &hits::MANIFESTS,
    &tls::ROW,
    &fill::ROW,
    &herd::SMALL,
    &herd::LARGE,
    &disk::ROW,
    &image::ROW,
    &relay::ROW,
    &idle::ROW,
    &nodes::ROW,
];

impl Row {
    /// Those of these rivals that it is measured of in a round.
    pub fn rivals_of(&self, round: usize, rivals: &[Rival]) -> Vec<Rival> {
        let once: &[Rival] = if round == 0 { self.once } else { &[] };
        let all = self.rivals.iter().chain(once);
        all.copied().filter(|rival| rivals.contains(rival)).collect()
    }
}
