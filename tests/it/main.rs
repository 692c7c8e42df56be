//! The hermetic tests: Larder between fake registries and a client, on loopback addresses,
//! without privileges and without a network.
//!
//! Files are named by concern. `support` carries the weight, so that a test reads as what users
//! see.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "a test that fails should say so loudly"
)]

mod admin_socket;
mod admin_token;
mod ahead;
mod architecture;
mod auth;
mod budget;
mod catalog;
mod chaos;
mod config;
mod configure;
mod connections;
mod content_kinds;
mod crash;
mod credentials;
mod damage;
mod deploy;
mod disk;
mod doctor;
mod download;
mod endpoint_tls;
mod endpoints;
mod expiry;
mod failures;
mod fakes;
mod http;
mod http2;
mod ipv6;
mod kill;
mod layout;
mod lazy;
mod limits;
mod listing;
mod log;
mod max_connections;
mod memory;
mod metrics;
mod offline;
mod partial;
mod parts;
mod pins;
mod power_cut;
mod prefetch;
mod private;
mod proof;
mod proxies;
mod pull;
mod rebuild;
mod referrers;
mod refused_content;
mod registries;
mod removal;
mod renewal;
mod resume;
mod routing;
mod rules;
mod scrub;
mod secrets;
mod sending;
mod shutdown;
mod stranded;
mod streams;
mod support;
mod sweep;
mod tags;
mod tags_list;
mod terminal;
mod tls;
mod together;
mod whole;
