//! Quotas, read letter by letter, and whatever else may stand in their headers.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use proptest::{collection::vec, prelude::*, string::string_regex};

use super::{Item, LIMIT, Quota, REMAINING, SOURCE, item};
use crate::properties::{assert_always, assert_same, nearly};

#[test]
fn items_are_read_as_they_are_written() {
    assert_same(nearly(items(), "0129;,w= -+a"), |text| item(text), |text| item_in(text));
}

#[test]
fn whatever_comes_has_an_end() {
    let headers = [LIMIT, REMAINING, SOURCE].map(|name| (Just(name), vec(any::<u8>(), 0..30)));
    assert_always(headers, |headers: [(HeaderName, Vec<u8>); 3]| {
        let valid = |(name, value): (HeaderName, Vec<u8>)| {
            Some((name, HeaderValue::from_bytes(&value).ok()?))
        };
        Quota::of(&headers.into_iter().filter_map(valid).collect::<HeaderMap>());
    });
}

fn items() -> impl Strategy<Value = String> {
    string_regex(" ?[0-9]{1,4} ?(; ?(w=[0-9]{1,4}|q=1) ?){0,2}(, ?[0-9]{1,3}(;w=[0-9]{1,3})?)?")
        .unwrap()
}

fn item_in(text: &str) -> Option<Item> {
    let end = text.find(',').unwrap_or(text.len());
    let mut parts: Vec<String> = vec![String::new()];
    for letter in text[..end].chars() {
        match letter {
            ';' => parts.push(String::new()),
            letter => parts.last_mut().unwrap().push(letter),
        }
    }
    let windows = parts.iter().skip(1).map(|part| part.trim_matches(' '));
    let windows = windows.filter(|part| part.starts_with("w=")).map(|part| digits(&part[2..]));
    Some(Item {
        number: digits(parts[0].trim_matches(' '))?,
        window: windows.flatten().next().map(Duration::from_secs),
    })
}

fn digits(text: &str) -> Option<u64> {
    let mut number: Option<u64> = None;
    for letter in text.chars() {
        let digit = u64::from(letter.to_digit(10)?);
        number = Some(number.unwrap_or(0).checked_mul(10)?.checked_add(digit)?);
    }
    number
}
