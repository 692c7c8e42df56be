//! Larder: a pull-through caching mirror for container registries.

pub mod oci;
