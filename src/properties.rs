//! How parsers are tried: on many generated inputs that are right or nearly right, against a
//! reading of the same grammar that is slow and obvious.
//!
//! `PROPTEST_CASES=100000 cargo test --lib properties` tries harder.

use std::{cell::Cell, fmt::Debug};

use proptest::{
    collection, option,
    prelude::{Strategy, any, prop_assert_eq},
    sample::{Index, select},
    test_runner::{Config, TestRunner},
};

/// Asserts that both readings agree on what `inputs` generates, where `None` is a refusal, and
/// that the inputs are of use: of twenty, at least one is accepted and one refused.
pub fn assert_same<S: Strategy, T: PartialEq + Debug>(
    inputs: S,
    parsed: impl Fn(&S::Value) -> Option<T>,
    expected: impl Fn(&S::Value) -> Option<T>,
) {
    let defaults = Config::default();
    let cases = defaults.cases * 8;
    let accepted = Cell::new(0);
    let compare = |input| {
        let (parsed, expected) = (parsed(&input), expected(&input));
        accepted.set(accepted.get() + u32::from(expected.is_some()));
        prop_assert_eq!(parsed, expected);
        Ok(())
    };
    let config = Config { cases, failure_persistence: None, ..defaults };
    if let Err(difference) = TestRunner::new(config).run(&inputs, compare) {
        panic!("{difference}");
    }
    let (accepted, least) = (accepted.get(), cases / 20);
    assert!((least..=cases - least).contains(&accepted), "{accepted} of {cases} are accepted");
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
