//! Every metric family, in one struct with its own registry. Passed down, never global.
//!
//! Labels are bounded: registries come from the configuration, everything else from the words
//! written here. A name that a client made up never becomes a label.

mod limits;
mod upstream;

use prometheus::{
    Encoder as _, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec,
    Opts, TextEncoder, core::Collector, process_collector::ProcessCollector,
};

pub use limits::{InUse, Limits};
pub use upstream::Upstream;

/// Upper bounds of the histograms, in seconds: from a hit to a large layer on a slow line.
const SECONDS: [f64; 10] = [0.000_5, 0.002, 0.01, 0.05, 0.25, 1.0, 5.0, 20.0, 60.0, 300.0];

const EVICTED_BYTES: &str =
    "Bytes removed: expired, for max_size, for min_free, or partial downloads.";
const EVICTED_BLOBS: &str =
    "Blobs removed: expired, for max_size, for min_free, or partial downloads.";

/// The label of what is counted by registry.
const REGISTRY: &[&str] = &["registry"];

/// The metric families of Larder. Fields are named like the families, without `larder_`.
#[derive(Debug)]
pub struct Metrics {
    registry: prometheus::Registry,
    /// Client requests by `endpoint`, `method` and status `code` (`none`: the client hung up first).
    pub requests: IntCounterVec,
    /// Seconds from a client's request to the end of the answer, by `endpoint`.
    pub request_seconds: HistogramVec,
    /// How look-ups ended, by `registry`, `kind` (manifest, blob, tags, referrers) and `result`
    /// (hit, miss, join, stale, revalidated, negative).
    pub lookups: IntCounterVec,
    /// Body bytes sent to clients, by `registry`, `kind` and `source` (cache, download, upstream).
    pub served_bytes: IntCounterVec,
    /// Bodies that went past the store, by `reason`.
    pub passthrough: IntCounterVec,
    /// How upstream is, and what it was asked.
    pub upstream: Upstream,
    /// What upstream allows, and what of that is used.
    pub limits: Limits,
    /// Requests refused for a namespace outside the configured set.
    pub refused_namespaces: IntCounter,
    /// Downloads running now.
    pub downloads_in_flight: IntGauge,
    /// Clients reading from a download in progress now.
    pub download_followers: IntGauge,
    /// Requests by which broken downloads went on, by `registry`.
    pub download_resumes: IntCounterVec,
    /// Downloads that failed, by `registry` and `reason`; with the reason `range`, parts of blobs
    /// that upstream did not give by themselves.
    pub download_failures: IntCounterVec,
    /// Bytes held in the store.
    pub store_bytes: IntGauge,
    /// Blobs held in the store, manifests included.
    pub store_blobs: IntGauge,
    /// Bytes that the store may hold, and what goes with it on disk.
    pub store_limit_bytes: IntGauge,
    /// Bytes free on the store's file system.
    pub store_free_bytes: IntGauge,
    /// Whether the store can be written (1) or not (0).
    pub store_writable: IntGauge,
    /// Damaged blobs found and quarantined.
    pub store_damaged_blobs: IntCounter,
    /// Bytes removed from the store, by `reason` (expired, max_size, min_free; partial: of half-done
    /// downloads).
    pub evicted_bytes: IntCounterVec,
    /// Blobs removed from the store, by `reason`.
    pub evicted_blobs: IntCounterVec,
}

impl Metrics {
    /// A fresh set, all at zero.
    pub fn new() -> Metrics {
        let registry = prometheus::Registry::new();
        let make = Families { registry: &registry };
        let metrics = Metrics {
            requests: make.counters(
                "requests_total",
                "Client requests.",
                &["endpoint", "method", "code"],
            ),
            request_seconds: make.histograms(
                "request_seconds",
                "Seconds to the end of an answer.",
                &["endpoint"],
            ),
            lookups: make.counters(
                "lookups_total",
                "Look-ups by outcome.",
                &["registry", "kind", "result"],
            ),
            served_bytes: make.counters(
                "served_bytes_total",
                "Body bytes sent to clients.",
                &["registry", "kind", "source"],
            ),
            passthrough: make.counters("passthrough_total", "Bodies past the store.", &["reason"]),
            upstream: Upstream::new(&make),
            limits: Limits::new(&make),
            refused_namespaces: make.counter(
                "refused_namespaces_total",
                "Requests for a registry that is not configured.",
            ),
            downloads_in_flight: make.gauge("downloads_in_flight", "Downloads running now."),
            download_followers: make
                .gauge("download_followers", "Clients reading a running download."),
            download_resumes: make.counters(
                "download_resumes_total",
                "Requests by which broken downloads went on.",
                REGISTRY,
            ),
            download_failures: make.counters(
                "download_failures_total",
                "Downloads that failed.",
                &["registry", "reason"],
            ),
            store_bytes: make.gauge("store_bytes", "Bytes held in the store."),
            store_blobs: make.gauge("store_blobs", "Blobs held in the store, manifests included."),
            store_limit_bytes: make
                .gauge("store_limit_bytes", "Bytes that the data directory may hold (max_size)."),
            store_free_bytes: make
                .gauge("store_free_bytes", "Bytes free on the store's file system."),
            store_writable: make.gauge("store_writable", "Whether the store can be written."),
            store_damaged_blobs: make
                .counter("store_damaged_blobs_total", "Damaged blobs quarantined."),
            evicted_bytes: make.counters("evicted_bytes_total", EVICTED_BYTES, &["reason"]),
            evicted_blobs: make.counters("evicted_blobs_total", EVICTED_BLOBS, &["reason"]),
            registry: registry.clone(),
        };
        make.process();
        metrics
    }

    /// All families in Prometheus' text format.
    pub fn encode(&self) -> String {
        let mut text = Vec::new();
        // Writing to memory fails only for a family without a name.
        if let Err(error) = TextEncoder::new().encode(&self.registry.gather(), &mut text) {
            tracing::error!(%error, "cannot encode the metrics");
        }
        String::from_utf8_lossy(&text).into_owned()
    }
}

impl Default for Metrics {
    fn default() -> Metrics {
        Metrics::new()
    }
}

/// Makes and registers families. Their names and labels are literals in this file and those below it,
/// so that every mistake shows in the first test that makes a `Metrics`.
struct Families<'a> {
    registry: &'a prometheus::Registry,
}

#[expect(clippy::expect_used, reason = "names and labels are literals")]
impl Families<'_> {
    fn counter(&self, name: &str, help: &str) -> IntCounter {
        self.register(IntCounter::with_opts(opts(name, help)).expect("a valid name"))
    }

    fn counters(&self, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
        self.register(IntCounterVec::new(opts(name, help), labels).expect("valid labels"))
    }

    fn gauge(&self, name: &str, help: &str) -> IntGauge {
        self.register(IntGauge::with_opts(opts(name, help)).expect("a valid name"))
    }

    fn gauges(&self, name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
        self.register(IntGaugeVec::new(opts(name, help), labels).expect("valid labels"))
    }

    fn histograms(&self, name: &str, help: &str, labels: &[&str]) -> HistogramVec {
        let opts = HistogramOpts::from(opts(name, help)).buckets(SECONDS.to_vec());
        self.register(HistogramVec::new(opts, labels).expect("valid labels"))
    }

    fn process(&self) {
        let process = ProcessCollector::for_self();
        self.registry.register(Box::new(process)).expect("names of their own");
    }

    fn register<C: Collector + Clone + 'static>(&self, collector: C) -> C {
        self.registry.register(Box::new(collector.clone())).expect("a name used once");
        collector
    }
}

fn opts(name: &str, help: &str) -> Opts {
    Opts::new(format!("larder_{name}"), help)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_family_registers_and_encodes() {
        let metrics = Metrics::new();
        metrics.passthrough.with_label_values(&["no_room"]).inc();
        let text = metrics.encode();
        assert!(text.contains("larder_passthrough_total{reason=\"no_room\"} 1"), "{text}");
        assert!(text.contains("process_resident_memory_bytes"), "{text}");
    }
}
