//! Addresses that no one else on this machine uses, so that tests run side by side.
//!
//! Every server gets a loopback *host* of its own: "another host" is then true of two servers
//! in one test, and a registry that is down is really refused, because nobody else is ever
//! given its port.

use std::{
    net::{Ipv4Addr, SocketAddr},
    process,
    sync::atomic::{AtomicU32, Ordering},
};

/// Below the ephemeral range, so that no client's own port is in the way.
const FIRST_PORT: u32 = 20_000;

/// A loopback address that was never given out before in this process.
pub fn unique() -> SocketAddr {
    static GIVEN: AtomicU32 = AtomicU32::new(0);
    let number = GIVEN.fetch_add(1, Ordering::Relaxed);
    let process = process::id();
    let host = Ipv4Addr::new(
        127,
        byte(1 + (process >> 8) % 254),
        byte(process % 256),
        byte(1 + number % 254),
    );
    let port = u16::try_from(FIRST_PORT + number / 254).unwrap();
    SocketAddr::new(host.into(), port)
}

fn byte(number: u32) -> u8 {
    u8::try_from(number).unwrap()
}
