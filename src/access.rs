//! Who may ask: the networks of `access.allow`.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use ipnet::IpNet;

use crate::{config, sendfile::Outlet};

/// The other end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// An address and port.
    Tcp(SocketAddr),
    /// A process that could open the Unix socket.
    Unix,
}

/// Who is there, by whichever of its connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Caller {
    /// An address. A socket on `[::]` sees that of an IPv4 client as `::ffff:a.b.c.d`; here it is `a.b.c.d`.
    Tcp(IpAddr),
    /// Whoever could open the Unix socket.
    Unix,
}

/// Who asks, and how a file gets there.
#[derive(Clone, Debug)]
pub struct Client {
    /// The other end of the connection.
    pub peer: Peer,
    /// Takes pieces of files for the answer to this request; `None`: the connection takes bytes only.
    pub outlet: Option<Outlet>,
}

/// The networks that may ask; clones share them.
#[derive(Clone, Debug)]
pub struct Access {
    allow: Option<Arc<[IpNet]>>,
}

impl Access {
    /// Access as configured.
    pub fn new(config: &config::Access) -> Access {
        Access { allow: config.allow.as_deref().map(Arc::from) }
    }

    /// Whether `peer` may ask. Permissions of the file guard a Unix socket, so whoever opened it may.
    pub fn permits(&self, peer: Peer) -> bool {
        match (&self.allow, peer.caller()) {
            (None, _) | (_, Caller::Unix) => true,
            (Some(networks), Caller::Tcp(address)) => {
                networks.iter().any(|network| network.contains(&address))
            }
        }
    }
}

impl Peer {
    /// Who that is.
    pub fn caller(self) -> Caller {
        match self {
            Peer::Tcp(address) => Caller::Tcp(address.ip().to_canonical()),
            Peer::Unix => Caller::Unix,
        }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.caller(), f)
    }
}

impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Caller::Tcp(address) => fmt::Display::fmt(address, f),
            Caller::Unix => f.write_str("unix"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tcp(ip: &str) -> Peer {
        Peer::Tcp(SocketAddr::new(ip.parse().unwrap(), 40_000))
    }

    fn access(networks: &[&str]) -> Access {
        Access::new(&config::Access {
            allow: Some(networks.iter().map(|text| text.parse().unwrap()).collect()),
        })
    }

    #[test]
    fn listed_networks_may_ask() {
        let access = access(&["10.0.0.0/8", "fc00::/7"]);
        for permitted in ["10.1.2.3", "::ffff:10.1.2.3", "fd00::1"] {
            assert!(access.permits(tcp(permitted)), "{permitted}");
        }
        for refused in ["11.0.0.1", "::ffff:11.0.0.1", "2001:db8::1", "127.0.0.1"] {
            assert!(!access.permits(tcp(refused)), "{refused}");
        }
    }

    #[test]
    fn an_empty_list_permits_unix_sockets_only() {
        assert!(access(&[]).permits(Peer::Unix));
        assert!(!access(&[]).permits(tcp("127.0.0.1")));
    }

    #[test]
    fn without_a_list_everyone_may_ask() {
        let access = Access::new(&config::Access { allow: None });
        assert!(access.permits(tcp("203.0.113.9")));
    }

    #[test]
    fn a_mapped_peer_is_shown_as_its_ipv4_address() {
        assert_eq!(tcp("::ffff:192.0.2.1").to_string(), "192.0.2.1");
    }
}
