//! Whom this device talks to at all, by address: its own network, unless a person says otherwise.
//!
//! Addresses are numbers here, never names: nothing in this layer asks a name server.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Returns whether an address belongs to a local network.
///
/// These do: loopback (127.0.0.0/8, ::1), private (10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16),
/// link-local (169.254.0.0/16, fe80::/10) and unique local ones (fc00::/7). Shared address space
/// (100.64.0.0/10) does not: it is a provider's network, or a VPN that a person may allow. An IPv4
/// address mapped into IPv6 counts as what it is.
pub fn is_lan(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => v4.is_loopback() || v4.is_private() || v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_unicast_link_local() || v6.is_unique_local(),
    }
}

/// Which addresses may be dialed, and from which connections are taken.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Policy {
    /// Whether only local addresses are allowed, and those in `allowed`.
    pub lan_only: bool,
    /// Networks beyond the local ones: an address of each and its prefix length in bits.
    pub allowed: Vec<(IpAddr, u8)>,
}

impl Policy {
    /// Returns whether this device may talk to an address.
    pub fn permits(&self, address: IpAddr) -> bool {
        !self.lan_only || is_lan(address) || self.allowed.iter().any(|network| contains(*network, address))
    }
}

/// Returns whether a network contains an address. A prefix longer than the address means all of it.
fn contains((network, prefix): (IpAddr, u8), address: IpAddr) -> bool {
    match (network.to_canonical(), address.to_canonical()) {
        (IpAddr::V4(network), IpAddr::V4(address)) => {
            let differing = network.to_bits() ^ address.to_bits();
            differing.leading_zeros() >= u32::from(prefix).min(Ipv4Addr::BITS)
        }
        (IpAddr::V6(network), IpAddr::V6(address)) => {
            let differing = network.to_bits() ^ address.to_bits();
            differing.leading_zeros() >= u32::from(prefix).min(Ipv6Addr::BITS)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn local_networks_are_told_from_others() {
        let local = [
            "127.0.0.1",
            "127.255.255.255",
            "10.0.0.1",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.1.1",
            "169.254.7.7",
            "::1",
            "fe80::1",
            "febf::1",
            "fc00::1",
            "fdff::1",
            "::ffff:192.168.1.1",
            "::ffff:127.0.0.1",
        ];
        for text in local {
            assert!(is_lan(address(text)), "{text}");
        }
        let outside = [
            "0.0.0.0",
            "8.8.8.8",
            "9.255.255.255",
            "11.0.0.0",
            "172.15.255.255",
            "172.32.0.0",
            "192.167.255.255",
            "192.169.0.0",
            "100.64.0.1",
            "100.127.255.255",
            "224.0.0.251",
            "255.255.255.255",
            "::",
            "2001:db8::1",
            "fec0::1",
            "fe00::1",
            "ff02::fb",
            "::ffff:8.8.8.8",
            // Addresses that hold an IPv4 one, and lead out of the network to it.
            "64:ff9b::a00:1",
            "2002:a00:1::",
            "2001:0:a00:1::",
            "::10.0.0.1",
        ];
        for text in outside {
            assert!(!is_lan(address(text)), "{text}");
        }
    }

    #[test]
    fn a_person_can_allow_more() {
        let policy = |lan_only, allowed: &[(&str, u8)]| Policy {
            lan_only,
            allowed: allowed.iter().map(|(network, prefix)| (address(network), *prefix)).collect(),
        };
        let vpn = policy(true, &[("100.64.0.0", 10), ("2001:db8::", 32)]);
        assert!(vpn.permits(address("100.127.1.1")));
        assert!(vpn.permits(address("::ffff:100.64.1.1")));
        assert!(!vpn.permits(address("100.128.0.0")));
        assert!(vpn.permits(address("2001:db8:1::1")));
        assert!(!vpn.permits(address("2001:db9::1")));
        assert!(vpn.permits(address("192.168.0.1")));
        assert!(!policy(true, &[]).permits(address("1.1.1.1")));
        assert!(policy(false, &[]).permits(address("1.1.1.1")));
        assert!(policy(true, &[("0.0.0.0", 0)]).permits(address("1.1.1.1")));
        assert!(!policy(true, &[("0.0.0.0", 0)]).permits(address("2001:db8::1")));
        let host = policy(true, &[("1.1.1.1", 200)]);
        assert!(host.permits(address("1.1.1.1")) && !host.permits(address("1.1.1.0")));
    }
}
