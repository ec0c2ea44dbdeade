//! The daemon: what connects all other layers and runs until it is told to stop.
//!
//! Its threads: one for each folder, which owns the folder's state machine and index; a pool for work
//! on disks; two for each session with a peer; a small runtime for sockets that wait, handshakes, the
//! control API and signals. All are ended in order and waited for.
//!
//! It has a keeper beside it, which starts the next one where what it took from itself at the start is needed
//! after all.

pub mod control;

mod api;
mod attention;
mod discovery;
mod epoch;
mod events;
mod folder;
#[cfg(test)]
mod folder_tests;
mod greeting;
pub mod history;
mod hub;
mod keeper;
mod lanes;
mod lookout;
mod merging;
mod metered;
pub mod pairing;
mod past;
mod peer;
mod place;
mod pool;
mod rates;
pub mod recover;
#[cfg(test)]
mod recover_tests;
mod rests;
pub mod rotation;
mod run;
mod sandbox;
mod seen;
mod sightings;
mod trust;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::File;
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rustix::fs::{FlockOperation, Mode, OFlags};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use crate::config::file::create_private_dir;
use crate::config::paths::Paths;
use crate::config::{Config, Network};
use crate::control::log::LogRing;
use crate::daemon::discovery::keep_discovering;
use crate::daemon::hub::{Hub, Listening, Trouble};
use crate::daemon::keeper::{Line, PrivateKey};
use crate::daemon::metered::Lookout;
use crate::daemon::pool::Pool;
use crate::daemon::sandbox::Sandbox;
use crate::daemon::seen::Seen;
use crate::engine::session::handshake::{Local, Versions};
use crate::keys::identity::Identity;
use crate::model::id::DeviceId;
use crate::model::limits::HANDSHAKE_TIMEOUT;
use crate::net::crypto::{SystemPrimitives, has_aes_hardware};
use crate::net::dial::{DialError, dial};
use crate::net::endpoint::Endpoint;
use crate::net::interfaces;
use crate::net::listen::{Arrival, ListenBounds, ListenError, Listener};
use crate::net::policy::Policy;

/// First pause after a dial that failed; it doubles up to [`DIAL_PAUSE_MAX`].
const DIAL_PAUSE_MIN: Duration = Duration::from_millis(250);
/// How long a daemon that is ending is waited for.
const LOCK_PATIENCE: Duration = Duration::from_secs(3);
/// How long one whose keeper was killed is waited for: it is dead, but the disk may hold it.
const DYING_PATIENCE: Duration = Duration::from_secs(30);
/// How long taking back what the network was told may take at the end.
const GOODBYE_PATIENCE: Duration = Duration::from_secs(3);
/// Pause between two looks at which network interfaces there are.
const INTERFACE_PAUSE: Duration = Duration::from_millis(500);
/// Pause between two looks at where the folders lie, and at the clock for those that rest.
const LOOK_PAUSE: Duration = Duration::from_secs(2);
/// Pause between two words to peers that have not noted who this device is going to be.
const TELL_PAUSE: Duration = Duration::from_secs(10);
/// Pause between two notes of which devices are connected.
const SIGHTING_PAUSE: Duration = Duration::from_secs(600);
/// Longest pause between two dials.
const DIAL_PAUSE_MAX: Duration = Duration::from_secs(5);

pub use keeper::{AGAIN, keep, serve_kept, stand_by};
pub use lookout::look_out;

/// What a daemon is started with, besides its configuration.
#[derive(Clone, Debug, Default)]
pub struct ServeOptions {
    /// The newest lines of the log, for `kinfold log`.
    pub log: LogRing,
    /// Whether it is to end where it cannot confine itself wholly, whatever the configuration says.
    pub require_sandbox: bool,
    /// The arguments that make this program the lookout of a daemon; its process id goes after them.
    pub as_lookout: Vec<OsString>,
}

/// How a daemon ended that did not fail.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Ended {
    /// For good.
    ForGood,
    /// To be started again, with what its configuration says now.
    ToBeginAgain,
}

/// A daemon cannot begin, and a person can do something about it.
#[derive(Debug, thiserror::Error)]
#[error("{what}")]
pub struct Unable {
    /// What it cannot do.
    pub what: String,
    /// What to do about it.
    pub advice: &'static str,
}

/// Runs the daemon under a keeper until a signal or a client ends it, or until it needs to begin again. It must
/// be the only thread of this process.
///
/// # Errors
/// It cannot begin: the configuration or the key is not valid, another daemon runs, or an address is
/// taken. Each says what to do.
pub fn serve_for(keeper: i32, paths: Paths, options: ServeOptions) -> anyhow::Result<Ended> {
    let socket = sandbox::process::inherit(keeper)?;
    let identity = keeper::take_identity()?;
    match serve(paths, options, identity, socket, None)? {
        None => Ok(Ended::ForGood),
        Some(key) => keeper::hand_back(&key).map(|()| Ended::ToBeginAgain),
    }
}

/// The same, by whoever holds the identity and the control socket. Returns the key of the next daemon, where there is to
/// be one.
fn serve(
    paths: Paths,
    options: ServeOptions,
    identity: Identity,
    socket: UnixListener,
    line: Option<Arc<Line>>,
) -> anyhow::Result<Option<PrivateKey>> {
    create_private_dir(&paths.state_dir).with_context(|| format!("cannot use {}", paths.state_dir.display()))?;
    // A keeper that was killed has a daemon that is just dying; it holds this a moment longer.
    let _lock = lock(&paths, "serving.lock", DYING_PATIENCE)?;
    let identity = rotation::present(&paths, identity)?;
    let config = rotation::finish(&paths)?.map_or_else(|| Config::load(&paths), Ok)?;
    // Once confined, this process starts no other.
    let lookout = metered::matters(&config).then(|| Lookout::start(&options.as_lookout));
    let sandbox = sandbox::enter(&paths, &config, options.require_sandbox)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(16)
        .thread_name("net")
        .enable_all()
        .build()
        .context("the system gives no threads")?;
    let result = runtime.block_on(run(paths, options.log, config, identity, (sandbox, lookout), socket, line));
    runtime.shutdown_timeout(Duration::from_secs(2));
    result
}

/// Keeps a second one off the same state.
fn lock(paths: &Paths, name: &str, patience: Duration) -> anyhow::Result<File> {
    let path = paths.state_dir.join(name);
    let flags = OFlags::CREATE | OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let file = rustix::fs::open(&path, flags, Mode::RUSR | Mode::WUSR)
        .with_context(|| format!("cannot open {}", path.display()))?;
    // One that is just ending, as at a restart, is waited for.
    let until = Instant::now() + patience;
    loop {
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(file.into()),
            Err(rustix::io::Errno::WOULDBLOCK) if Instant::now() < until => {
                std::thread::sleep(Duration::from_millis(50));
            }
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let what = format!("another daemon is running with the state in {}", paths.state_dir.display());
                let advice = "`kinfold status` asks it; to run two, give each its own --home";
                bail!(Unable { what, advice });
            }
            Err(error) => return Err(error).with_context(|| format!("cannot lock {}", path.display())),
        }
    }
}

async fn run(
    paths: Paths,
    log: LogRing,
    config: Config,
    identity: Identity,
    (sandbox, lookout): (Sandbox, Option<Lookout>),
    socket: UnixListener,
    line: Option<Arc<Line>>,
) -> anyhow::Result<Option<PrivateKey>> {
    let local = Local {
        device: identity.device_id(),
        private: identity.private_key(),
        versions: Versions::OURS,
        has_aes: has_aes_hardware(),
    };
    // Nothing is let in before the configuration is in force.
    let closed = Policy { lan_only: true, allowed: Vec::new() };
    let seen_file = paths.state_dir.join("seen-handshakes");
    let (seen, earlier) = Seen::open(&seen_file).with_context(|| format!("cannot use {}", seen_file.display()))?;
    let endpoint = Endpoint::new(local, Box::new(SystemPrimitives), closed);
    let endpoint = Arc::new(endpoint.with_memory(earlier, move |tag| seen.add(tag)));
    let network = config.network.clone();
    let listener = bind(&network).map_err(|error| {
        let taken = error.source.kind() == std::io::ErrorKind::AddrInUse;
        let advice = match taken {
            true => "another program listens there: change `listen` under [network]",
            false => "`listen` under [network] has to name addresses of this machine",
        };
        Unable { what: format!("cannot listen on {}: {}", error.addr, error.source), advice }
    })?;
    let pool = Pool::start().context("the system gives no threads")?;
    let hub = Hub::new(paths.clone(), identity, endpoint.clone(), pool, config.clone(), sandbox, lookout);
    let stopped = hub.watch_stop();
    let api = Arc::new(api::Daemon { hub: hub.clone(), log });
    let (begin, begun) = watch::channel(false);
    let control = tokio::spawn(control::serve(socket, api, begun, stopped.clone()));
    // From here on a signal asks for an orderly end: indices are about to be opened.
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let mut hangup = signal(SignalKind::hangup())?;
    {
        // Indices are opened here, which may take a while.
        let hub = hub.clone();
        tokio::task::spawn_blocking(move || {
            hub.look_at_keys();
            hub.apply(config);
        })
        .await?;
    }
    begin.send_replace(true);
    let (arrivals, mut arrived) = mpsc::channel(16);
    let listening = tokio::spawn(keep_listening(hub.clone(), network, listener, arrivals));
    let dialing = tokio::spawn(keep_dialing(hub.clone(), stopped.clone()));
    let looking = tokio::spawn(keep_looking(hub.clone()));
    let asking = tokio::spawn(metered::keep_listening(hub.clone()));
    let discovering = {
        let (hub, stopped) = (hub.clone(), stopped.clone());
        tokio::task::spawn_blocking(move || keep_discovering(&hub, &stopped))
    };
    let mut until_stopped = stopped;
    loop {
        tokio::select! {
            arrival = arrived.recv() => match arrival {
                Some(arrival) => welcome(&hub, arrival),
                None => break,
            },
            _ = interrupt.recv() => break,
            _ = terminate.recv() => break,
            _ = hangup.recv() => {
                let (hub, line) = (hub.clone(), line.clone());
                tokio::task::spawn_blocking(move || {
                    line.iter().for_each(|line| line.reloading());
                    if let Err(error) = hub.reload() {
                        tracing::error!(error = hub::chain(&error), "the configuration is not valid; the old one stays in force");
                    }
                    line.iter().for_each(|line| line.reloaded());
                });
            }
            _ = until_stopped.wait_for(|stop| *stop) => break,
        }
    }
    tracing::info!("stopping");
    line.iter().for_each(|line| line.stopping());
    hub.end(None);
    listening.abort();
    dialing.abort();
    looking.abort();
    asking.abort();
    hub.lookout.iter().for_each(Lookout::dismiss);
    let ended = {
        let hub = hub.clone();
        tokio::select! {
            ended = tokio::task::spawn_blocking(move || hub.stop()) => ended?,
            _ = interrupt.recv() => at_once(),
            _ = terminate.recv() => at_once(),
        }
    };
    // The beacon is taken back, so that nobody looks for us where we are not.
    tokio::time::timeout(GOODBYE_PATIENCE, discovering).await.ok();
    // Clients that wait for an answer get a moment; the rest goes with the runtime.
    tokio::time::timeout(Duration::from_secs(1), control).await.ok();
    Ok(ended)
}

/// Whoever asks twice does not want to wait.
fn at_once() -> ! {
    tracing::warn!("asked to end twice: ending at once");
    std::process::exit(0)
}

fn welcome(hub: &Arc<Hub>, arrival: Arrival) {
    match arrival {
        Arrival::Peer(connection) => {
            let hub = hub.clone();
            tokio::task::spawn_blocking(move || hub.begin_session(connection));
        }
        Arrival::Incompatible { peer, addr, theirs, ours } => {
            tracing::warn!(device = %peer, address = %addr, "the device speaks protocol {theirs}, this one {ours}: update the older");
            let what = format!("it speaks protocol version {theirs}, this device {ours}");
            hub.note_trouble(peer, Trouble { what, hint: Some("update kinfold on the older of the two".into()) });
        }
    }
}

/// Listens; by the interfaces that were named, where they are there now.
fn bind(network: &Network) -> Result<(Listener, BTreeMap<String, u32>), ListenError> {
    if network.interfaces.is_empty() {
        return Ok((Listener::bind(&network.listen, ListenBounds::STANDARD)?, BTreeMap::new()));
    }
    // Where they cannot be asked for, they are away.
    let present = interfaces::present(&network.interfaces).unwrap_or_default();
    let names = present.keys().map(String::as_str);
    Ok((Listener::bind_by(&network.listen, names, ListenBounds::STANDARD), present))
}

/// Listens until the daemon ends. Where interfaces were named, listens anew when they come and go, and cuts
/// what was connected by them.
async fn keep_listening(
    hub: Arc<Hub>,
    network: Network,
    (mut listener, mut present): (Listener, BTreeMap<String, u32>),
    arrivals: mpsc::Sender<Arrival>,
) {
    loop {
        let away: Vec<_> = network.interfaces.iter().filter(|name| !present.contains_key(*name)).cloned().collect();
        for address in listener.addresses() {
            tracing::info!(%address, "listening");
        }
        for interface in &away {
            tracing::warn!(interface, "the network interface is away; nothing is sent or taken by another");
        }
        hub.set_listening(Listening { addresses: listener.addresses().to_vec(), away });
        let changed = async {
            loop {
                tokio::time::sleep(INTERFACE_PAUSE).await;
                let now = interfaces::present(&network.interfaces).unwrap_or_default();
                if now != present {
                    return now;
                }
            }
        };
        tokio::select! {
            () = listener.run(hub.endpoint.clone(), arrivals.clone()) => return,
            now = changed, if !network.interfaces.is_empty() => {
                tracing::info!("network interfaces have changed");
                present = now;
            }
        }
        hub.cut_sessions();
        match bind(&network) {
            Ok((anew, _)) => listener = anew,
            Err(error) => return tracing::error!(error = hub::chain(&error), "listening no longer"),
        }
    }
}

/// Looks now and then whether this machine still has the addresses that it is connected from, and whether the folders
/// still lie in the directories that this process may reach: a disk that is mounted late is another directory than the
/// one that was there. Looks at the clock, too: a timer would not know that it was set, or that the machine slept.
async fn keep_looking(hub: Arc<Hub>) {
    let (mut noted, mut told) = (Instant::now(), Instant::now());
    loop {
        tokio::time::sleep(LOOK_PAUSE).await;
        let is_to_tell = told.elapsed() > TELL_PAUSE;
        if is_to_tell {
            told = Instant::now();
        }
        let is_due = noted.elapsed() > SIGHTING_PAUSE;
        if is_due {
            noted = Instant::now();
        }
        let hub = hub.clone();
        let look = move || {
            hub.check_places();
            hub.cut_strayed();
            hub.check_rests();
            if is_to_tell {
                hub.tell_next_to_all();
            }
            if is_due {
                hub.keep_sightings();
            }
        };
        if tokio::task::spawn_blocking(look).await.is_err() {
            return;
        }
    }
}

/// Dials all devices that are not connected, each by a task of its own, while that is so.
async fn keep_dialing(hub: Arc<Hub>, stopped: watch::Receiver<bool>) {
    let mut changes = hub.watch_changes();
    let mut tasks: BTreeMap<DeviceId, (Vec<std::net::SocketAddr>, JoinHandle<()>)> = BTreeMap::new();
    while !*stopped.borrow() {
        let wanted = hub.to_dial();
        tasks.retain(|device, (addresses, task)| {
            let stays = wanted.get(device) == Some(addresses) && !task.is_finished();
            if !stays {
                task.abort();
            }
            stays
        });
        for (device, addresses) in wanted {
            tasks.entry(device).or_insert_with(|| {
                let task = tokio::spawn(dial_until_connected(hub.clone(), device, addresses.clone()));
                (addresses, task)
            });
        }
        if changes.changed().await.is_err() {
            return;
        }
    }
}

async fn dial_until_connected(hub: Arc<Hub>, device: DeviceId, addresses: Vec<std::net::SocketAddr>) {
    let mut pause = DIAL_PAUSE_MIN;
    loop {
        for address in &addresses {
            let suite = hub.endpoint.suite_for(hub.peer_has_aes(&device));
            match dial(&hub.endpoint, device, *address, suite, HANDSHAKE_TIMEOUT).await {
                Ok(connection) => {
                    let hub = hub.clone();
                    // Its end, or its being superfluous, is a change that brings us back if need be.
                    tokio::task::spawn_blocking(move || hub.begin_session(connection)).await.ok();
                    // Where the other end chose another connection, that one is on its way.
                    tokio::time::sleep(DIAL_PAUSE_MAX).await;
                }
                Err(error) => {
                    tracing::debug!(%device, error = hub::chain(&error), "not connected");
                    hub.note_trouble(device, trouble_of(&device, &hub, &error));
                }
            }
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(DIAL_PAUSE_MAX);
    }
}

fn trouble_of(_device: &DeviceId, hub: &Hub, error: &DialError) -> Trouble {
    let hint = match error {
        DialError::Forbidden { .. } => {
            Some("this device talks to local networks only; add the network to `allow` under [network]".to_owned())
        }
        DialError::NoInterface { .. } => Some("bring it up, or take it out of `interfaces` under [network]".to_owned()),
        DialError::NoAnswer { .. } => Some(format!("has the other device added {}?", hub.identity.device_id())),
        DialError::Unreachable { .. } => Some("is it on, and is kinfold running there?".to_owned()),
        DialError::Handshake { .. } | DialError::Untrusted { .. } | DialError::Lost { .. } => None,
    };
    Trouble { what: hub::chain(error), hint }
}
