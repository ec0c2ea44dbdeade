//! A look at one path, without reading it.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{AtFlags, FileType, Statx, StatxFlags, makedev, readlinkat, statx};
use rustix::io::Errno;
use rustix::path::Arg;

use crate::disk::fault::is_missing;
use crate::disk::root::Root;
use crate::engine::effect::Found;
use crate::model::path::RelPath;
use crate::model::stat::{Kind, Stat};

/// Returns what lies at a path, or `None` for nothing.
///
/// Nothing is also what lies below a symbolic link or a file. Ignore rules are not asked.
pub fn probe(root: &Root, path: &RelPath) -> io::Result<Option<Found>> {
    let parent = match root.parent(path) {
        Ok(parent) => parent,
        Err(error) if is_missing(error) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    Ok(look(parent.as_fd(), path.name())?)
}

/// Returns the stat of an open file.
pub fn stat_of(file: impl AsFd) -> io::Result<Stat> {
    Ok(fstat(file.as_fd())?)
}

/// Returns what lies under a name in an open directory.
pub(crate) fn look(dir: BorrowedFd<'_>, name: &[u8]) -> Result<Option<Found>, Errno> {
    let Some(stat) = lstat(dir, name)? else { return Ok(None) };
    match stat.kind {
        Kind::File | Kind::Dir => Ok(Some(Found::Entry(stat))),
        Kind::Special => Ok(Some(Found::Special)),
        Kind::Symlink => match readlinkat(dir, name, Vec::new()) {
            Ok(target) => Ok(Some(Found::Symlink(stat, target.into_bytes().into()))),
            Err(Errno::NOENT) => Ok(None),
            // It was a link a moment ago; the event that made it something else brings us back.
            Err(Errno::INVAL) => Ok(Some(Found::Unreadable("it changed while it was looked at".into()))),
            Err(error) => Err(error),
        },
    }
}

/// Returns the stat of what lies under a name in an open directory; links are not followed.
pub(crate) fn lstat(dir: BorrowedFd<'_>, name: impl Arg) -> Result<Option<Stat>, Errno> {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
    match statx(dir, name, flags, StatxFlags::BASIC_STATS) {
        Ok(found) => Ok(Some(parse(&found))),
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Returns the stat of an open file or directory, `O_PATH` handles included.
pub(crate) fn fstat(file: BorrowedFd<'_>) -> Result<Stat, Errno> {
    statx(file, c"", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS).map(|found| parse(&found))
}

fn parse(found: &Statx) -> Stat {
    let nanoseconds =
        |at: &rustix::fs::StatxTimestamp| at.tv_sec.saturating_mul(1_000_000_000).saturating_add(i64::from(at.tv_nsec));
    Stat {
        kind: match FileType::from_raw_mode(found.stx_mode.into()) {
            FileType::RegularFile => Kind::File,
            FileType::Directory => Kind::Dir,
            FileType::Symlink => Kind::Symlink,
            _ => Kind::Special,
        },
        mode: found.stx_mode & 0o777,
        size: found.stx_size,
        mtime_ns: nanoseconds(&found.stx_mtime),
        ctime_ns: nanoseconds(&found.stx_ctime),
        dev: makedev(found.stx_dev_major, found.stx_dev_minor),
        ino: found.stx_ino,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::testing::{Folder, path};
    use std::os::unix::fs::symlink;

    #[test]
    fn a_look_tells_files_directories_links_and_nothing() {
        let folder = Folder::new();
        folder.write("d/f", b"12345");
        folder.set_mode("d/f", 0o4640);
        symlink("anywhere", folder.at("link")).unwrap();
        assert_eq!(folder.probe("nothing"), None);
        assert_eq!(folder.probe("d/f/below"), None);
        assert_eq!(folder.probe("no/parent"), None);
        let stat = folder.stat("d/f");
        assert_eq!((stat.kind, stat.size, stat.mode), (Kind::File, 5, 0o640));
        assert_eq!(folder.stat("d").kind, Kind::Dir);
        match folder.probe("link") {
            Some(Found::Symlink(stat, target)) => {
                assert_eq!((stat.kind, &*target), (Kind::Symlink, &b"anywhere"[..]));
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_is_neither_file_directory_nor_link_is_special() {
        let folder = Folder::new();
        std::os::unix::net::UnixListener::bind(folder.at("socket")).unwrap();
        assert_eq!(folder.probe("socket"), Some(Found::Special));
    }

    #[test]
    fn nothing_lies_below_a_symbolic_link() {
        let folder = Folder::new();
        folder.write("inside/f", b"x");
        let elsewhere = tempfile::tempdir().unwrap();
        std::fs::write(elsewhere.path().join("f"), b"secret").unwrap();
        symlink("inside", folder.at("to_inside")).unwrap();
        symlink(elsewhere.path(), folder.at("to_outside")).unwrap();
        symlink("..", folder.at("up")).unwrap();
        for below in ["to_inside/f", "to_outside/f", "up/f", "to_inside/deeper/f"] {
            assert_eq!(folder.probe(below), None, "{below}");
        }
    }

    #[test]
    fn names_are_bytes() {
        let folder = Folder::new();
        for name in [&b"\xff\xfe not utf-8"[..], &[b'n'; 255], b"new\nline", b" "] {
            let name = RelPath::parse(name).unwrap();
            std::fs::write(folder.root.path().join(name.as_path()), b"x").unwrap();
            assert!(matches!(probe(&folder.root, &name), Ok(Some(Found::Entry(_)))), "{name}");
        }
        assert_eq!(folder.stat("new\nline"), folder.stat_of(&path("new\nline")));
    }
}
