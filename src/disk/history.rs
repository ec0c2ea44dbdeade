//! The history directory: what commits replaced and removed, under the names that they reported.
//!
//! Which file is a former version of what is for the index to know. Files here are only renamed in
//! (by commits), copied out, and removed when they expire.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{AtFlags, Dir, Mode, OFlags, fchmod, fsync, futimens, openat, unlinkat};
use rustix::io::Errno;

use crate::disk::batch::{At, Batch, Refusal, Step, Target, copy_to, failed, remove as remove_at, set_meta, times};
use crate::disk::commit::done;
use crate::disk::fault::is_missing;
use crate::disk::probe::lstat;
use crate::disk::root::{Own, Root, retry};
use crate::disk::staging::{open_own, stage_name};
use crate::engine::effect::{CommitOutcome, Displaced, Expect, StageId};
use crate::model::id::DeviceTag;
use crate::model::path::RelPath;
use crate::model::problem::ProblemKind;
use crate::model::record::FileBody;
use crate::model::stat::{Kind, Stat};

/// Where the content comes from that is to take a place.
#[derive(Clone, Copy, Debug)]
pub enum Origin<'a> {
    /// A former version, by its name in history, where it stays.
    Kept(&'a str),
    /// These bytes, as a file.
    Bytes(&'a [u8]),
}

/// A former version that is to be brought back, or something that a person had made of it.
#[derive(Clone, Copy, Debug)]
pub struct Restore<'a> {
    /// Its content.
    pub origin: Origin<'a>,
    /// Where it is to be. The directory must be there.
    pub path: &'a RelPath,
    /// What must lie there before.
    pub expect: Expect,
    /// Where that goes: to history, or beside it as a conflict copy.
    pub displaced: &'a Displaced,
    /// Its permission bits to be, if it is a file.
    pub mode: u16,
    /// Its modification time to be, if it is a file.
    pub mtime_ns: i64,
    /// Names the conflict copy of an edit that nobody has seen yet.
    pub by: DeviceTag,
}

/// Puts content at a path of the folder, as a commit would put it there.
///
/// `Done` means done and durable. A copy shares its blocks with history where the file system can.
pub fn restore(root: &Root, restore: &Restore<'_>, now_ns: i64) -> CommitOutcome {
    try_restore(root, restore, now_ns).unwrap_or_else(Into::into)
}

fn try_restore(root: &Root, restore: &Restore<'_>, now_ns: i64) -> Step<CommitOutcome> {
    if let Origin::Kept(kept) = restore.origin {
        check_name(kept).map_err(failed("cannot find it in history"))?;
    }
    let mut batch = Batch::new(root, now_ns)?;
    let dir = batch.parent(restore.path)?;
    let target =
        Target { path: restore.path, dir, expect: restore.expect, displaced: restore.displaced, by: restore.by };
    batch.check(&target)?;
    let (staging, history) = (batch.staging.clone(), batch.history.clone());
    let name = batch.temp_name();
    let draft = At { dir: staging.as_fd(), name: name.as_bytes() };
    match restore.origin {
        Origin::Kept(kept) => copy_to(At { dir: history.as_fd(), name: kept.as_bytes() }, draft)
            .map_err(failed("cannot copy it from history"))?,
        Origin::Bytes(bytes) => write_draft(draft, bytes).map_err(failed("cannot write it"))?,
    }
    let placed = prepare_draft(draft, restore)
        .and_then(|stat| batch.touch_dir(&target.dir).map(|()| stat))
        .and_then(|stat| batch.put(draft, &target).map(|former| (stat, former)));
    let (made, former) = placed.inspect_err(|_| {
        // What stays behind is swept away some day.
        remove_at(draft).ok();
    })?;
    let found = target.at().lstat().map_err(failed("cannot look at it"))?;
    batch.settle().map_err(failed("cannot make it durable"))?;
    // An edit since must show later: then what was put there is reported, which lies there no more.
    let known = |stat: &Stat| (stat.kind, stat.size, stat.mode, stat.mtime_ns);
    let stat = found.filter(|found| known(found) == known(&made)).unwrap_or(made);
    Ok(done(&target, Some(stat), former))
}

/// Writes a file that [`prepare_draft`] will make durable.
fn write_draft(draft: At<'_>, bytes: &[u8]) -> Result<(), Errno> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = openat(draft.dir, draft.name, flags, Mode::from_raw_mode(0o600))?;
    let mut rest = bytes;
    while !rest.is_empty() {
        match retry(|| rustix::io::write(&file, rest)) {
            Ok(written) => rest = &rest[written..],
            Err(error) => {
                // The room is wanted.
                remove_at(draft).ok();
                return Err(error);
            }
        }
    }
    Ok(())
}

fn prepare_draft(draft: At<'_>, restore: &Restore<'_>) -> Step<Stat> {
    let gone = || Refusal::Failed(ProblemKind::Unwritable, "the copy from history vanished".into());
    let copied = draft.lstat().map_err(failed("cannot look at it"))?.ok_or_else(gone)?;
    if copied.kind != Kind::File {
        return Ok(copied);
    }
    let (stat, file) = set_meta(draft, &copied, restore.mode, Some(restore.mtime_ns))?;
    match file {
        Some(file) => fsync(&file).map_err(failed("cannot make it durable"))?,
        None => return Err(failed("cannot make it durable")(Errno::ACCESS)),
    }
    Ok(stat)
}

/// Opens a former version of a file to read it.
pub fn open(root: &Root, kept: &str) -> io::Result<File> {
    check_name(kept)?;
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    Ok(File::from(openat(root.own(Own::History)?, kept, flags, Mode::empty())?))
}

/// Returns what a former version is; `None` if it is not, or no longer, there.
pub fn stat(root: &Root, kept: &str) -> io::Result<Option<Stat>> {
    check_name(kept)?;
    Ok(lstat(root.own(Own::History)?.as_fd(), kept)?)
}

/// Copies a former version to a path outside the folder, durably. Nothing is ever overwritten.
///
/// `to` is a path that a person gave, and links in it are followed, but for a link in its last place.
pub fn copy_out(root: &Root, kept: &str, to: &Path) -> io::Result<()> {
    check_name(kept)?;
    let history = root.own(Own::History)?;
    copy_outside(At { dir: history.as_fd(), name: kept.as_bytes() }, to)
}

/// Copies a staged file that is a former version, with its mode and modification time to be, as [`copy_out`] does.
pub fn copy_staged_out(root: &Root, stage: StageId, body: &FileBody, to: &Path) -> io::Result<()> {
    let (staging, name) = (root.own(Own::Staging)?, stage_name(stage));
    let file = open_own(staging.as_fd(), &name, OFlags::RDWR)?;
    fchmod(&file, Mode::from_raw_mode(body.mode.into()))?;
    futimens(&file, &times(body.mtime_ns))?;
    copy_outside(At { dir: staging.as_fd(), name: name.as_bytes() }, to)
}

fn copy_outside(from: At<'_>, to: &Path) -> io::Result<()> {
    let (Some(parent), Some(name)) = (to.parent(), to.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
    let dir = rustix::fs::open(parent, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    copy_to(from, At { dir: dir.as_fd(), name: name.as_bytes() })?;
    Ok(fsync(&dir)?)
}

/// Removes former versions for good. Those that are gone already are none the worse.
///
/// Returns the names that could not be removed, and why.
pub fn remove<'a>(root: &Root, kept: impl IntoIterator<Item = &'a str>) -> io::Result<Vec<(String, io::Error)>> {
    let history = root.own(Own::History)?;
    let mut left = Vec::new();
    for name in kept {
        match check_name(name).and_then(|()| unlinkat(&history, name, AtFlags::empty())) {
            Ok(()) => {}
            Err(error) if is_missing(error) => {}
            Err(error) => left.push((name.to_string(), error.into())),
        }
    }
    Ok(left)
}

/// Returns the names of all that lies in history. What the index does not know was put there by a
/// commit that a crash kept from being recorded.
pub fn list(root: &Root) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(root.own(Own::History)?)? {
        // Our own names are always UTF-8; another is not ours.
        if let Ok(name) = entry?.file_name().to_str()
            && name != "."
            && name != ".."
        {
            names.push(name.to_string());
        }
    }
    names.sort();
    Ok(names)
}

/// Refuses names that would lead out of the history directory.
fn check_name(kept: &str) -> Result<(), Errno> {
    if matches!(kept, "" | "." | "..") || kept.contains(['/', '\0']) { Err(Errno::NOENT) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::commit::commit;
    use crate::disk::testing::{Folder, path};
    use crate::engine::effect::{Action, CommitItem};
    use std::io::Read;

    const BY: DeviceTag = DeviceTag([1; 5]);

    /// Removes a file, and returns its name in history.
    fn removed(folder: &Folder, at: &str) -> String {
        let expect = Expect::Stat(folder.stat(at));
        let item = CommitItem {
            path: path(at),
            expect,
            action: Action::Remove,
            displaced: Displaced::History,
            by: BY,
            dir_dev: None,
        };
        match commit(&folder.root, &[item], 1).remove(0) {
            CommitOutcome::Done { kept: Some(kept), .. } => kept,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_former_version_comes_back_and_the_present_one_goes_to_history() {
        let folder = Folder::new();
        folder.write("d/f", b"former");
        let kept = removed(&folder, "d/f");
        folder.write("d/f", b"present");
        let expect = Expect::Stat(folder.stat("d/f"));
        let at = path("d/f");
        let displaced = &Displaced::History;
        let wanted =
            Restore { origin: Origin::Kept(&kept), path: &at, expect, displaced, mode: 0o604, mtime_ns: 5, by: BY };
        let CommitOutcome::Done { stat, kept: Some(present), aside: None, .. } = restore(&folder.root, &wanted, 2)
        else {
            panic!("not restored");
        };
        assert_eq!(stat, Some(folder.stat("d/f")));
        assert_eq!((folder.stat("d/f").mode, folder.stat("d/f").mtime_ns), (0o604, 5));
        assert_eq!(folder.read("d/f"), b"former");
        assert_eq!(folder.read(&format!(".kinfold/history/{present}")), b"present");
        assert_eq!(list(&folder.root).unwrap().len(), 2);

        assert_eq!(restore(&folder.root, &wanted, 3), CommitOutcome::Mismatch);
        let nowhere = path("no/parent");
        let wanted = Restore { path: &nowhere, expect: Expect::Absent, ..wanted };
        assert_eq!(restore(&folder.root, &wanted, 3), CommitOutcome::NoParent);
        assert_eq!(folder.names(".kinfold/staging"), Vec::<String>::new());
    }

    #[test]
    fn bytes_take_the_place_of_just_what_was_expected() {
        let folder = Folder::new();
        folder.write("f", b"present");
        let (at, displaced, expect) = (path("f"), &Displaced::History, Expect::Stat(folder.stat("f")));
        let origin = Origin::Bytes(b"merged");
        let wanted = Restore { origin, path: &at, expect, displaced, mode: 0o640, mtime_ns: 7, by: BY };
        let CommitOutcome::Done { kept: Some(present), .. } = restore(&folder.root, &wanted, 2) else {
            panic!("not put there");
        };
        assert_eq!((folder.read("f"), folder.stat("f").mode, folder.stat("f").mtime_ns), (b"merged".into(), 0o640, 7));
        assert_eq!(folder.read(&format!(".kinfold/history/{present}")), b"present");
        assert_eq!(restore(&folder.root, &wanted, 3), CommitOutcome::Mismatch);
        assert_eq!(folder.names(".kinfold/staging"), Vec::<String>::new());
    }

    #[test]
    fn a_former_link_comes_back_as_a_link() {
        let folder = Folder::new();
        std::os::unix::fs::symlink("target", folder.at("l")).unwrap();
        let kept = removed(&folder, "l");
        let at = path("l");
        let (expect, displaced) = (Expect::Absent, &Displaced::History);
        let wanted =
            Restore { origin: Origin::Kept(&kept), path: &at, expect, displaced, mode: 0, mtime_ns: 0, by: BY };
        assert!(matches!(restore(&folder.root, &wanted, 2), CommitOutcome::Done { .. }));
        assert_eq!(std::fs::read_link(folder.at("l")).unwrap().to_str(), Some("target"));
    }

    #[test]
    fn a_copy_is_put_outside_but_never_over_anything() {
        let folder = Folder::new();
        folder.write("f", b"former");
        let kept = removed(&folder, "f");
        let outside = tempfile::tempdir().unwrap();
        let to = outside.path().join("copy");
        copy_out(&folder.root, &kept, &to).unwrap();
        assert_eq!(std::fs::read(&to).unwrap(), b"former");
        assert_eq!(copy_out(&folder.root, &kept, &to).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        let mut bytes = Vec::new();
        open(&folder.root, &kept).unwrap().read_to_end(&mut bytes).unwrap();
        assert_eq!(bytes, b"former");
        assert_eq!(stat(&folder.root, &kept).unwrap().unwrap().size, 6);
    }

    #[test]
    fn what_expired_is_removed_and_nothing_outside_history() {
        let folder = Folder::new();
        folder.write("f", b"x");
        folder.write("stays", b"x");
        let kept = removed(&folder, "f");
        let left = remove(&folder.root, [kept.as_str(), "gone already", "../marker", "..", "../../stays"]).unwrap();
        assert!(left.is_empty(), "{left:?}");
        assert_eq!(list(&folder.root).unwrap(), Vec::<String>::new());
        folder.root.check().unwrap();
        assert_eq!(folder.read("stays"), b"x");
        assert!(open(&folder.root, "../marker").is_err());
    }
}
