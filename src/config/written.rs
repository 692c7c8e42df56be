//! Values as they are written, and where.

use std::{fmt, path::Path};

use toml::de::DeValue;

/// The text of the file and its name, for places.
#[derive(Clone, Copy)]
pub(super) struct Document<'a> {
    pub(super) path: &'a Path,
    pub(super) text: &'a str,
}

/// Where a value is written, weakest first.
#[derive(Clone, Copy)]
pub(super) enum Origin<'a> {
    /// At this byte of the file.
    File(Document<'a>, usize),
    /// In this variable.
    Variable(&'a str),
    /// On the command line, for this key.
    Flag(&'a str),
}

/// A value as written, and where.
#[derive(Clone, Copy)]
pub(super) struct Written<'a> {
    pub(super) value: Value<'a>,
    pub(super) origin: Origin<'a>,
}

/// What is written: TOML, or the bare text of a variable or flag.
#[derive(Clone, Copy)]
pub(super) enum Value<'a> {
    Toml(&'a DeValue<'a>),
    Bare(&'a str),
}

/// A value that cannot be used, and what to write instead.
pub(super) struct Wrong<'a> {
    pub(super) origin: Origin<'a>,
    pub(super) message: String,
}

impl<'a> Origin<'a> {
    /// This origin, at another byte of the file.
    pub(super) fn moved_to(self, offset: usize) -> Origin<'a> {
        match self {
            Origin::File(document, _) => Origin::File(document, offset),
            Origin::Variable(_) | Origin::Flag(_) => self,
        }
    }

    /// The directory that relative paths written here are relative to.
    pub(super) fn directory(self) -> &'a Path {
        match self {
            Origin::File(document, _) => document.path.parent().unwrap_or(Path::new("")),
            Origin::Variable(_) | Origin::Flag(_) => Path::new(""),
        }
    }

    /// Which of two origins wins.
    pub(super) fn strength(self) -> u8 {
        match self {
            Origin::File(..) => 0,
            Origin::Variable(_) => 1,
            Origin::Flag(_) => 2,
        }
    }
}

/// `larder.toml:12`, `LARDER_LISTEN` or `--listen`.
impl fmt::Display for Origin<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::File(document, offset) => {
                let before = document.text.bytes().take(*offset);
                let line = 1 + before.filter(|byte| *byte == b'\n').count();
                write!(f, "{}:{line}", document.path.display())
            }
            Origin::Variable(name) => f.write_str(name),
            Origin::Flag(key) => write!(f, "--{}", key.replace('_', "-")),
        }
    }
}
