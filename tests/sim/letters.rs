//! Letters: files that lie at a path of their own, are written once, and at most removed again. So it is known of each
//! whether it must be there in the end, and what has no business to come back. Disks damage them in silence, and what
//! is read of them for a peer may be torn.

use kinfold::engine::index::Index;
use kinfold::model::path::RelPath;

use crate::disk::Data;
use crate::world::{World, path};

/// What is known of a letter.
pub struct Letter {
    bytes: Vec<u8>,
    /// Who removed it.
    removed_by: Option<usize>,
    /// Whether somebody who knew of its removal may have forgotten that, so that it may be there or not.
    is_unsure: bool,
}

impl World {
    /// Somebody writes a letter or removes one, or a disk damages one.
    pub(super) fn post(&mut self, n: usize) {
        if self.devices[n].is_away {
            return;
        }
        let here: Vec<_> =
            self.letters.keys().filter(|path| self.devices[n].disk.nodes.contains_key(path)).cloned().collect();
        let action = self.random.below(100);
        if action < 40 || here.is_empty() {
            self.tokens += 1;
            let at = path(&format!("letter-{}", self.tokens));
            let bytes = format!("{:<7}a letter of several chunks", self.tokens).into_bytes();
            self.say(|| format!("{n} writes the letter {at}"));
            self.written.insert(bytes.clone());
            self.owed.insert(bytes.clone(), format!("the letter {at} by {n}"));
            let mtime = 1_700_000_000_000_000_000 + self.clock as i64 * 1_000_000;
            self.devices[n].disk.write(&at, bytes.clone(), mtime);
            self.letters.insert(at.clone(), Letter { bytes, removed_by: None, is_unsure: false });
            self.steps += 1;
            self.touch(n, &at, true);
            return;
        }
        let at = self.random.pick(&here).clone();
        if action < 85 {
            self.say(|| format!("{n} removes the letter {at}"));
            self.devices[n].disk.remove(&at);
            self.was_removed(n, vec![at.clone()]);
            let letter = self.letters.get_mut(&at).unwrap();
            letter.removed_by = letter.removed_by.or(Some(n));
            self.owed.remove(&letter.bytes);
            self.steps += 1;
            self.touch(n, &at, true);
        } else if self.is_well_known(n, &at) {
            self.say(|| format!("{n}'s disk damages the letter {at}"));
            self.devices[n].disk.damage(&at);
            self.steps += 1;
        }
    }

    /// Whether a device has a letter as its durable index says, and some other has it too.
    fn is_well_known(&self, n: usize, at: &RelPath) -> bool {
        let holds = |n: usize| {
            let Some(folder) = &self.devices[n].folder else { return false };
            let known = folder.index().local(at).unwrap();
            let stat = self.devices[n].disk.stat(at);
            !folder.index().is_dirty() && stat.is_some() && known.is_some_and(|local| local.stat == stat)
        };
        holds(n) && (0..self.devices.len()).any(|other| other != n && !self.is_damaged(other, at) && holds(other))
    }

    /// Whether the disk of a device has damaged a letter.
    fn is_damaged(&self, n: usize, at: &RelPath) -> bool {
        let is =
            |data: &Data| !matches!((data, self.letters.get(at)), (Data::File(b), Some(letter)) if *b == letter.bytes);
        self.devices[n].disk.nodes.get(at).is_some_and(|node| is(&node.data))
    }

    /// Whether a content is what a disk has made of a letter that lies there.
    pub(super) fn is_damage(&self, n: usize, bytes: &[u8]) -> bool {
        let is_it = |path: &RelPath| {
            let there = self.devices[n].disk.nodes.get(path).map(|node| &node.data);
            matches!(there, Some(Data::File(there)) if there == bytes) && self.is_damaged(n, path)
        };
        self.letters.keys().any(is_it)
    }

    /// A device may know no more of what was removed there, and takes what its disk has for what it should have.
    pub(super) fn letters_are_unsure(&mut self, n: usize) {
        let disk = &mut self.devices[n].disk;
        for (path, letter) in &mut self.letters {
            let is_here = disk.nodes.contains_key(path);
            letter.is_unsure |= letter.removed_by.is_some_and(|by| by == n || is_here);
            // A disk that was damaged in silence is another one by then: nobody can tell damage from an edit that was
            // made while there was no index.
            disk.repair(path, &letter.bytes);
        }
    }

    /// After a power cut: what was removed here and is back was not removed.
    pub(super) fn letters_are_back(&mut self, n: usize) {
        let disk = &self.devices[n].disk;
        for (path, letter) in &mut self.letters {
            letter.is_unsure |= letter.removed_by == Some(n) && disk.nodes.contains_key(path);
        }
    }

    /// All devices look for damage and heal it; then each letter is there, whole, or gone, as people left it.
    pub(super) fn mend_letters(&mut self) {
        if !self.has_letters() {
            return;
        }
        for n in 0..self.devices.len() {
            let now = self.now(n);
            if let Some(folder) = &mut self.devices[n].folder {
                folder.begin_verify(now, true);
            }
        }
        self.settle();
        for n in 0..self.devices.len() {
            for (path, letter) in &self.letters {
                let there = self.devices[n].disk.nodes.get(path).map(|node| &node.data);
                let is_right = match there {
                    Some(Data::File(bytes)) => *bytes == letter.bytes && letter.removed_by.is_none(),
                    Some(_) => false,
                    // What nobody removed is asked for elsewhere, as far as it is owed.
                    None => true,
                };
                if !(is_right || letter.is_unsure && !self.is_damaged(n, path)) {
                    let should = if self.is_damaged(n, path) { "is damaged" } else { "is back" };
                    self.fail(&format!("the letter {path} {should} on {n}"));
                }
            }
        }
    }

    /// In clone worlds: each clone comes once more, and all that it has is handed on.
    pub(super) fn bring_clones_together(&mut self) {
        if !self.has_clones() {
            return;
        }
        for _ in 0..2 {
            for n in 0..self.devices.len() {
                for other in 0..self.devices.len() {
                    self.cut(n, other);
                }
                let Some(folder) = self.devices[n].folder.take() else { continue };
                self.devices[n].orders.clear();
                self.devices[n].findings.clear();
                let mut index = folder.into_index();
                index.commit().unwrap();
                let index = self.swap_clones(n, index);
                let again = self.devices[n].ever_removed.clone();
                self.devices[n].removed.extend(again);
                self.start(n, index);
                self.settle();
            }
        }
    }

    /// Tears a chunk of a letter, as where its file is written while it is read for a peer.
    pub(super) fn tear(&mut self, mut bytes: Vec<u8>) -> Vec<u8> {
        if self.has_letters() && self.is_rough && self.random.chance(5) {
            bytes[0] ^= 1;
        }
        bytes
    }
}
