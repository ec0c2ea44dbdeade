//! Whether files here still hold what is recorded of them.
//!
//! A disk may return other bytes than were written, and no look at sizes and times shows it. So files are read
//! again and compared with their recipes: all of them when a person asks, and all within [`Params::scrub`]
//! without being asked, a little every hour while nothing else is to be done.
//!
//! A file that holds something else although its stat is unchanged is *damaged*. That is told, and it is neither
//! given to peers nor changed: what looks like damage may be the work of a program that wrote through a mapping
//! of the file and escaped the file's times. Only when a person says so is it healed: its good chunks and those
//! that a peer sends are put together, and what lay there goes to history like anything that is replaced.
//!
//! Files are visited in the order of their last change, so that how far a walk has come is one number, and what
//! changes meanwhile moves beyond its end: that was read a moment ago.
//!
//! [`Params::scrub`]: crate::engine::folder::Params::scrub

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::engine::effect::{Depth, Expect, StageId, VerifyItem, VerifyOutcome};
use crate::engine::folder::content::Stage;
use crate::engine::folder::take::{Step, Task};
use crate::engine::folder::{Folder, Now, Output};
use crate::engine::index::{Index, Local};
use crate::model::id::{DeviceId, Sequence};
use crate::model::limits;
use crate::model::path::RelPath;
use crate::model::problem::ProblemKind;
use crate::model::version::VersionVector;

/// Files of one order to the disk.
const BATCH_FILES: usize = 64;
/// Bytes of these, as long as it is more than one file.
const BATCH_BYTES: u64 = 64 << 20;
/// Time between two turns of the slow check.
const TURN: Duration = Duration::from_secs(3600);
/// When its first turn comes, after the start.
const FIRST_TURN: Duration = Duration::from_secs(600);
/// How long a turn waits where something else is to be done.
const BUSY_PAUSE: Duration = Duration::from_secs(30);
/// What a file costs besides its bytes, as bytes: small files cost a movement of the disk's heads.
const FILE_COST: u64 = 16 << 10;
/// How long a healing that came to nothing rests.
const HEAL_PAUSE: Duration = Duration::from_secs(60);

/// A file that holds something else than what was written there.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Damage {
    /// The record that it does not match; another record there is about another content.
    sequence: Sequence,
    /// Bytes of the chunks that are not what they should be.
    pub bytes: u64,
    /// When to try to heal it; `None`: when a person says so, or the next peer comes.
    due: Option<Duration>,
    /// Whether a person said so.
    heals: bool,
    /// Whether that was tried.
    is_tried: bool,
}

/// A walk over all files that a person asked for.
#[derive(Clone, Copy, Debug)]
struct Walk {
    at: Sequence,
    end: Sequence,
    is_over: bool,
    files: u64,
    bytes: u64,
    found: u64,
    healed: u64,
    /// Whether what it finds damaged is healed.
    heals: bool,
}

/// Where the check of all files stands.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct VerifyStatus {
    /// Whether one that a person asked for was begun since the start.
    pub is_begun: bool,
    /// Whether it is under way: files are being read, or healed.
    pub is_running: bool,
    /// Whether it can only go on once the folder's root is back.
    pub is_stopped: bool,
    /// Files that it has read.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Files that it found damaged.
    pub found: u64,
    /// Files that were healed meanwhile.
    pub healed: u64,
    /// Files that are damaged now, as far as is known, and how much of them, in bytes.
    pub damaged: Vec<(RelPath, u64)>,
    /// When the slow check last saw all files, in nanoseconds since 1970.
    pub scrubbed_ns: Option<i64>,
}

/// How far the slow check has come, as it is stored.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
struct Scrub {
    /// All changes up to here were checked.
    at: u64,
    /// The last change that this pass checks; zero before the first pass.
    end: u64,
    /// When the pass began, in nanoseconds since 1970.
    began_ns: i64,
    /// What it has cost so far.
    done: u64,
    /// Whether the pass has ended.
    is_over: bool,
    /// When a pass last ended, in nanoseconds since 1970; zero: never.
    finished_ns: i64,
    /// What is damaged: path, sequence of its record, bytes.
    damaged: Vec<(Vec<u8>, u64, u64)>,
}

impl Scrub {
    /// Time since the pass began; none where the clock was set back.
    fn elapsed(&self, wall_ns: i64) -> Duration {
        Duration::from_nanos(u64::try_from(wall_ns.saturating_sub(self.began_ns)).unwrap_or(0))
    }
}

/// Files to compare with their records, by the sequences of these.
type Batch = Vec<(Sequence, VerifyItem)>;

/// What is being compared with its records, and what came of it.
#[derive(Debug, Default)]
pub(super) struct Verify {
    is_loaded: bool,
    walk: Option<Walk>,
    scrub: Scrub,
    /// When the slow check goes on; `None` before the first look at the folder and while it is off.
    due: Option<Duration>,
    /// What it may still cost in this turn.
    allowance: u64,
    /// What the disk is comparing, by the records as they were.
    reading: Vec<(RelPath, Sequence)>,
    is_reading_for_scrub: bool,
    damaged: BTreeMap<RelPath, Damage>,
    /// Whether what is stored differs from what is known.
    is_changed: bool,
}

impl Verify {
    /// Whether a path is known not to hold what its record says.
    pub(super) fn is_damaged(&self, path: &RelPath) -> bool {
        self.damaged.contains_key(path)
    }

    /// A peer came that may have what damaged files should hold.
    pub(super) fn peer_came(&mut self) {
        for damage in self.damaged.values_mut().filter(|damage| damage.heals) {
            damage.due = Some(Duration::ZERO);
        }
    }

    /// Nobody who is connected has what a damaged file should hold: the next peer is waited for.
    pub(super) fn nobody_heals(&mut self, path: &RelPath) {
        if let Some(damage) = self.damaged.get_mut(path) {
            damage.due = None;
        }
    }

    /// A file was healed.
    pub(super) fn note_healed(&mut self) {
        if let Some(walk) = &mut self.walk {
            walk.healed += 1;
        }
    }

    /// Whether something is about to be healed.
    fn heals_now(&self) -> bool {
        self.damaged.values().any(|damage| damage.due.is_some() && !damage.is_tried)
    }

    fn stored(&self) -> Scrub {
        let damaged = self.damaged.iter();
        let damaged = damaged.map(|(path, damage)| (path.as_bytes().to_vec(), damage.sequence.0, damage.bytes));
        Scrub { damaged: damaged.collect(), ..self.scrub.clone() }
    }

    /// What the next turn of the slow check may cost, so that it is through in time.
    fn allowance(&self, total: u64, period: Duration, wall_ns: i64) -> u64 {
        let left = period.saturating_sub(self.scrub.elapsed(wall_ns)).max(TURN);
        let turns = left.as_secs() / TURN.as_secs();
        total.saturating_sub(self.scrub.done).div_ceil(turns).max(1)
    }
}

impl<I: Index> Folder<I> {
    /// Begins to compare all files with their records, and with `heals` to mend what is damaged from what peers
    /// have. One that is under way already goes on, and heals from now on if this one does.
    pub fn begin_verify(&mut self, now: Now, heals: bool) {
        let verify = &mut self.verify;
        match &mut verify.walk {
            Some(walk) if !walk.is_over => walk.heals |= heals,
            walk => {
                let end = self.index.last_sequence();
                let at = Sequence(0);
                *walk = Some(Walk { at, end, heals, is_over: false, files: 0, bytes: 0, found: 0, healed: 0 });
            }
        }
        for damage in verify.damaged.values_mut().filter(|_| heals) {
            damage.heals = true;
            damage.is_tried = false;
            damage.due = Some(now.at);
        }
    }

    /// Returns where the check of all files stands.
    pub fn verify_status(&self) -> VerifyStatus {
        let verify = &self.verify;
        let status = VerifyStatus {
            damaged: verify.damaged.iter().map(|(path, damage)| (path.clone(), damage.bytes)).collect(),
            scrubbed_ns: Some(verify.scrub.finished_ns).filter(|at| *at != 0),
            is_stopped: self.scans.root_missing.is_some(),
            ..VerifyStatus::default()
        };
        let Some(Walk { is_over, files, bytes, found, healed, .. }) = verify.walk else {
            return status;
        };
        let is_running = !is_over || self.tasks.values().any(|task| task.heals) || verify.heals_now();
        VerifyStatus { is_begun: true, is_running, files, bytes, found, healed, ..status }
    }

    /// When there is something to compare or to heal, if nothing happens before.
    pub(super) fn verify_timeout(&self) -> Option<Duration> {
        let rests = self.scans.is_first() || self.scans.root_missing.is_some();
        if rests || !self.verify.reading.is_empty() {
            return None;
        }
        let heal = self.verify.damaged.values().filter_map(|damage| damage.due).min();
        [heal, self.verify.due].into_iter().flatten().min()
    }

    pub(super) fn pump_verify(&mut self, now: Now) -> Result<(), I::Error> {
        if self.scans.is_first() || self.scans.root_missing.is_some() {
            return Ok(());
        }
        if !self.verify.is_loaded {
            self.load_verify(now)?;
        }
        self.pump_heals(now)?;
        if self.verify.reading.is_empty() && !self.pump_walk()? {
            self.pump_scrub(now)?;
        }
        if std::mem::take(&mut self.verify.is_changed) {
            // A state that could not be encoded would only be one that is begun again.
            let state = postcard::to_allocvec(&self.verify.stored()).unwrap_or_default();
            self.index.set_scrub(&state)?;
            self.is_changed = true;
        }
        Ok(())
    }

    /// Takes up what was known before the start. A state of another form is begun again.
    fn load_verify(&mut self, now: Now) -> Result<(), I::Error> {
        self.verify.is_loaded = true;
        self.verify.due = self.params.scrub.map(|_| now.at + FIRST_TURN);
        let mut stored: Scrub = postcard::from_bytes(&self.index.scrub()?).unwrap_or_default();
        for (path, sequence, bytes) in std::mem::take(&mut stored.damaged) {
            let Ok(path) = RelPath::parse(&path) else {
                continue;
            };
            let sequence = Sequence(sequence);
            if self.index.local(&path)?.is_some_and(|local| local.sequence == sequence) {
                self.note_damage(path, Damage { sequence, bytes, due: None, heals: false, is_tried: false }, "");
            }
        }
        self.verify.scrub = stored;
        Ok(())
    }

    /// Has the disk compare more of what a person asked for. Returns whether a walk is under way.
    fn pump_walk(&mut self) -> Result<bool, I::Error> {
        let Some(mut walk) = self.verify.walk.filter(|walk| !walk.is_over) else {
            return Ok(false);
        };
        let items = self.verify_items(&mut walk.at, walk.end, BATCH_BYTES)?;
        walk.is_over = items.is_empty();
        self.verify.walk = Some(walk);
        self.order_verify(items, false);
        Ok(!walk.is_over)
    }

    /// Goes on with the slow check, if its time has come and nothing else is to be done.
    fn pump_scrub(&mut self, now: Now) -> Result<(), I::Error> {
        let (Some(period), true) = (self.params.scrub, self.verify.due.is_some_and(|due| due <= now.at)) else {
            return Ok(());
        };
        if !self.is_at_rest() {
            self.verify.due = Some(now.at + BUSY_PAUSE);
            return Ok(());
        }
        let scrub = &mut self.verify.scrub;
        if scrub.at >= scrub.end {
            if scrub.end != 0 && !scrub.is_over {
                (scrub.is_over, scrub.finished_ns) = (true, now.wall_ns);
                self.verify.is_changed = true;
            }
            if scrub.end != 0 && scrub.elapsed(now.wall_ns) < period {
                self.verify.due = Some(now.at + TURN);
                return Ok(());
            }
            (scrub.at, scrub.end, scrub.done) = (0, self.index.last_sequence().0, 0);
            (scrub.began_ns, scrub.is_over) = (now.wall_ns, false);
        }
        if scrub.began_ns > now.wall_ns {
            // The clock was set back.
            scrub.began_ns = now.wall_ns;
        }
        if self.verify.allowance == 0 {
            let totals = self.index.totals()?;
            let total = totals.bytes.saturating_add(totals.files.saturating_mul(FILE_COST));
            self.verify.allowance = self.verify.allowance(total, period, now.wall_ns);
        }
        let (mut at, end) = (Sequence(self.verify.scrub.at), Sequence(self.verify.scrub.end));
        let items = self.verify_items(&mut at, end, self.verify.allowance.min(BATCH_BYTES))?;
        self.verify.scrub.at = at.0;
        self.verify.is_changed = true;
        if items.is_empty() {
            // The pass is over, which the next round writes down.
            self.verify.allowance = 0;
            self.verify.due = Some(now.at + TURN);
            return Ok(());
        }
        let cost = items.iter().map(|(_, item)| item.stat.size.saturating_add(FILE_COST)).fold(0, u64::saturating_add);
        self.verify.scrub.done = self.verify.scrub.done.saturating_add(cost);
        self.verify.allowance = self.verify.allowance.saturating_sub(cost);
        self.verify.due = Some(if self.verify.allowance == 0 { now.at + TURN } else { now.at });
        self.order_verify(items, true);
        Ok(())
    }

    /// Returns the next files to compare, at least one if any is left, and how far that leads.
    fn verify_items(&self, at: &mut Sequence, end: Sequence, bytes_max: u64) -> Result<Batch, I::Error> {
        let mut items = Batch::new();
        let mut bytes = 0u64;
        while *at < end {
            let changes = self.index.changes_since(*at, BATCH_FILES)?;
            let Some((last, _)) = changes.last() else {
                *at = end;
                break;
            };
            let through = last.sequence.min(end);
            for (local, recipe) in changes {
                if local.sequence > end || items.len() == BATCH_FILES || (bytes >= bytes_max && !items.is_empty()) {
                    break;
                }
                *at = local.sequence;
                let (Some(file), Some(stat), false) = (local.record.body.file(), local.stat, local.ignored) else {
                    continue;
                };
                let (path, sequence) = (local.record.path, local.sequence);
                let Some(recipe) = recipe.map_or_else(|| self.index.recipe(&path), |recipe| Ok(Some(recipe)))? else {
                    continue;
                };
                bytes = bytes.saturating_add(file.size.saturating_add(FILE_COST));
                items.push((sequence, VerifyItem { path, stat, recipe }));
            }
            if !items.is_empty() {
                break;
            }
            // Directories, links and deletions only.
            *at = through;
        }
        Ok(items)
    }

    fn order_verify(&mut self, batch: Batch, is_for_scrub: bool) {
        if batch.is_empty() {
            return;
        }
        self.verify.reading = batch.iter().map(|(sequence, item)| (item.path.clone(), *sequence)).collect();
        let items = batch.into_iter().map(|(_, item)| item).collect();
        self.verify.is_reading_for_scrub = is_for_scrub;
        self.outputs.push_back(Output::Verify(items, is_for_scrub));
    }

    pub(super) fn handle_verified(&mut self, now: Now, outcomes: Vec<VerifyOutcome>) -> Result<(), I::Error> {
        let is_walk = !self.verify.is_reading_for_scrub;
        for ((path, sequence), outcome) in std::mem::take(&mut self.verify.reading).into_iter().zip(outcomes) {
            let local = self.index.local(&path)?;
            let Some(local) = local.filter(|local| local.sequence == sequence && !local.ignored) else {
                continue;
            };
            if self.is_committing(&path) || self.scans.is_reading(&path) {
                // Something else lies there by now, or is about to be told.
                continue;
            }
            if let (Some(walk), true) = (&mut self.verify.walk, is_walk) {
                walk.files += 1;
                walk.bytes += local.record.body.file().map_or(0, |file| file.size);
                walk.found += u64::from(matches!(outcome, VerifyOutcome::Damaged { .. }));
            }
            match outcome {
                // It may have been the way to the disk, and not the disk.
                VerifyOutcome::Intact => self.forget_damage(&path),
                VerifyOutcome::Damaged { bytes, detail } => {
                    let heals = self.verify.walk.is_some_and(|walk| walk.heals && is_walk);
                    let heals = heals || self.verify.damaged.get(&path).is_some_and(|known| known.heals);
                    let due = heals.then_some(now.at);
                    self.note_damage(path, Damage { sequence, bytes, due, heals, is_tried: false }, &detail);
                }
                VerifyOutcome::Changed => self.look_again(&path, Depth::Entry),
                VerifyOutcome::Failed(detail) => self.report(Some(&path), ProblemKind::Unreadable, detail),
            }
        }
        Ok(())
    }

    fn note_damage(&mut self, path: RelPath, damage: Damage, detail: &str) {
        if self.verify.damaged.len() >= limits::PROBLEMS_MAX && !self.verify.is_damaged(&path) {
            return;
        }
        let of = if detail.is_empty() { String::new() } else { format!(": {detail}") };
        self.report(Some(&path), ProblemKind::Damaged, format!("{} bytes{of}", damage.bytes));
        self.verify.damaged.insert(path, damage);
        self.verify.is_changed = true;
    }

    /// A path holds what its record says, or its record is another one now.
    pub(super) fn forget_damage(&mut self, path: &RelPath) {
        if self.verify.damaged.remove(path).is_some() {
            self.forget_problem(&(Some(path.clone()), ProblemKind::Damaged));
            self.verify.is_changed = true;
        }
    }

    /// Begins to heal what is damaged, where a peer may have what it should hold.
    fn pump_heals(&mut self, now: Now) -> Result<(), I::Error> {
        let is_due = |damage: &Damage| damage.due.is_some_and(|due| due <= now.at);
        if self.peers.is_empty() || !self.verify.damaged.values().any(is_due) {
            for damage in self.verify.damaged.values_mut().filter(|damage| is_due(damage)) {
                damage.due = None;
            }
            return Ok(());
        }
        let due: Vec<_> = self.verify.damaged.iter().filter(|(_, d)| is_due(d)).map(|(path, _)| path.clone()).collect();
        for path in due {
            let can_be = self.begin_heal(&path)?;
            let is_begun = self.tasks.get(&path).is_some_and(|task| task.heals);
            if let Some(damage) = self.verify.damaged.get_mut(&path) {
                damage.is_tried |= is_begun;
                damage.due = can_be.then_some(now.at + HEAL_PAUSE);
            }
        }
        Ok(())
    }

    /// Sets out to put together what a damaged file should hold. Returns whether that can be tried again by
    /// itself, if it comes to nothing; else the next peer is waited for.
    fn begin_heal(&mut self, path: &RelPath) -> Result<bool, I::Error> {
        let is_busy = self.tasks.contains_key(path) || self.is_committing(path) || self.scans.awaits_look(path);
        if is_busy || self.retries.get(path).is_some_and(|retry| retry.due.is_some()) {
            return Ok(true);
        }
        let Some(local) = self.index.local(path)? else {
            return Ok(false);
        };
        let (Some(file), Some(stat), Some(recipe)) = (local.record.body.file(), local.stat, self.index.recipe(path)?)
        else {
            return Ok(false);
        };
        let content = file.content;
        let providers = self.who_may_have(&local)?;
        if providers.is_empty() {
            return Ok(false);
        }
        let mut stage = StageId { content, copy: 0 };
        while let Some(used) = self.stages.get(&stage) {
            if used.path == *path {
                return Ok(true);
            }
            stage.copy += 1;
        }
        self.stages.insert(stage, Stage { path: path.clone(), unanswered: 0, is_released: false });
        let mut task = Task {
            id: self.next_task(),
            base: local.record.version.clone(),
            target: local.record,
            counts: false,
            answers: VersionVector::default(),
            expect: Expect::Stat(stat),
            copy: None,
            providers,
            recipe: Some(recipe),
            stage,
            step: Step::Root { asked: false },
            heals: true,
        };
        self.plan_content(&mut task)?;
        self.tasks.insert(path.clone(), task);
        Ok(true)
    }

    /// Returns the connected peers that are not known to hold something else at a path.
    fn who_may_have(&self, local: &Local) -> Result<BTreeSet<DeviceId>, I::Error> {
        let mut providers = BTreeSet::new();
        for peer in self.peers.keys() {
            let remote = self.index.remote(peer, &local.record.path)?;
            if remote.is_none_or(|remote| remote.record.body.is_same_content(&local.record.body)) {
                providers.insert(*peer);
            }
        }
        Ok(providers)
    }
}
