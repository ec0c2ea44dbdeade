//! What is said to a peer of this device and its folders.

use std::time::Duration;

use crate::daemon::folder::Command;
use crate::daemon::hub::{Hub, Slot};
use crate::daemon::peer::{Outgoing, PeerSender};
use crate::model::id::{DeviceId, FolderId};
use crate::wire::message::{FolderHello, Hello, Message};

impl Hub {
    /// Says hello: who we are, and which folders we share.
    pub(super) fn greet(&self, device: &DeviceId, sender: &PeerSender) {
        let (name, ids) = {
            let state = self.lock();
            let shared = state.config.folders.iter();
            let shared = shared.filter(|f| f.members.right_of(device).is_some() && !state.rests.contains_key(&f.id));
            (state.config.name.clone(), shared.map(|f| f.id).collect::<Vec<_>>())
        };
        // The first goes with the greeting. The others follow one by one, for all of them with all their
        // members may be more than a frame holds.
        let mut folders = ids.into_iter().filter_map(|id| self.hello_for(id, device));
        let first = folders.next().into_iter().collect();
        sender.send(Outgoing::Message(Message::Hello(Hello { name, folders: first })));
        self.tell_revocations(sender);
        self.tell_next(device, sender);
        folders.for_each(|folder| sender.send(Outgoing::Message(Message::Folder(folder))));
    }

    pub(super) fn hello_for(&self, id: FolderId, device: &DeviceId) -> Option<FolderHello> {
        let (name, members, answer) = {
            let state = self.lock();
            let folder = state.config.folder(&id)?;
            let Some(Slot::Running(handle)) = state.folders.get(&id) else {
                return None;
            };
            let (reply, answer) = crossbeam_channel::bounded(1);
            handle.commands.send(Command::HelloFor(*device, reply)).ok()?;
            (folder.name.clone(), folder.members.clone(), answer)
        };
        let index = answer.recv_timeout(Duration::from_secs(60)).ok()?;
        Some(FolderHello {
            folder: id,
            name,
            holds: true,
            incarnation: index.incarnation,
            life: index.life,
            last: index.last,
            received: index.received,
            members,
        })
    }
}
