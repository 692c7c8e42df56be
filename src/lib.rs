//! Larder: a pull-through caching mirror for container registries.

pub mod access;
pub mod account;
pub mod admin;
pub mod clock;
pub mod config;
pub mod handler;
pub mod metrics;
pub mod mirror;
pub mod oci;
pub mod pulls;
pub mod response;
pub mod routes;
pub mod store;
pub mod upstream;
