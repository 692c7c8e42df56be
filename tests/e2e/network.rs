//! The network of the clients: a namespace with one cable to the machine, and nothing else.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::Path,
};

use crate::process::{Daemon, run, wait_for};

/// A network namespace, kept by a process that sleeps in it; both go on drop.
pub struct Network {
    holder: Daemon,
    /// The machine's end of the cable.
    host: Ipv4Addr,
}

impl Network {
    /// Makes the namespace and joins it to the machine by a pair of interfaces.
    pub fn start(directory: &Path) -> Self {
        let holder = Daemon::start("network", directory, "unshare --net sleep infinity");
        let pid = holder.id();
        let own = fs::read_link("/proc/self/ns/net").unwrap();
        wait_for("the namespace", || {
            (fs::read_link(format!("/proc/{pid}/ns/net")).ok()? != own).then_some(())
        });
        // Two runs on one machine do not meet: the subnet comes from the process id.
        let [.., subnet] = pid.to_be_bytes();
        let network = Self { holder, host: Ipv4Addr::new(10, 197, subnet, 1) };
        network.connect(Ipv4Addr::new(10, 197, subnet, 2));
        network
    }

    /// A port of the machine's end. It stays free: nobody else knows the address.
    pub fn free_address(&self) -> SocketAddr {
        TcpListener::bind((self.host, 0)).unwrap().local_addr().unwrap()
    }

    /// The line that runs `line` in the namespace. The file system stays the machine's, which
    /// `ip netns exec` would not leave alone: it hides the cgroups that an engine needs.
    pub fn inside(&self, line: &str) -> String {
        format!("nsenter --net=/proc/{}/ns/net {line}", self.holder.id())
    }

    fn connect(&self, client: Ipv4Addr) {
        let (pid, host) = (self.holder.id(), self.host);
        run(&format!("ip link add larder{pid} type veth peer name eth0 netns {pid}"));
        run(&format!("ip address add {host}/30 dev larder{pid}"));
        run(&format!("ip link set larder{pid} up"));
        run(&self.inside(&format!("ip address add {client}/30 dev eth0")));
        run(&self.inside("ip link set eth0 up"));
        run(&self.inside("ip link set lo up"));
    }
}
