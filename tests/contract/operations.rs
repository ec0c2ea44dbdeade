//! A small world of paths, chunks and peers, the changes that can be made in it, and the comparison of
//! all that two indexes say of it.

use kinfold::engine::brake::Standing;
use kinfold::engine::index::{Cursor, Index, Kept, Local, Remote};
use kinfold::model::id::{AuthorId, ChunkId, ContentId, DeviceId, DeviceTag, Incarnation, Life, Sequence};
use kinfold::model::path::RelPath;
use kinfold::model::recipe::{ChunkRef, Recipe};
use kinfold::model::record::{Body, FileBody, Record};
use kinfold::model::stat::{Kind, Stat};
use kinfold::model::version::VersionVector;

/// All paths of the world, in no particular order.
pub fn paths() -> Vec<RelPath> {
    let names: [&[u8]; 12] = [
        b"a",
        b"a-",
        b"a.b",
        b"a/b",
        b"a/b/c",
        b"a/b/d.conflict-20231114-221320-qqqqqqq.txt",
        b"a/b/\xff\xfe",
        b"a/b-",
        b"b",
        b"b/x.conflict-20231114-221320-qqqqqqq",
        b"b/y",
        b"z/z/z/z",
    ];
    names.iter().map(|name| path(name)).collect()
}

/// A path that is never set.
pub fn absent() -> RelPath {
    path(b"absent/from/all")
}

/// Parses a path of a test.
pub fn path(bytes: &[u8]) -> RelPath {
    RelPath::parse(bytes).unwrap()
}

/// The chunk of that number. Every two neighbours agree in their first eight bytes.
pub fn chunk(n: u32) -> ChunkRef {
    let mut id = ChunkId::of(&(n / 2).to_le_bytes()).0;
    id[31] = n as u8;
    ChunkRef { id: ChunkId(id), len: 1 + n % 7 }
}

/// The recipe of that number: from empty to several parts, with chunks shared between them and within.
pub fn recipe(n: u8) -> Recipe {
    let chunks: Vec<u32> = match n % 8 {
        0 => vec![],
        1 => vec![1],
        2 => vec![2],
        3 => vec![1, 2, 1],
        4 => (0..16).collect(),
        5 => (0..17).collect(),
        6 => (0..300).collect(),
        _ => (0..300).map(|n| if n == 150 { 999 } else { n }).collect(),
    };
    Recipe::parse(chunks.into_iter().map(chunk).collect()).unwrap()
}

/// The peer of that number.
pub fn peer(n: u8) -> DeviceId {
    DeviceId::from_public_key([n.wrapping_mul(97); 32])
}

/// One change of an index.
#[derive(Clone, Debug)]
pub enum Op {
    /// Gives out a sequence.
    Next,
    /// Sets what is held at a path; `seed` decides what.
    Set { at: usize, seed: u64, new_sequence: bool },
    /// Sets what is held to what is held already, but for its stat and whether it is ignored.
    Touch { at: usize, seed: u64 },
    /// Forgets a path.
    Drop { at: usize },
    /// Sets or forgets what a peer holds.
    Remote { at: usize, peer: u8, seed: u64 },
    /// Gives what a peer holds another standing.
    Stand { at: usize, peer: u8, seed: u64 },
    /// Sets what the brake remembers.
    Brake(u8),
    /// Sets how far the slow check has come.
    Scrub(u8),
    /// Sets the lives that there were.
    Lives(u8),
    /// Sets how far a peer has come.
    Cursor { peer: u8, seed: u64 },
    /// Sets when a peer was last known to hold the same.
    Agree { peer: u8, seed: u64 },
    /// Forgets a peer.
    DropPeer { peer: u8 },
    /// Knows a peer by another id, where nothing is known of that.
    RenamePeer { from: u8, to: u8 },
    /// Puts a former version aside.
    Keep { at: usize, seed: u64 },
    /// Expires former versions.
    Expire { until_ns: i64, bytes_max: u64, limit: usize },
    /// Sets the tree hash.
    TreeHash(u8),
    /// Begins an incarnation.
    Incarnation(u64),
    /// Commits.
    Commit,
}

/// Makes a change.
pub fn apply<I: Index>(index: &mut I, op: &Op) {
    let at_path = |at: usize| paths()[at % paths().len()].clone();
    match *op {
        Op::Next => drop(index.next_sequence(Sequence(0)).unwrap()),
        Op::Set { at, seed, new_sequence } => {
            let path = at_path(at);
            let before = index.local(&path).unwrap();
            let sequence = match before {
                Some(local) if !new_sequence => local.sequence,
                _ => index.next_sequence(Sequence(0)).unwrap(),
            };
            let (local, recipe) = local(path, sequence, seed);
            index.set_local(&local, recipe.as_ref()).unwrap();
        }
        Op::Touch { at, seed } => {
            if let Some(mut local) = index.local(&at_path(at)).unwrap() {
                local.stat = stat(&local.record.body, seed);
                local.ignored = seed & 1 == 1;
                index.set_local(&local, None).unwrap();
            }
        }
        Op::Drop { at } => index.drop_local(&at_path(at)).unwrap(),
        Op::Remote { at, peer: n, seed } => {
            let path = at_path(at);
            let remote = remote(path.clone(), seed);
            index.set_remote(&peer(n), &path, remote.as_ref()).unwrap();
        }
        Op::Stand { at, peer: n, seed } => {
            let path = at_path(at);
            if let Some(mut remote) = index.remote(&peer(n), &path).unwrap() {
                let all = [Standing::Open, Standing::Held, Standing::HeldDir, Standing::Cleared];
                remote.standing = all[seed as usize % all.len()];
                index.set_remote(&peer(n), &path, Some(&remote)).unwrap();
            }
        }
        Op::Brake(n) => index.set_brake(&vec![n; n as usize]).unwrap(),
        Op::Scrub(n) => index.set_scrub(&vec![n; n as usize]).unwrap(),
        Op::Lives(n) => index.set_lives(&vec![n; n as usize]).unwrap(),
        Op::Cursor { peer: n, seed } => {
            let incarnation = (seed & 1 == 1).then_some(Incarnation(seed));
            let (received, acknowledged) = (Sequence(seed % 100), Sequence(seed % 90));
            index.set_cursor(&peer(n), Cursor { incarnation, received, acknowledged, ..Cursor::default() }).unwrap();
        }
        Op::Agree { peer: n, seed } => {
            let cursor = index.cursor(&peer(n)).unwrap();
            let apart = [(seed % 3) as u8; 32];
            let (agreed, life) = (Sequence(seed % 80), Life(seed % 7));
            let cursor = Cursor { agreed, apart, left_out: seed % 5, life, ..cursor };
            index.set_cursor(&peer(n), cursor).unwrap();
        }
        Op::DropPeer { peer: n } => index.drop_peer(&peer(n)).unwrap(),
        Op::RenamePeer { from, to } => {
            let (from, to) = (peer(from), peer(to));
            if index.cursor(&to).unwrap() == Cursor::default() && index.remote_count(&to).unwrap() == 0 {
                index.rename_peer(&from, &to).unwrap();
            }
        }
        Op::Keep { at, seed } => index.add_kept(&kept(at_path(at), seed)).unwrap(),
        Op::Expire { until_ns, bytes_max, limit } => drop(index.expire_kept(until_ns, bytes_max, limit).unwrap()),
        Op::TreeHash(n) => index.set_tree_hash([n; 32]).unwrap(),
        Op::Incarnation(n) => index.begin_incarnation(Incarnation(n)).unwrap(),
        Op::Commit => index.commit().unwrap(),
    }
}

/// Makes up a record and its recipe.
pub fn local(path: RelPath, sequence: Sequence, seed: u64) -> (Local, Option<Recipe>) {
    let (record, recipe) = record(path, seed);
    let stat = stat(&record.body, seed >> 8);
    let since_ns = (seed as i64).wrapping_mul(1_000_003);
    (Local { record, sequence, stat, ignored: seed.is_multiple_of(11), since_ns }, recipe)
}

fn record(path: RelPath, seed: u64) -> (Record, Option<Recipe>) {
    let recipe = recipe((seed >> 4) as u8);
    let file = FileBody {
        mode: (seed % 0o1000) as u16,
        mtime_ns: seed as i64,
        // Not always what the recipe adds up to: the index has to keep what it is told.
        size: recipe.size() + u64::from(seed.is_multiple_of(13)),
        content: ContentId(*blake3::hash(&seed.to_le_bytes()).as_bytes()),
    };
    let body = match seed % 7 {
        0 => Body::Tombstone,
        1 => Body::Symlink { target: seed.to_le_bytes().into() },
        2 => Body::Dir { mode: 0o755 },
        _ => Body::File(file),
    };
    let counters = (0..seed % 4).map(|n| (AuthorId(n << 62 | 7), 1 + seed % 1000 + n)).collect();
    let by = DeviceTag([seed as u8; 5]);
    let record = Record { path, version: VersionVector::parse(counters).unwrap(), by, body };
    (record, (!seed.is_multiple_of(5)).then_some(recipe))
}

fn stat(body: &Body, seed: u64) -> Option<Stat> {
    let (kind, mode, size, mtime_ns) = match body {
        Body::Tombstone => return None,
        Body::Symlink { target } => (Kind::Symlink, 0o777, target.len() as u64, 5),
        Body::Dir { mode } => (Kind::Dir, *mode, 4096, 6),
        Body::File(file) => (Kind::File, file.mode, file.size, file.mtime_ns + i64::from(seed.is_multiple_of(3))),
    };
    let (dev, ino) = (seed % 2, if seed.is_multiple_of(4) { u64::MAX } else { seed % 5 });
    (!seed.is_multiple_of(6)).then_some(Stat { kind, mode, size, mtime_ns, ctime_ns: -(seed as i64 % 1000), dev, ino })
}

fn remote(path: RelPath, seed: u64) -> Option<Remote> {
    let (record, recipe) = record(path, seed);
    (!seed.is_multiple_of(3)).then_some(Remote { record, recipe, standing: Standing::Open })
}

fn kept(path: RelPath, seed: u64) -> Kept {
    let (Record { path, by, body, .. }, _) = record(path, seed);
    let file = (!seed.is_multiple_of(4)).then(|| format!("{seed:x}"));
    Kept { path, body, by, since_ns: 3, until_ns: (seed % 20) as i64 - 5, file }
}

/// Compares all that two indexes say.
pub fn assert_same<A: Index, B: Index>(a: &A, b: &B) {
    macro_rules! same {
        ($($call:tt)*) => { assert_eq!(a.$($call)*.unwrap(), b.$($call)*.unwrap(), stringify!($($call)*)) };
    }
    assert_eq!(a.incarnation(), b.incarnation());
    assert_eq!(a.last_sequence(), b.last_sequence());
    assert_eq!(a.tree_hash(), b.tree_hash());
    assert_eq!(a.brake(), b.brake());
    assert_eq!(a.scrub().unwrap(), b.scrub().unwrap());
    assert_eq!(a.lives().unwrap(), b.lives().unwrap());
    same!(totals());
    same!(kept_bytes());
    same!(conflicts());
    same!(children(None));
    same!(kept(None, true));
    same!(kept(None, false));
    same!(kept_page(None, None, 3));
    for limit in [0, 1, 3, 1000] {
        same!(remote_paths(None, limit));
        for since in [0, 1, 5, u64::MAX] {
            same!(changes_since(Sequence(since), limit));
        }
    }
    for path in paths().iter().chain([&absent()]) {
        same!(local(path));
        same!(children(Some(path)));
        same!(has_live_below(path));
        same!(recipe(path));
        same!(remotes(path));
        same!(remote_paths(Some(path), 3));
        same!(kept(Some(path), false));
        same!(kept(Some(path), true));
        same!(kept_page(Some(path), None, 1000));
        for until_ns in [i64::MIN, 2, i64::MAX] {
            same!(kept_page(None, Some((path, until_ns)), 2));
            same!(kept_page(Some(&paths()[0]), Some((path, until_ns)), 2));
        }
        for n in 0..4 {
            same!(remote(&peer(n), path));
        }
    }
    for n in 0..4 {
        same!(cursor(&peer(n)));
        same!(remote_count(&peer(n)));
    }
    for n in [0, 1, 2, 3, 16, 111, 112, 150, 299, 300, 999] {
        let holders = |index: &dyn Fn(usize) -> Vec<RelPath>| {
            let mut all = index(1000);
            let one = index(1);
            assert!(one.len() == all.len().min(1) && one.iter().all(|path| all.contains(path)));
            all.sort();
            all
        };
        let of_a = holders(&|limit| a.holders_of(&chunk(n).id, limit).unwrap());
        let of_b = holders(&|limit| b.holders_of(&chunk(n).id, limit).unwrap());
        assert_eq!(of_a, of_b, "holders of {n}");
    }
    for (dev, ino) in (0..2).flat_map(|dev| [0, 1, 2, 3, 4, 5, u64::MAX].map(|ino| (dev, ino))) {
        // Of several names of one inode any may be returned.
        let (one_of_a, one_of_b) = (a.by_inode(dev, ino, 1).unwrap(), b.by_inode(dev, ino, 1).unwrap());
        let all = |mut found: Vec<Local>| {
            found.sort_by(|x, y| x.record.path.cmp(&y.record.path));
            found
        };
        let (of_a, of_b) = (all(a.by_inode(dev, ino, 99).unwrap()), all(b.by_inode(dev, ino, 99).unwrap()));
        assert_eq!(of_a, of_b, "inode {dev} {ino}");
        for one in [one_of_a, one_of_b] {
            assert!(one.len() == of_a.len().min(1) && one.iter().all(|local| of_a.contains(local)));
        }
    }
}
