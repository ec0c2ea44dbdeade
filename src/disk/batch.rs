//! The moves that a commit is made of: in, out, aside, and back where something else came out.
//!
//! Whatever takes a place is renamed there as a whole, and whatever leaves one is looked at *after* it
//! left, when nobody can change what the name stands for any more. Only a file that is just what was
//! expected goes to history or is dropped; anything else is a person's edit that nobody has seen yet.
//! It becomes a conflict copy, or goes back to where it was.
//!
//! A new file first gets the name in history that its predecessor will have there, and then the two are
//! exchanged. So from the very moment in which something leaves its place it lies in history, under a
//! name that says where it lay, and no crash leaves it anywhere else: `disk::leftover` finds it there.
//!
//! File systems without `RENAME_EXCHANGE` get the former file linked (or copied) into history and the
//! new one renamed over it. The name never vanishes there either, but an edit that falls between the
//! last look and that rename is replaced unseen: see `replace_by_link`.
//!
//! Where another file system is mounted inside the folder, files are first copied next to their place,
//! under a name that scans leave out.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{
    AtFlags, Dir, Mode, OFlags, RenameFlags, Timespec, Timestamps, UTIME_OMIT, chmodat, fchmod, fsync, futimens,
    linkat, mkdirat, openat, readlinkat, renameat, renameat_with, symlinkat, syncfs, unlinkat, utimensat,
};
use rustix::io::Errno;

use crate::disk::copy::copy_all;
use crate::disk::fault::{detail, is_missing, is_unsupported, write_problem};
use crate::disk::ignore::TEMP_PREFIX;
use crate::disk::leftover;
use crate::disk::probe::{fstat, lstat};
use crate::disk::root::{Own, Parents, Root, retry};
use crate::engine::conflict::copy_path;
use crate::engine::effect::{CommitOutcome, Displaced, Expect};
use crate::model::id::DeviceTag;
use crate::model::path::{Escaped, RelPath};
use crate::model::problem::ProblemKind;
use crate::model::stat::{Kind, Stat};

/// Directories, or files, up to which each is flushed by itself; beyond, the whole file system is.
pub(crate) const FLUSH_EACH_MAX: usize = 8;

/// Conflict copies of one file with one time, beyond which something else must be wrong.
const COPIES_MAX: u32 = 10_000;

/// Tells apart the files that this process puts into its own directories.
static COUNTER: AtomicU64 = AtomicU64::new(0);

/// Why a step was not done. Nothing was changed.
#[derive(Debug)]
pub(crate) enum Refusal {
    Mismatch,
    NotEmpty,
    NoParent,
    OtherFileSystem,
    Failed(ProblemKind, String),
}

pub(crate) type Step<T> = Result<T, Refusal>;

impl From<Refusal> for CommitOutcome {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Mismatch => Self::Mismatch,
            Refusal::NotEmpty => Self::NotEmpty,
            Refusal::NoParent => Self::NoParent,
            Refusal::OtherFileSystem => Self::OtherFileSystem,
            Refusal::Failed(kind, detail) => Self::Failed(kind, detail),
        }
    }
}

/// Turns an error into a refusal that says what was being done.
pub(crate) fn failed(doing: &str) -> impl Fn(Errno) -> Refusal {
    move |error| Refusal::Failed(write_problem(error), detail(doing, error))
}

/// A name in an open directory.
#[derive(Clone, Copy)]
pub(crate) struct At<'a> {
    pub(crate) dir: BorrowedFd<'a>,
    pub(crate) name: &'a [u8],
}

impl At<'_> {
    pub(crate) fn lstat(self) -> Result<Option<Stat>, Errno> {
        lstat(self.dir, self.name)
    }
}

/// A path that something is done to, and what is known of it.
pub(crate) struct Target<'a> {
    pub(crate) path: &'a RelPath,
    pub(crate) dir: Rc<OwnedFd>,
    pub(crate) expect: Expect,
    pub(crate) displaced: &'a Displaced,
    pub(crate) by: DeviceTag,
}

impl Target<'_> {
    pub(crate) fn at(&self) -> At<'_> {
        At { dir: self.dir.as_fd(), name: self.path.name() }
    }
}

/// Where the thing went that lay at a path before.
#[derive(Debug, Default)]
pub(crate) struct Former {
    /// Its name in history.
    pub(crate) kept: Option<String>,
    /// Its place as a conflict copy.
    pub(crate) aside: Option<RelPath>,
    /// Whether it is an edit that nobody had seen.
    pub(crate) unseen: bool,
}

/// Some steps with what they share: directory handles, and what has to be made durable after them.
pub(crate) struct Batch<'r> {
    pub(crate) root: &'r Root,
    pub(crate) parents: Parents<'r>,
    pub(crate) staging: Rc<OwnedFd>,
    pub(crate) history: Rc<OwnedFd>,
    now_ns: i64,
    touched: BTreeMap<u64, Touched>,
    touched_last: Option<Rc<OwnedFd>>,
    /// Whether the file system was found to know no exchange.
    lacks_exchange: Cell<bool>,
    #[cfg(test)]
    pub(crate) faults: Faults,
}

/// What the tests make happen where the world would do it only by chance.
#[cfg(test)]
#[derive(Default)]
pub(crate) struct Faults {
    /// The file system has no `RENAME_EXCHANGE` and no `RENAME_NOREPLACE`.
    pub(crate) plain_renames: bool,
    /// Called between the look at a path and the deed.
    pub(crate) between: Option<Box<dyn Fn()>>,
}

/// What was changed on one file system and is not durable yet.
#[derive(Default)]
struct Touched {
    dirs: Vec<Rc<OwnedFd>>,
    files: Vec<OwnedFd>,
    /// More than a few: the whole file system is flushed, by one of the directories.
    many: bool,
}

impl<'r> Batch<'r> {
    pub(crate) fn new(root: &'r Root, now_ns: i64) -> Step<Self> {
        let open = |own| root.own(own).map(Rc::new).map_err(failed("cannot open .kinfold"));
        Ok(Self {
            root,
            parents: Parents::new(root),
            staging: open(Own::Staging)?,
            history: open(Own::History)?,
            now_ns,
            touched: BTreeMap::new(),
            touched_last: None,
            lacks_exchange: Cell::new(false),
            #[cfg(test)]
            faults: Faults::default(),
        })
    }

    /// Returns the directory that holds a path.
    pub(crate) fn parent(&mut self, path: &RelPath) -> Step<Rc<OwnedFd>> {
        self.parents.of(path).map_err(|error| match error {
            _ if is_missing(error) => Refusal::NoParent,
            _ => failed("cannot open the directory")(error),
        })
    }

    /// Returns a name that nothing of ours has, for the staging area.
    pub(crate) fn temp_name(&self) -> String {
        format!("tmp-{}", self.unique())
    }

    fn unique(&self) -> String {
        format!("{}-{}-{}", self.now_ns, std::process::id(), COUNTER.fetch_add(1, Ordering::Relaxed))
    }

    /// Looks whether what is expected at a target is what lies there.
    pub(crate) fn check(&self, target: &Target<'_>) -> Step<Option<Stat>> {
        let found = target.at().lstat().map_err(failed("cannot look at it"))?;
        let fits = match (&target.expect, &found) {
            (Expect::Absent, None) => true,
            (Expect::Stat(expected), Some(found)) if expected.kind == Kind::Dir => is_same_file(expected, found),
            (Expect::Stat(expected), Some(found)) => expected == found,
            _ => false,
        };
        #[cfg(test)]
        if let Some(between) = &self.faults.between {
            between();
        }
        if fits { Ok(found) } else { Err(Refusal::Mismatch) }
    }

    /// Puts a complete thing in the place of what is expected at the target.
    ///
    /// On `Ok` nothing lies at `from` any more; on `Err` it still does.
    pub(crate) fn put(&self, from: At<'_>, target: &Target<'_>) -> Step<Former> {
        self.check(target)?;
        match self.put_here(from, target, target.expect) {
            Ok(former) => Ok(former),
            Err(Trouble::Refused(refusal)) => Err(refusal),
            Err(Trouble::OtherFileSystem | Trouble::NoExchange) => self.put_across(from, target, target.expect),
        }
    }

    /// Renames a thing to where nothing, or an empty directory, is expected. `false`: the target lies on
    /// another file system; the directory is gone all the same.
    pub(crate) fn put_new(&self, from: At<'_>, target: &Target<'_>) -> Step<bool> {
        self.check(target)?;
        if target.expect != Expect::Absent {
            remove_dir(target.at())?;
        }
        match self.rename_new(from, target.at()) {
            Ok(()) => Ok(true),
            Err(error) => match Trouble::of(error) {
                Trouble::OtherFileSystem | Trouble::NoExchange => Ok(false),
                Trouble::Refused(refusal) => Err(refusal),
            },
        }
    }

    /// Puts something from another file system in place: by way of a copy beside the target.
    fn put_across(&self, from: At<'_>, target: &Target<'_>, expect: Expect) -> Step<Former> {
        let name = format!("{TEMP_PREFIX}{}", self.unique());
        let near = At { dir: target.dir.as_fd(), name: name.as_bytes() };
        let copied = copy_to(from, near).map_err(failed("cannot copy it to where it belongs"));
        let put = copied.and_then(|()| match self.put_here(near, target, expect) {
            Ok(former) => Ok(former),
            Err(Trouble::Refused(refusal)) => Err(refusal),
            Err(Trouble::OtherFileSystem | Trouble::NoExchange) => Err(failed("cannot rename it")(Errno::XDEV)),
        });
        match put {
            // What stays behind in staging is swept away some day.
            Ok(former) => {
                remove(from).ok();
                Ok(former)
            }
            Err(refusal) => {
                remove(near).ok();
                Err(refusal)
            }
        }
    }

    fn put_here(&self, from: At<'_>, target: &Target<'_>, expect: Expect) -> Result<Former, Trouble> {
        match expect {
            Expect::Absent => match self.rename_new(from, target.at()) {
                Ok(()) => Ok(Former::default()),
                Err(error) => Err(Trouble::of(error)),
            },
            Expect::Stat(expected) => self.replace(from, target, &expected),
        }
    }

    /// Exchanges `from`, by way of history, with what lies at the target, and then sees to what came out.
    fn replace(&self, from: At<'_>, target: &Target<'_>, expected: &Stat) -> Result<Former, Trouble> {
        if expected.kind == Kind::Dir && !is_empty_dir(target.at()) {
            // Looked at before, so that what lies in a directory need not even vanish for a moment.
            return Err(Refusal::NotEmpty.into());
        }
        if self.lacks_exchange.get() {
            return self.replace_by_link(from, target, expected);
        }
        let name = match self.retire_by_rename(from, target.path) {
            Ok(name) => name,
            // It lies beside the target, on a file system where history does not.
            Err(Errno::XDEV) => return self.exchange_with(from, target, expected, None),
            Err(error) => return Err(failed("cannot move it into history")(error).into()),
        };
        let out = At { dir: self.history.as_fd(), name: name.as_bytes() };
        self.exchange_with(out, target, expected, Some(&name)).or_else(|trouble| {
            self.rename_new(out, from).map_err(failed("cannot move it back"))?;
            match trouble {
                Trouble::NoExchange => {
                    self.lacks_exchange.set(true);
                    self.replace_by_link(from, target, expected)
                }
                other => Err(other),
            }
        })
    }

    /// On `Err` what lay at `from` still does.
    fn exchange_with(
        &self,
        from: At<'_>,
        target: &Target<'_>,
        expected: &Stat,
        kept: Option<&str>,
    ) -> Result<Former, Trouble> {
        match self.exchange(from, target.at()) {
            Ok(()) => {}
            // The new file is there; so it is the target that vanished.
            Err(Errno::NOENT) => return Err(Refusal::Mismatch.into()),
            Err(error) if is_unsupported(error) && kept.is_some() => return Err(Trouble::NoExchange),
            Err(error) if is_unsupported(error) => return self.replace_by_link(from, target, expected),
            Err(error) => return Err(Trouble::of(error)),
        }
        self.see_to_former(from, target, expected, kept).map_err(|error| {
            let refusal = match error {
                Errno::NOTEMPTY => Refusal::NotEmpty,
                _ => failed("cannot put the former file aside")(error),
            };
            match self.exchange(from, target.at()) {
                Ok(()) => refusal.into(),
                Err(again) => self.strand(from, target.path, again).into(),
            }
        })
    }

    /// Sends what came out of an exchange to where it belongs. `kept`: that is history, and it lies there
    /// already, under this name.
    pub(crate) fn see_to_former(
        &self,
        out: At<'_>,
        target: &Target<'_>,
        expected: &Stat,
        kept: Option<&str>,
    ) -> Result<Former, Errno> {
        let found = out.lstat()?.ok_or(Errno::NOENT)?;
        if found.kind == Kind::Dir {
            // Empty, it holds nothing that could be lost; with something in it, it goes back.
            unlinkat(out.dir, out.name, AtFlags::REMOVEDIR)?;
            return Ok(Former::default());
        }
        if !is_same_moved(expected, &found) {
            let aside = self.rename_aside(out, target, found.mtime_ns, None)?;
            return Ok(Former { kept: None, aside: Some(aside), unseen: true });
        }
        match target.displaced {
            Displaced::History => {
                let kept = match kept {
                    Some(kept) => kept.to_owned(),
                    None => self.retire(out, target.path)?,
                };
                Ok(Former { kept: Some(kept), ..Former::default() })
            }
            Displaced::Copy(to) => {
                let aside = self.rename_aside(out, target, found.mtime_ns, Some(to))?;
                Ok(Former { aside: Some(aside), ..Former::default() })
            }
            Displaced::Drop => {
                remove(out)?;
                Ok(Former::default())
            }
        }
    }

    /// Replaces without an exchange: the former file gets a second name in history, then the new one
    /// is renamed over it.
    fn replace_by_link(&self, from: At<'_>, target: &Target<'_>, expected: &Stat) -> Result<Former, Trouble> {
        let at = target.at();
        if expected.kind == Kind::Dir {
            // RACE: a crash between the two leaves nothing at the name. Such file systems offer no better.
            remove_dir(at)?;
            return self.rename_new(from, at).map(|()| Former::default()).map_err(Trouble::of);
        }
        if let Displaced::Copy(to) = target.displaced {
            return self.copy_by_link(from, target, expected, to);
        }
        let kept = match target.displaced {
            Displaced::History => Some(self.link_into_history(at, target.path).map_err(Trouble::of_keeping)?),
            Displaced::Copy(_) | Displaced::Drop => None,
        };
        let unchanged = at.lstat().map_err(Trouble::of)?.is_some_and(|found| is_same_moved(expected, &found));
        // RACE: a person may save the target between this look and the rename. Worst case: a save
        // that replaces the file (rather than writing into it, which reaches history by the link)
        // is lost. Not closed because such file systems offer nothing that looks and renames at once.
        let done = if unchanged {
            renameat(from.dir, from.name, at.dir, at.name).map_err(Trouble::of)
        } else {
            Err(Refusal::Mismatch.into())
        };
        if let (Err(_), Some(kept)) = (&done, &kept) {
            remove(At { dir: self.history.as_fd(), name: kept.as_bytes() }).ok();
        }
        done.map(|()| Former { kept, ..Former::default() })
    }

    /// As [`Batch::replace_by_link`], where the former file becomes a conflict copy.
    fn copy_by_link(
        &self,
        from: At<'_>,
        target: &Target<'_>,
        expected: &Stat,
        to: &RelPath,
    ) -> Result<Former, Trouble> {
        let at = target.at();
        let names = (1..=COPIES_MAX).map(|number| match number {
            1 => to.clone(),
            _ => copy_path(target.path, expected.mtime_ns, target.by, number),
        });
        for aside in names {
            let copy = At { dir: target.dir.as_fd(), name: aside.name() };
            let made = match linkat(at.dir, at.name, copy.dir, copy.name, AtFlags::empty()) {
                Err(Errno::PERM | Errno::OPNOTSUPP | Errno::MLINK | Errno::NOSYS) => copy_to(at, copy),
                made => made,
            };
            match made {
                Ok(()) => {}
                Err(Errno::EXIST) => continue,
                Err(error) => return Err(Trouble::of_keeping(error)),
            }
            let unchanged = at.lstat().map_err(Trouble::of)?.is_some_and(|found| is_same_moved(expected, &found));
            // RACE: as in `replace_by_link`.
            let done = if unchanged {
                renameat(from.dir, from.name, at.dir, at.name).map_err(Trouble::of)
            } else {
                Err(Refusal::Mismatch.into())
            };
            if done.is_err() {
                remove(copy).ok();
            }
            return done.map(|()| Former { aside: Some(aside), ..Former::default() });
        }
        Err(Trouble::of_keeping(Errno::EXIST))
    }

    fn link_into_history(&self, at: At<'_>, path: &RelPath) -> Result<String, Errno> {
        loop {
            let name = self.history_name(path);
            match linkat(at.dir, at.name, &*self.history, &name, AtFlags::empty()) {
                Ok(()) => return Ok(name),
                Err(Errno::EXIST) => {}
                Err(Errno::PERM | Errno::OPNOTSUPP | Errno::MLINK | Errno::XDEV | Errno::NOSYS) => {
                    copy_to(at, At { dir: self.history.as_fd(), name: name.as_bytes() })?;
                    return Ok(name);
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Takes what is expected away from the target: to history, or for good.
    ///
    /// Returns where else something lies now, if a person put something there at the wrong moment.
    pub(crate) fn take(&self, target: &Target<'_>) -> Step<Former> {
        let Some(expected) = self.check(target)? else { return Ok(Former::default()) };
        if expected.kind == Kind::Dir {
            remove_dir(target.at())?;
            return Ok(Former::default());
        }
        // Out of the way first, into history; then it is seen what it was.
        let near;
        let own_name = self.history_name(target.path);
        let own = At { dir: self.history.as_fd(), name: own_name.as_bytes() };
        let out = match self.rename_new(target.at(), own) {
            Ok(()) => own,
            Err(Errno::NOENT) => return Err(Refusal::Mismatch),
            Err(Errno::XDEV) => {
                near = format!("{TEMP_PREFIX}{}", self.unique());
                let near = At { dir: target.dir.as_fd(), name: near.as_bytes() };
                self.rename_new(target.at(), near).map_err(|error| match error {
                    Errno::NOENT => Refusal::Mismatch,
                    _ => failed("cannot remove it")(error),
                })?;
                near
            }
            Err(error) => return Err(failed("cannot remove it")(error)),
        };
        let found = out.lstat().map_err(failed("cannot look at it"))?;
        if !found.is_some_and(|found| is_same_moved(&expected, &found)) {
            return self.give_back(out, target);
        }
        let gone = if *target.displaced != Displaced::History {
            remove(out).map(|()| None)
        } else if std::ptr::eq(out.name, own.name) {
            Ok(Some(own_name.clone()))
        } else {
            self.retire(out, target.path).map(Some)
        };
        match gone {
            Ok(kept) => Ok(Former { kept, ..Former::default() }),
            Err(error) => {
                let refusal = failed("cannot remove it")(error);
                self.give_back(out, target)?;
                Err(refusal)
            }
        }
    }

    /// Puts back what was not what it seemed. If its name is taken meanwhile, it becomes a conflict copy.
    pub(crate) fn give_back(&self, out: At<'_>, target: &Target<'_>) -> Step<Former> {
        match self.rename_new(out, target.at()) {
            Ok(()) => Err(Refusal::Mismatch),
            Err(Errno::EXIST) => {
                let mtime_ns = out.lstat().ok().flatten().map_or(self.now_ns, |found| found.mtime_ns);
                match self.rename_aside(out, target, mtime_ns, None) {
                    Ok(aside) => Ok(Former { kept: None, aside: Some(aside), unseen: true }),
                    Err(error) => Err(self.strand(out, target.path, error)),
                }
            }
            Err(error) => Err(self.strand(out, target.path, error)),
        }
    }

    /// Renames something to the first free name of a conflict copy of the target.
    pub(crate) fn rename_aside(
        &self,
        out: At<'_>,
        target: &Target<'_>,
        mtime_ns: i64,
        first: Option<&RelPath>,
    ) -> Result<RelPath, Errno> {
        for number in 1..=COPIES_MAX {
            let path = match first {
                Some(first) if number == 1 => first.clone(),
                _ => copy_path(target.path, mtime_ns, target.by, number),
            };
            match self.rename_new(out, At { dir: target.dir.as_fd(), name: path.name() }) {
                Ok(()) => return Ok(path),
                Err(Errno::EXIST) => {}
                Err(error) => return Err(error),
            }
        }
        Err(Errno::EXIST)
    }

    /// Moves something into history. Returns its name there.
    pub(crate) fn retire(&self, out: At<'_>, path: &RelPath) -> Result<String, Errno> {
        match self.retire_by_rename(out, path) {
            Err(Errno::XDEV) => {}
            other => return other,
        }
        let name = self.history_name(path);
        let kept = At { dir: self.history.as_fd(), name: name.as_bytes() };
        copy_to(out, kept)?;
        if let Err(error) = remove(out) {
            remove(kept).ok();
            return Err(error);
        }
        Ok(name)
    }

    /// Renames something to a name in history that says where it lay, or is to lie.
    pub(crate) fn retire_by_rename(&self, out: At<'_>, path: &RelPath) -> Result<String, Errno> {
        loop {
            let name = self.history_name(path);
            match self.rename_new(out, At { dir: self.history.as_fd(), name: name.as_bytes() }) {
                Ok(()) => return Ok(name),
                Err(Errno::EXIST) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Says that a person's file could not be brought back to where it was, and where it lies: in history,
    /// if at all possible, where the next start finds it.
    fn strand(&self, out: At<'_>, path: &RelPath, error: Errno) -> Refusal {
        let lies = match self.retire_by_rename(out, path) {
            Ok(name) => format!(".kinfold/history/{name}"),
            Err(_) => Escaped(out.name).to_string(),
        };
        Refusal::Failed(
            write_problem(error),
            detail(&format!("a file could not be put back and lies in {lies}"), error),
        )
    }

    fn history_name(&self, path: &RelPath) -> String {
        leftover::name_of(self.now_ns, COUNTER.fetch_add(1, Ordering::Relaxed), path)
    }

    /// Renames to a name that is free; `EXIST` if it is not.
    pub(crate) fn rename_new(&self, from: At<'_>, to: At<'_>) -> Result<(), Errno> {
        let result = if self.plain_renames() {
            Err(Errno::INVAL)
        } else {
            renameat_with(from.dir, from.name, to.dir, to.name, RenameFlags::NOREPLACE)
        };
        match result {
            Err(error) if is_unsupported(error) => rename_new_by_link(from, to),
            other => other,
        }
    }

    pub(crate) fn exchange(&self, one: At<'_>, other: At<'_>) -> Result<(), Errno> {
        if self.plain_renames() {
            return Err(Errno::INVAL);
        }
        renameat_with(one.dir, one.name, other.dir, other.name, RenameFlags::EXCHANGE)
    }

    #[cfg(test)]
    fn plain_renames(&self) -> bool {
        self.faults.plain_renames
    }

    #[cfg(not(test))]
    fn plain_renames(&self) -> bool {
        false
    }

    /// Takes note that a directory has to be made durable.
    pub(crate) fn touch_dir(&mut self, dir: &Rc<OwnedFd>) -> Step<()> {
        if self.touched_last.as_ref().is_some_and(|last| Rc::ptr_eq(last, dir)) {
            return Ok(());
        }
        let dev = fstat(dir.as_fd()).map_err(failed("cannot look at its directory"))?.dev;
        self.touched_last = Some(dir.clone());
        let touched = self.touched.entry(dev).or_default();
        if !touched.many || touched.dirs.is_empty() {
            touched.dirs.push(dir.clone());
            touched.trim();
        }
        Ok(())
    }

    /// Takes note that a file's own data, or a directory's mode, has to be made durable.
    pub(crate) fn touch_file(&mut self, dev: u64, file: OwnedFd) {
        let touched = self.touched.entry(dev).or_default();
        if !touched.many {
            touched.files.push(file);
            touched.trim();
        }
    }

    /// Makes all that was done durable.
    pub(crate) fn settle(&mut self) -> Result<(), Errno> {
        self.touched_last = None;
        for touched in std::mem::take(&mut self.touched).into_values() {
            touched.settle()?;
        }
        fsync(&*self.staging)?;
        fsync(&*self.history)
    }
}

impl Touched {
    fn trim(&mut self) {
        if self.dirs.len() + self.files.len() > FLUSH_EACH_MAX {
            self.many = true;
            self.files.clear();
            self.dirs.truncate(1);
        }
    }

    fn settle(self) -> Result<(), Errno> {
        for file in &self.files {
            fsync(file)?;
        }
        for dir in &self.dirs {
            // The handles are `O_PATH`, which cannot be flushed. A directory that was removed since
            // has nothing to flush; that it is gone is in its parent.
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let dir = match openat(dir, c".", flags, Mode::empty()) {
                Ok(dir) => dir,
                Err(Errno::NOENT) => continue,
                Err(error) => return Err(error),
            };
            if self.many { retry(|| syncfs(&dir))? } else { fsync(&dir)? }
        }
        Ok(())
    }
}

/// Why something could not be put in place directly.
enum Trouble {
    /// The place lies on another file system.
    OtherFileSystem,
    /// The file system cannot exchange two things.
    NoExchange,
    Refused(Refusal),
}

impl Trouble {
    fn of(error: Errno) -> Self {
        match error {
            Errno::XDEV => Self::OtherFileSystem,
            Errno::EXIST => Self::Refused(Refusal::Mismatch),
            Errno::NOENT | Errno::NOTDIR => Self::Refused(Refusal::NoParent),
            _ => Self::Refused(failed("cannot rename it")(error)),
        }
    }

    fn of_keeping(error: Errno) -> Self {
        match error {
            Errno::NOENT => Self::Refused(Refusal::Mismatch),
            _ => Self::Refused(failed("cannot keep the former file")(error)),
        }
    }
}

impl From<Refusal> for Trouble {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

/// Returns whether two looks saw the same inode of the same kind.
pub(crate) fn is_same_file(one: &Stat, other: &Stat) -> bool {
    (one.kind, one.dev, one.ino) == (other.kind, other.dev, other.ino)
}

/// Returns whether a file is what it was before it was renamed, which changes the change time.
pub(crate) fn is_same_moved(before: &Stat, after: &Stat) -> bool {
    let known = |stat: &Stat| (stat.size, stat.mtime_ns, stat.mode);
    is_same_file(before, after) && (before.kind == Kind::Dir || known(before) == known(after))
}

/// Removes a file, a link or an empty directory.
pub(crate) fn remove(at: At<'_>) -> Result<(), Errno> {
    match unlinkat(at.dir, at.name, AtFlags::empty()) {
        Err(Errno::ISDIR) => unlinkat(at.dir, at.name, AtFlags::REMOVEDIR),
        other => other,
    }
}

/// Returns whether a directory is empty, as far as that can be seen.
fn is_empty_dir(at: At<'_>) -> bool {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let Ok(dir) = openat(at.dir, at.name, flags, Mode::empty()).and_then(Dir::read_from) else {
        return true;
    };
    let mut entries = dir.map_while(Result::ok);
    entries.all(|entry| matches!(entry.file_name().to_bytes(), b"." | b".."))
}

fn remove_dir(at: At<'_>) -> Step<()> {
    match unlinkat(at.dir, at.name, AtFlags::REMOVEDIR) {
        Ok(()) => Ok(()),
        Err(Errno::NOTEMPTY | Errno::EXIST) => Err(Refusal::NotEmpty),
        Err(Errno::NOENT | Errno::NOTDIR) => Err(Refusal::Mismatch),
        Err(error) => Err(failed("cannot remove the directory")(error)),
    }
}

/// Renames where the file system cannot be told to spare what lies at the new name.
fn rename_new_by_link(from: At<'_>, to: At<'_>) -> Result<(), Errno> {
    match linkat(from.dir, from.name, to.dir, to.name, AtFlags::empty()) {
        Ok(()) => unlinkat(from.dir, from.name, AtFlags::empty()),
        // Directories, and file systems without hard links.
        Err(Errno::PERM | Errno::OPNOTSUPP | Errno::MLINK | Errno::NOSYS) => {
            if to.lstat()?.is_some() {
                return Err(Errno::EXIST);
            }
            // RACE: what is put at this name after that look is replaced. Such file systems offer
            // nothing better.
            renameat(from.dir, from.name, to.dir, to.name)
        }
        Err(error) => Err(error),
    }
}

/// Copies a file, a link or an empty directory, with mode and time, durably, to a new name.
pub(crate) fn copy_to(from: At<'_>, to: At<'_>) -> Result<(), Errno> {
    let stat = from.lstat()?.ok_or(Errno::NOENT)?;
    match stat.kind {
        Kind::File => {
            let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
            let source = openat(from.dir, from.name, flags | OFlags::RDONLY, Mode::empty())?;
            let create = flags | OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL;
            let copy = openat(to.dir, to.name, create, Mode::from_raw_mode(0o600))?;
            let copied = copy_all(source.as_fd(), copy.as_fd()).and_then(|()| {
                fchmod(&copy, Mode::from_raw_mode(stat.mode.into()))?;
                futimens(&copy, &times(stat.mtime_ns))?;
                fsync(&copy)?;
                // A copy of a file that was written meanwhile is a copy of neither state.
                if is_same_moved(&stat, &fstat(source.as_fd())?) { Ok(()) } else { Err(Errno::BUSY) }
            });
            if copied.is_err() {
                remove(to).ok();
            }
            copied
        }
        Kind::Symlink => {
            symlinkat(readlinkat(from.dir, from.name, Vec::new())?, to.dir, to.name)?;
            // Not all file systems keep the times of links.
            utimensat(to.dir, to.name, &times(stat.mtime_ns), AtFlags::SYMLINK_NOFOLLOW).ok();
            Ok(())
        }
        Kind::Dir => {
            mkdirat(to.dir, to.name, Mode::from_raw_mode(0o700))?;
            let dir = openat(to.dir, to.name, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
            fchmod(&dir, Mode::from_raw_mode(stat.mode.into()))
        }
        Kind::Special => Err(Errno::OPNOTSUPP),
    }
}

/// Returns the times that set a modification time and leave the access time.
pub(crate) fn times(mtime_ns: i64) -> Timestamps {
    Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec {
            tv_sec: mtime_ns.div_euclid(1_000_000_000),
            tv_nsec: mtime_ns.rem_euclid(1_000_000_000) as _,
        },
    }
}

/// Sets mode and time of a file or directory that must be `expected`.
///
/// Returns its new stat, and a handle to make it durable with where there is one.
pub(crate) fn set_meta(at: At<'_>, expected: &Stat, mode: u16, mtime_ns: Option<i64>) -> Step<(Stat, Option<OwnedFd>)> {
    let flags = OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    // A file that we may not read can still be ours: then by way of the handle's name in /proc.
    let (file, readable) = match openat(at.dir, at.name, flags | OFlags::RDONLY, Mode::empty()) {
        Ok(file) => (file, true),
        Err(Errno::ACCESS) => {
            let file = openat(at.dir, at.name, flags | OFlags::PATH, Mode::empty());
            (file.map_err(failed("cannot open it"))?, false)
        }
        Err(error) if is_missing(error) => return Err(Refusal::Mismatch),
        Err(error) => return Err(failed("cannot open it")(error)),
    };
    let found = fstat(file.as_fd()).map_err(failed("cannot look at it"))?;
    let fits = if expected.kind == Kind::Dir { is_same_file(expected, &found) } else { *expected == found };
    if !fits {
        return Err(Refusal::Mismatch);
    }
    let mtime_ns = mtime_ns.filter(|wanted| *wanted != found.mtime_ns);
    let mode = Some(mode & 0o777).filter(|wanted| *wanted != found.mode);
    // RACE: bytes written between the look above and `futimens` get the time of the version before
    // them, and only their size or a later look at the content tells. The window is two system calls,
    // and none where the time is right already.
    set_by_handle(&file, readable, mode, mtime_ns).map_err(failed("cannot set its mode and time"))?;
    let after = fstat(file.as_fd()).map_err(failed("cannot look at it"))?;
    if found.kind == Kind::File && (after.size != found.size || after.mtime_ns != mtime_ns.unwrap_or(found.mtime_ns)) {
        return Err(Refusal::Mismatch);
    }
    Ok((after, readable.then_some(file)))
}

fn set_by_handle(file: &OwnedFd, readable: bool, mode: Option<u16>, mtime_ns: Option<i64>) -> Result<(), Errno> {
    use std::os::fd::AsRawFd;
    let name = format!("/proc/self/fd/{}", file.as_raw_fd());
    if let Some(mode) = mode.map(|mode| Mode::from_raw_mode(mode.into())) {
        if readable { fchmod(file, mode)? } else { chmodat(rustix::fs::CWD, &name, mode, AtFlags::empty())? }
    }
    if let Some(times) = mtime_ns.map(times) {
        if readable { futimens(file, &times)? } else { utimensat(rustix::fs::CWD, &name, &times, AtFlags::empty())? }
    }
    Ok(())
}
