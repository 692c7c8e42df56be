//! Which images are listed, and in what order.

use std::{cmp::Reverse, str::FromStr, time::Duration};

use crate::{
    admin::{page::Question, refusal::Refusal},
    store::{Image, Inspected, PlatformState},
};

/// What the query asks for:
///
/// | parameter | only images |
/// |---|---|
/// | `name` | whose `registry/name:tag` or `registry/name@digest` has this in it; with a `*`, which stands for any text, is this |
/// | `registry` | of it |
/// | `untagged=true` | without a tag |
/// | `partial=true` | of which no platform is complete, or one is begun and not complete |
/// | `pinned=true` | that stay whatever happens |
/// | `unused_for` | that nobody used for so many seconds |
/// | `larger_than` | that have more bytes |
///
/// `sort` is `name`, as without it, `size` or `unique` (the largest first), `used` or `added` (the latest
/// first); `reverse=true` turns the order round.
#[derive(Default)]
pub(super) struct Selection {
    names: Vec<NamePattern>,
    registry: Option<String>,
    untagged: bool,
    partial: bool,
    pinned: bool,
    unused_for: Option<Duration>,
    larger_than: Option<u64>,
    sort: Sort,
    reverse: bool,
}

/// A part of a name, or the whole with stars for any text.
struct NamePattern(String);

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Sort {
    #[default]
    Name,
    Size,
    Unique,
    Used,
    Added,
}

impl Selection {
    pub(super) fn read(question: &Question) -> Result<Selection, Refusal> {
        let mut selection = Selection::default();
        for (name, value) in question.parameters() {
            selection.take(&name, &value).ok_or_else(|| {
                Refusal::Wrong(format!("{name}={value}: no such parameter, or not such a value"))
            })?;
        }
        Ok(selection)
    }

    fn take(&mut self, name: &str, value: &str) -> Option<()> {
        match name {
            "name" => self.names.push(NamePattern(value.to_owned())),
            "registry" => self.registry = Some(value.to_owned()),
            "untagged" => self.untagged = value.parse().ok()?,
            "partial" => self.partial = value.parse().ok()?,
            "pinned" => self.pinned = value.parse().ok()?,
            "unused_for" => self.unused_for = Some(Duration::from_secs(value.parse().ok()?)),
            "larger_than" => self.larger_than = Some(value.parse().ok()?),
            "sort" => self.sort = value.parse().ok()?,
            "reverse" => self.reverse = value.parse().ok()?,
            _ => return None,
        }
        Some(())
    }

    /// As far as memory tells.
    pub(super) fn has(&self, image: &Image) -> bool {
        let registry = image.repository.registry().as_str();
        (self.names.is_empty() || self.names.iter().any(|name| name.has(&image.to_string())))
            && self.registry.as_ref().is_none_or(|wanted| wanted == registry)
            && (!self.untagged || image.tag.is_none())
            && (!self.pinned || image.pinned.is_some())
            && self.unused_for.is_none_or(|least| image.unused >= least)
            && self.larger_than.is_none_or(|least| image.size > least)
    }

    /// As far as the files tell.
    pub(super) fn has_inspected(&self, inspected: &Inspected) -> bool {
        let any = |state| inspected.platforms.iter().any(|here| here.state == state);
        !self.partial || any(PlatformState::Partial) || !any(PlatformState::Complete)
    }

    /// Whether the order is that of something that only the files tell.
    pub(super) fn needs_all(&self) -> bool {
        self.sort == Sort::Added
    }

    pub(super) fn sort(&self, images: &mut [Image]) {
        images.sort_by_cached_key(ToString::to_string);
        match self.sort {
            Sort::Name | Sort::Added => {}
            Sort::Size => images.sort_by_key(|image| Reverse(image.size)),
            Sort::Unique => images.sort_by_key(|image| Reverse(image.unique_size)),
            Sort::Used => images.sort_by_key(|image| image.unused),
        }
        if self.reverse && !self.needs_all() {
            images.reverse();
        }
    }

    /// What [`Selection::sort`] could not.
    pub(super) fn sort_inspected(&self, images: &mut [(Image, Inspected)]) {
        images.sort_by_key(|(_, inspected)| Reverse(inspected.added));
        if self.reverse {
            images.reverse();
        }
    }
}

impl NamePattern {
    fn has(&self, name: &str) -> bool {
        let Some((start, rest)) = self.0.split_once('*') else {
            return name.contains(&self.0);
        };
        // What stands between two stars is best found as early as it can be.
        let (middle, end) = rest.rsplit_once('*').unwrap_or(("", rest));
        let inner = name.strip_prefix(start).and_then(|name| name.strip_suffix(end));
        let found = inner.and_then(|inner| {
            middle.split('*').try_fold(inner, |left, part| Some(left.split_once(part)?.1))
        });
        found.is_some()
    }
}

impl FromStr for Sort {
    type Err = ();

    fn from_str(written: &str) -> Result<Sort, ()> {
        match written {
            "name" => Ok(Sort::Name),
            "size" => Ok(Sort::Size),
            "unique" => Ok(Sort::Unique),
            "used" => Ok(Sort::Used),
            "added" => Ok(Sort::Added),
            _ => Err(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_by_a_part_or_by_stars() {
        let name = "docker.io/library/nginx:1.29-alpine";
        for (pattern, has) in [
            ("nginx", true),
            ("library/nginx:1.29", true),
            ("redis", false),
            ("docker.io/*", true),
            ("*:1.29*", true),
            ("*/nginx:*", true),
            ("*nginx*alpine", true),
            ("nginx*", false),
            ("*nginx", false),
            ("*alpine*nginx*", false),
            ("**", true),
            ("docker.io/library/nginx:1.29-alpine*e", false),
        ] {
            assert_eq!(NamePattern(pattern.to_owned()).has(name), has, "{pattern}");
        }
    }
}
