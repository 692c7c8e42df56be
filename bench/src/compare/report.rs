//! What was found, as tables.

use std::{
    collections::BTreeSet,
    fmt::{self, Write as _},
};

use larder_bench::machine;

use crate::{
    figures::{Figures, Measure},
    rivals::{Programs, Rival},
    rounds::Found,
    rows::Row,
};

/// The whole section.
pub fn section(
    found: &[Found],
    rounds: usize,
    programs: &Programs,
    neighbours: f64,
) -> Result<String, fmt::Error> {
    let mut text = String::new();
    writeln!(text, "{}\n", machine::text())?;
    writeln!(
        text,
        "Medians of {rounds} rounds, with the rivals in turn in each. Who had no part in it took \
         {:.1} % of the processors meanwhile.\n",
        neighbours * 100.0
    )?;
    let rivals: BTreeSet<Rival> = found.iter().flat_map(|row| row.figures.rivals()).collect();
    for rival in rivals {
        writeln!(text, "- {}: {}", rival.name(), rival.version(programs))?;
    }
    found.iter().try_for_each(|row| table(&mut text, row))?;
    Ok(text)
}

/// One row's table, and why it has gaps.
fn table(text: &mut String, Found { row, figures, failures }: &Found) -> fmt::Result {
    let rivals = figures.rivals();
    writeln!(text, "\n### {}\n\n{}\n", row.title, row.about)?;
    write!(text, "| |")?;
    rivals.iter().try_for_each(|rival| write!(text, " {} |", rival.name()))?;
    writeln!(text, " Larder's goal | is |")?;
    writeln!(text, "|---|{}---|---|", "---|".repeat(rivals.len()))?;
    for measure in figures.measures() {
        write!(text, "| {} |", title(measure))?;
        for rival in &rivals {
            let figure = figures.median(measure.of, *rival);
            write!(text, " {} |", figure.map_or("–".to_owned(), number))?;
        }
        writeln!(text, " {} |", goal(measure, figures))?;
    }
    gaps(text, row, failures)
}

fn gaps(text: &mut String, row: &Row, failures: &[(Rival, String)]) -> fmt::Result {
    let absent = row.absent.iter().map(|(rival, reason)| (rival, *reason));
    let failed = failures.iter().map(|(rival, failure)| (rival, failure.as_str()));
    let reasons: Vec<_> = absent.chain(failed).collect();
    if !reasons.is_empty() {
        writeln!(text)?;
    }
    reasons.iter().try_for_each(|(rival, reason)| writeln!(text, "- {}: {reason}", rival.name()))
}

fn title(Measure { of, unit, .. }: &Measure) -> String {
    if unit.is_empty() { (*of).to_owned() } else { format!("{of}, {unit}") }
}

/// The last two cells.
fn goal(measure: &Measure, figures: &Figures) -> String {
    let Some(goal) = measure.goal else { return " |".to_owned() };
    let is = goal.outcome(measure.of, figures).map_or("–".to_owned(), |outcome| {
        let verdict = if outcome.reached { "yes" } else { "**no**" };
        format!("{}, {verdict}", number(outcome.ratio))
    });
    format!("{} | {is}", goal.text(measure.unit))
}

/// With three significant digits, or all before the point.
fn number(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 || value.fract() == 0.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}
