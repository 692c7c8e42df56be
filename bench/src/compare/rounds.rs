//! Rows in turn, and in each the rivals in turn, so that what changes on the machine meanwhile
//! meets all of them.

use crate::{
    bench::Bench,
    figures::{Figures, Measure},
    rivals::Rival,
    rows::Row,
};

/// What was found of one row.
pub struct Found {
    pub row: &'static Row,
    pub figures: Figures,
    /// Who failed, and how.
    pub failures: Vec<(Rival, String)>,
}

/// One rival's share of one row.
pub struct Turn<'a> {
    pub bench: &'a Bench<'a>,
    pub rival: Rival,
    figures: &'a mut Figures,
}

/// Runs these rows with these rivals so often.
pub fn run(
    bench: &Bench<'_>,
    rows: &[&'static Row],
    rivals: &[Rival],
    rounds: usize,
) -> Vec<Found> {
    let mut all: Vec<Found> = rows
        .iter()
        .map(|&row| Found { row, figures: Figures::default(), failures: Vec::new() })
        .collect();
    for round in 0..rounds {
        all.iter_mut().for_each(|found| found.take_round(bench, rivals, round));
    }
    all
}

impl Found {
    /// Every other time in the reverse order.
    fn take_round(&mut self, bench: &Bench<'_>, rivals: &[Rival], round: usize) {
        for repeat in 0..self.row.repeats {
            let mut order = self.row.rivals_of(round, rivals);
            if (round + repeat) % 2 == 1 {
                order.reverse();
            }
            order.into_iter().for_each(|rival| self.take_turn(bench, rival, round));
        }
    }

    /// Gives one rival its turn, and if it fails another one. Who fails again has no more.
    fn take_turn(&mut self, bench: &Bench<'_>, rival: Rival, round: usize) {
        while self.times_failed(rival) < 2 {
            eprintln!("== {} of {}, round {}", self.row.name, rival.name(), round + 1);
            let mut turn = Turn { bench, rival, figures: &mut self.figures };
            let Err(failure) = (self.row.measure)(&mut turn) else { return };
            eprintln!("   failed: {failure}");
            let then = ["was measured again", "was left out"][self.times_failed(rival)];
            let failure = format!("failed in round {}, and {then}: {failure}", round + 1);
            self.failures.push((rival, failure));
        }
    }

    fn times_failed(&self, rival: Rival) -> usize {
        self.failures.iter().filter(|(failed, _)| *failed == rival).count()
    }
}

impl Turn<'_> {
    /// Notes a figure, and tells it to whoever watches.
    pub fn found(&mut self, measure: &Measure, value: f64) {
        eprintln!("   {}: {value:.3} {}", measure.of, measure.unit);
        self.figures.add(measure, self.rival, value);
    }
}
