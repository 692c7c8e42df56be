//! Digests against the grammar of the image specification, read letter by letter.

use proptest::{prelude::*, string::string_regex};

use super::{Algorithm, Digest};
use crate::properties::{assert_same, nearly};

#[test]
fn a_digest_is_what_its_grammar_says() {
    assert_same(
        nearly(digests(), "a0A:g é"),
        |text| text.parse().ok().map(|digest: Digest| digest.to_string()),
        |text| is_digest(text).then(|| text.clone()),
    );
}

#[test]
fn raw_bytes_are_as_many_as_the_algorithm_makes() {
    let algorithms = prop_oneof![Just(Algorithm::Sha256), Just(Algorithm::Sha512)];
    let lengths = prop_oneof![Just(31), Just(32), Just(33), Just(64), Just(65), 0..100_usize];
    let bytes = lengths.prop_flat_map(|length| prop::collection::vec(any::<u8>(), length));
    assert_same(
        (algorithms, bytes),
        |(algorithm, bytes)| Digest::from_bytes(*algorithm, bytes).ok().map(|it| it.to_string()),
        |(algorithm, bytes)| {
            let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            Some(format!("{}:{hex}", algorithm.as_str())).filter(|text| is_digest(text))
        },
    );
}

pub(crate) fn is_digest(text: &str) -> bool {
    [("sha256:", 64), ("sha512:", 128)].iter().any(|(algorithm, digits)| {
        let letters: Vec<char> = text.chars().collect();
        text.starts_with(algorithm)
            && letters.len() == algorithm.len() + digits
            && letters[algorithm.len()..].iter().all(|letter| "0123456789abcdef".contains(*letter))
    })
}

/// Valid digests.
pub(crate) fn digests() -> impl Strategy<Value = String> {
    let short = string_regex("sha256:[0-9a-f]{64}").unwrap();
    let long = string_regex("sha512:[0-9a-f]{128}").unwrap();
    prop_oneof![short, long]
}
