//! Paths that the ignore rules leave out, here or at a peer.
//!
//! What is left out here is withdrawn from what this device announces: peers are told, in the order of its changes, that
//! it neither holds nor wants anything there. That is no deletion, and nobody changes anything because of it. A peer
//! notes who leaves what out ([`Record::withdrawn`]), asks nobody for what it cannot give, and takes it out of its own
//! tree's hash when it compares the two ([`Cursor::apart`]). So each names the sum of what both hold, whatever the rules
//! of either, and "in sync" means that this is the same.
//!
//! Such a note counts until the path changes or is announced anew at the side that has it. Whoever leaves it out says so
//! each time that it is told of the path. So a note is never older than what it is about. Who has stopped leaving
//! something out announces what it holds there; if that is nothing, and nothing is remembered, it withdraws the path once
//! more and says that no rule leaves it out ([`SentRecord::left_out`]). Then the note is dropped, and the other side
//! waits until the peer holds what is held here.
//!
//! A deletion that a device which leaves the path out has not taken is remembered as long as it does, for its memory of
//! the file may count again one day.
//!
//! [`Cursor::apart`]: crate::engine::index::Cursor::apart
//! [`SentRecord::left_out`]: crate::wire::message::SentRecord::left_out

use crate::engine::brake::Standing;
use crate::engine::effect::Depth;
use crate::engine::folder::take::{Step, Task};
use crate::engine::folder::{Folder, add_line, add_up};
use crate::engine::index::{Index, Local, Remote};
use crate::model::id::{DeviceId, Sequence};
use crate::model::path::RelPath;
use crate::model::record::Record;

impl<I: Index> Folder<I> {
    /// Returns the hash of the tree as it is compared with a peer's: without what that leaves out.
    pub(super) fn tree_for(&self, peer: &DeviceId) -> Result<[u8; 32], I::Error> {
        let mut sum = self.index.tree_hash();
        add_up(&mut sum, &self.index.cursor(peer)?.apart, false);
        Ok(sum)
    }

    /// A peer's record at a path is about to become this one, or none: counts what stands apart.
    pub(super) fn note_apart(
        &mut self,
        peer: &DeviceId,
        path: &RelPath,
        remote: Option<&Remote>,
    ) -> Result<(), I::Error> {
        let mut cursor = self.index.cursor(peer)?;
        let is_apart = |remote: &Remote| remote.standing == Standing::Apart;
        if cursor.left_out == 0 && !remote.is_some_and(is_apart) {
            return Ok(());
        }
        let before = self.index.remote(peer, path)?;
        let (was, is) = (before.as_ref().is_some_and(is_apart), remote.is_some_and(is_apart));
        if was != is {
            cursor.left_out = if is { cursor.left_out + 1 } else { cursor.left_out.saturating_sub(1) };
        }
        let is_withdrawn = |remote: &Remote| remote.record.is_withdrawn();
        let (was_out, is_out) = (before.as_ref().is_some_and(is_withdrawn), remote.is_some_and(is_withdrawn));
        if was_out != is_out
            && let Some(local) = self.index.local(path)?.filter(|l| l.record.body.is_live() && !l.ignored)
        {
            add_line(&mut cursor.apart, path, &local.record.body, is_out);
        }
        self.is_changed = true;
        self.index.set_cursor(peer, cursor)
    }

    /// A peer withdraws what it told of a path: it leaves the path out, or it has nothing there and knows of nothing.
    /// Who leaves out what is not known here is not noted: once something is known, the peer is told of it, and says so
    /// again.
    pub(super) fn handle_withdrawn(
        &mut self,
        peer: &DeviceId,
        record: Record,
        is_left_out: bool,
    ) -> Result<(), I::Error> {
        let path = record.path.clone();
        let remote = Remote { record, recipe: None, standing: Standing::Apart };
        let is_known = self.index.local(&path)?.is_some_and(|local| !local.record.is_withdrawn());
        self.put_remote(peer, &path, (is_left_out && is_known).then_some(&remote))?;
        self.is_changed = true;
        if self.tasks.contains_key(&path) {
            self.ready.insert(path);
        }
        Ok(())
    }

    /// A path that the rules leave out keeps its record as a memory, which is not announced.
    pub(super) fn handle_ignored(&mut self, path: &RelPath, local: Option<Local>) -> Result<(), I::Error> {
        self.scans.to_hash.remove(path);
        match local {
            Some(local) if local.ignored && local.sequence != Sequence(0) => Ok(()),
            Some(local) if local.ignored => self.withdraw(local),
            Some(local) if local.record.body.is_live() => {
                self.sweep.begin_again();
                self.set_ignored(local)
            }
            other => self.leave_out(path, other).map(|_| ()),
        }
    }

    /// Nothing is held at a path that is left out, but a peer has something there: it must not be taken. Returns
    /// whether that is so.
    fn leave_out(&mut self, path: &RelPath, local: Option<Local>) -> Result<bool, I::Error> {
        if self.index.remotes(path)?.iter().all(|(_, remote)| remote.record.is_withdrawn()) {
            return Ok(false);
        }
        let nothing = || {
            let record = Record::withdrawn(path.clone(), self.tag);
            Local { record, sequence: Sequence(0), stat: None, ignored: true, since_ns: 0 }
        };
        let local = local.unwrap_or_else(nothing);
        self.withdraw(local)?;
        Ok(true)
    }

    /// Leaves a path out where nothing is held and the directory above is left out. Returns whether it is.
    pub(super) fn leave_out_below(&mut self, path: &RelPath) -> Result<bool, I::Error> {
        let Some(parent) = path.parent() else { return Ok(false) };
        let local = self.index.local(path)?;
        let is_held = local.as_ref().is_some_and(|local| local.record.body.is_live());
        if is_held || !self.index.local(&parent)?.is_some_and(|parent| parent.ignored) {
            return Ok(false);
        }
        self.leave_out(path, local)
    }

    fn set_ignored(&mut self, local: Local) -> Result<(), I::Error> {
        if local.record.body.is_dir() {
            for child in self.index.children(Some(&local.record.path))? {
                if child.record.body.is_live() && !child.ignored {
                    self.set_ignored(child)?;
                }
            }
        }
        self.change_tree(&local.record.path, &local.record.body, false)?;
        self.withdraw(local)
    }

    /// Leaves a path out from now on, or says so again: peers learn it, and what they have there calls for nothing.
    pub(super) fn withdraw(&mut self, mut local: Local) -> Result<(), I::Error> {
        let path = local.record.path.clone();
        if self.tasks.get(&path).is_some_and(|task: &Task| !matches!(task.step, Step::Committing(_))) {
            self.cancel(&path);
        }
        self.forget_content(&path);
        for (peer, remote) in self.index.remotes(&path)? {
            if remote.record.is_withdrawn() && !local.ignored && local.record.body.is_live() {
                // What it leaves out is no longer held here either.
                let mut cursor = self.index.cursor(&peer)?;
                add_line(&mut cursor.apart, &path, &local.record.body, false);
                self.index.set_cursor(&peer, cursor)?;
            }
            if remote.standing != Standing::Apart {
                self.put_remote(&peer, &path, Some(&Remote { standing: Standing::Apart, ..remote }))?;
            }
        }
        local.ignored = true;
        local.sequence = self.next_sequence()?;
        self.is_changed = true;
        self.index.set_local(&local, None)
    }

    /// What peers have at a path counts again. Who leaves it out is asked anew.
    fn count_again(&mut self, path: &RelPath) -> Result<(), I::Error> {
        for (peer, remote) in self.index.remotes(path)? {
            if remote.record.is_withdrawn() {
                self.put_remote(&peer, path, None)?;
            } else if remote.standing == Standing::Apart {
                self.put_remote(&peer, path, Some(&Remote { standing: Standing::Open, ..remote }))?;
            }
        }
        Ok(())
    }

    /// Something lies at a path that was ignored. What the record remembers counts again, so that an
    /// edit made meanwhile is an edit of that; an empty memory is dropped.
    pub(super) fn recall(&mut self, local: Option<Local>) -> Result<Option<Local>, I::Error> {
        if let Some(local) = local.as_ref().filter(|local| local.ignored) {
            // What is left out below may have been listed before this was found to count.
            if self.leaves_out_in(&local.record.path)? {
                self.look_again(&local.record.path, Depth::Tree);
            }
        }
        match local {
            Some(local) if local.ignored && !local.record.is_withdrawn() => self.remember(local).map(Some),
            Some(local) if local.ignored => {
                self.forget_ignored(local)?;
                Ok(None)
            }
            other => Ok(other),
        }
    }

    /// Whether anything in a directory is left out by the rules.
    pub(super) fn leaves_out_in(&self, dir: &RelPath) -> Result<bool, I::Error> {
        Ok(self.index.children(Some(dir))?.iter().any(|child| child.ignored))
    }

    fn remember(&mut self, mut local: Local) -> Result<Local, I::Error> {
        let path = local.record.path.clone();
        self.count_again(&path)?;
        self.change_tree(&path, &local.record.body, true)?;
        local.ignored = false;
        // What was to be put into it may be now.
        self.unblock();
        // Peers were told of what happened meanwhile; this they have not been told.
        local.sequence = self.next_sequence()?;
        self.index.set_local(&local, None)?;
        self.is_changed = true;
        self.ready.insert(path);
        Ok(local)
    }

    /// The memory of a path that was ignored is of no use any more: nothing lies there, or nothing is remembered.
    /// Whoever has something there tells again, and it comes back if the rules let it. Until all peers know that nothing
    /// is here, and not because it is left out, a record that has seen nothing says so.
    pub(super) fn forget_ignored(&mut self, local: Local) -> Result<(), I::Error> {
        if !local.record.is_withdrawn() && !local.record.body.is_live() {
            return self.remember(local).map(|_| ());
        }
        let path = local.record.path;
        self.count_again(&path)?;
        let record = Record::withdrawn(path.clone(), self.tag);
        let sequence = self.next_sequence()?;
        self.index.set_local(&Local { record, sequence, stat: None, ignored: false, since_ns: 0 }, None)?;
        self.is_changed = true;
        self.ready.insert(path);
        self.ask_all_again()
    }

    /// A peer asks for everything anew: what it left out, it has to say again.
    pub(super) fn forget_withdrawn(&mut self, peer: &DeviceId) -> Result<(), I::Error> {
        if self.index.cursor(peer)?.left_out == 0 {
            return Ok(());
        }
        let mut after = None;
        loop {
            let paths = self.index.remote_paths(after.as_ref(), 256)?;
            let Some(last) = paths.last() else { return Ok(()) };
            after = Some(last.clone());
            for path in paths {
                if self.index.remote(peer, &path)?.is_some_and(|remote| remote.record.is_withdrawn()) {
                    self.put_remote(peer, &path, None)?;
                }
            }
        }
    }
}
