//! Globs over names that have components: which repositories are meant.

use std::{fmt, str::FromStr};

/// A pattern for names of repositories. `*` stands for any text within a component, none included,
/// and `**` for any text: `team/*` is every repository directly below `team`, `team/**` every one
/// below it at any depth, `**` every one there is.
#[derive(Clone, PartialEq, Eq)]
pub struct Glob {
    written: String,
    pieces: Vec<Piece>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Piece {
    Byte(u8),
    /// Any number of bytes but `/`.
    Within,
    /// Any number of bytes.
    Across,
}

/// The text can match no name.
#[derive(Debug)]
pub struct InvalidGlob;

impl Glob {
    /// The pattern that matches every name.
    pub fn everything() -> Glob {
        Glob { written: "**".to_owned(), pieces: vec![Piece::Across] }
    }

    /// As it is written.
    pub fn as_str(&self) -> &str {
        &self.written
    }

    /// Whether the pattern stands for all of `name`. Takes as many steps as both are long,
    /// multiplied, whatever the pattern.
    pub fn matches(&self, name: &str) -> bool {
        let mut reached = vec![false; self.pieces.len() + 1];
        self.reach(&mut reached, 0);
        for byte in name.bytes() {
            let mut next = vec![false; reached.len()];
            let here = self.pieces.iter().enumerate().zip(&reached);
            for ((place, piece), _) in here.filter(|(_, is_reached)| **is_reached) {
                match piece {
                    Piece::Byte(wanted) if *wanted == byte => self.reach(&mut next, place + 1),
                    Piece::Within if byte == b'/' => {}
                    Piece::Within | Piece::Across => self.reach(&mut next, place),
                    Piece::Byte(_) => {}
                }
            }
            reached = next;
        }
        reached.last() == Some(&true)
    }

    /// Marks a place between the pieces as reached, and those after it that nothing is needed for.
    fn reach(&self, reached: &mut [bool], from: usize) {
        for (place, mark) in reached.iter_mut().enumerate().skip(from) {
            *mark = true;
            if !matches!(self.pieces.get(place), Some(Piece::Within | Piece::Across)) {
                break;
            }
        }
    }
}

/// Only what may stand in a name, and stars.
impl FromStr for Glob {
    type Err = InvalidGlob;

    fn from_str(text: &str) -> Result<Glob, InvalidGlob> {
        let is_of_names = |byte: u8| {
            byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"/._-*".contains(&byte)
        };
        let is_empty_somewhere = text.split('/').any(str::is_empty);
        if is_empty_somewhere || !text.bytes().all(is_of_names) {
            return Err(InvalidGlob);
        }
        let mut pieces = Vec::new();
        for byte in text.bytes() {
            match (byte, pieces.last_mut()) {
                (b'*', Some(last @ (Piece::Within | Piece::Across))) => *last = Piece::Across,
                (b'*', _) => pieces.push(Piece::Within),
                (byte, _) => pieces.push(Piece::Byte(byte)),
            }
        }
        Ok(Glob { written: text.to_owned(), pieces })
    }
}

impl fmt::Debug for Glob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.written, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_star_stays_within_a_component() {
        let table = [
            ("team/app", "team/app", true),
            ("team/app", "team/apps", false),
            ("team/app", "team/ap", false),
            ("team/*", "team/app", true),
            ("team/*", "team/app/api", false),
            ("team/*", "team", false),
            ("team/*", "teamster/app", false),
            ("team/**", "team/app/api", true),
            ("team/**", "team", false),
            ("**", "a", true),
            ("**", "a/b/c", true),
            ("*", "a", true),
            ("*", "a/b", false),
            ("*/*", "a/b", true),
            ("**/api", "a/b/api", true),
            ("**/api", "api", false),
            ("team/*-dev", "team/app-dev", true),
            ("team/*-dev", "team/-dev", true),
            ("team/*-dev", "team/app-dev-dev", true),
            ("team/*-dev", "team/app-development", false),
            ("a*b*c", "aXbYbZc", true),
            ("a**c", "a/b/c", true),
            ("***", "a/b", true),
        ];
        for (pattern, name, want) in table {
            let glob: Glob = pattern.parse().unwrap();
            assert_eq!(glob.matches(name), want, "{pattern} {name}");
        }
        assert!(Glob::everything().matches("a/b"));
    }

    #[test]
    fn what_can_match_no_name_is_refused() {
        for pattern in ["", "/", "team/", "/team", "a//b", "Team/*", "team/*:*", "team/[ab]", "a b"]
        {
            assert!(pattern.parse::<Glob>().is_err(), "{pattern}");
        }
    }

    #[test]
    fn a_pattern_of_many_stars_takes_no_longer() {
        let glob: Glob = "*a".repeat(60).parse().unwrap();
        assert!(!glob.matches(&"a".repeat(59)));
        assert!(glob.matches(&"a".repeat(250)));
    }
}
