//! What peers say of the folder, and what is said to them.

use std::collections::BTreeSet;

use crate::engine::brake::Standing;
use crate::engine::folder::{Folder, Note, Now, Output};
use crate::engine::index::{Cursor, Index, Local, Remote, claims_unknown};
use crate::engine::reconcile::{Verdict, reconcile};
use crate::model::id::{AuthorId, DeviceId, Incarnation, Life, Sequence};
use crate::model::limits;
use crate::model::path::RelPath;
use crate::model::problem::ProblemKind;
use crate::model::recipe::Recipe;
use crate::model::record::{Body, Record};
use crate::model::rights::Right;
use crate::model::version::Causality;
use crate::wire::message::{Ack, FolderHello, Message, Records, SentRecord};

/// Batches of records that may be on their way to a peer at a time.
const BATCHES_MAX: u64 = 4;
/// Bytes of contents that came along with records and wait for their tasks.
const CONTENT_BYTES_MAX: usize = 4 << 20;

/// A connected peer that shares the folder.
#[derive(Debug)]
pub(super) struct Peer {
    right: Right,
    /// Our changes up to here were sent.
    sent: Sequence,
    /// Where each batch ended that was sent and not yet acknowledged.
    under_way: Vec<Sequence>,
    /// The last acknowledgement that was sent.
    said: Option<Ack>,
    /// The peer's last acknowledgement.
    heard: Option<Ack>,
    /// Whether the peer said that more records follow at once.
    pub(super) more_comes: bool,
    pub(super) asked_bytes: u64,
    pub(super) asked_requests: usize,
    pub(super) received_bytes: u64,
    /// The life that its index is in.
    pub(super) life: Life,
}

impl<I: Index> Folder<I> {
    pub(super) fn handle_peer_up(
        &mut self,
        now: Now,
        peer: DeviceId,
        right: Right,
        hello: FolderHello,
    ) -> Result<(), I::Error> {
        if !hello.holds {
            return self.handle_peer_down(&peer);
        }
        if let Some(known) = self.peers.get_mut(&peer) {
            if known.right != right {
                // What it may do now, and what it no longer may, is decided anew.
                known.right = right;
                self.ready.extend(self.tasks.keys().cloned());
                self.sweep.begin_again();
            }
            return Ok(());
        }
        let mut cursor = self.index.cursor(&peer)?;
        if cursor.incarnation != Some(hello.incarnation) {
            // Another index: what we knew of it is void.
            self.index.drop_peer(&peer)?;
            self.brake.forget_held(&peer);
            let agreed = cursor.agreed;
            cursor = Cursor { incarnation: Some(hello.incarnation), agreed, ..Cursor::default() };
        }
        let ours = (self.index.incarnation(), self.index.last_sequence());
        let before = cursor.acknowledged;
        cursor.acknowledged = match hello.received {
            Some((incarnation, at, life)) if incarnation == ours.0 && at != Sequence(0) => {
                match self.parted_at(life, at)? {
                    // What is being committed has a version already. It is not long until that is done.
                    Some(_) if !self.committing.is_empty() => return self.disconnect_all(),
                    Some(common) => return self.renew(now, peer, common),
                    None => self.note_known()?,
                }
                at
            }
            _ => Sequence(0),
        };
        // Who remembers less of us than it held once is not who it was.
        cursor.agreed = cursor.agreed.min(cursor.acknowledged);
        self.index.set_cursor(&peer, cursor)?;
        if cursor.acknowledged < before {
            self.forget_withdrawn(&peer)?;
        }
        self.is_changed = true;
        let state = Peer {
            right,
            life: hello.life,
            sent: cursor.acknowledged,
            under_way: Vec::new(),
            said: None,
            heard: None,
            more_comes: false,
            asked_bytes: 0,
            asked_requests: 0,
            received_bytes: 0,
        };
        self.peers.insert(peer, state);
        self.retries.retain(|_, retry| retry.look);
        self.verify.peer_came();
        self.sweep.begin_again();
        Ok(())
    }

    pub(super) fn handle_peer_down(&mut self, peer: &DeviceId) -> Result<(), I::Error> {
        if self.peers.remove(peer).is_none() {
            return Ok(());
        }
        self.drop_requests_of(peer);
        self.drop_past_of(peer);
        let mut orphans = Vec::new();
        for (path, task) in &mut self.tasks {
            if task.providers.remove(peer) && task.providers.is_empty() && task.may_need_provider() {
                orphans.push(path.clone());
            }
        }
        for path in orphans {
            // What was staged stays on the disk; it is taken up when somebody has it again.
            self.drop_task(&path);
            self.ready.insert(path);
        }
        Ok(())
    }

    pub(super) fn misbehaved(&mut self, peer: DeviceId, what: &'static str) {
        self.outputs.push_back(Output::Misbehaved(peer, what));
    }

    pub(super) fn handle_message(&mut self, now: Now, peer: DeviceId, message: Message) -> Result<(), I::Error> {
        if !self.peers.contains_key(&peer) {
            return Ok(());
        }
        match message {
            Message::Records(records) => self.handle_records(now, peer, records),
            Message::Ack(ack) => self.handle_ack(now, peer, ack),
            Message::WantRecipe(want) => self.serve_recipe(peer, &want, None),
            Message::WantPages { want, pages } => self.serve_recipe(peer, &want, Some(&pages)),
            Message::Recipe { request, pages } => self.handle_recipe(now, peer, request, pages),
            Message::Page { request, chunks, .. } => self.handle_page(now, peer, request, chunks),
            Message::Want(want) => self.serve(peer, want),
            Message::WantHistory(want) => self.serve_history(peer, want),
            Message::History(history) => {
                self.handle_history(now, peer, history);
                Ok(())
            }
            Message::Missing { request, item } if self.is_for_pieces(&peer, request) => {
                self.handle_piece_missing(request, item);
                Ok(())
            }
            Message::Missing { request, item } => self.handle_missing(now, peer, request, item),
            _ => Ok(()),
        }
    }

    fn handle_records(&mut self, now: Now, peer: DeviceId, records: Records) -> Result<(), I::Error> {
        if records.after > self.index.cursor(&peer)?.received {
            self.misbehaved(peer, "records that leave some out");
            return Ok(());
        }
        let news = records.records.len() as u64;
        let all = self.index.remote_count(&peer)?.saturating_add(news);
        let waiting = self.waiting_of(&peer)?.saturating_add(news);
        if waiting > self.remotes_max.1 || all > self.remotes_max.1.saturating_mul(2) {
            self.misbehaved(peer, "more changes than it was asked for");
            return Ok(());
        }
        if !records.records.is_empty() {
            self.brake.note_arrival(now.at, now.wall_ns);
        }
        for sent in records.records {
            if claims_unknown(self.author, self.index.last_sequence(), &sent.record) {
                let common = self.unproven()?;
                return self.renew(now, peer, common);
            }
            self.handle_record(now, peer, sent)?;
        }
        let mut cursor = self.index.cursor(&peer)?;
        cursor.received = cursor.received.max(records.through);
        if let Some(peer) = self.peers.get(&peer) {
            cursor.life = peer.life;
        }
        self.index.set_cursor(&peer, cursor)?;
        self.is_changed = true;
        if let Some(peer) = self.peers.get_mut(&peer) {
            peer.more_comes = records.more;
        }
        Ok(())
    }

    /// Returns how many changes of a peer wait here: those at paths that one of the two leaves out call for nothing.
    fn waiting_of(&self, peer: &DeviceId) -> Result<u64, I::Error> {
        Ok(self.index.remote_count(peer)?.saturating_sub(self.index.cursor(peer)?.left_out))
    }

    fn handle_record(&mut self, now: Now, peer: DeviceId, sent: SentRecord) -> Result<(), I::Error> {
        let SentRecord { record, recipe, content, left_out } = sent;
        if record.is_withdrawn() {
            return self.handle_withdrawn(&peer, record, left_out);
        }
        let path = record.path.clone();
        let mut local = self.index.local(&path)?;
        if let Some(ignored) = local.take_if(|local| local.ignored) {
            // What the memory has seen need not be kept; and the peer learns, each time, that it is left out here.
            let is_news = record.version.compare(&ignored.record.version) != Causality::Equal
                && record.version.compare(&ignored.record.version) != Causality::Before;
            let remote = Remote { record, recipe, standing: Standing::Apart };
            self.put_remote(&peer, &path, is_news.then_some(&remote))?;
            return self.withdraw(ignored);
        }
        let verdict = reconcile(local.as_ref().map(|l| &l.record), &record);
        if let Some(local) = &local {
            self.tell_parting(&local.record, &record);
        }
        let is_news = !matches!(verdict, Ok(Verdict::Stay));
        let is_known = local
            .as_ref()
            .is_some_and(|l| matches!(record.version.compare(&l.record.version), Causality::Equal | Causality::Before));
        if is_known {
            self.put_remote(&peer, &path, None)?;
            if self.tasks.contains_key(&path) {
                self.ready.insert(path);
            }
            return Ok(());
        }
        // What it may not do is kept as what it holds, for its right may change; it is never taken.
        let may = self.may_take(&peer, local.as_ref(), &record);
        if is_news && !may {
            let right = self.peers.get(&peer).map_or(Right::Reader, |peer| peer.right);
            let detail = format!("the device may not do that: it is a {}", right.as_str());
            self.report(Some(&path), ProblemKind::Refused, detail);
        }
        if may && local.is_none() && !record.body.is_live() && !self.tasks.contains_key(&path) {
            // A deletion of what was never here: only its version matters, and no task need run.
            let sequence = self.next_sequence()?;
            self.hold(now, record, sequence, None, None)?;
            return Ok(());
        }
        let standing = Standing::Open;
        self.put_remote(&peer, &path, Some(&Remote { record, recipe, standing }))?;
        if !is_news || !may {
            return Ok(());
        }
        if self.retries.get(&path).is_some_and(|retry| !retry.look) {
            self.retries.remove(&path);
        }
        self.forget_content(&path);
        if let Some(bytes) = content
            && self.content_bytes + bytes.len() <= CONTENT_BYTES_MAX
        {
            self.content_bytes += bytes.len();
            self.contents.insert(path.clone(), bytes);
        }
        if self.ready.len() < limits::FETCHES_MAX {
            self.ready.insert(path);
        } else {
            self.sweep.begin_again();
        }
        Ok(())
    }

    /// Whether a peer's record may be taken: the right that counts is that of the device that hands it over.
    pub(super) fn may_take(&self, peer: &DeviceId, local: Option<&Local>, record: &Record) -> bool {
        let right = self.peers.get(peer).map_or(Right::Reader, |peer| peer.right);
        let is_new = local.is_none_or(|local| !local.record.body.is_live() && !local.ignored);
        right.may_write() || (right == Right::Adder && is_new && record.body.is_live())
    }

    /// Nobody waits for the content that came along with a path's record any more.
    pub(super) fn forget_content(&mut self, path: &RelPath) -> Option<Vec<u8>> {
        let bytes = self.contents.remove(path)?;
        self.content_bytes -= bytes.len();
        Some(bytes)
    }

    fn handle_ack(&mut self, now: Now, peer: DeviceId, ack: Ack) -> Result<(), I::Error> {
        if ack.received > self.index.last_sequence() {
            let common = self.unproven()?;
            return self.renew(now, peer, common);
        }
        let mut cursor = self.index.cursor(&peer)?;
        if ack.received > cursor.acknowledged {
            cursor.acknowledged = ack.received;
            self.index.set_cursor(&peer, cursor)?;
            self.is_changed = true;
            self.note_known()?;
        }
        if let Some(peer) = self.peers.get_mut(&peer) {
            peer.under_way.retain(|end| *end > ack.received);
            peer.heard = Some(ack);
        }
        Ok(())
    }

    /// A peer claims to remember changes of ours that we do not. That is so at most once, for then we are somebody
    /// else; whoever goes on with it only wants all to be told again, and again.
    pub(super) fn renew(&mut self, now: Now, peer: DeviceId, common: Sequence) -> Result<(), I::Error> {
        if self.renewed.is_some_and(|renewed| now.at.saturating_sub(renewed) < limits::RENEWAL_PAUSE) {
            self.misbehaved(peer, "changes of this device that there were not, once more");
            return self.handle_peer_down(&peer);
        }
        self.renewed = Some(now.at);
        self.part(now, common)
    }

    /// A peer remembers changes of ours that we do not: this index was lost, copied or brought back
    /// from a backup. From now on we count as somebody new, so that no count is used twice.
    ///
    /// Whoever knows by other signs that an index is not the latest calls this before anything else.
    ///
    /// # Errors
    /// The index failed.
    pub fn begin_incarnation(&mut self) -> Result<(), I::Error> {
        let incarnation = Incarnation(self.random_u64());
        self.index.begin_incarnation(incarnation)?;
        self.is_changed = true;
        self.author = AuthorId::derive(&self.params.device, incarnation);
        self.note(Note::NewIncarnation);
        self.disconnect_all()
    }

    /// Asks all peers to tell everything again.
    pub(super) fn ask_all_again(&mut self) -> Result<(), I::Error> {
        // Those that are not there as well, when they come.
        let peers: BTreeSet<_> = self.peers.keys().copied().chain(self.members()).collect();
        for peer in peers {
            let mut cursor = self.index.cursor(&peer)?;
            if cursor.received != Sequence(0) {
                cursor.received = Sequence(0);
                self.index.set_cursor(&peer, cursor)?;
            }
        }
        self.is_changed = true;
        self.disconnect_all()
    }

    fn disconnect_all(&mut self) -> Result<(), I::Error> {
        let peers: Vec<_> = self.peers.keys().copied().collect();
        for peer in peers {
            self.handle_peer_down(&peer)?;
        }
        self.outputs.push_back(Output::Reconnect);
        Ok(())
    }

    /// Tells each peer what is new since it was last told, and how far we have come.
    pub(super) fn speak(&mut self) -> Result<(), I::Error> {
        if self.scans.is_first() {
            return Ok(());
        }
        let last = self.index.last_sequence();
        let peers: Vec<_> = self.peers.keys().copied().collect();
        for id in peers {
            self.announce_to(id, last)?;
            let received = self.index.cursor(&id)?.received;
            let is_full = self.waiting_of(&id)? >= self.remotes_max.0;
            let tree = self.tree_for(&id)?;
            let Some(peer) = self.peers.get_mut(&id) else {
                continue;
            };
            // What is not acknowledged is not followed by more.
            let received = peer.said.filter(|_| is_full).map_or(received, |said| said.received);
            let ack = Ack { folder: self.params.folder, received, last, tree };
            // Where we stand interests a peer only once it knows how we came there.
            let is_due = match &peer.said {
                None => true,
                Some(said) => said.received != ack.received || (*said != ack && peer.sent == last),
            };
            if is_due {
                peer.said = Some(ack);
                self.outputs.push_back(Output::Send(id, Message::Ack(ack)));
            }
        }
        Ok(())
    }

    fn announce_to(&mut self, id: DeviceId, last: Sequence) -> Result<(), I::Error> {
        loop {
            let Some(peer) = self.peers.get(&id) else {
                return Ok(());
            };
            if peer.sent >= last || peer.under_way.len() as u64 >= BATCHES_MAX {
                return Ok(());
            }
            let after = peer.sent;
            let is_up_to_date = peer.under_way.is_empty();
            let mut changes = self.index.changes_since(after, limits::RECORDS_PER_MESSAGE_MAX)?;
            let mut is_all = changes.len() < limits::RECORDS_PER_MESSAGE_MAX;
            // Long names and link targets fill a frame long before there are many records.
            let fitting = fitting(changes.iter().map(|(local, recipe)| sent_len_max(&local.record, recipe.as_ref())));
            if fitting < changes.len() {
                changes.truncate(fitting);
                is_all = false;
            }
            let through = if is_all { last } else { changes.last().map_or(last, |(local, _)| local.sequence) };
            let mut attach = is_up_to_date && is_all && changes.len() <= 64;
            let mut records = Vec::with_capacity(changes.len());
            for (local, recipe) in changes {
                if local.ignored {
                    let record = Record::withdrawn(local.record.path, self.tag);
                    records.push(SentRecord { record, recipe: None, content: None, left_out: true });
                    continue;
                }
                // Who passes on another's change need not send contents along: its author does.
                attach &= local.record.by == self.tag && local.record.version.counter(self.author) == local.sequence.0;
                records.push(SentRecord { record: local.record, recipe, content: None, left_out: false });
            }
            let records = Records { folder: self.params.folder, after, through, more: through < last, records };
            self.outputs.push_back(Output::Announce { peer: id, records, attach });
            if let Some(peer) = self.peers.get_mut(&id) {
                peer.sent = through;
                peer.under_way.push(through);
            }
        }
    }

    /// Whether a connected peer is known to hold just what is held here.
    pub fn is_in_sync_with(&self, peer: &DeviceId) -> bool {
        let Some(Peer { heard: Some(heard), .. }) = self.peers.get(peer) else {
            return false;
        };
        let Ok(cursor) = self.index.cursor(peer) else {
            return false;
        };
        let last = self.index.last_sequence();
        let Ok(tree) = self.tree_for(peer) else {
            return false;
        };
        heard.tree == tree && heard.received == last && heard.last == cursor.received
    }

    /// Returns whether nothing is left to do: every connected peer holds the same, and nothing here
    /// waits to be looked at.
    pub fn is_settled(&self) -> bool {
        !self.scans.is_busy()
            && self.scans.root_missing.is_none()
            && self.scans.unmounted.is_empty()
            && self.debounce.is_empty()
            && self.committing.is_empty()
            && self.peers.keys().all(|peer| self.is_in_sync_with(peer))
    }
}

/// Returns how many of the records go into one message: one at least, then as long as it is not full.
fn fitting(lens: impl Iterator<Item = usize>) -> usize {
    let mut sum = 0;
    let filled = lens.take_while(|len| {
        let fits = sum < limits::RECORDS_MESSAGE_LEN_TARGET;
        sum += len;
        fits
    });
    filled.count()
}

/// Returns a length that a record never exceeds on the wire, its content left out: numbers take at most
/// ten bytes.
fn sent_len_max(record: &Record, recipe: Option<&Recipe>) -> usize {
    let target = match &record.body {
        Body::Symlink { target } => target.len(),
        _ => 0,
    };
    let chunks = recipe.map_or(0, |recipe| recipe.chunks().len());
    128 + record.path.as_bytes().len() + target + 20 * record.version.counters().len() + 42 * chunks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_of_the_longest_names_fit_a_frame() {
        let longest = 128 + limits::PATH_LEN_MAX + limits::SYMLINK_LEN_MAX + 20 * limits::VERSION_AUTHORS_MAX;
        let count = fitting(std::iter::repeat_n(longest, limits::RECORDS_PER_MESSAGE_MAX));
        assert!(count > 0 && count * longest < limits::FRAME_LEN_MAX / 2, "{count}");
        assert_eq!(fitting(std::iter::repeat_n(200, 1000)), 1000);
        assert_eq!(fitting([usize::MAX / 2].into_iter()), 1);
        assert_eq!(fitting(std::iter::empty()), 0);
    }
}
