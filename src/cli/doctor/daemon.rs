//! What a running daemon knows: how upstreams treat it, and registries that were asked for in vain.

use http::StatusCode;
use serde::Deserialize;

use super::{
    report::{Row, Section},
    visit,
};
use crate::{
    config::Listen,
    finding::{Findings, Verdict},
};

/// How many refused names are shown, the newest first.
const NAMES: usize = 10;

/// What is wanted of `/api/v1/upstreams`.
#[derive(Deserialize)]
struct Known {
    upstreams: Vec<Mirrored>,
    refused_namespaces: Vec<Refused>,
}

#[derive(Deserialize)]
struct Mirrored {
    registry: String,
    endpoints: Vec<Endpoint>,
    paused_seconds: Option<u64>,
    ratelimit: Option<RateLimit>,
}

#[derive(Deserialize)]
struct Endpoint {
    url: String,
    breaker: Breaker,
    failures: u32,
    open_seconds: Option<u64>,
    last_error: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Breaker {
    Closed,
    Open,
    HalfOpen,
}

#[derive(Deserialize)]
struct RateLimit {
    limit: Option<u64>,
    remaining: Option<u64>,
}

#[derive(Deserialize)]
struct Refused {
    name: String,
    count: u64,
    last: String,
}

/// Asks the daemon whose admin listener this is.
pub(super) async fn examine(admin: &Listen) -> Vec<Row> {
    let mut findings = Findings::default();
    findings.begin("state");
    match ask(admin).await {
        Ok(known) => {
            findings.end(Verdict::good("running"));
            for upstream in &known.upstreams {
                look_at_endpoints(upstream, &mut findings);
                look_at_limits(upstream, &mut findings);
            }
            look_at_refused(&known.refused_namespaces, &mut findings);
        }
        Err(problem) => findings.end(Verdict::bad(problem)),
    }
    Row::all(Section::Daemon, "daemon", findings.into_vec())
}

async fn ask(admin: &Listen) -> Result<Known, String> {
    let path = "/api/v1/upstreams";
    let answer = visit::get(admin, None, path).await.map_err(|error| error.to_string())?;
    let known = serde_json::from_slice(&answer.body).ok();
    known.filter(|_| answer.status == StatusCode::OK).ok_or_else(|| {
        let status = answer.status.as_u16();
        format!("{status} to GET {path}, which is not understood; is it of another version?")
    })
}

/// Those that are left alone.
fn look_at_endpoints(Mirrored { registry, endpoints, .. }: &Mirrored, findings: &mut Findings) {
    for endpoint in endpoints.iter().filter(|endpoint| endpoint.breaker != Breaker::Closed) {
        let Endpoint { url, failures, open_seconds, last_error, .. } = endpoint;
        let until = match open_seconds {
            Some(seconds) => format!("it is left alone for {seconds} s more"),
            None => "one request is to find out whether it is back".to_owned(),
        };
        let error = last_error.as_deref().unwrap_or("nothing is known of the last");
        let what =
            format!("{registry} at {url} failed {failures} times in a row, {until}: {error}");
        let remedy = format!("larder doctor {registry} finds the step that fails");
        findings.note("endpoint", Verdict::doubtful(format!("{what}; {remedy}")));
    }
}

fn look_at_limits(upstream: &Mirrored, findings: &mut Findings) {
    let Mirrored { registry, paused_seconds, ratelimit, .. } = upstream;
    if let Some(seconds) = paused_seconds {
        let what = format!("{registry} limits requests and is not asked for {seconds} s more");
        findings.note("pause", Verdict::doubtful(what));
    }
    if let Some(RateLimit { limit, remaining: Some(remaining) }) = ratelimit {
        let of = limit.map_or_else(String::new, |limit| format!(" of {limit}"));
        let left = format!("{registry}: {remaining}{of} pulls are left");
        let verdict = match remaining {
            0 => Verdict::doubtful(format!("{left}; credentials may have more")),
            _ => Verdict::good(left),
        };
        findings.note("quota", verdict);
    }
}

fn look_at_refused(refused: &[Refused], findings: &mut Findings) {
    for Refused { name, count, last } in refused.iter().take(NAMES) {
        let remedy = "add an [[upstream]] for it, or correct those who ask";
        let what = format!("{name} is not configured, asked for {count} times until {last}");
        findings.note("refused", Verdict::doubtful(format!("{what}; {remedy}")));
    }
    match refused.len() {
        0 => findings.note("refused", Verdict::good("no client asked for an unknown registry")),
        number if number > NAMES => {
            let more = number.saturating_sub(NAMES);
            findings.note("refused", Verdict::doubtful(format!("and {more} more registries")));
        }
        _ => {}
    }
}
