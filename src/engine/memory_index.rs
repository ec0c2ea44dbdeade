//! An index in memory, for the simulator and for tests of the engine.
//!
//! It keeps the contract of [`Index`] without a file. Every change leaves its undoing in a journal,
//! which a commit empties: so [`MemoryIndex::crash`] can forget what a power cut would have, at a
//! cost that grows with the changes since the last commit and not with the folder.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use crate::engine::conflict;
use crate::engine::index::{Cursor, Index, Kept, Local, Remote, Totals};
use crate::model::id::{ChunkId, DeviceId, Incarnation, Sequence};
use crate::model::limits::{INLINE_CHUNKS_MAX, VERSION_COUNTER_MAX};
use crate::model::path::RelPath;
use crate::model::recipe::Recipe;
use crate::model::record::Body;

/// Why a call to a [`MemoryIndex`] failed.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum MemoryIndexError {
    /// No sequence is left to give out.
    #[error("the index has given out its last sequence")]
    Exhausted,
}

/// An [`Index`] in memory that can crash.
#[derive(Clone, Debug)]
pub struct MemoryIndex {
    head: Head,
    brake: Vec<u8>,
    scrub: Vec<u8>,
    lives: Vec<u8>,
    locals: BTreeMap<RelPath, Held>,
    remotes: BTreeMap<(RelPath, DeviceId), Remote>,
    cursors: BTreeMap<DeviceId, Cursor>,
    kept: BTreeMap<KeptKey, Kept>,
    kept_count: u64,
    // What follows is derived from the above.
    children: Groups<Option<RelPath>>,
    announced: Groups<Sequence>,
    inodes: Groups<(u64, u64)>,
    holders: Groups<ChunkId>,
    copies: BTreeSet<RelPath>,
    totals: Totals,
    kept_bytes: u64,
    remote_counts: BTreeMap<DeviceId, u64>,
    journal: Vec<Undo>,
}

/// The single values of an index.
#[derive(Clone, Copy, Debug)]
struct Head {
    incarnation: Incarnation,
    last_sequence: Sequence,
    tree_hash: [u8; 32],
}

#[derive(Clone, Debug)]
struct Held {
    local: Local,
    recipe: Option<Recipe>,
}

/// Paths by something that they have in common; no group is empty.
type Groups<K> = BTreeMap<K, BTreeSet<RelPath>>;

/// When it was put aside, then the order in which it was told.
type KeptKey = (i64, u64);

/// What was there before a change.
#[derive(Clone, Debug)]
enum Undo {
    Head(Head),
    Brake(Vec<u8>),
    Scrub(Vec<u8>),
    Lives(Vec<u8>),
    Local(RelPath, Option<Box<Held>>),
    Remote((RelPath, DeviceId), Option<Box<Remote>>),
    Cursor(DeviceId, Option<Cursor>),
    Kept(KeptKey, Option<Box<Kept>>),
}

impl MemoryIndex {
    /// Creates an empty index, as committed.
    pub fn new(incarnation: Incarnation) -> Self {
        Self {
            head: Head { incarnation, last_sequence: Sequence(0), tree_hash: [0; 32] },
            brake: Vec::new(),
            scrub: Vec::new(),
            lives: Vec::new(),
            locals: BTreeMap::new(),
            remotes: BTreeMap::new(),
            cursors: BTreeMap::new(),
            kept: BTreeMap::new(),
            kept_count: 0,
            children: BTreeMap::new(),
            announced: BTreeMap::new(),
            inodes: BTreeMap::new(),
            holders: BTreeMap::new(),
            copies: BTreeSet::new(),
            totals: Totals::default(),
            kept_bytes: 0,
            remote_counts: BTreeMap::new(),
            journal: Vec::new(),
        }
    }

    /// Forgets all changes since the last commit, as a power cut does.
    pub fn crash(&mut self) {
        while let Some(undo) = self.journal.pop() {
            match undo {
                Undo::Head(head) => self.head = head,
                Undo::Brake(brake) => self.brake = brake,
                Undo::Scrub(scrub) => self.scrub = scrub,
                Undo::Lives(lives) => self.lives = lives,
                Undo::Local(path, held) => drop(self.put_local(&path, held.map(|h| *h))),
                Undo::Remote(key, remote) => drop(self.put_remote(&key, remote.map(|r| *r))),
                Undo::Cursor(peer, cursor) => drop(self.put_cursor(&peer, cursor)),
                Undo::Kept(key, kept) => drop(self.put_kept(key, kept.map(|k| *k))),
            }
        }
    }

    /// Returns whether something was changed since the last commit.
    pub fn is_dirty(&self) -> bool {
        !self.journal.is_empty()
    }

    /// Returns all that is held, in order, tombstones and ignored paths included.
    pub fn locals(&self) -> impl Iterator<Item = &Local> {
        self.locals.values().map(|held| &held.local)
    }

    fn change_head(&mut self, change: impl FnOnce(&mut Head)) {
        self.journal.push(Undo::Head(self.head));
        change(&mut self.head);
    }

    fn change_local(&mut self, path: &RelPath, held: Option<Held>) {
        let before = self.put_local(path, held);
        self.journal.push(Undo::Local(path.clone(), before.map(Box::new)));
    }

    fn change_remote(&mut self, key: &(RelPath, DeviceId), remote: Option<Remote>) {
        let before = self.put_remote(key, remote);
        self.journal.push(Undo::Remote(key.clone(), before.map(Box::new)));
    }

    fn change_cursor(&mut self, peer: &DeviceId, cursor: Option<Cursor>) {
        let before = self.put_cursor(peer, cursor);
        self.journal.push(Undo::Cursor(*peer, before));
    }

    fn change_kept(&mut self, key: KeptKey, kept: Option<Kept>) {
        let before = self.put_kept(key, kept);
        self.journal.push(Undo::Kept(key, before.map(Box::new)));
    }

    fn put_local(&mut self, path: &RelPath, held: Option<Held>) -> Option<Held> {
        let before = self.locals.remove(path);
        if let Some(before) = &before {
            self.forget_derived(before);
        }
        if let Some(held) = held {
            self.note_derived(&held);
            self.locals.insert(path.clone(), held);
        }
        before
    }

    fn note_derived(&mut self, held: &Held) {
        let local = &held.local;
        let path = &local.record.path;
        join(&mut self.children, path.parent(), path);
        join(&mut self.announced, local.sequence, path);
        if !is_live(local) {
            return;
        }
        if conflict::is_copy(path) {
            self.copies.insert(path.clone());
        }
        if let (Body::File(_), Some(stat)) = (&local.record.body, &local.stat) {
            join(&mut self.inodes, (stat.dev, stat.ino), path);
        }
        for chunk in held.recipe.iter().flat_map(Recipe::chunks) {
            join(&mut self.holders, chunk.id, path);
        }
        match &local.record.body {
            Body::Tombstone => {}
            Body::Symlink { .. } => self.totals.symlinks += 1,
            Body::Dir { .. } => self.totals.dirs += 1,
            Body::File(file) => {
                self.totals.files += 1;
                self.totals.bytes = self.totals.bytes.wrapping_add(file.size);
            }
        }
    }

    fn forget_derived(&mut self, held: &Held) {
        let local = &held.local;
        let path = &local.record.path;
        leave(&mut self.children, path.parent(), path);
        leave(&mut self.announced, local.sequence, path);
        self.copies.remove(path);
        if let Some(stat) = &local.stat {
            leave(&mut self.inodes, (stat.dev, stat.ino), path);
        }
        for chunk in held.recipe.iter().flat_map(Recipe::chunks) {
            leave(&mut self.holders, chunk.id, path);
        }
        if !is_live(local) {
            return;
        }
        match &local.record.body {
            Body::Tombstone => {}
            Body::Symlink { .. } => self.totals.symlinks -= 1,
            Body::Dir { .. } => self.totals.dirs -= 1,
            Body::File(file) => {
                self.totals.files -= 1;
                self.totals.bytes = self.totals.bytes.wrapping_sub(file.size);
            }
        }
    }

    fn put_remote(&mut self, key: &(RelPath, DeviceId), remote: Option<Remote>) -> Option<Remote> {
        let count = self.remote_counts.entry(key.1).or_default();
        let before = match remote {
            Some(remote) => {
                let before = self.remotes.insert(key.clone(), remote);
                *count += u64::from(before.is_none());
                before
            }
            None => {
                let before = self.remotes.remove(key);
                *count -= u64::from(before.is_some());
                before
            }
        };
        if *count == 0 {
            self.remote_counts.remove(&key.1);
        }
        before
    }

    fn put_cursor(&mut self, peer: &DeviceId, cursor: Option<Cursor>) -> Option<Cursor> {
        match cursor {
            Some(cursor) => self.cursors.insert(*peer, cursor),
            None => self.cursors.remove(peer),
        }
    }

    fn put_kept(&mut self, key: KeptKey, kept: Option<Kept>) -> Option<Kept> {
        let before = self.kept.remove(&key);
        if let Some(before) = &before {
            self.kept_bytes = self.kept_bytes.wrapping_sub(bytes_of(before));
        }
        if let Some(kept) = kept {
            self.kept_bytes = self.kept_bytes.wrapping_add(bytes_of(&kept));
            self.kept.insert(key, kept);
        }
        before
    }
}

fn join<K: Ord>(groups: &mut Groups<K>, key: K, path: &RelPath) {
    groups.entry(key).or_default().insert(path.clone());
}

fn leave<K: Ord>(groups: &mut Groups<K>, key: K, path: &RelPath) {
    if let Some(group) = groups.get_mut(&key) {
        group.remove(path);
        if group.is_empty() {
            groups.remove(&key);
        }
    }
}

/// Returns the bytes that a former version takes in the history.
fn bytes_of(kept: &Kept) -> u64 {
    match (&kept.file, &kept.body) {
        (Some(_), Body::File(file)) => file.size,
        _ => 0,
    }
}

fn is_live(local: &Local) -> bool {
    local.record.body.is_live() && !local.ignored
}

impl Index for MemoryIndex {
    type Error = MemoryIndexError;

    fn commit(&mut self) -> Result<(), Self::Error> {
        self.journal.clear();
        Ok(())
    }

    fn incarnation(&self) -> Incarnation {
        self.head.incarnation
    }

    fn begin_incarnation(&mut self, incarnation: Incarnation) -> Result<(), Self::Error> {
        self.change_head(|head| head.incarnation = incarnation);
        Ok(())
    }

    fn last_sequence(&self) -> Sequence {
        self.head.last_sequence
    }

    fn next_sequence(&mut self, at_least: Sequence) -> Result<Sequence, Self::Error> {
        let next = self.head.last_sequence.0.saturating_add(1).max(at_least.0);
        if next > VERSION_COUNTER_MAX {
            return Err(MemoryIndexError::Exhausted);
        }
        self.change_head(|head| head.last_sequence.0 = next);
        Ok(self.head.last_sequence)
    }

    fn local(&self, path: &RelPath) -> Result<Option<Local>, Self::Error> {
        Ok(self.locals.get(path).map(|held| held.local.clone()))
    }

    fn children(&self, dir: Option<&RelPath>) -> Result<Vec<Local>, Self::Error> {
        let children = self.children.get(&dir.cloned());
        Ok(children.into_iter().flatten().filter_map(|path| self.locals.get(path)).map(|h| h.local.clone()).collect())
    }

    fn has_live_below(&self, dir: &RelPath) -> Result<bool, Self::Error> {
        let after = (Bound::Excluded(dir), Bound::Unbounded);
        let mut below = self.locals.range::<RelPath, _>(after).take_while(|(path, _)| path.is_below(dir));
        Ok(below.any(|(_, held)| is_live(&held.local)))
    }

    fn recipe(&self, path: &RelPath) -> Result<Option<Recipe>, Self::Error> {
        Ok(self.locals.get(path).and_then(|held| held.recipe.clone()))
    }

    fn set_local(&mut self, local: &Local, recipe: Option<&Recipe>) -> Result<(), Self::Error> {
        let path = &local.record.path;
        let recipe = match (&local.record.body, recipe) {
            (Body::File(_), Some(recipe)) => Some(recipe.clone()),
            (Body::File(_), None) => self.recipe(path)?,
            _ => None,
        };
        self.change_local(path, Some(Held { local: local.clone(), recipe }));
        Ok(())
    }

    fn drop_local(&mut self, path: &RelPath) -> Result<(), Self::Error> {
        self.change_local(path, None);
        Ok(())
    }

    fn changes_since(&self, since: Sequence, limit: usize) -> Result<Vec<(Local, Option<Recipe>)>, Self::Error> {
        let changes = self.announced.range((Bound::Excluded(since), Bound::Unbounded)).flat_map(|(_, paths)| paths);
        let held = changes.take(limit).filter_map(|path| self.locals.get(path));
        let inline = |recipe: &&Recipe| recipe.chunks().len() <= INLINE_CHUNKS_MAX;
        Ok(held.map(|held| (held.local.clone(), held.recipe.as_ref().filter(inline).cloned())).collect())
    }

    fn holders_of(&self, chunk: &ChunkId, limit: usize) -> Result<Vec<RelPath>, Self::Error> {
        Ok(self.holders.get(chunk).into_iter().flatten().take(limit).cloned().collect())
    }

    fn by_inode(&self, dev: u64, ino: u64, limit: usize) -> Result<Vec<Local>, Self::Error> {
        let names = self.inodes.get(&(dev, ino)).into_iter().flatten();
        Ok(names.filter_map(|path| self.locals.get(path)).take(limit).map(|held| held.local.clone()).collect())
    }

    fn totals(&self) -> Result<Totals, Self::Error> {
        Ok(self.totals)
    }

    fn tree_hash(&self) -> [u8; 32] {
        self.head.tree_hash
    }

    fn set_tree_hash(&mut self, hash: [u8; 32]) -> Result<(), Self::Error> {
        self.change_head(|head| head.tree_hash = hash);
        Ok(())
    }

    fn brake(&self) -> &[u8] {
        &self.brake
    }

    fn set_brake(&mut self, state: &[u8]) -> Result<(), Self::Error> {
        let before = std::mem::replace(&mut self.brake, state.to_vec());
        self.journal.push(Undo::Brake(before));
        Ok(())
    }

    fn scrub(&self) -> Result<Vec<u8>, Self::Error> {
        Ok(self.scrub.clone())
    }

    fn set_scrub(&mut self, state: &[u8]) -> Result<(), Self::Error> {
        let before = std::mem::replace(&mut self.scrub, state.to_vec());
        self.journal.push(Undo::Scrub(before));
        Ok(())
    }

    fn lives(&self) -> Result<Vec<u8>, Self::Error> {
        Ok(self.lives.clone())
    }

    fn set_lives(&mut self, lives: &[u8]) -> Result<(), Self::Error> {
        let before = std::mem::replace(&mut self.lives, lives.to_vec());
        self.journal.push(Undo::Lives(before));
        Ok(())
    }

    fn remote(&self, peer: &DeviceId, path: &RelPath) -> Result<Option<Remote>, Self::Error> {
        Ok(self.remotes.get(&(path.clone(), *peer)).cloned())
    }

    fn remotes(&self, path: &RelPath) -> Result<Vec<(DeviceId, Remote)>, Self::Error> {
        let first = (path.clone(), DeviceId::from_public_key([0; 32]));
        let at_path = self.remotes.range(first..).take_while(|((at, _), _)| at == path);
        Ok(at_path.map(|((_, peer), remote)| (*peer, remote.clone())).collect())
    }

    fn remote_paths(&self, after: Option<&RelPath>, limit: usize) -> Result<Vec<RelPath>, Self::Error> {
        let from = match after {
            Some(path) => Bound::Excluded((path.clone(), DeviceId::from_public_key([0xff; 32]))),
            None => Bound::Unbounded,
        };
        let mut paths: Vec<RelPath> = Vec::new();
        for ((path, _), _) in self.remotes.range((from, Bound::Unbounded)) {
            if paths.last() == Some(path) || after == Some(path) {
                continue;
            }
            if paths.len() >= limit {
                break;
            }
            paths.push(path.clone());
        }
        Ok(paths)
    }

    fn remote_count(&self, peer: &DeviceId) -> Result<u64, Self::Error> {
        Ok(self.remote_counts.get(peer).copied().unwrap_or(0))
    }

    fn set_remote(&mut self, peer: &DeviceId, path: &RelPath, remote: Option<&Remote>) -> Result<(), Self::Error> {
        self.change_remote(&(path.clone(), *peer), remote.cloned());
        Ok(())
    }

    fn drop_peer(&mut self, peer: &DeviceId) -> Result<(), Self::Error> {
        let keys: Vec<_> = self.remotes.keys().filter(|(_, of)| of == peer).cloned().collect();
        for key in keys {
            self.change_remote(&key, None);
        }
        self.change_cursor(peer, None);
        Ok(())
    }

    fn rename_peer(&mut self, from: &DeviceId, to: &DeviceId) -> Result<(), Self::Error> {
        let remotes = self.remotes.iter().filter(|((_, of), _)| of == from);
        let remotes: Vec<_> = remotes.map(|((path, _), remote)| (path.clone(), remote.clone())).collect();
        for (path, remote) in remotes {
            self.change_remote(&(path.clone(), *from), None);
            self.change_remote(&(path, *to), Some(remote));
        }
        if let Some(cursor) = self.cursors.get(from).copied() {
            self.change_cursor(from, None);
            self.change_cursor(to, Some(cursor));
        }
        Ok(())
    }

    fn cursor(&self, peer: &DeviceId) -> Result<Cursor, Self::Error> {
        Ok(self.cursors.get(peer).copied().unwrap_or_default())
    }

    fn set_cursor(&mut self, peer: &DeviceId, cursor: Cursor) -> Result<(), Self::Error> {
        self.change_cursor(peer, Some(cursor));
        Ok(())
    }

    fn add_kept(&mut self, kept: &Kept) -> Result<(), Self::Error> {
        self.kept_count += 1;
        self.change_kept((kept.until_ns, self.kept_count), Some(kept.clone()));
        Ok(())
    }

    fn kept(&self, path: Option<&RelPath>, below: bool) -> Result<Vec<Kept>, Self::Error> {
        let is_asked = |kept: &&Kept| match path {
            Some(path) => kept.path == *path || (below && kept.path.is_below(path)),
            None => below,
        };
        Ok(self.kept.values().rev().filter(is_asked).cloned().collect())
    }

    fn kept_page(
        &self,
        top: Option<&RelPath>,
        after: Option<(&RelPath, i64)>,
        limit: usize,
    ) -> Result<Vec<Kept>, Self::Error> {
        let mut page = self.kept(top, true)?;
        page.reverse();
        page.retain(|kept| after.is_none_or(|after| (&kept.path, kept.until_ns) > after));
        page.sort_by(|a, b| (&a.path, a.until_ns).cmp(&(&b.path, b.until_ns)));
        page.truncate(limit);
        Ok(page)
    }

    fn expire_kept(&mut self, until_ns: i64, bytes_max: u64, limit: usize) -> Result<Vec<String>, Self::Error> {
        let mut files = Vec::new();
        while files.len() < limit {
            let Some((key, oldest)) = self.kept.first_key_value() else { break };
            if oldest.until_ns >= until_ns && self.kept_bytes <= bytes_max {
                break;
            }
            let key = *key;
            files.extend(oldest.file.clone());
            self.change_kept(key, None);
        }
        Ok(files)
    }

    fn kept_bytes(&self) -> Result<u64, Self::Error> {
        Ok(self.kept_bytes)
    }

    fn conflicts(&self) -> Result<Vec<Local>, Self::Error> {
        Ok(self.copies.iter().filter_map(|path| self.locals.get(path)).map(|held| held.local.clone()).collect())
    }
}
