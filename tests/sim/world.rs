//! The devices, the network between them, and what befalls them.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use kinfold::engine::chunk::VerifiedChunk;
use kinfold::engine::effect::{
    Action, AssembleOutcome, CommitItem, CommitOutcome, Depth, HashOutcome, JobId, ScanEnd, ScanItem, Scope, StageId,
    VerifyOutcome,
};
use kinfold::engine::folder::{Folder, Greeting, Input, Note, Now, Output, Params};
use kinfold::engine::index::Index;
use kinfold::engine::memory_index::MemoryIndex;
use kinfold::model::brake::Thresholds;
use kinfold::model::id::{AuthorId, ContentId, DeviceId, FolderId, Incarnation};
use kinfold::model::path::RelPath;
use kinfold::model::problem::ProblemKind;
use kinfold::model::record::Body;
use kinfold::model::rights::{Members, Right};
use kinfold::wire::message::{ChunkHeader, FolderHello, Message, Run};

use crate::disk::{Data, Disk};
use crate::letters::Letter;

/// Where the first device has a file system of its own, in some worlds, and what lies on it for ever.
const MOUNT: &str = "e";
const MOUNT_KEEP: &str = "e/kept";
/// Seeds that leave this when they are divided by 11 have such a world.
const MOUNT_WORLDS: u64 = 4;
/// Seeds that leave this when they are divided by 7 have machines that are restored from an image.
const IMAGE_WORLDS: u64 = 2;
/// Seeds that leave this when they are divided by 28 have clones instead: two machines of one identity, in turns.
const CLONE_WORLDS: u64 = 9;
/// Seeds that leave this when they are divided by 5 have peers that hear what is short before what is long.
const LANE_WORLDS: u64 = 3;
/// Seeds that leave this when they are divided by 13 have letters; see [`crate::letters`].
const LETTER_WORLDS: u64 = 6;

const FOLDER: FolderId = FolderId([7; 16]);

/// A small generator; the same everywhere (Vigna, "An experimental exploration of Marsaglia's
/// xorshift generators", the splitmix64 step).
pub struct Random(u64);

impl From<u64> for Random {
    fn from(seed: u64) -> Self {
        Self(seed)
    }
}

impl Random {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(super) fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    pub(super) fn chance(&mut self, percent: u64) -> bool {
        self.next() % 100 < percent
    }

    pub(super) fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len())]
    }
}

/// What chance did in each turn of a world, by the state of the generator at its beginning. Any part of it is a script,
/// too: what happens in a turn depends on its state and on what is there, and not on what turns there were before.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Script {
    /// One for each turn, until the end begins.
    pub turns: Vec<u64>,
    /// The one with which the end begins.
    pub end: u64,
}

pub(super) enum OnWire {
    Message(Message),
    Chunk(ChunkHeader, Vec<u8>),
}

pub(super) struct Device {
    pub(super) id: DeviceId,
    pub(super) folder: Option<Folder<MemoryIndex>>,
    pub(super) disk: Disk,
    /// Orders to the disk that are not done yet.
    pub(super) orders: VecDeque<Output>,
    /// What scans have seen and not told yet.
    pub(super) findings: Vec<(JobId, VecDeque<ScanItem>, ScanEnd)>,
    /// The index as it was once, for a restore from a backup.
    pub(super) backup: Option<MemoryIndex>,
    /// The whole machine as it was once, for a restore from an image.
    image: Option<(Disk, MemoryIndex)>,
    pub(super) wall_skew: i64,
    /// Paths that were removed or renamed here and that no index has counted as deleted yet.
    pub(super) removed: BTreeSet<RelPath>,
    /// All paths that ever were removed or renamed here.
    pub(super) ever_removed: BTreeSet<RelPath>,
    /// Whether the folder's file system is not mounted.
    pub(super) is_away: bool,
    /// Whether the person may have left something that no event told of.
    pub(super) is_unwatched: bool,
}

pub struct World {
    pub(super) seed: u64,
    /// How many devices there are.
    pub(super) count: usize,
    pub(super) random: Random,
    pub(super) devices: Vec<Device>,
    /// What is on its way from one device to another; a pair that is not there is not connected.
    pub(super) wires: BTreeMap<(usize, usize), VecDeque<OnWire>>,
    pub(super) clock: u64,
    pub(super) tokens: u64,
    /// What has befallen the devices so far; see [`World::play`].
    pub(super) steps: u64,
    /// All contents that ever were written.
    pub(super) written: BTreeSet<Vec<u8>>,
    /// Contents that some device has read, and so promised to hold.
    pub(super) promised: BTreeSet<ContentId>,
    /// What each version that was ever announced stands for.
    pub(super) versions: BTreeMap<(RelPath, Vec<(AuthorId, u64)>), Body>,
    /// Contents that nobody knowingly replaced, and where they were written.
    pub(super) owed: BTreeMap<Vec<u8>, String>,
    /// Files that are written once, and then at most removed.
    pub(super) letters: BTreeMap<RelPath, Letter>,
    /// What the ignore rules leave out, where they are in force.
    pub(super) rules: BTreeSet<RelPath>,
    /// Whether disks and people still make trouble.
    pub(super) is_rough: bool,
    pub(super) is_tracing: bool,
    /// What happened, where it is kept.
    pub(super) trace: Option<Vec<String>>,
}

impl Device {
    /// What is in the history of the clone that is away.
    pub(super) fn cloned(&self) -> impl Iterator<Item = &Data> {
        self.image.iter().flat_map(|(disk, _)| disk.history.values())
    }
}

impl OnWire {
    /// In which of the lanes it goes (`daemon/lanes.rs`); within one the order stays.
    fn lane(&self) -> u8 {
        match self {
            Self::Message(Message::Ack(_) | Message::Want(_) | Message::WantRecipe(_) | Message::WantPages { .. }) => 0,
            Self::Message(_) => 1,
            Self::Chunk(..) => 2,
        }
    }
}

fn stage_of(order: &Output) -> Option<StageId> {
    match order {
        Output::Assemble(plan) => Some(plan.stage),
        Output::Stage(stage, ..) | Output::Discard(stage) => Some(*stage),
        _ => None,
    }
}

pub(super) fn path(text: &str) -> RelPath {
    RelPath::parse(text.as_bytes()).unwrap()
}

fn id_of(n: usize) -> DeviceId {
    DeviceId::from_public_key([n as u8 + 1; 32])
}

impl World {
    /// Plays a seed to its end, and panics if the oracle finds fault. Returns the number of its steps: a
    /// person's deed, a message or chunk that arrives, an order that a disk does, some findings that a
    /// scan tells, a meeting, a cut, a stop or crash, a folder that goes away or comes back, new rules.
    pub fn play(seed: u64) -> u64 {
        Self::play_out(seed, false, None, &RefCell::default()).steps
    }

    /// Plays a seed and returns all that happened.
    pub fn trace(seed: u64) -> Vec<String> {
        Self::play_out(seed, true, None, &RefCell::default()).trace.unwrap_or_default()
    }

    /// Plays a seed and writes down by what it can be played again in parts, also where it panics.
    pub fn record(seed: u64, script: &RefCell<Script>) {
        Self::play_out(seed, false, None, script);
    }

    /// Plays what a script says, and returns all that happened.
    pub fn replay(seed: u64, script: &Script, keeps_trace: bool) -> Vec<String> {
        Self::play_out(seed, keeps_trace, Some(script), &RefCell::default()).trace.unwrap_or_default()
    }

    /// Plays what a script says, and prints what happens until it panics.
    #[allow(dead_code, reason = "the long runner shows what it has shrunk")]
    pub fn show(seed: u64, script: &Script) {
        let show = || Self::play_out_aloud(seed, false, Some(script), &RefCell::default(), true);
        drop(std::panic::catch_unwind(std::panic::AssertUnwindSafe(show)));
    }

    fn play_out(seed: u64, keeps_trace: bool, script: Option<&Script>, record: &RefCell<Script>) -> Self {
        let is_tracing = std::env::var_os("SIM_TRACE").is_some();
        Self::play_out_aloud(seed, keeps_trace, script, record, is_tracing)
    }

    fn play_out_aloud(
        seed: u64,
        keeps_trace: bool,
        script: Option<&Script>,
        record: &RefCell<Script>,
        is_tracing: bool,
    ) -> Self {
        let mut random = Random(seed);
        let count = 2 + random.below(if seed.is_multiple_of(4) { 4 } else { 2 });
        let mut world = Self {
            seed,
            count,
            random,
            devices: Vec::new(),
            wires: BTreeMap::new(),
            clock: 0,
            tokens: 0,
            steps: 0,
            written: BTreeSet::new(),
            promised: BTreeSet::new(),
            versions: BTreeMap::new(),
            owed: BTreeMap::new(),
            letters: BTreeMap::new(),
            rules: BTreeSet::new(),
            is_rough: true,
            is_tracing,
            trace: keeps_trace.then(Vec::new),
        };
        for n in 0..count {
            let index = MemoryIndex::new(Incarnation(world.random.next()));
            let id = id_of(n);
            let wall_skew = *world.random.pick(&[0, 0, 0, 3_600_000_000_000, -86_400_000_000_000]);
            let device = Device {
                id,
                folder: None,
                disk: Disk::default(),
                orders: VecDeque::new(),
                findings: Vec::new(),
                backup: None,
                image: None,
                wall_skew,
                removed: BTreeSet::new(),
                ever_removed: BTreeSet::new(),
                is_away: false,
                is_unwatched: true,
            };
            world.devices.push(device);
            if n == 0 && world.has_mount() {
                let keep = b"0      kept".to_vec();
                world.written.insert(keep.clone());
                world.owed.insert(keep.clone(), "what lies on the nested file system".into());
                world.devices[n].disk.make_mount(&path(MOUNT), &path(MOUNT_KEEP), keep);
            }
            world.start(n, index);
        }
        if seed.is_multiple_of(3) {
            let rules = *world.random.pick(&[&["d/b"][..], &["e/f"], &["d", "b"], &["e/a", "e/f/a"]]);
            world.rules = rules.iter().map(|text| path(text)).collect();
        }
        let steps = 200 + world.random.below(200) as u64;
        if let Some(script) = script {
            for state in &script.turns {
                world.random = Random(*state);
                world.step();
            }
            world.random = Random(script.end);
        } else {
            // Much of what chance would have happen cannot: it does not count.
            while world.steps < steps {
                record.borrow_mut().turns.push(world.random.0);
                world.step();
            }
            record.borrow_mut().end = world.random.0;
        }
        world.calm_down();
        world.settle();
        world.bring_clones_together();
        world.mend_letters();
        world.judge();
        world.edit_in_peace();
        world.edit_apart();
        world.edit_against_deletion();
        world
    }

    /// Whether devices soon forget what all of them know to be deleted. An index from a backup would bring it
    /// back, and so would a device that had ignored it: neither is there in such a world.
    pub(super) fn is_forgetful(&self) -> bool {
        self.seed % 5 == 1 && self.rules.is_empty()
    }

    /// Whether the first device has a file system mounted in its folder, that goes away and comes back.
    pub(super) fn has_mount(&self) -> bool {
        self.seed % 11 == MOUNT_WORLDS
    }

    /// Whether a person leaves a path alone: it is a mount point, or what is always on it, or what is away.
    pub(super) fn is_untouchable(&self, n: usize, at: &RelPath) -> bool {
        let disk = &self.devices[n].disk;
        self.letters.contains_key(at)
            || self.has_mount() && (*at == path(MOUNT) || *at == path(MOUNT_KEEP))
            || disk.is_unmounted() && disk.is_of_mount(at)
    }

    /// Whether whole machines, disk and index, go back to what they were once. What all know to be deleted and have
    /// forgotten would come back with them, and a file system that is away would be there.
    fn has_images(&self) -> bool {
        self.seed % 7 == IMAGE_WORLDS && !self.is_forgetful() && !self.has_mount()
    }

    /// Whether two machines have one identity, and are there in turns. What one of them leaves out would lie on it
    /// alone, and be away with it.
    pub(super) fn has_clones(&self) -> bool {
        self.seed % 28 == CLONE_WORLDS && self.has_images() && !self.seed.is_multiple_of(3)
    }

    /// Whether people write letters.
    pub(super) fn has_letters(&self) -> bool {
        self.seed % 13 == LETTER_WORLDS
    }

    /// Makes an image of a machine that rests, or goes back to the last one. Returns the index that it then has.
    fn image(&mut self, n: usize, index: MemoryIndex) -> MemoryIndex {
        if !self.is_rough {
            return index;
        }
        match (self.random.below(10), self.devices[n].image.clone()) {
            (0..3, Some(_)) if self.has_clones() => index,
            (0..6, Some(_)) if self.has_clones() => self.swap_clones(n, index),
            (0..3, _) => {
                self.say(|| format!("{n} has its image taken"));
                self.devices[n].image = Some((self.devices[n].disk.clone(), index.clone()));
                index
            }
            (3..6, Some((disk, image))) => {
                self.say(|| format!("{n} is restored from its image"));
                self.steps += 1;
                let lost = std::mem::replace(&mut self.devices[n].disk, disk);
                self.devices[n].disk.sync_all();
                self.was_moved_in_a_lost_life(n, &lost);
                self.devices[n].is_unwatched = true;
                // An index newer than the disk would miss what the disk never had.
                self.devices[n].backup = None;
                // What nobody else has is lost with what the machine was.
                let kept: BTreeSet<_> = self.devices.iter().flat_map(|device| device.disk.contents()).collect();
                self.owed.retain(|bytes, _| kept.contains(bytes));
                self.letters_are_unsure(n);
                image
            }
            _ => index,
        }
    }

    /// What nobody else has, and what the machine moved after the image was taken, others know to be elsewhere: where it
    /// is now it counts as replaced, and goes to the history.
    fn was_moved_in_a_lost_life(&mut self, n: usize, lost: &Disk) {
        let others: BTreeSet<_> =
            (0..self.devices.len()).filter(|other| *other != n).flat_map(|m| self.devices[m].disk.contents()).collect();
        let places = |disk: &Disk, bytes: &[u8]| -> BTreeSet<RelPath> {
            let is_it = |data: &Data| matches!(data, Data::File(there) if there == bytes);
            disk.nodes.iter().filter(|(_, node)| is_it(&node.data)).map(|(path, _)| path.clone()).collect()
        };
        let now = &self.devices[n].disk;
        self.owed.retain(|bytes, _| {
            let (was, is) = (places(lost, bytes), places(now, bytes));
            others.contains(bytes) || was.is_empty() || is.is_empty() || was == is
        });
    }

    /// The clone of a machine takes its place, which must be free, and it is the clone from now on. Returns the index of
    /// the one that is there now.
    pub(super) fn swap_clones(&mut self, n: usize, index: MemoryIndex) -> MemoryIndex {
        let Some((disk, image)) = self.devices[n].image.take() else { return index };
        self.say(|| format!("{n}'s clone takes its place"));
        self.steps += 1;
        let there = std::mem::replace(&mut self.devices[n].disk, disk);
        if !self.is_rough {
            // In the end all have the same rules.
            self.devices[n].disk.ignored.clone_from(&there.ignored);
        }
        self.devices[n].image = Some((there, index));
        self.devices[n].disk.sync_all();
        self.devices[n].is_unwatched = true;
        self.devices[n].backup = None;
        self.letters_are_unsure(n);
        image
    }

    pub(super) fn toggle_mount(&mut self, n: usize) {
        if self.devices[n].disk.mount.is_none() || self.devices[n].is_away {
            return;
        }
        // A file system that was never seen cannot be missed.
        let keep = path(MOUNT_KEEP);
        let known = self.devices[n].folder.as_ref().and_then(|folder| folder.index().local(&keep).unwrap());
        let is_known = known.is_some_and(|known| known.stat.is_some() && known.record.body.is_live());
        let is_durable = self.devices[n].folder.as_ref().is_some_and(|folder| !folder.index().is_dirty());
        let can_be_missed = is_known && is_durable;
        if !self.devices[n].disk.is_unmounted() && !can_be_missed {
            return;
        }
        self.steps += 1;
        let under = self.devices[n].disk.toggle_mount();
        let is_away = self.devices[n].disk.is_unmounted();
        self.say(|| format!("{n}'s file system at {MOUNT} is {}", if is_away { "away" } else { "back" }));
        self.devices[n].is_unwatched = true;
        if !is_away && !under.is_empty() {
            self.fail(&format!("{n} has put {under:?} under a mount point"));
        }
    }

    pub(super) fn fail(&self, why: &str) -> ! {
        for (n, device) in self.devices.iter().enumerate().filter(|_| self.is_tracing) {
            println!("{n}: {}", device.folder.as_ref().map(Folder::under_way).unwrap_or_default());
            if let Some(folder) = &device.folder {
                folder.problems().for_each(|problem| println!("   {problem:?}"));
                folder.index().locals().for_each(|local| println!("   {local:?}"));
            }
        }
        panic!("seed {}: {why}\n(play it again with SIM_SEED={} SIM_TRACE=1)", self.seed, self.seed);
    }

    pub(super) fn say(&mut self, line: impl FnOnce() -> String) {
        if self.is_tracing || self.trace.is_some() {
            let line = format!("{:6} {}", self.clock, line());
            if self.is_tracing {
                println!("{line}");
            }
            if let Some(trace) = &mut self.trace {
                trace.push(line);
            }
        }
    }

    pub(super) fn now(&self, n: usize) -> Now {
        let at = Duration::from_millis(self.clock);
        Now { at, wall_ns: 1_700_000_000_000_000_000 + self.clock as i64 * 1_000_000 + self.devices[n].wall_skew }
    }

    // ------------------------------------------------------------------------------ life and death

    pub(super) fn start(&mut self, n: usize, index: MemoryIndex) {
        let mut seed = [0; 32];
        seed[..8].copy_from_slice(&self.random.next().to_le_bytes());
        let params = Params {
            folder: FOLDER,
            device: self.devices[n].id,
            rescan_interval: Duration::from_secs(3600),
            quiet: Duration::from_millis(10),
            patience: Duration::from_millis(500),
            brake: Some(Thresholds::default()),
            scrub: None,
            forget_after: if self.is_forgetful() { Duration::from_millis(40) } else { Duration::from_secs(86_400) },
            seed,
        };
        let mut folder = Folder::open(params, index);
        let others = (0..self.count).filter(|other| *other != n).map(id_of).collect();
        folder.handle(self.now(n), Input::Members(others)).unwrap();
        self.devices[n].folder = Some(folder);
        self.flush(n);
    }

    pub(super) fn stop(&mut self, n: usize, is_crash: bool) {
        let Some(folder) = self.devices[n].folder.take() else {
            return;
        };
        self.steps += 1;
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
            if self.is_rough && self.random.chance(50) {
                self.lose_power(n);
            }
        } else {
            index.commit().unwrap();
        }
        if self.random.chance(10) {
            self.devices[n].backup = Some(index.clone());
        }
        let (mut is_restored, mut is_lost) = (false, false);
        match (self.random.below(if self.is_rough { 40 } else { 1 }), self.devices[n].backup.clone()) {
            // Who has forgotten a file system that is away cannot miss it either.
            _ if n == 0 && self.has_mount() => {}
            (39, _) => {
                self.say(|| format!("{n} has lost its index"));
                index = MemoryIndex::new(Incarnation(self.random.next()));
                is_lost = true;
            }
            (37..39, Some(backup)) if !self.is_forgetful() => {
                self.say(|| format!("{n} has its index from a backup"));
                index = backup;
                is_restored = true;
            }
            _ => {}
        }
        if is_restored || is_lost {
            self.letters_are_unsure(n);
        }
        if self.has_images() {
            index = self.image(n, index);
        }
        // What it has forgotten it may count once more.
        let again = self.devices[n].ever_removed.clone();
        self.devices[n].removed.extend(again);
        self.start_later(n, index);
        if is_restored {
            let folder = self.devices[n].folder.as_mut().unwrap();
            folder.begin_incarnation().unwrap();
            // Whoever sees that an index is not the latest makes that durable before all else.
            self.flush(n);
        }
    }

    pub(super) fn start_later(&mut self, n: usize, index: MemoryIndex) {
        // Between death and new life the person may edit, but for the end, when all of them only look on.
        for _ in 0..self.random.below(if self.is_rough { 3 } else { 1 }) {
            self.edit(n, false);
        }
        self.start(n, index);
    }

    pub(super) fn cut(&mut self, a: usize, b: usize) {
        if self.wires.remove(&(a, b)).is_none() {
            return;
        }
        self.wires.remove(&(b, a));
        self.steps += 1;
        self.say(|| format!("{a} and {b} are cut"));
        for (me, other) in [(a, b), (b, a)] {
            let id = self.devices[other].id;
            self.give(me, Input::PeerDown(id));
        }
    }

    pub(super) fn connect(&mut self, a: usize, b: usize) {
        if a == b || self.wires.contains_key(&(a, b)) {
            return;
        }
        if self.devices[a].folder.is_none() || self.devices[b].folder.is_none() {
            return;
        }
        self.steps += 1;
        self.say(|| format!("{a} and {b} meet"));
        self.wires.insert((a, b), VecDeque::new());
        self.wires.insert((b, a), VecDeque::new());
        let mut hello = |me: usize, other: usize| {
            let other = self.devices[other].id;
            let me = &mut self.devices[me];
            let Greeting { incarnation, life, last, received } = me.folder.as_mut().unwrap().hello_for(&other).unwrap();
            let (name, members) = (String::new(), Members::default());
            FolderHello { folder: FOLDER, name, holds: true, incarnation, life, last, received, members }
        };
        let (from_a, from_b) = (hello(a, b), hello(b, a));
        let (id_a, id_b) = (self.devices[a].id, self.devices[b].id);
        self.give(b, Input::PeerUp(id_a, Right::Owner, from_a));
        if self.wires.contains_key(&(a, b)) {
            self.give(a, Input::PeerUp(id_b, Right::Owner, from_b));
        }
    }

    // ------------------------------------------------------------------------------------ the loop

    pub(super) fn give(&mut self, n: usize, input: Input) {
        let now = self.now(n);
        if let Some(folder) = &mut self.devices[n].folder {
            folder.handle(now, input).unwrap();
        }
        // Several inputs may come before a flush.
        if self.random.chance(70) {
            self.flush(n);
        }
    }

    pub(super) fn flush(&mut self, n: usize) {
        let now = self.now(n);
        let mut outputs = Vec::new();
        if let Some(folder) = &mut self.devices[n].folder {
            folder.flush(now).unwrap();
            let is_durable = !folder.index().is_dirty();
            while let Some(output) = folder.poll_output() {
                outputs.push(output);
            }
            let speaks = |o: &Output| matches!(o, Output::Announce { .. } | Output::Send(_, Message::Ack(_)));
            if !is_durable && outputs.iter().any(speaks) {
                self.fail(&format!("{n} speaks of what its index may forget"));
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
                for sent in &records.records {
                    let (version, body) = (&sent.record.version, &sent.record.body);
                    let known = self
                        .versions
                        .entry((sent.record.path.clone(), version.counters().to_vec()))
                        .or_insert(body.clone());
                    if known != body {
                        let known = known.clone();
                        self.fail(&format!("one version of {} is {known:?} and {body:?}", sent.record.path));
                    }
                }
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
            Output::Parted(_) => {}
            Output::Note(note) => {
                self.say(|| format!("{n} notes {note:?}"));
                if let Note::Changed(path, Body::Tombstone) = &note
                    && !self.devices[n].removed.remove(path)
                    // An old finding that was told late may have brought it back for a moment.
                    && !(self.devices[n].ever_removed.contains(path) && self.devices[n].disk.stat(path).is_none())
                {
                    self.fail(&format!("{n} counts {path} as deleted, and nobody deleted it"));
                }
            }
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
        self.steps += 1;
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
    pub(super) fn work(&mut self, n: usize) -> bool {
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
        self.steps += 1;
        if self.is_tracing
            && let Some(stage) = stage_of(&order)
        {
            println!(
                "{:6} {n} does {} on {stage:?}",
                self.clock,
                format!("{order:?}").split('(').next().unwrap_or_default()
            );
        }
        if device.is_away {
            self.work_in_vain(n, order);
            return true;
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
                if let HashOutcome::Done { recipe, .. } = &outcome {
                    self.promised.insert(recipe.content_id());
                }
                Input::Hashed(path, outcome)
            }
            Output::Verify(items, _) => Input::Verified(items.iter().map(|item| device.disk.verify(item)).collect()),
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
            Output::Commit(items) => return self.commit(n, &items),
            Output::Serve { peer, request, items } => {
                for (item, path, stat, runs) in items {
                    let read = |disk: &Disk, offset, len| disk.read(&path, &stat, offset, len);
                    self.serve(n, &peer, (request, item), runs, read);
                }
                return true;
            }
            Output::ServeKept { peer, request, items } => {
                for (item, kept, size, runs) in items {
                    let read = |disk: &Disk, offset, len| disk.read_kept(&kept, size, offset, len);
                    self.serve(n, &peer, (request, item), runs, read);
                }
                return true;
            }
            other => unreachable!("{other:?}"),
        };
        self.give(n, input);
        true
    }

    /// Sends chunks, or that they are missing.
    fn serve(
        &mut self,
        n: usize,
        peer: &DeviceId,
        (request, item): (u64, u16),
        runs: Vec<Run>,
        read: impl Fn(&Disk, u64, u32) -> Option<Vec<u8>>,
    ) {
        for run in runs {
            let mut offset = run.offset;
            for (chunk, len) in (run.first..).zip(run.lens) {
                let answer = match read(&self.devices[n].disk, offset, len) {
                    Some(bytes) => OnWire::Chunk(ChunkHeader { request, item, chunk }, self.tear(bytes)),
                    None => OnWire::Message(Message::Missing { request, item }),
                };
                self.send(n, peer, answer);
                offset += u64::from(len);
            }
        }
    }

    /// Does a commit. A crash may come in the middle, or before the index hears of it.
    fn commit(&mut self, n: usize, items: &[CommitItem]) -> bool {
        for item in items {
            let moved = if let Action::Move { from, .. } = &item.action { Some(from) } else { None };
            let removed = (item.action == Action::Remove).then_some(&item.path);
            self.was_removed(n, moved.into_iter().chain(removed).cloned().collect());
        }
        if self.random.chance(2) {
            let done = self.random.below(items.len() + 1);
            for item in &items[..done] {
                let outcome = self.devices[n].disk.commit_one(item);
                self.say(|| format!("{n} commits {:?} {:?}: {outcome:?}, and then", item.path, item.action));
            }
            self.stop(n, true);
            return true;
        }
        let (is_rough, mut random) = (self.is_rough, Random(self.random.next()));
        let outcomes = self.devices[n].disk.commit(items, || is_rough && random.chance(4));
        for (item, outcome) in items.iter().zip(&outcomes) {
            self.say(|| format!("{n} commits {:?} {:?}: {outcome:?}", item.path, item.action));
        }
        self.check_contents(n);
        if self.random.chance(2) {
            // The disk has it, the index never hears of it.
            self.stop(n, true);
            return true;
        }
        // The watch reports our own doings too.
        let done = items.iter().zip(&outcomes).filter(|(_, o)| matches!(o, CommitOutcome::Done { .. }));
        let touched = done.map(|(item, _)| (item.path.clone(), Depth::Entry)).collect();
        self.give(n, Input::Touched(touched));
        self.give(n, Input::Committed(outcomes.clone()));
        self.check_kept(n, items, &outcomes);
        true
    }

    /// The folder's file system is away: where it was is an empty directory, and nothing can be done.
    fn work_in_vain(&mut self, n: usize, order: Output) {
        let refused = || (ProblemKind::RootMissing, String::from("it is away"));
        let input = match order {
            Output::Scan(job, scope) => {
                let items = match scope {
                    Scope::All => vec![ScanItem::Listing { dir: None, entries: Vec::new() }],
                    Scope::Paths(paths) => paths.into_keys().map(|path| ScanItem::Path { path, found: None }).collect(),
                };
                self.devices[n].findings.push((job, items.into(), ScanEnd::RootMissing("it is away".into())));
                return;
            }
            Output::Hash(path, _) => Input::Hashed(path, HashOutcome::Failed("it is away".into())),
            Output::Verify(items, _) => Input::Verified(vec![VerifyOutcome::Changed; items.len()]),
            Output::Assemble(plan) => Input::Assembled(plan.stage, AssembleOutcome::Failed(refused().0, refused().1)),
            Output::Stage(stage, number, ..) => Input::Staged(stage, number, Err(refused())),
            Output::Commit(items) => {
                let failed = CommitOutcome::Failed(refused().0, refused().1);
                Input::Committed(vec![failed; items.len()])
            }
            Output::Serve { peer, request, items } => {
                for (item, ..) in items {
                    self.send(n, &peer, OnWire::Message(Message::Missing { request, item }));
                }
                return;
            }
            Output::ServeKept { peer, request, items } => {
                for (item, ..) in items {
                    self.send(n, &peer, OnWire::Message(Message::Missing { request, item }));
                }
                return;
            }
            _ => return,
        };
        self.give(n, input);
    }

    /// Whether what is short goes ahead of what is long, as a daemon sends it.
    fn has_lanes(&self) -> bool {
        self.seed % 5 == LANE_WORLDS
    }

    fn random_lane(&mut self, overtakes: bool) -> Option<u8> {
        overtakes.then(|| self.random.below(3) as u8)
    }

    pub(super) fn deliver(&mut self, from: usize, to: usize) -> bool {
        let overtakes = self.has_lanes() && self.random.chance(25);
        let lane = self.random_lane(overtakes);
        let Some(wire) = self.wires.get_mut(&(from, to)) else { return false };
        let first = lane.and_then(|lane| wire.iter().position(|what| what.lane() == lane)).unwrap_or(0);
        let Some(what) = wire.remove(first) else { return false };
        self.steps += 1;
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

    pub(super) fn step(&mut self) {
        self.clock += self.random.below(30) as u64;
        let count = self.devices.len();
        let (n, other) = (self.random.below(count), self.random.below(count));
        match self.random.below(100) {
            0..22 if self.has_letters() && self.random.chance(25) => self.post(n),
            0..22 => self.edit(n, true),
            22..30 => self.connect(n, other),
            30..33 => self.cut(n, other),
            33..35 => {
                let is_crash = self.random.chance(60);
                self.stop(n, is_crash);
            }
            35..36 => self.give(n, Input::ScanAll),
            36..37 if self.random.chance(50) => self.change_rules(n),
            36..37 if self.has_mount() && self.random.chance(70) => self.toggle_mount(0),
            36..37 => {
                let is_away = !self.devices[n].is_away;
                self.devices[n].is_away = is_away;
                self.devices[n].is_unwatched = true;
                self.steps += 1;
                self.say(|| format!("{n}'s folder is {}", if is_away { "away" } else { "back" }));
            }
            37..60 => {
                self.work(n);
            }
            60..90 => {
                self.deliver(n, other);
            }
            _ => self.flush(n),
        }
    }
}
