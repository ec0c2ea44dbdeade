//! The index of a folder over SQLite: what the engine remembers between one start and the next.
//!
//! One connection, one process, one thread at a time. The first change after a commit opens a
//! transaction, and the next commit ends it; reads go through the same connection and see what is
//! not committed yet. The single values and the peers are held in memory and written with the commit.
//!
//! On a crash: the write-ahead log is synchronised before a commit returns, so a power cut takes
//! back nothing that was committed, and the rest as a whole. On a failed write (a full disk, say) the
//! transaction is taken back, the caller is told, and the index goes on from the last commit.
//!
//! "Live" means here as everywhere in the index: something is there, and it is not ignored.

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, Row};

use crate::engine::conflict;
use crate::engine::index::{Cursor, Index, Kept, Local, Remote, Totals};
use crate::model::id::{ChunkId, DeviceId, Epoch, Incarnation, Sequence};
use crate::model::limits::{INLINE_CHUNKS_MAX, VERSION_COUNTER_MAX};
use crate::model::path::RelPath;
use crate::model::recipe::{ChunkRef, Recipe};
use crate::store::codec::{self, Entry, State, StoredRecipe};
use crate::store::dirs::Dirs;
use crate::store::error::{At, StoreError};
use crate::store::kept;
use crate::store::meta::{self, Meta};
use crate::store::migrations;
use crate::store::peers::Peers;
use crate::store::recipes;
use crate::store::remotes;
use crate::store::single::Single;

const TABLE: &str = "entry";
/// How long opening waits for another process that is just closing the index.
const BUSY_TIMEOUT: Duration = Duration::from_millis(500);
/// More than there are different statements, so that each is compiled once.
const STATEMENTS: usize = 128;

/// How the connection is set up.
///
/// Exclusive locking: the values in memory would be wrong if another process wrote, and without
/// sharing the log needs no shared memory. A page cache of 4 MiB, whatever the size of the folder. A
/// log of up to 8192 pages (32 MiB) before its pages are moved into the database file: rows with
/// random keys come in many transactions, and each page is so written there once and not each time.
const SETTINGS: &str = "
    PRAGMA locking_mode = EXCLUSIVE;
    PRAGMA journal_mode = WAL;
    PRAGMA synchronous = FULL;
    PRAGMA wal_autocheckpoint = 8192;
    PRAGMA journal_size_limit = 4194304;
    PRAGMA cache_size = -4096;
    PRAGMA mmap_size = 0;
    PRAGMA temp_store = MEMORY;
    PRAGMA cell_size_check = ON;
    PRAGMA trusted_schema = OFF;
";

/// The index of one folder, in one file.
pub struct SqliteIndex {
    conn: Connection,
    path: PathBuf,
    dirs: Dirs,
    meta: Meta,
    peers: Peers,
    brake: Vec<u8>,
    /// Whether `meta` or `peers` differ from what is committed.
    is_changed: bool,
    /// Whether `meta` and `peers` could not be read again after a transaction was taken back.
    is_stale: bool,
}

impl SqliteIndex {
    /// Opens the index at `path`, or creates it, for its owner's eyes only (mode 0600).
    ///
    /// An index that was not closed in order is checked as a whole first, which takes the time of
    /// reading the file once.
    ///
    /// # Errors
    /// [`StoreError::Newer`], and nothing was changed; [`StoreError::Corrupt`] where the file is no
    /// index or a damaged one; [`StoreError::Busy`] while another process has it open.
    pub fn open(path: &Path, incarnation_if_new: Incarnation) -> Result<Self, StoreError> {
        restrict(path)?;
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let mut conn = Connection::open_with_flags(path, flags).at("file")?;
        conn.busy_timeout(BUSY_TIMEOUT).at("file")?;
        conn.set_prepared_statement_cache_capacity(STATEMENTS);
        conn.execute_batch(SETTINGS).at("file")?;
        migrations::bring_up(&mut conn, path, incarnation_if_new)?;
        let (meta, was_clean) = Meta::read(&conn)?;
        if !was_clean {
            check_file(&conn)?;
        }
        let peers = Peers::read(&conn)?;
        let brake = Single::Brake.read(&conn)?.unwrap_or_default();
        let path = path.to_owned();
        Ok(Self { conn, path, dirs: Dirs::default(), meta, peers, brake, is_changed: false, is_stale: false })
    }

    /// Closes the index in order, so that the next opening need not check it. What was not committed
    /// is forgotten.
    pub fn close(mut self) -> Result<(), StoreError> {
        self.roll_back()?;
        meta::mark_clean(&self.conn)?;
        self.checkpoint()?;
        self.conn.close().map_err(|(_, error)| StoreError::from_sqlite("file", error))
    }

    /// Moves the log into the database file and empties it, as is good when there is nothing to do.
    ///
    /// Does nothing while changes wait for their commit.
    pub fn checkpoint(&mut self) -> Result<(), StoreError> {
        if self.conn.is_autocommit() {
            self.conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).at("file")?;
        }
        Ok(())
    }

    /// Checks the whole file, indexes and all. Takes the time of reading it a few times.
    pub fn check(&self) -> Result<(), StoreError> {
        report(&self.conn, "PRAGMA integrity_check(1)")
    }

    /// Takes out of `names` the files of all former versions that the index knows.
    pub fn take_out_known(&self, names: &mut BTreeSet<String>) -> Result<(), StoreError> {
        kept::take_out_known(&self.conn, names)
    }

    /// Returns the epoch that this index is in and the one that it may have begun, if it has any.
    pub fn epochs(&self) -> Result<Option<[Epoch; 2]>, StoreError> {
        let Some(data) = Single::Epoch.read(&self.conn)? else { return Ok(None) };
        match data.as_chunks::<16>() {
            ([now, next], []) => Ok(Some([Epoch(*now), Epoch(*next)])),
            _ => Err(StoreError::corrupt("epoch", "its row has another length")),
        }
    }

    /// Stores them; durable with the next commit.
    pub fn set_epochs(&mut self, epochs: [Epoch; 2]) -> Result<(), StoreError> {
        let [now, next] = epochs;
        self.change(|index| Single::Epoch.write(&index.conn, [now.0, next.0].concat()))
    }

    /// Makes a change; if it fails, all since the last commit is taken back.
    fn change<T>(&mut self, change: impl FnOnce(&mut Self) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let changed = self.begin().and_then(|()| change(self));
        if changed.is_err() {
            self.roll_back_after_failure();
        }
        changed
    }

    /// Opens a transaction, if none is open.
    fn begin(&mut self) -> Result<(), StoreError> {
        if self.is_stale {
            self.reload()?;
        }
        if self.conn.is_autocommit() {
            self.conn.prepare_cached("BEGIN IMMEDIATE").at("file")?.execute([]).at("file")?;
        }
        Ok(())
    }

    fn roll_back_after_failure(&mut self) {
        if let Err(error) = self.roll_back() {
            tracing::warn!(path = ?self.path, %error, "the index could not be set back; trying again before its next use");
        }
    }

    /// Forgets all since the last commit.
    fn roll_back(&mut self) -> Result<(), StoreError> {
        // SQLite may have taken the transaction back itself, as it does on some failures.
        let is_open = !self.conn.is_autocommit();
        if is_open || self.is_changed || self.is_stale {
            self.is_stale = true;
            if is_open {
                self.conn.execute_batch("ROLLBACK").at("file")?;
            }
            self.reload()?;
        }
        Ok(())
    }

    fn reload(&mut self) -> Result<(), StoreError> {
        self.dirs.clear();
        (self.meta, _) = Meta::read(&self.conn)?;
        self.peers = Peers::read(&self.conn)?;
        self.brake = Single::Brake.read(&self.conn)?.unwrap_or_default();
        self.is_changed = false;
        self.is_stale = false;
        Ok(())
    }

    fn change_meta(&mut self, change: impl FnOnce(&mut Meta)) -> Result<(), StoreError> {
        if self.is_stale {
            self.reload()?;
        }
        change(&mut self.meta);
        self.is_changed = true;
        Ok(())
    }

    /// Returns the entry at `path`, whose directory has the number `dir`.
    fn entry(&self, dir: i64, path: &RelPath) -> Result<Option<Entry>, StoreError> {
        const SQL: &str = "SELECT state, seq, data FROM entry WHERE dir = ? AND name = ?";
        let mut statement = self.conn.prepare_cached(SQL).at(TABLE)?;
        let mut rows = statement.query((dir, path.name())).at(TABLE)?;
        rows.next().at(TABLE)?.map(|row| parse_entry(path.clone(), row, 0)).transpose()
    }

    fn find(&self, path: &RelPath) -> Result<Option<Entry>, StoreError> {
        match self.dirs.find(&self.conn, dir_of(path))? {
            Some(dir) => self.entry(dir, path),
            None => Ok(None),
        }
    }

    /// Returns the entries that a query finds whose columns are dir, name, state, seq and data, as long
    /// as `is_wanted` says so, up to `limit`.
    fn select(
        &self,
        sql: &str,
        parameters: impl rusqlite::Params,
        limit: usize,
        is_wanted: impl Fn(&Entry) -> bool,
    ) -> Result<Vec<Entry>, StoreError> {
        let mut statement = self.conn.prepare_cached(sql).at(TABLE)?;
        let mut rows = statement.query(parameters).at(TABLE)?;
        let mut entries = Vec::new();
        while entries.len() < limit {
            let Some(row) = rows.next().at(TABLE)? else { break };
            let dir = self.dirs.path(&self.conn, row.get(0).at(TABLE)?)?;
            let path = child(dir.as_ref(), row.get_ref(1).at(TABLE)?.as_blob().at(TABLE)?)?;
            let entry = parse_entry(path, row, 2)?;
            if is_wanted(&entry) {
                entries.push(entry);
            }
        }
        Ok(entries)
    }

    fn recipe_of(&self, entry: &Entry) -> Result<Option<Recipe>, StoreError> {
        let chunks = match (entry.recipe, entry.local.record.body.file()) {
            (StoredRecipe::Empty, _) => Vec::new(),
            (StoredRecipe::Parts { recipe, chunks }, _) => recipes::read(&self.conn, recipe, chunks)?,
            (StoredRecipe::Single(id), Some(file)) => vec![ChunkRef { id, len: single_len(file.size)? }],
            (StoredRecipe::Single(_), None) | (StoredRecipe::Unknown, _) => return Ok(None),
        };
        Recipe::parse(chunks).map(Some).map_err(|error| StoreError::corrupt("part", error.to_string()))
    }

    /// Writes an entry in the place of `old`.
    fn write_entry(&mut self, local: &Local, recipe: Option<&Recipe>) -> Result<(), StoreError> {
        let path = &local.record.path;
        let dir = self.dirs.find_or_create(&self.conn, dir_of(path))?;
        let old = self.entry(dir, path)?;
        let state = state_of(local);
        let stored = self.write_recipe(local, state, dir, old.as_ref(), recipe)?;
        let is_live_file = state.is_live() && local.record.body.file().is_some();
        let ino = local.stat.filter(|_| is_live_file).map(|stat| stat.ino as i64);
        let chunk = match stored {
            StoredRecipe::Single(chunk) if state.is_live() => Some(recipes::prefix_of(&chunk)),
            _ => None,
        };
        let data = codec::encode_entry(local, state, stored);
        let sql = match old {
            Some(_) => {
                "UPDATE entry SET state = ?3, seq = ?4, ino = ?5, chunk = ?6, data = ?7 WHERE dir = ?1 AND name = ?2"
            }
            None => "INSERT INTO entry (dir, name, state, seq, ino, chunk, data) VALUES (?, ?, ?, ?, ?, ?, ?)",
        };
        let mut statement = self.conn.prepare_cached(sql).at(TABLE)?;
        let seq = local.sequence.0 as i64;
        statement.execute((dir, path.name(), state as i64, seq, ino, chunk, data)).at(TABLE)?;
        if let Some(old) = old.filter(|old| old.state.is_live()) {
            self.meta.count_out(&old.local.record);
        }
        if state.is_live() {
            self.meta.count_in(&local.record);
        }
        self.is_changed = true;
        Ok(())
    }

    /// Stores the recipe of an entry that is about to be written, and returns where.
    fn write_recipe(
        &self,
        local: &Local,
        state: State,
        dir: i64,
        old: Option<&Entry>,
        recipe: Option<&Recipe>,
    ) -> Result<StoredRecipe, StoreError> {
        let old_parts = old.and_then(old_parts);
        let kept;
        let recipe = match (local.record.body.file(), recipe, old) {
            (None, ..) | (Some(_), None, None) => None,
            (Some(_), Some(recipe), _) => Some(recipe),
            (Some(file), None, Some(old)) => {
                let is_same_size = old.local.record.body.file().is_some_and(|was| was.size == file.size);
                let is_in_place = match old.recipe {
                    StoredRecipe::Unknown | StoredRecipe::Empty => true,
                    StoredRecipe::Single(_) => is_same_size,
                    StoredRecipe::Parts { .. } => old.state.is_live() == state.is_live(),
                };
                if is_in_place {
                    return Ok(old.recipe);
                }
                kept = self.recipe_of(old)?;
                kept.as_ref()
            }
        };
        let stored = match (recipe.map(Recipe::chunks), local.record.body.file()) {
            (None, _) | (_, None) => StoredRecipe::Unknown,
            (Some([]), _) => StoredRecipe::Empty,
            (Some([chunk]), Some(file)) if u64::from(chunk.len) == file.size => StoredRecipe::Single(chunk.id),
            (Some(chunks), _) => {
                let owner = recipes::Owner { dir, name: local.record.path.name() };
                let recipe = recipes::write(&self.conn, old_parts, owner, chunks, state.is_live())?;
                return Ok(StoredRecipe::Parts { recipe, chunks: chunks.len() });
            }
        };
        if let Some(old) = old_parts {
            recipes::remove(&self.conn, old)?;
        }
        Ok(stored)
    }

    fn remove_entry(&mut self, path: &RelPath) -> Result<(), StoreError> {
        let Some(dir) = self.dirs.find(&self.conn, dir_of(path))? else { return Ok(()) };
        let Some(old) = self.entry(dir, path)? else { return Ok(()) };
        if let Some(parts) = old_parts(&old) {
            recipes::remove(&self.conn, parts)?;
        }
        let mut statement = self.conn.prepare_cached("DELETE FROM entry WHERE dir = ? AND name = ?").at(TABLE)?;
        statement.execute((dir, path.name())).at(TABLE)?;
        if old.state.is_live() {
            self.meta.count_out(&old.local.record);
        }
        self.is_changed = true;
        self.dirs.prune(&self.conn, dir)
    }
}

impl fmt::Debug for SqliteIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteIndex").field("path", &self.path).field("meta", &self.meta).finish_non_exhaustive()
    }
}

impl Index for SqliteIndex {
    type Error = StoreError;

    fn commit(&mut self) -> Result<(), StoreError> {
        if self.is_stale {
            self.reload()?;
        }
        if self.conn.is_autocommit() && !self.is_changed {
            return Ok(());
        }
        self.change(|index| {
            if index.is_changed {
                index.meta.write(&index.conn)?;
                index.peers.write(&index.conn)?;
            }
            index.conn.prepare_cached("COMMIT").at("file")?.execute([]).at("file")?;
            index.is_changed = false;
            Ok(())
        })
    }

    fn incarnation(&self) -> Incarnation {
        self.meta.incarnation
    }

    fn begin_incarnation(&mut self, incarnation: Incarnation) -> Result<(), StoreError> {
        self.change_meta(|meta| meta.incarnation = incarnation)
    }

    fn last_sequence(&self) -> Sequence {
        self.meta.last_sequence
    }

    fn next_sequence(&mut self, at_least: Sequence) -> Result<Sequence, StoreError> {
        let next = self.meta.last_sequence.0.saturating_add(1).max(at_least.0);
        if next > VERSION_COUNTER_MAX {
            return Err(StoreError::Exhausted);
        }
        self.change_meta(|meta| meta.last_sequence.0 = next)?;
        Ok(self.meta.last_sequence)
    }

    fn local(&self, path: &RelPath) -> Result<Option<Local>, StoreError> {
        Ok(self.find(path)?.map(|entry| entry.local))
    }

    fn children(&self, dir: Option<&RelPath>) -> Result<Vec<Local>, StoreError> {
        let path = dir.map_or(&b""[..], RelPath::as_bytes);
        let Some(number) = self.dirs.find(&self.conn, path)? else { return Ok(Vec::new()) };
        const SQL: &str = "SELECT name, state, seq, data FROM entry WHERE dir = ? ORDER BY name";
        let mut statement = self.conn.prepare_cached(SQL).at(TABLE)?;
        let mut rows = statement.query([number]).at(TABLE)?;
        let mut children = Vec::new();
        while let Some(row) = rows.next().at(TABLE)? {
            let path = child(dir, row.get_ref(0).at(TABLE)?.as_blob().at(TABLE)?)?;
            children.push(parse_entry(path, row, 1)?.local);
        }
        Ok(children)
    }

    fn has_live_below(&self, dir: &RelPath) -> Result<bool, StoreError> {
        let Some(number) = self.dirs.find(&self.conn, dir.as_bytes())? else { return Ok(false) };
        // UNION and not UNION ALL: a damaged table in which directories lie inside themselves ends too.
        const SQL: &str = "WITH RECURSIVE below (dir) AS (
                SELECT ?1 UNION SELECT dir.dir FROM below CROSS JOIN dir ON dir.parent = below.dir
            )
            SELECT EXISTS (SELECT 1 FROM below CROSS JOIN entry ON entry.dir = below.dir WHERE entry.state <= 1)";
        let mut statement = self.conn.prepare_cached(SQL).at(TABLE)?;
        statement.query_row([number], |row| row.get(0)).at(TABLE)
    }

    fn recipe(&self, path: &RelPath) -> Result<Option<Recipe>, StoreError> {
        match self.find(path)? {
            Some(entry) => self.recipe_of(&entry),
            None => Ok(None),
        }
    }

    fn set_local(&mut self, local: &Local, recipe: Option<&Recipe>) -> Result<(), StoreError> {
        self.change(|index| index.write_entry(local, recipe))
    }

    fn drop_local(&mut self, path: &RelPath) -> Result<(), StoreError> {
        self.change(|index| index.remove_entry(path))
    }

    fn changes_since(&self, since: Sequence, limit: usize) -> Result<Vec<(Local, Option<Recipe>)>, StoreError> {
        const SQL: &str = "SELECT dir, name, state, seq, data FROM entry INDEXED BY entry_by_seq \
                           WHERE seq > ? ORDER BY seq";
        let Ok(since) = i64::try_from(since.0) else { return Ok(Vec::new()) };
        let entries = self.select(SQL, [since], limit, |_| true)?;
        let with_recipe = |entry: Entry| {
            let is_inline = !matches!(entry.recipe, StoredRecipe::Parts { chunks, .. } if chunks > INLINE_CHUNKS_MAX);
            let recipe = if is_inline { self.recipe_of(&entry)? } else { None };
            Ok((entry.local, recipe))
        };
        entries.into_iter().map(with_recipe).collect()
    }

    fn holders_of(&self, chunk: &ChunkId, limit: usize) -> Result<Vec<RelPath>, StoreError> {
        const SQL: &str = "SELECT dir, name, state, seq, data FROM entry INDEXED BY entry_by_chunk WHERE chunk = ?";
        let has_chunk = |entry: &Entry| entry.recipe == StoredRecipe::Single(*chunk) && entry.state.is_live();
        let entries = self.select(SQL, [recipes::prefix_of(chunk)], limit, has_chunk)?;
        let mut holders: Vec<RelPath> = entries.into_iter().map(|entry| entry.local.record.path).collect();
        for (dir, name) in recipes::candidates(&self.conn, chunk, limit.saturating_sub(holders.len()))? {
            holders.push(child(self.dirs.path(&self.conn, dir)?.as_ref(), &name)?);
        }
        Ok(holders)
    }

    fn by_inode(&self, dev: u64, ino: u64, limit: usize) -> Result<Vec<Local>, StoreError> {
        const SQL: &str = "SELECT dir, name, state, seq, data FROM entry INDEXED BY entry_by_ino WHERE ino = ?";
        let is_it = |entry: &Entry| {
            let stat = entry.local.stat.filter(|stat| (stat.dev, stat.ino) == (dev, ino));
            entry.state.is_live() && stat.is_some()
        };
        Ok(self.select(SQL, [ino as i64], limit, is_it)?.into_iter().map(|entry| entry.local).collect())
    }

    fn totals(&self) -> Result<Totals, StoreError> {
        Ok(self.meta.totals)
    }

    fn tree_hash(&self) -> [u8; 32] {
        self.meta.tree_hash
    }

    fn set_tree_hash(&mut self, hash: [u8; 32]) -> Result<(), StoreError> {
        self.change_meta(|meta| meta.tree_hash = hash)
    }

    fn brake(&self) -> &[u8] {
        &self.brake
    }

    fn set_brake(&mut self, state: &[u8]) -> Result<(), StoreError> {
        self.change(|index| {
            Single::Brake.write(&index.conn, state.to_vec())?;
            index.brake = state.to_vec();
            index.is_changed = true;
            Ok(())
        })
    }

    fn scrub(&self) -> Result<Vec<u8>, StoreError> {
        Ok(Single::Scrub.read(&self.conn)?.unwrap_or_default())
    }

    fn set_scrub(&mut self, state: &[u8]) -> Result<(), StoreError> {
        self.change(|index| Single::Scrub.write(&index.conn, state.to_vec()))
    }

    fn lives(&self) -> Result<Vec<u8>, StoreError> {
        Ok(Single::Life.read(&self.conn)?.unwrap_or_default())
    }

    fn set_lives(&mut self, lives: &[u8]) -> Result<(), StoreError> {
        self.change(|index| Single::Life.write(&index.conn, lives.to_vec()))
    }

    fn remote(&self, peer: &DeviceId, path: &RelPath) -> Result<Option<Remote>, StoreError> {
        match self.peers.get(peer) {
            Some(peer) if peer.remotes > 0 => remotes::read(&self.conn, path, peer.number),
            _ => Ok(None),
        }
    }

    fn remotes(&self, path: &RelPath) -> Result<Vec<(DeviceId, Remote)>, StoreError> {
        let mut all = Vec::new();
        for (number, remote) in remotes::read_all(&self.conn, path)? {
            let device = self.peers.device_of(number);
            all.push((device.ok_or_else(|| StoreError::corrupt("remote", "a row of no peer"))?, remote));
        }
        all.sort_by_key(|(device, _)| *device);
        Ok(all)
    }

    fn remote_paths(&self, after: Option<&RelPath>, limit: usize) -> Result<Vec<RelPath>, StoreError> {
        remotes::paths(&self.conn, after, limit)
    }

    fn remote_count(&self, peer: &DeviceId) -> Result<u64, StoreError> {
        Ok(self.peers.get(peer).map_or(0, |peer| peer.remotes))
    }

    fn set_remote(&mut self, peer: &DeviceId, path: &RelPath, remote: Option<&Remote>) -> Result<(), StoreError> {
        if remote.is_none() && self.remote_count(peer)? == 0 {
            return Ok(());
        }
        self.change(|index| {
            let (conn, peer) = (&index.conn, index.peers.change(peer));
            match remote {
                Some(remote) if remotes::write(conn, path, peer.number, remote)? => peer.remotes += 1,
                None if remotes::remove(conn, path, peer.number)? => peer.remotes = peer.remotes.saturating_sub(1),
                _ => {}
            }
            index.is_changed = true;
            Ok(())
        })
    }

    fn drop_peer(&mut self, peer: &DeviceId) -> Result<(), StoreError> {
        let Some(number) = self.peers.get(peer).map(|peer| peer.number) else { return Ok(()) };
        self.change(|index| {
            index.is_changed = true;
            remotes::remove_all(&index.conn, number)?;
            index.peers.remove(&index.conn, peer)
        })
    }

    fn rename_peer(&mut self, from: &DeviceId, to: &DeviceId) -> Result<(), StoreError> {
        if self.is_stale {
            self.reload()?;
        }
        self.is_changed |= self.peers.rename(from, to);
        Ok(())
    }

    fn cursor(&self, peer: &DeviceId) -> Result<Cursor, StoreError> {
        Ok(self.peers.get(peer).map(|peer| peer.cursor).unwrap_or_default())
    }

    fn set_cursor(&mut self, peer: &DeviceId, cursor: Cursor) -> Result<(), StoreError> {
        if self.is_stale {
            self.reload()?;
        }
        self.peers.change(peer).cursor = cursor;
        self.is_changed = true;
        Ok(())
    }

    fn add_kept(&mut self, kept: &Kept) -> Result<(), StoreError> {
        self.change(|index| {
            kept::add(&index.conn, kept)?;
            index.meta.kept_bytes = index.meta.kept_bytes.wrapping_add(kept::bytes_of(kept));
            index.is_changed = true;
            Ok(())
        })
    }

    fn kept(&self, path: Option<&RelPath>, below: bool) -> Result<Vec<Kept>, StoreError> {
        match (path, below) {
            (Some(path), false) => kept::at(&self.conn, path),
            (Some(path), true) => kept::at_and_below(&self.conn, path),
            (None, true) => kept::all(&self.conn),
            (None, false) => Ok(Vec::new()),
        }
    }

    fn kept_page(
        &self,
        top: Option<&RelPath>,
        after: Option<(&RelPath, i64)>,
        limit: usize,
    ) -> Result<Vec<Kept>, StoreError> {
        kept::page(&self.conn, top, after, limit)
    }

    /// Former versions without a file do not count towards `limit`: where fewer files than that are
    /// returned, there is nothing left to expire.
    fn expire_kept(&mut self, until_ns: i64, bytes_max: u64, limit: usize) -> Result<Vec<String>, StoreError> {
        self.change(|index| {
            let mut files = Vec::new();
            while files.len() < limit {
                let Some((number, oldest)) = kept::oldest(&index.conn)? else { break };
                if oldest.until_ns >= until_ns && index.meta.kept_bytes <= bytes_max {
                    break;
                }
                kept::remove(&index.conn, number)?;
                index.meta.kept_bytes = index.meta.kept_bytes.wrapping_sub(kept::bytes_of(&oldest));
                index.is_changed = true;
                files.extend(oldest.file);
            }
            Ok(files)
        })
    }

    fn kept_bytes(&self) -> Result<u64, StoreError> {
        Ok(self.meta.kept_bytes)
    }

    fn conflicts(&self) -> Result<Vec<Local>, StoreError> {
        const SQL: &str = "SELECT dir, name, state, seq, data FROM entry WHERE state = 1";
        let copies = self.select(SQL, [], usize::MAX, |entry| entry.state == State::Copy)?;
        let mut copies: Vec<Local> = copies.into_iter().map(|entry| entry.local).collect();
        copies.sort_by(|a, b| a.record.path.cmp(&b.record.path));
        Ok(copies)
    }
}

/// Creates the file with mode 0600, or brings one that is there to it. The files that SQLite puts
/// beside it get the same mode.
fn restrict(path: &Path) -> Result<(), StoreError> {
    use rustix::fs::{Mode, OFlags};
    let mode = Mode::RUSR | Mode::WUSR;
    let failed = |error: rustix::io::Errno| match error {
        rustix::io::Errno::NOSPC | rustix::io::Errno::DQUOT => StoreError::Full,
        _ => StoreError::Io { table: "file", source: Box::new(std::io::Error::from(error)) },
    };
    match rustix::fs::open(path, OFlags::CREATE | OFlags::EXCL | OFlags::RDWR | OFlags::CLOEXEC, mode) {
        Ok(_) => Ok(()),
        // Only by its name: were a file opened and closed here that this process holds already, the
        // locks of POSIX would go with it.
        Err(rustix::io::Errno::EXIST) => rustix::fs::chmod(path, mode).map_err(failed),
        Err(error) => Err(failed(error)),
    }
}

/// Checks pages, rows and the order of keys, but not that indexes and tables agree.
fn check_file(conn: &Connection) -> Result<(), StoreError> {
    report(conn, "PRAGMA quick_check(1)")
}

fn report(conn: &Connection, check: &str) -> Result<(), StoreError> {
    let found: String = conn.query_row(check, [], |row| row.get(0)).at("file")?;
    if found == "ok" { Ok(()) } else { Err(StoreError::corrupt("file", found)) }
}

fn state_of(local: &Local) -> State {
    match (local.ignored, local.record.body.is_live()) {
        (false, true) if conflict::is_copy(&local.record.path) => State::Copy,
        (false, true) => State::Live,
        (false, false) => State::Deleted,
        (true, true) => State::IgnoredLive,
        (true, false) => State::IgnoredDeleted,
    }
}

fn old_parts(old: &Entry) -> Option<recipes::Old> {
    match old.recipe {
        StoredRecipe::Parts { recipe, chunks } => Some(recipes::Old { recipe, chunks, is_placed: old.state.is_live() }),
        _ => None,
    }
}

fn single_len(size: u64) -> Result<u32, StoreError> {
    u32::try_from(size).map_err(|_| StoreError::corrupt(TABLE, "a chunk is too long"))
}

/// Returns the path of the directory that holds `path`, empty for the root.
fn dir_of(path: &RelPath) -> &[u8] {
    let bytes = path.as_bytes();
    bytes.iter().rposition(|b| *b == b'/').map_or(b"", |at| &bytes[..at])
}

fn child(dir: Option<&RelPath>, name: &[u8]) -> Result<RelPath, StoreError> {
    RelPath::child(dir, name).map_err(|error| StoreError::corrupt(TABLE, error.to_string()))
}

/// Reads an entry from three columns: state, seq and data.
fn parse_entry(path: RelPath, row: &Row<'_>, first: usize) -> Result<Entry, StoreError> {
    let state = State::parse(row.get(first).at(TABLE)?).at(TABLE)?;
    let sequence = Sequence(row.get::<_, i64>(first + 1).at(TABLE)? as u64);
    let data = row.get_ref(first + 2).at(TABLE)?.as_blob().at(TABLE)?;
    codec::decode_entry(path, state, sequence, data).at(TABLE)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::model::id::{ContentId, DeviceTag};
    use crate::model::record::{Body, FileBody, Record};
    use crate::model::version::VersionVector;

    fn file(n: u32) -> (Local, Recipe) {
        let chunk = ChunkRef { id: ChunkId::of(&n.to_le_bytes()), len: 100 };
        let content = ContentId([n as u8; 32]);
        let body = Body::File(FileBody { mode: 0o644, mtime_ns: 5, size: 100, content });
        let path = RelPath::parse(format!("dir {}/{n}", n % 100).as_bytes()).unwrap();
        let record = Record { path, version: VersionVector::default(), by: DeviceTag([0; 5]), body };
        let local = Local { record, sequence: Sequence(n.into()), stat: None, ignored: false, since_ns: 0 };
        (local, Recipe::parse(vec![chunk]).unwrap())
    }

    fn set(index: &mut SqliteIndex, n: u32) -> Result<(), StoreError> {
        let (local, recipe) = file(n);
        index.next_sequence(Sequence(0))?;
        index.set_local(&local, Some(&recipe))
    }

    #[test]
    fn a_full_disk_takes_back_what_was_not_committed_and_no_more() {
        let dir = tempfile::tempdir().unwrap();
        let mut index = SqliteIndex::open(&dir.path().join("index"), Incarnation(1)).unwrap();
        (0..100).for_each(|n| set(&mut index, n).unwrap());
        index.commit().unwrap();
        let pages: i64 = index.conn.query_row("PRAGMA page_count", [], |row| row.get(0)).unwrap();
        index.conn.pragma_update(None, "max_page_count", pages + 3).unwrap();
        let failed = (100..10_000).find_map(|n| set(&mut index, n).err());
        assert!(matches!(failed, Some(StoreError::Full)), "{failed:?}");
        assert_eq!(index.totals().unwrap().files, 100);
        assert_eq!(index.last_sequence(), Sequence(100));
        assert_eq!(index.local(&file(100).0.record.path).unwrap(), None);
        // With room again it goes on, directories included whose numbers were taken back.
        index.conn.pragma_update(None, "max_page_count", 1 << 20).unwrap();
        (100..1000).for_each(|n| set(&mut index, n).unwrap());
        index.commit().unwrap();
        assert_eq!(index.totals().unwrap().files, 1000);
        index.check().unwrap();
        index.close().unwrap();
    }

    #[test]
    fn all_its_files_are_for_their_owner_only() {
        let dir = tempfile::tempdir().unwrap();
        let mut index = SqliteIndex::open(&dir.path().join("index"), Incarnation(1)).unwrap();
        set(&mut index, 1).unwrap();
        index.commit().unwrap();
        let files: Vec<_> = fs::read_dir(dir.path()).unwrap().map(Result::unwrap).collect();
        assert!(files.len() >= 2);
        for file in files {
            assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{file:?}");
        }
        index.close().unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn no_query_looks_at_a_whole_table() {
        let dir = tempfile::tempdir().unwrap();
        let index = SqliteIndex::open(&dir.path().join("index"), Incarnation(1)).unwrap();
        let sources = [include_str!("index.rs"), include_str!("recipes.rs"), include_str!("remotes.rs")];
        let others = [include_str!("kept.rs"), include_str!("dirs.rs"), include_str!("single.rs")];
        let mut looked_at = 0;
        for source in sources.into_iter().chain(others) {
            let production = source.split("#[cfg(test)]").next().unwrap();
            for text in production.split('"').skip(1).step_by(2).filter(|text| text.starts_with("SELECT")) {
                let sql = text.replace("\\\n", " ");
                let mut plan = index.conn.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
                let unbound = (0..plan.parameter_count()).map(|_| rusqlite::types::Null);
                let steps = plan.query_map(rusqlite::params_from_iter(unbound), |row| row.get::<_, String>(3)).unwrap();
                let steps: Vec<String> = steps.map(Result::unwrap).collect();
                let is_whole = |step: &String| step.starts_with("SCAN") && !step.contains("CONSTANT ROW");
                // All former versions, the oldest of them, and all conflict copies are scans by intent,
                // but of an index that holds nothing else.
                let is_meant = |step: &String| step.contains("kept_by_until") || step.contains("entry_copies");
                assert!(!steps.iter().any(|step| is_whole(step) && !is_meant(step)), "{sql}\n{steps:#?}");
                looked_at += 1;
            }
        }
        assert!(looked_at >= 19, "{looked_at}");
    }
}
