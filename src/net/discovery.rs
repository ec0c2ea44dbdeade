//! Beacons on the network: DNS-SD (RFC 6763 over the multicast DNS of RFC 6762) with what
//! [`engine::session::beacon`](crate::engine::session::beacon) makes. The name of the host is random like that of the
//! beacon, and no other record is shown.
//!
//! Everybody on the network can show beacons. What is kept of them is bounded: where somebody floods the network, all of
//! it is dropped and nothing is looked for any more; see [`Discovery::is_flooded`].

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use data_encoding::HEXLOWER;
use mdns_sd::{IfKind, Receiver, ServiceDaemon, ServiceEvent, ServiceInfo, TxtProperty};

use crate::engine::session::beacon::{NAME_LEN, Name, TAG_LEN, TAGS_MAX};
use crate::net::beacon::{BeaconError, is_plain};

const SERVICE: &str = "_kinfold._tcp.local.";
/// Whole tags in one string of a TXT record, which has at most 255 bytes.
const STRING_LEN: usize = 240;
/// Keys of these strings, in order.
const KEYS: [&str; 5] = ["a", "b", "c", "d", "e"];
const _: () = assert!(KEYS.len() * STRING_LEN >= TAGS_MAX * TAG_LEN && STRING_LEN.is_multiple_of(TAG_LEN));
/// How long a goodbye may take.
const GOODBYE: Duration = Duration::from_millis(500);
/// How long the multicast thread may take to say what it keeps.
const ANSWER: Duration = Duration::from_secs(1);
/// Most records of others that are kept.
const RECORDS_MAX: i64 = 10_000;
/// Most addresses of one beacon that are looked at.
const ADDRESSES_MAX: usize = 8;

/// A beacon that was seen, with what it says.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Seen {
    /// Its random name.
    pub name: Name,
    /// Its tags.
    pub tags: Vec<u8>,
    /// Where whoever shows it says to be; IPv4 first.
    pub addresses: Vec<SocketAddr>,
}

/// Shows at most one beacon, and looks for those of others.
pub struct Discovery {
    daemon: ServiceDaemon,
    found: Receiver<ServiceEvent>,
    shown: Option<String>,
}

impl Discovery {
    /// Begins to look, by these interfaces alone.
    ///
    /// # Errors
    /// The system gives no thread or no sockets.
    pub fn begin(interfaces: impl IntoIterator<Item = String>) -> Result<Self, BeaconError> {
        let daemon = ServiceDaemon::new()?;
        daemon.disable_interface(IfKind::All)?;
        daemon.enable_interface(interfaces.into_iter().map(IfKind::Name).collect::<Vec<_>>())?;
        let found = daemon.browse(SERVICE)?;
        Ok(Self { daemon, found, shown: None })
    }

    /// Shows a beacon in the place of the one before. `host` names the machine, at random.
    ///
    /// # Errors
    /// The multicast thread does not answer.
    pub fn show(
        &mut self,
        (name, host): (&Name, [u8; 8]),
        tags: &[u8],
        addresses: &[IpAddr],
        port: u16,
    ) -> Result<(), BeaconError> {
        self.hide();
        let strings: Vec<TxtProperty> =
            KEYS.iter().zip(tags.chunks(STRING_LEN)).map(|(key, string)| TxtProperty::from((*key, string))).collect();
        let host = format!("{}.local.", HEXLOWER.encode(&host));
        let service = ServiceInfo::new(SERVICE, &HEXLOWER.encode(name), &host, addresses, port, strings)?;
        let shown = service.get_fullname().to_owned();
        self.daemon.register(service)?;
        self.shown = Some(shown);
        Ok(())
    }

    /// Takes back what is shown.
    pub fn hide(&mut self) {
        // What cannot be taken back is forgotten by the others when its time is over.
        if let Some(shown) = self.shown.take()
            && let Ok(done) = self.daemon.unregister(&shown)
        {
            done.recv_timeout(GOODBYE).ok();
        }
    }

    /// Ends without a goodbye: that would come from another address than the beacon did, and tell that both are one.
    pub fn vanish(mut self) {
        self.shown = None;
        // What is said to no interface is not said.
        self.daemon.disable_interface(IfKind::All).ok();
    }

    /// Waits for a beacon, one of our own perhaps.
    ///
    /// # Errors
    /// Too many came at once, and the search has ended; begin another.
    pub fn next(&self, patience: Duration) -> Result<Option<Seen>, Ended> {
        match self.found.recv_timeout(patience) {
            Ok(ServiceEvent::ServiceResolved(service)) => Ok(read(
                &service.fullname,
                |key| service.get_property_val(key).flatten(),
                service.addresses.iter().map(|ip| SocketAddr::new(ip.to_ip_addr(), service.port)),
            )),
            Ok(_) => Ok(None),
            Err(mdns_sd::RecvTimeoutError::Timeout) => Ok(None),
            Err(_) => Err(Ended),
        }
    }

    /// Returns whether others make so many records that they are not worth keeping.
    pub fn is_flooded(&self) -> bool {
        let Ok(answer) = self.daemon.get_metrics() else { return false };
        // A thread that does not answer in this time has too much to do.
        let Ok(metrics) = answer.recv_timeout(ANSWER) else { return true };
        metrics.iter().filter(|(what, _)| what.starts_with("cached-")).map(|(_, count)| count).sum::<i64>()
            > RECORDS_MAX
    }
}

impl Drop for Discovery {
    fn drop(&mut self) {
        self.hide();
        if let Ok(done) = self.daemon.shutdown() {
            done.recv_timeout(GOODBYE).ok();
        }
    }
}

/// The search has ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Ended;

/// Reads a beacon, if it is one: its full name in DNS, the strings of its TXT record by their keys, and the addresses.
pub fn read<'a>(
    full_name: &str,
    string: impl Fn(&str) -> Option<&'a [u8]>,
    addresses: impl Iterator<Item = SocketAddr>,
) -> Option<Seen> {
    let (instance, _) = full_name.split_once('.')?;
    let name: [u8; NAME_LEN] = HEXLOWER.decode(instance.as_bytes()).ok()?.try_into().ok()?;
    let tags: Vec<u8> = KEYS.iter().map_while(|key| string(key)).flatten().copied().collect();
    let mut addresses: Vec<_> = addresses.filter(|at| at.port() != 0 && is_plain(at.ip())).collect();
    addresses.sort_unstable();
    addresses.truncate(ADDRESSES_MAX);
    (!addresses.is_empty()).then_some(Seen { name, tags, addresses })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_beacon_is_not_read() {
        let at = |text: &str| text.parse::<SocketAddr>().unwrap();
        let good = "000102030405060708090a0b0c0d0e0f._kinfold._tcp.local.";
        let read = |name: &str, addresses: &[SocketAddr]| {
            read(
                name,
                |key| [("a", &[1_u8; 8][..]), ("c", &[2])].into_iter().find(|(k, _)| *k == key).map(|(_, v)| v),
                addresses.iter().copied(),
            )
        };
        let seen = read(good, &[at("[fd00::1]:7"), at("10.0.0.1:7"), at("[fe80::1]:7"), at("10.0.0.2:0")]).unwrap();
        assert_eq!(seen.name[15], 15);
        assert_eq!(seen.tags, [1; 8], "what follows a gap does not count");
        assert_eq!(seen.addresses, [at("10.0.0.1:7"), at("[fd00::1]:7")]);
        for name in ["", "x", "0001.local.", "zz0102030405060708090a0b0c0d0e0f.x", "\u{e9}.x"] {
            assert_eq!(read(name, &[at("10.0.0.1:7")]), None, "{name}");
        }
        assert_eq!(read(good, &[]), None, "nowhere to go");
        let many: Vec<_> = (1..200_u8).map(|n| SocketAddr::from(([10, 0, 0, n], 7))).collect();
        assert_eq!(read(good, &many).unwrap().addresses.len(), ADDRESSES_MAX);
    }
}
