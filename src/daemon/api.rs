//! Answers the control API out of what the hub and the folders say.

use std::collections::BTreeSet;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender};

use crate::config::load::real_path;
use crate::control::log::LogRing;
use crate::control::types::{
    ApiError, ApiErrorKind, AskHistory, Conflict, ConflictSide, Damaged, DeviceRef, Event, EventKind, FolderState,
    FolderStatus, Held, HeldFile, HistoryEntry, InboxItem, KeepConflict, LogLine, MemberStatus, MergeConflict,
    MergedConflict, Moving, Offer, PeerStatus, PolicyStatus, RawPath, ReleaseFolder, Released, Restore, Restored,
    RotationStatus, Status, SyncState, Time, Verified, Verify, WatchStatus,
};
use crate::daemon::attention;
use crate::daemon::control::Api;
use crate::daemon::events::{Happened, What};
use crate::daemon::folder::{Command, Report};
use crate::daemon::history;
use crate::daemon::hub::{Hub, Slot, State, chain};
use crate::daemon::merging::{Sides, merge_sides};
use crate::daemon::past;
use crate::daemon::place::Place;
use crate::daemon::rates;
use crate::daemon::rests::Rest;
use crate::daemon::run::wall_ns;
use crate::engine::brake::HeldCounts;
use crate::engine::folder;
use crate::engine::folder::{HeldBy, Note};
use crate::model::id::{DeviceId, DeviceTag, FolderId};
use crate::model::path::RelPath;
use crate::model::problem::{Problem, ProblemKind};
use crate::model::record::Body;
use crate::model::shell::quoted;

/// Longest time that a scan which was asked for is waited for.
const SCAN_WAIT_MAX: Duration = Duration::from_secs(3600);

/// Files that are named of what is held of one device.
const HELD_NAMES_MAX: usize = 100;
/// Files of these that are named to people.
const HELD_NAMES_SHOWN: usize = 3;

/// Longest time that a folder which is being started is waited for.
const START_WAIT_MAX: Duration = Duration::from_secs(60);

/// The daemon, as the control API sees it.
pub struct Daemon {
    /// What it knows.
    pub hub: Arc<Hub>,
    /// What it said.
    pub log: LogRing,
}

/// A folder that is asked for, without the hub's lock.
pub(super) struct Asked {
    pub(super) id: FolderId,
    pub(super) name: String,
    pub(super) path: PathBuf,
    commands: Option<crossbeam_channel::Sender<Command>>,
    place: Option<Arc<Place>>,
}

impl Asked {
    pub(super) fn ask<T>(&self, command: impl FnOnce(Sender<T>) -> Command) -> Result<T, ApiError> {
        self.begin(command)?.recv_timeout(Duration::from_secs(600)).map_err(|_| self.gone())
    }

    /// Asks something that takes a while; the answer comes by the channel.
    pub(super) fn begin<T>(&self, command: impl FnOnce(Sender<T>) -> Command) -> Result<Receiver<T>, ApiError> {
        let (reply, answer) = crossbeam_channel::bounded(1);
        self.tell(command(reply))?;
        Ok(answer)
    }

    pub(super) fn tell(&self, command: Command) -> Result<(), ApiError> {
        self.commands.as_ref().ok_or_else(|| self.gone())?.send(command).map_err(|_| self.gone())
    }

    pub(super) fn gone(&self) -> ApiError {
        let text = format!("the folder {} is not running", self.name);
        ApiError::new(ApiErrorKind::Unavailable, text).with_hint("`kinfold status` says why")
    }

    pub(super) fn absolute(&self, path: &RelPath) -> RawPath {
        RawPath(self.path.join(path.as_path()))
    }
}

impl Daemon {
    fn all(&self) -> Vec<(FolderId, Asked)> {
        let state = self.hub.lock();
        state.config.folders.iter().map(|folder| (folder.id, asked(&state, folder))).collect()
    }

    /// Waits until all folders have been started: a daemon answers before that, as opening a large
    /// index takes a while, but who asks something of a folder should not have to know.
    pub(super) fn wait_started(&self) {
        let begun = Instant::now();
        let is_starting = || {
            let state = self.hub.lock();
            state.config.folders.iter().any(|folder| !state.folders.contains_key(&folder.id))
        };
        while begun.elapsed() < START_WAIT_MAX && is_starting() {
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn named(&self, name: Option<&str>) -> Result<Vec<(FolderId, Asked)>, ApiError> {
        let mut all = self.all();
        if let Some(name) = name {
            all.retain(|(_, asked)| asked.name == name);
            if all.is_empty() {
                let error = ApiError::new(ApiErrorKind::NotFound, format!("there is no folder called {name}"));
                return Err(error.with_hint("`kinfold folder list` shows them"));
            }
        }
        Ok(all)
    }

    /// Finds the folder that an absolute path lies in, and the path inside it (`None`: its root).
    pub(super) fn locate(&self, path: &Path) -> Result<(Asked, Option<RelPath>), ApiError> {
        for (_, asked) in self.all() {
            for root in [asked.path.clone(), real_path(&asked.path)] {
                let Ok(rest) = path.strip_prefix(&root) else {
                    continue;
                };
                let bytes = rest.as_os_str().as_bytes();
                if bytes.is_empty() {
                    return Ok((asked, None));
                }
                let inside =
                    RelPath::parse(bytes).map_err(|error| ApiError::new(ApiErrorKind::Invalid, error.to_string()))?;
                return Ok((asked, Some(inside)));
            }
        }
        let text = format!("{} lies in no synced folder", RawPath::from(path));
        Err(ApiError::new(ApiErrorKind::NotFound, text).with_hint("`kinfold folder list` shows the folders"))
    }

    pub(super) fn device_name(&self, tag: DeviceTag) -> String {
        let own = self.hub.identity.device_id();
        let state = self.hub.lock();
        let is_tag_of = |id: &DeviceId| DeviceTag::of(id) == tag;
        if is_tag_of(&own) || state.config.former.iter().any(is_tag_of) {
            return state.config.name.clone();
        }
        let known = state.config.devices.iter().find(|d| is_tag_of(&d.id) || d.former.iter().any(is_tag_of));
        known.map_or_else(|| tag.to_string(), |device| device.name.clone())
    }

    fn problems(&self) -> Vec<(Asked, Vec<Problem>)> {
        let all = self.all().into_iter();
        all.map(|(_, asked)| {
            let problems = asked.ask(Command::Problems).unwrap_or_default();
            (asked, problems)
        })
        .collect()
    }

    fn folder_status(&self, id: &FolderId, asked: &Asked) -> FolderStatus {
        let report: Option<Report> = asked.ask(Command::Status).ok();
        let state = self.hub.lock();
        let own = self.hub.identity.device_id();
        let (mut sent_bytes, mut received_bytes, mut history_bytes_max) = (0, 0, 0);
        let (mut stopped_because, mut folder_state) = (None, FolderState::Stopped);
        match state.folders.get(id) {
            Some(Slot::Running(handle)) => {
                history_bytes_max = handle.settings.history_bytes_max;
                sent_bytes = handle.traffic.sent.load(Ordering::Relaxed);
                received_bytes = handle.traffic.received.load(Ordering::Relaxed);
                folder_state = match report.as_ref().map(|r| r.status.state) {
                    Some(folder::FolderState::Idle) => FolderState::Idle,
                    Some(folder::FolderState::Scanning) => FolderState::Scanning,
                    Some(folder::FolderState::Syncing) => FolderState::Syncing,
                    Some(folder::FolderState::Stopped) => {
                        stopped_because = Some(ProblemKind::RootMissing.what().to_owned());
                        FolderState::Stopped
                    }
                    None => {
                        stopped_because = Some("its index cannot be used; see `kinfold log`".to_owned());
                        FolderState::Stopped
                    }
                };
            }
            Some(Slot::Paused) => folder_state = FolderState::Paused,
            Some(Slot::Failed(why)) => stopped_because = Some(why.clone()),
            // It is being started: its index is opened, and then it is scanned.
            None => folder_state = FolderState::Scanning,
        }
        let rest = state.rests.get(id).copied();
        if matches!(rest, Some(Rest::NotNow(_) | Rest::Metered | Rest::Asking)) && folder_state != FolderState::Stopped
        {
            folder_state = FolderState::Resting;
        }
        let peers = report.as_ref().map(|r| r.status.peers.clone()).unwrap_or_default();
        let folder = state.config.folder(id);
        let lines = folder.map(|f| f.members.lines().to_vec()).unwrap_or_default();
        let members = lines.into_iter().filter(|line| line.device != own).filter_map(|line| {
            Some(MemberStatus {
                name: state.config.device(&line.device).map(|device| device.name.clone()),
                id: line.device,
                right: line.right?,
                connected: state.sessions.contains_key(&line.device),
                in_sync: peers.iter().any(|(peer, in_sync)| *peer == line.device && *in_sync),
            })
        });
        let totals = report.as_ref().map(|r| r.status.totals).unwrap_or_default();
        FolderStatus {
            name: asked.name.clone(),
            id: *id,
            path: RawPath(asked.path.clone()),
            state: folder_state,
            in_sync: rest.is_none() && report.as_ref().is_some_and(|r| r.is_settled),
            stopped_because,
            files: totals.files,
            dirs: totals.dirs,
            bytes: totals.bytes,
            need_files: report.as_ref().map_or(0, |r| r.status.needed),
            need_bytes: report.as_ref().map_or(0, |r| r.status.needed_bytes),
            moving: report.as_ref().map_or_else(Vec::new, |r| {
                let moving = r.status.moving.iter();
                let shown = |moving: &folder::Moving| Moving {
                    path: asked.absolute(&moving.path),
                    bytes: moving.size,
                    missing_bytes: moving.missing,
                };
                moving.map(shown).collect()
            }),
            sent_bytes,
            received_bytes,
            held: report.as_ref().map_or(0, |r| r.status.held.iter().map(|(_, counts)| counts.files()).sum()),
            problems: report.as_ref().map_or(0, |r| r.status.problems as u64),
            history_bytes: report.as_ref().map_or(0, |r| r.history_bytes),
            history_bytes_max,
            members: members.collect(),
            rests_until: rest.and_then(Rest::until).map(Time),
            rests_because: rest.and_then(Rest::because).map(str::to_owned),
            rates: rates::shown(folder.map(|folder| folder.rates)),
        }
    }

    fn held_item(&self, asked: &Asked, by: HeldBy) -> InboxItem {
        let device = self.device_ref(by.peer);
        let HeldCounts { deleted, rewritten, .. } = by.counts;
        let counted = |count: u64, one: &str, many: &str| match count {
            0 => None,
            1 => Some(format!("1 {one}")),
            _ => Some(format!("{count} {many}")),
        };
        let parts =
            [counted(deleted, "deletion", "deletions"), counted(rewritten, "rewritten file", "rewritten files")];
        let parts: Vec<_> = parts.into_iter().flatten().collect();
        let verb = if by.counts.files() == 1 { "is" } else { "are" };
        let what = format!("{} by {} {verb} held", parts.join(" and "), device.name);
        let named = by.files.iter().take(HELD_NAMES_SHOWN).map(|(path, _)| path.to_string()).collect::<Vec<_>>();
        let more = by.counts.files().saturating_sub(named.len() as u64);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        let name = &asked.name;
        let word = quoted(name);
        InboxItem {
            folder: Some(name.clone()),
            path: None,
            what,
            advice: format!(
                "look at {device}; then `kinfold folder release {word}` lets it happen here, \
                 `kinfold folder release {word} --reject` has {device} take back what lies here",
                device = device.name
            ),
            detail: format!("{}{more}", named.join(", ")),
            held: Some(Held {
                device,
                deleted,
                rewritten,
                files: by
                    .files
                    .iter()
                    .map(|(path, deleted)| HeldFile { path: asked.absolute(path), deleted: *deleted })
                    .collect(),
            }),
        }
    }

    fn peer_statuses(&self) -> Vec<PeerStatus> {
        let state = self.hub.lock();
        let status = |device: &crate::config::Device| {
            let session = state.sessions.get(&device.id);
            let trouble = state.troubles.get(&device.id);
            let no_address = session.is_none() && self.hub.found.ways(&device.id, &device.addresses).is_empty();
            PeerStatus {
                name: device.name.clone(),
                id: device.id,
                connected: session.is_some(),
                address: session.map(|s| s.link.remote_addr),
                since: session
                    .map(|s| s.since_ns)
                    .or_else(|| self.hub.sightings.of(&device.id))
                    .map(Time::from_unix_ns),
                last_error: trouble.map(|t| t.what.clone()),
                hint: match trouble {
                    Some(trouble) => trouble.hint.clone(),
                    None if no_address => Some(
                        "it was not seen on the network, and no address is known here: it has to connect to this device"
                            .to_owned(),
                    ),
                    None => None,
                },
                rates: rates::shown(Some(device.rates)),
            }
        };
        state.config.devices.iter().map(status).collect()
    }

    /// Tells of devices that have been away for long.
    fn absences(&self) -> Vec<InboxItem> {
        let state = self.hub.lock();
        let is_away = |device: &&crate::config::Device| !state.sessions.contains_key(&device.id);
        let told = state.config.devices.iter().filter(is_away).filter_map(|device| {
            let last_ns = self.hub.sightings.of(&device.id)?;
            attention::away(&device.name, &quoted(&device.name), last_ns, wall_ns())
        });
        told.collect()
    }

    /// Tells of devices that have another key of late.
    fn new_keys(&self) -> Vec<InboxItem> {
        let state = self.hub.lock();
        let told = state.config.devices.iter().filter_map(|device| {
            let since_ns = self.hub.new_keys.of(&device.id)?;
            attention::has_new_key(device, since_ns, wall_ns())
        });
        told.collect()
    }

    /// Tells of devices that other devices have revoked, until a person here says so as well, or otherwise.
    fn revocations(&self) -> Vec<InboxItem> {
        let state = self.hub.lock();
        let by_others = state.config.revoked.iter().filter(|revoked| !revoked.said.is_lifted);
        let told = by_others.filter_map(|revoked| {
            let by = revoked.by?;
            let by = state.config.device_known_as(&by).map_or_else(|| by.to_string(), |device| device.name.clone());
            Some(attention::revoked(revoked.name.as_deref()?, &revoked.said.device.to_string(), &by))
        });
        told.collect()
    }

    /// Tells of disks that are nearly full, each once.
    fn full_disks(&self) -> Vec<InboxItem> {
        let mut disks = BTreeSet::new();
        let told = self.all().into_iter().filter_map(|(_, asked)| {
            let (fs, meta) = (rustix::fs::statvfs(&asked.path).ok()?, std::fs::metadata(&asked.path).ok()?);
            if !disks.insert(meta.dev()) {
                return None;
            }
            let bytes = |blocks: u64| blocks.saturating_mul(fs.f_frsize);
            attention::disk(&asked.name, &quoted(&asked.name), bytes(fs.f_bavail), bytes(fs.f_blocks))
        });
        told.collect()
    }

    fn sockets(&self) -> Vec<String> {
        let listening = self.hub.listening();
        let state = self.hub.lock();
        let mut lines: Vec<String> =
            listening.addresses.iter().map(|address| format!("tcp listen {address}")).collect();
        lines.extend(state.sessions.values().map(|session| {
            let arrow = if session.link.outgoing { "->" } else { "<-" };
            format!("tcp {} {arrow} {}", session.link.local_addr, session.link.remote_addr)
        }));
        let by = self.hub.found.interfaces();
        lines.extend(by.iter().map(|interface| format!("udp multicast {interface}:5353, beacons")));
        lines.push(format!("unix listen {}", RawPath::from(self.hub.paths.socket.as_path())));
        // Not this process's own, but it would not be there without it.
        let by_bus = self.hub.lookout.as_ref().filter(|lookout| lookout.metered().came_by_bus());
        lines.extend(by_bus.map(|_| "unix -> the bus of the system, by the lookout alone".to_owned()));
        lines
    }

    fn event(&self, happened: Happened) -> Event {
        let mut event = Event {
            seq: happened.seq,
            time: Time::from_unix_ns(happened.wall_ns),
            kind: EventKind::Problem,
            folder: None,
            path: None,
            device: None,
            size: None,
            detail: None,
        };
        let (id, own, note) = match happened.what {
            What::Connected(device) => {
                return Event { kind: EventKind::Connected, device: Some(self.device_ref(device).name), ..event };
            }
            What::Disconnected(device) => {
                return Event { kind: EventKind::Disconnected, device: Some(self.device_ref(device).name), ..event };
            }
            What::InFolder(id, own, note) => (id, own, note),
        };
        let found = self.hub.lock().config.folder(&id).map(|folder| (folder.name.clone(), folder.path.clone()));
        // One that was removed since has no name any more, and its paths lie nowhere.
        let (name, root) = found.unwrap_or_else(|| (id.to_string(), PathBuf::new()));
        let at = |path: &RelPath| Some(RawPath(root.join(path.as_path())));
        event.folder = Some(name);
        match note {
            Note::Changed(path, body) => {
                event.kind = kind_of_change(&body);
                (event.path, event.device) = (at(&path), Some(self.device_name(own)));
                event.size = body.file().map(|file| file.size);
            }
            Note::Took(path, body, by) => {
                event.kind = kind_of_change(&body);
                (event.path, event.device) = (at(&path), Some(self.device_name(by)));
                event.size = body.file().map(|file| file.size);
            }
            Note::Healed(path) => (event.kind, event.path) = (EventKind::Healed, at(&path)),
            Note::Conflict { path, copy } => {
                (event.kind, event.path) = (EventKind::Conflict, at(&copy));
                event.detail = at(&path).map(|of| format!("a version of {of}"));
            }
            Note::Held { peer, counts } => {
                (event.kind, event.device) = (EventKind::Held, Some(self.device_ref(peer).name));
                event.detail = Some(format!("{} deletions, {} rewritten files", counts.deleted, counts.rewritten));
            }
            Note::NewIncarnation => {
                event.detail = Some("this device has told of changes that its index does not remember".to_owned());
            }
            Note::Problem(problem) => {
                event.path = problem.path.as_ref().and_then(at);
                event.detail = Some(problem.kind.what().to_owned());
            }
        }
        event
    }

    pub(super) fn device_ref(&self, id: DeviceId) -> DeviceRef {
        let state = self.hub.lock();
        let name = state.config.device(&id).map_or_else(|| id.short(), |device| device.name.clone());
        DeviceRef { name, id }
    }
}

fn asked(state: &State, folder: &crate::config::Folder) -> Asked {
    let (commands, place) = match state.folders.get(&folder.id) {
        Some(Slot::Running(handle)) => (Some(handle.commands.clone()), Some(handle.place.clone())),
        _ => (None, None),
    };
    Asked { id: folder.id, name: folder.name.clone(), path: folder.path.clone(), commands, place }
}

fn failed(error: &dyn std::error::Error) -> ApiError {
    ApiError::new(ApiErrorKind::Failed, chain(error))
}

/// What to do where a conflict cannot be settled as asked.
const SEE_CONFLICTS: &str = "`kinfold conflicts` lists those that there are";

fn no_file() -> ApiError {
    ApiError::new(ApiErrorKind::Invalid, "name a file, not the folder").with_hint(SEE_CONFLICTS)
}

impl Api for Daemon {
    fn status(&self) -> Result<Status, ApiError> {
        let folders: Vec<_> = self.all().iter().map(|(id, asked)| self.folder_status(id, asked)).collect();
        let problems = self.problems();
        let limit_reached =
            problems.iter().any(|(_, list)| list.iter().any(|problem| problem.kind == ProblemKind::WatchLimit));
        let listening = self.hub.listening();
        let (own, policy, rates) = {
            let state = self.hub.lock();
            let network = &state.config.network;
            let allow = network.allow.iter().map(|net| format!("{}/{}", net.first(), net.prefix_bits())).collect();
            let own = DeviceRef { name: state.config.name.clone(), id: self.hub.identity.device_id() };
            let policy = PolicyStatus {
                mode: network.mode.as_str().to_owned(),
                allow,
                interfaces: network.interfaces.clone(),
                interfaces_away: listening.away,
                discovery: network.discovery,
                metered: self.hub.lookout.as_ref().map(|lookout| lookout.metered().status()),
            };
            (own, policy, rates::shown(Some(network.rates)))
        };
        Ok(Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            device: own,
            listen: listening.addresses,
            policy,
            peers: self.peer_statuses(),
            inbox: self.inbox()?.len() as u64,
            sandbox: self.hub.sandbox.status.clone(),
            rotation: self.hub.rotation().map(|standing| RotationStatus {
                next: standing.next,
                since: Time::from_unix_ns(standing.since_ns),
                unheard: standing.unheard,
            }),
            watch: WatchStatus { dirs: folders.iter().map(|folder| folder.dirs).sum(), limit_reached },
            folders,
            sockets: self.sockets(),
            rates,
        })
    }

    fn inbox(&self) -> Result<Vec<InboxItem>, ApiError> {
        let away = self.hub.listening().away.into_iter().map(|interface| InboxItem {
            folder: None,
            path: None,
            what: format!("the network interface {interface} is away, and nothing is synced by another"),
            advice: "bring it up, or take it out of `interfaces` under [network]".to_owned(),
            detail: String::new(),
            held: None,
        });
        let mut items: Vec<_> = away.collect();
        items.extend(self.absences());
        items.extend(self.revocations());
        items.extend(self.new_keys());
        items.extend(self.hub.rotation().and_then(|r| attention::unheard(&r.unheard, r.since_ns, wall_ns())));
        items.extend(self.full_disks());
        for (asked, problems) in self.problems() {
            for problem in problems {
                items.push(InboxItem {
                    folder: Some(asked.name.clone()),
                    path: problem.path.as_ref().map(|path| asked.absolute(path)),
                    what: problem.kind.what().to_owned(),
                    advice: problem.kind.advice().to_owned(),
                    detail: problem.detail,
                    held: None,
                });
            }
        }
        for conflict in self.conflicts(None)? {
            items.push(InboxItem {
                folder: Some(conflict.folder),
                path: Some(conflict.path),
                what: format!("is a version of {} that both sides had changed", conflict.of),
                advice: "look at both, then `kinfold conflicts keep PATH mine|theirs|both`; \
                         `kinfold conflicts merge PATH` puts both into one where the edits of a text do not overlap"
                    .to_owned(),
                detail: format!("made by {}", conflict.device),
                held: None,
            });
        }
        for (_, asked) in self.all() {
            let held = asked.ask(|reply| Command::Held(HELD_NAMES_MAX, reply)).unwrap_or_default();
            items.extend(held.into_iter().map(|by| self.held_item(&asked, by)));
            let state = self.hub.lock();
            let failed =
                state.config.folder_named(&asked.name).and_then(|folder| match state.folders.get(&folder.id) {
                    Some(Slot::Failed(why)) => Some(why.clone()),
                    _ => None,
                });
            drop(state);
            items.extend(failed.map(|detail| InboxItem {
                folder: Some(asked.name.clone()),
                path: Some(RawPath(asked.path.clone())),
                what: "the folder cannot run".to_owned(),
                advice: "mend what the detail says, then restart kinfold".to_owned(),
                detail,
                held: None,
            }));
        }
        Ok(items)
    }

    fn offers(&self) -> Result<Vec<Offer>, ApiError> {
        let offer = |offered: crate::daemon::hub::Offered| Offer {
            name: offered.name,
            id: offered.id,
            from: self.device_ref(offered.from),
            right: offered.right,
        };
        Ok(self.hub.offers().into_iter().map(offer).collect())
    }

    fn sync_state(&self, folder: Option<&str>) -> Result<SyncState, ApiError> {
        for (id, asked) in self.named(folder)? {
            let rest = self.hub.lock().rests.get(&id).copied();
            if rest.is_some() && folder.is_none() {
                continue;
            }
            if let Some(rest) = rest {
                let why = format!("{}: {}", asked.name, rest.text(&jiff::Zoned::now()));
                return Ok(SyncState { in_sync: false, why: Some(why) });
            }
            let why = match asked.ask(Command::Status) {
                Ok(report) if report.is_settled => continue,
                Ok(report) if !report.status.held.is_empty() => "changes are held until you look at `kinfold inbox`",
                Ok(report) => match report.status.state {
                    folder::FolderState::Stopped => ProblemKind::RootMissing.what(),
                    folder::FolderState::Scanning => "it is being scanned",
                    folder::FolderState::Syncing => "changes are being taken over",
                    folder::FolderState::Idle => "a device does not hold the same yet",
                },
                Err(_) => "it is not running",
            };
            return Ok(SyncState { in_sync: false, why: Some(format!("{}: {why}", asked.name)) });
        }
        Ok(SyncState { in_sync: true, why: None })
    }

    fn conflicts(&self, folder: Option<&str>) -> Result<Vec<Conflict>, ApiError> {
        let mut own = BTreeSet::from([DeviceTag::of(&self.hub.identity.device_id())]);
        own.extend(self.hub.lock().config.former.iter().map(DeviceTag::of));
        let mut conflicts = Vec::new();
        for (_, asked) in self.named(folder)? {
            let Ok(copies) = asked.ask(Command::Conflicts) else {
                continue;
            };
            for (copy, of, winner) in copies {
                let file = copy.record.body.file();
                conflicts.push(Conflict {
                    folder: asked.name.clone(),
                    path: asked.absolute(&copy.record.path),
                    of: asked.absolute(&of),
                    device: self.device_name(copy.record.by),
                    time: Time::from_unix_ns(file.map_or(copy.since_ns, |file| file.mtime_ns)),
                    size: file.map_or(0, |file| file.size),
                    is_mine: own.contains(&copy.record.by),
                    winner: winner.map(|local| {
                        let file = local.record.body.file();
                        ConflictSide {
                            device: self.device_name(local.record.by),
                            time: Time::from_unix_ns(file.map_or(local.since_ns, |file| file.mtime_ns)),
                            size: file.map_or(0, |file| file.size),
                        }
                    }),
                });
            }
        }
        Ok(conflicts)
    }

    fn log(&self, after: Option<u64>, limit: usize) -> Result<Vec<LogLine>, ApiError> {
        Ok(self.log.lines(after, limit))
    }

    fn events(&self, after: Option<u64>, limit: usize) -> Result<Vec<Event>, ApiError> {
        Ok(self.hub.events.after(after, limit).into_iter().map(|happened| self.event(happened)).collect())
    }

    fn scan(&self, folder: &str) -> Result<(), ApiError> {
        self.wait_started();
        let begun = Instant::now();
        for (_, asked) in self.named(Some(folder))? {
            if let Some(commands) = &asked.commands {
                commands.send(Command::Input(folder::Input::ScanAll)).ok();
            }
            loop {
                let report = asked.ask(Command::Status)?;
                if !report.status.is_busy || report.status.state == folder::FolderState::Stopped {
                    break;
                }
                if begun.elapsed() > SCAN_WAIT_MAX {
                    let error = ApiError::new(ApiErrorKind::Failed, "the scan goes on; it was waited for long enough");
                    return Err(error.with_hint("`kinfold status` shows when it is over"));
                }
                std::thread::sleep(Duration::from_millis(10));
            }
        }
        Ok(())
    }

    fn release(&self, release: ReleaseFolder) -> Result<Released, ApiError> {
        self.wait_started();
        let folders = self.named(Some(&release.folder))?;
        let mut released = Released::default();
        for (_, asked) in folders {
            let counts = asked.ask(|reply| Command::Release(release.reject, reply))?;
            released.deleted += counts.deleted;
            released.rewritten += counts.rewritten;
        }
        Ok(released)
    }

    fn verify(&self, verify: Verify) -> Result<(), ApiError> {
        self.wait_started();
        for (_, asked) in self.named(verify.folder.as_deref())? {
            asked.ask(|reply| Command::Verify(verify.heal, reply))?;
        }
        Ok(())
    }

    fn verified(&self, folder: Option<&str>) -> Result<Vec<Verified>, ApiError> {
        let mut all = Vec::new();
        for (_, asked) in self.named(folder)? {
            let (status, totals) = asked.ask(Command::Verified)?;
            let damaged = status.damaged.iter();
            all.push(Verified {
                folder: asked.name.clone(),
                begun: status.is_begun,
                running: status.is_running,
                stopped: status.is_stopped,
                files: status.files,
                bytes: status.bytes,
                total_files: totals.files,
                total_bytes: totals.bytes,
                found: status.found,
                healed: status.healed,
                damaged: damaged.map(|(path, bytes)| Damaged { path: asked.absolute(path), bytes: *bytes }).collect(),
                scrubbed: status.scrubbed_ns.map(Time::from_unix_ns),
            });
        }
        Ok(all)
    }

    fn keep(&self, keep: KeepConflict) -> Result<(), ApiError> {
        self.wait_started();
        let (asked, path) = self.locate(keep.path.as_path())?;
        let Some(path) = path else {
            return Err(no_file());
        };
        let settle = history::Settle { path, keep: keep.keep };
        let refused = |error: String| ApiError::new(ApiErrorKind::Failed, error).with_hint(SEE_CONFLICTS);
        asked.ask(|reply| Command::Settle(settle, reply))?.map_err(refused)
    }

    fn merge(&self, merge: MergeConflict) -> Result<MergedConflict, ApiError> {
        self.wait_started();
        let refused = |error: String| ApiError::new(ApiErrorKind::Failed, error).with_hint(SEE_CONFLICTS);
        let (asked, path) = self.locate(merge.path.as_path())?;
        let Some(path) = path else {
            return Err(no_file());
        };
        let sides: Sides = asked.ask(|reply| Command::Sides(path, reply))?.map_err(refused)?;
        let Some((place, root)) = asked.place.as_ref().and_then(|place| Some((place, place.root()?))) else {
            return Err(refused("the folder is not there".to_owned()));
        };
        // On this thread: the folder goes on meanwhile, and looks again before anything is changed.
        let merged = merge_sides(&root, &place.bases, sides)
            .map_err(|error| ApiError::new(ApiErrorKind::Unavailable, chain(&error)).with_hint(error.advice()))?;
        let done = MergedConflict {
            path: asked.absolute(&merged.sides.there.record.path),
            copy: asked.absolute(&merged.sides.copy.record.path),
            size: merged.text.len() as u64,
        };
        if !merge.dry_run {
            asked.ask(|reply| Command::Merge(Box::new(merged), Some(reply)))?.map_err(refused)?;
        }
        Ok(done)
    }

    fn history(&self, ask: AskHistory) -> Result<Vec<HistoryEntry>, ApiError> {
        past::history(self, &ask)
    }

    fn restore(&self, restore: Restore) -> Result<Restored, ApiError> {
        past::restore(self, restore)
    }

    fn reload(&self) -> Result<(), ApiError> {
        self.hub.reload().map_err(|error| failed(&error))
    }

    fn shutdown(&self) -> Result<(), ApiError> {
        self.hub.end(None);
        Ok(())
    }
}

fn kind_of_change(body: &Body) -> EventKind {
    match body {
        Body::Tombstone => EventKind::Deleted,
        Body::Dir { .. } => EventKind::Directory,
        Body::Symlink { .. } => EventKind::Link,
        Body::File(_) => EventKind::Written,
    }
}
