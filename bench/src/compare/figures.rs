//! What is measured, what of it is wanted, and what was found.

use std::collections::BTreeMap;

use crate::rivals::Rival;

/// Something that is measured of every rival of a row.
#[derive(Debug, Clone, Copy)]
pub struct Measure {
    /// What of.
    pub of: &'static str,
    /// In what; empty for a count.
    pub unit: &'static str,
    /// What is wanted, if anything is.
    pub goals: Goals,
}

/// What is wanted of one measure.
#[derive(Debug, Clone, Copy)]
pub enum Goals {
    None,
    One(Goal),
    Both(Goal, Goal),
    /// One of them is enough.
    Either(Goal, Goal),
}

/// That the figure of one rival is so many times another figure, at least or at most.
#[derive(Debug, Clone, Copy)]
pub struct Goal {
    whose: Rival,
    bound: Bound,
    times: f64,
    base: Base,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bound {
    AtLeast,
    AtMost,
    Below,
}

#[derive(Debug, Clone, Copy)]
enum Base {
    /// The best of all nginx.
    Nginx,
    /// One rival.
    Of(Rival),
    /// Another measure of the same rival.
    Own(&'static str),
    /// The unit.
    One,
}

/// What became of a goal.
#[derive(Debug, Clone, Copy)]
pub struct Outcome {
    /// The figure, in bases.
    pub ratio: f64,
    /// Whether that is enough.
    pub reached: bool,
}

/// The figures of all rounds, in the order in which they came first.
#[derive(Debug, Default)]
pub struct Figures {
    measures: Vec<Measure>,
    values: BTreeMap<(&'static str, Rival), Vec<f64>>,
}

impl Measure {
    /// A measure that only informs.
    pub const fn new(of: &'static str, unit: &'static str) -> Measure {
        Measure { of, unit, goals: Goals::None }
    }

    /// The same with a goal of Larder's: so many times the best nginx, at least.
    pub const fn at_least_nginx(self, times: f64) -> Measure {
        self.and(Goal::larder(Bound::AtLeast, times, Base::Nginx))
    }

    /// So many times the best nginx, at most.
    pub const fn at_most_nginx(self, times: f64) -> Measure {
        self.and(Goal::larder(Bound::AtMost, times, Base::Nginx))
    }

    /// So many times what it takes without a cache, at most.
    pub const fn at_most_direct(self, times: f64) -> Measure {
        self.and(Goal::larder(Bound::AtMost, times, Base::Of(Rival::Direct)))
    }

    /// So many units, at most.
    pub const fn at_most(self, times: f64) -> Measure {
        self.and(Goal::larder(Bound::AtMost, times, Base::One))
    }

    /// That several streams give so many times what one gives, at least.
    pub const fn streams_at_least(self, times: f64) -> Measure {
        let goal = Goal::larder(Bound::AtLeast, times, Base::Of(Rival::Larder));
        self.and(Goal { whose: Rival::LarderStreams, ..goal })
    }

    /// That it takes less with prefetch than without a cache.
    pub const fn prefetch_below_direct(self) -> Measure {
        let goal = Goal::larder(Bound::Below, 1.0, Base::Of(Rival::Direct));
        self.and(Goal { whose: Rival::LarderPrefetch, ..goal })
    }

    /// As good as the goal that it has: so many times another measure, at most.
    pub const fn or_at_most_own(self, times: f64, of: &'static str) -> Measure {
        let Goals::One(first) = self.goals else { panic!("there is no goal to choose from") };
        let goals = Goals::Either(first, Goal::larder(Bound::AtMost, times, Base::Own(of)));
        Measure { goals, ..self }
    }

    const fn and(self, goal: Goal) -> Measure {
        let goals = match self.goals {
            Goals::None => Goals::One(goal),
            Goals::One(first) => Goals::Both(first, goal),
            Goals::Both(..) | Goals::Either(..) => panic!("there are two goals already"),
        };
        Measure { goals, ..self }
    }
}

impl Goals {
    /// In words, as "≥ 1.1 × nginx"; the unit is the measure's.
    pub fn text(&self, unit: &str) -> String {
        match self {
            Goals::None => String::new(),
            Goals::One(goal) => goal.text(unit),
            Goals::Both(one, other) => format!("{}; {}", one.text(unit), other.text(unit)),
            Goals::Either(one, other) => format!("{} or {}", one.text(unit), other.text(unit)),
        }
    }
}

impl Goal {
    const fn larder(bound: Bound, times: f64, base: Base) -> Goal {
        Goal { whose: Rival::Larder, bound, times, base }
    }

    fn text(&self, unit: &str) -> String {
        let whose = if self.whose == Rival::Larder { "" } else { self.whose.name() };
        let bound = match self.bound {
            Bound::AtLeast => "≥",
            Bound::AtMost => "≤",
            Bound::Below => "<",
        };
        let base = match self.base {
            Base::Nginx => "× nginx".to_owned(),
            Base::Of(rival) => format!("× {}", rival.name()),
            Base::Own(of) => format!("× {of}"),
            Base::One => unit.to_owned(),
        };
        format!("{whose} {bound} {} {base}", self.times).trim().to_owned()
    }

    /// How far the medians are from it. `None`: one of them is missing.
    pub fn outcome(&self, of: &str, figures: &Figures) -> Option<Outcome> {
        let base = match self.base {
            Base::One => 1.0,
            Base::Of(rival) => figures.median(of, rival)?,
            Base::Own(of) => figures.median(of, self.whose)?,
            Base::Nginx => {
                let all = Rival::NGINX.into_iter().filter_map(|rival| figures.median(of, rival));
                all.reduce(if self.bound == Bound::AtLeast { f64::max } else { f64::min })?
            }
        };
        let ratio = figures.median(of, self.whose)? / base;
        let reached = match self.bound {
            Bound::AtLeast => ratio >= self.times,
            Bound::AtMost => ratio <= self.times,
            Bound::Below => ratio < self.times,
        };
        Some(Outcome { ratio, reached })
    }
}

impl Figures {
    /// Adds what one round found.
    pub fn add(&mut self, measure: &Measure, rival: Rival, value: f64) {
        if self.measures.iter().all(|known| known.of != measure.of) {
            self.measures.push(*measure);
        }
        self.values.entry((measure.of, rival)).or_default().push(value);
    }

    /// Everything that was measured.
    pub fn measures(&self) -> &[Measure] {
        &self.measures
    }

    /// Everyone it was measured of.
    pub fn rivals(&self) -> Vec<Rival> {
        let found = |rival: &Rival| self.values.keys().any(|(_, of)| of == rival);
        Rival::ALL.into_iter().filter(found).collect()
    }

    /// The median over the rounds, of two the mean. `None`: nothing was found.
    pub fn median(&self, of: &str, rival: Rival) -> Option<f64> {
        let (_, values) =
            self.values.iter().find(|((what, who), _)| *what == of && *who == rival)?;
        let mut values = values.clone();
        values.sort_by(f64::total_cmp);
        let [lower, upper] = [(values.len() - 1) / 2, values.len() / 2];
        Some((values[lower] + values[upper]) / 2.0)
    }
}
