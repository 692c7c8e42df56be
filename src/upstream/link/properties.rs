//! Links against RFC 8288, § 3, read by the letter, one grammar rule after the other.

use http::{HeaderMap, HeaderValue, header::LINK};
use proptest::{collection::vec, prelude::*, sample::select, string::string_regex};

use super::next;
use crate::properties::{assert_always, assert_same, nearly};

#[test]
fn what_the_rfc_allows_is_read_as_the_rfc_has_it() {
    assert_same(
        vec(nearly(values(), " \t,;=\"\\<>ne"), 0..3),
        |values| links_of(values).map(|_| next(&headers(values)).map(str::to_owned)),
        |values| {
            let next = links_of(values)?.into_iter().find(|link| link.is_next);
            Some(next.map(|link| link.target))
        },
    );
}

#[test]
fn whatever_comes_has_an_end() {
    assert_always(vec(any::<u8>(), 0..60), |bytes| {
        if let Ok(value) = HeaderValue::from_bytes(&bytes) {
            next(&HeaderMap::from_iter([(LINK, value)]));
        }
    });
}

fn headers(values: &[String]) -> HeaderMap {
    let values = values.iter().map(|value| HeaderValue::from_str(value).unwrap());
    values.map(|value| (LINK, value)).collect()
}

#[derive(Debug)]
struct Link {
    target: String,
    is_next: bool,
}

/// Every link of all lines. `None`: one of them is against the RFC.
fn links_of(values: &[String]) -> Option<Vec<Link>> {
    let mut links = Vec::new();
    for value in values {
        let mut rest = Rest(value.as_bytes());
        loop {
            rest.skip_spaces();
            if rest.takes(b'<') {
                links.push(rest.link()?);
                rest.skip_spaces();
            }
            if rest.0.is_empty() {
                break;
            }
            rest.takes(b',').then_some(())?;
        }
    }
    Some(links)
}

/// What is not read yet.
struct Rest<'a>(&'a [u8]);

impl Rest<'_> {
    /// `URI-Reference ">" *( OWS ";" OWS [ link-param ] )`
    fn link(&mut self) -> Option<Link> {
        let target = self.run(|byte| byte.is_ascii_graphic() && !b"<>\"".contains(&byte));
        self.takes(b'>').then_some(())?;
        let mut relations = None;
        loop {
            let before = self.0;
            self.skip_spaces();
            if !self.takes(b';') {
                self.0 = before;
                break;
            }
            self.skip_spaces();
            if let Some((name, value)) = self.parameter()?
                && name.to_lowercase() == "rel"
            {
                relations.get_or_insert(value);
            }
        }
        let relations = relations.unwrap_or_default().to_lowercase();
        // A tab is as good as a space here.
        let mut relations = relations.split([' ', '\t']);
        Some(Link { target, is_next: relations.any(|relation| relation == "next") })
    }

    /// `token BWS [ "=" BWS ( token / quoted-string ) ]`, or nothing between two semicolons.
    fn parameter(&mut self) -> Option<Option<(String, String)>> {
        let name = self.token();
        if name.is_empty() {
            return Some(None);
        }
        let before = self.0;
        self.skip_spaces();
        if !self.takes(b'=') {
            self.0 = before;
            return Some(Some((name, String::new())));
        }
        self.skip_spaces();
        let value = if self.takes(b'"') { self.quoted()? } else { self.token() };
        Some(Some((name, value)))
    }

    fn quoted(&mut self) -> Option<String> {
        let mut text = Vec::new();
        while !self.takes(b'"') {
            self.takes(b'\\');
            let (byte, rest) = self.0.split_first()?;
            text.push(*byte);
            self.0 = rest;
        }
        String::from_utf8(text).ok()
    }

    fn token(&mut self) -> String {
        self.run(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
    }

    fn skip_spaces(&mut self) {
        self.run(|byte| byte == b' ' || byte == b'\t');
    }

    fn takes(&mut self, byte: u8) -> bool {
        match self.0.split_first() {
            Some((first, rest)) if *first == byte => {
                self.0 = rest;
                true
            }
            _ => false,
        }
    }

    fn run(&mut self, belongs: impl Fn(u8) -> bool) -> String {
        let mut text = String::new();
        while let Some((first, rest)) = self.0.split_first()
            && belongs(*first)
        {
            text.push(char::from(*first));
            self.0 = rest;
        }
        text
    }
}

/// Legal values of the header.
fn values() -> impl Strategy<Value = String> {
    let comma = select(vec![",", ", ", " ,", "\t, ", ",, ,"]);
    vec((link(), comma), 0..4)
        .prop_map(|links| links.into_iter().map(|(link, comma)| link + comma).collect())
}

fn link() -> impl Strategy<Value = String> {
    let target = string_regex("<(/v2/a/tags/list)?[?]?[a-c,;=&%]{0,4}>").unwrap();
    let semicolon = select(vec![";", "; ", " ; ", ";;", ";\t"]);
    (target, vec((semicolon, parameter()), 0..4)).prop_map(|(target, parameters)| {
        parameters.into_iter().fold(target, |text, (semicolon, it)| text + semicolon + &it)
    })
}

fn parameter() -> impl Strategy<Value = String> {
    let rel = select(vec![
        "rel=next",
        "rel=\"next\"",
        "REL = Next",
        "rel=prev",
        "rel=\"prev next\"",
        "rel=\"nextish\"",
        "rel",
        "rel=\"\"",
        "rel=\"ne\\xt  last\"",
        "title=next",
        "rev=next",
    ]);
    let other = string_regex(r#"title="([a-z ,;<>=]|\\["\\a]){0,6}""#).unwrap();
    prop_oneof![3 => rel.prop_map(str::to_owned), 1 => other]
}
