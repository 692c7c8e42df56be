//! The families that tell how upstream is, and what it was asked.

use prometheus::{HistogramVec, IntCounterVec, IntGaugeVec};

use super::{Families, REGISTRY};

/// How upstream is, and what it was asked. Fields are named like the families, without
/// `larder_upstream_`.
#[derive(Debug)]
pub struct Upstream {
    /// Requests, by `registry`, `operation` and status `code` (or `error`).
    pub requests: IntCounterVec,
    /// Seconds until the headers, by `registry` and `operation`.
    pub seconds: HistogramVec,
    /// Body bytes received, by `registry`.
    pub bytes: IntCounterVec,
    /// Whether the last request was answered, by `registry`.
    pub up: IntGaugeVec,
    /// Whether an endpoint is asked (1) or left alone after failures in a row (0), by `registry` and
    /// `endpoint` (host and path).
    pub endpoint_up: IntGaugeVec,
    /// Rounds in which endpoints were asked again that had failed a moment before, by `registry`.
    pub retries: IntCounterVec,
}

impl Upstream {
    pub(super) fn new(make: &Families<'_>) -> Upstream {
        Upstream {
            requests: make.counters(
                "upstream_requests_total",
                "Requests to upstream.",
                &["registry", "operation", "code"],
            ),
            seconds: make.histograms(
                "upstream_seconds",
                "Seconds to upstream's headers.",
                &["registry", "operation"],
            ),
            bytes: make.counters("upstream_bytes_total", "Body bytes received.", REGISTRY),
            up: make.gauges("upstream_up", "Whether upstream answers.", REGISTRY),
            endpoint_up: make.gauges(
                "upstream_endpoint_up",
                "Whether an endpoint is asked.",
                &["registry", "endpoint"],
            ),
            retries: make.counters(
                "upstream_retries_total",
                "Rounds in which endpoints were asked again.",
                REGISTRY,
            ),
        }
    }
}
