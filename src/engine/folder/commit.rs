//! The end of a task: what is complete goes into a commit, and what came of it into the index.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::engine::effect::{Action, CommitItem, CommitOutcome, Depth, Displaced, JobId};
use crate::engine::folder::take::{CopyPlace, LOCAL_PAUSE_MAX, Retry, Step, Task};
use crate::engine::folder::{Folder, Note, Now, Output};
use crate::engine::index::{Index, Kept, Local};
use crate::model::path::RelPath;
use crate::model::problem::ProblemKind;
use crate::model::recipe::Recipe;
use crate::model::record::{Body, FileBody, Record};
use crate::model::stat::Stat;

/// Items of one commit.
const COMMIT_ITEMS_MAX: usize = 1000;

impl<I: Index> Folder<I> {
    /// Puts all that is complete into one commit, if none is under way.
    pub(super) fn pump_commit(&mut self, now: Now) -> Result<(), I::Error> {
        if !self.committing.is_empty() || self.scans.root_missing.is_some() {
            return Ok(());
        }
        let is_ready = |task: &Task| matches!(task.step, Step::Ready(_));
        self.complete.retain(|path| self.tasks.get(path).is_some_and(is_ready));
        debug_assert_eq!(self.complete.len(), self.tasks.values().filter(|task| is_ready(task)).count());
        let paths: Vec<_> = self.complete.iter().cloned().collect();
        let mut taken = BTreeSet::new();
        let (mut items, mut removals) = (Vec::new(), Vec::new());
        for path in paths {
            // What is about to be looked at is not changed before: else one mismatch follows another, and
            // the look never counts.
            if items.len() + removals.len() >= COMMIT_ITEMS_MAX
                || self.scans.is_reading(&path)
                || self.scans.is_looking_at(&path)
            {
                continue;
            }
            let local = self.index.local(&path)?;
            if !self.is_up_to_date(&path, local.as_ref())? {
                self.cancel(&path);
                self.ready.insert(path);
                continue;
            }
            let dir_dev = match path.parent() {
                Some(parent) => self.index.local(&parent)?.and_then(|parent| parent.stat).map(|stat| stat.dev),
                None => None,
            };
            let here = local.as_ref().and_then(|local| local.record.body.file());
            if here.is_some_and(|file| self.is_being_copied(file.content, &path)) {
                continue;
            }
            let is_removal = self.tasks.get(&path).is_some_and(|task| !task.target.body.is_live());
            if !is_removal
                && let Some(parent) = path.parent()
                && !taken.contains(&parent)
                && !self.is_dir_here(&parent)?
            {
                if !self.tasks.contains_key(&parent) {
                    // Its parent went away meanwhile: decide anew.
                    self.cancel(&path);
                    self.put_off(now, &path, false, LOCAL_PAUSE_MAX);
                }
                continue;
            }
            let by = self.tag;
            // A copy of the same may have come from a peer since this was decided, or be gone.
            let copy = match &local {
                Some(local) if self.tasks.get(&path).is_some_and(|task| task.loses(local)) => {
                    match self.copy_path(local)? {
                        CopyPlace::At(copy) => Some(copy),
                        CopyPlace::Needless => None,
                        // What would be relied on is about to be looked at.
                        CopyPlace::Unsure => continue,
                    }
                }
                _ => None,
            };
            if let Some((copy, there)) = copy.as_ref().and_then(|copy| Some((copy, self.tasks.get(copy)?))) {
                if !matches!(there.step, Step::Waiting) {
                    continue;
                }
                // It may wait for just this.
                self.cancel(copy);
                self.ready.insert(copy.clone());
            }
            let Some(task) = self.tasks.get_mut(&path) else {
                continue;
            };
            task.copy = copy;
            let Step::Ready(action) = std::mem::replace(&mut task.step, Step::Assembling) else {
                continue;
            };
            task.step = Step::Committing(action.clone());
            let displaced = match (&task.copy, &action) {
                (Some(copy), _) => Displaced::Copy(copy.clone()),
                (None, _) => Displaced::History,
            };
            let item = CommitItem { path: path.clone(), expect: task.expect, action, displaced, by, dir_dev };
            if is_removal {
                removals.push(item)
            } else {
                items.push(item)
            }
            taken.insert(path);
        }
        items.extend(removals.into_iter().rev());
        if items.is_empty() {
            return Ok(());
        }
        // In the order of items, so that outcomes can be told apart; and what is moved is held as well.
        self.committing = taken.into_iter().collect();
        for item in &items {
            if let Action::Move { from, .. } = &item.action {
                self.committing.push(from.clone());
            }
        }
        self.committing.sort();
        self.commit_order = items.iter().map(|item| item.path.clone()).collect();
        self.outputs.push_back(Output::Commit(items));
        Ok(())
    }

    /// Whether our records at the paths that a task changes are still those that it was decided by.
    fn is_up_to_date(&self, path: &RelPath, local: Option<&Local>) -> Result<bool, I::Error> {
        let Some(task) = self.tasks.get(path) else {
            return Ok(false);
        };
        if let Step::Ready(Action::Move { from, .. }) = &task.step {
            let there = self.index.local(from)?;
            if !self.tasks.get(from).is_some_and(|removal| removal.is_based_on(there.as_ref())) {
                return Ok(false);
            }
        }
        Ok(task.is_based_on(local))
    }

    pub(super) fn handle_committed(&mut self, now: Now, outcomes: Vec<CommitOutcome>) -> Result<(), I::Error> {
        let last_job = JobId(self.jobs);
        for path in std::mem::take(&mut self.committing) {
            self.scans.committed(&path, last_job);
        }
        for (path, outcome) in std::mem::take(&mut self.commit_order).into_iter().zip(outcomes) {
            let Some(task) = self.tasks.remove(&path) else {
                continue;
            };
            let Step::Committing(action) = &task.step else {
                continue;
            };
            let action = action.clone();
            self.release_stage(&task.stage);
            self.handle_outcome(now, path, task, action, outcome)?;
        }
        self.unblock();
        Ok(())
    }

    fn handle_outcome(
        &mut self,
        now: Now,
        path: RelPath,
        task: Task,
        action: Action,
        outcome: CommitOutcome,
    ) -> Result<(), I::Error> {
        let moved_from = match &action {
            Action::Move { from, .. } => self.tasks.remove(from).map(|removal| (from.clone(), removal)),
            _ => None,
        };
        if let (Some((from, _)), false) = (&moved_from, matches!(outcome, CommitOutcome::Done { .. })) {
            self.look_again(from, Depth::Entry);
            self.ready.insert(from.clone());
        }
        match outcome {
            CommitOutcome::Done { stat, kept, aside, unseen } => {
                self.clear_problems(&path);
                self.retries.remove(&path);
                let before = self.index.local(&path)?;
                // Where its directory went away, or was never recorded, this is not recorded either: what lies
                // below no directory is found by no listing, and would be believed to be there for ever.
                let parent = path.parent().filter(|_| stat.is_some());
                let lacks_dir = match &parent {
                    Some(parent) => !self.is_dir_here(parent)?,
                    None => false,
                };
                if let Some((copy, copy_stat)) = aside {
                    self.note(Note::Conflict { path: path.clone(), copy: copy.clone() });
                    // A look that is under way may have been there before the copy was.
                    self.scans.committed(&copy, JobId(self.jobs));
                    self.hold_copy(now, before.as_ref(), copy, copy_stat, unseen || lacks_dir)?;
                }
                if let (Some(file), Some(before)) = (kept, &before) {
                    self.keep(now, before, file)?;
                }
                let mut task = task;
                if let Some((from, removal)) = moved_from {
                    task.recipe = self.index.recipe(&from)?;
                    self.finish(now, Task { recipe: task.recipe.clone(), ..removal }, None)?;
                }
                if let (Some(parent), true) = (parent, lacks_dir) {
                    self.look_again(&parent, Depth::Entry);
                    self.look_again(&path, Depth::Tree);
                    self.ready.insert(path);
                    return Ok(());
                }
                if before.is_some_and(|local| local.record.body.is_dir()) && !task.target.body.is_dir() {
                    // What was seen in it since this was ordered had left it again, for it was empty.
                    self.forget_below(now, &path)?;
                }
                if stat.is_some() {
                    // So its directories are there, whatever a look before said.
                    self.seen_here(&path, None);
                }
                self.finish(now, task, stat)?;
                Ok(())
            }
            CommitOutcome::Mismatch => {
                // A person was here first. The scan will find it, and then there is a new decision.
                self.discard_staged(&action);
                self.look_again(&path, Depth::Entry);
                self.ready.insert(path);
                Ok(())
            }
            CommitOutcome::NotEmpty => {
                self.discard_staged(&action);
                let known = self.index.has_live_below(&path)?;
                let attempts = self.retries.get(&path).map_or(0, |retry| retry.attempt);
                if !known && attempts > 0 {
                    // Only what the rules leave out lies there: it is not ours to remove.
                    self.retries.remove(&path);
                    return self.assert_dir(now, &path);
                }
                self.look_again(&path, Depth::Tree);
                self.retries
                    .insert(path, Retry { due: Some(now.at + Duration::from_millis(200)), attempt: 1, look: true });
                Ok(())
            }
            CommitOutcome::NoParent | CommitOutcome::OtherFileSystem => {
                self.discard_staged(&action);
                if let Some(parent) = path.parent() {
                    // The look tells whether it is gone, or its file system is away or has another number now.
                    self.look_again(&parent, Depth::Entry);
                }
                self.put_off(now, &path, true, LOCAL_PAUSE_MAX);
                Ok(())
            }
            CommitOutcome::Failed(kind, detail) => {
                self.report(Some(&path), kind, detail);
                self.put_off(now, &path, true, LOCAL_PAUSE_MAX);
                Ok(())
            }
        }
    }

    fn discard_staged(&mut self, action: &Action) {
        if let Action::Place { stage, .. } = action {
            self.outputs.push_back(Output::Discard(*stage));
        }
    }

    /// Records a conflict copy before the version that has seen what it is a copy of, so that no peer
    /// can learn of that version without the copy.
    fn hold_copy(
        &mut self,
        now: Now,
        before: Option<&Local>,
        copy: RelPath,
        stat: Stat,
        unseen: bool,
    ) -> Result<(), I::Error> {
        let Some(before) = before.filter(|_| !unseen) else {
            self.look_again(&copy, Depth::Entry);
            return Ok(());
        };
        let recipe = self.index.recipe(&before.record.path)?;
        let body = match &before.record.body {
            Body::File(file) => Body::File(FileBody { mode: stat.mode, mtime_ns: stat.mtime_ns, ..*file }),
            body => body.clone(),
        };
        self.record_change(now, copy, body, Some(stat), recipe.as_ref())
    }

    fn keep(&mut self, now: Now, before: &Local, file: String) -> Result<(), I::Error> {
        let record = &before.record;
        self.is_changed = true;
        self.index.add_kept(&Kept {
            path: record.path.clone(),
            body: record.body.clone(),
            by: record.by,
            since_ns: before.since_ns,
            until_ns: now.wall_ns,
            file: Some(file),
        })
    }

    /// The disk holds the target durably: the index learns of it.
    fn finish(&mut self, now: Now, task: Task, stat: Option<Stat>) -> Result<(), I::Error> {
        let record = task.target;
        // What the file system made of mode and time is what is held; where it keeps less than was
        // asked for, that must not look like an edit.
        let path = record.path.clone();
        if task.heals {
            self.verify.note_healed();
            self.note(Note::Healed(path.clone()));
        } else {
            self.note(Note::Took(path.clone(), record.body.clone(), record.by));
        }
        let recipe = task.recipe.filter(|_| record.body.file().is_some());
        if self.hold_target(now, record, task.counts, stat, recipe.as_ref())? {
            self.ready.insert(path);
        }
        Ok(())
    }

    /// Writes a record that peers led to, and counts it where it is a change of our own. Returns whether a
    /// peer holds something there that this record has not seen.
    pub(super) fn hold_target(
        &mut self,
        now: Now,
        mut record: Record,
        counts: bool,
        stat: Option<Stat>,
        recipe: Option<&Recipe>,
    ) -> Result<bool, I::Error> {
        let sequence = self.next_sequence()?;
        if counts {
            match record.version.after_change(self.author, sequence.0) {
                Ok(version) => record.version = version,
                Err(error) => {
                    self.report(Some(&record.path), ProblemKind::Refused, error.to_string());
                    return Ok(false);
                }
            }
        }
        self.hold(now, record, sequence, stat, recipe)
    }
}
