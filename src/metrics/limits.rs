//! The families that tell what upstream allows.

use prometheus::{IntGauge, IntGaugeVec};

use super::{Families, REGISTRY};

/// What upstream allows, and what of that is used, by `registry`.
#[derive(Debug)]
pub struct Limits {
    ratelimit_limit: IntGaugeVec,
    ratelimit_remaining: IntGaugeVec,
    connections: IntGaugeVec,
}

/// Counts a connection for as long as it lives.
#[derive(Debug)]
pub struct InUse(IntGauge);

impl Limits {
    pub(super) fn new(make: &Families<'_>) -> Limits {
        let gauges = |name, help| make.gauges(name, help, REGISTRY);
        Limits {
            ratelimit_limit: gauges(
                "upstream_ratelimit_limit",
                "Manifests that upstream gives in a window.",
            ),
            ratelimit_remaining: gauges(
                "upstream_ratelimit_remaining",
                "Manifests that upstream still gives in this window.",
            ),
            connections: gauges(
                "upstream_connections",
                "Connections in use now, of max_connections.",
            ),
        }
    }

    /// Counts one more connection to a registry.
    pub fn use_connection(&self, registry: &str) -> InUse {
        let gauge = self.connections.with_label_values(&[registry]);
        gauge.inc();
        InUse(gauge)
    }

    /// Shows how many manifests a registry gives. What is not known is not shown, not even as 0.
    pub fn show_ratelimit(&self, registry: &str, limit: Option<u64>, remaining: Option<u64>) {
        for (family, number) in
            [(&self.ratelimit_limit, limit), (&self.ratelimit_remaining, remaining)]
        {
            match number {
                Some(number) => {
                    let number = i64::try_from(number).unwrap_or(i64::MAX);
                    family.with_label_values(&[registry]).set(number);
                }
                // It may never have been shown.
                None => drop(family.remove_label_values(&[registry])),
            }
        }
    }
}

impl Drop for InUse {
    fn drop(&mut self) {
        self.0.dec();
    }
}
