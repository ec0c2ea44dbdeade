//! A folder as the rest of the daemon sees it: what it is asked and told, and the thread behind that.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crossbeam_channel::{Sender, bounded, unbounded};

use crate::config::merge::Merge;
use crate::daemon::events::Events;
use crate::daemon::history;
use crate::daemon::merging::{Merged, Sides};
use crate::daemon::peer::PeerSender;
use crate::daemon::place::Place;
use crate::daemon::pool::Pool;
use crate::daemon::run::{Run, open_index};
use crate::disk::hash::Durability;
use crate::disk::ignore::Gitignores;
use crate::engine::brake::HeldCounts;
use crate::engine::chunk::VerifiedChunk;
use crate::engine::effect::{HashOutcome, StageId};
use crate::engine::folder::{FolderStatus, Greeting, HeldBy, Input, PastError, VerifyStatus};
use crate::engine::index::{Index, Kept, Local, Totals};
use crate::model::brake::Thresholds;
use crate::model::id::{DeviceId, FolderId, Sequence};
use crate::model::path::RelPath;
use crate::model::problem::Problem;
use crate::model::record::FileBody;
use crate::model::rights::Right;
use crate::store::error::StoreError;
use crate::wire::message::{ChunkHeader, FolderHello, Message};
use crate::wire::past::Former;

/// What a folder is asked or told.
pub enum Command {
    /// Something happened.
    Input(Input),
    /// A file was read, or could not be; and whether its content is durable already.
    Read(RelPath, HashOutcome, Durability),
    /// Paths were touched; [`Place::take_touched`] has them.
    Touched,
    /// A peer that shares the folder can be spoken to.
    PeerUp(DeviceId, Right, FolderHello, PeerSender),
    /// A session is over, or the folder is no longer shared with that peer.
    PeerDown(DeviceId, u64),
    /// What to say of the folder to a peer.
    HelloFor(DeviceId, Sender<Greeting>),
    /// Where the folder stands.
    Status(Sender<Report>),
    /// Compare all files with their records, and with `true` heal what is damaged.
    Verify(bool, Sender<()>),
    /// How far that has come.
    Verified(Sender<(VerifyStatus, Totals)>),
    /// All problems.
    Problems(Sender<Vec<Problem>>),
    /// What is held of each peer, with some of the names.
    Held(usize, Sender<Vec<HeldBy>>),
    /// Let go what is held, or with `true` have the peers take back what lies here.
    Release(bool, Sender<HeldCounts>),
    /// All conflict copies, each with the path that it is a copy of, and what lies there.
    Conflicts(Sender<Vec<(Local, RelPath, Option<Local>)>>),
    /// Former versions of a path, or of all below it, and what is there now.
    Kept(Option<RelPath>, bool, Sender<(Vec<Kept>, Option<Local>)>),
    /// Bring back a former version.
    Restore(history::Restore, Sender<Result<history::Restored, String>>),
    /// Which former versions a peer keeps of a path and of all below it.
    AskHistory(DeviceId, Option<RelPath>, Sender<Result<Vec<Former>, PastError>>),
    /// Take the contents of former versions from a peer, into staging files.
    TakeFormer(DeviceId, Vec<(RelPath, FileBody)>, Sender<Result<Vec<StageId>, PastError>>),
    /// Give up staging files.
    Discard(Vec<StageId>),
    /// Settle a conflict.
    Settle(history::Settle, Sender<Result<(), String>>),
    /// Both sides of the conflict at or of a path.
    Sides(RelPath, Sender<Result<Sides, String>>),
    /// Settle a conflict with a text that holds both sides. Nobody is told where nobody asked.
    Merge(Box<Merged>, Option<Sender<Result<(), String>>>),
    /// End.
    Stop,
}

/// Where a folder stands.
#[derive(Clone)]
pub struct Report {
    /// What the state machine says.
    pub status: FolderStatus,
    /// Whether nothing is left to do.
    pub is_settled: bool,
    /// Bytes of history.
    pub history_bytes: u64,
}

/// Something that a peer said, by the session it was said in.
pub enum FromPeer {
    /// A message about the folder.
    Message(DeviceId, u64, Message),
    /// A chunk.
    Chunk(DeviceId, u64, ChunkHeader, VerifiedChunk),
}

/// Bytes that went over the wire for a folder.
#[derive(Debug, Default)]
pub struct Traffic {
    /// Bytes of chunks that were sent.
    pub sent: AtomicU64,
    /// Bytes of chunks that were received.
    pub received: AtomicU64,
}

/// How a folder is to be kept.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Settings {
    /// Which folder.
    pub id: FolderId,
    /// Its name, for the log.
    pub name: String,
    /// Where it lies.
    pub path: PathBuf,
    /// Where its index lies.
    pub index: PathBuf,
    /// This device.
    pub device: DeviceId,
    /// Time between two scans.
    pub rescan_interval: Duration,
    /// Whether `.gitignore` files count.
    pub gitignores: Gitignores,
    /// Days for which history is kept.
    pub history_days: u32,
    /// Bytes of history, at most.
    pub history_bytes_max: u64,
    /// When a change set of a peer is held until a person looks; `None`: never.
    pub brake: Option<Thresholds>,
    /// Time within which all files are read again and compared with their records; `None`: never.
    pub scrub: Option<Duration>,
    /// What becomes of texts that were edited apart.
    pub merge: Merge,
}

/// A running folder, as others see it.
pub struct FolderHandle {
    /// How it is kept.
    pub settings: Settings,
    /// To ask and to tell it.
    pub commands: Sender<Command>,
    /// For what peers say.
    pub from_peers: Sender<FromPeer>,
    /// What it moved.
    pub traffic: Arc<Traffic>,
    /// Where it lies.
    pub place: Arc<Place>,
    thread: Option<JoinHandle<()>>,
}

impl FolderHandle {
    /// Opens the index and starts the thread.
    ///
    /// # Errors
    /// The index cannot be opened, or the system gives no thread.
    pub fn start(settings: Settings, pool: Arc<Pool>, events: Arc<Events>) -> Result<Self, StoreError> {
        let (commands, inbox) = unbounded();
        // Bounded, so that a peer that sends faster than this disk writes is slowed down by TCP.
        let (from_peers, peers) = bounded(256);
        let index = open_index(&settings)?;
        let is_new = index.last_sequence() == Sequence(0);
        let place = Place::new(settings.path.clone(), settings.id, is_new, settings.gitignores, commands.clone());
        let place = Arc::new(place);
        let traffic = Arc::new(Traffic::default());
        let mut run = Run::new(settings.clone(), pool, place.clone(), traffic.clone(), events, commands.clone());
        let name = format!("folder-{}", &settings.id.to_string()[..4]);
        let spawned = thread::Builder::new().name(name).spawn(move || run.run(index, &inbox, &peers));
        let thread = spawned.map_err(|source| StoreError::Io { table: "thread", source: source.into() })?;
        Ok(Self { settings, commands, from_peers, traffic, place, thread: Some(thread) })
    }

    /// Ends the folder's thread and waits for it.
    pub fn stop(mut self) {
        self.place.cancel.store(true, Ordering::Relaxed);
        self.commands.send(Command::Stop).ok();
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
        self.place.close();
    }
}
