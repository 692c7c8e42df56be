//! The listeners: whether clients reach them, and whether it is Larder that they reach.

use futures_util::future::join_all;
use http::StatusCode;

use super::{
    daemon,
    report::{Row, Section},
    visit::{self, NoAnswer, Visited},
};
use crate::{
    clock::Clock,
    config::{Config, Listen, Tls},
    finding::{Findings, Verdict},
    server,
};

/// What every registry says of itself.
const API_VERSION: &str = "docker-distribution-api-version";

/// Visits every listener, and asks the daemon behind them what it knows. That none of them is there
/// is no fault: the daemon is not running, and need not be.
pub(super) async fn examine(config: &Config, clock: &Clock) -> Vec<Row> {
    let registry = join_all(config.listen.iter().map(|listen| visit_registry(config, listen)));
    let admin = Listen::Tcp(config.admin.listen);
    let (registry, admin_visit) = tokio::join!(registry, visit_admin(&admin));
    let mut rows = certificate(config, clock);
    let visits: Vec<&Visit> = registry.iter().chain([&admin_visit]).collect();
    if visits.iter().all(|visit| visit.is_absent) {
        rows.extend(not_running(&visits));
        return rows;
    }
    let is_running = !admin_visit.is_absent;
    for visit in registry.into_iter().chain([admin_visit]) {
        rows.extend(Row::all(Section::Listener, &visit.listen, visit.findings.into_vec()));
    }
    if is_running {
        rows.extend(daemon::examine(&admin).await);
    }
    rows
}

/// A listener that was visited.
struct Visit {
    listen: String,
    findings: Findings,
    /// Whether nothing listens there, as far as can be told.
    is_absent: bool,
}

async fn visit_registry(config: &Config, listen: &Listen) -> Visit {
    let tls = config.tls.as_ref().filter(|_| matches!(listen, Listen::Tcp(_)));
    visit(listen, tls, "/v2/", |answer| match answer.status {
        StatusCode::OK if answer.headers.contains_key(API_VERSION) => Verdict::good("serves pulls"),
        StatusCode::FORBIDDEN => {
            Verdict::doubtful("refuses this machine, which is not in access.allow")
        }
        status => not_larder(status, "/v2/"),
    })
    .await
}

async fn visit_admin(listen: &Listen) -> Visit {
    visit(listen, None, "/readyz", |answer| match answer.status {
        StatusCode::OK => Verdict::good("ready"),
        StatusCode::SERVICE_UNAVAILABLE => {
            let reason = String::from_utf8_lossy(&answer.body);
            Verdict::bad(format!("not ready: {}", reason.trim()))
        }
        status => not_larder(status, "/readyz"),
    })
    .await
}

fn not_larder(status: StatusCode, path: &str) -> Verdict {
    let status = status.as_u16();
    Verdict::bad(format!("{status} to GET {path}, as Larder never answers; what listens here?"))
}

async fn visit(
    listen: &Listen,
    tls: Option<&Tls>,
    path: &str,
    judge: impl Fn(&Visited) -> Verdict,
) -> Visit {
    let mut findings = Findings::default();
    findings.begin("reachable");
    let answer = visit::get(listen, tls, path).await;
    let is_absent = is_any_port(listen) || matches!(answer, Err(NoAnswer::Absent));
    findings.end(match &answer {
        _ if is_any_port(listen) => Verdict::skipped("any free port, which only the daemon knows"),
        Ok(visited) => judge(visited),
        Err(NoAnswer::Absent) => Verdict::bad(
            "nothing listens here, but elsewhere; does the daemon have another configuration?",
        ),
        Err(error) if tls.is_some() => Verdict::bad(format!(
            "{error}; after a change of tls.cert the daemon has to be restarted"
        )),
        Err(error) => Verdict::bad(error.to_string()),
    });
    Visit { listen: listen.to_string(), findings, is_absent }
}

fn is_any_port(listen: &Listen) -> bool {
    matches!(listen, Listen::Tcp(address) if address.port() == 0)
}

fn not_running(visits: &[&Visit]) -> Vec<Row> {
    let listeners: Vec<&str> = visits.iter().map(|visit| visit.listen.as_str()).collect();
    let mut findings = Findings::default();
    let what = format!("no: nothing listens on {}", listeners.join(", "));
    findings.note("running", Verdict::skipped(format!("{what}; start it with larder serve")));
    Row::all(Section::Daemon, "daemon", findings.into_vec())
}

/// What `tls.cert` holds.
fn certificate(config: &Config, clock: &Clock) -> Vec<Row> {
    let Some(tls) = &config.tls else {
        return Vec::new();
    };
    let mut findings = Findings::default();
    findings.note(
        "certificate",
        match server::own_certificate(tls) {
            Some(certificate) => certificate.verdict("", clock.wall()),
            None => Verdict::doubtful("cannot be read as one; clients may not either"),
        },
    );
    Row::all(Section::Listener, &tls.cert.display().to_string(), findings.into_vec())
}
