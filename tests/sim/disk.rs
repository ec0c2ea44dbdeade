//! A disk in memory that does what the engine asks, and lets a person edit at any moment.

use std::collections::{BTreeMap, BTreeSet};

use kinfold::engine::chunk::VerifiedChunk;
use kinfold::engine::conflict;
use kinfold::engine::effect::{
    Action, AssembleOutcome, AssemblePlan, CommitItem, CommitOutcome, Depth, Displaced, Expect, Found, HashOutcome,
    ScanItem, Scope, StageId, VerifyItem, VerifyOutcome,
};
use kinfold::model::id::{ChunkId, DeviceTag};
use kinfold::model::path::RelPath;
use kinfold::model::problem::ProblemKind;
use kinfold::model::recipe::{ChunkRef, Recipe};
use kinfold::model::stat::{Kind, Stat};

/// Length of the chunks that files are cut into here: short, so that small files have several.
pub const CHUNK: usize = 8;

#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Data {
    Dir,
    File(Vec<u8>),
    Symlink(Vec<u8>),
}

#[derive(Clone, Debug)]
pub struct Node {
    pub data: Data,
    pub mode: u16,
    pub mtime: i64,
    ctime: i64,
    ino: u64,
}

/// A file system that is mounted inside the folder.
#[derive(Clone, Debug)]
pub struct Mount {
    pub at: RelPath,
    /// Its number.
    dev: u64,
    /// While it is away: what is on it.
    hidden: Option<BTreeMap<RelPath, Node>>,
}

#[derive(Clone, Default)]
pub struct Disk {
    pub nodes: BTreeMap<RelPath, Node>,
    pub history: BTreeMap<String, Data>,
    staged: BTreeMap<StageId, BTreeMap<u64, Vec<u8>>>,
    /// What is not durable yet: groups of paths that a power cut undoes together or not at all, with
    /// what lay there before.
    unsynced: Vec<BTreeMap<RelPath, Option<Node>>>,
    /// Paths that the ignore rules leave out, with all below them.
    pub ignored: BTreeSet<RelPath>,
    pub mount: Option<Mount>,
    clock: i64,
    inodes: u64,
}

pub fn recipe_of(bytes: &[u8]) -> Recipe {
    let chunks = bytes.chunks(CHUNK).map(|c| ChunkRef { id: ChunkId::of(c), len: c.len() as u32 });
    Recipe::parse(chunks.collect()).unwrap()
}

impl Disk {
    fn tick(&mut self) -> i64 {
        self.clock += 1;
        self.clock
    }

    /// The roots of file systems have small numbers, and all else has others.
    fn new_inode(&mut self) -> u64 {
        self.inodes += 1;
        10_000 + self.inodes
    }

    fn new_node(&mut self, data: Data, mode: u16, mtime: i64) -> Node {
        Node { data, mode, mtime, ctime: self.tick(), ino: self.new_inode() }
    }

    pub fn stat(&self, path: &RelPath) -> Option<Stat> {
        self.nodes.get(path).map(|node| self.stat_of(path, node))
    }

    fn stat_of(&self, path: &RelPath, node: &Node) -> Stat {
        let (kind, size) = match &node.data {
            Data::Dir => (Kind::Dir, 0),
            Data::File(bytes) => (Kind::File, bytes.len() as u64),
            Data::Symlink(target) => (Kind::Symlink, target.len() as u64),
        };
        let (mtime_ns, ctime_ns, dev) = (node.mtime, node.ctime, self.dev_of(path));
        Stat { kind, mode: node.mode, size, mtime_ns, ctime_ns, dev, ino: node.ino }
    }

    // ---------------------------------------------------------------------------------- file systems

    /// The number of the file system on which a path lies, or would.
    fn dev_of(&self, path: &RelPath) -> u64 {
        let is_on = |mount: &&Mount| mount.hidden.is_none() && (mount.at == *path || path.is_below(&mount.at));
        self.mount.as_ref().filter(is_on).map_or(1, |mount| mount.dev)
    }

    /// Whether a path lies on a file system that is away, or is the place of one.
    pub fn is_of_mount(&self, path: &RelPath) -> bool {
        self.mount.as_ref().is_some_and(|mount| mount.at == *path || path.is_below(&mount.at))
    }

    pub fn is_unmounted(&self) -> bool {
        self.mount.as_ref().is_some_and(|mount| mount.hidden.is_some())
    }

    /// Has a file system of its own at a path, with something on it.
    pub fn make_mount(&mut self, at: &RelPath, keep: &RelPath, bytes: Vec<u8>) {
        self.mount = Some(Mount { at: at.clone(), dev: 2, hidden: None });
        let root = Node { data: Data::Dir, mode: 0o755, mtime: 0, ctime: 0, ino: 2 };
        self.nodes.insert(at.clone(), root);
        self.write(keep, bytes, 1);
        self.unsynced.clear();
    }

    /// Unmounts it, or mounts it again. Returns what lay under the mount point and is hidden by it from now on.
    pub fn toggle_mount(&mut self) -> Vec<RelPath> {
        let Some(mut mount) = self.mount.take() else { return Vec::new() };
        let mut under: Vec<_> = self.below(&mount.at);
        let is_own = |path: &RelPath| *path == mount.at || path.is_below(&mount.at);
        match mount.hidden.take() {
            None => {
                // What is unmounted is durable.
                self.unsynced.retain(|group| !group.keys().any(is_own));
                under.push(mount.at.clone());
                let off = under.drain(..).filter_map(|path| self.nodes.remove(&path).map(|node| (path, node)));
                mount.hidden = Some(off.collect());
                let point = Node { data: Data::Dir, mode: 0o755, mtime: 0, ctime: 0, ino: u64::MAX };
                self.nodes.insert(mount.at.clone(), point);
            }
            Some(hidden) => {
                self.nodes.retain(|path, _| !is_own(path));
                self.nodes.extend(hidden);
            }
        }
        self.mount = Some(mount);
        under
    }

    /// What goes from one file system to another is a new file there.
    fn moved(&mut self, from: &RelPath, to: &RelPath, node: &mut Node) {
        if self.dev_of(from) != self.dev_of(to) {
            (node.ino, node.ctime) = (self.new_inode(), self.tick());
        }
    }

    pub fn is_dir(&self, path: Option<&RelPath>) -> bool {
        path.is_none_or(|p| self.nodes.get(p).is_some_and(|n| n.data == Data::Dir))
    }

    pub fn below(&self, dir: &RelPath) -> Vec<RelPath> {
        self.nodes.range(dir.clone()..).skip(1).map(|(p, _)| p).take_while(|p| p.is_below(dir)).cloned().collect()
    }

    // ------------------------------------------------------------------------------------ power cuts

    /// These paths are about to change, in one deed.
    fn note(&mut self, paths: impl IntoIterator<Item = RelPath>) {
        let there = paths.into_iter().map(|path| (path.clone(), self.nodes.get(&path).cloned()));
        let mut group: BTreeMap<_, _> = there.collect();
        // What is put into a new directory is not there before the directory is, and what left a directory
        // comes back to it only where the directory does.
        let touched: BTreeSet<_> = group.keys().cloned().collect();
        let above: BTreeSet<_> = touched.iter().flat_map(RelPath::ancestors).collect();
        let is_tied = |path: &RelPath| {
            touched.contains(path) || above.contains(path) || path.ancestors().any(|dir| touched.contains(&dir))
        };
        for earlier in std::mem::take(&mut self.unsynced) {
            if earlier.keys().any(is_tied) {
                group.extend(earlier);
            } else {
                self.unsynced.push(earlier);
            }
        }
        self.unsynced.push(group);
    }

    /// What lies at a path, and the way there, is durable.
    fn sync(&mut self, path: &RelPath) {
        let way: BTreeSet<_> = std::iter::once(path.clone()).chain(path.ancestors()).collect();
        self.unsynced.retain(|group| !group.keys().any(|path| way.contains(path)));
    }

    /// All that is there is durable.
    pub fn sync_all(&mut self) {
        self.unsynced.clear();
    }

    /// Undoes any part of what is not durable. Returns what is gone by that.
    pub fn lose_power(&mut self, mut is_lost: impl FnMut() -> bool) -> Vec<RelPath> {
        let before: Vec<_> = self.nodes.keys().cloned().collect();
        for group in std::mem::take(&mut self.unsynced) {
            if is_lost() {
                for (path, former) in group {
                    match former {
                        Some(node) => drop(self.nodes.insert(path, node)),
                        None => drop(self.nodes.remove(&path)),
                    }
                }
            }
        }
        // What lay in a directory that was never durable is gone with it.
        let mut kept = BTreeMap::new();
        for (path, node) in std::mem::take(&mut self.nodes) {
            let is_there = path.parent().is_none_or(|dir| kept.get(&dir).is_some_and(|n: &Node| n.data == Data::Dir));
            if is_there {
                kept.insert(path, node);
            }
        }
        self.nodes = kept;
        if is_lost() {
            self.staged.clear();
        }
        before.into_iter().filter(|path| !self.nodes.contains_key(path)).collect()
    }

    // ------------------------------------------------------------------------- a person's hands

    pub fn write(&mut self, path: &RelPath, bytes: Vec<u8>, mtime: i64) {
        self.note([path.clone()]);
        let ctime = self.tick();
        match self.nodes.get_mut(path) {
            Some(node) => {
                node.data = Data::File(bytes);
                (node.mtime, node.ctime) = (mtime, ctime);
            }
            None => {
                let node = self.new_node(Data::File(bytes), 0o644, mtime);
                self.nodes.insert(path.clone(), node);
            }
        }
    }

    pub fn make(&mut self, path: &RelPath, data: Data) {
        self.note([path.clone()]);
        let node = self.new_node(data, 0o755, 0);
        self.nodes.insert(path.clone(), node);
    }

    pub fn remove(&mut self, path: &RelPath) -> Vec<(RelPath, Data)> {
        let mut gone: Vec<_> = self.below(path);
        gone.push(path.clone());
        self.note(gone.clone());
        gone.into_iter().filter_map(|p| self.nodes.remove(&p).map(|n| (p, n.data))).collect()
    }

    /// Returns the names that nothing has any more.
    pub fn rename(&mut self, from: &RelPath, to: &RelPath) -> Vec<RelPath> {
        let moved: Vec<_> = self.below(from);
        let renamed = |path: &RelPath| {
            let mut bytes = to.as_bytes().to_vec();
            bytes.extend_from_slice(&path.as_bytes()[from.as_bytes().len()..]);
            RelPath::parse(&bytes).unwrap()
        };
        let gone: Vec<_> = std::iter::once(from.clone()).chain(moved.iter().cloned()).collect();
        self.note(gone.iter().cloned().chain(gone.iter().map(renamed)).collect::<Vec<_>>());
        self.nodes.remove(to);
        let ctime = self.tick();
        let mut node = self.nodes.remove(from).unwrap();
        node.ctime = ctime;
        self.moved(from, to, &mut node);
        self.nodes.insert(to.clone(), node);
        for path in moved {
            let mut node = self.nodes.remove(&path).unwrap();
            self.moved(&path, &renamed(&path), &mut node);
            self.nodes.insert(renamed(&path), node);
        }
        gone
    }

    pub fn set_mtime(&mut self, path: &RelPath, mtime: i64) {
        self.note([path.clone()]);
        let ctime = self.tick();
        if let Some(node) = self.nodes.get_mut(path) {
            (node.mtime, node.ctime) = (mtime, ctime);
        }
    }

    /// Gives two paths that are no directories each other's names.
    pub fn swap(&mut self, a: &RelPath, b: &RelPath) {
        self.note([a.clone(), b.clone()]);
        let ctime = self.tick();
        let (mut one, mut other) = (self.nodes.remove(a).unwrap(), self.nodes.remove(b).unwrap());
        (one.ctime, other.ctime) = (ctime, ctime);
        self.moved(a, b, &mut one);
        self.moved(b, a, &mut other);
        self.nodes.insert(a.clone(), other);
        self.nodes.insert(b.clone(), one);
    }

    pub fn chmod(&mut self, path: &RelPath, mode: u16) {
        self.note([path.clone()]);
        let ctime = self.tick();
        if let Some(node) = self.nodes.get_mut(path) {
            (node.mode, node.ctime) = (mode, ctime);
        }
    }

    /// A bit of a file is another from now on, and nothing tells.
    pub fn damage(&mut self, path: &RelPath) {
        if let Some(Node { data: Data::File(bytes), .. }) = self.nodes.get_mut(path) {
            bytes[0] ^= 1;
        }
    }

    /// What was damaged at a path is as it was written.
    pub fn repair(&mut self, path: &RelPath, as_written: &[u8]) {
        if let Some(Node { data: Data::File(bytes), .. }) = self.nodes.get_mut(path) {
            bytes.copy_from_slice(as_written);
        }
    }

    // ------------------------------------------------------------------------ the engine's orders

    pub fn is_ignored(&self, path: &RelPath) -> bool {
        self.ignored.contains(path) || path.ancestors().any(|dir| self.ignored.contains(&dir))
    }

    fn found(&self, path: &RelPath, node: &Node) -> Found {
        match &node.data {
            _ if self.is_ignored(path) => Found::Ignored,
            Data::Symlink(target) => Found::Symlink(self.stat_of(path, node), target.clone().into()),
            _ => Found::Entry(self.stat_of(path, node)),
        }
    }

    fn listing(&self, dir: Option<&RelPath>) -> ScanItem {
        let inside = self.nodes.iter().filter(|(p, _)| p.parent().as_ref() == dir);
        let entries = inside.map(|(p, n)| (p.name().into(), self.found(p, n))).collect();
        ScanItem::Listing { dir: dir.cloned(), entries }
    }

    pub fn scan(&self, scope: &Scope) -> Vec<ScanItem> {
        let mut items = Vec::new();
        let list = |items: &mut Vec<_>, of: &mut dyn Iterator<Item = (&RelPath, &Node)>| {
            let dirs = of.filter(|(p, n)| n.data == Data::Dir && !self.is_ignored(p));
            items.extend(dirs.map(|(p, _)| self.listing(Some(p))));
        };
        match scope {
            Scope::All => {
                items.push(self.listing(None));
                list(&mut items, &mut self.nodes.iter());
            }
            Scope::Paths(paths) => {
                for (path, depth) in paths {
                    let found = self.nodes.get(path).map(|node| self.found(path, node));
                    items.push(ScanItem::Path { path: path.clone(), found });
                    if *depth == Depth::Tree && self.is_dir(Some(path)) {
                        let inside = self.nodes.range(path.clone()..);
                        list(&mut items, &mut inside.take_while(|(p, _)| *p == path || p.is_below(path)));
                    }
                }
            }
        }
        items
    }

    /// What was read is durable before it is told.
    pub fn hash(&mut self, path: &RelPath, expected: &Stat) -> HashOutcome {
        let Some(Node { data: Data::File(bytes), .. }) =
            self.nodes.get(path).filter(|n| self.stat_of(path, n) == *expected)
        else {
            return HashOutcome::Changed;
        };
        let recipe = recipe_of(bytes);
        self.sync(path);
        HashOutcome::Done { stat: *expected, recipe }
    }

    pub fn verify(&self, item: &VerifyItem) -> VerifyOutcome {
        match self
            .nodes
            .get(&item.path)
            .filter(|node| self.stat_of(&item.path, node) == item.stat)
            .map(|node| &node.data)
        {
            Some(Data::File(bytes)) if recipe_of(bytes) == item.recipe => VerifyOutcome::Intact,
            Some(Data::File(bytes)) => VerifyOutcome::Damaged { bytes: bytes.len() as u64, detail: String::new() },
            _ => VerifyOutcome::Changed,
        }
    }

    pub fn assemble(&mut self, plan: &AssemblePlan) -> AssembleOutcome {
        let mut have: BTreeMap<u64, Vec<u8>> = self.staged.remove(&plan.stage).unwrap_or_default();
        let places: Vec<_> = plan.recipe.places().collect();
        have.retain(|offset, bytes| places.iter().any(|(at, c)| at == offset && c.id == ChunkId::of(bytes)));
        let read = |source: u32, offset: u64, len: u32| -> Option<Vec<u8>> {
            let source = &plan.sources[source as usize];
            let node = self.nodes.get(&source.path).filter(|n| self.stat_of(&source.path, n) == source.stat)?;
            let Data::File(bytes) = &node.data else { return None };
            bytes.get(offset as usize..offset as usize + len as usize).map(<[u8]>::to_vec)
        };
        let mut copy = |index: usize, source: u32, offset: u64| {
            let (at, chunk) = places[index];
            if let Some(bytes) = read(source, offset, chunk.len).filter(|b| ChunkId::of(b) == chunk.id) {
                have.insert(at, bytes);
            }
        };
        if let Some(whole) = plan.whole {
            places.iter().enumerate().for_each(|(n, (at, _))| copy(n, whole, *at));
        }
        for piece in &plan.pieces {
            let mut offset = piece.offset;
            for index in piece.chunk..piece.chunk + piece.chunks {
                copy(index as usize, piece.source, offset);
                offset += u64::from(places[index as usize].1.len);
            }
        }
        let missing = places.iter().enumerate().filter(|(_, (at, _))| !have.contains_key(at));
        let missing = missing.map(|(n, _)| n as u32).collect();
        self.staged.insert(plan.stage, have);
        AssembleOutcome::Staged { missing }
    }

    pub fn stage(&mut self, stage: StageId, offset: u64, chunk: &VerifiedChunk) {
        self.staged.entry(stage).or_default().insert(offset, chunk.bytes().to_vec());
    }

    pub fn discard(&mut self, stage: StageId) {
        self.staged.remove(&stage);
    }

    pub fn read(&self, path: &RelPath, expected: &Stat, offset: u64, len: u32) -> Option<Vec<u8>> {
        let node = self.nodes.get(path).filter(|n| self.stat_of(path, n) == *expected)?;
        let Data::File(bytes) = &node.data else { return None };
        bytes.get(offset as usize..offset as usize + len as usize).map(<[u8]>::to_vec)
    }

    /// Reads from a former version, if that is of this size.
    pub fn read_kept(&self, kept: &str, size: u64, offset: u64, len: u32) -> Option<Vec<u8>> {
        let Some(Data::File(bytes)) = self.history.get(kept) else { return None };
        let bytes =
            bytes.get(offset as usize..offset as usize + len as usize).filter(|_| bytes.len() as u64 == size)?;
        Some(bytes.to_vec())
    }

    /// Does all of a commit, and makes it durable.
    pub fn commit(&mut self, items: &[CommitItem], mut fails: impl FnMut() -> bool) -> Vec<CommitOutcome> {
        let outcomes: Vec<_> = items
            .iter()
            .map(|item| match fails() {
                true => CommitOutcome::Failed(ProblemKind::DiskFull, String::new()),
                false => self.commit_one(item),
            })
            .collect();
        for (item, outcome) in items.iter().zip(&outcomes) {
            if let CommitOutcome::Done { aside, .. } = outcome {
                self.sync(&item.path);
                aside.iter().for_each(|(copy, _)| self.sync(copy));
                if let Action::Move { from, .. } = &item.action {
                    self.sync(from);
                }
            }
        }
        outcomes
    }

    /// Does one step of a commit, durable or not.
    pub fn commit_one(&mut self, item: &CommitItem) -> CommitOutcome {
        let path = &item.path;
        let parent = path.parent();
        if !self.is_dir(parent.as_ref()) {
            return CommitOutcome::NoParent;
        }
        if let (Some(dir), Some(expected)) = (&parent, item.dir_dev)
            && self.dev_of(dir) != expected
        {
            return CommitOutcome::OtherFileSystem;
        }
        let is_expected = match (&item.expect, self.stat(path)) {
            (Expect::Absent, there) => there.is_none(),
            (Expect::Stat(expected), Some(there)) if expected.kind == Kind::Dir => {
                (there.kind, there.ino) == (expected.kind, expected.ino)
            }
            (Expect::Stat(expected), there) => there == Some(*expected),
        };
        if !is_expected {
            return CommitOutcome::Mismatch;
        }
        let is_dir = self.nodes.get(path).is_some_and(|n| n.data == Data::Dir);
        let replaces = !matches!(item.action, Action::SetMeta { .. });
        if is_dir && replaces && !self.below(path).is_empty() {
            return CommitOutcome::NotEmpty;
        }
        let mut touched = vec![path.clone()];
        if let (Displaced::Copy(to), Some(node)) = (&item.displaced, self.nodes.get(path)) {
            touched.push(self.free_name(to, path, item.by, node.mtime));
        }
        if let Action::Move { from, .. } = &item.action {
            touched.push(from.clone());
        }
        self.note(touched);
        let new = match &item.action {
            Action::SetMeta { mode, mtime_ns } => {
                let ctime = self.tick();
                let node = self.nodes.get_mut(path).unwrap();
                node.mode = *mode;
                node.ctime = ctime;
                node.mtime = mtime_ns.unwrap_or(node.mtime);
                let stat = self.stat(path);
                return CommitOutcome::Done { stat, kept: None, aside: None, unseen: false };
            }
            Action::Remove => None,
            Action::MakeDir { mode } => Some(self.new_node(Data::Dir, *mode, 0)),
            Action::MakeSymlink { target } => Some(self.new_node(Data::Symlink(target.to_vec()), 0o777, 0)),
            Action::Place { stage, body } => {
                let staged = self.staged.remove(stage).unwrap_or_default();
                let bytes: Vec<u8> = staged.into_values().flatten().collect();
                assert_eq!(bytes.len() as u64, body.size, "a staged file is placed before it is complete");
                assert_eq!(recipe_of(&bytes).content_id(), body.content, "a staged file is not what it should be");
                Some(self.new_node(Data::File(bytes), body.mode, body.mtime_ns))
            }
            Action::Move { from, stat, body } => {
                if self.stat(from) != Some(*stat) {
                    return CommitOutcome::Mismatch;
                }
                let mut node = self.nodes.remove(from).unwrap();
                node.ctime = self.tick();
                self.moved(from, path, &mut node);
                (node.mode, node.mtime) = (body.mode, body.mtime_ns);
                Some(node)
            }
        };
        let old = self.nodes.remove(path);
        let (mut kept, mut aside) = (None, None);
        if let Some(old) = old.filter(|n| n.data != Data::Dir) {
            match &item.displaced {
                Displaced::Drop => panic!("{path} is dropped, and is not in history"),
                Displaced::History => {
                    let name = format!("{}", self.tick());
                    self.history.insert(name.clone(), old.data);
                    kept = Some(name);
                }
                Displaced::Copy(to) => {
                    let to = self.free_name(to, path, item.by, old.mtime);
                    let mut old = old;
                    old.ctime = self.tick();
                    aside = Some((to.clone(), self.stat_of(&to, &old)));
                    self.nodes.insert(to, old);
                }
            }
        }
        if let Some(node) = new {
            self.nodes.insert(path.clone(), node);
        }
        CommitOutcome::Done { stat: self.stat(path), kept, aside, unseen: false }
    }

    fn free_name(&self, wanted: &RelPath, path: &RelPath, by: DeviceTag, mtime: i64) -> RelPath {
        let others = (2..).map(|n| conflict::copy_path(path, mtime, by, n));
        std::iter::once(wanted.clone()).chain(others).find(|p| !self.nodes.contains_key(p)).unwrap()
    }

    /// What a person sees: paths and what is there, times and modes of files included.
    pub fn tree(&self) -> BTreeMap<RelPath, (Data, u16, i64)> {
        let line = |(p, n): (&RelPath, &Node)| match n.data {
            Data::File(_) => (p.clone(), (n.data.clone(), n.mode, n.mtime)),
            Data::Dir => (p.clone(), (n.data.clone(), n.mode, 0)),
            Data::Symlink(_) => (p.clone(), (n.data.clone(), 0, 0)),
        };
        self.nodes.iter().map(line).collect()
    }

    pub fn contents(&self) -> BTreeSet<Vec<u8>> {
        let file = |n: &Node| match &n.data {
            Data::File(bytes) => Some(bytes.clone()),
            _ => None,
        };
        self.nodes.values().filter_map(file).collect()
    }
}
