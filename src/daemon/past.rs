//! The past of a path, out of the histories of this device and of others.
//!
//! Here it is decided who is asked, and what a person reads where somebody cannot be: what is done with the answers
//! stands in `daemon::history`, on the folder's own thread. Everything is asked of all at the same time, so that one that
//! does not answer costs its patience once.
//!
//! Unasked, only devices that may change the folder are heard: what a device says of the past cannot be checked, and one
//! that may only read would else have found a way to change what lies here. Whoever names it has decided to believe it.

use std::collections::BTreeMap;
use std::time::Duration;

use crossbeam_channel::Receiver;

use crate::control::types::{ApiError, ApiErrorKind, AskHistory, HistoryEntry, Restore, Restored, Time, WouldRestore};
use crate::daemon::api::{Asked, Daemon};
use crate::daemon::folder::Command;
use crate::daemon::history::{self, Account, NOTHING_KEPT, Version};
use crate::engine::effect::StageId;
use crate::engine::folder::PastError;
use crate::engine::index::Kept;
use crate::model::id::DeviceId;
use crate::model::limits;
use crate::model::path::RelPath;
use crate::model::record::{Body, FileBody};
use crate::wire::past::Former;

/// What this device is called where it is told who holds a version.
const HERE: &str = "here";
/// Longest time that contents of peers are waited for. Who sends nothing for a minute is given up long before.
const TAKE_WAIT_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// Whom a person asks.
enum Whom {
    Here,
    Peer(DeviceId),
}

/// Returns the kept states of a path, newest first.
pub(super) fn history(daemon: &Daemon, ask: &AskHistory) -> Result<Vec<HistoryEntry>, ApiError> {
    daemon.wait_started();
    let (asked, inside) = daemon.locate(ask.path.as_path())?;
    let whom = ask.from.as_deref().map(|name| whom(daemon, &asked, name)).transpose()?;
    let (kept, local) = asked.ask(|reply| Command::Kept(inside.clone(), false, reply))?;
    let mut held: Vec<(Version, Vec<String>)> = Vec::new();
    if !matches!(whom, Some(Whom::Peer(_))) {
        let own = kept.into_iter().filter(|kept| kept.file.is_some());
        held.extend(own.map(|kept| (Version { kept, holder: None }, vec![HERE.to_owned()])));
    }
    let theirs = match whom {
        Some(Whom::Peer(peer)) => ask_one(daemon, &asked, peer, inside.clone())?,
        None if ask.all => ask_all(daemon, &asked, inside.clone(), |_| true)?,
        Some(Whom::Here) | None => Vec::new(),
    };
    for (peer, former) in theirs.into_iter().filter(|(_, former)| Some(&former.path) == inside.as_ref()) {
        let name = daemon.device_ref(peer).name;
        let version = Version::of_peer(peer, &former);
        match held.iter_mut().find(|(there, _)| is_one(&there.kept, &version.kept)) {
            Some((_, holders)) if !holders.contains(&name) => holders.push(name),
            _ => held.push((version, vec![name])),
        }
    }
    if held.is_empty() && local.is_none() {
        let error = ApiError::new(ApiErrorKind::NotFound, format!("nothing is known of {}", ask.path));
        return Err(error.with_hint("check the spelling; --all asks the connected devices, too"));
    }
    let entry = |(Version { kept, holder }, held_by): (Version, Vec<String>)| HistoryEntry {
        time: Time::from_unix_ns(kept.since_ns),
        device: daemon.device_name(kept.by),
        size: kept.body.file().map_or(0, |file| file.size),
        kind: kind_of(&kept.body).to_owned(),
        path: asked.absolute(&kept.path),
        id: match (kept.file, holder) {
            (Some(file), _) => file,
            (None, Some(peer)) => format!("{}:{}", peer.short(), kept.until_ns),
            (None, None) => String::new(),
        },
        held_by,
    };
    let mut entries: Vec<HistoryEntry> = held.into_iter().map(entry).collect();
    entries.sort_by_key(|entry| std::cmp::Reverse(entry.time));
    Ok(entries)
}

/// Whether two devices keep the same state: each has seen it come and go at another moment.
fn is_one(a: &Kept, b: &Kept) -> bool {
    a.by == b.by && a.body.is_same_content(&b.body) && a.since_ns < b.until_ns && b.since_ns < a.until_ns
}

/// What to do where history has not what was asked for.
const SEE_HISTORY: &str = "`kinfold history PATH --all` lists what is kept, and where";

/// Brings back the past of a path, and of all below it.
pub(super) fn restore(daemon: &Daemon, restore: Restore) -> Result<Restored, ApiError> {
    daemon.wait_started();
    let (asked, path) = daemon.locate(restore.path.as_path())?;
    let at_ns =
        match restore.at {
            Some(at) => Some(i64::try_from(at.0.as_nanosecond()).map_err(|_| {
                ApiError::new(ApiErrorKind::Invalid, "no history reaches that far").with_hint(SEE_HISTORY)
            })?),
            None => None,
        };
    if path.is_none() && at_ns.is_none() {
        let error = ApiError::new(ApiErrorKind::Invalid, "say which time the whole folder is to be brought back to");
        return Err(error.with_hint("give --at TIME"));
    }
    let whom = restore.from.as_deref().map(|name| whom(daemon, &asked, name)).transpose()?;
    let (account, theirs) = match whom {
        Some(Whom::Here) => (Account::Own, Vec::new()),
        Some(Whom::Peer(peer)) => (Account::Theirs, ask_one(daemon, &asked, peer, path.clone())?),
        None => (Account::All, ask_all(daemon, &asked, path.clone(), |peer| may_write(daemon, &asked, peer))?),
    };
    let to = restore.to.map(|to| to.0);
    let dry_run = restore.dry_run;
    let mut wish = history::Restore { path, at_ns, to: to.clone(), dry_run, account, theirs, taken: BTreeMap::new() };
    let mut done = ask_restore(daemon, &asked, &wish)?;
    if !done.wanted.is_empty() {
        wish.taken = take(daemon, &asked, &done.wanted)?;
        let stages: Vec<StageId> = wish.taken.values().copied().collect();
        let restored = ask_restore(daemon, &asked, &wish);
        // What a commit has put in its place is not there any more.
        asked.tell(Command::Discard(stages))?;
        done = restored?;
        if !done.wanted.is_empty() {
            let error = ApiError::new(ApiErrorKind::Failed, "the folder changed meanwhile, and nothing was restored");
            return Err(error.with_hint("try again"));
        }
    }
    let listed = done.listed.into_iter().map(|(Version { kept, holder }, replaces)| WouldRestore {
        path: asked.absolute(&kept.path),
        time: Time::from_unix_ns(kept.since_ns),
        device: daemon.device_name(kept.by),
        size: kept.body.file().map_or(0, |file| file.size),
        replaces,
        from: holder.map(|peer| daemon.device_ref(peer).name),
    });
    Ok(Restored {
        files: done.files,
        bytes: done.bytes,
        to: to.map_or(restore.path, crate::control::types::RawPath),
        listed: listed.collect(),
        from: done.from.into_iter().map(|peer| daemon.device_ref(peer).name).collect(),
    })
}

fn ask_restore(daemon: &Daemon, asked: &Asked, wish: &history::Restore) -> Result<history::Restored, ApiError> {
    let done = asked.ask(|reply| Command::Restore(wish.clone(), reply))?;
    done.map_err(|error| {
        if error != NOTHING_KEPT {
            return ApiError::new(ApiErrorKind::Failed, error).with_hint(SEE_HISTORY);
        }
        match (wish.account, peers_of(daemon, asked).is_empty()) {
            (Account::Theirs, _) => ApiError::new(ApiErrorKind::Failed, "no former version is kept there")
                .with_hint("leave out --from to have all connected devices asked"),
            (Account::Own, _) => ApiError::new(ApiErrorKind::Failed, error)
                .with_hint("leave out --from to have all connected devices asked"),
            (Account::All, true) => ApiError::new(ApiErrorKind::Failed, error)
                .with_hint("a device that is not connected may keep one; `kinfold status` shows who is"),
            (Account::All, false) => {
                ApiError::new(ApiErrorKind::Failed, "no former version is kept here or on a connected device")
                    .with_hint(SEE_HISTORY)
            }
        }
    })
}

/// Takes contents from the peers that keep them, all or none.
fn take(
    daemon: &Daemon,
    asked: &Asked,
    wanted: &[(DeviceId, Former)],
) -> Result<BTreeMap<(DeviceId, RelPath, i64), StageId>, ApiError> {
    check_room(asked, wanted)?;
    let mut by_peer: BTreeMap<DeviceId, Vec<(&Former, FileBody)>> = BTreeMap::new();
    for (peer, former) in wanted {
        if let Some(body) = former.body.file() {
            by_peer.entry(*peer).or_default().push((former, *body));
        }
    }
    let (mut taken, mut failure) = (BTreeMap::new(), None);
    for (peer, versions) in by_peer {
        let files = versions.iter().map(|(former, body)| (former.path.clone(), *body)).collect();
        let answer = asked.begin(|reply| Command::TakeFormer(peer, files, reply))?;
        match answer.recv_timeout(TAKE_WAIT_MAX).map_err(|_| asked.gone()) {
            Ok(Ok(stages)) => taken.extend(
                versions.iter().zip(stages).map(|((former, _), at)| ((peer, former.path.clone(), former.until_ns), at)),
            ),
            Ok(Err(error)) => failure = Some(refusal(daemon, asked, peer, &error)),
            Err(error) => failure = Some(error),
        }
    }
    match failure {
        None => Ok(taken),
        Some(error) => {
            asked.tell(Command::Discard(taken.into_values().collect()))?;
            Err(error)
        }
    }
}

/// Refuses to begin what the disk has no room for: what a peer says of sizes costs nothing before.
fn check_room(asked: &Asked, wanted: &[(DeviceId, Former)]) -> Result<(), ApiError> {
    let sizes = wanted.iter().filter_map(|(_, former)| former.body.file()).map(|file| file.size);
    let needed = sizes.fold(0, u64::saturating_add);
    let free = rustix::fs::statvfs(&asked.path).map_or(u64::MAX, |fs| fs.f_bavail.saturating_mul(fs.f_frsize));
    if needed <= free {
        return Ok(());
    }
    let text = format!("that needs {needed} bytes on the disk of {}, and {free} are free", asked.name);
    Err(ApiError::new(ApiErrorKind::Unavailable, text).with_hint("make room, or restore a part of it"))
}

// ------------------------------------------------------------------------------------------- asking

/// Finds the device that a person names.
fn whom(daemon: &Daemon, asked: &Asked, name: &str) -> Result<Whom, ApiError> {
    let state = daemon.hub.lock();
    let Some(device) = state.config.devices.iter().find(|device| device.name == name).map(|device| device.id) else {
        if name == HERE || state.config.name == name {
            return Ok(Whom::Here);
        }
        let error = ApiError::new(ApiErrorKind::NotFound, format!("there is no device called {name}"));
        return Err(error.with_hint("`kinfold device list` shows them"));
    };
    let is_member = state.config.folder(&asked.id).is_some_and(|f| f.members.right_of(&device).is_some());
    if !is_member {
        let text = format!("{name} does not belong to the folder {}", asked.name);
        return Err(ApiError::new(ApiErrorKind::Unavailable, text).with_hint("`kinfold status` shows who does"));
    }
    if !state.sessions.contains_key(&device) {
        return Err(away(name));
    }
    Ok(Whom::Peer(device))
}

fn away(name: &str) -> ApiError {
    ApiError::new(ApiErrorKind::Unavailable, format!("{name} is not connected"))
        .with_hint(format!("start kinfold on {name}, or see `kinfold status` for why it is away; then try again"))
}

/// Returns the connected members of a folder.
fn peers_of(daemon: &Daemon, asked: &Asked) -> Vec<DeviceId> {
    let state = daemon.hub.lock();
    let is_member =
        |peer: &&DeviceId| state.config.folder(&asked.id).is_some_and(|folder| folder.members.right_of(peer).is_some());
    state.sessions.keys().filter(is_member).copied().collect()
}

fn may_write(daemon: &Daemon, asked: &Asked, peer: &DeviceId) -> bool {
    let state = daemon.hub.lock();
    let right = state.config.folder(&asked.id).and_then(|folder| folder.members.right_of(peer));
    right.is_some_and(|right| right.may_write())
}

/// Asks one device, which has to answer.
fn ask_one(
    daemon: &Daemon,
    asked: &Asked,
    peer: DeviceId,
    top: Option<RelPath>,
) -> Result<Vec<(DeviceId, Former)>, ApiError> {
    let answer = asked.ask(|reply| Command::AskHistory(peer, top, reply))?;
    let versions = answer.map_err(|error| refusal(daemon, asked, peer, &error))?;
    Ok(versions.into_iter().map(|former| (peer, former)).collect())
}

/// Asks all connected devices at once. Those that do not answer are left out.
fn ask_all(
    daemon: &Daemon,
    asked: &Asked,
    top: Option<RelPath>,
    counts: impl Fn(&DeviceId) -> bool,
) -> Result<Vec<(DeviceId, Former)>, ApiError> {
    type Waiting = (DeviceId, Receiver<Result<Vec<Former>, PastError>>);
    let peers = peers_of(daemon, asked).into_iter().filter(counts);
    let waiting: Vec<Waiting> = peers
        .map(|peer| Ok((peer, asked.begin(|reply| Command::AskHistory(peer, top.clone(), reply))?)))
        .collect::<Result<_, ApiError>>()?;
    let mut all = Vec::new();
    for (peer, answer) in waiting {
        match answer.recv().map_err(|_| asked.gone())? {
            Ok(versions) => all.extend(versions.into_iter().map(|former| (peer, former))),
            Err(error) => tracing::info!(device = %peer, %error, "a device was asked for its history"),
        }
    }
    Ok(all)
}

/// Says why a device's history cannot be had, and what to do.
fn refusal(daemon: &Daemon, asked: &Asked, peer: DeviceId, error: &PastError) -> ApiError {
    let name = daemon.device_ref(peer).name;
    let text = format!("{name} {error}");
    match error {
        PastError::Away => away(&name),
        PastError::Silent => ApiError::new(ApiErrorKind::Failed, text)
            .with_hint(format!("see whether {name} is busy, or runs an older kinfold")),
        PastError::TooMany => {
            ApiError::new(ApiErrorKind::Failed, format!("{text} ({} of them)", limits::HISTORY_VERSIONS_MAX))
                .with_hint("name a file or directory further down")
        }
        PastError::Gone(_) => {
            ApiError::new(ApiErrorKind::Failed, text).with_hint("`kinfold history` says what it keeps")
        }
        PastError::Wrong(_) => ApiError::new(ApiErrorKind::Failed, text)
            .with_hint(format!("nothing was restored; its disk may be damaged: run `kinfold verify` on {name}")),
        PastError::Disk(_) => ApiError::new(ApiErrorKind::Failed, text)
            .with_hint(format!("see that the disk of {} has room and can be written", asked.name)),
    }
}

fn kind_of(body: &Body) -> &'static str {
    match body {
        Body::Tombstone => "deleted",
        Body::Dir { .. } => "dir",
        Body::Symlink { .. } => "symlink",
        Body::File(_) => "file",
    }
}
