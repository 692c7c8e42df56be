//! Which addresses may be dialled on behalf of one endpoint.
//!
//! Upstream chooses redirect targets and token realms, and DNS chooses addresses, so neither may
//! reach further in than the endpoint itself does: a public registry cannot make Larder ask
//! the loopback interface or the LAN, and nobody can make it ask a cloud's metadata service.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    sync::{Arc, Mutex, PoisonError},
};

const OWN_ADDRESS: &str = "Larder's own address";

/// Decides about addresses for one endpoint.
#[derive(Debug)]
pub(super) struct Guard {
    endpoint_host: String,
    own_listeners: Arc<[SocketAddr]>,
    /// The innermost class the endpoint's own host last resolved to.
    reach: Mutex<Class>,
}

/// An address, or every address of a host, that may not be dialled.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{address} is {reason} and is never asked on behalf of {endpoint_host}")]
pub(in crate::upstream) struct Refused {
    endpoint_host: String,
    address: IpAddr,
    reason: &'static str,
}

/// How far in an address lies, from the outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Class {
    Public,
    /// Private, shared (CGNAT), unique-local, benchmarking.
    Private,
    Loopback,
    /// Link-local, unspecified, multicast, broadcast, reserved.
    Forbidden,
}

impl Guard {
    /// A guard for the endpoint at `endpoint_host`, written as in its URL. Until that host has been
    /// resolved only public addresses pass.
    pub(super) fn new(endpoint_host: &str, own_listeners: Arc<[SocketAddr]>) -> Guard {
        Guard {
            endpoint_host: endpoint_host.into(),
            own_listeners,
            reach: Mutex::new(Class::Public),
        }
    }

    /// Those of `addresses`, which `host` resolved to, that may be dialled.
    pub(super) fn admit(
        &self,
        host: &str,
        mut addresses: Vec<SocketAddr>,
    ) -> Result<Vec<SocketAddr>, Refused> {
        let reach = self.reach(host, &addresses);
        let mut refused = None;
        addresses.retain(|address| match self.refusal(address, reach) {
            Some(reason) => {
                refused.get_or_insert((address.ip(), reason));
                false
            }
            None => true,
        });
        match refused {
            Some((address, reason)) if addresses.is_empty() => {
                Err(Refused { endpoint_host: self.endpoint_host.clone(), address, reason })
            }
            Some(_) | None => Ok(addresses),
        }
    }

    /// Those of a proxy's `addresses` that may be dialled: it is the operator's own choice, but Larder
    /// would go round in a circle if it were Larder.
    pub(super) fn admit_proxy(
        &self,
        mut addresses: Vec<SocketAddr>,
    ) -> Result<Vec<SocketAddr>, Refused> {
        let first = addresses.first().map(SocketAddr::ip);
        addresses.retain(|address| !self.is_own_listener(address));
        match first {
            Some(address) if addresses.is_empty() => {
                let endpoint_host = self.endpoint_host.clone();
                Err(Refused { endpoint_host, address, reason: OWN_ADDRESS })
            }
            Some(_) | None => Ok(addresses),
        }
    }

    /// How far in a connection to `host` may lead; learned anew whenever it is the endpoint's own.
    fn reach(&self, host: &str, addresses: &[SocketAddr]) -> Class {
        let mut reach = self.reach.lock().unwrap_or_else(PoisonError::into_inner);
        if host == self.endpoint_host {
            *reach = addresses
                .iter()
                .map(|address| Class::of(address.ip()))
                .filter(|class| *class < Class::Forbidden)
                .max()
                .unwrap_or(Class::Public);
        }
        *reach
    }

    fn refusal(&self, address: &SocketAddr, reach: Class) -> Option<&'static str> {
        let class = Class::of(address.ip());
        if class == Class::Forbidden || class > reach {
            return Some(class.label());
        }
        self.is_own_listener(address).then_some(OWN_ADDRESS)
    }

    fn is_own_listener(&self, address: &SocketAddr) -> bool {
        let ip = unwrapped(address.ip());
        self.own_listeners
            .iter()
            .filter(|own| own.port() == address.port())
            .any(|own| is_reached_at(own.ip(), ip))
    }
}

impl Class {
    fn of(address: IpAddr) -> Class {
        match unwrapped(address) {
            IpAddr::V4(address) => Class::of_v4(address),
            IpAddr::V6(address) => Class::of_v6(address),
        }
    }

    fn of_v4(address: Ipv4Addr) -> Class {
        match address.octets() {
            [0, ..] | [169, 254, ..] | [224..=255, ..] => Class::Forbidden,
            [127, ..] => Class::Loopback,
            [10, ..] | [172, 16..=31, ..] | [192, 168, ..] => Class::Private,
            [100, 64..=127, ..] | [198, 18..=19, ..] | [192, 0, 0, _] => Class::Private,
            _ => Class::Public,
        }
    }

    fn of_v6(address: Ipv6Addr) -> Class {
        match address.segments() {
            [0, 0, 0, 0, 0, 0, 0, 0] | [0xfe80..=0xfebf, ..] | [0xff00..=0xffff, ..] => {
                Class::Forbidden
            }
            [0, 0, 0, 0, 0, 0, 0, 1] => Class::Loopback,
            [0xfc00..=0xfdff, ..] | [0xfec0..=0xfeff, ..] => Class::Private,
            // NAT64 of the local network's own choice (RFC 8215).
            [0x64, 0xff9b, 1, _, _, _, high, low] => {
                Class::of_v4(from_segments(high, low)).max(Class::Private)
            }
            _ => Class::Public,
        }
    }

    fn label(self) -> &'static str {
        match self {
            Class::Public => "a public address",
            Class::Private => "a private address",
            Class::Loopback => "a loopback address",
            Class::Forbidden => "a link-local, unspecified, multicast or reserved address",
        }
    }
}

/// The IPv4 address that an IPv6 form stands for: mapped and compatible (RFC 4291), 6to4 (RFC
/// 3056), NAT64 (RFC 6052). Everything else as it is.
fn unwrapped(address: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = address else {
        return address;
    };
    match v6.segments() {
        [0, 0, 0, 0, 0, 0, 0, 0 | 1] => address,
        [0, 0, 0, 0, 0, 0 | 0xffff, high, low]
        | [0x64, 0xff9b, 0, 0, 0, 0, high, low]
        | [0x2002, high, low, ..] => from_segments(high, low).into(),
        _ => address,
    }
}

fn from_segments(high: u16, low: u16) -> Ipv4Addr {
    Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low))
}

/// Whether a listener bound to `own` answers at `ip`, which is unwrapped. `::` takes IPv4 too.
fn is_reached_at(own: IpAddr, ip: IpAddr) -> bool {
    if own.is_unspecified() {
        return (own.is_ipv6() || ip.is_ipv4()) && is_of_this_host(ip);
    }
    unwrapped(own) == ip
}

/// Whether a packet to `address` would stay on this host: then the system gives it that very
/// address as its source. Connecting a UDP socket asks for the route and sends nothing.
fn is_of_this_host(address: IpAddr) -> bool {
    let any: IpAddr = match address {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let source = || {
        let socket = UdpSocket::bind((any, 0))?;
        socket.connect((address, 9))?;
        socket.local_addr()
    };
    address.is_loopback() || source().is_ok_and(|source| source.ip() == address)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn class(address: &str) -> Class {
        Class::of(address.parse().unwrap())
    }

    #[test]
    fn classes() {
        let table: [(Class, &[&str]); 4] = [
            (
                Class::Public,
                &[
                    "1.1.1.1",
                    "172.32.0.1",
                    "100.128.0.1",
                    "2606:4700::1",
                    "::ffff:8.8.8.8",
                    "2002:808:808::1",
                    "64:ff9b::8.8.8.8",
                    "223.255.255.255",
                ],
            ),
            (
                Class::Private,
                &[
                    "10.0.0.1",
                    "172.16.0.1",
                    "172.31.255.255",
                    "192.168.1.1",
                    "100.64.0.1",
                    "198.18.0.1",
                    "192.0.0.8",
                    "fc00::1",
                    "fd12::1",
                    "fec0::1",
                    "::ffff:10.0.0.1",
                    "2002:a00:1::",
                    "64:ff9b::10.0.0.1",
                    "64:ff9b:1::8.8.8.8",
                    "::192.168.0.1",
                ],
            ),
            (
                Class::Loopback,
                &[
                    "127.0.0.1",
                    "127.255.0.1",
                    "::1",
                    "::ffff:127.0.0.1",
                    "2002:7f00:1::",
                    "64:ff9b::127.0.0.1",
                    "::127.0.0.1",
                    "64:ff9b:1::127.0.0.1",
                ],
            ),
            (
                Class::Forbidden,
                &[
                    "0.0.0.0",
                    "0.1.2.3",
                    "169.254.169.254",
                    "224.0.0.1",
                    "240.0.0.1",
                    "255.255.255.255",
                    "::",
                    "fe80::1",
                    "febf::1",
                    "ff02::1",
                    "::ffff:169.254.169.254",
                    "2002:a9fe:a9fe::",
                    "64:ff9b::a9fe:a9fe",
                    "64:ff9b:1::a9fe:a9fe",
                    "::ffff:0.0.0.0",
                ],
            ),
        ];
        for (want, addresses) in table {
            for address in addresses {
                assert_eq!(class(address), want, "{address}");
            }
        }
    }

    /// Whether `target` may be dialled after the endpoint resolved to `endpoint`.
    fn passes(endpoint: &str, target: &str) -> bool {
        let guard = Guard::new("registry.test", Arc::new([]));
        let at = |address: &str| vec![SocketAddr::new(address.parse().unwrap(), 443)];
        let _ = guard.admit("registry.test", at(endpoint));
        guard.admit("cdn.test", at(target)).is_ok()
    }

    #[test]
    fn nothing_reaches_further_in_than_its_endpoint() {
        let table = [
            ("1.1.1.1", "2.2.2.2", true),
            ("1.1.1.1", "10.0.0.1", false),
            ("1.1.1.1", "127.0.0.1", false),
            ("1.1.1.1", "::ffff:127.0.0.1", false),
            ("10.0.0.1", "1.1.1.1", true),
            ("10.0.0.1", "192.168.0.1", true),
            ("100.64.0.1", "fd00::1", true),
            ("10.0.0.1", "127.0.0.1", false),
            ("127.0.0.1", "::1", true),
            ("127.0.0.1", "10.0.0.1", true),
            ("127.0.0.1", "169.254.169.254", false),
            ("169.254.0.1", "10.0.0.1", false),
        ];
        for (endpoint, target, want) in table {
            assert_eq!(passes(endpoint, target), want, "{endpoint} {target}");
        }
    }

    #[test]
    fn before_the_endpoint_is_resolved_only_public_addresses_pass() {
        let guard = Guard::new("registry.test", Arc::new([]));
        let at = |address: &str| vec![address.parse().unwrap()];
        assert!(guard.admit("cdn.test", at("10.0.0.1:443")).is_err());
        assert!(guard.admit("cdn.test", at("1.1.1.1:443")).is_ok());
    }

    #[test]
    fn refused_addresses_are_left_out_of_a_mixed_answer() {
        let guard = Guard::new("registry.test", Arc::new([]));
        let addresses = ["127.0.0.1:1", "1.1.1.1:1"].map(|address| address.parse().unwrap());
        let admitted = guard.admit("cdn.test", addresses.to_vec()).unwrap();
        assert_eq!(admitted, [addresses[1]]);
    }

    #[test]
    fn own_listeners_are_never_dialled() {
        let dials = |own: &str, target: &str| {
            let guard = Guard::new("r", Arc::new([own.parse().unwrap()]));
            guard.admit("r", vec![target.parse().unwrap()]).is_ok()
        };
        assert!(!dials("127.0.0.1:5000", "127.0.0.1:5000"));
        assert!(!dials("127.0.0.1:5000", "[::ffff:127.0.0.1]:5000"));
        assert!(!dials("0.0.0.0:5000", "127.0.0.1:5000"));
        assert!(!dials("0.0.0.0:5000", "127.9.9.9:5000"));
        assert!(!dials("[::]:5000", "127.0.0.1:5000"));
        assert!(!dials("[::]:5000", "[::1]:5000"));
        assert!(dials("127.0.0.1:5000", "127.0.0.1:5001"));
        assert!(dials("127.0.0.1:5000", "127.0.0.2:5000"));
        assert!(dials("0.0.0.0:5000", "192.0.2.1:5000"));
    }

    #[test]
    fn a_proxy_may_lie_anywhere_but_here() {
        let guard = Guard::new("r", Arc::new(["127.0.0.1:5000".parse().unwrap()]));
        let at = |address: &str| vec![address.parse().unwrap()];
        for address in ["127.0.0.1:3128", "10.0.0.1:5000", "[fe80::1]:3128", "1.1.1.1:80"] {
            assert_eq!(guard.admit_proxy(at(address)).unwrap(), at(address));
        }
        let error = guard.admit_proxy(at("127.0.0.1:5000")).unwrap_err();
        assert!(error.to_string().starts_with("127.0.0.1 is Larder's own address"), "{error}");
        // What is known of the endpoint stays as it was.
        assert!(guard.admit("cdn.test", at("10.0.0.1:443")).is_err());
    }
}
