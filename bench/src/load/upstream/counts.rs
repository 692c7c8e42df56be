//! What was asked for and sent.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use serde::Serialize;

use crate::upstream::request::Request;

/// Requests for content, not for the counts themselves.
#[derive(Debug, Default)]
pub struct Counts(Mutex<Sums>);

#[derive(Debug, Default, Serialize)]
struct Sums {
    requests: u64,
    body_bytes: u64,
    /// By method and path.
    paths: BTreeMap<String, Sum>,
}

#[derive(Debug, Default, Serialize)]
struct Sum {
    requests: u64,
    body_bytes: u64,
}

impl Counts {
    /// Counts an answer, or what was sent of it.
    pub fn add(&self, request: &Request, body_bytes: u64) {
        if request.path.starts_with("/_") {
            return;
        }
        let key = format!("{} {}", request.method, request.path);
        let mut sums = self.sums();
        sums.requests += 1;
        sums.body_bytes += body_bytes;
        let sum = sums.paths.entry(key).or_default();
        sum.requests += 1;
        sum.body_bytes += body_bytes;
    }

    /// As JSON.
    pub fn tell(&self) -> String {
        serde_json::to_string(&*self.sums()).unwrap_or_default()
    }

    /// Begins anew.
    pub fn forget(&self) {
        *self.sums() = Sums::default();
    }

    fn sums(&self) -> MutexGuard<'_, Sums> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
