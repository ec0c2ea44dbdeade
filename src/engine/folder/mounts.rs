//! File systems that are mounted inside the folder, and may go away.
//!
//! A directory that lies on another device than was recorded is a mount point whose disk is gone, or
//! another. Nothing is known of what is recorded below it: nothing there is gone, new or changed, and
//! nothing is taken there, until the disk is back.

use crate::engine::effect::Found;
use crate::engine::folder::Folder;
use crate::engine::index::{Index, Local};
use crate::model::path::RelPath;
use crate::model::problem::ProblemKind;
use crate::model::stat::{Kind, Stat};

impl<I: Index> Folder<I> {
    /// Whether a path lies below a mount point whose disk is not the one that was recorded.
    pub(super) fn is_off(&self, path: &RelPath) -> bool {
        !self.off.is_empty() && path.ancestors().any(|dir| self.off.contains_key(&dir))
    }

    /// Compares the device of a directory with the recorded one. Returns whether its disk is away.
    pub(super) fn note_mount(&mut self, path: &RelPath, local: Option<&Local>, stat: Stat) -> Result<bool, I::Error> {
        let held = local.and_then(|local| local.stat).filter(|held| held.kind == Kind::Dir);
        if held.is_some_and(|held| held.dev != stat.dev) && self.index.has_live_below(path)? {
            self.report(Some(path), ProblemKind::MountChanged, "");
            self.off.insert(path.clone(), stat);
            return Ok(true);
        }
        if self.off.remove(path).is_some() {
            self.look_for_all_anew();
        }
        Ok(false)
    }

    /// Whether a listing may be believed. A mount point may have got another device number, as some get
    /// with every start of the system: that is so where all that is recorded right in it is there.
    pub(super) fn may_list(&mut self, dir: Option<&RelPath>, entries: &[(Box<[u8]>, Found)]) -> Result<bool, I::Error> {
        let Some(dir) = dir.filter(|_| !self.off.is_empty()) else {
            return Ok(true);
        };
        let Some(stat) = self.off.get(dir).copied() else {
            return Ok(!self.is_off(dir));
        };
        let known = self.index.children(Some(dir))?;
        let mut held = known.iter().filter(|local| local.record.body.is_live() && !local.ignored).peekable();
        let is_there = |local: &Local| {
            let name = local.record.path.name();
            entries.iter().any(|(found, what)| **found == *name && is_what_was(local, what))
        };
        if held.peek().is_none() || !held.all(is_there) {
            return Ok(false);
        }
        if let Some(local) = self.index.local(dir)? {
            self.is_changed = true;
            self.index.set_local(&Local { stat: Some(stat), ..local }, None)?;
        }
        self.off.remove(dir);
        self.clear_problems(dir);
        self.look_for_all_anew();
        Ok(true)
    }

    fn look_for_all_anew(&mut self) {
        self.scans.want_full();
        self.sweep.begin_again();
    }
}

/// Whether something is what was recorded, but for the device's number.
fn is_what_was(local: &Local, found: &Found) -> bool {
    let (Found::Entry(stat) | Found::Symlink(stat, _), Some(held)) = (found, local.stat) else {
        return false;
    };
    (stat.kind, stat.ino) == (held.kind, held.ino)
        && (stat.kind == Kind::Dir || (stat.size, stat.mtime_ns) == (held.size, held.mtime_ns))
}
