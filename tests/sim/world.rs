//! The devices, the people, the network, and the oracle.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use kinfold::engine::chunk::VerifiedChunk;
use kinfold::engine::conflict;
use kinfold::engine::effect::{Depth, ScanEnd, StageId};
use kinfold::engine::folder::{Folder, FolderState, Input, Now, Output, Params};
use kinfold::engine::index::Index;
use kinfold::engine::memory_index::MemoryIndex;
use kinfold::model::id::{DeviceId, FolderId, Incarnation};
use kinfold::model::path::RelPath;
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
    is_tracing: bool,
    trace: Vec<String>,
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
        let count = 2 + random.below(if seed % 4 == 0 { 4 } else { 2 });
        let mut world = Self {
            seed,
            random,
            devices: Vec::new(),
            wires: BTreeMap::new(),
            clock: 0,
            tokens: 0,
            owed: BTreeMap::new(),
            is_tracing: std::env::var_os("SIM_TRACE").is_some(),
            trace: Vec::new(),
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
                wall_skew,
                is_unwatched: true,
            };
            world.devices.push(device);
            world.start(n, index);
        }
        let steps = 150 + world.random.below(250);
        for _ in 0..steps {
            world.step();
        }
        world.settle();
        world.judge();
    }

    fn fail(&self, why: &str) -> ! {
        for line in &self.trace {
            println!("{line}");
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
        self.devices[n].is_unwatched = true;
        let mut index = folder.into_index();
        if is_crash {
            index.crash();
        } else {
            index.commit().unwrap();
        }
        self.start_later(n, index);
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
        self.give(a, Input::PeerUp(id_b, Right::Owner, from_b));
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
            order => self.devices[n].orders.push_back(order),
        }
    }

    fn send(&mut self, n: usize, peer: &DeviceId, what: OnWire) {
        let to = self.devices.iter().position(|d| d.id == *peer).unwrap();
        if let Some(wire) = self.wires.get_mut(&(n, to)) {
            wire.push_back(what);
        }
    }

    /// Does one order; they are done in any order, as on several threads.
    fn work(&mut self, n: usize) -> bool {
        let device = &mut self.devices[n];
        if device.orders.is_empty() {
            return false;
        }
        // Orders are done in any order, but those for one staging file in theirs.
        let mut at = self.random.below(device.orders.len());
        if let Some(stage) = stage_of(&device.orders[at]) {
            at = device.orders.iter().position(|order| stage_of(order) == Some(stage)).unwrap();
        }
        let order = device.orders.remove(at).unwrap();
        let input = match order {
            Output::Scan(job, scope) => {
                // What a scan finds is handed in later than it was found; edits come in between.
                let items = device.disk.scan(&scope);
                self.say(|| format!("{n} scans {scope:?}"));
                self.give(n, Input::Scanned(job, items));
                Input::ScanEnded(job, ScanEnd::Complete)
            }
            Output::Hash(path, stat) => {
                let outcome = device.disk.hash(&path, &stat);
                Input::Hashed(path, outcome)
            }
            Output::Assemble(plan) => {
                let outcome = device.disk.assemble(&plan);
                Input::Assembled(plan.stage, outcome)
            }
            Output::Stage(stage, number, offset, chunk) => {
                device.disk.stage(stage, offset, &chunk);
                Input::Staged(stage, number, Ok(()))
            }
            Output::Discard(stage) => {
                device.disk.discard(stage);
                return true;
            }
            Output::Commit(items) => {
                let outcomes = device.disk.commit(&items);
                for (item, outcome) in items.iter().zip(&outcomes) {
                    self.say(|| format!("{n} commits {:?} {:?}: {outcome:?}", item.path, item.action));
                }
                if self.random.chance(3) {
                    // The disk has it, the index never hears of it.
                    self.stop(n, true);
                    return true;
                }
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
            35..37 => self.give(n, Input::ScanAll),
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

    fn any_path(&mut self) -> RelPath {
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
        let path = self.any_path();
        let there = self.devices[n].disk.nodes.get(&path).map(|node| node.data.clone());
        match self.random.below(100) {
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
                let to = self.any_path();
                let inside = to.is_below(&path) || path.is_below(&to) || to == path;
                let onto = self.devices[n].disk.nodes.get(&to).map(|node| node.data.clone());
                let fits = match (&there, &onto) {
                    (None, _) | (_, Some(Data::Dir)) | (Some(Data::Dir), Some(_)) => false,
                    _ => true,
                };
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

    /// Nobody edits any more, everything is connected, and all is scanned.
    fn settle(&mut self) {
        self.say(|| "the end begins".into());
        let count = self.devices.len();
        for n in 0..count {
            if self.devices[n].is_unwatched {
                self.give(n, Input::ScanAll);
            }
        }
        let mut quiet = 0;
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
            if has_moved {
                quiet = 0;
                continue;
            }
            quiet += 1;
            // Nothing moves: let the time pass until something is due.
            let due = self.devices.iter().filter_map(|d| d.folder.as_ref().and_then(Folder::poll_timeout)).min();
            if let Some(due) = due.filter(|due| *due < Duration::from_millis(self.clock) + Duration::from_secs(600)) {
                self.clock = self.clock.max(due.as_millis() as u64 + 1);
            } else if quiet > 3 {
                return;
            }
            if quiet > 200 {
                return;
            }
        }
        self.fail("it never comes to rest");
    }

    fn judge(&mut self) {
        let first = self.devices[0].disk.tree();
        for (n, device) in self.devices.iter().enumerate() {
            let tree = device.disk.tree();
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
            let live = device.disk.contents();
            if let Some((bytes, story)) = self.owed.iter().find(|(bytes, _)| !live.contains(*bytes)) {
                self.fail(&format!("{} ({story}) is gone from {n}", String::from_utf8_lossy(&bytes[..7])));
            }
            let folder = device.folder.as_ref().unwrap();
            let status = folder.status().unwrap();
            if !folder.is_settled() || status.state != FolderState::Idle {
                for (n, device) in self.devices.iter().enumerate() {
                    let index = device.folder.as_ref().unwrap().index();
                    println!("{n}: {:?} {:?}", index.tree_hash(), index.last_sequence());
                    for local in index.locals().filter(|l| l.record.body.is_live()) {
                        println!("   {:?}", local.record);
                    }
                }
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
        for (n, device) in self.devices.iter().enumerate() {
            if device.disk.tree() != first {
                self.fail(&format!("a restart changed {n}"));
            }
        }
    }

    fn stop_quietly(&mut self, n: usize) {
        for other in 0..self.devices.len() {
            self.cut(n, other);
        }
        if let Some(folder) = self.devices[n].folder.take() {
            self.devices[n].orders.clear();
            let mut index = folder.into_index();
            index.commit().unwrap();
            self.start(n, index);
        }
    }
}
