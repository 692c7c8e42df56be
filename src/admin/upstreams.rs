//! `GET /api/v1/upstreams`: the registries that are mirrored, how they are, and what was refused.

use std::time::Duration;

use serde_json::{Value, json};

use crate::{
    config::{self, Glob},
    metrics::Metrics,
    refused::{Refused, RefusedName},
    upstream::{BreakerState, EndpointState, RateLimit, Upstream},
};

/// What is shown of the upstreams.
#[derive(Clone)]
pub struct Upstreams {
    mirrored: Vec<(config::Upstream, Upstream)>,
    refused: Refused,
}

impl Upstreams {
    /// Shows these upstreams, each with how it is configured, and what `refused` remembers.
    pub fn new(mirrored: Vec<(config::Upstream, Upstream)>, refused: Refused) -> Upstreams {
        Upstreams { mirrored, refused }
    }

    /// All of it as it is now. Holds no secret.
    pub(super) fn document(&self) -> Value {
        let upstreams = self.mirrored.iter();
        let upstreams: Vec<Value> =
            upstreams.map(|(config, upstream)| shown(config, upstream)).collect();
        let refused: Vec<Value> = self.refused.newest().iter().map(refused).collect();
        json!({ "upstreams": upstreams, "refused_namespaces": refused })
    }

    /// Brings what upstream stated of its limits into the metrics, and takes what is out of date from
    /// there.
    pub(super) fn show_ratelimits(&self, metrics: &Metrics) {
        for (config, upstream) in &self.mirrored {
            let last = upstream.state().rate_limit;
            let (limit, remaining) = last.map_or((None, None), |last| (last.limit, last.remaining));
            metrics.limits.show_ratelimit(config.registry.as_str(), limit, remaining);
        }
    }
}

fn shown(config: &config::Upstream, upstream: &Upstream) -> Value {
    let state = upstream.state();
    let endpoints = config.endpoints.iter().zip(upstream.endpoints());
    let endpoints: Vec<Value> = endpoints.map(|(config, state)| endpoint(config, &state)).collect();
    let shared: Vec<&str> = config.share_private.iter().map(Glob::as_str).collect();
    json!({
        "registry": config.registry.as_str(),
        "aliases": config.aliases,
        "server_names": config.server_names,
        "default": config.default,
        "offline": config.offline,
        "endpoints": endpoints,
        "share_private": shared,
        "tag_ttl_seconds": config.tag_ttl.as_secs(),
        "answered_seconds_ago": state.since_answer.map(|time| time.as_secs()),
        "paused_seconds": state.pause_left.map(whole_seconds),
        "ratelimit": state.rate_limit.as_ref().map(ratelimit),
    })
}

fn ratelimit(last: &RateLimit) -> Value {
    json!({
        "limit": last.limit,
        "remaining": last.remaining,
        "window_seconds": last.window.as_secs(),
        "source": last.source,
        "seen_seconds_ago": last.seen.as_secs(),
    })
}

fn endpoint(config: &config::Endpoint, state: &EndpointState) -> Value {
    let (breaker, left) = match state.breaker {
        BreakerState::Closed => ("closed", None),
        BreakerState::Open(left) => ("open", Some(left)),
        BreakerState::HalfOpen => ("half_open", None),
    };
    json!({
        "url": config.url.as_str(),
        "insecure_skip_verify": config.insecure_skip_verify,
        "breaker": breaker,
        "failures": state.failures,
        "open_seconds": left.map(whole_seconds),
        "last_error": state.last_error,
    })
}

fn refused(refused: &RefusedName) -> Value {
    json!({
        "name": refused.name,
        "count": refused.count,
        "last": humantime::format_rfc3339_seconds(refused.last).to_string(),
    })
}

/// Rounded up: when they have passed, it is over.
fn whole_seconds(time: Duration) -> u64 {
    time.as_secs().saturating_add(u64::from(time.subsec_nanos() > 0))
}
