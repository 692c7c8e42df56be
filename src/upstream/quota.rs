//! How much more a registry gives, as Docker Hub says it: `ratelimit-limit: 100;w=21600` and
//! `ratelimit-remaining: 20;w=21600`, the window in seconds.

use std::fmt;

use http::HeaderMap;

/// What is left of what a registry gives in a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Quota {
    /// Pulls that are left.
    pub(super) remaining: u64,
    limit: u64,
    /// Seconds.
    window: Option<u64>,
}

impl Quota {
    /// What the headers of an answer say; `None`: it is not limited.
    pub(super) fn of(headers: &HeaderMap) -> Option<Quota> {
        let (limit, window) = value(headers, "ratelimit-limit")?;
        let (remaining, _) = value(headers, "ratelimit-remaining")?;
        Some(Quota { remaining, limit, window })
    }
}

fn value(headers: &HeaderMap, name: &str) -> Option<(u64, Option<u64>)> {
    let text = headers.get(name)?.to_str().ok()?;
    let (number, parameters) = text.split_once(';').unwrap_or((text, ""));
    let window = parameters.split(';').find_map(|parameter| parameter.trim().strip_prefix("w="));
    Some((number.trim().parse().ok()?, window.and_then(|window| window.parse().ok())))
}

/// `20 of 100 pulls in 6 h are left`
impl fmt::Display for Quota {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Quota { remaining, limit, window } = self;
        write!(f, "{remaining} of {limit} pulls")?;
        match window {
            Some(seconds) if seconds % 3600 == 0 => write!(f, " in {} h", seconds / 3600)?,
            Some(seconds) => write!(f, " in {seconds} s")?,
            None => {}
        }
        f.write_str(" are left")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotas_are_read_as_docker_hub_writes_them() {
        for (limit, remaining, want) in [
            ("100;w=21600", "20;w=21600", Some("20 of 100 pulls in 6 h are left")),
            ("10; w=90", "0", Some("0 of 10 pulls in 90 s are left")),
            ("10", "9", Some("9 of 10 pulls are left")),
            ("10;w=soon", "9;w=soon", Some("9 of 10 pulls are left")),
            ("many", "9", None),
            ("10", "-1", None),
            ("10", "99999999999999999999", None),
        ] {
            let headers = [("ratelimit-limit", limit), ("ratelimit-remaining", remaining)];
            let header = |(name, value): (&'static str, &'static str)| {
                (http::HeaderName::from_static(name), http::HeaderValue::from_static(value))
            };
            let quota = Quota::of(&headers.into_iter().map(header).collect());
            let quota = quota.map(|quota| quota.to_string());
            assert_eq!(quota.as_deref(), want, "{limit} {remaining}");
        }
        assert_eq!(Quota::of(&HeaderMap::new()), None);
    }
}
