//! Whether one pattern has all that another has, and whether they have anything in common.

use std::collections::HashSet;

use super::{Glob, Piece, Reached};

/// The most states looked at before a pattern counts as not covered. Patterns as people write them
/// have a few hundred; of this many, each takes some microseconds.
const MAX_STATES: usize = 20_000;

impl Glob {
    /// Whether every text that `other` stands for is one that this pattern stands for. Where it would
    /// take too long to find out, it is said not to be.
    ///
    /// Both are read at once, letter by letter: `other` at one place, this pattern at all places that the
    /// same text leads to. From each place some text leads to the end of `other`, so that a state in
    /// which this pattern is nowhere is as good as a text that only `other` stands for.
    pub(in crate::config) fn covers(&self, other: &Glob) -> bool {
        let letters = letters_of(self, other);
        let mut states = States::default();
        states.add(&other.start(), &self.start());
        while let Some((place, reached)) = states.pending.pop() {
            let is_at_end = place == other.pieces.len();
            if (is_at_end && !self.accepts(&reached)) || states.seen.len() > MAX_STATES {
                return false;
            }
            for letter in &letters {
                let (mut there, mut here) = (other.nowhere(), self.nowhere());
                let is_possible = other.step(&other.only(place), *letter, &mut there);
                if is_possible && !self.step(&reached, *letter, &mut here) {
                    return false;
                }
                states.add(&there, &here);
            }
        }
        true
    }

    /// Whether some text is one that both patterns stand for.
    pub(in crate::config) fn meets(&self, other: &Glob) -> bool {
        let letters = letters_of(self, other);
        let mut pending = pairs(&self.start(), &other.start());
        let mut seen: HashSet<(usize, usize)> = pending.iter().copied().collect();
        while let Some((place, theirs)) = pending.pop() {
            if place == self.pieces.len() && theirs == other.pieces.len() {
                return true;
            }
            for letter in &letters {
                let (mut here, mut there) = (self.nowhere(), other.nowhere());
                self.step(&self.only(place), *letter, &mut here);
                other.step(&other.only(theirs), *letter, &mut there);
                pending.extend(pairs(&here, &there).into_iter().filter(|pair| seen.insert(*pair)));
            }
        }
        false
    }

    fn only(&self, place: usize) -> Reached {
        (0..=self.pieces.len()).map(|other| other == place).collect()
    }
}

/// Places of one pattern, each with all places of another that the same text leads to.
#[derive(Default)]
struct States {
    seen: HashSet<(usize, Reached)>,
    pending: Vec<(usize, Reached)>,
}

impl States {
    fn add(&mut self, places: &Reached, reached: &Reached) {
        for place in marked(places) {
            let state = (place, reached.clone());
            if self.seen.insert(state.clone()) {
                self.pending.push(state);
            }
        }
    }
}

/// Each letter that one of them tells from others, and one that none does.
fn letters_of(one: &Glob, other: &Glob) -> Vec<u8> {
    let pieces = one.pieces.iter().chain(&other.pieces);
    let written = pieces.filter_map(|piece| match piece {
        Piece::Byte(byte) => Some(*byte),
        Piece::Within | Piece::Across => None,
    });
    let mut letters: Vec<u8> = written.chain([b'/']).collect();
    letters.sort_unstable();
    letters.dedup();
    let another = (0..=u8::MAX).find(|byte| letters.binary_search(byte).is_err());
    letters.extend(another);
    letters
}

fn marked(reached: &Reached) -> impl Iterator<Item = usize> + Clone {
    reached.iter().enumerate().filter(|(_, is_reached)| **is_reached).map(|(place, _)| place)
}

fn pairs(one: &Reached, other: &Reached) -> Vec<(usize, usize)> {
    marked(one).flat_map(|place| marked(other).map(move |theirs| (place, theirs))).collect()
}

#[cfg(test)]
mod tests {
    use std::{
        collections::BTreeSet,
        time::{Duration, Instant},
    };

    use super::*;

    fn glob(text: &str) -> Glob {
        text.parse().unwrap()
    }

    #[test]
    fn a_pattern_has_all_of_a_narrower_one() {
        let table = [
            ("**", "a", true),
            ("**", "*/**", true),
            ("*", "**", false),
            ("a/*", "a/b", true),
            ("a/*", "a/b*c", true),
            ("a/*", "a/**", false),
            ("a/**", "a/*", true),
            ("a/b", "a/*", false),
            ("*/**", "**/*", true),
            ("**/*", "*/**", true),
            ("*a*", "*aa*", true),
            ("*aa*", "*a*", false),
            ("*ab*ab*", "*abab*", true),
        ];
        for (wide, narrow, want) in table {
            assert_eq!(glob(wide).covers(&glob(narrow)), want, "{wide} {narrow}");
        }
    }

    /// All texts of up to `length` of these letters.
    fn texts(letters: &[char], length: u32) -> BTreeSet<String> {
        let longer = |texts: BTreeSet<String>| {
            let longer = |text: &String| -> Vec<String> {
                letters.iter().map(|letter| format!("{text}{letter}")).collect()
            };
            let more: Vec<String> = texts.iter().flat_map(longer).collect();
            texts.into_iter().chain(more).collect()
        };
        (0..length).fold(BTreeSet::from([String::new()]), |texts, _| longer(texts))
    }

    /// For each of `texts` a bit: whether the pattern stands for it.
    fn shown(glob: &Glob, texts: &[String]) -> Vec<u64> {
        let bits = |some: &[String]| {
            some.iter().fold(0, |bits, text| bits << 1 | u64::from(glob.matches(text)))
        };
        texts.chunks(64).map(bits).collect()
    }

    /// A pattern of four letters that does not cover another, or meets it, shows it by a text of six:
    /// of each the three that are no star. One may be a letter that neither pattern has.
    #[test]
    fn inclusion_and_overlap_are_what_short_texts_show() {
        let shorts: Vec<String> = texts(&['a', 'b', '/', 'x'], 6).into_iter().collect();
        let patterns = texts(&['a', 'b', '/', '*'], 4);
        let patterns: Vec<Glob> = patterns.iter().filter_map(|text| text.parse().ok()).collect();
        let shown: Vec<Vec<u64>> = patterns.iter().map(|glob| shown(glob, &shorts)).collect();
        for (one, ours) in patterns.iter().zip(&shown) {
            for (other, theirs) in patterns.iter().zip(&shown) {
                let both = || ours.iter().zip(theirs);
                let covers = both().all(|(ours, theirs)| theirs & !ours == 0);
                let meets = both().any(|(ours, theirs)| theirs & ours != 0);
                assert_eq!(one.covers(other), covers, "{one:?} {other:?}");
                assert_eq!(one.meets(other), meets, "{one:?} {other:?}");
            }
        }
    }

    #[test]
    fn patterns_of_many_stars_end_in_time() {
        let began = Instant::now();
        let (one, other) = (glob(&"*ab".repeat(30)), glob(&"*ba*a".repeat(30)));
        let _ = one.covers(&other);
        let _ = one.meets(&other);
        assert!(began.elapsed() < Duration::from_secs(60));
    }
}
