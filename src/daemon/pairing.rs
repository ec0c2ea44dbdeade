//! Pairing as a person does it: a window here, its code there, and what both agree on. It needs no running daemon and
//! has its own socket, so that a daemon's stays silent to all whom it does not trust, whatever window is open.

use std::collections::BTreeSet;
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use zeroize::Zeroizing;

use crate::config::Config;
use crate::daemon::hub::policy_of;
use crate::engine::pairing::{Own, Secret};
use crate::keys::fingerprint;
use crate::keys::identity::Identity;
use crate::keys::invite::{Code, Invite, Link};
use crate::model::id::DeviceId;
use crate::model::limits::{PAIRING_ADDRESSES_MAX, PAIRING_WINDOW};
use crate::net::beacon::{Beacon, Search, is_plain, own_addresses};
use crate::net::dial::DialError;
pub use crate::net::pairing::PAIRING_PORT;
use crate::net::pairing::{self as sockets, Channel, MeetError, Secrets};
use crate::net::policy::Policy;
use crate::wire::pairing::PairingMessage;
pub use crate::wire::pairing::{Introduction, SharedFolder};

/// How long a window is looked for.
const SEARCH_MAX: Duration = Duration::from_secs(30);
/// How much longer other windows of the same number are looked for once one has refused the code.
const SEARCH_ON: Duration = Duration::from_secs(3);
/// Windows at which a code is tried: whoever pretends to have one may guess the code once.
const TRIES_MAX: usize = 3;

/// A pairing came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum PairError {
    /// The system gave no thread or no randomness.
    #[error("the system gives nothing to pair with")]
    System(#[source] std::io::Error),
    /// No window was found.
    #[error("no device on this network waits with the code {number}-…")]
    NotFound {
        /// The number of the code.
        number: u8,
    },
    /// Another device than the link names was met.
    #[error("{found} was met where the link names {named}")]
    Stranger {
        /// Who was to be met.
        named: DeviceId,
        /// Who was.
        found: DeviceId,
    },
    /// Nothing came of it for as long as a window is open.
    #[error("the time of the pairing is over")]
    TooLate,
    /// The other device said something else than it had to.
    #[error("the other device does not keep to the order of a pairing")]
    OutOfOrder,
    /// The connection or the code failed.
    #[error(transparent)]
    Meet(#[from] MeetError),
}

impl PairError {
    /// Returns what to do about it.
    pub fn hint(&self) -> Option<String> {
        let text = match self {
            Self::NotFound { .. } => {
                "is `kinfold pair` still waiting there, and are both in the same network? If so, name the address that is \
                 shown there with --at"
            }
            Self::Meet(MeetError::WrongCode) => "look at the code again; three wrong guesses end it",
            Self::Meet(MeetError::Burned) => {
                "if that was nobody of yours, somebody in this network is guessing; run `kinfold pair` again there for a new code"
            }
            Self::Meet(MeetError::Dial(DialError::Forbidden { .. })) => {
                "this device talks to local networks only; add the network to `allow` under [network]"
            }
            Self::Meet(MeetError::Dial(_)) => {
                "is `kinfold pair` still waiting there, and does a firewall let it be reached?"
            }
            Self::Meet(MeetError::Lost(_)) | Self::TooLate => "run `kinfold pair` again on both",
            Self::Stranger { .. } => "take the link anew from the device that you mean",
            _ => return None,
        };
        Some(text.to_owned())
    }
}

struct Network {
    policy: Policy,
    interfaces: Vec<String>,
}

impl Network {
    fn of(config: &Config) -> Self {
        Self { policy: policy_of(config), interfaces: config.network.interfaces.clone() }
    }
}

fn random<const N: usize>() -> Result<Zeroizing<[u8; N]>, PairError> {
    let mut bytes = Zeroizing::new([0; N]);
    let failed = |_| PairError::System(std::io::Error::other("no randomness"));
    aws_lc_rs::rand::fill(bytes.as_mut_slice()).map_err(failed)?;
    Ok(bytes)
}

fn runtime() -> Result<tokio::runtime::Runtime, PairError> {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().map_err(PairError::System)
}

fn own(identity: &Identity) -> Own {
    Own { device: identity.device_id(), private: identity.private_key() }
}

/// A window that this device holds open.
pub struct Window {
    runtime: tokio::runtime::Runtime,
    window: sockets::Window,
    network: Network,
    own: Own,
    code: Code,
    link: Link,
    beacon: Option<Beacon>,
    until: Instant,
}

impl Window {
    /// Opens a window where the daemon listens, and says so on the network.
    pub fn open(config: &Config, identity: &Identity) -> Result<Self, PairError> {
        let runtime = runtime()?;
        let network = Network::of(config);
        let ips: BTreeSet<IpAddr> = config.network.listen.iter().map(SocketAddr::ip).collect();
        let ips: Vec<IpAddr> = ips.into_iter().collect();
        let window = {
            let _inside = runtime.enter();
            sockets::Window::open(&ips, &network.interfaces).map_err(MeetError::Listen)?
        };
        let port = window.addresses().first().map_or(PAIRING_PORT, SocketAddr::port);
        let reachable = reachable(&ips, &network);
        let code = Code::from_random(*random()?);
        let addresses = reachable.iter().take(4).map(|ip| SocketAddr::new(*ip, port)).collect();
        let link = Link { device: identity.device_id(), secret: random()?, addresses };
        // Without multicast there is still the address.
        let named: Vec<IpAddr> = reachable.into_iter().filter(|ip| !ip.is_loopback()).collect();
        let beacon = match named.is_empty() {
            true => None,
            false => Beacon::light(code.number(), &named, port, &network.interfaces, *random()?).ok(),
        };
        let until = Instant::now() + PAIRING_WINDOW;
        Ok(Self { runtime, window, network, own: own(identity), code, link, beacon, until })
    }

    /// Returns the code.
    pub fn code(&self) -> &Code {
        &self.code
    }

    /// Returns the link.
    pub fn link(&self) -> &Link {
        &self.link
    }

    /// Returns whether devices on the network can find the window by the code alone.
    pub fn is_announced(&self) -> bool {
        self.beacon.is_some()
    }

    /// Waits for the device that was given the code; `on_wrong` is told of each wrong guess and how many are left.
    pub fn wait(self, on_wrong: impl FnMut(u32)) -> Result<Meeting, PairError> {
        let link = Secret::of_link(&self.link.secret);
        let secrets = Secrets { code: Secret::of_code(&self.code.to_string()), link };
        let admitted = self.window.admit(&self.own, &secrets, &self.network.policy, on_wrong);
        let channel = within(&self.runtime, self.until, async { Ok(admitted.await?) })?;
        Ok(Meeting { runtime: self.runtime, channel, until: self.until, policy: self.network.policy })
    }
}

/// Returns where the addresses listened at can be reached from elsewhere.
fn reachable(listened: &[IpAddr], network: &Network) -> Vec<IpAddr> {
    let own = own_addresses(&network.interfaces);
    let mut reachable: Vec<IpAddr> = Vec::new();
    for ip in listened {
        let stands_for: Vec<IpAddr> = match ip.is_unspecified() {
            true => own.iter().filter(|own| own.is_ipv4() == ip.is_ipv4()).copied().collect(),
            false => vec![*ip],
        };
        for ip in stands_for {
            if network.policy.permits(ip) && !reachable.contains(&ip) {
                reachable.push(ip);
            }
        }
    }
    reachable
}

/// Goes to the window that an invitation is for: at these addresses, or where it is found.
pub fn join(
    config: &Config,
    identity: &Identity,
    invite: &Invite,
    at: Option<SocketAddr>,
) -> Result<Meeting, PairError> {
    let runtime = runtime()?;
    let network = Network::of(config);
    let own = own(identity);
    let until = Instant::now() + PAIRING_WINDOW;
    let (secret, mut known) = match invite {
        Invite::Code(code) => (Secret::of_code(&code.to_string()), Vec::new()),
        Invite::Link(link) => (Secret::of_link(&link.secret), link.addresses.clone()),
    };
    if let Some(at) = at {
        known = vec![at];
    }
    let attempt = |addresses: &[SocketAddr]| {
        let mut last = None;
        for at in addresses {
            match runtime.block_on(sockets::join(own.clone(), &secret, *at, &network.policy, &network.interfaces)) {
                // Another address of the same window is no other guess, but one is enough.
                Err(error @ MeetError::Dial(_)) => last = Some(error),
                other => return Some(other),
            }
        }
        last.map(Err)
    };
    let met = match invite {
        Invite::Code(code) if known.is_empty() => find(code, &network, attempt),
        _ => attempt(&known)
            .unwrap_or(Err(MeetError::Dial(DialError::NoInterface { interfaces: String::new() })))
            .map_err(PairError::from),
    };
    let channel = met?;
    let found = channel.paired().peer;
    match invite {
        Invite::Link(link) if link.device != found => Err(PairError::Stranger { named: link.device, found }),
        _ => Ok(Meeting { runtime, channel, until, policy: network.policy }),
    }
}

/// Looks for windows with the number of a code, and tries the code at few.
fn find(
    code: &Code,
    network: &Network,
    attempt: impl Fn(&[SocketAddr]) -> Option<Result<Channel, MeetError>>,
) -> Result<Channel, PairError> {
    let number = code.number();
    let Ok(mut search) = Search::begin(number, network.policy.clone(), &network.interfaces) else {
        return Err(PairError::NotFound { number });
    };
    let mut until = Instant::now() + SEARCH_MAX;
    let mut refused = BTreeSet::new();
    let mut last = None;
    while refused.len() < TRIES_MAX
        && let Some(found) = search.next(until)
    {
        if refused.contains(&found.name) {
            continue;
        }
        match attempt(&found.addresses) {
            Some(Ok(channel)) => return Ok(channel),
            Some(Err(error)) => {
                if !matches!(error, MeetError::Dial(_)) {
                    refused.insert(found.name);
                    until = until.min(Instant::now() + SEARCH_ON);
                }
                last = Some(error);
            }
            None => {}
        }
    }
    Err(last.map_or(PairError::NotFound { number }, PairError::Meet))
}

/// Two devices that have proven the code, and are getting to know each other.
pub struct Meeting {
    runtime: tokio::runtime::Runtime,
    channel: Channel,
    until: Instant,
    policy: Policy,
}

impl Meeting {
    /// Returns who is there, proven.
    pub fn peer(&self) -> DeviceId {
        self.channel.paired().peer
    }

    /// Returns words that are the same at both ends, and at no others.
    pub fn words(&self) -> String {
        fingerprint::pairing_words(&self.channel.paired().handshake_hash)
    }

    /// Introduces this device.
    pub fn introduce(&mut self, introduction: Introduction) -> Result<(), PairError> {
        self.say(&PairingMessage::Introduction(introduction))
    }

    /// Waits for the introduction of the other.
    pub fn introduced(&mut self) -> Result<Introduction, PairError> {
        match self.hear()? {
            PairingMessage::Introduction(introduction) => Ok(introduction),
            _ => Err(PairError::OutOfOrder),
        }
    }

    /// Says whether the person here agrees, and returns whether both do.
    pub fn agree(&mut self, agrees: bool) -> Result<bool, PairError> {
        self.say(&PairingMessage::Answer(agrees))?;
        if !agrees {
            return Ok(false);
        }
        match self.hear()? {
            PairingMessage::Answer(agrees) => Ok(agrees),
            _ => Err(PairError::OutOfOrder),
        }
    }

    /// Says whether what was agreed is written down here, and returns whether it is there.
    pub fn conclude(&mut self, is_done: bool) -> Result<bool, PairError> {
        self.say(&PairingMessage::Done(is_done))?;
        match self.hear()? {
            PairingMessage::Done(is_done) => Ok(is_done),
            _ => Err(PairError::OutOfOrder),
        }
    }

    /// Returns where the other can be reached from here, by what it says of itself and by where it was met.
    pub fn addresses_of(&self, introduction: &Introduction) -> Vec<SocketAddr> {
        let met_at = self.channel.peer_addr().ip().to_canonical();
        reached_at(met_at, &introduction.listen, &self.policy)
    }

    fn say(&mut self, message: &PairingMessage) -> Result<(), PairError> {
        let sent = self.channel.send(message);
        within(&self.runtime, self.until, async { Ok(sent.await?) })
    }

    fn hear(&mut self) -> Result<PairingMessage, PairError> {
        let received = self.channel.receive();
        within(&self.runtime, self.until, async { Ok(received.await?) })
    }
}

fn reached_at(met_at: IpAddr, listen: &[SocketAddr], policy: &Policy) -> Vec<SocketAddr> {
    let mut reached: Vec<SocketAddr> = Vec::new();
    for at in listen.iter().take(PAIRING_ADDRESSES_MAX).filter(|at| at.port() != 0) {
        let ip = match at.ip() {
            ip if ip.is_unspecified() && ip.is_ipv4() == met_at.is_ipv4() => met_at,
            ip if ip.is_unspecified() => continue,
            // What is loopback there is somebody else here, unless there is here.
            ip if ip.is_loopback() && !met_at.is_loopback() => continue,
            ip => ip,
        };
        let at = SocketAddr::new(ip, at.port());
        if is_plain(ip) && policy.permits(ip) && !reached.contains(&at) {
            reached.push(at);
        }
    }
    reached
}

fn within<T>(
    runtime: &tokio::runtime::Runtime,
    until: Instant,
    what: impl Future<Output = Result<T, PairError>>,
) -> Result<T, PairError> {
    runtime.block_on(async { tokio::time::timeout_at(until.into(), what).await.unwrap_or(Err(PairError::TooLate)) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_reached_where_it_was_met_and_where_it_says() {
        let lan = Policy { lan_only: true, allowed: Vec::new() };
        let check = |met_at: &str, listen: &[&str], expected: &[&str]| {
            let listen: Vec<SocketAddr> = listen.iter().map(|text| text.parse().unwrap()).collect();
            let reached: Vec<String> =
                reached_at(met_at.parse().unwrap(), &listen, &lan).iter().map(SocketAddr::to_string).collect();
            assert_eq!(reached, expected);
        };
        check("192.168.1.5", &["0.0.0.0:25463", "[::]:25463"], &["192.168.1.5:25463"]);
        check("fd00::5", &["0.0.0.0:25463", "[::]:25463"], &["[fd00::5]:25463"]);
        check("192.168.1.5", &["10.0.0.1:7", "10.0.0.1:7", "127.0.0.1:7", "203.0.113.7:7"], &["10.0.0.1:7"]);
        check("127.0.0.1", &["127.0.0.1:7", "0.0.0.0:0"], &["127.0.0.1:7"]);
        check("fe80::5", &["[::]:7"], &[]);
    }
}
