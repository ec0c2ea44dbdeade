//! DNS-SD (RFC 6763 over the multicast DNS of RFC 6762) while a pairing window is open, and for nothing else: where the
//! window is, and the number of its code, which is public. Names are random, and neither the machine's name nor any key
//! is told.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use mdns_sd::{IfKind, ServiceDaemon, ServiceEvent, ServiceInfo};

use crate::net::policy::Policy;

const SERVICE: &str = "_kinfold-pair._tcp.local.";
/// Pause within which an answer to a question of this kind comes, as a bound on how late it is looked at.
const POLL: Duration = Duration::from_millis(200);
/// How long a goodbye may take.
const GOODBYE: Duration = Duration::from_millis(500);

/// Multicast could not be used; a pairing then needs an address.
#[derive(Debug, thiserror::Error)]
#[error("devices on the network cannot be looked for")]
pub struct BeaconError(#[from] mdns_sd::Error);

/// Says that a window is open, until it is dropped.
pub struct Beacon {
    daemon: ServiceDaemon,
    name: String,
}

/// Uses these interfaces alone where there are any, and never loopback.
fn daemon(interfaces: &[String]) -> Result<ServiceDaemon, BeaconError> {
    let daemon = ServiceDaemon::new()?;
    if !interfaces.is_empty() {
        daemon.disable_interface(IfKind::All)?;
        daemon.enable_interface(interfaces.iter().map(|name| IfKind::Name(name.clone())).collect::<Vec<_>>())?;
    }
    daemon.disable_interface(vec![IfKind::LoopbackV4, IfKind::LoopbackV6])?;
    Ok(daemon)
}

impl Beacon {
    /// Says that the window for a code of this number is at these addresses; `random` names it.
    pub fn light(
        number: u8,
        addresses: &[IpAddr],
        port: u16,
        interfaces: &[String],
        random: [u8; 4],
    ) -> Result<Self, BeaconError> {
        let random = u32::from_le_bytes(random);
        let instance = format!("{number}-{random:08x}");
        let host = format!("kinfold-{random:08x}.local.");
        let service = ServiceInfo::new(SERVICE, &instance, &host, addresses, port, &[("v", "1")][..])?;
        let name = service.get_fullname().to_owned();
        let daemon = daemon(interfaces)?;
        daemon.register(service)?;
        Ok(Self { daemon, name })
    }
}

impl Drop for Beacon {
    fn drop(&mut self) {
        // What cannot be taken back is forgotten by the others when its time is over.
        if let Ok(done) = self.daemon.unregister(&self.name) {
            done.recv_timeout(GOODBYE).ok();
        }
        if let Ok(done) = self.daemon.shutdown() {
            done.recv_timeout(GOODBYE).ok();
        }
    }
}

/// Looks for windows of a number.
pub struct Search {
    daemon: ServiceDaemon,
    found: mdns_sd::Receiver<ServiceEvent>,
    number: u8,
    policy: Policy,
    told: Vec<SocketAddr>,
}

/// A window that was found.
#[derive(Clone, Debug)]
pub struct Found {
    /// Tells it from others.
    pub name: String,
    /// Where it is; IPv4 first.
    pub addresses: Vec<SocketAddr>,
}

impl Search {
    /// Begins to look.
    pub fn begin(number: u8, policy: Policy, interfaces: &[String]) -> Result<Self, BeaconError> {
        let daemon = daemon(interfaces)?;
        let found = daemon.browse(SERVICE)?;
        Ok(Self { daemon, found, number, policy, told: Vec::new() })
    }

    /// Waits for a window with addresses that were not returned before and that this device may talk to. Returns `None`
    /// when the time is over.
    pub fn next(&mut self, until: Instant) -> Option<Found> {
        while Instant::now() < until {
            let Ok(event) = self.found.recv_timeout(POLL) else { continue };
            let ServiceEvent::ServiceResolved(service) = event else { continue };
            if number_of(&service.fullname) != Some(self.number) {
                continue;
            }
            let mut new: Vec<_> = service
                .addresses
                .iter()
                .map(|ip| SocketAddr::new(ip.to_ip_addr(), service.port))
                .filter(|at| is_plain(at.ip()) && self.policy.permits(at.ip()) && !self.told.contains(at))
                .collect();
            // IPv4 first: where both lead there, it is the one that people recognise.
            new.sort();
            if !new.is_empty() {
                self.told.extend(&new);
                return Some(Found { name: service.fullname.clone(), addresses: new });
            }
        }
        None
    }
}

impl Drop for Search {
    fn drop(&mut self) {
        self.daemon.shutdown().ok();
    }
}

/// Returns the number that an instance is named after.
fn number_of(name: &str) -> Option<u8> {
    name.split_once('-').and_then(|(number, _)| number.parse().ok())
}

/// Returns whether an address says all that is needed to go there: a link-local one of IPv6 lacks its interface.
pub fn is_plain(address: IpAddr) -> bool {
    !matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local()) && !address.is_unspecified()
}

/// Returns the addresses of this machine by these interfaces, or by all where none are given; loopback ones are left
/// out, and those that say not all.
pub fn own_addresses(interfaces: &[String]) -> Vec<IpAddr> {
    let all = if_addrs::get_if_addrs().unwrap_or_default();
    let named = |name: &String| interfaces.is_empty() || interfaces.contains(name);
    let addresses = all.iter().filter(|interface| named(&interface.name) && !interface.is_loopback());
    addresses.map(if_addrs::Interface::ip).filter(|ip| is_plain(*ip)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instance_is_named_after_its_number() {
        assert_eq!(number_of("7-0123abcd._kinfold-pair._tcp.local."), Some(7));
        for name in ["", "7", "x-1", "-1", "999-1", "7.8-1"] {
            assert_eq!(number_of(name), None, "{name}");
        }
    }

    #[test]
    fn an_address_that_lacks_its_interface_is_no_way() {
        for (text, plain) in
            [("192.168.1.2", true), ("fe80::1", false), ("fd00::1", true), ("0.0.0.0", false), ("::", false)]
        {
            assert_eq!(is_plain(text.parse().unwrap()), plain, "{text}");
        }
    }
}
