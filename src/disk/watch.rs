//! Watches a folder: a hint that something may have changed somewhere, never the truth.
//!
//! Events come from inotify by way of `notify`. Opening and reading files raises none, so our own scans
//! do not set off the next. The program's own directory is not watched.
//!
//! A directory that comes to be is watched only a moment later, and what was put into it before that
//! raises no event. So each new directory is reported with all below it, and only once its watch is set.
//!
//! A file that is closed is likely to be complete. One that was only written to may not be, but it may also stay
//! open for days, as logs and databases do, or be cut short by its name alone. So the two are told apart.
//!
//! Not seen are writes through memory maps and on network file systems; the engine scans now and then
//! for those.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread;

use crossbeam_channel::{Receiver, Sender, unbounded};
use notify::event::{EventKindMask, ModifyKind, RemoveKind, RenameMode};
use notify::{Config, ErrorKind, Event, EventKind, INotifyWatcher, RecursiveMode, Watcher};

use crate::disk::root::Root;
use crate::engine::effect::Depth;
use crate::model::path::{OWN_DIR, RelPath};

/// What the watch has to say.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum WatchEvent {
    /// Something may have changed at a path, or also below it.
    Touched(RelPath, Depth),
    /// The file was written to, and may be written to further.
    Written(RelPath),
    /// Events were lost: anything may have changed.
    Rescan,
    /// The system does not allow to watch all directories. Said once.
    LimitReached,
    /// The root was removed, renamed or unmounted.
    RootGone,
}

/// Why a folder cannot be watched at all.
#[derive(Debug, thiserror::Error)]
#[error("the folder cannot be watched")]
pub struct WatchError(#[source] notify::Error);

/// A folder's watch. Dropping it ends it.
#[derive(Debug)]
pub struct Watch {
    _watcher: Arc<Mutex<INotifyWatcher>>,
}

impl Watch {
    /// Begins to watch a folder, and calls `handler` for each event, on threads of its own.
    ///
    /// When this returns, whatever changes from now on raises an event. The handler must be quick: while
    /// it runs, events pile up in the system, and in the end are lost ([`WatchEvent::Rescan`]).
    pub fn start(root: &Root, handler: impl Fn(WatchEvent) + Send + Sync + 'static) -> Result<Self, WatchError> {
        let (new_dirs, arrivals) = unbounded();
        let sorter = Arc::new(Sorter {
            root: root.path().to_path_buf(),
            limit_said: AtomicBool::new(false),
            handler: Box::new(handler),
        });
        let listener = sorter.clone();
        let config = Config::default().with_follow_symlinks(false).with_event_kinds(
            EventKindMask::CREATE
                | EventKindMask::REMOVE
                | EventKindMask::MODIFY_DATA
                | EventKindMask::MODIFY_NAME
                | EventKindMask::MODIFY_META
                | EventKindMask::ACCESS_CLOSE,
        );
        let listen = move |event| match event {
            Ok(event) => listener.sort(&event, &new_dirs),
            Err(error) => listener.fail(&error),
        };
        let mut watcher = INotifyWatcher::new(listen, config).map_err(WatchError)?;
        match watcher.watch(root.path(), RecursiveMode::Recursive) {
            Ok(()) => {}
            // What is watched so far stays watched.
            Err(error) if matches!(error.kind, ErrorKind::MaxFilesWatch) => sorter.fail(&error),
            Err(error) => return Err(WatchError(error)),
        }
        // Where the limit was reached before it, it is not watched in the first place.
        watcher.unwatch(&root.path().join(Path::new(std::ffi::OsStr::from_bytes(OWN_DIR)))).ok();
        let watcher = Arc::new(Mutex::new(watcher));
        let weak = Arc::downgrade(&watcher);
        thread::Builder::new()
            .name("watch-new-dirs".into())
            .spawn(move || report_new_dirs(&weak, &arrivals, &sorter))
            .map_err(|error| WatchError(notify::Error::io(error)))?;
        Ok(Self { _watcher: watcher })
    }
}

/// Reports new directories once they are watched.
///
/// `notify` adds watches after it has passed on the events it has, and answers questions after that: so
/// its answer, to whatever, means that the directories it told us of before are watched by now.
fn report_new_dirs(watcher: &Weak<Mutex<INotifyWatcher>>, arrivals: &Receiver<RelPath>, sorter: &Sorter) {
    while let Ok(first) = arrivals.recv() {
        let mut dirs = vec![first];
        dirs.extend(arrivals.try_iter());
        let Some(watcher) = watcher.upgrade() else { return };
        let answer = watcher.lock().unwrap_or_else(PoisonError::into_inner).watched_paths();
        drop(watcher);
        if answer.is_err() {
            return;
        }
        dirs.sort();
        dirs.dedup_by(|dir, above| dir == above || dir.is_below(above));
        for dir in dirs {
            (sorter.handler)(WatchEvent::Touched(dir, Depth::Tree));
        }
    }
}

/// Turns what `notify` says into what we say.
struct Sorter {
    root: PathBuf,
    limit_said: AtomicBool,
    handler: Box<dyn Fn(WatchEvent) + Send + Sync>,
}

impl Sorter {
    fn sort(&self, event: &Event, new_dirs: &Sender<RelPath>) {
        if event.need_rescan() {
            return (self.handler)(WatchEvent::Rescan);
        }
        // The two halves of a rename come each by itself as well.
        if event.kind == EventKind::Modify(ModifyKind::Name(RenameMode::Both)) {
            return;
        }
        for at in &event.paths {
            let Ok(inside) = at.strip_prefix(&self.root) else { continue };
            if inside.as_os_str().is_empty() {
                if is_departure(&event.kind) {
                    (self.handler)(WatchEvent::RootGone);
                }
                continue;
            }
            // Names that no path may have show in the next listing of their directory.
            let Ok(path) = RelPath::parse(inside.as_os_str().as_bytes()) else { continue };
            match event.kind {
                EventKind::Create(notify::event::CreateKind::Folder) => {
                    new_dirs.send(path).ok();
                }
                // An unmounted disk: all below is to be looked at.
                EventKind::Remove(RemoveKind::Other) => (self.handler)(WatchEvent::Touched(path, Depth::Tree)),
                EventKind::Modify(ModifyKind::Name(RenameMode::To)) => {
                    if at.symlink_metadata().is_ok_and(|found| found.is_dir()) {
                        new_dirs.send(path.clone()).ok();
                    }
                    (self.handler)(WatchEvent::Touched(path, Depth::Entry));
                }
                EventKind::Modify(ModifyKind::Data(_)) => (self.handler)(WatchEvent::Written(path)),
                _ => (self.handler)(WatchEvent::Touched(path, Depth::Entry)),
            }
        }
    }

    fn fail(&self, error: &notify::Error) {
        match &error.kind {
            ErrorKind::MaxFilesWatch => {
                if !self.limit_said.swap(true, Ordering::Relaxed) {
                    (self.handler)(WatchEvent::LimitReached);
                }
            }
            // A directory that is gone again, or that we may not read: scans say so.
            ErrorKind::PathNotFound | ErrorKind::WatchNotFound => {}
            ErrorKind::Io(_) if !error.paths.is_empty() => {}
            _ => (self.handler)(WatchEvent::Rescan),
        }
    }
}

fn is_departure(kind: &EventKind) -> bool {
    matches!(kind, EventKind::Remove(_) | EventKind::Modify(ModifyKind::Name(RenameMode::From)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::testing::{Folder, path};
    use std::collections::BTreeSet;
    use std::fs;
    use std::io::Write;
    use std::sync::atomic::AtomicU32;
    use std::time::Duration;

    struct Watched {
        folder: Folder,
        events: Receiver<WatchEvent>,
        rounds: AtomicU32,
        _watch: Watch,
    }

    impl Watched {
        fn new(prepare: impl FnOnce(&Folder)) -> Self {
            let folder = Folder::new();
            prepare(&folder);
            let (sender, events) = unbounded();
            let watch = Watch::start(&folder.root, move |event| sender.send(event).unwrap_or_default()).unwrap();
            Self { folder, events, rounds: AtomicU32::new(0), _watch: watch }
        }

        /// Returns the events up to and including that of a file that is made for the purpose.
        fn events(&self) -> Vec<WatchEvent> {
            // Another name each time, for each raises more than one event.
            let name = format!("last-{}", self.rounds.fetch_add(1, Ordering::Relaxed));
            let last = touched(&name, Depth::Entry);
            self.folder.write(&name, b"");
            let mut events = Vec::new();
            loop {
                match self.events.recv_timeout(Duration::from_secs(20)).expect("an event") {
                    event if event == last => return events,
                    WatchEvent::Touched(at, _) | WatchEvent::Written(at) if at.name().starts_with(b"last-") => {}
                    event => events.push(event),
                }
            }
        }

        /// Waits for an event.
        fn wait(&self, wanted: &WatchEvent) {
            while self.events.recv_timeout(Duration::from_secs(20)).expect("an event") != *wanted {}
        }
    }

    fn touched(at: &str, depth: Depth) -> WatchEvent {
        WatchEvent::Touched(path(at), depth)
    }

    #[test]
    fn a_file_that_is_written_and_closed_is_touched() {
        let watched = Watched::new(|folder| folder.write("d/f", b"x"));
        watched.folder.write("d/f", b"y");
        assert!(watched.events().contains(&touched("d/f", Depth::Entry)));
        watched.folder.set_mode("d/f", 0o600);
        assert!(watched.events().contains(&touched("d/f", Depth::Entry)));
        fs::remove_file(watched.folder.at("d/f")).unwrap();
        assert!(watched.events().contains(&touched("d/f", Depth::Entry)));
    }

    #[test]
    fn a_file_that_is_written_to_or_cut_short_and_not_closed_is_written() {
        let watched = Watched::new(|folder| folder.write("d/f", b"long enough"));
        let written = WatchEvent::Written(path("d/f"));
        let mut file = fs::File::options().append(true).open(watched.folder.at("d/f")).unwrap();
        file.write_all(b"and more").unwrap();
        let events = watched.events();
        assert!(events.contains(&written) && !events.contains(&touched("d/f", Depth::Entry)), "{events:?}");
        drop(file);
        assert!(watched.events().contains(&touched("d/f", Depth::Entry)));
        let file = fs::File::options().write(true).open(watched.folder.at("d/f")).unwrap();
        file.set_len(3).unwrap();
        assert!(watched.events().contains(&written));
    }

    #[test]
    fn our_own_reading_and_our_own_directory_raise_no_event() {
        let watched = Watched::new(|folder| folder.write("d/f", b"x"));
        for _ in 0..20 {
            watched.folder.read("d/f");
            fs::read_dir(watched.folder.at("d")).unwrap().count();
            watched.folder.write(".kinfold/staging/x", b"x");
            watched.folder.write(".kinfold/history/new/y", b"x");
        }
        fs::create_dir(watched.folder.at(".kinfold/other")).unwrap();
        watched.folder.write(".kinfold/other/x", b"x");
        assert_eq!(watched.events(), []);
    }

    #[test]
    fn files_in_new_directories_are_never_missed() {
        let watched = Watched::new(|_| {});
        // Each new directory is listed when it is reported: between that and the events of its watch
        // nothing may slip through.
        let mut wanted = BTreeSet::new();
        for n in 0..100 {
            let at = format!("n{n}/x/y/z/file");
            watched.folder.write(&at, b"x");
            wanted.insert(at);
        }
        let mut seen = BTreeSet::new();
        while seen != wanted {
            match watched.events.recv_timeout(Duration::from_secs(20)) {
                Ok(WatchEvent::Touched(path, Depth::Entry)) if path.name() == b"file" => {
                    seen.insert(path.to_string());
                }
                Ok(WatchEvent::Touched(dir, Depth::Tree)) => {
                    let below = fs::read_dir(watched.folder.root.path().join(dir.as_path()));
                    let mut left: Vec<_> = below.into_iter().flatten().flatten().collect();
                    while let Some(entry) = left.pop() {
                        if entry.file_type().unwrap().is_dir() {
                            left.extend(fs::read_dir(entry.path()).unwrap().flatten());
                        } else {
                            let inside = entry.path();
                            let inside = inside.strip_prefix(watched.folder.root.path()).unwrap();
                            seen.insert(inside.to_str().unwrap().to_string());
                        }
                    }
                }
                Ok(_) => {}
                Err(_) => panic!("missed: {:?}", wanted.difference(&seen).collect::<Vec<_>>()),
            }
        }
    }

    #[test]
    fn a_renamed_tree_is_touched_at_both_ends_and_watched_at_the_new() {
        let watched = Watched::new(|folder| folder.write("old/deep/f", b"x"));
        fs::rename(watched.folder.at("old"), watched.folder.at("new")).unwrap();
        watched.wait(&touched("old", Depth::Entry));
        watched.wait(&touched("new", Depth::Tree));
        watched.folder.write("new/deep/f", b"y");
        watched.wait(&touched("new/deep/f", Depth::Entry));
    }

    #[test]
    fn a_removed_tree_is_touched() {
        let watched = Watched::new(|folder| folder.write("d/e/f", b"x"));
        fs::remove_dir_all(watched.folder.at("d")).unwrap();
        let events = watched.events();
        for at in ["d", "d/e", "d/e/f"] {
            assert!(events.contains(&touched(at, Depth::Entry)), "{at}: {events:?}");
        }
    }

    #[test]
    fn links_are_not_followed() {
        let elsewhere = tempfile::tempdir().unwrap();
        let watched = Watched::new(|folder| {
            std::os::unix::fs::symlink(elsewhere.path(), folder.at("link")).unwrap();
        });
        fs::write(elsewhere.path().join("f"), b"x").unwrap();
        assert_eq!(watched.events(), []);
    }

    #[test]
    fn a_root_that_goes_is_reported() {
        let watched = Watched::new(|_| {});
        fs::rename(watched.folder.root.path(), watched.folder.root.path().with_extension("aside")).unwrap();
        watched.wait(&WatchEvent::RootGone);
    }
}
