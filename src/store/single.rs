//! Tables of one row with one blob, each written and read as a whole by somebody else than the store.

use rusqlite::Connection;

use crate::store::codec::RowKey;
use crate::store::error::{At, StoreError};

/// Which of them.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Single {
    /// What the brake remembers.
    Brake,
    /// The epochs of the index.
    Epoch,
    /// How far the slow check of all files has come.
    Scrub,
    /// The lives that the index has had.
    Life,
}

impl Single {
    fn table(self) -> &'static str {
        match self {
            Self::Brake => "brake",
            Self::Epoch => "epoch",
            Self::Scrub => "scrub",
            Self::Life => "life",
        }
    }

    fn key(self) -> RowKey {
        RowKey::single(match self {
            Self::Brake => b'b',
            Self::Epoch => b'o',
            Self::Scrub => b's',
            Self::Life => b'l',
        })
    }

    /// Returns what was stored last, if anything was.
    pub(crate) fn read(self, conn: &Connection) -> Result<Option<Vec<u8>>, StoreError> {
        let sql = match self {
            Self::Brake => "SELECT data FROM brake WHERE one = 1",
            Self::Epoch => "SELECT data FROM epoch WHERE one = 1",
            Self::Scrub => "SELECT data FROM scrub WHERE one = 1",
            Self::Life => "SELECT data FROM life WHERE one = 1",
        };
        let table = self.table();
        let mut statement = conn.prepare_cached(sql).at(table)?;
        let mut rows = statement.query([]).at(table)?;
        let Some(row) = rows.next().at(table)? else { return Ok(None) };
        let data = row.get_ref(0).at(table)?.as_blob().at(table)?;
        self.key().unsealed(data).at(table).map(|data| Some(data.to_vec()))
    }

    /// Stores it.
    pub(crate) fn write(self, conn: &Connection, mut data: Vec<u8>) -> Result<(), StoreError> {
        self.key().seal(&mut data);
        let sql = match self {
            Self::Brake => "REPLACE INTO brake (one, data) VALUES (1, ?)",
            Self::Epoch => "REPLACE INTO epoch (one, data) VALUES (1, ?)",
            Self::Scrub => "REPLACE INTO scrub (one, data) VALUES (1, ?)",
            Self::Life => "REPLACE INTO life (one, data) VALUES (1, ?)",
        };
        let table = self.table();
        conn.prepare_cached(sql).at(table)?.execute([data]).at(table)?;
        Ok(())
    }
}
