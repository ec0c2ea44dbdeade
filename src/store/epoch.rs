//! The epochs that an index remembers: the one it is in, and the one that it may have begun.

use rusqlite::Connection;

use crate::model::id::Epoch;
use crate::store::codec::RowKey;
use crate::store::error::{At, StoreError};

const TABLE: &str = "epoch";

/// Returns the epochs that were stored last, if any were.
pub(crate) fn read(conn: &Connection) -> Result<Option<[Epoch; 2]>, StoreError> {
    let mut statement = conn.prepare_cached("SELECT data FROM epoch WHERE one = 1").at(TABLE)?;
    let mut rows = statement.query([]).at(TABLE)?;
    let Some(row) = rows.next().at(TABLE)? else { return Ok(None) };
    let data = row.get_ref(0).at(TABLE)?.as_blob().at(TABLE)?;
    let (epochs, rest) = RowKey::epoch().unsealed(data).at(TABLE)?.as_chunks::<16>();
    match (epochs, rest) {
        ([now, next], []) => Ok(Some([Epoch(*now), Epoch(*next)])),
        _ => Err(StoreError::corrupt(TABLE, "its row has another length")),
    }
}

/// Stores them.
pub(crate) fn write(conn: &Connection, [now, next]: [Epoch; 2]) -> Result<(), StoreError> {
    let mut data = [now.0, next.0].concat();
    RowKey::epoch().seal(&mut data);
    let mut statement = conn.prepare_cached("REPLACE INTO epoch (one, data) VALUES (1, ?)").at(TABLE)?;
    statement.execute([data]).at(TABLE)?;
    Ok(())
}
