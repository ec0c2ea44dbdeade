//! A device without a daemon, which says what it likes.

use std::net::SocketAddr;
use std::path::Path;

use kinfold::engine::session::gate::PairKeys;
use kinfold::engine::session::handshake::{Local, Versions};
use kinfold::keys::identity::Identity;
use kinfold::model::id::DeviceId;
use kinfold::net::connection::Connection;
use kinfold::net::crypto::{SystemPrimitives, has_aes_hardware};
use kinfold::net::dial::{DialError, dial};
use kinfold::net::endpoint::Endpoint;
use kinfold::net::policy::Policy;
use tokio::runtime::Runtime;

use crate::lab::{AMPLE, Device, Lab};

/// A device that is nothing but this library's own network code and a key.
pub struct Puppet {
    identity: Identity,
    runtime: Runtime,
}

impl Puppet {
    /// Makes a key for it.
    pub fn new(lab: &Lab, name: &str) -> Self {
        let path = lab.path(name);
        Identity::create(&path).unwrap();
        Self::open(&path)
    }

    /// Takes a key that is there.
    pub fn open(path: &Path) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        Self { identity: Identity::open(path).unwrap(), runtime }
    }

    /// Returns its key.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Returns its id.
    pub fn id(&self) -> DeviceId {
        self.identity.device_id()
    }

    /// Connects to a device that it trusts, whether that trusts it or not.
    pub fn dial(&self, peer: DeviceId, address: SocketAddr) -> Result<Connection, DialError> {
        let local = Local {
            device: self.id(),
            private: self.identity.private_key(),
            versions: Versions::OURS,
            has_aes: has_aes_hardware(),
        };
        let policy = Policy { lan_only: true, allowed: Vec::new() };
        let endpoint = Endpoint::new(local, Box::new(SystemPrimitives), policy);
        endpoint.trust(peer, PairKeys::derive(&self.identity.agree(&peer).unwrap())).unwrap();
        let suite = endpoint.suite_for(None);
        self.runtime.block_on(dial(&endpoint, peer, address, suite, AMPLE))
    }
}

/// Returns the id of a device.
pub fn id_of(device: &Device) -> DeviceId {
    DeviceId::parse(&device.id()).unwrap()
}
