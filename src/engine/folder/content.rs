//! A content on its way into a staging file: what lies here is put together, what does not is fetched.

use std::collections::BTreeSet;

use crate::engine::assemble::find_pieces;
use crate::engine::chunk::VerifiedChunk;
use crate::engine::effect::{Action, AssembleOutcome, AssemblePlan, Expect, Source, StageId};
use crate::engine::folder::take::{Step, Task, version_of};
use crate::engine::folder::{Folder, Now, Output};
use crate::engine::index::Index;
use crate::engine::reconcile::{Verdict, reconcile};
use crate::model::id::{ChunkId, ContentId};
use crate::model::path::RelPath;
use crate::model::problem::ProblemKind;
use crate::model::recipe::Recipe;
use crate::model::stat::Stat;

/// Files to copy from that are considered for one file.
const SOURCES_MAX: usize = 8;
/// Files with the same first chunk among which one with the whole content is looked for.
const HOLDERS_MAX: usize = 64;
/// Equal files that are moved at a time; more of them are copied from one that is not, or each would wait
/// until those before it have moved.
const MOVES_MAX: usize = HOLDERS_MAX / 2;

/// Files to copy from, with their recipes.
type Sources = Vec<(Source, Recipe)>;

/// A staging file in use.
#[derive(Debug)]
pub(super) struct Stage {
    /// The path that it is for.
    pub(super) path: RelPath,
    /// Orders about it that the disk has not answered yet.
    pub(super) unanswered: usize,
    /// Whether the task that it was for is gone.
    pub(super) is_released: bool,
}

impl<I: Index> Folder<I> {
    /// Gives an order to the disk that writes to a staging file, and will be answered.
    pub(super) fn order_stage(&mut self, stage: StageId, order: Output) {
        if let Some(stage) = self.stages.get_mut(&stage) {
            stage.unanswered += 1;
        }
        self.outputs.push_back(order);
    }

    /// An order that [`Folder::order_stage`] gave was answered. Returns the path whose task has waited
    /// for it, unless that task is gone.
    fn stage_answered(&mut self, id: &StageId) -> Option<RelPath> {
        let stage = self.stages.get_mut(id)?;
        stage.unanswered = stage.unanswered.saturating_sub(1);
        if !stage.is_released {
            return Some(stage.path.clone());
        }
        if stage.unanswered == 0 {
            let path = stage.path.clone();
            self.stages.remove(id);
            self.ready.insert(path);
        }
        None
    }

    /// A task is done with its staging file. Nobody else gets it before all orders about it are
    /// answered: the answers could not be told from those to the next task.
    pub(super) fn release_stage(&mut self, id: &StageId) {
        match self.stages.get_mut(id) {
            Some(stage) if stage.unanswered > 0 => stage.is_released = true,
            Some(_) => drop(self.stages.remove(id)),
            None => {}
        }
    }

    /// Finds the recipe of a content that some file here has, so that it need not be fetched.
    pub(super) fn find_recipe(&self, task: &Task) -> Result<Option<Recipe>, I::Error> {
        let path = &task.target.path;
        if let Some(former) = self.index.local(path)?
            && former.record.body.file().is_some_and(|file| file.content == task.content())
        {
            return self.index.recipe(path);
        }
        Ok(None)
    }

    /// Plans where the content comes from, now that the recipe is known.
    pub(super) fn plan_content(&mut self, task: &mut Task) -> Result<(), I::Error> {
        let (Some(recipe), Some(file)) = (&task.recipe, task.target.body.file().copied()) else {
            return Ok(());
        };
        if let Some(bytes) = self.forget_content(&task.target.path)
            && let [chunk] = recipe.chunks()
            && bytes.len() == chunk.len as usize
            && ChunkId::of(&bytes) == chunk.id
        {
            self.order_stage(task.stage, Output::Stage(task.stage, 0, 0, VerifiedChunk::hash(bytes)));
            task.step = Step::Chunks { todo: Vec::new(), asked: BTreeSet::new(), staging: BTreeSet::from([0]) };
            return Ok(());
        }
        let Some((sources, whole)) = self.find_sources(task, recipe)? else {
            // It is under way to another place, and will be copied from there.
            task.step = Step::Waiting;
            self.waiting.insert(task.target.path.clone());
            return Ok(());
        };
        if let Some((from, stat)) = self.find_move(task, &sources, whole)? {
            task.step = Step::Ready(Action::Move { from, stat, body: file });
            self.complete.insert(task.target.path.clone());
            return Ok(());
        }
        let recipes: Vec<_> = sources.iter().map(|(_, recipe)| recipe.clone()).collect();
        let pieces = if whole.is_some() { Vec::new() } else { find_pieces(recipe, &recipes) };
        if sources.is_empty() && recipe.chunks().len() == 1 {
            // Nothing lies here, and one chunk is either staged or not: no need to look.
            task.step = Step::Chunks { todo: vec![0], asked: BTreeSet::new(), staging: BTreeSet::new() };
            self.fetchable.push_back(task.target.path.clone());
            return Ok(());
        }
        let sources = sources.into_iter().map(|(source, _)| source).collect();
        let plan = AssemblePlan { stage: task.stage, recipe: recipe.clone(), sources, pieces, whole };
        self.order_stage(task.stage, Output::Assemble(plan));
        task.step = Step::Assembling;
        Ok(())
    }

    /// Plans anew where those contents come from that waited for a commit.
    pub(super) fn pump_waiting(&mut self) -> Result<(), I::Error> {
        if !self.committing.is_empty() {
            return Ok(());
        }
        for path in std::mem::take(&mut self.waiting) {
            if let Some(mut task) = self.tasks.remove(&path) {
                if matches!(task.step, Step::Waiting) {
                    self.plan_content(&mut task)?;
                }
                self.tasks.insert(path, task);
            }
        }
        Ok(())
    }

    /// Finds files to copy from, and which of them has the whole content. `None` where the whole content
    /// lies here, but is just being moved.
    fn find_sources(&mut self, task: &Task, recipe: &Recipe) -> Result<Option<(Sources, Option<u32>)>, I::Error> {
        let mut paths = BTreeSet::new();
        let mut found = Sources::new();
        let mut is_moving = false;
        let mut candidates = vec![task.target.path.clone()];
        let step = (recipe.chunks().len() / 64).max(1);
        for (nth, chunk) in recipe.chunks().iter().step_by(step).enumerate() {
            if candidates.len() > SOURCES_MAX * 4 {
                break;
            }
            let limit = if nth == 0 { HOLDERS_MAX } else { 4 };
            candidates.extend(self.index.holders_of(&chunk.id, limit)?);
        }
        for path in candidates {
            if !paths.insert(path.clone()) {
                continue;
            }
            let Some(local) = self.index.local(&path)? else {
                continue;
            };
            let (Some(file), Some(stat), false) = (local.record.body.file(), local.stat, local.ignored) else {
                continue;
            };
            let is_other_damaged = self.verify.is_damaged(&path) && path != task.target.path;
            if self.scans.is_reading(&path) || is_other_damaged {
                continue;
            }
            let is_whole = file.content == task.content();
            // What is only about to be committed waits for those that copy from it.
            let is_leaving = self.tasks.get(&path).is_some_and(|there| matches!(there.step, Step::Committing(_)));
            if is_leaving || self.is_committing(&path) {
                is_moving |= is_whole;
                continue;
            }
            if !is_whole && found.len() >= SOURCES_MAX {
                continue;
            }
            let Some(its_recipe) = self.index.recipe(&path)? else {
                continue;
            };
            if is_whole {
                return Ok(Some((vec![(Source { path, stat }, its_recipe)], Some(0))));
            }
            if !recipe.chunks().is_empty() {
                found.push((Source { path, stat }, its_recipe));
            }
        }
        if is_moving {
            return Ok(None);
        }
        let wanted: BTreeSet<_> = recipe.chunks().iter().map(|c| c.id).collect();
        found.retain(|(_, its)| its.chunks().iter().any(|c| wanted.contains(&c.id)));
        Ok(Some((found, None)))
    }

    /// Whether a content may be in the middle of being copied from one file here to another, other than
    /// to `path`.
    pub(super) fn is_being_copied(&self, content: ContentId, path: &RelPath) -> bool {
        self.stages_of(content).filter(|stage| stage.path != *path).any(|stage| match self.tasks.get(&stage.path) {
            Some(task) => matches!(task.step, Step::Assembling),
            None => stage.is_released,
        })
    }

    /// Returns the staging files in use for a content.
    fn stages_of(&self, content: ContentId) -> impl Iterator<Item = &Stage> {
        let range = self.stages.range(StageId { content, copy: 0 }..);
        range.take_while(move |(id, _)| id.content == content).map(|(_, stage)| stage)
    }

    /// Finds a file that has the whole content and is on its way out: it is renamed, not copied.
    fn find_move(
        &mut self,
        task: &Task,
        sources: &[(Source, Recipe)],
        whole: Option<u32>,
    ) -> Result<Option<(RelPath, Stat)>, I::Error> {
        let (Some(whole), Expect::Absent) = (whole, task.expect) else {
            return Ok(None);
        };
        let from = &sources[whole as usize].0;
        // Its own staging file is one of them.
        if self.is_being_copied(task.content(), &task.target.path)
            || self.stages_of(task.content()).nth(MOVES_MAX).is_some()
        {
            return Ok(None);
        }
        if self.tasks.contains_key(&from.path) || from.path == task.target.path {
            return Ok(None);
        }
        let local = self.index.local(&from.path)?;
        let Some((best, _)) = self.best_remote(&from.path, local.as_ref())? else {
            return Ok(None);
        };
        let verdict = reconcile(local.as_ref().map(|l| &l.record), &best.record);
        if best.record.body.is_live() || verdict != Ok(Verdict::Take) {
            return Ok(None);
        }
        self.brake.inherit(&task.target.path);
        // Its removal is part of this task; a task of its own keeps others away from it.
        let removal = Task {
            id: self.next_task(),
            answers: best.record.version.clone(),
            base: version_of(local.as_ref()),
            target: best.record,
            counts: false,
            expect: Expect::Absent,
            copy: None,
            providers: BTreeSet::new(),
            recipe: None,
            stage: StageId { content: ContentId([0; 32]), copy: 0 },
            step: Step::Assembling,
            heals: false,
        };
        self.tasks.insert(from.path.clone(), Task { step: Step::Committing(Action::Remove), ..removal });
        Ok(Some((from.path.clone(), from.stat)))
    }

    pub(super) fn handle_assembled(
        &mut self,
        now: Now,
        stage: StageId,
        outcome: AssembleOutcome,
    ) -> Result<(), I::Error> {
        let Some(path) = self.stage_answered(&stage) else {
            return Ok(());
        };
        if !self.tasks.get(&path).is_some_and(|task| matches!(task.step, Step::Assembling)) {
            return Ok(());
        }
        match outcome {
            AssembleOutcome::Failed(kind, detail) => self.give_up(now, &path, kind, detail),
            AssembleOutcome::Staged { mut missing } => {
                missing.reverse();
                if let Some(task) = self.tasks.get_mut(&path) {
                    task.step = Step::Chunks { todo: missing, asked: BTreeSet::new(), staging: BTreeSet::new() };
                    self.fetchable.push_back(path.clone());
                    self.finish_if_staged(&path);
                    self.give_up_if_alone(now, &path);
                }
            }
        }
        Ok(())
    }

    pub(super) fn handle_staged(
        &mut self,
        now: Now,
        stage: StageId,
        chunk: u32,
        result: Result<(), (ProblemKind, String)>,
    ) {
        let Some(path) = self.stage_answered(&stage) else {
            return;
        };
        match result {
            Ok(()) => {
                if let Some(Step::Chunks { staging, .. }) = self.tasks.get_mut(&path).map(|task| &mut task.step) {
                    staging.remove(&chunk);
                }
                self.finish_if_staged(&path);
            }
            Err((kind, detail)) => self.give_up(now, &path, kind, detail),
        }
    }

    fn finish_if_staged(&mut self, path: &RelPath) {
        let Some(task) = self.tasks.get_mut(path) else {
            return;
        };
        if let (Step::Chunks { todo, asked, staging }, Some(body)) = (&task.step, task.target.body.file())
            && todo.is_empty()
            && asked.is_empty()
            && staging.is_empty()
        {
            task.step = Step::Ready(Action::Place { stage: task.stage, body: *body });
            self.complete.insert(path.clone());
        }
    }
}
