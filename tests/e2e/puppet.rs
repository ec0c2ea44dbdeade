//! A device without a daemon, which says what it likes.

use std::net::SocketAddr;
use std::path::Path;

use kinfold::engine::session::gate::PairKeys;
use kinfold::engine::session::handshake::{Local, Versions};
use kinfold::keys::identity::Identity;
use kinfold::model::id::{DeviceId, FolderId, Incarnation, Life, Sequence};
use kinfold::model::rights::Members;
use kinfold::net::connection::{Connection, FrameReader, FrameWriter};
use kinfold::net::crypto::{SystemPrimitives, has_aes_hardware};
use kinfold::net::dial::{DialError, dial};
use kinfold::net::endpoint::Endpoint;
use kinfold::net::policy::Policy;
use kinfold::wire::message::{FolderHello, Message};
use tokio::runtime::Runtime;

use crate::lab::{AMPLE, DATA, Device, Lab};

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

    /// Begins a session with a device that trusts it.
    pub fn session(&self, device: &Device) -> Session {
        let (reader, writer) = self.dial(id_of(device), device.address).unwrap().split();
        Session { reader, writer }
    }
}

/// A session of a puppet with a device.
pub struct Session {
    pub reader: FrameReader,
    writer: FrameWriter,
}

impl Session {
    /// Says something.
    pub fn say(&mut self, message: &Message) {
        let (header, body) = message.encode();
        self.writer.send(message.kind(), &header, &body).and_then(|()| self.writer.flush()).unwrap();
    }
}

/// Claims to hold a folder, of which no more is known than its id.
pub fn claim(folder: FolderId) -> FolderHello {
    FolderHello {
        folder,
        name: DATA.to_owned(),
        holds: true,
        incarnation: Incarnation(0xbad),
        life: Life::default(),
        last: Sequence(0),
        received: None,
        members: Members::default(),
    }
}

/// Returns the id of a device.
pub fn id_of(device: &Device) -> DeviceId {
    DeviceId::parse(&device.id()).unwrap()
}
