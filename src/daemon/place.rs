//! Where a folder lies: its root while it is there, its watch, its rules.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;

use crate::daemon::folder::Command;
use crate::disk::bases::Bases;
use crate::disk::ignore::{Gitignores, Rules};
use crate::disk::root::{Root, RootError};
use crate::disk::staging::Staging;
use crate::disk::watch::{Watch, WatchEvent};
use crate::engine::effect::Depth;
use crate::engine::folder::Input;
use crate::model::id::FolderId;
use crate::model::path::RelPath;

/// A file that is being written to raises an event a write; the engine hears of it so often at most.
const WRITTEN_PAUSE: Duration = Duration::from_millis(250);
/// Of so many such files it is remembered when the engine was told.
const WRITTEN_MAX: usize = 4096;

/// A folder's place on the disk, shared by all threads that work on it.
pub struct Place {
    path: PathBuf,
    folder: FolderId,
    /// Whether the folder was never scanned, so that a missing marker means a new folder.
    is_new: AtomicBool,
    held: Mutex<Held>,
    /// The ignore rules.
    pub rules: Rules,
    /// The files that chunks are arriving for.
    pub staging: Staging,
    /// What small texts were lately.
    pub bases: Bases,
    /// Set to end scans and reading soon.
    pub cancel: AtomicBool,
    touched: Mutex<BTreeMap<RelPath, Depth>>,
    /// When the engine was last told that a file is being written to.
    written: Mutex<BTreeMap<RelPath, Instant>>,
    /// Held by whoever changes the folder for the engine; counts the engine's lives.
    turn: Mutex<u64>,
    commands: Sender<Command>,
}

#[derive(Default)]
struct Held {
    root: Option<Arc<Root>>,
    watch: Option<Watch>,
}

impl Place {
    /// Describes a place; nothing is opened yet.
    pub fn new(path: PathBuf, folder: FolderId, is_new: bool, rules: Gitignores, commands: Sender<Command>) -> Self {
        Self {
            path,
            folder,
            is_new: AtomicBool::new(is_new),
            held: Mutex::default(),
            rules: Rules::new(rules),
            staging: Staging::default(),
            bases: Bases::default(),
            cancel: AtomicBool::new(false),
            touched: Mutex::default(),
            written: Mutex::default(),
            turn: Mutex::new(0),
            commands,
        }
    }

    /// Waits until nobody changes the folder, and keeps others from it. Holds the number of the engine's life.
    pub fn turn(&self) -> MutexGuard<'_, u64> {
        // A commit that panicked has left the folder as a crash would, which is what recovery is for.
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a new life of the engine, and returns its number.
    pub fn begin_life(&self) -> u64 {
        let mut life = self.turn();
        *life += 1;
        *life
    }

    /// Returns the root if it is held now, without a look at the disk.
    pub fn root(&self) -> Option<Arc<Root>> {
        self.lock().root.clone()
    }

    /// Returns the root, opening it and watching it where that is not so yet.
    ///
    /// A root that was swapped for another is let go; then it is opened anew, if it is the folder's.
    pub fn open(self: &Arc<Self>) -> Result<Arc<Root>, RootError> {
        let mut held = self.lock();
        if let Some(root) = &held.root {
            match root.check() {
                Ok(()) => return Ok(root.clone()),
                Err(error) => {
                    tracing::warn!(folder = %self.folder, %error, "the folder's root is gone");
                    *held = Held::default();
                }
            }
        }
        let opened = match Root::open(&self.path, self.folder) {
            Err(RootError::NoMarker { .. }) if self.is_new.load(Ordering::Relaxed) => {
                Root::create(&self.path, self.folder)
            }
            other => other,
        };
        let root = Arc::new(opened?);
        self.is_new.store(false, Ordering::Relaxed);
        let weak = Arc::downgrade(self);
        let watch = Watch::start(&root, move |event| {
            if let Some(place) = weak.upgrade() {
                place.notice(event);
            }
        });
        match watch {
            Ok(watch) => held.watch = Some(watch),
            Err(error) => {
                tracing::warn!(folder = %self.folder, %error, "changes are found by scanning alone");
                self.tell(Input::WatchLimited(true));
            }
        }
        held.root = Some(root.clone());
        Ok(root)
    }

    /// Takes the paths that were touched since the last call.
    pub fn take_touched(&self) -> BTreeMap<RelPath, Depth> {
        std::mem::take(&mut *self.touched.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Lets go of the root and the watch.
    pub fn close(&self) {
        self.cancel.store(true, Ordering::Relaxed);
        *self.lock() = Held::default();
    }

    fn notice(&self, event: WatchEvent) {
        match event {
            WatchEvent::Touched(path, depth) => {
                // Other rules hold from now on in all of its directory.
                match path.parent() {
                    _ if !self.rules.is_rule_file(&path) => {}
                    None => self.tell(Input::ScanAll),
                    Some(dir) => self.touch(dir, Depth::Tree),
                }
                self.touch(path, depth);
            }
            WatchEvent::Written(path) if !self.rules.is_rule_file(&path) => self.note_write(path),
            WatchEvent::Written(path) => self.notice(WatchEvent::Touched(path, Depth::Entry)),
            WatchEvent::Rescan | WatchEvent::RootGone => self.tell(Input::ScanAll),
            WatchEvent::LimitReached => self.tell(Input::WatchLimited(true)),
        }
    }

    fn touch(&self, path: RelPath, depth: Depth) {
        let mut touched = self.touched.lock().unwrap_or_else(PoisonError::into_inner);
        let is_first = touched.is_empty();
        let known = touched.entry(path).or_insert(depth);
        *known = (*known).max(depth);
        drop(touched);
        if is_first {
            self.commands.send(Command::Touched).ok();
        }
    }

    fn note_write(&self, path: RelPath) {
        let (now, mut written) = (Instant::now(), self.written.lock().unwrap_or_else(PoisonError::into_inner));
        if written.get(&path).is_some_and(|told| now.duration_since(*told) < WRITTEN_PAUSE) {
            return;
        }
        if written.len() >= WRITTEN_MAX {
            written.clear();
        }
        written.insert(path.clone(), now);
        drop(written);
        self.tell(Input::Written(path));
    }

    fn tell(&self, input: Input) {
        // A folder that has ended does not want to know.
        self.commands.send(Command::Input(input)).ok();
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
