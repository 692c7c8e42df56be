//! What every test stands on: registries to pull from, a mirror under test, and a client that
//! sees what happens on the wire.

pub mod address;
pub mod admin;
pub mod binary;
pub mod client;
pub mod content;
pub mod helper;
pub mod http2;
pub mod image;
pub mod mirror;
pub mod multipart;
pub mod proxy;
pub mod registry;
pub mod terminal;
pub mod tls;
pub mod wait;

pub use client::{Client, Response};
pub use content::{Random, random_bytes, sha256, sha512};
pub use image::{Image, Index};
pub use mirror::{TestMirror, Upstream};
pub use registry::{Auth, FakeRegistry, Fault, Gate, Mode, Trouble};
