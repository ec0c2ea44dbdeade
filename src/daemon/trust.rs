//! Who is let in; and revocations: what devices tell each other of those that were lost or stolen.
//!
//! Of a revocation a device is believed that is an owner of a folder here, for who may hand out a folder may also say who is to have it
//! no longer. What is heard is handed on, so that it also reaches those who were away.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::config::{Config, Device};
use crate::daemon::hub::{Hub, State};
use crate::daemon::peer::{Outgoing, PeerSender};
use crate::engine::session::gate::PairKeys;
use crate::model::id::DeviceId;
use crate::model::revocation::Revocation;
use crate::model::rights::Right;
use crate::wire::message::Message;

impl Hub {
    /// Lets in the devices of a configuration, and those that they will be, and no others.
    pub(super) fn apply_devices(&self, state: &mut State, config: &Config) {
        let ids = |config: &Config| config.devices.iter().flat_map(Device::ids).collect::<BTreeSet<DeviceId>>();
        let (before, after) = (ids(&state.config), ids(config));
        for gone in before.difference(&after) {
            self.endpoint.distrust(gone);
            if let Some(session) = state.sessions.get(gone) {
                session.sender.cut();
            }
            state.troubles.remove(gone);
        }
        for new in after.difference(&before) {
            let trusted = self.identity.agree(new).map_err(|error| error.to_string()).and_then(|shared| {
                self.endpoint.trust(*new, PairKeys::derive(&shared)).map_err(|error| error.to_string())
            });
            if let Err(error) = trusted {
                let name = config.device_known_as(new).map(|device| device.name.as_str());
                tracing::error!(device = name, id = %new, error, "this device cannot be trusted");
            }
        }
    }

    /// Tells one peer what was said of devices.
    pub(super) fn tell_revocations(&self, sender: &PeerSender) {
        let said: Vec<Revocation> = self.lock().config.revoked.iter().map(|revoked| revoked.said).collect();
        if !said.is_empty() {
            sender.send(Outgoing::Message(Message::Trust(said)));
        }
    }

    /// Tells all peers, where there is something that was not said before.
    pub(super) fn tell_revocations_to_all(&self, before: &[Revocation]) {
        let senders: Vec<PeerSender> = {
            let state = self.lock();
            let is_new = state.config.revoked.iter().any(|revoked| !before.contains(&revoked.said));
            if !is_new {
                return;
            }
            state.sessions.values().map(|session| session.sender.clone()).collect()
        };
        senders.iter().for_each(|sender| self.tell_revocations(sender));
    }

    /// Takes over what a peer says of devices.
    pub(super) fn hear_revocations(self: &Arc<Self>, from: &DeviceId, said: &[Revocation]) {
        let own = self.identity.device_id();
        let (is_believed, is_news, name) = {
            let state = self.lock();
            let is_owner = |folder: &crate::config::Folder| folder.members.right_of(from) == Some(Right::Owner);
            let is_news = said.iter().any(|said| {
                let known = state.config.revocation(&said.device).map(|known| &known.said);
                said.device != own && said.device != *from && said.counts_over(known)
            });
            let name = state.config.device(from).map_or_else(|| from.to_string(), |device| device.name.clone());
            (state.config.folders.iter().any(is_owner), is_news, name)
        };
        if !is_news {
            return;
        }
        if !is_believed {
            tracing::info!(device = %from, "it revokes a device, and is not an owner of any folder here: not believed");
            return;
        }
        let mut revoked = Vec::new();
        self.edit(|edit| {
            revoked = edit.hear_revocations(&own, from, said)?;
            Ok(())
        });
        for revoked in revoked {
            if let Some(lost) = revoked.name {
                tracing::warn!(device = lost, id = %revoked.id, by = name, "revoked: trusted no longer");
            }
        }
    }
}
