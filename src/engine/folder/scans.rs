//! What is being looked at here, what was found so far, and what is not believed yet.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::time::Duration;

use crate::engine::effect::{Depth, JobId};
use crate::model::path::RelPath;
use crate::model::stat::Stat;

/// How often the whole folder is scanned while not all of it can be watched.
const UNWATCHED_INTERVAL: Duration = Duration::from_secs(60);
/// How often a missing root is looked for, and a file system inside the folder that is away.
const ROOT_INTERVAL: Duration = Duration::from_secs(5);
/// How long a path must be gone before it counts as deleted, and how long at most it is waited that
/// nothing is being looked at any more: it may turn up under another name, and then nothing need travel.
const GONE_PAUSE: Duration = Duration::from_millis(300);
const GONE_PATIENCE: Duration = Duration::from_secs(5);

/// A path that was not found where the index has something.
#[derive(Clone, Copy, Debug)]
pub(super) struct Gone {
    /// When that was seen.
    pub(super) since: Duration,
    /// The last reading that must end first: it may be of this file under another name.
    pub(super) last_reading: u64,
}

/// Returns how long a path must be gone before it counts as deleted.
pub(super) fn gone_pause(is_resting: bool) -> Duration {
    if is_resting { GONE_PAUSE } else { GONE_PATIENCE }
}

/// Scans under way, and what they have found so far.
#[derive(Debug)]
pub(super) struct Scans {
    pub(super) full: Option<JobId>,
    pub(super) partial: Option<JobId>,
    pub(super) full_wanted: bool,
    pub(super) full_done_at: Option<Duration>,
    pub(super) root_missing: Option<String>,
    pub(super) watch_limited: bool,
    /// Paths to look at.
    pub(super) dirty: BTreeMap<RelPath, Depth>,
    /// Paths that the partial scan under way was asked for.
    pub(super) looking: BTreeSet<RelPath>,
    /// Those of them that somebody else found meanwhile: which of the two looked later is not known.
    pub(super) contested: BTreeSet<RelPath>,
    /// Whether the full and the partial scan under way looked at the same time as another.
    pub(super) is_overlapped: (bool, bool),
    /// Paths that the scans under way did not find where the index has something.
    pub(super) gone: BTreeMap<JobId, BTreeSet<RelPath>>,
    /// Paths that are gone, but are not believed to be deleted yet.
    pub(super) gone_for_good: BTreeMap<RelPath, Gone>,
    pub(super) to_hash: BTreeMap<RelPath, (u64, Stat)>,
    pub(super) hashing: BTreeMap<RelPath, (u64, Stat)>,
    pub(super) hashes: u64,
    pub(super) hash_failures: BTreeMap<RelPath, u32>,
    /// Directories on another file system than before, by its number, or gone with one: what is not found below says
    /// nothing.
    pub(super) unmounted: BTreeMap<RelPath, Option<u64>>,
    /// When these were last looked for. No event tells that a file system is mounted.
    pub(super) unmounted_sought: Duration,
    /// File systems that were recognised under another device number than before.
    pub(super) renumbered: BTreeMap<u64, u64>,
    /// What commits touched, and the last scan that began before they ended.
    pub(super) touched_by_us: BTreeMap<RelPath, JobId>,
}

impl Scans {
    pub(super) fn new() -> Self {
        Self {
            full: None,
            partial: None,
            full_wanted: true,
            full_done_at: None,
            root_missing: None,
            watch_limited: false,
            dirty: BTreeMap::new(),
            looking: BTreeSet::new(),
            contested: BTreeSet::new(),
            is_overlapped: (false, false),
            gone: BTreeMap::new(),
            gone_for_good: BTreeMap::new(),
            to_hash: BTreeMap::new(),
            hashing: BTreeMap::new(),
            hashes: 0,
            hash_failures: BTreeMap::new(),
            unmounted: BTreeMap::new(),
            unmounted_sought: Duration::ZERO,
            renumbered: BTreeMap::new(),
            touched_by_us: BTreeMap::new(),
        }
    }

    pub(super) fn want_full(&mut self) {
        self.full_wanted = true;
    }

    pub(super) fn to_hash_len(&self) -> usize {
        self.to_hash.len()
    }

    pub(super) fn is_busy(&self) -> bool {
        self.full.is_some()
            || self.partial.is_some()
            || self.full_wanted
            || !self.dirty.is_empty()
            || !self.to_hash.is_empty()
            || !self.hashing.is_empty()
            || !self.gone_for_good.is_empty()
    }

    /// Whether a first look at the folder is yet to be finished.
    pub(super) fn is_first(&self) -> bool {
        self.full_done_at.is_none()
    }

    pub(super) fn poll_timeout(&self, rescan_interval: Duration) -> Option<Duration> {
        if self.full.is_some() {
            return None;
        }
        let interval = match (&self.root_missing, self.watch_limited) {
            (Some(_), _) => ROOT_INTERVAL,
            (None, true) => UNWATCHED_INTERVAL.min(rescan_interval),
            (None, false) => rescan_interval,
        };
        self.full_done_at.map(|done| done + interval)
    }

    /// When the file systems that are away are looked for again.
    pub(super) fn unmounted_due(&self) -> Option<Duration> {
        let is_any = !self.unmounted.is_empty() && self.root_missing.is_none();
        is_any.then(|| self.unmounted_sought + ROOT_INTERVAL)
    }

    pub(super) fn is_reading(&self, path: &RelPath) -> bool {
        self.to_hash.contains_key(path) || self.hashing.contains_key(path)
    }

    /// Whether a path is about to be looked at, or read: until then nothing is known of it that could be
    /// relied on.
    pub(super) fn awaits_look(&self, path: &RelPath) -> bool {
        self.is_looking_at(path) || self.is_reading(path) || self.gone_for_good.contains_key(path)
    }

    pub(super) fn is_same_file_system(&self, was: u64, is: u64) -> bool {
        was == is || self.renumbered.get(&was) == Some(&is)
    }

    /// Whether a path is, or lies below, a directory whose file system is away.
    pub(super) fn is_unmounted(&self, path: &RelPath) -> bool {
        !self.unmounted.is_empty()
            && (self.unmounted.contains_key(path) || path.ancestors().any(|dir| self.unmounted.contains_key(&dir)))
    }

    /// Whether what lies at a path is about to be seen anew.
    pub(super) fn is_looking_at(&self, path: &RelPath) -> bool {
        self.dirty.contains_key(path) || self.looking.contains(path)
    }

    pub(super) fn is_reading_below(&self, dir: &RelPath) -> bool {
        let below =
            |map: &BTreeMap<RelPath, (u64, Stat)>| map.range(dir.clone()..).take(2).any(|(path, _)| path.is_below(dir));
        below(&self.to_hash) || below(&self.hashing) || self.dirty.range(dir.clone()..).any(|(p, _)| p.is_below(dir))
    }

    /// Notes that a commit touched a path: scans that are under way may have looked before.
    pub(super) fn committed(&mut self, path: &RelPath, last_job: JobId) {
        self.gone_for_good.remove(path);
        for gone in self.gone.values_mut() {
            gone.remove(path);
        }
        if self.full.is_some() || self.partial.is_some() {
            self.touched_by_us.insert(path.clone(), last_job);
        }
    }

    /// Whether a commit has put something into a directory since a scan began.
    pub(super) fn was_touched_below(&self, dir: &RelPath, job: JobId) -> bool {
        let within = self.touched_by_us.range(dir.clone()..).skip_while(|(path, _)| *path == dir);
        within.take_while(|(path, _)| path.is_below(dir)).any(|(_, last)| job <= *last)
    }

    /// When the next path that is gone is to be believed deleted, if nothing happens before.
    pub(super) fn gone_due(&self, is_resting: bool) -> Option<Duration> {
        if self.root_missing.is_some() {
            return None;
        }
        let pause = gone_pause(is_resting);
        let free = self.gone_for_good.iter().filter(|(path, _)| !self.is_looking_above(path));
        free.map(|(_, gone)| gone.since + pause).min()
    }

    /// Whether a directory above is about to be seen anew.
    pub(super) fn is_looking_above(&self, path: &RelPath) -> bool {
        path.ancestors().any(|dir| self.is_looking_at(&dir))
    }

    /// Whether any file is being read, or about to be.
    pub(super) fn is_reading_any(&self) -> bool {
        !self.to_hash.is_empty() || !self.hashing.is_empty()
    }

    /// Whether nothing is being looked at.
    pub(super) fn is_resting(&self) -> bool {
        self.full.is_none() && self.partial.is_none() && self.dirty.is_empty() && !self.full_wanted
    }

    pub(super) fn note_overlap(&mut self) {
        if self.full.is_some() && self.partial.is_some() {
            self.is_overlapped = (true, true);
        }
    }

    /// Whether another scan looked while this one did, so that of two findings the later told may be
    /// the earlier seen.
    pub(super) fn overlaps(&self, job: JobId) -> bool {
        let (full, partial) = self.is_overlapped;
        (full && self.full == Some(job)) || (partial && self.partial == Some(job))
    }

    pub(super) fn first_reading(&self) -> Option<u64> {
        self.to_hash.values().chain(self.hashing.values()).map(|(number, _)| *number).min()
    }
}
