//! In which order what waits for a peer is sent, and when.
//!
//! Four lanes, and from each the first that may go:
//!
//! 1. what is short and waits for no rate: pings, which folders there are, who was revoked or changes its key;
//! 2. what asks the peer for something, or lets it go on: as fast as the answers may be received;
//! 3. what tells of changes, with the contents of small files, and answers about recipes;
//! 4. chunks of files.
//!
//! So a small change goes ahead of a large file that is being sent. Between lanes the order means nothing to a peer:
//! what refers to what went before (a request, a recipe) names it, and acknowledgements count. Only the word that a folder
//! is no longer shared ends all that was said of it: what still waits of that folder is then not sent any more.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use crate::daemon::rates::Flow;
use crate::model::id::FolderId;
use crate::net::pace::Meter;
use crate::wire::message::{Goodbye, Message};

/// Chunks that are to be sent: for which folder, and what.
pub(super) struct Chunks<T> {
    pub(super) folder: FolderId,
    /// What is sent of the folder keeps to this.
    pub(super) meter: Arc<Meter>,
    pub(super) what: T,
}

/// What is next.
#[derive(Debug, Eq, PartialEq)]
pub(super) enum Next {
    /// This message; with the rate that it keeps to besides.
    Message(Message, Option<FolderId>),
    /// A chunk of those at this place; see [`Lanes::chunks`].
    Chunk(usize),
    /// The last word.
    Goodbye(Goodbye),
    /// Nothing before so much time has passed.
    Later(Duration),
    /// Nothing waits.
    Nothing,
}

/// See the module's documentation.
pub(super) struct Lanes<T> {
    at_once: VecDeque<Message>,
    asks: VecDeque<Message>,
    tells: VecDeque<Message>,
    /// What chunks are to be taken from; what has no more is for the caller to take out.
    pub(super) chunks: VecDeque<Chunks<T>>,
    goodbye: Option<Goodbye>,
}

impl<T> Default for Lanes<T> {
    fn default() -> Self {
        let (at_once, asks, tells) = (VecDeque::new(), VecDeque::new(), VecDeque::new());
        Self { at_once, asks, tells, chunks: VecDeque::new(), goodbye: None }
    }
}

impl<T> Lanes<T> {
    /// Takes a message. Returns how many of those that waited are not to be sent any more.
    pub(super) fn add(&mut self, message: Message) -> usize {
        let before = self.len();
        match &message {
            Message::Unshare(folder) => {
                self.drop_folder(folder);
                let dropped = before - self.len();
                self.at_once.push_back(message);
                return dropped;
            }
            Message::Ack(_) | Message::Want(_) | Message::WantRecipe(_) | Message::WantPages { .. } => {
                self.asks.push_back(message);
            }
            Message::Hello(_)
            | Message::Folder(_)
            | Message::Trust(_)
            | Message::NextId(_)
            | Message::NextNoted(_)
            | Message::Ping
            | Message::Pong => {
                self.at_once.push_back(message);
            }
            _ => self.tells.push_back(message),
        }
        0
    }

    /// Ends it with a last word, after what goes at once.
    pub(super) fn close(&mut self, reason: Goodbye) {
        self.goodbye = Some(reason);
    }

    /// Returns whether anything waits that can be long.
    pub(super) fn is_bulk_waiting(&self) -> bool {
        !self.tells.is_empty() || !self.chunks.is_empty()
    }

    /// Returns what is to be sent now.
    pub(super) fn next(&mut self, flow: &Flow) -> Next {
        if let Some(message) = self.at_once.pop_front() {
            return Next::Message(message, None);
        }
        if let Some(reason) = self.goodbye {
            return Next::Goodbye(reason);
        }
        let mut later = Later::default();
        if !self.asks.is_empty() && later.allows(flow.receive().owed()) {
            let ask = later.first_of(&self.asks, |folder| flow.receive_of(folder).owed());
            if let Some(message) = ask.and_then(|at| self.asks.remove(at)) {
                flow.asked(&message);
                return Next::Message(message, None);
            }
        }
        if self.is_bulk_waiting() && later.allows(flow.send().owed()) {
            let tell = later.first_of(&self.tells, |folder| flow.send_of(folder).owed());
            if let Some(message) = tell.and_then(|at| self.tells.remove(at)) {
                let folder = folder_of(&message).copied();
                return Next::Message(message, folder);
            }
            if let Some(at) = self.chunks.iter().position(|chunks| later.allows(chunks.meter.owed())) {
                return Next::Chunk(at);
            }
        }
        later.0.map_or(Next::Nothing, Next::Later)
    }

    fn drop_folder(&mut self, folder: &FolderId) {
        self.asks.retain(|message| folder_of(message) != Some(folder));
        self.tells.retain(|message| folder_of(message) != Some(folder));
        self.chunks.retain(|chunks| chunks.folder != *folder);
    }

    fn len(&self) -> usize {
        self.at_once.len() + self.asks.len() + self.tells.len() + self.chunks.len()
    }
}

/// When something that has to wait may go.
#[derive(Default)]
struct Later(Option<Duration>);

impl Later {
    /// Returns whether nothing is owed, and notes for how long it is.
    fn allows(&mut self, owed: Option<Duration>) -> bool {
        self.0 = self.0.into_iter().chain(owed).min();
        owed.is_none()
    }

    /// Finds the first message that may go. Those of one folder stay in their order, whatever the time does meanwhile.
    fn first_of(&mut self, lane: &VecDeque<Message>, owed: impl Fn(&FolderId) -> Option<Duration>) -> Option<usize> {
        let mut waiting = Vec::new();
        lane.iter().position(|message| match folder_of(message) {
            Some(folder) if waiting.contains(&folder) => false,
            Some(folder) => {
                let may_go = self.allows(owed(folder));
                waiting.extend((!may_go).then_some(folder));
                may_go
            }
            None => true,
        })
    }
}

/// Returns the folder that a message names.
fn folder_of(message: &Message) -> Option<&FolderId> {
    match message {
        Message::Records(records) => Some(&records.folder),
        Message::Ack(ack) => Some(&ack.folder),
        Message::WantRecipe(want) | Message::WantPages { want, .. } => Some(&want.folder),
        Message::Want(want) => Some(&want.folder),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::config::Config;
    use crate::config::load;
    use crate::config::paths::Paths;
    use crate::config::rate::{Rate, Rates};
    use crate::daemon::rates::Metering;
    use crate::model::id::{ContentId, DeviceId, Sequence};
    use crate::model::path::RelPath;
    use crate::wire::message::{Ack, Records, Run, Want, WantItem};

    fn folder(n: u8) -> FolderId {
        FolderId([n; 16])
    }

    fn device() -> DeviceId {
        DeviceId::from_public_key([2; 32])
    }

    /// A configuration with two folders; `set` sets its rates.
    fn flow(set: impl FnOnce(&mut Config)) -> Flow {
        let folders =
            [1, 2].map(|n| format!("[[folders]]\nname = \"{n}\"\nid = \"{}\"\npath = \"/nowhere/{n}\"\n", folder(n)));
        let devices = format!("[[devices]]\nname = \"d\"\nid = \"{}\"\n", device());
        let text = format!("name = \"h\"\n{devices}{}", folders.concat());
        let mut config = load::parse(&text, &Paths::below("/nowhere/home".as_ref()).unwrap()).unwrap();
        set(&mut config);
        let all = Arc::new(Metering::default());
        all.set(&config);
        Flow::with(&all, &device())
    }

    fn slow() -> Rates {
        let rate = Rate::parse("16 KiB/s").unwrap();
        Rates { send: rate, receive: rate }
    }

    fn records(n: u8, after: u64) -> Message {
        let (after, through) = (Sequence(after), Sequence(after + 1));
        Message::Records(Records { folder: folder(n), after, through, more: false, records: vec![] })
    }

    fn ack(n: u8) -> Message {
        let at = Sequence(1);
        Message::Ack(Ack { folder: folder(n), received: at, last: at, tree: [0; 32] })
    }

    fn want(n: u8, request: u64, len: u32) -> Message {
        let runs = vec![Run { first: 0, offset: 0, lens: vec![len] }];
        let item = WantItem { path: RelPath::parse(b"f").unwrap(), content: ContentId([1; 32]), runs };
        Message::Want(Want { request, folder: folder(n), items: vec![item] })
    }

    fn chunks(flow: &Flow, n: u8) -> Chunks<&'static str> {
        Chunks { folder: folder(n), meter: flow.send_of(&folder(n)), what: "chunks" }
    }

    /// Takes all that may go now, and the word of what is left; each chunk that may go goes once.
    fn taken(lanes: &mut Lanes<&'static str>, flow: &Flow) -> (Vec<Message>, Vec<FolderId>, Next) {
        let (mut messages, mut of) = (vec![], vec![]);
        loop {
            match lanes.next(flow) {
                Next::Message(message, _) => messages.push(message),
                Next::Chunk(at) => of.extend(lanes.chunks.remove(at).map(|chunks| chunks.folder)),
                last => return (messages, of, last),
            }
        }
    }

    #[test]
    fn a_small_change_goes_ahead_of_a_large_file_and_a_word_of_the_session_ahead_of_both() {
        let flow = flow(|_| {});
        let mut lanes = Lanes::default();
        lanes.chunks.push_back(chunks(&flow, 1));
        lanes.add(records(1, 0));
        lanes.add(want(1, 7, 1 << 20));
        lanes.add(Message::Ping);
        let (messages, of, last) = taken(&mut lanes, &flow);
        assert_eq!(messages, [Message::Ping, want(1, 7, 1 << 20), records(1, 0)]);
        assert_eq!((of, last), (vec![folder(1)], Next::Nothing));
    }

    #[test]
    fn what_a_rate_holds_back_waits_and_the_session_lives_on() {
        let flow = flow(|config| config.devices[0].rates = slow());
        flow.send().spend(1 << 20);
        let mut lanes = Lanes::default();
        lanes.chunks.push_back(chunks(&flow, 1));
        lanes.add(records(1, 0));
        lanes.add(ack(1));
        lanes.add(Message::Ping);
        let (messages, of, last) = taken(&mut lanes, &flow);
        assert_eq!(messages, [Message::Ping, ack(1)]);
        assert!(of.is_empty() && matches!(last, Next::Later(owed) if owed > Duration::from_secs(60)), "{last:?}");
        lanes.close(Goodbye::Stopping);
        assert_eq!(lanes.next(&flow), Next::Goodbye(Goodbye::Stopping));
    }

    #[test]
    fn more_is_asked_for_when_what_was_asked_for_is_paid() {
        let flow = flow(|config| config.network.rates = slow());
        let mut lanes = Lanes::<&str>::default();
        for message in [want(1, 1, 1 << 20), want(2, 2, 1), ack(1)] {
            lanes.add(message);
        }
        let (messages, _, last) = taken(&mut lanes, &flow);
        assert_eq!(messages, [want(1, 1, 1 << 20)]);
        assert!(matches!(last, Next::Later(owed) if owed > Duration::from_secs(60)), "{last:?}");
    }

    #[test]
    fn what_came_unasked_holds_the_next_acknowledgement_back() {
        let flow = flow(|config| config.network.rates = slow());
        let mut lanes = Lanes::<&str>::default();
        flow.heard(&records(1, 0), 1 << 20);
        lanes.add(ack(1));
        assert!(matches!(lanes.next(&flow), Next::Later(_)));
    }

    #[test]
    fn a_folder_that_has_to_wait_holds_no_other_back_and_keeps_its_order() {
        let flow = flow(|config| config.folders[0].rates = slow());
        flow.send_of(&folder(1)).spend(1 << 20);
        flow.heard(&records(1, 0), 1 << 20);
        let mut lanes = Lanes::default();
        for n in [1, 2] {
            lanes.chunks.push_back(chunks(&flow, n));
            for message in [records(n, 0), ack(n), records(n, 1)] {
                lanes.add(message);
            }
        }
        let (messages, of, last) = taken(&mut lanes, &flow);
        assert_eq!(messages, [ack(2), records(2, 0), records(2, 1)]);
        assert_eq!(of, [folder(2)]);
        assert!(matches!(last, Next::Later(_)));
    }

    #[test]
    fn nothing_is_sent_of_a_folder_that_is_no_longer_shared() {
        let flow = flow(|_| {});
        let mut lanes = Lanes::default();
        for n in [1, 2] {
            lanes.chunks.push_back(chunks(&flow, n));
            lanes.add(records(n, 0));
            lanes.add(want(n, 1, 1));
        }
        assert_eq!(lanes.add(Message::Unshare(folder(1))), 3);
        let (messages, of, last) = taken(&mut lanes, &flow);
        assert_eq!(messages, [Message::Unshare(folder(1)), want(2, 1, 1), records(2, 0)]);
        assert_eq!((of, last), (vec![folder(2)], Next::Nothing));
    }
}
