//! An examination of every endpoint, one step after the other, by the code and the settings with
//! which Larder pulls.

use futures_util::future::join_all;

use super::Upstream;
use crate::{
    clock::Clock,
    finding::Finding,
    oci::{Name, Reference},
};

/// An image by which an upstream is tried.
#[derive(Clone, Debug)]
pub struct SampleImage {
    /// Its repository.
    pub name: Name,
    /// Its tag or digest.
    pub reference: Reference,
    /// Who says that it is there.
    pub source: SampleSource,
}

/// Who says that an image is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SampleSource {
    /// The one who wants to know: without it, something is wrong.
    Asked,
    /// It has been in that registry for years; a private mirror of it may yet lack it.
    WellKnown,
}

/// What was found at one endpoint.
#[derive(Clone, Debug)]
pub struct Examined {
    /// Its URL.
    pub endpoint: String,
    /// In the order of the steps. What needs a step that failed is not there.
    pub findings: Vec<Finding>,
}

impl Upstream {
    /// Examines all endpoints at once, by HEADs of these images. Each takes twenty seconds at most.
    pub async fn examine(&self, samples: &[SampleImage], clock: &Clock) -> Vec<Examined> {
        let endpoints = self.inner.endpoints.iter();
        join_all(endpoints.map(|endpoint| endpoint.examine(samples, clock))).await
    }
}
