//! `POST /api/v1/sweep`: removes now what the next sweep would.

use http::Response;
use serde::Deserialize;
use serde_json::json;

use super::{Admin, answer::Body, events, page::Question, refusal::Refusal, work::Running};

/// The body of the question.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {}

impl Admin {
    /// Answers with [events]; `done` is empty.
    pub(super) fn sweep(
        &self,
        question: &Question,
        running: Running,
    ) -> Result<Response<Body>, Refusal> {
        let Asked {} = question.json()?;
        let mirror = self.content.mirror.clone();
        Ok(events::answer(running, |_| async move {
            mirror.sweep().await;
            Ok(json!({}))
        }))
    }
}
