//! Names against the grammar of the distribution specification, read letter by letter.

use proptest::{prelude::*, sample::select, string::string_regex};

use super::{Name, Reference, Registry, Repository, Tag};
use crate::{
    oci::digest::properties::{digests, is_digest},
    properties::{assert_same, nearly},
};

const LOWER: &str = "abcdefghijklmnopqrstuvwxyz";
const UPPER: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZ";
const DIGITS: &str = "0123456789";

/// Letters that make a name wrong, or another name.
const SPICE: &str = "a0A/._-:[]@ é%\0";

#[test]
fn a_name_is_what_its_grammar_says() {
    assert_same(
        nearly(names(), SPICE),
        |text| text.parse().ok().map(|name: Name| name.to_string()),
        |text| is_name(text).then(|| text.clone()),
    );
}

#[test]
fn a_tag_is_what_its_grammar_says() {
    assert_same(
        nearly(tags(), SPICE),
        |text| text.parse().ok().map(|tag: Tag| tag.to_string()),
        |text| is_tag(text).then(|| text.clone()),
    );
}

#[test]
fn a_registry_is_what_its_grammar_says() {
    assert_same(
        nearly(registries(), "a0A.-:+[]@/ é"),
        |text| text.parse().ok().map(|registry: Registry| registry.to_string()),
        |text| is_registry(text).then(|| text.to_ascii_lowercase()),
    );
}

#[test]
fn a_reference_is_a_tag_or_a_digest() {
    let kind = |reference: Reference| match reference {
        Reference::Tag(tag) => ("tag", tag.to_string()),
        Reference::Digest(digest) => ("digest", digest.to_string()),
    };
    assert_same(
        nearly(prop_oneof![tags(), digests()], SPICE),
        |text| text.parse().ok().map(kind),
        |text| match (is_tag(text), is_digest(text)) {
            (true, false) => Some(("tag", text.clone())),
            (false, true) => Some(("digest", text.clone())),
            (false, false) => None,
            (true, true) => panic!("{text} is both"),
        },
    );
}

#[test]
fn a_repository_is_a_registry_and_a_name() {
    let full = (registries(), names()).prop_map(|(registry, name)| format!("{registry}/{name}"));
    let parts =
        |repository: Repository| (repository.registry().to_string(), repository.name().to_string());
    assert_same(
        nearly(full, SPICE),
        |text| text.parse().ok().map(parts),
        |text| {
            let splits = text.match_indices('/').map(|(place, _)| text.split_at(place));
            let mut splits = splits.map(|(registry, rest)| (registry, &rest[1..]));
            let split = splits.find(|(registry, name)| is_registry(registry) && is_name(name));
            split.map(|(registry, name)| (registry.to_ascii_lowercase(), name.to_owned()))
        },
    );
}

/// Components between slashes, at most 255 letters.
fn is_name(text: &str) -> bool {
    text.chars().count() <= 255 && text.split('/').all(is_component)
}

/// Words with one dot, one or two underscores or any number of dashes in between.
fn is_component(text: &str) -> bool {
    let is_of_word = |letter: char| is_in(letter, &[LOWER, DIGITS]);
    let letters: Vec<char> = text.chars().collect();
    let runs: Vec<String> = letters
        .chunk_by(|left, right| is_of_word(*left) == is_of_word(*right))
        .map(|run| run.iter().collect())
        .collect();
    let is_word = |run: &String| run.chars().all(is_of_word);
    let is_gap = |run: &String| {
        [".", "_", "__"].contains(&run.as_str()) || run.chars().all(|letter| letter == '-')
    };
    runs.first().is_some_and(is_word)
        && runs.last().is_some_and(is_word)
        && runs.iter().all(|run| is_word(run) || is_gap(run))
}

/// `[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}`
fn is_tag(text: &str) -> bool {
    let mut letters = text.chars();
    letters.next().is_some_and(|first| is_in(first, &[LOWER, UPPER, DIGITS, "_"]))
        && letters.clone().count() <= 127
        && letters.all(|letter| is_in(letter, &[LOWER, UPPER, DIGITS, "._-"]))
}

/// A host name, or an IPv6 address in brackets, and perhaps a port.
fn is_registry(text: &str) -> bool {
    let with_port = text.match_indices(':').any(|(colon, _)| {
        let port = &text[colon + 1..];
        let digits_only = !port.is_empty() && port.chars().all(|digit| is_in(digit, &[DIGITS]));
        is_host(&text[..colon]) && digits_only && matches!(port.parse(), Ok(1_u16..))
    });
    text.len() <= 255 && (is_host(text) || with_port)
}

fn is_host(text: &str) -> bool {
    let is_label = |label: &str| {
        let letters: Vec<char> = label.chars().collect();
        let inner = |letter: &char| is_in(*letter, &[LOWER, UPPER, DIGITS, "-"]);
        letters.iter().all(inner)
            && letters.first().is_some_and(|first| *first != '-')
            && letters.last().is_some_and(|last| *last != '-')
    };
    let address = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    text.split('.').all(is_label)
        || address.is_some_and(|address| address.parse::<std::net::Ipv6Addr>().is_ok())
}

fn is_in(letter: char, alphabets: &[&str]) -> bool {
    alphabets.iter().any(|alphabet| alphabet.contains(letter))
}

/// Valid names, some of about the greatest length.
fn names() -> impl Strategy<Value = String> {
    let component = r"[a-c0-2]{1,3}(([.]|_|__|-{1,3})[a-c0-2]{1,2}){0,2}";
    let usual = string_regex(&format!("{component}(/{component}){{0,3}}")).unwrap();
    let long = string_regex("([ab]{3}/){63}[ab]{1,5}").unwrap();
    let special = select(vec!["manifests", "blobs", "tags/list", "v2", "library/busybox"]);
    prop_oneof![6 => usual, 1 => long, 1 => special.prop_map(str::to_owned)]
}

/// Valid tags, some of about the greatest length.
fn tags() -> impl Strategy<Value = String> {
    let usual = string_regex("[a-cA-C0-2_][a-cA-C0-2_.-]{0,6}").unwrap();
    let long = string_regex("[a-z][a-z.-]{126,128}").unwrap();
    prop_oneof![6 => usual, 1 => long, 1 => Just("list".to_owned())]
}

/// Valid registries.
fn registries() -> impl Strategy<Value = String> {
    let host = string_regex(r"[a-cA0](-{0,2}[a0]){0,2}([.][a-c0](-{0,2}[a0]){0,2}){0,3}").unwrap();
    let address = select(vec!["[::1]", "[fe80::a:0]", "10.0.0.1", "[::ffff:1.2.3.4]"]);
    let port = string_regex("(:[0-9]{1,5})?").unwrap();
    let host = prop_oneof![3 => host, 1 => address.prop_map(str::to_owned)];
    (host, port).prop_map(|(host, port)| host + &port)
}
