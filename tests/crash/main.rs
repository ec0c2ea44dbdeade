//! The real disk code is killed at every system call that changes something, started again, and looked
//! at: nothing is lost, no name is missing, and it ends as it would have without the crash.
//!
//! Two devices sync in one thread (`node`). `strace` kills them right before the n-th call of each kind;
//! a first run, which nobody kills, says how many there are. Where `strace` is missing the test says so
//! and does nothing, unless `KINFOLD_NEED_STRACE` is set, as `.ci/run` does.
//!
//! What a power cut takes besides is not played; that the flushes come in the order in which it takes
//! nothing that was spoken of is read off the first run's calls.

// A helper that fails is a test that fails.
#![allow(clippy::unwrap_used)]

mod node;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

use kinfold::daemon::history::{Account, Bounds, Restore, restore};
use kinfold::disk::history::list;
use kinfold::engine::folder::Input;
use kinfold::engine::index::{Cursor, Index};
use kinfold::model::id::{DeviceId, DeviceTag, Incarnation};
use kinfold::model::path::RelPath;
use kinfold::model::record::Body;
use kinfold::store::index::SqliteIndex;
use tempfile::TempDir;

use crate::node::{Node, sync};

/// All calls of ours, of std and of SQLite that change what lies on a disk, or make it durable.
const CALLS: &str = "write,pwrite64,writev,pwritev,ftruncate,fallocate,copy_file_range,rename,renameat,renameat2,\
                     link,linkat,unlink,unlinkat,mkdir,mkdirat,rmdir,symlink,symlinkat,chmod,fchmod,fchmodat,\
                     utimensat,fsync,fdatasync,syncfs,openat,openat2";
/// What a child is told: where, and what.
const CHILD_DIR: &str = "KINFOLD_CRASH_DIR";
const CHILD_DEED: &str = "KINFOLD_CRASH_DEED";
/// Its presence in a trace says where what is to be tried begins.
const BEGIN: &str = "begin-of-deed";

type Change = fn(&Path);

/// What is tried: from where, and what each device did while they were apart.
struct Deed {
    name: &'static str,
    before: Change,
    on_a: Change,
    on_b: Change,
    /// A wish of the person at b, instead of what syncing does.
    wish: Option<fn(&mut Node)>,
    /// Whether b has no index and no marker yet.
    is_first: bool,
    /// Whether b's index is of the first format, which is led to the newest when b starts.
    is_old: bool,
}

const NOTHING: Change = |_| {};
const PLAIN: Deed =
    Deed { name: "", before: NOTHING, on_a: NOTHING, on_b: NOTHING, wish: None, is_first: false, is_old: false };

fn deeds() -> Vec<Deed> {
    vec![
        Deed { name: "replace", before: |d| put(d, "d/f", "old"), on_a: |d| put(d, "d/f", "new content"), ..PLAIN },
        Deed { name: "create", before: |d| put(d, "f", "old"), on_a: |d| put(d, "e/g", "new content"), ..PLAIN },
        Deed {
            name: "delete",
            before: |d| put(d, "d/f", "old"),
            on_a: |d| drop(fs::remove_dir_all(d.join("d"))),
            ..PLAIN
        },
        Deed {
            name: "rename",
            before: |d| put(d, "d/f", "moved from one name to another"),
            on_a: |d| fs::rename(d.join("d"), d.join("e")).unwrap(),
            ..PLAIN
        },
        Deed {
            name: "directory to file",
            before: |d| put(d, "d/f", "old"),
            on_a: |d| {
                fs::remove_dir_all(d.join("d")).unwrap();
                put(d, "d", "a file");
            },
            ..PLAIN
        },
        Deed {
            name: "file to directory",
            before: |d| put(d, "d", "old"),
            on_a: |d| {
                fs::remove_file(d.join("d")).unwrap();
                put(d, "d/f", "new");
            },
            ..PLAIN
        },
        Deed {
            name: "file to link",
            before: |d| put(d, "f", "old"),
            on_a: |d| {
                fs::remove_file(d.join("f")).unwrap();
                symlink("anywhere", d.join("f")).unwrap();
            },
            ..PLAIN
        },
        Deed {
            name: "conflict",
            before: |d| put(d, "f.txt", "before"),
            on_a: |d| put_at(d, "f.txt", "theirs, and later", 2_000_000_000),
            on_b: |d| put_at(d, "f.txt", "ours", 1_900_000_000),
            ..PLAIN
        },
        Deed {
            name: "mode and time",
            before: |d| put(d, "f", "old"),
            on_a: |d| {
                put_at(d, "f", "old", 1_234_567_890);
                fs::set_permissions(d.join("f"), fs::Permissions::from_mode(0o640)).unwrap();
            },
            ..PLAIN
        },
        Deed {
            name: "many",
            before: |d| (0..12).for_each(|n| put(d, &format!("d{}/{n}", n % 3), &format!("old {n}"))),
            on_a: |d| (0..12).for_each(|n| put(d, &format!("d{}/{n}", n % 3), &format!("new {n}, changed"))),
            ..PLAIN
        },
        Deed {
            name: "restore",
            before: |d| put(d, "f", "old"),
            on_a: |d| put(d, "f", "new content"),
            wish: Some(|b| {
                let id = b.id;
                let now = b.now();
                let wish = Restore {
                    path: Some(RelPath::parse(b"f").unwrap()),
                    at_ns: None,
                    to: None,
                    dry_run: false,
                    account: Account::Own,
                    theirs: Vec::new(),
                    taken: BTreeMap::new(),
                };
                let bounds = Bounds { days: 30, bytes_max: 1 << 30 };
                let done = restore(&mut b.engine, &b.root, &wish, bounds, id, now).unwrap().unwrap();
                b.give(Input::Touched(done.touched));
                b.settle();
            }),
            ..PLAIN
        },
        Deed {
            name: "first scan",
            before: |d| (0..4).for_each(|n| put(d, &format!("d/{n}"), &format!("content {n}"))),
            is_first: true,
            ..PLAIN
        },
        Deed {
            name: "migration",
            before: |d| (0..4).for_each(|n| put(d, &format!("d/{n}"), &format!("old {n}"))),
            on_a: |d| put(d, "d/0", "new content"),
            on_b: |d| put(d, "d/3", "changed at the same time"),
            is_old: true,
            ..PLAIN
        },
    ]
}

/// Takes an index back to the first format: what came later is in none of its rows, tables or keys.
fn take_back(path: &Path) {
    let mut index = SqliteIndex::open(path, Incarnation(0)).unwrap();
    let other = DeviceId::from_public_key([1; 32]);
    let Cursor { incarnation, received, acknowledged, .. } = index.cursor(&other).unwrap();
    index.set_cursor(&other, Cursor { incarnation, received, acknowledged, ..Cursor::default() }).unwrap();
    index.commit().unwrap();
    drop(index);
    let conn = rusqlite::Connection::open(path).unwrap();
    conn.execute_batch(
        "DROP TABLE brake; DROP TABLE epoch; DROP TABLE scrub; DROP TABLE life; DROP INDEX entry_by_seq;
         ALTER TABLE peer DROP COLUMN agreed; ALTER TABLE peer DROP COLUMN left_out;
         ALTER TABLE peer DROP COLUMN apart; ALTER TABLE peer DROP COLUMN life;
         CREATE INDEX entry_by_seq ON entry (seq) WHERE state <= 2; PRAGMA user_version = 1;",
    )
    .unwrap();
}

fn put(dir: &Path, path: &str, text: &str) {
    let path = dir.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

fn put_at(dir: &Path, path: &str, text: &str, mtime: i64) {
    put(dir, path, text);
    let times = rustix::fs::Timespec { tv_sec: mtime, tv_nsec: 0 };
    let times = rustix::fs::Timestamps { last_access: times, last_modification: times };
    rustix::fs::utimensat(rustix::fs::CWD, dir.join(path), &times, rustix::fs::AtFlags::empty()).unwrap();
}

// ------------------------------------------------------------------------------------------------ trees

#[derive(Clone, Debug, Eq, PartialEq)]
enum Entry {
    Dir { mode: u32 },
    File { bytes: String, mode: u32, mtime: (i64, i64) },
    Link(PathBuf),
}

impl Entry {
    /// The same for a person, who sees no times.
    fn is_like(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::File { bytes: one, .. }, Self::File { bytes: other, .. }) => one == other,
            (Self::Dir { .. }, Self::Dir { .. }) => true,
            _ => self == other,
        }
    }
}

type Tree = BTreeMap<PathBuf, Entry>;

fn tree(root: &Path) -> Tree {
    let mut tree = Tree::new();
    let mut dirs = vec![root.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(&dir).unwrap().map(Result::unwrap) {
            let path = entry.path();
            let meta = fs::symlink_metadata(&path).unwrap();
            if path == root.join(".kinfold") {
                continue;
            }
            let seen = if meta.is_dir() {
                dirs.push(path.clone());
                Entry::Dir { mode: meta.mode() & 0o777 }
            } else if meta.is_symlink() {
                Entry::Link(fs::read_link(&path).unwrap())
            } else {
                let bytes = fs::read_to_string(&path).unwrap();
                Entry::File { bytes, mode: meta.mode() & 0o777, mtime: (meta.mtime(), meta.mtime_nsec()) }
            };
            tree.insert(path.strip_prefix(root).unwrap().to_owned(), seen);
        }
    }
    tree
}

fn contents(tree: &Tree) -> BTreeSet<String> {
    let bytes = |entry: &Entry| if let Entry::File { bytes, .. } = entry { Some(bytes.clone()) } else { None };
    tree.values().filter_map(bytes).collect()
}

/// Contents of all files in history, listed or not.
fn history(data: &Path) -> BTreeSet<String> {
    let Ok(entries) = fs::read_dir(data.join(".kinfold/history")) else { return BTreeSet::new() };
    entries.filter_map(|entry| fs::read_to_string(entry.unwrap().path()).ok()).collect()
}

// ------------------------------------------------------------------------------------------------ a run

/// A place with two devices, as they are before the deed.
fn template(deed: &Deed) -> TempDir {
    let shm = Path::new("/dev/shm");
    let dir = if shm.is_dir() { tempfile::tempdir_in(shm).unwrap() } else { tempfile::tempdir().unwrap() };
    let (a_dir, b_dir) = (dir.path().join("a"), dir.path().join("b"));
    for dir in [&a_dir, &b_dir] {
        fs::create_dir_all(dir.join("data")).unwrap();
    }
    (deed.before)(&a_dir.join("data"));
    if deed.is_first {
        // The same content on both sides, which have never met.
        (deed.before)(&b_dir.join("data"));
        let mut a = Node::start(&a_dir, 1);
        a.settle();
        return dir;
    }
    let (mut a, mut b) = (Node::start(&a_dir, 1), Node::start(&b_dir, 2));
    a.settle();
    sync(&mut a, &mut b);
    drop(b);
    // A change that is older than a tick of the clock shows.
    std::thread::sleep(std::time::Duration::from_millis(15));
    (deed.on_a)(&a_dir.join("data"));
    a.give(Input::ScanAll);
    a.settle();
    if deed.wish.is_some() {
        let mut b = Node::start(&b_dir, 2);
        sync(&mut a, &mut b);
    }
    if deed.is_old {
        take_back(&b_dir.join("index"));
    }
    (deed.on_b)(&b_dir.join("data"));
    dir
}

fn copy(from: &Path) -> TempDir {
    let to = tempfile::tempdir_in(from.parent().unwrap()).unwrap();
    let status = Command::new("cp").arg("-a").arg(from.join(".")).arg(to.path()).status().unwrap();
    assert!(status.success());
    to
}

/// What is killed: both start, and then b does what is to be tried.
fn run(dir: &Path, deed: &Deed) {
    if deed.is_first {
        begin(dir);
        let mut b = Node::start(&dir.join("b"), 2);
        b.settle();
        return;
    }
    let mut a = Node::start(&dir.join("a"), 1);
    a.settle();
    if deed.is_old {
        begin(dir);
    }
    let mut b = Node::start(&dir.join("b"), 2);
    b.settle();
    if !deed.is_old {
        begin(dir);
    }
    match deed.wish {
        Some(wish) => wish(&mut b),
        None => sync(&mut a, &mut b),
    }
    assert_eq!((a.problems(), b.problems()), (Vec::new(), Vec::new()));
}

fn begin(dir: &Path) {
    fs::write(dir.join(BEGIN), "").unwrap();
}

#[test]
fn child() {
    // Nothing of its own: what the other test kills.
    let Some(dir) = std::env::var_os(CHILD_DIR) else { return };
    let name = std::env::var(CHILD_DEED).unwrap();
    run(Path::new(&dir), deeds().iter().find(|deed| deed.name == name).unwrap());
}

fn child_command(dir: &Path, deed: &Deed, strace: &[&str]) -> Command {
    let mut command = Command::new("strace");
    command.args(["-f", "-qq", "-o"]).arg(dir.join("trace")).args(strace);
    command.arg(std::env::current_exe().unwrap()).args(["--exact", "child", "--test-threads=1", "--nocapture"]);
    command.env(CHILD_DIR, dir).env(CHILD_DEED, deed.name).env_remove("RUST_BACKTRACE");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

/// Returns all calls of the deed, each with which of its kind it is, counted from 1 over the whole run.
fn points(dir: &Path) -> Vec<(String, usize)> {
    let trace = fs::read_to_string(dir.join("trace")).unwrap();
    let mut counts: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    let mut found = Vec::new();
    let mut deed_of = None;
    for line in trace.lines() {
        let Some((thread, call)) = line.split_once(' ') else { continue };
        let Some((name, _)) = call.trim_start().split_once('(') else { continue };
        if name.starts_with('<') {
            continue;
        }
        let count = counts.entry((thread, name)).or_default();
        *count += 1;
        // A flush changes nothing that a process which is killed could lose.
        let changes = !name.contains("sync") && (!name.starts_with("open") || call.contains("O_CREAT"));
        if call.contains(BEGIN) {
            deed_of = Some(thread);
        } else if deed_of == Some(thread) && changes {
            found.push((name.to_owned(), *count));
        }
    }
    found
}

/// Checks the order of flushes, on which it depends what a power cut leaves: a file is flushed before it
/// takes a name in the folder, and all directories that changed before the index hears of it.
fn check_order(dir: &Path, deed: &Deed) {
    let trace = fs::read_to_string(dir.join("trace")).unwrap();
    let data = format!("{}/b/data", dir.canonicalize().unwrap().display());
    let log = format!("{}/b/index-wal", dir.canonicalize().unwrap().display());
    let calls = trace.lines().skip_while(|line| !line.contains(BEGIN)).filter(|line| line.ends_with("= 0"));
    let (mut dirty_files, mut dirty_dirs) = (BTreeSet::new(), BTreeSet::new());
    let (mut placed, mut flushed) = (0, 0);
    for line in calls {
        let call = line.split_once(' ').unwrap().1.trim_start();
        let (name, arguments) = call.split_once('(').unwrap();
        // The paths of all handles, and the names that follow them.
        let handles: Vec<&str> = arguments.split('<').skip(1).filter_map(|part| part.split('>').next()).collect();
        let names: Vec<&str> = arguments.split('"').skip(1).step_by(2).collect();
        let of_b = |path: &&str| path.starts_with(&data);
        match name {
            "futimens" | "fchmod" | "utimensat" if handles.iter().any(|path| path.contains("/staging/")) => {
                dirty_files.insert(handles[0].to_owned());
            }
            "renameat2" if handles.iter().any(of_b) => {
                for (dir, name) in handles.iter().zip(&names) {
                    let dirty = dirty_files.contains(&format!("{dir}/{name}"));
                    assert!(!dirty, "{}: {name} takes its place before it is flushed: {line}", deed.name);
                    dirty_dirs.insert((*dir).to_owned());
                }
                placed += 1;
            }
            // Its own directories are made again where they are missing.
            "mkdirat" if handles[0].ends_with("/.kinfold") => {}
            "unlinkat" | "mkdirat" | "symlinkat" if handles.iter().any(of_b) => {
                dirty_dirs.insert(handles[0].to_owned());
            }
            "fsync" | "fdatasync" if handles[0] == log => {
                let left: Vec<_> = dirty_dirs.iter().filter(|dir| Path::new(dir).is_dir()).collect();
                assert!(left.is_empty(), "{}: the index hears of it before {left:?} are flushed", deed.name);
                flushed += 1;
            }
            "fsync" | "fdatasync" => {
                dirty_files.remove(handles[0]);
                dirty_dirs.remove(handles[0]);
            }
            "syncfs" => {
                dirty_files.clear();
                dirty_dirs.clear();
            }
            _ => {}
        }
    }
    assert!(flushed > 0, "{}: the index was never flushed", deed.name);
    assert!(placed > 0 || deed.is_first || deed.name == "mode and time", "{}: nothing was placed", deed.name);
}

// ------------------------------------------------------------------------------------------------ the test

/// What b has before and after.
struct Expected {
    before: Tree,
    after: Tree,
}

/// Looks at what a killed run left, starts both again, and looks once more.
fn check(dir: &Path, deed: &Deed, expected: &Expected, at: &str) {
    let data = dir.join("b/data");
    let fits = |moment: &str| {
        let now = tree(&data);
        for path in expected.before.keys().chain(expected.after.keys()) {
            let (before, after) = (expected.before.get(path), expected.after.get(path));
            let is = |one: Option<&Entry>| match (one, now.get(path)) {
                (Some(one), Some(now)) => one.is_like(now),
                (None, None) => true,
                _ => false,
            };
            assert!(is(before) || is(after), "{at}: {moment}: {}: {:?}", path.display(), now.get(path));
        }
        let all: BTreeSet<_> = contents(&now).union(&history(&data)).cloned().collect();
        let lost: Vec<_> = contents(&expected.before).difference(&all).cloned().collect();
        assert!(lost.is_empty(), "{at}: {moment}: {lost:?} are lost");
    };
    fits("after the crash");

    // Alone: nothing that is not there is taken for a deletion.
    let mut b = Node::start(&dir.join("b"), 2);
    b.settle();
    fits("after the start");
    let own = DeviceTag::of(&b.id);
    for (local, _) in b.engine.index().changes_since(Default::default(), 1000).unwrap() {
        let is_deletion = local.record.body == Body::Tombstone && local.record.by == own;
        assert!(!is_deletion, "{at}: a deletion was made up: {:?}", local.record);
    }

    // Together: as if nothing had happened.
    let mut a = Node::start(&dir.join("a"), 1);
    a.settle();
    sync(&mut a, &mut b);
    let ends = |moment: &str| {
        let (of_a, of_b) = (tree(&dir.join("a/data")), tree(&data));
        assert_eq!(of_a, of_b, "{at}: {moment}");
        let is_undone = deed.wish.is_some() && of_b == expected.before;
        assert!(of_b == expected.after || is_undone, "{at}: {moment}: {of_b:?}");
    };
    ends("after both are connected");
    assert_eq!((a.problems(), b.problems()), (Vec::new(), Vec::new()), "{at}");

    // What was replaced is listed, and nothing lies in history that is not.
    let kept: Vec<_> = b.engine.index().kept(None, true).unwrap().into_iter().filter_map(|kept| kept.file).collect();
    let mut listed = contents(&tree(&data));
    listed.extend(kept.iter().filter_map(|file| fs::read_to_string(data.join(".kinfold/history").join(file)).ok()));
    let lost: Vec<_> = contents(&expected.before).difference(&listed).cloned().collect();
    assert!(lost.is_empty(), "{at}: {lost:?} are not listed in history: {kept:?}");
    let names: BTreeSet<_> = list(&b.root).unwrap().into_iter().collect();
    assert_eq!(names, kept.into_iter().collect(), "{at}");

    // Once more: it has come to rest.
    let last = (a.engine.index().last_sequence(), b.engine.index().last_sequence());
    drop((a, b));
    let (mut a, mut b) = (Node::start(&dir.join("a"), 1), Node::start(&dir.join("b"), 2));
    a.settle();
    b.settle();
    sync(&mut a, &mut b);
    ends("after another start");
    assert_eq!((a.engine.index().last_sequence(), b.engine.index().last_sequence()), last, "{at}: no rest");
}

/// Tries a deed with a kill at each of its calls. Returns how many there are.
fn enumerate(deed: &Deed) -> usize {
    let template = template(deed);
    let before = tree(&template.path().join("b/data"));
    let dry = copy(template.path());
    let status = child_command(dry.path(), deed, &["-y", "-e", &format!("trace={CALLS}")]).status().unwrap();
    assert!(status.success(), "{}: the run that nobody kills fails: {status}", deed.name);
    let expected = Expected { before, after: tree(&dry.path().join("b/data")) };
    assert!(expected.before != expected.after || deed.is_first, "{}: nothing was done", deed.name);
    check_order(dry.path(), deed);
    let points = points(dry.path());
    assert!(points.len() > 10, "{}: {points:?}", deed.name);
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(2, usize::from) {
            scope.spawn(|| {
                while let Some((call, number)) = points.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let dir = copy(template.path());
                    let inject = format!("inject={call}:signal=KILL:when={number}");
                    let status = child_command(dir.path(), deed, &["-e", &inject]).status().unwrap();
                    let at = format!("{}, killed at {call} {number}", deed.name);
                    assert!(!status.success(), "{at}: it was not killed");
                    check(dir.path(), deed, &expected, &at);
                }
            });
        }
    });
    points.len()
}

#[test]
fn no_crash_at_any_system_call_loses_anything() {
    let can_trace = Command::new("strace")
        .args(["-qq", "-e", "trace=none", "true"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    if !can_trace {
        assert!(std::env::var_os("KINFOLD_NEED_STRACE").is_none(), "strace is missing, or may not trace");
        eprintln!("strace is missing, or may not trace: no crash was tried");
        return;
    }
    let mut all = 0;
    for deed in deeds() {
        let points = enumerate(&deed);
        println!("{}: {points} kill points", deed.name);
        all += points;
    }
    println!("{all} kill points");
}
