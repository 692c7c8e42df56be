//! `daemon.json`: Docker's configuration. JSON has no comments, but order and spelling of what a
//! person wrote stay.

use std::fmt;

use serde::{
    Deserialize,
    de::{Deserializer, MapAccess, Visitor},
};
use serde_json::value::RawValue;

use super::setup::Mistake;

/// A JSON object, its members in order and each value as it is spelt.
struct Object(Vec<(String, Box<RawValue>)>);

/// A text that the list of a key must have, and where it goes if it is not in it.
pub(super) struct Listed {
    pub(super) key: &'static str,
    pub(super) text: String,
    pub(super) place: Place,
}

/// A place in a list.
#[derive(Clone, Copy)]
pub(super) enum Place {
    First,
    Last,
}

/// Puts each text into the list of its key.
///
/// # Errors
/// When `existing` is no JSON object, or one of the keys is no list of texts.
pub(super) fn merge(existing: &str, lists: &[Listed]) -> Result<String, Mistake> {
    let mut object = parse(existing)?;
    let mut is_changed = false;
    for listed in lists {
        is_changed |= list(existing, &mut object, listed)?;
    }
    if !is_changed {
        return Ok(existing.to_owned());
    }
    Ok(object.to_text(indentation(existing)))
}

fn parse(text: &str) -> Result<Object, Mistake> {
    if text.trim().is_empty() {
        return Ok(Object(Vec::new()));
    }
    serde_json::from_str(text).map_err(|error| Mistake {
        line: Some(error.line()),
        message: format!("this is no JSON object: {error}"),
    })
}

/// Whether the list had to be changed.
fn list(existing: &str, object: &mut Object, listed: &Listed) -> Result<bool, Mistake> {
    let Listed { key, text, place } = listed;
    // The engine takes the last of several.
    let Some((_, value)) = object.0.iter_mut().rfind(|(name, _)| name == key) else {
        object.0.push(((*key).to_owned(), spelt(std::slice::from_ref(text))?));
        return Ok(true);
    };
    let mut list: Vec<String> = serde_json::from_str(value.get()).map_err(|_| {
        let offset = existing.find(&format!("\"{key}\"")).unwrap_or(0);
        Mistake::at(existing, offset, format!("{key} is no list of texts"))
    })?;
    if list.iter().any(|listed| listed.trim_end_matches('/') == text) {
        return Ok(false);
    }
    match place {
        Place::First => list.insert(0, text.clone()),
        Place::Last => list.push(text.clone()),
    }
    *value = spelt(&list)?;
    Ok(true)
}

/// A list on one line: `["a", "b"]`.
fn spelt(list: &[String]) -> Result<Box<RawValue>, Mistake> {
    let items: Vec<String> =
        list.iter().map(|item| serde_json::Value::from(item.as_str()).to_string()).collect();
    RawValue::from_string(format!("[{}]", items.join(", ")))
        .map_err(|error| Mistake::of_all(error.to_string()))
}

/// What stands before the first member, if it is on a line of its own.
fn indentation(text: &str) -> &str {
    let first = text.find('"').and_then(|quote| text.get(..quote));
    let line = first.and_then(|before| before.rsplit_once('\n')).map(|(_, line)| line);
    line.filter(|line| line.trim().is_empty()).unwrap_or("  ")
}

impl Object {
    fn to_text(&self, indentation: &str) -> String {
        let member = |(key, value): &(String, Box<RawValue>)| {
            let key = serde_json::Value::from(key.as_str());
            format!("{indentation}{key}: {}", value.get())
        };
        let members: Vec<String> = self.0.iter().map(member).collect();
        format!("{{\n{}\n}}\n", members.join(",\n"))
    }
}

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Object, D::Error> {
        deserializer.deserialize_map(Members)
    }
}

struct Members;

impl<'de> Visitor<'de> for Members {
    type Value = Object;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Object, A::Error> {
        let mut members = Vec::new();
        while let Some(member) = map.next_entry()? {
            members.push(member);
        }
        Ok(Object(members))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn merge(existing: &str) -> Result<String, Mistake> {
        let listed = |key, text: &str, place| Listed { key, text: text.to_owned(), place };
        let lists = [
            listed("registry-mirrors", "http://m:5000", Place::First),
            listed("insecure-registries", "m:5000", Place::Last),
        ];
        super::merge(existing, &lists)
    }

    #[test]
    fn the_lists_are_extended_and_the_rest_stays_as_it_is_spelt() {
        let new = "{\n  \"registry-mirrors\": [\"http://m:5000\"],\n  \"insecure-registries\": [\"m:5000\"]\n}\n";
        let old = "{\n    \"z\": 1.50,\n    \"a\": {\"b\": [1,\n      2]},\n    \"registry-mirrors\": [\"https://b\"],\n    \"insecure-registries\": [\"b\"]}";
        let extended = "{\n    \"z\": 1.50,\n    \"a\": {\"b\": [1,\n      2]},\n    \"registry-mirrors\": [\"http://m:5000\", \"https://b\"],\n    \"insecure-registries\": [\"b\", \"m:5000\"]\n}\n";
        let late = "\n{\"a\":1}";
        let later = new.replacen("{\n", "{\n  \"a\": 1,\n", 1);
        for (existing, want) in [
            ("", new),
            (" \n", new),
            ("{}", new),
            (new, new),
            (old, extended),
            (late, later.as_str()),
        ] {
            assert_eq!(merge(existing).unwrap(), want, "{existing}");
        }
    }

    #[test]
    fn what_lists_the_mirror_already_is_not_touched() {
        let existing =
            r#"{"insecure-registries":["a","m:5000"], "registry-mirrors":["http://m:5000/"]}"#;
        assert_eq!(merge(existing).unwrap(), existing);
    }

    #[test]
    fn what_docker_could_not_read_is_named_with_its_line() {
        for (existing, line) in [
            ("{\n\"a\": 1,\n}", 3),
            ("[]", 1),
            ("{\n\"registry-mirrors\": \"http://m\"}", 2),
            ("{\n\n\"insecure-registries\": [1]}", 3),
        ] {
            assert_eq!(merge(existing).unwrap_err().line, Some(line), "{existing}");
        }
    }
}
