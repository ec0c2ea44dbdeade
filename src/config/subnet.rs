//! Networks, as in `100.64.0.0/10`.

use std::fmt;
use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::Ipv6Addr;

/// A network: all addresses that share their first bits.
///
/// Invariant: the prefix is no longer than an address, and the bits beyond it are zero.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Subnet {
    first: IpAddr,
    prefix_bits: u8,
}

/// Why a text is not a network.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum SubnetError {
    /// It does not read as an address and a number of bits.
    #[error("`{0}` is not a network; write it like 100.64.0.0/10")]
    Form(String),
    /// The address is not the first of the network.
    #[error("`{found}` is not where that network begins; write {meant}")]
    HostBits {
        /// What was written.
        found: String,
        /// The network that holds it.
        meant: Subnet,
    },
}

impl Subnet {
    /// Parses `ADDRESS/BITS`, or an address alone for the network of just that address.
    pub fn parse(text: &str) -> Result<Self, SubnetError> {
        let form = || SubnetError::Form(text.to_owned());
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits.parse::<u8>().map_err(|_| form())?)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| form())?;
        let bits_max = if address.is_ipv4() { 32 } else { 128 };
        let prefix_bits = bits.unwrap_or(bits_max);
        if prefix_bits > bits_max {
            return Err(form());
        }
        let meant = Self { first: masked(address, prefix_bits), prefix_bits };
        if meant.first != address {
            return Err(SubnetError::HostBits { found: text.to_owned(), meant });
        }
        Ok(meant)
    }

    /// Returns the first address.
    pub fn first(&self) -> IpAddr {
        self.first
    }

    /// Returns how many bits the addresses share.
    pub fn prefix_bits(&self) -> u8 {
        self.prefix_bits
    }

    /// Returns whether `address` belongs to the network. An IPv4 address in its IPv6 form counts as IPv4.
    pub fn contains(&self, address: IpAddr) -> bool {
        masked(address.to_canonical(), self.prefix_bits) == self.first
            && address.to_canonical().is_ipv4() == self.first.is_ipv4()
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.first, self.prefix_bits)
    }
}

fn masked(address: IpAddr, bits: u8) -> IpAddr {
    match address {
        IpAddr::V4(v4) => {
            let mask = u32::MAX.checked_shl(32_u32.saturating_sub(bits.into())).unwrap_or(0);
            IpAddr::V4(Ipv4Addr::from_bits(v4.to_bits() & mask))
        }
        IpAddr::V6(v6) => {
            let mask = u128::MAX.checked_shl(128_u32.saturating_sub(bits.into())).unwrap_or(0);
            IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & mask))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holds(network: &str, address: &str) -> bool {
        Subnet::parse(network).unwrap().contains(address.parse().unwrap())
    }

    #[test]
    fn a_network_holds_its_addresses_and_no_other() {
        assert!(holds("100.64.0.0/10", "100.127.255.255"));
        assert!(holds("100.64.0.0/10", "::ffff:100.64.0.1"));
        assert!(!holds("100.64.0.0/10", "100.128.0.0"));
        assert!(holds("fd00::/8", "fdff::1"));
        assert!(!holds("fd00::/8", "fe80::1"));
        assert!(holds("10.0.0.7", "10.0.0.7"));
        assert!(!holds("10.0.0.7", "10.0.0.6"));
        assert!(holds("0.0.0.0/0", "8.8.8.8"));
        assert!(!holds("0.0.0.0/0", "fd00::1"));
        assert!(!holds("::/0", "8.8.8.8"));
    }

    #[test]
    fn what_is_not_a_network_is_refused() {
        for text in ["", "10.0.0.0/", "10.0.0.0/33", "fd00::/129", "lan", "10.0.0.0/-1", "10.0.0/8"] {
            assert_eq!(Subnet::parse(text), Err(SubnetError::Form(text.to_owned())));
        }
        let error = Subnet::parse("10.1.2.3/8").unwrap_err();
        assert_eq!(error.to_string(), "`10.1.2.3/8` is not where that network begins; write 10.0.0.0/8");
    }
}
