//! Forgetting what all members of the folder know.
//!
//! A deletion must be remembered as long as any device may still hold what was deleted: else that would come back.
//! And a version names each author that ever wrote at a path, also those that write no more: a device that was
//! removed, an index that was lost. Both would only grow. So now and then, while nothing else is to be done, the
//! records are walked through in the order of their last change:
//!
//! - a tombstone goes that every member holds and that is older than [`Params::forget_after`]. The age is for
//!   devices that come back from a backup: what they lack they are told for that long;
//! - a version that names a crowd of authors is counted anew without those that write no more. Whoever holds the
//!   same takes the version that names fewer (`engine::reconcile`).
//!
//! That a member holds it is known from a moment at which both had told each other everything and had the same
//! tree: from then on its versions can only be newer ([`Cursor::agreed`]). A member that was never met, or that
//! has a new index since, keeps everything as it is. Until the members are known nothing is forgotten.
//!
//! [`Params::forget_after`]: crate::engine::folder::Params::forget_after
//! [`Cursor::agreed`]: crate::engine::index::Cursor::agreed

use std::collections::BTreeSet;
use std::time::Duration;

use crate::engine::folder::{Folder, Now};
use crate::engine::index::{Index, Local};
use crate::model::id::{AuthorId, DeviceId, Sequence};
use crate::model::limits;
use crate::model::record::Record;

/// Longest time between two walks.
const TURN: Duration = Duration::from_secs(86_400);
/// Longest time from the start, or from what makes a walk worth its while, to the next one.
const FIRST_TURN: Duration = Duration::from_secs(900);
/// How long a walk waits where something else is to be done.
const BUSY_PAUSE: Duration = Duration::from_secs(30);

/// Who must know of what is to be forgotten, and how far the walk has come.
#[derive(Debug, Default)]
pub(super) struct Retire {
    /// All other members of the folder; `None` until they are told.
    members: Option<BTreeSet<DeviceId>>,
    /// When a walk begins or goes on; `None` while there is nothing to forget.
    due: Option<Duration>,
    /// When the last walk ended.
    ended: Option<Duration>,
    /// What the walk has seen.
    at: Sequence,
    /// Whether it has seen a deletion that will be old enough one day.
    is_any_young: bool,
}

impl<I: Index> Folder<I> {
    /// All other members of the folder are these.
    pub(super) fn handle_members(&mut self, now: Now, members: BTreeSet<DeviceId>) {
        if self.retire.members.as_ref() != Some(&members) {
            self.retire.members = Some(members);
            // Who is a member only now may hold anything.
            self.retire.at = Sequence(0);
            self.plan_retire(now);
        }
    }

    /// Writes down with whom all is the same now.
    pub(super) fn note_agreement(&mut self, now: Now) -> Result<(), I::Error> {
        let last = self.index.last_sequence();
        let peers: Vec<_> = self.peers.keys().copied().collect();
        for peer in peers {
            let mut cursor = self.index.cursor(&peer)?;
            if cursor.agreed != last && self.is_in_sync_with(&peer) {
                cursor.agreed = last;
                self.index.set_cursor(&peer, cursor)?;
                self.is_changed = true;
                self.plan_retire(now);
            }
        }
        Ok(())
    }

    /// When the walk begins or goes on, if nothing happens before.
    pub(super) fn retire_timeout(&self) -> Option<Duration> {
        self.retire.due.filter(|_| !self.scans.is_first() && self.scans.root_missing.is_none())
    }

    /// The other members of the folder, as far as they are known.
    pub(super) fn members(&self) -> impl Iterator<Item = DeviceId> {
        self.retire.members.iter().flatten().copied()
    }

    fn plan_retire(&mut self, now: Now) {
        if self.retire.due.is_none() {
            let turn = self.turn();
            let after_last = self.retire.ended.map(|ended| ended + turn).unwrap_or_default();
            self.retire.due = Some(after_last.max(now.at + turn.min(FIRST_TURN)));
        }
    }

    fn turn(&self) -> Duration {
        TURN.min(self.params.forget_after / 8).max(Duration::from_millis(1))
    }

    /// Goes on with the walk, if its time has come and nothing else is to be done.
    pub(super) fn pump_retire(&mut self, now: Now) -> Result<(), I::Error> {
        if self.retire_timeout().is_none_or(|due| due > now.at) {
            return Ok(());
        }
        if !self.is_at_rest() {
            self.retire.due = Some(now.at + BUSY_PAUSE.min(self.turn()));
            return Ok(());
        }
        let end = self.known_to_all()?;
        let changes = self.index.changes_since(self.retire.at, limits::RECORDS_PER_MESSAGE_MAX)?;
        let is_over = changes.len() < limits::RECORDS_PER_MESSAGE_MAX
            || changes.last().is_none_or(|(local, _)| local.sequence >= end);
        let authors = self.authors_that_write()?;
        for (local, _) in changes.into_iter().take_while(|(local, _)| local.sequence <= end) {
            self.retire.at = local.sequence;
            self.retire_one(now, local, &authors)?;
        }
        self.retire.due = if !is_over {
            Some(now.at)
        } else {
            self.retire.at = Sequence(0);
            self.retire.ended = Some(now.at);
            let is_any_young = std::mem::take(&mut self.retire.is_any_young);
            is_any_young.then(|| now.at + self.turn())
        };
        Ok(())
    }

    fn retire_one(&mut self, now: Now, local: Local, authors: &BTreeSet<AuthorId>) -> Result<(), I::Error> {
        let path = &local.record.path;
        if local.ignored {
            // A memory, which changes only when it counts again.
            return Ok(());
        }
        if local.record.version.is_crowded() {
            let version = local.record.version.without_others_than(|author| authors.contains(&author));
            let sequence = self.next_sequence()?;
            // With so few authors it can be counted.
            if let Ok(version) = version.after_change(self.author, sequence.0) {
                let record = Record { version, ..local.record };
                self.hold(now, record, sequence, local.stat, None)?;
            }
            return Ok(());
        }
        if local.record.body.is_live() {
            return Ok(());
        }
        let age = u64::try_from(now.wall_ns.saturating_sub(local.since_ns)).map(Duration::from_nanos);
        if age.is_ok_and(|age| age >= self.params.forget_after) {
            // What somebody holds there and was not taken is measured by it, and so is what somebody remembers who
            // leaves the path out.
            if self.index.remotes(path)?.is_empty() {
                self.index.drop_local(path)?;
                self.is_changed = true;
            }
        } else {
            self.retire.is_any_young = true;
        }
        Ok(())
    }

    /// Returns up to where every member holds what is held here, or something newer.
    fn known_to_all(&self) -> Result<Sequence, I::Error> {
        let Some(members) = &self.retire.members else {
            return Ok(Sequence(0));
        };
        let mut known = self.index.last_sequence();
        for member in members {
            known = known.min(self.index.cursor(member)?.agreed);
        }
        Ok(known)
    }

    /// Returns this device and the other members as authors, as far as their indexes are known.
    fn authors_that_write(&self) -> Result<BTreeSet<AuthorId>, I::Error> {
        let mut authors = BTreeSet::from([self.author]);
        for member in self.retire.members.iter().flatten() {
            if let Some(incarnation) = self.index.cursor(member)?.incarnation {
                authors.insert(AuthorId::derive(member, incarnation));
            }
        }
        Ok(authors)
    }
}
