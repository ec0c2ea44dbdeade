//! The oracle: what must be true, at every step and in the end.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use kinfold::engine::conflict;
use kinfold::engine::effect::{CommitItem, CommitOutcome};
use kinfold::engine::folder::{Folder, FolderState, Input};
use kinfold::engine::index::Index;
use kinfold::model::path::RelPath;
use kinfold::model::record::Body;

use crate::disk::{Data, recipe_of};
use crate::world::{World, path};

/// What lies on a disk: content, mode and time.
type Tree = BTreeMap<RelPath, (Data, u16, i64)>;

impl World {
    // -------------------------------------------------------------------------------- at every step

    /// Every file is one whole version that somebody wrote.
    pub(super) fn check_contents(&self, n: usize) {
        let is_known = |bytes: &Vec<u8>| self.written.contains(bytes) || self.is_damage(n, bytes);
        if let Some(bytes) = self.devices[n].disk.contents().into_iter().find(|bytes| !is_known(bytes)) {
            self.fail(&format!("{n} has what nobody wrote: {}", String::from_utf8_lossy(&bytes)));
        }
    }

    /// What a commit replaced is in history, and the index can find it there.
    pub(super) fn check_kept(&mut self, n: usize, items: &[CommitItem], outcomes: &[CommitOutcome]) {
        self.flush(n);
        let Some(folder) = &self.devices[n].folder else {
            return;
        };
        let kept = folder.index().kept(None, true).unwrap();
        for (item, outcome) in items.iter().zip(outcomes) {
            let CommitOutcome::Done { kept: Some(name), .. } = outcome else {
                continue;
            };
            let is_it = |body: &Body| match (&self.devices[n].disk.history[name], body) {
                (Data::File(bytes), Body::File(file)) => recipe_of(bytes).content_id() == file.content,
                (Data::Symlink(to), Body::Symlink { target }) => **to == **target,
                _ => false,
            };
            // Of a damaged letter the damage is kept, under the name of what it was.
            if self.letters.contains_key(&item.path) {
                continue;
            }
            if !kept.iter().any(|k| k.file.as_ref() == Some(name) && k.path == item.path && is_it(&k.body)) {
                self.fail(&format!("{n} does not know what it kept of {} as {name}", item.path));
            }
        }
    }

    // ----------------------------------------------------------------------------------- the oracle

    /// Disks are in order again, and all devices have the same rules.
    pub(super) fn calm_down(&mut self) {
        self.is_rough = false;
        for device in &mut self.devices {
            device.is_away = false;
        }
        if self.devices[0].disk.is_unmounted() {
            self.toggle_mount(0);
        }
        let rules = if self.random.chance(50) { self.rules.clone() } else { BTreeSet::new() };
        for n in 0..self.devices.len() {
            if self.devices[n].disk.ignored != rules {
                self.change_rules(n);
            }
        }
    }

    /// Nobody edits any more, everything is connected, and all is scanned.
    pub(super) fn settle(&mut self) {
        self.say(|| "the end begins".into());
        let count = self.devices.len();
        for n in 0..count {
            if self.devices[n].is_unwatched {
                self.give(n, Input::ScanAll);
            }
        }
        let (mut idle, mut jumps) = (0, 0);
        for _ in 0..60_000 {
            let mut has_moved = false;
            for a in 0..count {
                for b in 0..count {
                    self.connect(a, b);
                }
            }
            for n in 0..count {
                has_moved |= self.work(n);
                for other in 0..count {
                    has_moved |= self.deliver(n, other);
                }
                self.flush(n);
            }
            self.clock += 1;
            if self.devices.iter().all(|d| {
                d.folder.as_ref().is_some_and(|f| f.is_settled() && f.status().unwrap().peers.len() == count - 1)
            }) && (1..count).any(|n| self.tree(n) != self.tree(0))
            {
                self.print_trees();
                self.fail("all say that they are in sync, and are not");
            }
            if has_moved {
                (idle, jumps) = (0, 0);
                continue;
            }
            // Nothing moves: let the time pass until something is due.
            let due = self.devices.iter().filter_map(|d| d.folder.as_ref().and_then(Folder::poll_timeout)).min();
            if let Some(due) = due.filter(|due| *due < Duration::from_millis(self.clock) + Duration::from_secs(600)) {
                self.clock = self.clock.max(due.as_millis() as u64 + 1);
                (idle, jumps) = (0, jumps + 1);
            } else {
                idle += 1;
            }
            if idle > 3 || jumps > 200 {
                return;
            }
        }
        self.fail("it never comes to rest");
    }

    /// What lies on a device, but for what is ignored.
    pub(super) fn tree(&self, n: usize) -> Tree {
        let disk = &self.devices[n].disk;
        let mut tree = disk.tree();
        tree.retain(|path, _| !disk.is_ignored(path));
        tree
    }

    pub(super) fn judge(&mut self) {
        let first = self.tree(0);
        for n in 0..self.devices.len() {
            let tree = self.tree(n);
            if tree != first {
                let paths: BTreeSet<_> =
                    first.keys().chain(tree.keys()).filter(|p| first.get(*p) != tree.get(*p)).collect();
                for path in &paths {
                    println!("{path}:");
                    for (n, device) in self.devices.iter().enumerate() {
                        let index = device.folder.as_ref().unwrap().index();
                        println!("  {n} has {:?}", device.disk.tree().get(*path));
                        println!("    holds {:?}", index.local(path).unwrap().map(|l| (l.record, l.ignored)));
                        for (peer, remote) in index.remotes(path).unwrap() {
                            println!("    {peer:?} has {:?}", remote.record);
                        }
                    }
                }
                self.fail(&format!("0 and {n} differ at {paths:?}"));
            }
        }
        for (n, device) in self.devices.iter().enumerate() {
            // What is ignored lies where it was written, or came before it was ignored.
            let mut live: BTreeSet<_> = match device.disk.ignored.is_empty() {
                true => device.disk.contents(),
                false => self.devices.iter().flat_map(|device| device.disk.contents()).collect(),
            };
            // Two machines of one identity can take each other's edits for their own past; what that replaces is kept.
            if self.has_clones() {
                let kept = self.devices.iter().flat_map(|device| device.disk.history.values().chain(device.cloned()));
                live.extend(
                    kept.filter_map(|data| if let Data::File(bytes) = data { Some(bytes.clone()) } else { None }),
                );
            }
            if let Some((bytes, story)) = self.owed.iter().find(|(bytes, _)| !live.contains(*bytes)) {
                self.fail(&format!("{} ({story}) is gone from {n}", String::from_utf8_lossy(&bytes[..7])));
            }
            let folder = device.folder.as_ref().unwrap();
            if self.is_forgetful()
                && let Some(gone) = folder.index().locals().find(|local| !local.record.body.is_live())
            {
                self.fail(&format!("{n} still remembers that {} was deleted", gone.record.path));
            }
            let status = folder.status().unwrap();
            if !folder.is_settled() || status.state != FolderState::Idle {
                self.print_indexes();
                self.fail(&format!("{n} does not say that it is in sync: {status:?}"));
            }
        }
        // No numbered copy has the content of the copy whose name it would have had. (Devices that made
        // the same content apart, or changed its mode, may each give it their own name.)
        for (path, (data, ..)) in &first {
            let name = path.name().strip_suffix(b"-2").and_then(|name| path.with_name(name).ok());
            if conflict::is_copy(path)
                && name.is_some_and(|name| first.get(&name).is_some_and(|there| there.0 == *data))
            {
                self.fail(&format!("{path} is a copy too many"));
            }
        }
        // A restart changes nothing, and nothing is done where all is at rest.
        let counts = |world: &Self| -> Vec<_> {
            world.devices.iter().map(|d| d.folder.as_ref().unwrap().index().last_sequence()).collect()
        };
        let before = counts(self);
        for n in 0..self.devices.len() {
            self.stop_quietly(n);
        }
        self.settle();
        if counts(self) != before {
            self.fail(&format!("a restart made changes: {before:?} became {:?}", counts(self)));
        }
        for n in 0..self.devices.len() {
            self.flush(n);
            if !self.devices[n].orders.is_empty() || !self.devices[n].findings.is_empty() {
                self.fail(&format!("{n} is at rest, and has something to do"));
            }
        }
        for n in 0..self.devices.len() {
            if self.tree(n) != first {
                self.fail(&format!("a restart changed {n}"));
            }
        }
    }

    /// Prints where the disks differ.
    pub(super) fn print_trees(&self) {
        let lines = |n: usize| self.tree(n).iter().map(|line| format!("{line:?}")).collect::<BTreeSet<_>>();
        for n in 1..self.devices.len() {
            println!("0 has {:?}", lines(0).difference(&lines(n)).collect::<Vec<_>>());
            println!("{n} has {:?}", lines(n).difference(&lines(0)).collect::<Vec<_>>());
        }
    }

    /// Prints where the indexes differ.
    pub(super) fn print_indexes(&self) {
        let lines = |n: usize| -> BTreeSet<String> {
            let index = self.devices[n].folder.as_ref().unwrap().index();
            let held = index.locals().filter(|l| l.record.body.is_live() && !l.ignored);
            held.map(|l| format!("{:?} {:?}", l.record.path, l.record.body)).collect()
        };
        for n in 1..self.devices.len() {
            println!("0 alone: {:?}", lines(0).difference(&lines(n)).collect::<Vec<_>>());
            println!("{n} alone: {:?}", lines(n).difference(&lines(0)).collect::<Vec<_>>());
        }
    }

    pub(super) fn stop_quietly(&mut self, n: usize) {
        for other in 0..self.devices.len() {
            self.cut(n, other);
        }
        if let Some(folder) = self.devices[n].folder.take() {
            self.devices[n].orders.clear();
            self.devices[n].findings.clear();
            let mut index = folder.into_index();
            index.commit().unwrap();
            self.start(n, index);
        }
    }

    // --------------------------------------------------------------------------- when all is at rest

    /// All are in sync, and one person edits on one device: all end with just what it left. There is
    /// no conflict, nothing comes back, nothing else goes, and the others have in history what they lost.
    pub(super) fn edit_in_peace(&mut self) {
        for _ in 0..2 {
            let n = self.random.below(self.devices.len());
            let before = self.tree(n);
            self.say(|| format!("{n} edits in peace"));
            let files_of = |world: &Self, n: usize| world.devices[n].disk.contents();
            for _ in 0..1 + self.random.below(4) {
                self.edit(n, true);
            }
            let after = self.tree(n);
            self.settle();
            for other in 0..self.devices.len() {
                if !self.has_what_was_left(other, &after) {
                    self.print_trees();
                    self.fail(&format!("{n} alone has edited, and {other} has something else"));
                }
                if other == n {
                    continue;
                }
                let (live, history) = (files_of(self, other), &self.devices[other].disk.history);
                for (path, (data, ..)) in before.iter().filter(|(path, was)| after.get(*path) != Some(was)) {
                    let is_kept = |bytes: &Vec<u8>| live.contains(bytes) || history.values().any(|kept| kept == data);
                    if let Data::File(bytes) = data
                        && !is_kept(bytes)
                    {
                        self.fail(&format!("{other} has not kept {path}"));
                    }
                }
            }
        }
    }

    /// Whether something ignored lies below a path on any device.
    fn ignored_lies_below(&self, dir: &RelPath) -> bool {
        let mut disks = self.devices.iter().map(|device| &device.disk);
        disks.any(|disk| disk.nodes.keys().any(|path| path.is_below(dir) && disk.is_ignored(path)))
    }

    /// Whether a device has what was left by a person who edited alone. A directory stays for the sake of what is
    /// ignored in it; what took its place is then a conflict copy.
    fn has_what_was_left(&self, n: usize, expected: &Tree) -> bool {
        let mut tree = self.tree(n);
        let is_in_the_way = |path: &RelPath, data: &Data| *data != Data::Dir && self.ignored_lies_below(path);
        if expected.iter().any(|(path, (data, ..))| is_in_the_way(path, data)) {
            let is_there = |left: &Data| tree.values().any(|(data, ..)| data == left);
            return expected.values().all(|(data, ..)| is_there(data));
        }
        tree.retain(|path, (data, ..)| {
            *data != Data::Dir || expected.contains_key(path) || !self.ignored_lies_below(path)
        });
        tree == *expected
    }

    /// Nobody is connected, and all write to the same path: of n different contents the latest stays
    /// and the others lie beside it as n - 1 copies, the same everywhere; equal ones make none. (Where
    /// some are equal and others are not, one may be put aside before it is known that it has won.)
    pub(super) fn edit_apart(&mut self) {
        let target = path("apart");
        let count = self.devices.len();
        for a in 0..count {
            for b in 0..count {
                self.cut(a, b);
            }
        }
        let mut before = self.tree(0);
        let mut contents = BTreeSet::new();
        let are_equal = self.random.chance(30);
        for n in 0..count {
            if self.devices[n].disk.is_dir(Some(&target)) {
                return;
            }
            let bytes = match contents.first().filter(|_| are_equal).cloned() {
                Some(same) => same,
                None => {
                    self.tokens += 1;
                    format!("{:<7}apart", self.tokens).into_bytes()
                }
            };
            let mtime = 1_700_000_000_000_000_000 + self.random.below(3) as i64 * 1_000_000_000;
            self.say(|| format!("{n} writes {} apart", String::from_utf8_lossy(&bytes)));
            self.written.insert(bytes.clone());
            self.devices[n].disk.write(&target, bytes.clone(), mtime);
            contents.insert(bytes);
            self.devices[n].is_unwatched = true;
            self.give(n, Input::ScanAll);
        }
        self.settle();
        let after = self.tree(0);
        let found: BTreeSet<_> = after
            .iter()
            .filter(|(path, _)| !before.contains_key(*path) || **path == target)
            .map(|(_, (data, ..))| if let Data::File(bytes) = data { bytes.clone() } else { Vec::new() })
            .collect();
        before.remove(&target);
        let others: BTreeMap<_, _> = after.iter().filter(|(path, _)| before.contains_key(*path)).collect();
        if (1..count).any(|n| self.tree(n) != after) || found != contents || others != before.iter().collect() {
            self.print_trees();
            self.fail(&format!("{} contents written apart became {after:?}", contents.len()));
        }
        if after.len() - before.len() != contents.len() {
            self.fail(&format!("{} contents are {} files", contents.len(), after.len() - before.len()));
        }
    }

    /// All have a file; one edits it while another deletes it. The edit stays, at its own path.
    pub(super) fn edit_against_deletion(&mut self) {
        let (target, count) = (path("apart"), self.devices.len());
        if !matches!(self.devices[0].disk.nodes.get(&target).map(|node| &node.data), Some(Data::File(_))) {
            return;
        }
        for a in 0..count {
            for b in 0..count {
                self.cut(a, b);
            }
        }
        let editor = self.random.below(count);
        let deleter = (editor + 1 + self.random.below(count - 1)) % count;
        self.tokens += 1;
        let bytes = format!("{:<7}stays", self.tokens).into_bytes();
        self.say(|| format!("{editor} edits what {deleter} deletes"));
        self.written.insert(bytes.clone());
        self.devices[editor].disk.write(&target, bytes, 1_700_000_000_000_000_000);
        self.devices[deleter].disk.remove(&target);
        self.was_removed(deleter, vec![target]);
        let expected = self.tree(editor);
        for n in [editor, deleter] {
            self.devices[n].is_unwatched = true;
            self.give(n, Input::ScanAll);
        }
        self.settle();
        if (0..count).any(|n| self.tree(n) != expected) {
            self.print_trees();
            self.fail("an edit and a deletion did not end with the edit");
        }
    }
}
