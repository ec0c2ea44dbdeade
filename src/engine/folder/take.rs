//! Taking what peers have: from a verdict to a commit.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::time::Duration;

use crate::engine::brake::Standing;
use crate::engine::conflict;
use crate::engine::effect::{Action, Depth, Expect, PartedSide, Parting, StageId};
use crate::engine::folder::content::Stage;
use crate::engine::folder::{Folder, Now, Output};
use crate::engine::index::{Index, Local, Remote};
use crate::engine::reconcile::{Verdict, reconcile};
use crate::model::id::{ContentId, DeviceId, PageId};
use crate::model::limits;
use crate::model::path::RelPath;
use crate::model::problem::ProblemKind;
use crate::model::recipe::{ChunkRef, PageRef, Recipe};
use crate::model::record::{Body, Record};
use crate::model::version::{Causality, VersionVector};

/// Chunks that the recipes of all tasks may have together before no large file is begun.
const TASK_CHUNKS_MAX: usize = 1 << 17;
/// Numbered names that the index is asked for until one is free for a conflict copy.
pub(super) const COPIES_MAX: u32 = 1000;
/// Longest pause before the disk is tried again with a path.
pub(super) const LOCAL_PAUSE_MAX: Duration = Duration::from_secs(300);
/// Longest pause before peers are asked again for a content that they did not have; news of the path
/// and new peers end it.
pub(super) const PEER_PAUSE_MAX: Duration = Duration::from_secs(3600);

/// Tells a task from all others, also from an earlier one for the same path and content.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct TaskId(u64);

/// A path on its way to what a peer has there.
#[derive(Debug)]
pub(super) struct Task {
    /// Answers count only for the task that asked.
    pub(super) id: TaskId,
    /// What is to be held afterwards.
    pub(super) target: Record,
    /// Whether that is a change of our own, which is counted once it is made.
    pub(super) counts: bool,
    /// The peers' version that this answers; empty where it is a change of our own.
    pub(super) answers: VersionVector,
    /// Our version when this was decided.
    pub(super) base: VersionVector,
    /// What must lie there until then.
    pub(super) expect: Expect,
    /// Where our own, losing version goes.
    pub(super) copy: Option<RelPath>,
    /// Who has the content, and will be asked for it.
    pub(super) providers: BTreeSet<DeviceId>,
    pub(super) recipe: Option<Recipe>,
    pub(super) stage: StageId,
    pub(super) step: Step,
    /// Whether it only mends a damaged file.
    pub(super) heals: bool,
}

/// How far a task has come.
#[derive(Debug)]
pub(super) enum Step {
    /// The root of the recipe is to be asked for, or was.
    Root { asked: bool },
    /// Pages of the recipe are to be asked for, or were.
    Pages { root: Vec<PageRef>, have: BTreeMap<PageId, Vec<ChunkRef>>, asked: bool },
    /// What it is to be copied from is just being moved.
    Waiting,
    /// What lies here is being put together.
    Assembling,
    /// Chunks are fetched and staged.
    Chunks {
        /// Not yet asked for; the next one last.
        todo: Vec<u32>,
        /// Asked for, not yet arrived.
        asked: BTreeSet<u32>,
        /// Arrived, not yet staged.
        staging: BTreeSet<u32>,
    },
    /// Complete: waits for a commit.
    Ready(Action),
    /// In the commit that is under way.
    Committing(Action),
}

/// When a path is tried again.
#[derive(Clone, Copy, Debug)]
pub(super) struct Retry {
    /// `None` once it was begun again; the attempts are remembered until it succeeds.
    pub(super) due: Option<Duration>,
    pub(super) attempt: u32,
    /// Whether the disk is to be looked at, not only the peers.
    pub(super) look: bool,
}

/// A walk over all paths at which peers have something else.
#[derive(Debug, Default)]
pub(super) struct Sweep {
    /// Where the walk stands; `None` while it rests.
    at: Option<Option<RelPath>>,
    /// Whether to begin again after the end.
    again: bool,
    /// Whether this walk, or the last, met paths that could not be taken yet.
    blocked: bool,
    /// Removals that wait until all that could copy from them has done so.
    pub(super) removals: BTreeSet<RelPath>,
}

impl Sweep {
    pub(super) fn is_resting(&self) -> bool {
        self.at.is_none()
    }

    pub(super) fn begin_again(&mut self) {
        if self.at.is_some() { self.again = true } else { self.at = Some(None) }
    }
}

/// How much the tasks take up already.
#[derive(Clone, Copy, Debug)]
struct Room {
    tasks: usize,
    /// Chunks in the recipes of all tasks.
    chunks: usize,
}

impl Room {
    fn is_left(self) -> bool {
        self.tasks < limits::FETCHES_MAX && (self.tasks < 8 || self.chunks < TASK_CHUNKS_MAX)
    }
}

/// Where a conflict copy goes.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum CopyPlace {
    /// To there.
    At(RelPath),
    /// A copy with this content exists.
    Needless,
    /// There is one, but it is about to be looked at: it may be gone.
    Unsure,
}

/// What became of a path that was decided about.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Decision {
    /// Nothing to do, or begun, or done.
    Settled,
    /// Something else must happen first.
    Blocked,
}

impl Task {
    pub(super) fn missing_bytes(&self) -> u64 {
        let (Some(recipe), Step::Chunks { todo, asked, .. }) = (&self.recipe, &self.step) else {
            return match (&self.step, self.target.body.file()) {
                (Step::Root { .. } | Step::Pages { .. } | Step::Waiting | Step::Assembling, Some(file)) => file.size,
                _ => 0,
            };
        };
        let len = |chunk: &u32| recipe.chunks().get(*chunk as usize).map_or(0, |c| u64::from(c.len));
        todo.iter().chain(asked).map(len).sum()
    }

    /// Whether chunks of it were asked for and are on their way.
    pub(super) fn is_arriving(&self) -> bool {
        matches!(&self.step, Step::Chunks { asked, .. } if !asked.is_empty())
    }

    /// Whether it takes what a peer has, and can still be given up.
    fn is_for_a_peer(&self) -> bool {
        !self.heals && !self.target.version.is_empty() && !matches!(self.step, Step::Committing(_))
    }

    pub(super) fn size(&self) -> Option<u64> {
        self.target.body.file().map(|file| file.size)
    }

    /// Whether it cannot go on without somebody who has the content.
    pub(super) fn needs_provider(&self) -> bool {
        match &self.step {
            Step::Root { .. } | Step::Pages { .. } => true,
            Step::Chunks { todo, asked, .. } => !todo.is_empty() || !asked.is_empty(),
            Step::Waiting | Step::Assembling | Step::Ready(_) | Step::Committing(_) => false,
        }
    }

    /// Whether it cannot go on, or may turn out not to be able to, without somebody who has the content.
    pub(super) fn may_need_provider(&self) -> bool {
        matches!(self.step, Step::Waiting | Step::Assembling) || self.needs_provider()
    }

    /// Whether what is held here has lost a conflict by this, and goes aside.
    pub(super) fn loses(&self, local: &Local) -> bool {
        let body = &local.record.body;
        self.counts && !self.answers.is_empty() && body.is_live() && !body.is_same_content(&self.target.body)
    }

    /// Whether our own record is still the one that this was decided by.
    pub(super) fn is_based_on(&self, local: Option<&Local>) -> bool {
        local.map_or(self.base.is_empty(), |local| local.record.version == self.base)
    }

    pub(super) fn content(&self) -> ContentId {
        self.stage.content
    }

    fn chunk_count(&self) -> usize {
        match (&self.recipe, &self.step) {
            (Some(recipe), _) => recipe.chunks().len(),
            (None, Step::Pages { root, .. }) => root.iter().map(|page| usize::from(page.chunks)).sum(),
            (None, _) => 64,
        }
    }
}

pub(super) fn version_of(local: Option<&Local>) -> VersionVector {
    local.map(|local| local.record.version.clone()).unwrap_or_default()
}

impl<I: Index> Folder<I> {
    pub(super) fn next_task(&mut self) -> TaskId {
        self.last_task += 1;
        TaskId(self.last_task)
    }

    pub(super) fn is_committing(&self, path: &RelPath) -> bool {
        self.committing.binary_search(path).is_ok()
    }

    pub(super) fn is_dir_here(&self, path: &RelPath) -> Result<bool, I::Error> {
        Ok(self.index.local(path)?.is_some_and(|l| l.record.body.is_dir() && !l.ignored))
    }

    /// Decides about paths while there is room for more tasks, then about removals.
    pub(super) fn pump_takes(&mut self, now: Now) -> Result<(), I::Error> {
        self.brake.due = None;
        self.pump_waiting()?;
        if self.peers.is_empty() || self.scans.root_missing.is_some() || self.scans.is_first() {
            // Before the first scan nothing is known of what changed while we were away.
            return Ok(());
        }
        if self.ready.is_empty() && self.sweep.at.is_none() && self.sweep.removals.is_empty() && !self.brake.waits() {
            return Ok(());
        }
        // Counted once and kept up: adding up all tasks for each path took longer than all else.
        let mut room = self.room();
        loop {
            while room.is_left() {
                let Some(path) = self.next_path()? else {
                    break;
                };
                let before = self.tasks.len();
                if self.decide(now, &path, false)? == Decision::Blocked {
                    self.sweep.blocked = true;
                }
                if self.tasks.len() != before {
                    room.tasks = self.tasks.len();
                    room.chunks += self.tasks.get(&path).map_or(0, Task::chunk_count);
                }
            }
            if !self.pump_brake(now)? {
                break;
            }
        }
        self.pump_removals(now, room)
    }

    /// Decides about removals, once nothing else is left to decide: what they remove may be what another
    /// path is to be copied from.
    fn pump_removals(&mut self, now: Now, room: Room) -> Result<(), I::Error> {
        if self.sweep.removals.is_empty() || !room.is_left() || !self.ready.is_empty() || self.sweep.at.is_some() {
            return Ok(());
        }
        let more_comes = self.peers.values().any(|peer| peer.more_comes);
        let is_copying = |task: &Task| {
            matches!(task.step, Step::Waiting | Step::Assembling | Step::Root { .. } | Step::Pages { .. })
        };
        if more_comes || self.tasks.values().any(is_copying) {
            return Ok(());
        }
        for path in std::mem::take(&mut self.sweep.removals).into_iter().rev() {
            if self.decide(now, &path, true)? == Decision::Blocked {
                self.sweep.blocked = true;
            }
        }
        Ok(())
    }

    fn room(&self) -> Room {
        let tasks = self.tasks.len();
        // Where there is none for one task more, their chunks need not be added up.
        let is_full = tasks >= limits::FETCHES_MAX;
        Room { tasks, chunks: if is_full { 0 } else { self.tasks.values().map(Task::chunk_count).sum() } }
    }

    /// Returns the next path to decide about: those that just changed, then the walk over all.
    fn next_path(&mut self) -> Result<Option<RelPath>, I::Error> {
        if let Some(path) = self.ready.pop_first() {
            return Ok(Some(path));
        }
        let Some(at) = self.sweep.at.clone() else {
            return Ok(None);
        };
        let paths = self.index.remote_paths(at.as_ref(), 256)?;
        match paths.last() {
            Some(last) => {
                self.sweep.at = Some(Some(last.clone()));
                self.ready.extend(paths);
                Ok(self.ready.pop_first())
            }
            None => {
                self.sweep.at = std::mem::take(&mut self.sweep.again).then_some(None);
                if self.sweep.at.is_some() { self.next_path() } else { Ok(None) }
            }
        }
    }

    /// Something was finished that others may have waited for.
    pub(super) fn unblock(&mut self) {
        if self.sweep.blocked {
            self.sweep.blocked = false;
            self.sweep.begin_again();
        }
    }

    /// Returns the best of what connected peers hold at a path and may change there, and who holds just
    /// that.
    pub(super) fn best_remote(
        &self,
        path: &RelPath,
        local: Option<&Local>,
    ) -> Result<Option<(Remote, BTreeSet<DeviceId>)>, I::Error> {
        let remotes = self.index.remotes(path)?;
        let counts = |peer: &DeviceId, remote: &Remote| {
            self.peers.contains_key(peer) && !remote.record.is_withdrawn() && self.may_take(peer, local, &remote.record)
        };
        let mut best: Option<(Remote, BTreeSet<DeviceId>)> = None;
        let standings: Vec<_> = remotes
            .iter()
            .filter(|(_, remote)| !matches!(remote.standing, Standing::Open | Standing::Apart))
            .map(|(_, remote)| (remote.record.version.clone(), remote.standing))
            .collect();
        for (peer, remote) in remotes.into_iter().filter(|(peer, remote)| counts(peer, remote)) {
            let Some((leader, holders)) = &mut best else {
                best = Some((remote, BTreeSet::from([peer])));
                continue;
            };
            let wins = match remote.record.version.compare(&leader.record.version) {
                Causality::Equal => {
                    holders.insert(peer);
                    if leader.recipe.is_none() {
                        leader.recipe = remote.recipe;
                    }
                    continue;
                }
                Causality::Before => false,
                Causality::After => true,
                Causality::Concurrent => remote.record.body.precedence(&leader.record.body).is_gt(),
            };
            if wins {
                // Who holds the same content under an older version can give it as well.
                let same = remote.record.body.is_same_content(&leader.record.body);
                let mut holders = if same { std::mem::take(holders) } else { BTreeSet::new() };
                holders.insert(peer);
                best = Some((remote, holders));
            }
        }
        if let Some((leader, _)) = &mut best {
            // Where a change stands does not depend on who else has it and is connected.
            let same = standings.into_iter().filter(|(version, _)| *version == leader.record.version);
            leader.standing = same.map(|(_, standing)| standing).max().unwrap_or_default();
        }
        Ok(best)
    }

    fn decide(&mut self, now: Now, path: &RelPath, may_remove: bool) -> Result<Decision, I::Error> {
        self.discard_unfinished(path)?;
        let is_put_off = self.retries.get(path).is_some_and(|retry| retry.due.is_some());
        if is_put_off || self.scans.awaits_look(path) || self.scans.is_unmounted(path) {
            return Ok(Decision::Settled);
        }
        let local = self.index.local(path)?;
        let Some((best, providers)) = self.best_remote(path, local.as_ref())? else {
            self.retries.remove(path);
            self.forget_content(path);
            // What a task was to take is nobody's any more, or has been overtaken here.
            if self.tasks.get(path).is_some_and(Task::is_for_a_peer) {
                self.cancel(path);
            }
            return Ok(Decision::Settled);
        };
        if !self.drop_outdated_task(path, local.as_ref(), &best, &providers) {
            return Ok(Decision::Settled);
        }
        if local.as_ref().is_some_and(|l| l.ignored) {
            return Ok(Decision::Settled);
        }
        let verdict = match reconcile(local.as_ref().map(|l| &l.record), &best.record) {
            Ok(verdict) => verdict,
            Err(error) => {
                self.report(Some(path), ProblemKind::Refused, error.to_string());
                return Ok(Decision::Settled);
            }
        };
        if let Some(local) = &local {
            // What is held here may be newer than it was when the other was heard of.
            self.tell_parting(&local.record, &best.record);
        }
        if verdict == Verdict::Take && !self.passes_brake(now, path, &best, &providers, local.as_ref())? {
            return Ok(Decision::Settled);
        }
        let counts = matches!(verdict, Verdict::Yield { .. });
        let (version, body, by, copy) = match verdict {
            Verdict::Stay => {
                if let Some(local) = &local {
                    self.prune_remotes(&local.record, false)?;
                }
                return Ok(Decision::Settled);
            }
            Verdict::Take => (best.record.version.clone(), best.record.body.clone(), best.record.by, None),
            Verdict::Agree { version, by } => (version, best.record.body.clone(), by, None),
            Verdict::Yield { version } => {
                let copy = match &local {
                    Some(local)
                        if local.record.body.is_live() && !local.record.body.is_same_content(&best.record.body) =>
                    {
                        match self.copy_path(local)? {
                            CopyPlace::At(copy) => Some(copy),
                            CopyPlace::Needless | CopyPlace::Unsure => None,
                        }
                    }
                    _ => None,
                };
                (version, best.record.body.clone(), best.record.by, copy)
            }
        };
        let target = Record { path: path.clone(), version, by, body };
        self.begin(now, target, counts, best.record.version, local, copy, best.recipe, providers, may_remove)
    }

    /// Tells of two edits that were made apart, if they were.
    pub(super) fn tell_parting(&mut self, local: &Record, remote: &Record) {
        let is_apart = local.version.compare(&remote.version) == Causality::Concurrent;
        if let (true, Some(one), Some(other)) = (is_apart, PartedSide::of(local), PartedSide::of(remote))
            && one.content != other.content
        {
            self.outputs.push_back(Output::Parted(Parting { path: local.path.clone(), one, other }));
        }
    }

    /// Returns whether the path is free for a new decision: a task for something older is dropped, one
    /// for just this goes on with all who can provide it.
    fn drop_outdated_task(
        &mut self,
        path: &RelPath,
        local: Option<&Local>,
        best: &Remote,
        providers: &BTreeSet<DeviceId>,
    ) -> bool {
        let Some(task) = self.tasks.get_mut(path) else {
            return !self.is_committing(path);
        };
        if matches!(task.step, Step::Committing(_)) {
            return false;
        }
        let is_same = task.target.body.is_same_content(&best.record.body);
        let answers_it = matches!(best.record.version.compare(&task.answers), Causality::Equal | Causality::Before);
        if task.is_based_on(local) && answers_it {
            if is_same {
                task.providers.extend(providers.iter().copied());
                if task.needs_provider() {
                    self.fetchable.push_back(path.clone());
                }
            }
            return false;
        }
        if is_same && !matches!(task.step, Step::Ready(Action::Move { .. })) {
            // Only the version is another; what was fetched serves for it as well.
            self.drop_task(path);
        } else {
            self.cancel(path);
        }
        true
    }

    /// Drops a task, but leaves what is staged for the next one.
    pub(super) fn drop_task(&mut self, path: &RelPath) {
        if let Some(task) = self.tasks.remove(path) {
            self.release_stage(&task.stage);
        }
    }

    pub(super) fn cancel(&mut self, path: &RelPath) {
        let Some(task) = self.tasks.remove(path) else {
            return;
        };
        match task.step {
            Step::Assembling | Step::Chunks { .. } | Step::Ready(Action::Place { .. }) => {
                self.outputs.push_back(Output::Discard(task.stage));
            }
            Step::Ready(Action::Move { from, .. }) => {
                self.tasks.remove(&from);
                self.ready.insert(from);
            }
            _ => {}
        }
        self.release_stage(&task.stage);
    }

    /// Names the conflict copy of what lies here, unless a copy with this content exists already.
    pub(super) fn copy_path(&self, local: &Local) -> Result<CopyPlace, I::Error> {
        let time_ns = conflict::time_of(&local.record.body);
        // A copy that was renamed to this very path is the same file, whatever the index knows of its old
        // name; and one that a peer has removed or rewritten does not stay.
        let inode = |local: &Local| local.stat.map(|stat| (stat.dev, stat.ino));
        let is_equal = |there: &Local| -> Result<bool, I::Error> {
            let Record { path, version, body, .. } = &there.record;
            if there.ignored || !body.is_same_content(&local.record.body) || inode(there) == inode(local) {
                return Ok(false);
            }
            let stays = |remote: &Remote| {
                remote.record.version.compare(version) != Causality::After || remote.record.body.is_same_content(body)
            };
            Ok(self.index.remotes(path)?.iter().all(|(_, remote)| stays(remote)))
        };
        let relied_on = |path: &RelPath| match self.scans.awaits_look(path) || self.is_committing(path) {
            true => CopyPlace::Unsure,
            false => CopyPlace::Needless,
        };
        let candidates = match self.index.recipe(&local.record.path)?.and_then(|r| r.chunks().first().copied()) {
            Some(first) => self.index.holders_of(&first.id, 16)?,
            // What has no chunks is found by its name alone.
            None => self.index.conflicts()?.into_iter().map(|there| there.record.path).collect(),
        };
        for path in candidates.iter().filter(|path| conflict::is_copy_of(path, &local.record.path)) {
            if let Some(there) = self.index.local(path)?
                && is_equal(&there)?
            {
                return Ok(relied_on(path));
            }
        }
        // A copy that is on its way from a peer is worth waiting for.
        let is_coming = |(path, task): (&RelPath, &Task)| {
            let is_same = task.target.body.is_same_content(&local.record.body);
            is_same && !matches!(task.step, Step::Waiting) && conflict::is_copy_of(path, &local.record.path)
        };
        if self.tasks.iter().any(is_coming) {
            return Ok(CopyPlace::Unsure);
        }
        let mut number = 1;
        loop {
            let path = conflict::copy_path(&local.record.path, time_ns, local.record.by, number);
            match self.index.local(&path)? {
                Some(there) if is_equal(&there)? => return Ok(relied_on(&path)),
                // It may be that very copy, from before a crash: only a look tells.
                _ if self.scans.awaits_look(&path) => return Ok(CopyPlace::Unsure),
                // Beyond that the disk looks for a free name, or says that it has none.
                Some(there) if there.record.body.is_live() && number < COPIES_MAX => number += 1,
                _ => return Ok(CopyPlace::At(path)),
            }
        }
    }

    /// Sets out to hold `target`.
    #[expect(clippy::too_many_arguments, reason = "one decision with all its facts, made at two places")]
    fn begin(
        &mut self,
        now: Now,
        target: Record,
        counts: bool,
        answers: VersionVector,
        local: Option<Local>,
        copy: Option<RelPath>,
        recipe: Option<Recipe>,
        providers: BTreeSet<DeviceId>,
        may_remove: bool,
    ) -> Result<Decision, I::Error> {
        let path = target.path.clone();
        let here = local.as_ref().map(|l| &l.record.body).filter(|body| body.is_live());
        let stat = local.as_ref().and_then(|l| l.stat);
        let expect = match (here, stat) {
            (None, _) => Expect::Absent,
            (Some(_), Some(stat)) => Expect::Stat(stat),
            (Some(_), None) => {
                self.look_again(&path, Depth::Entry);
                return Ok(Decision::Blocked);
            }
        };
        // Where the disk need not be touched, the record alone changes.
        let is_same_here = here == Some(&target.body) || (here.is_none() && !target.body.is_live());
        if is_same_here {
            self.hold_target(now, target, counts, stat, None)?;
            return Ok(Decision::Settled);
        }
        let same_content = here.is_some_and(|body| body.is_same_content(&target.body));
        let action = match &target.body {
            Body::Dir { mode } if same_content => Some(Action::SetMeta { mode: *mode, mtime_ns: None }),
            Body::File(file) if same_content => {
                Some(Action::SetMeta { mode: file.mode, mtime_ns: Some(file.mtime_ns) })
            }
            Body::Tombstone => Some(Action::Remove),
            Body::Dir { mode } => Some(Action::MakeDir { mode: *mode }),
            Body::Symlink { target } => Some(Action::MakeSymlink { target: target.clone() }),
            Body::File(_) => None,
        };
        if here.is_some_and(Body::is_dir) && !target.body.is_dir() && self.index.has_live_below(&path)? {
            self.sweep.removals.insert(path.clone());
            return if may_remove { self.keep_dir(now, &path) } else { Ok(Decision::Blocked) };
        }
        if !target.body.is_live() && !may_remove {
            self.sweep.removals.insert(path);
            return Ok(Decision::Blocked);
        }
        if target.body.is_live() && self.prepare_parent(&path)? == Decision::Blocked {
            // Below what is left out nothing can be put.
            return Ok(if self.leave_out_below(&path)? { Decision::Settled } else { Decision::Blocked });
        }
        // What needs no staging file must not name one: it would release another task's.
        let content = target.body.file().filter(|_| action.is_none()).map_or(ContentId([0; 32]), |file| file.content);
        let mut stage = StageId { content, copy: 0 };
        if action.is_none() {
            while let Some(used) = self.stages.get(&stage) {
                if used.path == path {
                    // The former task's last orders are on their way; what they stage can be used.
                    return Ok(Decision::Blocked);
                }
                stage.copy += 1;
            }
            self.stages.insert(stage, Stage { path: path.clone(), unanswered: 0, is_released: false });
        }
        let base = version_of(local.as_ref());
        let step = Step::Root { asked: false };
        let id = self.next_task();
        let mut task =
            Task { id, target, counts, answers, base, expect, copy, providers, recipe, stage, step, heals: false };
        if let Some(action) = action {
            task.step = Step::Ready(action);
            self.complete.insert(path.clone());
        } else if task.recipe.is_some() {
            self.plan_content(&mut task)?;
        } else if let Some(recipe) = self.find_recipe(&task)? {
            task.recipe = Some(recipe);
            self.plan_content(&mut task)?;
        } else {
            self.fetchable.push_back(path.clone());
        }
        self.tasks.insert(path, task);
        Ok(Decision::Settled)
    }

    /// Sees to it that the parent is, or will be, a directory.
    fn prepare_parent(&mut self, path: &RelPath) -> Result<Decision, I::Error> {
        let Some(parent) = path.parent() else {
            return Ok(Decision::Settled);
        };
        if let Some(task) = self.tasks.get(&parent) {
            let becomes_dir = task.target.body.is_dir();
            return Ok(if becomes_dir { Decision::Settled } else { Decision::Blocked });
        }
        let local = self.index.local(&parent)?;
        match &local {
            Some(l) if l.ignored => return Ok(Decision::Blocked),
            Some(l) if l.record.body.is_dir() => return Ok(Decision::Settled),
            _ => {}
        }
        if let Some((best, _)) = self.best_remote(&parent, local.as_ref())?
            && reconcile(local.as_ref().map(|l| &l.record), &best.record) != Ok(Verdict::Stay)
        {
            self.ready.insert(parent);
            return Ok(Decision::Blocked);
        }
        if local.as_ref().is_some_and(|l| l.record.body.is_live()) {
            return Ok(Decision::Blocked);
        }
        // It was deleted here while somebody put something into it: it comes back, as our change.
        if self.prepare_parent(&parent)? == Decision::Blocked {
            return Ok(Decision::Blocked);
        }
        let record = Record {
            path: parent.clone(),
            version: version_of(local.as_ref()),
            by: self.tag,
            body: Body::Dir { mode: 0o755 },
        };
        let task = Task {
            id: self.next_task(),
            target: record,
            counts: true,
            answers: VersionVector::default(),
            base: version_of(local.as_ref()),
            expect: Expect::Absent,
            copy: None,
            providers: BTreeSet::new(),
            recipe: None,
            stage: StageId { content: ContentId([0; 32]), copy: 0 },
            step: Step::Ready(Action::MakeDir { mode: 0o755 }),
            heals: false,
        };
        self.complete.insert(parent.clone());
        self.tasks.insert(parent, task);
        Ok(Decision::Settled)
    }

    /// Puts a path off: it is tried again after a pause that grows.
    pub(super) fn give_up(&mut self, now: Now, path: &RelPath, kind: ProblemKind, detail: String) {
        self.report(Some(path), kind, detail);
        // What is staged already stays, for the next attempt.
        if let Some(task) = self.tasks.get(path) {
            self.unfinished.insert(path.clone(), task.stage);
        }
        self.drop_task(path);
        self.put_off(now, path, false, LOCAL_PAUSE_MAX);
    }

    /// Gives up what is left of a file that did not fit, once something else is to be held there: the
    /// room is wanted.
    fn discard_unfinished(&mut self, path: &RelPath) -> Result<(), I::Error> {
        let Some(stage) = self.unfinished.get(path).copied() else {
            return Ok(());
        };
        let best = self.best_remote(path, self.index.local(path)?.as_ref())?;
        let wanted = best.as_ref().and_then(|(best, _)| best.record.body.file());
        if wanted.is_none_or(|file| file.content != stage.content) {
            self.unfinished.remove(path);
            self.clear_problems(path);
            if !self.stages.contains_key(&stage) {
                self.outputs.push_back(Output::Discard(stage));
            }
        }
        Ok(())
    }

    pub(super) fn put_off(&mut self, now: Now, path: &RelPath, look: bool, longest: Duration) {
        let attempt = self.retries.get(path).map_or(1, |retry| retry.attempt + 1);
        let pause = Duration::from_secs(1 << attempt.min(16)).min(longest);
        self.retries.insert(path.clone(), Retry { due: Some(now.at + pause), attempt, look });
    }
}
