//! What a registry says of its quota: Docker Hub's headers, and the older form of the IETF's
//! (draft-ietf-httpapi-ratelimit-headers-02) that GitLab sends too.

use std::time::Duration;

use http::{HeaderMap, HeaderName};

const LIMIT: HeaderName = HeaderName::from_static("ratelimit-limit");
const REMAINING: HeaderName = HeaderName::from_static("ratelimit-remaining");
/// To whom Docker Hub counts: an address, or the number of an account.
const SOURCE: HeaderName = HeaderName::from_static("docker-ratelimit-source");

/// How long a quota is believed that does not state its window. GitLab counts by the minute.
const UNSTATED_WINDOW: Duration = Duration::from_secs(60);

/// Bytes of a source that are kept.
const MAX_SOURCE: usize = 64;

/// A quota as one answer states it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Quota {
    /// Requests in a window.
    pub(super) limit: Option<u64>,
    /// Requests left in this window.
    pub(super) remaining: Option<u64>,
    pub(super) window: Duration,
    /// To whom they are counted.
    pub(super) source: Option<String>,
}

impl Quota {
    /// `None` when the headers state no quota that can be understood.
    pub(super) fn of(headers: &HeaderMap) -> Option<Quota> {
        let stated = |name| item(headers.get(name)?.to_str().ok()?);
        let (limit, remaining) = (stated(LIMIT), stated(REMAINING));
        let window = remaining.as_ref().or(limit.as_ref())?.window;
        let window = window.or(limit.as_ref().and_then(|limit| limit.window));
        Some(Quota {
            limit: limit.map(|limit| limit.number),
            remaining: remaining.map(|remaining| remaining.number),
            window: window.unwrap_or(UNSTATED_WINDOW),
            source: headers.get(SOURCE).and_then(|source| source.to_str().ok()).and_then(named),
        })
    }
}

/// `100;w=21600`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Item {
    number: u64,
    window: Option<Duration>,
}

/// The first item of a header. What follows it in a list are the policies behind it, and parameters
/// other than the window say nothing here.
fn item(value: &str) -> Option<Item> {
    let first = value.split(',').next()?;
    let mut parts = first.split(';').map(str::trim);
    let number = number(parts.next()?)?;
    let window = parts.find_map(|parameter| self::number(parameter.strip_prefix("w=")?));
    Some(Item { number, window: window.map(Duration::from_secs) })
}

/// Digits only: `parse` alone would take a sign.
fn number(text: &str) -> Option<u64> {
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| is_number)
}

/// What can be shown to people. Whoever sends more has something else to say.
fn named(source: &str) -> Option<String> {
    let source = source.trim();
    let is_name = !source.is_empty() && source.len() <= MAX_SOURCE;
    is_name.then(|| source.to_owned())
}

#[cfg(test)]
mod properties;

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn quota(sent: &[(HeaderName, &str)]) -> Option<Quota> {
        let header = |(name, value): &(HeaderName, &str)| {
            (name.clone(), HeaderValue::from_str(value).unwrap())
        };
        Quota::of(&sent.iter().map(header).collect())
    }

    #[test]
    fn quotas_are_understood_in_each_form() {
        let six_hours = 21_600;
        let table = [
            ("100;w=21600", "76;w=21600", Some(100), Some(76), six_hours),
            ("100;w=21600", "0;w=21600", Some(100), Some(0), six_hours),
            ("100;w=21600", "76", Some(100), Some(76), six_hours),
            ("100", "99", Some(100), Some(99), 60),
            (" 100 ; w=10 ", "99 ; comment=\"x\" ; w=5", Some(100), Some(99), 5),
            ("100, 100;w=60", "99", Some(100), Some(99), 60),
            ("many", "99;w=7", None, Some(99), 7),
            ("100;w=7", "-1", Some(100), None, 7),
            ("100;w=soon", "+1", Some(100), None, 60),
            ("18446744073709551615", "18446744073709551616", Some(u64::MAX), None, 60),
        ];
        for (limit, remaining, want_limit, want_remaining, window) in table {
            let found = quota(&[(LIMIT, limit), (REMAINING, remaining)]).unwrap();
            assert_eq!(found.limit, want_limit, "{limit}");
            assert_eq!(found.remaining, want_remaining, "{remaining}");
            assert_eq!(found.window.as_secs(), window, "{limit} {remaining}");
        }
    }

    #[test]
    fn garbage_is_no_quota() {
        for value in ["", " ", ";w=21600", "unlimited", "1 0", "1.5", "-3", "0x10", ",100"] {
            assert_eq!(quota(&[(LIMIT, value), (REMAINING, value)]), None, "{value:?}");
        }
        assert_eq!(quota(&[(SOURCE, "192.0.2.1")]), None);
    }

    #[test]
    fn a_source_is_kept_if_it_is_a_name() {
        let source = |value: &str| quota(&[(REMAINING, "1"), (SOURCE, value)]).unwrap().source;
        assert_eq!(source("192.0.2.1").as_deref(), Some("192.0.2.1"));
        assert_eq!(source(" "), None);
        assert_eq!(source(&"x".repeat(65)), None);
    }
}
