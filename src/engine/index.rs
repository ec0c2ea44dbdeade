//! What the engine remembers: the interface that a folder's index offers.
//!
//! The store implements it over SQLite, the tests and the simulator in memory. All calls are
//! synchronous and short. Changes become visible to reads at once and durable with
//! [`Index::commit`]; a crash before that forgets all of them together.

use crate::engine::brake::Standing;
use crate::model::id::{AuthorId, ChunkId, DeviceId, DeviceTag, Incarnation, Life, Sequence};
use crate::model::path::RelPath;
use crate::model::recipe::Recipe;
use crate::model::record::{Body, Record};
use crate::model::stat::Stat;

/// What this device holds at a path.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Local {
    /// The record, as it is announced.
    pub record: Record,
    /// The place of its last change in this device's order.
    pub sequence: Sequence,
    /// What lay on the disk when the record was made; `None` for tombstones.
    pub stat: Option<Stat>,
    /// Whether the path is left out by the ignore rules. Its record then only remembers what was
    /// there before and does not change; what is announced is that it is left out, under `sequence`. A missing
    /// file is not a deletion.
    pub ignored: bool,
    /// When this record came to be here, in nanoseconds since 1970, for history.
    pub since_ns: i64,
}

/// What a peer holds at a path, where that is not what this device holds or has seen.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Remote {
    /// The peer's record.
    pub record: Record,
    /// The recipe, where it came with the record or was fetched since.
    pub recipe: Option<Recipe>,
    /// Where it stands with the brake.
    pub standing: Standing,
}

/// How far this device and a peer have told each other what they hold.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Cursor {
    /// The incarnation of the peer's index that the rest speaks of; `None` before the first contact.
    pub incarnation: Option<Incarnation>,
    /// The peer's changes up to here are known.
    pub received: Sequence,
    /// The life of the peer's index in which the last of them were heard.
    pub life: Life,
    /// The peer has durably taken note of this device's changes up to here.
    pub acknowledged: Sequence,
    /// This device's last change when both were last known to hold just the same: of all up to here the peer
    /// holds what is held here, or something newer.
    pub agreed: Sequence,
    /// What the peer leaves out of what is held here: the sum of the hashes of the live records at paths that it
    /// withdrew, to be taken out of the tree's hash where the two are compared.
    pub apart: [u8; 32],
    /// The number of the peer's records that stand apart: at paths that it leaves out, or this device does.
    pub left_out: u64,
}

/// A former version of a path that was put aside.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Kept {
    /// Where it lay.
    pub path: RelPath,
    /// What it was.
    pub body: Body,
    /// Who had made it.
    pub by: DeviceTag,
    /// From when on it lay here, in nanoseconds since 1970.
    pub since_ns: i64,
    /// When it was put aside, in nanoseconds since 1970.
    pub until_ns: i64,
    /// The name of the file in the history directory; `None` where nothing lay there before
    /// (a path that came to be, so that a restore knows to remove it).
    pub file: Option<String>,
}

/// Counts of what a folder holds.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Totals {
    /// Regular files.
    pub files: u64,
    /// Directories.
    pub dirs: u64,
    /// Symbolic links.
    pub symlinks: u64,
    /// Bytes of all regular files.
    pub bytes: u64,
}

/// The index of one folder on one device.
pub trait Index {
    /// Why a call failed. The folder stops: nothing can be decided without its index.
    type Error: std::error::Error + Send + Sync + 'static;

    /// Makes all changes since the last call durable, all or none.
    fn commit(&mut self) -> Result<(), Self::Error>;

    /// Returns the incarnation of this index.
    fn incarnation(&self) -> Incarnation;

    /// Begins a new incarnation, because a peer has seen changes of ours that we do not remember.
    fn begin_incarnation(&mut self, incarnation: Incarnation) -> Result<(), Self::Error>;

    /// Returns the last sequence that was given out.
    fn last_sequence(&self) -> Sequence;

    /// Gives out the next sequence: one more than the last, or `at_least` where that is more.
    fn next_sequence(&mut self, at_least: Sequence) -> Result<Sequence, Self::Error>;

    /// Returns what is held at `path`, tombstones included.
    fn local(&self, path: &RelPath) -> Result<Option<Local>, Self::Error>;

    /// Returns what is held right below a directory (`None`: the root), tombstones and ignored
    /// paths included, in the order of names.
    fn children(&self, dir: Option<&RelPath>) -> Result<Vec<Local>, Self::Error>;

    /// Returns whether something live, not ignored, lies below `dir`.
    fn has_live_below(&self, dir: &RelPath) -> Result<bool, Self::Error>;

    /// Returns the recipe of the file at `path`.
    fn recipe(&self, path: &RelPath) -> Result<Option<Recipe>, Self::Error>;

    /// Writes what is held at a path. `recipe` is given for files whose content is new; `None` leaves
    /// the recipe that is there if the record is a file, and drops it otherwise.
    fn set_local(&mut self, local: &Local, recipe: Option<&Recipe>) -> Result<(), Self::Error>;

    /// Forgets a path altogether.
    fn drop_local(&mut self, path: &RelPath) -> Result<(), Self::Error>;

    /// Returns up to `limit` records after `since` in the order of sequences, ignored ones included,
    /// with their recipes where these have at most `INLINE_CHUNKS_MAX` chunks.
    fn changes_since(&self, since: Sequence, limit: usize) -> Result<Vec<(Local, Option<Recipe>)>, Self::Error>;

    /// Returns up to `limit` live files that have this chunk.
    fn holders_of(&self, chunk: &ChunkId, limit: usize) -> Result<Vec<RelPath>, Self::Error>;

    /// Returns up to `limit` live files that were last seen with this inode: all names of a hard link.
    fn by_inode(&self, dev: u64, ino: u64, limit: usize) -> Result<Vec<Local>, Self::Error>;

    /// Returns counts of what is held.
    fn totals(&self) -> Result<Totals, Self::Error>;

    /// Returns the sum of the hashes of all live records that are not ignored, as the engine left it.
    fn tree_hash(&self) -> [u8; 32];

    /// Stores that sum.
    fn set_tree_hash(&mut self, hash: [u8; 32]) -> Result<(), Self::Error>;

    /// Returns what the brake remembers, as the engine left it; empty at first.
    fn brake(&self) -> &[u8];

    /// Stores that.
    fn set_brake(&mut self, state: &[u8]) -> Result<(), Self::Error>;

    /// Returns how far the slow check of all files has come, as the engine left it; empty at first.
    fn scrub(&self) -> Result<Vec<u8>, Self::Error>;

    /// Stores that.
    fn set_scrub(&mut self, state: &[u8]) -> Result<(), Self::Error>;

    /// Returns the lives that this index has had, as the engine left them; empty at first.
    fn lives(&self) -> Result<Vec<u8>, Self::Error>;

    /// Stores the lives that this index has had.
    fn set_lives(&mut self, lives: &[u8]) -> Result<(), Self::Error>;

    /// Returns what a peer holds at `path`, if that was stored.
    fn remote(&self, peer: &DeviceId, path: &RelPath) -> Result<Option<Remote>, Self::Error>;

    /// Returns what all peers hold at `path`, in the order of peers.
    fn remotes(&self, path: &RelPath) -> Result<Vec<(DeviceId, Remote)>, Self::Error>;

    /// Returns up to `limit` paths after `after` at which some peer holds something else, in order.
    fn remote_paths(&self, after: Option<&RelPath>, limit: usize) -> Result<Vec<RelPath>, Self::Error>;

    /// Returns the number of rows that [`Index::set_remote`] left for a peer.
    fn remote_count(&self, peer: &DeviceId) -> Result<u64, Self::Error>;

    /// Stores what a peer holds at a path, or forgets it for `None`.
    fn set_remote(&mut self, peer: &DeviceId, path: &RelPath, remote: Option<&Remote>) -> Result<(), Self::Error>;

    /// Forgets all that a peer holds, and its cursor.
    fn drop_peer(&mut self, peer: &DeviceId) -> Result<(), Self::Error>;

    /// Keeps all that is known of a peer under another id, of which nothing is known yet.
    fn rename_peer(&mut self, from: &DeviceId, to: &DeviceId) -> Result<(), Self::Error>;

    /// Returns how far this device and a peer have come.
    fn cursor(&self, peer: &DeviceId) -> Result<Cursor, Self::Error>;

    /// Stores how far this device and a peer have come.
    fn set_cursor(&mut self, peer: &DeviceId, cursor: Cursor) -> Result<(), Self::Error>;

    /// Remembers a former version of a path.
    fn add_kept(&mut self, kept: &Kept) -> Result<(), Self::Error>;

    /// Returns the former versions of `path`, and with `below` of all that lay below it, newest first.
    fn kept(&self, path: Option<&RelPath>, below: bool) -> Result<Vec<Kept>, Self::Error>;

    /// Returns up to `limit` former versions of `top` and of all that lay below it (`None`: of all paths), in the order
    /// of paths and of one path the oldest first, from after that path and moment on.
    fn kept_page(
        &self,
        top: Option<&RelPath>,
        after: Option<(&RelPath, i64)>,
        limit: usize,
    ) -> Result<Vec<Kept>, Self::Error>;

    /// Forgets former versions that were put aside before `until_ns`, or, oldest first, until what is
    /// kept has at most `bytes_max` bytes; at most `limit` of them. Returns their files.
    fn expire_kept(&mut self, until_ns: i64, bytes_max: u64, limit: usize) -> Result<Vec<String>, Self::Error>;

    /// Returns the bytes of all former versions.
    fn kept_bytes(&self) -> Result<u64, Self::Error>;

    /// Returns the live conflict copies, in order: paths whose name is that of a conflict copy.
    fn conflicts(&self) -> Result<Vec<Local>, Self::Error>;
}

/// Tells whether a version speaks of changes by `author` that its index does not remember.
pub fn claims_unknown(author: AuthorId, last: Sequence, record: &Record) -> bool {
    record.version.counter(author) > last.0
}
