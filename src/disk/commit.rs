//! Commits: complete things take their places, and what was there is kept.
//!
//! The order, for a batch: staged files get their mode and time and are made durable, together where
//! they are many; then, one item after the other, each path is looked at and the deed done; then the
//! directories are made durable. Only then the outcomes are returned, so that the index is never ahead
//! of the disk. An error while making things durable fails the items, it is never only logged.
//!
//! A crash in between leaves each path with the old thing or the new one, whole, and what was replaced
//! in history. How a thing leaves its place without anybody's edit being lost is told in `batch`.

use std::os::fd::AsFd;

use rustix::fs::{Mode, OFlags, fchmod, fsync, futimens, mkdirat, symlinkat};
use rustix::io::Errno;

use crate::disk::batch::{
    At, Batch, FLUSH_EACH_MAX, Former, Refusal, Step, Target, copy_to, failed, is_same_moved, remove, set_meta, times,
};
use crate::disk::probe::fstat;
use crate::disk::root::Root;
use crate::disk::staging::{open_own, stage_name};
use crate::engine::effect::{Action, CommitItem, CommitOutcome, Displaced, Expect, StageId};
use crate::model::path::RelPath;
use crate::model::problem::ProblemKind;
use crate::model::record::FileBody;
use crate::model::stat::{Kind, Stat};

/// Does the items in order, and returns what came of each, in the same order.
///
/// Staged files must be complete and let go of. `now_ns` names files in history.
///
/// `Done` means done and durable; what lies at the path was looked at right after the deed, so that any
/// edit that came later shows. The other outcomes mean that nothing was changed, but for one case: if
/// the disk fails while directories are made durable, all items that were done are `Failed`, and
/// whether they survive a power cut is for the next scan to find out.
pub fn commit(root: &Root, items: &[CommitItem], now_ns: i64) -> Vec<CommitOutcome> {
    match Batch::new(root, now_ns) {
        Ok(mut batch) => commit_in(&mut batch, items),
        Err(Refusal::Failed(kind, detail)) => vec![CommitOutcome::Failed(kind, detail); items.len()],
        Err(_) => vec![CommitOutcome::Mismatch; items.len()],
    }
}

pub(crate) fn commit_in(batch: &mut Batch<'_>, items: &[CommitItem]) -> Vec<CommitOutcome> {
    let prepared = prepare(batch, items);
    let mut outcomes: Vec<CommitOutcome> =
        items.iter().zip(prepared).map(|(item, staged)| step(batch, item, staged).unwrap_or_else(Into::into)).collect();
    let is_done = |outcome: &CommitOutcome| matches!(outcome, CommitOutcome::Done { .. });
    if outcomes.iter().any(is_done)
        && let Err(error) = batch.settle()
    {
        let failure: CommitOutcome = failed("cannot make it durable")(error).into();
        outcomes.iter_mut().filter(|outcome| is_done(outcome)).for_each(|outcome| *outcome = failure.clone());
    }
    outcomes
}

/// Gives the staged files of a batch their mode and time, and makes them durable. Returns what each is.
fn prepare(batch: &Batch<'_>, items: &[CommitItem]) -> Vec<Step<Option<Stat>>> {
    let places = items.iter().filter(|item| matches!(item.action, Action::Place { .. })).count();
    let each = places <= FLUSH_EACH_MAX;
    let mut prepared: Vec<Step<Option<Stat>>> = items
        .iter()
        .map(|item| match &item.action {
            Action::Place { stage, body } => prepare_staged(batch, *stage, body, each).map(Some),
            _ => Ok(None),
        })
        .collect();
    if !each && let Err(error) = batch.root.flush() {
        for staged in prepared.iter_mut().filter(|staged| matches!(staged, Ok(Some(_)))) {
            *staged = Err(failed("cannot make the staged files durable")(error));
        }
    }
    prepared
}

fn prepare_staged(batch: &Batch<'_>, stage: StageId, body: &FileBody, flush: bool) -> Step<Stat> {
    let name = stage_name(stage);
    let file = open_own(batch.staging.as_fd(), &name, OFlags::RDONLY).map_err(failed("cannot open the staged file"))?;
    let prepare = || {
        fchmod(&file, Mode::from_raw_mode(u32::from(body.mode & 0o777)))?;
        futimens(&file, &times(body.mtime_ns))?;
        if flush {
            fsync(&file)?;
        }
        fstat(file.as_fd())
    };
    let stat = prepare().map_err(failed("cannot make the staged file durable"))?;
    if stat.kind != Kind::File || stat.size != body.size {
        let detail = format!("the staged file has {} bytes, not {}", stat.size, body.size);
        return Err(Refusal::Failed(ProblemKind::Unwritable, detail));
    }
    Ok(stat)
}

fn step(batch: &mut Batch<'_>, item: &CommitItem, staged: Step<Option<Stat>>) -> Step<CommitOutcome> {
    let staged = staged?;
    let dir = batch.parent(&item.path)?;
    if let Some(expected) = item.dir_dev
        && fstat(dir.as_fd()).map_err(failed("cannot look at its directory"))?.dev != expected
    {
        return Err(Refusal::OtherFileSystem);
    }
    let target = Target { path: &item.path, dir, expect: item.expect, displaced: &item.displaced, by: item.by };
    batch.touch_dir(&target.dir)?;
    // A handle goes with its directory when that is renamed or removed; look it up again after that.
    if !matches!(item.action, Action::Place { .. } | Action::SetMeta { .. }) {
        batch.parents.forget();
    }
    match &item.action {
        Action::Place { stage, .. } => {
            let staged = staged.ok_or(Refusal::Mismatch)?;
            place(batch, &target, *stage, &staged)
        }
        Action::Move { from, stat, body } => move_to(batch, &target, from, stat, body),
        Action::MakeDir { mode } => make_dir(batch, &target, *mode),
        Action::MakeSymlink { target: points_to } => make_symlink(batch, &target, points_to),
        Action::SetMeta { mode, mtime_ns } => {
            let Expect::Stat(expected) = target.expect else { return Err(Refusal::Mismatch) };
            let stat = apply_meta(batch, target.at(), &expected, *mode, *mtime_ns)?;
            Ok(done(&target, Some(stat), Former::default()))
        }
        Action::Remove => {
            let former = batch.take(&target)?;
            // Something lies there only if a person put it there at that moment.
            let found = if former.aside.is_some() { look(&target)? } else { None };
            Ok(done(&target, found, former))
        }
    }
}

fn place(batch: &Batch<'_>, target: &Target<'_>, stage: StageId, staged: &Stat) -> Step<CommitOutcome> {
    let name = stage_name(stage);
    let former = batch.put(At { dir: batch.staging.as_fd(), name: name.as_bytes() }, target)?;
    Ok(done(target, stat_of_placed(target, Some(*staged))?, former))
}

fn make_symlink(batch: &Batch<'_>, target: &Target<'_>, points_to: &[u8]) -> Step<CommitOutcome> {
    let name = batch.temp_name();
    let staging = batch.staging.clone();
    let from = At { dir: staging.as_fd(), name: name.as_bytes() };
    symlinkat(points_to, from.dir, from.name).map_err(failed("cannot make the link"))?;
    let made = from.lstat().map_err(failed("cannot look at it"))?;
    let former = put_made(batch, from, target)?;
    Ok(done(target, stat_of_placed(target, made)?, former))
}

fn make_dir(batch: &mut Batch<'_>, target: &Target<'_>, mode: u16) -> Step<CommitOutcome> {
    if let Expect::Stat(expected) = &target.expect
        && expected.kind == Kind::Dir
    {
        let stat = apply_meta(batch, target.at(), expected, mode, None)?;
        return Ok(done(target, Some(stat), Former::default()));
    }
    // The mode comes last: a directory that we may not write into cannot be renamed either.
    let owner_only = Mode::from_raw_mode(0o700);
    let former = if target.expect == Expect::Absent {
        batch.check(target)?;
        // It mostly gets its mode right away, for a crash might come before it is set.
        let first = Mode::from_raw_mode(u32::from(mode & 0o777) | 0o700);
        mkdirat(target.at().dir, target.at().name, first).map_err(|error| match error {
            Errno::EXIST => Refusal::Mismatch,
            Errno::NOENT => Refusal::NoParent,
            _ => failed("cannot make the directory")(error),
        })?;
        Former::default()
    } else {
        let name = batch.temp_name();
        let staging = batch.staging.clone();
        let from = At { dir: staging.as_fd(), name: name.as_bytes() };
        mkdirat(from.dir, from.name, owner_only).map_err(failed("cannot make the directory"))?;
        put_made(batch, from, target)?
    };
    match look(target)? {
        Some(made) if made.kind == Kind::Dir => {
            let stat = apply_meta(batch, target.at(), &made, mode, None)?;
            Ok(done(target, Some(stat), former))
        }
        other => Ok(done(target, other, former)),
    }
}

/// Puts a directory or link that was made in the staging area in its place.
fn put_made(batch: &Batch<'_>, from: At<'_>, target: &Target<'_>) -> Step<Former> {
    batch.put(from, target).inspect_err(|_| {
        // What stays behind is swept away some day.
        remove(from).ok();
    })
}

fn move_to(
    batch: &mut Batch<'_>,
    target: &Target<'_>,
    from: &RelPath,
    stat: &Stat,
    body: &FileBody,
) -> Step<CommitOutcome> {
    let from_dir = batch.parent(from).map_err(|refusal| match refusal {
        // The file to move is gone with its directory; the target's own parent is there.
        Refusal::NoParent => Refusal::Mismatch,
        other => other,
    })?;
    batch.parents.forget();
    batch.touch_dir(&from_dir)?;
    let source = At { dir: from_dir.as_fd(), name: from.name() };
    if stat.kind != Kind::File || source.lstat().map_err(failed("cannot look at it"))? != Some(*stat) {
        return Err(Refusal::Mismatch);
    }
    let moving = Moving {
        from: Target {
            path: from,
            dir: from_dir.clone(),
            expect: Expect::Stat(*stat),
            displaced: &Displaced::Drop,
            by: target.by,
        },
        stat,
    };
    let former = moving.to(batch, target)?;
    let moved = target.at().lstat().map_err(failed("cannot look at it"))?;
    match moved {
        Some(moved) if moved.kind == Kind::File && moved.size == stat.size && moved.mtime_ns == stat.mtime_ns => {
            // A file that was edited at this moment keeps its own time; its stat will tell.
            match apply_meta(batch, target.at(), &moved, body.mode, Some(body.mtime_ns)) {
                Ok(after) => Ok(done(target, Some(after), former)),
                Err(Refusal::Mismatch) => Ok(done(target, Some(*stat), former)),
                Err(refusal) => Err(refusal),
            }
        }
        _ => Ok(done(target, Some(*stat), former)),
    }
}

/// A file of the folder that is being moved.
struct Moving<'a> {
    from: Target<'a>,
    stat: &'a Stat,
}

impl Moving<'_> {
    fn to(&self, batch: &Batch<'_>, target: &Target<'_>) -> Step<Former> {
        match target.expect {
            Expect::Stat(expected) if expected.kind != Kind::Dir => self.over(batch, target, &expected),
            _ => self.to_free(batch, target),
        }
    }

    /// Moves to a name where nothing lies, or an empty directory.
    fn to_free(&self, batch: &Batch<'_>, target: &Target<'_>) -> Step<Former> {
        if !batch.put_new(self.from.at(), target)? {
            let free = Target { dir: target.dir.clone(), expect: Expect::Absent, ..*target };
            return self.by_copy(batch, &free);
        }
        if self.arrived(target)? {
            return Ok(Former::default());
        }
        // Somebody changed it at that moment; the change belongs where it was made.
        batch.give_back(target.at(), &self.from)?;
        Err(Refusal::Mismatch)
    }

    /// Moves over a file or link: they change places, and what came out goes where it belongs.
    fn over(&self, batch: &Batch<'_>, target: &Target<'_>, expected: &Stat) -> Step<Former> {
        batch.check(target)?;
        let source = self.from.at();
        // By way of history, as all that replaces something: see `batch`.
        let name = match batch.retire_by_rename(source, target.path) {
            Ok(name) => name,
            Err(Errno::NOENT) => return Err(Refusal::Mismatch),
            Err(_) => return self.by_copy(batch, target),
        };
        let out = At { dir: batch.history.as_fd(), name: name.as_bytes() };
        let moved = out.lstat().map_err(failed("cannot look at it"))?;
        let exchanged = match moved.is_some_and(|moved| is_same_moved(self.stat, &moved)) {
            true => batch.exchange(out, target.at()),
            // Somebody changed it at that moment; the change belongs where it was made.
            false => Err(Errno::NOENT),
        };
        if let Err(error) = exchanged {
            batch.give_back(out, &self.from).err();
            return match error {
                Errno::NOENT => Err(Refusal::Mismatch),
                // Another file system, or one without exchange. Its way out and back shows in its times.
                _ => match source.lstat().map_err(failed("cannot look at it"))? {
                    Some(stat) if is_same_moved(self.stat, &stat) => {
                        let from = Target { dir: self.from.dir.clone(), expect: Expect::Stat(stat), ..self.from };
                        Moving { from, stat: &stat }.by_copy(batch, target)
                    }
                    _ => Err(Refusal::Mismatch),
                },
            };
        }
        batch.see_to_former(out, target, expected, Some(&name)).map_err(|error| {
            let refusal = failed("cannot put the former file aside")(error);
            match batch.exchange(out, target.at()) {
                Ok(()) => match batch.give_back(out, &self.from) {
                    Err(Refusal::Mismatch) | Ok(_) => refusal,
                    Err(worse) => worse,
                },
                Err(error) => failed("cannot move it back")(error),
            }
        })
    }

    /// Moves by putting a copy in place, then taking the file away.
    fn by_copy(&self, batch: &Batch<'_>, target: &Target<'_>) -> Step<Former> {
        let name = batch.temp_name();
        let staging = batch.staging.clone();
        let draft = At { dir: staging.as_fd(), name: name.as_bytes() };
        copy_to(self.from.at(), draft).map_err(failed("cannot copy it"))?;
        let copied = draft.lstat().map_err(failed("cannot look at it"))?;
        let known = |stat: &Stat| (stat.kind, stat.size, stat.mtime_ns);
        let put = match copied {
            Some(copied) if known(&copied) == known(self.stat) => batch.put(draft, target),
            _ => Err(Refusal::Mismatch),
        };
        match put {
            Ok(former) => {
                // If it cannot be taken away, or was changed, it stays, and the next scan says so.
                batch.take(&self.from).ok();
                Ok(former)
            }
            Err(refusal) => {
                remove(draft).ok();
                Err(refusal)
            }
        }
    }

    fn arrived(&self, target: &Target<'_>) -> Step<bool> {
        let found = look(target)?;
        Ok(found.is_some_and(|found| is_same_moved(self.stat, &found)))
    }
}

fn apply_meta(batch: &mut Batch<'_>, at: At<'_>, expected: &Stat, mode: u16, mtime_ns: Option<i64>) -> Step<Stat> {
    let (stat, file) = set_meta(at, expected, mode, mtime_ns)?;
    if let Some(file) = file {
        batch.touch_file(stat.dev, file);
    }
    Ok(stat)
}

/// Returns the stat of what was just put in its place.
///
/// If a person has edited it since, that must show later: then it is what it was before it got there,
/// which is never what lies there now.
fn stat_of_placed(target: &Target<'_>, placed: Option<Stat>) -> Step<Option<Stat>> {
    let found = look(target)?;
    let is_ours = |found: &Stat| {
        placed.is_some_and(|placed| {
            let known = |stat: &Stat| (stat.kind, stat.mode, stat.mtime_ns);
            // Beyond a mount point it is a copy with another inode.
            known(found) == known(&placed) && (placed.kind != Kind::File || found.size == placed.size)
        })
    };
    Ok(match found {
        Some(found) if found.kind == Kind::Dir || is_ours(&found) => Some(found),
        _ => placed,
    })
}

fn look(target: &Target<'_>) -> Step<Option<Stat>> {
    target.at().lstat().map_err(failed("cannot look at it"))
}

pub(crate) fn done(target: &Target<'_>, stat: Option<Stat>, former: Former) -> CommitOutcome {
    // What became a conflict copy may be gone again already: then there is nothing to tell of it.
    let look = |copy: RelPath| {
        let found = At { dir: target.dir.as_fd(), name: copy.name() }.lstat().ok().flatten();
        found.map(|stat| (copy, stat))
    };
    CommitOutcome::Done { stat, kept: former.kept, aside: former.aside.and_then(look), unseen: former.unseen }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::testing::{Folder, path};
    use crate::engine::chunker::chunk_all;
    use crate::engine::conflict::is_copy;
    use crate::model::id::DeviceTag;
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::rc::Rc;
    use std::sync::atomic::{AtomicBool, Ordering};

    const BY: DeviceTag = DeviceTag([1, 2, 3, 4, 5]);
    const MTIME: i64 = 1_600_000_000_123_456_789;

    /// Stages some bytes as a transfer would, and returns the action that places them.
    fn staged(folder: &Folder, bytes: &[u8]) -> Action {
        let stage = StageId { content: chunk_all(bytes).content_id(), copy: 0 };
        folder.write(&format!(".kinfold/staging/{}", stage_name(stage)), bytes);
        let body = FileBody { mode: 0o640, mtime_ns: MTIME, size: bytes.len() as u64, content: stage.content };
        Action::Place { stage, body }
    }

    fn item(at: &str, expect: Expect, action: Action) -> CommitItem {
        CommitItem { path: path(at), expect, action, displaced: Displaced::History, by: BY, dir_dev: None }
    }

    fn one(folder: &Folder, item: CommitItem) -> CommitOutcome {
        commit(&folder.root, &[item], 42).remove(0)
    }

    fn expect(folder: &Folder, at: &str) -> Expect {
        Expect::Stat(folder.stat(at))
    }

    #[track_caller]
    fn assert_done(outcome: CommitOutcome) -> (Option<Stat>, Option<String>, Option<RelPath>) {
        match outcome {
            CommitOutcome::Done { stat, kept, aside, .. } => (stat, kept, aside.map(|(copy, _)| copy)),
            other => panic!("{other:?}"),
        }
    }

    fn kept_bytes(folder: &Folder, kept: &str) -> Vec<u8> {
        folder.read(&format!(".kinfold/history/{kept}"))
    }

    fn assert_tidy(folder: &Folder) {
        assert_eq!(folder.names(".kinfold/staging"), Vec::<String>::new());
        let own: Vec<_> = folder.names("").into_iter().filter(|name| name.starts_with(".kinfold-")).collect();
        assert_eq!(own, Vec::<String>::new());
    }

    #[test]
    fn a_new_file_takes_its_place_with_mode_and_time() {
        let folder = Folder::new();
        let place = staged(&folder, b"new");
        let (stat, kept, aside) = assert_done(one(&folder, item("f", Expect::Absent, place)));
        assert_eq!(stat, Some(folder.stat("f")));
        let stat = stat.unwrap();
        assert_eq!((stat.mode, stat.mtime_ns, stat.size), (0o640, MTIME, 3));
        assert_eq!((kept, aside), (None, None));
        assert_eq!(folder.read("f"), b"new");
        assert_tidy(&folder);
    }

    #[test]
    fn what_is_replaced_goes_to_history() {
        let folder = Folder::new();
        folder.write("d/f.txt", b"old");
        let place = staged(&folder, b"new");
        let was = expect(&folder, "d/f.txt");
        let (stat, kept, _) = assert_done(one(&folder, item("d/f.txt", was, place)));
        assert_eq!(stat, Some(folder.stat("d/f.txt")));
        assert_eq!(folder.read("d/f.txt"), b"new");
        let kept = kept.unwrap();
        assert_eq!(crate::disk::leftover::origin(&kept), Some((42, path("d/f.txt"))), "{kept}");
        assert_eq!(kept_bytes(&folder, &kept), b"old");
        assert_tidy(&folder);
    }

    #[test]
    fn what_is_not_kept_is_gone() {
        let folder = Folder::new();
        folder.write("f", b"old");
        folder.write("g", b"old");
        let place = staged(&folder, b"new");
        let mut items = [item("f", expect(&folder, "f"), place), item("g", expect(&folder, "g"), Action::Remove)];
        items.iter_mut().for_each(|item| item.displaced = Displaced::Drop);
        for outcome in commit(&folder.root, &items, 1) {
            assert_eq!(assert_done(outcome).1, None);
        }
        assert_eq!(folder.names(".kinfold/history"), Vec::<String>::new());
        assert_eq!(folder.probe("g"), None);
        assert_tidy(&folder);
    }

    #[test]
    fn nothing_is_touched_that_is_not_what_was_expected() {
        let folder = Folder::new();
        folder.write("f", b"seen");
        folder.write("other", b"other");
        let seen = folder.stat("f");
        let changed = Expect::Stat(Stat { mtime_ns: seen.mtime_ns - 1, ..seen });
        let touched = Expect::Stat(Stat { ctime_ns: seen.ctime_ns - 1, ..seen });
        let body = FileBody { mode: 0o600, mtime_ns: 0, size: 5, content: chunk_all(b"other").content_id() };
        let other = folder.stat("other");
        let actions = [
            staged(&folder, b"new"),
            Action::Move { from: path("other"), stat: other, body },
            Action::MakeDir { mode: 0o755 },
            Action::MakeSymlink { target: b"t"[..].into() },
            Action::SetMeta { mode: 0o600, mtime_ns: Some(1) },
            Action::Remove,
        ];
        for action in actions {
            for wrong in [Expect::Absent, changed, touched] {
                let outcome = one(&folder, item("f", wrong, action.clone()));
                assert_eq!(outcome, CommitOutcome::Mismatch, "{action:?} where {wrong:?}");
            }
            if !matches!(action, Action::Remove) {
                let outcome = one(&folder, item("nothing", Expect::Stat(seen), action.clone()));
                assert_eq!(outcome, CommitOutcome::Mismatch, "{action:?}");
            }
            let outcome = one(&folder, item("no/parent", Expect::Absent, action.clone()));
            assert_eq!(outcome, CommitOutcome::NoParent, "{action:?}");
            let outcome = one(&folder, item("f/below", Expect::Absent, action.clone()));
            assert_eq!(outcome, CommitOutcome::NoParent, "{action:?}");
        }
        assert_eq!((folder.stat("f"), folder.stat("other")), (seen, other));
        assert_eq!(folder.names(""), [".kinfold", "f", "other"]);
        assert_eq!(folder.names(".kinfold/history"), Vec::<String>::new());
    }

    #[test]
    fn a_parent_that_is_a_link_is_no_parent() {
        let folder = Folder::new();
        let elsewhere = tempfile::tempdir().unwrap();
        symlink(elsewhere.path(), folder.at("link")).unwrap();
        let place = staged(&folder, b"new");
        assert_eq!(one(&folder, item("link/f", Expect::Absent, place)), CommitOutcome::NoParent);
        assert_eq!(fs::read_dir(elsewhere.path()).unwrap().count(), 0);
    }

    #[test]
    fn an_incomplete_staged_file_is_refused() {
        let folder = Folder::new();
        let Action::Place { stage, body } = staged(&folder, b"new") else { unreachable!() };
        let longer = Action::Place { stage, body: FileBody { size: 4, ..body } };
        assert!(matches!(one(&folder, item("f", Expect::Absent, longer)), CommitOutcome::Failed(..)));
        let missing = Action::Place { stage: StageId { copy: 1, ..stage }, body };
        assert!(matches!(one(&folder, item("f", Expect::Absent, missing)), CommitOutcome::Failed(..)));
        assert_eq!(folder.probe("f"), None);
    }

    #[test]
    fn directories_are_made_removed_and_replaced() {
        let folder = Folder::new();
        let (stat, ..) = assert_done(one(&folder, item("d", Expect::Absent, Action::MakeDir { mode: 0o555 })));
        assert_eq!((stat.unwrap().kind, stat.unwrap().mode), (Kind::Dir, 0o555));
        assert_eq!(stat, Some(folder.stat("d")));
        // Of a directory only the inode counts: files come and go in it.
        let known = expect(&folder, "d");
        folder.write("d/f", b"x");
        assert_eq!(one(&folder, item("d", known, Action::Remove)), CommitOutcome::NotEmpty);
        let place = staged(&folder, b"a file");
        assert_eq!(one(&folder, item("d", known, place.clone())), CommitOutcome::NotEmpty);
        assert_done(one(&folder, item("d/f", expect(&folder, "d/f"), Action::Remove)));
        assert_done(one(&folder, item("d", known, place)));
        assert_eq!(folder.read("d"), b"a file");
        let (stat, kept, _) =
            assert_done(one(&folder, item("d", expect(&folder, "d"), Action::MakeDir { mode: 0o750 })));
        assert_eq!((stat, stat.unwrap().mode), (Some(folder.stat("d")), 0o750));
        assert_eq!(kept_bytes(&folder, &kept.unwrap()), b"a file");
        let (stat, ..) = assert_done(one(&folder, item("d", expect(&folder, "d"), Action::MakeDir { mode: 0o700 })));
        assert_eq!(stat.unwrap().mode, 0o700);
        assert_eq!(assert_done(one(&folder, item("d", expect(&folder, "d"), Action::Remove))), (None, None, None));
        assert_eq!(folder.probe("d"), None);
        assert_tidy(&folder);
    }

    #[test]
    fn links_are_made_replaced_and_kept() {
        let folder = Folder::new();
        let link = |to: &str| Action::MakeSymlink { target: to.as_bytes().into() };
        let (stat, ..) = assert_done(one(&folder, item("l", Expect::Absent, link("one"))));
        assert_eq!(stat, Some(folder.stat("l")));
        let (_, kept, _) = assert_done(one(&folder, item("l", expect(&folder, "l"), link("two"))));
        assert_eq!(fs::read_link(folder.at("l")).unwrap().to_str(), Some("two"));
        let kept = folder.at(&format!(".kinfold/history/{}", kept.unwrap()));
        assert_eq!(fs::read_link(kept).unwrap().to_str(), Some("one"));
        let place = staged(&folder, b"a file");
        assert_done(one(&folder, item("l", expect(&folder, "l"), place)));
        assert_eq!(folder.read("l"), b"a file");
        fs::create_dir(folder.at("d")).unwrap();
        assert_done(one(&folder, item("d", expect(&folder, "d"), link("three"))));
        assert_eq!(fs::read_link(folder.at("d")).unwrap().to_str(), Some("three"));
        assert_done(one(&folder, item("d", expect(&folder, "d"), Action::Remove)));
        assert_eq!(folder.probe("d"), None);
        assert_tidy(&folder);
    }

    #[test]
    fn a_moved_file_keeps_its_inode() {
        let folder = Folder::new();
        folder.write("a/from", b"content");
        folder.write("b/over", b"former");
        for (to, kept) in [("b/free", None), ("b/over", Some(&b"former"[..]))] {
            folder.write("a/from", b"content");
            let stat = folder.stat("a/from");
            let body = FileBody { mode: 0o604, mtime_ns: MTIME, size: 7, content: chunk_all(b"content").content_id() };
            let action = Action::Move { from: path("a/from"), stat, body };
            let was = if kept.is_some() { expect(&folder, to) } else { Expect::Absent };
            let (after, name, _) = assert_done(one(&folder, item(to, was, action)));
            let after = after.unwrap();
            assert_eq!(after, folder.stat(to));
            assert_eq!((after.ino, after.mode, after.mtime_ns), (stat.ino, 0o604, MTIME));
            assert_eq!(folder.probe("a/from"), None);
            assert_eq!(name.map(|name| kept_bytes(&folder, &name)).as_deref(), kept);
        }
        assert_tidy(&folder);
    }

    #[test]
    fn a_file_to_move_that_changed_stays() {
        let folder = Folder::new();
        folder.write("from", b"content");
        let stat = folder.stat("from");
        folder.write("from", b"edited!");
        let body = FileBody { mode: 0o600, mtime_ns: MTIME, size: 7, content: chunk_all(b"content").content_id() };
        for from in ["from", "missing", "no/parent"] {
            let action = Action::Move { from: path(from), stat, body };
            assert_eq!(one(&folder, item("to", Expect::Absent, action)), CommitOutcome::Mismatch);
        }
        assert_eq!(folder.names(""), [".kinfold", "from"]);
    }

    #[test]
    fn mode_and_time_are_set_and_nothing_else() {
        let folder = Folder::new();
        folder.write("f", b"content");
        let action = Action::SetMeta { mode: 0o604, mtime_ns: Some(-1_500_000_000) };
        let (stat, ..) = assert_done(one(&folder, item("f", expect(&folder, "f"), action)));
        assert_eq!(stat, Some(folder.stat("f")));
        assert_eq!((stat.unwrap().mode, stat.unwrap().mtime_ns), (0o604, -1_500_000_000));
        assert_eq!(folder.read("f"), b"content");
        let action = Action::SetMeta { mode: 0o600, mtime_ns: None };
        let (stat, ..) = assert_done(one(&folder, item("f", expect(&folder, "f"), action)));
        assert_eq!((stat.unwrap().mode, stat.unwrap().mtime_ns), (0o600, -1_500_000_000));
        fs::create_dir(folder.at("d")).unwrap();
        let action = Action::SetMeta { mode: 0o711, mtime_ns: None };
        let (stat, ..) = assert_done(one(&folder, item("d", expect(&folder, "d"), action)));
        assert_eq!(stat.unwrap().mode, 0o711);
    }

    #[test]
    fn a_losing_version_becomes_a_copy_under_the_first_free_name() {
        let folder = Folder::new();
        let mut copies = Vec::new();
        for n in 0..3 {
            folder.write("f.txt", b"mine");
            let file = fs::File::options().write(true).open(folder.at("f.txt")).unwrap();
            rustix::fs::futimens(&file, &times(MTIME)).unwrap();
            let to = crate::engine::conflict::copy_path(&path("f.txt"), MTIME, BY, 1);
            let action = staged(&folder, format!("theirs {n}").as_bytes());
            let mut item = item("f.txt", expect(&folder, "f.txt"), action);
            item.displaced = Displaced::Copy(to);
            match one(&folder, item) {
                CommitOutcome::Done { kept: None, aside: Some((copy, stat)), unseen: false, .. } => {
                    assert_eq!(stat, folder.stat(&copy.to_string()));
                    copies.push(copy);
                }
                other => panic!("{other:?}"),
            }
            assert_eq!(folder.read("f.txt"), format!("theirs {n}").as_bytes());
        }
        copies.dedup();
        assert_eq!(copies.len(), 3);
        for copy in copies {
            assert!(is_copy(&copy));
            assert_eq!(fs::read(folder.root.path().join(copy.as_path())).unwrap(), b"mine");
        }
    }

    #[test]
    fn steps_of_a_batch_build_on_each_other() {
        let folder = Folder::new();
        folder.write("old/f", b"x");
        let items = [
            item("old/f", expect(&folder, "old/f"), Action::Remove),
            item("old", expect(&folder, "old"), Action::Remove),
            item("old", Expect::Absent, Action::MakeDir { mode: 0o755 }),
            item("old/f", Expect::Absent, staged(&folder, b"again")),
            item("old/deep", Expect::Absent, Action::MakeDir { mode: 0o755 }),
            item("old/deep/g", Expect::Absent, staged(&folder, b"deep")),
        ];
        commit(&folder.root, &items, 1).into_iter().for_each(|outcome| {
            assert_done(outcome);
        });
        assert_eq!(folder.read("old/f"), b"again");
        assert_eq!(folder.read("old/deep/g"), b"deep");
    }

    #[test]
    fn many_files_share_one_flush() {
        let folder = Folder::new();
        let items: Vec<_> = (0..100u8)
            .map(|n| {
                fs::create_dir_all(folder.at(&format!("d{}", n % 20))).unwrap();
                item(&format!("d{}/f{n}", n % 20), Expect::Absent, staged(&folder, &[n; 10]))
            })
            .collect();
        for (outcome, item) in commit(&folder.root, &items, 1).into_iter().zip(&items) {
            assert_eq!(assert_done(outcome).0, Some(folder.stat_of(&item.path)));
        }
        assert_tidy(&folder);
    }

    #[test]
    fn the_name_never_vanishes_while_it_is_replaced() {
        let folder = Folder::new();
        folder.write("f", b"0");
        let stop = AtomicBool::new(false);
        std::thread::scope(|threads| {
            let at = folder.at("f");
            let stop = &stop;
            let watcher = threads.spawn(move || {
                let mut looks = 0u32;
                while !stop.load(Ordering::Relaxed) {
                    assert!(fs::symlink_metadata(&at).is_ok(), "the name vanished after {looks} looks");
                    looks += 1;
                }
                looks
            });
            for n in 0..200u8 {
                let place = staged(&folder, &[n]);
                assert_done(one(&folder, item("f", expect(&folder, "f"), place)));
            }
            stop.store(true, Ordering::Relaxed);
            assert!(watcher.join().unwrap() > 200);
        });
        assert_eq!(folder.names(".kinfold/history").len(), 200);
    }

    /// Does one item while something happens between the look and the deed.
    fn one_disturbed(folder: &Folder, item: CommitItem, deed: impl Fn(&Folder) + Clone + 'static) -> CommitOutcome {
        let mut batch = Batch::new(&folder.root, 42).ok().unwrap();
        let at = folder.root.path().to_path_buf();
        let done = AtomicBool::new(false);
        batch.faults.between = Some(Box::new(move || {
            if !done.swap(true, Ordering::Relaxed) {
                deed(&Folder::opened(&at));
            }
        }));
        commit_in(&mut batch, &[item]).remove(0)
    }

    #[test]
    fn an_edit_that_nobody_saw_becomes_a_conflict_copy() {
        // Saved by writing, and saved by renaming over, as editors do.
        let edits: [fn(&Folder); 2] = [
            |folder| folder.write("f.txt", b"unseen edit"),
            |folder| {
                folder.write("draft", b"unseen edit");
                fs::rename(folder.at("draft"), folder.at("f.txt")).unwrap();
            },
        ];
        for edit in edits {
            let folder = Folder::new();
            folder.write("f.txt", b"seen");
            let place = staged(&folder, b"theirs");
            let outcome = one_disturbed(&folder, item("f.txt", expect(&folder, "f.txt"), place), edit);
            let (stat, kept, aside) = assert_done(outcome);
            assert_eq!((stat, kept), (Some(folder.stat("f.txt")), None));
            assert_eq!(folder.read("f.txt"), b"theirs");
            let aside = aside.unwrap();
            assert!(is_copy(&aside), "{aside}");
            assert_eq!(fs::read(folder.root.path().join(aside.as_path())).unwrap(), b"unseen edit");
            assert_tidy(&folder);
        }
    }

    #[test]
    fn an_edit_that_nobody_saw_is_neither_removed_nor_replaced_nor_given_a_time() {
        for displaced in [Displaced::History, Displaced::Drop, Displaced::Copy(path("copy"))] {
            for action in
                [Action::Remove, Action::MakeDir { mode: 0o700 }, Action::SetMeta { mode: 0o600, mtime_ns: Some(1) }]
            {
                let folder = Folder::new();
                folder.write("f", b"seen");
                let mut item = item("f", expect(&folder, "f"), action.clone());
                item.displaced = displaced.clone();
                let outcome = one_disturbed(&folder, item, |folder| folder.write("f", b"unseen edit"));
                let lies = match &outcome {
                    CommitOutcome::Done { aside: Some((aside, _)), unseen: true, .. } => aside.clone(),
                    // Not disturbed where there is no look before the deed.
                    CommitOutcome::Done { aside: None, .. } if matches!(action, Action::SetMeta { .. }) => continue,
                    _ => path("f"),
                };
                assert_eq!(fs::read(folder.root.path().join(lies.as_path())).unwrap(), b"unseen edit", "{action:?}");
                assert_tidy(&folder);
            }
        }
    }

    #[test]
    fn what_appears_at_a_free_name_stays() {
        for action in [
            staged(&Folder::new(), b"x"),
            Action::MakeDir { mode: 0o700 },
            Action::MakeSymlink { target: b"t"[..].into() },
        ] {
            let folder = Folder::new();
            if let Action::Place { .. } = action {
                staged(&folder, b"x");
            }
            let outcome =
                one_disturbed(&folder, item("f", Expect::Absent, action), |folder| folder.write("f", b"appeared"));
            assert_eq!(outcome, CommitOutcome::Mismatch);
            assert_eq!(folder.read("f"), b"appeared");
        }
    }

    #[test]
    fn what_vanishes_before_it_is_replaced_is_a_mismatch() {
        let folder = Folder::new();
        folder.write("f", b"seen");
        let place = staged(&folder, b"theirs");
        let outcome = one_disturbed(&folder, item("f", expect(&folder, "f"), place), |folder| {
            fs::remove_file(folder.at("f")).unwrap();
        });
        assert_eq!(outcome, CommitOutcome::Mismatch);
        assert_eq!(folder.probe("f"), None);
    }

    #[test]
    fn a_move_gives_way_to_an_edit_at_either_end() {
        let body = FileBody { mode: 0o600, mtime_ns: MTIME, size: 4, content: chunk_all(b"from").content_id() };
        for over in [false, true] {
            let folder = Folder::new();
            folder.write("from", b"from");
            let mut was = Expect::Absent;
            if over {
                folder.write("to", b"to");
                was = expect(&folder, "to");
            }
            let action = Action::Move { from: path("from"), stat: folder.stat("from"), body };
            let outcome = one_disturbed(&folder, item("to", was, action), |folder| folder.write("from", b"edited"));
            assert_eq!(outcome, CommitOutcome::Mismatch);
            assert_eq!(folder.read("from"), b"edited");
            assert_eq!(folder.probe("to").is_some(), over);
        }
        let folder = Folder::new();
        folder.write("from", b"from");
        folder.write("to", b"to");
        let action = Action::Move { from: path("from"), stat: folder.stat("from"), body };
        let outcome = one_disturbed(&folder, item("to", expect(&folder, "to"), action), |folder| {
            folder.write("to", b"edited");
        });
        let (_, _, aside) = assert_done(outcome);
        assert_eq!(fs::read(folder.root.path().join(aside.unwrap().as_path())).unwrap(), b"edited");
        assert_eq!(folder.read("to"), b"from");
        assert_eq!(folder.probe("from"), None);
    }

    /// The everyday cases again, in a batch that was made to meet a poorer world.
    fn check_everyday(spoil: impl Fn(&mut Batch<'_>)) {
        let folder = Folder::new();
        folder.write("f", b"old");
        folder.write("gone", b"gone");
        folder.write("from", b"from");
        folder.write("over", b"over");
        symlink("one", folder.at("link")).unwrap();
        let body = |bytes: &[u8]| FileBody {
            mode: 0o600,
            mtime_ns: MTIME,
            size: bytes.len() as u64,
            content: chunk_all(bytes).content_id(),
        };
        let items = [
            item("f", expect(&folder, "f"), staged(&folder, b"new")),
            item("fresh", Expect::Absent, staged(&folder, b"fresh")),
            item("gone", expect(&folder, "gone"), Action::Remove),
            item(
                "over",
                expect(&folder, "over"),
                Action::Move { from: path("from"), stat: folder.stat("from"), body: body(b"from") },
            ),
            item(
                "moved",
                Expect::Absent,
                Action::Move { from: path("over"), stat: folder.stat("over"), body: body(b"over") },
            ),
            item("link", expect(&folder, "link"), Action::MakeSymlink { target: b"two"[..].into() }),
            item("dir", Expect::Absent, Action::MakeDir { mode: 0o750 }),
        ];
        let mut batch = Batch::new(&folder.root, 42).ok().unwrap();
        let (staging, history) = (batch.staging.clone(), batch.history.clone());
        spoil(&mut batch);
        // What was staged goes along to where the batch looks for it.
        for name in folder.names(".kinfold/staging") {
            let to = At { dir: batch.staging.as_fd(), name: name.as_bytes() };
            if !Rc::ptr_eq(&staging, &batch.staging) {
                copy_to(At { dir: staging.as_fd(), name: name.as_bytes() }, to).unwrap();
                fs::remove_file(folder.at(&format!(".kinfold/staging/{name}"))).unwrap();
            }
        }
        let mut kept = Vec::new();
        for (n, outcome) in commit_in(&mut batch, &items).into_iter().enumerate() {
            if n == 4 {
                // That one was replaced by the step before.
                assert_eq!(outcome, CommitOutcome::Mismatch);
                continue;
            }
            let (stat, name, aside) = assert_done(outcome);
            assert_eq!(aside, None);
            assert_eq!(stat, (items[n].action != Action::Remove).then(|| folder.stat_of(&items[n].path)));
            kept.extend(name);
        }
        let read_kept = |name: &String| {
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW;
            match rustix::fs::openat(&*batch.history, name, flags, Mode::empty()) {
                Ok(file) => {
                    let mut bytes = vec![0; 10];
                    let len = rustix::io::read(file, &mut bytes).unwrap();
                    String::from_utf8_lossy(&bytes[..len]).into_owned()
                }
                Err(_) => rustix::fs::readlinkat(&*batch.history, name, Vec::new()).unwrap().into_string().unwrap(),
            }
        };
        assert_eq!(kept.iter().map(read_kept).collect::<Vec<_>>(), ["old", "gone", "over", "one"]);
        assert_eq!(folder.names(""), [".kinfold", "dir", "f", "fresh", "link", "over"]);
        for (at, bytes) in [("f", &b"new"[..]), ("fresh", b"fresh"), ("over", b"from")] {
            assert_eq!(folder.read(at), bytes);
        }
        drop(history);
        assert_tidy(&folder);
    }

    #[test]
    fn a_full_file_system_of_today_does_all() {
        check_everyday(|_| {});
    }

    #[test]
    fn a_file_system_without_exchange_does_all_the_same() {
        check_everyday(|batch| batch.faults.plain_renames = true);
    }

    #[test]
    fn a_file_system_mounted_inside_the_folder_is_reached_by_copying() {
        use std::os::unix::fs::MetadataExt;
        // The other way round: the program's own directories lie on another file system.
        let own = tempfile::tempdir_in("/dev/shm").unwrap();
        let here = tempfile::tempdir().unwrap();
        assert_ne!(own.path().metadata().unwrap().dev(), here.path().metadata().unwrap().dev());
        check_everyday(|batch| {
            let make = |name: &str| {
                fs::create_dir(own.path().join(name)).unwrap();
                let flags = OFlags::RDONLY | OFlags::DIRECTORY;
                Rc::new(rustix::fs::open(own.path().join(name), flags, Mode::empty()).unwrap())
            };
            batch.staging = make("staging");
            batch.history = make("history");
        });
    }

    #[test]
    fn nothing_is_put_where_another_file_system_was_expected() {
        let folder = Folder::new();
        fs::create_dir(folder.root.path().join("d")).unwrap();
        let dev = folder.stat_of(&path("d")).dev;
        let make = |dir_dev| CommitItem {
            dir_dev: Some(dir_dev),
            ..item("d/e", Expect::Absent, Action::MakeDir { mode: 0o755 })
        };
        assert_eq!(one(&folder, make(dev + 1)), CommitOutcome::OtherFileSystem);
        assert!(!folder.root.path().join("d/e").exists());
        assert_done(one(&folder, make(dev)));
    }

    #[test]
    fn names_of_any_bytes_and_length_are_kept() {
        let folder = Folder::new();
        for name in [&b"\xff\xfe"[..], &[b'n'; 255], "é".repeat(127).as_bytes(), b"new\nline", &[0xff; 255]] {
            let path = RelPath::parse(name).unwrap();
            fs::write(folder.root.path().join(path.as_path()), b"old").unwrap();
            let was = Expect::Stat(folder.stat_of(&path));
            let place = staged(&folder, b"new");
            let item =
                CommitItem { path, expect: was, action: place, displaced: Displaced::History, by: BY, dir_dev: None };
            let (_, kept, _) = assert_done(one(&folder, item));
            assert_eq!(kept_bytes(&folder, &kept.unwrap()), b"old");
        }
    }
}
