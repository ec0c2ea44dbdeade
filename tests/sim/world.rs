//! The devices, the people, the network, and the oracle.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use kinfold::engine::chunk::VerifiedChunk;
use kinfold::engine::conflict;
use kinfold::engine::effect::{AssembleOutcome, CommitOutcome, Depth, HashOutcome, JobId, ScanEnd, ScanItem, StageId};
use kinfold::engine::folder::{Folder, FolderState, Input, Now, Output, Params};
use kinfold::engine::index::Index;
use kinfold::engine::memory_index::MemoryIndex;
use kinfold::model::brake::Thresholds;
use kinfold::model::id::{DeviceId, FolderId, Incarnation};
use kinfold::model::path::RelPath;
use kinfold::model::problem::ProblemKind;
use kinfold::model::rights::{Members, Right};
use kinfold::wire::message::{ChunkHeader, FolderHello, Message};

use crate::disk::{Data, Disk};

const FOLDER: FolderId = FolderId([7; 16]);

/// A small generator; the same everywhere (Vigna, "An experimental exploration of Marsaglia's
/// xorshift generators", the splitmix64 step).
pub struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    fn chance(&mut self, percent: u64) -> bool {
        self.next() % 100 < percent
    }

    fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len())]
    }
}

enum OnWire {
    Message(Message),
    Chunk(ChunkHeader, Vec<u8>),
}

struct Device {
    id: DeviceId,
    folder: Option<Folder<MemoryIndex>>,
    disk: Disk,
    /// Orders to the disk that are not done yet.
    orders: VecDeque<Output>,
    /// What scans have seen and not told yet.
    findings: Vec<(JobId, VecDeque<ScanItem>, ScanEnd)>,
    /// The index as it was once, for a restore from a backup.
    backup: Option<MemoryIndex>,
    wall_skew: i64,
    /// Whether the person may have left something that no event told of.
    is_unwatched: bool,
}

pub struct World {
    seed: u64,
    random: Random,
    devices: Vec<Device>,
    /// What is on its way from one device to another; a pair that is not there is not connected.
    wires: BTreeMap<(usize, usize), VecDeque<OnWire>>,
    clock: u64,
    tokens: u64,
    /// Contents that nobody knowingly replaced, and where they were written.
    owed: BTreeMap<Vec<u8>, String>,
    /// What the ignore rules leave out, where they are in force.
    rules: BTreeSet<RelPath>,
    /// Whether disks and people still make trouble.
    is_rough: bool,
    is_tracing: bool,
}

fn stage_of(order: &Output) -> Option<StageId> {
    match order {
        Output::Assemble(plan) => Some(plan.stage),
        Output::Stage(stage, ..) | Output::Discard(stage) => Some(*stage),
        _ => None,
    }
}

fn path(text: &str) -> RelPath {
    RelPath::parse(text.as_bytes()).unwrap()
}

impl World {
    pub fn play(seed: u64) {
        let mut random = Random(seed);
        let count = 2 + random.below(if seed.is_multiple_of(4) { 4 } else { 2 });
        let mut world = Self {
            seed,
            random,
            devices: Vec::new(),
            wires: BTreeMap::new(),
            clock: 0,
            tokens: 0,
            owed: BTreeMap::new(),
            rules: BTreeSet::new(),
            is_rough: true,
            is_tracing: std::env::var_os("SIM_TRACE").is_some(),
        };
        for n in 0..count {
            let index = MemoryIndex::new(Incarnation(world.random.next()));
            let id = DeviceId::from_public_key([n as u8 + 1; 32]);
            let wall_skew = *world.random.pick(&[0, 0, 0, 3_600_000_000_000, -86_400_000_000_000]);
            let device = Device {
                id,
                folder: None,
                disk: Disk::default(),
                orders: VecDeque::new(),
                findings: Vec::new(),
                backup: None,
                wall_skew,
                is_unwatched: true,
            };
            world.devices.push(device);
            world.start(n, index);
        }
        // Peers are not told that a path is left out from now on, and keep asking for it: such worlds
        // come to rest only most of the time, and are played on request.
        if seed.is_multiple_of(3) && std::env::var_os("SIM_IGNORE").is_some() {
            let rules = *world.random.pick(&[&["d/b"][..], &["e/f"], &["d", "b"], &["e/a", "e/f/a"]]);
            world.rules = rules.iter().map(|text| path(text)).collect();
        }
        let steps = 200 + world.random.below(200);
        for _ in 0..steps {
            world.step();
        }
        world.calm_down();
        world.settle();
        world.judge();
    }

    fn fail(&self, why: &str) -> ! {
        for (n, device) in self.devices.iter().enumerate().filter(|_| self.is_tracing) {
            println!("{n}: {}", device.folder.as_ref().map(Folder::under_way).unwrap_or_default());
        }
        panic!("seed {}: {why}\n(play it again with SIM_SEED={} SIM_TRACE=1)", self.seed, self.seed);
    }

    fn say(&mut self, line: impl FnOnce() -> String) {
        if self.is_tracing {
            println!("{:6} {}", self.clock, line());
        }
    }

    fn now(&self, n: usize) -> Now {
        let at = Duration::from_millis(self.clock);
        Now { at, wall_ns: 1_700_000_000_000_000_000 + self.clock as i64 * 1_000_000 + self.devices[n].wall_skew }
    }

    // ------------------------------------------------------------------------------ life and death

    fn start(&mut self, n: usize, index: MemoryIndex) {
        let mut seed = [0; 32];
        seed[..8].copy_from_slice(&self.random.next().to_le_bytes());
        let params = Params {
            folder: FOLDER,
            device: self.devices[n].id,
            rescan_interval: Duration::from_secs(3600),
            quiet: Duration::from_millis(10),
            patience: Duration::from_millis(500),
            brake: Some(Thresholds::default()),
            seed,
        };
        self.devices[n].folder = Some(Folder::open(params, index));
        self.flush(n);
    }

    fn stop(&mut self, n: usize, is_crash: bool) {
        let Some(folder) = self.devices[n].folder.take() else {
            return;
        };
        self.say(|| format!("{n} {}", if is_crash { "crashes" } else { "stops" }));
        for other in 0..self.devices.len() {
            self.cut(n, other);
        }
        self.devices[n].orders.clear();
        self.devices[n].findings.clear();
        self.devices[n].is_unwatched = true;
        let mut index = folder.into_index();
        if is_crash {
            index.crash();
        } else {
            index.commit().unwrap();
        }
        if self.random.chance(10) {
            self.devices[n].backup = Some(index.clone());
        }
        let mut is_restored = false;
        match (self.random.below(if self.is_rough { 40 } else { 1 }), self.devices[n].backup.clone()) {
            (39, _) => {
                self.say(|| format!("{n} has lost its index"));
                index = MemoryIndex::new(Incarnation(self.random.next()));
            }
            (37..39, Some(backup)) => {
                self.say(|| format!("{n} has its index from a backup"));
                index = backup;
                is_restored = true;
            }
            _ => {}
        }
        self.start_later(n, index);
        if is_restored {
            let folder = self.devices[n].folder.as_mut().unwrap();
            folder.begin_incarnation().unwrap();
        }
    }

    fn start_later(&mut self, n: usize, index: MemoryIndex) {
        // Between death and new life the person may edit.
        for _ in 0..self.random.below(3) {
            self.edit(n, false);
        }
        self.start(n, index);
    }

    fn cut(&mut self, a: usize, b: usize) {
        if self.wires.remove(&(a, b)).is_none() {
            return;
        }
        self.wires.remove(&(b, a));
        self.say(|| format!("{a} and {b} are cut"));
        for (me, other) in [(a, b), (b, a)] {
            let id = self.devices[other].id;
            self.give(me, Input::PeerDown(id));
        }
    }

    fn connect(&mut self, a: usize, b: usize) {
        if a == b || self.wires.contains_key(&(a, b)) {
            return;
        }
        if self.devices[a].folder.is_none() || self.devices[b].folder.is_none() {
            return;
        }
        self.say(|| format!("{a} and {b} meet"));
        self.wires.insert((a, b), VecDeque::new());
        self.wires.insert((b, a), VecDeque::new());
        let hello = |me: usize, other: usize| {
            let (me, other) = (&self.devices[me], &self.devices[other]);
            let (incarnation, last, received) = me.folder.as_ref().unwrap().hello_for(&other.id).unwrap();
            let (name, members) = (String::new(), Members::default());
            FolderHello { folder: FOLDER, name, holds: true, incarnation, last, received, members }
        };
        let (from_a, from_b) = (hello(a, b), hello(b, a));
        let (id_a, id_b) = (self.devices[a].id, self.devices[b].id);
        self.give(b, Input::PeerUp(id_a, Right::Owner, from_a));
        if self.wires.contains_key(&(a, b)) {
            self.give(a, Input::PeerUp(id_b, Right::Owner, from_b));
        }
    }

    // ------------------------------------------------------------------------------------ the loop

    fn give(&mut self, n: usize, input: Input) {
        let now = self.now(n);
        if let Some(folder) = &mut self.devices[n].folder {
            folder.handle(now, input).unwrap();
        }
        // Several inputs may come before a flush.
        if self.random.chance(70) {
            self.flush(n);
        }
    }

    fn flush(&mut self, n: usize) {
        let now = self.now(n);
        let mut outputs = Vec::new();
        if let Some(folder) = &mut self.devices[n].folder {
            folder.flush(now).unwrap();
            while let Some(output) = folder.poll_output() {
                outputs.push(output);
            }
        }
        for output in outputs {
            self.obey(n, output);
        }
    }

    fn obey(&mut self, n: usize, output: Output) {
        match output {
            Output::Send(peer, message) => self.send(n, &peer, OnWire::Message(message)),
            Output::Announce { peer, mut records, attach } => {
                if attach {
                    for sent in &mut records.records {
                        let disk = &self.devices[n].disk;
                        if let (Some(recipe), Some(node)) = (&sent.recipe, disk.nodes.get(&sent.record.path))
                            && let ([_], Data::File(bytes)) = (recipe.chunks(), &node.data)
                            && crate::disk::recipe_of(bytes) == *recipe
                        {
                            sent.content = Some(bytes.clone());
                        }
                    }
                }
                self.send(n, &peer, OnWire::Message(Message::Records(records)));
            }
            Output::Reconnect => {
                for other in 0..self.devices.len() {
                    self.cut(n, other);
                }
            }
            Output::Misbehaved(_, what) => self.fail(&format!("{n} is told: {what}")),
            Output::Note(note) => self.say(|| format!("{n} notes {note:?}")),
            order => {
                self.say(|| match stage_of(&order) {
                    Some(stage) => format!("{n} orders work on {stage:?}"),
                    None => format!("{n} orders {}", format!("{order:?}").split('(').next().unwrap_or_default()),
                });
                self.devices[n].orders.push_back(order);
            }
        }
    }

    fn send(&mut self, n: usize, peer: &DeviceId, what: OnWire) {
        let to = self.devices.iter().position(|d| d.id == *peer).unwrap();
        if let Some(wire) = self.wires.get_mut(&(n, to)) {
            wire.push_back(what);
        }
    }

    /// Hands in some of what a scan has seen.
    fn tell_findings(&mut self, n: usize) {
        let at = self.random.below(self.devices[n].findings.len());
        let count = 1 + self.random.below(4);
        let (job, items, _) = &mut self.devices[n].findings[at];
        let (job, some) = (*job, items.drain(..count.min(items.len())).collect::<Vec<_>>());
        let is_over = items.is_empty();
        if !some.is_empty() {
            self.give(n, Input::Scanned(job, some));
        }
        if is_over {
            let at = self.devices[n].findings.iter().position(|(known, ..)| *known == job);
            if let Some(at) = at {
                let (_, _, end) = self.devices[n].findings.remove(at);
                self.give(n, Input::ScanEnded(job, end));
            }
        }
    }

    /// Does one order; they are done in any order, as on several threads.
    fn work(&mut self, n: usize) -> bool {
        if !self.devices[n].findings.is_empty() && self.random.chance(50) {
            self.tell_findings(n);
            return true;
        }
        let device = &mut self.devices[n];
        if device.orders.is_empty() {
            return !device.findings.is_empty();
        }
        // Orders are done in any order, but those for one staging file in theirs.
        let mut at = self.random.below(device.orders.len());
        if let Some(stage) = stage_of(&device.orders[at]) {
            at = device.orders.iter().position(|order| stage_of(order) == Some(stage)).unwrap();
        }
        let order = device.orders.remove(at).unwrap();
        if self.is_tracing
            && let Some(stage) = stage_of(&order)
        {
            println!(
                "{:6} {n} does {} on {stage:?}",
                self.clock,
                format!("{order:?}").split('(').next().unwrap_or_default()
            );
        }
        let input = match order {
            Output::Scan(job, scope) => {
                // What a scan finds is handed in later than it was found; edits come in between.
                let mut items: VecDeque<_> = device.disk.scan(&scope).into();
                let mut end = ScanEnd::Complete;
                if self.is_rough && self.random.chance(3) {
                    items.clear();
                    end = ScanEnd::RootMissing("it is away".into());
                } else if self.is_rough && self.random.chance(2) {
                    end = ScanEnd::Cancelled;
                    self.devices[n].is_unwatched = true;
                }
                for item in &mut items {
                    if let ScanItem::Listing { dir: Some(dir), .. } = item
                        && self.is_rough
                        && self.random.chance(3)
                    {
                        *item = ScanItem::Unlisted { dir: Some(dir.clone()), detail: "not now".into() };
                        self.devices[n].is_unwatched = true;
                    }
                }
                self.say(|| format!("{n} scans {scope:?}: {end:?}"));
                self.devices[n].findings.push((job, items, end));
                return true;
            }
            Output::Hash(path, stat) => {
                let outcome = device.disk.hash(&path, &stat);
                let outcome = match self.random.below(100) {
                    0..4 if self.is_rough => HashOutcome::Changed,
                    4..6 if self.is_rough => HashOutcome::Failed("a bad sector".into()),
                    _ => outcome,
                };
                Input::Hashed(path, outcome)
            }
            Output::Assemble(plan) => {
                let mut outcome = device.disk.assemble(&plan);
                if self.is_rough && self.random.chance(3) {
                    outcome = AssembleOutcome::Failed(ProblemKind::DiskFull, String::new());
                }
                Input::Assembled(plan.stage, outcome)
            }
            Output::Stage(stage, number, offset, chunk) => {
                let fails = self.is_rough && self.random.chance(2);
                if !fails {
                    self.devices[n].disk.stage(stage, offset, &chunk);
                }
                let outcome = if fails { Err((ProblemKind::DiskFull, String::new())) } else { Ok(()) };
                Input::Staged(stage, number, outcome)
            }
            Output::Discard(stage) => {
                device.disk.discard(stage);
                return true;
            }
            Output::Commit(items) => {
                let mut outcomes = Vec::new();
                for item in &items {
                    let fails = self.is_rough && self.random.chance(4);
                    outcomes.push(match fails {
                        true => CommitOutcome::Failed(ProblemKind::DiskFull, String::new()),
                        false => self.devices[n].disk.commit_one(item),
                    });
                }
                for (item, outcome) in items.iter().zip(&outcomes) {
                    self.say(|| format!("{n} commits {:?} {:?}: {outcome:?}", item.path, item.action));
                }
                if self.random.chance(3) {
                    // The disk has it, the index never hears of it.
                    self.stop(n, true);
                    return true;
                }
                // The watch reports our own doings too.
                let done = items.iter().zip(&outcomes).filter(|(_, o)| matches!(o, CommitOutcome::Done { .. }));
                let touched = done.map(|(item, _)| (item.path.clone(), Depth::Entry)).collect();
                self.give(n, Input::Touched(touched));
                Input::Committed(outcomes)
            }
            Output::Serve { peer, request, items } => {
                for (item, path, stat, runs) in items {
                    for run in runs {
                        let mut offset = run.offset;
                        for (chunk, len) in (run.first..).zip(run.lens) {
                            let read = self.devices[n].disk.read(&path, &stat, offset, len);
                            offset += u64::from(len);
                            let header = ChunkHeader { request, item, chunk };
                            match read {
                                Some(bytes) => self.send(n, &peer, OnWire::Chunk(header, bytes)),
                                None => {
                                    let missing = Message::Missing { request, item };
                                    self.send(n, &peer, OnWire::Message(missing));
                                }
                            }
                        }
                    }
                }
                return true;
            }
            other => unreachable!("{other:?}"),
        };
        self.give(n, input);
        true
    }

    fn deliver(&mut self, from: usize, to: usize) -> bool {
        let Some(what) = self.wires.get_mut(&(from, to)).and_then(VecDeque::pop_front) else {
            return false;
        };
        let id = self.devices[from].id;
        match what {
            OnWire::Message(message) => {
                // All that travels must survive being written and read; it takes long to try with all.
                let mut message = message;
                if self.random.chance(5) {
                    let (header, body) = message.encode();
                    message = Message::decode(message.kind(), &header, &body).unwrap().unwrap();
                }
                self.say(|| format!("{from} -> {to} {message:?}"));
                self.give(to, Input::Message(id, message));
            }
            OnWire::Chunk(header, bytes) => self.give(to, Input::Chunk(id, header, VerifiedChunk::hash(bytes))),
        }
        true
    }

    fn step(&mut self) {
        self.clock += self.random.below(30) as u64;
        let count = self.devices.len();
        let (n, other) = (self.random.below(count), self.random.below(count));
        match self.random.below(100) {
            0..22 => self.edit(n, true),
            22..30 => self.connect(n, other),
            30..33 => self.cut(n, other),
            33..35 => {
                let is_crash = self.random.chance(60);
                self.stop(n, is_crash);
            }
            35..36 => self.give(n, Input::ScanAll),
            36..37 => self.change_rules(n),
            37..60 => {
                self.work(n);
            }
            60..90 => {
                self.deliver(n, other);
            }
            _ => self.flush(n),
        }
    }

    // ------------------------------------------------------------------------------- people's hands

    /// The ignore file here comes or goes; all is looked at anew.
    fn change_rules(&mut self, n: usize) {
        if self.rules.is_empty() {
            return;
        }
        let disk = &mut self.devices[n].disk;
        disk.ignored = if disk.ignored.is_empty() { self.rules.clone() } else { BTreeSet::new() };
        let now = self.devices[n].disk.ignored.clone();
        self.say(|| format!("{n} ignores {now:?}"));
        self.devices[n].is_unwatched = true;
        self.give(n, Input::ScanAll);
    }

    fn any_path(&mut self, n: usize) -> RelPath {
        // Something that is there, conflict copies too, or a name out of a few.
        let count = self.devices[n].disk.nodes.len();
        if count > 0 && self.random.chance(25) {
            let at = self.random.below(count);
            return self.devices[n].disk.nodes.keys().nth(at).unwrap().clone();
        }
        let name = *self.random.pick(&["a", "b", "c", "d", "d/a", "d/b", "e/a", "e/b", "e/f/a", "d/e"]);
        path(name)
    }

    /// The person knowingly replaces or removes what is there.
    fn saw(&mut self, data: Option<&Data>) {
        if let Some(Data::File(bytes)) = data {
            self.owed.remove(bytes);
        }
    }

    fn make_parents(&mut self, n: usize, path: &RelPath) -> bool {
        let mut dirs: Vec<_> = path.ancestors().collect();
        dirs.reverse();
        for dir in dirs {
            match self.devices[n].disk.nodes.get(&dir).map(|node| &node.data) {
                None => self.devices[n].disk.make(&dir, Data::Dir),
                Some(Data::Dir) => {}
                Some(_) => return false,
            }
            self.touch(n, &dir, true);
        }
        true
    }

    fn touch(&mut self, n: usize, path: &RelPath, is_watched: bool) {
        if is_watched && self.devices[n].folder.is_some() && self.random.chance(85) {
            let depth = if self.devices[n].disk.is_dir(Some(path)) { Depth::Tree } else { Depth::Entry };
            self.give(n, Input::Touched(BTreeMap::from([(path.clone(), depth)])));
        } else {
            self.devices[n].is_unwatched = true;
        }
    }

    fn edit(&mut self, n: usize, is_watched: bool) {
        let path = self.any_path(n);
        let there = self.devices[n].disk.nodes.get(&path).map(|node| node.data.clone());
        match self.random.below(110) {
            0..45 => {
                if there == Some(Data::Dir) || matches!(there, Some(Data::Symlink(_))) || !self.make_parents(n, &path) {
                    return;
                }
                self.saw(there.as_ref());
                self.tokens += 1;
                let mut bytes = format!("{:<7}", self.tokens).into_bytes();
                for _ in 0..self.random.below(24) {
                    bytes.extend_from_slice(b"shared-1");
                }
                self.owed.insert(bytes.clone(), format!("written to {path} by {n} at {}", self.clock));
                let mtime = 1_700_000_000_000_000_000 + self.devices[n].wall_skew + (self.clock as i64) * 1_000_000;
                self.say(|| format!("{n} writes {} to {path}", String::from_utf8_lossy(&bytes[..7])));
                self.devices[n].disk.write(&path, bytes, mtime);
            }
            45..60 => {
                if there.is_none() {
                    return;
                }
                self.say(|| format!("{n} removes {path}"));
                for (_, data) in self.devices[n].disk.remove(&path) {
                    self.saw(Some(&data));
                }
            }
            60..80 => {
                let to = self.any_path(n);
                let inside = to.is_below(&path) || path.is_below(&to) || to == path;
                let onto = self.devices[n].disk.nodes.get(&to).map(|node| node.data.clone());
                let fits = !matches!((&there, &onto), (None, _) | (_, Some(Data::Dir)) | (Some(Data::Dir), Some(_)));
                if inside || !fits || !self.make_parents(n, &to) {
                    return;
                }
                self.saw(onto.as_ref());
                self.say(|| format!("{n} renames {path} to {to}"));
                self.devices[n].disk.rename(&path, &to);
                self.touch(n, &to, is_watched);
            }
            80..88 => {
                if there.is_some() || !self.make_parents(n, &path) {
                    return;
                }
                let data = if self.random.chance(50) { Data::Dir } else { Data::Symlink(b"target".to_vec()) };
                self.say(|| format!("{n} makes {path} {data:?}"));
                self.devices[n].disk.make(&path, data);
            }
            88..91 => {
                // The same length and the same time: only the change time tells.
                let (Some(Data::File(bytes)), Some(mtime)) = (&there, self.devices[n].disk.stat(&path)) else {
                    return;
                };
                self.saw(there.as_ref());
                self.tokens += 1;
                let mut bytes = bytes.clone();
                bytes[..7].copy_from_slice(format!("{:<7}", self.tokens).as_bytes());
                self.owed.insert(bytes.clone(), format!("written over {path} by {n} at {}", self.clock));
                self.say(|| format!("{n} writes {} to {path} in place", String::from_utf8_lossy(&bytes[..7])));
                self.devices[n].disk.write(&path, bytes, mtime.mtime_ns);
            }
            91..94 => {
                if matches!(there, Some(Data::File(_))) {
                    let mtime = *self.random.pick(&[0, -1, i64::MAX, i64::MIN, 4_000_000_000_000_000_000]);
                    self.say(|| format!("{n} sets the time of {path} to {mtime}"));
                    self.devices[n].disk.set_mtime(&path, mtime);
                }
            }
            94..97 => {
                let other = self.any_path(n);
                let onto = self.devices[n].disk.nodes.get(&other).map(|node| node.data.clone());
                let is_plain = |data: &Option<Data>| matches!(data, Some(Data::File(_) | Data::Symlink(_)));
                if path == other || !is_plain(&there) || !is_plain(&onto) {
                    return;
                }
                self.say(|| format!("{n} swaps {path} and {other}"));
                self.devices[n].disk.swap(&path, &other);
                self.touch(n, &other, is_watched);
            }
            97..101 => {
                // One kind of thing becomes another between two looks.
                if there.is_none() {
                    return;
                }
                for (_, data) in self.devices[n].disk.remove(&path) {
                    self.saw(Some(&data));
                }
                let data = match there {
                    Some(Data::Dir) => Data::Symlink(b"elsewhere".to_vec()),
                    _ => Data::Dir,
                };
                self.say(|| format!("{n} turns {path} into {data:?}"));
                self.devices[n].disk.make(&path, data);
            }
            _ => {
                let mode = *self.random.pick(&[0o600, 0o644, 0o755]);
                if matches!(there, Some(Data::Symlink(_))) {
                    return;
                }
                self.say(|| format!("{n} changes the mode of {path} to {mode:o}"));
                self.devices[n].disk.chmod(&path, mode);
            }
        }
        self.touch(n, &path, is_watched);
    }

    // ----------------------------------------------------------------------------------- the oracle

    /// Disks are in order again, and all devices have the same rules.
    fn calm_down(&mut self) {
        self.is_rough = false;
        let rules = if self.random.chance(50) { self.rules.clone() } else { BTreeSet::new() };
        for n in 0..self.devices.len() {
            if self.devices[n].disk.ignored != rules {
                self.change_rules(n);
            }
        }
    }

    /// Nobody edits any more, everything is connected, and all is scanned.
    fn settle(&mut self) {
        self.say(|| "the end begins".into());
        let count = self.devices.len();
        for n in 0..count {
            if self.devices[n].is_unwatched {
                self.give(n, Input::ScanAll);
            }
        }
        let (mut idle, mut jumps) = (0, 0);
        for _ in 0..60_000 {
            let mut has_moved = false;
            for a in 0..count {
                for b in 0..count {
                    self.connect(a, b);
                }
            }
            for n in 0..count {
                has_moved |= self.work(n);
                for other in 0..count {
                    has_moved |= self.deliver(n, other);
                }
                self.flush(n);
            }
            self.clock += 1;
            if self.devices.iter().all(|d| {
                d.folder.as_ref().is_some_and(|f| f.is_settled() && f.status().unwrap().peers.len() == count - 1)
            }) && (1..count).any(|n| self.tree(n) != self.tree(0))
            {
                self.print_trees();
                self.fail("all say that they are in sync, and are not");
            }
            if has_moved {
                (idle, jumps) = (0, 0);
                continue;
            }
            // Nothing moves: let the time pass until something is due.
            let due = self.devices.iter().filter_map(|d| d.folder.as_ref().and_then(Folder::poll_timeout)).min();
            if let Some(due) = due.filter(|due| *due < Duration::from_millis(self.clock) + Duration::from_secs(600)) {
                self.clock = self.clock.max(due.as_millis() as u64 + 1);
                (idle, jumps) = (0, jumps + 1);
            } else {
                idle += 1;
            }
            if idle > 3 || jumps > 200 {
                return;
            }
        }
        self.fail("it never comes to rest");
    }

    /// What lies on a device, but for what is ignored.
    fn tree(&self, n: usize) -> BTreeMap<RelPath, (Data, u16, i64)> {
        let disk = &self.devices[n].disk;
        let mut tree = disk.tree();
        tree.retain(|path, _| !disk.is_ignored(path));
        tree
    }

    fn judge(&mut self) {
        let first = self.tree(0);
        for n in 0..self.devices.len() {
            let tree = self.tree(n);
            if tree != first {
                let paths: BTreeSet<_> =
                    first.keys().chain(tree.keys()).filter(|p| first.get(*p) != tree.get(*p)).collect();
                for path in &paths {
                    println!("{path}:");
                    for (n, device) in self.devices.iter().enumerate() {
                        let index = device.folder.as_ref().unwrap().index();
                        println!("  {n} has {:?}", device.disk.tree().get(*path));
                        println!("    holds {:?}", index.local(path).unwrap().map(|l| (l.record, l.ignored)));
                        for (peer, remote) in index.remotes(path).unwrap() {
                            println!("    {peer:?} has {:?}", remote.record);
                        }
                    }
                }
                self.fail(&format!("0 and {n} differ at {paths:?}"));
            }
        }
        for (n, device) in self.devices.iter().enumerate() {
            // What is ignored lies where it was written, or came before it was ignored.
            let live: BTreeSet<_> = match device.disk.ignored.is_empty() {
                true => device.disk.contents(),
                false => self.devices.iter().flat_map(|device| device.disk.contents()).collect(),
            };
            if let Some((bytes, story)) = self.owed.iter().find(|(bytes, _)| !live.contains(*bytes)) {
                self.fail(&format!("{} ({story}) is gone from {n}", String::from_utf8_lossy(&bytes[..7])));
            }
            let folder = device.folder.as_ref().unwrap();
            let status = folder.status().unwrap();
            if !folder.is_settled() || status.state != FolderState::Idle {
                self.print_indexes();
                self.fail(&format!("{n} does not say that it is in sync: {status:?}"));
            }
        }
        // No numbered copy has the content of the copy whose name it would have had. (Devices that made
        // the same content apart, or changed its mode, may each give it their own name.)
        for (path, (data, ..)) in &first {
            let name = path.name().strip_suffix(b"-2").and_then(|name| path.with_name(name).ok());
            if conflict::is_copy(path)
                && name.is_some_and(|name| first.get(&name).is_some_and(|there| there.0 == *data))
            {
                self.fail(&format!("{path} is a copy too many"));
            }
        }
        // A restart changes nothing.
        for n in 0..self.devices.len() {
            self.stop_quietly(n);
        }
        self.settle();
        for n in 0..self.devices.len() {
            if self.tree(n) != first {
                self.fail(&format!("a restart changed {n}"));
            }
        }
    }

    /// Prints where the disks differ.
    fn print_trees(&self) {
        let lines = |n: usize| self.tree(n).iter().map(|line| format!("{line:?}")).collect::<BTreeSet<_>>();
        for n in 1..self.devices.len() {
            println!("0 has {:?}", lines(0).difference(&lines(n)).collect::<Vec<_>>());
            println!("{n} has {:?}", lines(n).difference(&lines(0)).collect::<Vec<_>>());
        }
    }

    /// Prints where the indexes differ.
    fn print_indexes(&self) {
        let lines = |n: usize| -> BTreeSet<String> {
            let index = self.devices[n].folder.as_ref().unwrap().index();
            let held = index.locals().filter(|l| l.record.body.is_live() && !l.ignored);
            held.map(|l| format!("{:?} {:?}", l.record.path, l.record.body)).collect()
        };
        for n in 1..self.devices.len() {
            println!("0 alone: {:?}", lines(0).difference(&lines(n)).collect::<Vec<_>>());
            println!("{n} alone: {:?}", lines(n).difference(&lines(0)).collect::<Vec<_>>());
        }
    }

    fn stop_quietly(&mut self, n: usize) {
        for other in 0..self.devices.len() {
            self.cut(n, other);
        }
        if let Some(folder) = self.devices[n].folder.take() {
            self.devices[n].orders.clear();
            self.devices[n].findings.clear();
            let mut index = folder.into_index();
            index.commit().unwrap();
            self.start(n, index);
        }
    }
}
