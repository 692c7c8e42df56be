//! The types of manifests: a hundred thousand have a handful between them.

use std::sync::Arc;

/// As many as are remembered for being shared. Upstreams may invent others, which are kept once
/// for each manifest.
const REMEMBERED: usize = 16;

/// The types that were seen first.
#[derive(Debug, Default)]
pub(super) struct MediaTypes(Vec<Arc<str>>);

impl MediaTypes {
    /// A type, shared where it can be.
    pub fn share(&mut self, media_type: &str) -> Arc<str> {
        if let Some(known) = self.0.iter().find(|known| ***known == *media_type) {
            return Arc::clone(known);
        }
        let fresh: Arc<str> = media_type.into();
        if self.0.len() < REMEMBERED {
            self.0.push(Arc::clone(&fresh));
        }
        fresh
    }
}
