//! This device as the network sees it: its key, whom it trusts, and whom it talks to at all.
//!
//! Dialing and listening share one, so that a device that is no longer trusted is turned away by both
//! at once. Connections that stand already are for the caller to cut.

use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::engine::session::beacon;
use crate::engine::session::gate::{Gate, PairKeys, Silence, Tag, TrustListFull};
use crate::engine::session::handshake::{HandshakeError, Initiator, Local, Primitives, Responder};
use crate::engine::session::suite::Suite;
use crate::model::id::DeviceId;
use crate::net::policy::Policy;

/// What dialing and listening need of this device.
pub struct Endpoint {
    local: Local,
    primitives: Box<dyn Primitives>,
    on_admitted: Box<dyn Fn(&Tag) + Send + Sync>,
    door: Mutex<Door>,
}

/// What can change while the program runs.
struct Door {
    gate: Gate,
    policy: Policy,
    interfaces: Vec<String>,
}

/// Why a first message was not answered; for the local log.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unanswered {
    #[error(transparent)]
    Silence(#[from] Silence),
    #[error(transparent)]
    Handshake(#[from] HandshakeError),
}

impl Endpoint {
    /// Creates an endpoint that trusts nobody.
    pub fn new(local: Local, primitives: Box<dyn Primitives>, policy: Policy) -> Self {
        let gate = Gate::new(local.device);
        Self {
            local,
            primitives,
            on_admitted: Box::new(|_| {}),
            door: Mutex::new(Door { gate, policy, interfaces: Vec::new() }),
        }
    }

    /// Refuses the first messages that earlier lives have answered, and tells of each that this one
    /// answers, just before it does, so that the next life can refuse it.
    #[must_use]
    pub fn with_memory(
        mut self,
        earlier: impl IntoIterator<Item = Tag>,
        on_admitted: impl Fn(&Tag) + Send + Sync + 'static,
    ) -> Self {
        for tag in earlier {
            self.door().gate.remember(tag);
        }
        self.on_admitted = Box::new(on_admitted);
        self
    }

    /// Returns the id of this device.
    pub fn device_id(&self) -> DeviceId {
        self.local.device
    }

    /// Returns the suite to dial a peer with; see [`Suite::preferred`].
    pub fn suite_for(&self, peer_has_aes: Option<bool>) -> Suite {
        Suite::preferred(self.local.has_aes, peer_has_aes)
    }

    /// Lets a device in from now on.
    pub fn trust(&self, device: DeviceId, keys: PairKeys) -> Result<(), TrustListFull> {
        self.door().gate.trust(device, keys)
    }

    /// Turns a device away from now on.
    pub fn distrust(&self, device: &DeviceId) {
        self.door().gate.distrust(device);
    }

    /// Replaces the policy.
    pub fn set_policy(&self, policy: Policy) {
        self.door().policy = policy;
    }

    /// From now on dials by these interfaces alone; by any where there are none.
    pub fn set_interfaces(&self, interfaces: Vec<String>) {
        self.door().interfaces = interfaces;
    }

    /// Returns the interfaces that alone are used, or none where all are.
    pub fn interfaces(&self) -> Vec<String> {
        self.door().interfaces.clone()
    }

    /// Returns whether this device may talk to an address.
    pub fn permits(&self, address: IpAddr) -> bool {
        self.door().policy.permits(address)
    }

    /// Makes the tags of a beacon of this name; see [`beacon::tags`].
    pub fn beacon(
        &self,
        name: &beacon::Name,
        period: i64,
        filler: &[[u8; beacon::TAG_LEN]; beacon::TAGS_MAX],
    ) -> Vec<u8> {
        let mut filler = filler.iter().copied();
        beacon::tags(&self.door().gate, name, period, || filler.next().unwrap_or_default())
    }

    /// Returns which of the trusted devices shows a beacon, if one does.
    pub fn shown_by(&self, name: &beacon::Name, tags: &[u8], period: i64) -> Option<DeviceId> {
        beacon::shown_by(&self.door().gate, name, tags, period)
    }

    /// Begins a handshake, or returns `None` if the peer is not trusted.
    pub(crate) fn initiate(
        &self,
        peer: DeviceId,
        suite: Suite,
    ) -> Option<Result<(Initiator, Vec<u8>), HandshakeError>> {
        let keys = self.door().gate.keys_of(&peer)?;
        Some(Initiator::start(&self.local, peer, keys, suite, self.primitives.as_ref()))
    }

    /// Answers a first message, if it is to be answered.
    pub(crate) fn respond(&self, first: &[u8]) -> Result<(Responder, Vec<u8>), Unanswered> {
        // The lock is released before the costly part.
        let admission = self.door().gate.admit(first)?;
        (self.on_admitted)(&admission.tag);
        Ok(Responder::start(&self.local, admission, self.primitives.as_ref())?)
    }

    /// Answers a first message that came inside a session. Nobody else has seen it, so that it need not be remembered
    /// beyond this life.
    pub(crate) fn respond_inside(&self, first: &[u8]) -> Result<(Responder, Vec<u8>), Unanswered> {
        let admission = self.door().gate.admit(first)?;
        Ok(Responder::start(&self.local, admission, self.primitives.as_ref())?)
    }

    /// Every change behind the lock is a single step, so a panic elsewhere leaves nothing half done.
    fn door(&self) -> MutexGuard<'_, Door> {
        self.door.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
