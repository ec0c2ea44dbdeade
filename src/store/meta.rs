//! The single values of an index: read at opening, held in memory, written with each commit.

use rusqlite::Connection;

use crate::engine::index::Totals;
use crate::model::id::{Incarnation, Sequence};
use crate::model::record::{Body, Record};
use crate::store::codec;
use crate::store::error::{At, StoreError};

const TABLE: &str = "meta";

/// The single values of an index.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Meta {
    pub(crate) incarnation: Incarnation,
    pub(crate) last_sequence: Sequence,
    pub(crate) tree_hash: [u8; 32],
    pub(crate) totals: Totals,
    pub(crate) kept_bytes: u64,
}

impl Meta {
    pub(crate) fn new(incarnation: Incarnation) -> Self {
        let last_sequence = Sequence(0);
        Self { incarnation, last_sequence, tree_hash: [0; 32], totals: Totals::default(), kept_bytes: 0 }
    }

    /// Reads the values, and whether the index was closed in order.
    pub(crate) fn read(conn: &Connection) -> Result<(Self, bool), StoreError> {
        const SQL: &str = "SELECT clean, incarnation, last_sequence, files, dirs, symlinks, bytes, kept_bytes, sum, \
                           tree_hash FROM meta WHERE one = 1";
        let mut statement = conn.prepare_cached(SQL).at(TABLE)?;
        let mut rows = statement.query([]).at(TABLE)?;
        let Some(row) = rows.next().at(TABLE)? else { return Err(StoreError::corrupt(TABLE, "its row is missing")) };
        let number = |column: usize| row.get::<_, i64>(column).map(|n| n as u64).at(TABLE);
        let meta = Self {
            incarnation: Incarnation(number(1)?),
            last_sequence: Sequence(number(2)?),
            tree_hash: row.get(9).at(TABLE)?,
            totals: Totals { files: number(3)?, dirs: number(4)?, symlinks: number(5)?, bytes: number(6)? },
            kept_bytes: number(7)?,
        };
        if number(8)? != u64::from(meta.sum()) {
            return Err(StoreError::corrupt(TABLE, "its row does not match its checksum"));
        }
        Ok((meta, number(0)? == 1))
    }

    /// Writes the values, and that the index is open.
    pub(crate) fn write(&self, conn: &Connection) -> Result<(), StoreError> {
        const SQL: &str = "REPLACE INTO meta (one, clean, incarnation, last_sequence, tree_hash, files, dirs, \
                           symlinks, bytes, kept_bytes, sum) VALUES (1, 0, ?, ?, ?, ?, ?, ?, ?, ?, ?)";
        let Totals { files, dirs, symlinks, bytes } = self.totals;
        let mut statement = conn.prepare_cached(SQL).at(TABLE)?;
        let parameters = rusqlite::params![
            self.incarnation.0 as i64,
            self.last_sequence.0 as i64,
            self.tree_hash,
            files as i64,
            dirs as i64,
            symlinks as i64,
            bytes as i64,
            self.kept_bytes as i64,
            self.sum(),
        ];
        statement.execute(parameters).at(TABLE)?;
        Ok(())
    }

    /// Counts a live record.
    pub(crate) fn count_in(&mut self, record: &Record) {
        let totals = &mut self.totals;
        match &record.body {
            Body::Tombstone => {}
            Body::Symlink { .. } => totals.symlinks = totals.symlinks.wrapping_add(1),
            Body::Dir { .. } => totals.dirs = totals.dirs.wrapping_add(1),
            Body::File(file) => {
                totals.files = totals.files.wrapping_add(1);
                totals.bytes = totals.bytes.wrapping_add(file.size);
            }
        }
    }

    /// Takes a live record out of the counts.
    ///
    /// The sums wrap as those of [`Meta::count_in`] do, so that even an impossible size that was
    /// counted in is counted out again.
    pub(crate) fn count_out(&mut self, record: &Record) {
        let totals = &mut self.totals;
        match &record.body {
            Body::Tombstone => {}
            Body::Symlink { .. } => totals.symlinks = totals.symlinks.wrapping_sub(1),
            Body::Dir { .. } => totals.dirs = totals.dirs.wrapping_sub(1),
            Body::File(file) => {
                totals.files = totals.files.wrapping_sub(1);
                totals.bytes = totals.bytes.wrapping_sub(file.size);
            }
        }
    }

    fn sum(&self) -> u32 {
        let Totals { files, dirs, symlinks, bytes } = self.totals;
        let mut covered = vec![b'm'];
        for number in [self.incarnation.0, self.last_sequence.0, files, dirs, symlinks, bytes, self.kept_bytes] {
            covered.extend_from_slice(&number.to_le_bytes());
        }
        covered.extend_from_slice(&self.tree_hash);
        codec::sum_of(&covered)
    }
}

/// Writes down that the index was closed in order.
pub(crate) fn mark_clean(conn: &Connection) -> Result<(), StoreError> {
    conn.execute("UPDATE meta SET clean = 1 WHERE clean <> 1", []).at(TABLE)?;
    Ok(())
}
