//! What a running daemon knows: registries that were asked for in vain, and upstreams that want to be
//! left alone.

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
    paused_seconds: Option<u64>,
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
            look_at_pauses(&known.upstreams, &mut findings);
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

fn look_at_pauses(upstreams: &[Mirrored], findings: &mut Findings) {
    for Mirrored { registry, paused_seconds } in upstreams {
        if let Some(seconds) = paused_seconds {
            let what = format!("{registry} limits requests and is not asked for {seconds} s more");
            findings.note("pause", Verdict::doubtful(what));
        }
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
