//! One folder's state machine: the heart.
//!
//! It decides all that happens in a folder and does none of it. The shell hands in what happened
//! ([`Input`]), and after a handful of inputs calls [`Folder::flush`], which decides what to do next,
//! makes the index durable, and only then speaks to peers; then it drains [`Folder::poll_output`] and
//! does as it is told. [`Folder::poll_timeout`] says when to come back with nothing new.
//!
//! The way of a local change: [`Input::Touched`] or a scan, [`Output::Hash`], a record with a new
//! version, `flush`. The way of a peer's change: its record is reconciled (`engine::reconcile`); where
//! it must be taken, a task puts its content together from what lies here and what peers send, and
//! when that is complete and checked it goes into the next commit. The index learns of it only after
//! the disk has made it durable.
//!
//! A path that is being read or changed is not touched by anybody else until that is over, and what a
//! scan saw before a commit ended does not count after it: it is looked at again.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::collections::VecDeque;
use std::time::Duration;

use crate::engine::brake::{Brake, HeldCounts};
use crate::engine::chunk::VerifiedChunk;
use crate::engine::debounce::Debounce;
use crate::engine::effect::{
    AssembleOutcome, AssemblePlan, CommitItem, CommitOutcome, Depth, HashOutcome, JobId, Parting, ScanEnd, ScanItem,
    Scope, StageId, VerifyItem, VerifyOutcome,
};
use crate::engine::index::{Index, Local, Totals};
use crate::model::brake::Thresholds;
use crate::model::id::{AuthorId, ContentId, DeviceId, DeviceTag, FolderId, Incarnation, Life, Sequence};
use crate::model::limits;
use crate::model::path::RelPath;
use crate::model::problem::{Problem, ProblemKind};
use crate::model::record::{Body, Record};
use crate::model::rights::Right;
use crate::model::stat::Stat;
use crate::wire::message::{ChunkHeader, FolderHello, Message, Records, Run};
use crate::wire::past::Former;

#[cfg(test)]
mod bounds_tests;
mod commit;
#[cfg(test)]
mod commit_tests;
mod content;
mod fetch;
mod hold;
#[cfg(test)]
mod hold_tests;
mod ignored;
#[cfg(test)]
mod ignored_tests;
mod lives;
mod local;
mod past;
#[cfg(test)]
mod past_tests;
mod peers;
mod renamed;
mod retire;
#[cfg(test)]
mod retire_tests;
mod scans;
mod take;
#[cfg(test)]
mod tests;
mod verify;
#[cfg(test)]
mod verify_tests;

use fetch::Request;
pub use hold::HeldBy;
pub use past::{PastError, PastId};
use take::Task;
pub use verify::{Damage, VerifyStatus};

/// The time, as the shell sees it.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// Time since some beginning; never goes back.
    pub at: Duration,
    /// What the wall clock says, in nanoseconds since 1970. Orders nothing.
    pub wall_ns: i64,
}

/// What the state machine must know from the beginning.
#[derive(Clone, Debug)]
pub struct Params {
    /// Which folder.
    pub folder: FolderId,
    /// This device.
    pub device: DeviceId,
    /// Time between two scans of the whole folder.
    pub rescan_interval: Duration,
    /// Time a touched path must rest before it is looked at.
    pub quiet: Duration,
    /// Longest time that a path which never rests is left alone.
    pub patience: Duration,
    /// When a change set of a peer is held until a person looks; `None`: never.
    pub brake: Option<Thresholds>,
    /// Time within which all files are read again and compared with their records; `None`: never.
    pub scrub: Option<Duration>,
    /// Time for which a deletion is remembered at least, though all members know of it.
    pub forget_after: Duration,
    /// Randomness: for incarnations and jitter.
    pub seed: [u8; 32],
}

/// What happened.
#[derive(Debug)]
pub enum Input {
    /// These paths were touched; a hint, never truth.
    Touched(BTreeMap<RelPath, Depth>),
    /// This file was written to, by somebody who may not be done; a hint, too.
    Written(RelPath),
    /// Look at the whole folder.
    ScanAll,
    /// Not all directories can be watched (true), or all can (false).
    WatchLimited(bool),
    /// Findings of a scan.
    Scanned(JobId, Vec<ScanItem>),
    /// A scan ended.
    ScanEnded(JobId, ScanEnd),
    /// A file was read, or could not be.
    Hashed(RelPath, HashOutcome),
    /// Files were compared with their records; one outcome an item, in the same order.
    Verified(Vec<VerifyOutcome>),
    /// What lay here of a file was put together.
    Assembled(StageId, AssembleOutcome),
    /// A chunk was written to its staging file, or could not be.
    Staged(StageId, u32, Result<(), (ProblemKind, String)>),
    /// A staging file was cut into chunks anew: which content it holds (`None`: one of too many chunks), or why not.
    Rechunked(StageId, Result<Option<ContentId>, (ProblemKind, String)>),
    /// The commit that was asked for is over; one outcome an item, in the same order.
    Committed(Vec<CommitOutcome>),
    /// A peer that shares the folder connected, or its share of the folder changed.
    PeerUp(DeviceId, Right, FolderHello),
    /// A peer is gone, or no longer shares the folder.
    PeerDown(DeviceId),
    /// Devices that go by another id now: the former and the present one. It may be said again.
    Renamed(Vec<(DeviceId, DeviceId)>),
    /// The devices that share the folder, connected or not, but for this one.
    Members(BTreeSet<DeviceId>),
    /// A peer said something about this folder.
    Message(DeviceId, Message),
    /// A peer sent a chunk.
    Chunk(DeviceId, ChunkHeader, VerifiedChunk),
}

/// What to do.
#[derive(Debug)]
pub enum Output {
    /// Look at the disk.
    Scan(JobId, Scope),
    /// Read and chunk a file.
    Hash(RelPath, Stat),
    /// Read files and compare them with what they should hold; `true`: slowly, as nobody waits for it.
    Verify(Vec<VerifyItem>, bool),
    /// Put a file together from what lies here.
    Assemble(AssemblePlan),
    /// Write a chunk into a staging file, at this offset. The number names the chunk.
    Stage(StageId, u32, u64, VerifiedChunk),
    /// Give a staging file this size, and cut it into chunks.
    Rechunk(StageId, u64),
    /// Give up a staging file.
    Discard(StageId),
    /// Change the folder; one commit at a time.
    Commit(Vec<CommitItem>),
    /// Say something to a peer.
    Send(DeviceId, Message),
    /// Send records to a peer, and with `attach` the contents of small files along with them.
    Announce {
        /// To whom.
        peer: DeviceId,
        /// What.
        records: Records,
        /// Whether the peer is up to date but for these, and so lacks their contents.
        attach: bool,
    },
    /// Read chunks and send them to a peer.
    Serve {
        /// To whom.
        peer: DeviceId,
        /// Which of its requests.
        request: u64,
        /// Index of the item in the request, where it lies, what it must be, which chunks.
        items: Vec<(u16, RelPath, Stat, Vec<Run>)>,
    },
    /// Read chunks of former versions and send them to a peer.
    ServeKept {
        /// To whom.
        peer: DeviceId,
        /// Which of its requests.
        request: u64,
        /// Index of the item in the request, the file's name in history, its size, which chunks.
        items: Vec<(u16, String, u64, Vec<Run>)>,
    },
    /// Which former versions a peer keeps, for whoever asked: in the order of paths, the oldest of each first.
    Told(PastId, Result<Vec<Former>, PastError>),
    /// Former versions were taken: their staging files, in the order in which they were asked for. Whoever asked uses
    /// them or has them discarded.
    Taken(PastId, Result<Vec<StageId>, PastError>),
    /// Close the connections of all peers, so that they begin anew: this index is another one now.
    Reconnect,
    /// Close the connection of a peer that broke the protocol.
    Misbehaved(DeviceId, &'static str),
    /// Two edits turned out to have been made apart: what both had seen can be told only now. May come
    /// several times for the same two.
    Parted(Parting),
    /// Something for the log.
    Note(Note),
}

/// Something for the log.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Note {
    /// A change was made here.
    Changed(RelPath, Body),
    /// A change was taken from a peer; who made it.
    Took(RelPath, Body, DeviceTag),
    /// A damaged file holds again what it should, with what a peer sent.
    Healed(RelPath),
    /// A conflict copy was made.
    Conflict {
        /// The path both had changed.
        path: RelPath,
        /// Where the loser lies now.
        copy: RelPath,
    },
    /// More of a peer is held now than before.
    Held {
        /// Whose changes.
        peer: DeviceId,
        /// How many there are in all.
        counts: HeldCounts,
    },
    /// A peer remembers changes of ours that our index does not: it counts anew.
    NewIncarnation,
    /// A new problem.
    Problem(Problem),
}

/// Where a folder stands, for people.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct FolderStatus {
    /// What it is doing.
    pub state: FolderState,
    /// What it holds.
    pub totals: Totals,
    /// Paths that have yet to be taken from connected peers.
    pub needed: u64,
    /// Bytes that have yet to be fetched for the files under way.
    pub needed_bytes: u64,
    /// Files that are on their way, those that lack least first; at most [`limits::MOVING_SHOWN_MAX`].
    pub moving: Vec<Moving>,
    /// Peers that are connected, and whether each is known to hold just the same.
    pub peers: Vec<(DeviceId, bool)>,
    /// What is held of whom until a person looks.
    pub held: Vec<(DeviceId, HeldCounts)>,
    /// Number of problems.
    pub problems: usize,
    /// Whether a scan, reading or commit is under way, or something waits for one.
    pub is_busy: bool,
}

/// A file on its way here.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Moving {
    /// Which.
    pub path: RelPath,
    /// Its bytes.
    pub size: u64,
    /// Those that are not here yet.
    pub missing: u64,
}

/// What a folder is doing.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum FolderState {
    /// The root is missing; nothing is done until it is back.
    Stopped,
    /// Looking at the disk.
    Scanning,
    /// Taking changes from peers.
    Syncing,
    /// Nothing to do.
    Idle,
}

/// What to say of a folder first.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Greeting {
    /// The incarnation of our index.
    pub incarnation: Incarnation,
    /// The life that it is in.
    pub life: Life,
    /// Our last sequence.
    pub last: Sequence,
    /// Which incarnation of the peer's index we know, up to where, and in which life we heard that.
    pub received: Option<(Incarnation, Sequence, Life)>,
}

/// One folder's state machine. See the module's documentation.
pub struct Folder<I> {
    params: Params,
    index: I,
    tag: DeviceTag,
    author: AuthorId,
    random: blake3::OutputReader,
    is_changed: bool,
    outputs: VecDeque<Output>,
    jobs: u64,
    debounce: Debounce,
    /// When a peer last claimed to remember more of us than we do, and was believed.
    renewed: Option<Duration>,
    /// The wall clock when something was last given.
    wall_ns: i64,
    /// The lives of the index, once the current one has begun.
    lives: Option<lives::Lives>,
    /// The last change before this one was opened.
    opened_at: Sequence,
    /// See [`limits::REMOTES_WAITING`] and [`limits::REMOTES_MAX`].
    remotes_max: (u64, u64),
    scans: scans::Scans,
    tasks: BTreeMap<RelPath, Task>,
    /// Paths whose tasks are ready for a commit, and perhaps some that no longer are.
    complete: BTreeSet<RelPath>,
    last_task: u64,
    /// Paths to decide about.
    ready: BTreeSet<RelPath>,
    sweep: take::Sweep,
    retries: BTreeMap<RelPath, take::Retry>,
    /// What was left of files that did not fit, to be gone on with.
    unfinished: BTreeMap<RelPath, StageId>,
    /// Staging files in use.
    stages: BTreeMap<StageId, content::Stage>,
    /// Paths whose contents wait for a commit: what they are to be copied from is just being moved.
    waiting: BTreeSet<RelPath>,
    /// Paths that the commit under way may touch, sorted.
    committing: Vec<RelPath>,
    /// The paths of its items, in their order.
    commit_order: Vec<RelPath>,
    requests: BTreeMap<u64, Request>,
    last_request: u64,
    /// Paths whose tasks lack something that peers have; each at most once.
    fetchable: fetch::Queue,
    peers: BTreeMap<DeviceId, peers::Peer>,
    /// Contents that came along with records.
    contents: BTreeMap<RelPath, Vec<u8>>,
    content_bytes: usize,
    problems: BTreeMap<(Option<RelPath>, ProblemKind), String>,
    problem_count: usize,
    brake: Brake,
    verify: verify::Verify,
    retire: retire::Retire,
    past: past::Past,
}

impl<I: Index> Folder<I> {
    /// Begins with an index as it was left. A scan of the whole folder is the first thing to do.
    pub fn open(params: Params, index: I) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("kinfold 1 folder randomness");
        hasher.update(&params.seed);
        let author = AuthorId::derive(&params.device, index.incarnation());
        let mut random = hasher.finalize_xof();
        // Requests are numbered from anywhere: answers to those of a former life must not fit.
        let mut first = [0; 4];
        random.fill(&mut first);
        let opened_at = index.last_sequence();
        let mut brake_key = [0; 32];
        random.fill(&mut brake_key);
        Self {
            brake: Brake::open(params.brake.clone(), brake_key, index.brake()),
            verify: verify::Verify::default(),
            retire: retire::Retire::default(),
            past: past::Past::default(),
            tag: DeviceTag::of(&params.device),
            author,
            random,
            is_changed: false,
            lives: None,
            wall_ns: 0,
            opened_at,
            outputs: VecDeque::new(),
            jobs: 0,
            debounce: Debounce::new(params.quiet, params.patience),
            renewed: None,
            remotes_max: (limits::REMOTES_WAITING, limits::REMOTES_MAX),
            scans: scans::Scans::new(),
            tasks: BTreeMap::new(),
            complete: BTreeSet::new(),
            last_task: 0,
            ready: BTreeSet::new(),
            sweep: take::Sweep::default(),
            retries: BTreeMap::new(),
            unfinished: BTreeMap::new(),
            stages: BTreeMap::new(),
            waiting: BTreeSet::new(),
            committing: Vec::new(),
            commit_order: Vec::new(),
            requests: BTreeMap::new(),
            last_request: first_request(&params.folder) + u64::from(u32::from_le_bytes(first) >> 1),
            fetchable: fetch::Queue::default(),
            peers: BTreeMap::new(),
            contents: BTreeMap::new(),
            content_bytes: 0,
            problems: BTreeMap::new(),
            problem_count: 0,
            params,
            index,
        }
    }

    /// Takes note of what happened. Call [`Folder::flush`] after one or several of these.
    ///
    /// # Errors
    /// The index failed; the folder must stop.
    pub fn handle(&mut self, now: Now, input: Input) -> Result<(), I::Error> {
        self.wall_ns = now.wall_ns;
        match input {
            Input::Touched(paths) => self.handle_touched(now, paths),
            Input::Written(path) => self.debounce.handle_write(now.at, path),
            Input::ScanAll => self.scans.want_full(),
            Input::WatchLimited(limited) => self.handle_watch_limited(now, limited),
            Input::Scanned(job, items) => {
                for item in items {
                    self.handle_scan_item(now, job, item)?;
                }
            }
            Input::ScanEnded(job, end) => self.handle_scan_end(now, job, end),
            Input::Hashed(path, outcome) => self.handle_hashed(now, path, outcome)?,
            Input::Verified(outcomes) => self.handle_verified(now, outcomes)?,
            Input::Assembled(stage, outcome) => self.handle_assembled(now, stage, outcome)?,
            Input::Staged(stage, piece, result) if past::Past::is_stage(&stage) => {
                self.handle_piece_staged(stage, piece, result);
            }
            Input::Rechunked(stage, result) => self.handle_rechunked(stage, result),
            Input::Staged(stage, chunk, result) => self.handle_staged(now, stage, chunk, result),
            Input::Committed(outcomes) => self.handle_committed(now, outcomes)?,
            Input::PeerUp(peer, right, hello) => self.handle_peer_up(now, peer, right, hello)?,
            Input::PeerDown(peer) => self.handle_peer_down(&peer)?,
            Input::Renamed(peers) => self.handle_renamed(&peers)?,
            Input::Members(members) => self.handle_members(now, members),
            Input::Message(peer, message) => self.handle_message(now, peer, message)?,
            Input::Chunk(peer, header, chunk) if self.is_for_pieces(&peer, header.request) => {
                self.handle_piece(now, peer, header, chunk);
            }
            Input::Chunk(peer, header, chunk) => self.handle_chunk(now, peer, header, chunk)?,
        }
        Ok(())
    }

    /// Decides what to do next, makes the index durable, and then speaks to the peers.
    ///
    /// # Errors
    /// The index failed; the folder must stop. Nothing was said of what is not durable.
    pub fn flush(&mut self, now: Now) -> Result<(), I::Error> {
        self.wall_ns = now.wall_ns;
        self.pump_scans(now)?;
        self.pump_takes(now)?;
        self.pump_commit(now)?;
        self.pump_verify(now)?;
        self.pump_requests();
        self.pump_past(now);
        self.note_agreement(now)?;
        self.pump_retire(now)?;
        if let Some(state) = self.brake.changed(now.at, now.wall_ns) {
            self.index.set_brake(&state)?;
            self.is_changed = true;
        }
        if self.is_changed {
            self.index.commit()?;
            self.is_changed = false;
        }
        self.speak()
    }

    /// Returns the next thing to do.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// Returns when [`Folder::flush`] has to be called even if nothing happens.
    pub fn poll_timeout(&self) -> Option<Duration> {
        let retry = self.retries.values().filter_map(|retry| retry.due).min();
        let scan = self.scans.poll_timeout(self.params.rescan_interval);
        // While something is being read, its end is what is waited for.
        let is_resting = self.scans.is_resting() && self.debounce.is_empty();
        let gone = self.scans.gone_due(is_resting).filter(|_| !self.scans.is_reading_any());
        let (verify, retire) = (self.verify_timeout(), self.retire_timeout());
        let due = [
            self.debounce.poll_timeout(),
            retry,
            scan,
            gone,
            self.scans.unmounted_due(),
            self.brake.due,
            verify,
            retire,
            self.past.poll_timeout(),
        ];
        due.into_iter().flatten().min()
    }

    /// Whether nothing is under way: then there is time for what can wait.
    fn is_at_rest(&self) -> bool {
        let is_taking = !self.tasks.is_empty() || !self.ready.is_empty() || !self.committing.is_empty();
        let is_looking = !self.scans.is_resting() || !self.debounce.is_empty() || self.scans.is_reading_any();
        !is_taking && !is_looking
    }

    /// Returns whether findings of scans are welcome now; else hold them back until the next flush.
    pub fn wants_findings(&self) -> bool {
        self.scans.to_hash_len() < 8192
    }

    /// Returns what to say of this folder when a peer connects.
    ///
    /// # Errors
    /// The index failed.
    pub fn hello_for(&mut self, peer: &DeviceId) -> Result<Greeting, I::Error> {
        let life = self.life()?;
        // Who hears of a life may come back and speak of it.
        self.index.commit()?;
        let cursor = self.index.cursor(peer)?;
        let received = cursor.incarnation.map(|incarnation| (incarnation, cursor.received, cursor.life));
        let (incarnation, last) = (self.index.incarnation(), self.index.last_sequence());
        Ok(Greeting { incarnation, life, last, received })
    }

    /// Returns where the folder stands.
    ///
    /// # Errors
    /// The index failed.
    pub fn status(&self) -> Result<FolderStatus, I::Error> {
        let mut needed = 0;
        for peer in self.peers.keys() {
            let held = self.brake.held().get(peer).map_or(0, |counts| counts.files() + counts.dirs);
            let is_of_no_need = held + self.index.cursor(peer)?.left_out;
            needed = needed.max(self.index.remote_count(peer)?.saturating_sub(is_of_no_need));
        }
        let is_busy = self.scans.is_busy() || !self.committing.is_empty() || !self.debounce.is_empty();
        let state = if self.scans.root_missing.is_some() {
            FolderState::Stopped
        } else if self.scans.is_busy() {
            FolderState::Scanning
        } else if self.tasks.is_empty() && self.ready.is_empty() {
            FolderState::Idle
        } else {
            FolderState::Syncing
        };
        Ok(FolderStatus {
            state,
            totals: self.index.totals()?,
            needed,
            needed_bytes: self.tasks.values().map(Task::missing_bytes).sum(),
            moving: self.moving(),
            peers: self.peers.keys().map(|peer| (*peer, self.is_in_sync_with(peer))).collect(),
            held: self.brake.held().iter().map(|(peer, counts)| (*peer, *counts)).collect(),
            problems: self.problem_count,
            is_busy,
        })
    }

    /// Returns the files whose content is arriving.
    fn moving(&self) -> Vec<Moving> {
        let arriving = self.tasks.iter().filter(|(_, task)| task.is_arriving());
        let mut moving: Vec<_> = arriving
            .filter_map(|(path, task)| Some((path, task.size()?, task.missing_bytes())))
            .take(limits::MOVING_SHOWN_MAX * 64)
            .collect();
        moving.sort_by_key(|(_, _, missing)| *missing);
        moving.truncate(limits::MOVING_SHOWN_MAX);
        moving.into_iter().map(|(path, size, missing)| Moving { path: path.clone(), size, missing }).collect()
    }

    /// Returns the problems, by path.
    pub fn problems(&self) -> impl Iterator<Item = Problem> {
        self.problems.iter().map(|((path, kind), detail)| Problem {
            path: path.clone(),
            kind: *kind,
            detail: detail.clone(),
        })
    }

    /// Returns what is under way and what waits for what, in a form for reports of errors.
    pub fn under_way(&self) -> String {
        format!(
            "tasks {:#?}\nready {:?}\nretries {:?}\nsweep {:?}\nrequests {:?}\nfetchable {:?}\ncommitting {:?}\n{:?}\n{:?}",
            self.tasks,
            self.ready,
            self.retries,
            self.sweep,
            self.requests,
            self.fetchable,
            self.committing,
            self.scans,
            self.retire
        )
    }

    /// Returns whether a path holds what won a conflict against a change made here: it came from another
    /// device, and nothing was done here since that could mean that it was looked at.
    pub fn won_here(&self, local: &Local) -> bool {
        let Record { by, version, body, .. } = &local.record;
        body.is_live() && *by != self.tag && version.counter(self.author) == local.sequence.0
    }

    /// Returns the index, for reading.
    pub fn index(&self) -> &I {
        &self.index
    }

    /// Returns the index, for the chores of history that decide nothing.
    pub fn index_mut(&mut self) -> &mut I {
        self.is_changed = true;
        &mut self.index
    }

    /// Ends the state machine and returns the index.
    pub fn into_index(self) -> I {
        self.index
    }

    fn next_job(&mut self) -> JobId {
        self.jobs += 1;
        JobId(self.jobs)
    }

    fn random_u64(&mut self) -> u64 {
        let mut bytes = [0; 8];
        self.random.fill(&mut bytes);
        u64::from_le_bytes(bytes)
    }

    fn note(&mut self, note: Note) {
        self.outputs.push_back(Output::Note(note));
    }

    fn report(&mut self, path: Option<&RelPath>, kind: ProblemKind, detail: impl Into<String>) {
        let key = (path.cloned(), kind);
        let detail = detail.into();
        if self.problems.get(&key).is_some_and(|known| *known == detail) {
            return;
        }
        if self.problems.len() < limits::PROBLEMS_MAX || self.problems.contains_key(&key) {
            let problem = Problem { path: key.0.clone(), kind, detail: detail.clone() };
            if self.problems.insert(key, detail).is_none() {
                self.problem_count += 1;
                self.note(Note::Problem(problem));
            }
        }
    }

    fn clear_problems(&mut self, path: &RelPath) {
        if self.problems.is_empty() {
            return;
        }
        let of_path = (Some(path.clone()), ProblemKind::Unreadable)..=(Some(path.clone()), ProblemKind::Refused);
        let gone: Vec<_> = self.problems.range(of_path).map(|(key, _)| key.clone()).collect();
        for key in gone {
            self.forget_problem(&key);
        }
    }

    fn forget_problem(&mut self, key: &(Option<RelPath>, ProblemKind)) {
        if self.problems.remove(key).is_some() {
            self.problem_count -= 1;
        }
    }

    /// Gives out the next sequence: no less than the microseconds since 1970. An index that went back in time, with all
    /// else on the machine, thus counts on from where nobody has counted before. The clock orders nothing: where it is
    /// wrong, a sequence is one more than the last.
    fn next_sequence(&mut self) -> Result<Sequence, I::Error> {
        // What is changed belongs to a life from the first change on, whether or not a peer is met in it.
        self.life()?;
        self.index.next_sequence(Sequence(u64::try_from(self.wall_ns / 1000).unwrap_or(0)))
    }

    /// Writes a record of this device, giving it the next sequence, and keeps the tree's hash. Returns
    /// whether a peer holds something there that this record has not seen.
    fn hold(
        &mut self,
        now: Now,
        record: Record,
        sequence: Sequence,
        stat: Option<Stat>,
        recipe: Option<&crate::model::recipe::Recipe>,
    ) -> Result<bool, I::Error> {
        let path = record.path.clone();
        let before = self.index.local(&path)?;
        let was_dir = before.as_ref().is_some_and(|before| before.record.body.is_dir());
        let was_live = before.as_ref().is_some_and(|before| before.record.body.is_live());
        if (record.body.is_dir() && !was_dir) || (was_live && !record.body.is_live()) {
            // What is to be put into it waited for just this, if it was not a commit that brought it about.
            self.unblock();
        }
        let since_ns = match &before {
            Some(before) if before.record.body.is_same_content(&record.body) => before.since_ns,
            _ => now.wall_ns,
        };
        // Peers that leave the path out are asked anew: while the index still has what they left out.
        let is_left = self.prune_remotes(&record, true)?;
        if let Some(before) = before.filter(|before| !before.ignored) {
            self.change_tree(&path, &before.record.body, false)?;
        }
        self.change_tree(&path, &record.body, true)?;
        let local = Local { record, sequence, stat, ignored: false, since_ns };
        self.index.set_local(&local, recipe)?;
        self.is_changed = true;
        self.forget_content(&local.record.path);
        self.forget_damage(&local.record.path);
        if local.record.body.is_dir() && !was_dir && (self.index.has_live_below(&path)? || self.leaves_out_in(&path)?) {
            // What was recorded in it before it was a directory here may be gone, and no listing told.
            self.look_again(&path, Depth::Tree);
        }
        Ok(is_left)
    }

    /// Forgets what peers were known to hold where this record has seen it all, and where it `is_news` also who leaves
    /// the path out. Returns whether anything else is left.
    fn prune_remotes(&mut self, record: &Record, is_news: bool) -> Result<bool, I::Error> {
        use crate::model::version::Causality;
        let mut is_left = false;
        for (peer, remote) in self.index.remotes(&record.path)? {
            if remote.record.is_withdrawn() && !is_news {
                continue;
            }
            let order = remote.record.version.compare(&record.version);
            if matches!(order, Causality::Equal | Causality::Before) {
                self.put_remote(&peer, &record.path, None)?;
                self.is_changed = true;
            } else {
                is_left = true;
            }
        }
        Ok(is_left)
    }

    /// Adds a live body to the tree's hash, or takes it out.
    ///
    /// The hash is a sum, so that it does not depend on the order of changes and costs the same
    /// however large the folder is (Bellare and Micciancio, "A New Paradigm for Collision-Free
    /// Hashing", EUROCRYPT 1997, the AdHash construction). It finds accidents, not attacks.
    fn change_tree(&mut self, path: &RelPath, body: &Body, add: bool) -> Result<(), I::Error> {
        if !body.is_live() {
            return Ok(());
        }
        let mut sum = self.index.tree_hash();
        add_line(&mut sum, path, body, add);
        self.index.set_tree_hash(sum)
    }
}

/// Requests of a folder are numbered from here: the folder's id stands in the upper half, so that an
/// answer, which names only the request, finds the folder that asked.
fn first_request(folder: &FolderId) -> u64 {
    let [a, b, c, d, ..] = folder.0;
    u64::from(u32::from_be_bytes([a, b, c, d])) << 32
}

/// Returns whether a request was, or could have been, made by this folder.
pub fn is_request_of(folder: &FolderId, request: u64) -> bool {
    request >> 32 == first_request(folder) >> 32
}

/// Adds a line of the tree to a sum, or takes it out.
fn add_line(sum: &mut [u8; 32], path: &RelPath, body: &Body, add: bool) {
    add_up(sum, &hash_of(path, body), add);
}

/// Adds one sum to another, or takes it out, word by word.
fn add_up(sum: &mut [u8; 32], terms: &[u8; 32], add: bool) {
    for (to, term) in sum.chunks_exact_mut(8).zip(terms.chunks_exact(8)) {
        let (mut a, mut b) = ([0; 8], [0; 8]);
        a.copy_from_slice(to);
        b.copy_from_slice(term);
        let (a, b) = (u64::from_le_bytes(a), u64::from_le_bytes(b));
        let result = if add { a.wrapping_add(b) } else { a.wrapping_sub(b) };
        to.copy_from_slice(&result.to_le_bytes());
    }
}

/// Hashes one line of the tree: a path and what is there.
fn hash_of(path: &RelPath, body: &Body) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_derive_key("kinfold 1 tree line");
    hasher.update(&(path.as_bytes().len() as u64).to_le_bytes());
    hasher.update(path.as_bytes());
    match body {
        Body::Tombstone => {}
        Body::Dir { mode } => {
            hasher.update(b"d").update(&mode.to_le_bytes());
        }
        Body::Symlink { target } => {
            hasher.update(b"l").update(target);
        }
        Body::File(file) => {
            hasher.update(b"f").update(&file.mode.to_le_bytes()).update(&file.mtime_ns.to_le_bytes());
            hasher.update(&file.size.to_le_bytes()).update(&file.content.0);
        }
    }
    *hasher.finalize().as_bytes()
}
