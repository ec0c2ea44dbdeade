//! A folder's thread: it owns the state machine and its index, and does as the outputs say.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime};

use crossbeam_channel::{Receiver, Sender, bounded, never, select};

use crate::daemon::epoch;
use crate::daemon::events::{Events, What};
use crate::daemon::folder::{Command, FromPeer, Report, Settings, Traffic};
use crate::daemon::history;
use crate::daemon::merging::{Merged, Merging, sides_of};
use crate::daemon::peer::{Outgoing, PeerSender};
use crate::daemon::place::Place;
use crate::daemon::pool::Pool;
use crate::daemon::recover;
use crate::disk::commit::commit;
use crate::disk::hash::{Durability, hash_file};
use crate::disk::read::Reader;
use crate::disk::root::Root;
use crate::disk::scan::scan;
use crate::disk::staging::{assemble, sweep};
use crate::disk::verify::verify;
use crate::engine::brake::HeldCounts;
use crate::engine::conflict;
use crate::engine::effect::{
    Action, AssembleOutcome, CommitItem, CommitOutcome, Depth, HashOutcome, JobId, ScanEnd, ScanItem, Scope, StageId,
    VerifyItem, VerifyOutcome,
};
use crate::engine::folder::{Folder, Input, Note, Now, Output, Params, PastError, PastId};
use crate::engine::index::Index;
use crate::model::id::{DeviceId, DeviceTag, Incarnation, Sequence};
use crate::model::limits;
use crate::model::path::RelPath;
use crate::model::problem::ProblemKind;
use crate::model::record::Body;
use crate::store::error::StoreError;
use crate::store::index::SqliteIndex;
use crate::wire::message::{Message, SentRecord};
use crate::wire::past::Former;

/// Readings that wait for each other's flush; where there are more, one flush serves many.
const FLUSH_EACH_MAX: usize = 8;
/// Inputs that are handled before the next flush.
const BATCH_MAX: usize = 512;
/// Pause before an index that failed is opened again.
const REOPEN_PAUSE: Duration = Duration::from_secs(5);
/// Time between two looks at what of history is too old.
const EXPIRE_INTERVAL: Duration = Duration::from_secs(600);

enum Finding {
    Items(JobId, Vec<ScanItem>),
    End(JobId, ScanEnd),
    Verified(Vec<VerifyOutcome>),
}

pub(super) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    aws_lc_rs::rand::fill(&mut bytes).expect("the system's source of randomness does not fail once it is seeded");
    bytes
}

/// Opens the index; one that is damaged is set aside and made anew from what lies on the disk.
pub(super) fn open_index(settings: &Settings) -> Result<SqliteIndex, StoreError> {
    let open = || SqliteIndex::open(&settings.index, Incarnation(u64::from_le_bytes(random())));
    match open() {
        Err(error @ StoreError::Corrupt { .. }) => {
            set_aside(settings, &error);
            open()
        }
        other => other,
    }
}

fn set_aside(settings: &Settings, error: &StoreError) {
    tracing::warn!(folder = settings.name, %error, "the index is damaged and is made anew; no file is touched");
    for suffix in ["", "-wal", "-journal"] {
        let from = suffixed(&settings.index, suffix);
        let to = suffixed(&settings.index, &format!("{suffix}.damaged"));
        // Missing companions are no trouble.
        std::fs::rename(from, to).ok();
    }
}

fn suffixed(path: &std::path::Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// A folder's thread.
pub(super) struct Run {
    settings: Settings,
    pool: Arc<Pool>,
    place: Arc<Place>,
    traffic: Arc<Traffic>,
    events: Arc<Events>,
    commands: Sender<Command>,
    peers: BTreeMap<DeviceId, PeerSender>,
    began: Instant,
    hashing: usize,
    /// Files that were read and whose content may not be durable yet: nothing is said of them before.
    unsynced: Vec<(RelPath, HashOutcome)>,
    expired_at: Option<Instant>,
    /// Whether what a crash may have left was seen to, since the index was opened.
    is_recovered: bool,
    /// The sequence after which the next epoch begins.
    epoch_ends: Sequence,
    /// How often the index was opened: commits that an earlier state asked for are not begun any more.
    life: u64,
    findings: (Sender<Finding>, Receiver<Finding>),
    /// Threads that look at the folder, and may send findings.
    readers: Vec<JoinHandle<()>>,
    merging: Merging,
    /// Who waits to hear of a peer's history.
    asking: BTreeMap<PastId, Sender<Result<Vec<Former>, PastError>>>,
    /// Who waits for former versions.
    taking: BTreeMap<PastId, Sender<Result<Vec<StageId>, PastError>>>,
}

type Engine = Folder<SqliteIndex>;

impl Run {
    pub(super) fn new(
        settings: Settings,
        pool: Arc<Pool>,
        place: Arc<Place>,
        traffic: Arc<Traffic>,
        events: Arc<Events>,
        commands: Sender<Command>,
    ) -> Self {
        Self {
            settings,
            pool,
            place,
            traffic,
            events,
            commands,
            peers: BTreeMap::new(),
            began: Instant::now(),
            hashing: 0,
            unsynced: Vec::new(),
            expired_at: None,
            is_recovered: false,
            epoch_ends: Sequence(0),
            life: 0,
            findings: bounded(16),
            readers: Vec::new(),
            merging: Merging::default(),
            asking: BTreeMap::new(),
            taking: BTreeMap::new(),
        }
    }

    pub(super) fn run(&mut self, index: SqliteIndex, inbox: &Receiver<Command>, peers: &Receiver<FromPeer>) {
        let mut index = Some(index);
        loop {
            let opened = match index.take() {
                Some(index) => Ok(index),
                None => open_index(&self.settings),
            };
            let error = match opened {
                Ok(index) => {
                    self.is_recovered = false;
                    self.life = self.place.begin_life();
                    self.merging = Merging::default();
                    let mut engine = Folder::open(self.params(), index);
                    let result = self.drive(&mut engine, inbox, peers);
                    // Whoever waits for an answer of this engine waits no longer.
                    (self.asking, self.taking) = (BTreeMap::new(), BTreeMap::new());
                    for reader in std::mem::take(&mut self.readers) {
                        self.place.cancel.store(true, Ordering::Relaxed);
                        while !reader.is_finished() {
                            self.findings.1.recv_timeout(Duration::from_millis(10)).ok();
                        }
                        reader.join().ok();
                    }
                    if result.is_ok()
                        && let Err(error) = self.close(engine.into_index())
                    {
                        tracing::warn!(folder = self.settings.name, %error, "the index was not closed cleanly");
                    }
                    result.err()
                }
                Err(error) => Some(error),
            };
            let Some(error) = error else {
                return;
            };
            tracing::error!(folder = self.settings.name, %error, "the index failed; the folder rests");
            self.cut_all();
            if matches!(error, StoreError::Corrupt { .. }) {
                // Opening need not show it: after an orderly end the whole is not looked at.
                set_aside(&self.settings, &error);
            }
            if self.wait_to_reopen(inbox, peers) {
                return;
            }
            self.place.cancel.store(false, Ordering::Relaxed);
        }
    }

    fn close(&self, mut index: SqliteIndex) -> Result<(), StoreError> {
        if let Some(root) = self.place.root() {
            epoch::begin(&mut index, &root, random())?;
        }
        index.close()
    }

    fn params(&self) -> Params {
        Params {
            folder: self.settings.id,
            device: self.settings.device,
            rescan_interval: self.settings.rescan_interval,
            quiet: Duration::from_millis(10),
            patience: Duration::from_millis(1000),
            brake: self.settings.brake.clone(),
            scrub: self.settings.scrub,
            forget_after: limits::TOMBSTONE_AGE,
            seed: random(),
        }
    }

    /// Rests while the index cannot be used. Returns whether the folder is to end.
    fn wait_to_reopen(&mut self, inbox: &Receiver<Command>, peers: &Receiver<FromPeer>) -> bool {
        let until = Instant::now() + REOPEN_PAUSE;
        let mut greetings = Vec::new();
        loop {
            while peers.try_recv().is_ok() {}
            match inbox.recv_deadline(until) {
                Ok(Command::Stop) => return true,
                // It was told of this folder when nobody here could listen: it has to begin anew.
                Ok(Command::PeerUp(device, _, _, sender)) => drop(self.peers.insert(device, sender)),
                // Who greets now is to hear of this folder, too: it waits for the answer.
                Ok(greeting @ Command::HelloFor(..)) => greetings.push(greeting),
                Ok(_) => {}
                Err(_) => break,
            }
        }
        self.cut_all();
        for greeting in greetings {
            self.commands.send(greeting).ok();
        }
        false
    }

    fn now(&self) -> Now {
        Now { at: self.began.elapsed(), wall_ns: wall_ns() }
    }

    fn drive(
        &mut self,
        engine: &mut Engine,
        inbox: &Receiver<Command>,
        peers: &Receiver<FromPeer>,
    ) -> Result<(), StoreError> {
        self.flush(engine)?;
        loop {
            let findings = if engine.wants_findings() { self.findings.1.clone() } else { never() };
            let wait = match engine.poll_timeout() {
                Some(due) => due.saturating_sub(self.began.elapsed()).min(Duration::from_secs(60)),
                None => Duration::from_secs(60),
            };
            let wait = self.merging.wait(&self.settings).map_or(wait, |merging| wait.min(merging));
            let mut is_over = false;
            select! {
                recv(inbox) -> command => match command {
                    Ok(command) => is_over = self.obey(engine, command)?,
                    Err(_) => return Ok(()),
                },
                recv(peers) -> said => if let Ok(said) = said {
                    // What a session begins with came through the inbox, before all that it says.
                    is_over = self.obey_all(engine, inbox)?;
                    self.hear(engine, said)?;
                },
                recv(findings) -> finding => if let Ok(finding) = finding { self.find(engine, finding)? },
                default(wait) => {}
            }
            let mut handled = 1;
            while !is_over && handled < BATCH_MAX {
                let before = handled;
                if let Ok(command) = inbox.try_recv() {
                    is_over = self.obey(engine, command)?;
                    handled += 1;
                }
                if let Ok(said) = peers.try_recv() {
                    is_over |= self.obey_all(engine, inbox)?;
                    self.hear(engine, said)?;
                    handled += 1;
                }
                if engine.wants_findings()
                    && let Ok(finding) = self.findings.1.try_recv()
                {
                    self.find(engine, finding)?;
                    handled += 1;
                }
                if handled == before {
                    break;
                }
            }
            self.expire_history(engine)?;
            self.flush(engine)?;
            self.merging.tend(engine, (&self.settings, &self.place, &self.pool), &self.commands)?;
            if is_over {
                return Ok(());
            }
        }
    }

    fn flush(&mut self, engine: &mut Engine) -> Result<(), StoreError> {
        self.flush_readings(engine)?;
        engine.flush(self.now())?;
        while let Some(output) = engine.poll_output() {
            if matches!(output, Output::Scan(..)) {
                self.recover(engine)?;
            }
            self.act(output);
        }
        if self.is_recovered
            && engine.index().last_sequence() > self.epoch_ends
            && let Some(root) = self.place.root()
        {
            self.epoch_ends = epoch::begin(engine.index_mut(), &root, random())?;
        }
        Ok(())
    }

    /// Puts what a crash left where it belongs, before anything is looked at.
    fn recover(&mut self, engine: &mut Engine) -> Result<(), StoreError> {
        if self.is_recovered {
            return Ok(());
        }
        // Not by way of the place, which would watch all of it first. A root that is not there, or is yet
        // to become one, has nothing to recover now.
        let Ok(root) = Root::open(&self.settings.path, self.settings.id) else {
            return Ok(());
        };
        self.is_recovered = true;
        if epoch::is_outdated(engine.index(), &root)? {
            tracing::warn!(folder = self.settings.name, "the index is an old one, as of a backup");
            engine.begin_incarnation()?;
        }
        self.epoch_ends = epoch::begin(engine.index_mut(), &root, random())?;
        let _turn = self.place.turn();
        let own = DeviceTag::of(&self.settings.device);
        recover::recover(engine.index_mut(), &root, &self.settings.name, own)
    }

    /// Makes all that was read durable at once, and only then lets it be known.
    ///
    /// Where that fails, nobody knows what reached the disk: nothing is recorded of these files, each is
    /// a problem, and they are read again later.
    fn flush_readings(&mut self, engine: &mut Engine) -> Result<(), StoreError> {
        let readings = std::mem::take(&mut self.unsynced);
        if readings.is_empty() {
            return Ok(());
        }
        let synced = self.place.root().map(|root| root.sync());
        if let Some(Err(error)) = &synced {
            tracing::error!(folder = self.settings.name, %error, "the file system cannot be flushed");
        }
        for (path, outcome) in readings {
            let outcome = match &synced {
                Some(Ok(())) => outcome,
                Some(Err(error)) => HashOutcome::Failed(format!("cannot make it durable: {error}")),
                None => HashOutcome::Changed,
            };
            engine.handle(self.now(), Input::Hashed(path, outcome))?;
        }
        Ok(())
    }

    /// Handles all that is in the inbox. Returns whether the folder is to end.
    fn obey_all(&mut self, engine: &mut Engine, inbox: &Receiver<Command>) -> Result<bool, StoreError> {
        let mut is_over = false;
        while let Ok(command) = inbox.try_recv() {
            is_over |= self.obey(engine, command)?;
        }
        Ok(is_over)
    }

    fn obey(&mut self, engine: &mut Engine, command: Command) -> Result<bool, StoreError> {
        let now = self.now();
        // Who asked may have gone away meanwhile; then the answer is not wanted.
        match command {
            Command::Input(input) => engine.handle(now, input)?,
            Command::Read(path, outcome, durability) => {
                self.hashing = self.hashing.saturating_sub(1);
                match (durability, &outcome) {
                    (Durability::Later, HashOutcome::Done { .. }) => self.unsynced.push((path, outcome)),
                    _ => engine.handle(now, Input::Hashed(path, outcome))?,
                }
            }
            Command::Touched => engine.handle(now, Input::Touched(self.place.take_touched()))?,
            Command::PeerUp(device, right, hello, sender) => {
                self.peers.insert(device, sender);
                engine.handle(now, Input::PeerUp(device, right, hello))?;
            }
            Command::PeerDown(device, session) => {
                if self.peers.get(&device).is_some_and(|peer| peer.session == session) {
                    self.peers.remove(&device);
                    engine.handle(now, Input::PeerDown(device))?;
                }
            }
            Command::HelloFor(device, reply) => {
                let greeting = engine.hello_for(&device)?;
                reply.send(greeting).ok();
            }
            Command::Status(reply) => {
                let status = engine.status()?;
                let history_bytes = engine.index().kept_bytes()?;
                reply.send(Report { status, is_settled: engine.is_settled(), history_bytes }).ok();
            }
            Command::Verify(heals, reply) => {
                engine.begin_verify(now, heals);
                reply.send(()).ok();
            }
            Command::Verified(reply) => {
                reply.send((engine.verify_status(), engine.index().totals()?)).ok();
            }
            Command::Problems(reply) => {
                reply.send(engine.problems().collect()).ok();
            }
            Command::Held(limit, reply) => {
                reply.send(engine.list_held(limit)?).ok();
            }
            Command::Release(rejects, reply) => {
                let counts = if rejects { engine.reject_held(now)? } else { engine.release_held()? };
                if counts.files() > 0 {
                    let what = if rejects { "rejected" } else { "released" };
                    let HeldCounts { deleted, rewritten, .. } = counts;
                    tracing::info!(folder = self.settings.name, deleted, rewritten, "what was held is {what}");
                }
                reply.send(counts).ok();
            }
            Command::Conflicts(reply) => {
                let mut conflicts = Vec::new();
                for copy in engine.index().conflicts()? {
                    if let Some(of) = conflict::original(engine.index(), &copy.record.path)? {
                        let winner = engine.index().local(&of)?.filter(|local| local.record.body.is_live());
                        conflicts.push((copy, of, winner));
                    }
                }
                reply.send(conflicts).ok();
            }
            Command::Kept(path, below, reply) => {
                let kept = engine.index().kept(path.as_ref(), below)?;
                let local = path.map(|path| engine.index().local(&path)).transpose()?.flatten();
                reply.send((kept, local)).ok();
            }
            Command::Restore(restore, reply) => {
                let done = match self.place.root() {
                    Some(root) => {
                        history::restore(engine, &root, &restore, self.history_bounds(), self.settings.device, now)?
                    }
                    None => Err("the folder is not there".to_owned()),
                };
                if let Ok(done) = &done {
                    engine.handle(now, Input::Touched(done.touched.clone()))?;
                }
                reply.send(done).ok();
            }
            Command::AskHistory(peer, top, reply) => {
                self.asking.insert(engine.ask_history(now, peer, top), reply);
            }
            Command::TakeFormer(peer, files, reply) => {
                self.taking.insert(engine.take_former(now, peer, &files), reply);
            }
            Command::Discard(stages) => stages.into_iter().for_each(|stage| self.act(Output::Discard(stage))),
            Command::Settle(settle, reply) => {
                let done = match self.place.root() {
                    Some(root) => history::settle(engine, &root, &settle, self.settings.device, now)?,
                    None => Err("the folder is not there".to_owned()),
                };
                reply.send(look_at(engine, now, done)?).ok();
            }
            Command::Sides(path, reply) => {
                let sides = match history::find_conflict(engine, &path)? {
                    Ok((copy, original)) => sides_of(engine, copy)?.ok_or(format!("nothing lies at {original}")),
                    Err(error) => Err(error),
                };
                reply.send(sides).ok();
            }
            Command::Merge(merged, reply) => {
                let done = self.merge(engine, &merged, now)?;
                match reply {
                    Some(reply) => drop(reply.send(done)),
                    None => self.log_merge(&merged, done),
                }
            }
            Command::Stop => return Ok(true),
        }
        Ok(false)
    }

    fn merge(&mut self, engine: &mut Engine, merged: &Merged, now: Now) -> Result<Result<(), String>, StoreError> {
        let Some(root) = self.place.root() else {
            return Ok(Err("the folder is not there".to_owned()));
        };
        let done = history::put_merged(engine, &root, merged, self.history_bounds(), self.settings.device, now)?;
        look_at(engine, now, done)
    }

    fn log_merge(&self, merged: &Merged, done: Result<(), String>) {
        let (folder, path) = (self.settings.name.as_str(), &merged.sides.there.record.path);
        match done {
            Ok(()) => tracing::info!(folder, %path, "both sides had changed it apart; both edits are in it now"),
            // It is tried again, as it is then.
            Err(error) => tracing::debug!(folder, %path, error, "a conflict stays"),
        }
    }

    fn history_bounds(&self) -> history::Bounds {
        history::Bounds { days: self.settings.history_days, bytes_max: self.settings.history_bytes_max }
    }

    fn hear(&mut self, engine: &mut Engine, said: FromPeer) -> Result<(), StoreError> {
        let now = self.now();
        let is_current =
            |device: &DeviceId, session: u64| self.peers.get(device).is_some_and(|peer| peer.session == session);
        match said {
            FromPeer::Message(device, session, message) if is_current(&device, session) => {
                engine.handle(now, Input::Message(device, message))
            }
            FromPeer::Chunk(device, session, header, chunk) if is_current(&device, session) => {
                self.traffic.received.fetch_add(chunk.bytes().len() as u64, Ordering::Relaxed);
                engine.handle(now, Input::Chunk(device, header, chunk))
            }
            _ => Ok(()),
        }
    }

    fn find(&mut self, engine: &mut Engine, finding: Finding) -> Result<(), StoreError> {
        let now = self.now();
        match finding {
            Finding::Items(job, items) => engine.handle(now, Input::Scanned(job, items)),
            Finding::End(job, end) => {
                self.readers.retain(|reader| !reader.is_finished());
                engine.handle(now, Input::ScanEnded(job, end))
            }
            Finding::Verified(outcomes) => {
                self.readers.retain(|reader| !reader.is_finished());
                engine.handle(now, Input::Verified(outcomes))
            }
        }
    }

    fn act(&mut self, output: Output) {
        match output {
            Output::Scan(job, scope) => self.scan(job, scope),
            Output::Hash(path, stat) => self.hash(path, stat),
            Output::Verify(items, is_slow) => self.verify(items, is_slow),
            Output::Assemble(plan) => {
                let (place, commands) = (self.place.clone(), self.commands.clone());
                self.pool.run_in_order(lane(plan.stage), move |memory| {
                    let outcome = match place.root() {
                        Some(root) => assemble(&root, &plan, &mut memory.scratch),
                        None => AssembleOutcome::Failed(ProblemKind::RootMissing, String::new()),
                    };
                    commands.send(Command::Input(Input::Assembled(plan.stage, outcome))).ok();
                });
            }
            Output::Stage(stage, number, offset, chunk) => {
                let (place, commands) = (self.place.clone(), self.commands.clone());
                self.pool.run_in_order(lane(stage), move |_| {
                    let result = match place.root() {
                        Some(root) => place.staging.write_chunk(&root, stage, offset, &chunk),
                        None => return,
                    };
                    let result = result.map_err(|error| (error.kind, error.detail));
                    commands.send(Command::Input(Input::Staged(stage, number, result))).ok();
                });
            }
            Output::Rechunk(stage, size) => {
                let (place, commands) = (self.place.clone(), self.commands.clone());
                self.pool.run_in_order(lane(stage), move |memory| {
                    let Some(root) = place.root() else {
                        return;
                    };
                    let recipe = place.staging.recipe(&root, stage, size, &place.cancel, &mut memory.chunks);
                    let content = recipe.map(|recipe| recipe.map(|recipe| recipe.content_id()));
                    let content = content.map_err(|error| (error.kind, error.detail));
                    commands.send(Command::Input(Input::Rechunked(stage, content))).ok();
                });
            }
            Output::Discard(stage) => {
                let place = self.place.clone();
                self.pool.run_in_order(lane(stage), move |_| {
                    if let Some(root) = place.root()
                        && let Err(error) = place.staging.discard(&root, stage)
                    {
                        tracing::debug!(%error, "a staged file stays until the next start");
                    }
                });
            }
            Output::Commit(items) => self.commit(items),
            Output::Send(device, message) => self.send(&device, Outgoing::Message(message)),
            Output::Announce { peer, mut records, attach } => {
                if attach && let Some(root) = self.place.root() {
                    records.records.iter_mut().for_each(|sent| attach_content(&root, sent));
                }
                self.send(&peer, Outgoing::Message(Message::Records(records)));
            }
            Output::Serve { peer, request, items } => {
                let (folder, place, traffic) = (self.settings.id, self.place.clone(), self.traffic.clone());
                self.send(&peer, Outgoing::Serve { folder, request, items, place, traffic });
            }
            Output::ServeKept { peer, request, items } => {
                let (folder, place, traffic) = (self.settings.id, self.place.clone(), self.traffic.clone());
                self.send(&peer, Outgoing::ServeKept { folder, request, items, place, traffic });
            }
            Output::Told(id, told) => {
                if let Some(waiting) = self.asking.remove(&id) {
                    waiting.send(told).ok();
                }
            }
            Output::Taken(id, taken) => match (self.taking.remove(&id), taken) {
                (Some(waiting), taken) => {
                    waiting.send(taken).ok();
                }
                (None, Ok(stages)) => stages.into_iter().for_each(|stage| self.act(Output::Discard(stage))),
                (None, Err(_)) => {}
            },
            Output::Reconnect => self.cut_all(),
            Output::Misbehaved(device, what) => {
                tracing::warn!(folder = self.settings.name, %device, what, "a device broke the protocol");
                if let Some(peer) = self.peers.get(&device) {
                    peer.cut();
                }
            }
            Output::Parted(parting) => self.merging.part(&self.settings, &self.place, &self.pool, parting),
            Output::Note(note) => self.log(note),
        }
    }

    fn send(&self, device: &DeviceId, what: Outgoing) {
        if let Some(peer) = self.peers.get(device) {
            peer.send(what);
        }
    }

    fn cut_all(&mut self) {
        for (_, peer) in std::mem::take(&mut self.peers) {
            peer.cut();
        }
    }

    fn scan(&mut self, job: JobId, scope: Scope) {
        let (place, findings) = (self.place.clone(), self.findings.0.clone());
        let look = move || {
            let end = match place.open() {
                Ok(root) => {
                    if scope == Scope::All {
                        clean_staging(&root);
                    }
                    let threads = if scope == Scope::All { 2 } else { 1 };
                    // A folder that has ended takes no more findings.
                    let mut sink = |items| drop(findings.send(Finding::Items(job, items)));
                    scan(&root, &scope, &place.rules, &place.cancel, threads, &mut sink)
                }
                Err(error) => ScanEnd::RootMissing(error.to_string()),
            };
            findings.send(Finding::End(job, end)).ok();
        };
        match thread::Builder::new().name("scan".into()).spawn(look) {
            Ok(thread) => self.readers.push(thread),
            Err(error) => {
                tracing::error!(%error, "no thread for a scan");
                self.commands.send(Command::Input(Input::ScanEnded(job, ScanEnd::Cancelled))).ok();
            }
        }
    }

    fn hash(&mut self, path: RelPath, stat: crate::model::stat::Stat) {
        self.hashing += 1;
        // One flush for many reaches only the root's own file system, and none that is mounted below.
        let is_reached = self.place.root().is_some_and(|root| root.is_on_its_file_system(&stat));
        let durability =
            if self.hashing <= FLUSH_EACH_MAX || !is_reached { Durability::Now } else { Durability::Later };
        let (place, commands) = (self.place.clone(), self.commands.clone());
        self.pool.run(move |memory| {
            let outcome = match place.root() {
                Some(root) => hash_file(&root, &path, &stat, durability, &place.cancel, &mut memory.chunks),
                None => HashOutcome::Changed,
            };
            commands.send(Command::Read(path, outcome, durability)).ok();
        });
    }

    /// Not by the pool: a slow reading would keep one of its threads from those who wait.
    fn verify(&mut self, items: Vec<VerifyItem>, is_slow: bool) {
        let (place, findings, count) = (self.place.clone(), self.findings.0.clone(), items.len());
        let read = move || {
            let outcomes = match place.root() {
                Some(root) => verify(&root, &items, is_slow, &place.cancel),
                None => vec![VerifyOutcome::Changed; items.len()],
            };
            findings.send(Finding::Verified(outcomes)).ok();
        };
        match thread::Builder::new().name("verify".into()).spawn(read) {
            Ok(thread) => self.readers.push(thread),
            Err(error) => {
                tracing::error!(%error, "no thread to verify files");
                let failed = vec![VerifyOutcome::Failed(error.to_string()); count];
                self.commands.send(Command::Input(Input::Verified(failed))).ok();
            }
        }
    }

    fn commit(&self, items: Vec<CommitItem>) {
        let (place, commands, life) = (self.place.clone(), self.commands.clone(), self.life);
        self.pool.run(move |_| {
            let turn = place.turn();
            if *turn != life {
                // Who asked for it has failed since, and what it knew with it.
                return;
            }
            let outcomes = match place.root().filter(|root| root.check().is_ok()) {
                Some(root) => {
                    let unfinished = finish_staged(&place, &root, &items);
                    let mut outcomes = commit(&root, &items, wall_ns());
                    for (at, failure) in unfinished {
                        outcomes[at] = failure;
                    }
                    outcomes
                }
                None => {
                    let failed = CommitOutcome::Failed(ProblemKind::RootMissing, "the folder is not there".into());
                    vec![failed; items.len()]
                }
            };
            commands.send(Command::Input(Input::Committed(outcomes))).ok();
        });
    }

    fn expire_history(&mut self, engine: &mut Engine) -> Result<(), StoreError> {
        if self.expired_at.is_some_and(|at| at.elapsed() < EXPIRE_INTERVAL) {
            return Ok(());
        }
        let Some(root) = self.place.root() else {
            return Ok(());
        };
        let day_ns: i64 = 86_400_000_000_000;
        let until_ns = wall_ns().saturating_sub(day_ns.saturating_mul(self.settings.history_days.into()));
        if engine.index().kept_bytes()? == 0 && self.expired_at.is_some() {
            return Ok(());
        }
        let files = engine.index_mut().expire_kept(until_ns, self.settings.history_bytes_max, 1000)?;
        if files.len() < 1000 {
            self.expired_at = Some(Instant::now());
        }
        if !files.is_empty() {
            self.pool.run(move |_| {
                if let Err(error) = crate::disk::history::remove(&root, files.iter().map(String::as_str)) {
                    tracing::warn!(%error, "old versions cannot be removed from history");
                }
            });
        }
        Ok(())
    }

    fn log(&self, note: Note) {
        self.events.push(What::InFolder(self.settings.id, DeviceTag::of(&self.settings.device), note.clone()));
        let folder = self.settings.name.as_str();
        match note {
            Note::Changed(path, body) => tracing::info!(folder, %path, "{} here", verb(&body)),
            Note::Took(path, body, by) => tracing::info!(folder, %path, device = %by, "{} by a peer", verb(&body)),
            Note::Conflict { path, copy } => {
                tracing::info!(folder, %path, %copy, "both sides had changed it; the other version lies beside it");
            }
            Note::Held { peer, counts } => {
                let (deleted, rewritten) = (counts.deleted, counts.rewritten);
                tracing::warn!(folder, device = %peer, deleted, rewritten, "held: a device would delete or rewrite much of the folder; see `kinfold inbox`");
            }
            Note::Healed(path) => tracing::info!(folder, %path, "it was damaged and is whole again"),
            Note::NewIncarnation => {
                tracing::warn!(
                    folder,
                    "this device has told of changes that its index does not remember; it counts anew"
                );
            }
            Note::Problem(problem) => {
                let path = problem.path.as_ref().map_or_else(String::new, ToString::to_string);
                tracing::warn!(folder, path, detail = problem.detail, "{}: {}", path, problem.kind.what());
            }
        }
    }
}

/// Has the engine look at what a person's wish has changed.
fn look_at(
    engine: &mut Engine,
    now: Now,
    done: Result<BTreeMap<RelPath, Depth>, String>,
) -> Result<Result<(), String>, StoreError> {
    match done {
        Ok(touched) => engine.handle(now, Input::Touched(touched)).map(Ok),
        Err(error) => Ok(Err(error)),
    }
}

/// Gives complete staged files their size. Returns the items that cannot be committed for that.
fn finish_staged(place: &Place, root: &Root, items: &[CommitItem]) -> Vec<(usize, CommitOutcome)> {
    let mut failures = Vec::new();
    for (at, item) in items.iter().enumerate() {
        if let Action::Place { stage, body } = &item.action
            && let Err(error) = place.staging.finish(root, *stage, body.size)
        {
            failures.push((at, CommitOutcome::Failed(error.kind, error.detail)));
        }
    }
    failures
}

/// Lets the bytes of a small file travel with its record, if the file is still what the record says.
fn attach_content(root: &Root, sent: &mut SentRecord) {
    let (Body::File(file), Some(recipe)) = (&sent.record.body, &sent.recipe) else {
        return;
    };
    let [chunk] = recipe.chunks() else {
        return;
    };
    if file.size as usize > limits::INLINE_CONTENT_MAX {
        return;
    }
    let Ok(Some(crate::engine::effect::Found::Entry(stat))) = crate::disk::probe::probe(root, &sent.record.path) else {
        return;
    };
    let mut bytes = vec![0; chunk.len as usize];
    let read = Reader::open(root, &sent.record.path, &stat).and_then(|reader| reader.read_exact_at(0, &mut bytes));
    if read.is_ok() && crate::model::id::ChunkId::of(&bytes) == chunk.id {
        sent.content = Some(bytes);
    }
}

/// Removes staged files that nobody went on with for a week.
fn clean_staging(root: &Root) {
    let week_ns = 7 * 86_400_000_000_000;
    if let Err(error) = sweep(root, |_| false, wall_ns() - week_ns) {
        tracing::debug!(%error, "old staged files stay");
    }
}

fn lane(stage: StageId) -> u64 {
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&stage.content.0[..8]);
    u64::from_le_bytes(bytes).wrapping_add(stage.copy.into())
}

fn verb(body: &Body) -> &'static str {
    match body {
        Body::Tombstone => "deleted",
        Body::Dir { .. } => "made a directory",
        Body::Symlink { .. } => "linked",
        Body::File(_) => "written",
    }
}

/// What the wall clock says, in nanoseconds since 1970; the bounds of the calendar where it is beyond.
pub fn wall_ns() -> i64 {
    match SystemTime::now().duration_since(SystemTime::UNIX_EPOCH) {
        Ok(since) => i64::try_from(since.as_nanos()).unwrap_or(i64::MAX),
        Err(before) => i64::try_from(before.duration().as_nanos()).map_or(i64::MIN, |ns| -ns),
    }
}
