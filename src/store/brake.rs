//! What the brake remembers: one blob that only the engine reads.

use rusqlite::Connection;

use crate::store::codec::RowKey;
use crate::store::error::{At, StoreError};

const TABLE: &str = "brake";

/// Returns what was stored last; nothing at first.
pub(crate) fn read(conn: &Connection) -> Result<Vec<u8>, StoreError> {
    let mut statement = conn.prepare_cached("SELECT data FROM brake WHERE one = 1").at(TABLE)?;
    let mut rows = statement.query([]).at(TABLE)?;
    let Some(row) = rows.next().at(TABLE)? else { return Ok(Vec::new()) };
    let data = row.get_ref(0).at(TABLE)?.as_blob().at(TABLE)?;
    RowKey::brake().unsealed(data).at(TABLE).map(<[u8]>::to_vec)
}

/// Stores it.
pub(crate) fn write(conn: &Connection, state: &[u8]) -> Result<(), StoreError> {
    let mut data = state.to_vec();
    RowKey::brake().seal(&mut data);
    let mut statement = conn.prepare_cached("REPLACE INTO brake (one, data) VALUES (1, ?)").at(TABLE)?;
    statement.execute([data]).at(TABLE)?;
    Ok(())
}
