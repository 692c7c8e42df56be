//! `GET /api/v1/usage`: what the data directory holds, as one document.
//!
//! | field | |
//! |---|---|
//! | `users` | each `registry`, or `repository` of it, with its `images`, the `bytes` of the blobs that it needs, and the `unique_bytes` that no other does |
//! | `held`, `shared`, `unused` | `blobs`, their number, and `bytes`: of all blobs, of those of several users, and of those of none |
//! | `downloads_bytes`, `quarantine_bytes`, `index_bytes`, `damaged_indexes_bytes`, `other_bytes` | all other files |
//! | `left_downloads_bytes` | of the downloads: what pulls that broke off have left |
//! | `total_bytes` | all files |
//! | `reclaimable_bytes` | those of them that no pull would miss |
//! | `max_size_bytes` | what all that may come to |
//! | `disk_bytes`, `free_bytes`, `min_free_bytes` | the file system, and what is to stay free there |

use http::Response;
use serde_json::{Value, json};

use super::{
    Admin,
    answer::{self, Body},
    page::Question,
    refusal::Refusal,
};
use crate::store::{Grouping, Totals, Usage, User};

impl Admin {
    /// One document. `by` in the query is `registry`, as without it, or `repository`. Waits until the store
    /// has looked around.
    pub(super) async fn usage(&self, question: &Question) -> Result<Response<Body>, Refusal> {
        let (store, by) = (&self.content.store, grouping(question)?);
        store.looked_around().await;
        let usage = store.usage(by).await;
        Ok(answer::document(&document(&usage.map_err(Refusal::failed)?)))
    }
}

fn grouping(question: &Question) -> Result<Grouping, Refusal> {
    let mut by = Grouping::Registry;
    for (name, value) in question.parameters() {
        by = match (&*name, &*value) {
            ("by", "registry") => Grouping::Registry,
            ("by", "repository") => Grouping::Repository,
            _ => {
                return Err(Refusal::Wrong(format!(
                    "{name}={value}: by is registry or repository"
                )));
            }
        };
    }
    Ok(by)
}

fn document(usage: &Usage) -> Value {
    json!({
        "users": usage.users.iter().map(user).collect::<Vec<_>>(),
        "held": totals(usage.blobs),
        "shared": totals(usage.shared),
        "unused": totals(usage.unused),
        "downloads_bytes": usage.downloads,
        "left_downloads_bytes": usage.left_downloads,
        "quarantine_bytes": usage.quarantine,
        "index_bytes": usage.index,
        "damaged_indexes_bytes": usage.damaged_indexes,
        "other_bytes": usage.other,
        "total_bytes": usage.total(),
        "reclaimable_bytes": usage.reclaimable(),
        "disk_bytes": usage.disk.total,
        "free_bytes": usage.disk.free,
        "max_size_bytes": usage.limits.max_size,
        "min_free_bytes": usage.limits.min_free,
    })
}

fn totals(totals: Totals) -> Value {
    json!({ "blobs": totals.blobs, "bytes": totals.bytes })
}

fn user(user: &User) -> Value {
    json!({
        "registry": user.registry.as_str(),
        "repository": user.name.as_ref().map(|name| name.as_str()),
        "images": user.images,
        "bytes": user.bytes,
        "unique_bytes": user.unique_bytes,
    })
}
