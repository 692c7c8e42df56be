//! `POST /api/v1/sweep`: removes now what the next sweep would, or tells what that would be.

use std::collections::BTreeMap;

use http::Response;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    Admin,
    answer::Body,
    events::{self, Events},
    page::Question,
    refusal::Refusal,
    work::Running,
};
use crate::{
    mirror::Mirror,
    store::{Count, Going, Swept},
};

/// The body of the question.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    /// Whether to remove nothing, and tell of each thing as a finding.
    #[serde(default)]
    dry_run: bool,
}

impl Admin {
    /// Answers with [events]; `done` has `blobs` and `bytes`, and both for each of `reasons`.
    pub(super) fn sweep(
        &self,
        question: &Question,
        running: Running,
    ) -> Result<Response<Body>, Refusal> {
        let Asked { dry_run } = question.json()?;
        let mirror = self.content.mirror.clone();
        Ok(events::answer(running, async move |events| {
            let swept = match dry_run {
                true => rehearse(&mirror, &events).await,
                false => mirror.sweep().await,
            };
            swept.map(|swept| totals(&swept)).map_err(|error| error.to_string())
        }))
    }
}

async fn rehearse(mirror: &Mirror, events: &Events) -> std::io::Result<Swept> {
    let mut plan = mirror.plan_sweep().await?;
    let mut swept = Swept::default();
    loop {
        let some = plan.next().await?;
        if some.is_empty() {
            return Ok(swept);
        }
        for going in some {
            swept.add(going.reason, going.bytes);
            events.finding(finding(&going)).await;
        }
    }
}

fn finding(going: &Going) -> Value {
    json!({
        "digest": going.digest.to_string(),
        "names": going.names,
        "bytes": going.bytes,
        "unused_seconds": going.unused.as_secs(),
        "reason": going.reason,
    })
}

fn totals(swept: &Swept) -> Value {
    let count = |count: &Count| json!({ "blobs": count.blobs, "bytes": count.bytes });
    let reasons: BTreeMap<&str, Value> =
        swept.reasons.iter().map(|(reason, of_it)| (*reason, count(of_it))).collect();
    let Count { blobs, bytes } = swept.total();
    json!({ "blobs": blobs, "bytes": bytes, "reasons": reasons })
}
