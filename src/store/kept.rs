//! Former versions that were put aside.

use std::collections::BTreeSet;

use rusqlite::{Connection, Row};

use crate::engine::index::Kept;
use crate::model::limits::PATH_LEN_MAX;
use crate::model::path::RelPath;
use crate::model::record::Body;
use crate::store::codec;
use crate::store::error::{At, StoreError};

const TABLE: &str = "kept";

/// Remembers a former version.
pub(crate) fn add(conn: &Connection, kept: &Kept) -> Result<(), StoreError> {
    let key = codec::path_key(&kept.path);
    let data = codec::encode_kept(&key, kept);
    let mut statement = conn.prepare_cached("INSERT INTO kept (path, until, data) VALUES (?, ?, ?)").at(TABLE)?;
    statement.execute((key, kept.until_ns, data)).at(TABLE)?;
    Ok(())
}

/// Returns all former versions, newest first.
pub(crate) fn all(conn: &Connection) -> Result<Vec<Kept>, StoreError> {
    collect(conn, "SELECT path, until, data FROM kept ORDER BY until DESC, kept DESC", [])
}

/// Returns the former versions of a path, newest first.
pub(crate) fn at(conn: &Connection, path: &RelPath) -> Result<Vec<Kept>, StoreError> {
    const SQL: &str = "SELECT path, until, data FROM kept WHERE path = ? ORDER BY until DESC, kept DESC";
    collect(conn, SQL, [codec::path_key(path)])
}

/// Returns the former versions of a path and of all below it, newest first.
pub(crate) fn at_and_below(conn: &Connection, path: &RelPath) -> Result<Vec<Kept>, StoreError> {
    // What comes from the key on and before the key and 0x01 is the key itself and what begins with it
    // and 0x00, which stands for `/`. The unary plus keeps the index of times out of it.
    const SQL: &str = "SELECT path, until, data FROM kept WHERE path >= ? AND path < ? ORDER BY +until DESC, kept DESC";
    let key = codec::path_key(path);
    let beyond = [&key[..], &[1]].concat();
    collect(conn, SQL, [key, beyond])
}

/// Returns some of the former versions of a path and of all below it, in the order of paths and times.
pub(crate) fn page(
    conn: &Connection,
    top: Option<&RelPath>,
    after: Option<(&RelPath, i64)>,
    limit: usize,
) -> Result<Vec<Kept>, StoreError> {
    // The first condition finds the place in the index of paths, the third leaves out what of that path was told.
    const SQL: &str = "SELECT path, until, data FROM kept WHERE path >= ?1 AND path < ?2 \
                       AND (path > ?1 OR until > ?3) ORDER BY path, until, kept LIMIT ?4";
    // No path is as long as this, so that all keys are less.
    let beyond = top.map_or_else(|| vec![0xff; PATH_LEN_MAX + 1], |top| [&codec::path_key(top)[..], &[1]].concat());
    let (from, past_ns) = match after {
        // Who names a path that lies before the one that is asked for begins with that.
        Some((path, until_ns)) if top.is_none_or(|top| path >= top) => (codec::path_key(path), until_ns),
        _ => (top.map_or_else(Vec::new, codec::path_key), i64::MIN),
    };
    collect(conn, SQL, (from, beyond, past_ns, i64::try_from(limit).unwrap_or(i64::MAX)))
}

/// Returns the oldest former version, with the number of its row.
pub(crate) fn oldest(conn: &Connection) -> Result<Option<(i64, Kept)>, StoreError> {
    const SQL: &str = "SELECT path, until, data, kept FROM kept ORDER BY until, kept LIMIT 1";
    let mut statement = conn.prepare_cached(SQL).at(TABLE)?;
    let mut rows = statement.query([]).at(TABLE)?;
    let Some(row) = rows.next().at(TABLE)? else { return Ok(None) };
    Ok(Some((row.get(3).at(TABLE)?, parse(row)?)))
}

/// Forgets the former version in the row of that number.
pub(crate) fn remove(conn: &Connection, kept: i64) -> Result<(), StoreError> {
    conn.prepare_cached("DELETE FROM kept WHERE kept = ?").at(TABLE)?.execute([kept]).at(TABLE)?;
    Ok(())
}

/// Takes out of `names` the files of all former versions.
pub(crate) fn take_out_known(conn: &Connection, names: &mut BTreeSet<String>) -> Result<(), StoreError> {
    let mut statement = conn.prepare_cached("SELECT path, until, data FROM kept ORDER BY until").at(TABLE)?;
    let mut rows = statement.query([]).at(TABLE)?;
    while let Some(row) = rows.next().at(TABLE)? {
        if let Some(file) = parse(row)?.file {
            names.remove(&file);
        }
    }
    Ok(())
}

/// Returns the bytes that a former version takes in the history.
pub(crate) fn bytes_of(kept: &Kept) -> u64 {
    match (&kept.file, &kept.body) {
        (Some(_), Body::File(file)) => file.size,
        _ => 0,
    }
}

fn collect(conn: &Connection, sql: &str, parameters: impl rusqlite::Params) -> Result<Vec<Kept>, StoreError> {
    let mut statement = conn.prepare_cached(sql).at(TABLE)?;
    let mut rows = statement.query(parameters).at(TABLE)?;
    let mut all = Vec::new();
    while let Some(row) = rows.next().at(TABLE)? {
        all.push(parse(row)?);
    }
    Ok(all)
}

fn parse(row: &Row<'_>) -> Result<Kept, StoreError> {
    let path = row.get_ref(0).at(TABLE)?.as_blob().at(TABLE)?;
    let until_ns = row.get(1).at(TABLE)?;
    codec::decode_kept(path, until_ns, row.get_ref(2).at(TABLE)?.as_blob().at(TABLE)?).at(TABLE)
}
