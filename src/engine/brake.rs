//! The brake: a change set that would delete or rewrite much of a folder waits for a person.
//!
//! What counts is a file that lies here and would be gone, or would have another content, once a peer's
//! change is taken. What does not count: what comes in addition, what changes only mode or time, what
//! becomes a conflict copy, what lies elsewhere as well or turns up elsewhere (a rename), what is empty,
//! and what the same peer itself made in the same breath (see `Brake::is_young`).
//!
//! Changes that count are not judged one by one but together, once no more of them come (`Brake::judge`):
//! with what went in the last hour, do they exceed the [`Thresholds`]? If they do, all of them are held.
//! Where something of a peer is held, only handfuls of its further changes go on.
//!
//! Each peer has an account of its own, which says how much was let through and when. It is stored with
//! the index, so that a restart is no way around it. Which changes are held, and which were let through,
//! stands with the peers' records themselves ([`Standing`]).

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use crate::model::brake::Thresholds;
use crate::model::id::DeviceId;
use crate::model::path::RelPath;

/// For how long what was let through counts.
pub const WINDOW: Duration = Duration::from_secs(3600);
/// What is let through within this is one entry of an account.
const GRAIN: Duration = Duration::from_secs(60);
/// So many files that are rewritten are judged at once; where more come, it is waited for the rest of them.
const HANDFUL: usize = 25;
/// Time in which the changes that belong to a handful come.
const HANDFUL_TIME: Duration = Duration::from_secs(1);
/// Where it is more than a handful, the rest of them has come when nothing came for so long,
const LOOK_AHEAD: Duration = Duration::from_millis(300);
/// of deletions, which are in less of a hurry and of which the first already may be one of many, for so long,
const LOOK_AHEAD_GONE: Duration = Duration::from_millis(500);
/// and at the latest after this.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);
/// Changes that wait to be judged; beyond that they are judged as they come.
pub(super) const WAITING_MAX: usize = 1 << 16;
/// Silence of all peers after which what they made is no longer young.
const BREATH: Duration = Duration::from_secs(3);
/// Age at which nothing is young any more, however much goes on.
const YOUTH_MAX: Duration = Duration::from_secs(60);
/// Paths that are remembered as heirs of others; if there are more, nothing counts as young.
const HEIRS_MAX: usize = 1 << 16;
/// Paths that are remembered across a restart; if there are more, nothing from before it counts as young.
const STORED_HEIRS_MAX: usize = 4096;
/// Longest form of the accounts that is read, in bytes.
const STORED_LEN_MAX: usize = 4 << 20;

/// Where a peer's record stands with the brake.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub enum Standing {
    /// It calls for nothing: the peer leaves the path out, or this device does.
    Apart,
    /// It was not judged, or needs no judgement.
    #[default]
    Open,
    /// It is held; a file lies here that it would delete or rewrite.
    Held,
    /// It is held; it would remove a directory in which something lies that is held.
    HeldDir,
    /// It was let through, by the brake or by a person.
    Cleared,
}

impl Standing {
    /// Returns whether it is held.
    pub fn is_held(self) -> bool {
        matches!(self, Self::Held | Self::HeldDir)
    }
}

/// How much of a peer is held.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct HeldCounts {
    /// Files that would be deleted.
    pub deleted: u64,
    /// Files that would get another content.
    pub rewritten: u64,
    /// Directories that would be removed with them.
    pub dirs: u64,
}

impl HeldCounts {
    /// Returns the number of files.
    pub fn files(&self) -> u64 {
        self.deleted + self.rewritten
    }

    fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    fn of(&mut self, standing: Standing, is_live: bool) -> Option<&mut u64> {
        match standing {
            Standing::Held if is_live => Some(&mut self.rewritten),
            Standing::Held => Some(&mut self.deleted),
            Standing::HeldDir => Some(&mut self.dirs),
            Standing::Apart | Standing::Open | Standing::Cleared => None,
        }
    }
}

/// A change that is to be judged.
#[derive(Clone, Debug)]
pub(super) struct Candidate {
    pub(super) path: RelPath,
    /// Who would have us take it.
    pub(super) peers: Vec<DeviceId>,
    /// Whether it deletes, and does not only rewrite.
    pub(super) is_gone: bool,
    pub(super) lives_on: LivesOn,
}

/// Whether the content that a change takes from its path lies elsewhere.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum LivesOn {
    /// It does not.
    No,
    /// At a place that stays as it is.
    There,
    /// At a place that gets it by another change which is judged together with this.
    Coming,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Ruling {
    Clear,
    Hold,
}

/// What of a peer was let through lately.
#[derive(Clone, Debug, Default)]
struct Account {
    entries: VecDeque<Entry>,
    /// Paths that were counted, as hashes, and until when: a file that is rewritten again and again
    /// counts once.
    counted: BTreeMap<u64, Duration>,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    /// When the first of its changes would expire; all do when the last does.
    first: Duration,
    until: Duration,
    deleted: u64,
    rewritten: u64,
}

impl Account {
    fn expire(&mut self, at: Duration) {
        self.entries.retain(|entry| entry.until > at);
        if self.entries.is_empty() {
            self.counted.clear();
        } else {
            self.counted.retain(|_, until| *until > at);
        }
    }

    fn deleted(&self) -> u64 {
        self.entries.iter().map(|entry| entry.deleted).sum()
    }

    fn sum(&self) -> u64 {
        self.entries.iter().map(|entry| entry.deleted + entry.rewritten).sum()
    }

    fn charge(&mut self, at: Duration, path: u64, is_gone: bool) {
        let until = at + WINDOW;
        if self.entries.back().is_none_or(|entry| until >= entry.first + GRAIN) {
            self.entries.push_back(Entry { first: until, until, deleted: 0, rewritten: 0 });
        }
        if let Some(entry) = self.entries.back_mut() {
            entry.until = entry.until.max(until);
            *(if is_gone { &mut entry.deleted } else { &mut entry.rewritten }) += 1;
        }
        self.counted.insert(path, until);
    }
}

/// A time in which peers tell of changes without a pause.
#[derive(Clone, Debug)]
struct Breath {
    began_ns: i64,
    /// When a peer told of something last; `None` where that was before a restart, for what peers did
    /// while we were away is not known to have been nothing.
    last: Option<Duration>,
    /// Paths that were given the content of others: they are as old as these.
    heirs: BTreeSet<u64>,
}

/// A change that waits to be judged.
#[derive(Clone, Debug)]
pub(super) struct Waiting {
    pub(super) since: Duration,
    /// Whether it deletes, and does not only rewrite.
    pub(super) is_gone: bool,
    /// Who would have us take it.
    pub(super) peers: Vec<DeviceId>,
}

/// The accounts as they are stored: per peer what is held (deleted, rewritten, directories), then until
/// when, by the wall clock in nanoseconds, how much counts that was deleted and rewritten.
///
/// With them the breath: when it began, the key of its heirs' hashes, and these.
type Stored = (Vec<StoredAccount>, Option<(i64, [u8; 32], Vec<u64>)>);
type StoredAccount = ([u8; 32], [u64; 3], Vec<StoredEntry>);
type StoredEntry = (i64, u64, u64);

/// The brake of one folder.
#[derive(Debug)]
pub(super) struct Brake {
    thresholds: Option<Thresholds>,
    /// Makes the hashes of paths unforeseeable, so that nobody can make two of them equal.
    key: [u8; 32],
    accounts: BTreeMap<DeviceId, Account>,
    /// Entries as they were stored, until the time is known.
    stored: Vec<(DeviceId, Vec<StoredEntry>)>,
    held: BTreeMap<DeviceId, HeldCounts>,
    waiting: BTreeMap<RelPath, Waiting>,
    /// When the last change came that rewrites, and the last that deletes.
    last_arrival: [Duration; 2],
    /// How many were judged lately, and when the first of them was.
    handful: (usize, Duration),
    breath: Option<Breath>,
    /// When to judge, if nothing happens before.
    pub(super) due: Option<Duration>,
    is_changed: bool,
}

impl Brake {
    /// Begins with the accounts as they were stored; with `None` for thresholds everything passes.
    pub(super) fn open(thresholds: Option<Thresholds>, key: [u8; 32], stored: &[u8]) -> Self {
        // What cannot be read was written by no version of ours; the records keep their standing.
        let (stored, breath): Stored = Some(stored)
            .filter(|bytes| !bytes.is_empty() && bytes.len() <= STORED_LEN_MAX)
            .and_then(|bytes| postcard::from_bytes(bytes).ok())
            .unwrap_or_default();
        let mut held = BTreeMap::new();
        let mut accounts = Vec::new();
        for (device, [deleted, rewritten, dirs], entries) in stored {
            let device = DeviceId::from_public_key(device);
            let counts = HeldCounts { deleted, rewritten, dirs };
            if !counts.is_empty() {
                held.insert(device, counts);
            }
            accounts.push((device, entries));
        }
        let key = breath.as_ref().map_or(key, |(_, key, _)| *key);
        let breath =
            breath.map(|(began_ns, _, heirs)| Breath { began_ns, last: None, heirs: heirs.into_iter().collect() });
        Self {
            thresholds,
            key,
            accounts: BTreeMap::new(),
            stored: accounts,
            held,
            waiting: BTreeMap::new(),
            last_arrival: [Duration::ZERO; 2],
            handful: (0, Duration::ZERO),
            breath,
            due: None,
            is_changed: false,
        }
    }

    /// Returns the accounts for storing, if they changed since they were stored.
    pub(super) fn changed(&mut self, at: Duration, wall_ns: i64) -> Option<Vec<u8>> {
        if !std::mem::take(&mut self.is_changed) {
            return None;
        }
        self.wake(at, wall_ns);
        let devices: BTreeSet<_> = self.accounts.keys().chain(self.held.keys()).copied().collect();
        let mut stored = Vec::new();
        for device in devices {
            let HeldCounts { deleted, rewritten, dirs } = self.held.get(&device).copied().unwrap_or_default();
            let entries = self.accounts.get(&device).into_iter().flat_map(|account| &account.entries);
            let entries: Vec<_> = entries
                .filter(|entry| entry.until > at)
                .map(|e| (wall_ns.saturating_add(nanoseconds(e.until - at)), e.deleted, e.rewritten))
                .collect();
            if !entries.is_empty() || deleted + rewritten + dirs > 0 {
                stored.push((*device.as_bytes(), [deleted, rewritten, dirs], entries));
            }
        }
        let breath = self.breath.as_ref().filter(|breath| breath.heirs.len() <= STORED_HEIRS_MAX);
        let breath = breath.map(|breath| (breath.began_ns, self.key, breath.heirs.iter().copied().collect()));
        if stored.is_empty() && breath.is_none() {
            return Some(Vec::new());
        }
        let stored: Stored = (stored, breath);
        postcard::to_allocvec(&stored).ok()
    }

    /// Gives stored entries their place in time. Where the wall clock went back meanwhile, they count for
    /// a whole window from now on.
    fn wake(&mut self, at: Duration, wall_ns: i64) {
        for (device, entries) in std::mem::take(&mut self.stored) {
            let account = self.accounts.entry(device).or_default();
            for (until_ns, deleted, rewritten) in entries {
                let left = until_ns.saturating_sub(wall_ns).clamp(0, nanoseconds(WINDOW));
                let until = at + Duration::from_nanos(left.unsigned_abs());
                account.entries.push_back(Entry { first: until, until, deleted, rewritten });
            }
            account.entries.make_contiguous().sort_by_key(|entry| entry.until);
        }
    }

    pub(super) fn is_on(&self) -> bool {
        self.thresholds.is_some()
    }

    // -------------------------------------------------------------------------------- what is held

    /// Returns how much of each peer is held.
    pub(super) fn held(&self) -> &BTreeMap<DeviceId, HeldCounts> {
        &self.held
    }

    /// Takes note that a record got another standing, or came or went.
    pub(super) fn stand(&mut self, peer: &DeviceId, before: Option<(Standing, bool)>, after: Option<(Standing, bool)>) {
        for (record, is_after) in [(before, false), (after, true)] {
            let Some((standing, is_live)) = record.filter(|(standing, _)| standing.is_held()) else {
                continue;
            };
            let counts = self.held.entry(*peer).or_default();
            if let Some(count) = counts.of(standing, is_live) {
                *count = if is_after { count.saturating_add(1) } else { count.saturating_sub(1) };
            }
            if counts.is_empty() {
                self.held.remove(peer);
            }
            self.is_changed = true;
        }
    }

    /// All that a peer held is void.
    pub(super) fn forget_held(&mut self, peer: &DeviceId) {
        self.is_changed |= self.held.remove(peer).is_some();
    }

    /// A peer goes by another id from now on: what it has done counts as done under that.
    pub(super) fn rename(&mut self, from: &DeviceId, to: &DeviceId) {
        self.is_changed |= self.accounts.contains_key(from) || self.held.contains_key(from) || !self.stored.is_empty();
        if let Some(former) = self.accounts.remove(from) {
            let account = self.accounts.entry(*to).or_default();
            account.counted.extend(former.counted);
            account.entries.extend(former.entries);
            account.entries.make_contiguous().sort_by_key(|entry| entry.until);
        }
        self.stored.iter_mut().filter(|(peer, _)| peer == from).for_each(|(peer, _)| *peer = *to);
        if let Some(held) = self.held.remove(from) {
            self.held.insert(*to, held);
        }
        for waiting in self.waiting.values_mut() {
            waiting.peers.iter_mut().filter(|peer| *peer == from).for_each(|peer| *peer = *to);
        }
    }

    /// A person looked: what went before does not count any more.
    pub(super) fn begin_anew(&mut self) {
        self.accounts.clear();
        self.stored.clear();
        self.is_changed = true;
    }

    // ------------------------------------------------------------------------------------- youth

    /// A peer told of changes.
    pub(super) fn note_arrival(&mut self, at: Duration, wall_ns: i64) {
        match &mut self.breath {
            Some(breath) if breath.last.is_none_or(|last| at.saturating_sub(last) <= BREATH) => breath.last = Some(at),
            _ => {
                self.breath = Some(Breath { began_ns: wall_ns, last: Some(at), heirs: BTreeSet::new() });
                self.is_changed = true;
            }
        }
    }

    /// Returns whether what lies at a path came here in the breath that is being drawn, a minute ago at
    /// most: what a peer makes and removes again at once, as a build or a test does, is nobody's loss.
    ///
    /// A clock that jumps makes things old, never young.
    pub(super) fn is_young(&self, path: &RelPath, since_ns: i64, wall_ns: i64) -> bool {
        let Some(breath) = &self.breath else {
            return false;
        };
        let began_ns = breath.began_ns.max(wall_ns.saturating_sub(nanoseconds(YOUTH_MAX)));
        (began_ns..=wall_ns).contains(&since_ns) && !breath.heirs.contains(&self.hash(path))
    }

    /// A path got the content of another, which is to go: it is as old as that was.
    pub(super) fn inherit(&mut self, path: &RelPath) {
        let hash = self.hash(path);
        if let Some(breath) = &mut self.breath {
            if breath.heirs.len() < HEIRS_MAX {
                self.is_changed |= breath.heirs.insert(hash);
            } else {
                breath.began_ns = i64::MAX;
            }
        }
    }

    fn hash(&self, path: &RelPath) -> u64 {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&blake3::keyed_hash(&self.key, path.as_bytes()).as_bytes()[..8]);
        u64::from_le_bytes(bytes)
    }

    // ----------------------------------------------------------------------------------- judgement

    /// Lets a change wait until it is judged together with what comes along with it.
    pub(super) fn wait(&mut self, path: &RelPath, waiting: Waiting) {
        match self.waiting.get_mut(path) {
            Some(known) => *known = Waiting { since: known.since, ..waiting },
            None => {
                self.last_arrival[usize::from(waiting.is_gone)] = waiting.since;
                self.waiting.insert(path.clone(), waiting);
            }
        }
    }

    pub(super) fn is_full(&self) -> bool {
        self.waiting.len() >= WAITING_MAX
    }

    /// Takes all that waits; what is not judged goes back by [`Brake::wait_on`].
    pub(super) fn take_waiting(&mut self) -> BTreeMap<RelPath, Waiting> {
        std::mem::take(&mut self.waiting)
    }

    pub(super) fn wait_on(&mut self, path: RelPath, waiting: Waiting) {
        self.waiting.insert(path, waiting);
    }

    pub(super) fn waits(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Returns when the oldest change that waits and only rewrites has waited long enough.
    pub(super) fn patience_ends(&self) -> Option<Duration> {
        let rewrites = self.waiting.values().filter(|waiting| !waiting.is_gone);
        rewrites.map(|waiting| waiting.since + PATIENCE).min()
    }

    /// Returns when to judge what waits of one kind: now, as long as it is a handful, or where nothing that is
    /// held could come of it. `None` where nothing of the kind waits.
    pub(super) fn judge_at(&self, at: Duration, is_gone: bool, all: u64) -> Option<Duration> {
        let of_kind = self.waiting.values().filter(|waiting| waiting.is_gone == is_gone);
        let (count, first) = of_kind.fold((0, None), |(count, first), waiting| {
            (count + 1, Some(first.map_or(waiting.since, |first: Duration| first.min(waiting.since))))
        });
        let first = first?;
        if self.thresholds.as_ref().is_none_or(|thresholds| all <= thresholds.limit(all)) {
            return Some(at);
        }
        let (judged, since) = self.handful;
        let judged = if at.saturating_sub(since) < HANDFUL_TIME { judged } else { 0 };
        if !is_gone && count + judged <= HANDFUL {
            return Some(at);
        }
        let look_ahead = if is_gone { LOOK_AHEAD_GONE } else { LOOK_AHEAD };
        Some((self.last_arrival[usize::from(is_gone)] + look_ahead).min(first + PATIENCE))
    }

    /// Judges changes that came together. `all` is the number of files that lie here.
    ///
    /// The rulings are in the order of the candidates. What is let through is charged to the accounts of
    /// those who would have us take it.
    pub(super) fn judge(&mut self, at: Duration, wall_ns: i64, all: u64, candidates: &[Candidate]) -> Vec<Ruling> {
        let Some(thresholds) = self.thresholds.clone() else {
            return vec![Ruling::Clear; candidates.len()];
        };
        self.wake(at, wall_ns);
        let hashes: Vec<_> = candidates.iter().map(|candidate| self.hash(&candidate.path)).collect();
        let mut counts: BTreeMap<DeviceId, u64> = BTreeMap::new();
        self.accounts.values_mut().for_each(|account| account.expire(at));
        for (candidate, hash) in candidates.iter().zip(&hashes) {
            for peer in &candidate.peers {
                let account = self.accounts.entry(*peer).or_default();
                if candidate.lives_on == LivesOn::No && !account.counted.contains_key(hash) {
                    *counts.entry(*peer).or_default() += 1;
                }
            }
        }
        let mut over = BTreeSet::new();
        for (peer, count) in counts {
            let account = self.accounts.entry(peer).or_default();
            // What was deleted within the window lay here when it began.
            let limit = thresholds.limit(all.saturating_add(account.deleted()));
            let is_watched = self.held.contains_key(&peer) && count > HANDFUL as u64;
            if account.sum().saturating_add(count) > limit || is_watched {
                over.insert(peer);
            }
        }
        let mut rulings = Vec::with_capacity(candidates.len());
        for (candidate, hash) in candidates.iter().zip(hashes) {
            let is_over = |peer: &DeviceId| over.contains(peer);
            let is_new = |peer: &DeviceId| !self.accounts.get(peer).is_some_and(|a| a.counted.contains_key(&hash));
            let holds = match candidate.lives_on {
                LivesOn::There => false,
                // Where its content would come to lie is held perhaps; then this has to stay.
                LivesOn::Coming => candidate.peers.iter().any(is_over),
                LivesOn::No => candidate.peers.iter().any(|peer| is_over(peer) && is_new(peer)),
            };
            rulings.push(if holds { Ruling::Hold } else { Ruling::Clear });
            if !holds && candidate.lives_on == LivesOn::No {
                for peer in &candidate.peers {
                    let account = self.accounts.entry(*peer).or_default();
                    if !account.counted.contains_key(&hash) {
                        account.charge(at, hash, candidate.is_gone);
                        self.is_changed = true;
                    }
                }
            }
        }
        self.accounts.retain(|_, account| !account.entries.is_empty());
        if at.saturating_sub(self.handful.1) >= HANDFUL_TIME {
            self.handful = (0, at);
        }
        self.handful.0 += candidates.len();
        rulings
    }
}

fn nanoseconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const WALL: i64 = 1_700_000_000_000_000_000;

    fn peer(n: u8) -> DeviceId {
        DeviceId::from_public_key([n; 32])
    }

    fn path(n: usize) -> RelPath {
        RelPath::parse(format!("f{n}").as_bytes()).unwrap()
    }

    fn deletions(of: u8, numbers: std::ops::Range<usize>) -> Vec<Candidate> {
        let candidate = |n| Candidate { path: path(n), peers: vec![peer(of)], is_gone: true, lives_on: LivesOn::No };
        numbers.map(candidate).collect()
    }

    fn open(stored: &[u8]) -> Brake {
        Brake::open(Some(Thresholds::default()), [1; 32], stored)
    }

    fn seconds(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    /// How many of so many deletions in a folder of 400 files are let through; a hundred may go at first, and
    /// as these are 500 files then, 25 more.
    fn cleared(brake: &mut Brake, at: Duration, wall_ns: i64, numbers: std::ops::Range<usize>) -> usize {
        let rulings = brake.judge(at, wall_ns, 400, &deletions(2, numbers));
        rulings.into_iter().filter(|ruling| *ruling == Ruling::Clear).count()
    }

    #[test]
    fn accounts_survive_being_stored() {
        let mut brake = open(&[]);
        assert_eq!(brake.changed(seconds(0), WALL), None);
        assert_eq!(cleared(&mut brake, seconds(10), WALL, 0..100), 100);
        brake.stand(&peer(3), None, Some((Standing::Held, true)));
        brake.stand(&peer(3), None, Some((Standing::HeldDir, false)));
        let stored = brake.changed(seconds(10), WALL).unwrap();
        assert_eq!(brake.changed(seconds(10), WALL), None);
        let mut brake = open(&stored);
        assert_eq!(brake.held()[&peer(3)], HeldCounts { deleted: 0, rewritten: 1, dirs: 1 });
        // The clock of this process begins anew; half an hour went by on the wall.
        let later = WALL + 1800 * 1_000_000_000;
        assert_eq!(cleared(&mut brake, seconds(5), later, 100..126), 0);
        assert_eq!(cleared(&mut brake, seconds(5 + 1790), later, 100..126), 0);
        assert_eq!(cleared(&mut brake, seconds(5 + 1801), later, 100..126), 26);
    }

    #[test]
    fn a_clock_that_was_set_back_forgets_nothing_and_garbage_is_no_account() {
        let mut brake = open(&[]);
        cleared(&mut brake, seconds(10), WALL, 0..100);
        let stored = brake.changed(seconds(10), WALL).unwrap();
        let mut brake = open(&stored);
        assert_eq!(cleared(&mut brake, seconds(0), WALL - (1 << 58), 100..126), 0);
        assert_eq!(cleared(&mut brake, WINDOW + seconds(1), WALL, 100..126), 26, "but it does not count for ever");
        for garbage in [&[0xff; 40][..], &stored[..stored.len() - 1], &vec![0; STORED_LEN_MAX + 1]] {
            assert!(open(garbage).held().is_empty());
        }
        let mut brake = open(&stored);
        brake.begin_anew();
        assert_eq!(brake.changed(seconds(0), WALL), Some(Vec::new()));
    }

    #[test]
    fn all_of_a_change_set_is_held_but_for_what_lives_on() {
        let mut brake = open(&[]);
        let mut candidates = deletions(2, 0..103);
        candidates[0].lives_on = LivesOn::There;
        candidates[1].lives_on = LivesOn::Coming;
        candidates[2].peers = vec![peer(3)];
        let rulings = brake.judge(seconds(0), WALL, 400, &candidates);
        assert!(rulings.iter().all(|ruling| *ruling == Ruling::Clear), "a hundred count for one, one for the other");
        let mut brake = open(&[]);
        candidates.extend(deletions(2, 200..201));
        let rulings = brake.judge(seconds(0), WALL, 400, &candidates);
        // What would come to lie where something is held has to stay.
        assert_eq!(rulings[..4], [Ruling::Clear, Ruling::Hold, Ruling::Clear, Ruling::Hold]);
        assert!(rulings[3..].iter().all(|ruling| *ruling == Ruling::Hold));
    }

    #[test]
    fn while_something_is_held_handfuls_go_on() {
        let mut brake = open(&[]);
        brake.stand(&peer(2), None, Some((Standing::Held, false)));
        assert_eq!(cleared(&mut brake, seconds(0), WALL, 0..26), 0);
        assert_eq!(cleared(&mut brake, seconds(0), WALL, 0..25), 25);
        brake.stand(&peer(2), Some((Standing::Held, false)), Some((Standing::Cleared, false)));
        assert!(brake.held().is_empty());
        assert_eq!(cleared(&mut brake, seconds(0), WALL, 25..100), 75);
    }

    #[test]
    fn a_handful_is_judged_at_once_and_more_when_no_more_come() {
        let mut brake = open(&[]);
        let waiting = |at| Waiting { since: at, is_gone: false, peers: vec![peer(2)] };
        for n in 0..25 {
            brake.wait(&path(n), waiting(seconds(1)));
        }
        let judge_at = |brake: &Brake, at| brake.judge_at(seconds(at), false, 400).unwrap();
        assert_eq!(judge_at(&brake, 1), seconds(1));
        brake.wait(&path(25), waiting(seconds(1)));
        assert_eq!(judge_at(&brake, 1), seconds(1) + LOOK_AHEAD);
        assert_eq!(brake.judge_at(seconds(1), false, 100), Some(seconds(1)), "all of so few files may go");
        brake.wait(&path(26), waiting(seconds(2)));
        assert_eq!(judge_at(&brake, 2), seconds(2) + LOOK_AHEAD);
        brake.wait(&path(27), waiting(seconds(6)));
        assert_eq!(judge_at(&brake, 6), seconds(1) + PATIENCE, "whoever never rests is not waited for");
        assert_eq!(brake.judge_at(seconds(6), true, 400), None);
        brake.wait(&path(28), Waiting { is_gone: true, ..waiting(seconds(6)) });
        assert_eq!(brake.judge_at(seconds(6), true, 400), Some(seconds(6) + LOOK_AHEAD_GONE));
    }

    #[test]
    fn what_a_peer_just_made_is_still_young_after_a_restart_and_what_it_renamed_as_old_as_before() {
        let mut brake = open(&[]);
        brake.note_arrival(seconds(1), WALL);
        brake.inherit(&path(2));
        let stored = brake.changed(seconds(1), WALL).unwrap();
        let mut brake = Brake::open(Some(Thresholds::default()), [9; 32], &stored);
        let second = 1_000_000_000;
        brake.note_arrival(seconds(9), WALL + 20 * second);
        let is_young = |n, wall_ns| brake.is_young(&path(n), WALL + 1, wall_ns);
        assert!(is_young(1, WALL + 20 * second));
        assert!(!is_young(2, WALL + 20 * second));
        assert!(!is_young(1, WALL + 62 * second), "but not for ever");
        brake.note_arrival(seconds(20), WALL + 31 * second);
        assert!(!brake.is_young(&path(1), WALL + 1, WALL + 31 * second), "a new breath");
    }

    #[test]
    fn a_clock_that_jumps_makes_nothing_young() {
        let mut brake = open(&[]);
        assert!(!brake.is_young(&path(1), WALL, WALL), "before anything came");
        brake.note_arrival(seconds(1), WALL);
        assert!(brake.is_young(&path(1), WALL + 1, WALL + 2));
        assert!(!brake.is_young(&path(1), WALL - 1, WALL + 2), "it was here before");
        assert!(!brake.is_young(&path(1), WALL + 3, WALL + 2), "it comes from the future");
        let minute = 61_000_000_000;
        assert!(!brake.is_young(&path(1), WALL + 1, WALL + 2 + minute));
        brake.inherit(&path(1));
        assert!(!brake.is_young(&path(1), WALL + 1, WALL + 2));
        brake.note_arrival(seconds(10), WALL + 5);
        assert!(!brake.is_young(&path(2), WALL + 1, WALL + 6), "a new breath");
    }
}
