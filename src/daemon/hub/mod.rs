//! What connects folders and peers: the configuration in force, the sessions, and who is told what.
//!
//! One lock guards all of it and is held for short, never while a disk, a peer or a folder is waited
//! for. Folders and sessions talk to each other through channels, without the hub.

mod sharing;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use jiff::Zoned;
use tokio::sync::watch;

use crate::config::edit::Edit;
use crate::config::paths::Paths;
use crate::config::size::HistorySize;
use crate::config::{self, Config, Network, NetworkMode};
use crate::daemon::discovery::Found;
use crate::daemon::events::{Events, What};
use crate::daemon::folder::{Command, FolderHandle, FromPeer, Settings};
use crate::daemon::keeper::PrivateKey;
use crate::daemon::metered::{self, Lookout};
use crate::daemon::peer::{self, Outgoing, PeerSender};
use crate::daemon::pool::Pool;
use crate::daemon::rates::{Flow, Metering};
use crate::daemon::rests::{self, Rest};
use crate::daemon::rotation::Rotations;
use crate::daemon::run::wall_ns;
use crate::daemon::sandbox::Sandbox;
use crate::daemon::sightings::Sightings;
use crate::disk::ignore::Gitignores;
use crate::engine::chunk::VerifiedChunk;
use crate::engine::session::renewal::KIND_MIN;
use crate::keys::identity::Identity;
use crate::model::id::{DeviceId, FolderId};
use crate::model::revocation::Revocation;
use crate::model::rights::Right;
use crate::net::connection::{Connection, ConnectionError, FrameReader, Link};
use crate::net::endpoint::Endpoint;
use crate::net::policy::Policy;
use crate::net::renewal;
use crate::wire::message::{FolderHello, Goodbye, Message};

/// A folder of the configuration: running, resting, or not able to.
pub enum Slot {
    /// It runs.
    Running(Box<FolderHandle>),
    /// A person let it rest.
    Paused,
    /// It cannot run, for this reason.
    Failed(String),
}

/// A session with a peer.
pub struct Session {
    /// What is known of the connection.
    pub link: Link,
    /// Since when, in nanoseconds since 1970.
    pub since_ns: i64,
    pub(super) sender: PeerSender,
    /// What the peer said of folders.
    hellos: BTreeMap<FolderId, FolderHello>,
    /// Folders that know of this session, and the right that they know of.
    shared: BTreeMap<FolderId, Right>,
}

/// A folder that a peer offers.
#[derive(Clone)]
pub struct Offered {
    /// What it is called there.
    pub name: String,
    /// Which it is.
    pub id: FolderId,
    /// Who offers it.
    pub from: DeviceId,
    /// What this device may do in it.
    pub right: Right,
}

/// Why a device is not connected.
#[derive(Clone)]
pub struct Trouble {
    /// What happened.
    pub what: String,
    /// What to do about it.
    pub hint: Option<String>,
}

/// Where the daemon listens.
#[derive(Clone, Default)]
pub struct Listening {
    /// At which addresses.
    pub addresses: Vec<SocketAddr>,
    /// Interfaces that it was to listen by, and that are away.
    pub away: Vec<String>,
}

/// What the hub knows; see [`Hub::lock`].
pub struct State {
    /// The configuration in force.
    pub config: Config,
    /// Its folders.
    pub folders: BTreeMap<FolderId, Slot>,
    /// The connected peers.
    pub sessions: BTreeMap<DeviceId, Session>,
    /// Why others are not.
    pub troubles: BTreeMap<DeviceId, Trouble>,
    /// Which folders rest now, and why.
    pub rests: BTreeMap<FolderId, Rest>,
    peers_with_aes: BTreeMap<DeviceId, bool>,
    is_stopping: bool,
}

/// See the module's documentation.
pub struct Hub {
    /// Where things lie.
    pub paths: Paths,
    /// Who this device is.
    pub identity: Identity,
    /// Who is let in.
    pub endpoint: Arc<Endpoint>,
    pool: Mutex<Option<Arc<Pool>>>,
    state: Mutex<State>,
    /// Held while a configuration is put in force, so that it is one at a time.
    pub(super) applying: Mutex<()>,
    /// What sessions keep to.
    rates: Arc<Metering>,
    sessions_begun: AtomicU64,
    /// Counts changes of sessions and configuration, for those who dial.
    changes: watch::Sender<u64>,
    /// What this process took from itself.
    pub sandbox: Sandbox,
    /// Who says whether the connection is metered, where that matters.
    pub lookout: Option<Lookout>,
    /// When devices were last connected.
    pub sightings: Sightings,
    /// Where devices were found.
    pub found: Found,
    /// Changes of keys that are under way.
    pub(super) rotations: Rotations,
    /// When devices came with another key.
    pub(super) new_keys: Sightings,
    /// What happened of late.
    pub events: Arc<Events>,
    /// Where it listens and by which interfaces, as the configuration said at the start.
    network: Network,
    /// Where it listens now.
    listening: Mutex<Listening>,
    /// Becomes true when the daemon is to end.
    stop: watch::Sender<bool>,
    /// Whether it is to be started again then.
    again: AtomicBool,
}

impl Hub {
    /// Makes a hub without folders or devices; [`Hub::apply`] brings them.
    pub fn new(
        paths: Paths,
        identity: Identity,
        endpoint: Arc<Endpoint>,
        pool: Pool,
        config: Config,
        sandbox: Sandbox,
        lookout: Option<Lookout>,
    ) -> Arc<Self> {
        let sightings = Sightings::open(paths.state_dir.join("last-seen.json"));
        let new_keys = Sightings::open(paths.state_dir.join("new-keys.json"));
        let network = config.network.clone();
        endpoint.set_interfaces(network.interfaces.clone());
        let empty = Config { devices: Vec::new(), folders: Vec::new(), ..config };
        let state = State {
            config: empty,
            folders: BTreeMap::new(),
            sessions: BTreeMap::new(),
            troubles: BTreeMap::new(),
            rests: BTreeMap::new(),
            peers_with_aes: BTreeMap::new(),
            is_stopping: false,
        };
        Arc::new(Self {
            paths,
            identity,
            endpoint,
            pool: Mutex::new(Some(Arc::new(pool))),
            state: Mutex::new(state),
            applying: Mutex::new(()),
            rates: Arc::default(),
            sessions_begun: AtomicU64::new(0),
            changes: watch::Sender::new(0),
            sandbox,
            lookout,
            sightings,
            found: Found::default(),
            rotations: Rotations::default(),
            new_keys,
            events: Arc::default(),
            network,
            listening: Mutex::default(),
            stop: watch::Sender::new(false),
            again: AtomicBool::new(false),
        })
    }

    /// Looks at the state, and changes it. Do not wait for anything while holding this.
    pub fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells when sessions or the configuration have changed.
    pub fn watch_changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    pub(super) fn say_changed(&self) {
        self.changes.send_modify(|count| *count += 1);
    }

    // ---------------------------------------------------------------------------- configuration

    /// Reads the configuration file and puts it in force, and looks at the keys.
    ///
    /// # Errors
    /// The file is not valid; then nothing changes.
    pub fn reload(self: &Arc<Self>) -> Result<(), config::error::ConfigError> {
        if self.look_at_keys() {
            self.apply(Config::load(&self.paths)?);
            self.tell_next_to_all();
        }
        Ok(())
    }

    /// Puts a configuration in force. One that this process cannot serve, because it took from itself what
    /// that would need, has the daemon begin again instead.
    pub fn apply(self: &Arc<Self>, config: Config) {
        if let Some(why) = self.cannot_serve(&config) {
            self.end(Some(why));
            return;
        }
        let applying = self.applying.lock().unwrap_or_else(PoisonError::into_inner);
        self.put_in_force(config, applying);
    }

    /// Has all be as a configuration says, at this time.
    pub(super) fn put_in_force(self: &Arc<Self>, config: Config, applying: MutexGuard<'_, ()>) {
        self.endpoint.set_policy(policy_of(&config));
        self.rates.set(&config);
        let mut stopped = Vec::new();
        let mut begun = Vec::new();
        let revoked_before: Vec<Revocation>;
        {
            let mut state = self.lock();
            if state.is_stopping {
                return;
            }
            self.apply_devices(&mut state, &config);
            let old = std::mem::replace(&mut state.config, config.clone());
            revoked_before = old.revoked.iter().map(|revoked| revoked.said).collect();
            state.rests = rests::of_all(&config, &Zoned::now(), self.metered());
            let wanted: BTreeMap<FolderId, &config::Folder> = config.folders.iter().map(|f| (f.id, f)).collect();
            let known: Vec<FolderId> = state.folders.keys().copied().collect();
            for id in known {
                let is_paused = state.is_paused(&id);
                let settings = wanted.get(&id).map(|folder| self.settings_of(folder));
                let stays = match (&state.folders[&id], wanted.get(&id)) {
                    (_, None) => false,
                    (Slot::Running(handle), Some(_)) => !is_paused && Some(&handle.settings) == settings.as_ref(),
                    (Slot::Paused, Some(_)) => is_paused,
                    (Slot::Failed(_), Some(_)) => false,
                };
                if !stays && let Some(slot) = state.folders.remove(&id) {
                    stopped.push((id, slot));
                }
            }
            for folder in &config.folders {
                if !state.folders.contains_key(&folder.id) {
                    begun.push(folder.clone());
                }
            }
            drop(old);
        }
        for (id, slot) in stopped {
            self.unshare_with_all(id);
            if let Slot::Running(handle) = slot {
                handle.stop();
            }
        }
        for folder in begun {
            let is_paused = self.lock().is_paused(&folder.id);
            let slot = if is_paused { Slot::Paused } else { self.begin_folder(&folder) };
            self.lock().folders.insert(folder.id, slot);
        }
        drop(applying);
        self.complete_accepts();
        self.share_all();
        self.tell_revocations_to_all(&revoked_before);
        self.take_next_if_all_know();
        self.say_changed();
    }

    fn cannot_serve(&self, config: &Config) -> Option<&'static str> {
        if config.network.listen != self.network.listen || config.network.interfaces != self.network.interfaces {
            return Some("it is to listen elsewhere");
        }
        if self.lookout.is_none() && metered::matters(config) {
            return Some("it is to know whether the connection is metered");
        }
        (!self.sandbox.suffices(config)).then_some("it is to reach what it took from itself")
    }

    /// Looks whether the folders lie in the directories that this process may reach.
    pub fn check_places(&self) {
        let config = self.lock().config.clone();
        if !self.sandbox.suffices(&config) {
            self.end(Some("a folder lies in another directory than before"));
        }
    }

    /// Notes where the daemon listens now.
    pub fn set_listening(&self, listening: Listening) {
        *self.listening.lock().unwrap_or_else(PoisonError::into_inner) = listening;
    }

    /// Returns where the daemon listens now.
    pub fn listening(&self) -> Listening {
        self.listening.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Cuts all sessions; those that can be had again begin anew.
    pub fn cut_sessions(&self) {
        self.lock().sessions.values().for_each(|session| session.sender.cut());
    }

    /// Tells when the daemon is to end.
    pub fn watch_stop(&self) -> watch::Receiver<bool> {
        self.stop.subscribe()
    }

    /// Has the daemon end; to begin again where there is a reason why.
    pub fn end(&self, again: Option<&str>) {
        if let Some(why) = again.filter(|_| !*self.stop.borrow()) {
            tracing::info!(why, "the daemon begins again");
            self.again.store(true, Ordering::Relaxed);
        }
        self.stop.send_replace(true);
    }

    /// Completes what a person has accepted after its offer had come.
    fn complete_accepts(self: &Arc<Self>) {
        let offered: Vec<_> = {
            let state = self.lock();
            let accepts = state.config.accepts.iter();
            let hello = |accept: &config::Accept| {
                let session = state.sessions.get(&accept.from)?;
                let hello = session.hellos.values().find(|hello| hello.name == accept.name)?;
                state.config.folder(&hello.folder).is_none().then(|| (accept.from, hello.clone()))
            };
            accepts.filter_map(hello).collect()
        };
        for (device, hello) in offered {
            self.complete_accept(&device, &hello);
        }
    }

    fn settings_of(&self, folder: &config::Folder) -> Settings {
        let history_bytes_max = match folder.history.size {
            HistorySize::Bytes(bytes) => bytes,
            HistorySize::Percent(percent) => disk_size(&folder.path) / 100 * u64::from(percent),
        };
        Settings {
            id: folder.id,
            name: folder.name.clone(),
            path: folder.path.clone(),
            index: self.paths.state_dir.join(format!("index-{}.sqlite", folder.id)),
            device: self.identity.device_id(),
            rescan_interval: folder.rescan.unwrap_or(Duration::from_secs(7 * 86_400)),
            gitignores: if folder.gitignore { Gitignores::Honoured } else { Gitignores::Unused },
            history_days: folder.history.days,
            history_bytes_max,
            brake: folder.brake.clone(),
            scrub: folder.scrub,
            merge: folder.merge.under(folder.members.right_of(&self.identity.device_id())),
        }
    }

    fn begin_folder(&self, folder: &config::Folder) -> Slot {
        let pool = self.pool.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let Some(pool) = pool else {
            return Slot::Paused;
        };
        match FolderHandle::start(self.settings_of(folder), pool, self.events.clone()) {
            Ok(handle) => Slot::Running(Box::new(handle)),
            Err(error) => {
                let text = chain(&error);
                tracing::error!(folder = folder.name, error = text, "the folder cannot run");
                Slot::Failed(text)
            }
        }
    }

    // --------------------------------------------------------------------------------- sessions

    /// Takes a new connection. Where there is one with that device already, one of the two goes: both
    /// ends keep the one that the device with the smaller id dialed, or of two dialed by the same the
    /// newer.
    pub fn begin_session(self: &Arc<Self>, connection: Connection) {
        let link = connection.link().clone();
        self.promote(&link.peer);
        let number = self.sessions_begun.fetch_add(1, Ordering::Relaxed) + 1;
        let (sender, queue) = peer::queue(number, connection.cutter(), Flow::with(&self.rates, &link.peer));
        let (reader, mut writer) = connection.split_renewing(self.endpoint.clone(), renewal::monotonic());
        let own = self.identity.device_id();
        let dialer_of = |link: &Link| if link.outgoing { own } else { link.peer };
        let replaced = {
            let mut state = self.lock();
            let is_welcome = !state.is_stopping && state.config.device(&link.peer).is_some();
            let is_better = state.sessions.get(&link.peer).is_none_or(|old| dialer_of(&link) <= dialer_of(&old.link));
            if !is_welcome || !is_better {
                // The peer may know already that the one which is there leads nowhere any more.
                state.sessions.get(&link.peer).inspect(|old| old.sender.probe());
                drop(state);
                let reason = if is_welcome { Goodbye::Replaced } else { Goodbye::Stopping };
                let (header, body) = Message::Goodbye(reason).encode();
                // The other end may have hung up already.
                writer.send(Message::Goodbye(reason).kind(), &header, &body).and_then(|()| writer.flush()).ok();
                return;
            }
            state.troubles.remove(&link.peer);
            state.peers_with_aes.insert(link.peer, link.peer_has_aes);
            let session = Session {
                link: link.clone(),
                since_ns: wall_ns(),
                sender: sender.clone(),
                hellos: BTreeMap::new(),
                shared: BTreeMap::new(),
            };
            state.sessions.insert(link.peer, session)
        };
        if let Some(old) = replaced {
            self.leave_folders(&link.peer, &old);
            old.sender.send(Outgoing::Close(Goodbye::Replaced));
        }
        tracing::info!(device = %link.peer, address = %link.remote_addr, "connected");
        self.events.push(What::Connected(link.peer));
        let spawned = self.spawn_session(link.clone(), number, sender, queue, reader, writer);
        if let Err(error) = spawned {
            tracing::error!(%error, "no thread for a session");
            self.end_session(&link.peer, number);
        }
        self.keep_sightings();
        self.say_changed();
    }

    fn spawn_session(
        self: &Arc<Self>,
        link: Link,
        number: u64,
        sender: PeerSender,
        queue: peer::PeerQueue,
        reader: FrameReader,
        writer: crate::net::connection::FrameWriter,
    ) -> std::io::Result<()> {
        let cutter = sender.clone();
        thread::Builder::new().name("peer-write".into()).spawn(move || {
            if let Err(error) = peer::write(writer, &queue) {
                tracing::debug!(error = chain(&error), "a session stopped sending");
            }
            cutter.cut();
        })?;
        let hub = Arc::clone(self);
        thread::Builder::new().name("peer-read".into()).spawn(move || {
            hub.greet(&link.peer, &sender);
            let ended = hub.read(&link.peer, number, &sender, reader);
            match &ended {
                Ok(reason) => tracing::info!(device = %link.peer, ?reason, "the device said goodbye"),
                Err(error) => tracing::info!(device = %link.peer, error = chain(error), "disconnected"),
            }
            sender.cut();
            hub.events.push(What::Disconnected(link.peer));
            hub.end_session(&link.peer, number);
        })?;
        Ok(())
    }

    fn end_session(&self, device: &DeviceId, number: u64) {
        // Before it is seen to be gone, so that nobody reads when it was there an hour ago.
        self.note_sightings();
        let session = {
            let mut state = self.lock();
            match state.sessions.get(device) {
                Some(session) if session.sender.session == number => state.sessions.remove(device),
                _ => None,
            }
        };
        if let Some(session) = session {
            self.leave_folders(device, &session);
            self.say_changed();
            self.sightings.save();
        }
    }

    /// Takes note that the devices with a session are connected.
    fn note_sightings(&self) {
        let (connected, known) = {
            let state = self.lock();
            let known: BTreeSet<DeviceId> = state.config.devices.iter().map(|device| device.id).collect();
            (state.sessions.keys().copied().collect::<Vec<_>>(), known)
        };
        self.sightings.note(connected, |device| known.contains(device), wall_ns());
    }

    /// Writes down that the devices with a session are connected.
    pub fn keep_sightings(&self) {
        self.note_sightings();
        self.sightings.save();
    }

    fn leave_folders(&self, device: &DeviceId, session: &Session) {
        let state = self.lock();
        for id in session.shared.keys() {
            if let Some(Slot::Running(handle)) = state.folders.get(id) {
                handle.commands.send(Command::PeerDown(*device, session.sender.session)).ok();
            }
        }
    }

    fn read(
        self: &Arc<Self>,
        device: &DeviceId,
        number: u64,
        sender: &PeerSender,
        mut reader: FrameReader,
    ) -> Result<Goodbye, SessionError> {
        loop {
            let frame = reader.read()?;
            let message = Message::decode(frame.kind, &frame.header, &frame.body).map_err(SessionError::Decode)?;
            let Some(message) = message else {
                // A word of the tunnel itself has an answer that waits to be sent; a later version's has none.
                if frame.kind >= KIND_MIN {
                    sender.send(Outgoing::Nothing);
                }
                continue;
            };
            sender.heard(&message, frame.header.len() + frame.body.len());
            match message {
                Message::Ping => sender.send(Outgoing::Message(Message::Pong)),
                Message::Pong => sender.is_there(),
                Message::Goodbye(reason) => return Ok(reason),
                Message::Hello(hello) => {
                    for folder in hello.folders {
                        self.hear_of_folder(device, number, folder);
                    }
                }
                Message::Folder(folder) => self.hear_of_folder(device, number, folder),
                Message::Unshare(folder) => self.hear_unshared(device, number, folder),
                Message::Trust(said) => self.hear_revocations(device, &said),
                Message::NextId(next) => self.hear_next(device, sender, next),
                Message::NextNoted(next) => self.hear_noted(device, &next),
                Message::Chunk(header) => {
                    if let Some(folder) = self.folder_of_request(header.request) {
                        // The hash is computed here, on the session's own thread.
                        let chunk = VerifiedChunk::hash(frame.body);
                        folder.send(FromPeer::Chunk(*device, number, header, chunk)).ok();
                    }
                    continue;
                }
                message => {
                    if let Some(folder) = self.folder_of(&message) {
                        folder.send(FromPeer::Message(*device, number, message)).ok();
                    }
                }
            }
            reader.recycle(frame);
        }
    }

    fn folder_of(&self, message: &Message) -> Option<crossbeam_channel::Sender<FromPeer>> {
        let id = match message {
            Message::Records(records) => records.folder,
            Message::Ack(ack) => ack.folder,
            Message::WantRecipe(want) | Message::WantPages { want, .. } => want.folder,
            Message::Want(want) => want.folder,
            Message::WantHistory(want) => want.folder,
            Message::History(history) => return self.folder_of_request(history.request),
            Message::Recipe { request, .. } | Message::Page { request, .. } | Message::Missing { request, .. } => {
                return self.folder_of_request(*request);
            }
            _ => return None,
        };
        match self.lock().folders.get(&id) {
            Some(Slot::Running(handle)) => Some(handle.from_peers.clone()),
            _ => None,
        }
    }

    /// Requests are numbered so that their answers find the folder that asked.
    fn folder_of_request(&self, request: u64) -> Option<crossbeam_channel::Sender<FromPeer>> {
        let state = self.lock();
        let asked = |(id, _): &(&FolderId, &Slot)| crate::engine::folder::is_request_of(id, request);
        match state.folders.iter().find(asked) {
            Some((_, Slot::Running(handle))) => Some(handle.from_peers.clone()),
            _ => None,
        }
    }

    /// Changes the configuration file, and puts it in force.
    pub(super) fn edit(self: &Arc<Self>, change: impl FnOnce(&mut Edit) -> Result<(), config::error::EditError>) {
        let edited = Edit::open(&self.paths).map_err(|error| chain(&error)).and_then(|mut edit| {
            change(&mut edit).map_err(|error| chain(&error))?;
            edit.save().map_err(|error| chain(&error))
        });
        match edited {
            Ok(config) => self.apply(config),
            Err(error) => tracing::error!(error, "the configuration could not be changed"),
        }
    }

    // ---------------------------------------------------------------------------------- dialing

    /// Returns whether the peer is known to have AES instructions.
    pub fn peer_has_aes(&self, device: &DeviceId) -> Option<bool> {
        self.lock().peers_with_aes.get(device).copied()
    }

    /// Notes why a device is not connected.
    pub fn note_trouble(&self, device: DeviceId, trouble: Trouble) {
        let mut state = self.lock();
        if !state.sessions.contains_key(&device) && state.config.device(&device).is_some() {
            state.troubles.insert(device, trouble);
        }
    }

    // ----------------------------------------------------------------------------------- ending

    /// Ends all sessions and folders, in this order. Returns the key of the next daemon, where there is to be one.
    pub fn stop(&self) -> Option<PrivateKey> {
        let (sessions, folders) = {
            let mut state = self.lock();
            state.is_stopping = true;
            (std::mem::take(&mut state.sessions), std::mem::take(&mut state.folders))
        };
        for session in sessions.values() {
            session.sender.send(Outgoing::Close(Goodbye::Stopping));
        }
        for slot in folders.into_values() {
            if let Slot::Running(handle) = slot {
                handle.stop();
            }
        }
        for session in sessions.values() {
            session.sender.cut();
        }
        let pool = self.pool.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(pool) = pool.and_then(Arc::into_inner) {
            pool.finish();
        }
        self.again.load(Ordering::Relaxed).then(|| self.next_private_key())
    }
}

/// Why a session ended without a goodbye.
#[derive(Debug, thiserror::Error)]
enum SessionError {
    #[error("the connection failed")]
    Connection(#[from] ConnectionError),
    #[error("the device broke the protocol")]
    Decode(#[source] crate::wire::message::DecodeError),
}

/// Returns whom this device talks to at all.
pub fn policy_of(config: &Config) -> Policy {
    let allowed: Vec<(IpAddr, u8)> = config.network.allow.iter().map(|net| (net.first(), net.prefix_bits())).collect();
    Policy { lan_only: config.network.mode == NetworkMode::Lan, allowed }
}

fn disk_size(path: &std::path::Path) -> u64 {
    rustix::fs::statvfs(path).map_or(u64::MAX, |fs| fs.f_blocks.saturating_mul(fs.f_frsize))
}

/// Writes an error with all its causes on one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}
