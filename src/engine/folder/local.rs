//! What happens here: scans, reading of files, and the records that come of it.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::time::Duration;

use crate::engine::effect::{Depth, Found, HashOutcome, JobId, ScanEnd, ScanItem, Scope};
use crate::engine::folder::scans::{Gone, gone_pause};
use crate::engine::folder::take::Retry;
use crate::engine::folder::{Folder, Note, Now, Output};
use crate::engine::index::{Index, Local};
use crate::engine::reconcile::{Verdict, reconcile};
use crate::model::limits;
use crate::model::path::RelPath;
use crate::model::problem::ProblemKind;
use crate::model::recipe::Recipe;
use crate::model::record::{Body, FileBody, Record};
use crate::model::stat::{Kind, Stat};

/// How long a file that changed while it was read is left alone.
const BUSY_PAUSE: Duration = Duration::from_millis(250);
/// Inode numbers up to here may be those of the root of a file system, which is the same on many: 2 on ext4, 128 on XFS,
/// 256 on Btrfs, 4096 on bcachefs.
const ROOT_INODES_MAX: u64 = 4096;
/// Files that are read at a time.
const HASHES_MAX: usize = 64;

impl<I: Index> Folder<I> {
    pub(super) fn handle_touched(&mut self, now: Now, paths: BTreeMap<RelPath, Depth>) {
        for (path, depth) in paths {
            self.debounce.handle_event(now.at, path, depth);
        }
    }

    pub(super) fn handle_watch_limited(&mut self, _now: Now, limited: bool) {
        self.scans.watch_limited = limited;
        if limited {
            self.report(None, ProblemKind::WatchLimit, "");
        } else {
            self.forget_problem(&(None, ProblemKind::WatchLimit));
        }
    }

    /// Looks at a path again as soon as it may be looked at.
    pub(super) fn look_again(&mut self, path: &RelPath, depth: Depth) {
        let known = self.scans.dirty.entry(path.clone()).or_insert(depth);
        *known = (*known).max(depth);
    }

    pub(super) fn handle_scan_item(&mut self, now: Now, job: JobId, item: ScanItem) -> Result<(), I::Error> {
        match item {
            ScanItem::Listing { dir, entries } => self.handle_listing(now, job, dir, entries),
            ScanItem::Path { path, found: Some(found) } => {
                if self.has_dir_above(now, &path, &found)? {
                    self.handle_found(now, job, path, found)
                } else {
                    Ok(())
                }
            }
            ScanItem::Path { path, found: None } => {
                if !self.may_believe(job, &path) || self.is_unmounted(&path)? {
                    return Ok(());
                }
                if self.scans.contested.remove(&path) {
                    self.look_again(&path, Depth::Entry);
                } else {
                    self.scans.gone.entry(job).or_default().insert(path);
                }
                Ok(())
            }
            ScanItem::Unlisted { dir, detail } => {
                self.report(dir.as_ref(), ProblemKind::Unreadable, detail);
                Ok(())
            }
        }
    }

    /// Nothing is recorded below what is no directory here: then one of the two was seen too early, and
    /// both are looked at once more.
    fn has_dir_above(&mut self, now: Now, path: &RelPath, found: &Found) -> Result<bool, I::Error> {
        match path.parent() {
            Some(parent) if *found != Found::Ignored && !self.is_dir_here(&parent)? => {
                self.debounce.handle_event(now.at, parent, Depth::Entry);
                self.debounce.handle_event(now.at, path.clone(), Depth::Tree);
                Ok(false)
            }
            _ => Ok(true),
        }
    }

    /// Compares a directory with what the index has of it; both are in the order of names.
    fn handle_listing(
        &mut self,
        now: Now,
        job: JobId,
        dir: Option<RelPath>,
        entries: Vec<(Box<[u8]>, Found)>,
    ) -> Result<(), I::Error> {
        if let Some(dir) = &dir
            && !self.is_dir_here(dir)?
        {
            // It was seen before or after what is recorded of it: what is in it has to wait.
            self.debounce.handle_event(now.at, dir.clone(), Depth::Tree);
            return Ok(());
        }
        let is_unmounted = dir.as_ref().is_some_and(|dir| self.scans.is_unmounted(dir));
        let known = self.index.children(dir.as_ref())?;
        if dir.is_none() {
            let there = entries.iter().filter_map(|(_, found)| match found {
                Found::Entry(stat) | Found::Symlink(stat, _) => Some(*stat),
                _ => None,
            });
            if let (Some(was), Some(is)) = (dev_of(known.iter().filter_map(|l| l.stat)), dev_of(there)) {
                self.recognise(was, is)?;
            }
        }
        let names: BTreeSet<&[u8]> = entries.iter().map(|(name, _)| &**name).collect();
        for local in known {
            let is_held = local.record.body.is_live() || local.ignored;
            if is_held && !is_unmounted && !names.contains(local.record.path.name()) {
                // A listing says it of many; each is asked for by name before it is believed.
                self.look_again(&local.record.path, Depth::Entry);
            }
        }
        for (name, found) in entries {
            match RelPath::child(dir.as_ref(), &name) {
                Ok(path) => self.handle_found(now, job, path, found)?,
                Err(error) => {
                    let name = crate::model::path::Escaped(&name).to_string();
                    self.report(dir.as_ref(), ProblemKind::Name, format!("{name}: {error}"));
                }
            }
        }
        Ok(())
    }

    /// Whether a finding still counts: nobody is at work at the path, and no commit touched it after
    /// the scan began. Else it is looked at again later.
    fn may_believe(&mut self, job: JobId, path: &RelPath) -> bool {
        let is_stale = self.scans.touched_by_us.get(path).is_some_and(|last| job <= *last);
        if is_stale || self.is_committing(path) || self.scans.hashing.contains_key(path) {
            self.look_again(path, Depth::Entry);
            return false;
        }
        true
    }

    /// Something lies at a path, and so its directories are there too. If another look found nothing
    /// there, or does so before it ends, which of the two was the later is not known: a third tells.
    pub(super) fn seen_here(&mut self, path: &RelPath, job: Option<JobId>) {
        if self.scans.gone_for_good.is_empty() && self.scans.gone.is_empty() && self.scans.looking.is_empty() {
            return;
        }
        let is_own = job.is_some() && job == self.scans.partial;
        for path in std::iter::once(path.clone()).chain(path.ancestors()) {
            let mut was_gone = self.scans.gone_for_good.remove(&path).is_some();
            for gone in self.scans.gone.values_mut() {
                was_gone |= gone.remove(&path);
            }
            if !is_own && self.scans.looking.contains(&path) {
                self.scans.contested.insert(path.clone());
            }
            if was_gone {
                self.look_again(&path, Depth::Entry);
            }
        }
    }

    fn handle_found(&mut self, now: Now, job: JobId, path: RelPath, found: Found) -> Result<(), I::Error> {
        if !self.may_believe(job, &path) {
            return Ok(());
        }
        self.seen_here(&path, Some(job));
        let before = self.index.local(&path)?;
        let is_dir = match &found {
            Found::Entry(stat) => stat.kind == Kind::Dir,
            _ => !matches!(found, Found::Symlink(..)),
        };
        let was_dir = before.as_ref().is_some_and(|l| l.record.body.is_dir() && !l.ignored);
        let may_be_old = self.scans.overlaps(job) || self.scans.was_touched_below(&path, job);
        if was_dir && !is_dir && may_be_old && self.index.has_live_below(&path)? {
            // All below would be gone: not on the word of a look that may be older than what is known.
            self.debounce.handle_event(now.at, path, Depth::Tree);
            return Ok(());
        }
        let was_queued = self.scans.to_hash.contains_key(&path);
        let was_away = self.scans.unmounted.contains_key(&path);
        self.take_in(now, path.clone(), before.clone(), found)?;
        if self.scans.overlaps(job) {
            let is_queued_now = !was_queued && self.scans.to_hash.contains_key(&path);
            let is_away_now = !was_away && self.scans.unmounted.contains_key(&path);
            if is_queued_now || is_away_now || self.index.local(&path)? != before {
                self.look_again(&path, Depth::Entry);
            }
        }
        Ok(())
    }

    /// Compares what lies at a path with what the index has of it.
    fn take_in(&mut self, now: Now, path: RelPath, local: Option<Local>, found: Found) -> Result<(), I::Error> {
        match found {
            Found::Ignored => self.handle_ignored(&path, local),
            Found::Special => {
                self.report(Some(&path), ProblemKind::Special, "");
                Ok(())
            }
            Found::Unreadable(detail) => {
                self.report(Some(&path), ProblemKind::Unreadable, detail);
                Ok(())
            }
            Found::Entry(stat) if stat.kind == Kind::Dir => self.handle_dir(now, path, local, stat),
            Found::Entry(stat) => self.handle_file(now, path, local, stat),
            Found::Symlink(stat, target) => {
                let body = Body::Symlink { target };
                self.handle_plain(now, path, local, stat, body)
            }
        }
    }

    fn handle_dir(&mut self, now: Now, path: RelPath, local: Option<Local>, stat: Stat) -> Result<(), I::Error> {
        let former = local.as_ref().and_then(|l| l.stat).filter(|s| s.kind == Kind::Dir);
        if let Some(former) = former.filter(|former| former.ino == stat.ino && stat.ino > ROOT_INODES_MAX) {
            // The same directory, so that its file system has another number now.
            self.recognise(former.dev, stat.dev)?;
            self.recognise_above(&path, former.dev, stat.dev)?;
        }
        let is_other = former.is_some_and(|former| !self.scans.is_same_file_system(former.dev, stat.dev));
        if is_other && self.index.has_live_below(&path)? {
            // Another file system lies here than before: what is not on it is not deleted.
            let found = Some(stat.dev);
            if self.scans.unmounted.insert(path.clone(), found) != Some(found) {
                // What lies in it tells whether it is the one that is missed, under another number.
                self.look_again(&path, Depth::Tree);
            }
            self.report(Some(&path), ProblemKind::MountChanged, "");
            return Ok(());
        }
        self.mounted_again(&path);
        self.handle_plain(now, path, local, stat, Body::Dir { mode: stat.mode })
    }

    /// A file system has another device number than before: so it is after some restarts, and when the
    /// whole folder was brought to another disk.
    fn recognise(&mut self, was: u64, is: u64) -> Result<(), I::Error> {
        if was == is || self.scans.renumbered.insert(was, is) == Some(is) {
            return Ok(());
        }
        for dir in self.scans.unmounted.keys().cloned().collect::<Vec<_>>() {
            if self.index.local(&dir)?.and_then(|l| l.stat).is_some_and(|stat| stat.dev == was) {
                self.mounted_again(&dir);
            }
        }
        Ok(())
    }

    /// What was seen on a file system of one number is where it was, on one of another: so that one is back at the
    /// directories above that lie on it.
    ///
    /// All that is known of what is in them gets the number at once. Were that left to the looks to come and a crash came
    /// between two of them, a directory that then goes would look as if it had been another file system.
    fn recognise_above(&mut self, path: &RelPath, was: u64, is: u64) -> Result<(), I::Error> {
        let is_there = |dir: &RelPath| self.scans.unmounted.get(dir) == Some(&Some(is));
        for dir in path.ancestors().filter(is_there).collect::<Vec<_>>() {
            let Some(local) = self.index.local(&dir)? else { continue };
            let was = [was, local.stat.map_or(was, |stat| stat.dev)];
            self.scans.renumbered.extend(was.map(|was| (was, is)));
            let mut below = vec![local];
            while let Some(local) = below.pop() {
                if local.record.body.is_dir() {
                    below.extend(self.index.children(Some(&local.record.path))?);
                }
                if let Some(stat) = local.stat.filter(|stat| was.contains(&stat.dev) && stat.dev != is) {
                    self.is_changed = true;
                    self.index.set_local(&Local { stat: Some(Stat { dev: is, ..stat }), ..local }, None)?;
                }
            }
            self.mounted_again(&dir);
        }
        Ok(())
    }

    /// The file system that was known here lies here again, or nothing depends on it any more.
    fn mounted_again(&mut self, path: &RelPath) {
        if self.scans.unmounted.remove(path).is_some() {
            self.look_again(path, Depth::Tree);
            self.sweep.begin_again();
        }
    }

    /// Whether a path that was not found may lie on a file system that is away. A directory that was
    /// the root of one and is gone with it counts as away, too: whoever unmounts may remove the empty
    /// directory as well.
    fn is_unmounted(&mut self, path: &RelPath) -> Result<bool, I::Error> {
        if self.scans.is_unmounted(path) {
            return Ok(true);
        }
        let Some(stat) = self.index.local(path)?.filter(|l| l.record.body.is_dir() && !l.ignored).and_then(|l| l.stat)
        else {
            return Ok(false);
        };
        let around = match path.parent() {
            Some(parent) => self.index.local(&parent)?.and_then(|l| l.stat),
            // The root is not in the index; a file in it lies on the root's own file system.
            None => self.index.children(None)?.iter().filter_map(|l| l.stat).find(|s| s.kind != Kind::Dir),
        };
        if around.is_none_or(|around| self.scans.is_same_file_system(stat.dev, around.dev))
            || !self.index.has_live_below(path)?
        {
            return Ok(false);
        }
        self.scans.unmounted.insert(path.clone(), None);
        self.report(Some(path), ProblemKind::MountChanged, "");
        Ok(true)
    }

    /// A directory or a symbolic link: all of it is seen at a look.
    fn handle_plain(
        &mut self,
        now: Now,
        path: RelPath,
        local: Option<Local>,
        stat: Stat,
        body: Body,
    ) -> Result<(), I::Error> {
        self.clear_problems(&path);
        self.scans.to_hash.remove(&path);
        let local = self.recall(local)?;
        match local {
            Some(local) if local.record.body == body => {
                // A directory's times change with what is in it and mean nothing; its inode may.
                // A link is replaced only if it is just what was seen last.
                let is_same = local.stat.is_some_and(|s| match local.record.body {
                    Body::Dir { .. } => (s.dev, s.ino) == (stat.dev, stat.ino),
                    _ => s == stat,
                });
                if !is_same {
                    self.is_changed = true;
                    self.index.set_local(&Local { stat: Some(stat), ..local }, None)?;
                }
                self.wake(&path)
            }
            _ => {
                if !body.is_dir() {
                    self.forget_below(now, &path)?;
                }
                self.record_change(now, path, body, Some(stat), None)
            }
        }
    }

    fn handle_file(&mut self, now: Now, path: RelPath, local: Option<Local>, stat: Stat) -> Result<(), I::Error> {
        self.clear_problems(&path);
        if let Some(former) = local.as_ref().and_then(|l| l.stat).filter(|s| Stat { dev: stat.dev, ..*s } == stat) {
            self.recognise(former.dev, stat.dev)?;
            self.recognise_above(&path, former.dev, stat.dev)?;
        }
        let local = self.recall(local)?;
        // On a file system that was given another number, what is otherwise the same need not be read again.
        let is_same = |known: Stat| {
            Stat { dev: stat.dev, ..known } == stat && self.scans.is_same_file_system(known.dev, stat.dev)
        };
        if let Some(local) = local.filter(|local| local.record.body.file().is_some() && local.stat.is_some_and(is_same))
        {
            self.scans.to_hash.remove(&path);
            if local.stat != Some(stat) {
                self.is_changed = true;
                self.index.set_local(&Local { stat: Some(stat), ..local }, None)?;
            }
            return self.wake(&path);
        }
        self.forget_below(now, &path)?;
        if let Some((former, recipe)) = self.find_moved(&stat)? {
            self.scans.to_hash.remove(&path);
            let body = Body::File(FileBody { mode: stat.mode, mtime_ns: stat.mtime_ns, ..former });
            return self.record_change(now, path, body, Some(stat), Some(&recipe));
        }
        self.look_at_links(&path, &stat)?;
        self.scans.hashes += 1;
        self.scans.to_hash.insert(path, (self.scans.hashes, stat));
        Ok(())
    }

    /// Finds the file under the name it had before, by its inode. Its change time must be the one that
    /// is known: then nobody wrote to it since it was read. (A rename of a directory above leaves it;
    /// a rename of the file itself does not, and such a file is read again.)
    fn find_moved(&self, stat: &Stat) -> Result<Option<(FileBody, Recipe)>, I::Error> {
        let names = self.index.by_inode(stat.dev, stat.ino, limits::LINKS_MAX)?;
        let Some(local) = names.into_iter().find(|local| local.stat == Some(*stat) && !local.ignored) else {
            return Ok(None);
        };
        let Some(file) = local.record.body.file() else { return Ok(None) };
        Ok(self.index.recipe(&local.record.path)?.map(|recipe| (*file, recipe)))
    }

    /// A file with several names changes under all of them, and the system tells of the one that was used.
    fn look_at_links(&mut self, path: &RelPath, stat: &Stat) -> Result<(), I::Error> {
        for other in self.index.by_inode(stat.dev, stat.ino, limits::LINKS_MAX)? {
            let other = other.record.path;
            if other != *path && !self.scans.is_reading(&other) {
                self.look_again(&other, Depth::Entry);
            }
        }
        Ok(())
    }

    pub(super) fn handle_hashed(&mut self, now: Now, path: RelPath, outcome: HashOutcome) -> Result<(), I::Error> {
        if self.scans.hashing.remove(&path).is_none() {
            return Ok(());
        }
        match outcome {
            HashOutcome::Done { stat, recipe } => {
                self.scans.hash_failures.remove(&path);
                self.clear_problems(&path);
                self.seen_here(&path, None);
                if !self.has_dir_above(now, &path, &Found::Entry(stat))? {
                    return Ok(());
                }
                let body = Body::File(FileBody {
                    mode: stat.mode,
                    mtime_ns: stat.mtime_ns,
                    size: recipe.size(),
                    content: recipe.content_id(),
                });
                self.record_change(now, path, body, Some(stat), Some(&recipe))
            }
            HashOutcome::Changed => {
                let failures = self.scans.hash_failures.entry(path.clone()).or_default();
                *failures += 1;
                let attempt = *failures;
                if attempt > limits::HASH_RETRIES_MAX {
                    self.report(Some(&path), ProblemKind::Busy, "");
                }
                let due = now.at + BUSY_PAUSE * attempt.min(20);
                self.retries.insert(path, Retry { due: Some(due), attempt, look: true });
                Ok(())
            }
            HashOutcome::Failed(detail) => {
                self.report(Some(&path), ProblemKind::Unreadable, detail);
                let due = now.at + Duration::from_secs(30);
                self.retries.insert(path, Retry { due: Some(due), attempt: 1, look: true });
                Ok(())
            }
        }
    }

    pub(super) fn handle_scan_end(&mut self, now: Now, job: JobId, end: ScanEnd) {
        let was_full = self.scans.full == Some(job);
        if was_full {
            self.scans.full = None;
            self.scans.is_overlapped.0 = false;
            self.scans.full_done_at = Some(now.at);
        }
        if self.scans.partial == Some(job) {
            self.scans.partial = None;
            self.scans.is_overlapped.1 = false;
            self.scans.contested.clear();
            // Whatever waited for the look can be decided now.
            self.ready.extend(std::mem::take(&mut self.scans.looking));
        }
        if self.scans.full.is_none() && self.scans.partial.is_none() {
            self.scans.touched_by_us.clear();
        }
        let gone = self.scans.gone.remove(&job).unwrap_or_default();
        match end {
            ScanEnd::Complete => {
                if self.scans.root_missing.take().is_some() {
                    self.forget_problem(&(None, ProblemKind::RootMissing));
                    self.scans.full_wanted = true;
                    self.sweep.begin_again();
                }
                let gone_now = Gone { since: now.at, last_reading: self.scans.hashes };
                self.scans.gone_for_good.extend(gone.into_iter().map(|path| (path, gone_now)));
                if was_full {
                    self.sweep.begin_again();
                }
            }
            ScanEnd::RootMissing(detail) => {
                self.scans.full_done_at = Some(now.at);
                self.report(None, ProblemKind::RootMissing, detail.clone());
                self.scans.root_missing = Some(detail);
            }
            ScanEnd::Cancelled => {}
        }
    }

    pub(super) fn pump_scans(&mut self, now: Now) -> Result<(), I::Error> {
        for (path, depth) in self.debounce.poll_settled(now.at) {
            self.look_again(&path, depth);
        }
        let is_due = |retry: &Retry| retry.due.is_some_and(|due| due <= now.at);
        let due: Vec<_> = self.retries.iter().filter(|(_, r)| is_due(r)).map(|(p, r)| (p.clone(), r.look)).collect();
        for (path, look) in due {
            if let Some(retry) = self.retries.get_mut(&path) {
                retry.due = None;
            }
            if look {
                self.look_again(&path, Depth::Entry);
            }
            self.ready.insert(path);
        }
        if self.scans.poll_timeout(self.params.rescan_interval).is_some_and(|due| due <= now.at) {
            self.scans.full_wanted = true;
        }
        if self.scans.unmounted_due().is_some_and(|due| due <= now.at) {
            self.scans.unmounted_sought = now.at;
            for dir in self.scans.unmounted.keys().cloned().collect::<Vec<_>>() {
                self.look_again(&dir, Depth::Entry);
            }
        }
        self.begin_scans();
        self.begin_hashes();
        self.believe_gone(now)
    }

    fn begin_scans(&mut self) {
        if self.scans.full_wanted && self.scans.full.is_none() {
            self.scans.full_wanted = false;
            let job = self.next_job();
            self.scans.full = Some(job);
            self.scans.note_overlap();
            self.outputs.push_back(Output::Scan(job, Scope::All));
        }
        if self.scans.partial.is_some() || self.scans.dirty.is_empty() || self.scans.root_missing.is_some() {
            return;
        }
        let busy = |path: &RelPath| self.is_committing(path) || self.scans.hashing.contains_key(path);
        let free: Vec<_> = self.scans.dirty.keys().filter(|path| !busy(path)).take(4096).cloned().collect();
        let mut paths: BTreeMap<_, _> =
            free.into_iter().filter_map(|path| self.scans.dirty.remove(&path).map(|depth| (path, depth))).collect();
        // Whether something is gone, or only the file system that it lies on, is seen by its directories.
        for dir in paths.keys().flat_map(RelPath::ancestors).collect::<BTreeSet<_>>() {
            paths.entry(dir).or_insert(Depth::Entry);
        }
        if !paths.is_empty() {
            let job = self.next_job();
            self.scans.partial = Some(job);
            self.scans.note_overlap();
            self.scans.looking = paths.keys().cloned().collect();
            self.outputs.push_back(Output::Scan(job, Scope::Paths(paths)));
        }
    }

    fn begin_hashes(&mut self) {
        let mut waiting = Vec::new();
        while self.scans.hashing.len() < HASHES_MAX {
            let Some((path, (number, stat))) = self.scans.to_hash.pop_first() else {
                break;
            };
            if self.is_committing(&path) {
                waiting.push((path, (number, stat)));
                continue;
            }
            self.outputs.push_back(Output::Hash(path.clone(), stat));
            self.scans.hashing.insert(path, (number, stat));
        }
        self.scans.to_hash.extend(waiting);
    }

    /// Records deletions, once it is clear that the paths did not only get other names: all that was
    /// being read when they were seen has been read, and nothing is being looked at.
    fn believe_gone(&mut self, now: Now) -> Result<(), I::Error> {
        if self.scans.gone_for_good.is_empty() || self.scans.root_missing.is_some() {
            return Ok(());
        }
        let first_reading = self.scans.first_reading().unwrap_or(u64::MAX);
        let is_resting = self.scans.is_resting() && self.debounce.is_empty();
        let pause = gone_pause(is_resting);
        let due: Vec<_> = self
            .scans
            .gone_for_good
            .iter()
            .filter(|(_, gone)| gone.last_reading < first_reading && gone.since + pause <= now.at)
            .filter(|(path, _)| !self.scans.is_looking_above(path))
            .map(|(p, _)| p.clone())
            .collect();
        for path in due {
            self.scans.gone_for_good.remove(&path);
            if self.scans.is_unmounted(&path) {
                continue;
            }
            if self.is_committing(&path) {
                self.look_again(&path, Depth::Entry);
                continue;
            }
            self.scans.to_hash.remove(&path);
            self.scans.hash_failures.remove(&path);
            self.clear_problems(&path);
            self.record_gone(now, &path)?;
        }
        Ok(())
    }

    /// Records that nothing lies at a path any more.
    fn record_gone(&mut self, now: Now, path: &RelPath) -> Result<(), I::Error> {
        // Also below what is not known to be a directory: it may have been one for just so long that
        // what is in it was seen, and it was not.
        self.forget_below(now, path)?;
        let Some(local) = self.index.local(path)? else {
            return self.wake(path);
        };
        if local.ignored {
            // It was removed while it was left out: nobody meant to remove it elsewhere.
            self.forget_ignored(local)
        } else if local.record.body.is_live() {
            self.record_change(now, path.clone(), Body::Tombstone, None, None)
        } else {
            self.wake(path)
        }
    }

    /// Records that all that lay below a directory is gone, the deepest first.
    pub(super) fn forget_below(&mut self, now: Now, dir: &RelPath) -> Result<(), I::Error> {
        for child in self.index.children(Some(dir))?.into_iter().rev() {
            if child.record.body.is_live() || child.ignored {
                self.record_gone(now, &child.record.path)?;
            }
        }
        Ok(())
    }

    /// Records what a person did at a path.
    ///
    /// Where a peer's record says just the same, to the nanosecond, no change is counted: most often it
    /// is our own commit, which a crash kept from the index.
    pub(super) fn record_change(
        &mut self,
        now: Now,
        path: RelPath,
        body: Body,
        stat: Option<Stat>,
        recipe: Option<&Recipe>,
    ) -> Result<(), I::Error> {
        let local = self.index.local(&path)?;
        if let Some(local) = &local
            && local.record.body == body
        {
            if local.stat != stat {
                self.is_changed = true;
                self.index.set_local(&Local { stat, ..local.clone() }, recipe)?;
            }
            return self.wake(&path);
        }
        for (peer, remote) in self.index.remotes(&path)? {
            // Of a peer that is not there the right is not known. What was taken from it was taken rightly.
            let may_not = self.peers.contains_key(&peer) && !self.may_take(&peer, local.as_ref(), &remote.record);
            if remote.record.is_withdrawn() || remote.record.body != body || may_not {
                continue;
            }
            // Only where taking it would have led to just this: else it is a person's change, which
            // must be counted.
            let (version, by, counts) = match reconcile(local.as_ref().map(|l| &l.record), &remote.record) {
                Ok(Verdict::Take) => (remote.record.version, remote.record.by, false),
                Ok(Verdict::Agree { version, by }) => (version, by, false),
                Ok(Verdict::Yield { version }) => (version, remote.record.by, true),
                _ => continue,
            };
            self.hold_target(now, Record { version, by, ..remote.record }, counts, stat, recipe)?;
            return self.wake(&path);
        }
        if let Some(local) = &local
            && self.is_half_taken(local, &body)?
        {
            self.is_changed = true;
            self.index.set_local(&Local { stat, ..local.clone() }, recipe)?;
            return self.wake(&path);
        }
        let version = local.map(|l| l.record.version).unwrap_or_default();
        let sequence = self.next_sequence()?;
        match version.after_change(self.author, sequence.0) {
            Ok(version) => {
                self.note(Note::Changed(path.clone(), body.clone()));
                let record = Record { path: path.clone(), version, by: self.tag, body };
                self.hold(now, record, sequence, stat, recipe)?;
                self.wake(&path)
            }
            Err(error) => {
                self.report(Some(&path), ProblemKind::Refused, error.to_string());
                Ok(())
            }
        }
    }

    /// Whether a file has mode and time each of what is held or of what a peer made of it since: then a
    /// crash fell between the two calls that set them, and it is nobody's change.
    fn is_half_taken(&self, local: &Local, body: &Body) -> Result<bool, I::Error> {
        let (Some(held), Some(file)) = (local.record.body.file(), body.file()) else {
            return Ok(false);
        };
        let remotes = self.index.remotes(&local.record.path)?;
        Ok(held.content == file.content
            && remotes.iter().any(|(_, remote)| {
                remote.record.body.file().is_some_and(|theirs| {
                    theirs.content == file.content
                        && (file.mode == held.mode || file.mode == theirs.mode)
                        && (file.mtime_ns == held.mtime_ns || file.mtime_ns == theirs.mtime_ns)
                }) && reconcile(Some(&local.record), &remote.record) == Ok(Verdict::Take)
            }))
    }

    /// Decides anew about a path, if a peer has something else there.
    fn wake(&mut self, path: &RelPath) -> Result<(), I::Error> {
        if self.tasks.contains_key(path) || !self.index.remotes(path)?.is_empty() {
            self.ready.insert(path.clone());
        }
        Ok(())
    }
}

/// Returns the device of the directory that holds these. Only a file tells: a directory may be the mount
/// point of a disk that is away, even if it is the only one.
fn dev_of(mut stats: impl Iterator<Item = Stat>) -> Option<u64> {
    stats.find(|stat| stat.kind != Kind::Dir).map(|stat| stat.dev)
}
