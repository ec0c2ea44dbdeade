//! What peers hold where that is not what this device holds.

use rusqlite::Connection;

use crate::engine::index::Remote;
use crate::model::path::RelPath;
use crate::store::codec;
use crate::store::error::{At, StoreError};

const TABLE: &str = "remote";

/// Returns what the peer of that number holds at `path`.
pub(crate) fn read(conn: &Connection, path: &RelPath, peer: i64) -> Result<Option<Remote>, StoreError> {
    let mut statement = conn.prepare_cached("SELECT data FROM remote WHERE path = ? AND peer = ?").at(TABLE)?;
    let key = codec::path_key(path);
    let mut rows = statement.query((&key, peer)).at(TABLE)?;
    let Some(row) = rows.next().at(TABLE)? else { return Ok(None) };
    let data = row.get_ref(0).at(TABLE)?.as_blob().at(TABLE)?;
    codec::decode_remote(path.clone(), &key, peer, data).at(TABLE).map(Some)
}

/// Returns what all peers hold at `path`, with their numbers.
pub(crate) fn read_all(conn: &Connection, path: &RelPath) -> Result<Vec<(i64, Remote)>, StoreError> {
    let mut statement = conn.prepare_cached("SELECT peer, data FROM remote WHERE path = ?").at(TABLE)?;
    let key = codec::path_key(path);
    let mut rows = statement.query([&key]).at(TABLE)?;
    let mut remotes = Vec::new();
    while let Some(row) = rows.next().at(TABLE)? {
        let peer: i64 = row.get(0).at(TABLE)?;
        let data = row.get_ref(1).at(TABLE)?.as_blob().at(TABLE)?;
        remotes.push((peer, codec::decode_remote(path.clone(), &key, peer, data).at(TABLE)?));
    }
    Ok(remotes)
}

/// Returns up to `limit` paths after `after` at which some peer holds something else.
pub(crate) fn paths(conn: &Connection, after: Option<&RelPath>, limit: usize) -> Result<Vec<RelPath>, StoreError> {
    const SQL: &str = "SELECT DISTINCT path FROM remote WHERE path > ? ORDER BY path LIMIT ?";
    let mut statement = conn.prepare_cached(SQL).at(TABLE)?;
    let key = after.map(codec::path_key).unwrap_or_default();
    let mut rows = statement.query((key, i64::try_from(limit).unwrap_or(i64::MAX))).at(TABLE)?;
    let mut paths = Vec::new();
    while let Some(row) = rows.next().at(TABLE)? {
        paths.push(codec::path_of_key(row.get_ref(0).at(TABLE)?.as_blob().at(TABLE)?).at(TABLE)?);
    }
    Ok(paths)
}

/// Stores what the peer of that number holds. Returns whether nothing was stored there before.
pub(crate) fn write(conn: &Connection, path: &RelPath, peer: i64, remote: &Remote) -> Result<bool, StoreError> {
    let key = codec::path_key(path);
    let data = codec::encode_remote(&key, peer, remote);
    let mut update = conn.prepare_cached("UPDATE remote SET data = ?3 WHERE path = ?1 AND peer = ?2").at(TABLE)?;
    if update.execute((&key, peer, &data)).at(TABLE)? > 0 {
        return Ok(false);
    }
    let mut insert = conn.prepare_cached("INSERT INTO remote (path, peer, data) VALUES (?, ?, ?)").at(TABLE)?;
    insert.execute((&key, peer, &data)).at(TABLE)?;
    Ok(true)
}

/// Forgets what the peer of that number holds. Returns whether something was stored there.
pub(crate) fn remove(conn: &Connection, path: &RelPath, peer: i64) -> Result<bool, StoreError> {
    let mut statement = conn.prepare_cached("DELETE FROM remote WHERE path = ? AND peer = ?").at(TABLE)?;
    Ok(statement.execute((codec::path_key(path), peer)).at(TABLE)? > 0)
}

/// Forgets all that the peer of that number holds.
pub(crate) fn remove_all(conn: &Connection, peer: i64) -> Result<(), StoreError> {
    conn.prepare_cached("DELETE FROM remote WHERE peer = ?").at(TABLE)?.execute([peer]).at(TABLE)?;
    Ok(())
}
