//! Scans: looks at a folder, or at parts of it, and reports what lies there.
//!
//! Directories are listed through held handles, several at a time. The listing of a directory is
//! delivered before those of what lies below it; beyond that the order is not promised. What is handed
//! on at a time is bounded, and so is what waits.
//!
//! What a listing lacks is taken for deleted, so a listing must not lack anything by mistake: a
//! directory that changes while it is listed is listed again, and what any of the listings had is looked
//! at by itself. A directory that cannot be listed, or whose ignore rules cannot be read, is reported as
//! such. And unless the root is the folder's before and after ([`Root::check`]), the scan did not take
//! place.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use crossbeam_channel::{Receiver, Sender, TryRecvError};
use rustix::fs::{FileType, RawDir, SeekFrom, seek};
use rustix::io::Errno;

use crate::disk::ignore::{Level, Rules};
use crate::disk::probe::{fstat, look, probe};
use crate::disk::root::Root;
use crate::engine::effect::{Depth, Found, ScanEnd, ScanItem, Scope};
use crate::model::path::{OWN_DIR, RelPath};
use crate::model::stat::{Kind, Stat};

/// Entries of listings that are handed on together, unless one directory has more.
const BATCH_ENTRIES: usize = 4096;
/// Items that are handed on together.
const BATCH_ITEMS: usize = 512;
/// Listings that wait to be handed on.
const WAITING_MAX: usize = 64;
/// How often a directory that changes meanwhile is listed.
const LISTINGS_MAX: u32 = 4;
const LIST_BUFFER_LEN: usize = 32 << 10;

/// Looks at what `scope` says, and hands what it finds to `sink`, in batches.
///
/// `threads` list directories at the same time; `sink` is called on the caller's. Setting `cancel` ends
/// the scan soon. Nothing may be taken for gone before the scan has ended with [`ScanEnd::Complete`].
pub fn scan(
    root: &Root,
    scope: &Scope,
    rules: &Rules,
    cancel: &AtomicBool,
    threads: usize,
    sink: &mut dyn FnMut(Vec<ScanItem>),
) -> ScanEnd {
    if let Err(error) = root.check() {
        return ScanEnd::RootMissing(error.to_string());
    }
    let mut batch = Batch { items: Vec::new(), entries: 0, sink };
    match scope {
        Scope::All => {
            walk(root, rules, cancel, threads, vec![Job { dir: None, above: Level::default() }], &mut batch);
        }
        Scope::Paths(paths) => {
            let trees = look_at_paths(root, rules, cancel, paths, &mut batch);
            if !trees.is_empty() {
                walk(root, rules, cancel, threads, trees, &mut batch);
            }
        }
    }
    batch.flush();
    if cancel.load(Ordering::Relaxed) {
        return ScanEnd::Cancelled;
    }
    match root.check() {
        Ok(()) => ScanEnd::Complete,
        Err(error) => ScanEnd::RootMissing(error.to_string()),
    }
}

/// What was found and not handed on yet.
struct Batch<'a> {
    items: Vec<ScanItem>,
    entries: usize,
    sink: &'a mut dyn FnMut(Vec<ScanItem>),
}

impl Batch<'_> {
    fn add(&mut self, item: ScanItem) {
        self.entries += match &item {
            ScanItem::Listing { entries, .. } => entries.len(),
            _ => 1,
        };
        self.items.push(item);
        if self.entries >= BATCH_ENTRIES || self.items.len() >= BATCH_ITEMS {
            self.flush();
        }
    }

    fn flush(&mut self) {
        self.entries = 0;
        if !self.items.is_empty() {
            (self.sink)(std::mem::take(&mut self.items));
        }
    }
}

/// The rules of a directory, `None` if it is ignored itself, or why they are not known.
type LevelOrWhy = Result<Option<Level>, String>;

/// Looks at single paths. Returns the directories that are to be walked.
fn look_at_paths(
    root: &Root,
    rules: &Rules,
    cancel: &AtomicBool,
    paths: &BTreeMap<RelPath, Depth>,
    batch: &mut Batch<'_>,
) -> Vec<Job> {
    let mut trees: Vec<Job> = Vec::new();
    // Neighbours share a directory, and a directory's rules.
    let mut last: Option<(Option<RelPath>, LevelOrWhy)> = None;
    for (path, depth) in paths {
        if cancel.load(Ordering::Relaxed) {
            return Vec::new();
        }
        // In the order of paths, what lies below a directory comes right after it.
        if trees.last().and_then(|tree| tree.dir.as_ref()).is_some_and(|tree| path.is_below(tree)) {
            continue;
        }
        let parent = path.parent();
        if last.as_ref().is_none_or(|(dir, _)| *dir != parent) {
            let level = rules.level_of(root, parent.as_ref()).map_err(|error| format!("ignore rules: {error}"));
            last = Some((parent, level));
        }
        let level = match &last {
            Some((_, level)) => level,
            None => continue,
        };
        let found = look_at_path(root, path, level);
        if let (Depth::Tree, Some(Found::Entry(Stat { kind: Kind::Dir, .. })), Ok(Some(above))) = (depth, &found, level)
        {
            trees.push(Job { dir: Some(path.clone()), above: above.clone() });
        }
        batch.add(ScanItem::Path { path: path.clone(), found });
    }
    trees
}

fn look_at_path(root: &Root, path: &RelPath, level: &LevelOrWhy) -> Option<Found> {
    let found = match probe(root, path) {
        Ok(found) => found?,
        Err(error) => return Some(Found::Unreadable(error.to_string())),
    };
    Some(match level {
        Err(detail) => Found::Unreadable(detail.clone()),
        Ok(Some(level)) if !level.ignores(path.as_bytes(), is_dir(&found)) => found,
        Ok(_) => Found::Ignored,
    })
}

fn is_dir(found: &Found) -> bool {
    matches!(found, Found::Entry(stat) if stat.kind == Kind::Dir)
}

/// A directory that is to be listed, and the rules of the one above it.
struct Job {
    dir: Option<RelPath>,
    above: Level,
}

/// Directories that wait to be listed, the next one last.
struct Queue {
    jobs: Vec<Job>,
    /// Directories that are being listed now, and may add to the queue.
    busy: usize,
    stopped: bool,
}

struct Walk<'a> {
    root: &'a Root,
    rules: &'a Rules,
    cancel: &'a AtomicBool,
    queue: Mutex<Queue>,
    change: Condvar,
}

/// Lists directories and all below them.
fn walk(root: &Root, rules: &Rules, cancel: &AtomicBool, threads: usize, mut starts: Vec<Job>, batch: &mut Batch<'_>) {
    starts.reverse();
    let queue = Mutex::new(Queue { jobs: starts, busy: 0, stopped: false });
    let walk = &Walk { root, rules, cancel, queue, change: Condvar::new() };
    thread::scope(|scope| {
        let (sender, receiver) = crossbeam_channel::bounded(WAITING_MAX);
        for _ in 0..threads.max(1) {
            let sender = sender.clone();
            scope.spawn(move || walk.work(&sender));
        }
        drop(sender);
        hand_on(&receiver, batch);
        // Where `batch` panics, the receiver goes, the workers see that nobody listens, and end.
    });
}

/// Hands on what comes, together where it comes fast.
fn hand_on(receiver: &Receiver<ScanItem>, batch: &mut Batch<'_>) {
    loop {
        match receiver.try_recv() {
            Ok(item) => batch.add(item),
            Err(TryRecvError::Disconnected) => return,
            Err(TryRecvError::Empty) => {
                batch.flush();
                match receiver.recv() {
                    Ok(item) => batch.add(item),
                    Err(_) => return,
                }
            }
        }
    }
}

impl Walk<'_> {
    fn work(&self, sender: &Sender<ScanItem>) {
        let mut buffer = Vec::with_capacity(LIST_BUFFER_LEN);
        while let Some(job) = self.next() {
            let (item, below) = self.list(&job, &mut buffer);
            // Only once a listing is on its way may those below it follow.
            let heard = sender.send(item).is_ok();
            self.done(below, heard && !self.cancel.load(Ordering::Relaxed));
        }
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn next(&self) -> Option<Job> {
        let mut queue = self.lock();
        loop {
            if queue.stopped {
                return None;
            }
            if let Some(job) = queue.jobs.pop() {
                queue.busy += 1;
                return Some(job);
            }
            if queue.busy == 0 {
                return None;
            }
            queue = self.change.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn done(&self, below: Vec<Job>, go_on: bool) {
        let mut queue = self.lock();
        queue.busy -= 1;
        queue.stopped |= !go_on;
        let more = below.len();
        // Depth first, which keeps the queue short.
        queue.jobs.extend(below.into_iter().rev());
        if queue.stopped || queue.busy == 0 || more > 0 {
            self.change.notify_all();
        }
    }

    /// Lists one directory. Returns also what is to be listed below it.
    fn list(&self, job: &Job, buffer: &mut Vec<u8>) -> (ScanItem, Vec<Job>) {
        let dir = job.dir.as_ref();
        let unlisted = |detail: String| (ScanItem::Unlisted { dir: dir.cloned(), detail }, Vec::new());
        let open = match self.root.dir_to_read(dir) {
            Ok(open) => open,
            Err(error) => return unlisted(text(error)),
        };
        let names = match read_names(&open, buffer) {
            Ok(names) => names,
            Err(error) => return unlisted(text(error)),
        };
        let has = |name: &[u8]| names.binary_search_by(|(other, _)| (**other).cmp(name)).is_ok();
        let level = match self.rules.descend(&job.above, open.as_fd(), dir, has) {
            Ok(level) => level,
            Err(error) => return unlisted(format!("ignore rules: {error}")),
        };
        let mut entries = Vec::with_capacity(names.len());
        let mut below = Vec::new();
        for (name, kind) in names {
            if dir.is_none() && *name == *OWN_DIR {
                continue;
            }
            let path = match RelPath::child(dir, &name) {
                Ok(path) => path,
                Err(error) => {
                    entries.push((name, Found::Unreadable(error.to_string())));
                    continue;
                }
            };
            let Some(found) = look_at_entry(open.as_fd(), &path, kind, &level) else { continue };
            if is_dir(&found) {
                below.push(Job { dir: Some(path), above: level.clone() });
            }
            entries.push((name, found));
        }
        (ScanItem::Listing { dir: dir.cloned(), entries }, below)
    }
}

/// Looks at one entry of a listing, unless rules leave it out; `None` if it is gone by now.
fn look_at_entry(open: BorrowedFd<'_>, path: &RelPath, kind: FileType, level: &Level) -> Option<Found> {
    let listed_as_dir = kind == FileType::Directory;
    if kind != FileType::Unknown && level.ignores(path.as_bytes(), listed_as_dir) {
        return Some(Found::Ignored);
    }
    let found = match look(open, path.name()) {
        Ok(found) => found?,
        Err(error) => return Some(Found::Unreadable(text(error))),
    };
    let asked = kind != FileType::Unknown && is_dir(&found) == listed_as_dir;
    Some(if !asked && level.ignores(path.as_bytes(), is_dir(&found)) { Found::Ignored } else { found })
}

/// A name in a directory, and what the directory says it is.
type Name = (Box<[u8]>, FileType);

/// Reads the names in a directory, sorted.
fn read_names(dir: &OwnedFd, buffer: &mut Vec<u8>) -> Result<Vec<Name>, Errno> {
    let mut names = Vec::new();
    for listing in 0..LISTINGS_MAX {
        let before = fstat(dir.as_fd())?;
        if listing > 0 {
            seek(dir, SeekFrom::Start(0))?;
        }
        let mut entries = RawDir::new(dir, buffer.spare_capacity_mut());
        while let Some(entry) = entries.next() {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if name != b"." && name != b".." {
                names.push((name.into(), entry.file_type()));
            }
        }
        // A name that is renamed while its directory is listed can be missed under both names.
        let after = fstat(dir.as_fd())?;
        if (before.mtime_ns, before.ctime_ns) == (after.mtime_ns, after.ctime_ns) {
            break;
        }
    }
    names.sort_by(|(one, _): &Name, (other, _)| one.cmp(other));
    names.dedup_by(|(one, _), (other, _)| one == other);
    Ok(names)
}

fn text(error: Errno) -> String {
    std::io::Error::from(error).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::ignore::Gitignores;
    use crate::disk::testing::{Folder, path};
    use std::collections::BTreeSet;
    use std::fs;
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::symlink;

    static NEVER: AtomicBool = AtomicBool::new(false);

    fn run(folder: &Folder, scope: &Scope) -> (Vec<ScanItem>, ScanEnd) {
        let mut items = Vec::new();
        let rules = Rules::new(Gitignores::Unused);
        let end = scan(&folder.root, scope, &rules, &NEVER, 2, &mut |batch| items.extend(batch));
        (items, end)
    }

    fn paths(scope: &[(&str, Depth)]) -> Scope {
        Scope::Paths(scope.iter().map(|(at, depth)| (path(at), *depth)).collect())
    }

    /// Returns all paths that the listings have, and checks their order on the way.
    fn listed(items: &[ScanItem]) -> BTreeSet<String> {
        let mut dirs = BTreeSet::new();
        let mut all = BTreeSet::new();
        for item in items {
            let ScanItem::Listing { dir, entries } = item else { continue };
            if let Some(dir) = dir {
                assert!(dirs.contains(dir), "{dir} was listed before the directory that holds it");
            }
            assert!(entries.is_sorted_by(|one, other| one.0 < other.0));
            for (name, found) in entries {
                let path = RelPath::child(dir.as_ref(), name).unwrap();
                if is_dir(found) {
                    dirs.insert(path.clone());
                }
                assert!(all.insert(path.to_string()), "{path} was listed twice");
            }
        }
        all
    }

    #[test]
    fn a_scan_of_all_finds_all_but_our_own() {
        let folder = Folder::new();
        let mut wanted = BTreeSet::new();
        for n in 0..60 {
            let at = format!("d{}/e{}/f{n}", n % 5, n % 7);
            folder.write(&at, b"x");
            wanted.extend(path(&at).ancestors().map(|dir| dir.to_string()));
            wanted.insert(at);
        }
        fs::create_dir(folder.at("empty")).unwrap();
        symlink("d0", folder.at("link")).unwrap();
        wanted.extend(["empty".into(), "link".into()]);
        let (items, end) = run(&folder, &Scope::All);
        assert_eq!(end, ScanEnd::Complete);
        assert_eq!(listed(&items), wanted);
        let listings = items.iter().filter(|item| matches!(item, ScanItem::Listing { .. })).count();
        assert_eq!(listings, 1 + 5 + 35 + 1);
        for item in &items {
            let ScanItem::Listing { dir, entries } = item else { panic!("{item:?}") };
            for (name, found) in entries {
                let path = RelPath::child(dir.as_ref(), name).unwrap();
                assert_eq!(probe(&folder.root, &path).unwrap().as_ref(), Some(found));
            }
        }
    }

    #[test]
    fn what_is_ignored_is_named_and_not_looked_into() {
        let folder = Folder::new();
        folder.write(".kinfoldignore", b"out/\n*.tmp\n");
        folder.write("d/.kinfoldignore", b"!keep.tmp\n");
        for at in ["out/f", "a.tmp", "d/a.tmp", "d/keep.tmp", "d/out/f", ".kinfold-tmp-7"] {
            folder.write(at, b"x");
        }
        let (items, _) = run(&folder, &Scope::All);
        let ignored: BTreeSet<String> = items
            .iter()
            .flat_map(|item| match item {
                ScanItem::Listing { dir, entries } => entries.iter().map(move |entry| (dir, entry)),
                other => panic!("{other:?}"),
            })
            .filter(|(_, (_, found))| *found == Found::Ignored)
            .map(|(dir, (name, _))| RelPath::child(dir.as_ref(), name).unwrap().to_string())
            .collect();
        assert_eq!(ignored, [".kinfold-tmp-7", "a.tmp", "d/a.tmp", "d/out", "out"].map(String::from).into());
        assert!(!listed(&items).contains("out/f"));
        assert!(listed(&items).contains("d/keep.tmp"));
    }

    #[test]
    fn paths_are_looked_at_one_by_one_or_with_all_below() {
        let folder = Folder::new();
        for at in ["a/b/f", "a/g", "c/f", "out/f"] {
            folder.write(at, b"x");
        }
        folder.write(".kinfoldignore", b"out\n");
        let (items, end) = run(
            &folder,
            &paths(&[
                ("a", Depth::Tree),
                ("a/g", Depth::Entry),
                ("c", Depth::Entry),
                ("c/f", Depth::Tree),
                ("missing/f", Depth::Tree),
                ("out", Depth::Tree),
                ("out/f", Depth::Entry),
                ("out/missing", Depth::Entry),
            ]),
        );
        assert_eq!(end, ScanEnd::Complete);
        let found: BTreeMap<String, Option<Found>> = items
            .iter()
            .filter_map(|item| match item {
                ScanItem::Path { path, found } => Some((path.to_string(), found.clone())),
                _ => None,
            })
            .collect();
        assert_eq!(
            found,
            [
                ("a".into(), folder.probe("a")),
                ("c".into(), folder.probe("c")),
                ("c/f".into(), folder.probe("c/f")),
                ("missing/f".into(), None),
                ("out".into(), Some(Found::Ignored)),
                ("out/f".into(), Some(Found::Ignored)),
                ("out/missing".into(), None),
            ]
            .into()
        );
        let mut listings: Vec<_> = items
            .iter()
            .filter_map(|item| match item {
                ScanItem::Listing { dir, .. } => dir.as_ref().map(|dir| dir.to_string()),
                _ => None,
            })
            .collect();
        listings.sort();
        assert_eq!(listings, ["a", "a/b"]);
    }

    #[test]
    fn a_root_that_is_not_the_folders_ends_the_scan() {
        let folder = Folder::new();
        folder.write("f", b"x");
        fs::remove_file(folder.at(".kinfold/marker")).unwrap();
        let (items, end) = run(&folder, &Scope::All);
        assert_eq!(items, []);
        assert!(matches!(end, ScanEnd::RootMissing(_)));
    }

    #[test]
    fn a_root_that_vanishes_during_the_scan_is_noticed() {
        let folder = Folder::new();
        folder.write("d/f", b"x");
        let rules = Rules::new(Gitignores::Unused);
        let aside = folder.root.path().with_extension("aside");
        let end = scan(&folder.root, &Scope::All, &rules, &NEVER, 1, &mut |_| {
            fs::rename(folder.root.path(), &aside).ok();
        });
        assert!(matches!(end, ScanEnd::RootMissing(_)), "{end:?}");
    }

    #[test]
    fn rules_that_cannot_be_read_leave_the_directory_unlisted() {
        let folder = Folder::new();
        folder.write("d/secret", b"x");
        folder.write("f", b"x");
        let file = fs::File::create(folder.at("d/.kinfoldignore")).unwrap();
        file.set_len(2 << 20).unwrap();
        let (items, _) = run(&folder, &Scope::All);
        let unlisted =
            items.iter().any(|item| matches!(item, ScanItem::Unlisted { dir: Some(dir), .. } if *dir == path("d")));
        assert!(unlisted && !listed(&items).contains("d/secret"));
        let (items, _) = run(&folder, &paths(&[("d/secret", Depth::Entry)]));
        assert!(matches!(&items[..], [ScanItem::Path { found: Some(Found::Unreadable(_)), .. }]));
    }

    #[test]
    fn names_that_cannot_be_synced_are_reported_under_their_raw_name() {
        let folder = Folder::new();
        let mut dir =
            rustix::fs::open(folder.root.path(), rustix::fs::OFlags::PATH, rustix::fs::Mode::empty()).unwrap();
        // Deeper than any path may be; made step by step, for no path reaches there.
        for n in 0..20 {
            let name = format!("{n:0>240}");
            rustix::fs::mkdirat(&dir, &name, rustix::fs::Mode::from_raw_mode(0o700)).unwrap();
            dir = rustix::fs::openat(&dir, &name, rustix::fs::OFlags::PATH, rustix::fs::Mode::empty()).unwrap();
        }
        fs::write(folder.root.path().join(std::ffi::OsStr::from_bytes(b"\xff")), b"x").unwrap();
        let (items, end) = run(&folder, &Scope::All);
        assert_eq!(end, ScanEnd::Complete);
        let unreadable = items.iter().any(|item| match item {
            ScanItem::Listing { entries, .. } => entries.iter().any(|(_, found)| matches!(found, Found::Unreadable(_))),
            _ => false,
        });
        assert!(unreadable);
    }

    #[test]
    fn a_large_directory_comes_whole_and_the_rest_in_bounded_batches() {
        let folder = Folder::new();
        for n in 0..3000 {
            folder.write(&format!("d{}/f{n}", n % 1000), b"");
        }
        let rules = Rules::new(Gitignores::Unused);
        let mut sizes = Vec::new();
        scan(&folder.root, &Scope::All, &rules, &NEVER, 2, &mut |batch| sizes.push(batch.len()));
        assert_eq!(sizes.iter().sum::<usize>(), 1001);
        assert!(sizes.iter().all(|size| *size <= BATCH_ITEMS), "{sizes:?}");
    }

    #[test]
    fn a_cancelled_scan_says_so() {
        let folder = Folder::new();
        for n in 0..200 {
            folder.write(&format!("d{n}/f"), b"x");
        }
        let rules = Rules::new(Gitignores::Unused);
        let cancel = AtomicBool::new(false);
        let end = scan(&folder.root, &Scope::All, &rules, &cancel, 2, &mut |_| cancel.store(true, Ordering::Relaxed));
        assert_eq!(end, ScanEnd::Cancelled);
        assert_eq!(scan(&folder.root, &Scope::All, &rules, &cancel, 2, &mut |_| {}), ScanEnd::Cancelled);
    }

    #[test]
    fn files_at_rest_are_never_missed_in_a_directory_that_is_not() {
        let folder = Folder::new();
        let rest: BTreeSet<String> = (0..300).map(|n| format!("rest{n}")).collect();
        rest.iter().for_each(|at| folder.write(at, b"x"));
        (0..300).for_each(|n| folder.write(&format!("move{n}"), b"x"));
        let stop = AtomicBool::new(false);
        let missed = thread::scope(|threads| {
            threads.spawn(|| {
                for n in (0..300).cycle().take_while(|_| !stop.load(Ordering::Relaxed)) {
                    fs::rename(folder.at(&format!("move{n}")), folder.at("moving")).unwrap();
                    fs::rename(folder.at("moving"), folder.at(&format!("move{n}"))).unwrap();
                }
            });
            let scans: Vec<_> = (0..10).map(|_| listed(&run(&folder, &Scope::All).0)).collect();
            stop.store(true, Ordering::Relaxed);
            scans.iter().flat_map(|found| rest.difference(found).cloned()).collect::<BTreeSet<_>>()
        });
        assert_eq!(missed, BTreeSet::new());
    }
}
