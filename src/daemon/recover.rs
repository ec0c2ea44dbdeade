//! Puts what a crash left where it belongs.
//!
//! There is no journal beside the index, for the index is one: what is held at each path and what peers
//! hold there is durable before a commit begins, and what the commit was to do follows from it. What
//! left its place lies in history, with or without a row (`disk::batch`). So each file there that the
//! index does not know is compared with what the index holds at its path, with what lies there and with
//! what peers have there:
//!
//! * It is what the index holds, and something else lies there: it was replaced. It gets its row; or, if
//!   it was the loser of a conflict, it becomes a conflict copy.
//! * It is what the index holds, and nothing lies there: it was removed. If a peer removed it, it gets its
//!   row, and the scan will agree with that peer. Else nobody is known to have wanted it gone, and it is
//!   put back: what a crash made of a name is never taken for a person's deletion.
//! * It is what a peer has there: it was on its way in, and is staged again.
//! * It is anything else, where the index holds something: an edit that nobody had seen. It goes back if
//!   nothing lies there, and becomes a conflict copy if something does.
//! * The index holds nothing there, as when it was lost: it gets a row with what can be known.
//!
//! Nothing that could be a person's is removed here. Doing it twice is as good as once.

use std::collections::BTreeSet;
use std::io;

use crate::disk::history::list;
use crate::disk::leftover::{self, Leftover};
use crate::disk::probe::probe;
use crate::disk::root::Root;
use crate::engine::conflict::{copy_path, time_of};
use crate::engine::effect::Found;
use crate::engine::index::{Index, Kept, Local};
use crate::engine::reconcile::{Verdict, reconcile};
use crate::model::id::{ContentId, DeviceTag};
use crate::model::limits;
use crate::model::path::RelPath;
use crate::model::record::{Body, FileBody};
use crate::model::stat::{Kind, Stat};
use crate::store::error::StoreError;
use crate::store::index::SqliteIndex;

/// What happened to something that left its place and was found in history.
#[derive(Clone, Debug, Eq, PartialEq)]
enum Deed {
    /// It has a row now.
    Kept,
    /// It is back where it was.
    PutBack,
    /// It is back where it was, and what lay there instead is in history now, under the same name.
    SwappedBack,
    /// It became a conflict copy.
    Aside,
    /// It was on its way in: it is staged, or was made again by whoever needs it.
    Draft,
    /// It is not one of ours.
    Left,
}

/// Sees to all that lies in history and that the index does not know.
///
/// # Errors
/// The index failed. Trouble with a file is told in the log, and the file stays where it is.
pub fn recover(index: &mut SqliteIndex, root: &Root, folder: &str, own: DeviceTag) -> Result<(), StoreError> {
    let mut names: BTreeSet<String> = match list(root) {
        Ok(names) => names.into_iter().collect(),
        Err(error) => {
            tracing::warn!(folder, %error, "history cannot be listed");
            return Ok(());
        }
    };
    if names.is_empty() {
        return Ok(());
    }
    index.take_out_known(&mut names)?;
    let (mut kept, mut changed) = (0_u64, false);
    for name in names {
        // Once more for what came in the place of a directory; what comes after that is a person's doing.
        for _ in 0..2 {
            let case = Case::of(index, root, &name, own)?;
            let deed = match case.map(|case| case.settle(index, root)).transpose()? {
                Some(Ok(deed)) => deed,
                Some(Err(error)) => {
                    tracing::warn!(folder, name, %error, "what lies in history cannot be put back");
                    break;
                }
                None => break,
            };
            kept += u64::from(deed == Deed::Kept);
            changed |= !matches!(deed, Deed::Kept | Deed::Left);
            tracing::debug!(folder, name, ?deed, "found in history");
            if deed != Deed::SwappedBack {
                break;
            }
        }
    }
    if kept > 0 {
        tracing::info!(folder, kept, "found former versions that the index did not know");
    }
    if changed && let Err(error) = root.sync() {
        tracing::warn!(folder, %error, "the file system cannot be flushed");
    }
    Ok(())
}

/// Something in history that the index does not know.
struct Case<'a> {
    name: &'a str,
    it: Leftover,
    until_ns: i64,
    path: RelPath,
    local: Option<Local>,
    /// What lies at the path now.
    found: Option<Stat>,
    /// This device, in the names of conflict copies of what nobody had seen.
    own: DeviceTag,
}

type Settled = Result<io::Result<Deed>, StoreError>;

impl<'a> Case<'a> {
    /// Finds out what can be known; `None` where it is not one of ours or cannot be looked at.
    fn of(index: &SqliteIndex, root: &Root, name: &'a str, own: DeviceTag) -> Result<Option<Self>, StoreError> {
        let (Some(until_ns), Ok(Some(it))) = (leftover::left_at(name), leftover::look(root, name)) else {
            return Ok(None);
        };
        let lay = leftover::origin(name).map(|(_, path)| path);
        let mut local = lay.as_ref().map(|path| index.local(path)).transpose()?.flatten();
        if !is_held(local.as_ref(), &it.stat) {
            // Its name is cut, or it was on its way to another path.
            let same = index.by_inode(it.stat.dev, it.stat.ino, limits::LINKS_MAX)?;
            let same = same.into_iter().find(|same| is_held(Some(same), &it.stat));
            local = same.or(local);
        }
        let Some(path) = local.as_ref().map(|local| local.record.path.clone()).or(lay) else {
            return Ok(None);
        };
        let found = match probe(root, &path) {
            Ok(Some(Found::Entry(stat) | Found::Symlink(stat, _))) => Some(stat),
            Ok(None) => None,
            // Something that cannot be told: nothing is done near it.
            Ok(Some(_)) | Err(_) => return Ok(None),
        };
        Ok(Some(Self { name, it, until_ns, path, local, found, own }))
    }

    fn settle(self, index: &mut SqliteIndex, root: &Root) -> Settled {
        if self.it.stat.kind == Kind::Dir {
            return Ok(self.settle_dir(root));
        }
        if self.it.stat.kind == Kind::Special {
            return Ok(Ok(Deed::Left));
        }
        if self.found.is_some_and(|found| (found.dev, found.ino) == (self.it.stat.dev, self.it.stat.ino)) {
            // The second name of a file that was not replaced after all.
            return Ok(leftover::remove(root, self.name).map(|()| Deed::Draft));
        }
        if is_held(self.local.as_ref(), &self.it.stat) {
            return self.settle_held(index, root);
        }
        let (is_draft, body) = match self.is_of_a_peer(index, root)? {
            Ok(known) => known,
            Err(error) => return Ok(Err(error)),
        };
        if is_draft {
            let done = match body.file() {
                Some(file) => leftover::stage_again(root, self.name, file.content),
                None => leftover::remove(root, self.name),
            };
            return Ok(done.map(|()| Deed::Draft));
        }
        let is_live = self.local.as_ref().is_some_and(|local| local.record.body.is_live() && !local.ignored);
        match (is_live, self.found) {
            (true, None) => self.put_back(index, root, body),
            // What the index holds was not touched: this was never in its place.
            (true, Some(found)) if self.local.as_ref().and_then(|local| local.stat) != Some(found) => {
                let own = self.own;
                self.put_aside(index, root, body, own)
            }
            _ => self.keep(index, body),
        }
    }

    /// It is what the index holds.
    fn settle_held(self, index: &mut SqliteIndex, root: &Root) -> Settled {
        let Some(local) = &self.local else { return Ok(Ok(Deed::Left)) };
        let (body, by) = (local.record.body.clone(), local.record.by);
        let remotes: Vec<_> = index.remotes(&self.path)?.into_iter().map(|(_, remote)| remote.record).collect();
        if self.found.is_none() {
            let is_removed = remotes
                .iter()
                .any(|remote| !remote.body.is_live() && reconcile(Some(&local.record), remote) == Ok(Verdict::Take));
            return if is_removed { self.keep(index, body) } else { self.put_back(index, root, body) };
        }
        let has_lost = remotes.iter().any(|remote| {
            matches!(reconcile(Some(&local.record), remote), Ok(Verdict::Yield { .. }))
                && !remote.body.is_same_content(&body)
        });
        if has_lost { self.put_aside(index, root, body, by) } else { self.keep(index, body) }
    }

    /// A directory is in history only while it and a file change places.
    fn settle_dir(&self, root: &Root) -> io::Result<Deed> {
        match leftover::remove(root, self.name) {
            Ok(()) => return Ok(Deed::Draft),
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => {}
            Err(error) => return Err(error),
        }
        // Somebody put something into it at that moment. What took its place comes out again.
        let (is_back, deed) = match self.found {
            None => (leftover::put_back(root, self.name, &self.path)?, Deed::PutBack),
            Some(_) => (leftover::swap_back(root, self.name, &self.path)?, Deed::SwappedBack),
        };
        Ok(if is_back { deed } else { Deed::Left })
    }

    /// Returns whether it is what a peer has there, and what it is.
    fn is_of_a_peer(&self, index: &SqliteIndex, root: &Root) -> Result<io::Result<(bool, Body)>, StoreError> {
        let stat = &self.it.stat;
        let mut body = match &self.it.link {
            Some(target) => Body::Symlink { target: target.clone() },
            None => {
                let content = ContentId([0; 32]);
                Body::File(FileBody { mode: stat.mode, mtime_ns: stat.mtime_ns, size: stat.size, content })
            }
        };
        let remotes = index.remotes(&self.path)?;
        if let Body::File(file) = &mut body {
            let has_size = |body: &Body| body.file().is_some_and(|theirs| theirs.size == file.size);
            if !remotes.iter().any(|(_, remote)| has_size(&remote.record.body)) {
                return Ok(Ok((false, body)));
            }
            match leftover::content(root, self.name) {
                Ok(content) => file.content = content.unwrap_or(file.content),
                Err(error) => return Ok(Err(error)),
            }
        }
        Ok(Ok((remotes.iter().any(|(_, remote)| remote.record.body.is_same_content(&body)), body)))
    }

    fn keep(self, index: &mut SqliteIndex, body: Body) -> Settled {
        let of_local = self.local.filter(|local| local.record.body == body);
        index.add_kept(&Kept {
            path: self.path,
            by: of_local.as_ref().map(|local| local.record.by).unwrap_or_default(),
            since_ns: of_local.map_or(self.until_ns, |local| local.since_ns),
            until_ns: self.until_ns,
            file: Some(self.name.to_owned()),
            body,
        })?;
        Ok(Ok(Deed::Kept))
    }

    fn put_back(self, index: &mut SqliteIndex, root: &Root, body: Body) -> Settled {
        match leftover::put_back(root, self.name, &self.path) {
            Ok(true) => Ok(Ok(Deed::PutBack)),
            Ok(false) => self.keep(index, body),
            Err(error) => Ok(Err(error)),
        }
    }

    fn put_aside(self, index: &mut SqliteIndex, root: &Root, body: Body, by: DeviceTag) -> Settled {
        let time_ns = time_of(&body);
        let first = index.local(&copy_path(&self.path, time_ns, by, 1))?;
        if first.is_some_and(|there| there.record.body.is_same_content(&body)) {
            return self.keep(index, body);
        }
        match leftover::put_aside(root, self.name, &self.path, time_ns, by) {
            Ok(Some(_)) => Ok(Ok(Deed::Aside)),
            Ok(None) => self.keep(index, body),
            Err(error) => Ok(Err(error)),
        }
    }
}

/// Returns whether a file is what the index holds; to be renamed has changed nothing but its change time.
fn is_held(local: Option<&Local>, stat: &Stat) -> bool {
    let known = |stat: &Stat| (stat.kind, stat.dev, stat.ino, stat.size, stat.mtime_ns, stat.mode);
    let held = local.filter(|local| local.record.body.is_live() && !local.ignored).and_then(|local| local.stat);
    held.is_some_and(|held| known(&held) == known(stat))
}
