//! What a person decided: the device's name, its network, the devices it trusts and the folders it keeps.
//!
//! [`raw`] is the file as written, [`Config`] what it means, with every default filled in and every
//! rule checked; [`edit`] changes the file and keeps its comments. Identity and state are not here.

pub mod address;
pub mod brake;
pub mod edit;

pub mod error;
pub mod file;
pub mod limit;
pub mod load;
pub mod merge;
pub mod metered;
pub mod paths;
pub mod rate;
pub mod raw;
pub mod revoke;
pub mod size;
pub mod subnet;
pub mod succession;
#[cfg(test)]
pub(crate) mod testing;
pub mod windows;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use jiff::Timestamp;

use crate::config::merge::Merge;
use crate::config::metered::WhenMetered;
use crate::config::rate::Rates;
use crate::config::size::HistorySize;
use crate::config::subnet::Subnet;
use crate::config::windows::Windows;
use crate::model::brake::Thresholds;
use crate::model::id::DeviceId;
use crate::model::id::FolderId;
use crate::model::revocation::Revocation;
use crate::model::rights::Members;
use crate::model::rights::Right;

/// A configuration that was read and holds all its rules.
///
/// Invariant: no device is trusted that was revoked, by whichever of its ids; each id is one device's alone; names and
/// ids of devices are unique, the device's own name included; so are names, ids and places of folders; no folder lies
/// inside another, and none holds the program's own files.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Config {
    /// What people call this device.
    pub name: String,
    /// Ids that it had before, the oldest first.
    pub former: Vec<DeviceId>,
    /// Where it listens and whom it talks to.
    pub network: Network,
    /// What the daemon takes from itself.
    pub sandbox: SandboxMode,
    /// How much of the past is kept, where a folder does not say otherwise.
    pub history: History,
    /// The trust list, in the order of the file.
    pub devices: Vec<Device>,
    /// The folders, in the order of the file.
    pub folders: Vec<Folder>,
    /// Folders that were accepted before their offer arrived.
    pub accepts: Vec<Accept>,
    /// What was said of devices that were lost or stolen.
    pub revoked: Vec<Revoked>,
}

/// Where the device listens and whom it talks to.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Network {
    /// Addresses to listen on; a port of 0 lets the system choose one.
    pub listen: Vec<SocketAddr>,
    /// Which addresses are talked to at all.
    pub mode: NetworkMode,
    /// Networks that count as local besides those that are.
    pub allow: Vec<Subnet>,
    /// Network interfaces that every socket is bound to; none binds to no one.
    pub interfaces: Vec<String>,
    /// Whether trusted devices are looked for on the network, and this one lets them find it.
    pub discovery: bool,
    /// How much goes over the network in a second, with all devices together.
    pub rates: Rates,
}

/// Which addresses are talked to at all.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum NetworkMode {
    /// Only those of local networks, and of [`Network::allow`].
    Lan,
    /// All.
    Any,
}

impl NetworkMode {
    /// Returns the word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Lan => "lan",
            Self::Any => "any",
        }
    }
}

/// Whether the daemon confines itself.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum SandboxMode {
    /// As far as the kernel lets it; what is missing is told.
    #[default]
    On,
    /// Wholly, or it does not run.
    Required,
    /// Not at all, for those who look into a running daemon.
    Off,
}

impl SandboxMode {
    /// Returns the word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::On => "on",
            Self::Required => "required",
            Self::Off => "off",
        }
    }
}

/// How much of what a sync overwrites or deletes is kept.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct History {
    /// For how many days; 0 keeps nothing.
    pub days: u32,
    /// Up to how much space per folder; the oldest goes first.
    pub size: HistorySize,
}

/// One line of the trust list.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Device {
    /// What people call it here.
    pub name: String,
    /// Who it is.
    pub id: DeviceId,
    /// Who it is going to be: with a session under that id it becomes [`Device::id`].
    pub next: Option<DeviceId>,
    /// Who it was before, the oldest first.
    pub former: Vec<DeviceId>,
    /// Where it can be reached; never port 0.
    pub addresses: Vec<SocketAddr>,
    /// How much goes to it and comes from it in a second.
    pub rates: Rates,
}

impl Device {
    /// Makes a line of a device that has never had another id.
    pub fn new(name: impl Into<String>, id: DeviceId, addresses: Vec<SocketAddr>) -> Self {
        let (former, rates) = (Vec::new(), Rates::default());
        Self { name: name.into(), id, next: None, former, addresses, rates }
    }
}

/// What was said of a device that was lost or stolen.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Revoked {
    /// What.
    pub said: Revocation,
    /// Who said it; `None`: a person here.
    pub by: Option<DeviceId>,
    /// What the device was called here.
    pub name: Option<String>,
}

/// A folder kept on this device.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Folder {
    /// What people call it here.
    pub name: String,
    /// Which folder it is, on every member.
    pub id: FolderId,
    /// Where it lies, as written; absolute.
    pub path: PathBuf,
    /// Whether it rests until a person says otherwise.
    pub paused: bool,
    /// Until when it rests.
    pub paused_until: Option<Timestamp>,
    /// At which times of the week anything is exchanged.
    pub active: Windows,
    /// Whether anything is exchanged while the connection is metered.
    pub metered: WhenMetered,
    /// How much of it goes over the network in a second, with all devices together.
    pub rates: Rates,
    /// Who belongs to it.
    pub members: Members,
    /// Time between two full scans; `None` relies on being told of changes.
    pub rescan: Option<Duration>,
    /// Whether `.gitignore` files count as well as `.kinfoldignore`.
    pub gitignore: bool,
    /// How much of its past is kept.
    pub history: History,
    /// When what another device did is held until a person looks; `None`: never.
    pub brake: Option<Thresholds>,
    /// Time within which all files are read again and compared with what is recorded; `None`: never.
    pub scrub: Option<Duration>,
    /// What becomes of texts that were edited apart.
    pub merge: Merge,
}

/// A folder that was accepted before its offer arrived.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Accept {
    /// The name it is expected to be offered under, and its name here.
    pub name: String,
    /// Where it shall lie; absolute.
    pub path: PathBuf,
    /// Who is to offer it.
    pub from: DeviceId,
    /// With whom it is to be shared onward as soon as it is here.
    pub shares: Vec<(DeviceId, Right)>,
}

impl Folder {
    /// Returns whether a person let it rest.
    pub fn is_paused(&self, now: Timestamp) -> bool {
        self.paused || self.paused_until.is_some_and(|until| now < until)
    }
}

impl Config {
    /// Finds a device of the trust list by its id.
    pub fn device(&self, id: &DeviceId) -> Option<&Device> {
        self.devices.iter().find(|device| device.id == *id)
    }

    /// Finds a device of the trust list by its name, or by its id as text.
    pub fn device_named(&self, text: &str) -> Option<&Device> {
        let id = DeviceId::parse(text).ok();
        self.devices.iter().find(|device| device.name == text || Some(device.id) == id)
    }

    /// Finds a folder by its id.
    pub fn folder(&self, id: &FolderId) -> Option<&Folder> {
        self.folders.iter().find(|folder| folder.id == *id)
    }

    /// Finds a folder by its name.
    pub fn folder_named(&self, name: &str) -> Option<&Folder> {
        self.folders.iter().find(|folder| folder.name == name)
    }
}
