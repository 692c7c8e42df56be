//! How parsers are tried: on many generated inputs that are right or nearly right, against a
//! reading of the same grammar that is slow and obvious.
//!
//! `PROPTEST_CASES=100000 cargo test --lib properties` tries harder.

use std::{cell::Cell, fmt::Debug};

use proptest::{
    collection, option,
    prelude::{Strategy, any, prop_assert_eq},
    sample::{Index, select},
    test_runner::{Config, TestCaseResult, TestRunner},
};

/// How many inputs there are for each that `PROPTEST_CASES` asks for.
const EAGERNESS: u32 = 8;

/// Asserts that both readings agree on what `inputs` generates, where `None` is a refusal, and
/// that the inputs are of use: of twenty, at least one is accepted and one refused.
pub fn assert_same<S: Strategy, T: PartialEq + Debug>(
    inputs: S,
    parsed: impl Fn(&S::Value) -> Option<T>,
    expected: impl Fn(&S::Value) -> Option<T>,
) {
    let (all, accepted) = (Cell::new(0), Cell::new(0));
    try_many(inputs, |input| {
        let (parsed, expected) = (parsed(&input), expected(&input));
        all.set(all.get() + 1);
        accepted.set(accepted.get() + u32::from(expected.is_some()));
        prop_assert_eq!(parsed, expected);
        Ok(())
    });
    let (all, accepted) = (all.get(), accepted.get());
    let least = all / 20;
    assert!((least..=all - least).contains(&accepted), "{accepted} of {all} are accepted");
}

/// Asserts that `check` does not panic on what `inputs` generates.
pub fn assert_always<S: Strategy>(inputs: S, check: impl Fn(S::Value)) {
    try_many(inputs, |input| {
        check(input);
        Ok(())
    });
}

/// What `texts` generates with at most two letters more, less or other, those of `spice`.
pub fn nearly<S>(texts: S, spice: &'static str) -> impl Strategy<Value = String>
where
    S: Strategy<Value = String>,
{
    let letter = option::of(select(spice.chars().collect::<Vec<_>>()));
    let edits = collection::vec((any::<Index>(), any::<bool>(), letter), 0..=2);
    (texts, edits).prop_map(|(text, edits)| {
        let mut letters: Vec<char> = text.chars().collect();
        for (place, removes, inserted) in edits {
            let place = place.index(letters.len() + 1);
            let end = (place + usize::from(removes)).min(letters.len());
            letters.splice(place..end, inserted);
        }
        letters.into_iter().collect()
    })
}

/// A failure is told with the least input that has it.
fn try_many<S: Strategy>(inputs: S, check: impl Fn(S::Value) -> TestCaseResult) {
    let defaults = Config::default();
    let cases = defaults.cases * EAGERNESS;
    let mut runner = TestRunner::new(Config { cases, failure_persistence: None, ..defaults });
    if let Err(failure) = runner.run(&inputs, check) {
        panic!("{failure}");
    }
}
