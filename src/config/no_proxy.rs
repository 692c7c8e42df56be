//! `NO_PROXY`: the hosts that are reached without a proxy, as Go's programs read it
//! (golang.org/x/net/http/httpproxy), Docker and containerd among them.

use std::net::IpAddr;

use ipnet::IpNet;

/// The hosts of one list. Those of this machine belong to every list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct NoProxy {
    entries: Vec<Entry>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    hosts: Hosts,
    /// `None`: every port.
    port: Option<u16>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Hosts {
    /// `*`
    All,
    /// An address or a network. A name is not resolved for it.
    Network(IpNet),
    /// `corp.example`: this name, and all below it.
    Domain(String),
    /// `.corp.example` or `*.corp.example`: all below this name.
    Below(String),
}

/// Whether a name is that of this machine wherever it is resolved (RFC 6761, section 6.3).
pub fn is_loopback_name(host: &str) -> bool {
    let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
    host == "localhost" || host.ends_with(".localhost")
}

impl NoProxy {
    /// Entries between commas or spaces. What no host can be stands for none.
    pub(super) fn parse(list: &str) -> NoProxy {
        let entries = list.split([',', ' ', '\t']).filter(|entry| !entry.is_empty());
        NoProxy { entries: entries.filter_map(Entry::parse).collect() }
    }

    /// Whether this host, an IPv6 address with or without brackets, is reached directly.
    pub(super) fn has(&self, host: &str, port: u16) -> bool {
        let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
        let address: Option<IpAddr> = without_brackets(&host).parse().ok();
        let address = address.map(|address| address.to_canonical());
        is_loopback_name(&host)
            || address.is_some_and(|address| address.is_loopback())
            || self.entries.iter().any(|entry| entry.has(&host, address, port))
    }
}

impl Entry {
    fn parse(text: &str) -> Option<Entry> {
        let text = text.to_ascii_lowercase();
        if let Some(network) = network(without_brackets(&text)) {
            return Some(Entry { hosts: Hosts::Network(network), port: None });
        }
        let (host, port) = match text.rsplit_once(':') {
            Some((host, port)) => (host, Some(port.parse().ok()?)),
            None => (text.as_str(), None),
        };
        let hosts = match (host, network(without_brackets(host))) {
            (_, Some(network)) => Hosts::Network(network),
            ("*", None) => Hosts::All,
            (host, None) => domain(host)?,
        };
        Some(Entry { hosts, port })
    }

    fn has(&self, host: &str, address: Option<IpAddr>, port: u16) -> bool {
        let is_host = match &self.hosts {
            Hosts::All => true,
            Hosts::Network(network) => address.is_some_and(|address| network.contains(&address)),
            Hosts::Domain(_) | Hosts::Below(_) if address.is_some() => false,
            Hosts::Domain(name) => host == name || is_below(host, name),
            Hosts::Below(name) => is_below(host, name),
        };
        is_host && self.port.is_none_or(|own| own == port)
    }
}

fn network(text: &str) -> Option<IpNet> {
    let address = || text.parse::<IpAddr>().ok().map(IpNet::from);
    text.parse().ok().or_else(address)
}

fn domain(text: &str) -> Option<Hosts> {
    let text = text.strip_suffix('.').unwrap_or(text);
    let below = text.strip_prefix('*').unwrap_or(text).strip_prefix('.');
    match below.unwrap_or(text) {
        "" => None,
        name if below.is_some() => Some(Hosts::Below(name.to_owned())),
        name => Some(Hosts::Domain(name.to_owned())),
    }
}

fn is_below(host: &str, name: &str) -> bool {
    host.strip_suffix(name).is_some_and(|labels| labels.ends_with('.') && labels.len() > 1)
}

fn without_brackets(host: &str) -> &str {
    host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_names_hosts_as_go_reads_it() {
        let table: &[(&str, &str, u16, bool)] = &[
            ("", "registry.corp", 443, false),
            ("registry.corp", "registry.corp", 443, true),
            ("registry.corp", "Registry.Corp.", 443, true),
            ("registry.corp.", "registry.corp", 443, true),
            ("corp", "registry.corp", 443, true),
            ("corp", "notcorp", 443, false),
            (".corp", "registry.corp", 443, true),
            (".corp", "corp", 443, false),
            ("*.corp", "a.b.corp", 443, true),
            ("*.corp", "corp", 443, false),
            ("a.io, registry.corp", "registry.corp", 443, true),
            ("a.io registry.corp", "registry.corp", 443, true),
            ("registry.corp:5000", "registry.corp", 5000, true),
            ("registry.corp:5000", "registry.corp", 443, false),
            (".corp:5000", "registry.corp", 5000, true),
            ("*", "anything.example", 443, true),
            ("*:5000", "anything.example", 443, false),
            ("10.0.0.0/8", "10.1.2.3", 443, true),
            ("10.0.0.0/8", "11.1.2.3", 443, false),
            ("10.0.0.0/8", "[::ffff:10.1.2.3]", 443, true),
            ("10.1.2.3", "10.1.2.3", 443, true),
            ("10.1.2.3:80", "10.1.2.3", 443, false),
            ("10.1.2.3:80", "10.1.2.3", 80, true),
            ("fd00::/8", "[fd12::1]", 443, true),
            ("fd12::1", "[fd12::1]", 443, true),
            ("[fd12::1]", "[fd12::1]", 443, true),
            ("[fd12::1]:80", "[fd12::1]", 443, false),
            ("[fd12::1]:80", "[fd12::1]", 80, true),
            ("2.3", "10.1.2.3", 443, false),
            (",.,:80,*.,a:b,:", "registry.corp", 80, false),
        ];
        for (list, host, port, want) in table {
            assert_eq!(NoProxy::parse(list).has(host, *port), *want, "{list:?} {host}:{port}");
        }
    }

    #[test]
    fn this_machine_needs_no_proxy() {
        let list = NoProxy::default();
        for host in
            ["localhost", "LOCALHOST.", "a.localhost", "127.9.9.9", "[::1]", "[::ffff:127.0.0.1]"]
        {
            assert!(list.has(host, 80), "{host}");
        }
        for host in ["localhost.corp", "notlocalhost", "128.0.0.1", "[::2]"] {
            assert!(!list.has(host, 80), "{host}");
        }
    }
}
