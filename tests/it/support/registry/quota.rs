//! Docker Hub's limit on pulls: GETs of manifests count, and HEADs tell as well how many are left.

use super::{
    content::error,
    http::{Answer, Request},
};

/// So many pulls in a window.
pub(super) struct Quota {
    pub(super) limit: usize,
    /// In seconds.
    pub(super) window: u64,
    pub(super) spent: usize,
}

impl Quota {
    /// What becomes of `answer`, which has a manifest.
    pub(super) fn limited(&mut self, request: &Request, answer: Answer) -> Answer {
        let is_pull = request.method == "GET";
        let is_over = is_pull && self.spent >= self.limit;
        self.spent += usize::from(is_pull && !is_over);
        let answer = if is_over { error(429, "TOOMANYREQUESTS") } else { answer };
        let stated = |count: usize| format!("{count};w={}", self.window);
        answer
            .with("ratelimit-limit", stated(self.limit))
            .with("ratelimit-remaining", stated(self.limit - self.spent))
            .with("docker-ratelimit-source", "192.0.2.1")
    }
}
