//! Which folders a session is about: what peers say of folders, whom they are shared with, and what is offered.

use std::sync::Arc;

use super::{Hub, Offered, Slot};
use crate::daemon::folder::Command;
use crate::daemon::peer::Outgoing;
use crate::engine::folder::Input;
use crate::model::id::{DeviceId, FolderId, Incarnation, Life, Sequence};
use crate::model::rights::{Members, Right};
use crate::wire::message::{FolderHello, Message};

impl Hub {
    pub(super) fn hear_of_folder(self: &Arc<Self>, device: &DeviceId, number: u64, hello: FolderHello) {
        let (id, members) = (hello.folder, hello.members.clone());
        let known = {
            let mut state = self.lock();
            let known = state.config.folder(&id).map(|folder| folder.members.clone());
            match state.sessions.get_mut(device) {
                Some(session) if session.sender.session == number => {
                    session.hellos.insert(id, hello.clone());
                }
                _ => return,
            }
            known
        };
        match known {
            Some(known) => {
                // Only an owner's word about members counts.
                let is_owner = known.right_of(device) == Some(Right::Owner);
                let mut merged = known;
                if is_owner && merged.merge(&members) {
                    self.edit(|edit| edit.merge_members(&id, &members).map(|_| ()));
                }
            }
            None => self.complete_accept(device, &hello),
        }
        self.share(id);
    }

    /// A folder that a person has accepted before: now its offer is here.
    pub(super) fn complete_accept(self: &Arc<Self>, device: &DeviceId, hello: &FolderHello) {
        let waiting = {
            let state = self.lock();
            state.config.accepts.iter().find(|accept| accept.from == *device && accept.name == hello.name).cloned()
        };
        let own = self.identity.device_id();
        let (Some(accept), Some(right)) = (waiting, hello.members.right_of(&own)) else { return };
        if right != Right::Owner && !accept.shares.is_empty() {
            tracing::warn!(
                folder = hello.name,
                "not shared onward, for only an owner may: this device is {}",
                right.as_str()
            );
        }
        self.edit(|edit| edit.complete_accept(&own, &hello.name, device, &hello.folder, &hello.members).map(|_| ()));
    }

    pub(super) fn hear_unshared(&self, device: &DeviceId, number: u64, id: FolderId) {
        let mut state = self.lock();
        let Some(session) = state.sessions.get_mut(device).filter(|session| session.sender.session == number) else {
            return;
        };
        session.hellos.remove(&id);
        if session.shared.remove(&id).is_some()
            && let Some(Slot::Running(handle)) = state.folders.get(&id)
        {
            handle.commands.send(Command::PeerDown(*device, number)).ok();
        }
    }

    pub(super) fn share_all(self: &Arc<Self>) {
        let ids: Vec<_> = self.lock().folders.keys().copied().collect();
        for id in ids {
            self.share(id);
        }
    }

    /// Tells a folder who its other members are, and who of them was somebody else before.
    fn tell_members(&self, id: &FolderId) {
        let own = self.identity.device_id();
        let state = self.lock();
        if let (Some(folder), Some(Slot::Running(handle))) = (state.config.folder(id), state.folders.get(id)) {
            let members = folder.members.lines().iter().filter(|line| line.right.is_some() && line.device != own);
            let members = members.map(|line| line.device).collect();
            let renamed = state.config.devices.iter().flat_map(|d| d.former.iter().map(|former| (*former, d.id)));
            handle.commands.send(Command::Input(Input::Renamed(renamed.collect()))).ok();
            handle.commands.send(Command::Input(Input::Members(members))).ok();
        }
    }

    /// Brings sessions and a folder's member list together: members that are connected are told of the
    /// folder, and where both sides hold it, it syncs. Others are told that it is not shared any more.
    pub(super) fn share(self: &Arc<Self>, id: FolderId) {
        self.tell_members(&id);
        let devices: Vec<_> = self.lock().sessions.keys().copied().collect();
        for device in devices {
            let (right, known, theirs, sender) = {
                let state = self.lock();
                let shared = state.config.folder(&id).filter(|folder| !state.rests.contains_key(&folder.id));
                let right = shared.and_then(|folder| folder.members.right_of(&device));
                let Some(session) = state.sessions.get(&device) else {
                    continue;
                };
                let known = session.shared.get(&id).copied();
                (right, known, session.hellos.get(&id).cloned(), session.sender.clone())
            };
            match right {
                Some(right) => {
                    let said = match &theirs {
                        Some(theirs) if known.is_some() => Some(theirs.clone()),
                        _ => self.hello_for(id, &device).map(|ours| {
                            sender.send(Outgoing::Message(Message::Folder(ours)));
                            theirs.unwrap_or_else(|| unheard(id))
                        }),
                    };
                    if let Some(theirs) = said.filter(|hello| hello.holds && known != Some(right)) {
                        self.join(&device, sender.session, id, right, theirs);
                    }
                }
                None if known.is_some() => self.part(&device, sender.session, id),
                None => {}
            }
        }
    }

    fn join(&self, device: &DeviceId, number: u64, id: FolderId, right: Right, hello: FolderHello) {
        let mut state = self.lock();
        let Some(session) = state.sessions.get_mut(device).filter(|session| session.sender.session == number) else {
            return;
        };
        let sender = session.sender.clone();
        session.shared.insert(id, right);
        if let Some(Slot::Running(handle)) = state.folders.get(&id) {
            handle.commands.send(Command::PeerUp(*device, right, hello, sender)).ok();
        }
    }

    fn part(&self, device: &DeviceId, number: u64, id: FolderId) {
        let mut state = self.lock();
        let Some(session) = state.sessions.get_mut(device).filter(|session| session.sender.session == number) else {
            return;
        };
        session.shared.remove(&id);
        session.sender.send(Outgoing::Message(Message::Unshare(id)));
        if let Some(Slot::Running(handle)) = state.folders.get(&id) {
            handle.commands.send(Command::PeerDown(*device, number)).ok();
        }
    }

    pub(super) fn unshare_with_all(&self, id: FolderId) {
        let mut state = self.lock();
        for session in state.sessions.values_mut() {
            if session.shared.remove(&id).is_some() {
                session.sender.send(Outgoing::Message(Message::Unshare(id)));
            }
        }
    }

    /// Returns the folders that peers offer and this device does not hold.
    pub fn offers(&self) -> Vec<Offered> {
        let own = self.identity.device_id();
        let state = self.lock();
        let mut offers = Vec::new();
        for (from, session) in &state.sessions {
            for (id, hello) in &session.hellos {
                if let (None, Some(right)) = (state.config.folder(id), hello.members.right_of(&own)) {
                    offers.push(Offered { name: hello.name.clone(), id: *id, from: *from, right });
                }
            }
        }
        offers
    }
}

/// Stands for a hello that has not come: the peer has not accepted the folder yet.
fn unheard(id: FolderId) -> FolderHello {
    FolderHello {
        folder: id,
        name: String::new(),
        holds: false,
        incarnation: Incarnation(0),
        life: Life::default(),
        last: Sequence(0),
        received: None,
        members: Members::default(),
    }
}
