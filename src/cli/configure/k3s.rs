//! K3s and RKE2, which write containerd's files by `registries.yaml`.

use std::collections::HashSet;

use yaml_serde::{Mapping, Value};

use super::setup::{File, Mistake, Setup, Site};

/// K3s's configuration of registries.
const PATH: &str = "/etc/rancher/k3s/registries.yaml";

/// What stands above a file that Larder makes.
const HEADER: &str = "# Larder is asked first; what it cannot serve comes from the registry.\n";

/// What K3s has to be told.
pub(super) fn setup(site: &Site) -> Setup<'_> {
    let mut notes = vec![
        "On each node, then: systemctl restart k3s, or k3s-agent. RKE2's file is\n\
         /etc/rancher/rke2/registries.yaml, its services are rke2-server and rke2-agent."
            .to_owned(),
        "Leave \"*\" out of mirrors: with containerd 2.0 its images come from the mirror only, and\n\
         Larder has just those that it is configured for. A rewrite of one of these changes what\n\
         Larder is asked for too."
            .to_owned(),
        "Where this file is merged with another, comments are lost; the backup has them.".to_owned(),
    ];
    if !site.mirror.is_plain() {
        notes.push(format!(
            "If the mirror's certificate is of a private authority, name its file too:\n  \
             configs:\n    \"{}\":\n      tls:\n        ca_file: /etc/ssl/certs/larder-ca.pem",
            site.mirror.authority()
        ));
    }
    Setup { files: vec![File::new(PATH, |existing| merge(existing, site))], notes }
}

fn merge(existing: &str, site: &Site) -> Result<String, Mistake> {
    let mut root = parse(existing)?;
    let mut is_changed = false;
    let mirrors = mapping(&mut root, "mirrors")?;
    for registry in &site.registries {
        // A path makes this the whole address of the API: nothing is put before or behind it.
        let endpoint = format!("{}/v2/{}", site.mirror.url(), registry.name);
        is_changed |= list_first(mapping(mirrors, &registry.name)?, "endpoint", &endpoint)?;
    }
    if !is_changed {
        return Ok(existing.to_owned());
    }
    if let Some(key) = respelt(&root, &words(existing)) {
        let message = "would be spelt otherwise when it is written anew; put it in quotes";
        return Err(Mistake::of_all(format!("the value of {key} {message}")));
    }
    let text = yaml_serde::to_string(&root).map_err(|error| Mistake::of_all(error.to_string()))?;
    Ok(if existing.trim().is_empty() { format!("{HEADER}{text}") } else { text })
}

fn parse(text: &str) -> Result<Mapping, Mistake> {
    let value: Value = yaml_serde::from_str(text).map_err(|error| Mistake {
        line: error.location().map(|location| location.line()),
        message: format!("this is no YAML: {error}"),
    })?;
    if value.is_null() {
        return Ok(Mapping::new());
    }
    let mapping = value.as_mapping().cloned();
    mapping.ok_or_else(|| Mistake::of_all("this is no YAML mapping"))
}

/// All that could be numbers.
fn words(text: &str) -> HashSet<&str> {
    text.split(|letter: char| !letter.is_ascii_alphanumeric() && !"+-.".contains(letter)).collect()
}

/// The key of a number or truth value whose spelling is not among `words`. The spelling counts: to
/// K3s it may be a password.
fn respelt(mapping: &Mapping, words: &HashSet<&str>) -> Option<String> {
    mapping.iter().find_map(|(key, value)| {
        let name = yaml_serde::to_string(key).unwrap_or_default();
        respelt_in(name.trim_end(), value, words)
    })
}

fn respelt_in(key: &str, value: &Value, words: &HashSet<&str>) -> Option<String> {
    match value {
        Value::Mapping(mapping) => respelt(mapping, words),
        Value::Sequence(list) => list.iter().find_map(|value| respelt_in(key, value, words)),
        Value::Tagged(tagged) => respelt_in(key, &tagged.value, words),
        Value::Bool(_) | Value::Number(_) => {
            let spelling = yaml_serde::to_string(value).unwrap_or_default();
            (!words.contains(spelling.trim_end())).then(|| key.to_owned())
        }
        Value::Null | Value::String(_) => None,
    }
}

/// The mapping below a key, made where nothing is.
fn mapping<'a>(parent: &'a mut Mapping, key: &str) -> Result<&'a mut Mapping, Mistake> {
    let value = parent.entry(key.into()).or_insert(Value::Null);
    if value.is_null() {
        *value = Value::Mapping(Mapping::new());
    }
    value.as_mapping_mut().ok_or_else(|| Mistake::of_all(format!("{key} is no mapping")))
}

/// Puts a text at the head of a list; whether it was not in it.
fn list_first(parent: &mut Mapping, key: &str, text: &str) -> Result<bool, Mistake> {
    let value = parent.entry(key.into()).or_insert(Value::Null);
    if value.is_null() {
        *value = Value::Sequence(Vec::new());
    }
    let list = value.as_sequence_mut();
    let list = list.ok_or_else(|| Mistake::of_all(format!("{key} is no list")))?;
    let is_there =
        list.iter().filter_map(Value::as_str).any(|listed| listed.trim_end_matches('/') == text);
    if !is_there {
        list.insert(0, text.into());
    }
    Ok(!is_there)
}
