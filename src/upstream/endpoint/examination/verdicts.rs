//! What the answers in an examination mean, in words for the operator.

use std::time::{Duration, SystemTime};

use http::{HeaderMap, HeaderName, header::DATE};
use url::Url;

use super::NAME_ONE;
use crate::{
    config::Identity,
    finding::Verdict,
    upstream::{
        Error,
        answer::Answer,
        auth::Authorization,
        challenge::Challenge,
        connector::NextHop,
        examination::{SampleImage, SampleSource},
        quota::Quota,
        trust,
    },
};

/// How far our clock and upstream's may be apart. `Date` has seconds, and an answer takes its time.
const MAX_SKEW: Duration = Duration::from_secs(60);

/// How many addresses of a host are shown.
const ADDRESSES: usize = 3;

/// The first addresses that would be dialled, and whose they are.
pub(super) fn addresses(hop: &NextHop) -> String {
    let shown = hop.addresses.iter().take(ADDRESSES).map(|address| address.ip().to_string());
    let shown = shown.collect::<Vec<_>>().join(", ");
    let shown = match hop.addresses.len().saturating_sub(ADDRESSES) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    };
    whose(&shown, hop.proxy.as_ref())
}

/// An address that is dialled, with the proxy whose it is.
pub(super) fn whose(address: &str, proxy: Option<&Url>) -> String {
    match proxy {
        Some(proxy) => format!("{address}, of the proxy {proxy}"),
        None => address.to_owned(),
    }
}

/// What `/v2/` answered.
pub(super) fn root_verdict(answer: &Answer) -> Verdict {
    let status = answer.status.as_u16();
    let is_page = answer.media_type().is_some_and(|media_type| media_type == "text/html");
    match Challenge::best_of(&answer.headers) {
        Some(Challenge::Bearer { realm, .. }) if status == 401 => {
            match trust::checked_step(&answer.url, &realm) {
                Ok(realm) => Verdict::good(format!("tokens come from {}", realm.authority())),
                Err(error) => Verdict::bad(error.to_string()),
            }
        }
        Some(Challenge::Basic) if status == 401 => Verdict::good("asks for a password"),
        _ if status == 401 => Verdict::doubtful("401 that does not say what it wants"),
        _ if answer.status.is_success() && is_page => {
            Verdict::doubtful("a page for people; is this the registry, or a proxy's login?")
        }
        _ if answer.status.is_success() => Verdict::good("open"),
        _ => Verdict::doubtful(format!("{status}, which no registry should answer here")),
    }
}

/// How our time of day differs from that in `Date`.
pub(super) fn clock_verdict(headers: &HeaderMap, now: SystemTime) -> Verdict {
    let date = headers.get(DATE).and_then(|date| date.to_str().ok());
    let Some(theirs) = date.and_then(|date| httpdate::parse_http_date(date).ok()) else {
        return Verdict::skipped("the answer has no Date");
    };
    let (apart, direction) = match now.duration_since(theirs) {
        Ok(ahead) => (ahead, "ahead of"),
        Err(behind) => (behind.duration(), "behind"),
    };
    let seconds = apart.as_secs();
    match apart > MAX_SKEW {
        true => Verdict::doubtful(format!(
            "{seconds} s {direction} upstream's; set the clock, or tokens and certificates may fail"
        )),
        false => Verdict::good(format!("{seconds} s {direction} upstream's")),
    }
}

/// What is presented, without the secret in it.
pub(super) fn described(authorization: &Authorization) -> String {
    match authorization {
        Authorization::Given(_) => "none; the credentials go with each request".to_owned(),
        Authorization::Bearer(_, grant) => format!("from {}", grant.realm.authority()),
    }
}

/// What the HEAD of a manifest answered.
pub(super) fn head_verdict(sample: &SampleImage, answer: &Answer) -> Verdict {
    let SampleImage { name, reference, .. } = sample;
    let digest = answer.header(HeaderName::from_static("docker-content-digest"));
    match digest {
        Some(digest) => Verdict::good(format!("{name} {reference} is {digest}")),
        None => Verdict::doubtful(format!(
            "{name} {reference} is there, but the answer has no digest: each check takes a GET"
        )),
    }
}

/// Why there is no answer to it, be it for want of a token.
pub(super) fn refusal_verdict(sample: &SampleImage, identity: &Identity, error: Error) -> Verdict {
    match error {
        Error::Denied(_) => denied(&error, identity),
        Error::NotFound(ref message) if sample.source == SampleSource::WellKnown => {
            Verdict::doubtful(format!("{message}; {NAME_ONE}"))
        }
        Error::HeadRefused(message) => {
            Verdict::doubtful(format!("{message}; each check takes a GET, which counts as a pull"))
        }
        Error::Limited { ref message, retry_after: Some(time) } => {
            Verdict::bad(format!("{message}; to be asked again in {} s", time.as_secs()))
        }
        Error::Unreachable(_)
        | Error::Unavailable { .. }
        | Error::HeldBack(_)
        | Error::Timeout(_)
        | Error::NotFound(_)
        | Error::Limited { .. }
        | Error::RefusedElsewhere(_)
        | Error::Offline(_)
        | Error::Invalid(_) => Verdict::bad(error.to_string()),
    }
}

fn denied(error: &Error, identity: &Identity) -> Verdict {
    let remedy = match identity {
        Identity::Anonymous => "what is private needs credentials",
        Identity::User { .. } | Identity::Token(_) | Identity::RegistryToken(_) => {
            "are the credentials still good, and may they pull this?"
        }
    };
    Verdict::bad(format!("{error}; {remedy}"))
}

/// How much is left.
pub(super) fn quota_verdict(quota: &Quota) -> Verdict {
    let window = match quota.window.as_secs() {
        hours if hours % 3600 == 0 => format!("{} h", hours / 3600),
        seconds => format!("{seconds} s"),
    };
    let allowed = match quota.limit {
        Some(limit) => format!("{limit} pulls in {window}"),
        None => format!("the pulls in {window}"),
    };
    match quota.remaining {
        Some(0) => Verdict::doubtful(format!("0 of {allowed} are left; credentials may have more")),
        Some(remaining) => Verdict::good(format!("{remaining} of {allowed} are left")),
        None => Verdict::good(format!("{allowed}; how many are left is not said")),
    }
}
