//! Challenges against RFC 9110, § 11.6.1, read by the letter: first words, then lists of them.

use http::{HeaderMap, HeaderValue, header::WWW_AUTHENTICATE};
use proptest::{collection::vec, option, prelude::*, sample::select, string::string_regex};

use super::Challenge;
use crate::properties::{assert_always, assert_same, nearly};

#[test]
fn what_the_rfc_allows_is_read_as_the_rfc_has_it() {
    assert_same(
        vec(nearly(values(), " \t,=\"\\az/Bb"), 0..3),
        |values| offers_of(values).map(|_| Challenge::best_of(&headers(values))),
        |values| offers_of(values).map(|offers| best_of(&offers)),
    );
}

#[test]
fn whatever_comes_has_an_end() {
    assert_always(vec(any::<u8>(), 0..60), |bytes| {
        if let Ok(value) = HeaderValue::from_bytes(&bytes) {
            Challenge::best_of(&HeaderMap::from_iter([(WWW_AUTHENTICATE, value)]));
        }
    });
}

fn headers(values: &[String]) -> HeaderMap {
    let values = values.iter().map(|value| HeaderValue::from_bytes(value.as_bytes()).unwrap());
    values.map(|value| (WWW_AUTHENTICATE, value)).collect()
}

/// A scheme and its parameters, in the letters that were sent.
#[derive(Debug, Default)]
struct Offered {
    scheme: String,
    parameters: Vec<(String, String)>,
}

fn best_of(offers: &[Offered]) -> Option<Challenge> {
    let is =
        |scheme: &'static str| move |offer: &&Offered| offer.scheme.to_ascii_lowercase() == scheme;
    let value = |offer: &Offered, key: &str| {
        let mut values = offer.parameters.iter().filter(|(name, _)| name.to_lowercase() == key);
        values.find(|(_, value)| !value.is_empty()).map(|(_, value)| value.clone())
    };
    let mut bearers = offers.iter().filter(is("bearer"));
    let bearer = bearers.find(|offer| value(offer, "realm").is_some()).map(|offer| {
        let realm = value(offer, "realm").unwrap();
        Challenge::Bearer { realm, service: value(offer, "service"), scope: value(offer, "scope") }
    });
    bearer.or_else(|| offers.iter().find(is("basic")).map(|_| Challenge::Basic))
}

/// What a header is made of.
#[derive(Clone, Debug, PartialEq)]
enum Part {
    Word(String),
    Quoted(String),
    Spaces(String),
    Comma,
    Equals,
}

/// Everything that is offered in all lines. `None`: one of them is against the RFC.
fn offers_of(values: &[String]) -> Option<Vec<Offered>> {
    let mut offers = Vec::new();
    for value in values {
        let parts = parts_of(value)?;
        let mut in_this_line = Vec::new();
        for element in parts.split(|part| *part == Part::Comma) {
            read_element(trimmed(element), &mut in_this_line)?;
        }
        offers.extend(in_this_line);
    }
    Some(offers)
}

/// Reads what stands between two commas: a parameter more for the challenge before, or a new
/// challenge with nothing, a token68 or its first parameter.
fn read_element(element: &[Part], offers: &mut Vec<Offered>) -> Option<()> {
    if element.is_empty() {
        return Some(());
    }
    if let Some(parameter) = parameter(element) {
        offers.last_mut()?.parameters.push(parameter);
        return Some(());
    }
    let [Part::Word(scheme), rest @ ..] = element else {
        return None;
    };
    let mut offer = Offered { scheme: token(scheme)?, parameters: Vec::new() };
    let mut token68 = None;
    match rest {
        [] => {}
        [Part::Spaces(spaces), rest @ ..] if !spaces.contains('\t') => match parameter(rest) {
            Some(parameter) => offer.parameters.push(parameter),
            None => token68 = Some(padded(rest)?),
        },
        _ => return None,
    }
    offers.push(offer);
    // Without padding it looks like a scheme, and registries do forget commas.
    if let Some((word, false)) = token68 {
        offers.push(Offered { scheme: word, parameters: Vec::new() });
    }
    Some(())
}

fn parameter(parts: &[Part]) -> Option<(String, String)> {
    let parts: Vec<&Part> = match parts {
        [Part::Word(_), .., Part::Word(_) | Part::Quoted(_)] => {
            parts.iter().filter(|part| !matches!(part, Part::Spaces(_))).collect()
        }
        _ => return None,
    };
    match parts.as_slice() {
        [Part::Word(name), Part::Equals, Part::Word(value)] => Some((token(name)?, token(value)?)),
        [Part::Word(name), Part::Equals, Part::Quoted(value)] => {
            Some((token(name)?, value.clone()))
        }
        _ => None,
    }
}

/// A token68, and whether padding follows its letters.
fn padded(parts: &[Part]) -> Option<(String, bool)> {
    let [Part::Word(word), padding @ ..] = parts else {
        return None;
    };
    let is_token68 = |letter: char| letter.is_ascii_alphanumeric() || "-._~+/".contains(letter);
    let is_legal = word.chars().all(is_token68) && padding.iter().all(|it| *it == Part::Equals);
    is_legal.then(|| (word.clone(), !padding.is_empty()))
}

fn token(word: &str) -> Option<String> {
    let is_legal =
        |letter: char| letter.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(letter);
    word.chars().all(is_legal).then(|| word.to_owned())
}

fn trimmed(mut parts: &[Part]) -> &[Part] {
    while let [Part::Spaces(_), rest @ ..] | [rest @ .., Part::Spaces(_)] = parts {
        parts = rest;
    }
    parts
}

/// `None`: a quoted string has no end.
fn parts_of(value: &str) -> Option<Vec<Part>> {
    let mut parts = Vec::new();
    let mut letters = value.chars().peekable();
    while let Some(letter) = letters.next() {
        match letter {
            ',' => parts.push(Part::Comma),
            '=' => parts.push(Part::Equals),
            '"' => {
                let mut text = String::new();
                loop {
                    match letters.next()? {
                        '"' => break,
                        '\\' => text.push(letters.next()?),
                        letter => text.push(letter),
                    }
                }
                parts.push(Part::Quoted(text));
            }
            ' ' | '\t' => match parts.last_mut() {
                Some(Part::Spaces(spaces)) => spaces.push(letter),
                _ => parts.push(Part::Spaces(letter.to_string())),
            },
            _ => match parts.last_mut() {
                Some(Part::Word(word)) => word.push(letter),
                _ => parts.push(Part::Word(letter.to_string())),
            },
        }
    }
    // `a"b"` and `"a"b` and `"a""b"` are no two parts of anything.
    let touches = |pair: &[Part]| {
        matches!(
            pair,
            [Part::Quoted(_), Part::Word(_) | Part::Quoted(_)] | [Part::Word(_), Part::Quoted(_)]
        )
    };
    (!parts.windows(2).any(touches)).then_some(parts)
}

/// Legal values of the header.
fn values() -> impl Strategy<Value = String> {
    let comma = select(vec![",", ", ", " ,", "\t, ", ",, ,"]);
    vec((challenge(), comma), 0..4).prop_map(|challenges| {
        challenges.into_iter().map(|(challenge, comma)| challenge + comma).collect()
    })
}

fn challenge() -> impl Strategy<Value = String> {
    let scheme = select(vec!["Bearer", "bearer", "Basic", "BASIC", "Negotiate", "Digest"]);
    let token68 = string_regex("[a-zA-Z+/~]{1,5}={0,3}").unwrap();
    let comma = select(vec![",", ", ", " ,", ",,"]);
    let parameters = (parameter_text(), vec((comma, parameter_text()), 0..4));
    let parameters = parameters.prop_map(|(first, rest)| {
        rest.into_iter().fold(first, |text, (comma, parameter)| text + comma + &parameter)
    });
    let rest = option::weighted(0.9, prop_oneof![1 => token68, 6 => parameters]);
    (scheme, select(vec![" ", "  "]), rest).prop_map(|(scheme, space, rest)| {
        rest.map_or(scheme.to_owned(), |rest| format!("{scheme}{space}{rest}"))
    })
}

fn parameter_text() -> impl Strategy<Value = String> {
    let name = select(vec!["realm", "realm", "REALM", "service", "scope", "error"]);
    let token = string_regex("[a-z.*]{1,4}").unwrap();
    let quoted = string_regex(r#""([a-z ,=/?:é\t]|\\[a-z"\\ ,]){0,5}""#).unwrap();
    let equals = select(vec!["=", "=", "=", " =", "= ", "\t=\t"]);
    let value = prop_oneof![1 => token, 3 => quoted];
    (name, equals, value).prop_map(|(name, equals, value)| format!("{name}{equals}{value}"))
}
