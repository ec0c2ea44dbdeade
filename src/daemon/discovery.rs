//! Finds trusted devices on the network, and is found by them, by beacons that tell nobody else anything; see
//! [`engine::session::beacon`](crate::engine::session::beacon).
//!
//! A beacon is new when its time is over, when addresses or interfaces have changed, when the machine has slept, and
//! when a device is trusted that was not, or no longer: so that what is seen at one place or time is not known again at
//! another. Where this device listens on loopback alone, or trusts nobody, it shows none and looks for none.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::watch;

use crate::config::Device;
use crate::daemon::hub::{Hub, chain};
use crate::daemon::run::{random, wall_ns};
use crate::engine::session::beacon::{Name, PERIOD, TAG_LEN, TAGS_MAX, period_of};
use crate::model::id::DeviceId;
use crate::net::beacon::{BeaconError, is_plain};
use crate::net::discovery::{Discovery, Seen};

/// Pause between two looks at what is to be shown, as a bound also on how late the end is noticed.
const LOOK_PAUSE: Duration = Duration::from_secs(1);
/// Pause between two looks at whether somebody floods the network.
const FLOOD_PAUSE: Duration = Duration::from_secs(10);
/// Pause after which multicast is tried again where it could not be used.
const RETRY_PAUSE: Duration = Duration::from_secs(60);
/// By how much the clock and the time that the machine was awake differ after a sleep.
const SLEEP_MIN: Duration = Duration::from_secs(20);

/// What discovery has brought.
#[derive(Default)]
pub struct Found(Mutex<State>);

#[derive(Default)]
struct State {
    /// Where devices were, by their newest beacon.
    addresses: BTreeMap<DeviceId, Vec<SocketAddr>>,
    /// By which interfaces beacons are shown and looked for now.
    interfaces: Vec<String>,
}

impl Found {
    /// Returns where to dial a device: where it was seen, and then where a person said that it is.
    pub fn ways(&self, device: &DeviceId, said: &[SocketAddr]) -> Vec<SocketAddr> {
        let mut ways = self.lock().addresses.get(device).cloned().unwrap_or_default();
        for way in said {
            if !ways.contains(way) {
                ways.push(*way);
            }
        }
        ways
    }

    /// Returns by which interfaces beacons are shown and looked for now.
    pub fn interfaces(&self) -> Vec<String> {
        self.lock().interfaces.clone()
    }

    /// Notes where a device was seen. Returns whether that is new.
    fn note(&self, device: DeviceId, addresses: Vec<SocketAddr>) -> bool {
        self.lock().addresses.insert(device, addresses.clone()) != Some(addresses)
    }

    /// Each change is a single step.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Hub {
    /// Returns the devices that should be dialed now, and where.
    pub fn to_dial(&self) -> BTreeMap<DeviceId, Vec<SocketAddr>> {
        let state = self.lock();
        let wanted = state.config.devices.iter().filter(|device| !state.sessions.contains_key(&device.id));
        // One that was to change its key may have done so, and answers to its next id alone, where it was before.
        let ways = wanted.flat_map(|device| {
            let present = self.found.ways(&device.id, &device.addresses);
            let next = device.next.map(|next| (next, self.found.ways(&next, &present)));
            std::iter::once((device.id, present)).chain(next)
        });
        ways.filter(|(_, ways)| !ways.is_empty()).collect()
    }

    /// Cuts the sessions from addresses that this machine no longer has: nothing would ever come by them.
    pub fn cut_strayed(&self) {
        let Ok(own) = if_addrs::get_if_addrs() else { return };
        let is_own = |ip: IpAddr| ip.is_loopback() || own.iter().any(|interface| interface.ip() == ip);
        for session in self.lock().sessions.values() {
            let from = session.link.local_addr.ip().to_canonical();
            if !is_own(from) {
                tracing::info!(device = %session.link.peer, address = %from, "this machine has the address no longer");
                session.sender.cut();
            }
        }
    }

    /// A device was seen at these addresses. Where it is connected from another, that connection may be one that it no
    /// longer has: it is asked, and where no answer can come, the system ends it.
    fn probe(&self, device: &DeviceId, addresses: &[SocketAddr]) {
        if let Some(session) = self.lock().sessions.get(device)
            && !addresses.iter().any(|at| at.ip() == session.link.remote_addr.ip().to_canonical())
        {
            session.sender.probe();
        }
    }
}

/// What a beacon depends on.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Plan {
    /// The addresses to tell of, and their interfaces.
    addresses: Vec<(String, IpAddr)>,
    port: u16,
    /// Who is to recognise it.
    devices: Vec<DeviceId>,
}

impl Plan {
    /// Returns what is to be shown now, or `None` where nothing is.
    fn now(hub: &Hub) -> Option<Self> {
        let listening = hub.listening().addresses;
        let (devices, interfaces) = {
            let state = hub.lock();
            let network = &state.config.network;
            let is_on = network.discovery && !state.config.devices.is_empty();
            is_on.then(|| (state.config.devices.iter().flat_map(Device::ids).collect(), network.interfaces.clone()))?
        };
        // All is told of one port: whoever listens on several is to be found, not described.
        let port = listening.iter().find(|at| !at.ip().is_loopback())?.port();
        let reaches = |ip: IpAddr| {
            listening.iter().filter(|at| at.port() == port).any(|at| {
                let takes_all = at.ip().is_unspecified() && at.is_ipv4() == ip.is_ipv4();
                takes_all || at.ip() == ip
            })
        };
        let own = if_addrs::get_if_addrs().unwrap_or_default();
        let own = own.into_iter().map(|interface| (interface.ip(), interface.name));
        let counts = |(ip, name): &(IpAddr, String)| {
            let is_allowed = interfaces.is_empty() || interfaces.contains(name);
            is_allowed && !ip.is_loopback() && is_plain(*ip) && hub.endpoint.permits(*ip) && reaches(*ip)
        };
        let mut addresses: Vec<_> = own.filter(counts).map(|(ip, name)| (name, ip)).collect();
        addresses.sort_unstable();
        (!addresses.is_empty()).then_some(Self { addresses, port, devices })
    }

    fn interfaces(&self) -> Vec<String> {
        let mut names: Vec<_> = self.addresses.iter().map(|(name, _)| name.clone()).collect();
        names.dedup();
        names
    }
}

/// A beacon that is shown.
struct Lit {
    discovery: Discovery,
    plan: Plan,
    name: Name,
    period: i64,
    since: (Instant, SystemTime),
    flood_checked: Instant,
}

impl Lit {
    fn light(hub: &Hub, plan: Plan) -> Result<Self, BeaconError> {
        let (name, host): (Name, [u8; 8]) = (random(), random());
        let period = period_of(wall_ns());
        let filler: [[u8; TAG_LEN]; TAGS_MAX] = std::array::from_fn(|_| random());
        let tags = hub.endpoint.beacon(&name, period, &filler);
        let mut discovery = Discovery::begin(plan.interfaces())?;
        let addresses: Vec<_> = plan.addresses.iter().map(|(_, ip)| *ip).collect();
        discovery.show((&name, host), &tags, &addresses, plan.port)?;
        let now = Instant::now();
        Ok(Self { discovery, plan, name, period, since: (now, SystemTime::now()), flood_checked: now })
    }

    /// Whether another one is due, although nothing has changed that it tells of.
    fn is_over(&self) -> bool {
        let awake = self.since.0.elapsed();
        // A clock that was set is as good a reason as a sleep.
        let by_clock = self.since.1.elapsed().unwrap_or_default();
        period_of(wall_ns()) != self.period || awake > PERIOD || by_clock.abs_diff(awake) > SLEEP_MIN
    }
}

/// Shows beacons and looks for them until the daemon ends.
pub fn keep_discovering(hub: &Arc<Hub>, stopped: &watch::Receiver<bool>) {
    let mut lit: Option<Lit> = None;
    let mut rests_until: Option<(Instant, Plan)> = None;
    while !*stopped.borrow() {
        let wanted = Plan::now(hub);
        if let Some(old) = lit.take_if(|lit| wanted.as_ref() != Some(&lit.plan) || lit.is_over()) {
            let stays = wanted.as_ref().is_none_or(|plan| plan.addresses == old.plan.addresses);
            if !stays {
                old.discovery.vanish();
            }
        }
        let rests = |plan: &Plan| rests_until.as_ref().is_some_and(|(until, of)| Instant::now() < *until && of == plan);
        if lit.is_none()
            && let Some(plan) = wanted.filter(|plan| !rests(plan))
        {
            let by = plan.interfaces();
            match Lit::light(hub, plan.clone()) {
                Ok(new) => lit = Some(new),
                Err(error) => {
                    tracing::warn!(error = chain(&error), "devices cannot be looked for by multicast");
                    rests_until = Some((Instant::now() + RETRY_PAUSE, plan));
                }
            }
            hub.found.lock().interfaces = if lit.is_some() { by } else { Vec::new() };
        }
        let Some(now) = &mut lit else {
            hub.found.lock().interfaces.clear();
            thread::sleep(LOOK_PAUSE);
            continue;
        };
        let began = Instant::now();
        let mut has_ended = false;
        while began.elapsed() < LOOK_PAUSE && !has_ended {
            match now.discovery.next(LOOK_PAUSE.saturating_sub(began.elapsed())) {
                Ok(Some(seen)) => see(hub, now, seen),
                Ok(None) => {}
                Err(_) => has_ended = true,
            }
        }
        if now.flood_checked.elapsed() > FLOOD_PAUSE {
            now.flood_checked = Instant::now();
            has_ended |= now.discovery.is_flooded();
        }
        if has_ended {
            tracing::warn!("somebody floods the network with beacons: for a while none is shown or looked for");
            rests_until = lit.take().map(|lit| (Instant::now() + PERIOD, lit.plan));
        }
    }
}

/// Looks whose beacon it is.
fn see(hub: &Arc<Hub>, lit: &Lit, seen: Seen) {
    if seen.name == lit.name {
        return;
    }
    let Some(device) = hub.endpoint.shown_by(&seen.name, &seen.tags, period_of(wall_ns())) else { return };
    let addresses: Vec<_> = seen.addresses.into_iter().filter(|at| hub.endpoint.permits(at.ip())).collect();
    if !addresses.is_empty() && hub.found.note(device, addresses.clone()) {
        tracing::debug!(%device, ?addresses, "found");
        hub.probe(&device, &addresses);
        hub.say_changed();
    }
}
