//! The rates that the configuration sets, as sessions keep to them: of the network, of devices, of folders.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::config::Config;
use crate::config::rate::{Rate, Rates};
use crate::control::types::RatesStatus;
use crate::model::id::{DeviceId, FolderId};
use crate::net::pace::{Meter, Pace};
use crate::wire::message::Message;

/// Both directions of something.
#[derive(Clone, Default)]
struct Meters {
    send: Arc<Meter>,
    receive: Arc<Meter>,
}

impl Meters {
    fn set(&self, rates: Rates) {
        self.send.set_rate(rates.send.map(Rate::bytes));
        self.receive.set_rate(rates.receive.map(Rate::bytes));
    }
}

/// All rates. Those of devices and folders are made and forgotten with them; what is not known here, as a folder that
/// only a peer speaks of, has none and leaves no trace.
#[derive(Default)]
pub struct Metering {
    network: Meters,
    devices: Mutex<BTreeMap<DeviceId, Meters>>,
    folders: Mutex<BTreeMap<FolderId, Meters>>,
}

impl Metering {
    /// Puts the rates of a configuration in force, in sessions that are under way too.
    pub fn set(&self, config: &Config) {
        self.network.set(config.network.rates);
        keep(&self.devices, config.devices.iter().map(|device| (device.id, device.rates)));
        keep(&self.folders, config.folders.iter().map(|folder| (folder.id, folder.rates)));
    }

    fn device(&self, id: &DeviceId) -> Meters {
        locked(&self.devices).get(id).cloned().unwrap_or_default()
    }

    fn folder(&self, id: &FolderId) -> Meters {
        locked(&self.folders).get(id).cloned().unwrap_or_default()
    }
}

fn locked<K>(meters: &Mutex<BTreeMap<K, Meters>>) -> MutexGuard<'_, BTreeMap<K, Meters>> {
    meters.lock().unwrap_or_else(PoisonError::into_inner)
}

fn keep<K: Copy + Ord>(meters: &Mutex<BTreeMap<K, Meters>>, wanted: impl Iterator<Item = (K, Rates)>) {
    let wanted: BTreeMap<K, Rates> = wanted.collect();
    let mut meters = locked(meters);
    meters.retain(|id, _| wanted.contains_key(id));
    for (id, rates) in wanted {
        meters.entry(id).or_default().set(rates);
    }
}

/// Returns rates as the control API tells them.
pub fn shown(rates: Option<Rates>) -> RatesStatus {
    let Rates { send, receive } = rates.unwrap_or_default();
    let bytes = |rate: Rate| rate.bytes().get();
    RatesStatus { send_bytes: send.map(bytes), receive_bytes: receive.map(bytes) }
}

/// The rates that a session keeps to.
///
/// What is sent is counted where it is sealed, to the byte. What is received is asked for: a request is counted with
/// the chunks that it asks for, and waits while anything is owed; all else is counted when it has come, and then the
/// next request and the next acknowledgement wait, without which the peer sends no more. So the peer is never stopped in
/// the middle of a frame, and its pings, its renewals and its goodbye come at once.
#[derive(Clone)]
pub struct Flow {
    all: Arc<Metering>,
    send: Pace,
    receive: Pace,
}

impl Flow {
    /// Returns the rates of a session with a device.
    pub fn with(all: &Arc<Metering>, device: &DeviceId) -> Self {
        let (network, device) = (&all.network, all.device(device));
        Self {
            all: all.clone(),
            send: Pace::new([network.send.clone(), device.send]),
            receive: Pace::new([network.receive.clone(), device.receive]),
        }
    }

    /// Returns what all that is sent keeps to.
    pub fn send(&self) -> &Pace {
        &self.send
    }

    /// Returns what is sent of a folder keeps to besides.
    pub fn send_of(&self, folder: &FolderId) -> Arc<Meter> {
        self.all.folder(folder).send
    }

    /// Returns what all that is received keeps to.
    pub fn receive(&self) -> &Pace {
        &self.receive
    }

    /// Returns what is received of a folder keeps to besides.
    pub fn receive_of(&self, folder: &FolderId) -> Arc<Meter> {
        self.all.folder(folder).receive
    }

    /// Counts what a request has the peer send.
    pub fn asked(&self, message: &Message) {
        if let Message::Want(want) = message {
            self.receive.spend(want.bytes());
            self.receive_of(&want.folder).spend(want.bytes());
        }
    }

    /// Counts what has come. Chunks were counted when they were asked for.
    pub fn heard(&self, message: &Message, len: usize) {
        match message {
            Message::Chunk(_) => {}
            Message::Records(records) => {
                self.receive.spend(len as u64);
                self.receive_of(&records.folder).spend(len as u64);
            }
            _ => self.receive.spend(len as u64),
        }
    }
}
