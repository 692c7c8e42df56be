//! What was found, as tables.

use std::{
    collections::BTreeSet,
    fmt::{self, Write as _},
};

use larder_bench::machine;

use crate::{
    figures::{Figures, Goal, Goals, Measure, Outcome},
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
    write!(text, "\n### {}\n\n{}", row.title, row.about)?;
    if row.repeats > 1 {
        write!(text, " Each round measures {} times.", row.repeats)?;
    }
    writeln!(text, "\n")?;
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
    let outcome = |goal: &Goal| goal.outcome(measure.of, figures);
    let is = match &measure.goals {
        Goals::None => return " |".to_owned(),
        Goals::One(goal) => verdict(&[outcome(goal)]),
        Goals::Both(one, other) => {
            format!("{}; {}", verdict(&[outcome(one)]), verdict(&[outcome(other)]))
        }
        Goals::Either(one, other) => verdict(&[outcome(one), outcome(other)]),
    };
    format!("{} | {is}", measure.goals.text(measure.unit))
}

/// How far it is from each of several goals, of which one is enough.
fn verdict(outcomes: &[Option<Outcome>]) -> String {
    let known: Vec<_> = outcomes.iter().flatten().collect();
    let ratios: Vec<_> = known.iter().map(|outcome| number(outcome.ratio)).collect();
    match known.iter().any(|outcome| outcome.reached) {
        _ if known.is_empty() => "–".to_owned(),
        true => format!("{}, yes", ratios.join(" or ")),
        false => format!("{}, **no**", ratios.join(" or ")),
    }
}

/// With three significant digits, or all before the point.
pub fn number(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 || value.fract() == 0.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}
