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
    /// Who could not go on, and why; once for each.
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
        for found in &mut all {
            let mut order = found.row.rivals_of(round, rivals);
            if round % 2 == 1 {
                order.reverse();
            }
            order.into_iter().for_each(|rival| found.take(bench, rival, round));
        }
    }
    all
}

impl Found {
    /// Gives one rival its turn, unless it has failed before.
    fn take(&mut self, bench: &Bench<'_>, rival: Rival, round: usize) {
        if self.failures.iter().any(|(failed, _)| *failed == rival) {
            return;
        }
        eprintln!("== {} of {}, round {}", self.row.name, rival.name(), round + 1);
        let mut turn = Turn { bench, rival, figures: &mut self.figures };
        if let Err(failure) = (self.row.measure)(&mut turn) {
            eprintln!("   failed: {failure}");
            self.failures.push((rival, failure.to_string()));
        }
    }
}

impl Turn<'_> {
    /// Notes a figure, and tells it to whoever watches.
    pub fn found(&mut self, measure: &Measure, value: f64) {
        eprintln!("   {}: {value:.3} {}", measure.of, measure.unit);
        self.figures.add(measure, self.rival, value);
    }
}
