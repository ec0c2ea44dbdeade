//! What a crash leaves in history: found again, and put where it belongs.
//!
//! Whatever a commit takes out of its place lies in history from that moment on, under a name that says
//! where it lay (`name_of`). If the index was not told any more, the file is there, and nobody knows of
//! it: [`list`](crate::disk::history::list) names it and [`look`] says what it is. What it means is for
//! the daemon to find out, which knows the index.

use std::io;
use std::os::fd::AsFd;
use std::rc::Rc;
use std::sync::atomic::AtomicBool;

use rustix::fs::{AtFlags, Mode, OFlags, openat, readlinkat, unlinkat};
use rustix::io::Errno;

use crate::disk::batch::{At, Batch, Refusal, Target};
use crate::disk::hash::read_chunks;
use crate::disk::probe::{fstat, lstat};
use crate::disk::root::{Own, Root};
use crate::disk::staging::stage_name;
use crate::engine::chunker::ChunkBuffer;
use crate::engine::effect::{Displaced, Expect, StageId};
use crate::model::id::{ContentId, DeviceTag};
use crate::model::limits::NAME_LEN_MAX;
use crate::model::path::RelPath;
use crate::model::recipe::Recipe;
use crate::model::stat::{Kind, Stat};

/// Stands between the number and a whole path.
const WHOLE: char = '~';
/// Stands there instead where the path was too long, and only its end follows.
const CUT: char = '^';

/// Returns the name in history of what leaves `path` at a time; `number` tells apart several.
///
/// The path follows the time with `/`, `%`, control characters and what is not UTF-8 as `%` and two hex
/// digits. Of a path that is too long for that only the end is there, and [`origin`] cannot tell it.
pub(crate) fn name_of(now_ns: i64, number: u64, path: &RelPath) -> String {
    let mut escaped = String::new();
    for part in path.as_bytes().utf8_chunks() {
        for c in part.valid().chars() {
            if matches!(c, '/' | '%') || c.is_control() {
                escape(c.encode_utf8(&mut [0; 4]).as_bytes(), &mut escaped)
            } else {
                escaped.push(c)
            }
        }
        escape(part.invalid(), &mut escaped);
    }
    let whole = format!("{now_ns}-{number}{WHOLE}{escaped}");
    if whole.len() <= NAME_LEN_MAX {
        return whole;
    }
    let head = format!("{now_ns}-{number}{CUT}");
    let mut from = escaped.len() - (NAME_LEN_MAX - head.len());
    while !escaped.is_char_boundary(from) {
        from += 1;
    }
    head + &escaped[from..]
}

fn escape(bytes: &[u8], into: &mut String) {
    bytes.iter().for_each(|byte| into.push_str(&format!("%{byte:02x}")));
}

/// Returns when and where a file of history left its place, by its name; `None` where that does not say.
pub fn origin(name: &str) -> Option<(i64, RelPath)> {
    let until_ns = left_at(name)?;
    let escaped = name[name.find([WHOLE, CUT])?..].strip_prefix(WHOLE)?;
    let mut bytes = Vec::new();
    let mut rest = escaped.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = tail;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let (digits, tail) = tail.split_at_checked(2)?;
        bytes.push(u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?);
        rest = tail;
    }
    Some((until_ns, RelPath::parse(&bytes).ok()?))
}

/// Returns when a file of history left its place, by its name; `None` where the name is not one of ours.
pub fn left_at(name: &str) -> Option<i64> {
    let head = name.split([WHOLE, CUT]).next()?;
    let (time, number) = head.rsplit_once('-')?;
    number.parse::<u64>().ok()?;
    time.parse().ok()
}

/// What lies in history under a name.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Leftover {
    /// What it is.
    pub stat: Stat,
    /// What it points to, if it is a symbolic link.
    pub link: Option<Box<[u8]>>,
}

/// Looks at something in history; `None`: it is not there.
pub fn look(root: &Root, name: &str) -> io::Result<Option<Leftover>> {
    let history = root.own(Own::History)?;
    let Some(stat) = lstat(history.as_fd(), name)? else { return Ok(None) };
    let link = match stat.kind {
        Kind::Symlink => Some(readlinkat(&history, name, Vec::new())?.into_bytes().into()),
        _ => None,
    };
    Ok(Some(Leftover { stat, link }))
}

/// Reads a file in history and returns its content; `None`: it is no file, or being written.
pub fn content(root: &Root, name: &str) -> io::Result<Option<ContentId>> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = openat(root.own(Own::History)?, name, flags, Mode::empty())?;
    let stat = fstat(file.as_fd())?;
    if stat.kind != Kind::File {
        return Ok(None);
    }
    let never = AtomicBool::new(false);
    let chunks = read_chunks(file.as_fd(), stat.size, &never, &mut ChunkBuffer::default())?;
    Ok(chunks.and_then(|chunks| Recipe::parse(chunks).ok()).map(|recipe| recipe.content_id()))
}

/// Renames something in history back to where nothing lies. `false`: something does, or its directory is gone.
pub fn put_back(root: &Root, name: &str, path: &RelPath) -> io::Result<bool> {
    with_target(root, name, path, |batch, out, target| match batch.rename_new(out, target.at()) {
        Ok(()) => Ok(true),
        Err(Errno::EXIST) => Ok(false),
        Err(error) => Err(error),
    })
}

/// Lets something in history and what took its place change places again. `false`: there is nothing there.
pub fn swap_back(root: &Root, name: &str, path: &RelPath) -> io::Result<bool> {
    with_target(root, name, path, |batch, out, target| match batch.exchange(out, target.at()) {
        Ok(()) => Ok(true),
        Err(Errno::NOENT) => Ok(false),
        Err(error) => Err(error),
    })
}

/// Makes something in history a conflict copy of `path`, under the first name that is free. `None`: the
/// directory is gone.
pub fn put_aside(root: &Root, name: &str, path: &RelPath, mtime_ns: i64, by: DeviceTag) -> io::Result<Option<RelPath>> {
    let mut aside = None;
    with_target(root, name, path, |batch, out, target| {
        let target = Target { by, ..target };
        aside = Some(batch.rename_aside(out, &target, mtime_ns, None)?);
        Ok(true)
    })?;
    Ok(aside)
}

fn with_target(
    root: &Root,
    name: &str,
    path: &RelPath,
    act: impl FnOnce(&Batch<'_>, At<'_>, Target<'_>) -> Result<bool, Errno>,
) -> io::Result<bool> {
    let refused = |refusal: Refusal| io::Error::other(format!("{refusal:?}"));
    let mut batch = Batch::new(root, 0).map_err(refused)?;
    let dir = match batch.parent(path) {
        Ok(dir) => dir,
        Err(Refusal::NoParent) => return Ok(false),
        Err(refusal) => return Err(refused(refusal)),
    };
    let history = Rc::clone(&batch.history);
    let out = At { dir: history.as_fd(), name: name.as_bytes() };
    let by = DeviceTag::default();
    Ok(act(&batch, out, Target { path, dir, expect: Expect::Absent, displaced: &Displaced::History, by })?)
}

/// Makes a staged file of what was about to take a place, so that it need not be fetched again.
pub fn stage_again(root: &Root, name: &str, content: ContentId) -> io::Result<()> {
    let batch = Batch::new(root, 0).map_err(|refusal| io::Error::other(format!("{refusal:?}")))?;
    let stage = stage_name(StageId { content, copy: 0 });
    let out = At { dir: batch.history.as_fd(), name: name.as_bytes() };
    match batch.rename_new(out, At { dir: batch.staging.as_fd(), name: stage.as_bytes() }) {
        // There is one already, and one is enough.
        Err(Errno::EXIST) => Ok(unlinkat(&*batch.history, name, AtFlags::empty())?),
        other => Ok(other?),
    }
}

/// Removes what was about to take a place and holds nothing of anybody's: a link, an empty directory, or
/// the second name of a file.
pub fn remove(root: &Root, name: &str) -> io::Result<()> {
    Ok(crate::disk::batch::remove(At { dir: root.own(Own::History)?.as_fd(), name: name.as_bytes() })?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_name_in_history_reads_well_and_says_where_it_lay() {
        let path = RelPath::parse("docs/50% off/brief & more.odt".as_bytes()).unwrap();
        assert_eq!(name_of(42, 7, &path), "42-7~docs%2f50%25 off%2fbrief & more.odt");
        let path = RelPath::parse(b"\xff\n\xc3\xa9~^-").unwrap();
        assert_eq!(name_of(-42, 7, &path), "-42-7~%ff%0a\u{e9}~^-");
        assert_eq!(origin("-42-7~%ff%0a\u{e9}~^-"), Some((-42, path)));
        for other in [
            "",
            "x",
            "1~f",
            "1-x~f",
            "1-2~",
            "1-2~%",
            "1-2~%2",
            "1-2~%zz",
            "1-2~%2f",
            "1-2~..",
            "1-2^f",
            "1-2~.kinfold",
        ] {
            assert_eq!(origin(other), None, "{other}");
        }
        assert_eq!(
            (left_at("1-2^f"), left_at("-1-2~f"), left_at("note.txt"), left_at("1~f")),
            (Some(1), Some(-1), None, None)
        );
    }

    proptest! {
        #[test]
        fn every_path_comes_back_unless_it_is_too_long(bytes in prop::collection::vec(any::<u8>(), 1..300), now in any::<i64>(), number in any::<u64>()) {
            let Ok(path) = RelPath::parse(&bytes) else { return Ok(()) };
            let name = name_of(now, number, &path);
            prop_assert!(name.len() <= NAME_LEN_MAX && !name.contains(['/', '\0']), "{name}");
            prop_assert_eq!(left_at(&name), Some(now));
            match origin(&name) {
                Some(found) => prop_assert_eq!(found, (now, path)),
                None => prop_assert!(name.len() > 240, "{}", name),
            }
        }
    }
}
