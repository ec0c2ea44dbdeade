//! Where the brake takes hold: which changes of peers it judges, what is held, and what a person says to it.

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use crate::engine::brake::{Candidate, HeldCounts, LivesOn, PATIENCE, Ruling, Standing, Waiting};
use crate::engine::folder::take::Decision;
use crate::engine::folder::{Folder, Note, Now};
use crate::engine::index::{Index, Local, Remote};
use crate::engine::reconcile::{Verdict, reconcile};
use crate::model::id::{ContentId, DeviceId, DeviceTag};
use crate::model::path::RelPath;
use crate::model::problem::ProblemKind;
use crate::model::record::{Body, Record};

/// Files with the same first chunk among which one with the same content is looked for.
const HOLDERS_MAX: usize = 1024;
/// Paths that are read from the index at a time.
const WALK_STEP: usize = 256;

/// What is held of one peer.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct HeldBy {
    /// Whose changes they are, or who passed them on.
    pub peer: DeviceId,
    /// How many.
    pub counts: HeldCounts,
    /// Some of the files, in order, and whether each would be deleted.
    pub files: Vec<(RelPath, bool)>,
}

/// Returns whether a file lies here that would be gone, or would have another content.
fn would_destroy(local: Option<&Local>, target: &Body) -> bool {
    let Some(local) = local.filter(|local| !local.ignored && !local.record.body.is_same_content(target)) else {
        return false;
    };
    match &local.record.body {
        // Of an empty file nothing is lost.
        Body::File(file) => file.size > 0,
        Body::Symlink { .. } => true,
        Body::Dir { .. } | Body::Tombstone => false,
    }
}

fn is_taken(local: Option<&Local>, remote: &Remote) -> bool {
    reconcile(local.map(|local| &local.record), &remote.record) == Ok(Verdict::Take)
}

impl<I: Index> Folder<I> {
    /// Stores what a peer holds at a path, or forgets it, and keeps count of what is held.
    pub(super) fn put_remote(
        &mut self,
        peer: &DeviceId,
        path: &RelPath,
        remote: Option<&Remote>,
    ) -> Result<(), I::Error> {
        let is_held = remote.is_some_and(|remote| remote.standing.is_held());
        self.note_apart(peer, path, remote)?;
        if is_held || !self.brake.held().is_empty() {
            let before = self.index.remote(peer, path)?;
            let facts = |remote: &Remote| (remote.standing, remote.record.body.is_live());
            self.brake.stand(peer, before.as_ref().map(facts), remote.map(facts));
            if !is_held
                && before.is_some_and(|before| before.standing.is_held())
                && let Some(parent) = path.parent()
            {
                // It may have been the last for which the directory was kept.
                self.ready.insert(parent);
            }
        }
        self.index.set_remote(peer, path, remote)
    }

    /// Returns whether a change that a peer would have us take may be taken now. If not, it is held, or
    /// waits to be judged and is decided about again after that.
    pub(super) fn passes_brake(
        &mut self,
        now: Now,
        path: &RelPath,
        best: &Remote,
        providers: &BTreeSet<DeviceId>,
        local: Option<&Local>,
    ) -> Result<bool, I::Error> {
        if !self.brake.is_on() {
            return Ok(true);
        }
        if best.standing == Standing::HeldDir && local.is_some_and(|local| local.record.body.is_dir()) {
            return Ok(!self.is_held_below(path)?);
        }
        let Some(local) = local.filter(|local| would_destroy(Some(local), &best.record.body)) else {
            return Ok(true);
        };
        match best.standing {
            Standing::Cleared => Ok(true),
            Standing::Held | Standing::HeldDir => Ok(false),
            Standing::Open | Standing::Apart => {
                let is_its_own = providers.iter().any(|peer| DeviceTag::of(peer) == local.record.by);
                if is_its_own && self.brake.is_young(path, local.since_ns, now.wall_ns) {
                    return Ok(true);
                }
                let peers = providers.iter().copied().collect();
                self.brake.wait(path, Waiting { since: now.at, is_gone: !best.record.body.is_live(), peers });
                Ok(false)
            }
        }
    }

    fn is_held_below(&self, dir: &RelPath) -> Result<bool, I::Error> {
        let mut after = dir.clone();
        loop {
            let paths = self.index.remote_paths(Some(&after), WALK_STEP)?;
            for path in paths.iter().take_while(|path| path.is_below(dir)) {
                if self.index.remotes(path)?.iter().any(|(_, remote)| remote.standing.is_held()) {
                    return Ok(true);
                }
            }
            match paths.last() {
                Some(last) if last.is_below(dir) => after = last.clone(),
                _ => return Ok(false),
            }
        }
    }

    /// Judges the changes that wait for it, once no more of them come. Returns whether there is something
    /// to decide about for that.
    pub(super) fn pump_brake(&mut self, now: Now) -> Result<bool, I::Error> {
        if !self.brake.waits() {
            return Ok(false);
        }
        let is_full = self.brake.is_full();
        let is_resting = self.ready.is_empty() && self.sweep.is_resting();
        let patience_ends = self.brake.patience_ends();
        if !is_resting && !is_full && patience_ends.is_none_or(|at| at > now.at) {
            self.brake.due = patience_ends;
            return Ok(false);
        }
        let totals = self.index.totals()?;
        let all = totals.files + totals.symlinks;
        let judge_at = [false, true].map(|is_gone| self.brake.judge_at(now.at, is_gone, all));
        let mut due = Vec::new();
        for (path, waiting) in self.brake.take_waiting() {
            let more_comes = waiting.peers.iter().all(|peer| self.peers.get(peer).is_some_and(|peer| peer.more_comes));
            let is_time = judge_at[usize::from(waiting.is_gone)].is_some_and(|at| at <= now.at);
            // A deletion is in no hurry, and waits for all that could copy from it as well.
            let is_patient = waiting.is_gone || waiting.since + PATIENCE > now.at;
            if !is_full && is_patient && (more_comes || !is_resting || !is_time) {
                self.brake.wait_on(path, waiting);
            } else {
                due.push(path);
            }
        }
        let later = judge_at.into_iter().flatten().filter(|at| *at > now.at);
        self.brake.due = later.chain(self.brake.patience_ends()).min();
        self.judge(now, due)
    }

    fn judge(&mut self, now: Now, paths: Vec<RelPath>) -> Result<bool, I::Error> {
        let mut found = Vec::with_capacity(paths.len());
        for path in paths {
            // Who is gone tells it again when it is back.
            let local = self.index.local(&path)?;
            let Some((best, providers)) = self.best_remote(&path, local.as_ref())? else {
                continue;
            };
            match local {
                Some(local) if is_taken(Some(&local), &best) && would_destroy(Some(&local), &best.record.body) => {
                    found.push((local, best, providers));
                }
                _ => drop(self.ready.insert(path)),
            }
        }
        let of_file = |record: &Record| record.body.file().map(|file| (file.content, record.path.clone()));
        let coming: BTreeMap<_, _> = found.iter().filter_map(|(_, best, _)| of_file(&best.record)).collect();
        let under_way: BTreeMap<_, _> = self.tasks.values().filter_map(|task| of_file(&task.target)).collect();
        let mut known = BTreeMap::new();
        let mut candidates = Vec::with_capacity(found.len());
        let mut heirs = Vec::with_capacity(found.len());
        for (local, best, providers) in &found {
            let content = local.record.body.file().map(|file| file.content);
            let there = match content {
                Some(content) if under_way.contains_key(&content) => under_way.get(&content).cloned(),
                Some(content) => match known.get(&content) {
                    Some(known) => Option::clone(known),
                    None => {
                        let there = self.find_other(local, content)?;
                        known.insert(content, there.clone());
                        there
                    }
                },
                None => None,
            };
            let comes = content.and_then(|content| coming.get(&content).cloned());
            let lives_on = match (&there, &comes) {
                (Some(_), _) => LivesOn::There,
                (None, Some(_)) => LivesOn::Coming,
                (None, None) => LivesOn::No,
            };
            heirs.push(there.or(comes));
            let (path, is_gone) = (best.record.path.clone(), !best.record.body.is_live());
            candidates.push(Candidate { path, peers: providers.iter().copied().collect(), is_gone, lives_on });
        }
        let totals = self.index.totals()?;
        let all = totals.files + totals.symlinks;
        let rulings = self.brake.judge(now.at, now.wall_ns, all, &candidates);
        let before = self.brake.held().clone();
        for (((_, best, _), heir), ruling) in found.into_iter().zip(heirs).zip(rulings) {
            match ruling {
                Ruling::Hold => {
                    self.forget_content(&best.record.path);
                    self.set_standing(&best, Standing::Held)?;
                }
                Ruling::Clear => {
                    if let Some(heir) = heir {
                        self.brake.inherit(&heir);
                    }
                    self.set_standing(&best, Standing::Cleared)?;
                    self.ready.insert(best.record.path);
                }
            }
        }
        let held: Vec<_> = self.brake.held().iter().map(|(peer, counts)| (*peer, *counts)).collect();
        for (peer, counts) in held {
            if counts.files() > before.get(&peer).map_or(0, HeldCounts::files) {
                self.note(Note::Held { peer, counts });
            }
        }
        Ok(!self.ready.is_empty())
    }

    /// Finds another file with the same content that stays as it is.
    fn find_other(&self, local: &Local, content: ContentId) -> Result<Option<RelPath>, I::Error> {
        let recipe = self.index.recipe(&local.record.path)?;
        let Some(first) = recipe.as_ref().and_then(|recipe| recipe.chunks().first()) else {
            return Ok(None);
        };
        for path in self.index.holders_of(&first.id, HOLDERS_MAX)? {
            if path == local.record.path {
                continue;
            }
            let Some(other) = self.index.local(&path)?.filter(|other| !other.ignored) else {
                continue;
            };
            if other.record.body.file().is_none_or(|file| file.content != content) {
                continue;
            }
            let stays = match self.best_remote(&path, Some(&other))? {
                Some((best, _)) => !is_taken(Some(&other), &best) || !would_destroy(Some(&other), &best.record.body),
                None => true,
            };
            if stays {
                return Ok(Some(path));
            }
        }
        Ok(None)
    }

    /// Notes where a change stands, with one of the peers that hold just that: its author if it is there.
    pub(super) fn set_standing(&mut self, best: &Remote, standing: Standing) -> Result<(), I::Error> {
        let path = &best.record.path;
        let mut rows = self.index.remotes(path)?;
        rows.retain(|(peer, row)| row.record.version == best.record.version && self.peers.contains_key(peer));
        let author = rows.iter().position(|(peer, _)| DeviceTag::of(peer) == best.record.by);
        if let Some((peer, row)) = rows.into_iter().nth(author.unwrap_or(0)) {
            self.is_changed = true;
            self.put_remote(&peer, path, Some(&Remote { standing, ..row }))?;
        }
        Ok(())
    }

    /// A peer removed a directory, or made something else of it, in which something lies that it did
    /// not know. If that is not on its way out as well, the directory stays, and everybody learns it.
    pub(super) fn keep_dir(&mut self, now: Now, dir: &RelPath) -> Result<Decision, I::Error> {
        let tasks_below = self.tasks.range(dir.clone()..).take(2).any(|(path, _)| path.is_below(dir));
        if tasks_below || self.scans.is_reading_below(dir) || !self.committing.is_empty() {
            return Ok(Decision::Blocked);
        }
        let mut after = dir.clone();
        loop {
            let mut paths = self.index.remote_paths(Some(&after), 64)?;
            paths.retain(|path| path.is_below(dir));
            if paths.is_empty() {
                break;
            }
            for path in paths {
                let local = self.index.local(&path)?;
                if let Some((best, _)) = self.best_remote(&path, local.as_ref())?
                    && reconcile(local.as_ref().map(|l| &l.record), &best.record) != Ok(Verdict::Stay)
                    && !local.is_some_and(|l| l.ignored)
                {
                    if best.standing.is_held() && self.brake.is_on() {
                        return self.hold_dir(dir);
                    }
                    return Ok(Decision::Blocked);
                }
                after = path;
            }
        }
        self.sweep.removals.remove(dir);
        self.assert_dir(now, dir)?;
        Ok(Decision::Settled)
    }

    /// A directory in which something is held is held itself.
    fn hold_dir(&mut self, dir: &RelPath) -> Result<Decision, I::Error> {
        self.sweep.removals.remove(dir);
        let local = self.index.local(dir)?;
        if let Some((best, _)) = self.best_remote(dir, local.as_ref())?
            && best.standing != Standing::HeldDir
        {
            self.set_standing(&best, Standing::HeldDir)?;
        }
        Ok(Decision::Settled)
    }

    /// Records a directory as changed by us, without having seen what peers made of it: it wins, and
    /// they put aside or bring back what they have there.
    pub(super) fn assert_dir(&mut self, now: Now, dir: &RelPath) -> Result<(), I::Error> {
        let Some(local) = self.index.local(dir)? else {
            return Ok(());
        };
        let sequence = self.next_sequence()?;
        if let Ok(version) = local.record.version.after_change(self.author, sequence.0) {
            let record = Record { version, by: self.tag, ..local.record };
            self.hold(now, record, sequence, local.stat, None)?;
        }
        Ok(())
    }

    /// Lets go what is held. What peers do after that is judged anew. Returns how much it was.
    ///
    /// # Errors
    /// The index failed.
    pub fn release_held(&mut self) -> Result<HeldCounts, I::Error> {
        let released = self.held_in_all();
        let mut after = None;
        while let Some(rows) = self.next_held(&mut after)? {
            for (peer, row) in rows {
                let cleared = Remote { standing: Standing::Cleared, ..row };
                self.put_remote(&peer, &cleared.record.path, Some(&cleared))?;
            }
        }
        self.brake.begin_anew();
        self.is_changed = true;
        self.sweep.begin_again();
        Ok(released)
    }

    /// Makes what lies here the answer to what is held: a newer change, which the peers take back.
    /// Returns how much it was.
    ///
    /// # Errors
    /// The index failed.
    pub fn reject_held(&mut self, now: Now) -> Result<HeldCounts, I::Error> {
        let rejected = self.held_in_all();
        let mut after = None;
        while let Some(rows) = self.next_held(&mut after)? {
            let Some((_, first)) = rows.first() else {
                continue;
            };
            let path = first.record.path.clone();
            let local = self.index.local(&path)?;
            let taken = rows.iter().filter(|(_, row)| is_taken(local.as_ref(), row));
            let versions: Vec<_> = taken.map(|(_, row)| row.record.version.clone()).collect();
            for (peer, row) in &rows {
                self.put_remote(peer, &path, Some(&Remote { standing: Standing::Open, ..row.clone() }))?;
            }
            let Some(local) = local.filter(|local| local.record.body.is_live() && !versions.is_empty()) else {
                continue;
            };
            let sequence = self.next_sequence()?;
            let seen = versions.iter().try_fold(local.record.version.clone(), |seen, version| seen.merge(version));
            match seen.and_then(|seen| seen.after_change(self.author, sequence.0)) {
                Ok(version) => {
                    let record = Record { version, by: self.tag, ..local.record };
                    self.hold(now, record, sequence, local.stat, None)?;
                }
                Err(error) => self.report(Some(&path), ProblemKind::Refused, error.to_string()),
            }
        }
        self.is_changed = true;
        self.sweep.begin_again();
        Ok(rejected)
    }

    /// Returns what is held, with up to `limit` names for each peer.
    ///
    /// # Errors
    /// The index failed.
    pub fn list_held(&self, limit: usize) -> Result<Vec<HeldBy>, I::Error> {
        let by = |(peer, counts): (&DeviceId, &HeldCounts)| HeldBy { peer: *peer, counts: *counts, files: Vec::new() };
        let mut held: Vec<_> = self.brake.held().iter().map(by).collect();
        let lacks = |by: &HeldBy| (by.files.len() as u64) < by.counts.files().min(limit as u64);
        let mut after = None;
        while held.iter().any(lacks) {
            let Some(rows) = self.next_held(&mut after)? else {
                break;
            };
            for (peer, row) in rows.into_iter().filter(|(_, row)| row.standing == Standing::Held) {
                if let Some(by) = held.iter_mut().find(|by| by.peer == peer && by.files.len() < limit) {
                    let is_gone = !row.record.body.is_live();
                    by.files.push((row.record.path, is_gone));
                }
            }
        }
        Ok(held)
    }

    fn held_in_all(&self) -> HeldCounts {
        self.brake.held().values().fold(HeldCounts::default(), |sum, counts| HeldCounts {
            deleted: sum.deleted + counts.deleted,
            rewritten: sum.rewritten + counts.rewritten,
            dirs: sum.dirs + counts.dirs,
        })
    }

    /// Returns what is held at the next paths after `after`, where a step of the walk finds some.
    fn next_held(&self, after: &mut Option<RelPath>) -> Result<Option<Vec<(DeviceId, Remote)>>, I::Error> {
        loop {
            let paths = self.index.remote_paths(after.as_ref(), WALK_STEP)?;
            if paths.is_empty() {
                return Ok(None);
            }
            for path in paths {
                let mut rows = self.index.remotes(&path)?;
                rows.retain(|(_, row)| row.standing.is_held());
                *after = Some(path);
                if !rows.is_empty() {
                    return Ok(Some(rows));
                }
            }
        }
    }
}
