//! People: they write, rename, remove and turn things into others, at any moment.

use std::collections::{BTreeMap, BTreeSet};

use kinfold::engine::effect::Depth;
use kinfold::engine::folder::Input;
use kinfold::model::path::RelPath;

use crate::disk::{Data, recipe_of};
use crate::world::{Random, World, path};

impl World {
    // ------------------------------------------------------------------------------- people's hands

    /// The ignore file here comes or goes; all is looked at anew.
    pub(super) fn change_rules(&mut self, n: usize) {
        if self.rules.is_empty() {
            return;
        }
        self.steps += 1;
        let disk = &mut self.devices[n].disk;
        disk.ignored = if disk.ignored.is_empty() { self.rules.clone() } else { BTreeSet::new() };
        let now = self.devices[n].disk.ignored.clone();
        self.say(|| format!("{n} ignores {now:?}"));
        self.devices[n].is_unwatched = true;
        self.give(n, Input::ScanAll);
    }

    pub(super) fn any_path(&mut self, n: usize) -> RelPath {
        // Something that is there, conflict copies too, or a name out of a few.
        let count = self.devices[n].disk.nodes.len();
        if count > 0 && self.random.chance(25) {
            let at = self.random.below(count);
            return self.devices[n].disk.nodes.keys().nth(at).unwrap().clone();
        }
        let name = *self.random.pick(&["a", "b", "c", "d", "d/a", "d/b", "e/a", "e/b", "e/f/a", "d/e"]);
        path(name)
    }

    /// The person knowingly replaces or removes what is there.
    pub(super) fn saw(&mut self, data: Option<&Data>) {
        if let Some(Data::File(bytes)) = data {
            self.owed.remove(bytes);
        }
    }

    pub(super) fn make_parents(&mut self, n: usize, path: &RelPath) -> bool {
        let mut dirs: Vec<_> = path.ancestors().collect();
        dirs.reverse();
        for dir in dirs {
            match self.devices[n].disk.nodes.get(&dir).map(|node| &node.data) {
                None => self.devices[n].disk.make(&dir, Data::Dir),
                Some(Data::Dir) => {}
                Some(_) => return false,
            }
            self.touch(n, &dir, true);
        }
        true
    }

    pub(super) fn touch(&mut self, n: usize, path: &RelPath, is_watched: bool) {
        if is_watched && self.devices[n].folder.is_some() && self.random.chance(85) {
            let depth = if self.devices[n].disk.is_dir(Some(path)) { Depth::Tree } else { Depth::Entry };
            self.give(n, Input::Touched(BTreeMap::from([(path.clone(), depth)])));
        } else {
            self.devices[n].is_unwatched = true;
        }
    }

    /// Names that nothing has here any more, by a person's hand or ours.
    pub(super) fn was_removed(&mut self, n: usize, paths: Vec<RelPath>) {
        self.devices[n].ever_removed.extend(paths.iter().cloned());
        self.devices[n].removed.extend(paths);
    }

    pub(super) fn lose_power(&mut self, n: usize) {
        self.say(|| format!("{n} loses power"));
        let before = self.devices[n].disk.contents();
        let mut random = Random::from(self.random.next());
        let gone = self.devices[n].disk.lose_power(|| random.chance(50));
        self.was_removed(n, gone);
        self.letters_are_back(n);
        let after = self.devices[n].disk.contents();
        for bytes in before.difference(&after) {
            // Nobody can keep what never reached the disk, nor was promised to anybody.
            if !self.promised.contains(&recipe_of(bytes).content_id()) {
                self.owed.remove(bytes);
            }
        }
        self.check_contents(n);
    }

    pub(super) fn edit(&mut self, n: usize, is_watched: bool) {
        if self.devices[n].is_away {
            return;
        }
        let path = self.any_path(n);
        if self.is_untouchable(n, &path) {
            return;
        }
        let there = self.devices[n].disk.nodes.get(&path).map(|node| node.data.clone());
        match self.random.below(110) {
            0..45 => {
                if there == Some(Data::Dir) || matches!(there, Some(Data::Symlink(_))) || !self.make_parents(n, &path) {
                    return;
                }
                self.saw(there.as_ref());
                self.tokens += 1;
                let mut bytes = format!("{:<7}", self.tokens).into_bytes();
                for _ in 0..self.random.below(24) {
                    bytes.extend_from_slice(b"shared-1");
                }
                self.written.insert(bytes.clone());
                self.owed.insert(bytes.clone(), format!("written to {path} by {n} at {}", self.clock));
                let mtime = 1_700_000_000_000_000_000 + self.devices[n].wall_skew + (self.clock as i64) * 1_000_000;
                self.say(|| format!("{n} writes {} to {path}", String::from_utf8_lossy(&bytes[..7])));
                self.devices[n].disk.write(&path, bytes, mtime);
            }
            45..60 => {
                if there.is_none() {
                    return;
                }
                self.say(|| format!("{n} removes {path}"));
                for (gone, data) in self.devices[n].disk.remove(&path) {
                    self.was_removed(n, vec![gone]);
                    self.saw(Some(&data));
                }
            }
            60..80 => {
                let to = self.any_path(n);
                let inside = to.is_below(&path) || path.is_below(&to) || to == path || self.is_untouchable(n, &to);
                let onto = self.devices[n].disk.nodes.get(&to).map(|node| node.data.clone());
                let fits = !matches!((&there, &onto), (None, _) | (_, Some(Data::Dir)) | (Some(Data::Dir), Some(_)));
                if inside || !fits || !self.make_parents(n, &to) {
                    return;
                }
                self.saw(onto.as_ref());
                self.say(|| format!("{n} renames {path} to {to}"));
                let gone = self.devices[n].disk.rename(&path, &to);
                self.was_removed(n, gone);
                self.touch(n, &to, is_watched);
            }
            80..88 => {
                if there.is_some() || !self.make_parents(n, &path) {
                    return;
                }
                let data = if self.random.chance(50) { Data::Dir } else { Data::Symlink(b"target".to_vec()) };
                self.say(|| format!("{n} makes {path} {data:?}"));
                self.devices[n].disk.make(&path, data);
            }
            88..91 => {
                // The same length and the same time: only the change time tells.
                let (Some(Data::File(bytes)), Some(mtime)) = (&there, self.devices[n].disk.stat(&path)) else {
                    return;
                };
                self.saw(there.as_ref());
                self.tokens += 1;
                let mut bytes = bytes.clone();
                bytes[..7].copy_from_slice(format!("{:<7}", self.tokens).as_bytes());
                self.written.insert(bytes.clone());
                self.owed.insert(bytes.clone(), format!("written over {path} by {n} at {}", self.clock));
                self.say(|| format!("{n} writes {} to {path} in place", String::from_utf8_lossy(&bytes[..7])));
                self.devices[n].disk.write(&path, bytes, mtime.mtime_ns);
            }
            91..94 => {
                if matches!(there, Some(Data::File(_))) {
                    let mtime = *self.random.pick(&[0, -1, i64::MAX, i64::MIN, 4_000_000_000_000_000_000]);
                    self.say(|| format!("{n} sets the time of {path} to {mtime}"));
                    self.devices[n].disk.set_mtime(&path, mtime);
                }
            }
            94..97 => {
                let other = self.any_path(n);
                let onto = self.devices[n].disk.nodes.get(&other).map(|node| node.data.clone());
                let is_plain = |data: &Option<Data>| matches!(data, Some(Data::File(_) | Data::Symlink(_)));
                if path == other || self.is_untouchable(n, &other) || !is_plain(&there) || !is_plain(&onto) {
                    return;
                }
                self.say(|| format!("{n} swaps {path} and {other}"));
                self.devices[n].disk.swap(&path, &other);
                self.touch(n, &other, is_watched);
            }
            97..101 => {
                // One kind of thing becomes another between two looks.
                if there.is_none() {
                    return;
                }
                for (gone, data) in self.devices[n].disk.remove(&path) {
                    self.was_removed(n, vec![gone]);
                    self.saw(Some(&data));
                }
                let data = match there {
                    Some(Data::Dir) => Data::Symlink(b"elsewhere".to_vec()),
                    _ => Data::Dir,
                };
                self.say(|| format!("{n} turns {path} into {data:?}"));
                self.devices[n].disk.make(&path, data);
            }
            _ => {
                let mode = *self.random.pick(&[0o600, 0o644, 0o755]);
                if matches!(there, Some(Data::Symlink(_))) {
                    return;
                }
                self.say(|| format!("{n} changes the mode of {path} to {mode:o}"));
                self.devices[n].disk.chmod(&path, mode);
            }
        }
        self.steps += 1;
        self.touch(n, &path, is_watched);
    }
}
