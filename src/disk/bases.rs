//! What small texts were lately: the states that edits made apart can have begun from.
//!
//! Editors replace what a file was, and no history has that, for no sync put it aside. So of each small
//! text that was written lately its states lie here, in one *sheet* for each path, each with its version.
//! When two edits turn out to have been made apart, both of their versions are known for a moment; then
//! the state that both had seen is found by them, and written down beside the two.
//!
//! All of this is a memory that may be lost at any time, and costs no more than that a person has to merge by
//! hand: nothing is flushed, the oldest sheets go where there are too many, and what is damaged is not there.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Mutex, PoisonError};

use rustix::fs::{AtFlags, Dir, Mode, OFlags, openat, renameat, unlinkat};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::disk::fault::is_missing;
use crate::disk::probe::lstat;
use crate::disk::root::{Own, Root};
use crate::engine::effect::Parting;
use crate::model::id::{AuthorId, ContentId, Incarnation, Sequence};
use crate::model::limits::MERGE_LEN_MAX;
use crate::model::path::RelPath;
use crate::model::version::{Causality, VersionVector};

/// States of one text. Where there are more, one in the middle goes: an older one serves as well, if less closely.
const STATES_MAX: usize = 12;
/// The first of them, which stay when others go.
const STATES_FIRST: usize = 3;
/// Bytes of all states of one text; the one that it is in now is kept in any case.
const STATES_LEN_MAX: usize = 2 << 20;
/// Pairs of edits that are remembered of one path.
const PARTINGS_MAX: usize = 4;
/// Longest sheet that is read, in bytes: all that fits into one, with room for versions.
const SHEET_LEN_MAX: u64 = (STATES_LEN_MAX + (PARTINGS_MAX + 1) * MERGE_LEN_MAX + (1 << 20)) as u64;
/// Sheets of one folder.
const SHEETS_MAX: usize = 8192;
/// Bytes of all of them.
const SHEETS_LEN_MAX: u64 = 64 << 20;
/// Where the changes that were looked at end, in a file beside the sheets.
const PROGRESS: &str = "seen";

/// The sheets of one folder.
#[derive(Debug, Default)]
pub struct Bases {
    ledger: Mutex<Option<Ledger>>,
}

/// What two edits had both seen.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Ancestor {
    /// It is not known here.
    Unknown,
    /// It is known, but what lies at the path has not seen both edits yet.
    Unsettled,
    /// This.
    Text(Vec<u8>),
}

/// The sheets that are there, by name: when each was written, and its bytes.
#[derive(Debug, Default)]
struct Ledger {
    sheets: BTreeMap<String, (i64, u64)>,
    bytes: u64,
}

#[derive(Debug, Default, Deserialize, Serialize)]
struct Sheet {
    path: Vec<u8>,
    states: Vec<State>,
    partings: Vec<Parted>,
}

#[derive(Debug, Deserialize, Serialize)]
struct State {
    version: Counters,
    since_ns: i64,
    text: Vec<u8>,
}

/// Two edits that were made apart, and what the text was before both.
#[derive(Debug, Deserialize, Serialize)]
struct Parted {
    sides: [(Counters, [u8; 32]); 2],
    base: Vec<u8>,
    at_ns: i64,
}

type Counters = Vec<(u64, u64)>;

impl Bases {
    /// Notes the state that a text is in.
    pub fn note(
        &self,
        root: &Root,
        path: &RelPath,
        version: &VersionVector,
        text: &[u8],
        now_ns: i64,
    ) -> io::Result<()> {
        self.change(root, path, now_ns, |sheet| {
            if sheet.states.last().is_some_and(|last| last.text == text) {
                // What has seen the later version has seen the earlier one as well.
                return false;
            }
            sheet.states.push(State { version: counters(version), since_ns: now_ns, text: text.to_vec() });
            sheet.thin();
            true
        })
    }

    /// Notes that two edits of a path were made apart, if it is known what both had seen.
    pub fn part(&self, root: &Root, parting: &Parting, now_ns: i64) -> io::Result<()> {
        self.change(root, &parting.path, now_ns, |sheet| {
            let sides = [&parting.one, &parting.other].map(|side| (counters(&side.version), side.content.0));
            if sheet.partings.iter().any(|parted| parted.sides == sides) {
                return false;
            }
            let has_seen = |side: &VersionVector, state: &State| is_seen(&state.version, side);
            // The last: none that comes later has been seen by both.
            let seen = sheet
                .states
                .iter()
                .rev()
                .find(|state| has_seen(&parting.one.version, state) && has_seen(&parting.other.version, state));
            let Some(base) = seen.map(|state| state.text.clone()) else {
                return false;
            };
            sheet.partings.push(Parted { sides, base, at_ns: now_ns });
            if sheet.partings.len() > PARTINGS_MAX {
                sheet.partings.remove(0);
            }
            true
        })
    }

    /// Finds what a text was before two edits that were made apart: the one with this content, which lies in a
    /// conflict copy, and the one that became what lies at the path under this version.
    pub fn ancestor(
        &self,
        root: &Root,
        path: &RelPath,
        copy: ContentId,
        there: &VersionVector,
    ) -> io::Result<Ancestor> {
        let _ledger = self.lock(root)?;
        let Some(sheet) = read(root, path)? else {
            return Ok(Ancestor::Unknown);
        };
        let mut found = Ancestor::Unknown;
        for Parted { sides, base, .. } in sheet.partings {
            if sides.iter().any(|(_, content)| *content == copy.0) {
                if sides.iter().all(|(version, _)| is_seen(version, there)) {
                    found = Ancestor::Text(base);
                } else if found == Ancestor::Unknown {
                    found = Ancestor::Unsettled;
                }
            }
        }
        Ok(found)
    }

    /// Forgets the states of a path at which no text lies any more.
    pub fn forget(&self, root: &Root, path: &RelPath) -> io::Result<()> {
        let mut ledger = self.lock(root)?;
        match &mut *ledger {
            Some(ledger) => ledger.remove(root, &name_of(path)),
            None => Ok(()),
        }
    }

    /// Forgets all that was over before a time: states that were replaced, and pairs of edits.
    pub fn expire(&self, root: &Root, until_ns: i64) -> io::Result<()> {
        let mut ledger = self.lock(root)?;
        let Some(ledger) = &mut *ledger else {
            return Ok(());
        };
        let names: Vec<_> = ledger.sheets.keys().cloned().collect();
        for name in names {
            let Some(mut sheet) = read_named(root, &name)? else {
                ledger.remove(root, &name)?;
                continue;
            };
            let before = (sheet.states.len(), sheet.partings.len());
            sheet.expire(until_ns);
            if before != (sheet.states.len(), sheet.partings.len()) {
                let written_ns = ledger.sheets.get(&name).map_or(0, |(at_ns, _)| *at_ns);
                ledger.write(root, name, &sheet, written_ns)?;
            }
        }
        Ok(())
    }

    /// Forgets everything.
    pub fn clear(&self, root: &Root) -> io::Result<()> {
        let mut ledger = self.lock(root)?;
        let Some(ledger) = &mut *ledger else {
            return Ok(());
        };
        let names: Vec<_> = ledger.sheets.keys().cloned().collect();
        names.iter().try_for_each(|name| ledger.remove(root, name))
    }

    /// Returns up to where the changes of an index were looked at; `None` where none of it was.
    pub fn progress(&self, root: &Root, incarnation: Incarnation) -> io::Result<Option<Sequence>> {
        let Some(bytes) = read_file(&root.own(Own::Bases)?, PROGRESS)? else {
            return Ok(None);
        };
        let (of, seen): (u64, u64) = postcard::from_bytes(&bytes).unwrap_or_default();
        Ok((of == incarnation.0).then_some(Sequence(seen)))
    }

    /// Writes that down.
    pub fn set_progress(&self, root: &Root, incarnation: Incarnation, seen: Sequence) -> io::Result<()> {
        let bytes = postcard::to_stdvec(&(incarnation.0, seen.0)).map_err(io::Error::other)?;
        write_file(&root.own(Own::Bases)?, PROGRESS, &bytes)
    }

    /// Changes a sheet, if `change` says that it did.
    fn change(
        &self,
        root: &Root,
        path: &RelPath,
        now_ns: i64,
        change: impl FnOnce(&mut Sheet) -> bool,
    ) -> io::Result<()> {
        let mut ledger = self.lock(root)?;
        let Some(ledger) = &mut *ledger else {
            return Ok(());
        };
        let name = name_of(path);
        let known = if ledger.sheets.contains_key(&name) { read(root, path)? } else { None };
        let mut sheet = known.unwrap_or_else(|| Sheet { path: path.as_bytes().to_vec(), ..Sheet::default() });
        if change(&mut sheet) { ledger.write(root, name, &sheet, now_ns) } else { Ok(()) }
    }

    /// Nobody else reads or writes sheets meanwhile. What is there is looked at when it is first needed.
    fn lock(&self, root: &Root) -> io::Result<std::sync::MutexGuard<'_, Option<Ledger>>> {
        // A sheet that was being written when a thread panicked is whole or not there.
        let mut ledger = self.ledger.lock().unwrap_or_else(PoisonError::into_inner);
        if ledger.is_none() {
            *ledger = Some(Ledger::load(root)?);
        }
        Ok(ledger)
    }
}

impl Ledger {
    fn load(root: &Root) -> io::Result<Self> {
        let own = root.own(Own::Bases)?;
        let mut ledger = Self::default();
        for entry in Dir::read_from(&own)? {
            let entry = entry?;
            let Some(name) = entry.file_name().to_str().ok().filter(|name| is_name(name)) else {
                continue;
            };
            if let Some(stat) = lstat(own.as_fd(), name)? {
                ledger.sheets.insert(name.to_owned(), (stat.mtime_ns, stat.size));
                ledger.bytes = ledger.bytes.saturating_add(stat.size);
            }
        }
        Ok(ledger)
    }

    fn write(&mut self, root: &Root, name: String, sheet: &Sheet, now_ns: i64) -> io::Result<()> {
        if sheet.states.is_empty() && sheet.partings.is_empty() {
            return self.remove(root, &name);
        }
        let mut bytes = vec![0; 32];
        bytes.extend(postcard::to_stdvec(sheet).map_err(io::Error::other)?);
        let sum = blake3::hash(&bytes[32..]);
        bytes[..32].copy_from_slice(sum.as_bytes());
        write_file(&root.own(Own::Bases)?, &name, &bytes)?;
        let len = bytes.len() as u64;
        let before = self.sheets.insert(name, (now_ns, len)).map_or(0, |(_, len)| len);
        self.bytes = self.bytes.saturating_sub(before) + len;
        self.make_room(root)
    }

    /// Removes the oldest sheets where there are too many: some more than must go, so that it is not done
    /// anew for each that comes.
    fn make_room(&mut self, root: &Root) -> io::Result<()> {
        if self.sheets.len() <= SHEETS_MAX && self.bytes <= SHEETS_LEN_MAX {
            return Ok(());
        }
        let mut oldest: Vec<_> = self.sheets.iter().map(|(name, (at_ns, _))| (*at_ns, name.clone())).collect();
        oldest.sort();
        for (_, name) in oldest {
            if self.sheets.len() <= SHEETS_MAX / 8 * 7 && self.bytes <= SHEETS_LEN_MAX / 8 * 7 {
                break;
            }
            self.remove(root, &name)?;
        }
        Ok(())
    }

    fn remove(&mut self, root: &Root, name: &str) -> io::Result<()> {
        let Some((_, len)) = self.sheets.remove(name) else {
            return Ok(());
        };
        self.bytes = self.bytes.saturating_sub(len);
        match unlinkat(&root.own(Own::Bases)?, name, AtFlags::empty()) {
            Err(error) if !is_missing(error) => Err(error.into()),
            _ => Ok(()),
        }
    }
}

impl Sheet {
    fn thin(&mut self) {
        let len = |states: &[State]| states.iter().map(|state| state.text.len()).sum::<usize>();
        while self.states.len() > 1 && (self.states.len() > STATES_MAX || len(&self.states) > STATES_LEN_MAX) {
            self.states.remove(STATES_FIRST.min(self.states.len() - 2));
        }
    }

    fn expire(&mut self, until_ns: i64) {
        // A state was over when the next began; the last is the one that the text is in.
        let over: Vec<_> = self.states.iter().skip(1).map(|next| next.since_ns).collect();
        let mut ends = over.into_iter();
        self.states.retain(|_| ends.next().is_none_or(|end_ns| end_ns >= until_ns));
        self.partings.retain(|parted| parted.at_ns >= until_ns);
    }
}

fn counters(version: &VersionVector) -> Counters {
    version.counters().iter().map(|(author, count)| (author.0, *count)).collect()
}

/// Whether `version` has seen all that these counters have.
fn is_seen(counters: &Counters, version: &VersionVector) -> bool {
    let counters = counters.iter().map(|(author, count)| (AuthorId(*author), *count)).collect();
    VersionVector::parse(counters)
        .is_ok_and(|seen| !seen.is_empty() && matches!(seen.compare(version), Causality::Equal | Causality::Before))
}

fn name_of(path: &RelPath) -> String {
    blake3::hash(path.as_bytes()).to_hex()[..32].to_owned()
}

fn is_name(name: &str) -> bool {
    name.len() == 32 && name.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Reads the sheet of a path, if there is one that is whole and the path's own.
fn read(root: &Root, path: &RelPath) -> io::Result<Option<Sheet>> {
    Ok(read_named(root, &name_of(path))?.filter(|sheet| sheet.path == path.as_bytes()))
}

fn read_named(root: &Root, name: &str) -> io::Result<Option<Sheet>> {
    let Some(bytes) = read_file(&root.own(Own::Bases)?, name)? else {
        return Ok(None);
    };
    let whole = bytes.split_at_checked(32).filter(|(sum, rest)| blake3::hash(rest).as_bytes() == sum);
    Ok(whole.and_then(|(_, rest)| postcard::from_bytes(rest).ok()))
}

/// Reads one of our own files; one that is longer than we write any is not there.
fn read_file(own: &OwnedFd, name: &str) -> io::Result<Option<Vec<u8>>> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = match openat(own, name, flags, Mode::empty()) {
        Ok(file) => File::from(file),
        Err(Errno::LOOP) => return Ok(None),
        Err(error) if is_missing(error) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let mut bytes = Vec::new();
    file.take(SHEET_LEN_MAX + 1).read_to_end(&mut bytes)?;
    Ok((bytes.len() as u64 <= SHEET_LEN_MAX).then_some(bytes))
}

/// Replaces one of our own files, whole or not at all as long as the system runs.
fn write_file(own: &OwnedFd, name: &str, bytes: &[u8]) -> io::Result<()> {
    let draft = format!("{name}.new");
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let written = openat(own, &draft, flags, Mode::from_raw_mode(0o600))
        .map_err(io::Error::from)
        .and_then(|file| File::from(file).write_all(bytes))
        .and_then(|()| Ok(renameat(own, &draft, own, name)?));
    if written.is_err() {
        // The room is wanted.
        unlinkat(own, &draft, AtFlags::empty()).ok();
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::disk::testing::{Folder, path};
    use crate::engine::effect::PartedSide;

    fn version(counters: &[(u64, u64)]) -> VersionVector {
        VersionVector::parse(counters.iter().map(|(author, n)| (AuthorId(*author), *n)).collect()).unwrap()
    }

    fn side(counters: &[(u64, u64)], content: u8) -> PartedSide {
        PartedSide { version: version(counters), content: ContentId([content; 32]) }
    }

    fn parting(one: PartedSide, other: PartedSide) -> Parting {
        Parting { path: path("f"), one, other }
    }

    fn text(of: &str) -> Ancestor {
        Ancestor::Text(of.as_bytes().to_vec())
    }

    #[test]
    fn what_two_edits_had_both_seen_is_found_once_both_have_been_seen() {
        let (folder, bases) = (Folder::new(), Bases::default());
        let note = |counters: &[(u64, u64)], text: &str| {
            bases.note(&folder.root, &path("f"), &version(counters), text.as_bytes(), 1).unwrap();
        };
        note(&[(1, 1)], "first");
        note(&[(1, 2)], "before both");
        note(&[(1, 2), (2, 1)], "edited here");
        let (mine, theirs) = (side(&[(1, 2), (2, 1)], 7), side(&[(1, 3)], 8));
        bases.part(&folder.root, &parting(mine, theirs), 2).unwrap();
        // By another daemon, later.
        let bases = Bases::default();
        let ancestor = |content, there: &[(u64, u64)]| {
            bases.ancestor(&folder.root, &path("f"), ContentId([content; 32]), &version(there)).unwrap()
        };
        assert_eq!(ancestor(7, &[(1, 3), (2, 2)]), text("before both"));
        assert_eq!(ancestor(7, &[(1, 9), (2, 9), (3, 1)]), text("before both"), "edited since");
        assert_eq!(ancestor(8, &[(1, 3), (2, 2)]), text("before both"), "whichever side lost");
        assert_eq!(ancestor(7, &[(1, 3)]), Ancestor::Unsettled);
        assert_eq!(ancestor(9, &[(1, 3), (2, 2)]), Ancestor::Unknown, "another edit");
    }

    #[test]
    fn what_only_one_edit_had_seen_is_the_ancestor_of_none() {
        let (folder, bases) = (Folder::new(), Bases::default());
        bases.note(&folder.root, &path("f"), &version(&[(1, 2)]), b"of one", 1).unwrap();
        let ancestor =
            || bases.ancestor(&folder.root, &path("f"), ContentId([8; 32]), &version(&[(1, 3), (2, 2)])).unwrap();
        bases.part(&folder.root, &parting(side(&[(1, 3)], 7), side(&[(1, 1), (2, 1)], 8)), 2).unwrap();
        assert_eq!(ancestor(), Ancestor::Unknown);
        // Of another path nothing is known, either.
        let of = Parting { path: path("g"), one: side(&[(1, 3)], 7), other: side(&[(2, 1)], 8) };
        bases.part(&folder.root, &of, 2).unwrap();
        assert_eq!(ancestor(), Ancestor::Unknown);
    }

    #[test]
    fn the_first_states_and_the_last_stay_when_there_are_many() {
        let (folder, bases) = (Folder::new(), Bases::default());
        for n in 1..=40 {
            bases.note(&folder.root, &path("f"), &version(&[(1, n)]), format!("{n}").as_bytes(), 1).unwrap();
        }
        let sheet = read(&folder.root, &path("f")).unwrap().unwrap();
        let texts: Vec<_> = sheet.states.iter().map(|state| String::from_utf8(state.text.clone()).unwrap()).collect();
        assert_eq!(texts, ["1", "2", "3", "32", "33", "34", "35", "36", "37", "38", "39", "40"]);
        // Long ones are fewer, and the last stays whatever its length.
        for n in 41..=44 {
            let long = vec![b'a' + (n % 26) as u8; MERGE_LEN_MAX];
            bases.note(&folder.root, &path("f"), &version(&[(1, n)]), &long, 1).unwrap();
        }
        let sheet = read(&folder.root, &path("f")).unwrap().unwrap();
        assert!(sheet.states.iter().map(|state| state.text.len()).sum::<usize>() <= STATES_LEN_MAX);
        assert_eq!(sheet.states.last().unwrap().version, [(1, 44)]);
    }

    #[test]
    fn what_is_over_is_forgotten_and_what_a_text_is_now_is_not() {
        let (folder, bases) = (Folder::new(), Bases::default());
        for (n, text) in [(10, "old"), (20, "middle"), (30, "now")] {
            bases.note(&folder.root, &path("f"), &version(&[(1, n)]), text.as_bytes(), n as i64).unwrap();
        }
        let left = || read(&folder.root, &path("f")).unwrap().map_or(0, |sheet| sheet.states.len());
        bases.expire(&folder.root, 20).unwrap();
        assert_eq!(left(), 3);
        bases.expire(&folder.root, 21).unwrap();
        assert_eq!(left(), 2);
        bases.expire(&folder.root, 1000).unwrap();
        assert_eq!(left(), 1);
        bases.forget(&folder.root, &path("f")).unwrap();
        assert_eq!((left(), folder.names(".kinfold/bases")), (0, vec![]));
    }

    #[test]
    fn the_oldest_sheets_go_where_there_are_too_many() {
        let (folder, bases) = (Folder::new(), Bases::default());
        let long = vec![b'x'; MERGE_LEN_MAX];
        for n in 0..80 {
            bases.note(&folder.root, &path(&format!("f{n}")), &version(&[(1, 1)]), &long, n).unwrap();
        }
        let has = |n: i64| read(&folder.root, &path(&format!("f{n}"))).unwrap().is_some();
        assert!(has(79) && has(40) && !has(0) && !has(5));
        assert!(folder.names(".kinfold/bases").len() <= 64);
        bases.clear(&folder.root).unwrap();
        assert_eq!(folder.names(".kinfold/bases"), Vec::<String>::new());
    }

    #[test]
    fn what_is_damaged_or_foreign_is_not_there() {
        let (folder, bases) = (Folder::new(), Bases::default());
        bases.note(&folder.root, &path("f"), &version(&[(1, 1)]), b"text", 1).unwrap();
        let sheet = format!(".kinfold/bases/{}", name_of(&path("f")));
        let whole = folder.read(&sheet);
        for at in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] ^= 1;
            folder.write(&sheet, &damaged);
            assert!(read(&folder.root, &path("f")).unwrap().is_none(), "byte {at}");
        }
        for len in 0..whole.len() {
            folder.write(&sheet, &whole[..len]);
            assert!(read(&folder.root, &path("f")).unwrap().is_none(), "cut at {len}");
        }
        // And is written anew.
        bases.note(&folder.root, &path("f"), &version(&[(1, 2)]), b"again", 1).unwrap();
        assert_eq!(read(&folder.root, &path("f")).unwrap().unwrap().states.len(), 1);
        folder.write(&format!(".kinfold/bases/{}", name_of(&path("g"))), &whole);
        assert!(read(&folder.root, &path("g")).unwrap().is_none(), "of another path");
    }

    #[test]
    fn progress_is_that_of_one_index() {
        let (folder, bases) = (Folder::new(), Bases::default());
        assert_eq!(bases.progress(&folder.root, Incarnation(1)).unwrap(), None);
        bases.set_progress(&folder.root, Incarnation(1), Sequence(9)).unwrap();
        assert_eq!(bases.progress(&folder.root, Incarnation(1)).unwrap(), Some(Sequence(9)));
        assert_eq!(bases.progress(&folder.root, Incarnation(2)).unwrap(), None);
    }
}
