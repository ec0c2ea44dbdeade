//! Texts that were edited apart, and putting both edits together: what is kept for it, by whom it is done, and when.
//!
//! What a small text was lately is noted in the background, once a folder rests: see [`crate::disk::bases`]. The
//! engine tells of edits that were made apart while both versions are known; later only one of them is.
//!
//! A folder that merges by itself does so on every device that knows what both sides had seen. Several may do it at once:
//! from the same three texts comes the same text, and equal content written apart is agreement. None does it before
//! what lies at the path has seen both sides, so that what it writes is never taken for an edit of one of them alone.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;

use crate::config::merge::Merge;
use crate::daemon::folder::{Command, Settings};
use crate::daemon::place::Place;
use crate::daemon::pool::Pool;
use crate::daemon::run::wall_ns;
use crate::disk::bases::{Ancestor, Bases};
use crate::disk::read::{ReadError, Reader};
use crate::disk::root::Root;
use crate::engine::chunker::chunk_all;
use crate::engine::conflict;
use crate::engine::effect::Parting;
use crate::engine::folder::Folder;
use crate::engine::index::{Index, Local};
use crate::engine::merge::{MergeError, is_text, merge};
use crate::model::id::Sequence;
use crate::model::limits::MERGE_LEN_MAX;
use crate::model::path::RelPath;
use crate::store::error::StoreError;
use crate::store::index::SqliteIndex;

/// A folder rests once nothing has changed for so long.
const QUIET: Duration = Duration::from_millis(300);
/// In one that never rests something is noted so often.
const PATIENCE: Duration = Duration::from_secs(5);
/// Changes that are looked at in one go.
const BATCH_MAX: usize = 64;
/// Pause between two of these.
const BATCH_PAUSE: Duration = Duration::from_millis(50);
/// What came longer before the last change than this is not looked at: a large folder that came at once is not written
/// down as a whole. Sequences are microseconds, where the clock was right when they were given.
const BEHIND_MAX: u64 = 60_000_000;
/// Conflicts that are merged in one go.
const MERGES_MAX: usize = 16;
/// How often one that cannot be merged is tried again: what it lacks may be on its way.
const TRIES_MAX: u32 = 3;
/// Pause between two tries.
const TRY_PAUSE: Duration = Duration::from_secs(2);
/// When what is too old is looked for, after the beginning and then again and again.
const EXPIRE_FIRST: Duration = Duration::from_secs(60);
const EXPIRE_INTERVAL: Duration = Duration::from_secs(86_400);
const DAY_NS: i64 = 86_400_000_000_000;
/// Bytes that tell most files that are no text.
const SNIFF_LEN: usize = 4096;

/// Both sides of a conflict, as the index has them.
#[derive(Clone, Debug)]
pub struct Sides {
    /// The copy.
    pub copy: Local,
    /// What has the plain name.
    pub there: Local,
}

/// A text with both edits in it.
#[derive(Clone, Debug)]
pub struct Merged {
    /// What it was made of.
    pub sides: Sides,
    /// The text.
    pub text: Vec<u8>,
}

/// Why two sides were not merged. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum Unmerged {
    /// They meet, or one is no text.
    #[error("{path}: {why}")]
    Text {
        /// The file that it is about.
        path: RelPath,
        /// What is the matter.
        why: MergeError,
    },
    /// One is no file.
    #[error("{0}: it is no file")]
    NoFile(RelPath),
    /// It is not known what they began from.
    #[error("{0}: it is not known here what it was before both edits")]
    NoAncestor(RelPath),
    /// The devices are not done with each other yet.
    #[error("{0}: the devices have not settled yet which side has the name")]
    Unsettled(RelPath),
    /// Somebody writes to one.
    #[error("{0}: it changed at this moment")]
    Changed(RelPath),
    /// It cannot be read.
    #[error("{path}: it cannot be read")]
    Unreadable {
        /// Which.
        path: RelPath,
        /// Why.
        source: io::Error,
    },
}

impl Unmerged {
    /// Returns what to do about it.
    pub fn advice(&self) -> &'static str {
        match self {
            Self::Text { why: MergeError::Overlap { .. }, .. } => {
                "edit the file until it holds both (`kinfold conflicts show` shows how they differ), \
                 then `kinfold conflicts keep PATH merged`"
            }
            Self::NoAncestor(_) => {
                "another device may know; or put both into the file by hand, then `kinfold conflicts keep PATH merged`"
            }
            Self::Text { .. } | Self::NoFile(_) => {
                "look at both, then `kinfold conflicts keep PATH mine|theirs|both|merged`"
            }
            Self::Unsettled(_) | Self::Changed(_) => "try again in a moment",
            Self::Unreadable { .. } => "check its permissions",
        }
    }
}

/// Merges both sides of a conflict. Reads files; changes nothing.
pub fn merge_sides(root: &Root, bases: &Bases, sides: Sides) -> Result<Merged, Unmerged> {
    let Sides { copy, there } = &sides;
    let path = &there.record.path;
    let (theirs, ours) = (read_text(root, copy)?, read_text(root, there)?);
    let Some(copy_content) = copy.record.body.file().map(|file| file.content) else {
        return Err(Unmerged::NoFile(copy.record.path.clone()));
    };
    let unreadable = |source| Unmerged::Unreadable { path: path.clone(), source };
    let base = match bases.ancestor(root, path, copy_content, &there.record.version).map_err(unreadable)? {
        Ancestor::Text(base) => base,
        Ancestor::Unsettled => return Err(Unmerged::Unsettled(path.clone())),
        Ancestor::Unknown => return Err(Unmerged::NoAncestor(path.clone())),
    };
    match merge(&base, &ours, &theirs) {
        Ok(text) => Ok(Merged { sides, text }),
        Err(why) => Err(Unmerged::Text { path: path.clone(), why }),
    }
}

/// Reads a text that is what the index says of it.
fn read_text(root: &Root, local: &Local) -> Result<Vec<u8>, Unmerged> {
    let path = &local.record.path;
    let (Some(stat), Some(file)) = (&local.stat, local.record.body.file()) else {
        return Err(Unmerged::NoFile(path.clone()));
    };
    let text = |why| Unmerged::Text { path: path.clone(), why };
    let Some(len) = usize::try_from(file.size).ok().filter(|len| *len <= MERGE_LEN_MAX) else {
        return Err(text(MergeError::TooLong));
    };
    let read_error = |error| match error {
        ReadError::Changed => Unmerged::Changed(path.clone()),
        ReadError::Io(source) => Unmerged::Unreadable { path: path.clone(), source },
    };
    let reader = Reader::open(root, path, stat).map_err(read_error)?;
    let mut bytes = vec![0; len.min(SNIFF_LEN)];
    reader.read_exact_at(0, &mut bytes).map_err(read_error)?;
    if bytes.contains(&0) {
        return Err(text(MergeError::NotText));
    }
    bytes.resize(len, 0);
    reader.read_exact_at(0, &mut bytes).map_err(read_error)?;
    if chunk_all(&bytes).content_id() != file.content {
        return Err(Unmerged::Changed(path.clone()));
    }
    if is_text(&bytes) { Ok(bytes) } else { Err(text(MergeError::NotText)) }
}

/// What a folder's thread does for merging, between its other work.
#[derive(Debug, Default)]
pub(super) struct Merging {
    /// Changes up to here were looked at; `None` until that is known.
    noted: Option<Sequence>,
    noted_at: Option<Instant>,
    /// A batch is being written down.
    is_noting: Arc<AtomicBool>,
    /// The last change, and when it was first seen to be that.
    last: Sequence,
    last_at: Option<Instant>,
    /// Conflicts up to here were tried.
    tried: Option<Sequence>,
    tried_at: Option<Instant>,
    /// The copies that were tried, what both sides were then, and how often.
    tries: BTreeMap<RelPath, (Sequence, Sequence, u32)>,
    /// When what is too old is to be looked for.
    expire_at: Option<Instant>,
    is_cleared: bool,
}

type Engine = Folder<SqliteIndex>;

impl Merging {
    /// Notes what two edits had both seen.
    pub(super) fn part(&self, settings: &Settings, place: &Arc<Place>, pool: &Pool, parting: Parting) {
        if settings.merge == Merge::Off {
            return;
        }
        let place = place.clone();
        pool.run(move |_| {
            if let Some(root) = place.root() {
                note_failure(place.bases.part(&root, &parting, wall_ns()));
            }
        });
    }

    /// Does what is due.
    pub(super) fn tend(
        &mut self,
        engine: &Engine,
        (settings, place, pool): (&Settings, &Arc<Place>, &Pool),
        commands: &Sender<Command>,
    ) -> Result<(), StoreError> {
        let Some(root) = place.root() else {
            return Ok(());
        };
        if !keeps(settings) {
            if !std::mem::replace(&mut self.is_cleared, true) {
                note_failure(place.bases.clear(&root));
            }
            return Ok(());
        }
        let (now, last) = (Instant::now(), engine.index().last_sequence());
        if self.last_at.is_none() || last != self.last {
            (self.last, self.last_at) = (last, Some(now));
        }
        if self.noted.is_none() {
            let progress = place.bases.progress(&root, engine.index().incarnation());
            self.noted = Some(progress.ok().flatten().unwrap_or_default());
        }
        if self.note_due().is_some_and(|due| due <= now) {
            self.note(engine, place, pool)?;
        }
        if self.merge_due(settings).is_some_and(|due| due <= now) {
            self.merge(engine, place, pool, commands)?;
        }
        if *self.expire_at.get_or_insert(now + EXPIRE_FIRST) <= now {
            self.expire_at = Some(now + EXPIRE_INTERVAL);
            let (place, until_ns) =
                (place.clone(), wall_ns().saturating_sub(DAY_NS.saturating_mul(settings.history_days.into())));
            pool.run(move |_| note_failure(place.bases.expire(&root, until_ns)));
        }
        Ok(())
    }

    /// Returns how long it is until something is due; `None`: nothing will be, unless something happens.
    pub(super) fn wait(&self, settings: &Settings) -> Option<Duration> {
        if !keeps(settings) {
            return None;
        }
        let due = [self.note_due(), self.merge_due(settings), self.expire_at].into_iter().flatten().min()?;
        Some(due.saturating_duration_since(Instant::now()))
    }

    fn note_due(&self) -> Option<Instant> {
        let (noted, last_at) = (self.noted?, self.last_at?);
        if noted >= self.last {
            return None;
        }
        let rests = last_at + QUIET;
        let due = self.noted_at.map_or(rests, |at| rests.min(at + PATIENCE).max(at + BATCH_PAUSE));
        // Whoever ends a batch wakes nobody; another look is cheap.
        Some(if self.is_noting.load(Ordering::Acquire) { due.max(Instant::now() + BATCH_PAUSE) } else { due })
    }

    fn merge_due(&self, settings: &Settings) -> Option<Instant> {
        if settings.merge != Merge::Text {
            return None;
        }
        let rests = self.last_at? + QUIET;
        let is_new = self.tried.is_none_or(|tried| tried < self.last);
        let has_more = self.tries.values().any(|(.., tries)| *tries < TRIES_MAX);
        match self.tried_at {
            Some(at) if is_new || has_more => Some(rests.max(at + TRY_PAUSE)),
            Some(_) => None,
            None => Some(rests),
        }
    }

    /// Has a batch of changes noted: the states of small texts, and where none lies any more.
    fn note(&mut self, engine: &Engine, place: &Arc<Place>, pool: &Pool) -> Result<(), StoreError> {
        let noted = self.noted.unwrap_or_default();
        let since = noted.max(Sequence(self.last.0.saturating_sub(BEHIND_MAX)));
        let changes = engine.index().changes_since(since, BATCH_MAX)?;
        let through = match changes.last() {
            Some((local, _)) if changes.len() == BATCH_MAX => local.sequence,
            _ => self.last,
        };
        (self.noted, self.noted_at) = (Some(through), Some(Instant::now()));
        let changes: Vec<Local> = changes.into_iter().map(|(local, _)| local).collect();
        let (place, is_noting, incarnation) = (place.clone(), self.is_noting.clone(), engine.index().incarnation());
        is_noting.store(true, Ordering::Release);
        pool.run(move |_| {
            if let Some(root) = place.root() {
                for local in &changes {
                    note_failure(note_one(&root, &place.bases, local));
                }
                note_failure(place.bases.set_progress(&root, incarnation, through));
            }
            is_noting.store(false, Ordering::Release);
        });
        Ok(())
    }

    /// Has all conflicts tried that were not tried yet as they are now.
    fn merge(
        &mut self,
        engine: &Engine,
        place: &Arc<Place>,
        pool: &Pool,
        commands: &Sender<Command>,
    ) -> Result<(), StoreError> {
        (self.tried, self.tried_at) = (Some(self.last), Some(Instant::now()));
        let mut tries = BTreeMap::new();
        let mut all = Vec::new();
        for copy in engine.index().conflicts()? {
            let Some(sides) = sides_of(engine, copy)? else {
                continue;
            };
            let (path, now) = (sides.copy.record.path.clone(), (sides.copy.sequence, sides.there.sequence));
            let before = self.tries.get(&path).filter(|(copy, there, _)| (*copy, *there) == now);
            let mut count = before.map_or(0, |(.., count)| *count);
            if count < TRIES_MAX && all.len() < MERGES_MAX {
                all.push(sides);
                count += 1;
            }
            tries.insert(path, (now.0, now.1, count));
        }
        self.tries = tries;
        if all.is_empty() {
            return Ok(());
        }
        let (place, commands) = (place.clone(), commands.clone());
        pool.run(move |_| {
            let Some(root) = place.root() else {
                return;
            };
            for sides in all {
                match merge_sides(&root, &place.bases, sides) {
                    // A folder that has ended does not want to know.
                    Ok(merged) => drop(commands.send(Command::Merge(Box::new(merged), None))),
                    Err(error) => tracing::debug!(%error, "a conflict stays"),
                }
            }
        });
        Ok(())
    }
}

/// Returns both sides of a conflict, if both are there.
pub(super) fn sides_of(engine: &Engine, copy: Local) -> Result<Option<Sides>, StoreError> {
    let Some(original) = conflict::original(engine.index(), &copy.record.path)? else {
        return Ok(None);
    };
    let there = engine.index().local(&original)?.filter(|local| local.record.body.is_live() && !local.ignored);
    Ok(there.map(|there| Sides { copy, there }))
}

/// Whether states of texts are noted: no longer than history is kept, and not where it is off.
fn keeps(settings: &Settings) -> bool {
    settings.merge != Merge::Off && settings.history_days > 0
}

fn note_one(root: &Root, bases: &Bases, local: &Local) -> io::Result<()> {
    let path = &local.record.path;
    if local.ignored || conflict::is_copy(path) {
        return Ok(());
    }
    match read_text(root, local) {
        Ok(text) => bases.note(root, path, &local.record.version, &text, wall_ns()),
        // What it is now will be a change of its own.
        Err(Unmerged::Changed(_) | Unmerged::Unreadable { .. }) => Ok(()),
        Err(_) => bases.forget(root, path),
    }
}

/// It costs no more than that a person may have to merge by hand.
fn note_failure(result: io::Result<()>) {
    if let Err(error) = result {
        tracing::debug!(%error, "what a text was is not noted");
    }
}
