//! Globs over names that have components: which repositories, or tags, are meant.

mod inclusion;

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

/// Which places between the pieces of a pattern are reached, the one after the last included.
type Reached = Vec<bool>;

/// The text can match no name.
#[derive(Debug)]
pub struct InvalidGlob;

impl Glob {
    /// The pattern that matches every name.
    pub fn everything() -> Glob {
        Glob { written: "**".to_owned(), pieces: vec![Piece::Across] }
    }

    /// A pattern of tags: one component, in which both stars mean the same.
    pub(super) fn of_tags(text: &str) -> Result<Glob, InvalidGlob> {
        let is_of_tags = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-*".contains(&byte);
        let mut glob = Glob::compile(text, is_of_tags)?;
        if text.starts_with(['.', '-']) {
            return Err(InvalidGlob);
        }
        glob.pieces.iter_mut().filter(|piece| **piece == Piece::Across).for_each(|piece| {
            *piece = Piece::Within;
        });
        Ok(glob)
    }

    /// A pattern of registries with their repositories: `registry.corp:5000/team/*`.
    pub(super) fn of_repositories(text: &str) -> Result<Glob, InvalidGlob> {
        let is_of_registries = |byte: u8| is_of_names(byte) || b":[]".contains(&byte);
        let name = text.split_once('/').map_or("", |(_, name)| name);
        if !name.bytes().all(is_of_names) {
            return Err(InvalidGlob);
        }
        Glob::compile(text, is_of_registries)
    }

    /// As it is written.
    pub fn as_str(&self) -> &str {
        &self.written
    }

    /// Whether the pattern stands for all of `name`. Takes as many steps as both are long,
    /// multiplied, whatever the pattern.
    pub fn matches(&self, name: &str) -> bool {
        let mut reached = self.start();
        let mut next = self.nowhere();
        for byte in name.bytes() {
            if !self.step(&reached, byte, &mut next) {
                return false;
            }
            std::mem::swap(&mut reached, &mut next);
        }
        self.accepts(&reached)
    }

    /// Whether a single star is all of it.
    pub(super) fn is_one_star(&self) -> bool {
        matches!(self.pieces.as_slice(), [Piece::Within])
    }

    /// Only `is_allowed` letters, and something in each component.
    fn compile(text: &str, is_allowed: impl Fn(u8) -> bool) -> Result<Glob, InvalidGlob> {
        let is_empty_somewhere = text.split('/').any(str::is_empty);
        if is_empty_somewhere || !text.bytes().all(is_allowed) {
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

    /// The places between the pieces that are reached before any letter.
    fn start(&self) -> Reached {
        let mut reached = self.nowhere();
        self.reach(&mut reached, 0);
        reached
    }

    fn nowhere(&self) -> Reached {
        vec![false; self.pieces.len() + 1]
    }

    fn accepts(&self, reached: &Reached) -> bool {
        reached.last() == Some(&true)
    }

    /// The places reached after one more letter. Tells whether there are any.
    fn step(&self, reached: &Reached, byte: u8, next: &mut Reached) -> bool {
        next.fill(false);
        let mut is_anywhere = false;
        let here = self.pieces.iter().enumerate().zip(reached);
        for ((place, piece), _) in here.filter(|(_, is_reached)| **is_reached) {
            let there = match piece {
                Piece::Byte(wanted) => (*wanted == byte).then_some(place + 1),
                Piece::Within => (byte != b'/').then_some(place),
                Piece::Across => Some(place),
            };
            if let Some(there) = there {
                self.reach(next, there);
                is_anywhere = true;
            }
        }
        is_anywhere
    }

    /// Marks a place between the pieces as reached, and those after it that nothing is needed for.
    fn reach(&self, reached: &mut Reached, from: usize) {
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
        Glob::compile(text, is_of_names)
    }
}

fn is_of_names(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"/._-*".contains(&byte)
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
    fn tags_have_capitals_and_no_components() {
        for (pattern, tag, want) in [
            ("*", "v1", true),
            ("**", "v1", true),
            ("v1.*", "v1.2-RC_3", true),
            ("*-RC*", "v1-rc1", false),
            ("latest", "latest", true),
        ] {
            assert_eq!(Glob::of_tags(pattern).unwrap().matches(tag), want, "{pattern} {tag}");
        }
        for pattern in ["", "a/b", ".a", "-*", "a:b", "a@b"] {
            assert!(Glob::of_tags(pattern).is_err(), "{pattern}");
        }
        assert!(Glob::of_tags("**").unwrap().is_one_star());
    }

    #[test]
    fn repositories_of_registries_may_have_a_port() {
        for (pattern, name, want) in [
            ("registry.corp:5000/team/*", "registry.corp:5000/team/a", true),
            ("*/a", "[::1]:5000/a", true),
            ("**", "docker.io/library/nginx", true),
        ] {
            assert_eq!(Glob::of_repositories(pattern).unwrap().matches(name), want, "{pattern}");
        }
        for pattern in ["a.b/c:d", "a.b/", "A.b/c", "/a"] {
            assert!(Glob::of_repositories(pattern).is_err(), "{pattern}");
        }
    }

    #[test]
    fn a_pattern_of_many_stars_takes_no_longer() {
        let glob: Glob = "*a".repeat(60).parse().unwrap();
        assert!(!glob.matches(&"a".repeat(59)));
        assert!(glob.matches(&"a".repeat(250)));
    }
}
