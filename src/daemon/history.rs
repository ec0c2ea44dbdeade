//! Bringing back what a sync replaced or deleted, and settling conflicts: a person's wishes, done on
//! the folder's thread, between the engine's own steps.
//!
//! Nothing is lost by either: what is replaced goes to history first.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::control::types::Keep;
use crate::daemon::merging::{Merged, Sides};
use crate::disk::commit::commit;
use crate::disk::history::{self as kept_files, Origin, Restore as RestoreFile};
use crate::disk::root::Root;
use crate::engine::conflict;
use crate::engine::effect::{Action, CommitItem, CommitOutcome, Depth, Displaced, Expect, StageId};
use crate::engine::folder::{Folder, Now};
use crate::engine::index::{Index, Kept, Local};
use crate::model::id::{DeviceId, DeviceTag};
use crate::model::path::RelPath;
use crate::model::record::Body;
use crate::store::error::StoreError;
use crate::store::index::SqliteIndex;
use crate::wire::past::Former;

/// What is to be brought back.
#[derive(Clone, Debug)]
pub struct Restore {
    /// Which path; `None` is the whole folder.
    pub path: Option<RelPath>,
    /// As it was then; without it, as it was before the last change.
    pub at_ns: Option<i64>,
    /// Where to put it, outside; without it, back in its place.
    pub to: Option<PathBuf>,
    /// Whether only to say what would be done.
    pub dry_run: bool,
    /// Whose account of the past counts.
    pub account: Account,
    /// What connected peers keep.
    pub theirs: Vec<(DeviceId, Former)>,
    /// The contents that were taken from them already: whose, of which path, put aside when.
    pub taken: BTreeMap<(DeviceId, RelPath, i64), StageId>,
}

/// Whose account of the past counts.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Account {
    /// That of this device, and where it does not hold a version, what peers keep.
    All,
    /// That of this device alone.
    Own,
    /// That of the peers alone.
    Theirs,
}

/// A former version, and who holds it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Version {
    /// What it is. Of a peer's the file in history has no name.
    pub kept: Kept,
    /// The peer that keeps it; `None`: this device.
    pub holder: Option<DeviceId>,
}

impl Version {
    pub(super) fn of_peer(holder: DeviceId, former: &Former) -> Self {
        let Former { path, body, by, since_ns, until_ns } = former.clone();
        Self { kept: Kept { path, body, by, since_ns, until_ns, file: None }, holder: Some(holder) }
    }
}

/// What history may hold.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Days that something stays in it.
    pub days: u32,
    /// Bytes, at most.
    pub bytes_max: u64,
}

impl Bounds {
    /// Whether something of this size stays there, once it is put there.
    fn keeps(self, size: u64) -> bool {
        self.days > 0 && size <= self.bytes_max
    }
}

/// Files that a dry run lists.
const LISTED_MAX: usize = 10_000;

/// What was brought back.
#[derive(Clone, Debug, Default)]
pub struct Restored {
    /// How many files.
    pub files: u64,
    /// How many bytes.
    pub bytes: u64,
    /// What has to be looked at in the folder now.
    pub touched: BTreeMap<RelPath, Depth>,
    /// What would be brought back, and whether something lies there now.
    pub listed: Vec<(Version, bool)>,
    /// What has to be taken from peers first. Where there is any, nothing was done.
    pub wanted: Vec<(DeviceId, Former)>,
    /// The peers that something was taken from.
    pub from: BTreeSet<DeviceId>,
}

/// A conflict that is to be settled.
#[derive(Clone, Debug)]
pub struct Settle {
    /// The path or its copy.
    pub path: RelPath,
    /// Which side stays.
    pub keep: Keep,
}

type Engine = Folder<SqliteIndex>;
type Answer<T> = Result<Result<T, String>, StoreError>;

/// Brings back former versions. The inner error is for the person who asked.
///
/// What lies in the place of one goes to history, or beside it where history would not keep it. Where a content has yet
/// to be taken from a peer, nothing is done: first all of it must be here.
pub fn restore(
    engine: &mut Engine,
    root: &Root,
    wish: &Restore,
    bounds: Bounds,
    device: DeviceId,
    now: Now,
) -> Answer<Restored> {
    let chosen = choose_all(engine, wish)?;
    let mut restored = Restored::default();
    if !wish.dry_run {
        restored.wanted = chosen.iter().filter_map(|(version, _)| wish.missing(version)).collect();
        if !restored.wanted.is_empty() {
            return Ok(Ok(restored));
        }
    }
    let mut done_paths = BTreeSet::new();
    for (version, local) in chosen {
        let is_live = local.as_ref().is_some_and(|l| l.record.body.is_live());
        let size = size_of(&version.kept.body);
        done_paths.insert(version.kept.path.clone());
        restored.from.extend(version.holder);
        let done = match &wish.to {
            _ if wish.dry_run => {
                if restored.listed.len() < LISTED_MAX {
                    restored.listed.push((version, is_live && wish.to.is_none()));
                }
                Ok(())
            }
            Some(to) => copy_out(root, wish, &version, to),
            None => put_back(engine, root, wish, &version, local, (bounds, device, now), &mut restored.touched)?,
        };
        if let Err(error) = done {
            return Ok(Err(error));
        }
        restored.files += 1;
        restored.bytes += size;
    }
    let has_past = restored.files > 0;
    if let (Some(at), Some(to), false) = (wish.at_ns, &wish.to, wish.dry_run)
        && let Err(error) = copy_unchanged(engine, root, wish.path.as_ref(), at, to, &done_paths, &mut restored)?
    {
        return Ok(Err(error));
    }
    let is_there = match &wish.path {
        Some(path) => engine.index().local(path)?.is_some_and(|l| l.record.body.is_live()),
        None => true,
    };
    if !has_past && restored.files == 0 && !(is_there && wish.at_ns.is_some()) {
        return Ok(Err(NOTHING_KEPT.to_owned()));
    }
    Ok(Ok(restored))
}

/// What a person reads where there is no former version.
pub const NOTHING_KEPT: &str = "no former version is kept here";

/// Chooses of each path the version that is meant, if there is one, and says what lies there now.
fn choose_all(engine: &Engine, wish: &Restore) -> Result<Vec<(Version, Option<Local>)>, StoreError> {
    let mut by_path: BTreeMap<RelPath, Vec<Version>> = BTreeMap::new();
    if wish.account != Account::Theirs {
        let own = engine.index().kept(wish.path.as_ref(), true)?;
        for kept in own.into_iter().filter(|kept| kept.file.is_some()) {
            by_path.entry(kept.path.clone()).or_default().push(Version { kept, holder: None });
        }
    }
    for (holder, former) in &wish.theirs {
        by_path.entry(former.path.clone()).or_default().push(Version::of_peer(*holder, former));
    }
    let mut chosen = Vec::new();
    for (path, versions) in by_path {
        let local = engine.index().local(&path)?;
        if let Some(version) = choose(wish, versions, local.as_ref()) {
            chosen.push((version, local));
        }
    }
    Ok(chosen)
}

/// Chooses the version of one path that is meant.
///
/// Where the account of this device counts, what it knows goes before what peers say: since when its own record has been
/// here, and the same content that it keeps itself.
fn choose(wish: &Restore, mut versions: Vec<Version>, local: Option<&Local>) -> Option<Version> {
    let is_live = local.is_some_and(|local| local.record.body.is_live());
    if wish.account == Account::All {
        let is_known = |version: &Version| match (local, wish.at_ns) {
            (Some(local), Some(at)) => local.since_ns <= at,
            (Some(local), None) => local.record.body.is_same_content(&version.kept.body),
            (None, _) => false,
        };
        versions.retain(|version| version.holder.is_none() || !is_known(version));
    }
    let chosen = match wish.at_ns {
        // The one that lay there then; else the one that was put aside first after that moment.
        Some(at) => {
            versions.retain(|version| version.kept.until_ns > at);
            versions.iter().min_by_key(|version| {
                let kept = &version.kept;
                (kept.since_ns > at, version.holder.is_some(), kept.until_ns)
            })
        }
        None if !is_live || wish.path.as_ref() == versions.first().map(|version| &version.kept.path) => {
            versions.iter().max_by_key(|version| (version.kept.until_ns, version.holder.is_none()))
        }
        None => None,
    }?;
    let is_same = |version: &&Version| version.holder.is_none() && version.kept.body.is_same_content(&chosen.kept.body);
    Some(versions.iter().find(is_same).unwrap_or(chosen).clone())
}

impl Restore {
    /// Returns what has to be taken from a peer for a version, and was not yet.
    fn missing(&self, version: &Version) -> Option<(DeviceId, Former)> {
        let holder = version.holder.filter(|_| version.kept.body.file().is_some())?;
        let Kept { path, body, by, since_ns, until_ns, .. } = version.kept.clone();
        self.stage_of(version).is_none().then_some((holder, Former { path, body, by, since_ns, until_ns }))
    }

    /// Returns the staging file that has the content of a peer's version.
    fn stage_of(&self, version: &Version) -> Option<StageId> {
        let kept = &version.kept;
        let stage = self.taken.get(&(version.holder?, kept.path.clone(), kept.until_ns))?;
        (stage.content == kept.body.file()?.content).then_some(*stage)
    }
}

/// Copies a former version out of the folder.
fn copy_out(root: &Root, wish: &Restore, version: &Version, to: &Path) -> Result<(), String> {
    let kept = &version.kept;
    let target = below(wish.path.as_ref(), &kept.path, to);
    make_dirs(&target)?;
    let copied = match (&kept.file, &kept.body, wish.stage_of(version)) {
        (Some(file), _, _) => kept_files::copy_out(root, file, &target),
        (None, Body::File(body), Some(stage)) => kept_files::copy_staged_out(root, stage, body, &target),
        (None, Body::Symlink { target: link }, _) => {
            std::os::unix::fs::symlink(std::ffi::OsStr::from_bytes(link), &target)
        }
        _ => Err(io::ErrorKind::NotFound.into()),
    };
    copied.map_err(|error| format!("cannot write {}: {error}", target.display()))
}

/// Returns where a path belongs when `top` is put at `to`.
fn below(top: Option<&RelPath>, path: &RelPath, to: &Path) -> PathBuf {
    match top {
        Some(top) if top == path => to.to_owned(),
        Some(top) => match path.as_path().strip_prefix(top.as_path()) {
            Ok(rest) => to.join(rest),
            Err(_) => to.join(path.as_path()),
        },
        None => to.join(path.as_path()),
    }
}

fn make_dirs(target: &Path) -> Result<(), String> {
    match target.parent() {
        Some(dir) => std::fs::create_dir_all(dir).map_err(|error| format!("cannot make {}: {error}", dir.display())),
        None => Ok(()),
    }
}

/// Copies what has not changed since then and so has no former version.
fn copy_unchanged(
    engine: &Engine,
    root: &Root,
    top: Option<&RelPath>,
    at_ns: i64,
    to: &Path,
    done: &BTreeSet<RelPath>,
    restored: &mut Restored,
) -> Answer<()> {
    let mut dirs = Vec::new();
    let mut here = match top {
        Some(top) => engine.index().local(top)?.into_iter().collect(),
        None => engine.index().children(None)?,
    };
    loop {
        for local in here {
            if local.ignored || local.since_ns > at_ns {
                continue;
            }
            let path = &local.record.path;
            match &local.record.body {
                Body::Dir { .. } => dirs.push(path.clone()),
                Body::File(_) if done.contains(path) => {}
                Body::File(file) => {
                    let target = below(top, path, to);
                    if let Err(error) = make_dirs(&target) {
                        return Ok(Err(error));
                    }
                    let copied = std::fs::copy(root.path().join(path.as_path()), &target);
                    if let Err(error) = copied {
                        return Ok(Err(format!("cannot write {}: {error}", target.display())));
                    }
                    restored.files += 1;
                    restored.bytes += file.size;
                }
                Body::Symlink { .. } | Body::Tombstone => {}
            }
        }
        let Some(dir) = dirs.pop() else {
            return Ok(Ok(()));
        };
        here = engine.index().children(Some(&dir))?;
    }
}

/// Puts a former version back in its place.
fn put_back(
    engine: &mut Engine,
    root: &Root,
    wish: &Restore,
    version: &Version,
    local: Option<Local>,
    (bounds, device, now): (Bounds, DeviceId, Now),
    touched: &mut BTreeMap<RelPath, Depth>,
) -> Answer<()> {
    let kept = &version.kept;
    let path = &kept.path;
    let by = DeviceTag::of(&device);
    if let Err(error) = make_parents(root, path, by, now, touched) {
        return Ok(Err(error));
    }
    let there = local.as_ref().filter(|l| l.record.body.is_live()).and_then(|l| l.stat);
    let expect = there.map_or(Expect::Absent, Expect::Stat);
    // What came here against a change made here was never asked for: whoever restores may not know it.
    let displaced = match &local {
        Some(local) if engine.won_here(local) || !bounds.keeps(size_of(&local.record.body)) => {
            let time_ns = conflict::time_of(&local.record.body);
            Displaced::Copy(conflict::copy_path(path, time_ns, local.record.by, 1))
        }
        _ => Displaced::History,
    };
    let (mode, mtime_ns) = kept.body.file().map_or((0o777, 0), |file| (file.mode, file.mtime_ns));
    let place = match (&kept.body, wish.stage_of(version)) {
        (Body::File(body), Some(stage)) => Some(Action::Place { stage, body: *body }),
        (Body::Symlink { target }, _) => Some(Action::MakeSymlink { target: target.clone() }),
        _ => None,
    };
    let outcome = match (&kept.file, place) {
        (Some(file), _) => {
            let origin = Origin::Kept(file);
            let file = RestoreFile { origin, path, expect, displaced: &displaced, mode, mtime_ns, by };
            kept_files::restore(root, &file, now.wall_ns)
        }
        (None, Some(action)) => {
            let item = CommitItem { path: path.clone(), expect, action, displaced, by, dir_dev: None };
            commit(root, &[item], now.wall_ns).pop().unwrap_or(CommitOutcome::Mismatch)
        }
        (None, None) => CommitOutcome::Mismatch,
    };
    touched.insert(path.clone(), Depth::Entry);
    match outcome {
        CommitOutcome::Done { kept: former, aside, .. } => {
            if let (Some(file), Some(local)) = (former, local) {
                keep(engine, &local, file, now)?;
            }
            touched.extend(aside.map(|(copy, _)| (copy, Depth::Entry)));
            Ok(Ok(()))
        }
        other => Ok(Err(format!("{path}: {}", why(&other)))),
    }
}

fn size_of(body: &Body) -> u64 {
    body.file().map_or(0, |file| file.size)
}

fn keep(engine: &mut Engine, local: &Local, file: String, now: Now) -> Result<(), StoreError> {
    let record = &local.record;
    engine.index_mut().add_kept(&Kept {
        path: record.path.clone(),
        body: record.body.clone(),
        by: record.by,
        since_ns: local.since_ns,
        until_ns: now.wall_ns,
        file: Some(file),
    })
}

fn make_parents(
    root: &Root,
    path: &RelPath,
    by: DeviceTag,
    now: Now,
    touched: &mut BTreeMap<RelPath, Depth>,
) -> Result<(), String> {
    let mut dirs: Vec<_> = path.ancestors().filter(|dir| !touched.contains_key(dir)).collect();
    dirs.reverse();
    for dir in dirs {
        let item = CommitItem {
            path: dir.clone(),
            expect: Expect::Absent,
            action: Action::MakeDir { mode: 0o755 },
            displaced: Displaced::History,
            by,
            dir_dev: None,
        };
        match commit(root, &[item], now.wall_ns).into_iter().next() {
            // It is there already, or now.
            Some(CommitOutcome::Done { .. } | CommitOutcome::Mismatch) => {
                touched.insert(dir, Depth::Entry);
            }
            Some(other) => return Err(format!("{dir}: {}", why(&other))),
            None => {}
        }
    }
    Ok(())
}

fn why(outcome: &CommitOutcome) -> String {
    match outcome {
        CommitOutcome::Done { .. } => "done".into(),
        CommitOutcome::Mismatch => "it changed at this moment; try again".into(),
        CommitOutcome::NotEmpty => "a directory that is not empty lies there".into(),
        CommitOutcome::NoParent => "its directory is missing".into(),
        CommitOutcome::OtherFileSystem => "its directory lies on another file system than it did".into(),
        CommitOutcome::Failed(_, detail) => detail.clone(),
    }
}

/// Settles a conflict. Returns what has to be looked at; the inner error is for the person who asked.
pub fn settle(
    engine: &mut Engine,
    root: &Root,
    wish: &Settle,
    device: DeviceId,
    now: Now,
) -> Answer<BTreeMap<RelPath, Depth>> {
    let own = DeviceTag::of(&device);
    let (copy, original) = match find_conflict(engine, &wish.path)? {
        Ok(found) => found,
        Err(error) => return Ok(Err(error)),
    };
    let copy = &copy;
    let there = engine.index().local(&original)?.filter(|l| l.record.body.is_live());
    let stays_copy = match wish.keep {
        Keep::Both => return keep_both(engine, root, copy, &original, own, now),
        Keep::Merged if there.is_none() => return Ok(Err("nothing lies there that could be a merged file".to_owned())),
        Keep::Merged => false,
        Keep::Mine => copy.record.by == own,
        Keep::Theirs => copy.record.by != own,
    };
    let (Some(copy_stat), body) = (copy.stat, copy.record.body.file().copied()) else {
        return Ok(Err("the copy is not there".to_owned()));
    };
    let item = match (stays_copy, body) {
        (true, Some(body)) => CommitItem {
            path: original.clone(),
            expect: there.as_ref().and_then(|l| l.stat).map_or(Expect::Absent, Expect::Stat),
            action: Action::Move { from: copy.record.path.clone(), stat: copy_stat, body },
            displaced: Displaced::History,
            by: own,
            dir_dev: None,
        },
        (true, None) => return Ok(Err("only files can take each other's place; rename it by hand".to_owned())),
        (false, _) => CommitItem {
            path: copy.record.path.clone(),
            expect: Expect::Stat(copy_stat),
            action: Action::Remove,
            displaced: Displaced::History,
            by: own,
            dir_dev: None,
        },
    };
    let replaced = if stays_copy { there } else { Some(copy.clone()) };
    match commit(root, &[item], now.wall_ns).into_iter().next() {
        Some(CommitOutcome::Done { kept, .. }) => {
            if let (Some(file), Some(local)) = (kept, replaced) {
                keep(engine, &local, file, now)?;
            }
            Ok(Ok(BTreeMap::from([(original, Depth::Entry), (copy.record.path.clone(), Depth::Entry)])))
        }
        Some(other) => Ok(Err(why(&other))),
        None => Ok(Err("nothing was done".to_owned())),
    }
}

/// Finds the one conflict copy at or of a path, and the path that it is a copy of.
pub(super) fn find_conflict(engine: &Engine, path: &RelPath) -> Answer<(Local, RelPath)> {
    let mut copies: Vec<Local> = engine.index().conflicts()?;
    // A copy that has copies of its own is meant itself where it is named.
    let is_named = copies.iter().any(|copy| copy.record.path == *path);
    let is_meant = |copy: &Local| match is_named {
        true => copy.record.path == *path,
        false => conflict::is_copy_of(&copy.record.path, path),
    };
    copies.retain(is_meant);
    let found = copies.len();
    let Some(copy) = copies.pop().filter(|_| found == 1) else {
        return Ok(Err(match found {
            0 => "that path has no conflict".to_owned(),
            _ => format!("that path has {found} conflict copies; name the copy that you mean"),
        }));
    };
    match conflict::original(engine.index(), &copy.record.path)? {
        Some(original) => Ok(Ok((copy, original))),
        None => Ok(Err("that is no conflict copy".to_owned())),
    }
}

/// Puts a merged text in the place of what lies there, and the conflict copy away. Returns what has to be looked at;
/// the inner error is for the person who asked.
///
/// Both sides are in history afterwards. A crash in between leaves the merged text and the copy, and merging these
/// again changes nothing but that the copy goes.
pub(super) fn put_merged(
    engine: &mut Engine,
    root: &Root,
    merged: &Merged,
    bounds: Bounds,
    device: DeviceId,
    now: Now,
) -> Answer<BTreeMap<RelPath, Depth>> {
    let Sides { copy, there } = &merged.sides;
    for side in [copy, there] {
        if engine.index().local(&side.record.path)?.as_ref() != Some(side) {
            return Ok(Err(format!("{}: it changed at this moment; try again", side.record.path)));
        }
        if !bounds.keeps(size_of(&side.record.body)) {
            return Ok(Err("history would not keep both sides, since it is off or too small; merge them by hand, \
                           then `kinfold conflicts keep PATH merged`"
                .to_owned()));
        }
    }
    let path = &there.record.path;
    let file = RestoreFile {
        origin: Origin::Bytes(&merged.text),
        path,
        expect: there.stat.map_or(Expect::Absent, Expect::Stat),
        displaced: &Displaced::History,
        mode: there.record.body.file().map_or(0o644, |file| file.mode),
        mtime_ns: now.wall_ns,
        by: DeviceTag::of(&device),
    };
    match kept_files::restore(root, &file, now.wall_ns) {
        CommitOutcome::Done { kept, .. } => {
            if let Some(file) = kept {
                keep(engine, there, file, now)?;
            }
        }
        other => return Ok(Err(format!("{path}: {}", why(&other)))),
    }
    settle(engine, root, &Settle { path: copy.record.path.clone(), keep: Keep::Merged }, device, now)
}

/// Gives the copy an ordinary name: the original's, with who made it.
fn keep_both(
    engine: &Engine,
    root: &Root,
    copy: &Local,
    original: &RelPath,
    own: DeviceTag,
    now: Now,
) -> Answer<BTreeMap<RelPath, Depth>> {
    let (Some(stat), Some(body)) = (copy.stat, copy.record.body.file().copied()) else {
        return Ok(Err("only files can be renamed so; rename it by hand".to_owned()));
    };
    let name = original.name();
    let (stem, extension) = match name.iter().rposition(|b| *b == b'.') {
        Some(at) if at > 0 => name.split_at(at),
        _ => (name, &b""[..]),
    };
    for number in 1..100 {
        let mark =
            if number == 1 { format!(" ({})", copy.record.by) } else { format!(" ({} {number})", copy.record.by) };
        let Ok(path) = original.with_name(&[stem, mark.as_bytes(), extension].concat()) else {
            return Ok(Err("the name would be too long; rename it by hand".to_owned()));
        };
        if engine.index().local(&path)?.is_some_and(|l| l.record.body.is_live()) {
            continue;
        }
        let item = CommitItem {
            path: path.clone(),
            expect: Expect::Absent,
            action: Action::Move { from: copy.record.path.clone(), stat, body },
            displaced: Displaced::History,
            by: own,
            dir_dev: None,
        };
        match commit(root, &[item], now.wall_ns).into_iter().next() {
            Some(CommitOutcome::Done { .. }) => {
                return Ok(Ok(BTreeMap::from([(path, Depth::Entry), (copy.record.path.clone(), Depth::Entry)])));
            }
            Some(CommitOutcome::Mismatch) => {}
            Some(other) => return Ok(Err(why(&other))),
            None => {}
        }
    }
    Ok(Err("no free name was found; rename it by hand".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::id::{ContentId, Sequence};
    use crate::model::record::{FileBody, Record};
    use crate::model::version::VersionVector;

    const HERE: Option<DeviceId> = None;

    fn peer() -> Option<DeviceId> {
        Some(DeviceId::from_public_key([2; 32]))
    }

    fn body(content: u8) -> Body {
        Body::File(FileBody { mode: 0o644, mtime_ns: 0, size: 3, content: ContentId([content; 32]) })
    }

    /// A version that lay there from `since_ns` until `until_ns`.
    fn version(holder: Option<DeviceId>, content: u8, since_ns: i64, until_ns: i64) -> Version {
        let (path, file) = (RelPath::parse(b"f").unwrap(), holder.is_none().then(String::new));
        let kept = Kept { path, body: body(content), by: DeviceTag([0; 5]), since_ns, until_ns, file };
        Version { kept, holder }
    }

    /// What lies there since then.
    fn local(content: u8, since_ns: i64) -> Local {
        let (path, by) = (RelPath::parse(b"f").unwrap(), DeviceTag([0; 5]));
        let record = Record { path, version: VersionVector::default(), by, body: body(content) };
        Local { record, sequence: Sequence(1), stat: None, ignored: false, since_ns }
    }

    fn chosen(account: Account, at_ns: Option<i64>, versions: &[Version]) -> Option<(Option<DeviceId>, u8)> {
        let wish = Restore {
            path: Some(RelPath::parse(b"f").unwrap()),
            at_ns,
            to: None,
            dry_run: true,
            account,
            theirs: Vec::new(),
            taken: BTreeMap::new(),
        };
        let version = choose(&wish, versions.to_vec(), Some(&local(9, 30)))?;
        Some((version.holder, version.kept.body.file()?.content.0[0]))
    }

    #[test]
    fn what_this_device_knows_goes_before_what_peers_say() {
        let check = |at_ns, versions: &[Version], expected| {
            assert_eq!(chosen(Account::All, at_ns, versions), expected, "{at_ns:?} {versions:?}");
        };
        let (own, theirs) = (version(HERE, 1, 10, 20), version(peer(), 2, 0, 10));
        // What lay there at that moment, whoever keeps it; what both keep comes from here.
        check(Some(15), &[own.clone(), theirs.clone()], Some((HERE, 1)));
        check(Some(5), &[own.clone(), theirs.clone()], Some((peer(), 2)));
        check(Some(15), &[version(peer(), 1, 11, 21), own.clone()], Some((HERE, 1)));
        // Nobody knows of that moment: what came next, from here rather.
        check(Some(-5), &[own.clone(), version(peer(), 2, 0, 10)], Some((HERE, 1)));
        // Since then it lies here, so nothing was other than it is, though a peer heard of it later.
        check(Some(30), &[own.clone(), version(peer(), 1, 11, 31)], None);
        // Before the last change: the newest, but for what lies there now.
        check(None, &[own.clone(), theirs], Some((HERE, 1)));
        check(None, &[own.clone(), version(peer(), 2, 20, 30)], Some((peer(), 2)));
        check(None, &[own.clone(), version(peer(), 9, 20, 30)], Some((HERE, 1)));
        check(None, &[own, version(peer(), 1, 11, 31)], Some((HERE, 1)));
    }

    #[test]
    fn the_account_of_a_peer_that_was_named_counts_as_it_is() {
        let check = |at_ns, expected| {
            let versions = [version(peer(), 1, 100, 110), version(peer(), 2, 110, 120)];
            assert_eq!(chosen(Account::Theirs, at_ns, &versions), expected, "{at_ns:?}");
        };
        // By its clock, which may be another than ours.
        check(Some(105), Some((peer(), 1)));
        check(Some(110), Some((peer(), 2)));
        check(Some(120), None);
        check(None, Some((peer(), 2)));
    }
}
