//! What an upstream was asked for, as its own access log says it.

use std::{collections::BTreeMap, fmt};

/// The requests of a stretch of the log, and the tokens asked for meanwhile.
pub struct Requests {
    /// Requests to the token server.
    pub tokens: usize,
    /// Requests to the registry, in the order in which they ended.
    pub registry: Vec<Request>,
}

/// One line of the log.
pub struct Request {
    method: String,
    path: String,
    status: String,
}

impl Requests {
    /// Adds those of another upstream.
    pub fn add(&mut self, other: Self) {
        self.tokens += other.tokens;
        self.registry.extend(other.registry);
    }

    /// How often a manifest or a blob was asked for by GET, with whatever success.
    pub fn content_gets(&self) -> usize {
        let is_content = |request: &&Request| {
            request.method == "GET" && ["manifests", "blobs"].contains(&request.kind())
        };
        self.registry.iter().filter(is_content).count()
    }

    /// How often each blob's bytes were sent, by digest.
    pub fn blob_gets(&self) -> BTreeMap<&str, usize> {
        let mut gets = BTreeMap::new();
        for request in &self.registry {
            if let Some((_, digest)) = request.path.split_once("/blobs/")
                && request.method == "GET"
                && request.status.starts_with('2')
            {
                *gets.entry(digest).or_default() += 1;
            }
        }
        gets
    }
}

impl Request {
    /// Reads a line in the combined log format: `… "GET /v2/ HTTP/1.1" 401 87 "" "skopeo/1.9"`.
    pub fn parse(line: &str) -> Option<Self> {
        let mut quoted = line.split('"').skip(1);
        let mut request = quoted.next()?.split(' ');
        let status = quoted.next()?.split_whitespace().next()?.to_owned();
        let (method, path) = (request.next()?.to_owned(), request.next()?.to_owned());
        Some(Self { method, path, status })
    }

    fn kind(&self) -> &'static str {
        ["manifests", "blobs", "tags", "referrers"]
            .into_iter()
            .find(|kind| self.path.contains(&format!("/{kind}/")))
            .unwrap_or("other")
    }
}

impl fmt::Display for Requests {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut counts = BTreeMap::<_, usize>::new();
        for request in &self.registry {
            *counts.entry((request.kind(), &request.method, &request.status)).or_default() += 1;
        }
        let counts = counts
            .iter()
            .map(|((kind, method, status), count)| format!("{kind} {method} {status}: {count}"));
        let tokens = (self.tokens > 0).then(|| format!("tokens: {}", self.tokens));
        let all: Vec<String> = tokens.into_iter().chain(counts).collect();
        if all.is_empty() { f.write_str("nothing") } else { f.write_str(&all.join(", ")) }
    }
}
